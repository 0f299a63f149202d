"""Makes the parts of a store, of its configuration and what the last run left."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs import contents, derivation, remote, upkeep
from recfs.api.work import FarWork, ReuseWork, Work
from recfs.catalogue.connection import full
from recfs.catalogue.copying import CatalogueCopies
from recfs.catalogue.reports import SqliteReports
from recfs.catalogue.reuse.processing import ProcessingStore
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.clock import SystemClock
from recfs.core.access.owners import Mistaken, mistaken_operator
from recfs.core.generation import Age
from recfs.core.upkeep.in_trash import InTrash
from recfs.disk.backing_files import BackingFiles
from recfs.disk.commit.committer import Committer
from recfs.disk.commit.hashing import Hashing
from recfs.disk.commit.md5s import Md5s
from recfs.disk.commit.unhashed import Unhashed
from recfs.disk.committed import CommittedFiles
from recfs.disk.diskio import fallocate
from recfs.disk.home.inuse import InUse
from recfs.disk.home.path_resolver import PathResolver
from recfs.disk.home.publisher import HomePublisher
from recfs.disk.staging import DiskReserve, StagingPool
from recfs.disk.trash_index import TrashIndex
from recfs.errors import IoFailure, NotAStore, OutOfSpace, StoreError
from recfs.fs.backlog import Backlog
from recfs.fs.fallback_rules import FallbackRules
from recfs.fs.iomodes import IoModes
from recfs.fs.recovery import Recovery, Report, Restored
from recfs.fs.session import Sessions
from recfs.fs.vfs import Vfs
from recfs.observing.assembly import observing
from recfs.parts.made import Parts
from recfs.ports.batch import Batch
from recfs.services.access.users import Users
from recfs.services.draining import Draining
from recfs.services.far.claiming import Claiming
from recfs.services.far.local_copies import LocalCopies
from recfs.services.far.queue_changes import QueueChanges
from recfs.services.far.tier_run import TierRun
from recfs.services.housekeeper import Housekeeper
from recfs.services.meter import Meter
from recfs.services.recount import Recount
from recfs.services.reuse import processing
from recfs.services.reuse.dedupe import Dedupe
from recfs.services.reuse.numbering import Numbering
from recfs.services.run_history import RunHistory
from recfs.services.sweeps import Sweeps
from recfs.services.timekeeper import Timekeeper
from recfs.state import generations
from recfs.state.accounts import Accounts
from recfs.state.events import acting_for, own
from recfs.state.refusals import UNSURE
from recfs.state.remote import LocalOnly
from recfs.state.tree import Tree
from recfs.state.writebehind import WriteBehind
from recfs.stores import restoring
from recfs.stores.local import LocalStore
from recfs.tier.queue.unanswered import Unanswered

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.config.sections import TrashSection
    from recfs.ports.kernel import KernelCache, KernelFiles
    from recfs.ports.objects import ObjectStore
    from recfs.ports.reports import Reports, Snapshot
    from recfs.state.nodes import FileNode

log = logging.getLogger("recfs.daemon")

FS_THREADS = 16
"""Threads for blocking disk work of requests (limiter fs_io); hashing has its own."""


def _in_trash(trash: TrashSection) -> InTrash:
    charges, max_metadata = upkeep.shares_of_trash(trash)
    return InTrash(charges=charges, max_metadata=max_metadata)


async def _mistaken_operator(config: Config, reports: Reports) -> Mistaken | None:
    if config.operator is None:
        return None
    try:
        accounts = await reports.ask(lambda snapshot: snapshot.accounts())
    except NotAStore:
        return None  # a new one: it has no users
    return mistaken_operator(config.operator, ((each.user, each.owner) for each in accounts))


async def build(
    config: Config, store: LocalStore, catalogue: SqliteCatalogue, kernel: KernelCache, files: KernelFiles,
    objects: ObjectStore | None, kept_open: frozenset[int], rows_come_first: bool,
) -> Parts:  # fmt: skip
    """Make the parts, and mend what is to be mended in the store (`fs/recovery`). Raises StoreError."""
    clock = await _clock(store, catalogue)
    await _recount(catalogue)
    limiter = trio.CapacityLimiter(FS_THREADS)
    reports = SqliteReports(store.catalogue_path, limiter)
    mistaken = await _mistaken_operator(config, reports)
    operator = config.operator if mistaken is None else None  # what no user was kept from, nobody is given
    behind = WriteBehind(catalogue, config.catalogue.flush_interval, partial(_make_room, store, catalogue))
    tree = Tree(
        catalogue,
        behind,
        Accounts(catalogue, config.quota.limits(), _in_trash(config.trash)),
        clock,
        rules=config.fallback,
        cached_inodes=config.catalogue.cached_inodes,
        owner=(os.geteuid(), os.getegid()),
        operator=operator,
    )
    told = await observing(config, tree, catalogue, reports)
    media = contents.media_rows(config, tree)
    places = PathResolver(store)
    unanswered = Unanswered(clock)
    objects = objects or remote.connect(config, unanswered)
    in_use = InUse()
    publisher = HomePublisher(
        tree, behind, places, store, trio.CapacityLimiter(1), in_use, retention_s=config.trash.retention
    )
    pool = StagingPool(store, limiter)
    # Others can use up the reserve, and writers that the kernel serves before they are stopped. `rm` needs a row then.
    space = DiskReserve(store, config.min_free, partial(catalogue.headroom.keep, fallocate))
    hashing = Hashing(store, config.commit.hash_threads)
    local = LocalOnly(behind)
    trash_index = TrashIndex(tree, retention_s=config.trash.retention)
    tier, in_s3 = None, None
    if objects is not None:
        tier, in_s3 = remote.reach(config, objects, tree, pool, space, store, hashing, unanswered, trash_index)
    else:
        tree.events.subscribe(local)
    backing_files = BackingFiles(tree, places, store, publisher, pool, in_use, in_s3 or local, trash_index)
    committer = Committer(
        tree, behind, places, backing_files, publisher, store, hashing,
        hash_threads=config.commit.hash_threads, settle_max_s=config.commit.settle_max,
    )  # fmt: skip
    tree.events.subscribe(committer)
    backlog = Backlog(backing_files.remote.budget, behind, committer, max_pending=config.commit.max_pending)
    modes = IoModes(tree, backing_files, space, store, files, kernel, backlog, headroom=config.passthrough_headroom)
    md5s = Md5s(behind, backing_files, hashing)
    operators = frozenset({0, os.geteuid()} | ({operator} if operator is not None else set()))
    vfs = Vfs(
        tree, backing_files, space, committer, kernel, modes, md5s, media, operators=operators, policy=config.policy()
    )  # fmt: skip
    vfs.names.allowed_extensions = config.recordings.allowed_extensions
    space.keep_emergency_reserve()
    behind.subscribe(publisher)
    with _readable(store):
        await tree.start()
        await trash_index.load(catalogue)
        counting = generations.Generations(behind, catalogue, store)
        recovery = Recovery(
            tree,
            behind,
            places,
            backing_files,
            vfs.names,
            store,
            vfs.survivors,
            counting,
            _restored(store, config),
            kept_open,
            rows_come_first=rows_come_first,
        )
        with acting_for(own("recovery")):
            recovered = await recovery.run()
        told.recovered(same=recovered.age is Age.SAME)
        trash_index.attach()
    await remote.agree(config, catalogue, behind)
    if tier is not None:
        await tier.load(catalogue)
        tree.events.subscribe(tier)
    with _readable(store):
        await recovery.end()
    _tell(recovered)
    history = RunHistory(behind, clock)
    with _readable(store):
        await history.load(catalogue)
    tier_run = None
    if tier is not None:
        default_class = config.s3.storage_class if config.s3 is not None else None
        tier_run = TierRun(tier, tree, default_class, every_s=config.sweep.tier_every)
    care = upkeep.build(
        config, vfs, store, publisher, kernel, CatalogueCopies(), counting, reports, tier, tier_run,
        trash_index, restored=recovered.age is not Age.SAME, is_busy=lambda: committer.busy_with > 0,
        reach=partial(remote.elsewhere, config),
    )  # fmt: skip
    files_here, sessions = CommittedFiles(backing_files, places, store), Sessions(vfs, kernel, operators)
    made = derivation.build(config, vfs, store, files_here, sessions, catalogue, reports, media)
    timekeeper = Timekeeper(clock, behind)
    in_effect = upkeep.InEffect(config)
    figures = upkeep.figures_of(in_effect, tree, catalogue, reports)
    reuse = ReuseWork(
        sessions, operators, frozenset(config.processing_cache.writers), Numbering(tree),
        _processing_cache(config, store, tree, space), Dedupe(tree, reports, files_here),
    )  # fmt: skip
    sweeps = (
        *Housekeeper(tree, catalogue, space, counting).sweeps(), Meter(modes).sweep(), timekeeper.sweep(),
        *care.sweeps(), *made.sweeps(), *told.sweeps(), reuse.processing.sweep(),
        *figures.sweeps(),
        *((tier_run.sweep(),) if tier_run is not None else ()),
    )  # fmt: skip
    unhashed = Unhashed(
        tree, committer, partial(reports.ask, _unhashed),
        partial(upkeep.is_written, vfs, lambda: committer.busy_with > committer.failing),
    )  # fmt: skip
    draining = Draining(tree, tier, committer, unhashed, publisher)
    users = Users(vfs, kernel, reports, operators, store.root, gives_owners=store.gives_owners)
    s3_services, far_work = None, None
    if tier is not None and tier_run is not None:
        s3_services = remote.build(config, tier, tree, files_here, md5s, media)
        far_work = FarWork(LocalCopies(tier, tree, reports), tier_run, QueueChanges(tier, tree), Claiming(tier, tree))
    known = s3_services.broken.known if s3_services is not None else _nobody_waits
    looking = contents.build(config, media, tree, files_here, known)
    return Parts(
        store, catalogue, behind, tree, backing_files, publisher, hashing, committer, unhashed, vfs,
        Work(care.work, draining, Recount(tree, catalogue), users, reuse, made.work, looking.probing, far_work),
        care, made, Sweeps(sweeps, behind.problems, clock, history), timekeeper,
        s3_services, limiter, reports, recovered, trash_index, counting, sessions, told, operators,
        mistaken, in_effect, looking, figures, FallbackRules(tree, kernel),
    )  # fmt: skip


def _processing_cache(
    config: Config, store: LocalStore, tree: Tree, space: DiskReserve
) -> processing.ProcessingCache:  # fmt: skip
    section = config.processing_cache
    settings = processing.Settings(
        section.enabled, section.max_size, section.max_entry, section.lifetimes(), section.sweep_interval
    )  # fmt: skip
    return processing.ProcessingCache(
        ProcessingStore(store.private / "processing.db"), tree.clock, settings, space.admit
    )  # fmt: skip


def _nobody_waits(node: FileNode) -> None:
    """There is no upload."""


def _unhashed(snapshot: Snapshot) -> tuple[int, int]:
    return snapshot.unhashed()


def _restored(store: LocalStore, config: Config) -> Restored | None:
    """What is to be done because the catalogue was put back, if it was."""
    restoration = restoring.under_way(store.private)
    if restoration is None or restoration.compared:
        return None
    done = partial(restoring.compared, store.private, at_its_end=config.s3 is None)
    return Restored(restoration.forget, done)


@contextlib.contextmanager
def _readable(store: LocalStore) -> Iterator[None]:
    """What only reading meets, or writing what was repaired, is a StoreError with its reason."""
    try:
        yield
    except IoFailure as error:
        raise StoreError(str(error)) from error
    except OutOfSpace as error:
        raise full(store.catalogue_path) from error


async def _clock(store: LocalStore, catalogue: SqliteCatalogue) -> SystemClock:
    try:
        clock = SystemClock(await catalogue.meta(), store.boot_id())
        await catalogue.forget_future(clock.steady_ns())
    except IoFailure as error:
        raise StoreError(str(error)) from error
    return clock


async def _recount(catalogue: SqliteCatalogue) -> None:
    """Add the counters up anew, when the last run ended while the catalogue did not take rows that they count."""
    if (await catalogue.meta()).get(UNSURE) == "1":
        off = await catalogue.recount()
        await catalogue.apply(Batch(meta={UNSURE: "0"}))
        log.info("recovery: counters added up anew: %d were off", off)


async def _make_room(store: LocalStore, catalogue: SqliteCatalogue) -> bool:
    """Give the catalogue what was put aside for it, and the room its log takes; tells whether there was any."""
    dropped = store.drop_emergency_reserve()
    return await catalogue.fold() or dropped


def _tell(report: Report) -> None:
    for what, paths in (
        ("kept as incomplete: %s", report.incomplete),
        ("adopted from staging: %s", report.adopted),
        ("unfinished overwrite taken back: %s", report.rolled_back),
        ("kept in lost+found: %s", report.lost),
        ("removed again: %s", report.removed),
    ):
        for path in paths:
            log.info("recovery: " + what, path)
    for sentence in report.said[1:]:  # the first was logged when it was found
        log.warning("recovery: %s", sentence)
    if report.resealed:
        log.info("recovery: %d closed files are sealed now", len(report.resealed))
