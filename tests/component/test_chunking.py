"""How long audio is cut: the plan is kept, and what is missing of its chunks is written, several at a time."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.catalogue import deriving
from recfs.core.observing.kinds import EventKind
from recfs.errors import Busy, InvalidArgument, InvalidPath, IsADirectory, NotFound
from recfs.fs.attributes import Changes
from recfs.media.runner import Ended
from recfs.services.deriving import chunking, plans

from .build import OPERATOR, pattern, until
from .making import REC, SOURCE, VIDEO, Maker, looked_into, making

SETTINGS: dict[str, Any] = {"chunks": {"threshold": 60, "length": 30}, "deriving": {"jobs": 2}}


@pytest.fixture
async def made(nursery: trio.Nursery, place: Path) -> AsyncIterator[Maker]:
    """One with audio of 100 s."""
    async with making(nursery, place, **SETTINGS) as maker:
        yield maker


async def extracted(made: Maker, **wishes: Any) -> dict[str, Any]:
    """`recfs chunks --extract`, to its end."""
    told = await made.work.chunking.extract(SOURCE, **wishes)
    return await written(made, told["ino"])


async def written(made: Maker, ino: int) -> dict[str, Any]:
    """What has come of it."""
    while (told := await made.work.chunking.wait(ino, 1.0))["writing"]:
        pass
    return dict(told)


def statuses(told: dict[str, Any]) -> list[str]:
    """Of all chunks."""
    return [each["status"] for each in told["chunks"]]


async def test_the_plan_is_made_once_and_kept(made: Maker) -> None:
    told = await made.work.chunking.plan(SOURCE)
    assert [(each["index"], each["start_s"], each["end_s"], each["name"]) for each in told["chunks"]] == [
        (0, 0.0, 30.0, "source_chunk_000.mp3"), (1, 30.0, 60.0, "source_chunk_001.mp3"),
        (2, 60.0, 90.0, "source_chunk_002.mp3"), (3, 90.0, 100.0, "source_chunk_003.mp3"),
    ]  # fmt: skip
    assert {(each["total"], each["status"]) for each in told["chunks"]} == {(4, "pending")}
    assert (told["total"], told["duration_s"], told["job"], told["writing"]) == (4, 100.0, None, False)
    made.runner.missing = "ffmpeg is not on the daemon's PATH: install ffmpeg"  # nothing is looked at again
    assert await made.work.chunking.plan(SOURCE) == told
    await made.die()
    assert await made.work.chunking.plan(SOURCE) == told
    await made.fs.rename(SOURCE, f"{REC}/other.mp4")
    assert (await made.work.chunking.plan(f"{REC}/other.mp4"))["chunks"] == told["chunks"]


async def test_another_way_to_cut_or_another_version_has_another_plan(made: Maker) -> None:
    fs, work = made.fs, made.work.chunking
    await work.plan(SOURCE)
    told = await work.plan(SOURCE, length_s=60.0, overlap_s=5.0)
    assert [(each["start_s"], each["end_s"]) for each in told["chunks"]] == [(0.0, 60.0), (55.0, 100.0)]
    assert await work.plan(SOURCE) == told, "as it was planned last"
    made.runner.duration_s = 70.0
    await fs.write(SOURCE, pattern(9000, 1))
    await fs.drain()
    told = await work.plan(SOURCE)
    assert [(each["start_s"], each["end_s"]) for each in told["chunks"]] == [(0.0, 60.0), (55.0, 70.0)]


async def test_it_is_cut_at_silences(made: Maker) -> None:
    made.runner.silences = "lavfi.silence_start=31\nlavfi.silence_end=32.5\nlavfi.silence_start=50\n"
    told = await made.work.chunking.plan(SOURCE, silences=True)
    assert [each["end_s"] for each in told["chunks"]] == [31.75, 61.75, 91.75, 100.0]
    assert made.rooms() == []


@pytest.mark.parametrize(
    ("path", "duration_s", "streams", "error", "said"),
    [
        (SOURCE, 60.0, None, InvalidArgument, "its 60 s are not more than chunks.threshold, 60 s: it stays whole"),
        (SOURCE, 100.0, [VIDEO], InvalidArgument, "it has no audio"),
        (REC, 100.0, None, IsADirectory, "one audio or video file"),
        (f"{REC}/none", 100.0, None, NotFound, "no such file"),
    ],
)
async def test_what_is_not_cut_is_refused(
    made: Maker, path: str, duration_s: float, streams: Any, error: type[Exception], said: str
) -> None:
    made.runner.duration_s = duration_s
    made.runner.streams = streams or made.runner.streams
    with pytest.raises(error, match=said):
        await made.work.chunking.plan(path)
    with pytest.raises(InvalidArgument, match="at most half of the length"):
        await made.work.chunking.plan(SOURCE, overlap_s=20.0)


async def test_what_was_found_broken_is_not_cut(made: Maker) -> None:
    await looked_into(made.fs, reason="its index (moov) is missing")
    with pytest.raises(InvalidArgument, match=r"142/source\.mp4: the source is broken: its index \(moov\) is missing$"):
        await made.work.chunking.extract(SOURCE)
    assert (made.runner.looks, made.runner.runs) == (0, [])


async def test_the_length_that_is_known_is_cut(made: Maker) -> None:
    await looked_into(made.fs, duration_s=70.0)
    told = await made.work.chunking.plan(SOURCE)
    assert (told["duration_s"], made.runner.looks) == (70.0, 0)


@pytest.mark.parametrize("form", ["mp3", "wav"])
async def test_chunks_are_written_in_parallel_each_with_its_checksum(made: Maker, form: str) -> None:
    fs = made.fs

    async def take_long() -> None:
        await trio.sleep(5)

    made.runner.meanwhile = take_long
    told = await extracted(made, format=form)
    assert statuses(told) == ["completed"] * 4
    assert made.runner.most == 2
    assert told["job"].startswith("temp/5/")
    rows = dict(fs.rows("select name, hex(sha256) from node where kind = 'file'"))
    for each in told["chunks"]:
        assert each["name"].endswith(f".{form}")
        assert rows[each["name"].encode()] == each["sha256"].upper()
        data = await fs.read(f"{told['job']}/{each['name']}")
        assert len(data) == each["size_bytes"]
    assert fs.account()[1] == 5, "they are charged to the user"
    assert made.rooms() == []
    await fs.assert_consistent()


async def test_a_new_run_writes_what_is_missing_and_nothing_else(made: Maker) -> None:
    fs = made.fs
    made.runner.ended, made.runner.said, made.runner.code = Ended.FAILED, "invalid data\n", 1
    first = await extracted(made)
    assert statuses(first) == ["failed"] * 4
    assert {each["reason"] for each in first["chunks"]} == {"ffmpeg: invalid data"}
    made.runner.ended = Ended.WELL
    made.runner.runs.clear()
    told = await extracted(made)
    assert (statuses(told), len(made.runner.runs)) == (["completed"] * 4, 4)
    assert told["job"] == first["job"]
    await fs.unlink(f"{told['job']}/source_chunk_002.mp3")
    await fs.write(f"{told['job']}/source_chunk_001.mp3", b"somebody's")
    await fs.drain()
    made.runner.runs.clear()
    told = await extracted(made)
    assert (statuses(told), len(made.runner.runs)) == (["completed"] * 4, 2)
    await fs.assert_consistent()


async def test_a_death_half_way_is_gone_on_with(made: Maker) -> None:
    async def die_later() -> None:
        if len(made.runner.runs) == 3:
            await trio.sleep_forever()

    made.runner.meanwhile = die_later
    told = await made.work.chunking.extract(SOURCE)
    while told.get("counts", {}).get("completed", 0) < 3:
        told = await made.work.chunking.wait(told["ino"], 1.0)
    await made.die()
    made.runner.meanwhile = trio.lowlevel.checkpoint
    await until(lambda: "processing" not in made.fs.rows("select status from chunk"))
    told = await made.work.chunking.plan(SOURCE)
    assert sorted(statuses(told)) == ["completed"] * 3 + ["pending"]
    assert made.rooms() == []
    made.runner.runs.clear()
    told = await extracted(made)
    assert (statuses(told), len(made.runner.runs)) == (["completed"] * 4, 1)
    await made.fs.assert_consistent()


async def test_chunks_that_went_with_their_temp_job_are_pending_again(made: Maker) -> None:
    fs = made.fs
    told = await extracted(made)
    fs.clock.advance(2 * 86_400)
    await fs.parts.work.upkeep.sweeper.sweep_temp(dry_run=False)
    assert not await fs.exists(told["job"])
    await fs.drain()
    await fs.parts.catalogue.forget_gone()
    assert statuses(await made.work.chunking.plan(SOURCE)) == ["pending"] * 4
    assert statuses(await extracted(made)) == ["completed"] * 4


@pytest.mark.parametrize("what", ["changes", "goes"])
async def test_a_source_that_is_another_one_meanwhile_makes_all_of_them_worthless(made: Maker, what: str) -> None:
    fs = made.fs

    async def meanwhile() -> None:
        if len(made.runner.runs) == 4:
            if what == "goes":
                await fs.unlink(SOURCE)
            else:
                await fs.write(SOURCE, pattern(9000, 1))

    made.runner.meanwhile = meanwhile
    told = await made.work.chunking.extract(SOURCE)
    if what == "changes":
        told = await written(made, told["ino"])
        assert statuses(told) == ["failed"] * 4
        assert told["chunks"][0]["reason"] == "the source has changed since"
        made.runner.meanwhile = trio.lowlevel.checkpoint
        await fs.drain()
        assert statuses(await extracted(made)) == ["completed"] * 4
        return
    with pytest.raises(NotFound, match="the file is gone"):
        await written(made, told["ino"])
    await fs.drain()
    assert await fs.parts.catalogue.forget_gone() == 1
    assert fs.rows("select count(*) from chunk") == [0]


async def test_a_plan_is_not_changed_while_its_chunks_are_written(made: Maker) -> None:
    async def ask() -> None:
        with pytest.raises(Busy, match="its chunks are being written"):
            await made.work.chunking.plan(SOURCE, length_s=50.0)

    made.runner.meanwhile = ask
    assert statuses(await extracted(made)) == ["completed"] * 4


async def test_what_is_nobodys_is_planned_and_not_extracted(made: Maker) -> None:
    await made.fs.write("shared/lesson.mp3", pattern(500))
    await made.fs.drain()
    assert (await made.work.chunking.plan("shared/lesson.mp3"))["total"] == 4
    with pytest.raises(InvalidArgument, match="no user's"):
        await made.work.chunking.extract("shared/lesson.mp3")


async def test_an_exceeded_quota_fails_the_chunks_that_do_not_fit(made: Maker) -> None:
    await made.fs.answers()["quota_set"]({"user": "5", "max_files": "3"})
    told = await extracted(made)
    assert sorted(statuses(told)) == ["completed"] * 2 + ["failed"] * 2
    assert "max_files" in next(each["reason"] for each in told["chunks"] if each["reason"])
    await made.fs.answers()["quota_set"]({"user": "5", "max_files": "30"})
    assert statuses(await extracted(made)) == ["completed"] * 4


VICTIM = "users/6/recordings/1/source_chunk_000.mp3"


async def plant(made: Maker, job: str, target: str = f"../../../{VICTIM}") -> None:
    """A user's symbolic link where a chunk is about to come."""
    await made.fs.vfs.symlink(*await made.fs.folder(f"{job}/source_chunk_000.mp3"), target.encode(), OPERATOR)


