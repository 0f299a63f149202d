"""ffprobe and ffmpeg, as they are run for products and chunks: with what bounds, and what their ends mean."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from recfs.core.media.formats import as_words, reading
from recfs.core.media.recipes import ASKED, facts_of
from recfs.media.runner import INPUT, Ended, Limits
from recfs.services.deriving.reasons import Unmade

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.core.media.recipes import Facts, Recipe
    from recfs.media.runner import Outcome, Runner

MEMORY_BYTES: Final = 4 << 30
"""Of address space: encoding video takes more than looking at it."""
LOOKING: Final = Limits()
"""Of ffprobe."""
THREADS: Final = 2
"""Of each ffmpeg."""
_ENDS: Final = {
    Ended.OUT_OF_TIME: "it took longer than deriving.timeout",
    Ended.OUT_OF_CPU: "it took longer than deriving.timeout",
    Ended.TOO_MUCH: "it would be larger than deriving.max_output",
}


@dataclass(slots=True)
class Programs:
    """What runs them."""

    runner: Runner
    timeout_s: float
    max_output: int

    @property
    def identity(self) -> tuple[int, int] | None:
        """Whose the directory is that `write` gets, uid and gid; None: the daemon's."""
        return self.runner.identity

    async def ready(self) -> None:
        """Raise MediaUnavailable, which says what is missing, where nothing can be made."""
        for name in ("ffprobe", "ffmpeg"):
            await self.runner.program(name)

    async def facts(self, source: int) -> Facts:
        """What is in a file. Raises Unmade, MediaUnavailable."""
        outcome = await self.runner.run("ffprobe", [*ASKED, *as_words(reading()), INPUT], source, LOOKING)
        _require_well(outcome, "ffprobe")
        try:
            return facts_of(outcome.output)
        except ValueError as error:
            raise Unmade(f"ffprobe gave no answer: {error}") from error

    async def write(self, source: int, recipe: Recipe, room: Path) -> None:
        """Have ffmpeg do what a recipe says. Raises Unmade, MediaUnavailable, OSError."""
        arguments = [
            "-v", "error", "-nostdin", "-nostats", *recipe.before, *as_words(reading()), "-i", INPUT,
            "-threads", str(THREADS), "-filter_threads", str(THREADS), *recipe.after,
        ]  # fmt: skip
        limits = Limits(
            timeout_s=self.timeout_s, cpu_s=max(1, round(self.timeout_s * THREADS)), memory_bytes=MEMORY_BYTES,
            file_bytes=self.max_output,
        )  # fmt: skip
        fd = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            outcome = await self.runner.run("ffmpeg", arguments, source, limits, workspace_fd=fd)
        finally:
            os.close(fd)
        _require_well(outcome, "ffmpeg")


def _require_well(outcome: Outcome, name: str) -> None:
    if outcome.ended is Ended.WELL:
        return
    if outcome.ended is Ended.CRASHED:  # by its own fault, or killed by somebody, such as a machine short of memory
        raise Unmade(f"{name} was ended by signal {-(outcome.code or 0)}", again=True)
    said = outcome.said.strip().splitlines()
    raise Unmade(_ENDS.get(outcome.ended) or f"{name}: {said[-1] if said else f'exit code {outcome.code}'}")


__all__ = ["Programs"]
