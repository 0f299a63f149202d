"""The pyfuse3 adapter, its handlers called directly: errors, log levels, attributes, lookup counts."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyfuse3
import pytest

from recfs import errors
from recfs.fuse.acceleration import FOPEN_DIRECT_IO
from recfs.fuse.operations import ERRNO, Operations, errno_of
from recfs.fuse.standstill.gate import GATE
from recfs.ports.object_errors import ObjectArchived, ObjectStoreError
from tests.fakes import StagedAnswers

from .build import REC, Filesystem

ExpectLog = Callable[[str], None]
ROOT = SimpleNamespace(uid=os.geteuid(), gid=os.getegid(), pid=1, umask=0o022)
USER = SimpleNamespace(uid=1000, gid=1000, pid=1, umask=0o022)


@dataclass
class Adapter:
    """The handlers, and the file system below."""

    operations: Any
    fs: Filesystem

    async def ino(self, path: str) -> int:
        """Inode number by path, as the kernel finds it."""
        ino = pyfuse3.ROOT_INODE
        for name in path.split("/"):
            ino = (await self.operations.lookup(ino, os.fsencode(name), ROOT)).st_ino
            assert ino, f"{path}: no {name}"
        return int(ino)


@pytest.fixture
def adapter(fs: Filesystem) -> Adapter:
    """Operations over a running file system; uid 0 is the operator."""
    return Adapter(Operations(fs.vfs, fs.xattrs, fs.parts.store, frozenset({0, os.geteuid()}), StagedAnswers()), fs)


@pytest.fixture
def quiet() -> Iterator[list[logging.LogRecord]]:
    """What the adapter logs; not given to the guard that fails tests over warnings."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    log, keep = logging.getLogger("recfs.fuse"), Keep(logging.DEBUG)
    level, log.propagate = log.level, False
    log.addHandler(keep)
    log.setLevel(logging.DEBUG)
    yield records
    log.removeHandler(keep)
    log.setLevel(level)
    log.propagate = True


def leaves(kind: type[errors.RecfsError]) -> list[type[errors.RecfsError]]:
    """The classes below that have none below themselves."""
    below = [leaf for child in kind.__subclasses__() for leaf in leaves(child)]
    return below or [kind]


# --- the table ----------------------------------------------------------------------------------------------------


def test_every_refusal_has_its_error_number() -> None:
    assert set(leaves(errors.FsError)) | {ObjectArchived, ObjectStoreError} == set(ERRNO)
    assert errno.ENOSYS not in ERRNO.values()
    for kind, number in ERRNO.items():
        assert errno_of(kind("x")) == number


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "x"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "x"), errno.ENOSPC),
        (OSError(errno.EMFILE, "x"), errno.EMFILE),
        (OSError(errno.EROFS, "x"), errno.EROFS),
        (OSError(errno.EPERM, "x"), errno.EPERM),
        (OSError(errno.EACCES, "x"), errno.EACCES),
        (OSError(errno.ENOENT, "x"), errno.EIO),
        (OSError("no number"), errno.EIO),
        (ValueError("x"), errno.EIO),
        (errors.ConfigError("x"), errno.EIO),
    ],
)
def test_what_is_not_in_the_table(error: Exception, number: int) -> None:
    assert errno_of(error) == number


# --- handlers -----------------------------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "lookup": (1, b"x", ROOT),
    "getattr": (1, ROOT),
    "setattr": (1, pyfuse3.EntryAttributes(), SimpleNamespace(**{f"update_{what}": False for what in (
        "mode", "uid", "gid", "size", "atime", "mtime", "ctime")}), None, ROOT),
    "access": (1, os.R_OK, ROOT),
    "statfs": (ROOT,),
    "getxattr": (1, b"user.a", ROOT),
    "setxattr": (1, b"user.a", b"1", ROOT),
    "listxattr": (1, ROOT),
    "removexattr": (1, b"user.a", ROOT),
    "mknod": (1, b"x", stat.S_IFREG | 0o644, 0, ROOT),
    "mkdir": (1, b"x", 0o755, ROOT),
    "symlink": (1, b"x", b"y", ROOT),
    "readlink": (1, ROOT),
    "unlink": (1, b"x", ROOT),
    "rmdir": (1, b"x", ROOT),
    "rename": (1, b"x", 1, b"y", 0, ROOT),
    "link": (1, 1, b"x", ROOT),
    "opendir": (1, ROOT),
    "readdir": (1, 0, None),
    "releasedir": (1,),
    "fsyncdir": (1, False),
    "create": (1, b"x", 0o644, os.O_WRONLY, ROOT),
    "open": (1, os.O_RDONLY, ROOT),
    "read": (1, 0, 10),
    "write": (1, 0, b"x"),
    "fsync": (1, False),
    "release": (1,),
    "flush": (1,),
    "fallocate": (1, 0, 0, 10),
    "lseek": (1, 0, os.SEEK_DATA),
    "copy_file_range": (1, 0, 2, 0, 10, 0),
}  # fmt: skip


