"""Brings the home tree to what the rows say: directories made, committed bytes carried home, renames followed,
garbage gone.

The order is always: row written → step on disk, directory fsynced → row says "settled". The rows are the journal: a
crash in between leaves a pending row whose `home_ino` tells at the next start whether the step happened
(`fs/recovery`).

A batch is planned on the trio thread, with the books already saying where everything will lie, and carried out by a
thread. Until it is done `touches` is true for what it moves, and whoever needs such a path waits (`Bodies.still`).
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.model import Kind
from recfs.errors import RecfsError
from recfs.fs.garbage import Garbage
from recfs.fs.nodes import DirNode, FileNode, LinkNode, Node
from recfs.ports import Pending
from recfs.stores.steps import Attrs, Outcome, Step, StepKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.fs.places import Place, Places
    from recfs.fs.tree import Tree
    from recfs.fs.writebehind import WriteBehind
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.settler")

BATCH_ITEMS = 256
PLAN_S = 0.02
"""How long planning may keep everybody else waiting: in a very deep tree an item takes milliseconds."""
GATHER_S = 0.05
"""How long the first entry of a batch waits for others; nobody waits for the home tree but a drain."""
RETRY_S = 1.0
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What a step meets when a directory above it was removed past recfs, or replaced by something else."""


@dataclass(slots=True)
class _Job:
    """One planned step, and how to take its bookkeeping back."""

    step: Step
    item: Node | Garbage
    staging: str | None = None
    place: Place | None = None
    pending: int = 0
    purges: bool = False


@dataclass(slots=True)
class _Plan:
    jobs: list[_Job] = field(default_factory=list)
    moving: set[int] = field(default_factory=set)
    planning: set[int] = field(default_factory=set)
    discarding: set[int] = field(default_factory=set)


_Planning = Generator[Any, Any, bool]
"""Planning one item: yields the planning of what has to be planned before it, and gets its result."""


def _is_full(plan: _Plan, until: float) -> bool:
    return len(plan.jobs) >= BATCH_ITEMS or (bool(plan.jobs) and time.monotonic() > until)


def _drive(planning: _Planning) -> bool:
    """Carry planning out. What comes before what may be as deep as the tree, so no call is made inside a call."""
    stack, result = [planning], None
    while stack:
        try:
            stack.append(stack[-1].send(result))
            result = None  # a generator that begins is sent nothing
        except StopIteration as end:
            stack.pop()
            result = end.value
    return bool(result)


