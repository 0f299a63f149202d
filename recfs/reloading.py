"""`recfs reload` and SIGHUP: a daemon goes on with a changed configuration, as far as that can change while it runs.

All or nothing: a configuration with a fault changes nothing. What takes another process (`recfs upgrade`) or another
mount stays as it is, and is told by name, while the rest is taken up. All of that changes in one step, between two
requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from recfs.config import Settings
from recfs.config.changes import REMOUNT, Plan, plan
from recfs.config.hints import hints
from recfs.config.reasons import why
from recfs.core.upkeep.leftovers import Mode
from recfs.errors import ConfigError, RecfsError
from recfs.remote import tier_settings
from recfs.tier.reading import BytesInS3
from recfs.upkeep import backup_settings, shares_of_trash

if TYPE_CHECKING:
    from recfs.api.answers import Answers
    from recfs.api.control import Handler
    from recfs.config import Config
    from recfs.fs.fallback_rules import Changed
    from recfs.metrics.looking import Looking
    from recfs.parts import Parts

log = logging.getLogger("recfs.daemon")

READ_S: Final = 10.0
"""How long it may take to read the configuration."""


@dataclass(slots=True)
class Current:
    """The settings that a daemon runs with; in its next life in this process, too."""

    settings: Settings


class Reloading:
    """One daemon's."""

    def __init__(self, parts: Parts, current: Current, answers: Answers, tell: Callable[[str], object]) -> None:
        """*tell* says to the service manager that a reload begins ("RELOADING") and has ended ("READY")."""
        self._parts = parts
        self._current = current
        self._answers = answers
        self._tell = tell
        self._lock = trio.Lock()
        self._limiter = trio.CapacityLimiter(4)  # each that hangs keeps its thread
        self.looking: Looking | None = None
        """What Prometheus is told by, where it is."""

    def handlers(self) -> dict[str, Handler]:
        """Methods of the control protocol by name."""
        return {"reload": self._reload}

    async def hung_up(self) -> None:
        """SIGHUP came. Raises nothing but Cancelled: it is logged."""
        try:
            await self.reload()
        except RecfsError as error:
            log.error("the configuration stays as it was: %s", error)

    async def _reload(self, params: dict[str, Any]) -> dict[str, Any]:
        done = await self.reload()
        return {
            "changed": {key: list(values) for key, values in done.changed.items()},
            "left": dict(done.left),
            "why": {key: why(key) for key in done.left},
        }

    async def reload(self) -> Plan:
        """Read the configuration anew, and take up what can be. Raises ConfigError: then nothing has changed."""
        async with self._lock:
            self._tell("RELOADING")
            try:
                again = self._current.settings.again
                if again is None:
                    raise ConfigError("this daemon does not know where its settings are from")
                wanted = await self._read(again)
                found = plan(self._current.settings, wanted)
                shown = self._apply(found.settings)
                await self._parts.fallback.announce(shown)
            finally:
                self._tell("READY")
        for key, (old, new) in found.changed.items():
            log.info("%s is %s now (was %s)", key, new, old)
        for key, what in found.left.items():
            log.warning(
                "%s has changed in the configuration, and stays as it is: that takes %s, for %s", key, what, why(key)
            )
        for hint in hints(found.settings.config):
            log.info("look again: %s", hint)
        log.info("the configuration was read anew: %d settings changed", len(found.changed))
        return found

    async def take_a_new_mount(self) -> list[str]:
        """Settings by their keys that have changed in the configuration and take an unmount. Raises ConfigError."""
        again = self._current.settings.again
        if again is None:
            return []
        found = plan(self._current.settings, await self._read(again))
        return [key for key, what in found.left.items() if what == REMOUNT]

    async def _read(self, again: Callable[[], Settings]) -> Settings:
        """Read it in a thread that nobody has to wait for: it may lie on a disk that hangs. Raises ConfigError."""
        try:
            with trio.fail_after(READ_S):
                return await trio.to_thread.run_sync(again, limiter=self._limiter, abandon_on_cancel=True)
        except trio.TooSlowError:
            raise ConfigError(
                f"the configuration could not be read in {READ_S:g} s: it lies on a disk that does not answer, or is no"
                " regular file"
            ) from None

    def _apply(self, settings: Settings) -> list[Changed]:
        """Have *settings* hold; returns the directories that show other shared files.

        Atomic, and raises nothing: every value has been checked.
        """
        parts, config = self._parts, settings.config
        tree, vfs, upkeep = parts.tree, parts.vfs, parts.work.upkeep
        logging.getLogger().setLevel(config.log.level.upper())
        vfs.files.modes.measure()  # what is written already is judged by the limits it was written under
        vfs.files.modes.headroom = config.passthrough_headroom
        tree.accounts.set_defaults(config.quota.limits())
        vfs.files.space.min_free = config.min_free
        vfs.files.backlog.max_pending = config.commit.max_pending
        parts.committer.settle_max_s = config.commit.settle_max
        vfs.lives.policy = policy = config.policy()
        vfs.names.allowed_extensions = config.recordings.allowed_extensions
        upkeep.sweeper.max_age_s = config.temp.max_age
        self._keep_trash(config)
        upkeep.backups.settings = backup_settings(config, parts.store)
        upkeep.orphans.grace_s = config.sweep.orphans_grace
        upkeep.versions.rules = config.versions
        if upkeep.multiparts is not None:
            upkeep.multiparts.age_s = config.sweep.multiparts_age
        if upkeep.archiving is not None:
            upkeep.archiving.policy = policy
        self._reschedule(config)
        if upkeep.watcher is not None:
            upkeep.watcher.set_pace(config.watch.quiet, config.watch.scan_interval)
        if upkeep.scrub is not None:
            upkeep.scrub.set_pace(config.scrub.rate, config.scrub.window, config.scrub.period)
        if parts.tier is not None:
            parts.tier.copies.settings = tier_settings(config)
            if isinstance(parts.backing_files.remote, BytesInS3):
                parts.backing_files.remote.fetch_whole_below = config.cache.fetch_whole_below
            parts.tier.copies.request_eviction()  # the budget may be a smaller one
        parts.derivation.reconfigure(config)
        parts.observing.reconfigure(config)
        parts.contents.reconfigure(config)
        self._answers.reconfigure(settings)
        if self.looking is not None:
            self.looking.config = config
        parts.in_effect.config = config
        self._current.settings = settings
        return parts.fallback.change(config.fallback)

    def _keep_trash(self, config: Config) -> None:
        """Have the trash keep what it has, and what comes, for another time, and count it otherwise. Atomic."""
        parts, retention_s = self._parts, config.trash.retention
        parts.publisher.keep_trash(retention_s)
        parts.trash_index.retention_s = parts.work.upkeep.sweeper.retention_s = retention_s
        charges, max_metadata = shares_of_trash(config.trash)
        parts.tree.accounts.reconfigure_trash(charges=charges, max_metadata=max_metadata)

    def _reschedule(self, config: Config) -> None:
        """Have sweeps be due by other periods, counted from their last runs. Atomic."""
        parts, upkeep, every = self._parts, self._parts.work.upkeep, config.sweep
        upkeep.sweeper.interval_s = config.temp.sweep_interval
        upkeep.expiry.interval_s = config.recordings.sweep_interval
        upkeep.orphans.every_s, upkeep.orphans.mode = every.orphans_every, Mode(every.orphans_mode)
        upkeep.versions.every_s = every.versions_every
        parts.upkeep.maintenance.every_s = every.catalogue_every
        parts.figures.reconfigure(config.stats)
        if upkeep.archiving is not None:
            upkeep.archiving.interval_s = config.recordings.sweep_interval
        if upkeep.multiparts is not None:
            upkeep.multiparts.every_s = every.multiparts_every
        parts.sweeps.reschedule([*parts.upkeep.sweeps(), *parts.figures.sweeps()])
        if parts.work.far is not None:
            parts.work.far.tier_run.every_s = every.tier_every
            parts.sweeps.reschedule([parts.work.far.tier_run.sweep()])


__all__ = ["Current", "Reloading"]
