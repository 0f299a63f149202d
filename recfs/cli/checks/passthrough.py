"""Whether the kernel can read and write files by itself here; everything works without it, only slower."""

import importlib.util
import os
import re

from recfs.cli.checks import Check, Level

MIN_KERNEL = (6, 9)
CAP_SYS_ADMIN = 21
_NAME = "passthrough"
_STACKED = ("overlay", "ecryptfs", "fuse", "aufs")


def check_passthrough(release: str, capabilities: int, file_system: str | None, *, extension: bool) -> Check:
    """Judge kernel release, capabilities, the store's file system (None: no store named), and the C extension."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < MIN_KERNEL:
        return _without(f"Linux {release} does not have it", "Linux 6.9 or newer")
    if not extension:
        return _without(
            "the C extension was not built (nor do requests that wait end with their callers then)",
            "install gcc, libfuse3-dev and pkg-config, then run scripts/setup again",
        )
    if not capabilities >> CAP_SYS_ADMIN & 1:
        return _without("it takes CAP_SYS_ADMIN", "run the daemon as root, or give its service that capability")
    if file_system is not None and file_system.startswith(_STACKED):
        return _without(f"the store lies on {file_system}, which is stacked on another", "put the root on a disk")
    return Check(_NAME, Level.OK, "the kernel can read and write files by itself")


def _without(why: str, remedy: str) -> Check:
    return Check(_NAME, Level.WARN, f"{why}: reads and writes go through the daemon", remedy)


def here(capabilities: int, file_system: str | None) -> Check:
    """Judge this machine."""
    extension = importlib.util.find_spec("recfs.fuse._fuse_reply") is not None
    return check_passthrough(os.uname().release, capabilities, file_system, extension=extension)
