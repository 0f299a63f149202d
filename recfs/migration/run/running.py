"""A run: what the plan names is copied to its targets, user by user, by one rsync after another.

The order of what is written down is what makes it safe to die anywhere: a row says `begun` before anything of the file
may be at its target, and `copied` when all of it is. A source is held open from the look at it to the end of the copy.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from recfs.core.layout import owner_of
from recfs.core.migration.plan import MOVED
from recfs.core.migration.rsync_ends import Reach, Verdict, verdict
from recfs.core.migration.steps import Brought, Proof, Row, Seen, Step, Way, way_after, way_to
from recfs.errors import FsError, MountError
from recfs.migration.plans import elsewhere_of
from recfs.migration.run import rsync
from recfs.migration.run.arrivals import Arrivals
from recfs.migration.run.batches import BATCH_FILES, Batch, Item, Queue, Settings, close, files_at_a_time
from recfs.migration.run.destination import CAME, GONE, check_name, check_other, check_source, group_of, link_refusal
from recfs.migration.run.farm import Farm
from recfs.migration.run.hashing import Stopped, is_shown, proven
from recfs.migration.run.room import Room, room_of
from recfs.migration.run.trees import Tree, attributes_of, mtime_of, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.migration.plan import Entry, Plan
    from recfs.migration.run.destination import Destination
    from recfs.migration.run.hashing import Meter
    from recfs.migration.run.state import State

    Proofs = list[tuple[Proof, str | None] | str]
    """Of each file of a batch, in its order; or why it could not be compared."""
    Result = rsync.Ended | Proofs

_TRIES: Final = 3
_TICK_S: Final = 0.5
_CHANGES = "it changed while it was copied, again and again: run it again when nobody writes to it"


@dataclass(slots=True)
class Outcome:
    """How a run ended; what became of single files is in the state."""

    stopped: Verdict | None = None
    """Why not all was tried."""
    users: dict[str, Verdict] = field(default_factory=dict)
    """Users whose files were not all tried, and why."""


class Run:
    """Brings the files of a plan to where they are to be."""

    def __init__(
        self, plan: Plan, old: bytes, state: State, destination: Destination, options: rsync.Options,
        settings: Settings, meter: Meter, tell: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """*tell* is called now and then while something goes on. Raises OSError where the old tree is not there."""
        self._state, self._destination, self._options = state, destination, options
        self._settings, self._meter, self._tell = settings, meter, tell
        self._sources = Tree(old, elsewhere_of(plan))
        self._arrivals = Arrivals(self._sources)
        self._farm = Farm(state.plan)
        self._files = files_at_a_time(settings)
        self._outcome = Outcome()
        self._job = str(uuid4()).encode("ascii")
        self._unkept: list[Row] = []
        self._under_way: dict[Future[Result], Batch] = {}
        queues: dict[str, Queue] = {}
        for entry in plan.entries:
            if entry.action in MOVED:
                name = group_of(entry.target)
                queues.setdefault(name, Queue(name, deque())).entries.append(entry)
        self._queues = deque(queues.values())

    def run(self) -> Outcome:
        """Go through all. Raises OutOfSpace, IoFailure where the state cannot be kept; KeyboardInterrupt."""
        try:
            with ThreadPoolExecutor(self._settings.jobs, "migrate") as pool:
                try:
                    self._start_more(pool)
                    while self._under_way:
                        self._finish_some(_TICK_S)
                        self._tell()
                        self._start_more(pool)
                finally:
                    self._end()
            self._keep_all()
        finally:
            for queue in self._queues:
                queue.close()
            self._sources.close()
            self._farm.end()
        return self._outcome

    def _start_more(self, pool: ThreadPoolExecutor) -> None:
        while self._queues and len(self._under_way) < self._settings.jobs and self._outcome.stopped is None:
            queue = self._queues.popleft()
            try:
                batch = self._next(queue)
                if batch is None:
                    continue
                self._under_way[self._started(pool, batch)] = batch
            except MountError as error:
                self._stop(Verdict(Reach.ALL, str(error), "mount the store again, then run it again"))
                queue.close()
            self._tell()

    def _finish_some(self, wait_s: float | None) -> None:
        done, _ = wait(self._under_way, wait_s, FIRST_COMPLETED)
        for future in done:
            batch = self._under_way.pop(future)
            try:
                self._finish(batch, future)
            finally:
                close(batch.items)
                batch.tree.close()
            queue = batch.queue
            if queue.name in self._outcome.users or self._outcome.stopped is not None:
                queue.close()
            else:
                self._queues.appendleft(queue)  # a user at a time: few sources are held open

    def _end(self) -> None:
        if self._under_way:
            self._meter.stop.set()
        for batch in self._under_way.values():
            if batch.copying is not None:
                batch.copying.end()
        while self._under_way:
            self._finish_some(None)

    def _stop(self, why: Verdict) -> None:
        if self._outcome.stopped is None:
            self._outcome.stopped = why

    # -- what is to be done ---

    def _next(self, queue: Queue) -> Batch | None:
        tree = self._destination.open()
        held = 0
        try:
            while queue.entries:
                entry = queue.entries.popleft()
                item = self._prepared(tree, entry)
                if item is None:
                    continue
                queue.ready.setdefault(item.way, []).append(item)
                held += item.seen.size
                if held >= self._settings.batch_bytes or queue.held() >= self._files:
                    break
            self._keep_all()
            if not queue.ready:
                tree.close()
                return None
            way = max(queue.ready, key=lambda each: len(queue.ready[each]))
            return Batch(queue, queue.ready.pop(way), tree)
        except BaseException:
            tree.close()
            raise

    def _prepared(self, tree: Tree, entry: Entry) -> Item | None:
        """Look at a source and its target; None where nothing is to be copied, and why is written down."""
        row = self._state.row(entry.source, entry.target)
        try:
            check_name(entry.target)
            check_source(entry.source, self._destination)
            fd, seen = self._sources.open(entry.source)
        except FileNotFoundError:
            self._failed(row, entry, self._missed(tree, entry) if row.is_away else "the source is gone")
            return None
        except (OSError, FsError) as error:
            self._failed(row, entry, reason_of(error))
            return None
        if row.step is Step.CLEANED:
            row = Row(entry.source, entry.target)  # another file came there, of which nothing is known
        try:
            item = self._item(tree, entry, row, fd, seen)
        except (OSError, FsError) as error:
            os.close(fd)
            self._destination.check()
            self._failed(row, entry, f"at the target: {reason_of(error)}")
            return None
        except BaseException:
            os.close(fd)
            raise
        if item is None:
            os.close(fd)
        return item

    def _missed(self, tree: Tree, entry: Entry) -> str:
        """What is wrong with a file whose source is gone by this migration, or ""."""
        try:
            there = tree.look(entry.target) is not None or self._destination.is_elsewhere(entry.target)
        except (OSError, FsError) as error:
            return f"at the target: {reason_of(error)}"
        return "" if there else GONE

    def _item(self, tree: Tree, entry: Entry, row: Row, fd: int, seen: Seen) -> Item | None:
        if why := link_refusal(entry.source, os.fstat(fd), self._sources):
            self._failed(row, entry, why)
            return None
        found = tree.look(entry.target)
        check_other(seen, self._destination, found)
        if row.is_away:
            self._failed(row, entry, CAME)
            return None
        if found is None and self._destination.is_elsewhere(entry.target):
            self._failed(row, entry, "the store has it, and not in the home tree: migrate it into the mount")
            return None
        if found is not None and not stat.S_ISREG(found.st_mode):
            self._failed(row, entry, "something that is no regular file is at the target")
            return None
        there = None if found is None else (found.st_size, mtime_of(found))
        shown = found is not None and is_shown(tree, entry.target)
        way = way_to(row, seen, there, replace=self._settings.replace, shown=shown)
        if way is Way.DONE:
            self._done(row, seen, there)
            self._meter.count(entry.size)
            return None
        holes = os.fstat(fd).st_blocks * 512 < seen.size
        return Item(entry, row, fd, seen, way, there, shown, holes, attributes_of(fd))

    def _done(self, row: Row, seen: Seen, there: tuple[int, int] | None, sha256: str | None = None) -> None:
        if row.is_done and row.seen == seen and row.left == there and not row.problem:
            return
        row.look_again(seen)
        row.sha256 = sha256 if sha256 is not None else row.sha256
        row.step = row.step if row.is_done and row.sha256 is not None else Step.COPIED
        row.brought = Brought.THERE if row.brought is Brought.NOTHING else row.brought
        row.left, row.problem = there, ""
        self._keep(row)

    def _failed(self, row: Row, entry: Entry, why: str) -> None:
        if row.problem != why or not row.is_away:
            row.problem = why
            self._keep(row)
        self._meter.count(entry.size)

    def _keep(self, row: Row) -> None:
        """Have a row kept of which nothing depends on when: many at once, for each time waits for the disk."""
        self._unkept.append(row)
        if len(self._unkept) >= BATCH_FILES:
            self._keep_all()

    def _keep_all(self) -> None:
        self._state.put(self._unkept)
        self._unkept.clear()

    # -- one batch ---

    def _started(self, pool: ThreadPoolExecutor, batch: Batch) -> Future[Result]:
        if batch.items[0].way is Way.PROVE:
            return pool.submit(self._all_proven, batch)
        way, made = batch.items[0].way, list[bytes]()
        lacking = batch.tree.lacking(item.entry.target for item in batch.items)
        self._state.put((), lacking)  # before they are made: what is killed in between leaves none that nobody knows
        owner = self._destination.owner(batch.tree, batch.items[0].entry.target)
        users: dict[bytes, tuple[int, int] | None] = {}
        room: Room | None = None
        promised = sum(each.to_come() for each in self._under_way.values())
        for item in list(batch.items):
            try:
                made += batch.tree.make_parents(item.entry.target, owner)
                folder = item.entry.target.rpartition(b"/")[0]
                if folder not in users:
                    users[folder] = self._destination.user(batch.tree, item.entry.target)
                if room is None:  # the user's directory is there by now, and tells of a quota
                    room = room_of(batch.tree, item.entry.target, self._destination.reserve)
            except (OSError, FsError) as error:
                batch.items.remove(item)
                os.close(item.fd)
                self._failed(item.row, item.entry, f"at the target: {reason_of(error)}")
                if isinstance(error, OSError):
                    self._judge(batch, verdict(23, f"({error.errno})"))
                continue
            why = room.refusal(item.seen.size, item.need, promised + batch.need, batch.need)
            if why and item.need:
                batch.items.remove(item)
                os.close(item.fd)
                self._failed(item.row, item.entry, why)
                continue
            batch.need += item.need
            item.begin()
        self._state.put([item.row for item in batch.items], made)
        self._state.forget_directories(lacking.difference(made))
        if not batch.items or batch.queue.name in self._outcome.users or self._outcome.stopped is not None:
            return pool.submit(rsync.Ended, 0, "")
        batch.farm = self._farm.planted((item.entry.target, item.fd) for item in batch.items)
        store = b"/proc/%d/fd/%d" % (os.getpid(), batch.tree.fd)
        targets = [item.entry.target for item in batch.items]
        user = next(iter(users.values()))  # of one tree: the same for all
        holes = any(item.has_holes for item in batch.items)
        writer = rsync.Writer(user, owner, holes, self._aside(batch, way, owner))
        line = rsync.command(self._options, way, batch.farm, writer)
        batch.copying = rsync.Copying(line, store, targets, self._state.lock, self._meter)
        return pool.submit(batch.copying.wait)

    def _aside(self, batch: Batch, way: Way, owner: tuple[int, int] | None) -> bytes | None:
        """A job of the user's in temp/, for what is to take others' places; a killed run's goes as any other job."""
        user = owner_of(tuple(batch.items[0].entry.target.split(b"/")))
        if way is not Way.ANEW or user is None:
            return None
        job = b"temp/%s/%s" % (user.encode("ascii"), self._job)
        batch.tree.make_parents(job + b"/file", owner)
        return job

    def _finish(self, batch: Batch, future: Future[Result]) -> None:
        if batch.farm:
            self._farm.cleared(batch.farm)
            self._cleared_aside(batch)
        ended = future.result()
        if isinstance(ended, list):
            self._take_proofs(batch, ended)
            return
        assert isinstance(ended, rsync.Ended)
        found = verdict(ended.code, ended.said)
        if ended.code:
            self._judge(batch, found)
        counted = 0
        again: list[Item] = []
        for item in batch.items:
            why = self._arrivals.taken(batch.tree, item, ended)
            if why is None:
                counted += item.entry.size
            elif self._may_try_again(batch.queue, item, why):
                again.append(item)
            else:
                counted += item.entry.size
                stopped = self._outcome.users.get(batch.queue.name, self._outcome.stopped) or found
                item.row.problem = why or stopped.reason or _CHANGES
        self._meter.count(counted - (batch.copying.counted if batch.copying is not None else 0))
        self._state.put([item.row for item in batch.items])
        batch.queue.entries.extend(item.entry for item in again)

    def _cleared_aside(self, batch: Batch) -> None:
        user = owner_of(tuple(batch.items[0].entry.target.split(b"/"))) if batch.items else None
        if user is not None and batch.items[0].way is Way.ANEW:
            with contextlib.suppress(OSError, FsError):
                batch.tree.rmdir(b"temp/%s/%s" % (user.encode("ascii"), self._job))

    def _judge(self, batch: Batch, found: Verdict) -> None:
        """Stop what is to be stopped."""
        try:
            self._destination.check()
        except MountError as error:
            found = Verdict(Reach.ALL, str(error), "mount the store again, then run it again")
        if found.reach is Reach.USER:
            self._outcome.users[batch.queue.name] = found
        elif found.reach is Reach.ALL:
            self._stop(found)

    def _may_try_again(self, queue: Queue, item: Item, why: str) -> bool:
        """Once more where nothing was said of it: it had changed, or another one had ended the batch."""
        if why or queue.name in self._outcome.users or self._outcome.stopped is not None:
            return False
        tries = queue.tries.get(item.entry.target, 0) + 1
        queue.tries[item.entry.target] = tries
        return tries < _TRIES

    def _all_proven(self, batch: Batch) -> Result:
        """Compare what is at the targets of a batch. In a thread."""
        found: Proofs = []
        for item in batch.items:
            try:
                target, ask = item.entry.target, self._destination.ask
                found.append(proven(item.fd, item.seen, batch.tree, target, ask, self._meter))
            except Stopped:
                found.append("the run was stopped before it was compared")
            except (OSError, FsError) as error:
                found.append(f"it cannot be compared: {reason_of(error)}")
        return found

    def _take_proofs(self, batch: Batch, proofs: Proofs) -> None:
        for item, proof in zip(list(batch.items), proofs, strict=True):
            if isinstance(proof, str):
                self._failed(item.row, item.entry, proof)
                continue
            found, sha256 = proof
            way = way_after(item.row, found, item.there, replace=self._settings.replace)
            if way is Way.DONE:
                self._done(item.row, item.seen, item.there, sha256)
                self._meter.count(item.entry.size - item.seen.size)
            elif way is Way.REFUSED:
                written = "somebody writes to the file" if found is Proof.UNKNOWN else "other bytes are"
                self._failed(item.row, item.entry, f"{written} at the target, and stay there without --replace")
            else:
                item.way = way
                batch.items.remove(item)  # it stays open
                batch.queue.ready.setdefault(way, []).append(item)
        try:
            self._destination.check()
        except MountError as error:
            self._stop(Verdict(Reach.ALL, str(error), "mount the store again, then run it again"))


__all__ = ["Outcome", "Run"]
