"""What a request has changed outlives the daemon before its answer: the intent log, and what a start makes of it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.catalogue.intents import log as intent_log
from recfs.catalogue.intents import replaying
from recfs.catalogue.intents.frames import HEAD
from recfs.catalogue.intents.log import log_paths
from recfs.core.life import Status
from recfs.errors import IoFailure
from recfs.fs.attributes import Changes
from recfs.ports.batch import Batch

from .build import OPERATOR, REC, Filesystem, filesystem
from .powercut import Disk

pytestmark = pytest.mark.may_log("not yet")
"""What keeps the catalogue from being written, where the service tries it meanwhile."""
FILE = f"{REC}/f"
ATTRIBUTES = Changes(mode=0o640, uid=1234, gid=4321, mtime_ns=1_700_000_000_123_456_789)


async def attributes_of(fs: Filesystem, path: str) -> tuple[Any, ...]:
    node = await fs.node(path)
    return node.mode, node.uid, node.gid, node.mtime_ns


async def change_all(fs: Filesystem) -> None:
    """Every kind of request that changes names or books, none of it in the catalogue afterwards."""
    folder = await fs.node(REC)
    await fs.vfs.mkdir(folder.ino, b"made", 0o751, OPERATOR)
    await fs.vfs.symlink(folder.ino, b"link", b"target", OPERATOR)
    await fs.write(f"{REC}/made/new", b"fresh")
    await fs.vfs.setattr((await fs.node(FILE)).ino, ATTRIBUTES, OPERATOR)
    await fs.vfs.setattr((await fs.node(f"{REC}/made")).ino, ATTRIBUTES, OPERATOR)
    await fs.xattrs.set((await fs.node(FILE)).ino, b"user.note", b"kept", OPERATOR)
    await fs.unlink(f"{REC}/gone")
    await fs.rmdir(f"{REC}/empty")
    await fs.rename(f"{REC}/g", f"{REC}/made/h")
    await fs.rename(f"{REC}/one", f"{REC}/two", exchange=True)


async def look(fs: Filesystem) -> None:
    tree = await fs.tree(REC)
    assert {path.removeprefix(f"{REC}/"): content for path, content in tree.items()} == {
        "f": b"bytes", "made": None, "made/new": b"fresh", "made/h": b"g", "link": b"-> target",
        "one": b"2", "two": b"1",
    }  # fmt: skip
    assert await attributes_of(fs, FILE) == (0o640, 1234, 4321, ATTRIBUTES.mtime_ns)
    assert (await attributes_of(fs, f"{REC}/made"))[:3] == (0o640, 1234, 4321)
    assert await fs.xattrs.get((await fs.node(FILE)).ino, b"user.note") == b"kept"


async def begin(fs: Filesystem) -> None:
    for name, content in {"f": b"bytes", "gone": b"x", "g": b"g", "one": b"1", "two": b"2"}.items():
        await fs.write(f"{REC}/{name}", content)
    await fs.mkdirs(f"{REC}/empty")
    await fs.drain()


def applied(fs: Filesystem) -> int:
    return int(fs.rows("select value from meta where key = 'intents_applied'")[0].split()[0])


async def lose_the_batch(
    fs: Filesystem, act: Callable[[Filesystem], Awaitable[None]], *, recorded: bool = True
) -> None:
    """Change things, have the log told, and die before the catalogue hears of any."""
    plan = fs.faults.fail("apply", OSError(5, "not yet"), times=1000)
    await act(fs)
    assert fs.parts.behind.record() is recorded
    await fs.crash()
    fs.faults.heal()
    assert plan.hits <= 1000


async def test_no_answered_change_is_lost_with_the_daemon(fs: Filesystem) -> None:
    await begin(fs)
    before = applied(fs)
    await lose_the_batch(fs, change_all)
    assert applied(fs) == before
    await fs.reopen()
    await look(fs)
    assert fs.leftovers("lost+found") == []
    assert fs.parts.recovered.removed == []
    await fs.drain()
    await look(fs)
    await fs.assert_consistent()


async def test_deaths_in_the_start_that_carries_it_over(fs: Filesystem) -> None:
    """Whatever it gets to: the next one does the rest."""
    await begin(fs)
    await lose_the_batch(fs, change_all)
    for step in range(1, 40):
        await fs.start_and_die(step)
    await fs.reopen()
    await look(fs)
    await fs.assert_consistent()


@pytest.mark.may_log("intent log")
async def test_without_the_log_the_last_moment_is_found_again_as_far_as_files_tell(fs: Filesystem) -> None:
    """No log can be begun: the daemon serves, says so, and a rename is in the catalogue before it returns."""
    await begin(fs)
    await fs.stop()
    fs.faults.fail("fsync", OSError(28, "no room"), where="-intents-", times=1000)
    await fs.reopen()
    fs.faults.heal()
    await fs.rename(FILE, f"{REC}/moved")
    assert not fs.parts.behind.depth
    number = await fs.open(f"{REC}/new", os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"new")
    await fs.vfs.files.fsync(number)
    await fs.close(number)
    await fs.crash()
    await fs.reopen()
    assert await fs.read(f"{REC}/moved") == b"bytes"
    assert await fs.read(f"{REC}/new") == b"new"


async def test_a_log_without_room_has_the_catalogue_take_it(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intent_log, "ROOM_BYTES", 4096)
    monkeypatch.setattr(intent_log, "SMALL_ROOM_BYTES", 4096)
    await fs.stop()
    await fs.reopen()
    await begin(fs)
    fs.faults.fail("sync", OSError(5, "not yet"), times=1000)  # so neither file is free again
    whole = True
    count = 0
    while whole:
        await fs.write(f"{REC}/more{count}", b"more")
        whole = fs.parts.behind.record()
        count += 1
        assert count < 200
    await fs.vfs.record()
    assert not fs.parts.behind.depth, "what found no room is in the catalogue before it is answered"
    await fs.crash()
    fs.faults.heal()
    await fs.reopen()
    assert {f"more{n}" for n in range(count)} <= set(await fs.names(REC))
    await fs.assert_consistent()


async def test_files_take_turns_for_ever(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room comes back as the catalogue is synced: entries go on from one file to the other and back."""
    monkeypatch.setattr(intent_log, "ROOM_BYTES", 8192)
    monkeypatch.setattr(intent_log, "SMALL_ROOM_BYTES", 8192)
    await fs.stop()
    await fs.reopen()
    await begin(fs)
    log = fs.parts.catalogue.intents
    turns, last = 0, log._current
    for count in range(120):
        await fs.write(f"{REC}/more{count}", b"more")
        assert fs.parts.behind.record()
        await fs.parts.behind._write_some()  # as the service does
        turns += log._current != last
        last = log._current
    assert turns > 4
    await fs.drain()
    await fs.unlink(f"{REC}/more7")
    assert fs.parts.behind.record()
    await fs.crash()
    await fs.reopen()
    names = await fs.names(REC)
    assert "more7" not in names
    assert {f"more{n}" for n in range(120)} - {"more7"} <= set(names)
    await fs.assert_consistent()


