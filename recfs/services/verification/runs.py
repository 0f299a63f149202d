"""Verifications that commands ask for: each walks over files, counts, and names what it finds."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.verification.scrubbing import Pace
from recfs.core.verification.verdicts import Level, Verdict
from recfs.fs.verification.verifier import Pacer
from recfs.state.nodes import DirNode
from recfs.state.problems import reason_of
from recfs.state.walk import Walk
from recfs.state.work.outcome import MOST_NAMED
from recfs.state.work.runs import Runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.fs.verification.verifier import Verified, Verifier
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree
    from recfs.state.walk import Found

MOST_RUNS = 8
"""At the same time."""
NS = 1_000_000_000


class Tally:
    """What came of many files."""

    def __init__(self) -> None:
        self.verdicts: Counter[Verdict] = Counter()
        self.read_bytes = 0
        self.remote_bytes = 0
        self.flaky = 0

    def add(self, result: Verified) -> None:
        """Count one."""
        self.verdicts[result.verdict] += 1
        self.read_bytes += result.read_bytes
        self.remote_bytes += result.remote_bytes
        self.flaky += result.is_flaky

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        counts: dict[str, Any] = {verdict.value: self.verdicts[verdict] for verdict in Verdict}
        return counts | {
            "files": self.verdicts.total(),
            "flaky": self.flaky,
            "read_bytes": self.read_bytes,
            "remote_bytes": self.remote_bytes,
        }


class Run:
    """One verification of a file, or of all files below a directory."""

    def __init__(
        self,
        verifier: Verifier,
        tree: Tree,
        top: DirNode | FileNode,
        level: Level,
        *,
        since_ns: int,
        pacer: Pacer,
    ) -> None:
        self._verifier = verifier
        self._tree = tree
        self._top = top
        self._level = level
        self._since_ns = since_ns
        self._pacer = pacer
        self._tally = Tally()
        self._named = 0
        self._fresh: list[dict[str, str]] = []
        self._began_s = trio.current_time()
        self._at = ""
        self.failed: str | None = None
        self.scope = trio.CancelScope()
        self.asked_s = trio.current_time()
        self.ended = trio.Event()

    async def all(self) -> None:
        """Look at every file. What one of them raises is told as its own."""
        try:
            with self.scope:
                async for found in Walk(self._tree, self._top):
                    if found.ctime_ns >= self._since_ns:
                        await self._one(found)
            await self._tree.behind.flush()
        except Exception as error:
            self.failed = reason_of(error)
        finally:
            self.ended.set()

    async def _one(self, found: Found) -> None:
        node = await found.node()
        if node is None:
            return
        self._at = found.path
        result = await self._verifier.verify(node, self._level, self._pacer)
        self._tally.add(result)
        if result.verdict.is_problem:
            self._named += 1
            if self._named <= MOST_NAMED:
                self._fresh.append({"path": result.path, "verdict": result.verdict.value, "reason": result.reason})

    def as_json(self) -> dict[str, Any]:
        """How far it is; `found` has what was found since this was asked for last."""
        fresh, self._fresh = self._fresh, []
        top = self._top
        rfiles, rbytes = (top.rfiles, top.rbytes) if isinstance(top, DirNode) else (1, top.bytes)
        everything = not self._since_ns  # else nobody knows how much there is
        return self._tally.as_json() | {
            "level": self._level.value,
            "ended": self.ended.is_set(),
            "interrupted": self.scope.cancel_called,
            "failed": self.failed,
            "at": self._at,
            "took_s": trio.current_time() - self._began_s,
            "total_files": rfiles if everything else None,
            "total_bytes": rbytes if everything else None,
            "found": fresh,
            "unnamed": max(0, self._named - MOST_NAMED),
        }


class Verifications(Runs[Run]):
    """All of them, by number."""

    def __init__(self, verifier: Verifier, tree: Tree, is_busy: Callable[[], bool]) -> None:
        """*is_busy*: whether somebody writes."""
        super().__init__("verification", MOST_RUNS)
        self._verifier = verifier
        self._tree = tree
        self._is_busy = is_busy

    def as_json(self) -> dict[str, int]:
        """What was found since the daemon's start, by whoever verified, for `recfs status`. Atomic."""
        verifier = self._verifier
        words = (Verdict.CORRUPT, Verdict.REPAIRED, Verdict.UNREADABLE)
        return {word.value: verifier.counts[word] for word in words} | {"flaky": verifier.flaky}

    def new(self, top: DirNode | FileNode, level: Level, *, since_s: float | None, rate: float | None) -> Run:
        """A run that nobody has begun; *since_s*: only of files that were changed that recently."""
        since_ns = 0
        if since_s is not None and math.isfinite(since_s):
            since_ns = self._tree.clock.now_ns() - round(since_s * NS)
        pacer = Pacer(Pace(rate), self._is_busy)
        return Run(self._verifier, self._tree, top, level, since_ns=since_ns, pacer=pacer)


__all__ = ["Run", "Verifications"]
