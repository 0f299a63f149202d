"""Random operations on the file system and on a plain directory: same contents, same listings, same refusals.

The file system runs in a trio thread of its own; each rule hands it one operation. Closed files may be killed at any
moment; `flush` stands for the write-behind's interval, so that what the model still has after a crash is defined.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from recfs.fs.attributes import Changes
from recfs.state.nodes import DirNode, FileNode

from .both_sides import Loop, outcome, plain_tree
from .build import OPERATOR, REC, pattern

NAMES = st.sampled_from(["a", "b", "c", "dir", "dir/x", "dir/y", "dir/sub", "dir/sub/z"])
DATA = st.builds(pattern, st.integers(0, 9000), st.integers(0, 5))
WHERE = st.integers(0, 12_000)
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Model(RuleBasedStateMachine):
    """The same operations on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="recfs-model-", dir=MEMORY))
        self.plain = self.place / "plain"
        self.plain.mkdir()
        self.loop = Loop(self.place / "store")
        self.fs = self.loop.fs
        self.open: list[tuple[int, int, str]] = []
        self.attributes: dict[int, dict[bytes, bytes]] = {}
        self.hurried = False

    @initialize()
    def recording(self) -> None:
        self.loop.do(self.fs.mkdirs, REC)

    def same(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> int:
        """Both succeed with the same value, or both fail with the same error; which?"""
        got, wanted = outcome(ours), outcome(theirs)
        assert got == wanted, f"{[errno.errorcode.get(each[0], each[0]) for each in (got, wanted)]}"
        return got[0]

    def unreachable(self, *names: str) -> bool:
        """Whether the kernel refuses without asking: a path through a file, a rename into or over itself."""
        parents = [self.plain / parent for name in names for parent in Path(name).parents]
        if any(name != top and name.startswith(f"{top}/") for name in names for top in names):
            return True
        return any(os.path.lexists(parent) and (parent.is_symlink() or not parent.is_dir()) for parent in parents)

    # --- whole files -------------------------------------------------------------------------------------------

    @rule(name=NAMES, data=DATA)
    def write(self, name: str, data: bytes) -> None:
        async def ours() -> None:
            number = await self.fs.open(f"{REC}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                await self.fs.vfs.files.write(number, 0, data)
            finally:
                await self.fs.close(number)

        if self.unreachable(name) or (self.plain / name).is_symlink() or not (self.plain / name).parent.is_dir():
            return  # the kernel would have looked the parent up, and failed itself
        self.same(lambda: self.loop.do(ours), lambda: self.overwrite(name, data))

    def overwrite(self, name: str, data: bytes) -> None:
        fd = os.open(self.plain / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        os.write(fd, data)
        os.close(fd)

    @rule(name=NAMES)
    def exclusive(self, name: str) -> None:
        if self.unreachable(name) or not (self.plain / name).parent.is_dir():
            return
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY

        async def ours() -> None:
            parent, last = await self.fs.folder(f"{REC}/{name}")
            number, _ = await self.fs.vfs.create(parent, last, 0o644, flags, OPERATOR)
            await self.fs.close(number)

        self.same(lambda: self.loop.do(ours), lambda: os.close(os.open(self.plain / name, flags)))

    @rule(name=NAMES, size=WHERE)
    def truncate(self, name: str, size: int) -> None:
        if not (self.plain / name).is_file() or (self.plain / name).is_symlink():
            return

        async def ours() -> None:
            node = await self.fs.node(f"{REC}/{name}")
            await self.fs.vfs.setattr(node.ino, Changes(size=size), OPERATOR)

        self.same(lambda: self.loop.do(ours), lambda: os.truncate(self.plain / name, size))

    # --- open files --------------------------------------------------------------------------------------------

    @rule(name=NAMES, flags=st.sampled_from([os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC]))
    def open_file(self, name: str, flags: int) -> None:
        path = self.plain / name
        if len(self.open) < 4 and path.is_file() and not path.is_symlink():
            self.open.append((self.loop.do(self.fs.open, f"{REC}/{name}", flags), os.open(path, flags), name))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 3), offset=WHERE, data=DATA)
    def write_at(self, which: int, offset: int, data: bytes) -> None:
        number, fd, _ = self.open[which % len(self.open)]
        if self.fs.vfs.files.handles[number].writes:
            self.same(
                lambda: self.loop.do(self.fs.vfs.files.write, number, offset, data),
                lambda: os.pwrite(fd, data, offset),
            )

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 3))
    def read_open(self, which: int) -> None:
        number, fd, _ = self.open[which % len(self.open)]
        self.same(lambda: self.loop.do(self.fs.read_handle, number), lambda: os.pread(fd, 1 << 20, 0))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 3))
    def fsync(self, which: int) -> None:
        self.loop.do(self.fs.vfs.files.fsync, self.open[which % len(self.open)][0])

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 3))
    def close(self, which: int) -> None:
        number, fd, _ = self.open.pop(which % len(self.open))
        self.loop.do(self.fs.close, number)
        os.close(fd)

    # --- names -------------------------------------------------------------------------------------------------

    @rule(name=NAMES)
    def unlink(self, name: str) -> None:
        if self.unreachable(name):
            return
        self.same(lambda: self.loop.do(self.fs.unlink, f"{REC}/{name}"), lambda: os.unlink(self.plain / name))

    @rule(name=NAMES)
    def mkdir(self, name: str) -> None:
        if self.unreachable(name):
            return

        async def ours() -> None:
            parent, last = await self.fs.folder(f"{REC}/{name}")
            await self.fs.vfs.mkdir(parent, last, 0o755, OPERATOR)

        self.same(lambda: self.loop.do(ours), lambda: os.mkdir(self.plain / name))

    @rule(name=NAMES)
    def rmdir(self, name: str) -> None:
        if self.unreachable(name):
            return
        self.same(lambda: self.loop.do(self.fs.rmdir, f"{REC}/{name}"), lambda: os.rmdir(self.plain / name))

    @rule(name=NAMES)
    def symlink(self, name: str) -> None:
        if self.unreachable(name):
            return

        async def ours() -> None:
            parent, last = await self.fs.folder(f"{REC}/{name}")
            await self.fs.vfs.symlink(parent, last, b"to nowhere", OPERATOR)

        self.same(lambda: self.loop.do(ours), lambda: os.symlink("to nowhere", self.plain / name))

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        if self.unreachable(old, new):
            return
        self.same(
            lambda: self.loop.do(self.fs.rename, f"{REC}/{old}", f"{REC}/{new}"),
            lambda: os.rename(self.plain / old, self.plain / new),
        )

    @rule(old=NAMES, new=NAMES)
    def rename_noreplace(self, old: str, new: str) -> None:
        async def ours() -> None:
            await self.fs.rename(f"{REC}/{old}", f"{REC}/{new}", noreplace=True)

        def theirs() -> None:
            if (self.plain / old).is_symlink() or (self.plain / old).exists():
                (self.plain / new).parent.stat()
                if old != new and os.path.lexists(self.plain / new):
                    raise FileExistsError(errno.EEXIST, new)
            os.rename(self.plain / old, self.plain / new)

        if old != new and not self.unreachable(old, new):
            self.same(lambda: self.loop.do(ours), theirs)

    @rule(one=NAMES, two=NAMES)
    def exchange(self, one: str, two: str) -> None:
        inside = one.startswith(f"{two}/") or two.startswith(f"{one}/")
        if one == two or inside or not (os.path.lexists(self.plain / one) and os.path.lexists(self.plain / two)):
            return

        async def ours() -> None:
            await self.fs.rename(f"{REC}/{one}", f"{REC}/{two}", exchange=True)

        self.loop.do(ours)
        spare = self.place / "spare"
        os.rename(self.plain / one, spare)
        os.rename(self.plain / two, self.plain / one)
        os.rename(spare, self.plain / two)

    # --- attributes --------------------------------------------------------------------------------------------

    @rule(name=NAMES, mode=st.sampled_from([0o600, 0o644, 0o755]), when=st.integers(0, 2**60))
    def dress(self, name: str, mode: int, when: int) -> None:
        path = self.plain / name
        if not path.exists() or path.is_symlink():
            return

        async def ours() -> None:
            node = await self.fs.node(f"{REC}/{name}")
            await self.fs.vfs.setattr(node.ino, Changes(mode=mode, atime_ns=when, mtime_ns=when), OPERATOR)
            assert (node.mode, node.mtime_ns) == (mode, when)

        self.loop.do(ours)
        path.chmod(mode | 0o700 if path.is_dir() else mode)

    @rule(name=NAMES, value=st.one_of(st.none(), st.binary(max_size=20)))
    def attribute(self, name: str, value: bytes | None) -> None:
        if not os.path.lexists(self.plain / name):
            return

        async def ours() -> int:
            ino = int((await self.fs.node(f"{REC}/{name}")).ino)
            if value is not None:
                await self.fs.xattrs.set(ino, b"user.a", value, OPERATOR)
            elif b"user.a" in await self.fs.xattrs.list(ino):
                await self.fs.xattrs.remove(ino, b"user.a", OPERATOR)
            return ino

        ino = self.loop.do(ours)
        self.attributes[ino] = {} if value is None else {b"user.a": value}

    # --- the daemon's life -------------------------------------------------------------------------------------

    @rule()
    def flush(self) -> None:
        self.loop.do(self.fs.parts.behind.flush)

    @rule()
    def drain(self) -> None:
        self.loop.do(self.fs.drain)

    @rule()
    def shrink(self) -> None:
        self.fs.parts.tree.memory.cached_inodes = 1
        self.loop.do(self.shrunk)
        self.fs.parts.tree.memory.cached_inodes = 200_000

    async def shrunk(self) -> None:
        self.fs.parts.tree.memory.shrink()

    def close_all(self) -> None:
        while self.open:
            self.close(0)

    @rule()
    def restart(self) -> None:
        self.close_all()
        self.loop.do(self.fs.stop)
        self.loop.do(self.fs.reopen)

    @rule()
    def crash(self) -> None:
        """All is closed and the rows are written: a killed daemon loses none of it."""
        self.close_all()
        self.flush()
        self.loop.do(self.fs.crash)
        self.loop.do(self.fs.reopen)

    # --- what always holds -------------------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        theirs = plain_tree(self.plain)
        ours = self.loop.do(self.look)
        assert ours == theirs

    async def look(self) -> dict[str, tuple[str, Any]]:
        found: dict[str, tuple[str, Any]] = {}
        if not await self.fs.exists(REC):
            return found
        for path, content in (await self.fs.tree(REC)).items():
            node = await self.fs.node(path)
            key = path[len(REC) + 1 :]
            if isinstance(node, DirNode):
                found[key] = ("dir", None)
            elif isinstance(node, FileNode):
                found[key] = ("file", content)
                assert node.bytes == len(content or b"")
            else:
                found[key] = ("link", os.fsdecode(node.target))
            own = {name: await self.fs.xattrs.get(node.ino, name) for name in await self.fs.xattrs.list(node.ino)}
            assert own == self.attributes.get(node.ino, {})
        self.fs.parts.tree.check_invariants()
        files = [content for kind, content in found.values() if kind == "file"]
        links = [content for kind, content in found.values() if kind == "link"]
        root = self.fs.parts.tree.root
        assert (root.rbytes, root.rfiles) == (sum(map(len, files)), len(files) + len(links))
        return found

    def teardown(self) -> None:
        try:
            self.close_all()
            self.loop.do(self.fs.assert_consistent)
        finally:
            self.loop.close()
            shutil.rmtree(self.place)


TestModel = pytest.mark.slow(Model.TestCase)
TestModel.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