async def test_totals_of_a_directory_whose_row_cannot_be_understood() -> None:
    """The rest of the entry counts, and the counters are added up anew."""

    class Books:
        async def node(self, ino: int) -> Any:
            raise KeyError("door")

        async def apply(self, batch: Batch) -> None:
            assert (batch.removed, batch.nodes, batch.meta) == ([7], [], {"counters_unsure": "1"})

    books: Any = Books()
    await replaying._carry_over(books, Batch(removed=[7]), [(5, 1, 1)], 1, trio.lowlevel.checkpoint)  # type: ignore[arg-type]


@pytest.mark.parametrize("harm", ["torn", "garbage", "gone", "empty", "another-epoch"])
async def test_a_damaged_log_counts_as_far_as_it_is_whole(fs: Filesystem, harm: str) -> None:
    await begin(fs)

    async def act(fs: Filesystem) -> None:
        await fs.unlink(f"{REC}/gone")
        fs.parts.behind.record()
        await fs.rmdir(f"{REC}/empty")
        fs.parts.behind.record()

    place: list[int] = []

    async def noted(fs: Filesystem) -> None:
        await act(fs)
        place.append(fs.parts.catalogue.intents._place)
        place.append(fs.parts.catalogue.intents._current)

    await lose_the_batch(fs, noted)
    end, current = place
    path = log_paths(fs.parts.store.catalogue_path)[current]
    content = bytearray(path.read_bytes())
    if harm == "torn":
        content[end - 1] ^= 0xFF
    elif harm == "garbage":
        content[: HEAD.size] = os.urandom(HEAD.size)
    elif harm == "another-epoch":
        content[0] ^= 1
    path.write_bytes({"gone": b"", "empty": b""}.get(harm, bytes(content)))
    if harm == "gone":
        path.unlink()
    for each in fs.root.glob(".recfs/removals-*"):
        each.unlink()
    await fs.reopen()
    names = await fs.names(REC)
    assert "empty" in names
    assert ("gone" in names) is (harm != "torn")
    await fs.assert_consistent()