async def job_of(made: Maker) -> str:
    """The temp job of the plan."""
    return str((await made.work.chunking.plan(SOURCE))["job"])


@pytest.mark.parametrize("whole", [False, True])
async def test_no_chunk_is_written_through_a_link_that_is_planted_meanwhile(made: Maker, whole: bool) -> None:
    """Nor is one where the user has put a directory of links in the place of the temp job."""
    fs, planted = made.fs, False
    await fs.write(VICTIM, b"somebody else's")
    await fs.drain()

    async def swap() -> None:
        nonlocal planted
        if planted:
            return
        planted = True
        job = await job_of(made)
        if whole:
            await fs.rename(job, "temp/5/900")
            await fs.mkdirs(job)
        await plant(made, job)

    made.runner.meanwhile = swap
    told = await extracted(made)
    await fs.drain()
    assert await fs.read(VICTIM) == b"somebody else's"
    assert await fs.names("users/6/recordings/1") == ["source_chunk_000.mp3"]
    assert await fs.vfs.readlink((await fs.node(f"{told['job']}/source_chunk_000.mp3")).ino)
    if whole:
        assert await fs.names(told["job"]) == ["source_chunk_000.mp3"]
        assert await fs.names("temp/5/900") == [each["name"] for each in told["chunks"]]
        assert statuses(told) == ["completed"] * 4
    else:
        assert statuses(told) == ["failed"] + ["completed"] * 3
        assert "symbolic link" in told["chunks"][0]["reason"]
    await fs.assert_consistent()


