"""Plans of chunks, and their files: what `recfs chunks` asks for.

A plan is made once for each version of a file and each way to cut it, and kept. Extracting writes the chunks that are
not there yet into the plan's temp job, several at a time; a new run goes on with what an earlier one has left. The job
goes by the rules of temp jobs; then its chunks are pending again.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from recfs.core.layout import owner_of
from recfs.core.media.chunks import (
    SILENCE_NOISE_DB,
    SILENCE_S,
    Chunk,
    ChunkOptions,
    ChunkPlan,
    is_long,
)
from recfs.core.media.derived import Status
from recfs.core.media.recipes import PRINCIPAL, chunk_recipe, silence_recipe
from recfs.disk.commit.lanes import Turns
from recfs.errors import Busy, FsError, InvalidArgument, IsADirectory, NotFound
from recfs.fs.fallback_entries import FallbackEntry
from recfs.fs.session.stats import is_committed
from recfs.services.deriving import PART
from recfs.services.deriving.plans import Extraction, as_json, planned, progress_as_json, stem
from recfs.services.deriving.reasons import Changed, Gone, Unmade, Waits, is_expected, told
from recfs.services.deriving.sources import while_wanted
from recfs.state.nodes import FileNode
from recfs.state.problems import forever
from recfs.state.walk import file_at
from recfs.state.work.turns import Turn

if TYPE_CHECKING:
    from recfs.fs.session import Session
    from recfs.fs.vfs import Vfs
    from recfs.ports.derived import DerivedBooks
    from recfs.services.deriving.looking import Looking
    from recfs.services.deriving.placing import Job, Placing
    from recfs.services.deriving.programs import Programs
    from recfs.services.deriving.sources import Source, Sources
    from recfs.stores.rooms import Rooms

OPEN: Final = 8
"""Files whose chunks are written at the same time, of different owners; programs are fewer (`deriving.jobs`)."""
TURN_S: Final = 60.0
"""So long it is one file's turn, where others wait; what has been begun is finished."""


