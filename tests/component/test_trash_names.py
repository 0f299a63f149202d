"""What the trash keeps that has no bytes: directories, links, empty files, extended attributes; and what is chosen."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from recfs.core.life import Cause, Status
from recfs.core.model import State
from recfs.errors import NotFound, OutOfSpace, QuotaExceeded
from recfs.fs.attributes import Changes
from recfs.state.nodes import DirNode, LinkNode, Node
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .test_trash import FILE, HOUR, KEEPS, OTHER, ask, kept, listed

SUB, LINK, EMPTY = f"{REC}/sub", f"{REC}/sub/link", f"{REC}/sub/.done"


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One whose trash keeps everything for an hour."""
    async with filesystem(place / "root", **KEEPS) as made:
        yield made


async def attribute(fs: Filesystem, path: str, name: bytes, value: bytes | None = None) -> bytes | None:
    """Set an attribute, or (None) read it; None: there is none."""
    node = await fs.node(path)
    if value is not None:
        await fs.xattrs.set(node.ino, name, value, OPERATOR)
        return value
    return dict(await fs.parts.tree.xattrs(node)).get(name)


async def whole(fs: Filesystem) -> dict[str, tuple[object, ...]]:
    """A recording with everything in it, and what is to come back."""
    await fs.write(FILE, pattern(9000))
    await fs.write(OTHER, b"other")
    await fs.write(EMPTY, b"")
    sub = await fs.node(SUB)
    await fs.vfs.symlink(sub.ino, b"link", b"../file", OPERATOR)
    for path in (REC, SUB, FILE, EMPTY, LINK):
        await attribute(fs, path, b"user.of", path.encode())
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mode=0o640, uid=1005, gid=1006), OPERATOR)
    for number, path in enumerate((FILE, OTHER, EMPTY, LINK, SUB, REC)):
        changes = Changes(mtime_ns=1_600_000_000_000_000_000 + number)
        if path in (SUB, REC):
            changes = Changes(mode=0o2750, uid=1005, gid=1006, mtime_ns=changes.mtime_ns)
        await fs.vfs.setattr((await fs.node(path)).ino, changes, OPERATOR)
    await fs.drain()
    return await facts(fs)


async def facts(fs: Filesystem) -> dict[str, tuple[object, ...]]:
    """All that is to be the same afterwards."""
    found = {}
    for path in (REC, FILE, SUB, OTHER, EMPTY, LINK):
        node = await fs.node(path)
        target = node.target if isinstance(node, LinkNode) else None
        mtime_ns = 0 if isinstance(node, DirNode) else node.mtime_ns  # a directory's was changed by emptying it
        found[path] = (
            node.kind, node.mode, node.uid, node.gid, mtime_ns, node.size, getattr(node, "sha256", None), target,
            await attribute(fs, path, b"user.of"),
        )  # fmt: skip
    return found


async def remove_all(fs: Filesystem) -> None:
    for path in (FILE, OTHER, EMPTY, LINK):
        await fs.unlink(path)
    for path in (SUB, REC):
        await fs.rmdir(path)


async def test_a_recording_comes_back_with_all_that_it_was(fs: Filesystem) -> None:
    before = await whole(fs)
    assert before[SUB][-1] == SUB.encode()
    await remove_all(fs)
    await fs.drain()
    assert fs.account() == (0, 0)
    assert not (fs.root / REC).exists()
    result = await ask(fs, "trash_restore", path=REC)
    assert (result["files"], result["bytes"], result["kept"]) == (4, 9005, [])
    await fs.drain()
    assert await facts(fs) == before
    assert await listed(fs) == []
    assert await fs.read(FILE) == pattern(9000)
    assert (await fs.node(EMPTY)).state is State.COMMITTED
    assert fs.account() == (9005, 4)
    await fs.assert_consistent()
    assert os.readlink(fs.root / LINK) == "../file"
    assert os.stat(fs.root / SUB).st_mode & 0o7777 == 0o2750


