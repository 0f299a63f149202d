"""Local copies of what S3 holds, in the metadata: the rows that tell of them, and how much of the budget they take.

Whole copies lie in the home tree like any committed file, partial ones in staging. Which copies leave: `evictor.py`;
how they come here: `partials.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from recfs.core.layout import is_temporary, kept_path
from recfs.core.retention import NOTHING_EXPIRES

if TYPE_CHECKING:
    from recfs.core.retention import Policy
    from recfs.core.routing import RouteRule
    from recfs.disk.commit.hashing import Work
    from recfs.errors import RecfsError
    from recfs.ports.rows import ObjectRow
    from recfs.state.nodes import FileNode
    from recfs.state.writebehind import WriteBehind
    from recfs.tier.downloads.download import Download
    from recfs.tier.queue.journal import Journal

ARRIVING_BYTES = 64 << 20
"""How much may arrive before copies have left for it."""


@dataclass(frozen=True, slots=True)
class TierSettings:
    """What the configuration says of S3 and the local copies."""

    rules: tuple[RouteRule, ...]
    max_bytes: int
    """Budget of everything local that S3 has or will have."""
    read_ahead_max: int
    settle_s: float
    """How long a committed file waits before it is uploaded."""
    retention_s: float
    """How long a deleted file's object stays."""
    copy_from_bytes: int | None = None
    """What has so many bytes at least is copied in S3, where it is there already; None: nothing is."""
    policy: Policy = NOTHING_EXPIRES
    """Which recordings are archived."""


@dataclass(slots=True)
class Partial:
    """A partial local copy."""

    node: FileNode
    key: str
    staging: str
    fd: int
    download: Download
    used_ns: int
    waiting: int = 0
    """How many wait for all of it."""
    verifying: Work | None = None
    """The read pass over all of it."""
    wrong: RecfsError | None = None
    """Why it was given up when all of it was here."""

    @property
    def idle(self) -> bool:
        """Whether nobody wants anything of it now."""
        return self.node.body is None and not self.waiting


class Copies:
    """All local copies. Atomic."""

    def __init__(self, settings: TierSettings, journal: Journal, behind: WriteBehind) -> None:
        self.settings = settings
        self.journal = journal
        self._behind = behind
        self.local_bytes = 0
        """Bytes of whole copies."""
        self.partial: dict[int, Partial] = {}
        """Partial ones by inode number; what was asked for last is the last."""
        self.eviction_requested = trio.Event()
        """Set when copies should leave."""

    def remember(self, node: FileNode, row: ObjectRow) -> None:
        """Record what S3 holds. Of a removed file there is no row any more."""
        node.object = row
        if node.unlinked:
            return
        self.journal.leaves(node.ino, row.key)
        self._behind.object(row)
        self._behind.node(node)

    def is_read(self, key: str, ino: int) -> bool:
        """Whether another file than *ino* is being read from the object under *key*, it may be a removed one."""
        return any(partial.key == key and partial.node.ino != ino for partial in self.partial.values())

    # --- the budget ----------------------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """What counts in the budget: local copies, partial ones, and what waits for its upload, or for it to count."""
        partial = sum(each.download.present_bytes for each in self.partial.values())
        return self.local_bytes + partial + self.journal.unsent_bytes() + self.journal.unsent.watched_bytes

    @property
    def line_bytes(self) -> int:
        """Where copies have to leave: below the budget by what may arrive before they have left."""
        budget = self.settings.max_bytes
        return budget - min(budget // 8, ARRIVING_BYTES) if self.partial else budget

    def kept_s(self, node: FileNode) -> float:
        """How long the object of a file stays that loses it, in seconds: as long as the trash keeps what is removed."""
        return 0.0 if is_temporary(kept_path(node.parts())) else self.settings.retention_s

    def request_eviction(self) -> None:
        """Something arrived: have copies leave if there is too much."""
        if self.used_bytes > self.line_bytes:
            self.eviction_requested.set()


__all__ = ["ARRIVING_BYTES", "Copies", "Partial", "TierSettings"]
