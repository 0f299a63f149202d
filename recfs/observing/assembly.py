"""Puts together what observes a store in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recfs.observing.feed import Feed
from recfs.observing.journal import EventJournal, turned_off

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.ports.catalogue import Catalogue
    from recfs.ports.reports import Reports
    from recfs.ports.sweep import Sweep
    from recfs.state.tree import Tree


@dataclass(frozen=True, slots=True)
class Observing:
    """What observes a store in use."""

    journal: EventJournal | None
    """None: no events are written."""
    feed: Feed | None

    def recovered(self, *, same: bool) -> None:
        """The start has repaired what there was to repair; *same*: catalogue and home tree were of one time."""
        if self.journal is not None and not same:
            self.journal.renew()

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """What is looked at now and then."""
        return [self.journal.sweep()] if self.journal is not None else []


async def observing(config: Config, tree: Tree, catalogue: Catalogue, reports: Reports) -> Observing:
    """Have it see all that happens from now on: before a start repairs anything."""
    behind = tree.behind
    if not config.events.enabled:
        turned_off(behind, await catalogue.meta())
        return Observing(None, None)
    journal = EventJournal(behind, tree.clock, keep_s=config.events.keep, most=config.events.most)
    await journal.load(catalogue)
    tree.events.subscribe(journal)
    tree.accounts.on_reached = tree.events.limit_reached
    behind.subscribe(journal)
    return Observing(journal, Feed(journal, behind, reports))


__all__ = ["Observing", "observing"]
