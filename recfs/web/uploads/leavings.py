"""What the death of a gateway leaves of an upload that was just being made: its room, which nobody was told of.

Blocking calls, for threads.
"""

from __future__ import annotations

import fcntl
import os

from recfs.client.uploads import attribute
from recfs.web.uploads.plan import UploadId
from recfs.web.uploads.staged import DATA, MARK, PLAN, Folders, folder_of, forget


def clear(folders: Folders, id: UploadId) -> bool:
    """Remove what has the bytes of an upload and no plan, and which nobody is making; whether it was such.

    Raises NoUpload, OSError.
    """
    folder = folder_of(folders, id)
    try:
        if attribute(folder, PLAN) is not None:
            return False  # and its lock is left to those who go on with it
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody is
            return False
        if attribute(folder, PLAN) is not None or not _is_ours(folder, id):
            return False
        os.unlink(DATA, dir_fd=folder)
        forget(folders, id)
        return True
    finally:
        os.close(folder)


def _is_ours(folder: int, id: UploadId) -> bool:
    try:
        data = os.open(DATA, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return False
    try:
        return attribute(data, MARK) == str(id).encode()
    finally:
        os.close(data)


__all__ = ["clear"]
