"""What a session refuses, as the kernel refuses it to its callers: by path, by mode bits, by value."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from recfs.core.permissions import Identity
from recfs.errors import AccessDenied, Exists, IsADirectory, NotADirectory, NotFound
from recfs.fs.attributes import Changes
from tests.fakes import FakeKernelFiles

from .build import REC, Filesystem, filesystem
from .test_session import BOB, FILE, by, got, hers, put

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
