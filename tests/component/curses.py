"""Faults in one method of a port, whichever caller meets them: once, always, or whenever one user's files are meant."""

from __future__ import annotations

import contextlib
import copy
import errno
import inspect
import itertools
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

MARK = "66613"
"""In the paths, keys and values of what is cursed, and in nothing else."""
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


class Curse:
    """A fault in one method: of the first call, of each that mentions the cursed file, or (*mark* empty) of all.

    Of several errors each in turn.
    """

    def __init__(self, *errors: Exception, once: bool = False, mark: str = MARK) -> None:
        self._errors = itertools.cycle(errors)
        self.once = once
        self.mark = mark
        self.armed = False
        self.hits = 0

    def strike(self, args: tuple[Any, ...]) -> None:
        """Raise if it is this call's turn."""
        if not self.armed or (not self.once and self.mark not in repr(args)):
            return
        self.hits += 1
        if self.once:
            self.armed = False
        raise copy.copy(next(self._errors))

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
    """A request that may fail: the kernel's caller gets an errno, whatever this is (fuse/guard.py)."""
    with contextlib.suppress(Exception):
        yield


def ids(call: tuple[type, str]) -> str:
    """A call as the name of a test."""
    return f"{call[0].__name__}.{call[1]}"
