"""What becomes of products when something fails: each outcome is one that is told, and nothing is left over."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.media.derived import FIRST_RETRY_S, MAX_TRIES
from recfs.fs.attributes import Changes
from recfs.media.runner import Ended
from recfs.state.nodes import FileNode
from tests.fake_object_store import FakeObjectStore

from .build import Filesystem, pattern
from .making import AUDIO, REC, SOURCE, VIDEO, Maker, Making, looked_into, making
from .test_deriving import ONE, THUMBNAIL
from .test_tier import S3, evict

THUMB_AND_HLS: dict[str, Any] = {"derive": [{"make": "thumbnail"}, {"make": "hls"}]}


@pytest.fixture
async def made(nursery: trio.Nursery, place: Path) -> AsyncIterator[Maker]:
    """One with a source, and a rule."""
    async with making(nursery, place, **ONE) as maker:
        yield maker


async def assert_nothing_left(made: Maker) -> None:
    """No directory of a program, no temp job."""
    assert made.rooms() == []
    if await made.fs.exists("temp/5"):
        assert await made.fs.names("temp/5") == []
    await made.fs.assert_consistent()


async def later(made: Maker, seconds: float) -> None:
    """Time passes, and what is due then is done."""
    made.fs.clock.advance(seconds)
    made.work.deriving._waiting.wake()
    await made.idle()


async def test_without_ffmpeg_it_waits_and_runs_when_it_is_there(made: Maker) -> None:
    made.runner.missing = "ffmpeg is not on the daemon's PATH: install ffmpeg"
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == ("pending", made.runner.missing)
    assert made.work.asking.as_json() == {"pending": 1, "processing": 0, "missing": made.runner.missing}
    made.runner.missing = ""
    await trio.sleep(61)
    await later(made, 61)
    assert await made.status() == ("completed", "")
    assert made.work.asking.as_json()["missing"] is None
    await assert_nothing_left(made)


async def test_what_waits_for_ffmpeg_is_tried_at_once_when_somebody_asks_again(made: Maker) -> None:
    made.runner.missing = "ffmpeg is not on the daemon's PATH: install ffmpeg"
    await made.derive()
    made.runner.missing = ""
    assert [each["status"] for each in await made.derive()] == ["completed"]


@pytest.mark.parametrize(
    ("ended", "code", "said", "reason"),
    [
        (Ended.FAILED, 1, "first\nmoov atom not found\n", "ffmpeg: moov atom not found"),
        (Ended.OUT_OF_TIME, None, "", "it took longer than deriving.timeout"),
        (Ended.TOO_MUCH, -25, "", "it would be larger than deriving.max_output"),
    ],
)
async def test_a_broken_source_fails_and_is_left_alone_until_it_changes(
    made: Maker, ended: Ended, code: int | None, said: str, reason: str
) -> None:
    made.runner.ended, made.runner.code, made.runner.said = ended, code, said
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == ("failed", reason)
    await later(made, 86_400)
    # What it refuses is tried in the other way, too, that there is for a thumbnail.
    assert len(made.runner.runs) == (2 if ended is Ended.FAILED else 1)
    await assert_nothing_left(made)
    made.runner.ended = Ended.WELL
    await made.fs.write(SOURCE, pattern(8000, 1))
    await made.fs.drain()
    assert [each["status"] for each in await made.derive()] == ["completed"]


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ("video", "the source has no video"),
        ("a duration that is known", "the source has no duration"),
        ("a duration", "the source is broken: it has no duration"),
        ("all", "the source is broken: it is no audio and no video"),
    ],
)
async def test_a_source_without_what_it_takes_fails_before_anything_is_run(
    made: Maker, lacking: str, reason: str
) -> None:
    made.work.asking.rules = [type(made.work.asking.rules[0])("sprite")]
    if lacking == "video":
        made.runner.streams = (AUDIO, VIDEO | {"disposition": {"attached_pic": 1}})
    elif lacking == "all":
        made.runner.streams = ()
    else:
        made.runner.duration_s = 0.0 if lacking == "a duration" else None
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == ("failed", reason)
    assert made.runner.runs == []


async def test_a_source_that_was_found_broken_is_refused_before_anything_is_run(made: Maker) -> None:
    await looked_into(made.fs, reason="it is cut off")
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == ("failed", "the source is broken: it is cut off")
    assert (made.runner.looks, made.runner.runs) == (0, [])
    await assert_nothing_left(made)
    await made.fs.write(SOURCE, pattern(8000, 1))
    await made.fs.drain()
    assert [each["status"] for each in await made.derive()] == ["completed"], "it is another file by now"


async def test_a_dry_run_tells_what_could_not_be_made(made: Maker) -> None:
    await looked_into(made.fs, reason="it is cut off")
    (told,) = await made.ask(dry_run=True)
    assert (told["step"], told["reason"]) == ("leave", "the source is broken: it is cut off")
    await looked_into(made.fs, duration_s=3.0)
    (told,) = await made.ask(dry_run=True)
    assert (told["step"], told["reason"]) == ("make", "")
    made.fs.vfs.lives.expire(await made.fs.node(REC), by="test")
    (told,) = await made.ask(dry_run=True)
    assert told["step"] == "leave"
    assert "it takes nothing new" in told["reason"]
    assert (made.runner.looks, made.fs.rows("select count(*) from derived")) == (0, [0])


@pytest.mark.parametrize("when", ["before", "while it is opened"])
async def test_nothing_is_made_of_a_source_that_the_recordings_owner_may_not_read(
    made: Maker, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's file of mode 0600, moved into a recording of one's own: POSIX lets that."""
    fs = made.fs
    for path, uid in ((REC, 20005), (SOURCE, 20007)):
        await fs.vfs.attributes.change(await fs.node(path), Changes(uid=uid, gid=uid))
    source = await fs.node(SOURCE)
    assert isinstance(source, FileNode)
    await fs.vfs.attributes.change(source, Changes(mode=0o600 if when == "before" else 0o644))
    if when == "before":
        (told,) = await made.ask(dry_run=True)
        assert told["step"] == "leave"
    else:
        files = fs.parts.derivation.sources._files
        opened = files.open

        def closing(node: FileNode) -> Any:
            node.mode = 0o600
            fs.parts.behind.node(node)
            return opened(node)

        monkeypatch.setattr(files, "open", closing)
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == (
        "failed", "the source is uid 20007's, and the recording's owner may not read it",
    )  # fmt: skip
    assert made.runner.runs == []
    monkeypatch.undo()
    await fs.vfs.attributes.change(source, Changes(mode=0o644))
    assert [each["status"] for each in await made.derive()] == ["completed"]
    await assert_nothing_left(made)


