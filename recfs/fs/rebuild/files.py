"""What becomes of a file of the home tree whose checksum is known: which bytes count, and the row that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.model import State
from recfs.core.upkeep.rebuilding import Content, Verdict, believes, judge
from recfs.ports.objects import ARCHIVE_CLASSES
from recfs.ports.rows import MOVE, LocalCopy, NodeRow, ObjectRow, Placement

if TYPE_CHECKING:
    from recfs.fs.rebuild.site import Site


class Files:
    """Writes the rows of files."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stale: set[int] = set()
        """Files on their way whose objects tell of other attributes."""

    def described(self, row: NodeRow, told: NodeRow) -> NodeRow:
        """The row of a file at home, with what its object's metadata knows better: *told*.

        A daemon that is not root owns all there is on its disk. Where it gives files to their owners, the disk is
        right, and what was to be written to the metadata was lost with the journal.
        """
        if not self._site.store.gives_owners:
            return row._replace(mode=told.mode, uid=told.uid, gid=told.gid)
        if (row.mode, row.uid, row.gid, row.mtime_ns) != (told.mode, told.uid, told.gid, told.mtime_ns):
            self._stale.add(row.ino)
        return row

    def judge(self, row: NodeRow, path: bytes, far: ObjectRow | None, told: Content | None = None) -> None:
        """The checksum of what lies at home is known; *told*: what the old catalogue says of it."""
        findings, local = self._site.findings, Content(row.size_bytes, row.mtime_ns, row.sha256)
        verdict = judge(local, Content(far.size_bytes, far.mtime_ns, far.sha256) if far is not None else None)
        if far is None or verdict is Verdict.ALONE:
            if told is not None and believes(local, told) and told.sha256 != row.sha256:
                findings.damaged.add(path, "size and mtime are those of the old catalogue, and the bytes are not")
                self._site.put(row._replace(state=State.CORRUPT, sha256=told.sha256, md5=None))
                return
            self._committed(row, path, None)
        elif verdict is Verdict.SAME:
            self.stored(row, far)
        elif verdict is Verdict.NEWER:
            findings.newer.add(path, f"its object has {far.size_bytes} bytes")
            self._committed(row, path, far)
        else:
            findings.damaged.add(path, "size and mtime are those of its object, and the bytes are not")
            self._give_way(row, path, far, "its bytes are not those of its object, which count")
        self._stale.discard(row.ino)

    def _committed(self, row: NodeRow, path: bytes, far: ObjectRow | None) -> None:
        row = row._replace(state=State.COMMITTED, has_object=int(far is not None))
        self._site.put(row, far.here(local=0) if far is not None else None)
        self._site.queue_upload(row, tuple(path.split(b"/")))

    def stored(self, row: NodeRow, far: ObjectRow) -> None:
        """S3 has the same."""
        site = self._site
        site.findings.stored += 1
        row = row._replace(state=State.STORED, has_object=1, sha256=far.sha256, md5=far.md5)
        site.put(row, far._replace(copy=LocalCopy(site.clock.steady_ns(), 1, far.copy.pinned, 0, 0)))
        if row.ino in self._stale and far.storage_class not in ARCHIVE_CLASSES:
            site.queue(MOVE, row)  # to where it is: its metadata is written anew
        self._stale.discard(row.ino)

    def unreadable(self, row: NodeRow, path: bytes, far: ObjectRow | None, why: str, *, stays: bool = False) -> None:
        """Nobody knows what lies at home; *stays*: and it is to stay there, whatever S3 has."""
        self._site.findings.unreadable.add(path, why)
        if far is not None and not stays:
            self._give_way(row, path, far, "it cannot be read; its object counts")
        else:
            self._site.put(row._replace(state=State.CORRUPT, has_object=int(far is not None)))

    def _give_way(self, row: NodeRow, path: bytes, far: ObjectRow, why: str) -> None:
        """The object counts, and not what lies at home."""
        if self._site.set_aside(path, why):
            self._site.put(evicted(row, far), far.here(local=0))
        else:
            self._site.put(row._replace(state=State.CORRUPT, has_object=1, sha256=far.sha256, md5=far.md5))


def evicted(row: NodeRow, far: ObjectRow) -> NodeRow:
    """The row of a file that S3 alone has, with the attributes that it had at home."""
    state = State.ARCHIVED if far.storage_class in ARCHIVE_CLASSES else State.EVICTED
    return row._replace(
        state=state, has_object=1, size_bytes=far.size_bytes, mtime_ns=far.mtime_ns, sha256=far.sha256, md5=far.md5,
        placement=Placement(),
    )  # fmt: skip