async def test_a_link_in_the_very_moment_of_the_rename_is_not_replaced(made: Maker) -> None:
    fs = made.fs
    rename = fs.vfs.rename

    async def late(old: int, old_name: bytes, new: int, new_name: bytes, *rest: Any, **more: Any) -> Any:
        if new_name == b"source_chunk_000.mp3":
            await plant(made, await job_of(made))
        return await rename(old, old_name, new, new_name, *rest, **more)

    fs.vfs.rename = late
    told = await extracted(made)
    assert statuses(told) == ["failed"] + ["completed"] * 3
    assert await fs.vfs.readlink((await fs.node(f"{told['job']}/source_chunk_000.mp3")).ino)
    assert len(await fs.names(told["job"])) == 4, "nothing is left aside"


async def test_a_directory_that_is_not_recfs_s_is_no_temp_job(made: Maker) -> None:
    """It would be given to the owner of the source, whose it is not, and written to."""
    fs = made.fs
    made.runner.ended, made.runner.said, made.runner.code = Ended.FAILED, "invalid data\n", 1
    job = (await extracted(made))["job"]
    made.runner.ended = Ended.WELL
    await fs.rename(job, "temp/5/900")
    with pytest.raises(InvalidPath):  # the layout has no links there
        await fs.vfs.symlink(*await fs.folder(job), b"../../users/6/recordings/1", OPERATOR)
    folder = await fs.mkdirs(job)
    await fs.vfs.setattr(folder.ino, Changes(uid=1006, gid=1006), OPERATOR)
    told = await extracted(made)
    assert statuses(told) == ["failed"] * 4
    assert "not recfs's" in told["chunks"][0]["reason"]
    assert (await fs.node(job)).uid == 1006
    assert await fs.names(job) == []


