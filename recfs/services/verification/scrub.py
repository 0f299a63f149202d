"""The background scrub: verifies all files round after round, slowly, in its hours, and yields to everybody.

How far it is, is kept in the catalogue, so that a restart goes on there; a file that it was in the middle of is begun
again. Files are taken in the order of their inode numbers: new ones are met in the same round, and none twice.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.verification.scrubbing import Pace, Round, Window
from recfs.core.verification.verdicts import Level, Verdict
from recfs.state.problems import forever
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.fs.verification.verifier import Verified, Verifier
    from recfs.state.tree import Tree

PART = "scrub"
FACT = "scrub"
"""Where the catalogue keeps the round."""
PAGE = 200
LOOK_S = 60.0
"""How often it is looked whether there is something to do: the wall clock may have jumped."""
KEEP_S = 10.0
"""How often the round is written down."""
YIELD_S = 0.25
PATIENCE_S = 60.0
"""So long it waits for others at a time, and then reads a piece all the same: some stores are never idle."""


class Scrub:
    """One service; reads one file at a time."""

    def __init__(
        self, verifier: Verifier, tree: Tree, *, level: Level, rate: float, window: str, period_s: float,
        is_busy: Callable[[], bool],
    ) -> None:  # fmt: skip
        """*is_busy*: whether somebody else needs the disk more."""
        self._verifier = verifier
        self._tree = tree
        self._level = level
        self.set_pace(rate, window, period_s)
        self._is_busy = is_busy
        self._round: Round | None = None
        self._kept_s = float("-inf")
        self._doing = "begins"
        self._at: str | None = None
        self._since_s = 0.0

    def set_pace(self, rate: float, window: str, period_s: float) -> None:
        """How fast it reads, in which hours, and how often a round begins; from the next piece on. Atomic."""
        self._pace = Pace(rate)
        self._window = Window.parse(window) if window else None
        self._period_s = period_s

    # --- as a pace (tier/objectchecks.py) ----------------------------------------------------------------------------

    @property
    def slice_bytes(self) -> int:
        """How much to read at a time."""
        return self._pace.slice_bytes

    async def took(self, read_bytes: int) -> None:
        """Wait, after so much was read: for the rate, for others, and until the window is open again."""
        await trio.sleep(self._pace.pause_s(trio.current_time(), read_bytes))
        with trio.move_on_after(PATIENCE_S):
            while self._is_busy():
                self._doing = "yields to others"
                await trio.sleep(YIELD_S)
        while (closed_s := self._closed_s()) > 0:
            self._doing = "waits for its hours"
            await trio.sleep(min(closed_s, LOOK_S))
        self._doing = "reads"

    def _closed_s(self) -> float:
        """How long the window is closed. In local time, by the wall clock: a jump of that shifts it, and no more."""
        if self._window is None:
            return 0.0
        now = datetime.fromtimestamp(self._tree.clock.now_ns() / 1e9).astimezone()
        return self._window.opens_in_s(now.hour * 3600 + now.minute * 60 + now.second + now.microsecond / 1e6)

    # --- the service ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Scrub for ever."""
        await forever(PART, self._step, self._tree.behind.problems)

    async def _step(self) -> None:
        if self._round is None:
            self._round = Round.parse((await self._tree.catalogue.meta()).get(FACT))
        steady = self._tree.clock.steady_ns()
        due_s = self._round.due_in_s(steady, self._period_s)
        wait_s = max(due_s, self._closed_s())
        if wait_s > 0:
            self._doing = "waits for the next round" if due_s > 0 else "waits for its hours"
            await trio.sleep(min(wait_s, LOOK_S))
            return
        self._round = self._round.next(steady)
        self._doing = "reads"
        await self._page(self._round)

    async def _page(self, at: Round) -> None:
        found = await self._tree.catalogue.files(at.after_ino, PAGE)
        for ino in found:
            node = await file_at(self._tree, ino)
            if node is not None:
                self._at = node.path
                at = self._counted(at, await self._verifier.verify(node, self._level, self))
            at = replace(at, after_ino=ino)
            self._keep(at)
            await self.took(0)
        self._at = None
        if len(found) < PAGE:
            at = at.over(self._tree.clock.steady_ns())
        self._keep(at, now=True)
        await self._tree.behind.flush()

    @staticmethod
    def _counted(at: Round, result: Verified) -> Round:
        read_bytes = at.read_bytes + result.read_bytes + result.remote_bytes
        looked = result.verdict is not Verdict.SKIPPED
        return replace(
            at, files=at.files + looked, read_bytes=read_bytes, problems=at.problems + result.verdict.is_problem
        )

    def _keep(self, at: Round, *, now: bool = False) -> None:
        self._round = at
        if now or trio.current_time() - self._kept_s >= KEEP_S:
            self._kept_s = trio.current_time()
            self._tree.behind.meta(FACT, at.text())

    def as_json(self) -> dict[str, Any]:
        """How far it is, for `recfs status`. Atomic."""
        at, root, now = self._round or Round(), self._tree.root, self._tree.clock.steady_ns()
        return {
            "level": self._level.value,
            "rate": self._pace.rate,
            "window": str(self._window) if self._window is not None else None,
            "period_s": self._period_s,
            "doing": self._doing,
            "at": self._at,
            "files": at.files,
            "total_files": root.rfiles,
            "read_bytes": at.read_bytes,
            "total_bytes": root.rbytes,
            "problems": at.problems,
            "began_s_ago": (now - at.began_ns) / 1e9 if at.began_ns else None,
            "ended_s_ago": (now - at.ended_ns) / 1e9 if at.ended_ns else None,
        }


__all__ = ["Scrub"]
