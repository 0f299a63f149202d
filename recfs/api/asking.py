"""Who asks, for answers that depend on it.

The kernel says who a client of the control socket is (SO_PEERCRED and SO_PEERGROUPS, unix(7) and socket(7)); nothing in
the request does. Where no socket is asked, this process does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from recfs.core.permissions import Identity
from recfs.observing.audit.trail import comm_of
from recfs.state.events import Acting, acting_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

_PEER_GROUPS: Final = 59
"""SO_PEERGROUPS of asm-generic/socket.h, which Python has no name for: the supplementary groups of the other side."""
_FEW_BYTES, _ALL_BYTES = 1024, 4 * 65536
"""What Python has room for in an answer, and what as many groups take as a process may have (NGROUPS_MAX of Linux)."""
_libc = ctypes.CDLL(None, use_errno=True)

_asking: ContextVar[Identity | None] = ContextVar("asking", default=None)


def groups_of(sock: trio.socket.SocketType) -> frozenset[int]:
    """The supplementary groups that the other side of a unix socket had when it connected; none where it is gone."""
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, _FEW_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            return frozenset()
        found = _many_groups(sock.fileno())
    return frozenset(struct.unpack(f"{len(found) // 4}I", found))


def _many_groups(fd: int) -> bytes:
    room, length = ctypes.create_string_buffer(_ALL_BYTES), ctypes.c_uint(_ALL_BYTES)
    failed = _libc.getsockopt(fd, socket.SOL_SOCKET, _PEER_GROUPS, room, ctypes.byref(length))
    return b"" if failed else room.raw[: length.value]


def acts_for(method: str, uid: int, gid: int, pid: int, via: str) -> contextlib.AbstractContextManager[None]:
    """What is done in this block, that process has done *by* a method of the protocol, and *via* which socket."""
    return acting_for(Acting(method, uid, gid, pid, comm_of(pid) if pid > 0 else b"", via))


@contextlib.contextmanager
def asked_by(who: Identity) -> Iterator[None]:
    """What is answered in this block, is answered to *who*."""
    token = _asking.set(who)
    try:
        yield
    finally:
        _asking.reset(token)


def asking() -> Identity:
    """Who asks."""
    return _asking.get() or Identity(os.geteuid(), os.getegid(), frozenset(os.getgroups()))


__all__ = ["acts_for", "asked_by", "asking", "groups_of"]
