"""What is made of one file's plan of chunks, and told of it; nothing here waits, and what is long runs in a thread."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import trio

from recfs.core.media.chunks import ChunkOptions, chunks, silences_in
from recfs.core.media.derived import Status
from recfs.services.deriving.reasons import Unmade

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.core.media.chunks import Chunk, ChunkPlan, Silence
    from recfs.state.nodes import FileNode

MOST_TOLD: Final = 100
"""Of the chunks that have changed so many are told of at a time, the last ones."""
SILENCES_BYTES: Final = 16 << 20
"""Of ffmpeg's text: `MAX_SILENCES` take 160 bytes each, and twice that is read."""
_STEM_CHARS: Final = 100
_ODD: Final = re.compile(r"[^A-Za-z0-9._-]+")


class Extraction:
    """The chunks of one file that are being written: how many are how far, and the last that have changed."""

    def __init__(self, plan: ChunkPlan) -> None:
        self.counts = Counter(each.status for each in plan.chunks)
        self.changed: dict[int, Chunk] = {}
        self.news = trio.Event()

    def note(self, before: Status, chunk: Chunk) -> None:
        """One has changed. Atomic."""
        self.counts[before] -= 1
        self.counts[chunk.status] += 1
        self.changed.pop(chunk.number, None)
        self.changed[chunk.number] = chunk
        while len(self.changed) > MOST_TOLD:
            del self.changed[next(iter(self.changed))]
        self.tell()

    def fail(self, *, done: bool) -> None:
        """All have failed that are not completed; *done*: those that are, too. Atomic."""
        completed = 0 if done else self.counts[Status.COMPLETED]
        total = self.counts.total()
        self.counts = Counter({Status.COMPLETED: completed, Status.FAILED: total - completed})
        self.changed.clear()
        self.tell()

    def tell(self) -> None:
        """Whoever waits looks again. Atomic."""
        self.news.set()
        self.news = trio.Event()


def planned(stem: str, duration_ms: int, options: ChunkOptions, silences_at: Path | None) -> tuple[Chunk, ...]:
    """Cut audio; *silences_at*: where ffmpeg wrote down its silences, if it did. Raises Unmade or OSError. Blocks."""
    try:
        silences: list[Silence] = []
        if silences_at is not None:
            silences = silences_in(_text(silences_at), duration_ms)
        return chunks(stem, duration_ms, options, silences)
    except ValueError as error:
        raise Unmade(str(error)) from error


def stem(node: FileNode) -> str:
    """What the names of a file's chunks begin with."""
    name = os.fsdecode(node.name)
    return _ODD.sub("_", name.rpartition(".")[0] or name)[:_STEM_CHARS] or "audio"


def _text(path: Path) -> str:
    try:
        # What a confined program left there: no link of its making is followed, no pipe waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with open(fd, "rb") as file:
        data = file.read(SILENCES_BYTES + 1)
    if len(data) > SILENCES_BYTES:
        raise Unmade("it has too many silences: cut it without them")
    return data.decode("ascii", "replace")


def progress_as_json(node: FileNode, plan: ChunkPlan, work: Extraction) -> dict[str, Any]:
    """What `chunks_wait` tells while chunks are written: bounded, whatever the plan. *plan*: without them is enough."""
    return {
        "path": node.path,
        "ino": node.ino,
        "job": plan.job or None,
        "writing": True,
        "total": work.counts.total(),
        "counts": {status.value: count for status, count in work.counts.items() if count},
        "changed": [_chunk_as_json(each, work.counts.total()) for each in work.changed.values()],
    }


def _chunk_as_json(each: Chunk, total: int) -> dict[str, Any]:
    return {
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


def as_json(path: str, sha256: bytes | None, plan: ChunkPlan, *, is_writing: bool) -> dict[str, Any]:
    """All of a plan; *path*, *sha256*: those of the file now. Of a long plan it is called in a thread."""
    options, total = ChunkOptions.parsed(plan.options), len(plan.chunks)
    return {
        "path": path,
        "ino": plan.source,
        "sha256": plan.sha256.hex(),
        "is_current": sha256 == plan.sha256,
        "duration_s": plan.duration_ms / 1000,
        "length_s": options.length_s,
        "overlap_s": options.overlap_s,
        "silences": options.silences,
        "format": options.format,
        "job": plan.job or None,
        "writing": is_writing,
        "total": total,
        "chunks": [_chunk_as_json(each, total) for each in plan.chunks],
    }


__all__ = ["MOST_TOLD", "Extraction", "as_json", "planned", "progress_as_json", "stem"]
