"""A FUSE device that every user may open, as udev makes it on most machines, where the machine's is root's alone.

As a program: makes it in a mount namespace of its own, says "ready", and keeps the namespace until standard input ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.helpers.userns import leave_fuse_mounts

DEVICE = Path("/dev/fuse")
NUMBER = os.makedev(10, 229)
"""Of FUSE: Documentation/admin-guide/devices.txt."""
_FOR_ALL = 0o666


@contextlib.contextmanager
def fuse_device_for_all() -> Iterator[list[str] | str]:
    """Give a command prefix below which every user may open /dev/fuse, or the reason why this machine cannot.

    The machine's own device stays as it is. Mounts that are made below the prefix are seen there alone.
    """
    if stat.S_IMODE(DEVICE.stat().st_mode) & _FOR_ALL == _FOR_ALL:
        yield []
        return
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, __file__], text=True, **pipes)
    assert holder.stdout is not None
    ready = holder.stdout.readline() == "ready\n"
    try:
        yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"] if ready else holder.communicate()[1].strip()
    finally:
        holder.communicate(timeout=20)


def main() -> None:
    """Be the process that has the namespace."""
    leave_fuse_mounts(ctypes.CDLL(None, use_errno=True))
    # A file system of its own: the others may have been mounted without devices.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=1m", "recfs-test", "/dev/shm"], check=True)
    own = Path("/dev/shm/fuse")
    os.mknod(own, stat.S_IFCHR | _FOR_ALL, NUMBER)
    own.chmod(_FOR_ALL)
    subprocess.run(["mount", "--bind", own, DEVICE], check=True)
    subprocess.run(["umount", "--lazy", "/dev/shm"], check=True)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(str(error))
