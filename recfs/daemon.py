"""The composition root: builds the parts, mounts, runs one nursery, and takes everything down in order.

Start: lock the root → open the catalogue → recover → mount → services and control socket → READY.
Stop (SIGTERM, SIGINT, `recfs umount`, or the mount taken away): no new files → unmount → the last handles sealed →
pipeline and settler drained → uploads, but none that fail → catalogue marked clean and closed → lock given back.
A second signal skips the draining; what it leaves is finished at the next start. After a crash the mount point stays
mounted and dead (ENOTCONN): recorders get errors instead of filling an empty directory. The next start clears it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sdnotify
import trio

from recfs import remote
from recfs.answers import DRAIN_POLL_S, Answers
from recfs.catalogue.sqlite import SqliteCatalogue, open_catalogue
from recfs.control import ControlServer
from recfs.errors import ControlError, IoFailure, RecfsError, StoreError
from recfs.fs.accounts import Accounts
from recfs.fs.bodies import Bodies
from recfs.fs.iomodes import IoModes
from recfs.fs.kernel import PyfuseKernelCache
from recfs.fs.operations import Operations
from recfs.fs.passthrough import Acceleration, FuseSession
from recfs.fs.places import Places
from recfs.fs.recovery import Recovery, Report
from recfs.fs.staging import Space
from recfs.fs.tree import Tree
from recfs.fs.vfs import Vfs
from recfs.fs.writebehind import WriteBehind
from recfs.fs.xattrs import Xattrs
from recfs.mounting import Detached, detach, fuse_options, prepare_mountpoint
from recfs.remote import Remote
from recfs.services.committer import Committer
from recfs.services.housekeeper import Housekeeper
from recfs.services.meter import Meter
from recfs.services.settler import HomeSettler
from recfs.services.sweeper import Sweeper
from recfs.stores.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.config import Config
    from recfs.objects import ObjectStore
    from recfs.ports import KernelCache, KernelFiles

log = logging.getLogger("recfs.daemon")

FS_THREADS = 16
"""Threads for blocking disk work of requests (limiter fs_io); hashing has its own."""
DRAIN_S = 120.0
"""How long a stop waits for the pipeline."""
HANGING_S = 5.0
"""How long calls of S3 that were under way are waited for at the very end: they cannot be interrupted."""
LAST_RELEASES_S = 1.0
"""How long it waits, after unmounting, to hear of what was closed."""


class SystemClock:
    """The Clock port on the system's real-time clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()


class NoKernelCache:
    """The KernelCache port where nothing is mounted."""

    def forget_entry(self, parent: int, name: bytes, ino: int) -> None:
        """Nobody to tell."""

    def forget_inode(self, ino: int) -> None:
        """Nobody to tell."""

    async def told(self) -> None:
        """Nobody to tell."""


class NoKernelFiles:
    """The KernelFiles port where nothing is mounted."""

    acceleration = Acceleration("off")

    def backing_open(self, fd: int) -> int:
        """Never asked for."""
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def backing_close(self, backing_id: int) -> None:
        """Never asked for."""


@dataclass(slots=True)
class Parts:
    """A store taken into use."""

    store: LocalStore
    catalogue: SqliteCatalogue
    behind: WriteBehind
    tree: Tree
    bodies: Bodies
    settler: HomeSettler
    committer: Committer
    vfs: Vfs
    sweeper: Sweeper
    housekeeper: Housekeeper
    meter: Meter
    remote: Remote | None
    limiter: trio.CapacityLimiter
    recovered: Report

    async def serve(self, nursery: trio.Nursery, *, far: bool = True) -> None:
        """Start the services (*far* False: without S3), and hand them what the last run left."""
        nursery.start_soon(self.behind.run)
        nursery.start_soon(self.bodies.pool.run)
        nursery.start_soon(self.settler.run)
        nursery.start_soon(self.committer.run)
        nursery.start_soon(self.housekeeper.run)
        nursery.start_soon(self.meter.run)
        if self.remote is not None and far:
            self.remote.serve(nursery)
        self.sweeper.sweep_trash()
        for ino in self.recovered.resealed:
            self.committer.submit(ino)
        for ino in self.recovered.unsettled:
            self.settler.add(ino)
        for entry in self.tree.garbage.values():
            if not entry.in_trash:
                self.settler.discard(entry)


