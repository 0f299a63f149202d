"""Local copies of files in S3: let go, fetched, and pinned."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.model import State
from recfs.core.units import format_size
from recfs.errors import OutOfSpace
from recfs.ports.object_errors import ObjectStoreError
from recfs.state.walk import Found, Walk
from recfs.state.work.outcome import Outcome, side_by_side

if TYPE_CHECKING:
    from recfs.ports.reports import Reports
    from recfs.state.nodes import DirNode, FileNode
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier

AT_ONCE = 4
"""Files fetched at the same time; each of them by several requests."""
ASKED_AT_ONCE = 16
"""Files that S3 is asked about at the same time."""
ANSWER_S = 30.0
"""How long S3's answer is waited for; once it did not come, none is in the same run."""
SILENT = "S3 does not answer whether it has the bytes still; without that it stays"
FLUSH_EVERY = 500


class LocalCopies:
    """Lets copies go, fetches and pins them, of a file or of all files below a directory."""

    def __init__(self, tier: Tier, tree: Tree, reports: Reports) -> None:
        self._tier = tier
        self._tree = tree
        self._reports = reports

    async def evict(self, top: DirNode | FileNode) -> dict[str, Any]:
        """Let local copies go, whatever the budget and `keep_local` say, where S3 says that it still has the bytes."""
        outcome, silent = Outcome(), trio.Event()
        slots = trio.CapacityLimiter(ASKED_AT_ONCE)
        async with side_by_side() as nursery:
            async for found in Walk(self._tree, top):
                node = await found.node() if found.state is not State.EVICTED else None
                if found.state is State.EVICTED or (node is not None and node.state in (State.EVICTED, State.ARCHIVED)):
                    outcome.already += 1
                elif node is not None:
                    await slots.acquire_on_behalf_of(node)
                    nursery.start_soon(self._evict, node, outcome, slots, silent)
        await self._tree.behind.flush()
        return outcome.as_json()

    async def _evict(self, node: FileNode, outcome: Outcome, slots: trio.CapacityLimiter, silent: trio.Event) -> None:
        """*silent*: S3 did not answer for one of them, nor will it for the others."""
        try:
            asked = self._tier.evictor.may_evict(node) is None
            if asked and (refused := await self._refusal(node, silent)) is not None:
                outcome.keep(node.path, refused)
                return
            self._let_go(self._tier, node, outcome)
            if outcome.files % FLUSH_EVERY == 0:
                await self._tree.behind.flush()  # from here on the publisher takes the bytes away
        except Exception as error:
            outcome.failed(node.path, error)
        finally:
            slots.release_on_behalf_of(node)

    async def _refusal(self, node: FileNode, silent: trio.Event) -> str | None:
        """As `CacheEvictor.refusal`, but not for longer than anybody waits before a terminal.

        S3 is asked also where it is known to be down: nobody else may, and it is back, perhaps.
        """
        refused: str | None = SILENT
        if not silent.is_set():
            try:
                with trio.move_on_after(ANSWER_S) as waiting:
                    refused = await self._tier.evictor.refusal(node)
            except ObjectStoreError as error:
                if error.outage:
                    silent.set()
                raise
            if waiting.cancelled_caught:
                silent.set()
        trouble = self._tier.link.trouble if refused is SILENT else None
        return f"{refused}: {trouble}" if trouble is not None else refused

    @staticmethod
    def _let_go(tier: Tier, node: FileNode, outcome: Outcome) -> None:
        if node.state is State.FETCHING and node.body is None:
            if not tier.partials.is_idle(node):
                outcome.keep(node.path, "somebody waits for its bytes; it can leave when they are here")
                return
            tier.partials.drop(node)
            outcome.did(node.bytes)
            return
        refused = tier.evictor.may_evict(node)
        if refused is not None:
            outcome.keep(node.path, refused)
            return
        tier.evictor.evict(node)
        outcome.did(node.bytes)

    async def fetch(self, top: DirNode | FileNode) -> dict[str, Any]:
        """Have the whole files here, several at a time; returns when they are, or what kept them away."""
        outcome = Outcome()
        fetching = Fetching(self._tier, outcome)
        async with side_by_side() as nursery:
            async for found in Walk(self._tree, top):
                if not found.state.is_remote:
                    outcome.already += 1
                    continue
                node = await found.node()
                if node is not None:
                    await fetching.start(nursery, node)
        return outcome.as_json()

    async def pin(self, top: DirNode | FileNode, *, pinned: bool) -> dict[str, Any]:
        """Have files stay here (*pinned* False: no longer). Pinned ones that are not here are fetched."""
        tier, outcome = self._tier, Outcome()
        fetching = Fetching(tier, Outcome())
        room = tier.settings.max_bytes - await self._pinned_bytes() if pinned else 0
        async with side_by_side() as nursery:
            async for found in Walk(self._tree, top):
                node = await self._pinnable(found, outcome, pinned=pinned)
                if node is None or node.object is None:
                    continue
                is_new = bool(node.object.copy.pinned) is not pinned
                if is_new and pinned and node.bytes > room:
                    size = format_size(tier.settings.max_bytes)
                    outcome.keep(node.path, f"pinned files may take [cache] max_size ({size}) together, and no more")
                    continue
                if is_new:
                    room -= node.bytes
                    tier.copies.remember(node, node.object.here(pinned=int(pinned)))
                    outcome.did(node.bytes)
                else:
                    outcome.already += 1
                if pinned and node.state.is_remote:
                    await fetching.start(nursery, node)
        if not pinned:
            tier.copies.eviction_requested.set()
        await self._tree.behind.durable()
        return outcome.as_json() | {"fetched": fetching.outcome.as_json()}

    async def _pinned_bytes(self) -> int:
        with contextlib.suppress(OutOfSpace):  # a full disk: `problems` of `status` tells
            await self._tree.behind.flush()
        return await self._reports.ask(lambda snapshot: snapshot.pinned_bytes())

    async def _pinnable(self, found: Found, outcome: Outcome, *, pinned: bool) -> FileNode | None:
        """The file, if S3 has it; else why there is nothing to pin."""
        if found.has_object:
            return await found.node()
        if not pinned:
            outcome.already += 1
            return None
        node = await found.node()
        if node is not None and node.object is None:
            stays = node.state.is_whole and self._tier.decide(node).store == "local"
            outcome.keep(node.path, "it stays here anyway" if stays else "it is not in S3 yet; pin it when it is")
            return None
        return node


class Fetching:
    """Fetches files side by side, no more of them than the budget has room for."""

    def __init__(self, tier: Tier, outcome: Outcome) -> None:
        self._tier = tier
        self.outcome = outcome
        self._slots = trio.CapacityLimiter(AT_ONCE)
        self._begun_bytes = 0

    async def start(self, nursery: trio.Nursery, node: FileNode) -> None:
        """Begin to fetch a file as soon as there is a slot; what came of it is in `outcome`."""
        settings = self._tier.settings
        if self._begun_bytes + node.bytes > settings.max_bytes - self._tier.journal.unsent_bytes():
            size = format_size(settings.max_bytes)
            self.outcome.keep(node.path, f"[cache] max_size ({size}) has no room for it beside the others")
            return
        self._begun_bytes += node.bytes
        await self._slots.acquire_on_behalf_of(node)
        nursery.start_soon(self._fetch, node)

    async def _fetch(self, node: FileNode) -> None:
        try:
            await self._tier.partials.bring(node)
        except Exception as error:
            self.outcome.failed(node.path, error)
        else:
            self.outcome.did(node.bytes)
        finally:
            self._slots.release_on_behalf_of(node)
