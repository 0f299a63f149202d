"""Corrects counters that are off: accounts, the totals of directories, and the counters of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.errors import Busy, Stale
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.ports.figures import FigureBooks, FiguresProof
    from recfs.ports.reports import Difference
    from recfs.state.tree import Tree


class Recount:
    """Adds what each counter is off by, which is right even while files change."""

    def __init__(self, tree: Tree, figures: FigureBooks) -> None:
        self._tree = tree
        self._figures = figures

    async def repair(self, differences: Iterable[Difference], figures: FiguresProof | None = None) -> None:
        """Correct them, on stable storage. Raises Busy while the catalogue does not take all rows."""
        tree, behind = self._tree, self._tree.behind
        if behind.aside:
            raise Busy(
                f"the catalogue does not take {behind.aside} rows (`recfs status` tells which): they are counted, "
                f"and would be taken for differences. Stop and mount again: a start adds everything up anew"
            )
        for off in differences:
            added = (off.actual_bytes - off.recorded_bytes, off.actual_files - off.recorded_files)
            if off.user is not None:
                account = await tree.accounts.load(off.user)
                account.used_bytes += added[0]
                account.used_files += added[1]
                behind.account(account)
            elif off.ino is not None:
                try:
                    node = await tree.get(off.ino)
                except Stale:
                    continue  # removed meanwhile, with its totals
                if isinstance(node, DirNode):
                    node.rbytes += added[0]
                    node.rfiles += added[1]
                    behind.node(node)
        if figures is not None and (figures.off or figures.is_due):
            await self._figures.correct(figures)
        await behind.durable()
