"""Waits until everything that was closed is committed, at home and in S3."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from recfs.errors import OutOfSpace
from recfs.ports.rows import UPLOAD
from recfs.state.problems import STUCK_TRIES
from recfs.tier.queue import waited_for

if TYPE_CHECKING:
    from recfs.disk.commit.committer import Committer
    from recfs.disk.commit.unhashed import Unhashed
    from recfs.disk.home.publisher import HomePublisher
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier

DRAIN_POLL_S = 0.02
HASH_PATIENCE_S = 30.0
"""Hashing that takes longer is not waited for by a stop: the next start does it."""
RELEASES_S = 0.25
"""What is in use is waited for so long: the kernel tells of a close (RELEASE) a moment after it."""
FULL_POLL_S = 0.2
"""Between two tries to write what a full disk has no room for."""
DRAIN_LOOK_SHARE = 0.1
"""At most this part of the time goes into looking: with many thousand files a look takes long."""


class Draining:
    """Hurries what is under way, and waits for it."""

    def __init__(
        self, tree: Tree, tier: Tier | None, committer: Committer, unhashed: Unhashed, publisher: HomePublisher
    ) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._tier = tier
        self._committer = committer
        self.unhashed = unhashed
        """What is hashed when there is time."""
        self._publisher = publisher

    @property
    def pending(self) -> int:
        """How much is waited for here, S3 apart."""
        return self._committer.depth + self._publisher.depth + self._behind.depth

    async def uploads(self, *, retries: bool, spare_stuck: bool = False) -> int:
        """How many rows of the S3 queue are waited for. *retries* False: none while S3 is down, nor what fails.

        *spare_stuck*: nor those that will not get done by waiting.
        """
        if self._tier is None:
            return 0
        if not retries and self._tier.link.is_down:
            return 0
        return await waited_for.pending(self._tier.journal, retries=retries, spare_stuck=spare_stuck)

    def pending_uploads(self) -> int:
        """How many files are still to be uploaded."""
        if self._tier is None:
            return 0
        return self._tier.journal.tally.kinds[UPLOAD] - self._tier.journal.unsent.watched_files

    def _hopeless(self) -> int:
        """What the next start, or nobody, will get done: no stop waits for it."""
        return self._committer.mapped + self._committer.failing + self._publisher.aside + self._behind.aside

    def _given_up(self, since_s: float) -> int:
        """What has failed too often to wait for it, and once more since then (monotonic); 0 until all has. Atomic."""
        problems = self._behind.problems.waited_for()
        if any(problem.tries < STUCK_TRIES or problem.failed_s < since_s for problem in problems):
            return 0
        return self._committer.failing + self._publisher.aside + self._behind.aside

    async def drain(
        self, *, uploads: bool = True, retries: bool = True, mapped: bool = True, long: bool = True, stuck: bool = True,
        since_s: float | None = None,
    ) -> None:  # fmt: skip
        """Hurry everything, until nothing is sealing, pending, dirty, or on its way to S3.

        *uploads* False: S3 is left for later; *retries* False: what it refused is, and all of it while it is down.
        *mapped* False: so are files that are still mapped, and whatever failed and is left alone. *long* False: so are
        those that take long to be hashed, and what is hashed when there is time. *stuck* False: so is what will not get
        done by waiting, once nothing else is left; it is tried once more before, unless that was done at *since_s*
        (monotonic).
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
                await waited_for.try_again(tier.journal)
        while True:
            began = trio.current_time()
            if tier is not None and uploads:
                await waited_for.hurry(tier.journal, hurried)
            self._committer.hurry_waiting()
            saved = await self.saved()
            self._publisher.hurry()
            # Nothing is awaited from the last row that this looks at to the return.
            left = await self.uploads(retries=retries, spare_stuck=retries and not stuck) if uploads else 0
            spared = self._committer.left_to_next_start + (0 if mapped else self._hopeless())
            if not stuck and retries:
                spared += self._given_up(since_s)
            if not long:
                spared = max(spared, self._committer.outlook.too_long(HASH_PATIENCE_S))
            settled = not self._publisher.in_use or trio.current_time() > until
            unhashed = long and not self.unhashed.over
            if unhashed:
                self.unhashed.hurry()
            if saved and not left and settled and not unhashed and self.pending <= spared:
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
