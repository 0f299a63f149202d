"""The commit pipeline: closed files become `committed`.

For each file, in this order, so that a crash after any step is repaired at the next start:
  1. its bytes to stable storage (one syncfs for many small files, fdatasync for few);
  2. one read pass for sha256 and md5, the page cache still warm;
  3. one transaction: state, checksums, counters; the log fsynced;
  4. the earlier version released, the bytes carried home by the settler.
A crash before 3 leaves a `sealing` row and whole bytes in staging: sealed again. After 3, a committed row with a
pending move. A file that is taken up again and again is not hashed each time: it waits for a delay that grows to
`settle_max`.
"""

from __future__ import annotations

import heapq
import logging
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State, check_transition
from recfs.errors import RecfsError
from recfs.fs.digests import Digest, Source, digest_files
from recfs.fs.nodes import FileNode
from recfs.ports import Pending

if TYPE_CHECKING:
    from recfs.fs.bodies import Bodies
    from recfs.fs.places import Places
    from recfs.fs.tree import Tree
    from recfs.fs.writebehind import WriteBehind
    from recfs.ports import Settler
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.commit")

SMALL_BYTES = 1 << 20
"""Files up to this size are sealed many at a time."""
BATCH_FILES = 512
GATHER_S = 0.1
"""How long a closed file waits for others to share its batch, unless somebody wants its checksum or drains."""
BATCH_BYTES = 32 << 20
FIRST_DELAY_S = 0.5
RETRY_S = 1.0
MAPPED_TRIES = 5
MAPPED_LOOK_S = 0.02
"""First wait for a mapping to go. A descriptor that is being closed looks like one for a moment."""


