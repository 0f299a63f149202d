"""Whatever one call of the store, the catalogue or S3 raises, of whatever class: the parts go on, for everybody else.

Every public method is found by introspection, so that new ones are covered as they come. A fault strikes once, or every
time a call speaks of one user's file.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import StoreError
from recfs.fs.vfs import Changes
from recfs.stores.local import LocalStore

from .build import OPERATOR, Filesystem, filesystem, pattern, until

BAD = "users/5/recordings/66613"
GOOD = "users/6/recordings/1/good"
ERRORS: list[Exception] = [
    OSError(number, os.strerror(number))
    for number in (
        errno.EIO, errno.EACCES, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSPC, errno.EMFILE,
    )
] + [ValueError("embedded null byte"), OverflowError("int too large to convert")]  # fmt: skip


def methods(owner: type) -> list[str]:
    """What others may call, but for what only names things."""
    return sorted(
        name
        for name, function in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_") and not isinstance(inspect.getattr_static(owner, name), property)
    )


CALLS = [(owner, name) for owner in (LocalStore, SqliteCatalogue) for name in methods(owner)]


class Curse:
    """A fault in one method: of the first call, or of each that mentions the cursed file."""

    def __init__(self, error: Exception, *, once: bool) -> None:
        self.error = error
        self.once = once
        self.armed = False
        self.hits = 0

    def strike(self, args: tuple[Any, ...]) -> None:
        """Raise if it is this call's turn."""
        if not self.armed or (not self.once and "66613" not in repr(args)):
            return
        self.hits += 1
        if self.once:
            self.armed = False
        raise self.error

    @contextlib.contextmanager
    def laid_on(self, owner: type, name: str) -> Iterator[None]:
        """Wrap the method for the length of the block."""
        original = inspect.getattr_static(owner, name)
        function = getattr(owner, name)
        plain = isinstance(original, staticmethod)
        if inspect.iscoroutinefunction(function):

            async def struck(*args: Any, **kwargs: Any) -> Any:
                self.strike(args[1:])
                return await function(*args, **kwargs)
        else:

            def struck(*args: Any, **kwargs: Any) -> Any:
                self.strike(args if plain else args[1:])
                return function(*args, **kwargs)

        with mock.patch.object(owner, name, staticmethod(struck) if plain else struck):
            yield


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """A request that may fail: the kernel's caller gets an errno, whatever this is (fs/guard.py)."""
    with contextlib.suppress(Exception):
        yield


async def work(fs: Filesystem) -> None:
    """One user's ordinary acts; each may fail."""
    with refused():
        await fs.write(f"{BAD}/new", pattern(3000))
    with refused():
        await fs.write(f"{BAD}/kept", pattern(2000, seed=1))
    with refused():
        await fs.rename(f"{BAD}/moved", f"{BAD}/away")
    with refused():
        await fs.unlink(f"{BAD}/gone")
    with refused():
        await fs.vfs.symlink((await fs.node(BAD)).ino, b"link", b"kept", OPERATOR)
    with refused():
        await fs.vfs.setattr((await fs.node(f"{BAD}/kept")).ino, Changes(mode=0o600), OPERATOR)
    with refused():
        await fs.xattrs.set((await fs.node(f"{BAD}/kept")).ino, b"user.note", b"66613", OPERATOR)
    with refused():
        await fs.names(BAD)
    with refused():
        await fs.parts.sweeper.sweep_temp(dry_run=False)


def told(fs: Filesystem) -> list[dict[str, Any]]:
    """What is set aside."""
    return fs.parts.behind.problems.told()


async def prepare(fs: Filesystem) -> None:
    for name in ("kept", "moved", "gone"):
        await fs.write(f"{BAD}/{name}", pattern(1000))
    await fs.write("users/6/recordings/1/before", b"before")
    await fs.drain()


async def others_go_on(fs: Filesystem, curse: Curse) -> None:
    """Another user's file is committed and comes home while the fault is there; with a fault of one call, after it."""
    if curse.once:
        with refused():  # the one call may be this one's
            await fs.write(GOOD, b"good")
            await fs.read(GOOD)
    await fs.write(GOOD, b"good")
    node = await fs.node(GOOD)
    fs.parts.committer.hurry(node.ino)
    with trio.fail_after(300):
        await until(lambda: node.state.is_whole and not node.pending and not node.settling)
    assert await fs.read(GOOD) == b"good"
    assert (fs.root / GOOD).read_bytes() == b"good"


