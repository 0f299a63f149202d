"""What expires: temp jobs and trashed bytes. Decides with `core/lifecycle.py`, removes through the VFS."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Protocol

from recfs.core.layout import Role
from recfs.core.lifecycle import Aging, expired_jobs, expired_trash, job_verdict, trash_due
from recfs.core.sweeping import Schedule
from recfs.errors import FsError, Stale
from recfs.ports.sweep import Progress, Sweep
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import trio

    from recfs.fs.vfs import Vfs
    from recfs.ports.clock import Clock
    from recfs.ports.rows import NodeRow, TrashRow
    from recfs.state.nodes import Garbage

    HeldUp = Callable[[], Awaitable[Mapping[int, str]]]

log = logging.getLogger("recfs.sweeper")

NS = 1_000_000_000
PART = "sweeping"
PURGED_AT_ONCE = 100
"""Entries of the trash that are given up before others have their turn."""
PATIENCE_S = 600.0
"""A job may have a great many files."""


class Trash(Protocol):
    """Who removes trashed bytes."""

    def purge(self, entry: Garbage | TrashRow) -> None:
        """The retention of *entry* is over."""

    async def overdue(self, is_due: Callable[[int], bool]) -> list[tuple[Garbage | TrashRow, int, int]]:
        """Those of them that are due, by when they were deleted."""

    def expired(self) -> list[tuple[Garbage | TrashRow, int, int]]:
        """What only its retention keeps, each with when it was deleted."""


class Sweeper:
    """Temp jobs past `temp.max_age`, trash past `trash.retention`."""

    def __init__(
        self,
        vfs: Vfs,
        trash: Trash,
        clock: Clock,
        *,
        max_age_s: float,
        interval_s: float,
        retention_s: float,
        held_up: HeldUp,
    ) -> None:
        """*held_up*: finds the directories that hold what is not to go with them, and why."""
        self._vfs = vfs
        self._trash = trash
        self._clock = clock
        self.max_age_s = max_age_s
        self.interval_s = interval_s
        self.retention_s = retention_s
        self._held_up = held_up
        self._problems = vfs.behind.problems
        self._of_jobs, self._of_trash = Progress(), Progress()

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """What it looks at every `temp.sweep_interval`, and once at the start."""
        every = Schedule(self.interval_s, at_once=True, patience_s=PATIENCE_S)
        return [
            Sweep(
                "temp",
                PART,
                every,
                self._old_jobs,
                expired_jobs,
                self._expire_jobs,
                mounted=True,
                progress=self._of_jobs,
            ),
            Sweep(
                "trash",
                PART,
                every,
                self._old_trash,
                expired_trash,
                self._purge,
                mounted=True,
                progress=self._of_trash,
            ),
        ]

    # --- temp jobs -----------------------------------------------------------------------------------------------

    async def sweep_temp(self, *, dry_run: bool, kept: bool = False) -> list[dict[str, Any]]:
        """Remove (or, dry, name) the jobs that are due; *kept*: also tell of those that are not, and why."""
        now = self._clock.steady_ns()
        rows = await self._jobs(now + (1 << 62) if kept else self._horizon(now))
        return await self._each(rows, now, dry_run=dry_run, kept=kept)

    def _horizon(self, now: int) -> int:
        return now - int(self.max_age_s * NS) + 1

    async def _jobs(self, before_ns: int) -> Sequence[NodeRow]:
        await self._vfs.behind.flush()
        return await self._vfs.tree.catalogue.jobs(before_ns)

    async def _old_jobs(self) -> Aging[NodeRow]:
        now = self._clock.steady_ns()
        rows = await self._jobs(self._horizon(now))
        held = await self._held_up() if rows else {}
        in_use = self._vfs.files.jobs_in_use()
        aging = [(row, row.activity_ns, in_use[row.ino]) for row in rows if row.ino not in held]
        return Aging(now, self.max_age_s, aging)

    async def _expire_jobs(self, rows: Sequence[NodeRow], going_on: trio.Nursery) -> str:
        self._of_jobs.total = len(rows)
        removed = 0
        for row in rows:
            jobs = await self._each([row], self._clock.steady_ns(), dry_run=False, kept=False)
            removed += sum(job["action"] == "expired" for job in jobs)
            self._of_jobs.done += 1
            if self._of_jobs.is_stopping:
                break
        return f"{removed:,} removed"

    async def _each(self, rows: Sequence[NodeRow], now: int, *, dry_run: bool, kept: bool) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        held = await self._held_up() if rows else {}
        for row in rows:
            with self._problems.aside(PART, row.ino, os.fsdecode(row.name)):  # the other jobs are other people's
                told += await self._look_at(row.ino, now, held, dry_run=dry_run, kept=kept)
        return told

    async def _look_at(
        self, ino: int, now: int, held: Mapping[int, str], *, dry_run: bool, kept: bool
    ) -> list[dict[str, Any]]:
        tree = self._vfs.tree
        told = []
        try:
            job = tree.nodes.get(ino) or await tree.get(ino)
        except Stale:
            return []  # it was removed since
        if not isinstance(job, DirNode) or job.role is not Role.JOB:
            return []  # it was moved away since, and is a recording by now, say
        open_files = self._vfs.files.jobs_in_use()[job.ino]
        verdict = job_verdict(job.activity_ns, now, self.max_age_s, open_files, held.get(job.ino, ""))
        entry = {
            "path": job.path,
            "age_s": (now - job.activity_ns) / NS,
            "rbytes": job.rbytes,
            "rfiles": job.rfiles,
            "action": "expired" if verdict.expire else "kept",
            "reason": verdict.reason,
        }
        if verdict.expire and not dry_run:
            await self._expire(job, entry)
        if verdict.expire or kept:
            told.append(entry)
        return told

    async def _expire(self, job: DirNode, entry: dict[str, Any]) -> None:
        try:
            await self._vfs.trees.remove(job, keep=self._still_used)
        except FsError as error:
            # Somebody came back to the job while it was being removed: what is left has its full time again.
            entry["action"], entry["reason"] = "kept", f"in use again: {error}"
            return
        log.info("temp: %s expired (%s), %d bytes", entry["path"], entry["reason"], entry["rbytes"])

    def _still_used(self, job: DirNode) -> bool:
        return job.ino in self._vfs.files.jobs_in_use()

    # --- trash ---------------------------------------------------------------------------------------------------

    def sweep_trash(self) -> int:
        """Hand trashed bytes whose retention is over to the publisher; returns how many. Atomic."""
        due = expired_trash(self._trashed()) or []
        for entry in due:
            self._trash.purge(entry)
        return len(due)

    def _trashed(self) -> Aging[Garbage | TrashRow]:
        return Aging(self._clock.steady_ns(), self.retention_s, self._trash.expired())

    async def _old_trash(self) -> Aging[Garbage | TrashRow]:
        now, most_s = self._clock.steady_ns(), self.retention_s
        due = await self._trash.overdue(lambda deleted_ns: trash_due(deleted_ns, now, most_s))
        return Aging(now, most_s, due)

    async def _purge(self, entries: Sequence[Garbage | TrashRow], going_on: trio.Nursery) -> str:
        self._of_trash.total = len(entries)
        for entry in entries:
            if self._of_trash.done % PURGED_AT_ONCE == PURGED_AT_ONCE - 1:
                await self._vfs.tree.events.caught_up()  # requests come first
                if self._of_trash.is_stopping:
                    break
            self._trash.purge(entry)
            self._of_trash.done += 1
        return f"{self._of_trash.done:,} given up"