@pytest.mark.parametrize("who", ["the owner", "root"])
async def test_after_a_death_another_directory_at_the_path_of_a_temp_job_is_none(made: Maker, who: str) -> None:
    """Known by what it was made as, not by its path: also to the daemon that comes next."""
    fs = made.fs
    for path in ("users/5", "users/5/recordings", REC, SOURCE):
        await fs.vfs.setattr((await fs.node(path)).ino, Changes(uid=1005, gid=1005), OPERATOR)
    made.runner.ended, made.runner.said, made.runner.code = Ended.FAILED, "invalid data\n", 1
    job = (await extracted(made))["job"]
    made.runner.ended = Ended.WELL
    await fs.rename(job, "temp/5/900")
    await fs.write(f"{job}/mine.txt", b"mine")
    uid = 1005 if who == "the owner" else 0
    await fs.vfs.setattr((await fs.node(job)).ino, Changes(uid=uid, gid=uid), OPERATOR)
    await fs.drain()
    await made.die()
    told = await extracted(made)
    assert statuses(told) == ["failed"] * 4
    assert "not recfs's" in told["chunks"][0]["reason"]
    assert (await fs.names(job), (await fs.node(job)).uid) == (["mine.txt"], uid)
    await fs.rename(job, "temp/5/901")
    await fs.rename("temp/5/900", job)  # it is back
    await made.die()
    assert statuses(await extracted(made)) == ["completed"] * 4
    assert await fs.names("temp/5/901") == ["mine.txt"]
    await fs.assert_consistent()


async def test_of_root_s_file_the_chunks_are_written_with_the_rights_of_the_user_whose_tree_it_is_in(
    made: Maker,
) -> None:
    fs = made.fs
    for path in ("users/5", "users/5/recordings"):
        await fs.vfs.setattr((await fs.node(path)).ino, Changes(uid=1005, gid=1005), OPERATOR)
    assert (await fs.node(SOURCE)).uid == 0
    told = await extracted(made)
    assert statuses(told) == ["completed"] * 4
    for path in (told["job"], f"{told['job']}/source_chunk_000.mp3"):
        assert (await fs.node(path)).uid == 1005


OTHER = "users/6/recordings/7/source.mp4"


