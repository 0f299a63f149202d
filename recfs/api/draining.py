"""Waiting until everything that was closed is committed, at home and in S3, and telling what stays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.ownership import LOST_REMEDY
from recfs.errors import OutOfSpace
from recfs.state.nodes import FileNode
from recfs.state.problems import STUCK_TRIES

if TYPE_CHECKING:
    from recfs.api.s3 import S3Answers
    from recfs.disk.commit.committer import Committer
    from recfs.disk.home.settler import HomeSettler
    from recfs.fs.vfs import Vfs
    from recfs.tier.tier import Tier

DRAIN_POLL_S = 0.02
HASH_PATIENCE_S = 30.0
"""Hashing that takes longer is not waited for by a stop: the next start does it."""
RELEASES_S = 0.25
"""What is in use is waited for so long: the kernel tells of a close (RELEASE) a moment after it."""
FULL_POLL_S = 0.2
"""Between two tries to write what a full disk has no room for."""
STUCK_TOLD = 10
"""So many that will not get done by waiting are told one by one."""
_REMEDIES = {
    "catalogue": "unmount and mount again: the start takes it up from what is on the disk",
    "commit": "put that right on the disk of the store: it is tried again every minute at least",
    "home tree": "put that right on the disk of the store: it is tried again every minute at least",
}
DRAIN_LOOK_SHARE = 0.1
"""At most this part of the time goes into looking: with many thousand files a look takes long."""


class Draining:
    """Hurries what is under way, and waits for it."""

    def __init__(self, vfs: Vfs, tier: Tier | None, committer: Committer, settler: HomeSettler, s3: S3Answers) -> None:
        self._vfs = vfs
        self._behind = vfs.behind
        self._tier = tier
        self._committer = committer
        self._settler = settler
        self._s3 = s3

    def _pending(self) -> int:
        return self._committer.depth + self._settler.depth + self._behind.depth

    def _hopeless(self) -> int:
        """What the next start, or nobody, will get done: no stop waits for it."""
        return self._committer.mapped + self._committer.aside + self._settler.aside + self._behind.aside

    def _given_up(self, since_s: float) -> int:
        """What has failed too often to wait for it, and once more since then (monotonic); 0 until all has. Atomic."""
        problems = self._behind.problems.waited_for()
        if any(problem.tries < STUCK_TRIES or problem.failed_s < since_s for problem in problems):
            return 0
        return self._committer.aside + self._settler.aside + self._behind.aside

    async def _stuck(self) -> dict[str, Any]:
        """What somebody has to do something about: how much, and the first few, each with its remedy."""
        told = [problem.told() | {"remedy": _REMEDIES[problem.part]} for problem in self._behind.problems.waited_for()]
        if (lost := self._s3.lost) is not None:
            told.append(
                {"part": "s3", "path": "", "reason": lost, "tries": 0, "next_try_s": None, "remedy": LOST_REMEDY}
            )
        for row in await self._s3.stuck():
            drop = "" if row["kind"] == "move" else f", or `recfs queue drop {row['id']}`"
            told.append(
                {
                    "part": row["kind"], "path": row["path"] or row["key"], "reason": row["why"],
                    "tries": row["attempts"], "next_try_s": row["next_try_s"],
                    "remedy": f"put that right, then `recfs queue retry {row['id']}`{drop}",
                }
            )  # fmt: skip
        return {"items": len(told), "first": told[:STUCK_TOLD]}

    async def drain(self, params: dict[str, Any]) -> dict[str, Any]:
        """Wait until everything closed is committed, at home and in S3, or the time is up: tells what is left.

        It ends, too, when nothing moves any more and what is left will not get done by waiting: `stuck` names that.

        `retries` False: what S3 refused, and anything while it is down, is not waited for, nor is hashing that a stop
        would not wait for. `s3`: whether there is one; `stays` and `refused`: what it does not get, whoever waits.

        What was refused is tried once more at the beginning, for it may have been put right. Who drains piece by piece
        gives `since_s`, of the answer to the first call, with the next ones: these only wait.
        """
        timeout_s, retries = float(params.get("timeout_s", 60.0)), bool(params.get("retries", True))
        since_s = float(params["since_s"]) if params.get("since_s") is not None else None
        began_s = time.monotonic() if since_s is None else since_s
        with trio.move_on_after(timeout_s):
            await self.settle(retries=retries, long=retries, mapped=retries, stuck=False, since_s=since_s)
            stuck = await self._stuck() if retries else {"items": 0, "first": []}
            far: dict[str, Any] = {"stays": await self._s3.stays(), "refused": await self._s3.refused(), "stuck": stuck}
            far |= {"watched": self._s3.watched(), "lost": self._s3.lost}
            return {"pending": stuck["items"], "s3": self._tier is not None} | far
        return {
            "pending": self._pending() + self._s3.pending(retries=retries),
            "since_s": began_s,
            "left": {
                "sealing": self._committer.depth,
                "settling": self._settler.depth,
                "dirty": self._behind.depth,
                "hashing": self._committer.told()["files"],
                "s3": await self._s3.left(),
                "problem": self._behind.problem,
                "set_aside": [each.told() for each in self._behind.problems.waited_for()[:STUCK_TOLD]],
            },
        }

    async def settle(
        self, *, uploads: bool = True, retries: bool = True, mapped: bool = True, long: bool = True, stuck: bool = True,
        since_s: float | None = None,
    ) -> None:  # fmt: skip
        """Hurry everything, until nothing is sealing, pending, dirty, or on its way to S3.

        *uploads* False: S3 is left for later; *retries* False: what it refused is, and all of it while it is down.
        *mapped* False: so are files that are still mapped, and whatever failed and is left alone. *long* False: so are
        those that take long to be hashed. *stuck* False: so is what will not get done by waiting, once nothing else is
        left; it is tried once more before, unless that was done at *since_s* (monotonic).
        """
        tier = self._tier
        hurried: set[int] = set()
        is_first = since_s is None
        since_s = time.monotonic() if since_s is None else since_s
        until = trio.current_time() + RELEASES_S
        if not stuck and is_first:
            self._behind.try_refused(all_of_them=True)
            if tier is not None and uploads and retries:
                # What was refused may have been put right, and S3 be there again.
                for row_id in tier.journal.stuck() | tier.journal.failed():
                    tier.journal.retry(row_id)
        while True:
            began = trio.current_time()
            if tier is not None and uploads:
                tier.journal.hurry(hurried)
            for node in [node for node in self._vfs.tree.nodes.values() if isinstance(node, FileNode)]:
                self._committer.hurry(node.ino)
            saved = await self.saved()
            self._settler.hurry()
            left = self._s3.pending(retries=retries) if uploads else 0
            spared = self._committer.set_aside + (0 if mapped else self._hopeless())
            if not stuck and retries:
                left -= self._s3.stuck_count() if uploads else 0
                spared += self._given_up(since_s)
            if not long:
                spared = max(spared, self._committer.too_long(HASH_PATIENCE_S))
            settled = not self._settler.in_use or trio.current_time() > until
            if saved and not left and settled and self._pending() <= spared:
                await self._behind.durable()
                return
            if not saved:
                await trio.sleep(FULL_POLL_S)
            await trio.sleep(max(DRAIN_POLL_S, (trio.current_time() - began) / DRAIN_LOOK_SHARE))

    async def saved(self) -> bool:
        """Write what is dirty; False while the disk has no room for it (it stays dirty, and `problems` tells)."""
        try:
            await self._behind.flush()
        except OutOfSpace:
            return False
        return True


__all__ = ["DRAIN_POLL_S", "HASH_PATIENCE_S", "Draining"]