class Chunking:
    """Plans, and extracts."""

    def __init__(
        self, vfs: Vfs, books: DerivedBooks, sources: Sources, looking: Looking, programs: Programs, rooms: Rooms,
        placing: Placing, threads: trio.CapacityLimiter, defaults: ChunkOptions, *, threshold_s: float, jobs: int,
    ) -> None:  # fmt: skip
        self._vfs = vfs
        self._books = books
        self._sources = sources
        self._looking = looking
        self._programs = programs
        self._rooms = rooms
        self._placing = placing
        self.defaults = defaults
        self.threshold_s = threshold_s
        self._jobs = jobs
        self._problems = vfs.behind.problems
        self._threads = threads
        self._slots = trio.CapacityLimiter(jobs)
        """Chunks at a time. Who waits is served in order: files that are open take turns."""
        self._turns: Turns[int] = Turns()
        """Files whose chunks are to be written, by inode number: whose turn comes next."""
        self._held: dict[str | None, list[int]] = {}
        """Those of an owner of whom one is being written."""
        self._waiting: dict[int, str | None] = {}
        """Their owners, of both."""
        self._writing: dict[int, str | None] = {}
        self._works: dict[int, Extraction] = {}
        """Of what waits and what is being written."""
        self._planning = trio.Lock()
        self._wake = trio.Event()

    # --- planning ------------------------------------------------------------------------------------------------

    async def _file(self, path: str) -> FileNode:
        seen = await self._vfs.at(path)
        node = seen.shared if isinstance(seen, FallbackEntry) else seen
        if not isinstance(node, FileNode):
            raise IsADirectory(f"{path}: chunks are those of one audio or video file")
        return node

    async def plan(self, path: str, **wishes: Any) -> dict[str, Any]:
        """The plan of a file, as JSON; made where there is none for its bytes, or for what is wished.

        *wishes*: length_s, overlap_s, silences, format; None: as the plan that is there has it, or the configuration.
        Raises FsError, MediaUnavailable, and InvalidArgument for what cannot be cut.
        """
        node = await self._file(path)
        return await self._told(node, await self._planned(node, wishes))

    async def plan_once(self, node: FileNode) -> None:
        """Have a plan of a file's bytes be there, cut in whatever way. Raises as `plan` does."""
        kept = await self._books.chunk_head(node.ino)
        if kept is None or kept.sha256 != node.sha256:
            await self._planned(node, {})

    async def _told(self, node: FileNode, plan: ChunkPlan) -> dict[str, Any]:
        tell = partial(as_json, node.path, node.sha256, plan, is_writing=node.ino in self._works)
        return await trio.to_thread.run_sync(tell, limiter=self._threads)

    async def _planned(self, node: FileNode, wishes: dict[str, Any]) -> ChunkPlan:
        if not is_committed(node) or node.sha256 is None:
            raise Busy(f"{node.path} is {node.state}: it is cut once it is committed")
        sha256 = node.sha256
        kept = await self._books.chunk_plan(node.ino)
        base = ChunkOptions.parsed(kept.options) if kept is not None else self.defaults
        try:
            options = replace(base, **{key: value for key, value in wishes.items() if value is not None})
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        if kept is not None and (kept.sha256, kept.options) == (sha256, options.text):
            return kept
        if node.ino in self._works:
            raise Busy(f"{node.path}: its chunks are being written as they were planned")
        try:
            made = await self._made(node, sha256, options)
        except (Gone, Changed, Waits) as error:
            raise Busy(f"{node.path}: {error}") from error
        except Unmade as error:
            raise InvalidArgument(f"{node.path}: {error}") from error
        async with self._planning:
            if node.ino in self._works:  # somebody else has planned it meanwhile, and has it written
                raise Busy(f"{node.path}: its chunks are being written as they were planned")
            await self._books.keep_plan(made)
        return made

    async def _made(self, node: FileNode, sha256: bytes, options: ChunkOptions) -> ChunkPlan:
        facts = await self._looking.known(node, sha256)
        async with self._sources.open(node, sha256) as source:
            if facts is None:
                facts = await while_wanted(source.still, partial(self._looking.look, source))
            if not facts.has_audio:
                raise Unmade("it has no audio")
            if not is_long(facts.duration_ms, self.threshold_s):
                shown = f"{facts.duration_ms / 1000:g} s"
                raise Unmade(f"its {shown} are not more than chunks.threshold, {self.threshold_s:g} s: it stays whole")
            cut = partial(planned, stem(node), facts.duration_ms, options)
            if options.silences:
                with self._rooms.room(self._programs.identity) as room:
                    recipe = silence_recipe(SILENCE_NOISE_DB, SILENCE_S)
                    await while_wanted(source.still, partial(self._programs.write, source.fd, recipe, room))
                    made = await trio.to_thread.run_sync(cut, room / PRINCIPAL, limiter=self._threads)
            else:
                made = await trio.to_thread.run_sync(cut, None, limiter=self._threads)
            source.check()
        at_ns = self._vfs.tree.clock.now_ns()
        return ChunkPlan(node.ino, sha256, facts.duration_ms, options.text, "", at_ns, made)

    # --- extracting ----------------------------------------------------------------------------------------------

    async def extract(self, path: str, **wishes: Any) -> dict[str, Any]:
        """Have the chunks that are not there be written; returns the plan as `plan` does."""
        node = await self._file(path)
        self._placing.new_job(node)  # is it anybody's?
        plan = await self._planned(node, wishes)
        if node.ino not in self._works:
            self._works[node.ino] = Extraction(plan)
        self._queue(node.ino, _owner(node))
        return await self._told(node, plan)

    async def wait(self, ino: int, timeout_s: float) -> dict[str, Any]:
        """Wait until something becomes of the chunks of a file, or for *timeout_s*; then tell of those that changed.

        Where none are being written any more it tells of all of them, at once. Raises NotFound.
        """
        work = self._works.get(ino)
        if work is not None:
            with trio.move_on_after(timeout_s):
                await work.news.wait()
        is_writing = ino in self._works
        node = await file_at(self._vfs.tree, ino)
        plan = await (self._books.chunk_head(ino) if is_writing else self._books.chunk_plan(ino))
        if node is None or node.unlinked or plan is None:
            raise NotFound("the file is gone, and its plan with it")
        if work is None or not is_writing:
            return await self._told(node, plan)
        return progress_as_json(node, plan, work)

    async def run(self) -> None:
        """Write what is wanted, for ever."""
        await self._books.begin_chunks_again()
        async with trio.open_nursery() as nursery:
            for _ in range(OPEN):
                nursery.start_soon(forever, PART, self._next, self._problems)

    def _queue(self, ino: int, owner: str | None) -> None:
        if ino not in self._waiting:
            self._waiting[ino] = owner
            self._turns.put(owner, ino)
        self._wake.set()

    def _take(self) -> int | None:
        """The file whose turn it is: of an owner of whom none is being written. Atomic."""
        while (ino := self._turns.take()) is not None:
            owner = self._waiting[ino]
            if owner not in self._writing.values():
                del self._waiting[ino]
                self._writing[ino] = owner
                return ino
            self._held.setdefault(owner, []).append(ino)
        return None

    async def _next(self) -> None:
        while (ino := self._take()) is None:
            wake = self._wake
            await wake.wait()
            if self._wake is wake:
                self._wake = trio.Event()
        owner, is_done = self._writing[ino], True
        try:
            with self._problems.aside(PART, ("chunks", ino), f"chunks of inode {ino}"):
                is_done = await self._write(ino, self._works[ino])
        finally:
            del self._writing[ino]
            for held in self._held.pop(owner, ()):
                self._turns.put(owner, held)
            if not is_done:
                self._queue(ino, owner)
            self._wake.set()
            work = self._works[ino] if ino in self._waiting else self._works.pop(ino)
            work.tell()

    async def _write(self, ino: int, work: Extraction) -> bool:
        """Write the chunks of a file until its turn is over; whether none is left."""
        until_s = trio.current_time() + TURN_S
        node, plan = await file_at(self._vfs.tree, ino), await self._books.chunk_plan(ino)
        if node is None or node.unlinked or plan is None:
            return True
        session = self._placing.session(node)
        if not plan.job:
            plan = plan._replace(job=self._placing.new_job(node))
            await self._books.keep_job(ino, plan.job)
        left = await self._left(plan)
        work.counts = Counter(each.status for each in left)
        work.counts[Status.COMPLETED] = len(plan.chunks) - len(left)

        async def some(source: Source, job: Job) -> None:
            while left and not (trio.current_time() >= until_s and (len(self._turns) or self._held)):
                async with self._slots:
                    if left:
                        await self._one(plan, job, left.popleft(), node, session, source.fd, work)

        async def all_of_them(source: Source, job: Job) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(self._jobs):
                    nursery.start_soon(some, source, job)

        try:
            async with self._sources.open(node, plan.sha256) as source:
                job = await self._placing.open_job(plan.job, session)
                self._placing.keep_job(job)
                await while_wanted(partial(self._still, source, job), partial(all_of_them, source, job))
                source.check()
        except* (Gone, Changed) as group:  # that makes all of them worthless
            left.clear()
            await self._failed(plan, work, group.exceptions[0], done=True)
        except* (Waits, Unmade) as group:
            left.clear()
            await self._failed(plan, work, group.exceptions[0], done=False)
        except* Exception as group:
            left.clear()
            await self._failed(plan, work, group.exceptions[0], done=False)
            raise
        return not left

    async def _left(self, plan: ChunkPlan) -> deque[Chunk]:
        """The chunks that are to be written."""
        turn, left = Turn(), deque[Chunk]()
        for each in plan.chunks:
            if not await self._is_there(plan, each):
                is_lost = each.status is Status.COMPLETED
                chunk = each._replace(status=Status.PENDING, reason="", ino=0, size_bytes=0, sha256=None)
                if is_lost:
                    await self._books.keep_chunk(plan.source, chunk)
                left.append(chunk)
            if turn.is_over:
                await turn.pass_on()
        return left

    async def _still(self, source: Source, job: Job) -> None:
        """Raise Gone or Changed where nobody wants the chunks that are being written."""
        source.check()
        try:
            is_there = not (await self._vfs.tree.directory(job.ino)).unlinked
        except FsError:
            is_there = False
        if not is_there:
            raise Gone("the temp job was removed")

    async def _failed(self, plan: ChunkPlan, work: Extraction, error: BaseException, *, done: bool) -> None:
        """All that were to be written fail, for one reason; *done*: those that are there, too."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        await self._books.fail_chunks(plan.source, told(error), done=done)
        work.fail(done=done)

    async def _is_there(self, plan: ChunkPlan, chunk: Chunk) -> bool:
        if chunk.status is not Status.COMPLETED:
            return False
        node = await file_at(self._vfs.tree, chunk.ino)
        return node is not None and not node.unlinked and node.sha256 == chunk.sha256 and is_committed(node)

    async def _one(
        self, plan: ChunkPlan, job: Job, chunk: Chunk, node: FileNode, session: Session, source: int, work: Extraction
    ) -> None:  # fmt: skip
        before, chunk = chunk.status, chunk._replace(status=Status.PROCESSING)
        await self._books.keep_chunk(plan.source, chunk)
        work.note(before, chunk)
        try:
            done = await self._extracted(plan, job, chunk, node, session, source)
        except Exception as error:
            if not is_expected(error):
                raise
            done = chunk._replace(status=Status.FAILED, reason=told(error))
        await self._books.keep_chunk(plan.source, done)
        work.note(chunk.status, done)

    async def _extracted(
        self, plan: ChunkPlan, job: Job, chunk: Chunk, node: FileNode, session: Session, source: int
    ) -> Chunk:
        form = ChunkOptions.parsed(plan.options).format
        with self._rooms.room(self._programs.identity) as room:
            await self._programs.write(source, chunk_recipe(chunk.start_ms, chunk.duration_ms, form), room)
            made = room / PRINCIPAL
            if not made.is_file() or made.is_symlink() or not made.stat().st_size:
                raise Unmade("ffmpeg made nothing of it")
            size = made.stat().st_size
            written = await self._placing.put(session, job, chunk.name, made, node.mode & 0o666, replaces=True)
        return chunk._replace(status=Status.COMPLETED, ino=written.ino, size_bytes=size, sha256=written.sha256)


def _owner(node: FileNode) -> str | None:
    return owner_of(tuple(node.parts()))


__all__ = ["OPEN", "TURN_S", "Chunking"]