async def at_work(place: Path, owner: type, name: str, error: Exception, *, once: bool) -> None:
    """Strike a running file system, and look whether it is whole when the fault is gone."""
    curse = Curse(error, once=once)
    with curse.laid_on(owner, name):
        async with filesystem(place) as fs:
            await prepare(fs)
            curse.armed = True
            await work(fs)
            await others_go_on(fs, curse)
            struck_later = fs.parts.behind.problems.told()
            for item in struck_later:
                assert item["reason"], item
            curse.armed = False
            with trio.fail_after(3600):
                await until(lambda: not fs.parts.behind.problems.told())
            await fs.drain()
            await fs.assert_consistent(lost=len(os.listdir(fs.root / ".recfs/lost+found")))
            assert await fs.read(GOOD) == b"good"


async def at_start(place: Path, owner: type, name: str, error: Exception, *, once: bool) -> None:
    """Strike a start that has everything to repair: it comes up, or says why the store as a whole cannot be used."""
    async with filesystem(place) as fs:
        fs.checked_at_end = False
        await prepare(fs)
        await fs.write(f"{BAD}/closed", pattern(4000))
        number = await fs.open(f"{BAD}/open", os.O_WRONLY | os.O_CREAT)
        await fs.vfs.files.write(number, 0, b"half")
        await fs.write("users/6/recordings/1/late", b"late")
        await fs.rename(f"{BAD}/moved", f"{BAD}/away")
        await fs.unlink(f"{BAD}/gone")
        await fs.crash()
        curse = Curse(error, once=once)
        refusals: list[ExceptionGroup[StoreError]] = []
        with curse.laid_on(owner, name):
            curse.armed = True
            try:
                await fs.reopen()
            except* StoreError as group:
                refusals.append(group)
            else:
                await others_go_on(fs, curse)
            curse.armed = False
        assert once or owner is SqliteCatalogue or not refusals, f"one file kept the store from starting: {refusals}"
        if not fs._ended.is_set():
            with trio.fail_after(3600):
                await until(lambda: not [each for each in told(fs) if each["part"] != "recovery"])
            await fs.drain()
        await fs.reopen()  # what a start has set aside, the next one takes up
        with trio.fail_after(3600):
            await until(lambda: not told(fs))
        await fs.drain()
        assert await fs.read("users/6/recordings/1/late") == b"late"
        assert await fs.read(f"{BAD}/closed") == pattern(4000)
        fs.parts.tree.check_invariants()


@pytest.fixture
def any_log(_log_guard: Any) -> Iterator[None]:
    """What is logged depends on the call that fails."""
    yield
    _log_guard.messages.clear()


def ids(call: tuple[type, str]) -> str:
    return f"{call[0].__name__}.{call[1]}"


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("once", [True, False], ids=["once", "one file's"])
@pytest.mark.parametrize("call", CALLS, ids=ids)
async def test_at_work(place: Path, call: tuple[type, str], once: bool) -> None:
    error = ERRORS[(CALLS.index(call) + once) % len(ERRORS)]
    await at_work(place, *call, error, once=once)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("strike", [at_work, at_start], ids=lambda strike: strike.__name__)
@pytest.mark.parametrize("call", [LocalStore, SqliteCatalogue], ids=lambda owner: owner.__name__)
async def test_with_every_error(
    place: Path, call: type, strike: Callable[..., Awaitable[None]], error: Exception
) -> None:
    for name in methods(call):
        folder = place / name
        await strike(folder, call, name, error, once=False)
        shutil.rmtree(folder)


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("once", [True, False], ids=["once", "one file's"])
@pytest.mark.parametrize("call", CALLS, ids=ids)
async def test_at_start(place: Path, call: tuple[type, str], once: bool) -> None:
    error = ERRORS[(CALLS.index(call) + 4 + once) % len(ERRORS)]
    await at_start(place, *call, error, once=once)
