"""Runs one mounted store: has the parts built (parts.py), mounts, runs one nursery, and takes everything down in order.

Start: lock the root → open the catalogue → recover → mount → services and control socket → READY.
Stop (SIGTERM, SIGINT, `recfs umount`, or the mount taken away): no new files → unmount → the last handles sealed →
pipeline and publisher drained → uploads, but none that fail → catalogue marked clean and closed → lock given back.
A second signal skips the draining; what it leaves is finished at the next start. After a crash the mount point stays
mounted and dead (ENOTCONN): recorders get errors instead of filling an empty directory. The next start clears it.

Handover (`recfs upgrade`): start and prepare a successor → read no more requests, answer those in hand → write what is
dirty → services ended, catalogue closed → leave the kernel's descriptor, the root's lock and the open files to the
successor, and end. Should anything fail until the successor is told to go, this process takes them up again itself, as
a successor would: the mount stays, and so does what is open. `recfs/succession.py` has what passes between the two.

Restart by a service manager that keeps the mount (kept_mount.py): the same until all has ended, and no successor. The
daemon that is started next goes on as after a death, but nothing was under way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from recfs import notifying, process
from recfs.api.answers import Answers
from recfs.api.control import ControlServer
from recfs.api.gateway import PART as GATEWAY
from recfs.api.gateway import gateway
from recfs.api.observing import WAITING, acts_of
from recfs.api.parameters import checked
from recfs.config.hints import hints
from recfs.config.metrics import address_of
from recfs.ending import Ending
from recfs.errors import ConfigError, MountError, RecfsError, first_error_alone
from recfs.fs.handover.kept_files import KeptFiles, name_of
from recfs.fs.handover.open_files import Heir
from recfs.fs.xattrs import Xattrs
from recfs.fuse.kept.operations import KeptOperations
from recfs.fuse.kernel import PyfuseKernelCache
from recfs.fuse.mounting import Detached, OwnMount, fuse_options, prepare_mountpoint
from recfs.fuse.observers.acts import Acts
from recfs.fuse.observers.live import LiveCounts
from recfs.fuse.operations import Operations
from recfs.fuse.passthrough import FuseSession
from recfs.handing_over import HandingOver
from recfs.kept_mount import KeptMount, give_up, left_by_the_dead
from recfs.metrics.happened import Happened
from recfs.metrics.looking import Looking
from recfs.metrics.requests import Requests
from recfs.parts import Parts, opened, require_no_change_of_schema
from recfs.reloading import Current, Reloading
from recfs.services.draining import DRAIN_POLL_S
from recfs.state.problems import forever
from recfs.succession import Legacy, Predecessor, Successor, predecessor

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.config import Settings

log = logging.getLogger("recfs.daemon")


def run(
    settings: Settings, mountpoint: Path, command: Sequence[str] = (), *, on_mounted: Callable[[], object] | None = None
) -> None:
    """Serve the store of *settings* at *mountpoint* until told to stop. Raises RecfsError when it cannot start.

    *command* starts such a daemon from anywhere; without one, the mount is left to no successor. Where this process
    was started as one (`succession.predecessor`), it goes on with the mount that is there. *on_mounted* is called
    before READY=1.
    """
    # From here on none of them ends this process, also while no event loop runs: between two daemons.
    hangups: list[int] = []
    signal.signal(signal.SIGHUP, lambda which, _frame: hangups.append(which))
    process.prepare()
    config, current = settings.config, Current(settings)
    before = predecessor()
    if before is not None:
        require_no_change_of_schema(config)
    legacy = before.legacy(config.root, mountpoint) if before is not None else left_by_the_dead(config.root, mountpoint)
    if legacy is None:
        prepare_mountpoint(mountpoint, config.root)
    caught: list[int] = []
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda which, _frame: caught.append(which))  # between two runs; else trio hears of them
    refusal = ""
    while True:
        try:
            with first_error_alone():
                leaving = trio.run(
                    _run,
                    current,
                    mountpoint,
                    command,
                    legacy,
                    before,
                    refusal,
                    caught,
                    hangups,
                    on_mounted,
                    strict_exception_groups=True,
                )
        except RecfsError:
            if legacy is not None and legacy.died:
                give_up(mountpoint)
            raise
        if leaving is None:
            return
        successor, legacy = leaving
        before = None
        try:
            successor.give(legacy)
        except MountError as error:
            log.error("%s; this daemon goes on", error)
            successor.call_off()
            refusal = str(error)
            continue
        notifying.tell(f"MAINPID={successor.pid}")
        successor.go()
        log.info("%s is left to process %d", mountpoint, successor.pid)
        for number in caught:
            os.kill(successor.pid, number)
        return


async def _run(
    current: Current, mountpoint: Path, command: Sequence[str], legacy: Legacy | None, before: Predecessor | None,
    refusal: str, caught: list[int], hangups: list[int], on_mounted: Callable[[], object] | None,
) -> tuple[Successor, Legacy] | None:  # fmt: skip
    """Serve until the end; what is left, and to whom, where another process is to go on."""
    config = current.settings.config
    kernel = PyfuseKernelCache()
    inherited = legacy.session if legacy is not None else None
    session = FuseSession(mountpoint, fuse_options(config), wanted=config.passthrough, inherited=inherited)
    lock_fd, kept_open = (legacy.lock_fd, legacy.writing) if legacy is not None else (-1, frozenset[int]())
    died = legacy is not None and legacy.died
    store = opened(config, kernel, session, lock_fd=lock_fd, kept_open=kept_open, rows_come_first=died)
    async with contextlib.AsyncExitStack() as ends:
        async with notifying.starting():
            parts = await ends.enter_async_context(store)
        if parts.mistaken_operator is not None and not died:  # else programs would lose their mount for it
            raise ConfigError(str(parts.mistaken_operator))
        daemon = _Daemon(current, mountpoint, parts, session, kernel, command, legacy)
        daemon.handing_over.refused = refusal
        if caught:
            daemon.stop()
        daemon.hangups = hangups
        if legacy is not None:
            await daemon.take_over(legacy, before)
        await daemon.serve(on_mounted)
        if (left := daemon.left_to_successor()) is not None:
            return left
        try:
            if daemon.handing_over.is_left:
                await daemon.ending.finish_left()
                return None
            await daemon.ending.finish()
        finally:
            kernel.close()
    log.info("stopped; %s is unmounted", daemon.mount.point)
    return None


async def planted_fault() -> None:
    """Fail as no part should, when a test asks for it: RECFS_TEST_INTERNAL_ERROR names a file that sets it off."""
    trigger = os.environ.get("RECFS_TEST_INTERNAL_ERROR")
    while trigger is not None and not await trio.Path(trigger).exists():  # noqa: ASYNC110  # a file announces nothing
        await trio.sleep(DRAIN_POLL_S)
    if trigger is not None:
        raise RuntimeError("planted by a test")


class _Daemon:
    """One mounted store between READY and its end."""

    def __init__(
        self, current: Current, mountpoint: Path, parts: Parts, session: FuseSession, kernel: PyfuseKernelCache,
        command: Sequence[str], legacy: Legacy | None,
    ) -> None:  # fmt: skip
        settings = current.settings
        self._config = config = settings.config
        self._session = session
        self._kernel = kernel
        self.mount = OwnMount.identified(legacy.mount) if legacy is not None and legacy.mount else OwnMount(mountpoint)
        self._parts = parts
        self._stop = trio.Event()
        self._took_over = legacy is not None
        self._kept = KeptMount(parts, session, self.mount, legacy)
        self._requests_made = Requests() if config.metrics.listen is not None else None
        """Counted for Prometheus; None: nobody asks."""
        self._happened = Happened()
        if self._requests_made is not None:
            parts.tree.events.subscribe(self._happened)
        self._live = LiveCounts(parts.vfs)
        self._legacy: Legacy | None = None
        """What is left to another daemon, when everything here has ended."""
        self._goes_on = False
        """Whether the mount outlives this daemon."""
        self._serving = False
        """Programs rely on the mount: from READY until the orderly stop has come to its end."""
        self._answers = Answers(
            config, parts.store, parts.vfs, parts.tier, parts.committer, parts.publisher, parts.work, parts.timekeeper,
            parts.reports, parts.observing, mountpoint, self._told_to_stop, parts.recovered, session, self.mount.look,
            self.mount.is_there, parts.sweeps, settings.origins, self._live,
        )  # fmt: skip
        self.ending = Ending(parts, self.mount, lambda: self._answers.waits_for_uploads, self._leave_kept)
        self.hangups: list[int] = []
        """Each SIGHUP that came while nobody heard of it."""
        self._reloading = Reloading(parts, current, self._answers, notifying.tell_of_reload)
        self.handing_over = HandingOver(
            parts, session, kernel, command, self.mount, mountpoint, self._stop, self._kept, self._reloading
        )

    def stop(self) -> None:
        """End in order, as soon as everything is served."""
        self._stop.set()

    def _leave_kept(self) -> None:
        if self.handing_over.is_left:
            self.handing_over.leave_kept()

    def _told_to_stop(self) -> None:
        log.info("a stop was asked for on the control socket")
        self._stop.set()

    def left_to_successor(self) -> tuple[Successor, Legacy] | None:
        """Who goes on with the mount, and what is left to it; None where it was unmounted. Atomic."""
        successor = self.handing_over.successor
        return (successor, self._legacy) if successor is not None and self._legacy is not None else None

    def _operations(self) -> Operations:
        parts = self._parts
        xattrs = Xattrs(parts.vfs, str(parts.store.root))
        kind = Operations if parts.tree.ledger is None else KeptOperations
        operations = kind(parts.vfs, xattrs, parts.store, parts.operators, self._session)
        if isinstance(operations, KeptOperations):
            operations.nameless = self._kept.nameless
            parts.tree.events.subscribe(self._kept.nameless)
        if parts.observing.audit is not None:
            Acts(parts.vfs, parts.observing.audit).observe(operations)
        if self._requests_made is not None:
            self._requests_made.observe(operations)
        self._live.serve(operations)
        return operations

    async def take_over(self, legacy: Legacy, before: Predecessor | None) -> None:
        """Enter what an earlier daemon left, and begin when it says so. Raises RecfsError: it goes on itself then."""
        self._session.open(self._operations())
        if legacy.died and legacy.ledger is not None:
            for ino, kept in legacy.nameless.items():
                self._kept.nameless.know(ino, kept.name)
            await KeptFiles(self._parts.vfs, legacy.ledger, legacy.nameless).take_over()
        else:
            await Heir(self._parts.vfs, legacy.files).take_over()
            for handle in self._parts.vfs.files.handles.values():
                if handle.node.unlinked and self._kept.is_kept:
                    self._kept.nameless.know(handle.node.ino, name_of(handle.node))
        await self._session.negotiate()
        if before is not None:
            await trio.to_thread.run_sync(before.ready)
        for item in legacy.files.unsent:
            if isinstance(item, int):
                self._kernel.forget_inode(item)
            else:
                self._kernel.forget_entry(item[0], bytes.fromhex(item[1]), item[2])
        if legacy.left_in_order:
            self._kept.taken_over()

    async def serve(self, on_mounted: Callable[[], object] | None) -> None:
        """Mount and answer until the stop is asked for, or the mount is taken away."""
        parts, config = self._parts, self._config
        session = self._session
        if not self._took_over:
            session.open(self._operations())
            self.mount.identify()
        self.mount.note(parts.store.mount_note)
        try:
            async with trio.open_nursery() as around, trio.open_nursery() as nursery:
                await parts.serve(nursery, s3=False, mounted=True)
                nursery.start_soon(self.handing_over.far_services)
                nursery.start_soon(self._signals)
                self._serve_metrics(nursery)
                handlers = checked(self._answers.handlers() | self.handing_over.handlers() | self._reloading.handlers())
                server = ControlServer(
                    parts.store.socket_path, handlers, waiting=WAITING, observer=acts_of(parts.observing)
                )
                await nursery.start(server.run)
                if config.operator is not None and parts.mistaken_operator is None and os.geteuid() == 0:
                    with parts.problems.aside("control", "owner", str(parts.store.socket_path)):
                        os.chown(parts.store.socket_path, config.operator, -1)  # theirs to command as well as root's
                self._serve_gateway(nursery, handlers)
                await nursery.start(self._requests)
                if not self._took_over:
                    await self._accelerate()
                    self._kept.keep()
                log.info(
                    "%s is mounted on %s%s", parts.store.root, self.mount.point,
                    f", with {len(parts.vfs.files.handles)} open files of an earlier daemon" if self._took_over else "",
                )  # fmt: skip
                for hint in hints(config):
                    log.info("look again: %s", hint)
                self._serving = True
                if on_mounted is not None:
                    on_mounted()
                nursery.start_soon(planted_fault)
                notifying.tell(f"{notifying.READY}\nSTATUS=serving {self.mount.point}")
                if (every_s := notifying.watchdog_s()) is not None:
                    watchdog = notifying.Watchdog(self.mount.place, every_s)
                    nursery.start_soon(forever, "watchdog", watchdog.run, parts.problems)
                await self._stop.wait()
                if not self.handing_over.goes_on:
                    notifying.tell("STOPPING=1")
                    log.info("stopping")
                    await self.ending.end()
                if parts.s3_services is not None:
                    parts.s3_services.close()
                    around.start_soon(self.ending.leave_what_hangs, nursery)
                nursery.cancel_scope.cancel()
            self._serving = False
            if self.handing_over.successor is not None:
                self._legacy = self.handing_over.legacy()
                self._goes_on = True
            elif self.handing_over.is_left:
                self.handing_over.leave_kept()
                self._goes_on = True
        finally:
            # After an internal error the mount stays, dead: whoever records gets errors, not an empty directory.
            if self._serving:
                log.critical("internal error: %s stays as a dead mount; the next start clears it", self.mount.look())
            elif not self._goes_on and self.ending.unmounted is Detached.ABSENT:
                self.mount.detach()
            if not self._goes_on:
                if not self._serving:
                    self._kept.let_go()
                session.close()
            else:
                session.abandon()
        if not self._goes_on and self.mount.is_there():
            self.ending.left.append(f"{self.mount.point} could not be unmounted")

    def _serve_gateway(self, nursery: trio.Nursery, handlers: Mapping[str, Handler]) -> None:
        server = gateway(self._config.gateway, handlers, self._parts.observing)
        if server is not None:
            nursery.start_soon(forever, GATEWAY, server.run, self._parts.problems)

    def _serve_metrics(self, nursery: trio.Nursery) -> None:
        if self._requests_made is None or self._config.metrics.listen is None:
            return
        from recfs.metrics.endpoint import PART, Endpoint  # the client library takes memory: only where it is wanted

        parts = self._parts
        looking = Looking(
            self._config, parts.store, parts.vfs, parts.tier, parts.committer, parts.publisher, parts.reports,
            parts.sweeps, self._session, parts.work.probing, parts.upkeep.work.backups, parts.observing, self._happened,
        )  # fmt: skip
        self._reloading.looking = looking
        endpoint = Endpoint(*address_of(self._config.metrics.listen), looking.look, self._requests_made)
        nursery.start_soon(forever, PART, endpoint.run, parts.problems)

    async def _accelerate(self) -> None:
        """Find out what the kernel can do by itself, with a file of the store to try it on."""
        with self._parts.problems.aside("passthrough", None):  # everything works without it
            await self._try_passthrough()

    async def _try_passthrough(self) -> None:
        # Not the catalogue: closing any descriptor of that drops SQLite's locks on it (fcntl(2)), and the next program
        # that looks into it takes itself for the last one, and removes the log.
        fd = self._parts.store.open_file(os.fsencode(self._parts.store.private / "lock"), os.O_RDONLY)
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
        if not self._stop.is_set():
            log.info("%s was taken away: somebody has unmounted it past recfs", self.mount.point)
        self.ending.is_over = True
        self._stop.set()

    async def _signals(self) -> None:
        has_terminal = process.has_controlling_terminal()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            if self.hangups:
                self.hangups.clear()
                await self._reloading.hung_up()
            async for number in signals:
                if number == signal.SIGHUP and not has_terminal:
                    log.info("SIGHUP received")
                    await self._reloading.hung_up()
                elif self._stop.is_set():
                    log.warning("second signal: leaving without draining")
                    self.ending.hurry()
                else:
                    log.info("%s received", signal.Signals(number).name)
                    self._stop.set()
