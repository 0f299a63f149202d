"""Takes the prefix in the bucket over for this store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.model import State
from recfs.core.ownership import Verdict
from recfs.ports.rows import ROOT_INO
from recfs.state.walk import Walk

if TYPE_CHECKING:
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier


class Claiming:
    """Makes the prefix this store's, and has the queue go on there."""

    def __init__(self, tier: Tier, tree: Tree) -> None:
        self._tier = tier
        self._tree = tree

    async def claim(self, verdict: Verdict) -> None:
        """Take it, which was *verdict* before, into use. Raises what the object store raises."""
        if verdict is Verdict.LOST:
            await self._send_again()  # before anything may leave: `Ownership.lost` holds it until the claim
        await self._tier.ownership.claim()
        journal = self._tier.journal
        if journal.tally.failing:
            await journal.tally.look_at_all(lambda row: journal.retry(row.id) if row.attempts else None)

    async def _send_again(self) -> None:
        """Have every stored file whose bytes are here uploaded anew: its object may be gone."""
        async for found in Walk(self._tree, await self._tree.directory(ROOT_INO)):
            if found.state is State.STORED and (node := await found.node()) is not None:
                await self._tier.store_anew(node)
        await self._tree.behind.durable()