@pytest.mark.may_log("intent log")
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "endless", "huge"])
async def test_what_is_no_file_in_the_place_of_the_log_keeps_nobody_from_starting(fs: Filesystem, kind: str) -> None:
    """A pipe that nobody writes into, or a link to a file without an end: it is no log, and not waited for."""
    await begin(fs)
    await lose_the_batch(fs, lambda fs: fs.unlink(f"{REC}/gone"))
    elsewhere = fs.root / "elsewhere"
    elsewhere.write_bytes(b"of others")
    for path in log_paths(fs.parts.store.catalogue_path):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "huge":
            path.touch()
            os.truncate(path, 1 << 36)
        else:
            path.symlink_to("/dev/zero" if kind == "endless" else elsewhere)
    with trio.fail_after(60):
        await fs.reopen()
    assert (fs.parts.behind._intents is not None) is (kind == "huge")
    assert elsewhere.read_bytes() == b"of others"
    elsewhere.unlink()
    await fs.rename(FILE, f"{REC}/moved")
    await fs.drain()
    await fs.assert_consistent()


async def test_a_log_that_is_cut_off_meanwhile_ends_nobody(fs: Filesystem) -> None:
    """Were it mapped, the kernel would end who touches what is gone (SIGBUS)."""
    await begin(fs)
    for path in log_paths(fs.parts.store.catalogue_path):
        os.truncate(path, 0)
    await fs.write(f"{REC}/more", b"more")
    fs.parts.behind.record()
    await fs.drain()
    await fs.assert_consistent()