@pytest.mark.parametrize("what", ["source goes", "source changes", "job goes"])
async def test_what_nobody_wants_any_more_is_ended_within_a_second(made: Maker, what: str) -> None:
    """Programs that would run for ever, and are killed; the next one in the queue does not wait."""
    ended: list[float] = []
    fs = made.fs

    async def run_for_ever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    made.runner.meanwhile = run_for_ever
    told = await made.work.chunking.extract(SOURCE)
    await until(lambda: made.runner.most == 2)
    job = (await made.work.chunking.wait(told["ino"], 0.0))["job"]
    began = trio.current_time()
    if what == "source goes":
        await fs.unlink(SOURCE)
    elif what == "source changes":
        await fs.write(SOURCE, pattern(9000, 1))
    else:
        await fs.parts.vfs.trees.remove(await fs.node(job))
    await until(lambda: len(ended) == 2)
    assert max(ended) - began <= 1.0
    await until(lambda: set(fs.rows("select status from chunk")) == {"failed"})
    assert made.rooms() == []
    if what == "job goes":
        told = await made.work.chunking.wait(told["ino"], 0.0)
        assert {each["reason"] for each in told["chunks"]} == {"the temp job was removed"}
        made.runner.meanwhile = trio.lowlevel.checkpoint
        assert statuses(await extracted(made)) == ["completed"] * 4


async def test_owners_take_turns(made: Maker) -> None:
    """One of them has a source of 40 chunks: the 4 of another do not wait for those."""
    order: list[bytes] = []
    fs = made.fs

    async def take_long() -> None:
        order.append(made.runner.sources[-1])
        await trio.sleep(5)

    await fs.write(OTHER, b"other" + pattern(500))
    await fs.drain()
    made.runner.meanwhile = take_long
    work = made.work.chunking
    await work.plan(SOURCE, length_s=2.5)
    await work.extract(SOURCE)
    await until(lambda: len(order) == 2)
    other = await work.extract(OTHER)
    told = await written(made, other["ino"])
    assert statuses(told) == ["completed"] * 4
    assert len(order) <= 14, "each second one was the other's"
    assert made.runner.most == 2


