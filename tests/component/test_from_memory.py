"""What the C extension answers from memory: the same as the handlers would have answered at that moment, or nothing."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from recfs.fs.attributes import Changes
from recfs.fuse import from_memory, interpose
from recfs.fuse.operations import Operations
from tests.fakes import FakeKernelFiles, StagedAnswers

from .build import OPERATOR, REC, Filesystem

if TYPE_CHECKING:
    import pyfuse3
    import trio

ROOT = SimpleNamespace(uid=os.geteuid(), gid=os.getegid(), pid=1, umask=0o022)
LOOKUP, FORGET, GETATTR, RELEASE, BATCH_FORGET = 1, 2, 3, 18, 42
ATTR = struct.Struct("=QQQqqqIIIIIIIIII")
OUT = struct.Struct("=IiQ")


def request(opcode: int, ino: int, body: bytes, unique: int = 4) -> bytes:
    """A request of the kernel (linux/fuse.h, struct fuse_in_header)."""
    return struct.pack("=IIQQIIIHH", 40 + len(body), opcode, unique, ino, 1000, 1000, 1, 0, 0) + body


def getattr_of(ino: int) -> bytes:
    return request(GETATTR, ino, bytes(16))


def packed(entry: pyfuse3.EntryAttributes) -> tuple[int, ...]:
    """struct fuse_attr of an answer of a handler, as libfuse makes it (convert_stat)."""
    times = (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns)
    seconds, rests = (t // 10**9 for t in times), (t % 10**9 for t in times)
    sizes = (entry.st_ino, entry.st_size, entry.st_blocks)
    rest = (entry.st_mode, entry.st_nlink, entry.st_uid, entry.st_gid, entry.st_rdev, entry.st_blksize, 0)
    return (*sizes, *seconds, *rests, *rest)


@dataclass
class Kernel:
    """Asks the extension, and keeps what it answers."""

    fs: Filesystem
    operations: Any
    ours: socket.socket
    theirs: socket.socket

    def ask(self, message: bytes) -> bytes | None:
        """The answer's body; None where the handler is to be asked. An answer without a body is not expected."""
        assert interpose.reply is not None
        if not interpose.reply.recall(self.ours.fileno(), message):
            with pytest.raises(BlockingIOError):
                self.theirs.recv(1)
            return None
        answer = self.theirs.recv(4096)
        size, error, unique = OUT.unpack_from(answer)
        assert (size, error, unique) == (len(answer), 0, struct.unpack_from("=8xQ", message)[0])
        return answer[OUT.size :]

    async def stat(self, ino: int) -> None:
        """GETATTR is answered as the handler answers it."""
        answer = self.ask(getattr_of(ino))
        assert answer is not None
        entry = await self.operations.getattr(ino, ROOT)
        assert struct.unpack_from("=QII", answer) == (entry.attr_timeout, 0, 0)
        assert ATTR.unpack_from(answer, 16) == packed(entry)
        assert len(answer) == 16 + ATTR.size

    async def look(self, parent: int, name: bytes) -> int:
        """LOOKUP is answered as the handler answers it; the inode number, 0 of no such name."""
        answer = self.ask(request(LOOKUP, parent, name + b"\0"))
        assert answer is not None
        entry = await self.operations.lookup(parent, name, ROOT)
        ino, generation, entry_s, attr_s, entry_ns, attr_ns = struct.unpack_from("=QQQQII", answer)
        assert (ino, generation, entry_s, entry_ns, attr_ns) == (entry.st_ino, 0, entry.entry_timeout, 0, 0)
        if ino:
            assert attr_s == entry.attr_timeout
            assert ATTR.unpack_from(answer, 40) == packed(entry)
        assert len(answer) == 40 + ATTR.size
        return int(ino)

    async def hands_on(self, opcode: int, ino: int, body: bytes) -> bool:
        """Whether the handler is asked, and nothing was answered."""
        return self.ask(request(opcode, ino, body)) is None


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
async def kernel(
    nursery: trio.Nursery, place: Path, sockets: tuple[socket.socket, socket.socket]
) -> AsyncIterator[Kernel]:
    """A file system whose files the kernel may write by itself, and the extension that answers for it."""
    fs = Filesystem(nursery, place)
    fs.files = FakeKernelFiles()
    await fs.start()
    await fs.mkdirs(REC)
    operations = Operations(fs.vfs, fs.xattrs, fs.parts.store, frozenset({0, os.geteuid()}), StagedAnswers())  # type: ignore[arg-type]
    from_memory.begin(interpose.reply, operations)
    yield Kernel(fs, operations, *sockets)
    from_memory.end(interpose.reply)
    await fs.stop()


