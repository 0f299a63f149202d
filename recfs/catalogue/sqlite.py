"""SQLite behind the Catalogue port: one writer connection, in WAL mode, used on the trio thread for a few rows.

Why nothing here keeps the trio thread, or has it wait for the disk:
- A batch of many rows is written in a thread. SQLite lets go of the interpreter's lock meanwhile, and what is read
  then is read on a connection of its own: it sees the batch before (sqlite.org/isolation.html).
- `synchronous=NORMAL`: a commit in WAL mode writes the log but does not fsync it. `sync()` fsyncs the log file in a
  thread, once for all batches applied by then (group commit).
- `wal_autocheckpoint=0`: the log is folded into the main file by `checkpoint()`, which runs a passive checkpoint on a
  second connection in a thread. Passive checkpoints never wait for, nor block, the writer
  (sqlite.org/c3ref/wal_checkpoint_v2.html). But while somebody writes all the time they never get to the end of the
  log, and only from there can it begin anew: of a long log the last little is folded in while writers wait.
- `auto_vacuum=incremental`: free pages go back to the disk in slices of a few milliseconds (`give_back`).
One daemon writes (the root's lock file sees to that) and command-line readers open read-only, so
"database is locked" has nobody to come from.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from recfs.catalogue import deriving
from recfs.catalogue.check import recount
from recfs.catalogue.connection import FULL, LONG_LOG_BYTES, connect
from recfs.catalogue.counting import days
from recfs.catalogue.counting.counters import Counting
from recfs.catalogue.counting.proof import corrections
from recfs.catalogue.fitting import UNFIT, fitted
from recfs.catalogue.headroom import Headroom
from recfs.catalogue.questions import Questions
from recfs.catalogue.rows import FORGET_FUTURE, Known, runs
from recfs.errors import IoFailure, OutOfSpace, RowRefused, StoreError
from recfs.ports.rows import HOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from recfs.catalogue.rows import Run
    from recfs.core.media.chunks import Chunk, ChunkPlan
    from recfs.core.media.derived import Derived
    from recfs.ports.batch import Batch
    from recfs.ports.figures import FiguresProof, OfDay, Surveyed

log = logging.getLogger("recfs.catalogue")

CHECKPOINT_PAGES = 4096
"""Log length (4 KiB pages) from which `checkpoint` folds it into the main file: 16 MiB."""

HELD_EVERY_S = 10.0
"""How long writers do not wait for a fold again, after that was in vain."""

FREE_PAGES = 4096
"""Pages of 4 KiB that stay free for what comes, or an eighth of the file where that is more."""
GIVEN_BACK_PAGES = 256
"""Free pages that are given back at once: some milliseconds."""
_INCREMENTAL = 2
"""What `pragma auto_vacuum` says of a file that can give pages back."""

FOLD_EVERY_S = 1.0
"""How long the log is not tried to be folded in on a full disk, after that was in vain."""

FEW_ROWS = 32
"""Up to so many rows are written on the trio thread, in 0.7 ms. To hand them over takes it 0.1, and all in all more."""

REFUSED_KEPT = 20
"""How many rows that did not fit `recfs status` names."""


class SqliteCatalogue(Questions):
    """The Catalogue port on one SQLite file. Construct with `opening.open_catalogue`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        self._sync_limiter = trio.CapacityLimiter(1)
        self._applied = 0
        self._synced = 0
        self._wal_fd = -1
        self.refused: Sequence[str] = ()
        self._folded_s = float("-inf")
        """When the log could not be folded in for want of room."""
        self.folds = 0
        """How often the log was folded in."""
        self.headroom = Headroom(path)
        self._known = Known()
        self._counting = Counting(connection)
        self._last_fold: trio.Event | None = None
        """Set when writers need wait no longer for the last of the log to be folded in."""
        self._held_s = float("-inf")
        """When writers waited for it in vain."""
        self._gives_back: bool | None = None
        self._thread: trio.Event | None = None
        """Set when the thread that writes has done so; nobody else touches the writer's connection until then."""
        self._thread_limiter = trio.CapacityLimiter(1)
        self._beside: sqlite3.Connection | None = None
        """What reads while the thread writes."""

    def _readable(self) -> sqlite3.Connection:
        return self._beside if self._thread is not None and self._beside is not None else self._db

    # --- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, trial: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction, or (*trial*) as one that is taken back; no await may stand inside."""
        self._db.execute("begin immediate")
        try:
            yield self._db
            self._db.execute("rollback" if trial else "commit")
        except BaseException:
            if self._db.in_transaction:  # on a full disk SQLite has rolled back by itself
                self._db.execute("rollback")
            raise

    def _run(self, todo: Sequence[Run], *, trial: bool) -> None:
        """Run *todo* as one transaction."""
        if len(todo) == 1 and not trial:  # a statement by itself is one (sqlite.org/lang_transaction.html)
            self._db.execute(*todo[0])
            return
        with self._transaction(trial=trial) as db:
            for text, values in todo:
                db.execute(text, values)

    async def _writable(self) -> None:
        """Wait until the writer's connection is free. It is the caller's until the next await."""
        while (busy := self._thread if self._last_fold is None else self._last_fold) is not None:
            await busy.wait()

    async def apply(self, batch: Batch, *, trial: bool = False) -> None:
        """Write *batch* in one transaction, all of it or nothing. A value that does not fit is made to: `refused`."""
        await self._writable()
        if _rows_of(batch) <= FEW_ROWS or not self._can_read_beside():
            self._apply(batch, trial=trial)
            return
        self._thread = trio.Event()
        try:
            with trio.CancelScope(shield=True):  # what is begun is done, and its caller gets to know
                await trio.to_thread.run_sync(partial(self._apply, batch, trial=trial), limiter=self._thread_limiter)
        finally:
            self._thread.set()
            self._thread = None

    def _can_read_beside(self) -> bool:
        """Whether there is a connection to read on while a thread writes; without one nothing is written in threads."""
        if self._beside is None:
            with suppress(StoreError, OSError):
                self._beside = connect(self._path, read_only=True)
        return self._beside is not None

    def _apply(self, batch: Batch, *, trial: bool) -> None:
        try:
            try:
                self._run(self._runs(batch), trial=trial)
            except UNFIT:
                self._forget()
                self._apply_fitted(batch, trial=trial)
        except UNFIT as error:
            self._forget()
            raise RowRefused(f"catalogue {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._forget()
            raise self._failure(error) from error
        if trial:
            self._counting.forget()
        else:
            self._applied += 1
            self._known.written(batch.nodes)

    def _runs(self, batch: Batch) -> list[Run]:
        """What writes *batch*, and what it changes of the counters."""
        counted = self._counting.runs(batch, self._known)  # first: it looks at the rows that these take the place of
        return [*runs(batch, self._known), *counted]

    def _forget(self) -> None:
        """What was written last is not known any more."""
        self._known.forget()
        self._counting.forget()

    def _apply_fitted(self, batch: Batch, *, trial: bool) -> None:
        """Write *batch* with its values brought into their ranges."""
        fit, told = fitted(batch)
        self._run(self._runs(fit), trial=trial)
        for what in told if not trial else ():
            if what not in self.refused:
                log.error("catalogue %s: a row does not fit: %s", self._path, what)
                self.refused = (*self.refused[-(REFUSED_KEPT - 1) :], what)

    def _failure(self, error: sqlite3.DatabaseError) -> OutOfSpace | IoFailure:
        if getattr(error, "sqlite_errorcode", 0) in FULL:
            return OutOfSpace(f"catalogue {self._path}: the disk is full")
        return self._trouble(error)

    async def sync(self) -> None:
        """Fsync the log unless a later sync already covered what was applied before this call."""
        wanted = self._applied
        async with self._sync_limiter:
            if self._synced >= wanted:
                return
            covered = self._applied
            if self._wal_fd < 0:
                self._wal_fd = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                await trio.to_thread.run_sync(os.fdatasync, self._wal_fd)
            except OSError as error:
                raise IoFailure(f"catalogue {self._path}: {error}") from error
            self._synced = covered

    async def checkpoint(self, *, at_least_pages: int = CHECKPOINT_PAGES) -> None:
        """Fold the log into the main file when it has grown to *at_least_pages*. Raises IoFailure or OutOfSpace."""
        if self._log_bytes() // 4096 >= at_least_pages:
            try:
                if not await self._fold_once():
                    await self._fold_to_the_end()
            except sqlite3.DatabaseError as error:
                raise self._failure(error) from error

    async def _fold_to_the_end(self) -> None:
        """Of a long log, fold in what was written meanwhile, and once more; the last of it while writers wait.

        Each time that is less. Where a reader is in the way instead, writers do not wait again for a while.
        """
        if self._log_bytes() <= LONG_LOG_BYTES or trio.current_time() - self._held_s < HELD_EVERY_S:
            return
        if await self._fold_once():
            return
        self._last_fold = trio.Event()
        try:
            with trio.CancelScope(shield=True):  # nobody may write while the thread is at it
                if self._thread is not None:
                    await self._thread.wait()
                if not await self._fold_once():
                    self._held_s = trio.current_time()
        finally:
            self._last_fold.set()
            self._last_fold = None

    async def _fold_once(self) -> bool:
        """Fold in what the log holds now; tells whether that is still all there is in it."""
        before = self._applied
        return await trio.to_thread.run_sync(self._checkpoint_in_thread) and self._applied == before

    def _log_bytes(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except FileNotFoundError:
            return 0

    async def fold(self) -> bool:
        """Fold all of the log in, so that it is written anew from its beginning; tells whether that worked.

        After a failure not for a second: on a full disk everybody who writes asks for it.
        """
        if trio.current_time() - self._folded_s < FOLD_EVERY_S:
            return False
        try:
            return await trio.to_thread.run_sync(self._checkpoint_in_thread)
        except sqlite3.DatabaseError:
            self._folded_s = trio.current_time()
            return False

    def _checkpoint_in_thread(self) -> bool:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as other:
            other.execute("pragma synchronous = normal")
            _, pages, folded = other.execute("pragma wal_checkpoint(passive)").fetchone()
            self.folds += 1
            return bool(pages == folded)

    # --- free pages ----------------------------------------------------------------------------------------------

    def excess_pages(self) -> int:
        """How many free pages there are beyond those that are kept for what comes; 0 where none can be given back."""
        if self._gives_back is None:
            self._gives_back = self._read("pragma auto_vacuum") == [(_INCREMENTAL,)]
        if not self._gives_back:
            return 0
        ((free,),), ((pages,),) = self._read("pragma freelist_count"), self._read("pragma page_count")
        return max(0, int(free) - max(FREE_PAGES, int(pages) // 8))

    def give_back(self) -> None:
        """Give a few of them back to the disk; the file is shorter once the log is folded in. Some milliseconds.

        Raises IoFailure or OutOfSpace. Atomic.
        """
        few = min(GIVEN_BACK_PAGES, self.excess_pages())
        if few and self._last_fold is None and self._thread is None:
            try:
                # Each step of it is a page, and `execute` takes one: it has no columns.
                self._db.executescript(f"pragma incremental_vacuum({few})")
            except sqlite3.DatabaseError as error:
                raise self._failure(error) from error
            self._applied += 1

    def close(self) -> None:
        """Fold the log in and close. The file alone is then the whole catalogue."""
        if self._wal_fd >= 0:
            os.close(self._wal_fd)
            self._wal_fd = -1
        if self._beside is not None:
            self._beside.close()
            self._beside = None
        with suppress(sqlite3.OperationalError):  # on a full disk the log stays, and is as good
            self._db.execute("pragma wal_checkpoint(truncate)")
        self._db.close()
        self.headroom.close()

    # --- what a start changes ------------------------------------------------------------------------------------

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction. Raises IoFailure or OutOfSpace."""
        try:
            with self._transaction() as db:
                yield db
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error
        self._forget()
        self._applied += 1

    async def forget_home_inos(self) -> None:
        """Forget every recorded st_ino."""
        await self._writable()
        with self._change() as db:
            db.execute("update placement set home_ino = null where host = ? and home_ino is not null", (HOST,))
            db.execute("update garbage set home_ino = null where home_ino is not null")

    async def recount(self) -> int:
        """Have every counter say what its rows add up to, in a thread."""
        found = await trio.to_thread.run_sync(recount, self._path)
        self._forget()
        return len(found.differences)

    async def correct(self, proof: FiguresProof) -> None:
        """As the port says."""
        await self._write(corrections(proof))

    async def keep_survey(self, name: str, surveyed: Surveyed) -> None:
        """As the port says."""
        await self._write(days.keep_survey(name, surveyed))

    async def keep_day(self, rows: Sequence[OfDay], day: str, at_ns: int | None) -> None:
        """As the port says."""
        await self._write([*days.keep_rows(rows), *(days.keep_day(day, at_ns) if at_ns is not None else ())])

    async def drop_days(self, before: str) -> bool:
        """As the port says."""
        await self._writable()
        todo = days.old_rows(self._db, before)
        await self._write(todo)
        return bool(todo)

    async def keep_derived(self, record: Derived) -> None:
        """As the port says."""
        await self._write([deriving.keep(record)])

    async def drop_derived(self, folder: int, product: str) -> None:
        """As the port says."""
        await self._write([("delete from derived where folder = ? and product = ?", (folder, product))])

    async def keep_plan(self, plan: ChunkPlan) -> None:
        """As the port says."""
        for todo in deriving.keep_plan(plan):
            await self._write(todo)
            await trio.lowlevel.checkpoint()

    async def keep_job(self, source: int, job: str) -> None:
        """As the port says."""
        await self._write([("update chunk_plan set job = ? where source = ?", (job, source))])

    async def fail_chunks(self, source: int, reason: str, *, done: bool) -> None:
        """As the port says."""
        for todo in deriving.fail_chunks(source, reason, done=done):
            await self._write(todo)
            await trio.lowlevel.checkpoint()

    async def keep_chunk(self, source: int, chunk: Chunk) -> None:
        """As the port says."""
        await self._write([deriving.keep_chunk(source, chunk)])

    async def begin_chunks_again(self) -> None:
        """As the port says."""
        await self._write([("update chunk set status = 'pending' where status = 'processing'", ())])

    async def forget_gone(self) -> int:
        """As the port says."""
        await self._writable()
        with self._change() as db:
            derived, _, plans = [db.execute(text).rowcount for text in deriving.GONE]
            db.execute(deriving.LOST)
        return derived + plans

    async def _write(self, todo: Iterable[Run]) -> None:
        """Write what no batch holds, in one transaction. Raises IoFailure or OutOfSpace."""
        await self._writable()
        with self._change() as db:
            for text, values in todo:
                db.execute(text, values)

    async def forget_future(self, now_ns: int) -> None:
        """What lies ahead of *now_ns* counts as recorded just now."""
        await self._writable()
        with self._change() as db:
            for text in FORGET_FUTURE:
                db.execute(text, {"now": now_ns})

    async def forget_fetches(self) -> None:
        """`fetching` is `evicted` again."""
        await self._writable()
        with self._change() as db:
            db.execute("update node set state = 'evicted' where state = 'fetching'")


def _rows_of(batch: Batch) -> int:
    """How many rows *batch* writes, about: those of emptied directories count as their span."""
    emptied = sum(last - first + 1 for _, first, last in batch.emptied)
    return emptied + sum(len(getattr(batch, each)) for each in _MANY_ROWS)


_MANY_ROWS: Final = (
    "removed", "nodes", "garbage", "purged", "xattrs", "objects", "objects_gone", "journal", "journal_done", "trash",
    "trash_gone", "recordings", "events", "events_gone",
)  # fmt: skip
"""The fields of a batch that may hold many."""


__all__ = ["SqliteCatalogue"]
