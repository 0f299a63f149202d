"""After a restore of the catalogue: what lies in the bucket, and what an older catalogue says of it.

Two passes over a listing, in order of keys beside the rows in the same order, so that memory goes with what differs
and not with what is there. The first finds rows whose object went or is another one by now; the second, objects of
which no row knows: that of a file that is here already, that of one that was renamed since (by its checksum), or a file
that only the bucket has, which is adopted with what its metadata say. Nothing in the bucket is changed, and an object
that recfs did not write, or whose key is no path, is left alone. Done again, it finds nothing else to do.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import trio

from recfs.core.keys import path_for
from recfs.core.layout import TOP_DIRS, is_upload, role_of
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.core.ownership import Verdict
from recfs.errors import FsError, Stale
from recfs.fs.caller import Caller
from recfs.fs.leftovers.adoption import owner_of
from recfs.ports.object_errors import PrefixTaken
from recfs.ports.rows import LocalCopy, ObjectRow
from recfs.state.nodes import DirNode, FileNode
from recfs.stores.s3.meta import from_metadata

if TYPE_CHECKING:
    from recfs.fs.vfs import Vfs
    from recfs.ports.objects import ObjectInfo
    from recfs.tier.tier import Tier

PAGE = 1000
HEADS = 8
"""Objects asked for at the same time."""
FOLDER_MODE = 0o755
SKEW_NS = 15 * 60 * 10**9
"""The clocks of S3 and of this machine differ by no more: S3 refuses requests of others (RequestTimeTooSkewed)."""
_OURS = (Verdict.OURS, Verdict.RETURNED, Verdict.FREE)


@dataclass(slots=True)
class Reunited:
    """What was found; paths and keys, for people."""

    lost: list[str] = field(default_factory=list)
    """Files whose bytes only the bucket had, and has no more."""
    came: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    """Files that are here, and are sent anew: the bucket has them no more, or in another version."""
    strange: list[str] = field(default_factory=list)
    """Keys of objects that nothing is made of."""


class Reunion:
    """One comparison with the bucket; nothing is mounted, and no upload is under way."""

    def __init__(self, tier: Tier, vfs: Vfs, written_ns: int = 0) -> None:
        """*written_ns*: when the catalogue that was put back was written last (wall clock); 0: not known."""
        self._written_ns = written_ns
        self._tier = tier
        self._vfs = vfs
        self._tree = vfs.tree
        self._behind = vfs.behind
        self.found = Reunited()
        self._missing: dict[int, ObjectRow] = {}
        """Rows by inode, whose object is not where they say."""
        self._by_content: dict[bytes, list[int]] = {}
        """Of those that are nowhere else: by SHA-256."""
        self._again: set[int] = set()
        self._others: dict[int, tuple[ObjectRow, ObjectInfo]] = {}
        """Rows by inode whose object has other contents by now, and these."""
        self._replaced: set[int] = set()
        """Files whose name another one has by now."""

    async def run(self, *, forget: bool) -> Reunited:
        """Compare everything. *forget*: rows of files that are nowhere go. Raises PrefixTaken, what S3 answers."""
        verdict, mark = await self._tier.ownership.verdict()
        if verdict not in _OURS:
            raise PrefixTaken(f"the prefix in the bucket is not this store's ({verdict.value}): {mark or 'no mark'}")
        async with aclosing(self._side_by_side()) as stretches:
            async for rows, listed in stretches:
                await self._look_at_rows(rows, listed)
        await self._follow()
        async with aclosing(self._side_by_side()) as stretches:
            async for rows, listed in stretches:
                known = {row.key for row in rows if row.ino not in self._missing}
                await self._look_at_objects([info for key, info in listed.items() if key not in known])
        await self._settle(forget=forget)
        await self._behind.durable()
        return self.found

    # --- the two lists -------------------------------------------------------------------------------------------

    async def _side_by_side(self) -> AsyncGenerator[tuple[Sequence[ObjectRow], dict[str, ObjectInfo]], None]:
        """Stretches of keys: the rows of each, and what is listed there."""
        await self._behind.flush()
        listing = self._tier.objects.list()
        after, is_more = "", True
        while is_more:
            page = await trio.to_thread.run_sync(lambda: list(islice(listing, PAGE)), limiter=self._tier.limiter)
            is_more = len(page) == PAGE
            last = page[-1].key if is_more else None
            rows: list[ObjectRow] = []
            while batch := await self._tree.catalogue.objects_after(after, PAGE):
                inside = [row for row in batch if last is None or row.key.encode() <= last.encode()]
                rows += inside
                if len(inside) < len(batch):
                    break
                after = batch[-1].key
            yield rows, {info.key: info for info in page}
            after = last if last is not None else after

    # --- rows ----------------------------------------------------------------------------------------------------

    async def _look_at_rows(self, rows: Sequence[ObjectRow], listed: dict[str, ObjectInfo]) -> None:
        changed: list[ObjectRow] = []
        described: list[ObjectRow] = []
        for row in rows:
            info = listed.get(row.key)
            if info is None:
                await self._miss(row)
            elif info.etag != row.etag or info.size_bytes != row.size_bytes:
                changed.append(row)
            elif not row.copy.local and self._may_be_described_anew(row, info):
                described.append(row)
        for row, info in zip(described, await self._heads([row.key for row in described]), strict=True):
            node = await self._file(row.ino)
            if node is not None and node.state.is_remote and info is not None and info.etag == row.etag:
                self._describe(node, info)
        for row, info in zip(changed, await self._heads([row.key for row in changed]), strict=True):
            node = await self._file(row.ino)
            if node is None:
                continue
            if info is None or os.fsencode(node.path) != path_for(row.key):
                await self._miss(row)  # its directory was renamed, say, and so was what had that name
            elif node.state.is_remote and info.sha256 not in (None, row.sha256):
                self._others[row.ino] = (row, info)
            elif not self._attach(node, info):
                self.found.strange.append(row.key)
        await self._behind.flush()

    def _may_be_described_anew(self, row: ObjectRow, info: ObjectInfo) -> bool:
        """Whether an object of the same bytes may tell of a mode, an owner or a time that the catalogue does not know.

        Where the catalogue has that to be told S3, what lies there from before is no news.
        """
        is_told = self._tier.journal.move_of(row.ino) is None
        if not self._written_ns:
            return is_told and info.last_modified_ns > row.uploaded_ns
        return info.last_modified_ns > self._written_ns - (SKEW_NS if is_told else 0)

    async def _follow(self) -> None:
        """Objects that have other contents by now: that of another file which was renamed, or new ones."""
        moves: list[tuple[FileNode, DirNode, bytes, ObjectInfo]] = []
        left = {row.sha256: ino for ino, (row, _) in self._others.items()}
        left |= {sha256: inos[0] for sha256, inos in self._by_content.items() if inos}
        taken: list[FileNode] = []
        news: list[tuple[FileNode, str, ObjectInfo]] = []
        for ino, (row, info) in self._others.items():
            node, other = await self._file(ino), left.get(info.sha256 or b"")
            moved = await self._file(other) if other is not None else None
            if node is None:
                continue
            if moved is not None and moved is not node and moved.bytes == info.size_bytes:
                del left[info.sha256 or b""]
                moves.append((moved, node.parent, node.name, info))
                taken.append(node)
            else:
                news.append((node, row.key, info))
        before = {moved.ino: moved.path for moved, _, _, _ in moves}
        for node, key, info in news:  # under the name of one that moves a new file comes about afterwards
            if node.ino not in before and not self._attach(node, info):
                self.found.strange.append(key)
        for node in taken:
            row, _ = self._others[node.ino]
            await self._miss(row)  # until it is found where it is now
            await self._put_aside(node)
        for moved, folder, name, info in moves:
            await self._vfs.names.has_moved(moved, folder, name)
            self._attach(moved, info)
            self._forget_missing(moved.ino)
            self.found.moved.append(f"{before[moved.ino]} -> {moved.path}")
        self._others.clear()
        await self._behind.flush()

    async def _miss(self, row: ObjectRow) -> None:
        node = await self._file(row.ino)
        if node is None:
            return
        self._missing[row.ino] = row
        if node.state.is_remote:
            self._by_content.setdefault(row.sha256, []).append(row.ino)

    async def _file(self, ino: int) -> FileNode | None:
        try:
            node = await self._tree.get(ino)
        except Stale:
            return None
        return node if isinstance(node, FileNode) else None

    # --- objects -------------------------------------------------------------------------------------------------

    async def _look_at_objects(self, unknown: Sequence[ObjectInfo]) -> None:
        named = [info for info in unknown if info.key.partition("/")[0].encode() in TOP_DIRS]
        for info in await self._heads([each.key for each in named]):
            if info is not None and not await self._place(info):
                self.found.strange.append(info.key)
        await self._behind.flush()
        self._tree.memory.shrink()

    async def _heads(self, keys: Sequence[str]) -> list[ObjectInfo | None]:
        found: list[ObjectInfo | None] = [None] * len(keys)
        slots = trio.CapacityLimiter(HEADS)

        async def ask(number: int, key: str) -> None:
            async with slots:
                found[number] = await trio.to_thread.run_sync(self._tier.objects.head, key, limiter=self._tier.limiter)

        async with trio.open_nursery() as nursery:
            for number, key in enumerate(keys):
                nursery.start_soon(ask, number, key)
        return found

    async def _place(self, info: ObjectInfo) -> bool:
        """Find whose an object is; False where it is nobody's."""
        path = tuple(path_for(info.key).split(b"/"))
        try:
            role_of(path, is_dir=False)
            node = await self._tree.walk(path)
            if isinstance(node, FileNode):
                held = node.object
                if held is None or node.ino in self._missing or not await self._returns(node, held, info):
                    return self._attach_here(node, info)
                node = None
            if node is not None or info.sha256 is None or info.md5 is None:
                return False
            renamed = self._by_content.get(info.sha256, [])
            folder = await self._folder(path[:-1], info)
            if renamed:
                return await self._renamed(renamed[0], folder, path, info)
            self._adopt(folder, path[-1], info)
        except (FsError, Stale):
            return False
        return True

    def _attach_here(self, node: FileNode, info: ObjectInfo) -> bool:
        """An object is that of the file of its name, unless that one has another, and is here or the same. Atomic."""
        held = node.object
        is_elsewhere = held is not None and node.ino not in self._missing
        if is_elsewhere and (not node.state.is_remote or held is None or held.sha256 == info.sha256):
            return False
        if not self._attach(node, info):
            return False
        self._forget_missing(node.ino)
        return True

    async def _returns(self, node: FileNode, held: ObjectRow, info: ObjectInfo) -> bool:
        """Whether a file of S3 alone goes back to where its object lies, and makes way for another of this name.

        Its directory has another name by now, and its object would have followed, had it not been renamed itself.
        """
        if not node.state.is_remote or info.sha256 in (None, held.sha256) or info.md5 is None:
            return False
        path = tuple(path_for(held.key).split(b"/"))
        there = await self._tree.walk(path)
        if there is node or (there is not None and (not isinstance(there, FileNode) or there.ino not in self._missing)):
            return False
        if isinstance(there, FileNode):
            if not there.state.is_remote:
                return False
            await self._put_aside(there)
        before = node.path
        await self._vfs.names.has_moved(node, await self._folder(path[:-1], info), path[-1])
        self.found.moved.append(f"{before} -> {node.path}")
        return True

    async def _put_aside(self, node: FileNode) -> None:
        """Another file has its name: it goes at the end, unless its object is found under another one."""
        self._replaced.add(node.ino)
        name = node.name[:200] + b"." + str(uuid.uuid4()).encode()  # a source (9.5) goes on being one
        await self._vfs.names.has_moved(node, node.parent, name)

    async def _renamed(self, ino: int, folder: DirNode, path: tuple[bytes, ...], info: ObjectInfo) -> bool:
        node = await self._file(ino)
        if node is None or node.bytes != info.size_bytes:
            return False
        before = node.path
        await self._vfs.names.has_moved(node, folder, path[-1])
        self._attach(node, info)
        self._forget_missing(ino)
        self.found.moved.append(f"{before} -> {os.fsdecode(b'/'.join(path))}")
        return True

    def _forget_missing(self, ino: int) -> None:
        self._replaced.discard(ino)
        row = self._missing.pop(ino, None)
        if row is not None and ino in self._by_content.get(row.sha256, []):
            self._by_content[row.sha256].remove(ino)

    async def _folder(self, path: tuple[bytes, ...], info: ObjectInfo) -> DirNode:
        """The directory of that path; what is missing of it is made, and comes to the home tree, too."""
        folder: DirNode = self._tree.root
        for name in path:
            child = await self._tree.child(folder, name)
            if child is None:
                child = await self._vfs.names.mkdir(folder, name, FOLDER_MODE, _owner_of(info))
            if not isinstance(child, DirNode):
                raise Stale(f"{child.path} is no directory")
            folder = child
        return folder

    def _adopt(self, folder: DirNode, name: bytes, info: ObjectInfo) -> None:
        """A file that only the bucket has. Atomic."""
        known = from_metadata(info.metadata)
        mode = known.mode if known.mode is not None else 0o644
        node = self._vfs.names.add_file(folder, name, mode, _owner_of(info), upload=is_upload(folder.role, name))
        node.enter(State.EVICTED)
        self._take(node, info)
        self._tier.copies.remember(node, self._row(node, info))
        self._tree.events.noted(EventKind.ADOPTED, node, "from the bucket")
        self.found.came.append(node.path)

    # --- one file ------------------------------------------------------------------------------------------------

    def _row(self, node: FileNode, info: ObjectInfo) -> ObjectRow:
        assert info.sha256 is not None
        assert info.md5 is not None
        mtime_ns = from_metadata(info.metadata).mtime_ns
        copy = node.object.copy if node.object is not None else LocalCopy(self._tree.clock.steady_ns())
        return ObjectRow(
            node.ino, info.key, info.etag, info.size_bytes, info.sha256, info.md5,
            mtime_ns if mtime_ns is not None else node.mtime_ns, info.storage_class, info.last_modified_ns, copy,
        )  # fmt: skip

    def _take(self, node: FileNode, info: ObjectInfo) -> None:
        """A file whose bytes only the bucket has is what is there."""
        node.sha256, node.md5 = info.sha256, info.md5
        node.mtime_ns = info.last_modified_ns
        self._tree.resize(node, info.size_bytes)
        self._describe(node, info)

    def _describe(self, node: FileNode, info: ObjectInfo) -> None:
        """Mode, owner and time of a file that only the bucket has are what its object's metadata say. Atomic."""
        known = from_metadata(info.metadata)
        node.mtime_ns = known.mtime_ns if known.mtime_ns is not None else node.mtime_ns
        node.mode = known.mode if known.mode is not None else node.mode
        if known.owner is not None:
            owner = _owner_of(info)
            node.uid, node.gid = owner.uid, owner.gid
        self._behind.node(node)

    def _attach(self, node: FileNode, info: ObjectInfo) -> bool:
        """This object is the file's; False where nothing tells what is in it. Atomic."""
        if info.sha256 is None or info.md5 is None:
            return False
        row, same = self._row(node, info), (node.sha256, node.bytes) == (info.sha256, info.size_bytes)
        if node.state.is_remote:
            if same:
                self._describe(node, info)
            else:
                self._take(node, info)
                self.found.changed.append(node.path)
            self._tier.copies.remember(node, row.here(local=0))
        elif same and node.state is State.STORED:
            self._tier.copies.remember(node, row)
        elif same and node.state is State.COMMITTED:
            self._tier.copies.remember(node, row.here(local=0))
            self._tier.committed(node)  # which finds that it is there
        else:
            if node.state is State.STORED:
                node.enter(State.COMMITTED)
                self._tier.modified(node)
                row = row.here(local=0)
            self._tier.copies.remember(node, row)
            if node.state is State.COMMITTED:
                self._again.add(node.ino)
        return True

    async def _settle(self, *, forget: bool) -> None:
        """What is nowhere is named; what is here alone goes to the bucket again."""
        for ino in self._missing:
            node = await self._file(ino)
            if node is None:
                continue
            if node.state.is_remote:
                if ino not in self._replaced:
                    self.found.lost.append(node.path)
                if forget or ino in self._replaced:  # what it was has been overwritten
                    self._behind.object_gone(ino)
                    node.object = None
                    self._tree.events.removed(node, None)
                    self._tree.remove(node)
                continue
            if node.state is State.STORED:
                node.enter(State.COMMITTED)
                self._tier.modified(node)
            node.object = None
            self._behind.object_gone(ino)
            self._behind.node(node)
            self._again.add(ino)
        for ino in self._again:
            node = await self._file(ino)
            if node is not None:
                self.found.again.append(node.path)
                if node.state is State.COMMITTED:  # else its commit does that
                    self._tier.committed(node)
        await self._behind.flush()


def _owner_of(info: ObjectInfo) -> Caller:
    """Whose a file is, as its object's metadata say; else root's."""
    return owner_of(from_metadata(info.metadata).owner or "0:0")


__all__ = ["Reunion", "Reunited"]
