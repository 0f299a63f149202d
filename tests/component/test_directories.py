"""Listings in the kernel's buffers: filled by the C extension, they say what would be told one by one."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyfuse3
import pytest

from recfs.errors import IoFailure
from recfs.fuse import from_memory, interpose
from recfs.fuse.directories import DOTS, Directories
from recfs.fuse.entries import Entries
from recfs.fuse.operations import Operations
from tests.fakes import FakeKernelFiles, StagedAnswers

from .build import OPERATOR, REC, Filesystem

if TYPE_CHECKING:
    import trio

ENTRY = struct.Struct("=QQQQII QQQqqqIIIIIIIIII")
DIRENT = struct.Struct("=QQII")


class Seen(NamedTuple):
    """One entry of an answer."""

    name: bytes
    ino: int
    offset: int
    kind: int
    rest: tuple[int, ...] = ()
    """How long the kernel may believe in the name and the attributes; the attributes. Empty: names alone."""


class Token:
    """What a listing request gets to be answered with: a buffer of the kernel's size."""

    def __init__(self, size: int) -> None:
        self.buffer = ctypes.create_string_buffer(size)
        self.used = 0
        self.told: list[Seen] = []
        """Told one by one."""

    def entries(self, *, plain: bool) -> list[Seen]:
        """What the extension has put into it."""
        found, data, at = [], self.buffer.raw[: self.used], 0
        while at < len(data):
            rest: tuple[int, ...] = ()
            if not plain:
                fields = ENTRY.unpack_from(data, at)
                rest, at = (fields[2], fields[3], *fields[6:]) if fields[0] else (), at + ENTRY.size
                assert fields[0] in (0, fields[6])
            ino, offset, length, kind = DIRENT.unpack_from(data, at)
            at += DIRENT.size
            found.append(Seen(data[at : at + length], ino, offset, kind, rest))
            padded = -(-length // 8) * 8
            assert data[at + length : at + padded] == bytes(padded - length)
            at += padded
        assert at == len(data)
        return found


class Listed:
    """Lists directories with the extension, and without it."""

    def __init__(self, fs: Filesystem) -> None:
        self.fs = fs
        assert interpose.reply is not None
        self._add = ctypes.PyDLL(interpose.reply.__file__ or "").fuse_add_direntry_plus
        self._add.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p,
                              ctypes.c_longlong)  # fmt: skip
        self._add.restype = ctypes.c_size_t
        self.by_extension = Directories(fs.vfs.listings, Entries(fs.parts.tree))
        self.one_by_one = Directories(fs.vfs.listings, Entries(fs.parts.tree))
        self.one_by_one._extension = None

    def reply(self, token: Token, name: bytes, entry: pyfuse3.EntryAttributes, offset: int) -> bool:
        """pyfuse3.readdir_reply."""
        if name:
            if len(token.told) * 160 + 160 > len(token.buffer):
                return False
            times = (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns)
            attributes = (
                entry.st_ino, entry.st_size, entry.st_blocks, *(t // 10**9 for t in times), *(t % 10**9 for t in times),
                entry.st_mode, entry.st_nlink, entry.st_uid, entry.st_gid, entry.st_rdev, entry.st_blksize, 0,
            )  # fmt: skip
            rest = (int(entry.entry_timeout), int(entry.attr_timeout), *attributes)
            dot = offset <= DOTS
            token.told.append(Seen(name, entry.st_ino, offset, stat.S_IFMT(entry.st_mode) >> 12, () if dot else rest))
            return True
        where = ctypes.addressof(token.buffer) + token.used
        token.used += self._add(None, where, len(token.buffer) - token.used, None, None, 0)
        assert token.used <= len(token.buffer)
        return True

    async def all_of(
        self, path: str, *, plain: bool = False, with_extension: bool = True, size: int = 4096
    ) -> list[Seen]:
        """The whole listing of a directory, in answers of *size* bytes."""
        how = self.by_extension if with_extension else self.one_by_one
        number = await self.fs.vfs.listings.open((await self.fs.node(path)).ino)
        found: list[Seen] = []
        while True:
            token: Any = Token(size)
            await how.read(number, found[-1].offset if found else 0, token, plain=plain)
            some = sorted(token.entries(plain=plain) + token.told, key=lambda seen: seen.offset)
            if not some:
                break
            found += some
        self.fs.vfs.listings.release(number)
        return found


@pytest.fixture
async def listed(nursery: trio.Nursery, place: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listed]:
    fs = Filesystem(nursery, place)
    fs.files = FakeKernelFiles()
    await fs.start()
    await fs.mkdirs(REC)
    from_memory.begin(interpose.reply, Operations(fs.vfs, fs.xattrs, fs.parts.store, frozenset(), StagedAnswers()))  # type: ignore[arg-type]
    made = Listed(fs)
    monkeypatch.setattr(pyfuse3, "readdir_reply", made.reply)
    yield made
    from_memory.end(interpose.reply)
    await fs.stop()


async def fill(fs: Filesystem, files: int = 60) -> None:
    """A recording with files, a directory and a link, with names of all lengths."""
    folder = await fs.node(REC)
    for number in range(files):
        await fs.write(f"{REC}/{'n' * (number * 4 % 250)}{number}", bytes(number * 100))
    await fs.mkdirs(f"{REC}/dir")
    await fs.vfs.symlink(folder.ino, b"link", b"target", OPERATOR)


def names(seen: list[Seen]) -> list[bytes]:
    return [each.name for each in seen]


@pytest.mark.parametrize("size", [4096, 32768])
async def test_a_directory_in_memory_is_told_as_one_by_one(listed: Listed, size: int) -> None:
    await fill(listed.fs)
    told = await listed.all_of(REC, with_extension=False)
    assert names(told)[:2] == [b".", b".."]
    assert len(told) == 64
    assert await listed.all_of(REC, size=size) == told
    assert await listed.all_of(REC, plain=True, size=size) == [each._replace(rest=()) for each in told]


async def test_a_directory_that_is_not_in_memory_is_told_as_one_by_one(listed: Listed) -> None:
    await fill(listed.fs)
    await listed.fs.drain()
    folder = await listed.fs.node(REC)
    for ino in [node.ino for node in folder.children.values()]:
        listed.fs.parts.tree.memory.let_go(ino)
    assert not folder.complete
    assert len(folder.children) < 30
    told = await listed.all_of(REC, with_extension=False)
    assert len(told) == 64
    assert await listed.all_of(REC) == told
    assert await listed.all_of(REC, plain=True) == [each._replace(rest=()) for each in told]


async def test_the_kernel_holds_what_it_is_told_with_attributes(listed: Listed) -> None:
    await fill(listed.fs, 3)
    folder = await listed.fs.node(REC)
    before = {name: node.kernel_refs for name, node in folder.children.items()}
    await listed.all_of(REC, plain=True)
    assert {name: node.kernel_refs for name, node in folder.children.items()} == before
    await listed.all_of(REC)
    assert {name: node.kernel_refs - before[name] for name, node in folder.children.items()} == dict.fromkeys(before, 1)
    above = folder.parent.kernel_refs
    await listed.all_of(REC)
    assert folder.parent.kernel_refs == above, "of . and .. it holds nothing"


async def test_what_does_not_fit_comes_in_the_next_answer(listed: Listed) -> None:
    await fill(listed.fs, 10)
    whole = await listed.all_of(REC, size=32768)
    for size in (160, 320, 600):
        some = await listed.all_of(REC, size=size)
        assert some == whole[: len(some)], "a name that is longer than the buffer ends it"
        assert len(some) >= 4


async def test_names_that_go_meanwhile_are_not_told(listed: Listed) -> None:
    fs = listed.fs
    for name in ("a", "b", "c", "d"):
        await fs.write(f"{REC}/{name}", b"")
    await fs.mkdirs(f"{REC}/elsewhere")
    number = await fs.vfs.listings.open((await fs.node(REC)).ino)
    token: Any = Token(3 * 160)
    await listed.by_extension.read(number, 0, token, plain=False)
    assert names(token.entries(plain=False)) == [b".", b"..", b"a"]
    await fs.unlink(f"{REC}/b")
    await fs.rename(f"{REC}/c", f"{REC}/elsewhere/c")
    await fs.write(f"{REC}/new", b"")
    rest: Any = Token(4096)
    await listed.by_extension.read(number, token.entries(plain=False)[-1].offset, rest, plain=False)
    assert names(rest.entries(plain=False)) == [b"d", b"elsewhere"], "what has come since may be left out"


async def test_what_the_extension_cannot_tell_is_told_by_its_handler(listed: Listed) -> None:
    fs = listed.fs
    for name in ("a", "written", "z"):
        await fs.write(f"{REC}/{name}", b"old")
    number, _ = await fs.pass_open(f"{REC}/written", os.O_RDWR)
    node = await fs.node(f"{REC}/written")
    os.pwrite(node.body.fd, bytes(1000), 0)
    folder = await fs.vfs.listings.open((await fs.node(REC)).ino)
    token: Any = Token(4096)
    await listed.by_extension.read(folder, 0, token, plain=False)
    assert names(token.entries(plain=False)) == [b".", b"..", b"a", b"z"]
    assert [(each.name, each.rest[3]) for each in token.told] == [(b"written", 1000)]
    assert names(await listed.all_of(REC, plain=True)) == [b".", b"..", b"a", b"written", b"z"]
    await fs.vfs.files.release(number)


async def test_shared_files_that_are_shown_are_in_it(listed: Listed) -> None:
    fs = listed.fs
    await fs.write("shared/thumbnails/a.png", b"shared")
    await fs.write("users/5/thumbnails/own.png", b"own")
    told = await listed.all_of("users/5/thumbnails", with_extension=False)
    assert names(told) == [b".", b"..", b"own.png", b"a.png"]
    assert await listed.all_of("users/5/thumbnails") == told
    assert await listed.all_of("users/5/thumbnails", plain=True) == [each._replace(rest=()) for each in told]


async def test_an_empty_directory_has_its_dots(listed: Listed) -> None:
    await listed.fs.mkdirs(f"{REC}/empty")
    for plain in (False, True):
        assert names(await listed.all_of(f"{REC}/empty", plain=plain)) == [b".", b".."]


async def test_without_its_functions_in_pyfuse3_all_is_told_one_by_one(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(listed.fs, 3)
    told = await listed.all_of(REC, with_extension=False)

    def untouched(token: Token, name: bytes, entry: pyfuse3.EntryAttributes, offset: int) -> bool:
        return listed.reply(token, name, entry, offset) if name else True

    monkeypatch.setattr(pyfuse3, "readdir_reply", untouched)
    assert await listed.all_of(REC) == told
    assert listed.by_extension._extension is None


async def test_names_of_nothing_are_an_error(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(number: int, after: int) -> list[Any]:
        return [object()]

    number = await listed.fs.vfs.listings.open((await listed.fs.node(REC)).ino)
    monkeypatch.setattr(listed.fs.vfs.listings, "read", read)
    token: Any = Token(4096)
    with pytest.raises(IoFailure, match="cannot be told"):
        await listed.by_extension.read(number, 0, token, plain=True)


def test_staging_refuses_nonsense() -> None:
    assert interpose.reply is not None
    bad: list[tuple[Any, ...]] = [(), (1, 0, None, 0, False, 1), ({}, 0, None, 0, False, 1)]
    for wrong in bad:
        with pytest.raises(TypeError):
            interpose.reply.stage_entries(*wrong)
    for first, offset in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="from 0 on"):
            interpose.reply.stage_entries([], first, None, offset, False, 1)
    assert interpose.reply.entries_put()[1] is False