@contextlib.asynccontextmanager
async def opened(
    config: Config, kernel: KernelCache, files: KernelFiles | None = None, objects: ObjectStore | None = None
) -> AsyncIterator[Parts]:
    """Lock the root, open and repair the store, build the parts; on leaving, write everything and close."""
    store = LocalStore(config.root)
    store.open()
    try:
        catalogue = open_catalogue(store.catalogue_path, expect_new=not store.has_files())
        try:
            objects = objects or remote.connect(config)
            parts = await _build(config, store, catalogue, kernel, files or NoKernelFiles(), objects)
            try:
                yield parts
            finally:
                with trio.CancelScope(shield=True):
                    parts.bodies.pool.close()
                    await parts.behind.flush()
        finally:
            catalogue.close()
    finally:
        store.close()


async def _build(
    config: Config, store: LocalStore, catalogue: SqliteCatalogue, kernel: KernelCache, files: KernelFiles,
    objects: ObjectStore | None,
) -> Parts:  # fmt: skip
    clock = SystemClock()
    limiter = trio.CapacityLimiter(FS_THREADS)
    behind = WriteBehind(catalogue, config.catalogue.flush_interval)
    tree = Tree(
        catalogue,
        behind,
        Accounts(catalogue, config.quota.limits()),
        clock,
        rules=config.fallback,
        cached_inodes=config.catalogue.cached_inodes,
        owner=(os.geteuid(), os.getegid()),
        operator=config.operator,
    )
    places = Places(store)
    settler = HomeSettler(tree, behind, places, store, trio.CapacityLimiter(1), retention_s=config.trash.retention)
    bodies = Bodies(tree, behind, places, store, settler, limiter)
    committer = Committer(
        tree, behind, places, bodies, settler, store,
        hash_threads=config.commit.hash_threads, settle_max_s=config.commit.settle_max,
    )  # fmt: skip
    space = Space(store, config.min_free)
    modes = IoModes(tree, bodies, space, store, files, kernel, headroom=config.passthrough_headroom)
    vfs = Vfs(
        tree, behind, bodies, space, committer, kernel, modes, limiter,
        max_pending=config.commit.max_pending,
    )  # fmt: skip
    # A writer that the kernel serves, and that cannot be stopped, can use up the reserve. `rm` needs a row then.
    space.has_ballast = not modes.can_stop and config.passthrough == "auto"
    space.keep_ballast()
    behind.on_full = store.drop_ballast
    behind.on_settle = settler.add
    behind.on_discard = settler.discard
    try:
        await tree.start()
        recovered = await Recovery(tree, behind, places, bodies, vfs.names, store).run()
    except IoFailure as error:  # damage that only reading meets
        raise StoreError(str(error)) from error
    _tell(recovered)
    await remote.agree(config, catalogue, behind)
    far = None
    if objects is not None:
        far = remote.build(config, objects, tree, behind, places, bodies, space, store)
        await far.tier.journal.load(catalogue)
        bodies.tier = far.tier
    sweeper = Sweeper(
        vfs, settler, clock,
        max_age_s=config.temp.max_age, interval_s=config.temp.sweep_interval, retention_s=config.trash.retention,
    )  # fmt: skip
    return Parts(
        store, catalogue, behind, tree, bodies, settler, committer, vfs, sweeper, Housekeeper(tree, catalogue, space),
        Meter(modes), far, limiter, recovered,
    )  # fmt: skip


def _tell(report: Report) -> None:
    for what, paths in (
        ("kept as incomplete: %s", report.incomplete),
        ("adopted from staging: %s", report.adopted),
        ("unfinished overwrite taken back: %s", report.rolled_back),
        ("kept in lost+found: %s", report.lost),
    ):
        for path in paths:
            log.info("recovery: " + what, path)
    if report.resealed:
        log.info("recovery: %d closed files are sealed now", len(report.resealed))