async def test_it_does_so_after_a_restart(fs: Filesystem) -> None:
    before = await whole(fs)
    await remove_all(fs)
    await fs.drain()
    await fs.stop()
    await fs.reopen()
    kinds = [(each["path"], each["kind"]) for each in await listed(fs, path=REC)]
    assert sorted(kinds) == [
        (REC, "dir"), (FILE, "file"), (SUB, "dir"), (EMPTY, "file"), (LINK, "symlink"), (OTHER, "file"),
    ]  # fmt: skip
    assert await kept(fs, path=REC) == {}
    await fs.drain()
    assert await facts(fs) == before
    await fs.assert_consistent()


async def test_one_file_brings_its_directories_as_they_were(fs: Filesystem) -> None:
    before = await whole(fs)
    await remove_all(fs)
    (entry,) = [each for each in await listed(fs) if each["path"] == OTHER]
    assert await kept(fs, ids=[entry["number"]]) == {}
    await fs.drain()
    for path in (REC, SUB):
        node = await fs.node(path)
        assert (node.mode, node.uid, node.gid) == before[path][1:4]
        assert await attribute(fs, path, b"user.of") == path.encode()
    assert sorted(each["path"] for each in await listed(fs)) == [FILE, EMPTY, LINK]


async def test_directories_that_are_there_stay_as_they_are(fs: Filesystem) -> None:
    await whole(fs)
    await remove_all(fs)
    await fs.mkdirs(SUB)
    now = await fs.node(SUB)
    assert await kept(fs, path=REC) == {}
    assert await fs.node(SUB) is now
    assert now.mode == 0o755
    assert sorted(each["path"] for each in await listed(fs)) == [REC, SUB]
    refused = await kept(fs, ids=[each["number"] for each in await listed(fs) if each["path"] == SUB], to=SUB)
    assert refused == {SUB: f"{SUB} exists by now"}


async def test_a_link_is_in_the_way_of_one_that_comes_back(fs: Filesystem) -> None:
    await whole(fs)
    await fs.unlink(LINK)
    await fs.write(LINK, b"a file by now")
    assert await kept(fs, path=LINK) == {
        LINK: f"{LINK} exists by now; --force replaces it, --to PATH gives another name"
    }
    assert await kept(fs, path=LINK, force=True) == {}
    assert (await fs.node(LINK)).target == b"../file"
    assert [(each["path"], each["kind"]) for each in await listed(fs)] == [(LINK, "file")]
    await fs.drain()
    await fs.assert_consistent(trash=1)


async def test_attributes_of_a_replaced_version_are_its_own(fs: Filesystem) -> None:
    await fs.write(FILE, b"first")
    await attribute(fs, FILE, b"user.of", b"the first")
    await fs.write(f"{REC}/new", b"second!")
    await attribute(fs, f"{REC}/new", b"user.of", b"the second")
    await fs.drain()
    await fs.stop()
    await fs.reopen()  # they are not in memory when their file is replaced
    await fs.rename(f"{REC}/new", FILE)
    await fs.drain()
    (entry,) = await listed(fs)
    assert await kept(fs, ids=[entry["number"]], to=OTHER) == {}
    assert await attribute(fs, OTHER, b"user.of") == b"the first"
    assert await attribute(fs, FILE, b"user.of") == b"the second"
    await fs.drain()
    await fs.assert_consistent()


@pytest.mark.parametrize("kept_directories", [True, False])
async def test_a_full_disk_keeps_nothing_in_the_trash(fs: Filesystem, kept_directories: bool) -> None:
    """The bytes are on it already, and the directories are few: nothing has to be purged to have something back."""
    before = await whole(fs)
    await remove_all(fs)
    await fs.drain()
    if not kept_directories:
        for entry in await listed(fs):
            if entry["kind"] == "dir":
                await ask(fs, "trash_purge", ids=[entry["number"]])
    space = fs.vfs.files.space
    space.min_free = 1 << 60
    space.forget()
    with pytest.raises(OutOfSpace):
        await fs.mkdirs(f"{REC}9")
    assert await kept(fs, path=REC) == {}
    await fs.drain()
    after = await facts(fs)
    assert {path: after[path] for path in (FILE, OTHER, EMPTY, LINK)} == {
        path: before[path] for path in (FILE, OTHER, EMPTY, LINK)
    }
    await fs.assert_consistent()


