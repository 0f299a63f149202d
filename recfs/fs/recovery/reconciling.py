"""After a restore of the catalogue: what a survey found to have another name, or to lie in the trash, is told the rows.

Comes before the comparison, which takes everything else as it is. Each step is durable with its rows and found done by
the next survey, so that a restore that died goes on where it was.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from recfs.core.bounds import MAX_INT
from recfs.core.layout import kept_path
from recfs.core.model import Kind
from recfs.errors import FsError, NotADirectory, NotFound, Stale
from recfs.fs.recovery.survey import Survey
from recfs.state.nodes import DirNode, FileNode, Garbage, LinkNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from recfs.fs.recovery.comparison import Comparison
    from recfs.fs.recovery.finds import Finds
    from recfs.fs.recovery.survey import InTrash, Moved

FLUSH_EVERY = 500


class Reconciling:
    """One restore's. Blocking disk calls are fine: nothing is mounted yet."""

    def __init__(self, found: Finds, comparison: Comparison) -> None:
        self._found = found
        self._tree = found.tree
        self._behind = found.behind
        self._names = found.names
        self._store = found.store
        self._comparison = comparison
        self._moved: set[str] = set()

    async def run(self) -> None:
        """Survey, and have the rows follow. Raises IoFailure, OutOfSpace."""
        await self._keep_jobs()
        await self._behind.flush()
        seen = await Survey(self._tree.catalogue, self._store, self._found.report.written_ns).run()
        for trashed in seen.trashed:
            with self._found.aside(("trash", trashed.number), f"trash/{trashed.number}"):
                await self._in_trash(trashed)
        for number in seen.strangers:
            with self._found.aside(("trash", number), f"trash/{number}"):
                self._keep(number)
        count = 0
        async for moved in self._in_order(seen.moved):
            with self._found.aside(moved.ino, _text(moved.now)):
                await self._has_moved(moved)
            count += 1
            if count % FLUSH_EVERY == FLUSH_EVERY - 1:
                await self._behind.flush()
                self._tree.memory.shrink()
        await self._behind.flush()

    async def end(self, *, forget: bool) -> None:
        """Everything has been compared. *forget*: rows of what is nowhere go, and so do directories that they leave."""
        report = self._found.report
        report.taken = [path for path in report.taken if path not in self._moved]
        report.remade = await self._by_themselves(report.remade)
        if not forget:
            return
        for path in list(report.gone):
            with self._found.aside(("forget", path), path):
                node = await self._tree.walk([os.fsencode(name) for name in path.split("/")])
                if isinstance(node, FileNode):
                    self._drop(node)
                    report.forgotten.append(path)
                    report.gone.remove(path)
                    await self._drop_empty(node.parent)
        for path in sorted(report.remade, reverse=True):  # what is in a directory before it
            with self._found.aside(("forget", path), path):
                node = await self._tree.walk([os.fsencode(name) for name in path.split("/")])
                if isinstance(node, LinkNode):
                    report.unpublished.remove(node.ino)
                    self._drop(node)
                elif isinstance(node, DirNode):
                    await self._drop_empty(node)
                report.forgotten.append(path)
                report.remade.remove(path)
        await self._behind.flush()

    async def _by_themselves(self, remade: list[str]) -> list[str]:
        """Of what is made again, what has no files: those are told of, and their directories go by what they have."""
        told: set[str] = set()
        for path in sorted(remade, reverse=True):
            node = await self._tree.walk([os.fsencode(name) for name in path.split("/")])
            below = await self._tree.page(node, 0, FLUSH_EVERY) if isinstance(node, DirNode) else []
            if node is not None and all(f"{path}/{os.fsdecode(row.name)}" in told for row in below):
                told.add(path)
        return [path for path in remade if path in told]

    async def _keep_jobs(self) -> None:
        """What happened in temp jobs since is not known: none is to expire because of that."""
        now = self._tree.clock.steady_ns()
        for row in await self._tree.catalogue.jobs(MAX_INT):
            node = await self._tree.get(row.ino)
            if isinstance(node, DirNode):
                node.activity_ns = max(node.activity_ns, now)
                self._behind.node(node)

    # --- the trash -----------------------------------------------------------------------------------------------

    async def _in_trash(self, trashed: InTrash) -> None:
        row = trashed.row
        entry = Garbage(trashed.number, row.ino, Kind.FILE, kept_path(trashed.path), self._tree.clock.steady_ns())
        entry.size_bytes, entry.sha256, entry.md5 = row.size_bytes, row.sha256, row.md5
        entry.mode, entry.uid, entry.gid_owner, entry.mtime_ns = row.mode, row.uid, row.gid, row.mtime_ns
        entry.home_ino = row.placement.home_ino
        self._tree.know_garbage(entry)
        self._behind.garbage(entry, discard=False)
        self._found.report.trashed.append(_text(trashed.path))
        if trashed.is_gone:
            node = await self._tree.get(row.ino)
            if isinstance(node, FileNode):
                self._drop(node)

    def _keep(self, number: int) -> None:
        """Bytes of which nobody knows what they were: made and deleted since the backup."""
        name = f"trash-{number}"
        while self._store.stat(self._store.lost(name)) is not None:
            name += "x"
        self._store.rename(self._store.trash(number), self._store.lost(name))
        self._found.report.lost.append(f"lost+found/{name} (was in the trash; made and deleted since the backup)")

    def _drop(self, node: FileNode | LinkNode) -> None:
        """There is nothing on the disk that goes with this name. Atomic."""
        if isinstance(node, FileNode):
            self._tree.events.removed(node, None)
        self._tree.locations.forget(node, node.moved)
        self._tree.remove(node)

    async def _drop_empty(self, folder: DirNode) -> None:
        """Directories that are not on the disk either, and have nothing left in them."""
        while folder.home_ino is None and folder.pending and await self._tree.is_empty(folder):
            above = folder.parent
            if folder.unlinked or above is self._tree.root or above is folder:
                return
            if folder.ino in self._found.report.unpublished:
                self._found.report.unpublished.remove(folder.ino)
            self._tree.remove(folder)
            folder = above

    # --- other names ---------------------------------------------------------------------------------------------

    async def _in_order(self, moves: list[Moved]) -> AsyncIterator[Moved]:
        """Each after the directory that it is in now, and after what has its new name so far.

        Where that goes round in a ring, one gets a name that nothing has before that.
        """
        by_ino, by_name = {moved.ino: moved for moved in moves}, {moved.now: moved for moved in moves}
        done: set[int] = set()
        aside: set[int] = set()
        for first in [*moves, *moves]:  # those that went aside are come to again
            stack, waiting = [first], {first.ino}
            while stack:
                moved = stack[-1]
                above = _above(moved, by_name)
                other = by_ino.get(moved.after or 0)
                if above is not None and above.ino not in done:
                    if above.ino not in waiting:
                        stack.append(above)
                        waiting.add(above.ino)
                        continue
                    await self._put_aside(moved)
                    aside.add(moved.ino)
                elif other is not None and other.ino not in done | aside:
                    if other.ino not in waiting:
                        stack.append(other)
                        waiting.add(other.ino)
                    else:
                        await self._put_aside(other)
                        aside.add(other.ino)
                    continue
                elif moved.ino not in done:
                    yield moved
                    done.add(moved.ino)
                stack.pop()
                waiting.discard(moved.ino)

    async def _put_aside(self, moved: Moved) -> None:
        """Give it a name that nothing has, beside its own, for a moment."""
        with self._found.aside(moved.ino, _text(moved.before)):
            node = await self._tree.get(moved.ino)
            # Recordings and jobs have UUIDs for names. A source (9.5) goes on being one.
            name = str(uuid.uuid4()).encode()
            if not isinstance(node, DirNode):
                name = node.name[:200] + b"." + name
            await self._names.has_moved(node, node.parent, name)

    async def _has_moved(self, moved: Moved) -> None:
        try:
            folder = await self._folder(moved.now[:-1])
            node = await self._tree.get(moved.ino)
            replaced = await self._tree.child(folder, moved.now[-1])
            if isinstance(replaced, (FileNode, LinkNode)) and replaced.ino == moved.over:
                self._drop(replaced)
            await self._names.has_moved(node, folder, moved.now[-1])
        except (FsError, Stale) as error:  # nobody could have made it through the mount; the comparison says so
            self._found.report.lost.append(f"{_text(moved.now)} (was {_text(moved.before)}; {error})")
            return
        self._moved.add(_text(moved.now))
        self._found.report.moved.append(f"{_text(moved.before)} -> {_text(moved.now)}")

    async def _folder(self, path: tuple[bytes, ...]) -> DirNode:
        """The directory of that path; of one that is on the disk alone, the row is made."""
        folder = self._tree.root
        for depth, name in enumerate(path):
            child = await self._tree.child(folder, name)
            if child is None:
                info = self._store.stat(self._store.home(path[: depth + 1]))
                if info is None:
                    raise NotFound(f"{_text(path)} is gone by now")
                await self._comparison.adopt(folder, name, info)
                child = await self._tree.child(folder, name)
            if not isinstance(child, DirNode):
                raise NotADirectory(f"{_text(path[: depth + 1])} is no directory")
            folder = child
        return folder


def _above(moved: Moved, by_name: dict[tuple[bytes, ...], Moved]) -> Moved | None:
    """The directory of those that are moved that it is in now, the nearest."""
    for depth in range(len(moved.now) - 1, 0, -1):
        if (found := by_name.get(moved.now[:depth])) is not None:
            return found
    return None


def _text(path: tuple[bytes, ...]) -> str:
    return os.fsdecode(b"/".join(path))


__all__ = ["Reconciling"]