def handlers() -> list[str]:
    """Every request that Operations answers itself."""
    return [
        name
        for name, function in vars(Operations).items()
        if inspect.iscoroutinefunction(function) and not name.startswith("_")
    ]


class _Broken:
    """Stands for any part: whatever is asked of it raises."""

    def __init__(self, error: Exception) -> None:
        object.__setattr__(self, "_error", error)

    def __getattr__(self, name: str) -> Any:
        raise object.__getattribute__(self, "_error")


BUGS = [ValueError("a bug"), KeyError(7), AssertionError(), OSError(errno.EIO, "disk"), TypeError()]


@pytest.mark.parametrize("name", handlers())
@pytest.mark.table(8)
async def test_a_bug_is_answered_with_eio_and_logged(
    adapter: Adapter, quiet: list[logging.LogRecord], name: str
) -> None:
    operations = adapter.operations
    if name == "flush" and not _uses_parts(Operations.flush):
        return
    for error in BUGS:
        operations._vfs = operations._xattrs = operations._store = _Broken(error)
        operations._nodes = {}
        quiet.clear()
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await getattr(operations, name)(*ARGUMENTS[name])
        assert raised.value.errno == errno.EIO
        assert any(record.levelno >= logging.ERROR and name in record.getMessage() for record in quiet)


def _uses_parts(function: Any) -> bool:
    return "_vfs" in inspect.getsource(function)


def test_every_handler_is_guarded_and_none_is_forgotten() -> None:
    assert set(handlers()) <= set(ARGUMENTS)
    for name in handlers():
        assert hasattr(getattr(Operations, name), "__wrapped__"), f"{name} lets exceptions out"


async def test_forget_raises_nothing(adapter: Adapter, quiet: list[logging.LogRecord]) -> None:
    adapter.operations.forget([(1, 1), (999, 5), (1 << 62 | 7, 1)])
    with mock.patch.object(adapter.fs.parts.tree.memory, "forget", side_effect=ValueError("a bug")):
        adapter.operations.forget([(1, 1)])
    adapter.operations.forget(None)
    assert sum(record.levelno >= logging.ERROR for record in quiet) == 2


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (errors.NotFound, logging.DEBUG),
        (errors.Exists, logging.DEBUG),
        (errors.NoAttribute, logging.DEBUG),
        (errors.QuotaExceeded, logging.INFO),
        (errors.OutOfSpace, logging.INFO),
        (errors.InvalidPath, logging.INFO),
        (errors.IoFailure, logging.ERROR),
    ],
)
async def test_refusals_are_logged_as_loudly_as_they_deserve(
    adapter: Adapter, quiet: list[logging.LogRecord], error: type[Exception], level: int
) -> None:
    with (
        mock.patch.object(adapter.fs.vfs, "lookup", side_effect=error("users/5 is the reason")),
        pytest.raises(pyfuse3.FUSEError),
    ):
        await adapter.operations.lookup(1, b"x", ROOT)
    assert [(record.levelno, record.exc_info) for record in quiet] == [(level, None)]
    assert "users/5 is the reason" in quiet[0].getMessage()


# --- attributes ---------------------------------------------------------------------------------------------------


async def test_what_stat_says_of_a_file(adapter: Adapter) -> None:
    await adapter.fs.write(f"{REC}/file", bytes(1025))
    entry = await adapter.operations.getattr(await adapter.ino(f"{REC}/file"), ROOT)
    assert stat.S_ISREG(entry.st_mode)
    assert (entry.st_size, entry.st_blocks, entry.st_nlink) == (1025, 3, 1)
    assert entry.st_mtime_ns == adapter.fs.clock.ns
    assert entry.attr_timeout > 1000
    assert entry.entry_timeout > 1000


