"""Which bytes of an upload have come, as its attributes say. Blocking calls, for threads.

    user.upload.progress  of its directory: the ranges; or, of many, that they are
    user.upload.parts     of its bytes

A directory's attributes have 4 KiB together (docs/semantics.md, 14.1), the plan and the end of the upload among them;
a file's have far more. Many ranges become few again before an upload is whole, so that what it becomes has no
attribute of these.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Final

from recfs.client.uploads import attribute
from recfs.web.uploads.errors import Scattered
from recfs.web.uploads.received import Received

PROGRESS: Final = "user.upload.progress"
PARTS: Final = "user.upload.parts"
_APART: Final = b'{"parts":true}'
_FEW_BYTES: Final = 300
"""What the directory has room for beside a plan (`Plan.fits`), a checksum and a reason."""
_MOST_BYTES: Final = 60_000
"""Less than an attribute's value may have (semantics, 6.1)."""
_SCATTERED: Final = "send chunks that are nearer to the first ones"


def boot() -> str:
    """The boot's id, proc_sys_kernel(5); "" where it cannot be known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def noted(folder: int, data: str) -> tuple[Received, Received]:
    """What has come, and what of it is on stable storage for sure. Nothing of it is believed that cannot be.

    *data* is the name of the bytes in the open directory. Raises OSError.
    """
    raw = attribute(folder, PROGRESS)
    if raw == _APART:
        raw = _of_bytes(folder, data)
    if raw is None:
        return Received(), Received()
    try:
        told = json.loads(raw)
        received, synced = Received.parse(told["received"]), Received.parse(told["synced"])
        # What was noted before a power cut may have reached the disk sooner than the bytes it tells of.
        return (received if told["boot"] and told["boot"] == boot() else synced), synced
    except (ValueError, KeyError, TypeError):
        return Received(), Received()


def _of_bytes(folder: int, data: str) -> bytes | None:
    try:
        file = os.open(data, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        return attribute(f"/proc/self/fd/{file}", PARTS)
    finally:
        os.close(file)


def note(folder: int, data: int, received: Received, synced: Received, now: str) -> None:
    """Note what has come, in an open directory and its open bytes; *now* is the boot. Raises OSError, Scattered.

    A death between two of these calls leaves what was noted before, or this.
    """
    told = {"received": received.text(), "synced": synced.text(), "boot": now}
    raw = json.dumps(told, separators=(",", ":")).encode("ascii")
    if len(raw) <= _FEW_BYTES:
        os.setxattr(folder, PROGRESS, raw)
        return
    if len(raw) > _MOST_BYTES:
        raise Scattered(_SCATTERED)
    try:
        os.setxattr(data, PARTS, raw)
    except OSError as error:
        if error.errno in (errno.E2BIG, errno.ENOSPC) and os.fstatvfs(data).f_bavail:
            raise Scattered(_SCATTERED) from None  # a plain directory's file system has less room for attributes
        raise
    os.setxattr(folder, PROGRESS, _APART)


def forget_parts(data: int) -> None:
    """Have the bytes of an upload that is whole keep nothing of how they came. Raises OSError."""
    try:
        os.removexattr(data, PARTS)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


__all__ = ["PARTS", "PROGRESS", "boot", "forget_parts", "note", "noted"]
