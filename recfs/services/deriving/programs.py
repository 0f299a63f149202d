"""ffmpeg, as it is run for products and chunks: with what bounds, and what its ends mean."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from recfs.core.media.formats import as_words, reading
from recfs.core.media.recipes import progress_us
from recfs.core.units import format_size
from recfs.errors import MediaUnavailable, OutOfSpace
from recfs.media.runner import INPUT, Ended, Limits
from recfs.services.deriving.reasons import Refused, Unmade, told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recfs.core.media.recipes import Recipe
    from recfs.media.runner import Outcome, Runner

MEMORY_BYTES: Final = 4 << 30
"""Of address space: encoding video takes more than looking at it."""
THREADS: Final = 2
"""Of each ffmpeg."""
LEAST_BYTES: Final = 1 << 20
"""With less room than that nothing is run."""
MISSING_S: Final = 60.0
"""How often it is looked whether there is a program, where there was none."""
PROGRESS: Final = "progress"
"""The file in which ffmpeg says how far it is (-progress, ffmpeg(1))."""
_TOLD_BYTES: Final = 1024
_ENDS: Final = {
    Ended.OUT_OF_TIME: "it took longer than deriving.timeout",
    Ended.OUT_OF_CPU: "it took longer than deriving.timeout",
    Ended.TOO_MUCH: "it would be larger than deriving.max_output",
}


@dataclass(slots=True)
class Programs:
    """What runs them."""

    runner: Runner
    room: Callable[[], int]
    """How many bytes of the disk programs may fill just now."""
    timeout_s: float
    max_output: int
    missing: str = ""
    """Which program there was none of, the last time that one was needed; empty: none is missing."""
    _missing_until_s: float = float("-inf")

    @property
    def identity(self) -> tuple[int, int] | None:
        """Whose the directory is that `write` gets, uid and gid; None: the daemon's."""
        return self.runner.identity

    async def ready(self) -> None:
        """Raise MediaUnavailable, which says what is missing, where nothing can be made.

        What was missing a moment ago is not looked for again.
        """
        if trio.current_time() < self._missing_until_s:
            raise MediaUnavailable(self.missing)
        try:
            for name in ("ffprobe", "ffmpeg"):
                await self.runner.program(name)
        except MediaUnavailable as error:
            self.missing, self._missing_until_s = told(error), trio.current_time() + MISSING_S
            raise
        self.missing = ""

    def look_again(self) -> None:
        """Somebody asks: what is missing is looked for at once. Atomic."""
        self._missing_until_s = float("-inf")

    async def write(self, source: int, recipe: Recipe, room: Path) -> None:
        """Have ffmpeg do what a recipe says. Raises Unmade, MediaUnavailable, OutOfSpace or OSError."""
        left = self.room()
        if left < LEAST_BYTES:
            raise OutOfSpace("nothing is made while the disk is down to min_free")
        arguments = [
            "-v", "error", "-nostdin", "-y", "-nostats", "-progress", f"file:{PROGRESS}",
            *recipe.before, *as_words(reading()), "-i", INPUT,
            "-threads", str(THREADS), "-filter_threads", str(THREADS), *recipe.after,
        ]  # fmt: skip
        limits = Limits(
            timeout_s=self.timeout_s, cpu_s=max(1, round(self.timeout_s * THREADS)), memory_bytes=MEMORY_BYTES,
            file_bytes=min(self.max_output, left),
        )  # fmt: skip
        fd = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            outcome = await self.runner.run("ffmpeg", arguments, source, limits, workspace_fd=fd)
        finally:
            os.close(fd)
        if outcome.ended is Ended.TOO_MUCH and left < self.max_output:
            raise OutOfSpace(f"{format_size(left)} above min_free have not been enough for what ffmpeg writes")
        _require_well(outcome)


def done_ms(room: Path) -> int:
    """How much of the source the ffmpeg that writes there has done, in milliseconds; 0: nobody knows."""
    try:
        # What a confined program left there: no link of its making is followed, no pipe waited for.
        fd = os.open(room / PROGRESS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        told = os.pread(fd, _TOLD_BYTES, max(0, os.fstat(fd).st_size - _TOLD_BYTES))
    except OSError:
        return 0
    finally:
        os.close(fd)
    return (progress_us(told.decode("ascii", "replace")) or 0) // 1000


def _require_well(outcome: Outcome) -> None:
    if outcome.ended is Ended.WELL:
        return
    if outcome.ended is Ended.CRASHED:  # by its own fault, or killed by somebody, such as a machine short of memory
        raise Unmade(f"ffmpeg was ended by signal {-(outcome.code or 0)}", again=True)
    if outcome.ended in _ENDS:
        raise Unmade(_ENDS[outcome.ended])
    said = outcome.said.strip().splitlines()
    raise Refused(f"ffmpeg: {said[-1] if said else f'exit code {outcome.code}'}")


__all__ = ["MISSING_S", "Programs", "done_ms"]
