"""Files that lay in the home tree when the catalogue was made anew (`recfs rebuild --checksums later`).

They are hashed when there is time. There may be a million. The catalogue is the queue (`Promise.UNHASHED`): a cursor
goes through it, and hands the committer a few files at a time, so that memory does not grow with their number, nobody
who closes a file waits for them, and a restart goes on with what is left. Somebody who wants the checksum of one has it
hashed at once (`Pipeline.want`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio

from recfs.state.problems import forever
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from recfs.disk.commit.committer import Committer
    from recfs.state.tree import Tree

PART = "unhashed files"
PAGE = 256
"""Files that are being sealed at a time, at most …"""
WINDOW_BYTES = 64 << 20
"""… and bytes, unless one file alone is larger."""
YIELD_SHARE = 4.0
"""While others write or commit, so many times as long as some files took is waited after them …"""
MOST_YIELD_S = 2.0
"""… but no longer."""
HURRIED_S = 5.0
"""So long after somebody said that he waits nobody is yielded to."""
AGAIN_S = 600.0
"""How long what could not be sealed is left alone, once all others are."""
MOST_FAILING = 100
"""So many that cannot be sealed stay with the committer, which names them; it holds back writers for too many."""


class Unhashed:
    """The service. Its numbers count what is left; what was written to or removed meanwhile is among it for a while."""

    def __init__(
        self,
        tree: Tree,
        committer: Committer,
        count: Callable[[], Awaitable[tuple[int, int]]],
        is_busy: Callable[[], bool],
    ) -> None:
        """*count*: how many there are, and their bytes. *is_busy*: whether others write or have files committed."""
        self._tree = tree
        self._committer = committer
        self._count = count
        self._is_busy = is_busy
        self._after = 0
        self._files = self._bytes = 0
        self._counted = False
        self._doing = "begins"
        self._hurried_s = float("-inf")
        self._hurry = trio.Event()
        self.over = False
        """Whether all were looked at: what is left then could not be sealed."""

    @property
    def files(self) -> int:
        """How many are left."""
        return self._files

    def hurry(self) -> None:
        """Somebody waits for all of them: for a while they yield to nobody."""
        self._hurried_s = trio.current_time()
        self._hurry.set()

    async def run(self) -> None:
        """Hash what there is, for ever."""
        await forever(PART, self._step, self._tree.behind.problems)

    async def _step(self) -> None:
        if self._committer.is_stopping:
            await trio.sleep_forever()
        page = await self._tree.catalogue.unhashed(self._after, PAGE)
        if page:
            if not self._counted:
                self._counted = True
                self._files, self._bytes = await self._count()
            began_s = time.monotonic()
            await self._seal(page)
            await self._give_way(time.monotonic() - began_s)
        elif not self._after:
            self.over = True
            self._files = self._bytes = 0
            await trio.sleep_forever()  # nothing makes new ones while the store is mounted
        else:
            # All were looked at. What is there still failed, or was submitted and has not ended.
            again, left = self.over, await self._tree.catalogue.unhashed(0, 1)
            if left:
                self._doing = "waits: what is left cannot be read"
                self._files, self._bytes = await self._count()
            self._after, self.over = 0, bool(left)
            if left and (again or not self._is_hurried):
                await trio.sleep(AGAIN_S)

    async def _seal(self, page: Sequence[int]) -> None:
        """Have the files of a page sealed, as far as the window goes, and wait for that."""
        self._doing = "hashes"
        mine, total = [], 0
        for ino in page:
            node = await file_at(self._tree, ino)
            self._after = ino
            if node is None:
                continue
            self._passed(node.bytes)
            if node.is_unhashed:
                self._committer.want(ino)
                mine.append(ino)
                total += node.bytes
            del node
            if total >= WINDOW_BYTES:
                break
        while any(self._committer.is_at(ino) for ino in mine):
            await self._committer.progress()
        for ino in mine:
            if self._committer.failing > MOST_FAILING:
                self._committer.withdraw(ino)  # nothing of those that are sealed
            self._tree.memory.let_go(ino)

    def _passed(self, size_bytes: int) -> None:
        self._files, self._bytes = max(0, self._files - 1), max(0, self._bytes - size_bytes)

    @property
    def _is_hurried(self) -> bool:
        return trio.current_time() < self._hurried_s + HURRIED_S

    async def _give_way(self, took_s: float) -> None:
        """Let others have the disk and the CPU for a while, if they want them."""
        if self._is_hurried or not self._is_busy():
            return
        self._doing, self._hurry = "yields to others", trio.Event()
        with trio.move_on_after(min(MOST_YIELD_S, YIELD_SHARE * took_s)):
            await self._hurry.wait()

    def as_json(self) -> dict[str, Any] | None:
        """How many are left, for `recfs status`; None for none. Atomic."""
        if self.over and not self._files:
            return None
        if not self._counted:
            return None
        return {"files": self._files, "bytes": self._bytes, "doing": self._doing}


__all__ = ["Unhashed"]