async def test_what_was_made_while_other_bytes_were_there_is_no_product(made: Maker) -> None:
    """The bytes of the checksum are back when the program ends, and nobody knows which ones it has read."""
    fs, kept = made.fs, await made.fs.read(SOURCE)

    async def swap() -> None:
        if len(made.runner.runs) == 1:
            number = await fs.open(SOURCE, os.O_WRONLY)
            for data in (b"x" * 50, kept[:50]):
                await fs.vfs.files.write(number, 0, data)
            await fs.close(number)
            await fs.drain()

    made.runner.meanwhile = swap
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == ("pending", "the source has changed since")
    assert not await fs.exists(THUMBNAIL)
    await made.ask()
    await made.idle()
    assert await made.status() == ("completed", "")
    assert len(made.runner.runs) == 2
    await assert_nothing_left(made)


async def test_what_was_found_in_a_source_is_not_looked_for_again(made: Maker) -> None:
    made.runner.duration_s = 7.0
    await looked_into(made.fs, duration_s=1.0)
    assert [each["status"] for each in await made.derive()] == ["completed"]
    (arguments,) = made.runner.runs
    assert arguments[arguments.index("-ss") + 1] == "0.500", "half of what the catalogue has"
    assert made.runner.looks == 0


async def test_a_program_that_is_killed_is_tried_again_and_not_for_ever(made: Maker) -> None:
    made.runner.ended, made.runner.code = Ended.CRASHED, -signal.SIGKILL
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == ("pending", "ffmpeg was ended by signal 9")
    for _ in range(MAX_TRIES):
        await later(made, FIRST_RETRY_S * 2**MAX_TRIES)
    assert await made.status() == ("failed", "ffmpeg was ended by signal 9")
    assert len(made.runner.runs) == MAX_TRIES
    await assert_nothing_left(made)
    made.runner.ended = Ended.WELL
    assert [each["status"] for each in await made.derive()] == ["completed"], "asked for again, it is tried again"


