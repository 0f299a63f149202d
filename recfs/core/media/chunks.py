"""How long audio is cut into chunks, for transcription: where each begins and ends, and what it is called.

All times are whole milliseconds: chunks of one plan meet exactly, or overlap by exactly what was asked for.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from recfs.core.globs import Path, PathGlob
from recfs.core.media.derived import Status, glob_of_sources

FORMATS: Final = ("mp3", "wav")
MAX_CHUNKS: Final = 10_000
SHORTEST_S: Final = 1.0
"""What is left at the end and is shorter belongs to the chunk before."""
SILENCE_NOISE_DB: Final = -35
SILENCE_S: Final = 0.3
"""What is quieter for so long is a silence, in which may be cut."""
MAX_SILENCES: Final = 50_000
"""A pause every two seconds makes 43,200 in a day; what has more is no speech, and is not cut at silences."""
_SILENCE = re.compile(r"silence_(start|end)=(-?[0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How it is cut. Raises ValueError."""

    length_s: float = 300.0
    """Of a chunk, before it is moved to a silence."""
    overlap_s: float = 0.0
    """By how much each begins before the end of the one before."""
    silences: bool = False
    """Whether it is cut at the middle of the nearest silence, at most a tenth of the length away."""
    format: str = "mp3"

    def __post_init__(self) -> None:
        if not SHORTEST_S <= self.length_s <= 86_400.0:
            raise ValueError(f"length {self.length_s:g} s: a chunk has between 1 s and 1 d")
        if not 0 <= self.overlap_s <= self.length_s / 2:
            raise ValueError(f"overlap {self.overlap_s:g} s: at most half of the length, {self.length_s / 2:g} s")
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r}: chunks are {' or '.join(FORMATS)}")

    @property
    def text(self) -> str:
        """All of it: equal if that is."""
        told = {"length": self.length_s, "overlap": self.overlap_s, "silences": self.silences, "format": self.format}
        return json.dumps(told, sort_keys=True)

    @classmethod
    def parsed(cls, text: str) -> ChunkOptions:
        """Read what `text` wrote."""
        told = json.loads(text)
        return cls(told["length"], told["overlap"], told["silences"], told["format"])


@dataclass(frozen=True, slots=True)
class ChunkRule:
    """Files whose plan is made as soon as it is known what is in them. Raises ValueError that says what to write."""

    pattern: str
    _glob: PathGlob = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_glob", glob_of_sources(self.pattern))

    def takes(self, path: Path) -> bool:
        """Tell whether it is for the file at this path in the mount."""
        return self._glob.matches(path)


class Chunk(NamedTuple):
    """One of them."""

    number: int
    """From 0."""
    start_ms: int
    end_ms: int
    name: str
    status: Status = Status.PENDING
    reason: str = ""
    ino: int = 0
    """Of the file that it was written to; 0: none."""
    size_bytes: int = 0
    sha256: bytes | None = None

    @property
    def duration_ms(self) -> int:
        """How long it is."""
        return self.end_ms - self.start_ms


class ChunkPlan(NamedTuple):
    """How one version of one file is cut."""

    source: int
    """Inode number."""
    sha256: bytes
    """Of the bytes it was made for."""
    duration_ms: int
    options: str
    """`ChunkOptions.text`."""
    job: str
    """The temp job that its chunks are written to, as a path in the mount; empty: none yet."""
    at_ns: int
    """When it was made (`Clock.now_ns`)."""
    chunks: tuple[Chunk, ...]


Silence = tuple[int, int]
"""Beginning and end, in milliseconds."""


def silences_in(text: str, duration_ms: int) -> list[Silence]:
    """Read what ffmpeg's filters silencedetect and ametadata wrote (ffmpeg-filters(1)): in order, within the audio.

    One that has not ended at the end of the audio ends there. Raises ValueError for more than `MAX_SILENCES`.
    """
    found: list[Silence] = []
    start: int | None = None
    for each in _SILENCE.finditer(text):  # one at a time: a thread that does this lets others run in between
        kind, seconds = each.groups()
        if len(found) >= MAX_SILENCES:
            raise ValueError(f"it has more than {MAX_SILENCES:,} silences: cut it without them")
        at = min(max(0, round(float(seconds) * 1000)), duration_ms)
        if kind == "start":
            start = at
        elif start is not None:
            found.append((start, at))
            start = None
    if start is not None:
        found.append((start, duration_ms))
    return sorted(silence for silence in found if silence[0] < silence[1])


def cuts(duration_ms: int, length_ms: int, silences: Sequence[Silence] = ()) -> list[int]:
    """Give the moments at which is cut: the end of each chunk, the last one that of the audio.

    With *silences* each is moved to the middle of the nearest one that is at most a tenth of the length away; the next
    is counted from there. What would be left at the end and is shorter than `SHORTEST_S` goes with the last.
    """
    middles = sorted((start + end) // 2 for start, end in silences)
    reach, shortest, found, at = length_ms // 10, round(SHORTEST_S * 1000), [], 0
    while at + length_ms + shortest <= duration_ms:
        at = _nearest(middles, at + length_ms, reach, duration_ms - shortest)
        found.append(at)
    return [*found, duration_ms]


def _nearest(middles: Sequence[int], goal: int, reach: int, latest: int) -> int:
    """Give the one (of sorted ones) that is nearest to *goal*, the earlier of two; *goal* where none is in reach."""
    index = bisect_left(middles, goal)
    near = [each for each in middles[max(0, index - 1) : index + 1] if abs(each - goal) <= reach and each <= latest]
    return min(near, key=lambda each: abs(each - goal), default=goal)


def chunks(stem: str, duration_ms: int, options: ChunkOptions, silences: Sequence[Silence] = ()) -> tuple[Chunk, ...]:
    """Plan the chunks of audio of this duration; none of audio that has none. Raises ValueError for too many.

    *stem*: what their names begin with. The names sort as the chunks follow one another.
    """
    if duration_ms <= 0:
        return ()
    length_ms = round(options.length_s * 1000)
    # At silences they may be shorter, by a tenth: then there may be too many although as many of this length would fit.
    ends = cuts(duration_ms, length_ms, silences if options.silences else ()) if _fits(duration_ms, length_ms) else []
    if not 0 < len(ends) <= MAX_CHUNKS:
        raise ValueError(f"more than {MAX_CHUNKS:,} chunks of {options.length_s:g} s: choose longer ones")
    overlap, digits = round(options.overlap_s * 1000), max(3, len(str(len(ends) - 1)))
    return tuple(
        Chunk(number, max(0, begin - overlap), end, f"{stem}_chunk_{number:0{digits}d}.{options.format}")
        for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    )


def _fits(duration_ms: int, length_ms: int) -> bool:
    return duration_ms <= MAX_CHUNKS * length_ms


def is_long(duration_ms: int, threshold_s: float) -> bool:
    """Whether audio is cut at all."""
    return duration_ms > threshold_s * 1000


__all__ = [
    "FORMATS",
    "MAX_CHUNKS",
    "MAX_SILENCES",
    "SILENCE_NOISE_DB",
    "SILENCE_S",
    "Chunk",
    "ChunkOptions",
    "ChunkPlan",
    "ChunkRule",
    "Silence",
    "chunks",
    "cuts",
    "is_long",
    "silences_in",
]
