"""What a session refuses, as the kernel refuses it to its callers: by path, by mode bits, by value."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from recfs.core.permissions import Identity
from recfs.errors import (
    AccessDenied,
    Exists,
    FileTooLarge,
    Interrupted,
    InvalidArgument,
    InvalidPath,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotFound,
    NotPermitted,
    NotSupported,
    QuotaExceeded,
    Stale,
)
from recfs.fs.attributes import Changes
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, filesystem
from .test_session import BOB, FILE, by, given, got, hers, put

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["hers"]

ROOT = Identity(0, 0)
STICKY = f"{REC}/drop"


@pytest.fixture
async def drop(hers: Filesystem) -> Filesystem:
    """One with a directory where everybody may put things, and remove his own, as in /tmp."""
    await by(hers, ROOT).mkdir(STICKY)
    await by(hers, ROOT).change(STICKY, Changes(mode=0o1777))
    return hers


# --- links ---------------------------------------------------------------------------------------------------------


async def test_what_is_to_be_new_is_not_made_behind_a_link(hers: Filesystem) -> None:
    """open(2) with O_EXCL, mkdir(2) and symlink(2) follow no link at the end, a dangling one least of all."""
    alice = by(hers)
    await alice.symlink(b"elsewhere", f"{REC}/link")
    for path in (f"{REC}/link", f"{REC}/link/"):
        with pytest.raises(Exists):
            await alice.mkdir(path)
        with pytest.raises(Exists):
            await alice.symlink(b"x", path)
    with pytest.raises(Exists):
        await put(alice, f"{REC}/link", b"x", exclusive=True)
    assert await hers.names(REC) == ["link"]
    await put(alice, f"{REC}/link", b"x")
    assert await hers.names(REC) == ["elsewhere", "link"], "what may replace something follows it"


async def test_links_of_others_in_a_sticky_directory_lead_nowhere(drop: Filesystem) -> None:
    """As with fs.protected_symlinks."""
    alice, bob = by(drop), by(drop, BOB)
    await alice.mkdir(f"{REC}/mine")
    await put(alice, f"{REC}/mine/file", b"hers")
    await bob.symlink(b"../mine/planted", f"{STICKY}/dangling")
    await bob.symlink(b"../mine", f"{STICKY}/way")
    for act in (
        lambda: put(alice, f"{STICKY}/dangling", b"x"),
        lambda: alice.stat(f"{STICKY}/dangling"),
        lambda: alice.list(f"{STICKY}/way"),
        lambda: got(alice, f"{STICKY}/way/file"),
        lambda: got(by(drop, ROOT), f"{STICKY}/way/file"),
    ):
        with pytest.raises(AccessDenied):
            await act()
    assert await drop.names(f"{REC}/mine") == ["file"]
    assert await alice.readlink(f"{STICKY}/way") == b"../mine"
    assert await got(bob, f"{STICKY}/way/file") == b"hers", "his own"
    await by(drop, ROOT).symlink(b"../mine", f"{STICKY}/by root")
    assert await got(alice, f"{STICKY}/by root/file") == b"hers", "the directory's owner's"
    await by(drop, ROOT).change(STICKY, Changes(mode=0o1775))
    assert await got(alice, f"{STICKY}/way/file") == b"hers", "not everybody may write there"


async def test_a_slash_at_the_end_wants_a_directory(hers: Filesystem) -> None:
    alice = by(hers)
    await put(alice, FILE, b"data")
    await alice.mkdir(f"{REC}/folder")
    await alice.symlink(b"folder", f"{REC}/way")
    await alice.symlink(b"file/", f"{REC}/link")
    before = await hers.names(REC)
    for act, error in (
        (lambda: alice.remove(f"{REC}/way/"), NotADirectory),
        (lambda: alice.remove(f"{FILE}/"), NotADirectory),
        (lambda: alice.rename(f"{REC}/way/", f"{REC}/x"), NotADirectory),
        (lambda: alice.rename(FILE, f"{REC}/x/"), NotADirectory),
        (lambda: alice.rename(FILE, f"{REC}/way/"), NotADirectory),
        (lambda: alice.rename(f"{REC}/folder", f"{REC}/way/", exchange=True), NotADirectory),
        (lambda: put(alice, f"{REC}/new/", b"x"), IsADirectory),
        (lambda: put(alice, f"{REC}/new/", b"x", exclusive=True), IsADirectory),
        (lambda: alice.symlink(b"x", f"{REC}/new/"), NotFound),
        (lambda: got(alice, f"{REC}/link"), NotADirectory),
        (lambda: alice.stat(f"{REC}/new/"), NotFound),
    ):
        with pytest.raises(error):
            await act()
    assert await hers.names(REC) == before
    await alice.mkdir(f"{REC}/new/")
    await alice.rename(f"{REC}/new/", f"{REC}/other/")
    await alice.remove(f"{REC}/other/")
    assert await hers.names(REC) == before


# --- what is told --------------------------------------------------------------------------------------------------


async def test_who_may_not_read_is_not_told_what_is_in_it(hers: Filesystem) -> None:
    await put(by(hers), FILE, b"secret", mode=0o600)
    await by(hers).mkdir(f"{REC}/private", 0o711)
    await put(by(hers), f"{REC}/private/file", bytes(1234))
    await hers.drain()
    bob = by(hers, BOB)
    assert (await bob.stat(FILE)).sha256 is None
    assert (await bob.stat(f"{REC}/private")).size_bytes == 0
    assert (await bob.stat(f"{REC}/private/file")).sha256 is not None
    told = {entry.name: entry.stat for entry in await bob.list(REC)}
    assert (told[b"file"].sha256, told[b"private"].size_bytes) == (None, 0)
    await hers.reopen()
    told = {entry.name: entry.stat for entry in await by(hers, BOB).list(REC)}
    assert (told[b"file"].sha256, told[b"private"].size_bytes) == (None, 0), "nor of what is not in memory"
    assert (await by(hers).stat(FILE)).sha256 is not None
    assert (await by(hers).stat(f"{REC}/private")).size_bytes == 1234


async def test_a_reader_knows_what_the_kernel_has_written(place: Path) -> None:
    async with filesystem(place, start=False) as fs:
        fs.files = FakeKernelFiles()
        await fs.start()
        await fs.write(FILE, bytes(5000))
        number, _ = await fs.pass_open(FILE, os.O_WRONLY)
        fs.pass_write(number, bytes(5000), 5000)
        async with by(fs, ROOT).reader(FILE) as file:
            assert file.size_bytes == 10_000
            assert len(await file.read(0, file.size_bytes)) == 10_000
        await fs.close(number)


# --- what changes while somebody waits -----------------------------------------------------------------------------


@pytest.mark.late_catalogue
async def test_what_has_come_to_a_name_meanwhile_is_not_moved_by_another(
    drop: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to the new name is looked up when the old one has been: it may take its time."""
    bob = by(drop, BOB)
    await put(bob, f"{STICKY}/x", b"his")
    find, waits, goes_on = drop.vfs.lookup, trio.Event(), trio.Event()

    async def lookup(parent: int, name: bytes) -> Any:
        if name == b"moved":
            waits.set()
            await goes_on.wait()
        return await find(parent, name)

    monkeypatch.setattr(drop.vfs, "lookup", lookup)
    refused: list[NotPermitted] = []

    async def move() -> None:
        try:
            await bob.rename(f"{STICKY}/x", f"{STICKY}/moved")
        except NotPermitted as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        await waits.wait()
        await bob.remove(f"{STICKY}/x")
        await put(by(drop), f"{STICKY}/x", b"hers", mode=0o600)
        goes_on.set()
    assert await drop.names(STICKY) == ["x"]
    assert refused


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_only_what_was_written_comes_to_the_name(hers: Filesystem, how: str) -> None:
    async def write() -> None:
        async with by(hers).writer(FILE) as file:
            await file.write(b"hers")
            [aside] = await hers.names(REC)
            await hers.unlink(f"{REC}/{aside}")
            if how == "replaced":
                await hers.write(f"{REC}/{aside}", b"another")

    with pytest.raises(Stale):
        await write()
    assert "file" not in await hers.names(REC)
    assert not hers.vfs.files.handles


