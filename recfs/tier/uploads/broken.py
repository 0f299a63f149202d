"""Which uploads are held back for the sake of what is in their files: what is broken, unless a rule says that it goes.

An upload waits for the look into its file, for a while (`[media] upload_wait`); who looks wakes it (`known`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recfs.core.media.verdicts import Verdict
from recfs.tier.queue.unsent import Why

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow
    from recfs.state.media import MediaRows
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier

LOOK_S: Final = 600.0
"""How often it is looked whether what was broken may go: by a reload, say. A rename or an overwrite tells."""
WAIT_S: Final = 1.0
"""How often it is looked whether a file has been looked into, should nobody tell."""
WAITS: Final = "what is in it is looked into first"
BROKEN: Final = "it is not uploaded: "
"""Why follows."""
AGAIN: Final = "it was broken when it was looked into last, and is looked into once more"
_NS: Final = 10**9


class BrokenFiles:
    """Judges uploads."""

    def __init__(self, tier: Tier, tree: Tree, rows: MediaRows) -> None:
        self._tier = tier
        self._tree = tree
        self._rows = rows

    async def hold(self, row: JournalRow, node: FileNode) -> bool:
        """Whether the upload is not to begin now: it is put off, or set aside."""
        found = await self._rows.of(node)
        journal, now_ns = self._tier.journal, self._tree.clock.steady_ns()
        if row.id not in journal.rows:
            return True
        if found is not None and found.verdict == Verdict.BROKEN and not self._tier.decide(node).broken:
            journal.unsent.set_aside(row.id, Why.BROKEN)
            why = f"{BROKEN}{found.reason}"
            journal.update(row._replace(next_try_ns=now_ns + round(LOOK_S * _NS), error=why))
            return True
        # What a row waits for outlives the daemon; other bytes have a row of their own.
        was_broken = row.error == AGAIN or row.error.startswith(BROKEN)
        if found is not None and found.verdict == Verdict.PENDING and self._rows.is_looking:
            if was_broken and not self._tier.decide(node).broken:
                journal.unsent.set_aside(row.id, Why.BROKEN)
                journal.update(row._replace(next_try_ns=now_ns + round(LOOK_S * _NS), error=AGAIN))
                return True
            waited_ns = self._tree.clock.now_ns() - found.queued_ns
            if 0 <= waited_ns < self._rows.upload_wait_s * _NS:  # a clock that was put back holds nothing up
                journal.update(row._replace(next_try_ns=now_ns + round(WAIT_S * _NS), error=WAITS))
                return True
        if journal.unsent.why_aside(row.id) is Why.BROKEN:
            journal.unsent.count_again(row.id)
        return False

    def known(self, node: FileNode) -> None:
        """It is known what is in a file: its upload waits no longer. Atomic."""
        row = self._tier.journal.upload_of(node.ino)
        if row is not None and not row.attempts and row.id not in self._tier.journal.running:
            self._tier.journal.retry(row.id)


__all__ = ["BrokenFiles"]