async def test_attributes_are_those_of_the_moment(kernel: Kernel) -> None:
    fs = kernel.fs
    await fs.write(f"{REC}/file", bytes(5000))
    link = await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"target", OPERATOR)
    for node in (fs.parts.tree.root, await fs.node(REC), await fs.node(f"{REC}/file"), link):
        await kernel.stat(node.ino)
        await fs.vfs.setattr(node.ino, Changes(mode=0o640, uid=3_000_000_000, gid=7), OPERATOR)
        await kernel.stat(node.ino)
        await fs.vfs.setattr(node.ino, Changes(atime_ns=-1, mtime_ns=-1_000_000_001), OPERATOR)
        await kernel.stat(node.ino)
    await fs.vfs.setattr((await fs.node(f"{REC}/file")).ino, Changes(size=1 << 40), OPERATOR)
    await kernel.stat((await fs.node(f"{REC}/file")).ino)


async def test_a_directory_shows_each_change_at_once(kernel: Kernel) -> None:
    folder = await kernel.fs.node(REC)
    answers = {kernel.ask(getattr_of(folder.ino))}
    for change in (b"made", b"again"):
        kernel.fs.clock.advance(1)
        number, _ = await kernel.fs.vfs.create(folder.ino, change, 0o644, os.O_WRONLY, OPERATOR)
        await kernel.fs.vfs.files.release(number)
        await kernel.stat(folder.ino)
        answers.add(kernel.ask(getattr_of(folder.ino)))
    kernel.fs.clock.advance(1)
    await kernel.fs.unlink(f"{REC}/made")
    await kernel.stat(folder.ino)
    answers.add(kernel.ask(getattr_of(folder.ino)))
    assert len(answers) == 4


async def test_names_are_found_and_counted_and_missed(kernel: Kernel) -> None:
    fs = kernel.fs
    await fs.write(f"{REC}/.hidden", b"x")
    folder, node = await fs.node(REC), await fs.node(f"{REC}/.hidden")
    before = node.kernel_refs
    assert await kernel.look(folder.ino, b".hidden") == node.ino
    assert node.kernel_refs == before + 2, "by the extension, and by the handler"
    assert await kernel.look(folder.ino, b"absent") == 0
    assert await kernel.look(folder.ino, b"n" * 255) == 0
    await fs.rename(f"{REC}/.hidden", f"{REC}/absent")
    assert await kernel.look(folder.ino, b".hidden") == 0
    assert await kernel.look(folder.ino, b"absent") == node.ino
    assert await kernel.look(fs.parts.tree.root.ino, b"users") == (await fs.node("users")).ino


async def test_what_memory_does_not_know_goes_to_the_handler(kernel: Kernel) -> None:
    fs = kernel.fs
    await fs.write(f"{REC}/file", b"x")
    folder = await fs.node(REC)
    assert await kernel.hands_on(GETATTR, 1 << 30, bytes(16)), "no such node is loaded"
    assert await kernel.hands_on(LOOKUP, 1 << 30, b"name\0")
    assert await kernel.hands_on(LOOKUP, (await fs.node(f"{REC}/file")).ino, b"name\0"), "no directory"
    for name in (b".", b"..", b"n" * 256, b""):
        assert await kernel.hands_on(LOOKUP, folder.ino, name + b"\0")
    assert await kernel.hands_on(LOOKUP, folder.ino, b"not ended")
    assert await kernel.hands_on(RELEASE, folder.ino, bytes(24))
    folder.complete = False
    assert await kernel.hands_on(LOOKUP, folder.ino, b"absent\0"), "it may be in the catalogue"
    assert await kernel.look(folder.ino, b"file")


async def test_where_shared_files_are_shown_absence_is_the_handlers_and_names_do_not_last(kernel: Kernel) -> None:
    fs = kernel.fs
    await fs.write("users/5/thumbnails/own.png", b"own")
    await fs.write("shared/thumbnails/a.png", b"shared")
    thumbnails = await fs.node("users/5/thumbnails")
    assert thumbnails.fallback is not None
    assert await kernel.look(thumbnails.ino, b"own.png")
    assert await kernel.hands_on(LOOKUP, thumbnails.ino, b"a.png\0")
    assert await kernel.hands_on(LOOKUP, thumbnails.ino, b"absent\0")
    await kernel.stat(thumbnails.ino)


async def test_a_file_that_the_kernel_writes_is_looked_at_by_the_handler(kernel: Kernel) -> None:
    fs = kernel.fs
    number, _ = await fs.pass_open(f"{REC}/file", os.O_RDWR | os.O_CREAT)
    folder, node = await fs.node(REC), await fs.node(f"{REC}/file")
    assert node.body.unchecked_writers
    os.write(node.body.fd, bytes(100))
    assert await kernel.hands_on(GETATTR, node.ino, bytes(16))
    assert await kernel.hands_on(LOOKUP, folder.ino, b"file\0")
    assert (await kernel.operations.getattr(node.ino, ROOT)).st_size == 100
    await fs.vfs.files.release(number)
    await kernel.stat(node.ino)


