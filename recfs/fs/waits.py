"""How a request waits: never for ever, and never longer than its caller lives.

A handler that has to wait for something in the background (a checksum, a move, another user's copy) waits inside
`bounded`, and changes nothing in there: the wait may end at any checkpoint. It ends with

  Interrupted (EINTR)  the caller got a signal, or was killed: the kernel sent FUSE_INTERRUPT (kernel doc fuse.rst)
  TryAgain (EAGAIN)    it took longer than the limit; a WARNING in the log says what was waited for

What goes on as long as it takes, and says so by itself when it does not (bytes from S3, the disk), is waited for inside
`interruptible`: with no limit, but no longer than the caller lives. Outside a request (services, commands) there is
nobody to interrupt, and only the limit holds.

How a request is known
----------------------
The C extension sees each message of the kernel first (_fuse_reply.c). It keeps the number (`unique`) of the request
that pyfuse3 is about to hand to its handler, which `guarded` takes over into `ticket`, and calls `interrupted` for each
FUSE_INTERRUPT, which names such a number. Without the extension nobody can be interrupted, and only the limit holds.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
from collections.abc import AsyncIterator, Iterator
from typing import Final

import trio

from recfs.errors import Interrupted, TryAgain

log = logging.getLogger("recfs.fs")

LIMIT_S = 30.0
"""Longest wait of a request for background work, in seconds."""
REMEMBERED: Final = 1024
"""How many interrupts of requests that do not wait just now are remembered: they may yet come to wait."""


class Request:
    """One request of the kernel, as far as it can be interrupted."""

    __slots__ = ("_scopes", "interrupted")

    def __init__(self) -> None:
        self.interrupted = False
        self._scopes: list[trio.CancelScope] = []

    def interrupt(self) -> None:
        """End the wait the request is in, and every later one. Atomic."""
        self.interrupted = True
        for scope in self._scopes:
            scope.cancel()

    @property
    def waits(self) -> bool:
        """Whether it is waiting."""
        return bool(self._scopes)


current: contextvars.ContextVar[Request | None] = contextvars.ContextVar("recfs_request", default=None)
"""The request that the running task serves, where it was made known as such."""
ticket: contextvars.ContextVar[int] = contextvars.ContextVar("recfs_ticket", default=0)
"""The kernel's number of the request that the running task serves; 0: of none."""

_waiting: dict[int, Request] = {}
_remembered: dict[int, None] = {}


def interrupted(number: int) -> None:
    """The kernel sent FUSE_INTERRUPT for its request *number*. Atomic."""
    request = _waiting.get(number)
    if request is not None:
        request.interrupt()
        return
    _remembered[number] = None
    if len(_remembered) > REMEMBERED:
        del _remembered[next(iter(_remembered))]


@contextlib.contextmanager
def bounded(what: str, limit_s: float | None = None) -> Iterator[None]:
    """Wait in here, for at most *limit_s* (LIMIT_S) seconds. *what* is for the log. Raises Interrupted or TryAgain."""
    limit_s = LIMIT_S if limit_s is None else limit_s
    number = ticket.get()
    request = current.get()
    if request is None and number:
        request = _waiting.get(number)
        if request is None:
            request = _waiting[number] = Request()
            request.interrupted = number in _remembered
    try:
        if request is not None and request.interrupted:
            raise Interrupted(f"interrupted before it waited for {what}")
        with trio.move_on_after(limit_s) as scope:
            if request is None:
                yield
            else:
                request._scopes.append(scope)
                try:
                    yield
                finally:
                    request._scopes.remove(scope)
        if scope.cancelled_caught:
            if request is not None and request.interrupted:
                raise Interrupted(f"interrupted while it waited for {what}")
            log.warning("a request waited %g s for %s and was told to try again (EAGAIN)", limit_s, what)
            raise TryAgain(f"waited {limit_s:g} s for {what}")
    finally:
        over = number and request is not None and not request.waits and _waiting.pop(number, None) is request
        if over and request is not None and request.interrupted:
            interrupted(number)  # for the next wait of the same request


@contextlib.contextmanager
def interruptible(what: str) -> Iterator[None]:
    """Wait in here, for as long as it takes and the caller lives. Raises Interrupted."""
    with bounded(what, math.inf):
        yield


@contextlib.asynccontextmanager
async def held(lock: trio.Lock, what: str) -> AsyncIterator[None]:
    """Hold *lock*; waits for it as `bounded` does, and is not interrupted any more once it has it."""
    with bounded(what):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()


__all__ = ["LIMIT_S", "Request", "bounded", "current", "held", "interrupted", "interruptible", "ticket"]