class Committer:
    """The Pipeline port, and its service."""

    def __init__(
        self,
        tree: Tree,
        behind: WriteBehind,
        places: Places,
        bodies: Bodies,
        settler: Settler,
        store: LocalStore,
        *,
        hash_threads: int,
        settle_max_s: float,
    ) -> None:
        self._tree = tree
        self._behind = behind
        self._places = places
        self._bodies = bodies
        self._settler = settler
        self._store = store
        self._settle_max_s = settle_max_s
        self._limiter = trio.CapacityLimiter(hash_threads)
        self._tickets: dict[int, object] = {}
        self._ready: dict[int, None] = {}
        self._later: list[tuple[float, int, int, object]] = []
        self._busy: set[int] = set()
        self._in_vain: dict[int, int] = {}
        """How often a file could not be sealed because it was still mapped for writing."""
        self._again: set[int] = set()
        """Busy with an outdated pass, and due for another when that ends."""
        self._wake = trio.Event()
        self._progress = trio.Event()
        self._serial = 0
        self._hurry_all = False
        self.hashing_bytes = 0
        self.problem: str | None = None

    # --- the port ------------------------------------------------------------------------------------------------

    def submit(self, ino: int) -> None:
        """The file entered `sealing`."""
        node = self._tree.nodes.get(ino)
        if not isinstance(node, FileNode):
            return
        now = trio.current_time()
        if now - node.submitted_s > 2 * self._settle_max_s:
            node.reopened = min(node.reopened, 1)
        node.submitted_s = now
        self._tickets[ino] = ticket = object()
        self._in_vain.pop(ino, None)
        delay = GATHER_S if node.bytes <= SMALL_BYTES else 0.0
        if node.reopened > 1:
            delay = min(FIRST_DELAY_S * 2.0 ** min(node.reopened - 2, 10), self._settle_max_s)
        if self._hurry_all or not delay:
            self._ready[ino] = None
            self._wake.set()
            return
        self._ready.pop(ino, None)
        self._again.discard(ino)
        self._serial += 1
        heapq.heappush(self._later, (now + delay, self._serial, ino, ticket))
        if self._later[0][1] == self._serial or len(self._later) == BATCH_FILES:
            self._wake.set()

    def hurry(self, ino: int) -> None:
        """End the settling delay of *ino*."""
        if ino in self._busy:
            self._again.add(ino)
        elif ino in self._tickets and ino not in self._ready:
            self._ready[ino] = None
            self._wake.set()

    def hurry_all(self) -> None:
        """End every settling delay, now and from now on: the daemon is stopping."""
        self._hurry_all = True
        for ino in self._tickets:
            self.hurry(ino)

    async def progress(self) -> None:
        """Wait until some file is finished with."""
        await self._progress.wait()

    @property
    def depth(self) -> int:
        """Files that wait or are being sealed."""
        return len(self._tickets)

    @property
    def mapped(self) -> int:
        """Files that wait for a mapping to go, which may take for ever."""
        return sum(tries > MAPPED_TRIES for tries in self._in_vain.values())

    # --- the service ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Seal for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._due()
                if not self._ready:
                    wait = self._later[0][0] - trio.current_time() if self._later else float("inf")
                    with trio.move_on_after(wait):
                        await self._wake.wait()
                    self._wake = trio.Event()
                    continue
                batch = self._take()
                if batch:
                    await nursery.start(self._seal, batch)
                del batch  # while this waits for the next, the cache may let go of its nodes

    def _due(self) -> None:
        now = trio.current_time()
        if not self._later or (self._later[0][0] > now and len(self._later) < BATCH_FILES):
            return
        while self._later and self._later[0][0] <= now + GATHER_S:
            _, _, ino, ticket = heapq.heappop(self._later)
            if self._tickets.get(ino) is ticket:  # else taken up again since, and waiting for a later time
                self.hurry(ino)

    def _take(self) -> list[tuple[FileNode, object]]:
        """One large file, or as many small ones as fit a batch."""
        batch: list[tuple[FileNode, object]] = []
        total = 0
        for ino in list(self._ready):
            node = self._tree.nodes.get(ino)
            if not isinstance(node, FileNode) or node.state is not State.SEALING:
                self._drop(ino)
                continue
            if ino in self._busy:
                del self._ready[ino]  # its outdated pass ends first, and readies it again
                self._again.add(ino)
                continue
            if batch and (total + node.bytes > BATCH_BYTES or node.bytes > SMALL_BYTES):
                break
            del self._ready[ino]
            batch.append((node, self._tickets[ino]))
            total += node.bytes
            if len(batch) >= BATCH_FILES or node.bytes > SMALL_BYTES:
                break
        return batch

    def _drop(self, ino: int) -> None:
        self._ready.pop(ino, None)
        self._tickets.pop(ino, None)
        self._in_vain.pop(ino, None)
        self._signal()

    def _signal(self) -> None:
        self._progress.set()
        self._progress = trio.Event()

    async def _seal(
        self,
        batch: list[tuple[FileNode, object]],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        inos = {node.ino for node, _ in batch}
        size = sum(node.bytes for node, _ in batch)
        self._busy |= inos
        self.hashing_bytes += size
        try:
            async with self._limiter:
                task_status.started()
                sources = [self._source(node) for node, _ in batch]
                # The limiter is held already; this one only keeps trio from counting the thread against its default.
                digests = await trio.to_thread.run_sync(
                    digest_files, sources, self._store, limiter=trio.CapacityLimiter(1)
                )
            await self._bodies.pool.names_durable()
            await self._commit(batch, digests)
            self.problem = None
        except (OSError, RecfsError) as error:
            if self.problem is None:
                log.error("commit: %s; trying again every %g s", error, RETRY_S)
            self.problem = str(error)
            await trio.sleep(RETRY_S)
        finally:
            self._busy -= inos
            self.hashing_bytes -= size
            for node, ticket in batch:
                current = self._tickets.get(node.ino)
                if node.ino in self._in_vain and current is ticket:
                    continue  # it waits for its time
                if current is not None and (current is ticket or node.ino in self._again):
                    self._ready[node.ino] = None
            self._again -= inos
            self._signal()
            self._wake.set()

    def _source(self, node: FileNode) -> Source:
        return Source(self._places.local(node), node.body is None or not node.body.writable, node.untouched)

    async def _commit(self, batch: list[tuple[FileNode, object]], digests: list[Digest]) -> None:
        done: list[FileNode] = []
        unreadable: OSError | None = None
        for (node, ticket), digest in zip(batch, digests, strict=True):
            if self._tickets.get(node.ino) is not ticket or node.state is not State.SEALING or node.unlinked:
                continue  # written to again, or gone: this pass proves nothing
            if isinstance(digest.error, BlockingIOError):
                self._mapped(node, ticket)
                continue
            if digest.error is not None:
                unreadable = self._unreadable(node, digest.error) or unreadable
                continue
            if digest.size_bytes != node.bytes:
                log.warning("%s: %d bytes on disk, %d in the books", node.path, digest.size_bytes, node.bytes)
                self._tree.resize(node, digest.size_bytes)
            check_transition(node.state, State.COMMITTED)
            node.state = State.COMMITTED
            node.sha256, node.md5, node.home_ino = digest.sha256, digest.md5, digest.st_ino
            node.fsynced, node.untouched = False, None
            node.pending |= Pending.MOVE
            if self._bodies.tier is not None:
                self._bodies.tier.committed(node)
            self._behind.node(node)
            done.append(node)
        try:
            await self._behind.durable()
        except RecfsError:
            # Nobody may rely on it yet, so it is still being sealed.
            for node in done:
                if node.state.is_whole:
                    node.state, node.pending = State.SEALING, node.pending & ~Pending.MOVE
                    self._behind.node(node)
            raise
        for node in done:
            if not node.state.is_whole or node.unlinked:
                continue
            self._tickets.pop(node.ino, None)
            self._in_vain.pop(node.ino, None)
            if node.prior is not None:
                self._bodies.release_prior(node)
            self._settler.add(node.ino)
        if unreadable is not None:
            raise unreadable

    def _mapped(self, node: FileNode, ticket: object) -> None:
        """Somebody can still write to the file: look again later, the sooner the less it was in vain."""
        tries = self._in_vain[node.ino] = self._in_vain.get(node.ino, -1) + 1
        self._serial += 1
        due = trio.current_time() + min(MAPPED_LOOK_S * 2.0 ** min(tries, 10), self._settle_max_s)
        heapq.heappush(self._later, (due, self._serial, node.ino, ticket))

    def _unreadable(self, node: FileNode, error: OSError) -> OSError | None:
        """What keeps the file from being sealed now, or None when there is nothing left to seal."""
        if isinstance(error, FileNotFoundError) and node.staging is not None:
            log.error("%s: its bytes are gone from staging; kept as incomplete", node.path)
            check_transition(node.state, State.INCOMPLETE)
            node.state = State.INCOMPLETE
            self._behind.node(node)
            self._drop(node.ino)
            return None
        return error
