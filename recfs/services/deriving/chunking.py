"""Plans of chunks, and their files: what `recfs chunks` asks for.

A plan is made once for each version of a file and each way to cut it, and kept. Extracting writes the chunks that are
not there yet into the plan's temp job, several at a time; a new run goes on with what an earlier one has left. The job
goes by the rules of temp jobs; then its chunks are pending again.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.media.chunks import (
    SILENCE_NOISE_DB,
    SILENCE_S,
    Chunk,
    ChunkOptions,
    ChunkPlan,
    chunks,
    is_long,
    silences_in,
)
from recfs.core.media.derived import Status
from recfs.core.media.recipes import PRINCIPAL, chunk_recipe, silence_recipe
from recfs.errors import Busy, InvalidArgument, IsADirectory, NotFound
from recfs.fs.fallback_entries import FallbackEntry
from recfs.fs.session.stats import is_committed
from recfs.services.deriving import PART
from recfs.services.deriving.reasons import Changed, Gone, Unmade, Waits, is_expected, told
from recfs.state.nodes import FileNode
from recfs.state.problems import forever
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from recfs.fs.session import Session
    from recfs.fs.vfs import Vfs
    from recfs.ports.derived import DerivedBooks
    from recfs.services.deriving.looking import Looking
    from recfs.services.deriving.placing import Job, Placing
    from recfs.services.deriving.programs import Programs
    from recfs.services.deriving.sources import Sources
    from recfs.stores.rooms import Rooms

_STEM_CHARS = 100
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_SILENCES_BYTES = 64 << 20


class Chunking:
    """Plans, and extracts."""

    def __init__(
        self, vfs: Vfs, books: DerivedBooks, sources: Sources, looking: Looking, programs: Programs, rooms: Rooms,
        placing: Placing, defaults: ChunkOptions, *, threshold_s: float, jobs: int,
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
        self._wanted: dict[int, None] = {}
        """Files whose chunks are to be written, by inode number."""
        self._writing: set[int] = set()
        self._wake = trio.Event()
        self._changed = trio.Event()

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
        return _as_json(node, await self._planned(node, wishes), is_writing=node.ino in self._writing)

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
        if node.ino in self._writing:
            raise Busy(f"{node.path}: its chunks are being written as they were planned")
        try:
            made = await self._made(node, sha256, options)
        except (Gone, Changed, Waits) as error:
            raise Busy(f"{node.path}: {error}") from error
        except Unmade as error:
            raise InvalidArgument(f"{node.path}: {error}") from error
        await self._books.keep_plan(made)
        return made

    async def _made(self, node: FileNode, sha256: bytes, options: ChunkOptions) -> ChunkPlan:
        facts = await self._looking.known(node, sha256)
        async with self._sources.open(node, sha256) as source:
            if facts is None:
                facts = await self._looking.look(source)
            if not facts.has_audio:
                raise Unmade("it has no audio")
            if not is_long(facts.duration_ms, self.threshold_s):
                shown = f"{facts.duration_ms / 1000:g} s"
                raise Unmade(f"its {shown} are not more than chunks.threshold, {self.threshold_s:g} s: it stays whole")
            silences = []
            if options.silences:
                with self._rooms.room(self._programs.identity) as room:
                    await self._programs.write(source.fd, silence_recipe(SILENCE_NOISE_DB, SILENCE_S), room)
                    silences = silences_in(_text(room / PRINCIPAL), facts.duration_ms)
            source.check()
        try:
            planned = chunks(_stem(node), facts.duration_ms, options, silences)
        except ValueError as error:
            raise Unmade(str(error)) from error
        at_ns = self._vfs.tree.clock.now_ns()
        return ChunkPlan(node.ino, sha256, facts.duration_ms, options.text, "", at_ns, planned)

    # --- extracting ----------------------------------------------------------------------------------------------

    async def extract(self, path: str, **wishes: Any) -> dict[str, Any]:
        """Have the chunks that are not there be written; returns the plan as `plan` does."""
        node = await self._file(path)
        self._placing.new_job(node)  # is it anybody's?
        plan = await self._planned(node, wishes)
        self._wanted[node.ino] = None
        self._wake.set()
        return _as_json(node, plan, is_writing=True)

    async def wait(self, ino: int, timeout_s: float) -> dict[str, Any]:
        """Wait until something becomes of the chunks of a file, or for *timeout_s*; then tell of them."""
        with trio.move_on_after(timeout_s):
            await self._changed.wait()
        node, plan = await file_at(self._vfs.tree, ino), await self._books.chunk_plan(ino)
        if node is None or node.unlinked or plan is None:
            raise NotFound("the file is gone, and its plan with it")
        return _as_json(node, plan, is_writing=ino in self._writing or ino in self._wanted)

    async def run(self) -> None:
        """Write what is wanted, for ever."""
        await self._books.begin_chunks_again()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forever, PART, self._next, self._problems)

    async def _next(self) -> None:
        while not self._wanted:
            await self._wake.wait()
            self._wake = trio.Event()
        ino = next(iter(self._wanted))
        self._writing.add(ino)
        del self._wanted[ino]
        try:
            with self._problems.aside(PART, ("chunks", ino), f"chunks of inode {ino}"):
                await self._write(ino)
        finally:
            self._writing.discard(ino)
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _write(self, ino: int) -> None:
        node, plan = await file_at(self._vfs.tree, ino), await self._books.chunk_plan(ino)
        if node is None or node.unlinked or plan is None:
            return
        session = self._placing.session(node)
        if not plan.job:
            plan = plan._replace(job=self._placing.new_job(node))
            await self._books.keep_plan(plan)
        left = [each for each in plan.chunks if not await self._is_there(plan, each)]
        try:
            async with self._sources.open(node, plan.sha256) as source:
                job = await self._placing.open_job(plan.job, session)
                self._placing.keep_job(job)
                limiter = trio.CapacityLimiter(self._jobs)
                async with trio.open_nursery() as nursery:
                    for chunk in left:
                        nursery.start_soon(self._one, plan, job, chunk, node, session, source.fd, limiter)
                source.check()
        except* (Gone, Changed, Waits, Unmade) as group:
            await self._failed(plan, left, group.exceptions[0])
        except* Exception as group:
            await self._failed(plan, left, group.exceptions[0])
            raise

    async def _failed(self, plan: ChunkPlan, chunks_left: list[Chunk], error: BaseException) -> None:
        """All that were to be written fail, for one reason; a change of the source makes all of them worthless."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        for chunk in chunks_left:
            await self._books.keep_chunk(plan.source, chunk._replace(status=Status.FAILED, reason=told(error)))
        self._tell()

    async def _is_there(self, plan: ChunkPlan, chunk: Chunk) -> bool:
        if chunk.status is not Status.COMPLETED:
            return False
        node = await file_at(self._vfs.tree, chunk.ino)
        return node is not None and not node.unlinked and node.sha256 == chunk.sha256 and is_committed(node)

    async def _one(
        self, plan: ChunkPlan, job: Job, chunk: Chunk, node: FileNode, session: Session, source: int,
        limiter: trio.CapacityLimiter,
    ) -> None:  # fmt: skip
        async with limiter:
            chunk = chunk._replace(status=Status.PROCESSING, reason="", ino=0, size_bytes=0, sha256=None)
            await self._books.keep_chunk(plan.source, chunk)
            self._tell()
            try:
                done = await self._extracted(plan, job, chunk, node, session, source)
            except Exception as error:
                if not is_expected(error):
                    raise
                done = chunk._replace(status=Status.FAILED, reason=told(error))
            await self._books.keep_chunk(plan.source, done)
            self._tell()

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


