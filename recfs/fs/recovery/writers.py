"""What became of writers: files that were being written, or sealed, when the last run ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.model import State, check_transition
from recfs.fs.nodes import FileNode
from recfs.fs.recovery.overwrites import keep_overwrite, was_closed
from recfs.ports import Pending

if TYPE_CHECKING:
    from recfs.fs.garbage import Garbage
    from recfs.fs.recovery.finds import Finds
    from recfs.ports import ObjectRow


class Writers:
    """Judges each file that was not committed."""

    def __init__(self, found: Finds) -> None:
        self._found = found
        self._tree = found.tree
        self._behind = found.behind
        self._places = found.places
        self._bodies = found.bodies
        self._store = found.store

    def leave(self, node: FileNode) -> None:
        """It could not be judged: nobody writes it any more, and nobody may take it for whole. Raises nothing."""
        if node.state is State.SEALING:
            self._found.report.resealed.append(node.ino)  # the pipeline finds out, when it can be read again
        elif node.state is State.WRITING:
            check_transition(node.state, State.INCOMPLETE)
            node.state = State.INCOMPLETE
            self._behind.node(node)
            self._found.report.incomplete.append(node.path)

    def judge(self, node: FileNode, *, same_boot: bool) -> None:
        if node.state not in (State.WRITING, State.SEALING):
            return
        prior = next((entry for entry in self._tree.garbage.values() if entry.held_by == node.ino), None)
        if node.staging is None and not same_boot:
            # It had been taken to staging and written to, perhaps: the power cut undid the one, not all of the other.
            staging = self._bodies.pool.new_id()
            self._store.rename(self._places.home(node), self._store.staging(staging))
            self._tree.vacate(node, node.moved)
            node.moved, node.pending, node.staging = None, 0, staging
            self._found.rescan()
        if node.staging is None:
            # Opened for writing, but not a byte changed before it was taken to staging: still whole, seal it again.
            if node.state is not State.SEALING:
                check_transition(node.state, State.SEALING)
                node.state = State.SEALING
            self._behind.node(node)
            self._found.report.resealed.append(node.ino)
            return
        size = self._found.staging[node.staging].size_bytes
        if prior is not None:
            node.prior = prior.gid
        closed = node.state is State.SEALING and same_boot
        if closed or was_closed(self._found.staging[node.staging], same_boot=same_boot):
            if node.state is not State.SEALING:
                check_transition(node.state, State.SEALING)
                node.state = State.SEALING
                self._behind.node(node)
            self._tree.resize(node, size)
            self._found.report.resealed.append(node.ino)
            return
        if prior is not None and not node.fsynced:
            self._roll_back(node, prior, same_boot=same_boot)
            return
        if node.object is not None and node.object.held and not node.fsynced:
            self._roll_back_to_object(node, node.object)
            return
        check_transition(node.state, State.INCOMPLETE)
        node.state = State.INCOMPLETE
        self._tree.resize(node, size)
        self._bodies.release_prior(node)
        self._behind.node(node)
        self._found.report.incomplete.append(node.path)

    def _roll_back_to_object(self, node: FileNode, held: ObjectRow) -> None:
        """An overwrite of a file whose bytes only S3 had: it has them still."""
        assert node.staging is not None
        keep_overwrite(self._found, self._found.staging.pop(node.staging), node.ino, node.path)
        check_transition(node.state, State.EVICTED)
        node.state, node.staging, node.pending, node.home_ino = State.EVICTED, None, 0, None
        node.sha256, node.md5, node.mtime_ns = held.sha256, held.md5, held.mtime_ns
        self._tree.resize(node, held.size_bytes)
        node.object = held._replace(held=0)
        self._behind.object(node.object)
        self._behind.node(node)
        self._found.report.rolled_back.append(node.path)

    def release_superfluous(self) -> None:
        """Earlier versions whose successor is committed, or kept as incomplete, are not needed any more."""
        for entry in list(self._tree.garbage.values()):
            if entry.held_by is not None:
                node = self._tree.nodes.get(entry.held_by)
                if not isinstance(node, FileNode) or node.state is not State.SEALING:
                    entry.held_by = None
                    self._behind.garbage(entry)

    def _roll_back(self, node: FileNode, prior: Garbage, *, same_boot: bool) -> None:
        """Give the file its committed bytes back; keep what the unfinished overwrite had written."""
        assert node.staging is not None
        found = self._found.staging.pop(node.staging)
        keep_overwrite(self._found, found, node.ino, node.path)
        node.staging, node.moved = prior.staging, prior.place
        self._tree.vacate(prior, prior.place)
        if prior.in_trash:
            node.staging = self._bodies.pool.new_id()
            self._store.rename(self._store.trash(prior.gid), self._store.staging(node.staging))
        node.pending = 0
        if prior.sha256 is not None and (node.staging is not None or node.moved != (node.parent, node.name)):
            node.pending = Pending.MOVE
        if node.moved == (node.parent, node.name):
            node.moved = None
        if node.moved is not None:
            self._tree.occupy(node, node.moved)
        node.home_ino = prior.home_ino
        node.sha256, node.md5, node.prior = prior.sha256, prior.md5, None
        node.mtime_ns = prior.mtime_ns
        node.mode, node.uid, node.gid = prior.mode, prior.uid, prior.gid_owner
        # Not steps of the state table: the overwrite never happened, so neither did its state.
        if prior.sha256 is not None:
            node.state = State.COMMITTED
        elif same_boot:
            node.state = State.SEALING  # it had been closed, and not yet committed
            self._found.report.resealed.append(node.ino)
        else:
            node.state = State.INCOMPLETE
        self._tree.resize(node, prior.size_bytes)
        self._tree.garbage.pop(prior.gid, None)
        self._behind.purged(prior.gid)
        self._behind.node(node)
        self._found.report.rolled_back.append(node.path)
