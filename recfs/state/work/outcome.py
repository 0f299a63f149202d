"""Work on many files side by side, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from recfs.errors import RecfsError, first_error
from recfs.state.problems import reason_of

log = logging.getLogger("recfs.s3")

MOST_NAMED = 1000
"""Files an answer names at most; the rest is counted."""


@asynccontextmanager
async def side_by_side() -> AsyncIterator[trio.Nursery]:
    """A nursery whose first RecfsError comes out as itself: a client has no use for a group of them."""
    refused: RecfsError | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except* RecfsError as group:
        refused = first_error(group)
    if refused is not None:
        raise refused


class Outcome:
    """What came of a method for many files."""

    def __init__(self) -> None:
        self.files = 0
        self.done_bytes = 0
        self.already = 0
        """Files that were as wanted before."""
        self._kept: list[dict[str, str]] = []
        self._kept_count = 0

    def did(self, size_bytes: int) -> None:
        """Count one file done."""
        self.files += 1
        self.done_bytes += size_bytes

    def keep(self, path: str, reason: str) -> None:
        """Record a file left alone, with the reason."""
        self._kept_count += 1
        if len(self._kept) < MOST_NAMED:
            self._kept.append({"path": path, "reason": reason})

    def failed(self, path: str, error: Exception) -> None:
        """Record a file that failed, whatever it met; the others go on."""
        if not isinstance(error, (RecfsError, OSError)):
            log.error("%s: unexpected error", path, exc_info=error)
        self.keep(path, reason_of(error).removeprefix(f"{path}: "))

    def as_json(self) -> dict[str, Any]:
        """As JSON. `kept` names MOST_NAMED files at most, `kept_files` counts them all."""
        return {
            "files": self.files,
            "bytes": self.done_bytes,
            "already": self.already,
            "kept": self._kept,
            "kept_files": self._kept_count,
        }