def _stem(node: FileNode) -> str:
    name = os.fsdecode(node.name)
    return _ODD.sub("_", name.rpartition(".")[0] or name)[:_STEM_CHARS] or "audio"


def _text(path: Any) -> str:
    if not path.is_file() or path.is_symlink():
        return ""
    if path.stat().st_size > _SILENCES_BYTES:
        raise Unmade("it has too many silences")
    return str(path.read_text("utf-8", "replace"))


def _as_json(node: FileNode, plan: ChunkPlan, *, is_writing: bool) -> dict[str, Any]:
    options, total = ChunkOptions.parsed(plan.options), len(plan.chunks)
    return {
        "path": node.path,
        "ino": node.ino,
        "sha256": plan.sha256.hex(),
        "is_current": node.sha256 == plan.sha256,
        "duration_s": plan.duration_ms / 1000,
        "length_s": options.length_s,
        "overlap_s": options.overlap_s,
        "silences": options.silences,
        "format": options.format,
        "job": plan.job or None,
        "writing": is_writing,
        "total": total,
        "chunks": [
            {
                "index": each.number,
                "total": total,
                "start_s": each.start_ms / 1000,
                "end_s": each.end_ms / 1000,
                "duration_s": each.duration_ms / 1000,
                "name": each.name,
                "status": each.status.value,
                "reason": each.reason,
                "size_bytes": each.size_bytes,
                "sha256": each.sha256.hex() if each.sha256 is not None else None,
            }
            for each in plan.chunks
        ],
    }


__all__ = ["Chunking"]