async def test_an_unlinked_open_file_has_no_link(adapter: Adapter) -> None:
    await adapter.fs.write(f"{REC}/file", b"bytes")
    ino = await adapter.ino(f"{REC}/file")
    info = await adapter.operations.open(ino, os.O_RDONLY, ROOT)
    await adapter.operations.unlink(await adapter.ino(REC), b"file", ROOT)
    entry = await adapter.operations.getattr(ino, ROOT)
    assert (entry.st_nlink, entry.st_size) == (0, 5)
    await adapter.operations.release(info.fh)
    assert (await adapter.operations.getattr(ino, ROOT)).st_nlink == 0, "as long as the kernel knows it"
    adapter.operations.forget([(ino, 1 << 20)])
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await adapter.operations.getattr(ino, ROOT)
    assert raised.value.errno == errno.ESTALE


async def test_directories_and_links(adapter: Adapter) -> None:
    folder = await adapter.fs.mkdirs(f"{REC}/dir")
    entry = await adapter.operations.symlink(folder.ino, b"link", b"target", ROOT)
    assert stat.S_ISLNK(entry.st_mode)
    assert entry.st_size == len(b"target")
    assert stat.S_ISDIR((await adapter.operations.getattr(folder.ino, ROOT)).st_mode)
    assert await adapter.operations.readlink(entry.st_ino, ROOT) == b"target"


async def test_what_was_opened_as_shown_is_cut_itself(adapter: Adapter) -> None:
    """It has become the user's own, and was removed: the number it was opened by is the shown file's again."""
    await adapter.fs.write("shared/thumbnails/a.png", b"shared")
    await adapter.fs.mkdirs("users/5")
    folder = await adapter.ino("users/5/thumbnails")
    shown = (await adapter.operations.lookup(folder, b"a.png", ROOT)).st_ino
    with pytest.raises(pyfuse3.FUSEError):
        await adapter.operations.open(shown, os.O_RDWR, ROOT)
    info = await adapter.operations.open(shown, os.O_RDWR, ROOT)
    await adapter.operations.unlink(folder, b"a.png", ROOT)
    fields = SimpleNamespace(**{f"update_{what}": False for what in ("mode", "uid", "gid", "atime", "mtime", "ctime")})
    fields.update_size, attr = True, pyfuse3.EntryAttributes()
    attr.st_size = 2
    entry = await adapter.operations.setattr(shown, attr, fields, info.fh, ROOT)
    assert (entry.st_ino, entry.st_size, entry.st_nlink) == (shown, 2, 0)
    assert bytes(await adapter.operations.read(info.fh, 0, 10)) == b"sh"
    await adapter.operations.release(info.fh)
    assert await adapter.fs.read("users/5/thumbnails/a.png") == b"shared"
    assert not await adapter.fs.parts.tree.child(await adapter.fs.parts.tree.directory(folder), b"a.png")


async def test_a_shown_file_costs_nothing_and_is_not_cached(adapter: Adapter) -> None:
    await adapter.fs.write("shared/thumbnails/a.png", bytes(5000))
    await adapter.fs.mkdirs("users/5")
    entry = await adapter.operations.lookup(await adapter.ino("users/5/thumbnails"), b"a.png", ROOT)
    assert (entry.st_size, entry.st_blocks) == (5000, 0)
    assert (entry.entry_timeout, entry.attr_timeout) == (0, 0)
    assert entry.st_ino != await adapter.ino("shared/thumbnails/a.png")
    assert entry.st_mode & 0o200, "opening it for writing is the owner's to do"
    with pytest.raises(pyfuse3.FUSEError) as raised:  # the kernel looks for the name again
        await adapter.operations.open(entry.st_ino, os.O_WRONLY, USER)
    assert raised.value.errno == errno.ESTALE
    assert await adapter.ino("users/5/thumbnails/a.png") != entry.st_ino
    info = await adapter.operations.open(entry.st_ino, os.O_WRONLY, USER)  # or cannot, for a file that is held
    assert adapter.operations._session.staged[-1][1] & FOPEN_DIRECT_IO, "the kernel keeps no pages of it"
    await adapter.operations.write(info.fh, 0, b"own")
    own = await adapter.operations.getattr(entry.st_ino, ROOT)
    assert (own.st_ino, own.st_blocks, own.attr_timeout) == (entry.st_ino, 10, 0)
    await adapter.operations.release(info.fh)


