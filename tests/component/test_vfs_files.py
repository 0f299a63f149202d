"""Files without a mount: rows, states, counters, staging and garbage behind each operation."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from recfs.core.model import TRANSITIONS, State
from recfs.errors import (
    Exists,
    FileTooLarge,
    NotFound,
    OutOfSpace,
    QuotaExceeded,
    ReadOnlyFile,
    RecfsError,
    Stale,
)
from recfs.fs.attributes import Changes
from recfs.fs.caller import Caller
from recfs.state.nodes import FileNode

from .build import OPERATOR, REC, USER, Filesystem, pattern

ExpectLog = Callable[[str], None]
FILE = f"{REC}/file"


@pytest.fixture(autouse=True)
def _legal_steps() -> Iterator[None]:
    """Every change of a state that a test of this file causes has to stand in the table."""
    slot = FileNode.__dict__["state"]

    def change(node: FileNode, state: State) -> None:
        try:
            before = slot.__get__(node, FileNode)
        except AttributeError:
            before = None
        # A commit that could not be recorded is taken back before anybody was told of it.
        taken_back = (before, state) == (State.COMMITTED, State.SEALING)
        assert before in (None, state) or taken_back or (before, state) in TRANSITIONS, f"{before} -> {state}"
        slot.__set__(node, state)

    with mock.patch.object(FileNode, "state", property(lambda node: slot.__get__(node, FileNode), change)):
        yield


def row(fs: Filesystem, name: bytes = b"file") -> tuple[Any, ...]:
    """(state, size, has a checksum, staged) of a file's row."""
    (found,) = fs.rows(
        "select state, size_bytes, sha256 is not null, staging is not null"
        " from node left join placement using (ino) where name = ?",
        name,
    )
    return tuple(found)


# --- the life of a file -------------------------------------------------------------------------------------------


async def test_the_row_follows_a_file_through_its_states(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.parts.behind.flush()
    assert row(fs) == ("writing", 0, 0, 1)
    await fs.vfs.files.write(number, 0, b"12345")
    await fs.parts.behind.flush()
    assert row(fs) == ("writing", 5, 0, 1)
    await fs.close(number)
    await fs.parts.behind.flush()
    assert row(fs) == ("sealing", 5, 0, 1)
    await fs.drain()
    assert row(fs) == ("committed", 5, 1, 0)
    assert fs.rows("select used_bytes, used_files from account where user = '5'") == [(5, 1)]


async def test_a_row_says_writing_before_the_first_byte_changes(fs: Filesystem) -> None:
    """Power may fail at any moment: a row that says committed must never describe other bytes."""
    await fs.write(FILE, b"committed")
    await fs.drain()
    number = await fs.open(FILE, os.O_WRONLY)
    seen: list[tuple[Any, ...]] = []
    synced = 0
    sync = fs.parts.catalogue.sync

    async def counted() -> None:
        nonlocal synced
        await sync()
        synced += 1

    fs.parts.catalogue.sync = counted  # type: ignore[method-assign]
    fs.faults.observers.append(lambda name, _: seen.append((*row(fs), synced)) if name == "pwrite" else None)
    await fs.vfs.files.write(number, 0, b"C")
    fs.faults.observers.clear()
    await fs.close(number)
    assert seen[0][0] == "writing"
    assert seen[0][4] >= 1
    assert not (fs.root / FILE).exists()


async def test_reading_leaves_a_file_committed_and_at_home(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await fs.drain()
    number = await fs.open(FILE, os.O_RDWR)
    assert await fs.read_handle(number) == b"bytes"
    assert await fs.state(FILE) == "committed"
    assert (fs.root / FILE).exists()
    await fs.close(number)
    assert await fs.state(FILE) == "committed"


async def test_truncating_keeps_the_old_bytes_until_the_new_are_committed(fs: Filesystem) -> None:
    await fs.write(FILE, b"old bytes")
    await fs.drain()
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"new")
    await fs.parts.behind.flush()
    ((held_by, size),) = fs.rows("select held_by, size_bytes from garbage")
    assert (held_by, size) == ((await fs.node(FILE)).ino, 9)
    assert fs.account() == (3, 1), "nobody pays for the way back"
    await fs.close(number)
    await fs.drain()
    assert fs.rows("select count(*) from garbage") == [0]


async def test_an_overwrite_given_up_by_unlink_frees_both_versions(fs: Filesystem) -> None:
    await fs.write(FILE, b"old bytes")
    await fs.drain()
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"new")
    await fs.unlink(FILE)
    assert await fs.vfs.files.write(number, 3, b"er") == 2
    await fs.close(number)
    await fs.assert_consistent()
    assert fs.account() == (0, 0)


