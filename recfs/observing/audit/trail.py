"""Takes acts up and has them written, without anybody waiting for that.

Acts wait in memory, in a bounded queue, for a thread of their own that writes what has gathered ten times a second.
While the disk is slow the queue fills, and what comes then is dropped and counted, as is what a full disk does not
take. The next line that can be written says how many are missing; `recfs status` does as well. What was done in the
last tenth of a second before the daemon is killed is not written.
"""

from __future__ import annotations

import logging
import math
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.layout import kept_path
from recfs.core.life import Status
from recfs.core.observing.acts import DROPPED, Act, act_lines
from recfs.core.observing.kinds import EventKind
from recfs.observing.audit.files import AuditFiles, AuditSettings
from recfs.state.events import Subscriber, acting, own
from recfs.state.nodes import DirNode
from recfs.state.problems import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.observing.audit.journald import JournalSocket
    from recfs.ports.clock import Clock
    from recfs.state.events import Acting
    from recfs.state.nodes import FileNode, Node

log = logging.getLogger("recfs.audit")

PART = "audit"
MOST_WAITING = 20_000
"""So many acts wait at most: some 10 MiB, or several seconds of the fastest programs."""
GATHER_S = 0.1
AT_ONCE = 500
"""So many lines are made and written in one go."""
END_S = 2.0
"""How long the end waits for the last lines."""
NAME_FOR_S = 0.25
"""How long the name of a process is believed: a program that does much is not asked for it at each act."""
KNOWN_NAMES = 4096
STUCK_S = 2.0
"""What has written nothing for so long is not waited for by anybody."""
_MARKS = {EventKind.EXPIRED: "expired", EventKind.REVIVED: "revived"}


def comm_of(pid: int) -> bytes:
    """The name of a process, as proc(5) has it in `comm`; empty where nobody can say."""
    try:
        fd = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 64).rstrip(b"\n")
        finally:
            os.close(fd)
    except OSError:
        return b""


