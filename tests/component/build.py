"""A whole file system without a mount: what the component tests run against.

`Filesystem` starts the daemon's own parts (`parts.opened`) in a directory, with a clock that stands still, and can
die at any point (`crash`) as if the process had been killed, and start again on what that left.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import trio

from recfs import parts
from recfs.api.answers import Answers
from recfs.config import Config
from recfs.disk import staging
from recfs.errors import NotFound, RecfsError, Stale
from recfs.fs.caller import Caller
from recfs.fs.fallback_entries import FallbackEntry
from recfs.fs.handles import Mode
from recfs.fs.xattrs import Xattrs
from recfs.parts import building
from recfs.state import waits
from recfs.state.nodes import DirNode, FileNode, Node
from recfs.stores.local import LocalStore
from tests.fake_object_store import FakeObjectStore
from tests.fakes import FakeClock, FakeKernelFiles, KernelRecorder
from tests.helpers.invariants import assert_unbroken
from tests.helpers.watch import FEW_NODES, Watch, bystander, watched

from .consistency import PRIVATE, assert_store
from .faults import Faults, Stopped

OPERATOR = Caller(os.geteuid(), os.getegid(), operator=True)
USER = Caller(os.geteuid(), os.getegid())
REC = "users/5/recordings/142"
DRAIN_S = 3600.0
"""So long a test waits for a drain, by the clock that jumps (`virtual_time.py`): what waits for the clock of the file
system, which only the test moves on, waits for ever, and would take a CPU all the while.
"""


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ from place to place and from seed to seed."""
    block = hashlib.sha256(b"%d" % seed).digest() * 128
    return b"".join(b"%08d" % n + block[8:] for n in range(size // len(block) + 1))[:size]


class Filesystem:
    """The parts of a daemon, and short ways to use them by path."""

    def __init__(self, nursery: trio.Nursery, root: Path, **settings: Any) -> None:
        self._nursery = nursery
        self.root = Path(os.path.realpath(root))
        self.config = Config.model_validate({"root": self.root, "min_free": 0} | settings)
        self.clock = FakeClock()
        self.kernel = KernelRecorder()
        self.files: FakeKernelFiles | None = None
        """Set before the start, it lets files be opened by passthrough (`pass_open`)."""
        self.objects: FakeObjectStore | None = None
        """Set before the start: what stands for S3."""
        self.faults = Faults(self.root)
        self.boot: str | None = None
        self.rows_come_first = False
        """Set before a start: its mount is that of the daemon before, which answered nothing that has no row."""
        self.limit_s = math.inf
        """Set before the start: how long requests wait (state/waits.py)."""
        self.checked_at_end = True
        self.parts: parts.Parts
        self.watch: Watch | None = None
        """Looks whether the rules of who may change what are kept."""
        self._end = trio.Event()
        self._ended = trio.Event()
        self._ended.set()
        self._clean = True
        self._procedure: trio.CancelScope | None = None

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self, *, services: bool = True) -> None:
        """Open the store; `services` False leaves every step to the test."""
        self._end, self._ended, self._clean = trio.Event(), trio.Event(), True
        await self._nursery.start(self._life, services)

    async def _life(self, services: bool, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self.faults.installed(), self._settings():
                await self._serve(services, task_status)
        except BaseException as error:
            # Only the death a test asked for ends here; and even then the test goes on.
            _, rest = split(error)
            if rest is not None:
                raise
            self._close_descriptors()
        finally:
            self._ended.set()
            if self._procedure is not None:
                self._procedure.cancel()

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(building, "SystemClock", return_value=self.clock))
            stack.enter_context(mock.patch.object(staging, "POOL_SIZE", 8))
            # A clock that jumps while a thread works would end every wait for it at once.
            stack.enter_context(mock.patch.object(waits, "LIMIT_S", self.limit_s))
            if self.boot is not None:
                stack.enter_context(mock.patch.object(LocalStore, "boot_id", return_value=self.boot))
            yield

    async def _serve(self, services: bool, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with parts.opened(
                self.config, self.kernel, self.files, self.objects, rows_come_first=self.rows_come_first
            ) as made:
                self.parts = made
                try:
                    async with trio.open_nursery() as inner:
                        if services:
                            await made.serve(inner)
                        else:
                            inner.start_soon(made.backing_files.pool.run)
                        few = FEW_NODES if services else -1  # without them nobody takes up what the start found
                        with watched(made, few, is_over=lambda: self.faults.dead) as self.watch:
                            task_status.started()
                            await self._end.wait()
                        inner.cancel_scope.cancel()
                except BaseException:
                    self._clean = False
                    raise
                finally:
                    if not self._clean:
                        await self._abandon()
        finally:
            made = getattr(self, "parts", None)  # none where the start was refused
            if not self._clean or (
                made is not None and made.vfs.files.handles
            ):  # a process that ends has nothing open any more
                self._close_descriptors()

    async def _abandon(self) -> None:
        """Take away what would still be written on the way out."""
        self.faults.die()
        with trio.CancelScope(shield=True):  # a thread may be at the connection, which no other may touch then
            await self.parts.catalogue._writable()
        self.parts.backing_files.pool.close = lambda: None  # type: ignore[method-assign]
        self.parts.behind.flush = trio.lowlevel.checkpoint  # type: ignore[method-assign]
        connection = self.parts.catalogue._db
        if connection.in_transaction:
            connection.rollback()

    def _close_descriptors(self) -> None:
        if self._procedure is not None:
            return  # which may yet close some of them itself, on its way out
        below = f"{self.root}{os.sep}"
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}").startswith(below):
                    os.close(int(fd))

    async def stop(self) -> None:
        """Write everything and close."""
        self._end.set()
        await self._ended.wait()
        assert self.watch is None or not self.watch.found, self.watch.found

    async def crash(self) -> None:
        """Die: nothing is written any more, the lock is gone with the process."""
        self._clean = False
        await self.stop()

    async def reopen(self, *, services: bool = True) -> None:
        """Start again on what is there, whatever became of the last process."""
        if not self._ended.is_set():
            await self.stop()
        self.faults.dead, self.faults.stop_before = False, None
        await self.start(services=services)

    async def until_stopped(self, procedure: Callable[[Filesystem], Awaitable[None]], stop_before: int | None) -> bool:
        """Run a procedure that dies before its n-th effect on disk; True if it came to its end."""
        self.faults.count, self.faults.stop_before = 0, stop_before
        self.faults.trace.clear()
        finished = False
        with trio.CancelScope() as self._procedure:
            try:
                await procedure(self)
                finished = not self.faults.dead
            except BaseException as error:
                # What the dead told whoever had asked it something before is nobody's concern, nor is what a question
                # finds that comes to its catalogue a moment after that was closed.
                late = sqlite3.ProgrammingError
                echoes = (Stopped, trio.Cancelled, RecfsError, OSError, late) if self.faults.dead else None
                _, rest = split(error, echoes)
                if rest is not None:
                    raise
        self._procedure, self.faults.stop_before = None, None
        if self._ended.is_set():
            self._close_descriptors()
        return finished

    async def start_and_die(self, stop_before: int) -> None:
        """Start, and die again before the n-th effect: in the repair, or in the work that follows it."""
        self.faults.dead, self.faults.count, self.faults.stop_before = False, 0, stop_before
        try:
            await self.start()
        except RuntimeError:  # of the nursery: it died before it was up
            pass
        except RecfsError:  # what SQLite, dead, told its caller
            if not self.faults.dead:
                raise
        else:
            await self.until_stopped(Filesystem.drain, stop_before)
            await self.crash()
        self.faults.dead, self.faults.stop_before = False, None

    async def drain(self) -> None:
        """Until nothing is sealing, pending or dirty. Raises trio.TooSlowError where that never comes: see DRAIN_S."""
        with trio.fail_after(DRAIN_S):
            await self.parts.work.draining.drain()

    def _answers(self) -> Answers:
        parts = self.parts
        return Answers(
            self.config, parts.store, parts.vfs, parts.tier, parts.committer, parts.publisher, parts.work,
            parts.timekeeper, parts.reports, parts.observing, None, lambda: None, parts.recovered,
        )  # fmt: skip

    def answers(self) -> dict[str, Any]:
        """The control methods."""
        return self._answers().handlers()

    # --- by path -------------------------------------------------------------------------------------------------

    @property
    def vfs(self) -> Any:
        """The file system."""
        return self.parts.vfs

    @property
    def tier(self) -> Any:
        """What knows of bytes in S3."""
        return self.parts.tier

    async def node(self, path: str) -> Any:
        """What stands at a path. Raises NotFound."""
        return await self.vfs.at(path)

    async def exists(self, path: str) -> bool:
        """Whether the path leads anywhere."""
        try:
            await self.vfs.at(path)
        except NotFound:
            return False
        return True

    async def folder(self, path: str) -> tuple[int, bytes]:
        """(parent's inode number, name)."""
        head, _, name = path.rpartition("/")
        return (await self.vfs.at(head)).ino, os.fsencode(name)

    async def mkdirs(self, path: str) -> DirNode:
        """mkdir -p."""
        here: Any = self.parts.tree.root
        for name in filter(None, path.split("/")):
            found = await self.vfs.lookup(here.ino, os.fsencode(name))
            here = found or await self.vfs.mkdir(here.ino, os.fsencode(name), 0o755, OPERATOR)
        assert isinstance(here, DirNode)
        return here

    async def open(self, path: str, flags: int = os.O_RDONLY, caller: Caller = OPERATOR) -> int:
        """open(2)."""
        parent, name = await self.folder(path)
        seen = await self.vfs.lookup(parent, name)
        if seen is None and flags & os.O_CREAT:
            number, _ = await self.vfs.create(parent, name, 0o644, flags, caller)
            return int(number)
        if seen is None:
            raise NotFound(path)
        try:
            return int(await self.vfs.open(seen.ino, flags & ~os.O_CREAT, caller))
        except Stale:  # so does the kernel
            seen = await self.vfs.lookup(parent, name)
            return int(await self.vfs.open(seen.ino, flags & ~os.O_CREAT, caller))

    async def pass_open(self, path: str, flags: int = os.O_RDONLY, caller: Caller = OPERATOR) -> tuple[int, Mode]:
        """open(2) as it comes from the kernel: (handle, who moves the bytes)."""
        number = await self.open(path, flags, caller)
        mode, _ = await self.vfs.files.modes.choose(self.vfs.files.handles[number])
        return number, mode

    def pass_write(self, number: int, data: bytes, offset: int = 0) -> None:
        """Write past the daemon, as the kernel does for an open in mode PASS."""
        assert self.files is not None
        done = os.pwrite(self.files.backing[self.vfs.files.handles[number].body.backing], data, offset)
        assert done == len(data)

    async def close(self, number: int) -> None:
        """close(2), as the kernel reports it."""
        await self.vfs.files.release(number)

    async def write(self, path: str, data: bytes, *, append: bool = False, caller: Caller = OPERATOR) -> None:
        """Write a whole file, directories included, and close it."""
        await self.mkdirs(path.rpartition("/")[0])
        number = await self.open(path, os.O_WRONLY | os.O_CREAT | (0 if append else os.O_TRUNC), caller)
        try:
            offset = self.vfs.files.handles[number].node.bytes if append else 0
            done = 0
            while done < len(data):
                done += await self.vfs.files.write(number, offset + done, data[done:])
        finally:
            await self.close(number)

    async def read(self, path: str) -> bytes:
        """A whole file."""
        number = await self.open(path)
        try:
            return await self.read_handle(number)
        finally:
            await self.close(number)

    async def read_handle(self, number: int) -> bytes:
        """All bytes behind a handle."""
        content = b""
        while part := bytes(await self.vfs.files.read(number, len(content), 1 << 20)):
            content += part
        return content

    async def rename(self, old: str, new: str, caller: Caller = OPERATOR, **flags: bool) -> None:
        """rename(2), renameat2(2)."""
        await self.vfs.rename(*await self.folder(old), *await self.folder(new), caller, **flags)

    async def unlink(self, path: str, caller: Caller = OPERATOR) -> None:
        """unlink(2)."""
        await self.vfs.unlink(*await self.folder(path), caller)

    async def rmdir(self, path: str, caller: Caller = OPERATOR) -> None:
        """rmdir(2)."""
        await self.vfs.rmdir(*await self.folder(path), caller)

    async def names(self, path: str) -> list[str]:
        """readdir(3), sorted."""
        number = await self.vfs.listings.open((await self.vfs.at(path)).ino)
        found: list[str] = []
        after = 0
        while entries := await self.vfs.listings.read(number, after):
            found += [os.fsdecode(entry.name) for entry in entries]
            after = entries[-1].ino
        self.vfs.listings.release(number)
        return sorted(found)

    async def state(self, path: str) -> str:
        """The state word of a file."""
        seen = await self.vfs.at(path)
        file = seen.shared if isinstance(seen, FallbackEntry) else seen
        assert isinstance(file, FileNode)
        return str(file.state)

    async def tree(self, path: str = "") -> dict[str, bytes | None]:
        """Everything below: files with their bytes, symlinks with their targets, directories with None."""
        found: dict[str, bytes | None] = {}
        for name in await self.names(path):
            below = f"{path}/{name}" if path else name
            seen: Node | FallbackEntry = await self.vfs.at(below)
            if isinstance(seen, DirNode):
                found[below] = None
                found |= await self.tree(below)
            elif isinstance(seen, (FileNode, FallbackEntry)):
                found[below] = await self.read(below)
            else:
                found[below] = b"-> " + await self.vfs.readlink(seen.ino)
        return found

    def account(self, user: str = "5") -> tuple[int, int]:
        """(used bytes, used files) as memory has them."""
        account = self.parts.tree.accounts._known[user]
        return account.used_bytes, account.used_files

    @property
    def xattrs(self) -> Xattrs:
        """The attributes' operations."""
        return Xattrs(self.vfs, str(self.root))

    # --- on disk -------------------------------------------------------------------------------------------------

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Rows of the catalogue file, as a reader beside the daemon sees them."""
        with contextlib.closing(sqlite3.connect(f"file:{self.root}/{PRIVATE}/catalogue.db?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return [tuple(row) if len(row) > 1 else row[0] for row in db.execute(query, values)]

    def leftovers(self, area: str) -> list[str]:
        """Names in staging, trash, limbo or lost+found; without the empty, unlabelled files made ahead."""
        return sorted(
            path.name
            for path in (self.root / PRIVATE / area).iterdir()
            if area != "staging" or path.stat().st_size or "user.recfs.label" in os.listxattr(path)
        )

    async def assert_consistent(self, *, lost: int = 0, trash: int = 0) -> None:
        """After a drain: memory, rows, counters and every byte on disk agree, and nothing is left over."""
        await self.drain()
        assert_unbroken(self.parts)
        assert_store(self.parts.store.catalogue_path, self.root, lost=lost, trash=trash)


def split(
    error: BaseException, deaths: tuple[type[BaseException], ...] | None = None
) -> tuple[BaseException | None, BaseException | None]:
    """(the deaths a test asked for, everything else) in an exception or a group of them."""
    deaths = deaths or (Stopped, trio.Cancelled)
    if isinstance(error, BaseExceptionGroup):
        return error.split(deaths)
    return (error, None) if isinstance(error, deaths) else (None, error)


@asynccontextmanager
async def filesystem(
    root: Path, *, start: bool = True, services: bool = True, **settings: Any
) -> AsyncIterator[Filesystem]:
    """A file system below *root*, stopped when the block ends."""
    async with trio.open_nursery() as nursery:
        fs = Filesystem(nursery, root, **settings)
        if start:
            await fs.start(services=services)
        yield fs
        await fs.stop()
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    """Let time pass until *condition* holds; the clock jumps, so that none is lost."""
    with bystander():
        while not condition():  # noqa: ASYNC110  # any condition, of parts that announce nothing
            await trio.sleep(0.05)
