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

import errno
import fcntl
import hashlib
import heapq
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

import trio

from recfs.core.model import State, check_transition
from recfs.errors import RecfsError
from recfs.fs.nodes import FileNode, Untouched
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
CHUNK_BYTES = 1 << 20
ROUND_BUFFERS = 4
SIDE_BY_SIDE_BYTES = 8 << 20
"""From this size a second thread for md5 is worth starting."""
GROUP_SYNC_FILES = 8
"""From this many files in a batch one syncfs(2) costs less than an fdatasync(2) each."""
FIRST_DELAY_S = 0.5
RETRY_S = 1.0
MAPPED_TRIES = 5
MAPPED_LOOK_S = 0.02
"""First wait for a mapping to go. A descriptor that is being closed looks like one for a moment."""


class Hash(Protocol):
    """What of hashlib is used here."""

    def update(self, data: memoryview, /) -> None:
        """Feed bytes. Releases the GIL from 2 KiB on."""

    def digest(self) -> bytes:
        """The digest of what was fed."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What the read pass found; `error` instead if it could not read."""

    sha256: bytes = b""
    md5: bytes = b""
    size_bytes: int = 0
    st_ino: int = 0
    error: OSError | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One file to be digested."""

    path: bytes
    alone: bool = True
    """Nobody of ours has it open: whoever can still write to it does so through a mapping."""
    untouched: Untouched | None = None


def digest_files(sources: Sequence[Source], store: LocalStore) -> list[Digest]:
    """Bring the files to stable storage and hash them. Blocking; for a thread."""
    grouped = len(sources) >= GROUP_SYNC_FILES
    if grouped:
        store.sync_all()
    buffer = memoryview(bytearray(CHUNK_BYTES if len(sources) == 1 else 64 << 10))
    return [_digest(source, store, buffer, sync=not grouped) for source in sources]


def _digest(source: Source, store: LocalStore, buffer: memoryview, *, sync: bool) -> Digest:
    try:
        fd = store.open_file(source.path, os.O_RDONLY)
        assert fd is not None
        try:
            if source.alone and _is_mapped(fd):
                raise BlockingIOError(errno.EAGAIN, "it is still mapped for writing", os.fsdecode(source.path))
            if sync:
                os.fdatasync(fd)
            info, before = os.fstat(fd), source.untouched
            if before is not None and before.describes(info.st_size, info.st_mtime_ns) and before.sha256 and before.md5:
                return Digest(before.sha256, before.md5, info.st_size, info.st_ino)
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            size = _pass(fd, buffer, sha256, md5) if info.st_size < SIDE_BY_SIDE_BYTES else _two(fd, sha256, md5)
            return Digest(sha256.digest(), md5.digest(), size, info.st_ino)
        finally:
            os.close(fd)
    except OSError as error:
        return Digest(error=error)


def _is_mapped(fd: int) -> bool:
    """Whether somebody can still write to the file: a shared mapping outlives its descriptor.

    Where the kernel writes by itself, such a mapping is one of this very file, and its end is not told. But a lease
    for reading is refused as long as anything has the file open for writing (fcntl(2), F_SETLEASE).
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # else this file system has no leases
    return False


def _pass(fd: int, buffer: memoryview, sha256: Hash, md5: Hash) -> int:
    """Feed the file to both digests in turn; returns its size."""
    size = 0
    while got := os.preadv(fd, [buffer], size):
        part = buffer[:got]
        sha256.update(part)
        md5.update(part)
        size += got
        if got < len(buffer):  # a regular file reads short only at its end
            break
    return size


def _two(fd: int, sha256: Hash, md5: Hash) -> int:
    """Feed a large file to both digests side by side, from one read; returns its size. md5 sets the pace.

    A few buffers go round, so that md5 finds the next one filled when it is done with the last: waking a thread for
    each would cost it a tenth of its time.
    """
    free: SimpleQueue[memoryview] = SimpleQueue()
    filled: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()
    for _ in range(ROUND_BUFFERS):
        free.put(memoryview(bytearray(CHUNK_BYTES)))

    def follow() -> None:
        while (item := filled.get()) is not None:
            buffer, part = item
            md5.update(part)
            free.put(buffer)

    size = 0
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="recfs-md5") as helper:
        behind = helper.submit(follow)
        try:
            while got := os.preadv(fd, [buffer := free.get()], size):
                part = buffer[:got]
                filled.put((buffer, part))
                sha256.update(part)
                size += got
        finally:
            filled.put(None)
        behind.result()
    return size


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