async def test_a_removed_directory_is_the_handlers(kernel: Kernel) -> None:
    fs = kernel.fs
    gone = await fs.mkdirs(f"{REC}/gone")
    await kernel.stat(gone.ino)
    await fs.rmdir(f"{REC}/gone")
    assert await kernel.hands_on(GETATTR, gone.ino, bytes(16))
    assert await kernel.hands_on(LOOKUP, gone.ino, b"name\0")


async def test_who_observes_is_told_of_all(kernel: Kernel) -> None:
    folder = await kernel.fs.node(REC)
    seen: list[str] = []

    def observer(name: str, args: tuple[Any, ...], number: int, seconds: float) -> None:
        seen.append(name)

    kernel.operations.watch("getattr", observer)
    assert await kernel.hands_on(GETATTR, folder.ino, bytes(16))
    assert await kernel.look(folder.ino, b"absent") == 0, "that is not observed"
    kernel.operations.watch("lookup", observer)
    assert await kernel.hands_on(LOOKUP, folder.ino, b"absent\0")
    kernel.operations.unwatch(observer)
    await kernel.stat(folder.ino)
    assert seen == []


async def test_what_the_kernel_forgets_is_handed_over(kernel: Kernel) -> None:
    fs = kernel.fs
    assert interpose.reply is not None
    for name in ("one", "two"):
        await fs.write(f"{REC}/{name}", b"")
    folder, one, two = await fs.node(REC), await fs.node(f"{REC}/one"), await fs.node(f"{REC}/two")
    before = one.kernel_refs, two.kernel_refs
    for asked in (b"one", b"one", b"two"):
        assert kernel.ask(request(LOOKUP, folder.ino, asked + b"\0"))
    fd = kernel.ours.fileno()
    assert interpose.reply.recall(fd, request(FORGET, one.ino, struct.pack("=Q", 1)))
    assert one.kernel_refs == before[0] + 1
    both = struct.pack("=II QQ QQ", 2, 0, one.ino, 1, two.ino, 1)
    assert interpose.reply.recall(fd, request(BATCH_FORGET, 0, both))
    assert (one.kernel_refs, two.kernel_refs) == before
    assert not interpose.reply.recall(fd, request(BATCH_FORGET, 0, struct.pack("=II QQ", 2, 0, one.ino, 1))), "short"
    with pytest.raises(BlockingIOError):
        kernel.theirs.recv(1)


async def test_an_answer_that_cannot_be_sent_counts_for_nothing(kernel: Kernel) -> None:
    await kernel.fs.write(f"{REC}/file", b"")
    folder, node = await kernel.fs.node(REC), await kernel.fs.node(f"{REC}/file")
    before = node.kernel_refs
    assert interpose.reply is not None
    assert not interpose.reply.recall(-1, request(LOOKUP, folder.ino, b"file\0"))
    assert not interpose.reply.recall(-1, getattr_of(folder.ino))
    assert node.kernel_refs == before


async def test_without_tables_everything_goes_to_the_handlers(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = await kernel.fs.node(REC)
    from_memory.end(interpose.reply)
    assert await kernel.hands_on(GETATTR, folder.ino, bytes(16))
    assert await kernel.hands_on(FORGET, folder.ino, bytes(8))

    class Own(Operations):
        async def lookup(self, parent: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
            raise AssertionError

    own = Own(kernel.fs.vfs, kernel.fs.xattrs, kernel.fs.parts.store, frozenset(), StagedAnswers())  # type: ignore[arg-type]
    from_memory.begin(interpose.reply, own)
    assert await kernel.hands_on(GETATTR, folder.ino, bytes(16)), "a subclass may do more"
    monkeypatch.setenv(interpose.WITHOUT_VARIABLE, "memory")
    from_memory.begin(interpose.reply, kernel.operations)
    assert await kernel.hands_on(GETATTR, folder.ino, bytes(16))


def test_nonsense_is_refused() -> None:
    reply = interpose.reply
    assert reply is not None
    bad: list[tuple[Any, ...]] = [(), (1,), ([], {}, print, dict, dict, dict, 1, 1), ({}, {}, print, 1, 1, 1, 1, 1)]
    for tables in bad:
        with pytest.raises(TypeError):
            reply.remember(*tables)
    with pytest.raises(ValueError, match="whole request"):
        reply.recall(0, bytes(39))
    for seconds in ((-1, 0), (0, 2), (float("nan"), 0)):
        with pytest.raises(ValueError, match="from 0 to 1"):
            reply.pace(*seconds)


def test_the_extensions_look(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    assert interpose.reply is not None
    assert not interpose.reply.look(ours.fileno(), 0.0)
    assert not interpose.reply.look(ours.fileno(), 0.000_01)
    theirs.send(b"x")
    assert interpose.reply.look(ours.fileno(), 60.0)
    ours.recv(1)
    theirs.close()
    assert interpose.reply.look(ours.fileno(), 60.0), "hung up"