class Names:
    """Names of processes, as proc(5) has them in `comm`."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, bytes]] = {}
        self._last: tuple[int, float, bytes] = (0, -math.inf, b"")
        """Who was asked for last, until when that is believed, and the name."""

    def of(self, pid: int) -> bytes:
        """The name of a thread that waits for an answer just now; empty where nobody can say."""
        now = time.monotonic()
        last, until_s, name = self._last
        if pid == last and now < until_s:
            return name
        known = self._known.get(pid)
        if known is not None and known[0] > now:
            self._last = pid, *known
            return known[1]
        name = comm_of(pid) if pid else b""
        if len(self._known) >= KNOWN_NAMES:
            self._known.clear()
        self._known[pid] = now + NAME_FOR_S, name
        self._last = pid, now + NAME_FOR_S, name
        return name


_act: Callable[
    [tuple[int, str, bytes, int, int, int, bytes, int | str, dict[str, Any] | None, str]], Act
]  # fmt: skip
_act = partial(tuple.__new__, Act)
"""The same as `Act` in a fifth of the time, which somebody waits for."""


class AuditTrail(Subscriber):
    """The audit log of a store in use."""

    def __init__(
        self, settings: AuditSettings, clock: Clock, *, reads: bool, journal: JournalSocket | None = None
    ) -> None:
        """*reads*: whether opening a file for reading is an act."""
        self.journal = journal
        """systemd's, where acts are told as well."""
        self.reads = reads
        self.names = Names()
        self.files = AuditFiles(settings)
        self._clock = clock
        self._waiting: list[Act] = []
        self._in_hand = 0
        """So many are just being written."""
        self._wake = trio.Event()
        self._is_idle = True
        self._went_on_s = -math.inf
        """When something was written, or there was nothing to write, last."""
        self._missing = 0
        """Dropped since a line last said so."""
        self._limiter = trio.CapacityLimiter(2)
        self.written = 0
        self.dropped = 0
        """Since the start."""
        self.problem: str | None = None
        """What the disk said last, while it takes no lines."""

    # --- taking up (atomic) --------------------------------------------------------------------------------------

    def record(
        self, op: str, path: bytes, uid: int, gid: int, pid: int, result: int | str,
        detail: dict[str, Any] | None = None, via: str = "", command: bytes | None = None,
    ) -> None:  # fmt: skip
        """Somebody did something. Costs microseconds, waits for nothing, raises nothing.

        *command*: None: the name that the process has now.
        """
        waiting = self._waiting
        if len(waiting) >= MOST_WAITING:
            self._drop(1)
            return
        name = self.names.of(pid) if command is None else command
        waiting.append(_act((self._clock.now_ns(), op, path, uid, gid, pid, name, result, detail, via)))
        if self._is_idle:
            self._went_on_s = trio.current_time()
            self._is_idle = False
            self._wake.set()

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._missing += count

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        """What the daemon does by itself to recordings is an act as well."""
        op = _MARKS.get(kind)
        if kind is EventKind.REMOVED and isinstance(node, DirNode):
            is_over = node.life is not None and node.life.status is Status.REMOVING
            op = "expired-removed" if is_over else None
        who = acting()
        if kind is EventKind.RESTORED and who is not None:
            op = "restored"
        elif kind is EventKind.REMOVED and op is None and who is not None:
            op = "removed"
        if op is not None:
            self._done_by(who, op, kept_path(node.parts()), {"reason": detail} if detail else {})

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """What the kernel asks for is told by its observer, with who asked for it; here is what others have removed."""
        if successor is None and (who := acting()) is not None:
            self._done_by(who, "removed", kept_path(node.parts()), {"size_bytes": node.bytes})

    def removed_whole(self, folder: DirNode) -> None:
        """The same of a directory with all that is in it."""
        if (who := acting()) is not None:
            is_over = folder.life is not None and folder.life.status is Status.REMOVING
            detail = {"files": folder.rfiles, "size_bytes": folder.rbytes}
            self._done_by(who, "expired-removed" if is_over else "removed", kept_path(folder.parts()), detail)

    def purged(self, path: bytes, size_bytes: int) -> None:
        """As `Subscriber.purged`; without anybody who asked, the trash has come to what it may keep."""
        self._done_by(acting(), "purged", path, {"size_bytes": size_bytes})

    def rolled_back(self, path: bytes) -> None:
        """As `Subscriber.rolled_back`."""
        self._done_by(acting(), "rolled-back", path, {})

    def _done_by(self, who: Acting | None, op: str, path: bytes, detail: dict[str, Any]) -> None:
        """*who*: None: the daemon of its own accord."""
        told = {"by": who.by} | detail if who is not None else detail
        _, uid, gid, pid, command, via = who or own("")
        self.record(op, path, uid, gid, pid, 0, told or None, via, command)

    def is_behind(self) -> bool:
        """Whether half of what may wait is taken, and it gets less: else nobody waits for it."""
        if len(self._waiting) <= MOST_WAITING // 2 or self.problem is not None:
            return False
        return trio.current_time() - self._went_on_s < STUCK_S

    # --- writing -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write for ever; when it is cancelled, what is left is written, if that takes no longer than a moment."""
        try:
            await self._look()
            while True:
                await self._wake.wait()
                await trio.sleep(GATHER_S)
                await self._write_some()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(END_S):
                await self._write_some()
            if self.files.lock.acquire(blocking=False):  # else a thread hangs in it
                self.files.close()
                if self.journal is not None:
                    self.journal.close()
                self.files.lock.release()

    async def _look(self) -> None:
        """Tell at once where nothing can be written: it may be long until there is something."""
        try:
            await trio.to_thread.run_sync(self.files.require, limiter=self._limiter, abandon_on_cancel=True)
        except OSError as error:
            self._failed(reason_of(error))

    def _failed(self, reason: str) -> None:
        if self.problem is None:
            log.error("%s cannot be written: %s; what is not written is counted", self.files.path, reason)
        self.problem = reason

    async def _write_some(self) -> None:
        acts, self._waiting = self._waiting, []
        self._wake, self._is_idle = trio.Event(), True
        missing, self._missing = self._missing, 0
        if not acts and not missing:
            return
        self._in_hand = len(acts)
        is_told, done, error = await trio.to_thread.run_sync(
            self._write, acts, missing, limiter=self._limiter, abandon_on_cancel=True
        )
        self._in_hand = 0
        self._went_on_s = trio.current_time()
        self.written += done
        self._missing += 0 if is_told else missing
        if error is None:
            self.problem = None
            return
        self._drop(len(acts) - done)
        self._failed(reason_of(error))

    def _write(self, acts: list[Act], missing: int) -> tuple[bool, int, OSError | None]:
        """Blocking: whether it says how many are *missing*, how many *acts* were written, and what kept the others."""
        is_told, done = not missing, 0
        with self.files.lock:
            if self.journal is not None:
                self.journal.send(acts)
            try:
                if missing:
                    at_ns = acts[0].at_ns if acts else self._clock.now_ns()
                    note = Act(
                        at_ns, DROPPED, b"", os.geteuid(), os.getegid(), os.getpid(), b"recfs", 0, {"count": missing},
                        "daemon",
                    )  # fmt: skip
                    self._append([note])
                    is_told = True
                for first in range(0, len(acts), AT_ONCE):
                    some = acts[first : first + AT_ONCE]
                    self._append(some)
                    done += len(some)
            except OSError as error:
                return is_told, done, error
        return is_told, done, None

    def _append(self, acts: list[Act]) -> None:
        self.files.write(act_lines(acts), acts[-1].at_ns / 1e9, time.monotonic())

    def as_json(self) -> dict[str, Any]:
        """For `recfs status`."""
        return {
            "file": str(self.files.path), "written": self.written, "dropped": self.dropped,
            "waiting": len(self._waiting) + self._in_hand, "problem": self.problem,
            "journal": self.journal.as_json() if self.journal is not None else None,
        }  # fmt: skip


__all__ = ["PART", "AuditTrail", "Names"]