# --- the mounted daemon --------------------------------------------------------------------------------------------


def run(config: Config, mountpoint: Path) -> None:
    """Serve *config*'s store at *mountpoint* until told to stop. Raises RecfsError when it cannot start."""
    _raise_file_limit()
    # Hashing threads run little Python, but between two of their system calls they hold the GIL for up to this long
    # while a request waits. Ten times the default's frequency costs under 1 % and shortens that wait as much.
    sys.setswitchinterval(0.0005)
    # A lease that is tried for a moment (services/committer) may be broken by an open in just that moment.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    prepare_mountpoint(mountpoint, config.root)
    try:
        trio.run(_run, config, mountpoint, strict_exception_groups=True)
    except* RecfsError as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[RecfsError]) -> RecfsError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RecfsError)
    return error


async def _run(config: Config, mountpoint: Path) -> None:
    kernel = PyfuseKernelCache()
    notifier = sdnotify.SystemdNotifier() if "NOTIFY_SOCKET" in os.environ else None
    session = FuseSession(mountpoint, fuse_options(config), wanted=config.passthrough)
    async with opened(config, kernel, session) as parts:
        daemon = _Daemon(config, mountpoint, parts, session)
        await daemon.serve(notifier)
        await daemon.finish()
        kernel.close()
    log.info("stopped; %s is unmounted", mountpoint)