async def test_absent_names_are_remembered_unless_one_may_appear(adapter: Adapter) -> None:
    await adapter.fs.mkdirs(REC)
    absent = await adapter.operations.lookup(await adapter.ino(REC), b"none", ROOT)
    assert absent.st_ino == 0
    assert absent.entry_timeout > 1
    await adapter.fs.mkdirs("users/5/thumbnails")
    absent = await adapter.operations.lookup(await adapter.ino("users/5/thumbnails"), b"none", ROOT)
    assert (absent.st_ino, absent.entry_timeout) == (0, 0)


async def test_lookup_counts_follow_the_kernel(adapter: Adapter) -> None:
    await adapter.fs.write(f"{REC}/file", b"")
    folder, node = await adapter.fs.node(REC), await adapter.fs.node(f"{REC}/file")
    before = node.kernel_refs
    for _ in range(3):
        await adapter.operations.lookup(folder.ino, b"file", ROOT)
    assert node.kernel_refs == before + 3
    adapter.operations.forget([(node.ino, 3)])
    assert node.kernel_refs == before
    info, entry = await adapter.operations.create(folder.ino, b"new", 0o644, os.O_WRONLY, ROOT)
    assert adapter.fs.parts.tree.nodes[entry.st_ino].kernel_refs == 1
    await adapter.operations.release(info.fh)


async def test_the_figures_of_the_disk_less_the_reserve(adapter: Adapter) -> None:
    whole = await adapter.operations.statfs(ROOT)
    adapter.fs.vfs.files.space.min_free = 10 * whole.f_frsize
    less = await adapter.operations.statfs(ROOT)
    assert whole.f_bavail - less.f_bavail >= 10 - 5  # others use the disk too
    adapter.fs.vfs.files.space.min_free = 1 << 62
    assert (await adapter.operations.statfs(ROOT)).f_bavail == 0


@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
async def test_what_is_neither_file_nor_directory_nor_link(adapter: Adapter, mode: int) -> None:
    await adapter.fs.mkdirs(REC)
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await adapter.operations.mknod(await adapter.ino(REC), b"x", mode | 0o644, 0, ROOT)
    assert raised.value.errno == errno.EPERM


async def test_hard_links_unknown_rename_flags_and_long_names(adapter: Adapter) -> None:
    await adapter.fs.write(f"{REC}/file", b"")
    folder, file = await adapter.ino(REC), await adapter.ino(f"{REC}/file")
    for call, number in (
        (adapter.operations.link(file, folder, b"x", ROOT), errno.EPERM),
        (adapter.operations.rename(folder, b"file", folder, b"x", 4, ROOT), errno.EINVAL),
        (adapter.operations.lookup(folder, b"n" * 256, ROOT), errno.ENAMETOOLONG),
        (adapter.operations.mkdir(folder, b"n" * 256, 0o755, ROOT), errno.ENAMETOOLONG),
        (adapter.operations.opendir(file, ROOT), errno.ENOTDIR),
        (adapter.operations.getattr(12345678, ROOT), errno.ESTALE),
        (adapter.operations.getattr(2**63, ROOT), errno.ESTALE),
        (adapter.operations.lookup(2**64 - 1, b".", ROOT), errno.ESTALE),
        (adapter.operations.setxattr(file, b"security.x", b"", ROOT), errno.EOPNOTSUPP),
        (adapter.operations.setxattr(file, b"user.recfs.state", b"committed", ROOT), errno.EPERM),
        (adapter.operations.setxattr(file, b"user.x", bytes(65537), ROOT), errno.E2BIG),
        (adapter.operations.getxattr(file, b"user.x", ROOT), errno.ENODATA),
    ):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await call
        assert raised.value.errno == number


async def test_requests_in_hand_are_counted(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves the mount to another daemon waits until there are none; also of those that somebody observes."""
    seen: list[int] = []
    found = adapter.fs.vfs.node

    async def node(ino: int) -> Any:
        seen.append(GATE.in_hand)
        return await found(ino)

    monkeypatch.setattr(adapter.fs.vfs, "node", node)
    await adapter.operations.access(1, 0, ROOT)
    adapter.operations.watch("access", lambda *_: seen.append(GATE.in_hand))
    await adapter.operations.access(1, 0, ROOT)
    with pytest.raises(pyfuse3.FUSEError):
        await adapter.operations.access(1 << 30, 0, ROOT)
    assert seen == [1, 1, 1, 1, 1]
    assert GATE.in_hand == 0
