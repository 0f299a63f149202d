"""Whether programs have a file open for writing that this process knows nothing of.

A daemon that died, or was stopped while programs were recording, leaves writers behind whom the kernel still serves by
itself (passthrough). The kernel grants a lease for reading only on a file that nobody has open for writing, or mapped
so (fcntl(2), F_SETLEASE); it is given back at once, and who opens the file in between waits for no more than that.
"""

from __future__ import annotations

import errno
import fcntl


def is_written(fd: int) -> bool:
    """Whether anybody has the file open for writing, this process included. *fd* must be open for reading only.

    False where the file system has no leases, or gives none to this process (CAP_LEASE).
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


__all__ = ["is_written"]