class _Daemon:
    """One mounted store between READY and its end."""

    def __init__(self, config: Config, mountpoint: Path, parts: Parts, session: FuseSession) -> None:
        self._config = config
        self._session = session
        self._mountpoint = mountpoint
        self._parts = parts
        self._stop = trio.Event()
        self._impatient = trio.CancelScope()
        self._exit: Callable[[int], object] = os._exit
        self._answers = Answers(
            config, parts.store, parts.vfs, parts.committer, parts.settler, parts.sweeper, parts.limiter,
            mountpoint, self._stop.set, parts.recovered, session,
        )  # fmt: skip

    async def serve(self, notifier: sdnotify.SystemdNotifier | None) -> None:
        """Mount and answer until the stop is asked for, or the mount is taken away."""
        parts, config = self._parts, self._config
        operators = {0, os.geteuid()} | ({config.operator} if config.operator is not None else set())
        session = self._session
        xattrs = Xattrs(parts.vfs, str(parts.store.root))
        session.open(Operations(parts.vfs, xattrs, parts.store, frozenset(operators), session))
        unmounted = Detached.ABSENT
        try:
            async with trio.open_nursery() as around, trio.open_nursery() as nursery:
                await parts.serve(nursery)
                nursery.start_soon(parts.sweeper.run)
                nursery.start_soon(self._signals)
                server = ControlServer(parts.store.socket_path, self._answers.handlers())
                await nursery.start(server.run)
                if config.operator is not None and os.geteuid() == 0:
                    os.chown(parts.store.socket_path, config.operator, -1)  # theirs to command as well as root's
                await nursery.start(self._requests)
                await self._accelerate()
                log.info("%s is mounted on %s", parts.store.root, self._mountpoint)
                if notifier is not None:
                    notifier.notify("READY=1")
                await self._stop.wait()
                if notifier is not None:
                    notifier.notify("STOPPING=1")
                log.info("stopping")
                parts.vfs.stopping = True
                parts.committer.hurry_all()
                committed = False
                with self._impatient, trio.move_on_after(DRAIN_S):
                    await self._answers.settle(uploads=False, mapped=False)
                    # From here on nobody can reach the files; what was open is released by the kernel.
                    unmounted = await trio.to_thread.run_sync(detach, self._mountpoint)
                    await self._last_releases(unmounted)
                    await self._answers.settle(uploads=False, mapped=False)
                    committed = True
                    if self._answers.waits_for_uploads:
                        await self._answers.settle(retries=False, mapped=False)
                self._tell_what_is_left(committed=committed)
                if parts.remote is not None:
                    parts.remote.close()
                    around.start_soon(self._leave_what_hangs, nursery)
                nursery.cancel_scope.cancel()
        finally:
            if unmounted is Detached.ABSENT:
                detach(self._mountpoint)
            session.close()

    def _tell_what_is_left(self, *, committed: bool) -> None:
        if not committed:
            log.warning("stopped before everything was committed; the next start goes on with it")
        uploads = self._answers.s3.pending_uploads()
        if uploads:
            log.info("%d files are not uploaded yet; the next start goes on with them", uploads)

    async def _leave_what_hangs(self, services: trio.Nursery) -> None:
        """End the process if a call of S3 keeps it from ending: everything that counts is on the disk by then."""
        deadline = trio.current_time() + HANGING_S
        while services.child_tasks:
            if trio.current_time() > deadline:
                await self._parts.behind.durable()
                log.warning("S3 leaves requests hanging: stopped without them; the next start goes on with it")
                self._exit(0)
                return
            await trio.sleep(DRAIN_POLL_S)

    async def _accelerate(self) -> None:
        """Find out what the kernel can do by itself, with a file of the store to try it on."""
        fd = self._parts.store.open_file(os.fsencode(self._parts.store.catalogue_path), os.O_RDONLY)
        assert fd is not None
        try:
            found = await self._session.probe(fd)
        finally:
            os.close(fd)
        if found.why_not is None:
            log.info("kernel passthrough: %s", found.summary())
        else:
            log.warning("kernel passthrough: %s", found.summary())

    async def _requests(self, task_status: trio.TaskStatus[None]) -> None:
        await self._session.serve(task_status=task_status)
        # The kernel ended the session: umount(8) from outside, or our own detaching.
        self._stop.set()

    async def _last_releases(self, unmounted: Detached) -> None:
        """Give the kernel a moment to release what was just closed; what stays open ends as `incomplete`."""
        files = self._parts.vfs.files
        with trio.move_on_after(LAST_RELEASES_S):
            await files.no_writers()
            return
        if unmounted is Detached.IDLE:
            # Nothing was open, so everything had been closed: the kernel dropped what it had not yet told us of.
            for number in list(files.handles):
                await files.release(number)

    async def _signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if self._stop.is_set():
                    log.warning("second signal: leaving without draining")
                    self._impatient.cancel()
                else:
                    log.info("%s received", signal.Signals(number).name)
                    self._stop.set()

    async def finish(self) -> None:
        """Record a clean end: nothing was left in flight."""
        parts = self._parts
        if not parts.vfs.files.handles and not parts.committer.depth and not parts.settler.depth:
            parts.behind.meta("clean", "1")
        await parts.behind.durable()


# --- without a mount -----------------------------------------------------------------------------------------------


class Offline:
    """A store taken into use by a command, nothing mounted. Each call starts, answers and finishes what it began."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def call(self, method: str, **params: Any) -> Any:
        """Answer one control method. Raises RecfsError."""
        try:
            return trio.run(self._call, method, params)
        except* RecfsError as group:
            raise _first(group) from group

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        async with opened(self._config, NoKernelCache()) as parts, trio.open_nursery() as nursery:
            await parts.serve(nursery, far=False)  # whoever sets a quota does not want to wait for uploads
            answers = Answers(
                self._config, parts.store, parts.vfs, parts.committer, parts.settler, parts.sweeper, parts.limiter,
                None, lambda: None, parts.recovered,
            )  # fmt: skip
            handler = answers.handlers().get(method)
            if handler is None:
                raise ControlError(f"{method} needs a running daemon")
            try:
                return await handler(params)
            finally:
                with trio.move_on_after(DRAIN_S, shield=True):
                    await answers.settle(uploads=False)
                parts.behind.meta("clean", "1")
                nursery.cancel_scope.cancel()


@contextlib.contextmanager
def offline(config: Config) -> Iterator[Offline]:
    """The store's control methods without a daemon. Raises RootBusy at the first call if one runs after all."""
    yield Offline(config)


def _raise_file_limit() -> None:
    """One descriptor per open file: take what the system allows (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
