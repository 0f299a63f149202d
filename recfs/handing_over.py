"""How a daemon that is to be replaced leaves its mount: up to the moment when the mount is read no more.

`recfs upgrade` has it start its successor. Where the service manager restarts it, that starts the next daemon, and
keeps the mount meanwhile (kept_mount.py).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import trio

from recfs.errors import Busy, NotSupported
from recfs.fs.handover.open_files import left_by, why_not
from recfs.state.problems import forever
from recfs.succession import Legacy, Successor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recfs.api.control import Handler
    from recfs.fuse.kernel import PyfuseKernelCache
    from recfs.fuse.mounting import OwnMount
    from recfs.fuse.passthrough import FuseSession, Inherited
    from recfs.kept_mount import KeptMount
    from recfs.parts import Parts
    from recfs.reloading import Reloading

log = logging.getLogger("recfs.daemon")

PATIENCE_S = 30.0
"""How long what cannot be left to another daemon just now is waited for; everything is served meanwhile."""
LEAVE_PATIENCE_S = 10.0
"""The same where the next daemon copes with it, as it does after a death."""
LOOK_S = 0.05


class HandingOver:
    """One daemon's, while it serves. Refuses, with everything going on as before, when it cannot be done safely."""

    def __init__(
        self, parts: Parts, session: FuseSession, kernel: PyfuseKernelCache, command: Sequence[str],
        mount: OwnMount, mountpoint: Path, stop: trio.Event, kept: KeptMount, reloading: Reloading,
    ) -> None:  # fmt: skip
        """*command* starts a successor; *stop* is set when the daemon is to end, this way or another."""
        self._kept = kept
        self._reloading = reloading
        self._parts = parts
        self._session = session
        self._kernel = kernel
        self._command = command
        self._mount = mount
        self._mountpoint = mountpoint
        self._stop = stop
        self._under_way = False
        self._inherited: Inherited | None = None
        self.successor: Successor | None = None
        """Who goes on, once that is settled."""
        self.refused = ""
        """Why the last successor did not go on, if one had been given everything."""
        self.is_left = False
        """Whether the service manager keeps the mount for a daemon that it is to start; there is no successor then."""
        self._far: trio.CancelScope | None = None
        self._far_ended, self._far_again = trio.Event(), trio.Event()

    def handlers(self) -> dict[str, Handler]:
        """Methods of the control protocol by name."""
        return {"leave": self._leave_kept, "upgrade": self._upgrade, "upgraded": self._upgraded}

    @property
    def goes_on(self) -> bool:
        """Whether the mount outlives this daemon's end."""
        return self.is_left or self.successor is not None

    async def _upgraded(self, params: dict[str, Any]) -> dict[str, Any]:
        """Who serves, whether it is about to leave or works on that, and why the last successor did not go on."""
        leaving = self.successor is not None
        return {
            "pid": os.getpid(), "leaving": leaving, "under_way": leaving or self._under_way, "refused": self.refused
        }  # fmt: skip

    async def _upgrade(self, params: dict[str, Any]) -> dict[str, Any]:
        """Leave the mount to another process. Raises NotSupported or Busy with the reason, MountError of that process.

        Returns when requests are held up, just before this daemon ends.
        """
        if self._under_way:
            raise Busy("another `recfs upgrade` is under way")
        self._under_way = True
        try:
            return await self._leave()
        finally:
            self._under_way = False

    async def _leave_kept(self, params: dict[str, Any]) -> dict[str, Any]:
        """End, with the mount kept by the service manager for the daemon that it starts next.

        Returns when requests are held up. Raises NotSupported or Busy with the reason, ConfigError where the next one
        would not start: everything goes on as before then.
        """
        if self._under_way:
            raise Busy("it is being left already, by `recfs upgrade` or for a restart")
        self._under_way = True
        try:
            obstacle = self._session.why_not_left()
            if obstacle is None and not self._kept.is_kept:
                obstacle = "no service manager keeps it (FileDescriptorStoreMax=, FDSTORE)"
            if obstacle is None and not await trio.to_thread.run_sync(
                self._mount.is_there, limiter=self._parts.limiter
            ):  # fmt: skip
                obstacle = "it was taken away by other means (umount -l)"
            if obstacle is None and (keys := await self._reloading.take_a_new_mount()):
                obstacle = f"{', '.join(keys)} changed in the configuration, which takes a new mount"
            if obstacle is not None:
                raise NotSupported(f"this mount cannot be left to the next daemon: {obstacle}")
            try:
                try:
                    await self._end_far_services(LEAVE_PATIENCE_S)
                except Busy as error:
                    log.warning("%s: it is broken off, and the next daemon asks again", error)
                await self._hold(LEAVE_PATIENCE_S, at_all_events=True)
            except BaseException:
                self._far_again.set()
                raise
            self.is_left = True
            os.close(self._session.leave().device)
            self._stop.set()
        finally:
            self._under_way = False
        return {"pid": os.getpid()}

    async def _leave(self) -> dict[str, Any]:
        obstacle = self._session.why_not_left() if self._command else "it was not started by `recfs mount`"
        if obstacle is not None:
            raise NotSupported(f"this daemon cannot leave its mount to another one: {obstacle}")
        self.refused = ""
        successor = await trio.to_thread.run_sync(
            Successor, self._command, self._parts.store.root, self._mountpoint, limiter=self._parts.limiter
        )
        try:
            await successor.prepared()
            log.info("process %d is prepared to go on with %s", successor.pid, self._mount.look())
            await self._end_far_services()
            await self._hold()
        except BaseException:
            self._far_again.set()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(successor.call_off)
            raise
        self.successor = successor
        self._inherited = self._session.leave()
        self._stop.set()
        return {"pid": successor.pid}

    async def _hold(self, patience_s: float = PATIENCE_S, *, at_all_events: bool = False) -> None:
        """Have requests wait in the kernel, and nothing be in memory alone. Raises Busy, OutOfSpace or IoFailure.

        *at_all_events*: whoever goes on copes with what cannot be left, as after a death.
        """
        with trio.move_on_after(patience_s):
            while why_not(self._parts.vfs) is not None:  # noqa: ASYNC110  # nobody tells when it passes
                await trio.sleep(LOOK_S)
        self._require_possible(at_all_events=at_all_events)
        self._kernel.pause()
        try:
            await self._session.hold()
            try:
                await self._parts.behind.flush()
                self._require_possible(at_all_events=at_all_events)
            except BaseException:
                self._session.go_on()
                raise
        except BaseException:
            self._kernel.go_on()
            raise

    def _require_possible(self, *, at_all_events: bool) -> None:
        if self._stop.is_set():
            raise Busy("this daemon is about to stop")
        obstacle = None if at_all_events else why_not(self._parts.vfs)
        if obstacle is not None:
            raise Busy(f"{obstacle}: the mount cannot be left to another daemon meanwhile; try again")

    def legacy(self) -> Legacy:
        """What is left, when nothing of this daemon runs any more. Atomic."""
        assert self._inherited is not None
        files = left_by(self._parts.vfs)
        files.unsent = self._unsent()
        return Legacy(
            self._inherited, files, dict(self._mount.told()), self._parts.store.lock.leave(), self._parts.tree.ledger
        )

    def leave_kept(self) -> None:
        """Say to the next daemon that nobody died, when nothing of this daemon runs any more. Atomic."""
        self._kept.leave(self._unsent())
        log.info("%s is left to the next daemon", self._mount.look())

    def _unsent(self) -> list[Any]:
        """What the kernel may not have been told yet, for another process to tell."""
        return [
            [item[0], item[1].hex(), item[2]] if isinstance(item, tuple) else item for item in self._kernel.unsent()
        ]

    # --- S3 ------------------------------------------------------------------------------------------------------

    async def far_services(self) -> None:
        """Run what asks S3 for something by itself, for ever: its calls cannot be interrupted, so it ends first.

        What somebody reads is brought until requests are held.
        """
        far = self._parts.s3_services
        while far is not None:
            with trio.CancelScope() as self._far:
                async with trio.open_nursery() as nursery:
                    for part, run in far.services():
                        nursery.start_soon(forever, part, run, self._parts.problems)
            self._far = None
            self._far_ended.set()
            await self._far_again.wait()  # a handover came to nothing
            self._far_ended, self._far_again = trio.Event(), trio.Event()

    async def _end_far_services(self, patience_s: float = PATIENCE_S) -> None:
        """End them. Raises Busy when S3 keeps them; they begin again when the handover comes to nothing."""
        if self._far is None:
            return
        self._far.cancel()
        with trio.move_on_after(patience_s):
            await self._far_ended.wait()
            return
        raise Busy(f"S3 leaves requests unanswered for more than {patience_s:g} s; try again")


__all__ = ["HandingOver"]
