"""Builds what looks after the files of a store in use: what expires, the trash, backups, and verification."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from recfs.api.stats import figures
from recfs.api.work import UpkeepWork
from recfs.core.upkeep.leftovers import Mode
from recfs.core.verification.verdicts import Level
from recfs.disk.home.path_resolver import PathResolver
from recfs.fs.foreign.judging import PART
from recfs.fs.leftovers.adoption import Adoption
from recfs.fs.leftovers.imports import Imports
from recfs.fs.leftovers.local import LocalLeftovers
from recfs.fs.trash import Trash
from recfs.fs.verification.repair import Repair
from recfs.fs.verification.verifier import PART as VERIFY_PART
from recfs.fs.verification.verifier import Verifier
from recfs.services.backups import Backups, BackupSettings
from recfs.services.clearing.sweeper import Sweeper
from recfs.services.clearing.versions import VersionSweep
from recfs.services.expiry import Expiry
from recfs.services.far.archiving import Archiving
from recfs.services.far.multiparts import Multiparts
from recfs.services.figures.counting import Counting
from recfs.services.figures.days import Days
from recfs.services.figures.surveys import Surveys
from recfs.services.importing.copying import Copying
from recfs.services.importing.runs import PART as IMPORT_PART
from recfs.services.importing.runs import Importing
from recfs.services.maintenance import Maintenance
from recfs.services.orphans import Orphans
from recfs.services.verification.runs import Verifications
from recfs.services.verification.scrub import PART as SCRUB_PART
from recfs.services.verification.scrub import Scrub
from recfs.services.watcher import Watcher
from recfs.stores.backups import BackupFolder, backup_folder
from recfs.tier.backups import BucketBackups
from recfs.tier.leftovers import BucketLeftovers

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.config.sections import TrashSection
    from recfs.config.stats import StatsSection
    from recfs.core.migration.places import Place
    from recfs.core.retention import Now
    from recfs.disk.home.publisher import HomePublisher
    from recfs.disk.trash_index import TrashIndex
    from recfs.fs.vfs import Vfs
    from recfs.ports.backups import CatalogueCopies
    from recfs.ports.figures import FigureBooks
    from recfs.ports.kernel import KernelCache
    from recfs.ports.objects import ObjectStore
    from recfs.ports.reports import Reports, Snapshot
    from recfs.ports.sweep import Sweep
    from recfs.services.far.tier_run import TierRun
    from recfs.state.generations import Generations
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore
    from recfs.tier.tier import Tier


@dataclass(slots=True)
class InEffect:
    """The configuration that holds just now: a reload puts another in its place."""

    config: Config


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The parts that look after the files of a store."""

    work: UpkeepWork
    verifier: Verifier
    maintenance: Maintenance

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """What is looked at now and then."""
        far = [each.sweep() for each in (self.work.archiving, self.work.multiparts) if each is not None]
        return [
            *self.work.sweeper.sweeps(),
            self.work.expiry.sweep(),
            *self.work.backups.sweeps(),
            *far,
            *self.work.orphans.sweeps(),
            self.work.versions.sweep(),
            self.maintenance.sweep(),
        ]

    def services(self, *, mounted: bool) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What has to run, by the name of its part; *mounted* False: for a command alone."""
        work = self.work
        found: list[tuple[str, Callable[[], Awaitable[object]]]] = [(VERIFY_PART, work.verifications.run)]
        if work.importing is not None:
            found.append((IMPORT_PART, work.importing.run))
        if mounted and work.watcher is not None:
            found.append((PART, work.watcher.run))
            self.verifier.watched = True
        if mounted and work.scrub is not None:
            found.append((SCRUB_PART, work.scrub.run))
        return found


def build(
    config: Config, vfs: Vfs, store: LocalStore, publisher: HomePublisher, kernel: KernelCache, copies: CatalogueCopies,
    generations: Generations, reports: Reports, tier: Tier | None, tier_run: TierRun | None,
    index: TrashIndex, *, restored: bool, is_busy: Callable[[], bool], reach: Callable[[Place], ObjectStore],
) -> Upkeep:  # fmt: skip
    """Put it together, over a file system that has been recovered; *tier* None: without S3.

    *restored*: this start has found the catalogue and the home tree to be of two times. *is_busy*: whether files are
    being committed. *reach* gives the objects of another place.
    """
    trash = Trash(vfs, store, publisher, kernel, index, tier.trashed if tier is not None else None)
    expiry = Expiry(vfs, reports, interval_s=config.recordings.sweep_interval)
    sweeper = Sweeper(
        vfs, trash, vfs.tree.clock,
        max_age_s=config.temp.max_age, interval_s=config.temp.sweep_interval, retention_s=config.trash.retention,
        held_up=expiry.held_up,
    )  # fmt: skip
    watcher = None
    if config.watch.enabled:
        watcher = Watcher(
            vfs, PathResolver(store), store, publisher, kernel,
            quiet_s=config.watch.quiet, scan_interval_s=config.watch.scan_interval,
        )  # fmt: skip
    multiparts = None
    if tier is not None:
        every_s, age_s = config.sweep.multiparts_every, config.sweep.multiparts_age
        multiparts = Multiparts(tier, vfs.tree, every_s=every_s, age_s=age_s)
    bucket = None
    if tier is not None and config.s3 is not None and config.backup.to_bucket:
        bucket = BucketBackups(tier.objects, config.s3.url)
    ownership = tier.ownership if tier is not None else None
    backups = Backups(backup_settings(config, store), vfs.tree, copies, generations, bucket, ownership)
    policy = config.policy()
    archiving = None
    if tier_run is not None and any(rule.archive_storage_class is not None for rule in policy.rules):
        every_s = config.recordings.sweep_interval
        archiving = Archiving(vfs.tree, policy, expiry.look, tier_run, interval_s=every_s)
    repair = Repair(vfs, store)
    verifier = Verifier(vfs, store, tier, repair)
    vfs.tree.events.subscribe(verifier)
    verifications, scrub = Verifications(verifier, vfs.tree, partial(is_written, vfs, is_busy)), None
    if config.scrub.enabled:
        scrub = Scrub(
            verifier, vfs.tree, level=Level(config.scrub.level), rate=config.scrub.rate, window=config.scrub.window,
            period_s=config.scrub.period, is_busy=is_busy,
        )  # fmt: skip
    orphans = _orphans(config, vfs, store, publisher, kernel, trash, tier, repair)
    if restored:
        orphans.restored()
    importing = None
    if tier is not None and orphans.far is not None and config.s3 is not None:
        imports = Imports(vfs, kernel, orphans.adoption, orphans.far)
        threads = config.s3.threads
        copying = Copying(tier, vfs.tree, imports, orphans.far, reach, threads=threads)
        importing = Importing(tier, vfs.tree, imports, copying, config.s3.url, threads=threads)
    versions = VersionSweep(
        vfs, kernel, config.versions, expiry.held_up, every_s=config.sweep.versions_every
    )  # fmt: skip
    work = UpkeepWork(
        sweeper, trash, expiry, archiving, backups, multiparts, orphans, versions, watcher, verifications, scrub,
        importing,
    )  # fmt: skip
    maintenance = Maintenance(vfs.tree, reports, every_s=config.sweep.catalogue_every)
    return Upkeep(work, verifier, maintenance)


@dataclass(frozen=True, slots=True)
class Figures:
    """What keeps the figures of a store."""

    counting: Counting
    days: Days
    surveys: Surveys

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """What is looked at now and then."""
        return [self.counting.sweep(), self.days.sweep(), self.surveys.sweep()]

    def reconfigure(self, section: StatsSection) -> None:
        """Have them be kept as another [stats] says. Atomic."""
        self.days.keep_s, self.surveys.every_s = section.keep, section.survey_every


def figures_of(in_effect: InEffect, tree: Tree, books: FigureBooks, reports: Reports) -> Figures:
    """Put together what keeps the figures of a store."""
    section = in_effect.config.stats
    surveys = Surveys(
        tree, books, reports, _surveyor(in_effect),
        name=figures.SURVEY, every_s=section.survey_every, few=figures.FEW_FILES,
    )  # fmt: skip
    return Figures(Counting(books, reports), Days(tree, books, reports, keep_s=section.keep), surveys)


def _surveyor(in_effect: InEffect) -> Callable[[Snapshot, Now], dict[str, Any]]:
    def survey(snapshot: Snapshot, now: Now) -> dict[str, Any]:
        return figures.survey(snapshot, in_effect.config, now)

    return survey


def shares_of_trash(trash: TrashSection) -> tuple[bool, int | None]:
    """Whether what a user has in the trash is charged, and how much metadata of it is kept; None: nothing is kept."""
    is_kept = trash.retention > 0
    return trash.charged and is_kept, trash.max_metadata if is_kept else None


def backup_settings(config: Config, store: LocalStore) -> BackupSettings:
    """What backups go by."""
    return BackupSettings(
        config.backup.every, config.backup.keep, backup_folder(config.root, config.backup.directory),
        BackupFolder(store.private, is_own=True), store.catalogue_path, config.min_free, config.backup.recipients,
    )  # fmt: skip


def is_written(vfs: Vfs, is_busy: Callable[[], bool]) -> bool:
    """Whether programs have files open for writing, or such are being committed."""
    return is_busy() or any(handle.writes for handle in vfs.files.handles.values())


def _orphans(
    config: Config, vfs: Vfs, store: LocalStore, publisher: HomePublisher, kernel: KernelCache, trash: Trash,
    tier: Tier | None, repair: Repair,
) -> Orphans:  # fmt: skip
    def fetched() -> list[str]:
        copies = [each.staging for each in tier.copies.partial.values()] if tier is not None else []
        return [*copies, *repair.fetching]

    local = LocalLeftovers(vfs, PathResolver(store), store, publisher, trash, fetched)
    far = BucketLeftovers(tier, vfs.tree) if tier is not None else None
    section = config.sweep
    return Orphans(
        vfs.tree, local, far, Adoption(vfs, kernel, store, local),
        every_s=section.orphans_every, mode=Mode(section.orphans_mode), grace_s=section.orphans_grace,
    )  # fmt: skip
