"""What the trash keeps beside bytes on this disk: directories, links, empty files, attributes, and what only S3 has.

Bytes are garbage (`Tree.garbage`); the numbers of both are one sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.life import packed_life
from recfs.disk.packing import packed
from recfs.ports.rows import TrashRow
from recfs.state.nodes import DirNode, FileNode, LinkNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.ports.catalogue import Catalogue
    from recfs.ports.rows import ObjectRow
    from recfs.state.nodes import Garbage, Node
    from recfs.state.tree import Tree


class TrashIndex:
    """The rows of the trash. All of it atomic but for `load`."""

    def __init__(self, tree: Tree, *, retention_s: float) -> None:
        self._tree = tree
        self._behind = tree.behind
        self.retention_s = retention_s
        self.rows: dict[int, TrashRow] = {}
        """What has no bytes here, by number; what has is told by `Garbage.beside`."""
        self._beside: dict[int, TrashRow] = {}
        self._of_key: dict[str, set[int]] = {}

    @property
    def is_kept(self) -> bool:
        """Whether anything that is removed from now on is kept."""
        return self.retention_s > 0

    async def load(self, catalogue: Catalogue) -> None:
        """Take up what the last run left, before any number is given out. Raises IoFailure."""
        for row in await catalogue.trash():
            self._tree.skip_gid(row.gid)
            if row.has_bytes:
                self._beside[row.gid] = row
            else:
                self._know(row)

    def attach(self) -> None:
        """The garbage is known by now: what the trash keeps beside it goes with it."""
        for gid, row in self._beside.items():
            entry = self._tree.garbage.get(gid)
            if entry is None:
                self._behind.trash_gone(gid)
            else:
                entry.beside = row
        self._beside.clear()

    # --- adding --------------------------------------------------------------------------------------------------

    def keep(self, node: Node) -> None:
        """*node*, of which nothing lies on the disk but its name, is about to lose that."""
        if self.is_kept:
            self._put(self._row(node, self._tree.new_gid()))

    def keep_beside(self, node: FileNode, entry: Garbage) -> None:
        """The bytes of *node* go to the trash as *entry*: so do its attributes."""
        if self.is_kept and node.xattrs and entry.size_bytes:
            entry.beside = self._row(node, entry.gid)._replace(has_bytes=1, deleted_ns=entry.deleted_ns)
            self._behind.trash(entry.beside)

    def keep_object(self, node: FileNode, in_s3: ObjectRow) -> None:
        """A version of *node* that only S3 has is about to be nobody's."""
        if self.is_kept and in_s3.size_bytes and not any(row.object_etag == in_s3.etag for row in self.at(in_s3.key)):
            self._put(
                self._row(node, self._tree.new_gid())._replace(
                    size_bytes=in_s3.size_bytes, sha256=in_s3.sha256, md5=in_s3.md5, mtime_ns=in_s3.mtime_ns,
                    object_key=in_s3.key, object_etag=in_s3.etag, storage_class=in_s3.storage_class,
                    uploaded_ns=in_s3.uploaded_ns,
                )
            )  # fmt: skip

    def _row(self, node: Node, gid: int) -> TrashRow:
        whole = isinstance(node, FileNode) and node.state.is_whole
        return TrashRow(
            gid, node.ino, node.kind, b"/".join(node.parts()), node.bytes if isinstance(node, FileNode) else 0,
            node.sha256 if isinstance(node, FileNode) and whole else None,
            node.md5 if isinstance(node, FileNode) and whole else None,
            node.mode, node.uid, node.gid, node.mtime_ns, self._tree.clock.steady_ns(), 0,
            node.target if isinstance(node, LinkNode) else None, xattrs=packed(node.xattrs or {}),
            life=packed_life(node.life) if isinstance(node, DirNode) and node.life is not None else "",
        )  # fmt: skip

    def _put(self, row: TrashRow) -> None:
        self._know(row)
        self._behind.trash(row)

    def _know(self, row: TrashRow) -> None:
        self.rows[row.gid] = row
        if row.object_key is not None:
            self._of_key.setdefault(row.object_key, set()).add(row.gid)
            self._tree.accounts.trashed(row.gid, row.path, row.size_bytes)

    # --- asking --------------------------------------------------------------------------------------------------

    def at(self, key: str) -> list[TrashRow]:
        """Versions in the trash whose bytes are the object under *key*."""
        return [self.rows[gid] for gid in sorted(self._of_key.get(key, ()))]

    def keys(self) -> set[str]:
        """The keys of all of them that only S3 has."""
        return set(self._of_key)

    def expired(self) -> Iterator[tuple[TrashRow, int, int]]:
        """All of them, as `core/lifecycle.py` wants to look at them."""
        return ((row, row.deleted_ns, 0) for row in self.rows.values())

    # --- changing ------------------------------------------------------------------------------------------------

    def moved(self, row: TrashRow, key: str, etag: str) -> None:
        """The object of a version lies under another key."""
        self._forget(row.gid)
        self._put(row._replace(object_key=key, object_etag=etag))

    def drop(self, gid: int) -> None:
        """It is back, or not kept any more."""
        if gid in self.rows:
            self._forget(gid)
            self._behind.trash_gone(gid)

    def _forget(self, gid: int) -> None:
        row = self.rows.pop(gid)
        self._tree.accounts.left_trash(gid)
        if row.object_key is not None:
            same = self._of_key[row.object_key]
            same.discard(gid)
            if not same:
                del self._of_key[row.object_key]


__all__ = ["TrashIndex"]
