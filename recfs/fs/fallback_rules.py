"""Fallback rules change while a store is in use: what directories in memory show, and what the kernel believes of it.

Rules change in one step, between two requests. What a program has open stays open: a shared file that is not shown any
more is one that was removed. What a user has hidden in a directory stays hidden, should a rule for it come back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from recfs.core.bounds import MAX_INT
from recfs.core.fallback import rule_of_dir
from recfs.errors import RecfsError
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recfs.core.fallback import DirRule, FallbackRule
    from recfs.core.globs import Path
    from recfs.ports.kernel import KernelCache
    from recfs.state.tree import Tree

log = logging.getLogger("recfs.fs")

ANNOUNCE_S: Final = 30.0
"""So long whoever changes rules waits for the kernel to have heard of it."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A directory that shows something else."""

    folder: DirNode
    rules: tuple[DirRule, ...]
    """The one that held before, and the one that holds now: those that there are."""


class FallbackRules:
    """Those of a store."""

    def __init__(self, tree: Tree, kernel: KernelCache) -> None:
        self._tree = tree
        self._kernel = kernel

    def change(self, rules: Sequence[FallbackRule]) -> list[Changed]:
        """Have other rules hold; returns the directories in memory of which that changes something. Atomic."""
        tree = self._tree
        before, tree.rules = tree.rules, tuple(rules)
        if before == tree.rules:
            return []
        changed: list[Changed] = []
        ahead: list[tuple[DirNode, Path]] = [(tree.root, ())]
        while ahead:
            folder, path = ahead.pop()
            was, now = rule_of_dir(before, path), rule_of_dir(tree.rules, path)
            if was != now:
                folder.fallback = now.dir_rule if now is not None else None
                changed.append(Changed(folder, tuple(each.dir_rule for each in (was, now) if each is not None)))
            for name, child in folder.children.items():
                below = (*path, name)
                if isinstance(child, DirNode) and any(each.matches_start(below) for each in (*before, *tree.rules)):
                    ahead.append((child, below))
        return changed

    async def announce(self, changed: Iterable[Changed]) -> None:
        """Have the kernel look anew at each name that is shown now, or was, and wait until it does.

        What it believes of own files stays. Raises nothing: what it was not told it forgets by itself.
        """
        with trio.move_on_after(ANNOUNCE_S) as deadline:
            try:
                await self._announce(changed)
            except RecfsError as error:
                log.warning("fallback: names that were looked up in vain may stay absent for a minute: %s", error)
            await self._kernel.flush()
        if deadline.cancelled_caught:
            log.warning("fallback: names that were looked up in vain may stay absent for a minute: it takes too long")

    async def _announce(self, changed: Iterable[Changed]) -> None:
        shared: dict[Path, list[bytes]] = {}
        for each in changed:
            folder, names = each.folder, set[bytes]()
            for rule in each.rules:
                if rule.target_dir not in shared:
                    shared[rule.target_dir] = await self._shared(rule.target_dir)
                names.update(name for name, _ in rule.shown(shared[rule.target_dir]))
            for name in names:
                if not folder.unlinked and await self._tree.child(folder, name) is None:
                    self._kernel.forget_entry(folder.ino, name, 0)
            self._kernel.forget_inode(folder.ino)  # what it keeps of listings
            await trio.lowlevel.checkpoint()  # requests come first

    async def _shared(self, path: Path) -> list[bytes]:
        folder = await self._tree.walk(path)
        return [each.name for each in await self._tree.page(folder, 0, MAX_INT)] if isinstance(folder, DirNode) else []


__all__ = ["Changed", "FallbackRules"]
