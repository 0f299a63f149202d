"""What expires: temp jobs and trashed bytes. Decides with `core/lifecycle.py`, removes through the VFS."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Protocol

import trio

from recfs.core.lifecycle import job_verdict, trash_due
from recfs.errors import FsError
from recfs.state.nodes import DirNode
from recfs.state.problems import forever

if TYPE_CHECKING:
    from recfs.fs.vfs import Vfs
    from recfs.ports.clock import Clock
    from recfs.state.nodes import Garbage

log = logging.getLogger("recfs.sweeper")

NS = 1_000_000_000
PART = "sweeping"


class Trash(Protocol):
    """Who removes trashed bytes."""

    def purge(self, entry: Garbage) -> None:
        """The retention of *entry* is over."""


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
    ) -> None:
        self._vfs = vfs
        self._trash = trash
        self._clock = clock
        self._max_age_s = max_age_s
        self._interval_s = interval_s
        self._retention_s = retention_s
        self._problems = vfs.behind.problems

    async def run(self) -> None:
        """Sweep for ever."""
        await forever(PART, self._sweep, self._problems)

    async def _sweep(self) -> None:
        with self._problems.aside(PART, "temp", "temp"):
            await self.sweep_temp(dry_run=False)
        with self._problems.aside(PART, "trash", "trash"):
            self.sweep_trash()
        await trio.sleep(self._interval_s)

    async def sweep_temp(self, *, dry_run: bool, kept: bool = False) -> list[dict[str, Any]]:
        """Remove (or, dry, name) the jobs that are due; *kept*: also tell of those that are not, and why."""
        tree, now = self._vfs.tree, self._clock.steady_ns()
        horizon = now + (1 << 62) if kept else now - int(self._max_age_s * NS) + 1
        await self._vfs.behind.flush()
        told: list[dict[str, Any]] = []
        for row in await tree.catalogue.jobs(horizon):
            with self._problems.aside(PART, row.ino, os.fsdecode(row.name)):  # the other jobs are other people's
                told += await self._look_at(row.ino, now, dry_run=dry_run, kept=kept)
        return told

    async def _look_at(self, ino: int, now: int, *, dry_run: bool, kept: bool) -> list[dict[str, Any]]:
        tree = self._vfs.tree
        told = []
        job = tree.nodes.get(ino) or await tree.get(ino)
        if not isinstance(job, DirNode):
            return []
        in_use = int(job.ino in self._vfs.files.jobs_in_use())
        verdict = job_verdict(job.activity_ns, now, self._max_age_s, in_use)
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

    def sweep_trash(self) -> None:
        """Hand trashed bytes whose retention is over to the settler."""
        now = self._clock.steady_ns()
        for entry in list(self._vfs.tree.garbage.values()):
            if entry.in_trash and entry.held_by is None and trash_due(entry.deleted_ns, now, self._retention_s):
                self._trash.purge(entry)