async def test_an_unlinked_file_lives_until_its_last_handle(fs: Filesystem) -> None:
    await fs.write(FILE, pattern(5000))
    await fs.drain()
    reader, writer = await fs.open(FILE), await fs.open(FILE, os.O_RDWR)
    await fs.unlink(FILE)
    await fs.drain()
    assert await fs.read_handle(reader) == pattern(5000)
    await fs.vfs.files.write(writer, 5000, b"more")
    assert await fs.read_handle(reader) == pattern(5000) + b"more"
    assert fs.account() == (0, 0)
    await fs.vfs.files.fsync(writer)
    await fs.close(writer)
    await fs.close(reader)
    with pytest.raises(RecfsError):
        await fs.node(FILE)


async def test_opening_an_unlinked_file_again_never_reaches_its_successor(fs: Filesystem) -> None:
    """By way of /proc/self/fd: the inode is open, but another file has its name by now."""
    await fs.write(FILE, b"first")
    await fs.drain()
    reader = await fs.open(FILE)
    first = (await fs.node(FILE)).ino
    await fs.unlink(FILE)
    await fs.write(FILE, b"second")
    await fs.drain()
    try:
        writer = await fs.vfs.open(first, os.O_RDWR, OPERATOR)
    except Stale:
        pass
    else:
        await fs.vfs.files.write(writer, 0, b"FIRST")
        assert await fs.read_handle(reader) == b"FIRST"
        await fs.close(writer)
    await fs.close(reader)
    assert await fs.read(FILE) == b"second"


async def test_mknod_makes_an_empty_file_that_is_committed(fs: Filesystem) -> None:
    folder = await fs.mkdirs(REC)
    await fs.vfs.mknod(folder.ino, b"file", 0o640, OPERATOR)
    await fs.drain()
    assert row(fs) == ("committed", 0, 1, 0)


async def test_a_stopping_daemon_takes_no_new_work(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    fs.vfs.stopping = True
    for attempt in (fs.write(f"{REC}/new", b""), fs.write(FILE, b"x", append=True), fs.mkdirs(f"{REC}/dir")):
        with pytest.raises(ReadOnlyFile):
            await attempt
    assert await fs.read(FILE) == b"bytes"
    fs.vfs.stopping = False


# --- sizes --------------------------------------------------------------------------------------------------------


async def test_holes_are_zeros_and_paid_for(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    number = await fs.open(FILE, os.O_RDWR | os.O_CREAT)
    await fs.vfs.files.write(number, 10_000, b"end")
    assert await fs.read_handle(number) == bytes(10_000) + b"end"
    await fs.close(number)
    assert fs.account() == (10_003, 1)


@pytest.mark.parametrize("committed", [True, False])
async def test_truncate_up_and_down(fs: Filesystem, committed: bool) -> None:
    await fs.write(FILE, pattern(5000))
    if committed:
        await fs.drain()
    ino = (await fs.node(FILE)).ino
    for size in (2000, 6000, 6000, 0, 10):
        await fs.vfs.setattr(ino, Changes(size=size), OPERATOR)
        assert fs.account() == (size, 1)
    assert await fs.read(FILE) == bytes(10)


# --- quota --------------------------------------------------------------------------------------------------------


async def limit(fs: Filesystem, **limits: int | str) -> None:
    """Set limits of user 5."""
    await fs.answers()["quota_set"]({"user": "5"} | limits)


@pytest.mark.parametrize(
    ("limits", "error"), [({"max_bytes": 5000}, QuotaExceeded), ({"max_file_size": 5000}, FileTooLarge)]
)
async def test_a_write_past_the_page_cache_is_done_whole_or_not_at_all(
    fs: Filesystem, limits: dict[str, int], error: type[Exception]
) -> None:
    """The kernel would tell EIO of half of it."""
    await fs.mkdirs(REC)
    await limit(fs, **limits)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    assert await fs.vfs.files.write(number, 0, bytes(4096)) == 4096
    with pytest.raises(error):
        await fs.vfs.files.write(number, 4096, bytes(4096))
    assert fs.account() == (4096, 1)
    await fs.close(number)
    number = await fs.open(FILE, os.O_WRONLY)
    assert await fs.vfs.files.write(number, 4096, bytes(4096)) == 904
    await fs.close(number)


async def test_the_limit_holds_to_the_byte(fs: Filesystem) -> None:
    await fs.write(f"{REC}/other", bytes(400))
    await limit(fs, max_bytes=1000)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    assert await fs.vfs.files.write(number, 0, bytes(500)) == 500
    assert await fs.vfs.files.write(number, 500, bytes(500)) == 100
    with pytest.raises(QuotaExceeded):
        await fs.vfs.files.write(number, 600, b"x")
    assert await fs.vfs.files.write(number, 0, bytes(600)) == 600, "rewriting costs nothing"
    with pytest.raises(QuotaExceeded):
        await fs.vfs.files.write(number, 5000, b"beyond a hole")
    with pytest.raises(QuotaExceeded):
        await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(size=601), OPERATOR)
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(size=600), OPERATOR)
    await fs.close(number)
    assert fs.account() == (1000, 2)
    await fs.unlink(f"{REC}/other")
    assert fs.account() == (600, 1)