async def test_a_write_that_failed_fails_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any) -> int:
        await trio.sleep_forever()
        raise AssertionError

    async with filesystem(place, quota={"max_bytes": 100_000}) as fs:
        await fs.mkdirs(REC)
        await given(fs, REC)

        async def swallow() -> None:
            async with by(fs).writer(FILE) as file:
                with contextlib.suppress(QuotaExceeded):
                    await file.write(bytes(200_000))

        async def give_up() -> None:
            async with by(fs).writer(FILE) as file:
                monkeypatch.setattr(fs.vfs.files, "write", never)
                with trio.move_on_after(1):
                    await file.write(b"data")

        with pytest.raises(QuotaExceeded):
            await swallow()
        with pytest.raises(Interrupted):
            await give_up()
        assert await fs.names(REC) == []


async def test_the_kernel_hears_of_what_was_replaced(hers: Filesystem) -> None:
    """So that fstat(2) of who has it open tells of no name."""
    alice = by(hers)
    for act in (lambda: put(alice, FILE, b"new"), lambda: alice.rename(f"{REC}/other", FILE)):
        await put(alice, FILE, b"old")
        await put(alice, f"{REC}/other", b"other")
        ino = (await hers.node(FILE)).ino
        hers.kernel.inodes.clear()
        await act()
        assert ino in hers.kernel.inodes


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "error"),
    [(b"", NotFound), (b"a\0b", InvalidArgument), (b"x" * 4096, NameTooLong)],
    ids=["empty", "nul", "long"],
)
async def test_what_no_link_may_lead_to(hers: Filesystem, target: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await by(hers).symlink(target, f"{REC}/link")
    with pytest.raises(error):
        await hers.vfs.symlink((await hers.node(REC)).ino, b"link", target, OPERATOR)
    await by(hers).symlink(b"x" * 4095, f"{REC}/link")
    await hers.drain()


@pytest.mark.parametrize("how", ["in memory", "not in memory"])
async def test_a_link_is_as_long_as_its_target(hers: Filesystem, how: str) -> None:
    await by(hers).symlink(b"a target", f"{REC}/link")
    if how == "not in memory":
        await hers.drain()
        await hers.reopen()
    [entry] = await by(hers).list(REC)
    assert entry.stat.size_bytes == len(b"a target")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (Changes(uid=-1), InvalidArgument),
        (Changes(gid=-1), InvalidArgument),
        (Changes(uid=2**32 - 1), InvalidArgument),
        (Changes(gid=2**64), InvalidArgument),
        (Changes(size=-1), InvalidArgument),
        (Changes(size=2**63), FileTooLarge),
    ],
    ids=str,
)
async def test_what_no_attribute_may_be(hers: Filesystem, changes: Changes, error: type[Exception]) -> None:
    await put(by(hers), FILE, b"data")
    with pytest.raises(error):
        await by(hers, ROOT).change(FILE, changes)
    assert (await by(hers, ROOT).change(FILE, Changes(uid=2**32 - 2, mode=0o170644))).mode == 0o644
    await hers.drain()


