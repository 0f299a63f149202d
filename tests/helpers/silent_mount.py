"""A FUSE mount that says it is recfs, and whose daemon takes every request and answers none: nothing ends a wait."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from recfs.fuse import device

_IN_HEADER = struct.Struct("=IIQQIIIHH")
_OUT_HEADER = struct.Struct("=IiQ")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
"""fuse_init_out of protocol 7.31 (include/uapi/linux/fuse.h)."""


@contextlib.contextmanager
def silent_mount(point: Path) -> Iterator[None]:
    """Have one; after FUSE_INIT requests are read, as by a daemon that hangs, so that no signal ends their wait."""
    device_fd = device.mount(point, ["fsname=recfs", "subtype=recfs"])
    ended, end = os.pipe()
    swallower = threading.Thread(target=_swallow, args=(device_fd, ended))
    try:
        unique = _IN_HEADER.unpack_from(os.read(device_fd, device.READ_BYTES))[2]
        told = _INIT_OUT.pack(7, 31, 0, 0, 16, 12, 4096, 1, 0, 0, 0)
        os.write(device_fd, _OUT_HEADER.pack(_OUT_HEADER.size + len(told), 0, unique) + told)
        os.set_blocking(device_fd, False)
        swallower.start()
        yield
    finally:
        os.close(end)
        if swallower.ident is not None:
            swallower.join()
        os.close(device_fd)  # the connection ends with it: whoever waits is let go
        os.close(ended)
        subprocess.run(["fusermount3", "-uz", str(point)], check=True, timeout=30)


def _swallow(device_fd: int, ended: int) -> None:
    """Read what comes until the other end of *ended* is closed."""
    while ended not in select.select([device_fd, ended], [], [])[0]:
        with contextlib.suppress(BlockingIOError):
            os.read(device_fd, device.READ_BYTES)