async def test_a_file_larger_than_allowed(fs: Filesystem) -> None:
    await limit(fs, max_file_size=100, max_bytes=1000)
    await fs.mkdirs(REC)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    assert await fs.vfs.files.write(number, 0, bytes(101)) == 100
    with pytest.raises(FileTooLarge):
        await fs.vfs.files.write(number, 100, b"x")
    await fs.close(number)


async def test_too_many_files(fs: Filesystem) -> None:
    await limit(fs, max_files=2)
    await fs.write(f"{REC}/a", b"")
    folder = await fs.mkdirs("temp/5/1")
    await fs.vfs.symlink(folder.ino, b"link", b"x", OPERATOR)
    staged = len(fs.leftovers("staging"))
    for attempt in (fs.write(FILE, b""), fs.vfs.symlink(folder.ino, b"link2", b"x", OPERATOR)):
        with pytest.raises(QuotaExceeded):
            await attempt
    assert len(fs.leftovers("staging")) == staged
    await fs.write("users/6/recordings/1/a", b"another user's")
    await fs.mkdirs(f"{REC}/directories/are/free")


async def test_monthly_uploads(fs: Filesystem) -> None:
    await limit(fs, max_monthly_uploads=2)
    await fs.write("users/5/recordings/1/source.mp4", b"1")
    await fs.write("users/5/recordings/2/source.mp4", b"2")
    await fs.write("users/5/recordings/2/source.mp4", b"2 again: no new upload")
    with pytest.raises(QuotaExceeded):
        await fs.write("users/5/recordings/3/source.mp4", b"3")
    await fs.write("users/5/recordings/3/audio.mp3", b"no upload")
    await fs.unlink("users/5/recordings/1/source.mp4")
    with pytest.raises(QuotaExceeded):
        await fs.write("users/5/recordings/3/source.mp4", b"deleting gives none back")
    fs.clock.advance(31 * 86400)
    await fs.write("users/5/recordings/3/source.mp4", b"next month")
    fs.clock.put(-31 * 86400)
    await fs.write("users/5/recordings/4/source.mp4", b"the clock went back: still that month")
    with pytest.raises(QuotaExceeded):
        await fs.write("users/5/recordings/5/source.mp4", b"and that month is used up")


async def test_an_upload_that_gets_its_name_by_rename_counts_and_is_refused(fs: Filesystem) -> None:
    """Careful programs write aside and rename: the limit holds for them too."""
    await limit(fs, max_monthly_uploads=1)
    await fs.write("users/5/recordings/1/.part", b"1")
    await fs.rename("users/5/recordings/1/.part", "users/5/recordings/1/source.mp4")
    await fs.write("users/5/recordings/2/.part", b"2")
    with pytest.raises(QuotaExceeded):
        await fs.rename("users/5/recordings/2/.part", "users/5/recordings/2/source.mp4")
    with pytest.raises(QuotaExceeded):
        await fs.write("users/5/recordings/2/source.mp4", b"2")


