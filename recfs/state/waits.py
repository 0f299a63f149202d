"""How a request waits: never for ever, and never longer than its caller lives.

A handler that has to wait for something in the background (a checksum, a move, another user's copy) waits inside
`bounded`, and changes nothing in there: the wait may end at any checkpoint. It ends with

  Interrupted (EINTR)  the caller got a signal, or was killed: the kernel sent FUSE_INTERRUPT (kernel doc fuse.rst)
  TryAgain (EAGAIN)    it took longer than the limit, or very many of the same user wait already; a WARNING in the log
                       says what was waited for

What goes on as long as it takes, and says so by itself when it does not (bytes from S3, the disk), is waited for inside
`interruptible`: with no limit, but no longer than the caller lives. Outside a request (services, commands) there is
nobody to interrupt, and only the limit holds.

How many may wait
-----------------
A request that waits keeps one of the request loop's tasks (fuse/loop.py), and the memory that goes with it. So that one
user's thousand waiting threads leave the loop to everybody else, each user has `USER_WAITS` of them, all have `WAITS`,
and the loop has more tasks than that.

How a request is known
----------------------
The C extension sees each message of the kernel first (_fuse_receive.c). It keeps the number (`unique`) of the request
that pyfuse3 is about to hand to its handler, which `guarded` takes over into `ticket`, and calls `interrupted` for each
FUSE_INTERRUPT, which names such a number. Without the extension nobody can be interrupted, and only the limit holds.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import trio

from recfs.errors import Interrupted, TryAgain

if TYPE_CHECKING:
    from recfs.state.nodes import Node

log = logging.getLogger("recfs.fs")

LIMIT_S = 30.0
"""Longest wait of a request for background work, in seconds."""
WAITS: Final = 8192
"""How many requests may wait at a time, of all users."""
USER_WAITS: Final = 1024
"""How many of one user, as far as it is known who sent them."""
UNKNOWN: Final = -1
"""The user id of a request of which nobody knows who sent it."""
REMEMBERED: Final = 1024
"""How many interrupts of requests that do not wait just now are remembered: they may yet come to wait."""


class Request:
    """One request of the kernel, as far as it can be interrupted."""

    __slots__ = ("_scopes", "interrupted", "uid")

    def __init__(self, uid: int = UNKNOWN) -> None:
        self.uid = uid
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
_by_user: Counter[int] = Counter()
"""How many requests of each user wait; -1: of nobody knows whom."""


_senders: list[Callable[[int], int]] = []
"""Who knows the senders of requests, the last one first: whoever serves the kernel just now."""


def ask_for_senders(of: Callable[[int], int]) -> None:
    """Let *of* tell the user id of a request's sender, by its number; UNKNOWN if it was long ago."""
    _senders.append(of)


def ask_no_more(of: Callable[[int], int]) -> None:
    """There are no more requests that *of* would know of."""
    _senders.remove(of)


def sender(number: int) -> int:
    """The user id of whoever sent the request *number*; UNKNOWN where nobody knows."""
    return _senders[-1](number) if _senders else UNKNOWN


def _enrolled(number: int, what: str) -> Request:
    """A request that begins to wait. Raises TryAgain where too many do."""
    uid = sender(number)
    whose, many = None, 0
    if len(_waiting) >= WAITS:
        whose, many = "all users", WAITS
    elif uid != UNKNOWN and _by_user[uid] >= USER_WAITS:
        whose, many = f"user {uid}", USER_WAITS
    if whose is not None:
        log.warning(
            "%d requests of %s wait already; one more, for %s, was told to try again (EAGAIN)", many, whose, what
        )
        raise TryAgain(f"{many} requests of {whose} wait already")
    request = _waiting[number] = Request(uid)
    _by_user[uid] += 1
    request.interrupted = number in _remembered
    return request


def _dismiss(number: int, request: Request) -> None:
    del _waiting[number]
    _by_user[request.uid] -= 1
    if not _by_user[request.uid]:
        del _by_user[request.uid]
    if request.interrupted:
        interrupted(number)  # for the next wait of the same request


def interrupted(number: int) -> None:
    """The kernel sent FUSE_INTERRUPT for its request *number*. Atomic."""
    request = _waiting.get(number)
    if request is not None:
        request.interrupt()
        return
    _remembered[number] = None
    if len(_remembered) > REMEMBERED:
        del _remembered[next(iter(_remembered))]


def interrupt_all() -> None:
    """End every wait of a request, as if its caller had been killed: nobody will read the answers. Atomic."""
    for request in list(_waiting.values()):
        request.interrupt()


@contextlib.contextmanager
def bounded(what: str, limit_s: float | None = None) -> Iterator[None]:
    """Wait in here, for at most *limit_s* (LIMIT_S) seconds. *what* is for the log. Raises Interrupted or TryAgain."""
    limit_s = LIMIT_S if limit_s is None else limit_s
    number = ticket.get()
    request = current.get()
    if request is None and number:
        request = _waiting.get(number) or _enrolled(number, what)
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
        if number and request is not None and not request.waits and _waiting.get(number) is request:
            _dismiss(number, request)


@contextlib.contextmanager
def interruptible(what: str) -> Iterator[None]:
    """Wait in here, for as long as it takes and the caller lives. Raises Interrupted."""
    with bounded(what, math.inf):
        yield


class Held:
    """Hold the *lock* of a node's body; waits for it as `bounded` does, and is not interrupted once it has it."""

    __slots__ = ("_lock", "_node")

    def __init__(self, lock: trio.Lock, node: Node) -> None:
        self._lock, self._node = lock, node

    async def __aenter__(self) -> None:
        # Each open comes through here, and hardly any has to wait.
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            with bounded(f"{self._node.path}, which is being moved"):
                await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


__all__ = [
    "LIMIT_S", "Held", "Request", "bounded", "current", "interrupt_all", "interrupted", "interruptible", "ticket",
]  # fmt: skip
