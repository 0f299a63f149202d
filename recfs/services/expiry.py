"""Recordings that expire: what `core/retention.py` says of each is carried out, one after the other.

Expiring, in the order that a death may end at any step:
1. the row says `expired`: nothing new comes into the recording, and it can be read until its grace is over;
2. the row says `removing`, durably, and nothing of it is opened any more;
3. file by file, as any removal: name and charge go in one batch with the garbage row and the deletion in S3's journal,
   then the bytes (to the trash, where there is one), then the garbage row;
4. the directory's own row, and with it what was kept of the recording.
Whoever dies in between goes on at the next start: step 3 and 4 find what is left. Nothing of a recording goes while a
file in it is open.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from recfs.core.layout import Role
from recfs.core.life import recordings_since, unrecorded
from recfs.core.retention import UNUSED, Action, Candidate, Seen, held_up, horizon, is_of_interest, judge, judged, plan
from recfs.core.sweeping import Schedule
from recfs.core.units import format_size
from recfs.errors import FsError, Stale
from recfs.fs.lives import life_of
from recfs.ports.sweep import Progress, Sweep
from recfs.state.nodes import DirNode, is_gone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import trio

    from recfs.core.life import Status
    from recfs.core.retention import Now, Policy, Use, Verdict
    from recfs.fs.vfs import Vfs
    from recfs.ports.reports import Reports, Snapshot

log = logging.getLogger("recfs.expiry")

PART = "sweeping"
PATIENCE_S = 3600.0
"""A recording may have a great many files."""
_DONE = {Action.EXPIRE: "expired", Action.REMOVE: "removed", Action.REVIVE: "active again"}
Planned = tuple[Candidate, "Verdict"]


class Expiry:
    """Has recordings expire, and removes them."""

    def __init__(self, vfs: Vfs, reports: Reports, *, interval_s: float) -> None:
        self._vfs = vfs
        self._reports = reports
        self.interval_s = interval_s
        self._problems = vfs.behind.problems
        self._removing: set[int] = set()
        """Recordings that a run is removing right now."""
        self._progress = Progress()

    def sweep(self) -> Sweep[Seen, Sequence[Planned]]:
        """What it looks at every `recordings.sweep_interval`, and once at the start."""
        every = Schedule(self.interval_s, at_once=True, patience_s=PATIENCE_S)
        return Sweep(
            "expired", PART, every, self.look, self._decide, self._act, mounted=True, progress=self._progress
        )  # fmt: skip

    def _decide(self, seen: Seen) -> Sequence[Planned] | None:
        return plan(self._vfs.lives.policy, seen)

    async def look(self) -> Seen:
        """The recordings of which anything is to be said now; of a great many, so a thread goes through them."""
        await self._vfs.behind.flush()
        lives = self._vfs.lives
        now = lives.now
        return Seen(now, await self._reports.ask(_of_interest, lives.policy, now, lives.uses()))

    async def held_up(self) -> dict[int, str]:
        """Directories that hold what had been a recording and is not to go with them, by number, and why.

        In an expired recording nothing comes to be so any more: it takes nothing new.
        """
        await self._vfs.behind.flush()
        return await self._reports.ask(_held_up, self._vfs.lives.now)

    async def run(self, *, dry_run: bool) -> list[dict[str, Any]]:
        """Do now what is due, or (dry) say what that is; each recording of which something is to be said.

        Those that are due and stay all the same are named, too, with the reason.
        """
        seen = await self.look()
        told = []
        for candidate, verdict in judged(self._vfs.lives.policy, seen):
            if verdict.action is not Action.NONE:
                if not dry_run:
                    told += await self._each(candidate)
                else:
                    told.append(_entry(candidate, verdict))
            elif verdict.due_ns is not None and verdict.due_ns <= seen.now.steady_ns:
                told.append(_entry(candidate, verdict))
        return told

    async def _act(self, planned: Sequence[Planned], going_on: trio.Nursery) -> str:
        told, self._progress.total = [], len(planned)
        for candidate, _ in planned:
            if self._progress.is_stopping:
                break
            told += await self._each(candidate)
            self._progress.done += 1
        count = Counter(each["action"] for each in told)
        return ", ".join(f"{count[action]:,} {word}" for action, word in _DONE.items() if count[action])

    async def _each(self, candidate: Candidate) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        path = os.fsdecode(b"/".join(candidate.path))
        with self._problems.aside(PART, ("recording", candidate.ino), path):  # the others are other people's
            told += await self._look_at(candidate.ino)
        return told

    async def _look_at(self, ino: int) -> list[dict[str, Any]]:
        tree = self._vfs.tree
        try:
            folder = tree.nodes.get(ino) or await tree.get(ino)
        except Stale:
            return []
        if not isinstance(folder, DirNode) or folder.role is not Role.RECORDING or ino in self._removing:
            return []  # it is no recording any more, or another run is about it
        status = life_of(folder).status
        held = await self.held_up()
        # What it holds up was asked before another run had it take nothing new: the next look does it.
        if is_gone(folder) or not _is_still(folder, status) or ino in self._removing:
            return []
        lives, holds = self._vfs.lives, held.get(ino, "")
        use = lives.uses().get(ino, UNUSED)._replace(holds=holds)
        candidate = Candidate(ino, tuple(folder.parts()), life_of(folder), use)
        verdict = lives.carry_out(folder, holds)
        entry = _entry(candidate, verdict)
        if verdict.action is Action.REMOVE:
            self._removing.add(ino)
            try:
                await self._remove(folder, entry)
            finally:
                self._removing.discard(ino)
        elif verdict.action is not Action.NONE:
            await self._vfs.behind.durable(ino)
            log.info("recording %s: %s (%s)", entry["path"], verdict.action, verdict.reason)
        return [entry]

    async def _remove(self, folder: DirNode, entry: dict[str, Any]) -> None:
        await self._vfs.behind.durable(folder.ino)  # from here on it is not to be had back
        size = folder.rbytes
        try:
            await self._vfs.trees.remove(folder, keep=self._is_used)
        except FsError as error:
            entry["action"], entry["reason"] = Action.NONE.value, f"{entry['reason']}, but it was held up: {error}"
            return
        await self._vfs.behind.durable()
        log.info("recording %s: removed (%s), %s", entry["path"], entry["reason"], format_size(size))

    def _is_used(self, folder: DirNode) -> bool:
        return folder.ino in self._vfs.lives.uses()


def _is_still(folder: DirNode, status: Status) -> bool:
    """Whether it is a recording, and where it was in its life. A call, as `is_gone`."""
    return folder.role is Role.RECORDING and life_of(folder).status is status


def _held_up(snapshot: Snapshot, now: Now) -> dict[int, str]:
    return held_up(snapshot.inside(), now)


def _of_interest(snapshot: Snapshot, policy: Policy, now: Now, uses: Mapping[int, Use]) -> list[Candidate]:
    since_ns = recordings_since(snapshot.meta())
    unknown = unrecorded(min(since_ns if since_ns is not None else now.steady_ns, now.steady_ns))
    found, held = [], held_up(snapshot.inside(), now)
    for each in snapshot.recordings(beyond=horizon(policy, now.steady_ns)):
        candidate = Candidate(each.row.ino, each.path, each.life or unknown, uses.get(each.row.ino, UNUSED))
        candidate = candidate._replace(use=candidate.use._replace(holds=held.get(each.row.ino, "")))
        if is_of_interest(judge(policy, candidate.path, candidate.life, now, candidate.use), now):
            found.append(candidate)
    return found


def _entry(candidate: Candidate, verdict: Verdict) -> dict[str, Any]:
    return {
        "path": os.fsdecode(b"/".join(candidate.path)),
        "status": candidate.life.status.value,
        "action": verdict.action.value,
        "reason": verdict.reason,
        "rule": verdict.rule,
    }


__all__ = ["Expiry"]
