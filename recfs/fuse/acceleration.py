"""What the kernel does by itself on a mount, and what stands in its way, in words for people."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from recfs.fuse import interpose

if TYPE_CHECKING:
    from collections.abc import Callable

FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_NOFLUSH: Final = 1 << 5
FOPEN_PASSTHROUGH: Final = 1 << 7

_NOT_BUILT = (
    "the extension recfs.fuse._fuse_reply is not there ({}); install gcc, libfuse3-dev and pkg-config, then run"
    " scripts/setup (or pip install) again"
)
NOT_EFFECTIVE = (
    "pyfuse3 does not use the extension's functions: it was loaded first, or has libfuse built in; use a pyfuse3 that"
    " is linked to libfuse3.so"
)


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What the kernel does by itself on a mount, as far as it was tried."""

    wanted: str
    """From the config: "auto", "read" or "off"."""
    reads: bool = False
    """The kernel reads straight from the backing file."""
    writes: bool = False
    """… and writes to it."""
    why_not: str | None = None
    """The reason and the remedy when less is on than *wanted* asks for."""
    killpriv: bool = False
    """FUSE_HANDLE_KILLPRIV_V2: no question for security.capability before each write."""
    open_flags: bool = False
    """Open answers can carry flags that pyfuse3 does not have: FOPEN_NOFLUSH, FOPEN_CACHE_DIR."""
    interrupts: bool = False
    """Waiting requests end when their callers do (state/waits.py)."""
    read_ahead_bytes: int = 0
    """Read-ahead of the mount, 0 if unknown."""
    max_background: int = 0
    """Background requests at once, 0 if it was not ours to say."""

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Return one line for people."""
        if self.reads:
            return "reads and writes" if self.writes else "reads only"
        if self.wanted == "off":
            return "off: switched off in the configuration"
        return f"off: {self.why_not or 'not tried yet'}"


def why_no_extension() -> str:
    """Why the extension is not there, and the remedy."""
    return _NOT_BUILT.format(interpose.why_not)


def why_no_passthrough() -> str:
    """What a kernel that does not offer it takes."""
    return f"Linux {os.uname().release} does not offer FUSE passthrough; it takes Linux 6.9 or newer"


def why_no_resending() -> str:
    """What a kernel that sends no request again takes."""
    return f"Linux {os.uname().release} does not send requests again; it takes Linux 6.9 or newer"


def why_not_backed(register: Callable[[], object]) -> str | None:
    """What keeps the kernel from taking a file of the store, which *register* has it try, and the remedy."""
    try:
        register()
    except OSError as error:
        if error.errno == errno.EPERM:
            return (
                "registering backing files needs CAP_SYS_ADMIN; run recfs as root, or give its service"
                " AmbientCapabilities=CAP_SYS_ADMIN"
            )
        if error.errno == errno.ELOOP:
            return (
                "the store lies on a stacked file system (overlayfs, as in a container's own layer; eCryptfs;"
                " another FUSE passthrough mount); put it on a volume or disk of its own"
            )
        return f"the kernel does not take files of the store as backing files ({os.strerror(error.errno or 0)})"
    return None