async def test_more_owners_than_are_open_take_turns(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn of a file is over after a time, if others wait."""
    monkeypatch.setattr(chunking, "TURN_S", 10.0)
    fs = made.fs

    async def take_long() -> None:
        await trio.sleep(60)

    made.runner.meanwhile = take_long
    paths = [f"users/{user}/recordings/7/source.mp4" for user in range(10, 11 + chunking.OPEN)]
    for path in paths:
        await fs.write(path, path.encode())
    await fs.drain()
    told = [await made.work.chunking.extract(path) for path in paths]
    firsts: list[int] = []
    while len(firsts) < len(paths):
        for each in told:
            if each["ino"] not in firsts and fs.rows(
                f"select 1 from chunk where source = {each['ino']} and status = 'completed'"
            ):
                firsts.append(each["ino"])
        await trio.sleep(1)
    assert fs.rows("select count(*) from chunk where status = 'completed'")[0] <= 3 * len(paths)
    for each in told:
        assert statuses(await written(made, each["ino"])) == ["completed"] * 4


async def test_what_is_told_of_many_chunks_is_bounded(made: Maker) -> None:
    made.runner.duration_s = 1000.0
    await made.fs.write(SOURCE, pattern(9000, 2))
    await made.fs.drain()
    told = await made.work.chunking.extract(SOURCE, length_s=2.0)
    seen = 0
    while told["writing"]:
        told = await made.work.chunking.wait(told["ino"], 1.0)
        if told["writing"]:
            assert "chunks" not in told
            assert (told["total"], sum(told["counts"].values())) == (500, 500)
            assert len(told["changed"]) <= 100
            seen = max(seen, len(told["changed"]))
    assert seen == 100
    assert statuses(told) == ["completed"] * 500


AUTOMATIC: dict[str, Any] = SETTINGS | {
    "chunks": {"threshold": 60, "length": 30, "automatic": ["users/*/recordings/*/audio.*"]}
}
PLANNED = "select source from chunk_plan"


async def test_what_a_rule_names_is_planned_once_it_is_known_what_is_in_it(nursery: trio.Nursery, place: Path) -> None:
    async with making(nursery, place, **AUTOMATIC) as made:
        fs, planning = made.fs, made.fs.parts.derivation.planning
        for name in ("audio.mp3", "other.mp3", "recorded"):
            await fs.write(f"{REC}/{name}", pattern(500, len(name)))
        await fs.drain()
        audio, other = await fs.node(f"{REC}/audio.mp3"), await fs.node(f"{REC}/other.mp3")
        assert len(planning._turns) == 0, "it is not known yet what is in it"
        for node in (audio, other):
            fs.vfs.tree.events.noted(EventKind.PROBED, node)
        await until(lambda: fs.rows(PLANNED) == [audio.ino])
        assert statuses(await made.work.chunking.plan(f"{REC}/audio.mp3")) == ["pending"] * 4
        await fs.rename(f"{REC}/recorded", f"{REC}/audio.wav")
        renamed = await fs.node(f"{REC}/audio.wav")
        await until(lambda: renamed.ino in fs.rows(PLANNED))
        looks = made.runner.looks
        fs.vfs.tree.events.noted(EventKind.PROBED, audio)
        await until(lambda: not planning._owners)
        assert (looks, len(fs.rows(PLANNED))) == (made.runner.looks, 2)


async def test_what_was_left_out_of_planning_is_found_by_the_sweep(nursery: trio.Nursery, place: Path) -> None:
    async with making(nursery, place, **AUTOMATIC) as made:
        fs, planning = made.fs, made.fs.parts.derivation.planning
        for user, size in ((5, 500), (6, 700)):
            await fs.write(f"users/{user}/recordings/142/audio.mp3", pattern(size, user))
        await fs.drain()
        made.runner.duration_s = 10.0  # too short, as it is found
        await sweep(made)
        await until(lambda: len(planning._refused) == 2)
        looks = made.runner.looks
        await sweep(made)
        assert (fs.rows(PLANNED), made.runner.looks) == ([], looks), "it is not looked into again and again"
        made.runner.duration_s = 100.0
        await made.die()
        assert fs.rows(PLANNED) == []
        await sweep(made)
        await until(lambda: len(fs.rows(PLANNED)) == 2)


async def sweep(made: Maker) -> None:
    """Of what nobody has asked for."""
    async with trio.open_nursery() as nursery:
        found = made.work.asking.sweep()
        await found.act(found.decide(await found.look()), nursery)
    await until(lambda: not made.fs.parts.derivation.planning._owners)


async def test_what_has_too_many_silences_is_not_cut_at_them(made: Maker) -> None:
    made.runner.silences = "".join(f"silence_start={at}\nsilence_end={at}.4\n" for at in range(50_001))
    with pytest.raises(InvalidArgument, match="more than 50,000 silences"):
        await made.work.chunking.plan(SOURCE, silences=True)
    made.runner.silences = "x" * (plans.SILENCES_BYTES + 1)
    with pytest.raises(InvalidArgument, match="too many silences"):
        await made.work.chunking.plan(SOURCE, silences=True)
    assert made.rooms() == []


async def test_long_plans_are_made_and_told_of_in_threads(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And read and written in pages, between which others have their turn."""
    seen: list[bool] = []
    main = threading.get_ident()
    for name in ("planned", "as_json"):
        real = getattr(chunking, name)

        def spy(*values: Any, real: Any = real, **more: Any) -> Any:
            seen.append(threading.get_ident() != main)
            return real(*values, **more)

        monkeypatch.setattr(chunking, name, spy)
    pages: list[Any] = []
    real_page = deriving.chunk_page

    def page(*values: Any) -> Any:
        pages.append(real_page(*values))
        return pages[-1]

    monkeypatch.setattr(deriving, "chunk_page", page)
    made.runner.duration_s = 2000.0
    await made.fs.write(SOURCE, pattern(9000, 2))
    await made.fs.drain()
    await made.work.chunking.plan(SOURCE, length_s=2.0)
    told = await made.work.chunking.plan(SOURCE)
    assert told["total"] == 1000
    assert seen == [True] * 3
    assert max(map(len, pages)) == deriving.PAGE
    assert [each["index"] for each in told["chunks"]] == [*range(1000)]
    told = await made.work.chunking.plan(SOURCE, length_s=500.0)
    assert made.fs.rows("select count(*) from chunk") == [4]
