"""What is written to the catalogue at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from recfs.ports.rows import (
    AccountRow,
    EventRow,
    GarbageRow,
    JournalRow,
    MediaRow,
    NodeRow,
    ObjectRow,
    RecordingRow,
    SweepRow,
    TrashRow,
    UnansweredRow,
)


@dataclass(slots=True)
class Batch:
    """Changes that become durable together: rows and the counters that count them."""

    nodes: list[NodeRow] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    emptied: list[tuple[int, int, int]] = field(default_factory=list)
    """(directory without a row, first, last inode): the rows of the files in it between these go."""
    accounts: list[AccountRow] = field(default_factory=list)
    garbage: list[GarbageRow] = field(default_factory=list)
    purged: list[int] = field(default_factory=list)
    """gids of garbage that is gone from disk."""
    xattrs: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    """(ino, name, value); value None removes."""
    whiteouts: list[tuple[int, bytes, bool]] = field(default_factory=list)
    """(directory, name, hidden)."""
    views: list[tuple[int, int]] = field(default_factory=list)
    """(view id, shared inode) pairs that were given out."""
    meta: dict[str, str] = field(default_factory=dict)
    objects: list[ObjectRow] = field(default_factory=list)
    objects_gone: list[int] = field(default_factory=list)
    """Inodes of which S3 holds nothing any more; applied before `objects`."""
    journal: list[JournalRow] = field(default_factory=list)
    journal_done: list[int] = field(default_factory=list)
    """ids of work that is done or dropped."""
    unanswered: list[UnansweredRow] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    """Keys of which nothing is feared any more; applied after `unanswered`."""
    sweeps: list[SweepRow] = field(default_factory=list)
    """Runs of sweeps that began or ended."""
    sweeps_gone: list[int] = field(default_factory=list)
    """ids of those that are forgotten; applied after `sweeps`."""
    trash: list[TrashRow] = field(default_factory=list)
    """What the trash keeps beside bytes."""
    trash_gone: list[int] = field(default_factory=list)
    """Numbers of which it keeps nothing more; applied after `trash`. Those of `purged` go as well."""
    recordings: list[RecordingRow] = field(default_factory=list)
    media: list[MediaRow] = field(default_factory=list)
    """What is known of files' contents; goes with their nodes."""
    events: list[EventRow] = field(default_factory=list)
    """What became of the files whose rows these are."""
    events_gone: list[int] = field(default_factory=list)
    """ids of those that are not kept, or did not come about; applied after `events`."""

    def __bool__(self) -> bool:
        return bool(
            self.nodes
            or self.objects
            or self.objects_gone
            or self.journal
            or self.journal_done
            or self.unanswered
            or self.answered
            or self.sweeps
            or self.sweeps_gone
            or self.trash
            or self.trash_gone
            or self.recordings
            or self.media
            or self.events
            or self.events_gone
            or self.removed
            or self.emptied
            or self.accounts
            or self.garbage
            or self.purged
            or self.xattrs
            or self.whiteouts
            or self.views
            or self.meta
        )

    def changes(self) -> list[tuple[str, Any]]:
        """All changes one by one, with their field's name, in the order in which they are applied."""
        listed = [(name, item) for name in _APPLIED for item in getattr(self, name)]
        return listed + [("meta", item) for item in self.meta.items()]

    @classmethod
    def of(cls, changes: Sequence[tuple[str, Any]]) -> Batch:
        """A batch of some of another's changes."""
        batch = cls()
        for name, item in changes:
            if name == "meta":
                batch.meta[item[0]] = item[1]
            else:
                getattr(batch, name).append(item)
        return batch


_APPLIED = (
    "removed", "emptied", "nodes", "accounts", "garbage", "purged", "xattrs", "whiteouts", "views", "objects_gone",
    "objects", "journal", "journal_done", "unanswered", "answered", "sweeps", "sweeps_gone", "recordings",
    "media", "trash", "trash_gone", "events", "events_gone",
)  # fmt: skip
