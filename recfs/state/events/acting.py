"""Who has the daemon do what it does to files besides the kernel's requests: somebody by a command, or a sweep.

What is done meanwhile, in that task and in those that it starts, is theirs to the audit log. Requests of the kernel are
nobody's here: their observer tells who made them (`fuse/observers/acts.py`).
"""

from __future__ import annotations

import contextlib
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Acting(NamedTuple):
    """Who acts, and by what."""

    by: str
    """The method of the control protocol, or what of the daemon's own, as in "sweep temp"."""
    uid: int
    gid: int
    pid: int
    command: bytes
    """The name of the process, as it was when it asked; empty where nobody can say."""
    via: str
    """How it was asked for: "control" or "gateway", the sockets; "daemon": by nobody."""


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


def own(by: str) -> Acting:
    """The daemon itself, as it does *by*."""
    return Acting(by, os.geteuid(), os.getegid(), os.getpid(), b"recfs", "daemon")


@contextlib.contextmanager
def acting_for(who: Acting) -> Iterator[None]:
    """What is done in this block, *who* has it done."""
    token = _acting.set(who)
    try:
        yield
    finally:
        _acting.reset(token)


def acting() -> Acting | None:
    """Who has it done; None: the kernel asked for it, or nobody in particular."""
    return _acting.get()


__all__ = ["Acting", "acting", "acting_for", "own"]
