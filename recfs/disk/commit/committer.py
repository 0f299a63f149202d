"""The commit pipeline: closed files become `committed`.

For each file, in this order, so that a crash after any step is repaired at the next start:
  1. its bytes to stable storage (one syncfs for many small files, fdatasync for few);
  2. one read pass for sha256 and md5, the page cache still warm;
  3. one transaction: state, checksums, counters; the log fsynced;
  4. the earlier version released, the bytes carried home by the publisher.
A crash before 3 leaves a `sealing` row and whole bytes in staging: sealed again. After 3, a committed row with a
pending move. A file that is taken up again and again is not hashed each time: it waits for a delay that grows to
`settle_max`.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State
from recfs.disk.commit.batches import BATCH_FILES, Batches
from recfs.disk.commit.digests import Digest, Pass, Source
from recfs.disk.commit.hashing import Hashing, Work, owner_of
from recfs.disk.commit.lanes import Lane, lane_of
from recfs.disk.commit.outlook import Outlook
from recfs.disk.commit.tickets import MOVED_LOOK_S, Stage, Ticket, Tickets
from recfs.errors import RecfsError, RowRefused
from recfs.ports.rows import Pending, Promise
from recfs.state.events import Subscriber
from recfs.state.nodes import FileNode
from recfs.state.problems import forever, reason_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.ports.work import Publisher
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.commit")

GATHER_S = 0.1
"""How long a closed file waits for others to share its batch, unless somebody wants its checksum or drains."""
FIRST_DELAY_S = 0.5
RETRY_S = 1.0
PART = "commit"


class Committer(Subscriber):
    """The Pipeline port, and its service."""

    def __init__(
        self,
        tree: Tree,
        behind: WriteBehind,
        places: PathResolver,
        backing_files: BackingFiles,
        publisher: Publisher,
        store: LocalStore,
        hashing: Hashing,
        *,
        hash_threads: int,
        settle_max_s: float,
    ) -> None:
        self._tree = tree
        self._behind = behind
        self._places = places
        self._backing_files = backing_files
        self._publisher = publisher
        self._hashing = hashing
        self._hash_threads = hash_threads
        self.settle_max_s = settle_max_s
        self._tickets = Tickets()
        self._batches = Batches(store, self._source, self._is_wanted)
        self.outlook = Outlook(self._tickets, self._batches, hashing)
        self._hashed: deque[tuple[Ticket, Digest]] = deque()
        self._wake = trio.Event()
        self._progress = trio.Event()
        self._hurry_all = False
        self._patient_until = float("inf")
        self._problem: str | None = None

    # --- the port ------------------------------------------------------------------------------------------------

    def submit(self, ino: int) -> None:
        """The file entered `sealing`."""
        node = self._tree.nodes.get(ino)
        if not isinstance(node, FileNode):
            return
        now = trio.current_time()
        if now - node.submitted_s > 2 * self.settle_max_s:
            node.reopened = min(node.reopened, 1)
        node.submitted_s = now
        self.withdraw(ino)
        ticket = self._tickets.open(node)
        delay = GATHER_S if lane_of(node.bytes) is Lane.SMALL else 0.0
        if node.reopened > 1:
            delay = min(FIRST_DELAY_S * 2.0 ** min(node.reopened - 2, 10), self.settle_max_s)
        if self._hurry_all or not delay:
            self._begin(ticket)
            return
        self._tickets.put_off(ticket, delay)
        if self._tickets.is_next(ticket) or self._tickets.waiting == BATCH_FILES:
            self._wake.set()

    def withdraw(self, ino: int) -> None:
        """The file is not to be sealed any more: it changes, or has gone. Its read pass ends within a moment."""
        ticket = self._tickets.get(ino)
        if ticket is not None:
            self._end(ticket)
            if ticket.work is not None:
                self._hashing.stop(ticket.work)
            self._signal()

    def modified(self, node: FileNode) -> None:
        """As `Subscriber.modified`: nobody hashes its bytes any more."""
        self.withdraw(node.ino)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """As `Subscriber.removed`."""
        self.withdraw(node.ino)

    def follows(self, inos: Collection[int]) -> Collection[int]:
        """As `Subscriber.follows`: those that have a ticket."""
        return [ino for ino in inos if self._tickets.get(ino) is not None]

    def hurry(self, ino: int) -> None:
        """End the settling delay of *ino*."""
        ticket = self._tickets.get(ino)
        if ticket is not None and ticket.stage is Stage.LATER:
            if self._tickets.has_failed_since(ticket, trio.current_time() - RETRY_S):
                return
            self._begin(ticket)

    def hurry_waiting(self) -> None:
        """As `hurry`, of all that wait."""
        for ticket in self._tickets:
            self.hurry(ticket.node.ino)

    def want(self, ino: int) -> None:
        """As `Pipeline.want`."""
        node = self._tree.nodes.get(ino)
        if self._tickets.get(ino) is None and isinstance(node, FileNode) and node.is_unhashed:
            self.submit(ino)
        self.hurry(ino)

    def is_at(self, ino: int) -> bool:
        """Whether the file is being sealed, or will be in a moment: not if that failed, or somebody has it mapped."""
        ticket = self._tickets.get(ino)
        return ticket is not None and not self._tickets.is_held_up(ticket)

    @property
    def is_stopping(self) -> bool:
        """Whether no more is to be begun than there is."""
        return self._hurry_all

    def hurry_all(self, patience_s: float = float("inf")) -> None:
        """End every settling delay, now and from now on: the daemon is stopping.

        What cannot be hashed within *patience_s* seconds is set aside: it stays `sealing`, for the next start.
        """
        self._hurry_all = True
        for ticket in self._tickets:
            if ticket.stage is Stage.LATER:
                self._begin(ticket)
        self._patient_until = trio.current_time() + patience_s
        self._leave_to_next_start(self.outlook.tickets_too_long(patience_s))
        self._wake.set()

    async def progress(self) -> None:
        """Wait until some file is finished with."""
        await self._progress.wait()

    @property
    def depth(self) -> int:
        """Files that wait or are being sealed."""
        return len(self._tickets)

    @property
    def oldest_s(self) -> float:
        """How long the file that was closed first of them waits for its commit, in seconds; 0: there is none."""
        return self._tickets.oldest_s

    @property
    def busy_with(self) -> int:
        """Files that others may have to wait for: not those that somebody keeps mapped."""
        return len(self._tickets) - self._tickets.all_mapped

    def still_mapped(self) -> list[int]:
        """As `Pipeline.still_mapped`."""
        return self._tickets.still_mapped()

    @property
    def mapped(self) -> int:
        """Files that wait for a mapping to go, which may take for ever."""
        return self._tickets.mapped_long

    @property
    def left_to_next_start(self) -> int:
        """Files that this run does not seal any more."""
        return self._tickets.left_to_next_start

    @property
    def failing(self) -> int:
        """Files that cannot be sealed, and are left alone for a while."""
        return self._tickets.failing

    @property
    def problem(self) -> str | None:
        """What keeps files from being committed; None if nothing does."""
        return self._problem or self._behind.problems.first(PART)

    # --- tickets ---------------------------------------------------------------------------------------------------

    def _begin(self, ticket: Ticket) -> None:
        """Hand the file to its lane."""
        node = ticket.node
        if not self._is_wanted(ticket):
            return
        ticket.stage = Stage.UNDER_WAY
        if lane_of(node.bytes) is Lane.SMALL:
            self._batches.put(ticket)
            return
        left_s = self._patient_until - trio.current_time()
        if left_s < float("inf") and ticket in self.outlook.tickets_too_long(left_s):
            self._leave_to_next_start([ticket])
            return
        if ticket.work is None:
            source = partial(self._source, ticket)
            passing = Pass(source(), node.bytes)
            ticket.work = Work(passing, owner_of(node), node.path, partial(self._passed, ticket), source)
        self._hashing.submit(ticket.work)

    def _is_wanted(self, ticket: Ticket) -> bool:
        """Whether the file is still to be sealed; else its ticket ends."""
        if ticket.node.state is State.SEALING and not ticket.node.unlinked:
            return True
        self._end(ticket)
        self._signal()
        return False

    def _end(self, ticket: Ticket) -> None:
        self._batches.discard(ticket)
        if self._tickets.end(ticket):
            self._behind.problems.solved(PART, ticket.node.ino)

    def _passed(self, ticket: Ticket, found: Digest | None) -> None:
        if found is not None and self._tickets.is_current(ticket):
            self._hashed.append((ticket, found))
            self._wake.set()

    def _signal(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    def _leave_to_next_start(self, tickets: list[Ticket]) -> None:
        fresh = self._tickets.leave_to_next_start(tickets)
        for ticket in fresh:
            if ticket.work is not None:
                self._hashing.stop(ticket.work)
        if fresh:
            paths = ", ".join(ticket.node.path for ticket in fresh[:3]) + (", ..." if len(fresh) > 3 else "")
            size = sum(ticket.left_bytes for ticket in fresh)
            log.warning(
                "stopping: hashing would take too long (%d bytes), the next start does it; %d still `sealing`: %s",
                size, len(fresh), paths,
            )  # fmt: skip
            self._signal()

    # --- the service ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Seal for ever."""

        async def seal() -> None:
            await self._batches.hash_next(lambda batch, found: nursery.start_soon(self._finish, batch, found))

        async with trio.open_nursery() as nursery:
            for _ in range(self._hash_threads):
                nursery.start_soon(forever, PART, seal, self._behind.problems)
            await forever(PART, partial(self._step, nursery), self._behind.problems)

    async def _step(self, nursery: trio.Nursery) -> None:
        self._due()
        while self._hashed:
            ticket, found = self._hashed.popleft()
            nursery.start_soon(self._finish, [ticket], [found])
            del ticket, found  # while this waits, the cache may let go of its nodes
        due_s = self._tickets.next_s
        if trio.current_time() < self._patient_until:
            due_s = min(due_s, self._patient_until)
        with trio.move_on_at(due_s):
            await self._wake.wait()
        self._wake = trio.Event()

    def _due(self) -> None:
        now = trio.current_time()
        if now >= self._patient_until:
            self._leave_to_next_start(self.outlook.tickets_too_long(0.0))
        if self._tickets.next_s <= now or self._tickets.waiting >= BATCH_FILES:
            for ticket in self._tickets.due(now + GATHER_S):
                self._begin(ticket)

    async def _finish(self, batch: list[Ticket], digests: list[Digest]) -> None:
        """Commit what the digests are of. Whatever is neither committed nor put off then is begun again."""
        ours = [(ticket, ticket.serial) for ticket in batch]
        try:
            await self._backing_files.pool.names_durable()
            await self._commit(batch, digests)
            self._problem = None
        except Exception as error:
            if self._problem is None:
                expected = isinstance(error, (OSError, RecfsError))
                log.error("commit: %s; trying again every %g s", error, RETRY_S, exc_info=not expected)
            self._problem = reason_of(error)
            await trio.sleep(RETRY_S)
        finally:
            for ticket, serial in ours:
                # Put off meanwhile and hurried, it is under way again, and not in the hands of this task any more.
                is_ours = ticket.stage is Stage.UNDER_WAY and ticket.serial == serial
                if is_ours and self._tickets.is_current(ticket):
                    self._begin(ticket)
            self._signal()

    def _source(self, ticket: Ticket) -> Source:
        node = ticket.node
        path = self._places.local(node)
        moving = node.staging is None and self._publisher.touches(self._places.way(node))
        ticket.read_at = None if moving else path
        alone = node.body is None or not node.body.writable
        return Source(path, alone, node.untouched, in_place=node.staging is None)

    async def _commit(self, batch: list[Ticket], digests: list[Digest]) -> None:
        done: list[Ticket] = []
        for ticket, digest in zip(batch, digests, strict=True):
            try:
                if self._take_over(ticket, digest):
                    done.append(ticket)
            except Exception as error:
                self._not_committed([ticket])
                self._failed(ticket, error)
        try:
            await self._behind.durable()
        except Exception:
            self._not_committed(done)
            raise
        refused = [ticket for ticket in done if self._behind.is_refused(ticket.node.ino)]
        self._not_committed(refused)
        for ticket in refused:
            self._failed(ticket, RowRefused("the catalogue does not take its row"))
        for ticket in done:
            node = ticket.node
            if not self._tickets.is_current(ticket) or not node.state.is_whole or node.unlinked:
                continue
            self._end(ticket)
            if node.priors:
                with self._behind.problems.aside(PART, ("earlier version", node.ino), node.path):
                    self._backing_files.versions.release_priors(node)
            else:
                self._behind.problems.solved(PART, ("earlier version", node.ino))
            self._publisher.add(node.ino)

    def _take_over(self, ticket: Ticket, digest: Digest) -> bool:
        """Enter what the pass found of one file; whether it may be committed. Atomic. Raises what is in the way."""
        node = ticket.node
        if not self._tickets.is_current(ticket) or node.state is not State.SEALING or node.unlinked:
            return False  # written to again, or gone: this pass proves nothing
        if ticket.read_at != self._places.local(node):
            # A file that was changed where it lies, and it or a directory above it was moved: it may have been another.
            self._tickets.put_off(ticket, MOVED_LOOK_S)
            self._wake.set()
            return False
        if isinstance(digest.error, BlockingIOError):
            self._tickets.mapped(ticket)
            self._wake.set()
            return False
        self._tickets.unmapped(ticket)
        if digest.error is not None:
            unreadable = self._unreadable(ticket, digest.error)
            if unreadable is not None:
                raise unreadable
            return False
        if digest.size_bytes != node.bytes:
            log.warning("%s: %d bytes on disk, %d in the catalogue", node.path, digest.size_bytes, node.bytes)
            self._tree.resize(node, digest.size_bytes)
        node.enter(State.COMMITTED)
        node.sha256, node.md5, node.home_ino = digest.sha256, digest.md5, digest.st_ino
        node.promised, node.untouched = 0, None
        if node.pending or digest.attributes != (node.mode, node.uid, node.gid, node.mtime_ns):
            node.pending |= Pending.MOVE  # else it is at its place as its row says, as when others have put it there
        self._tree.events.committed(node)
        self._behind.node(node)
        return True

    def _not_committed(self, tickets: list[Ticket]) -> None:
        """Nobody may rely on these commits yet: they are still being sealed. Atomic."""
        for node in (ticket.node for ticket in tickets if self._tickets.is_current(ticket)):
            if node.state.is_whole:
                node.never_left(State.SEALING)
                node.pending &= ~Pending.MOVE
                node.promised = Promise.CLOSED | Promise.FSYNCED  # the pass has synced them
                self._tree.events.uncommitted(node)
                self._behind.node(node)

    def _failed(self, ticket: Ticket, error: Exception) -> None:
        """The file cannot be sealed now: it is tried again later, the others go on."""
        if not self._tickets.is_current(ticket):
            return
        problem = self._behind.problems.note(PART, ticket.node.ino, error, ticket.node.path)
        self._tickets.failed(ticket, problem.delay_s)
        self._wake.set()

    def _unreadable(self, ticket: Ticket, error: OSError) -> OSError | None:
        """What keeps the file from being sealed now, or None when there is nothing left to seal."""
        node = ticket.node
        if isinstance(error, FileNotFoundError) and node.staging is not None:
            log.error("%s: its bytes are gone from staging; kept as incomplete", node.path)
            node.enter(State.INCOMPLETE)
            self._behind.node(node)
            self._end(ticket)
            self._signal()
            return None
        return error
