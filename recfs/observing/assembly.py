"""Puts together what observes a store in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recfs.observing.audit.files import AuditSettings
from recfs.observing.audit.journald import JournalSocket
from recfs.observing.audit.settings import folder_of
from recfs.observing.audit.trail import PART as AUDIT_PART
from recfs.observing.audit.trail import AuditTrail
from recfs.observing.feed import Feed
from recfs.observing.journal import EventJournal, turned_off
from recfs.observing.notify import PART as NOTIFY_PART
from recfs.observing.notify import Notify, NotifySettings

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.ports.catalogue import Catalogue
    from recfs.ports.reports import Reports
    from recfs.ports.sweep import Sweep
    from recfs.state.tree import Tree


@dataclass(frozen=True, slots=True)
class Observing:
    """What observes a store in use."""

    journal: EventJournal | None = None
    """None: no events are written."""
    feed: Feed | None = None
    audit: AuditTrail | None = None
    notify: Notify | None = None
    """None where no events are written; else a reload may give it a command, or take it."""

    def recovered(self, *, same: bool) -> None:
        """The start has repaired what there was to repair; *same*: catalogue and home tree were of one time."""
        if self.journal is not None and not same:
            self.journal.renew()

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """What is looked at now and then."""
        return [self.journal.sweep()] if self.journal is not None else []

    def services(self, *, mounted: bool) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What has to run, by the name of its part; *mounted* False: for a command alone."""
        found: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        if self.audit is not None:
            found.append((AUDIT_PART, self.audit.run))
        if self.notify is not None and mounted:
            found.append((NOTIFY_PART, self.notify.run))
        return found

    def reconfigure(self, config: Config) -> None:
        """Go by other settings from the next event, act and run on; whatever there is not stays off. Atomic."""
        if self.journal is not None:
            self.journal.keep_s, self.journal.most = config.events.keep, config.events.most
        if self.audit is not None:
            self.audit.reads = config.audit.reads
            self.audit.files.settings = _audit_settings(config)
        if self.notify is not None:
            self.notify.reconfigure(_notify_settings(config))

    @property
    def problems(self) -> list[str]:
        """What somebody has to look at."""
        return [self.notify.skipped] if self.notify is not None and self.notify.skipped else []

    def as_json(self) -> dict[str, Any]:
        """For `recfs status`."""
        return {
            "audit": self.audit.as_json() if self.audit is not None else None,
            "notify": self.notify.as_json() if self.notify is not None and self.notify.is_on else None,
        }


def _audit_settings(config: Config) -> AuditSettings:
    section = config.audit
    folder = folder_of(config.root, section)
    return AuditSettings(
        folder, section.file_size, section.rotate, section.keep, section.most, section.directory is None
    )


def _notify_settings(config: Config) -> NotifySettings:
    wanted = config.notify
    return NotifySettings(
        wanted.command or "", frozenset(wanted.events), wanted.timeout, wanted.per_minute, wanted.most_events
    )


async def observing(config: Config, tree: Tree, catalogue: Catalogue, reports: Reports) -> Observing:
    """Have it see all that happens from now on: before a start repairs anything."""
    tree.accounts.on_reached = tree.events.limit_reached
    audit = None
    if config.audit.enabled:
        other = JournalSocket(config.audit.journal_socket) if config.audit.journal else None
        audit = AuditTrail(_audit_settings(config), tree.clock, reads=config.audit.reads, journal=other)
        tree.events.subscribe(audit)
    behind = tree.behind
    if not config.events.enabled:
        turned_off(behind, await catalogue.meta())
        return Observing(audit=audit)
    journal = EventJournal(behind, tree.clock, tree.paths, keep_s=config.events.keep, most=config.events.most)
    await journal.load(catalogue)
    tree.events.subscribe(journal)
    behind.subscribe(journal)
    feed = Feed(journal, behind, reports)
    notify = Notify(_notify_settings(config), feed, journal, tree)
    await notify.load(catalogue)
    return Observing(journal, feed, audit, notify)


__all__ = ["Observing", "observing"]