@pytest.mark.parametrize("by_the_kernel", [False, True])
async def test_attributes_of_an_overwritten_version_come_back_with_it(fs: Filesystem, by_the_kernel: bool) -> None:
    """The file keeps its own, too: what is restored is what it was when it was emptied."""
    await fs.write(FILE, b"first")
    await attribute(fs, FILE, b"user.of", b"the first")
    await fs.drain()
    await fs.stop()
    fs.files = FakeKernelFiles() if by_the_kernel else None
    await fs.reopen()  # they are not in memory when the file is emptied
    held = (await fs.pass_open(FILE, os.O_RDWR))[0] if by_the_kernel else None
    await fs.write(FILE, b"second!")
    if held is not None:
        await fs.close(held)
    await fs.drain()
    await attribute(fs, FILE, b"user.of", b"the second")
    await fs.stop()
    await fs.reopen()
    (entry,) = await listed(fs)
    assert await kept(fs, ids=[entry["number"]], to=OTHER) == {}
    assert await attribute(fs, OTHER, b"user.of") == b"the first"
    assert await attribute(fs, FILE, b"user.of") == b"the second"
    assert await fs.read(OTHER) == b"first"
    await fs.drain()
    await fs.assert_consistent()


async def test_all_of_it_is_given_up_after_its_time(fs: Filesystem) -> None:
    await whole(fs)
    await remove_all(fs)
    await fs.drain()
    fs.clock.advance(HOUR / 2)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    assert len(await listed(fs)) == 6
    fs.clock.advance(HOUR / 2 + 1)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    await fs.drain()
    assert (await listed(fs), fs.rows("select * from trash_entry"), fs.rows("select * from garbage")) == ([], [], [])
    await fs.assert_consistent()


async def test_a_purge_counts_files_and_links_and_not_their_directories(fs: Filesystem) -> None:
    await whole(fs)
    await remove_all(fs)
    entries = await listed(fs)
    directories = sum(each["kind"] == "dir" for each in entries)
    assert 0 < directories < len(entries)
    assert (await ask(fs, "trash_purge", all=True))["files"] == len(entries) - directories
    assert await listed(fs) == []


async def test_without_a_retention_it_is_given_up_at_the_next_start(place: Path) -> None:
    async with filesystem(place / "root", **KEEPS) as fs:
        await whole(fs)
        await remove_all(fs)
        await fs.drain()
    async with filesystem(place / "root") as fs:
        assert (await ask(fs, "trash_list"))["entries"] == []
        await fs.drain()
        assert fs.rows("select * from trash_entry") == []
        await fs.assert_consistent()


async def test_chosen_by_user_and_time(fs: Filesystem) -> None:
    for user in ("5", "7"):
        await fs.write(f"users/{user}/recordings/1/file", b"x")
        await fs.unlink(f"users/{user}/recordings/1/file")
        fs.clock.advance(100)
    paths = ["users/5/recordings/1/file", "users/7/recordings/1/file"]
    assert [each["path"] for each in await listed(fs, user="5")] == paths[:1]
    assert [each["path"] for each in await listed(fs, since_s=150)] == paths[1:]
    assert [each["path"] for each in await listed(fs, since_s=250, older_s=150)] == paths[:1]
    assert [each["user"] for each in await listed(fs)] == ["5", "7"]
    assert await kept(fs, user="7") == {}
    assert (await ask(fs, "trash_purge", user="5"))["files"] == 1
    assert await listed(fs) == []
    assert await fs.read(paths[1]) == b"x"


