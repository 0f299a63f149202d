"""The composition root: builds the parts, mounts, runs one nursery, and takes everything down in order.

Start: lock the root → open the catalogue → recover → mount → services and control socket → READY.
Stop (SIGTERM, SIGINT, `recfs umount`, or the mount taken away): no new files → unmount → the last handles sealed →
pipeline and settler drained → uploads, but none that fail → catalogue marked clean and closed → lock given back.
A second signal skips the draining; what it leaves is finished at the next start. After a crash the mount point stays
mounted and dead (ENOTCONN): recorders get errors instead of filling an empty directory. The next start clears it.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import sdnotify
import trio

from recfs.answers import DRAIN_POLL_S, HASH_PATIENCE_S, Answers
from recfs.control import ControlServer
from recfs.errors import RecfsError, first_error
from recfs.fs.kernel import PyfuseKernelCache
from recfs.fs.operations import Operations
from recfs.fs.passthrough import FuseSession
from recfs.fs.xattrs import Xattrs
from recfs.mounting import Detached, detach, fuse_options, prepare_mountpoint
from recfs.parts import DRAIN_S, Parts, opened

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.config import Config

log = logging.getLogger("recfs.daemon")

HANGING_S = 5.0
"""How long calls of S3 that were under way are waited for at the very end: they cannot be interrupted."""
LAST_RELEASES_S = 1.0
"""How long it waits, after unmounting, to hear of what was closed."""


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
        raise first_error(group) from group


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
            config, parts.store, parts.vfs, parts.committer, parts.settler, parts.sweeper, parts.timekeeper,
            parts.limiter, mountpoint, self._stop.set, parts.recovered, session,
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
                parts.committer.hurry_all(HASH_PATIENCE_S)
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
        """Record a clean end: nothing was left in flight.

        Closed files that were set aside are whole, and have to be on stable storage before that is said: the next start
        may be after a reboot.
        """
        parts = self._parts
        aside = parts.committer.set_aside
        if not parts.vfs.files.handles and parts.committer.depth == aside and not parts.settler.depth:
            try:
                if aside:
                    await trio.to_thread.run_sync(parts.store.sync_all, limiter=parts.limiter)
                parts.behind.meta("clean", "1")
            except OSError as error:
                log.error("%d files are left to be sealed, and it is not sure that they are whole: %s", aside, error)
        await parts.behind.durable()


def _raise_file_limit() -> None:
    """One descriptor per open file: take what the system allows (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
