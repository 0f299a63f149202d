"""The orderly end of a daemon whose mount ends with it; recfs/daemon.py has the order of it all.

What one step meets does not keep it from the next ones: what is left is told, and is finished at the next start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from recfs import notifying
from recfs.errors import MountError, RecfsError, StoreError
from recfs.fuse.mounting import Detached, OwnMount
from recfs.parts import DRAIN_S, Parts
from recfs.services.draining import DRAIN_POLL_S, HASH_PATIENCE_S
from recfs.state.problems import reason_of

log = logging.getLogger("recfs.daemon")

HANGING_S = 5.0
"""How long calls of S3 that were under way are waited for at the very end: they cannot be interrupted."""
LAST_RELEASES_S = 1.0
"""How long it waits, after unmounting, to hear of what was closed."""


class Ending:
    """The stop of one daemon."""

    def __init__(
        self, parts: Parts, mount: OwnMount, waits_for_uploads: Callable[[], bool], leave: Callable[[], object]
    ) -> None:
        """*waits_for_uploads*: whether whoever asked for the stop wants them done first. *leave* is called before the
        process ends here and now, for the mount that it may leave to another.
        """
        self._parts = parts
        self._mount = mount
        self._waits_for_uploads = waits_for_uploads
        self._leave = leave
        self._impatient = trio.CancelScope()
        self._exit: Callable[[int], object] = os._exit
        self.unmounted = Detached.ABSENT
        """What became of the mount."""
        self.is_over = False
        """Whether the kernel has ended the session."""
        self.left: list[str] = []
        """What the stop could not do."""

    def hurry(self) -> None:
        """Do not wait for what is being written: the next start goes on with it."""
        self._impatient.cancel()

    async def end(self) -> None:
        """The orderly stop. What one step meets does not keep it from the next ones; raises nothing but Cancelled."""
        parts = self._parts
        parts.vfs.stopping = True
        parts.committer.hurry_all(HASH_PATIENCE_S)
        committed = False
        async with trio.open_nursery() as telling:
            telling.start_soon(notifying.stopping, self.left_to_do)
            with self._impatient, trio.move_on_after(DRAIN_S):
                await self._attempt(parts.work.draining.drain, uploads=False, mapped=False)
                # From here on nobody can reach the files; what was open is released by the kernel.
                await self._attempt(self._unmount)
                await self._attempt(self._last_releases, self.unmounted)
                committed = await self._attempt(parts.work.draining.drain, uploads=False, mapped=False)
                if committed and self._waits_for_uploads():
                    await self._attempt(parts.work.draining.drain, retries=False, mapped=False)
            telling.cancel_scope.cancel()
        self._tell_what_is_left(committed=committed)

    def left_to_do(self) -> str:
        """What the stop waits for, in a few words."""
        parts = self._parts
        uploads = parts.work.draining.pending_uploads() if self._waits_for_uploads() else 0
        left = ((parts.committer.depth, "to seal"), (parts.publisher.depth, "to settle"), (uploads, "to upload"))
        return ", ".join(f"{count} files {what}" for count, what in left if count) or "nothing is left to be written"

    async def _unmount(self) -> None:
        self.unmounted = await trio.to_thread.run_sync(self._mount.detach)

    async def _attempt(self, step: Callable[..., Awaitable[object]], *args: Any, **kwargs: Any) -> bool:
        """One step of the stop; False, and logged, when it failed."""
        try:
            await step(*args, **kwargs)
        except Exception as error:
            expected = isinstance(error, (RecfsError, OSError))
            log.error("while stopping: %s", reason_of(error), exc_info=None if expected else error)
            return False
        return True

    def _tell_what_is_left(self, *, committed: bool) -> None:
        if not committed:
            log.warning("stopped before everything was committed; the next start goes on with it")
        for item in self._parts.problems.as_json():
            told = ": ".join(str(item[key]) for key in ("part", "path", "reason") if item[key])
            log.warning("set aside: %s; the next start tries it again", told)
        uploads = self._parts.work.draining.pending_uploads()
        if uploads:
            log.info("%d files are not uploaded yet; the next start goes on with them", uploads)

    async def leave_what_hangs(self, services: trio.Nursery) -> None:
        """End the process if a call of S3 keeps it from ending: everything that counts is on the disk by then."""
        deadline = trio.current_time() + HANGING_S
        while services.child_tasks:
            if trio.current_time() > deadline:
                await self._parts.behind.durable()
                self._leave()
                log.warning("S3 leaves requests hanging: stopped without them; the next start goes on with it")
                self._exit(0)
                return
            await trio.sleep(DRAIN_POLL_S)

    async def _last_releases(self, unmounted: Detached) -> None:
        """Give the kernel a moment to release what was just closed; what stays open ends as `incomplete`."""
        files = self._parts.vfs.files
        if not self.is_over:
            with trio.move_on_after(LAST_RELEASES_S):
                await files.no_writers()
                return
        if unmounted is Detached.IDLE or (self.is_over and not self._mount.is_there()):
            # A mount goes when nothing in it is open any more, lazily unmounted or not. So everything had been closed:
            # the kernel dropped what it had not yet told us of. (Where it was aborted, the mount stays.)
            for number in [number for number, handle in files.handles.items() if not handle.foreign]:
                await files.release(number)
        await self._parts.vfs.survivors.release_those_gone()

    async def finish_left(self) -> None:
        """End at once: requests wait for the next daemon, which looks after everything as after a death.

        What was answered is in the catalogue, and what was noted of acts and events is written.
        """
        await self._attempt(self._parts.behind.flush)
        self._exit(0)

    async def finish(self) -> None:
        """Record a clean end: nothing was left in flight. Raises StoreError or MountError where the stop fell short.

        Closed files that were set aside are whole, and have to be on stable storage before that is said: the next start
        may be after a reboot.
        """
        parts = self._parts
        left = parts.committer.left_to_next_start
        settled = parts.committer.depth == left and not parts.publisher.depth and not parts.behind.aside
        if not parts.vfs.files.handles and settled:
            try:
                if left:
                    await trio.to_thread.run_sync(parts.store.sync_all, limiter=parts.limiter)
                parts.behind.meta("clean", "1")
            except OSError as error:
                log.error("%d files are left to be sealed, and it is not sure that they are whole: %s", left, error)
        if not await self._attempt(parts.behind.durable) or parts.behind.aside:
            raise StoreError(
                f"stopped, but the catalogue of {parts.store.root} could not be written to the end; its log tells why."
                f" The next start finds again what was closed"
            )
        parts.store.lock.sign_off()
        if not self.left:
            parts.store.forget_mount()
        else:
            raise MountError(f"stopped, but {'; '.join(self.left)}: `recfs umount {self._mount.point}` clears it")


__all__ = ["HANGING_S", "LAST_RELEASES_S", "Ending"]
