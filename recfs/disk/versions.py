"""Versions of a file: which earlier bytes are kept, and for how long.

What close(2), fsync(2) or a commit promised of a version holds until as much is promised of a later one. Bytes that are
replaced or emptied become garbage, which the file that took their place holds until then (`Garbage.held_by`): should
the daemon die before, they are the way back.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recfs.core.layout import kept_path
from recfs.core.model import State
from recfs.disk.refresh import refresh
from recfs.ports.rows import Promise
from recfs.state.nodes import Garbage, open_remains

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.disk.trash_index import TrashIndex
    from recfs.state.backing_file import Untouched
    from recfs.state.nodes import DirNode, FileNode, Node
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind


class Versions:
    """Keeps them, and gives them up. All of it atomic."""

    def __init__(self, tree: Tree, behind: WriteBehind, thaw: Callable[[FileNode], object], trash: TrashIndex) -> None:
        self.trash = trash
        """What is kept beside the bytes of what is removed."""
        self._tree = tree
        self._behind = behind
        self._thaw = thaw
        """Lets a stopped file be changed again (`Stops.thaw`)."""

    @staticmethod
    def _before(node: FileNode) -> Untouched | None:
        """The version that the bytes of a file still are, though it is open for writing; None if it was written to."""
        known = node.body.untouched if node.body is not None and node.state is State.WRITING else None
        if known is None or node.body is None:
            return None
        info = os.fstat(node.body.fd)
        return known if (info.st_size, info.st_mtime_ns) == (known.size_bytes, known.mtime_ns) else None

    def keeps(self, node: FileNode) -> bool:
        """Whether something was promised of the present bytes, so that they are kept when the file is emptied."""
        if node.unlinked:
            return False
        whole = node.state.is_whole or node.state in (State.CORRUPT, State.SEALING)
        return whole or bool(node.promised) or self._before(node) is not None

    def is_half_gone(self, node: FileNode) -> bool:
        """Whether the present bytes are of a version that was closed, and written to since: it is whole nowhere."""
        whole = node.state.is_whole or node.state in (State.CORRUPT, State.SEALING)
        return not whole and not node.promised & Promise.FSYNCED and self._before(node) is None

    def set_aside(
        self, node: FileNode, *, holder: FileNode | None, copy: tuple[str, os.stat_result] | None = None
    ) -> Garbage:
        """Make the node's present bytes garbage, which *holder* keeps if anything was promised of them. Atomic.

        *copy*: (staging id, facts) of a copy that becomes the garbage, while the node keeps its place.
        """
        before = None
        if node.body is not None:
            refresh(self._tree, node)
            before = self._before(node)
            self._thaw(node)
        entry = Garbage(
            self._tree.new_gid(), node.ino, node.kind, kept_path(node.parts()), self._tree.clock.steady_ns()
        )
        entry.size_bytes, entry.sha256, entry.md5 = node.bytes, node.sha256, node.md5
        entry.mode, entry.uid, entry.gid_owner, entry.mtime_ns = node.mode, node.uid, node.gid, node.mtime_ns
        if copy is not None:
            entry.staging, entry.home_ino, entry.size_bytes = copy[0], copy[1].st_ino, copy[1].st_size
        else:
            entry.home_ino = node.home_ino
            self.hand_over(node, entry)
        if node.state is State.SEALING:
            entry.promised = (node.promised | Promise.CLOSED) & ~Promise.UNHASHED
        elif before is not None and before.sha256 is not None:
            is_heard = node.body is not None and not node.body.backing  # of the kernel's own writes nobody hears
            if is_heard and before.describes(before.size_bytes, before.mtime_ns):
                entry.sha256, entry.md5 = before.sha256, before.md5
            else:
                entry.promised = Promise.FSYNCED
        elif before is not None:
            entry.promised = node.promised | Promise.CLOSED
        elif not node.state.is_whole:
            # What was closed and written to since is more than an older version, but whole it is not any more.
            entry.promised = node.promised & Promise.FSYNCED
        if holder is not None and (node.state.is_whole or entry.sha256 is not None or entry.promised or node.promised):
            self._release(holder, durable=entry.is_durable)
            entry.held_by = holder.ino
            holder.priors = (*holder.priors, entry.gid)
        if node.state is State.CORRUPT:
            entry.promised |= Promise.DAMAGED
        elif node.state is State.INCOMPLETE:
            entry.promised |= Promise.CUT_OFF
        self._tree.know_garbage(entry)
        self._behind.garbage(entry)
        return entry

    def overwritten(self, node: FileNode, *, copy: tuple[str, os.stat_result] | None = None) -> None:
        """The node goes on with other bytes: its present ones become garbage, and its attributes are kept with them as
        far as they are in memory. *copy*: as in `set_aside`. Atomic.
        """
        self.trash.keep_beside(node, self.set_aside(node, holder=node, copy=copy))

    def hand_over(self, node: Node, entry: Garbage) -> None:
        """Give the node's physical place to *entry*."""
        staging = getattr(node, "staging", None)
        if staging is not None:
            entry.staging = staging
            node.staging = None  # type: ignore[attr-defined]
        else:
            entry.place = node.moved if node.moved is not None else (node.parent, node.name)
            for place in self._tree.locations.earlier.get(node.ino, ()):
                self._leave_trace(entry, place)
        self._tree.locations.forget(node, node.moved)
        node.moved = None
        node.home_ino = None
        node.pending = 0

    def _leave_trace(self, entry: Garbage, place: tuple[DirNode | None, bytes]) -> None:
        """Have a start look for *entry* at *place*, too: the step that moves it may not happen any more."""
        trace = Garbage(self._tree.new_gid(), entry.ino, entry.kind, entry.path, entry.deleted_ns)
        trace.home_ino, trace.place, trace.promised = entry.home_ino, place, Promise.TRACE
        self._behind.garbage(trace, discard=False)
        self._tree.locations.traces.setdefault(entry.ino, []).append(trace.gid)

    def replace(self, node: FileNode, successor: FileNode | None) -> Garbage:
        """*node* loses its name to *successor*, or to nobody: its bytes become garbage. Atomic.

        An unfinished successor holds what was promised under this name, unless it has such versions of its own.
        """
        holder = successor
        if successor is not None and (successor.priors or successor.state not in (State.WRITING, State.SEALING)):
            holder = None  # nothing more will be promised of it than is
        if holder is None:
            if node.priors:
                self.release_priors(node)
            return self.set_aside(node, holder=None)
        holder.priors, node.priors = node.priors, ()
        for gid in holder.priors:
            entry = self._tree.garbage.get(gid)
            if entry is not None:
                entry.held_by = holder.ino
                self._behind.garbage(entry)
        entry = self.set_aside(node, holder=holder)
        if holder.state is State.SEALING:
            self._release(holder, durable=bool(holder.promised & Promise.FSYNCED))
        return entry

    def remains_of(self, node: FileNode) -> Garbage | None:
        """The garbage entry that has the very bytes that are open, of a file that lost its name meanwhile. Atomic."""
        entry = open_remains(node)
        return entry if entry is not None and self._tree.garbage.get(entry.gid) is entry else None

    def written_on(self, node: FileNode) -> None:
        """A file is about to be written to; should it have lost its name, what was known of its bytes holds no more.

        Atomic; the row has to be durable before the first byte changes.
        """
        entry = open_remains(node)
        if entry is not None and (entry.sha256 is not None or entry.promised):
            entry.sha256 = entry.md5 = None
            entry.promised &= Promise.FSYNCED
            if self._tree.garbage.get(entry.gid) is entry:
                self._behind.garbage(entry, discard=False)

    def left(self, node: FileNode) -> None:
        """The last handle of a file goes: what was written to it since it lost its name counts as well. Atomic."""
        entry = self.remains_of(node)
        if entry is None or entry.sha256 is not None or node.body is None:
            return
        info = os.fstat(node.body.fd)
        if (info.st_size, info.st_mtime_ns) != (entry.size_bytes, entry.mtime_ns):
            entry.size_bytes, entry.mtime_ns = info.st_size, info.st_mtime_ns
            self._tree.garbage[entry.gid] = entry  # who is charged is charged for that
            self._behind.garbage(entry, discard=False)

    def release_priors(self, node: FileNode) -> None:
        """Earlier versions are not needed any more: this one is committed, or gone, or stays as it is."""
        self._release(node, durable=True)

    def closed(self, node: FileNode) -> None:
        """The last writer closed the file: what was promised of an earlier version is promised of this one now."""
        node.promised |= Promise.CLOSED
        if node.priors:
            self._release(node, durable=bool(node.promised & Promise.FSYNCED))

    def _release(self, node: FileNode, *, durable: bool) -> None:
        """Give up the earlier versions of which no more was promised than of one that is *durable*, or else closed."""
        kept = []
        for gid in node.priors:
            entry = self._tree.garbage.get(gid)
            if entry is not None and entry.is_durable and not durable:
                kept.append(gid)
            elif entry is not None:
                entry.held_by = None
                self._behind.garbage(entry)
        node.priors = tuple(kept)


__all__ = ["Versions"]
