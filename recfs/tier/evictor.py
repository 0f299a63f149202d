"""Room for local copies of what S3 holds: which may leave, and when they have to.

The budget counts everything local that S3 has or will have. Partial copies that nobody has open go first, then whole
ones by last use, then what open readers have left behind them. What is not in state `stored` never leaves, and neither
does what S3 has no more: it is asked before, since what it confirmed once may have been deleted since.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from recfs.core.layout import kept_path
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.errors import RecfsError
from recfs.state.nodes import Garbage
from recfs.state.problems import forever
from recfs.state.walk import file_at
from recfs.tier.identity import has_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.disk.staging import DiskReserve
    from recfs.ports.rows import ObjectRow
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree
    from recfs.tier.copies import Copies
    from recfs.tier.link import Link
    from recfs.tier.partials import Partials

log = logging.getLogger("recfs.tier")

PART = "local copies"
LOOK_S = 10.0
"""How often the disk's reserve is looked at."""
LEAVING_FILES = 100
"""How many are looked at together."""
ASKED_FILES = 16
"""Of how many S3 is asked at the same time."""
ANSWER_S = 5.0
"""How long its answers are waited for: the disk is full meanwhile."""
ASKED_AGAIN_NS = 600 * 10**9
"""How long a file whose object is gone is left alone."""
MOST_REMEMBERED = 10_000
"""Files whose object is gone."""
NO_OBJECT = (
    "S3 does not have its object any more, or another one: this may be the only copy; `recfs verify --level remote`"
    " has it uploaded again"
)


def _is_moving(node: FileNode) -> bool:
    """Whether the local copy is not at home, or not for long."""
    return bool(node.pending or node.publishing or node.moved is not None or node.staging is not None)


