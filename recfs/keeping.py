"""systemd's file descriptor store (sd_notify(3), FDSTORE=1): what keeps a mount from dying with its daemon.

While a copy of the kernel's descriptor lies there, requests wait for the next daemon instead of failing. The unit has
to offer it (FileDescriptorStoreMax=); systemd says so in $FDSTORE since version 254, and the unit itself before.
"""

from __future__ import annotations

import logging
import os
import select
from typing import Final

from recfs import notifying

log = logging.getLogger("recfs.daemon")

DEVICE: Final = "recfs-device"
LEDGER: Final = "recfs-ledger"
LEFT: Final = "recfs-left"
"""A note (a memfd): the daemon ended of its own will, and left its mount to the next one."""
_FIRST: Final = 3
"""Where passed descriptors begin (SD_LISTEN_FDS_START, sd_listen_fds(3))."""


def is_offered() -> bool:
    """Whether whoever started this process keeps descriptors for it."""
    room = os.environ.get("FDSTORE", "")
    return "NOTIFY_SOCKET" in os.environ and room.isdecimal() and int(room) > 1


def store(fd: int, name: str) -> None:
    """Have a copy of *fd* kept. Raises OSError."""
    notifying.send(f"FDSTORE=1\nFDNAME={name}", fd)


def remove(name: str) -> None:
    """Have it kept no more. Raises nothing."""
    try:
        notifying.send(f"FDSTOREREMOVE=1\nFDNAME={name}")
    except OSError as error:
        log.warning("the service manager was not told to let go of %s: %s", name, error.strerror)


def received() -> dict[str, int]:
    """The descriptors that were kept for this process, by name. Children do not get them."""
    told = {key: os.environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if told["LISTEN_PID"] != str(os.getpid()) or not told["LISTEN_FDS"].isdecimal():
        return {}
    fds = range(_FIRST, _FIRST + int(told["LISTEN_FDS"]))
    for fd in fds:
        os.set_inheritable(fd, False)
    names = told["LISTEN_FDNAMES"].split(":")
    return dict(zip(names, fds, strict=False))


def is_connected(device: int) -> bool:
    """Whether the kernel's descriptor still belongs to a mount (fuse_dev_poll, fs/fuse/dev.c)."""
    poll = select.poll()
    poll.register(device, select.POLLIN)
    return not any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))


__all__ = ["DEVICE", "LEDGER", "LEFT", "is_connected", "is_offered", "received", "remove", "store"]
