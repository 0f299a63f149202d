"""Committed files are looked into: what was found survives deaths, follows renames, and is about one version alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from recfs.core.media.facts import Facts
from recfs.core.media.kinds import Kind
from recfs.core.media.verdicts import Verdict
from recfs.errors import MediaUnavailable, NoAttribute
from recfs.media.checks import Finding
from recfs.services.probing import PART, Probing
from recfs.services.probing import prober as probing
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, filesystem

ExpectLog = Callable[[str], None]
FACTS = Facts("mp4", "video/mp4", 2.5, 800, 2, "h264", 64, 48, 29.97, "aac", 48_000, 2, {"title": "x"})


class FakeChecks:
    """Says what a test wants to be found, by the bytes of a file."""

    def __init__(self) -> None:
        self.found: dict[bytes, Finding | Exception] = {}
        self.missing: str | None = None
        self.asked: list[bool] = []
        """Whether the program was to be used at once, each time it was asked for."""
        self.looks: list[tuple[Kind, bytes]] = []
        self.hold: trio.Event | None = None
        """Where set, looks wait for it."""

    async def available(self, *, to_use: bool = True) -> str | None:
        self.asked.append(to_use)
        return self.missing

    async def look(self, kind: Kind, fd: int, size: int) -> Finding:
        data = os.pread(fd, size, 0)
        self.looks.append((kind, data))
        if self.hold is not None:
            await self.hold.wait()
        found = self.found.get(data, Finding(None, FACTS))
        if isinstance(found, Exception):
            raise found
        return found


class Looking:
    """A file system whose files are looked into."""

    def __init__(self, fs: Filesystem) -> None:
        self.fs = fs
        self.checks = FakeChecks()

    @property
    def probing(self) -> Probing:
        found = self.fs.parts.contents.probing
        assert found is not None
        return found

    async def start(self) -> None:
        """As mounted."""
        await self.fs.reopen()
        self.probing._checks = self.checks  # type: ignore[assignment]
        self.fs._nursery.start_soon(self._run)

    async def _run(self) -> None:
        end = self.fs._end
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.probing.run)
            await end.wait()
            nursery.cancel_scope.cancel()

    async def write(self, name: str, data: bytes) -> None:
        await self.fs.write(f"{REC}/{name}", data)
        await self.fs.drain()

    async def attribute(self, name: str, what: str) -> str | None:
        """user.recfs.*; None: there is none."""
        node = await self.fs.node(f"{REC}/{name}")
        try:
            return (await self.fs.xattrs.get(node.ino, f"user.recfs.{what}".encode())).decode()
        except NoAttribute:
            return None

    async def until(self, name: str, verdict: str | None) -> None:
        with trio.fail_after(GUARD_S):
            while await self.attribute(name, "media") != verdict:  # noqa: ASYNC110  # it tells nobody
                await trio.sleep(0.005)


@asynccontextmanager
async def looking(root: Path, **settings: Any) -> AsyncIterator[Looking]:
    async with filesystem(root / "store", services=False, start=False, **settings) as fs:
        found = Looking(fs)
        await found.start()
        yield found


async def test_what_is_in_a_file_is_told_once_it_was_looked_into(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        await it.write("video.mp4", b"a")
        await it.until("video.mp4", "whole")
        asked = ("duration", "mime", "container", "width", "frame_rate", "audio_codec", "channels", "status")
        told = {what: await it.attribute("video.mp4", what) for what in asked}
        assert told == {
            "duration": "2.5", "mime": "video/mp4", "container": "mp4", "width": "64", "frame_rate": "29.97",
            "audio_codec": "aac", "channels": "2", "status": "completed",
        }  # fmt: skip
        assert it.checks.looks == [(Kind.VIDEO, b"a")]
        await it.write("notes.txt", b"b")
        assert await it.attribute("notes.txt", "media") is None
        assert await it.attribute("notes.txt", "status") == "completed"


async def test_a_broken_file_is_loud_and_a_good_overwrite_clears_it(tmp_path: Path, expect_log: ExpectLog) -> None:
    expect_log("video.mp4 is broken: truncated")
    async with looking(tmp_path) as it:
        it.checks.found[b"bad"] = Finding("truncated: it has 3 bytes of 9")
        await it.write("video.mp4", b"bad")
        await it.until("video.mp4", "broken")
        assert await it.attribute("video.mp4", "media_reason") == "truncated: it has 3 bytes of 9"
        assert await it.attribute("video.mp4", "status") == "failed"
        assert await it.attribute("video.mp4", "state") == "committed"
        await it.write("video.mp4", b"good")
        await it.until("video.mp4", "whole")
        assert await it.attribute("video.mp4", "media_reason") is None
        assert await it.attribute("video.mp4", "status") == "completed"


async def test_a_name_that_was_given_out_is_not_looked_into_until_somebody_writes(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    expect_log("topics_v1.json is broken: empty")
    async with looking(tmp_path) as it:
        it.checks.found[b""] = Finding("empty")
        it.checks.found[b"{}"] = Finding()

        async def next_version() -> str:
            asked = {"path": REC, "name": "topics", "extension": "json"}
            return str((await it.fs.answers()["next_version"](asked))["name"])

        await it.fs.mkdirs(REC)
        assert [await next_version(), await next_version()] == ["topics_v1.json", "topics_v2.json"]
        await it.fs.crash()  # what is reserved is known after a death, too
        await it.start()
        await it.write("after.json", b"{}")
        await it.until("after.json", "whole")  # so the ones before were seen
        for name in ("topics_v1.json", "topics_v2.json"):
            told = [await it.attribute(name, what) for what in ("state", "media", "media_reason", "status")]
            assert told == ["committed", None, None, None]
            node = await it.fs.node(f"{REC}/{name}")
            assert await it.fs.xattrs.list(node.ino) == []
        assert [data for _, data in it.checks.looks] == [b"{}"]
        await it.fs.drain()
        assert it.fs.rows("select count(*) from media where verdict <> 'whole'") == [0]
        await it.write("topics_v1.json", b"")  # opened, and closed without a byte: that is no document
        await it.until("topics_v1.json", "broken")
        await it.write("topics_v2.json", b"{}")
        await it.until("topics_v2.json", "whole")
        await it.write("topics_v2.json", b"")
        expect_log("topics_v2.json is broken: empty")
        await it.until("topics_v2.json", "broken")
        await it.write("topics_v3.json", b"")  # nobody gave that out
        expect_log("topics_v3.json is broken: empty")
        await it.until("topics_v3.json", "broken")


async def test_a_copy_is_not_looked_into_again_and_a_rename_keeps_what_was_found(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    expect_log("audio.mp3 is broken: it is a video")
    async with looking(tmp_path) as it:
        await it.write("one.mp4", b"same")
        await it.until("one.mp4", "whole")
        await it.write("two.mp4", b"same")
        await it.until("two.mp4", "whole")
        await it.fs.rename(f"{REC}/two.mp4", f"{REC}/three.mov")
        await it.until("three.mov", "whole")
        assert len(it.checks.looks) == 1
        assert it.probing.counts["copied"] == 1
        # A name that says something else is another question, which what is known answers.
        await it.fs.rename(f"{REC}/three.mov", f"{REC}/audio.mp3")
        await it.until("audio.mp3", "broken")
        assert len(it.checks.looks) == 1
        await it.fs.rename(f"{REC}/audio.mp3", f"{REC}/audio.bin")
        await it.fs.rename(f"{REC}/audio.bin", f"{REC}/video.mp4")
        await it.until("video.mp4", "whole")


async def test_what_was_not_looked_into_is_found_again_after_a_death(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        it.checks.hold = trio.Event()
        await it.write("a.mp4", b"a")
        await it.until("a.mp4", "pending")
        assert await it.attribute("a.mp4", "status") == "validating"
        await it.fs.parts.behind.flush()
        with trio.fail_after(GUARD_S):
            while not it.checks.looks:  # noqa: ASYNC110
                await trio.sleep(0.005)
        await it.fs.crash()
        it.checks.hold = None
        await it.start()
        await it.until("a.mp4", "whole")


async def test_a_look_that_a_handover_ends_goes_on_in_the_successor_once(tmp_path: Path) -> None:
    """The daemon that leaves has written all that was in memory; what it was at is looked into by the next one."""
    async with looking(tmp_path) as it:
        it.checks.hold = trio.Event()
        for name in ("a.mp4", "b.mp4"):
            await it.write(name, name.encode())
        with trio.fail_after(GUARD_S):
            while not it.checks.looks:  # noqa: ASYNC110
                await trio.sleep(0.005)
        before = list(it.checks.looks)
        await it.fs.stop()
        assert it.fs.rows("select verdict from media") == ["pending", "pending"]
        assert not it.probing._at_work
        it.checks.hold = None
        await it.start()
        for name in ("a.mp4", "b.mp4"):
            await it.until(name, "whole")
        assert sorted(it.checks.looks[len(before) :]) == [(Kind.EITHER, b"a.mp4"), (Kind.EITHER, b"b.mp4")]
        assert it.probing.counts["whole"] == 2


async def test_what_was_found_before_a_handover_is_not_looked_for_after_it(tmp_path: Path) -> None:
    """A look that ends after the last rows were written, and before the daemon does, is written on the way out."""
    async with looking(tmp_path) as it:
        it.checks.hold = trio.Event()
        await it.write("a.mp4", b"a")
        with trio.fail_after(GUARD_S):
            while not it.checks.looks:  # noqa: ASYNC110
                await trio.sleep(0.005)
        await it.fs.parts.behind.flush()
        it.checks.hold.set()
        await trio.testing.wait_all_tasks_blocked()
        await it.fs.stop()
        assert it.fs.rows("select verdict from media") == ["whole"]
        it.checks.hold = None
        await it.start()
        await it.write("b.mp4", b"b")
        await it.until("b.mp4", "whole")
        assert await it.attribute("a.mp4", "media") == "whole"
        assert it.checks.looks == [(Kind.EITHER, b"a"), (Kind.EITHER, b"b")]


async def test_what_was_committed_before_anything_was_looked_into_is_found(tmp_path: Path) -> None:
    async with filesystem(tmp_path / "store", media={"enabled": False}) as fs:
        assert fs.parts.contents.probing is None
        for name in ("a.mp4", "b.txt", "c.json"):
            await fs.write(f"{REC}/{name}", name.encode())
        await fs.drain()
    async with looking(tmp_path) as it:
        await it.until("a.mp4", "whole")
        await it.until("c.json", "whole")
        assert await it.attribute("b.txt", "media") is None
        assert len(it.checks.looks) == 2


async def test_without_ffprobe_all_else_goes_on_and_it_is_told(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        it.checks.missing = "ffprobe is not on the daemon's PATH: install ffmpeg"
        await it.write("a.json", b"{}")
        await it.write("a.mp4", b"a")
        await it.until("a.json", "whole")
        assert await it.attribute("a.mp4", "media") == "pending"
        assert it.probing.as_json()["missing"] == it.checks.missing
        it.checks.missing = None
        it.probing.rows.queued.set()
        await it.until("a.mp4", "whole")
        assert it.probing.as_json()["missing"] is None


async def test_no_program_is_run_before_there_is_something_to_look_into(tmp_path: Path) -> None:
    """A start with an empty queue costs no process."""
    async with looking(tmp_path) as it:
        await it.write("notes.bin", b"nothing that is looked into")
        await it.fs.drain()
        assert True not in it.checks.asked
        await it.write("a.mp4", b"a")
        await it.until("a.mp4", "whole")
        assert True in it.checks.asked


async def test_a_program_that_goes_away_in_between_fails_no_file(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        it.checks.found[b"a"] = MediaUnavailable("ffprobe is gone")
        await it.write("a.mp4", b"a")
        with trio.fail_after(GUARD_S):
            while it.probing.missing is None:  # noqa: ASYNC110
                await trio.sleep(0.005)
        assert await it.attribute("a.mp4", "media") == "pending"


async def test_what_cannot_be_looked_into_is_tried_again_and_then_unknown(
    tmp_path: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("a.mp4 cannot be looked into: ffprobe ended: out of time")
    monkeypatch.setattr(probing, "AGAIN_S", (0.01, 0.01))
    async with looking(tmp_path) as it:
        it.checks.found[b"a"] = Finding("ffprobe ended: out of time", is_sure=False)
        await it.write("a.mp4", b"a")
        await it.until("a.mp4", "unknown")
        assert len(it.checks.looks) == 3
        assert await it.attribute("a.mp4", "status") == "completed"
        it.checks.found.clear()
        assert it.probing.again(await it.fs.node(f"{REC}/a.mp4"))  # type: ignore[arg-type]
        await it.until("a.mp4", "whole")


async def test_what_no_other_look_would_change_is_unknown_at_once(tmp_path: Path, expect_log: ExpectLog) -> None:
    """The size of a committed file is final, and so is that it is beyond `largest_text`."""
    expect_log("a.json cannot be looked into: it is larger than texts that are looked into")
    async with looking(tmp_path) as it:
        it.checks.found[b"{}"] = Finding("it is larger than texts that are looked into", is_sure=False, is_final=True)
        await it.write("a.json", b"{}")
        await it.until("a.json", "unknown")
        assert len(it.checks.looks) == 1
        assert it.probing.as_json()["again"] == it.probing.counts["again"] == 0
        assert await it.attribute("a.json", "media_reason") == "it is larger than texts that are looked into"
        it.checks.found.clear()  # the limit was raised
        assert it.probing.again(await it.fs.node(f"{REC}/a.json"))
        await it.until("a.json", "whole")


async def test_a_broken_file_keeps_what_it_says_of_itself(tmp_path: Path, expect_log: ExpectLog) -> None:
    """Whatever a copy is called, it is as broken, and is not looked into again; nor is it whole under another name."""
    expect_log("is broken: truncated")
    async with looking(tmp_path) as it:
        it.checks.found[b"bad"] = Finding("truncated: it has 3 bytes of 9", FACTS)
        await it.write("video.mp4", b"bad")
        await it.until("video.mp4", "broken")
        assert await it.attribute("video.mp4", "duration") == "2.5"
        assert await it.attribute("video.mp4", "media_reason") == "truncated: it has 3 bytes of 9"
        for name in ("copy.mov", "audio.mp3"):
            await it.write(name, b"bad")
            await it.until(name, "broken")
            assert await it.attribute(name, "media_reason") == "truncated: it has 3 bytes of 9"
            assert await it.attribute(name, "width") == "64"
        assert len(it.checks.looks) == 1


async def test_a_copy_of_what_only_its_name_made_broken_is_looked_into(tmp_path: Path, expect_log: ExpectLog) -> None:
    expect_log("is broken: it is a video")
    async with looking(tmp_path) as it:
        it.checks.found[b"a"] = Finding("it is a video", FACTS)
        await it.write("audio.mp3", b"a")
        await it.until("audio.mp3", "broken")
        await it.write("sound.wav", b"a")
        await it.until("sound.wav", "broken")
        assert len(it.checks.looks) == 1
        it.checks.found[b"a"] = Finding("its end cannot be decoded", FACTS)
        expect_log("video.mp4 is broken: its end cannot be decoded")
        await it.write("video.mp4", b"a")
        await it.until("video.mp4", "broken")
        assert await it.attribute("video.mp4", "media_reason") == "its end cannot be decoded"


async def test_facts_that_another_version_kept_are_found_anew(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        await it.write("one.mp4", b"a")
        await it.until("one.mp4", "whole")
        row = await it.probing.rows.of(await it.fs.node(f"{REC}/one.mp4"))
        assert row is not None
        it.probing.rows.put(row._replace(facts='{"of_later_versions": 1}'))
        await it.fs.parts.behind.flush()
        await it.write("two.mp4", b"a")
        await it.until("two.mp4", "whole")
        assert await it.attribute("two.mp4", "duration") == "2.5"
        assert len(it.checks.looks) == 2


async def test_what_is_found_of_bytes_that_the_file_has_no_more_says_nothing(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        it.checks.hold = trio.Event()
        it.checks.found[b"old"] = Finding("it is old")
        await it.write("a.mp4", b"old")
        with trio.fail_after(GUARD_S):
            while not it.checks.looks:  # noqa: ASYNC110
                await trio.sleep(0.005)
        await it.write("a.mp4", b"new")
        it.checks.hold.set()
        await it.until("a.mp4", "whole")


async def test_what_was_read_while_other_bytes_were_there_says_nothing_of_those_that_are_back(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        it.checks.hold = trio.Event()
        look, looks = it.checks.look, 0

        async def taken_in(kind: Kind, fd: int, size: int) -> Finding:
            nonlocal looks
            looks += 1
            is_first = looks == 1
            found = await look(kind, fd, size)
            return Finding("it is what was there meanwhile") if is_first else found

        it.checks.look = taken_in  # type: ignore[method-assign]
        await it.write("a.mp4", b"old")
        with trio.fail_after(GUARD_S):
            while not it.checks.looks:  # noqa: ASYNC110
                await trio.sleep(0.005)
        number = await it.fs.open(f"{REC}/a.mp4", os.O_WRONLY)
        for data in (b"new", b"old"):
            await it.fs.vfs.files.write(number, 0, data)
        await it.fs.close(number)
        await it.fs.drain()
        it.checks.hold.set()
        await it.until("a.mp4", "whole")
        assert looks == 2
        await it.write("b.mp4", b"old")
        await it.until("b.mp4", "whole")


async def test_what_is_known_goes_with_the_file(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        for name in ("a.mp4", "b.mp4"):
            await it.write(name, name.encode())
            await it.until(name, "whole")
        inos = [(await it.fs.node(f"{REC}/{name}")).ino for name in ("a.mp4", "b.mp4")]
        await it.fs.parts.behind.flush()
        catalogue = it.fs.parts.catalogue
        assert [row is not None for row in [await catalogue.media(ino) for ino in inos]] == [True, True]
        await it.fs.unlink(f"{REC}/a.mp4")
        await it.fs.parts.behind.flush()
        assert [row is not None for row in [await catalogue.media(ino) for ino in inos]] == [False, True]


@pytest.mark.needs("ffmpeg", "ffprobe")
@pytest.mark.slow
async def test_a_real_recording_and_a_real_stump_of_one(
    tmp_path: Path, media_samples: dict[str, Path], expect_log: ExpectLog
) -> None:
    expect_log("video.mp4 is broken: its index")
    async with filesystem(tmp_path / "store", services=False, start=False) as fs:
        await fs.start()
        it = Looking(fs)
        fs._nursery.start_soon(it._run)
        data = media_samples["mp4"].read_bytes()
        await it.write("source.mp4", data)
        await it.until("source.mp4", "whole")
        assert await it.attribute("source.mp4", "duration") == "1"
        await it.write("video.mp4", data[: data.index(b"moov") - 4])
        await it.until("video.mp4", "broken")


def test_the_words_of_the_catalogue_are_those_of_the_core() -> None:
    sql = (Path(probing.__file__).parents[2] / "catalogue" / "schema.sql").read_text()
    table = sql[sql.index("create table media (") :]
    assert "verdict in (" + ", ".join(repr(each.value) for each in Verdict) + ")" in table
    assert PART == "media"


@pytest.mark.parametrize("share", [512, 4])
async def test_owners_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    """One of them has more to be looked into than is read at a time, before the other."""
    monkeypatch.setattr(probing, "SHARE", share)
    monkeypatch.setattr(probing, "PAGE", 3)
    monkeypatch.setattr(probing, "READ_PAUSE_S", 0.01)
    async with looking(tmp_path, media={"workers": 1}) as it:
        it.checks.hold = trio.Event()
        for number in range(12):
            await it.write(f"{number}.mp4", b"%d" % number)
        await it.fs.write("users/77/recordings/1/theirs.mp4", b"theirs")
        await it.fs.drain()
        await trio.sleep(0.1)
        it.checks.hold.set()
        for number in range(12):
            await it.until(f"{number}.mp4", "whole")
        order = [data for _, data in it.checks.looks]
        assert order.index(b"theirs") <= 2, order
        assert sorted(order) == sorted([b"theirs", *(b"%d" % number for number in range(12))])
