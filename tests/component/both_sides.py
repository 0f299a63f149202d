"""What the model test needs to drive the file system and a plain directory side by side."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import trio

from recfs.errors import RecfsError
from recfs.fuse.operations import errno_of
from tests.helpers import virtual_time

from .build import Filesystem, filesystem

T = TypeVar("T")


class Loop:
    """One file system in a thread."""

    def __init__(self, root: Path) -> None:
        self._ready, self._done = threading.Event(), trio.Event()
        self.fs: Filesystem
        self._token: trio.lowlevel.TrioToken
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(root,), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self, root: Path) -> None:
        try:
            virtual_time.run(self._main, root)
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _main(self, root: Path) -> None:
        async with filesystem(root) as self.fs:
            self._token = trio.lowlevel.current_trio_token()
            self._ready.set()
            await self._done.wait()

    def do(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run one operation to its end."""
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def close(self) -> None:
        """Stop, and report what went wrong inside."""
        try:
            self._token.run_sync_soon(self._done.set)
        except trio.RunFinishedError:
            pass
        self._thread.join(30)
        if self._error is not None:
            raise self._error


def outcome(function: Callable[[], T]) -> tuple[int, T | None]:
    """(0, value), or (error number, None)."""
    try:
        return 0, function()
    except RecfsError as error:
        return errno_of(error), None
    except OSError as error:
        return error.errno or errno.EIO, None


def plain_tree(top: Path) -> dict[str, tuple[str, Any]]:
    """Everything below a plain directory."""
    found: dict[str, tuple[str, Any]] = {}
    for folder, dirs, files in os.walk(top):
        for name in (*dirs, *files):
            path = Path(folder) / name
            info = path.lstat()
            key = str(path.relative_to(top))
            if stat.S_ISDIR(info.st_mode):
                found[key] = ("dir", None)
            elif stat.S_ISLNK(info.st_mode):
                found[key] = ("link", os.readlink(path))
            else:
                found[key] = ("file", path.read_bytes())
    return found