async def test_an_exceeded_quota_is_told_and_the_product_comes_once_there_is_room(made: Maker) -> None:
    fs = made.fs
    answers = fs.answers()
    await answers["quota_set"]({"user": "5", "max_bytes": "9001"})
    (state,) = await made.derive()
    assert state["status"] == "pending"
    assert "quota" in state["reason"] or "max_bytes" in state["reason"], state
    assert not await fs.exists(THUMBNAIL)
    await assert_nothing_left(made)
    await answers["quota_set"]({"user": "5", "max_bytes": "1000000"})
    await later(made, FIRST_RETRY_S)
    assert await made.status() == ("completed", "")


@pytest.mark.parametrize("what", ["the source changes", "the source is written to"])
async def test_a_source_that_changes_meanwhile_is_begun_anew(made: Maker, what: str) -> None:
    fs, number = made.fs, []

    async def change() -> None:
        if len(made.runner.runs) > 1:
            return
        if what == "the source changes":
            await fs.write(SOURCE, pattern(7000, 3))
            await fs.drain()
        else:
            number.append(await fs.open(SOURCE, os.O_WRONLY))
            await fs.vfs.files.write(number[0], 0, b"changed")

    made.runner.meanwhile = change
    (state,) = await made.derive()
    if number:
        assert (state["status"], state["reason"]) == ("pending", "the source is writing")
        await fs.close(number[0])
        await fs.drain()
        await made.idle()
    assert await made.status() == ("completed", "")
    data = (await fs.read(SOURCE))[:20]
    assert data in await fs.read(THUMBNAIL), "it is made of what is there now"
    await assert_nothing_left(made)


@pytest.mark.parametrize("what", ["source", "recording"])
async def test_what_goes_meanwhile_takes_its_product_with_it(made: Maker, what: str) -> None:
    fs = made.fs

    async def remove() -> None:
        if what == "source":
            await fs.unlink(SOURCE)
        else:
            await fs.vfs.trees.remove(await fs.node(REC))

    made.runner.meanwhile = remove
    (state,) = await made.derive()
    assert state["status"] is None
    assert not await fs.exists(THUMBNAIL)
    assert fs.rows("select count(*) from derived") == [0]
    await assert_nothing_left(made)


async def test_an_expired_recording_takes_nothing_new(made: Maker) -> None:
    fs = made.fs
    folder = await fs.node(REC)

    async def expire() -> None:
        fs.vfs.lives.expire(folder, by="test")

    made.runner.meanwhile = expire
    (state,) = await made.derive()
    assert state["status"] == "failed"
    assert "it takes nothing new" in state["reason"]
    assert not await fs.exists(THUMBNAIL)
    assert [each["status"] for each in await made.derive()] == ["failed"]
    assert len(made.runner.runs) == 1, "nothing is run for it any more"
    await assert_nothing_left(made)
    fs.vfs.lives.keep(folder, on=True, by="test")
    made.runner.meanwhile = trio.lowlevel.checkpoint
    assert [each["status"] for each in await made.derive()] == ["completed"]


async def test_what_is_made_goes_with_its_recording_and_is_forgotten(made: Maker) -> None:
    fs = made.fs
    await made.derive()
    await fs.vfs.trees.remove(await fs.node(REC))
    await fs.drain()
    assert fs.account() == (0, 0)
    async with trio.open_nursery() as nursery:
        sweep = made.work.asking.sweep()
        told = await sweep.act(sweep.decide(await sweep.look()), nursery)
    assert told == "0 to be made, 1 of what is gone forgotten"
    await assert_nothing_left(made)


async def test_a_fault_of_recfs_itself_costs_one_product_and_is_told(made: Maker, any_log: None) -> None:
    async def fail() -> None:
        raise RuntimeError("a fault")

    made.runner.meanwhile = fail
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == ("pending", "RuntimeError: a fault")
    assert made.fs.parts.problems.count("derive") == 1
    made.runner.meanwhile = trio.lowlevel.checkpoint
    await later(made, FIRST_RETRY_S)
    assert await made.status() == ("completed", "")
    assert made.fs.parts.problems.count("derive") == 0
    await assert_nothing_left(made)