async def test_a_link_has_no_mode(hers: Filesystem) -> None:
    await by(hers).symlink(b"file", f"{REC}/link")
    with pytest.raises(NotSupported):
        await by(hers).change(f"{REC}/link", Changes(mode=0o600), follow_link=False)


async def test_a_group_of_others_is_not_given_its_rights(hers: Filesystem) -> None:
    """A new file in a set-group-ID directory gets its group, and not the right to act as that."""
    await by(hers, ROOT).change(REC, Changes(gid=7777, mode=0o2777))
    async with by(hers, BOB).writer(FILE, mode=0o6755):
        pass
    stat = await by(hers).stat(FILE)
    assert (stat.gid, stat.mode) == (7777, 0o4755)
    friend = Identity(1003, 1003, frozenset({7777}))
    async with by(hers, friend).writer(f"{REC}/other", mode=0o2755):
        pass
    assert (await by(hers).stat(f"{REC}/other")).mode == 0o2755


async def test_what_is_no_path_no_offset_and_no_open_file(hers: Filesystem) -> None:
    alice = by(hers)
    for path, error in (
        (f"{REC}/\ud800", InvalidPath),
        (f"{REC}/" + "./" * 2048, NameTooLong),
    ):
        with pytest.raises(error):
            await alice.stat(path)
    for after in (-1, 2**70):
        with pytest.raises(InvalidArgument):
            await alice.list(REC, after)
    async with alice.writer(FILE) as writer:
        await writer.write(b"data")
    async with alice.reader(FILE) as reader:
        for offset, length in ((-1, 1), (0, -1)):
            with pytest.raises(InvalidArgument):
                await reader.read(offset, length)
    for act in (lambda: reader.read(0, 1), lambda: writer.write(b"x"), writer.sync):
        with pytest.raises(Stale):
            await act()
