"""Faults in one method of a port, whichever caller meets them: once, always, or whenever one user's files are meant."""

from __future__ import annotations

import contextlib
import copy
import errno
import inspect
import itertools
import os
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

Call = tuple[type, str]

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

    def strike(self, args: tuple[Any, ...], call: Call) -> None:
        """Raise if it is this call's turn."""
        if not self.armed or (not self.once and self.mark not in repr(args)):
            return
        self.hits += 1
        if self.once:
            self.armed = False
        raise copy.copy(next(self._errors))

    @contextlib.contextmanager
    def on(self, calls: Collection[Call]) -> Iterator[None]:
        """Wrap methods for the length of the block."""
        with contextlib.ExitStack() as stack:
            for owner, name in calls:
                stack.enter_context(self.laid_on(owner, name))
            yield

    @contextlib.contextmanager
    def laid_on(self, owner: type, name: str) -> Iterator[None]:
        """Wrap the method for the length of the block."""
        original = inspect.getattr_static(owner, name)
        function = getattr(owner, name)
        plain = isinstance(original, staticmethod)
        if inspect.iscoroutinefunction(function):

            async def struck(*args: Any, **kwargs: Any) -> Any:
                self.strike(args[1:], (owner, name))
                return await function(*args, **kwargs)
        else:

            def struck(*args: Any, **kwargs: Any) -> Any:
                self.strike(args if plain else args[1:], (owner, name))
                return function(*args, **kwargs)

        with mock.patch.object(owner, name, staticmethod(struck) if plain else struck):
            yield


class Witness(Curse):
    """One that never strikes: it notes what it could have struck."""

    def __init__(self) -> None:
        super().__init__(OSError())
        self.made: set[Call] = set()
        """Whatever was called."""
        self.meant: set[Call] = set()
        """What was called with the mark."""

    def strike(self, args: tuple[Any, ...], call: Call) -> None:
        """Note the call."""
        if self.armed:
            self.made.add(call)
            if self.mark in repr(args):
                self.meant.add(call)


WITNESSED = 3
"""How often a scenario is witnessed: some calls are made in one run and not in the next, as threads go."""


class Cases:
    """A scenario with a curse on each of some methods in turn.

    Up to its first strike a curse changes nothing. So what is not called while no curse is there is not struck where it
    is cursed, either, whatever the error, and all those methods are one case: a run with a curse on each of them, which
    has to end as well as the others should it strike after all.
    """

    def __init__(self, scenario: Callable[[Path, Collection[Call], Curse], Awaitable[None]], calls: list[Call]) -> None:
        self._scenario = scenario
        self._calls = calls
        self._witness: Witness | None = None
        self._done: set[bool] = set()

    async def struck(self, place: Path, *, once: bool) -> set[Call]:
        """What a curse would strike; found out the first time."""
        if self._witness is None:
            witness = Witness()
            for number in range(WITNESSED):
                await self._scenario(place / f"witnessed-{number}", self._calls, witness)
            self._witness = witness
        return self._witness.made if once else self._witness.meant

    async def run(self, place: Path, call: Call, curse: Curse) -> None:
        """The scenario with a curse on one method, or on all of those that none would strike, which is done once."""
        struck = await self.struck(place, once=curse.once)
        if call in struck:
            await self._scenario(place / "store", [call], curse)
        elif curse.once not in self._done:
            await self._scenario(place / "store", [each for each in self._calls if each not in struck], curse)
            self._done.add(curse.once)


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """A request that may fail: the kernel's caller gets an errno, whatever this is (fuse/guard.py)."""
    with contextlib.suppress(Exception):
        yield


def ids(call: tuple[type, str]) -> str:
    """A call as the name of a test."""
    return f"{call[0].__name__}.{call[1]}"
