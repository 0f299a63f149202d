"""What became of writers: files that were being written, or sealed, when the last run ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.layout import kept_path
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.disk.diskio import thaw_path
from recfs.disk.staging import COPY_LABEL
from recfs.fs.recovery.overwrites import keep_overwrite, was_closed, was_not_emptied
from recfs.ports.rows import Pending, Promise
from recfs.state.nodes import FileNode

if TYPE_CHECKING:
    from recfs.fs.recovery.finds import Finds
    from recfs.ports.rows import ObjectRow
    from recfs.state.nodes import Garbage

TAKEN_BACK = "an overwrite that was never finished was taken back"


class Writers:
    """Judges each file that was not committed."""

    def __init__(self, found: Finds) -> None:
        self._found = found
        self._tree = found.tree
        self._behind = found.behind
        self._places = found.places
        self._backing_files = found.backing_files
        self._store = found.store
        self._held: dict[int, list[Garbage]] | None = None
        """Earlier versions by who holds them, oldest first."""

    def _priors(self, node: FileNode) -> list[Garbage]:
        if self._held is None:
            self._held = {}
            for entry in sorted(self._tree.garbage.values(), key=lambda entry: entry.gid):
                if entry.held_by is not None:
                    self._held.setdefault(entry.held_by, []).append(entry)
        return self._held.get(node.ino, [])

    def leave(self, node: FileNode) -> None:
        """It could not be judged: nobody writes it any more, and nobody may take it for whole. Raises nothing."""
        if node.is_unhashed:
            return
        if node.state is State.SEALING:
            self._found.report.resealed.append(node.ino)  # the pipeline finds out, when it can be read again
        elif node.state is State.WRITING:
            node.enter(State.INCOMPLETE)
            self._tree.events.noted(EventKind.INCOMPLETE, node)
            self._behind.node(node)
            self._found.report.incomplete.append(node.path)

    def recover(self, node: FileNode, *, same_boot: bool) -> None:
        if node.state is State.INCOMPLETE and node.staging is not None:
            # Taken up again, perhaps, and a power cut undid the row and not the bytes.
            size = self._found.staging[node.staging].size_bytes
            if size != node.bytes:
                self._tree.resize(node, size)
                self._behind.node(node)
        if node.state not in (State.WRITING, State.SEALING) or node.is_unhashed:
            return
        priors = self._priors(node)
        node.priors = tuple(entry.gid for entry in priors)
        if node.state is State.WRITING and node.ino in self._found.kept_open:
            return  # nothing of it is over
        if node.state is State.WRITING and self._is_half_a_copy(node):
            self._found.removed[node.ino] = None
        elif same_boot and node.state is State.WRITING and self._is_held(node):
            return
        if node.ino in self._found.removed:
            return  # it goes (`Recovery.end`), and so does what it holds
        unmarked = node.unmarked and node.state is State.WRITING
        node.unmarked = False
        if node.staging is None and (unmarked or not same_boot):
            # It was written to where it lay, for the kernel had it open. Or it had been taken to staging and written
            # to, perhaps: the power cut undid the one, not all of the other.
            staging = self._backing_files.pool.new_id()
            thaw_path(self._places.home(node))
            self._store.rename(self._places.home(node), self._store.staging(staging))
            self._tree.locations.forget(node, node.moved)
            node.moved, node.pending, node.staging = None, 0, staging
            self._found.rescan()
        if node.staging is None:
            # Opened for writing, but not a byte changed before it was taken to staging: still whole, seal it again.
            if node.state is not State.SEALING:
                node.enter(State.SEALING)
            self._behind.node(node)
            self._found.report.resealed.append(node.ino)
            return
        size = self._found.staging[node.staging].size_bytes
        closed = node.state is State.SEALING and same_boot
        if closed or (not unmarked and was_closed(self._found.staging[node.staging], same_boot=same_boot)):
            if node.state is not State.SEALING:
                node.enter(State.SEALING)
            self._backing_files.versions.closed(node)
            self._behind.node(node)
            self._tree.resize(node, size)
            self._found.report.resealed.append(node.ino)
            return
        # What is there of the bytes promised last, after writing to them in place, goes before older ones.
        if not node.promised & (Promise.FSYNCED | (Promise.CLOSED if same_boot else 0)):
            in_s3 = node.object if node.object is not None and node.object.copy.held else None
            prior = self._way_back(priors, in_s3, same_boot=same_boot)
            if prior is not None:
                self._roll_back(node, prior, same_boot=same_boot)
                return
            if in_s3 is not None:
                self._roll_back_to_object(node, in_s3)
                return
        node.enter(State.INCOMPLETE)
        self._tree.events.noted(EventKind.INCOMPLETE, node)
        self._tree.resize(node, size)
        self._backing_files.versions.release_priors(node)
        self._behind.node(node)
        self._found.report.incomplete.append(node.path)

    def _is_held(self, node: FileNode) -> bool:
        """Find out whether a program has the file open for writing still: then nothing of it is over."""
        if node.staging is None and not node.unmarked:
            return False  # nobody was told yet that it may be written to
        fd = self._found.written(self._places.local(node))
        if fd is None:
            return False
        self._found.survivors.adopt(node, fd)
        if node.body is not None:
            node.body.in_place = node.staging is None
        return True

    def _is_half_a_copy(self, node: FileNode) -> bool:
        """Whether it was to become the copy of a shown file, which is shown again without it."""
        staged = self._found.staging.get(node.staging or "")
        return staged is not None and (staged.label or b"").startswith(COPY_LABEL)

    @staticmethod
    def _way_back(priors: list[Garbage], in_s3: ObjectRow | None, *, same_boot: bool) -> Garbage | None:
        """The earlier version whose promise holds: the last one, or, after a power cut, the last that was synced.

        None: what S3 *in_s3*, or nothing.
        """
        if same_boot or not priors:
            return priors[-1] if priors else None
        synced = [entry for entry in priors if entry.is_durable]
        return synced[-1] if synced else priors[-1] if in_s3 is None else None

    def _roll_back_to_object(self, node: FileNode, in_s3: ObjectRow) -> None:
        """An overwrite of a file whose bytes only S3 had: it has them still."""
        assert node.staging is not None
        self._set_aside(node, None)
        node.enter(State.EVICTED)
        node.staging, node.pending, node.home_ino = None, 0, None
        node.promised = 0
        node.sha256, node.md5, node.mtime_ns = in_s3.sha256, in_s3.md5, in_s3.mtime_ns
        self._tree.resize(node, in_s3.size_bytes)
        node.object = in_s3.here(held=0)
        self._tree.events.noted(EventKind.COMMITTED, node, TAKEN_BACK)
        self._behind.object(node.object)
        self._behind.node(node)
        self._found.report.rolled_back.append(node.path)
        self._found.tree.events.rolled_back(kept_path(node.parts()))

    def _set_aside(self, node: FileNode, prior: Garbage | None) -> None:
        """Put what was written after *prior* (or after what S3 has) where people find it."""
        assert node.staging is not None
        staged = self._found.staging.pop(node.staging)
        if prior is not None and was_not_emptied(self._store, staged, prior):
            self._store.drop_staging([staged.id])
        else:
            keep_overwrite(self._found, staged, node.ino, node.path)
        earlier: list[int] = []
        for gid in node.priors:
            entry = self._tree.garbage[gid]
            if prior is not None and gid < prior.gid:
                earlier.append(gid)
            elif entry is not prior:
                entry.held_by = None
                self._behind.garbage(entry)
                if entry.staging in self._found.staging:  # closed, but a power cut may have spoilt it
                    keep_overwrite(self._found, self._found.staging.pop(entry.staging), node.ino, node.path)
                    self._tree.garbage.drop(gid)
                    self._behind.purged(gid)
        node.priors = tuple(earlier)

    def release_superfluous(self) -> None:
        """Earlier versions whose successor is committed, or kept as incomplete, are not needed any more."""
        for entry in list(self._tree.garbage.values()):
            if entry.held_by is not None:
                node = self._tree.nodes.get(entry.held_by)
                if not isinstance(node, FileNode) or node.state not in (State.SEALING, State.WRITING):
                    entry.held_by = None
                    self._behind.garbage(entry)

    def _roll_back(self, node: FileNode, prior: Garbage, *, same_boot: bool) -> None:
        """Give the file an earlier version back; keep what was written since."""
        self._set_aside(node, prior)
        node.staging, node.moved = prior.staging, prior.place
        self._tree.locations.forget(prior, prior.place)
        if prior.in_trash:
            node.staging = self._backing_files.pool.new_id()
            self._store.rename(self._store.trash(prior.gid), self._store.staging(node.staging))
        node.pending = 0
        if prior.sha256 is not None:
            # At home it may have been waiting for attributes when it was replaced; a move brings them.
            at_home = node.staging is None and node.moved == (node.parent, node.name)
            node.pending = Pending.ATTRS if at_home else Pending.MOVE
            if prior.promised & Promise.DAMAGED and node.staging is not None:
                node.pending = 0  # they stay there until they are right
        if node.moved == (node.parent, node.name):
            node.moved = None
        if node.moved is not None:
            self._tree.locations.record(node, node.moved)
        node.home_ino = prior.home_ino
        node.sha256, node.md5 = prior.sha256, prior.md5
        node.promised = prior.promised & ~Promise.NOT_WHOLE
        node.mtime_ns = prior.mtime_ns
        node.mode, node.uid, node.gid = prior.mode, prior.uid, prior.gid_owner
        if prior.sha256 is not None:
            node.never_left(State.CORRUPT if prior.promised & Promise.DAMAGED else State.COMMITTED)
        elif same_boot and prior.promised & Promise.CLOSED and not prior.promised & Promise.CUT_OFF:
            node.never_left(State.SEALING)
            self._found.report.resealed.append(node.ino)
        else:
            node.never_left(State.INCOMPLETE)
            self._backing_files.versions.release_priors(node)
        self._tree.resize(node, prior.size_bytes)
        if same_boot and node.state is State.INCOMPLETE:
            self._is_held(node)
        self._tree.garbage.drop(prior.gid)
        self._behind.purged(prior.gid)
        if prior.sha256 is not None:
            self._tree.events.noted(EventKind.COMMITTED, node, TAKEN_BACK)
        self._behind.node(node)
        self._found.report.rolled_back.append(node.path)
        self._found.tree.events.rolled_back(kept_path(node.parts()))