@pytest.mark.may_log("intent log")
async def test_a_log_that_the_disk_does_not_take_has_the_catalogue_take_it(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk that writes what is changed to another place."""
    await begin(fs)

    def none(*_: Any) -> int:
        ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(intent_log, "_pwrite", none)
    await fs.rename(FILE, f"{REC}/moved")
    assert not fs.parts.behind.depth
    monkeypatch.setattr(intent_log, "_pwrite", lambda fd, entry, length, place: length // 2)
    await fs.rename(f"{REC}/moved", FILE)
    assert not fs.parts.behind.depth
    monkeypatch.undo()
    await fs.crash()
    await fs.reopen()
    assert await fs.read(FILE) == b"bytes"
    await fs.assert_consistent()


@pytest.mark.may_log("intent log", "not this one")
async def test_counters_of_rows_that_the_catalogue_does_not_take_are_added_up_anew(fs: Filesystem) -> None:
    await begin(fs)

    async def act(fs: Filesystem) -> None:
        await fs.vfs.symlink((await fs.node(REC)).ino, b"bad", b"target", OPERATOR)

    await lose_the_batch(fs, act)
    db = sqlite3.connect(fs.parts.store.catalogue_path)
    db.execute(
        "create trigger refuse before insert on node when new.name = cast('bad' as blob)"
        " begin select raise(abort, 'not this one'); end"
    )
    db.commit()
    await fs.reopen()
    assert "bad" not in await fs.names(REC)
    db.execute("drop trigger refuse")
    db.commit()
    db.close()
    await fs.drain()
    await fs.assert_consistent()


async def test_a_log_of_another_catalogue_counts_for_nothing(fs: Filesystem) -> None:
    """The files of one that is put in the place of another are not carried over to it."""
    await begin(fs)
    await fs.stop()
    kept = [path.read_bytes() for path in log_paths(fs.parts.store.catalogue_path)]
    await fs.reopen()
    await fs.write(f"{REC}/later", b"later")
    await fs.stop()
    for path, content in zip(log_paths(fs.parts.store.catalogue_path), kept, strict=True):
        path.write_bytes(content)
    await fs.reopen()
    assert await fs.read(f"{REC}/later") == b"later"
    await fs.assert_consistent()


async def test_a_log_that_an_earlier_version_has_passed_by_counts_for_nothing(fs: Filesystem) -> None:
    """One that knows of no log goes on with the catalogue: what the log says is older by then."""
    await begin(fs)
    await lose_the_batch(fs, lambda fs: fs.unlink(f"{REC}/gone"))
    for each in fs.root.glob(".recfs/removals-*"):
        each.unlink()
    db = sqlite3.connect(fs.parts.store.catalogue_path)
    with db:
        db.execute("update meta set value = cast(value + 1 as text) where key = 'generation'")
    db.close()
    await fs.reopen()
    assert "gone" in await fs.names(REC)
    await fs.assert_consistent()


@pytest.mark.may_log("intent log")
async def test_a_log_that_this_version_cannot_read_is_told_and_left(fs: Filesystem, caplog: Any) -> None:
    await begin(fs)
    await lose_the_batch(fs, lambda fs: fs.unlink(f"{REC}/gone"))
    db = sqlite3.connect(fs.parts.store.catalogue_path)
    with db:
        db.execute(
            "update meta set value = replace(value, '\"home_ino\"', '\"other\", \"home_ino\"') where key = 'intents'"
        )
    db.close()
    await fs.reopen()
    assert "cannot be read by this version" in caplog.text
    await fs.drain()
    await fs.assert_consistent()


@pytest.mark.may_log("intent log")
async def test_columns_that_come_and_go_between_versions(fs: Filesystem) -> None:
    """An entry of a version that had another column, and lacked one that has a default since."""
    await begin(fs)
    await lose_the_batch(fs, change_all)
    path = fs.parts.store.catalogue_path
    db = sqlite3.connect(path)
    (described,) = db.execute("select value from meta where key = 'intents'").fetchone()
    facts = json.loads(described)
    facts["rows"]["nodes"][facts["rows"]["nodes"].index("activity_ns")] = "dropped"
    with db:
        db.execute("update meta set value = ? where key = 'intents'", (json.dumps(facts),))
    db.close()
    await fs.reopen()  # `activity_ns` has no default: told, and no row is made up
    await fs.drain()
    await fs.assert_consistent()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a store of another user")
async def test_a_log_that_root_makes_is_that_of_the_store_s_user(fs: Filesystem) -> None:
    """A command that root runs while the daemon is down leaves nothing that the daemon cannot open."""
    await begin(fs)
    await fs.stop()
    for path in log_paths(fs.parts.store.catalogue_path):
        path.unlink()
    os.chown(fs.parts.store.catalogue_path, 1234, 4321)
    await fs.reopen()
    for path in log_paths(fs.parts.store.catalogue_path):
        info = path.stat()
        assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (1234, 4321, 0o600)


async def test_fsync_waits_for_no_batch(tmp_path: Path) -> None:
    """fsync(2) and what it covers survive a power cut by the log alone."""
    async with filesystem(tmp_path / "store", start=False) as fs:
        fs.faults.books_watched = True
        await fs.start()
        await begin(fs)
        disk = Disk(fs.root, tmp_path / "disk")
        disk.attach(fs.faults)
        fs.faults.fail("apply", OSError(5, "not yet"), times=1000)
        number = await fs.open(f"{REC}/new", os.O_WRONLY | os.O_CREAT)
        await fs.vfs.files.write(number, 0, b"new")
        await fs.vfs.mkdir((await fs.node(REC)).ino, b"made", 0o755, OPERATOR)
        await fs.vfs.files.fsync(number)
        await fs.unlink(FILE)
        disk.detach(fs.faults)
        await fs.crash()
        fs.faults.heal()
        disk.cut(torn=False, kept="none")
        fs.boot = "after the power cut"
        await fs.reopen()
        assert await fs.read(f"{REC}/new") == b"new"
        assert "made" in await fs.names(REC)
        assert await fs.read(FILE) == b"bytes", "it was removed after the last fsync of anybody"
        await fs.assert_consistent()


async def test_a_disk_that_does_not_sync_the_log_is_told_and_the_catalogue_does(fs: Filesystem) -> None:
    await begin(fs)
    await fs.unlink(FILE)
    fs.faults.fail("fdatasync", OSError(5, "no more"), where="-intents-", times=1)
    with pytest.raises(IoFailure, match="intent log"):
        await fs.vfs.behind.persist()
    await fs.unlink(f"{REC}/gone")
    await fs.vfs.behind.persist()  # the pages that failed are lost without a further word (fsync(2)): no log for these
    assert not fs.parts.behind.depth
    assert applied(fs) == fs.parts.catalogue.intents.last


async def test_many_fsyncs_share_one(fs: Filesystem) -> None:
    await begin(fs)
    numbers = [await fs.open(f"{REC}/n{n}", os.O_WRONLY | os.O_CREAT) for n in range(8)]
    fs.faults.trace.clear()
    async with trio.open_nursery() as nursery:
        for number in numbers:
            nursery.start_soon(fs.vfs.files.fsync, number)
    assert fs.faults.trace.count("fdatasync") < len(numbers)
    for number in numbers:
        await fs.close(number)


@pytest.mark.may_log("intent log")
async def test_an_entry_that_cannot_be_told_is_in_the_catalogue_before_its_answer(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(fs)

    def broken(*_: Any) -> Any:
        raise OverflowError("a number that has no form")

    monkeypatch.setattr(intent_log, "frame", broken)
    await fs.rename(FILE, f"{REC}/moved")
    assert not fs.parts.behind.depth
    monkeypatch.undo()
    await fs.crash()
    await fs.reopen()
    assert await fs.read(f"{REC}/moved") == b"bytes"
    await fs.assert_consistent()


async def test_limits_and_lives_come_back(fs: Filesystem) -> None:
    """What is kept of users and recordings travels with the rows."""
    await begin(fs)

    async def act(fs: Filesystem) -> None:
        await fs.write(f"{REC}/more", b"12345")
        await fs.mkdirs("users/5/recordings/77")

    await lose_the_batch(fs, act)
    await fs.reopen()
    assert fs.account()[1] == 6
    node = await fs.node("users/5/recordings/77")
    assert node.life is None or node.life.status is Status.ACTIVE
    await fs.assert_consistent()


async def test_directories_that_have_changed_places_with_those_above(fs: Filesystem) -> None:
    """By their names the one is in the other, and on the disk it is the other way round. Neither is within itself."""
    await fs.mkdirs(f"{REC}/one")  # it comes first among the rows
    await fs.mkdirs(f"{REC}/two")
    await fs.write(f"{REC}/one/file", b"1")
    await fs.write(f"{REC}/two/file", b"2")
    await fs.rename(f"{REC}/one", f"{REC}/two/one")
    await fs.drain()

    async def act(fs: Filesystem) -> None:
        await fs.rename(f"{REC}/two/one", f"{REC}/one")
        await fs.rename(f"{REC}/two", f"{REC}/one/two")

    await lose_the_batch(fs, act)
    await fs.reopen()
    assert fs.parts.behind.problems.as_json() == []
    assert await fs.read(f"{REC}/one/file") == b"1"
    assert await fs.read(f"{REC}/one/two/file") == b"2"
    await fs.drain()
    await fs.assert_consistent()