async def test_a_source_in_s3_is_read_from_there_as_far_as_is_allowed(nursery: trio.Nursery, place: Path) -> None:
    fs = Making(nursery, place, **S3, **ONE, deriving={"max_fetch": 9000})
    fs.objects = FakeObjectStore(smallest_part=8 << 20)
    await fs.start()
    made = Maker(fs)
    large = "users/5/recordings/143"
    await fs.write(SOURCE, pattern(9000))
    await fs.write(f"{large}/source.mp4", pattern(9001))
    await fs.drain()
    await evict(fs, SOURCE)
    await evict(fs, f"{large}/source.mp4")
    assert [each["status"] for each in await made.derive()] == ["completed"]
    assert pattern(9000)[:20] in await fs.read(THUMBNAIL)
    (state,) = await made.derive(large)
    assert state["status"] == "pending"
    assert "more than deriving.max_fetch, 9000 B: `recfs fetch` brings it here" in state["reason"]
    await fs.read(f"{large}/source.mp4")  # which brings it here
    await later(made, 601)
    await made.idle()
    assert await fs.exists(f"{large}/assets/thumbnail.png")
    assert made.rooms() == []
    await fs.drain()
    await fs.stop()


async def test_another_file_under_the_name_of_a_source_in_s3_is_not_taken_for_it(
    nursery: trio.Nursery, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = Making(nursery, place, **S3, **ONE)
    fs.objects = FakeObjectStore(smallest_part=8 << 20)
    await fs.start()
    made = Maker(fs)
    other = f"{REC}/other"
    await fs.write(SOURCE, pattern(9000))
    await fs.write(other, pattern(9000, 1))
    await fs.drain()
    await evict(fs, SOURCE)
    of, swapped = type(fs.parts.sessions).of, []

    def swap(sessions: Any, who: Any) -> Any:
        session = of(sessions, who)
        reader = session.reader

        @contextlib.asynccontextmanager
        async def opened(path: bytes, **more: Any) -> AsyncIterator[Any]:
            if not swapped:
                swapped.append(path)
                async with reader(other, **more) as file:  # it has the name for a moment
                    yield file
                return
            async with reader(path, **more) as file:
                yield file

        monkeypatch.setattr(session, "reader", opened)
        return session

    monkeypatch.setattr(type(fs.parts.sessions), "of", swap)
    (state,) = await made.derive()
    assert swapped == [SOURCE.encode()]
    assert made.runner.runs == []
    assert (state["status"], state["reason"]) == ("pending", "the source has changed since")
    await later(made, FIRST_RETRY_S)
    assert await made.status() == ("completed", "")
    assert pattern(9000)[:20] in await fs.read(THUMBNAIL)
    await fs.drain()
    await fs.stop()


# --- a death at every step -------------------------------------------------------------------------------------------


@pytest.mark.table(3)
@pytest.mark.parametrize("step", range(0, 60, 5))
async def test_a_death_at_any_step_leaves_a_whole_product_or_none(
    nursery: trio.Nursery, place: Path, step: int, any_log: None
) -> None:
    """Whatever a daemon had done of it, the next one ends with one whole product, and with nothing else."""
    async with making(nursery, place, **THUMB_AND_HLS) as made:
        fs = made.fs
        await made.derive()
        before = await fs.read(THUMBNAIL)
        await fs.write(SOURCE, pattern(9000, 1))
        await fs.drain()

        async def again(fs: Filesystem) -> None:
            await made.ask()
            await made.idle()
            await fs.drain()

        if not await fs.until_stopped(again, step):
            await fs.reopen()
        assert await fs.read(THUMBNAIL) in (before, before.replace(pattern(9000)[:64], pattern(9000, 1)[:64]))
        assert [each["status"] for each in await made.derive()] == ["completed"] * 2
        assert pattern(9000, 1)[:20] in await fs.read(THUMBNAIL)
        assert len(await fs.names(f"{REC}/assets")) == 3
        await assert_nothing_left(made)


async def test_a_full_disk_is_not_filled_further(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, programs = made.fs, made.fs.parts.derivation.programs
    monkeypatch.setattr(programs, "room", lambda: 100)
    (state,) = await made.derive()
    assert (state["status"], state["reason"]) == ("pending", "nothing is made while the disk is down to min_free")
    assert made.runner.runs == []
    monkeypatch.setattr(programs, "room", lambda: 3 << 20)
    made.runner.ended = Ended.TOO_MUCH
    await later(made, FIRST_RETRY_S)
    assert made.runner.limits.file_bytes == 3 << 20
    status, reason = await made.status()
    assert (status, reason.startswith("3 MiB above min_free have not been enough")) == ("pending", True)
    made.runner.ended = Ended.WELL
    await later(made, 2 * FIRST_RETRY_S)
    assert await made.status() == ("completed", "")
    assert await fs.exists(THUMBNAIL)
