"""How a request waits: never for ever, and never longer than its caller lives.

A handler that has to wait for something in the background (a checksum, a move, a download, another user's copy)
waits inside `bounded`, and changes nothing in there: the wait may end at any checkpoint. It ends with

  Interrupted (EINTR)  the caller got a signal, or was killed: the kernel sent FUSE_INTERRUPT (kernel doc fuse.rst)
  TryAgain (EAGAIN)    it took longer than the limit; a WARNING in the log says what was waited for

Outside a request (services, commands) there is nobody to interrupt, and only the limit holds.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections.abc import Iterator

import trio

from recfs.errors import Interrupted, TryAgain

log = logging.getLogger("recfs.fs")

LIMIT_S = 30.0
"""Longest wait of a request for background work, in seconds."""


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


current: contextvars.ContextVar[Request | None] = contextvars.ContextVar("recfs_request", default=None)
"""The request that the running task serves."""


@contextlib.contextmanager
def bounded(what: str, limit_s: float = LIMIT_S) -> Iterator[None]:
    """Wait in here, for at most *limit_s* seconds. *what* names it in the log. Raises Interrupted or TryAgain."""
    request = current.get()
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


__all__ = ["LIMIT_S", "Request", "bounded", "current"]