async def test_moving_between_users_moves_the_charge_and_obeys_the_limits(fs: Filesystem) -> None:
    await fs.write(f"{REC}/a", bytes(600))
    await fs.write("users/6/recordings/1/b", bytes(700))
    await limit(fs, max_bytes=1000, max_files=2)
    with pytest.raises(QuotaExceeded):
        await fs.rename("users/6/recordings/1/b", f"{REC}/b")
    await fs.rename("users/6/recordings/1/b", f"{REC}/a")
    assert (fs.account("5"), fs.account("6")) == ((700, 1), (0, 0))
    await fs.rename(REC, "users/6/recordings/142")
    assert (fs.account("5"), fs.account("6")) == ((0, 0), (700, 1))


async def test_renaming_over_a_file_at_the_file_limit_is_allowed(fs: Filesystem) -> None:
    await fs.write(f"{REC}/source.mp4", b"5")
    await fs.write("users/6/recordings/1/source.mp4", b"6")
    await limit(fs, max_files=1)
    await fs.rename("users/6/recordings/1/source.mp4", f"{REC}/source.mp4")
    assert (fs.account("5"), fs.account("6")) == ((1, 1), (0, 0))


# --- shared files -------------------------------------------------------------------------------------------------


async def test_a_shown_file_is_copied_up_by_two_writers_at_once(fs: Filesystem) -> None:
    await fs.write("shared/thumbnails/a.png", pattern(300_000))
    await fs.mkdirs("users/5")
    numbers: list[int] = []

    async def write(offset: int) -> None:
        number = await fs.open("users/5/thumbnails/a.png", os.O_RDWR, USER)
        numbers.append(number)
        await fs.vfs.files.write(number, offset, b"own")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, 0)
        nursery.start_soon(write, 100)
    for number in numbers:
        await fs.close(number)
    wanted = bytearray(pattern(300_000))
    wanted[0:3] = wanted[100:103] = b"own"
    assert await fs.read("users/5/thumbnails/a.png") == bytes(wanted)
    assert await fs.read("shared/thumbnails/a.png") == pattern(300_000)
    assert fs.account() == (300_000, 1)


async def test_an_open_that_finds_nothing_under_its_number_is_told_so_once(fs: Filesystem) -> None:
    """By Stale, for which the kernel walks the path again, but only once: then there is nothing of the name."""
    await fs.write("shared/thumbnails/a.png", b"bytes")
    await fs.mkdirs("users/5")
    ino, caller, other = (await fs.node("users/5/thumbnails/a.png")).ino, Caller(7, 7, pid=70), Caller(7, 7, pid=71)
    await fs.unlink("shared/thumbnails/a.png")
    for each in (caller, other, caller):
        with pytest.raises(Stale):
            await fs.vfs.open(ino, os.O_RDONLY, each)
        if each is not other:
            with pytest.raises(NotFound):
                await fs.vfs.open(ino, os.O_RDONLY, each)
    with pytest.raises(Stale):
        await fs.vfs.open(ino, os.O_RDONLY, caller)
    await trio.sleep(5)
    with pytest.raises(Stale):
        await fs.vfs.open(ino, os.O_RDONLY, caller)


@pytest.mark.parametrize("gone", ["shared/thumbnails/a.png", "users/5"])
async def test_an_open_shown_file_keeps_its_attributes(fs: Filesystem, gone: str) -> None:
    await fs.write("shared/thumbnails/a.png", b"bytes")
    await fs.mkdirs("users/5")
    view = await fs.node("users/5/thumbnails/a.png")
    number = await fs.vfs.open(view.ino, os.O_RDONLY, USER)
    await (fs.rmdir if gone == "users/5" else fs.unlink)(gone)
    seen = await fs.vfs.node(view.ino)
    assert (seen.ino, seen.shared.size) == (view.ino, 5)
    assert await fs.read_handle(number) == b"bytes"
    await fs.close(number)
    if gone != "users/5":  # else the directory is remembered, and what it shows
        with pytest.raises(Stale):
            await fs.vfs.node(view.ino)


async def test_a_copy_up_that_fails_leaves_the_shared_file_shown(fs: Filesystem) -> None:
    await fs.write("shared/thumbnails/a.png", pattern(300_000))
    await fs.mkdirs("users/5")
    await fs.drain()
    fs.faults.fail("pwrite", errno.ENOSPC)
    with pytest.raises(OutOfSpace):
        await fs.open("users/5/thumbnails/a.png", os.O_WRONLY, USER)
    assert await fs.read("users/5/thumbnails/a.png") == pattern(300_000)
    assert fs.account() == (0, 0)
    await limit(fs, max_bytes=1000)
    with pytest.raises(QuotaExceeded):
        await fs.open("users/5/thumbnails/a.png", os.O_WRONLY, USER)
    number = await fs.open("users/5/thumbnails/a.png", os.O_WRONLY | os.O_TRUNC, USER)
    await fs.close(number)
    assert await fs.read("users/5/thumbnails/a.png") == b""


