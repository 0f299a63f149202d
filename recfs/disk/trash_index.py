"""What the trash keeps beside bytes on this disk: directories, links, empty files, attributes, and what only S3 has.

Bytes are garbage (`Tree.garbage`); the numbers of both are one sequence.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from recfs.core.layout import is_cut, is_temporary, kept_path
from recfs.core.life import packed_life
from recfs.core.model import Kind
from recfs.disk.packing import packed, unpacked
from recfs.ports.rows import TrashRow
from recfs.state.nodes import DirNode, FileNode, LinkNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.ports.catalogue import Catalogue
    from recfs.ports.rows import ObjectRow
    from recfs.state.nodes import Garbage, Node
    from recfs.state.tree import Tree

_Key = TypeVar("_Key", str, bytes)


class TrashIndex:
    """The rows of the trash. All of it atomic but for `load`."""

    def __init__(self, tree: Tree, *, retention_s: float) -> None:
        self._tree = tree
        self._behind = tree.behind
        self.retention_s = retention_s
        self.rows: dict[int, TrashRow] = {}
        """What has no bytes here, by number; what has is told by `Garbage.beside`. Without attributes: they may be many
        and large, and stay in the catalogue."""
        self._attributed: set[int] = set()
        """Those of `rows` that have any."""
        self._loaded: list[tuple[TrashRow, int]] = []
        self._of_key: dict[str, set[int]] = {}
        self._of_folder: dict[bytes, set[int]] = {}

    @property
    def is_kept(self) -> bool:
        """Whether anything that is removed from now on is kept; what is in `temp/` never is."""
        return self.retention_s > 0

    async def load(self, catalogue: Catalogue) -> None:
        """Take up what the last run left, before any number is given out. Raises IoFailure."""
        for row, xattrs_bytes in await catalogue.trash():
            self._tree.skip_gid(row.gid)
            if row.has_bytes:
                self._loaded.append((row, xattrs_bytes))
            else:
                self._know(row, xattrs_bytes)

    def attach(self) -> None:
        """The garbage is known by now: what the trash keeps beside it goes with it."""
        for row, xattrs_bytes in self._loaded:
            entry = self._tree.garbage.get(row.gid)
            if entry is None:
                self._behind.trash_gone(row.gid)
            else:
                self._beside(entry, xattrs_bytes)
        self._loaded.clear()

    # --- adding --------------------------------------------------------------------------------------------------

    def keep(self, node: Node) -> None:
        """*node*, of which nothing lies on the disk but its name, is about to lose that.

        What lies deeper than any path reaches is not kept: without its path nothing of it would be left.
        """
        if self.is_kept:
            row = self._row(node, self._tree.new_gid())
            if not is_cut(row.path) and not is_temporary(row.path):
                self._put(row)

    def keep_beside(self, node: FileNode, entry: Garbage) -> None:
        """The bytes of *node* go to the trash as *entry*: so do its attributes."""
        if self.is_kept and node.xattrs and entry.size_bytes and not is_temporary(entry.path):
            row = self._row(node, entry.gid)._replace(has_bytes=1, deleted_ns=entry.deleted_ns)
            self._behind.trash(row)
            self._beside(entry, len(row.xattrs))

    def keep_object(self, node: FileNode, in_s3: ObjectRow) -> None:
        """A version of *node* that only S3 has is about to be nobody's."""
        if not self.is_kept or is_temporary(kept_path(node.parts())):
            return
        if in_s3.size_bytes and not any(row.object_etag == in_s3.etag for row in self.at(in_s3.key)):
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
            gid, node.ino, node.kind, kept_path(node.parts()), node.bytes if isinstance(node, FileNode) else 0,
            node.sha256 if isinstance(node, FileNode) and whole else None,
            node.md5 if isinstance(node, FileNode) and whole else None,
            node.mode, node.uid, node.gid, node.mtime_ns, self._tree.clock.steady_ns(), 0,
            node.target if isinstance(node, LinkNode) else None, xattrs=packed(node.xattrs or {}),
            life=packed_life(node.life) if isinstance(node, DirNode) and node.life is not None else "",
        )  # fmt: skip

    def _beside(self, entry: Garbage, xattrs_bytes: int) -> None:
        entry.beside = True
        self._tree.accounts.trashed(entry.gid, entry.path, entry.size_bytes, xattrs_bytes)

    def _put(self, row: TrashRow) -> None:
        self._behind.trash(row)
        self._know(row._replace(xattrs=b""), len(row.xattrs))

    def _know(self, row: TrashRow, xattrs_bytes: int) -> None:
        self.rows[row.gid] = row
        if xattrs_bytes:
            self._attributed.add(row.gid)
        if row.object_key is not None:
            self._of_key.setdefault(row.object_key, set()).add(row.gid)
        if row.kind is Kind.DIR:
            self._of_folder.setdefault(row.path, set()).add(row.gid)
        beside_bytes = xattrs_bytes + len(row.target or b"")
        self._tree.accounts.trashed(row.gid, row.path, row.size_bytes if row.object_key else 0, beside_bytes)

    # --- asking --------------------------------------------------------------------------------------------------

    def at(self, key: str) -> list[TrashRow]:
        """Versions in the trash whose bytes are the object under *key*."""
        return [self.rows[gid] for gid in sorted(self._of_key.get(key, ()))]

    def folder(self, path: bytes) -> TrashRow | None:
        """The directory that was removed last of those that had a path."""
        return max((self.rows[gid] for gid in self._of_folder.get(path, ())), default=None)

    async def attributes(self, entry: Garbage | TrashRow) -> dict[bytes, bytes]:
        """The extended attributes of *entry*, which is not to leave the trash meanwhile. Raises IoFailure, OutOfSpace.

        None where the catalogue is damaged: the bytes are worth more.
        """
        known = entry.gid in self._attributed if isinstance(entry, TrashRow) else entry.beside
        with contextlib.suppress(ValueError):
            return unpacked(await self._read(entry.gid)) if known else {}
        return {}

    async def whole(self, row: TrashRow) -> TrashRow:
        """The same with its attributes. Raises IoFailure, OutOfSpace."""
        return row._replace(xattrs=await self._read(row.gid)) if row.gid in self._attributed else row

    async def _read(self, gid: int) -> bytes:
        await self._behind.flush()  # of something that was removed just now
        return await self._tree.catalogue.trash_xattrs(gid)

    def expired(self) -> Iterator[tuple[TrashRow, int, int]]:
        """All of them, as `core/lifecycle.py` wants to look at them."""
        return ((row, row.deleted_ns, 0) for row in self.rows.values())

    # --- changing ------------------------------------------------------------------------------------------------

    def moved(self, row: TrashRow, key: str, etag: str) -> None:
        """The object of a version lies under another key. *row* is `whole`."""
        self._forget(row.gid)
        self._put(row._replace(object_key=key, object_etag=etag))

    def drop(self, gid: int) -> None:
        """It is back, or not kept any more."""
        if gid in self.rows:
            self._forget(gid)
            self._behind.trash_gone(gid)

    def drop_beside(self, entry: Garbage) -> None:
        """The attributes of *entry*, whose bytes are to go, go now: its bytes may be in use for long yet. Atomic."""
        if entry.beside:
            entry.beside = False
            self._behind.trash_gone(entry.gid)

    def _forget(self, gid: int) -> None:
        row = self.rows.pop(gid)
        self._tree.accounts.left_trash(gid)
        self._attributed.discard(gid)
        if row.object_key is not None:
            _discard(self._of_key, row.object_key, gid)
        if row.kind is Kind.DIR:
            _discard(self._of_folder, row.path, gid)


def _discard(numbers: dict[_Key, set[int]], key: _Key, gid: int) -> None:
    numbers[key].discard(gid)
    if not numbers[key]:
        del numbers[key]


__all__ = ["TrashIndex"]