async def test_a_damaged_row_costs_the_attributes_and_no_more(fs: Filesystem) -> None:
    await whole(fs)
    await fs.unlink(FILE)
    await fs.drain()
    await fs.stop()
    with sqlite3.connect(fs.root / ".recfs/catalogue.db") as db:
        db.execute("update trash_entry set xattrs = x'ff'")
    await fs.reopen()
    assert await kept(fs, path=FILE) == {}
    assert await attribute(fs, FILE, b"user.of") is None
    assert await fs.read(FILE) == pattern(9000)


@pytest.mark.slow
@pytest.mark.may_log("closed database")
async def test_a_death_before_any_step_loses_nothing(place: Path) -> None:
    step, done = 0, False
    while not done:
        step += 2
        async with filesystem(place / str(step), start=False, **KEEPS) as fs:
            await fs.start()
            before = await whole(fs)
            await remove_all(fs)
            await fs.drain()
            done = await fs.until_stopped(_restore, step)
            await fs.crash()
            await fs.start_and_die(1 + step * 5 % 13)
            await fs.reopen()
            await fs.drain()
            assert set((await kept(fs, path=REC)).values()) <= {"the trash has nothing of it"}, step  # it was through
            await fs.drain()
            assert await facts(fs) == before, step
            await fs.assert_consistent()
    assert step > 10


async def _restore(fs: Filesystem) -> None:
    await ask(fs, "trash_restore", path=REC)
    await fs.drain()


async def test_a_number_that_is_not_there_is_no_other_one(fs: Filesystem) -> None:
    await whole(fs)
    await fs.unlink(LINK)
    (entry,) = await listed(fs)
    assert await kept(fs, ids=[entry["number"]]) == {}
    with pytest.raises(NotFound):
        await ask(fs, "trash_restore", ids=[entry["number"]])
    await fs.unlink(LINK)
    (again,) = await listed(fs)
    assert again["number"] > entry["number"]


