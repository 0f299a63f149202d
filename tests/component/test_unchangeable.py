"""Bytes that the disk lets nobody change: immutable (chattr +i), or on a place that is mounted read-only.

Who asks gets the disk's own error number, and the log one line without a traceback.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyfuse3
import pytest

from recfs.fs.attributes import Changes
from recfs.fuse.operations import Operations
from recfs.stores import many
from recfs.stores.local import LocalStore
from recfs.stores.steps import Steps
from tests.fakes import StagedAnswers

from .build import OPERATOR, REC, Filesystem, until

FILE = f"{REC}/file"
OTHER = "users/6/recordings/1/other"
ROOT = SimpleNamespace(uid=os.geteuid(), gid=os.getegid(), pid=1, umask=0o022)
NUMBERS = [errno.EPERM, errno.EROFS, errno.EACCES]

each_number = pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)


@pytest.fixture
def operations(fs: Filesystem) -> Any:
    """What the kernel calls."""
    return Operations(fs.vfs, fs.xattrs, fs.parts.store, frozenset({os.geteuid()}), StagedAnswers())  # type: ignore[arg-type]


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """Errors and warnings, in place of the guard over them."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    log, keep = logging.getLogger("recfs"), Keep(logging.WARNING)
    before, log.handlers = log.handlers, [keep]
    yield records
    log.handlers = before


@contextmanager
def unchangeable(number: int) -> Iterator[None]:
    """Neither opened for writing, nor renamed, nor given attributes."""
    opened, renamed, one = LocalStore.open_cached, LocalStore.rename, Steps._one

    def refusal(path: bytes) -> OSError:
        return OSError(number, os.strerror(number), os.fsdecode(path))

    def open_cached(store: LocalStore, path: bytes, flags: int) -> int | None:
        if path.endswith(b"/file") and flags & os.O_ACCMODE != os.O_RDONLY:
            raise refusal(path)
        return opened(store, path, flags)

    def rename(store: LocalStore, path: bytes, to: bytes) -> None:
        if path.endswith(b"/file"):
            raise refusal(path)
        renamed(store, path, to)

    def carry_out(steps: Steps, step: Any, folders: Any) -> Any:
        if step.path.endswith(b"/file"):
            raise refusal(step.path)
        return one(steps, step, folders)

    with (
        mock.patch.object(LocalStore, "open_cached", open_cached),
        mock.patch.object(LocalStore, "rename", rename),
        mock.patch.object(Steps, "_one", carry_out),
        mock.patch.object(many, "extension", None),  # each by itself
    ):
        yield


async def refused(act: Callable[[], Awaitable[object]]) -> int:
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await act()
    return int(raised.value.errno)


def assert_one_line(logged: list[logging.LogRecord], number: int) -> None:
    """That names the file and what the disk said."""
    assert [(record.levelno, record.exc_info) for record in logged] == [(logging.ERROR, None)]
    text = logged[0].getMessage()
    assert FILE in text
    assert os.strerror(number) in text
    assert "disk below" in text


@each_number
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND])
@pytest.mark.table(3)
async def test_opening_for_writing(
    fs: Filesystem, operations: Any, logged: list[logging.LogRecord], number: int, flags: int
) -> None:
    await fs.write(FILE, b"bytes")
    await fs.drain()
    ino = (await fs.node(FILE)).ino
    with unchangeable(number):
        assert await refused(lambda: operations.open(ino, flags, ROOT)) == number
        assert await fs.read(FILE) == b"bytes"
    assert_one_line(logged, number)
    await fs.write(FILE, b"again")


@each_number
async def test_the_first_write(fs: Filesystem, operations: Any, logged: list[logging.LogRecord], number: int) -> None:
    """It became so between the open and the write."""
    await fs.write(FILE, b"bytes")
    await fs.drain()
    info = await operations.open((await fs.node(FILE)).ino, os.O_RDWR, ROOT)
    with unchangeable(number):
        assert await refused(lambda: operations.write(info.fh, 0, b"B")) == number
    assert_one_line(logged, number)
    assert await operations.write(info.fh, 0, b"B") == 1
    await operations.release(info.fh)
    await fs.drain()
    assert (fs.root / FILE).read_bytes() == b"Bytes"


@each_number
async def test_a_write_through_an_open_descriptor(
    fs: Filesystem, operations: Any, logged: list[logging.LogRecord], number: int
) -> None:
    await fs.write(FILE, b"bytes")
    info = await operations.open((await fs.node(FILE)).ino, os.O_RDWR, ROOT)
    await operations.write(info.fh, 0, b"b")
    for name in ("pwrite", "ftruncate", "fsync"):
        fs.faults.fail(name, number, "staging/")
    assert await refused(lambda: operations.write(info.fh, 0, b"B")) == number
    assert_one_line(logged, number)
    logged.clear()
    assert await refused(lambda: operations.fsync(info.fh, False)) == number
    assert_one_line(logged, number)
    await operations.release(info.fh)


@each_number
async def test_truncating(fs: Filesystem, operations: Any, logged: list[logging.LogRecord], number: int) -> None:
    await fs.write(FILE, b"bytes")
    await fs.drain()
    node = await fs.node(FILE)
    fields = SimpleNamespace(**{f"update_{name}": name == "size" for name in (
        "mode", "uid", "gid", "size", "atime", "mtime", "ctime"
    )})  # fmt: skip
    attributes = pyfuse3.EntryAttributes()
    attributes.st_size = 2
    with unchangeable(number):
        assert await refused(lambda: operations.setattr(node.ino, attributes, fields, None, ROOT)) == number
        assert await fs.read(FILE) == b"bytes"
    assert_one_line(logged, number)


ACTS: dict[str, Callable[[Filesystem], Awaitable[object]]] = {
    "chmod": lambda fs: chmod(fs, 0o600),
    "rename": lambda fs: fs.rename(FILE, f"{REC}/renamed"),
    "unlink": lambda fs: fs.unlink(FILE),
    "replace": lambda fs: fs.rename(f"{REC}/new", FILE),
}


async def chmod(fs: Filesystem, mode: int) -> None:
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mode=mode), OPERATOR)


@each_number
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
@pytest.mark.table(4)
async def test_what_the_home_tree_only_follows(
    fs: Filesystem, logged: list[logging.LogRecord], number: int, act: Callable[[Filesystem], Awaitable[object]]
) -> None:
    """The mount shows it at once. The disk cannot follow: it is set aside, others go on, and it follows when it can."""
    await fs.write(FILE, b"bytes")
    await fs.write(f"{REC}/new", b"newer")
    await fs.drain()
    with unchangeable(number):
        await act(fs)
        await fs.write(OTHER, b"other")
        node = await fs.node(OTHER)
        fs.parts.committer.hurry(node.ino)
        await until(lambda: node.state.is_whole and not node.pending and not node.publishing)
        assert (fs.root / OTHER).read_bytes() == b"other"
        await until(lambda: fs.parts.problems.as_json())
        assert any(os.strerror(number) in each["reason"] for each in fs.parts.problems.as_json())
        assert (fs.root / FILE).read_bytes() == b"bytes"
    assert [record.exc_info for record in logged if os.strerror(number) in record.getMessage()] == [None]
    await until(lambda: not fs.parts.problems.as_json())
    await fs.drain()
    assert (fs.root / FILE).exists() == await fs.exists(FILE)