class HomeSettler:
    """The Settler port, and its service."""

    def __init__(
        self,
        tree: Tree,
        behind: WriteBehind,
        places: Places,
        store: LocalStore,
        limiter: trio.CapacityLimiter,
        *,
        retention_s: float,
    ) -> None:
        self._tree = tree
        self._behind = behind
        self._places = places
        self._store = store
        self._limiter = limiter
        self._retention_s = retention_s
        self._nodes: dict[int, None] = {}
        self._garbage: dict[int, Garbage] = {}
        self._expired: set[int] = set()
        self._moving: set[int] = set()
        self._working = 0
        self._unsynced: list[tuple[_Job, Outcome]] = []
        """Steps carried out whose fsync failed: their rows wait for one that does not."""
        self._done = trio.Event()
        self._wake = trio.Event()
        self._urgent = trio.Event()
        self._failed = False
        self.problem: str | None = None

    # --- the port ------------------------------------------------------------------------------------------------

    def add(self, ino: int) -> None:
        """The row of *ino* is written and has pending bits."""
        self._nodes[ino] = None
        self._woken()

    def discard(self, entry: Garbage) -> None:
        """The row of *entry* is written."""
        if entry.held_by is None:
            self._garbage[entry.gid] = entry
            self._woken()

    def purge(self, entry: Garbage) -> None:
        """The retention of *entry*, which lies in the trash, is over."""
        self._garbage[entry.gid] = entry
        self._expired.add(entry.gid)
        self._woken()

    def hurry(self) -> None:
        """Somebody waits for the home tree."""
        self._urgent.set()

    def _woken(self) -> None:
        self._wake.set()
        if len(self._nodes) + len(self._garbage) >= BATCH_ITEMS:
            self._urgent.set()

    def touches(self, inos: Sequence[int]) -> bool:
        """Whether the batch being carried out moves one of *inos*."""
        moving = self._moving
        return bool(moving) and not moving.isdisjoint(inos)

    async def quiet(self) -> None:
        """Wait until the batch being carried out is done."""
        if self._moving:
            await self._done.wait()

    async def idle(self) -> None:
        """Wait until no batch at all is being carried out, garbage included; none is until the next await."""
        while self._working:
            await self._done.wait()

    def remake_above(self, ino: int) -> None:
        """Have the directories above *ino*, as far as they were removed past recfs, made again. Atomic."""
        node = self._tree.nodes.get(ino)
        folder = node.parent if node is not None else None
        while folder is not None and folder.parent is not folder and not self._is_made(folder):
            if not folder.pending and not folder.settling and folder.moved is None:
                folder.pending, folder.home_ino = Pending.MAKE, None
                self._behind.node(folder)
                self._behind.settle(folder)
            folder = folder.parent

    def _is_made(self, folder: DirNode) -> bool:
        try:
            info = self._store.stat(self._places.home(folder))
        except OSError:
            return True  # nobody knows
        return info is not None and stat.S_ISDIR(info.st_mode)

    @property
    def depth(self) -> int:
        """How many entries are not where their rows want them."""
        return len(self._nodes) + len(self._garbage) + self._working + len(self._unsynced)

    # --- the service ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work for ever; what fails is tried again every second."""
        while True:
            await self._wake.wait()
            with trio.move_on_after(GATHER_S):
                await self._urgent.wait()
            self._wake, self._urgent = trio.Event(), trio.Event()
            await self.settle_some()
            if self._failed:
                with trio.move_on_after(RETRY_S):
                    await self._wake.wait()
                self._failed = False
            if self._nodes or self._garbage or self._unsynced:
                self._woken()  # what came meanwhile gathers like what comes next

    async def settle_some(self) -> None:
        """Plan and carry out one batch."""
        if self._unsynced and not await self._sync_again():
            return
        plan = self._plan()
        if not plan.jobs:
            # Everything left waits for something else: a directory for entries that have yet to leave it.
            self._failed = bool(self._nodes or self._garbage)
            return
        self._moving, self._working = plan.moving, len(plan.jobs)
        cause = ""
        try:
            # A row that a power cut takes back must not find its step on disk done.
            await self._behind.synced()
            outcomes = await trio.to_thread.run_sync(
                self._store.apply, [job.step for job in plan.jobs], limiter=self._limiter
            )
        except RecfsError as error:
            cause = str(error)
            outcomes = [Outcome(error=errno.EIO)] * len(plan.jobs)
        finally:
            self._moving, self._working = set(), 0
            self._done.set()
            self._done = trio.Event()
        self._finish(list(zip(plan.jobs, outcomes, strict=True)), cause)

    async def _sync_again(self) -> bool:
        try:
            await trio.to_thread.run_sync(self._store.sync_all, limiter=self._limiter)
        except OSError:
            self._failed = True
            return False
        done, self._unsynced = self._unsynced, []
        self._finish([(job, replace(outcome, unsynced=0)) for job, outcome in done])
        return True

    # --- planning (atomic: no await) -----------------------------------------------------------------------------

    def _plan(self) -> _Plan:
        plan = _Plan()
        until = time.monotonic() + PLAN_S
        nodes, self._nodes = self._nodes, {}
        for index, ino in enumerate(nodes):
            if _is_full(plan, until):
                self._nodes.update(dict.fromkeys(list(nodes)[index:]))
                break
            node = self._tree.nodes.get(ino)
            if node is not None:
                _drive(self._plan_node(plan, node))
        for gid, entry in list(self._garbage.items()):
            if _is_full(plan, until):
                break
            if gid in self._garbage and _drive(self._plan_garbage(plan, entry)):
                self._garbage.pop(gid, None)
        return plan

    def _plan_node(self, plan: _Plan, node: Node) -> _Planning:
        if node.unlinked or not node.pending or node.ino in plan.planning:
            return True
        plan.planning.add(node.ino)
        above = self._above(node)
        for folder in reversed(above):
            if folder.pending & (Pending.MAKE | Pending.MOVE):
                yield self._plan_node(plan, folder)
        if node.moved is not None and any(folder.ino in plan.planning for folder in above):
            # It has to make room for one of these, and cannot go into it before.
            self._to_limbo(plan, node)
            plan.planning.discard(node.ino)
            return True
        places = self._places
        attrs = Attrs(node.mode, node.uid, node.gid, node.atime_ns, node.mtime_ns)
        target: Place = (node.parent, node.name)
        if isinstance(node, FileNode) and node.staging is not None and not node.state.is_whole:
            node.pending = 0  # it comes home when it is committed
        elif node.pending & Pending.MAKE:
            yield self._clear(plan, node, target)
            path = places.home(node)
            kind = StepKind.MKDIR if isinstance(node, DirNode) else StepKind.SYMLINK
            link = node.target if isinstance(node, LinkNode) else b""
            plan.jobs.append(_Job(Step(kind, path, attrs=attrs, symlink_target=link), node, pending=node.pending))
            self._move_books(plan, node)
        elif node.pending & Pending.MOVE and (node.moved is not None or getattr(node, "staging", None) is not None):
            yield self._clear(plan, node, target)
            source = places.local(node)
            job = _Job(
                Step(StepKind.MOVE, source, attrs=attrs, home_ino=node.home_ino),
                node, getattr(node, "staging", None), node.moved, node.pending,
            )  # fmt: skip
            self._move_books(plan, node)
            job.step = Step(StepKind.MOVE, source, places.home(node), attrs, node.home_ino)
            plan.jobs.append(job)
        else:
            path = places.home(node)
            step = Step(StepKind.ATTRS, path, attrs=attrs, home_ino=node.home_ino)
            plan.jobs.append(_Job(step, node, pending=node.pending))
            node.settling, node.pending = node.pending, 0
        plan.planning.discard(node.ino)
        return True

    @staticmethod
    def _above(node: Node) -> list[DirNode]:
        """The directories above *node*, nearest first."""
        above: list[DirNode] = []
        while node.parent is not node:
            node = node.parent
            above.append(node)
        return above

    def _move_books(self, plan: _Plan, node: Node) -> None:
        """From now on the books say that *node* lies at its logical place."""
        plan.moving.add(node.ino)
        self._tree.vacate(node, node.moved)
        node.moved = None
        node.settling, node.pending = node.pending, 0
        if isinstance(node, FileNode):
            node.staging = None

    def _clear(self, plan: _Plan, node: Node, target: Place) -> _Planning:
        """Make sure nothing of ours physically lies at *target*."""
        occupant = self._tree.occupant(target)
        if occupant is None or occupant is node:
            return True
        if isinstance(occupant, Garbage):
            if (yield self._plan_garbage(plan, occupant, force=True)):
                self._garbage.pop(occupant.gid, None)
        elif occupant.ino in plan.planning:
            self._to_limbo(plan, occupant)  # two names that change places
        else:
            yield self._plan_node(plan, occupant)
        return True

    def _to_limbo(self, plan: _Plan, node: Node) -> None:
        places = self._places
        source, before = places.home(node), node.moved
        self._tree.vacate(node, node.moved)
        node.moved = (None, b"%d" % node.ino)
        self._tree.occupy(node, node.moved)
        plan.moving.add(node.ino)
        step = Step(StepKind.MOVE, source, places.home(node), home_ino=node.home_ino)
        plan.jobs.append(_Job(step, node, None, before, node.pending))
        self._nodes[node.ino] = None

    def _plan_garbage(self, plan: _Plan, entry: Garbage, *, force: bool = False) -> _Planning:
        """Plan the entry's way out; False when it has to wait."""
        if entry.gid not in self._tree.garbage or entry.gid in plan.discarding:
            return True
        if entry.held_by is not None and not force:
            return True
        if entry.kind is not Kind.DIR or force or not self._tree.occupied.get(entry.ino):
            plan.discarding.add(entry.gid)
        places = self._places
        if entry.kind is Kind.DIR:
            inside = self._tree.occupied.get(entry.ino)
            if inside and not force:
                return False
            for occupant in list((inside or {}).values()):
                if isinstance(occupant, Node):
                    yield self._plan_node(plan, occupant)
                elif (yield self._plan_garbage(plan, occupant, force=True)):
                    self._garbage.pop(occupant.gid, None)
            assert entry.place is not None
            path = places.at(entry.place)
            step = Step(StepKind.RMDIR, path, home_ino=entry.home_ino)
            plan.jobs.append(_Job(step, entry, None, entry.place, purges=True))
            self._tree.vacate(entry, entry.place)
            return True
        if entry.staging is not None:
            path = self._store.staging(entry.staging)
        elif entry.place is not None:
            path = places.at(entry.place)
        else:
            path = self._store.trash(entry.gid)
        retained = self._retention_s > 0 and entry.kind is Kind.FILE and entry.size_bytes > 0
        keep = entry.held_by is not None or (retained and entry.gid not in self._expired)
        if keep:
            if entry.in_trash:
                return True
            step = Step(StepKind.MOVE, path, self._store.trash(entry.gid), home_ino=entry.home_ino)
            plan.jobs.append(_Job(step, entry, entry.staging, entry.place))
            self._tree.vacate(entry, entry.place)
        else:
            step = Step(StepKind.REMOVE, path, home_ino=entry.home_ino)
            plan.jobs.append(_Job(step, entry, entry.staging, entry.place, purges=True))
            self._tree.vacate(entry, entry.place)
        return True

    # --- afterwards (atomic: no await) ---------------------------------------------------------------------------

    def _finish(self, done: list[tuple[_Job, Outcome]], cause: str = "") -> None:
        problem = None
        # What failed is taken back in reverse: the first of several steps of one item knows where it really lies.
        for job, outcome in reversed(done):
            if outcome.error and self._take_back(job):
                if outcome.error in _GONE and isinstance(job.item, Node):
                    self.remake_above(job.item.ino)
                problem = cause or f"{os.fsdecode(job.step.path)}: {os.strerror(outcome.error)}"
        for job, outcome in done:
            if outcome.unsynced and not outcome.error:
                self._unsynced.append((job, outcome))
                self._failed = True
                problem = f"{os.fsdecode(job.step.path)}: fsync: {os.strerror(outcome.unsynced)}"
                continue
            if outcome.warning:
                log.warning("%s", outcome.warning)
            if isinstance(job.item, Node):
                job.item.settling = 0
            if outcome.error:
                continue
            if isinstance(job.item, Garbage):
                self._garbage_done(job.item, purged=job.purges)
            else:
                job.item.home_ino = outcome.home_ino
                self._behind.node(job.item)
        if problem is not None and self.problem is None:
            log.error("home tree: %s; trying again every %g s", problem, RETRY_S)
        self.problem = problem

    def _garbage_done(self, entry: Garbage, *, purged: bool) -> None:
        self._tree.vacate(entry, entry.place)
        if purged:
            self._tree.garbage.pop(entry.gid, None)
            self._expired.discard(entry.gid)
            self._behind.purged(entry.gid)
        else:
            # Not before: a row that says "in the trash" too early would be all that is left of the place it lies at.
            entry.staging = entry.place = None
            self._behind.garbage(entry, discard=False)

    def _take_back(self, job: _Job) -> bool:
        """The step did not happen: the books say again where the entry really lies, and (True) it is tried again."""
        item = job.item
        if job.step.kind is StepKind.ATTRS and isinstance(item, Node):
            # Taken to staging meanwhile, it is dressed when it comes home; else there is something to try again.
            if item.unlinked or getattr(item, "staging", None) is not None:
                return False
            item.pending |= job.pending
            self._nodes[item.ino] = None
            self._failed = True
            return True
        self._failed = True
        if isinstance(item, Node) and item.unlinked:
            # Its bytes became garbage while the step was under way, at the place it never reached.
            heirs = [entry for entry in self._tree.garbage.values() if entry.ino == item.ino and not entry.in_trash]
            if not heirs:
                return False
            item = heirs[-1]
        if isinstance(item, Garbage):
            self._tree.vacate(item, item.place)
            item.staging, item.place = job.staging, job.place
            if item.place is not None:
                self._tree.occupy(item, item.place)
            self._behind.garbage(item)
            return True
        self._tree.vacate(item, item.moved)
        if isinstance(item, FileNode):
            item.staging = job.staging
        item.moved = job.place
        if item.moved is not None:
            self._tree.occupy(item, item.moved)
        item.pending |= job.pending
        self._behind.node(item)
        self._nodes[item.ino] = None
        return True
