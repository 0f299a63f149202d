"""System calls that fail or never return: the points at which tests break a file system.

Everything recfs does to its store goes through a few functions of `os` and through the catalogue's `apply` and `sync`.
They are wrapped here, whatever module calls them, so that tests depend on what reaches the disk and not on how the
code is cut.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.stores import many
from recfs.stores.local import LocalStore
from tests.helpers import one_by_one
from tests.helpers.log_guard import somebody_died

from .sqlitefiles import SqliteFiles

EFFECTS = (
    "rename", "unlink", "mkdir", "rmdir", "symlink", "fsync", "fdatasync", "ftruncate", "pwrite", "setxattr",
    "chmod", "chown", "utime", "sync_all", "apply", "sync", "sqlite-sync", "link", "s3",
)  # fmt: skip
"""What changes a store or makes changes durable: the points at which a process may die. "s3" are requests that change
a bucket, where a test has the fake one ask (`Faults.of_s3`).
"""

CHANGES_OF_S3 = {
    "put_file", "put_small", "start_multipart", "upload_part", "finish_multipart", "abort_multipart", "copy", "delete",
    "set_tags",
}  # fmt: skip

FAILING = ("preadv", "pread")
"""More that may fail; open(2) with O_CREAT is called `create`."""


class Stopped(BaseException):
    """The process died here: nothing after this point happens. A BaseException, so that nobody handles it."""


@dataclass
class Plan:
    """One fault: calls of `name` whose path contains `where` raise `error`, after `skip` of them, `times` times."""

    name: str
    error: Exception
    where: bytes = b""
    times: int = 1
    skip: int = 0
    hits: int = 0


@dataclass
class Faults:
    """Counts effects below a root, stops before a chosen one, and raises planned errors."""

    root: Path
    stop_before: int | None = None
    plans: list[Plan] = field(default_factory=list)
    count: int = 0
    dead: bool = False
    armed: bool = True
    trace: list[str] = field(default_factory=list)
    observers: list[Callable[[str, tuple[Any, ...]], None]] = field(default_factory=list)
    """Called after each effect that happened."""
    rmdir: Callable[[Any], None] | None = None
    """Called in the place of rmdir(2), by who may have to bring the directory back."""
    books_watched: bool = False
    """Set before the start: what SQLite does to its files is watched as well; each sync is a point to die at."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def fail(self, name: str, error: int | Exception, where: str = "", *, times: int = 1, skip: int = 0) -> Plan:
        """Plan a fault; an error number becomes an OSError."""
        if isinstance(error, int):
            error = OSError(error, os.strerror(error))
        plan = Plan(name, error, os.fsencode(where), times, skip)
        self.plans.append(plan)
        return plan

    def heal(self) -> None:
        """No more planned faults."""
        self.plans.clear()

    def before(self, name: str, args: tuple[Any, ...]) -> None:
        """Called before each effect: raises, or lets it happen."""
        with self._lock:
            if self.dead:
                raise Stopped(name)
            target = b" ".join(os.fsencode(arg) for arg in args if isinstance(arg, (str, bytes, os.PathLike)))
            if args and isinstance(args[0], int) and self.plans:
                target = os.fsencode(os.readlink(f"/proc/self/fd/{args[0]}"))
            for plan in self.plans:
                if plan.name == name and plan.where in target:
                    plan.hits += 1
                    if plan.skip < plan.hits <= plan.skip + plan.times:
                        raise plan.error
            if name in EFFECTS and self.armed:
                self.count += 1
                if self.stop_before is not None and self.count >= self.stop_before:
                    self.die()
                    raise Stopped(name)
                self.trace.append(name)

    def of_s3(self, operation: str, key: str | None) -> None:
        """The `before` of a `FakeObjectStore` whose changes are points to die at, too."""
        if operation in CHANGES_OF_S3:
            self.before("s3", ())

    def after(self, name: str, args: tuple[Any, ...]) -> None:
        """Called after each effect. Of one that was under way at the death nobody hears: the caller died with it."""
        with self._lock:
            if self.dead:
                raise Stopped(name)
            for observer in self.observers:
                observer(name, args)

    def die(self) -> None:
        """Let nothing happen any more; waits for what is just being observed."""
        with self._lock:
            self.dead = True
            somebody_died()

    @contextmanager
    def installed(self) -> Iterator[Faults]:
        """Wrap the functions for the length of the block."""
        with ExitStack() as stack:
            for name in (*EFFECTS, *FAILING):
                if hasattr(os, name):
                    wrapped = self._wrap(name, getattr(os, name))
                    stack.enter_context(mock.patch.object(os, name, wrapped))
            stack.enter_context(mock.patch.object(os, "open", self._wrap_open(os.open)))
            stack.enter_context(mock.patch.object(many, "extension", one_by_one))  # which calls those
            stack.enter_context(mock.patch.object(LocalStore, "sync_all", self._wrap_method(LocalStore, "sync_all")))
            for name in ("apply", "sync"):
                wrapped = self._wrap_async(SqliteCatalogue, name)
                stack.enter_context(mock.patch.object(SqliteCatalogue, name, wrapped))
            if self.books_watched:
                stack.enter_context(SqliteFiles(self._of_sqlite).watched())
            yield self

    def _of_sqlite(self, name: str, path: str, args: tuple[Any, ...]) -> bool:
        """Called before each effect of SQLite on its files. The observers are told as if it had happened already."""
        if not path.startswith(str(self.root)):
            return True
        try:
            self.before(f"sqlite-{name}", (path, *args))
            self.after(f"sqlite-{name}", (path, *args))
        except Stopped:
            return False
        return True

    def _ours(self, args: tuple[Any, ...]) -> bool:
        """Whether a call is about this store; paths that are too long to be told are those of no plan."""
        first = args[-1] if len(args) == 2 and isinstance(args[1], bytes) else args[0]  # symlink: the new name
        return isinstance(first, int) or os.fsencode(first).startswith(os.fsencode(self.root))

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            told = _in_full(name, args, kwargs)
            if not self._ours(told):
                return function(*args, **kwargs)
            self.before(name, told)
            if name == "rmdir" and self.rmdir is not None:
                result = self.rmdir(told[0])
            else:
                result = function(*args, **kwargs)
            self.after(name, told)
            return result

        return wrapper

    def _wrap_open(self, function: Callable[..., int]) -> Callable[..., int]:
        def wrapper(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            (full,) = _in_full("open", (path,), kwargs)
            creates = flags & os.O_CREAT and self._ours((full,))
            if creates:
                self.before("create", (full,))
            fd = function(path, flags, *args, **kwargs)
            if creates:
                self.after("create", (full, fd))
            return fd

        return wrapper

    def _wrap_method(self, owner: type, name: str) -> Callable[..., Any]:
        function = getattr(owner, name)

        def wrapper(this: Any, *args: Any, **kwargs: Any) -> Any:
            self.before(name, args)
            result = function(this, *args, **kwargs)
            self.after(name, args)
            return result

        return wrapper

    def _wrap_async(self, owner: type, name: str) -> Callable[..., Any]:
        function = getattr(owner, name)

        async def wrapper(this: Any, *args: Any, **kwargs: Any) -> Any:
            self.before(name, args)
            result = await function(this, *args, **kwargs)
            self.after(name, args)
            return result

        return wrapper


def _in_full(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments, with names in a directory given by its descriptor (`dir_fd`) written out as paths."""
    full = list(args)
    two = (("src_dir_fd", 0), ("dst_dir_fd", 1))
    places = {"rename": two, "link": two, "symlink": (("dir_fd", 1),)}.get(name, (("dir_fd", 0),))
    for keyword, index in places:
        folder = kwargs.get(keyword)
        if folder is not None:
            full[index] = _path_of(folder) + b"/" + os.fsencode(full[index])
    return tuple(full)


def _path_of(folder: int) -> bytes:
    try:
        return os.fsencode(os.readlink(f"/proc/self/fd/{folder}"))
    except OSError:  # longer than a page: nobody can say it
        return b""