async def test_only_the_operator_writes_shared_files(fs: Filesystem) -> None:
    await fs.write("shared/thumbnails/a.png", b"a")
    node = await fs.node("shared/thumbnails/a.png")
    folder = await fs.node("shared/thumbnails")
    attempts = [
        fs.open("shared/thumbnails/a.png", os.O_WRONLY, USER),
        fs.write("shared/thumbnails/b.png", b"", caller=USER),
        fs.unlink("shared/thumbnails/a.png", USER),
        fs.rename("shared/thumbnails/a.png", "shared/thumbnails/b.png", USER),
        fs.vfs.setattr(node.ino, Changes(size=0), USER),
        fs.vfs.setattr(node.ino, Changes(mode=0o777), USER),
        fs.vfs.mkdir(folder.ino, b"dir", 0o755, USER),
        fs.xattrs.set(node.ino, b"user.a", b"1", USER),
    ]
    for attempt in attempts:
        with pytest.raises(ReadOnlyFile):
            await attempt
    assert await fs.read("shared/thumbnails/a.png") == b"a"


async def test_a_shown_name_counts_as_there_for_exclusive_makers(fs: Filesystem) -> None:
    await fs.write("shared/thumbnails/a.png", b"a")
    folder = (await fs.mkdirs("users/5/thumbnails")).ino
    for attempt in (
        fs.vfs.create(folder, b"a.png", 0o644, os.O_CREAT | os.O_EXCL | os.O_WRONLY, USER),
        fs.vfs.mkdir(folder, b"a.png", 0o755, USER),
        fs.vfs.symlink(folder, b"a.png", b"x", USER),
        fs.vfs.mknod(folder, b"a.png", 0o644, USER),
    ):
        with pytest.raises(Exists):
            await attempt


async def test_pages_that_were_read_beside_direct_writes_are_dropped(fs: Filesystem) -> None:
    """The kernel's, by a notification: while somebody else has the file open, and when the writer closes it."""
    await fs.mkdirs(REC)
    path = f"{REC}/direct"
    writer = await fs.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
    ino = (await fs.node(path)).ino
    await fs.vfs.files.write(writer, 0, b"x" * 4096)
    assert ino not in fs.kernel.inodes
    reader = await fs.open(path)
    await fs.vfs.files.write(writer, 0, b"y" * 4096)
    assert fs.kernel.inodes.count(ino) == 1
    await fs.close(reader)
    await fs.close(writer)
    assert fs.kernel.inodes.count(ino) == 2
    plain = await fs.open(path, os.O_WRONLY)
    await fs.vfs.files.write(plain, 0, b"z")
    await fs.close(plain)
    assert fs.kernel.inodes.count(ino) == 2


@pytest.mark.parametrize("how", ["O_TRUNC", "to 0", "to 10", "to 9000"])
async def test_what_is_written_while_a_file_is_cut_is_in_the_books(fs: Filesystem, how: str) -> None:
    """A write of somebody else reaches the disk right after ftruncate(2), and is answered before it."""
    await fs.mkdirs(REC)
    number = await fs.open(f"{REC}/file", os.O_RDWR | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"before" * 1000)
    node = fs.vfs.files.handles[number].node
    run = fs.parts.backing_files.contended.run

    async def overtaken(node: FileNode, function: Callable[..., Any], *args: Any) -> Any:
        result = await run(node, function, *args)
        if function is os.ftruncate:
            await fs.vfs.files.write(number, 0, b"after" * 1000)
        return result

    with mock.patch.object(fs.parts.backing_files.contended, "run", overtaken):
        if how == "O_TRUNC":
            await fs.close(await fs.open(f"{REC}/file", os.O_WRONLY | os.O_TRUNC))
        else:
            await fs.vfs.files.truncate(node, int(how.split()[1]))
    assert node.body is not None
    assert node.bytes == os.fstat(node.body.fd).st_size == max(5000, 9000 if how == "to 9000" else 0)
    await fs.close(number)
    await fs.drain()
    assert fs.account() == (node.bytes, 1)
