"""What the books say once a step in the home tree is done, or has failed and is taken back. Atomic: no await."""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import TYPE_CHECKING

from recfs.errors import IoFailure
from recfs.ports.rows import Pending
from recfs.state.nodes import DirNode, FileNode, Garbage, Node
from recfs.stores.steps import StepKind, is_there

if TYPE_CHECKING:
    from recfs.disk.home.aside import Aside
    from recfs.disk.home.emptying import Emptying
    from recfs.disk.home.homeplan import HomePlan, Job
    from recfs.disk.home.path_resolver import PathResolver, Place
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.stores.local import LocalStore
    from recfs.stores.steps import Outcome

log = logging.getLogger("recfs.publisher")

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What a step meets when a directory above it was removed out of band, or replaced by something else."""
PATIENCE_S = 3.0
"""How long what is missed is waited for, where the directory that it lay in is, too: it may only have been renamed out
of band, which a watch makes out in that time (`services/watcher.py`)."""


class Afterwards:
    """Of the steps of a batch, each by itself."""

    def __init__(
        self, tree: Tree, behind: WriteBehind, places: PathResolver, store: LocalStore, aside: Aside, todo: HomePlan,
        emptying: Emptying,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._behind = behind
        self._places = places
        self._store = store
        self._aside = aside
        self._todo = todo
        self._emptying = emptying

    def done(self, job: Job, outcome: Outcome, *, is_all: bool) -> None:
        """The step is done, and on stable storage. *is_all*: no other step of the batch for its item has failed."""
        if is_all:
            self._aside.over(job.item)
        if outcome.is_foreign:
            self._misplaced(job.place)
        if isinstance(job.item, Garbage):
            self._garbage_done(job.item, purged=job.purges)
            return
        if not (isinstance(job.item, FileNode) and (job.item.staging is not None or job.item.state.is_remote)):
            job.item.home_ino = outcome.home_ino  # else that was done to bytes which the file has no more
        if job.item.unlinked and job.step.kind in (StepKind.MKDIR, StepKind.SYMLINK):
            self._number(job.item, outcome.home_ino)
        self._behind.node(job.item)

    def _number(self, removed: Node, home_ino: int) -> None:
        """What lost its name while it was being made is known by its number from now on."""
        for entry in self._tree.garbage.values():
            if entry.ino == removed.ino and entry.home_ino is None:
                entry.home_ino = home_ino
                self._behind.garbage(entry, discard=False)

    def not_done(self, job: Job, outcome: Outcome, cause: Exception | None) -> None:
        """Take a failed step back, and leave what it was for alone for a while."""
        item = job.item
        try:
            successor = self._take_back(job)
            if successor is not None and outcome.error in _GONE and isinstance(item, Node):
                self.remake_above(item.ino)
        except Exception as error:
            self._aside.add(item, error)
            return
        if successor is None or self._is_nowhere(job, outcome, successor):
            self._aside.over(item)
            if successor is not None:
                self._aside.over(successor)
                self._give_up(job, successor)
            return
        if isinstance(successor, Node):
            self._todo.nodes.pop(successor.ino, None)
        else:
            self._todo.garbage.pop(successor.gid, None)
        if cause is None and outcome.reason:
            cause = IoFailure(f"{os.fsdecode(job.step.path)}: {outcome.reason}")
        self._aside.add(successor, cause or OSError(outcome.error, os.strerror(outcome.error)))

    def _is_nowhere(self, job: Job, outcome: Outcome, item: Node | Garbage) -> bool:
        """Whether what was to be moved, described or removed was removed out of band, and will not come up again."""
        if outcome.error not in _GONE or job.staging is not None or job.step.kind in (StepKind.MKDIR, StepKind.SYMLINK):
            return False
        try:
            if is_there(self._store.stat(job.step.path), job.step):
                return False  # the way to where it is to go is missing
            if self._store.beneath.is_mount_point(job.step.path):
                return False  # it is below, and comes up when that is unmounted
            above = self._store.stat(os.path.dirname(job.step.path))
        except OSError:
            return False
        if above is not None and stat.S_ISDIR(above.st_mode):
            return True
        return self._aside.lasting_s(item) >= PATIENCE_S

    def _give_up(self, job: Job, item: Node | Garbage) -> None:
        """What lay nowhere is not seen to any more. A file keeps its name: reading it says that its bytes are gone."""
        self._misplaced(job.place)
        if isinstance(item, Garbage):
            log.info("%s: it was removed out of band before it was removed in the mount", os.fsdecode(item.path))
            self._todo.garbage.pop(item.gid, None)
            self._garbage_done(item, purged=not item.with_content)
            return
        self._todo.nodes.pop(item.ino, None)
        if job.step.kind is StepKind.ATTRS:
            item.pending &= ~Pending.ATTRS
            self._behind.node(item)
            self._misplaced((item.parent, item.name))
            return
        log.warning("%s: it was removed out of band before it was moved", os.fsdecode(item.path))
        self._tree.locations.forget(item, item.moved)
        item.moved = None
        if isinstance(item, FileNode):
            item.pending = 0
            self._behind.node(item)
        else:
            item.pending, item.home_ino = Pending.MAKE, None
            self._behind.publish(item)
        self._misplaced((item.parent, item.name))

    def _misplaced(self, place: Place | None) -> None:
        """Have whoever watches look at a place in the home tree."""
        if place is not None and place[0] is not None:
            self._tree.events.misplaced(place[0], place[1])

    def _garbage_done(self, entry: Garbage, *, purged: bool) -> None:
        self._tree.locations.forget(entry, entry.place)
        if purged:
            self._tree.garbage.drop(entry.gid)
            self._todo.expired.discard(entry.gid)
            self._behind.purged(entry.gid)
        else:
            # Not before: a row that says "in the trash" too early would be all that is left of the place it lies at.
            entry.staging = entry.place = None
            self._behind.garbage(entry, discard=False)
            if entry.is_to_be_emptied:
                self._emptying.add(entry)
            if entry.gid in self._todo.expired:  # it was given up on its way
                self._todo.garbage[entry.gid] = entry

    def _take_back(self, job: Job) -> Node | Garbage | None:
        """The step did not happen: the metadata says again where the entry really lies. Returns what to try again."""
        item = job.item
        if job.step.kind is StepKind.ATTRS and isinstance(item, Node):
            # Taken to staging meanwhile, it gets its attributes when it comes home; else it is tried again.
            if item.unlinked or getattr(item, "staging", None) is not None:
                return None
            item.pending |= job.pending
            return item
        if isinstance(item, Node) and item.unlinked:
            # Its bytes became garbage while the step was under way, at the place it never reached.
            of_it = (entry for entry in self._tree.garbage.values() if entry.ino == item.ino)
            successors = [entry for entry in of_it if not entry.in_trash]
            if not successors:
                return None
            item = successors[-1]
        if isinstance(item, Garbage):
            self._tree.locations.forget(item, item.place)
            item.staging, item.place = job.staging, job.place
            if item.place is not None:
                self._tree.locations.record(item, item.place)
            self._behind.garbage(item, discard=False)
            return item
        self._tree.locations.forget(item, item.moved)
        if isinstance(item, FileNode):
            item.staging = job.staging
        item.moved = job.place
        if item.moved is not None:
            self._tree.locations.record(item, item.moved)
        item.pending |= job.pending
        self._behind.node(item)
        return item

    def remake_above(self, ino: int) -> None:
        """Have the directories above *ino*, as far as they were removed out of band, made again. Atomic."""
        node = self._tree.nodes.get(ino)
        folder = node.parent if node is not None else None
        while folder is not None and folder.parent is not folder and not self._is_made(folder):
            if not folder.pending and not folder.publishing and folder.moved is None:
                folder.pending, folder.home_ino = Pending.MAKE, None
                self._behind.node(folder)
                self._behind.publish(folder)
            folder = folder.parent

    def _is_made(self, folder: DirNode) -> bool:
        try:
            info = self._store.stat(self._places.home(folder))
        except OSError:
            return True  # nobody knows
        return info is not None and stat.S_ISDIR(info.st_mode)


__all__ = ["Afterwards"]
