"""What open(2) gave to somebody."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.fs.fallback_entries import FallbackEntry
    from recfs.state.accounts import Account
    from recfs.state.backing_file import BackingFile
    from recfs.state.nodes import FileNode


class Mode(enum.Enum):
    """How the kernel does the reads and writes of one open."""

    PASS = "pass"
    DIRECT = "direct"
    CACHED = "cached"


class Handle:
    """One open(2) of a file."""

    __slots__ = ("account", "body", "direct", "foreign", "mode", "node", "shown", "uid", "writes")

    def __init__(self, node: FileNode, body: BackingFile, uid: int, *, writes: bool) -> None:
        self.node = node
        self.body = body
        self.uid = uid
        """Who opened it."""
        self.writes = writes
        self.direct = False
        """Whether it writes past the kernel's page cache (O_DIRECT)."""
        self.foreign = False
        """Whether it is that of a writer who outlived an earlier daemon: nothing of this mount (fs/survivors.py)."""
        self.mode: Mode | None = None
        """Who moves its bytes, where that has been chosen (fs/iomodes.py)."""
        self.shown: FallbackEntry | None = None
        """What it was opened as, if that was a shown file."""
        self.account: Account | None = None
        """The account that counts it among its writers nobody checks; None for any other."""
