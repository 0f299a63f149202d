"""Bytes and directories that lost their name but still lie on disk, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.ports import GarbageRow, Promise

if TYPE_CHECKING:
    from recfs.core.model import Kind
    from recfs.fs.nodes import DirNode


class Garbage:
    """One entry. Its place is staging, a home directory, or (neither) the trash."""

    __slots__ = (
        "deleted_ns", "gid", "gid_owner", "held_by", "home_ino", "ino", "kind", "md5", "mode", "mtime_ns", "path",
        "place", "promised", "sha256", "size_bytes", "staging", "uid",
    )  # fmt: skip

    def __init__(self, gid: int, ino: int, kind: Kind, path: bytes, deleted_ns: int) -> None:
        self.gid = gid
        self.ino = ino
        self.kind = kind
        self.path = path
        self.deleted_ns = deleted_ns
        self.size_bytes = 0
        self.sha256: bytes | None = None
        self.md5: bytes | None = None
        self.mode = self.uid = self.gid_owner = self.mtime_ns = 0
        self.staging: str | None = None
        self.place: tuple[DirNode | None, bytes] | None = None
        self.home_ino: int | None = None
        self.held_by: int | None = None
        self.promised = 0

    @property
    def is_durable(self) -> bool:
        """Whether its bytes were promised to survive a power cut, too."""
        return self.sha256 is not None or bool(self.promised & Promise.FSYNCED)

    @property
    def in_trash(self) -> bool:
        """Whether only its retention keeps it."""
        return self.staging is None and self.place is None

    def row(self) -> GarbageRow:
        """The row the catalogue should hold."""
        folder, name = self.place if self.place is not None else (None, None)
        return GarbageRow(
            self.gid, self.ino, self.kind, self.path, self.size_bytes, self.sha256, self.md5, self.mode, self.uid,
            self.gid_owner, self.mtime_ns, self.staging,
            None if name is None else (folder.ino if folder else 0), name, self.home_ino, self.deleted_ns, self.held_by,
            self.promised,
        )  # fmt: skip


def from_row(row: GarbageRow) -> Garbage:
    """Build the entry a row describes; `place` is left to the caller, who can find the directory."""
    entry = Garbage(row.gid, row.ino, row.kind, row.path, row.deleted_ns)
    entry.size_bytes, entry.sha256, entry.md5 = row.size_bytes, row.sha256, row.md5
    entry.mode, entry.uid, entry.gid_owner, entry.mtime_ns = row.mode, row.uid, row.gid_owner, row.mtime_ns
    entry.staging, entry.home_ino = row.staging, row.home_ino
    entry.held_by, entry.promised = row.held_by, row.promised
    return entry
