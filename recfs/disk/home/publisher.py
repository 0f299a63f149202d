"""Brings the home tree to what the rows say: directories made, committed bytes carried home, renames followed,
garbage gone.

The order is always: row written → step on disk, directory fsynced → row says "published". The rows are the journal: a
crash in between leaves a pending row whose `home_ino` tells at the next start whether the step happened
(`fs/recovery`).

A batch is planned on the trio thread, with the metadata already saying where everything will lie, and carried out by a
thread. Until it is done `touches` is true for what it moves, and whoever needs such a path waits
(`PublisherWaits.ended`).
Files that programs may keep locked are left out of it (`inuse.py`), and what is under way in it is not handed to the
kernel (`worked_on`).
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, TypeVar

import trio

from recfs.disk.home.afterwards import Afterwards
from recfs.disk.home.aside import PART, RETRY_S, Aside
from recfs.disk.home.emptying import Emptying
from recfs.disk.home.homeplan import BATCH_ITEMS, HomePlan, Job, Plan
from recfs.state.nodes import Garbage, Node
from recfs.state.problems import forever, reason_of
from recfs.state.writebehind import BatchSubscriber, WriteBehind
from recfs.stores.steps import Outcome, StepKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.disk.home.inuse import InUse
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore
    from recfs.stores.steps import Step

log = logging.getLogger("recfs.publisher")

Result = TypeVar("Result")

GATHER_S = 0.05
"""How long the first entry of a batch waits for others; nobody waits for the home tree but a drain."""


class HomePublisher(BatchSubscriber):
    """The Publisher port, and its service."""

    def __init__(
        self,
        tree: Tree,
        behind: WriteBehind,
        places: PathResolver,
        store: LocalStore,
        limiter: trio.CapacityLimiter,
        in_use: InUse,
        *,
        retention_s: float,
    ) -> None:
        self._tree = tree
        self._behind = behind
        self._places = places
        self._store = store
        self._limiter = limiter
        self._aside = Aside(behind.problems)
        self._todo = HomePlan(tree, places, store, in_use, self._aside.add, retention_s=retention_s)
        self.emptying = Emptying(tree, behind, store)
        """What goes with all that is in it, once it has left its name; a service of its own."""
        self._afterwards = Afterwards(tree, behind, places, store, self._aside, self._todo, self.emptying)
        in_use.given_back = self._given_back
        self._moving: set[int] = set()
        self.worked_on: set[int] = set()
        self._working = 0
        self._arranging = False
        """Whether the batch being carried out does anything but change attributes."""
        self._unsynced: list[tuple[Job, Outcome]] = []
        """Steps carried out whose fsync failed: their rows wait for one that does not."""
        self._done = trio.Event()
        self._wake = trio.Event()
        self._urgent = trio.Event()
        self._made: set[int] = set()
        """What was made, as far as the catalogue may not have its number in the home tree yet; by inode numbers."""
        self._failed = False
        self._stuck = 0
        """How many entries of `_todo` wait for what is set aside: nothing else is done before they are."""
        self._unsynced_problem: str | None = None

    # --- the port ------------------------------------------------------------------------------------------------

    def add(self, ino: int) -> None:
        """The row of *ino* is written and has pending bits."""
        self._todo.nodes[ino] = None
        self._woken()

    def unpublished(self, ino: int) -> None:
        """As `BatchSubscriber.unpublished`."""
        self.add(ino)

    def discarded(self, entry: Garbage) -> None:
        """As `BatchSubscriber.discarded`."""
        if entry.is_to_be_emptied:
            self.emptying.add(entry)
        elif entry.held_by is None:
            self._todo.garbage[entry.gid] = entry
            self._woken()
            self._tree.accounts.in_trash.released(entry.gid)  # not before the row: it may be the way back until then

    def stays(self, entry: Garbage) -> bool:
        """Whether *entry* lies where it is kept, in the trash. Not all that lies there is: some had to make room."""
        return self._todo.stays(entry)

    def purge(self, entry: Garbage) -> None:
        """The retention of *entry* is over. What is still on its way to the trash goes as it arrives."""
        self._todo.expired.add(entry.gid)
        if entry.in_trash:
            self._todo.garbage[entry.gid] = entry
            self._woken()

    def is_given_up(self, entry: Garbage) -> bool:
        """Whether `purge` was called of it."""
        return entry.gid in self._todo.expired

    def hurry(self) -> None:
        """Somebody waits for the home tree."""
        self._urgent.set()
        self.emptying.hurry()
        if self._aside and self._due(hurried=True):
            self._wake.set()

    def _given_back(self, ino: int) -> None:
        """No program can keep the file of *ino* locked any more."""
        if self._todo.take_up(ino):
            self._woken()

    def _woken(self) -> None:
        self._wake.set()
        if len(self._todo.nodes) + len(self._todo.garbage) >= BATCH_ITEMS:
            self._urgent.set()

    @property
    def is_moving(self) -> bool:
        """Whether the batch being carried out moves anything."""
        return bool(self._moving)

    def touches(self, inos: Sequence[int]) -> bool:
        """Whether the batch being carried out moves one of *inos*."""
        moving = self._moving
        return bool(moving) and not moving.isdisjoint(inos)

    async def batch_done(self) -> None:
        """Wait until the batch being carried out is done."""
        if self._working:
            await self._done.wait()

    async def no_batch(self) -> None:
        """Wait until no batch at all is being carried out, garbage included; none is until the next await."""
        while self._working:
            await self._done.wait()

    async def arranged(self) -> None:
        """Wait until nothing is being made, moved or removed, garbage included; nothing is until the next await."""
        while self._arranging:
            await self._done.wait()

    @property
    def is_working(self) -> bool:
        """Whether any batch is being carried out. Atomic."""
        return self._working > 0

    async def alone(self, call: Callable[[], Result]) -> Result:
        """What *call*, in a thread, makes of the home tree while no batch is at it. Raises what it raises."""
        return await trio.to_thread.run_sync(call, limiter=self._limiter)

    def remake_above(self, ino: int) -> None:
        """Have the directories above *ino*, as far as they were removed out of band, made again. Atomic."""
        self._afterwards.remake_above(ino)

    def keep_trash(self, retention_s: float) -> None:
        """Have what is trashed from now on kept or, 0, not. Atomic."""
        self._todo.retention_s = retention_s

    @property
    def depth(self) -> int:
        """How many entries are not where their rows want them, but for those that are in use."""
        todo = len(self._todo.nodes) + len(self._todo.garbage) + self._working + len(self._unsynced)
        return todo + len(self._aside) + len(self.emptying)

    @property
    def in_use(self) -> int:
        """How many entries are not where their rows want them because the kernel has the file open."""
        return self._todo.waiting

    @property
    def aside(self) -> int:
        """How many of them failed, and are left alone for a while, or wait for such."""
        stuck = min(self._stuck, len(self._todo.nodes) + len(self._todo.garbage))
        return len(self._aside) + stuck + self.emptying.aside

    @property
    def problem(self) -> str | None:
        """What keeps the home tree from being as the rows say; None if nothing does."""
        return self._unsynced_problem or self._behind.problems.first(PART)

    # --- what failed ---------------------------------------------------------------------------------------------

    def _due(self, *, hurried: bool = False) -> bool:
        """Take up again what has been left alone for long enough; whether there was any. Atomic."""
        due = self._aside.due(hurried=hurried)
        for what, number in due:
            if what == "node" and number in self._tree.nodes:
                self._todo.nodes[number] = None
            elif what == "garbage" and number in self._tree.garbage:
                self._todo.garbage[number] = self._tree.garbage[number]
            else:
                self._aside.gone((what, number))  # it was removed meanwhile
        return bool(due)

    # --- the service ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work for ever; what fails is left alone for a while and tried again."""
        await forever(PART, self._step, self._behind.problems)

    async def _step(self) -> None:
        with trio.move_on_at(self._aside.next_s):
            await self._wake.wait()
        self._due()
        with trio.move_on_after(GATHER_S):
            await self._urgent.wait()
        self._wake, self._urgent = trio.Event(), trio.Event()
        await self.publish_some()
        if self._failed:
            with trio.move_on_after(RETRY_S):
                await self._wake.wait()
            self._failed = False
        if self._todo.nodes or self._todo.garbage or self._unsynced:
            self._woken()  # what came meanwhile gathers like what comes next

    async def publish_some(self) -> None:
        """Plan and carry out one batch."""
        if self._unsynced and not await self._sync_again():
            return
        plan = self._todo.begin()
        cause: Exception | None = None
        outcomes: list[Outcome] = []
        try:
            await self._record_made()
            while self._todo.extend(plan):
                self._take_on(plan)
                await trio.lowlevel.checkpoint()  # requests come first
            self._take_on(plan)
            if plan.jobs:
                # A row that a power cut takes back must not find its step on disk done.
                await self._behind.synced()
                outcomes = await trio.to_thread.run_sync(
                    self._apply, [job.step for job in plan.jobs], limiter=self._limiter
                )
        except Exception as error:
            cause = error
            outcomes = [Outcome(error=errno.EIO)] * len(plan.jobs)
        finally:
            self._moving, self._working, self._arranging, self.worked_on = set(), 0, False, set()
            self._done.set()
            self._done = trio.Event()
        if not plan.jobs:
            # Everything left waits for something else: a directory for entries that have yet to leave it.
            self._failed = bool(self._todo.nodes or self._todo.garbage)
            self._stuck = len(self._todo.nodes) + len(self._todo.garbage)
            return
        self._finish(list(zip(plan.jobs, outcomes, strict=True)), cause)
        # What was not planned beside steps that all failed waits for them.
        self._stuck = len(self._todo.garbage) if all(outcome.error for outcome in outcomes) else 0

    async def _record_made(self) -> None:
        """Have the catalogue know the numbers of what was made before it is moved: how should the next start find it,
        where something else was made in its place? Raises IoFailure or OutOfSpace.
        """
        self._made = {ino for ino in self._made if ino not in self._tree.nodes or self._behind.is_dirty(ino)}
        nodes = self._tree.nodes
        # What is in memory no more was removed, or the catalogue has all of it.
        if any(ino not in nodes or nodes[ino].pending for ino in self._made):
            await self._behind.flush()
            self._made = set()

    def _take_on(self, plan: Plan) -> None:
        """What is planned so far is under way. Atomic, after each turn of planning and before anybody else's."""
        for job in plan.jobs[self._working :]:
            self._arranging = self._arranging or job.step.kind is not StepKind.ATTRS
            # Removing what a living file had before concerns nobody who opens that.
            if isinstance(job.item, Node) or job.item.ino not in self._tree.nodes:
                self.worked_on.add(job.item.ino)
        self._moving, self._working = plan.moving, len(plan.jobs)

    def _apply(self, steps: Sequence[Step]) -> list[Outcome]:
        """In a thread. Should the store raise after all, each step is carried out by itself."""
        try:
            return self._store.apply(steps)
        except Exception:
            outcomes: list[Outcome] = []
            for step in steps:
                try:
                    outcomes += self._store.apply([step])
                except Exception as error:
                    outcomes.append(Outcome(error=errno.EIO, reason=reason_of(error)))
            return outcomes

    async def _sync_again(self) -> bool:
        try:
            await trio.to_thread.run_sync(self._store.sync_all, limiter=self._limiter)
        except Exception as error:
            self._failed = True
            self._unsynced_problem = f"fsync: {reason_of(error)}"
            return False
        self._unsynced_problem = None
        done, self._unsynced = self._unsynced, []
        self._finish([(job, outcome._replace(unsynced=0)) for job, outcome in done])
        return True

    # --- afterwards (atomic: no await) ---------------------------------------------------------------------------

    def _finish(self, done: list[tuple[Job, Outcome]], cause: Exception | None = None) -> None:
        problem = None
        failed = {id(job.item) for job, outcome in done if outcome.error}
        # What failed is taken back in reverse: the first of several steps of one item knows where it really lies.
        for job, outcome in reversed(done):
            if outcome.error:
                self._afterwards.not_done(job, outcome, cause)
        for job, outcome in done:
            if outcome.unsynced and not outcome.error:
                self._unsynced.append((job, outcome))
                self._failed = True
                problem = f"{os.fsdecode(job.step.path)}: fsync: {os.strerror(outcome.unsynced)}"
                continue
            if outcome.warning:
                log.warning("%s", outcome.warning)
            if isinstance(job.item, Node):
                job.item.publishing = 0
            if not outcome.error:
                self._afterwards.done(job, outcome, is_all=id(job.item) not in failed)
                if job.step.kind in (StepKind.MKDIR, StepKind.SYMLINK):
                    self._made.add(job.item.ino)
        unsure = {job.item.ino for job, _ in self._unsynced}
        for ino in {job.item.ino for job, _ in done} - unsure:
            for gid in self._tree.locations.arrived(ino):
                self._behind.purged(gid)
        if problem is not None and self._unsynced_problem is None:
            log.error("home tree: %s; trying again every %g s", problem, RETRY_S)
        if problem is not None or not self._unsynced:
            self._unsynced_problem = problem