class CacheEvictor:
    """The budget, and what leaves for it."""

    def __init__(self, copies: Copies, link: Link, partials: Partials, tree: Tree, space: DiskReserve) -> None:
        self._copies = copies
        self._link = link
        self._partials = partials
        self._tree = tree
        self._behind = tree.behind
        self._space = space
        self._missed: dict[int, int] = {}
        """Files whose object was gone, and until when (steady time) they are left alone."""

    async def refusal(self, node: FileNode) -> str | None:
        """Why the local copy cannot go now, S3 having been asked; None if it can. `may_evict` is to be asked after it.

        Raises ObjectStoreError: S3 does not tell.
        """
        found = await has_object(self._link, self._copies, node)
        if found is None:
            return "it was changed meanwhile; try again"
        return None if found else NO_OBJECT

    def may_evict(self, node: FileNode) -> str | None:
        """Why the local copy cannot go now; None if it can."""
        if node.unlinked:
            return "it was removed meanwhile"
        if node.state is not State.STORED or node.object is None:
            upload = self._copies.journal.upload_of(node.ino)
            why = upload.error if upload is not None else ""
            why = why or "`recfs route explain` tells where it goes"
            return f"it is {node.state}: only what is stored in S3 can leave; {why}"
        if self._link.ownership.lost is not None:
            return "objects of this store are gone from S3: this may be the only copy; `recfs bucket owner` tells"
        if node.body is not None:
            return "it is open; it can leave when it is closed"
        if _is_moving(node):
            return "it is being moved; try again"
        return "it is pinned; `recfs unpin` lets it go" if node.object.copy.pinned else None

    def evict(self, node: FileNode) -> None:
        """Let the local copy go: the row first, then the bytes. Atomic; `may_evict` was asked."""
        in_s3 = node.object
        assert in_s3 is not None
        entry = Garbage(
            self._tree.new_gid(), node.ino, node.kind, kept_path(node.parts()), self._tree.clock.steady_ns()
        )
        entry.home_ino = node.home_ino
        entry.place = (node.parent, node.name)
        self._tree.know_garbage(entry)
        self._behind.garbage(entry)
        self._mark_away(node, in_s3)

    def _mark_away(self, node: FileNode, in_s3: ObjectRow) -> None:
        node.enter(State.EVICTED)
        node.home_ino = None
        if in_s3.copy.local:
            self._copies.local_bytes -= in_s3.size_bytes
        self._copies.remember(node, in_s3.here(local=0))
        self._tree.events.noted(EventKind.EVICTED, node)

    def lost(self, node: FileNode) -> bool:
        """The local copy was removed out of band: tells whether S3 has the bytes, and they can be had again. Atomic."""
        if node.state is not State.STORED or not self.gone(node):
            return False
        log.warning("%s: its local copy was removed out of band; S3 has the bytes", node.path)
        return True

    def gone(self, node: FileNode) -> bool:
        """There are no local bytes (any more) of a file that S3 has: it is read from there. Atomic.

        False where somebody has it open, or it is being moved: it stays what it is.
        """
        in_s3 = node.object
        if in_s3 is None or node.body is not None or _is_moving(node):
            return False
        self._mark_away(node, in_s3)
        return True

    def over_bytes(self) -> int:
        """How much has to leave: for the budget, or for the disk's reserve."""
        return max(self._copies.used_bytes - self._copies.line_bytes, -self._space.left(), 0)

    async def evict_excess(self) -> None:
        """Evict until the budget holds, or nothing more may leave."""
        many = LEAVING_FILES
        while self.over_bytes() > 0:
            if idle := self._partials.idle():
                self._partials.drop(min(idle, key=lambda each: each.used_ns).node)
                continue
            await self._behind.flush()
            found = await self._tree.catalogue.evictable(self._tree.clock.steady_ns(), many)
            gone = 0
            for first in range(0, len(found), ASKED_FILES):
                gone += await self._evict_some(found[first : first + ASKED_FILES])
            if not gone and len(found) == many:
                many *= 4  # all of these are open, or being moved; others may leave
                continue
            if not gone and not self._trim():
                return
            await self._behind.flush()

    async def _evict_some(self, inos: Sequence[int]) -> int:
        """Evict those of a few that may leave, while there is need; tells how many did."""
        leaving, gone = [], 0
        for ino in inos:
            if self.over_bytes() <= 0:
                return 0
            with self._behind.problems.aside(PART, ino, f"inode {ino}"):
                node = await file_at(self._tree, ino)  # it may have been removed since
                if node is not None and self.may_evict(node) is None and not self._is_missed(node):
                    leaving.append(node)
        missed = await self._missing(leaving)
        for node in leaving:
            if node.ino in missed:
                self._miss(node)
            elif self.over_bytes() > 0 and self.may_evict(node) is None:
                self.evict(node)
                gone += 1
        return gone

    async def _missing(self, nodes: Sequence[FileNode]) -> set[int]:
        """Of which files S3 says that it has other bytes, or none.

        Where it does not answer, what it confirmed once counts: else an outage would fill the disk with copies.
        """
        missing: set[int] = set()

        async def ask(node: FileNode) -> None:
            try:
                if await has_object(self._link, self._copies, node) is False:
                    missing.add(node.ino)
            except (RecfsError, OSError) as error:
                log.debug("%s: S3 does not tell whether it has its object: %s", node.path, error)

        if self._link.is_down:
            return missing
        with trio.move_on_after(ANSWER_S):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(ask, node)
        return missing

    def _is_missed(self, node: FileNode) -> bool:
        return self._tree.clock.steady_ns() < self._missed.get(node.ino, 0)

    def _miss(self, node: FileNode) -> None:
        if node.ino not in self._missed:
            log.error("%s: its local copy stays: %s", node.path, NO_OBJECT)
        if len(self._missed) >= MOST_REMEMBERED:
            self._missed.clear()
        self._missed[node.ino] = self._tree.clock.steady_ns() + ASKED_AGAIN_NS

    def _trim(self) -> int:
        """Free what was read of files that are open, of the largest first; tells how much."""
        for each in sorted(self._partials.by_ino.values(), key=lambda each: -each.download.present_bytes):
            if each.waiting:
                continue  # who waits for all of it, to change it, would wait for ever
            freed = each.download.trim(self.over_bytes())
            if freed:
                return freed
        return 0

    async def run(self) -> None:
        """Let copies leave, for ever."""
        await forever(PART, self._look, self._behind.problems)

    async def _look(self) -> None:
        with trio.move_on_after(LOOK_S):
            await self._copies.eviction_requested.wait()
        self._copies.eviction_requested = trio.Event()
        await self.evict_excess()