async def test_a_recording_that_expired_comes_back_active_with_its_note(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await fs.drain()
    folder = await fs.node(REC)
    created_ns = folder.life.created_ns
    date_ns = fs.clock.calendar_ns() + 3600 * 10**9
    folder.life = folder.life._replace(
        note="board meeting", status=Status.EXPIRED, expired_by=Cause.DATE, expires_ns=date_ns, expired_ns=7
    )
    fs.parts.behind.recording(folder)
    fs.clock.advance(1000)
    await fs.vfs.trees.remove(folder)
    assert await kept(fs, path=REC) == {}
    await fs.drain()
    await fs.stop()
    await fs.reopen()
    life = (await fs.node(REC)).life
    assert (life.status, life.note, life.created_ns, life.expires_ns) == (
        Status.ACTIVE, "board meeting", created_ns, None,
    )  # fmt: skip
    assert life.born_ns >= 1000 * 10**9
    assert await fs.read(FILE) == b"bytes"


async def test_one_that_was_active_keeps_its_date(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    folder = await fs.node(REC)
    folder.life = folder.life._replace(keep=1, expires_ns=12, dated_ns=3, ahead_ns=4)
    fs.parts.behind.recording(folder)
    await fs.vfs.trees.remove(folder)
    assert await kept(fs, path=REC) == {}
    life = (await fs.node(REC)).life
    assert (life.keep, life.expires_ns, life.dated_ns, life.ahead_ns) == (1, 12, 3, 4)


async def test_what_is_in_the_trash_counts_where_the_configuration_says_so(place: Path) -> None:
    async with filesystem(place / "root", trash={"retention": HOUR, "charged": True}) as fs:
        await fs.write(FILE, pattern(6000))
        await fs.write("users/7/recordings/1/x", pattern(500))
        await ask(fs, "quota_set", user="5", max_bytes=10_000)
        await fs.drain()
        await fs.unlink(FILE)
        await fs.drain()
        assert fs.account() == (0, 0)
        shown = {each["user"]: each["trashed_bytes"] for each in await ask(fs, "quota_show")}
        assert shown == {"5": 6000, "7": 0}
        with pytest.raises(QuotaExceeded):
            await fs.write(OTHER, pattern(6000))
        await fs.unlink(OTHER)
        await ask(fs, "trash_purge", path=OTHER)
        await fs.drain()
        assert await kept(fs, path=FILE) == {}  # coming back, it counts as it did
        assert fs.account() == (6000, 1)
        await fs.write(FILE, b"")
        await fs.drain()
        await fs.stop()
        await fs.reopen()  # the next daemon charges the same
        with pytest.raises(QuotaExceeded):
            await fs.write(OTHER, pattern(6000))
        await fs.unlink(OTHER)
        await ask(fs, "trash_purge", all=True)
        await fs.drain()
        await fs.write(OTHER, pattern(9000))
        await fs.drain()
        assert (await ask(fs, "quota_check", repair=False))["differences"] == []
        fs.clock.advance(2 * HOUR)


async def test_it_does_not_count_by_itself(fs: Filesystem) -> None:
    await fs.write(FILE, pattern(6000))
    await ask(fs, "quota_set", user="5", max_bytes=10_000)
    await fs.drain()
    await fs.unlink(FILE)
    await fs.write(OTHER, pattern(9000))
    assert [each["trashed_bytes"] for each in await ask(fs, "quota_show")] == [0]


async def test_a_replaced_file_counts_on_in_the_trash(place: Path) -> None:
    async with filesystem(place / "root", trash={"retention": HOUR, "charged": True}) as fs:
        await ask(fs, "quota_set", user="5", max_bytes=10_000)
        await fs.write(FILE, pattern(4000))
        await fs.drain()
        await fs.unlink(FILE)
        await fs.write(FILE, pattern(5000))
        await fs.drain()
        assert await kept(fs, path=FILE, force=True) == {}
        assert fs.account() == (4000, 1)
        (user,) = await ask(fs, "quota_show")
        assert user["trashed_bytes"] == 5000


async def test_an_empty_file_is_kept_whether_it_was_committed_or_only_closed(fs: Filesystem) -> None:
    await fs.write(EMPTY, b"")
    await fs.unlink(EMPTY)
    assert [each["path"] for each in await listed(fs)] == [EMPTY]
    assert await kept(fs, path=EMPTY) == {}
    assert await fs.read(EMPTY) == b""


async def test_an_expired_recording_takes_nothing_from_the_trash(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await fs.write(OTHER, b"other")
    await fs.drain()
    await fs.unlink(FILE)
    await ask(fs, "recording_expire", path=REC)
    assert "takes nothing new" in (await kept(fs, path=FILE))[FILE]
    assert [each["path"] for each in await listed(fs)] == [FILE]
    await ask(fs, "recording_keep", path=REC, on=True)
    assert await kept(fs, path=FILE) == {}


async def test_what_comes_to_the_name_while_a_version_comes_back_goes_to_the_trash_whole(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a rename, while what was in its place is made ready to leave; its attributes had not been read."""
    await fs.write(FILE, b"old")
    await fs.drain()
    await fs.unlink(FILE)
    await fs.write(FILE, b"in its place")
    await fs.write(OTHER, b"other")
    for path in (FILE, OTHER):
        await attribute(fs, path, b"user.of", path.encode())
    await fs.drain()
    await fs.reopen()
    prepare = fs.vfs.removal.prepare

    async def slowly(node: Node) -> bool:
        monkeypatch.undo()
        passed = bool(await prepare(node))
        await fs.rename(OTHER, FILE)
        return passed

    monkeypatch.setattr(fs.vfs.removal, "prepare", slowly)
    first = (await fs.answers()["trash_list"]({}))["entries"][0]
    assert (await fs.answers()["trash_restore"]({"ids": [first["number"]], "force": True}))["kept"] == []
    assert await fs.read(FILE) == b"old"
    await fs.drain()
    other = (await fs.answers()["trash_list"]({}))["entries"][-1]
    await fs.answers()["trash_restore"]({"ids": [other["number"]], "to": f"{REC}/again"})
    assert await fs.read(f"{REC}/again") == b"other"
    assert await fs.parts.tree.xattrs(await fs.node(f"{REC}/again")) == {b"user.of": OTHER.encode()}
