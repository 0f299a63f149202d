"""Verifies one file: its local bytes, and what S3 holds of it; says what it is now, and repairs what can be.

Nothing is said of a file on a first sight: bytes that are wrong are read again from the disk, an answer of S3 is asked
for again, and the row has to be the same as before, with nobody writing. An error of the disk, or of S3, says nothing
of the bytes: it is told as itself, and the file stays what it is.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from recfs.core.foreign import Known, differs
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.core.verification.scrubbing import Pace
from recfs.core.verification.verdicts import VERIFIED, Copy, Level, Remedy, Verdict, remedy
from recfs.disk.idle import IdleThread
from recfs.disk.verification import LocalCheck
from recfs.disk.watching.looks import seen
from recfs.errors import IoFailure, RecfsError
from recfs.ports.rows import Pending
from recfs.state.events import Subscriber
from recfs.tier.objectchecks import ObjectCheck, Paced

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection

    from recfs.fs.verification.repair import Repair
    from recfs.fs.vfs import Vfs
    from recfs.ports.rows import ObjectRow
    from recfs.state.nodes import FileNode, Node
    from recfs.stores.local import LocalStore
    from recfs.tier.tier import Tier

log = logging.getLogger("recfs.verify")

PART = "verification"
MOST_PROBLEMS = 1000
"""So many files are named as problems; the catalogue counts the corrupt ones, however many."""
YIELD_SHARE = 4.0
"""While somebody writes, so many times as long as a piece took is waited after it …"""
MOST_YIELD_S = 2.0
"""… but no longer."""
TRIES = 3
"""How often a file is looked for that is moved about."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of one file."""

    ino: int
    path: str
    verdict: Verdict
    reason: str = ""
    read_bytes: int = 0
    """From the disk or its cache."""
    remote_bytes: int = 0
    """From S3."""
    is_flaky: bool = False
    """Read wrong once, and right the second time."""


class Verifier(Subscriber):
    """Verifies files, one at a time for each who asks."""

    def __init__(self, vfs: Vfs, store: LocalStore, tier: Tier | None, repair: Repair) -> None:
        self._tree = vfs.tree
        self._behind = vfs.behind
        self._backing_files = vfs.backing_files
        self._store = store
        self._tier = tier
        self._repair = repair
        self._problems = vfs.behind.problems
        self._thread = IdleThread("recfs-verify")
        self.watched = False
        """Whether somebody takes over what was changed past recfs (`services/watcher.py`)."""
        self._changing: set[int] = set()
        """Files whose state is being changed by a verification: two of one file at once would be one too many."""

        self.counts: Counter[Verdict] = Counter()
        """How many files have become corrupt since the start, by whoever found out, and how often a verification has
        repaired one, or could not read it."""
        self.flaky = 0
        """How often one was read wrong, and right the second time."""

    # --- what becomes of files that were told as problems ----------------------------------------------------------

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        """As `Subscriber.noted`: whoever has found a file corrupt, it counts."""
        self.counts[Verdict.CORRUPT] += kind is EventKind.CORRUPT

    def modified(self, node: FileNode) -> None:
        """Its bytes are replaced by others."""
        self._problems.solved(PART, node.ino)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """Nobody misses its bytes."""
        self._problems.solved(PART, node.ino)

    def follows(self, inos: Collection[int]) -> Collection[int]:
        """Those that could not be verified."""
        return [ino for ino in inos if self._problems.has(PART, ino)]

    # --- one file ------------------------------------------------------------------------------------------------

    async def verify(self, node: FileNode, level: Level, pace: Paced) -> Verified:
        """Verify it. Raises nothing that disk or S3 answer."""
        path, state, sha256 = node.path, node.state, node.sha256
        if node.unlinked or state not in VERIFIED or sha256 is None:
            return Verified(node.ino, path, Verdict.SKIPPED, f"it is {state}")
        local = await self._look_here(node, level, pace)
        found, reason = local.found or Copy.NONE, local.reason
        far, check = Copy.NONE, self._object_check(node)
        if check is not None and (level is Level.REMOTE or found.is_bad):
            far = await check.look(pace, read=state is State.CORRUPT and found is Copy.GONE)
            reason = "; ".join(filter(None, (reason, check.reason)))
        verdict = Verdict.SKIPPED
        if self._may_judge(node, sha256, found):
            self._changing.add(node.ino)
            try:
                verdict, reason = await self._act(node, (found, far), reason, check, pace)
            finally:
                self._changing.discard(node.ino)
        elif not reason:
            reason = "it was changed meanwhile"
        result = Verified(
            node.ino, path, verdict, reason if verdict not in (Verdict.RIGHT, Verdict.ELSEWHERE) else "",
            local.read_bytes, check.read_bytes if check is not None else 0, local.is_flaky,
        )  # fmt: skip
        self.counts[verdict] += verdict.is_problem and verdict is not Verdict.CORRUPT
        self.flaky += result.is_flaky
        self._tell(node, result)
        return result

    async def _look_here(self, node: FileNode, level: Level, pace: Paced) -> LocalCheck:
        """Look at the bytes that lie here; `found` is None where there are to be none."""
        check = LocalCheck(self._store, b"", None, None)
        for _ in range(TRIES):
            await self._backing_files.wait_for_moves(node)
            if node.state is State.EVICTED:
                return check
            at = self._backing_files.path_of(node)
            # Of a corrupt file nothing but its bytes says that it is right again.
            sha256 = node.sha256 if level.reads or node.state is State.CORRUPT else None
            size = None if level is Level.PRESENCE and sha256 is None else node.bytes
            check = LocalCheck(self._store, at, size, sha256)
            try:
                await self._read(check, pace)
            finally:
                check.close()
            await self._backing_files.wait_for_moves(node)
            bad = check.found is not None and check.found.is_bad
            if bad and self._is_taken_over(node, check.info):
                check.found, check.reason = Copy.UNSETTLED, "it was changed past recfs, which takes that over"
                return check
            if not bad or self._backing_files.path_of(node) == at:
                return check
        check.found, check.reason = Copy.UNSETTLED, "it was moved meanwhile"
        return check

    def _is_taken_over(self, node: FileNode, info: os.stat_result | None) -> bool:
        """Whether a file was changed past recfs by all that stat(2) tells: no damage, but a new version of it."""
        if not self.watched or info is None or node.staging is not None:
            return False
        known = Known(node.kind, node.home_ino, node.bytes, node.mtime_ns, node.state, busy=False, in_staging=False)
        return differs(known, seen(info))

    async def _read(self, check: LocalCheck, pace: Paced) -> None:
        while check.found is None:
            before = check.read_bytes
            await self._thread.run(check.go_on, pace.slice_bytes)
            if check.read_bytes > before:
                await pace.took(check.read_bytes - before)

    def _object_check(self, node: FileNode) -> ObjectCheck | None:
        """How to look at its object; None where S3 is to have none, or one of another version."""
        in_s3: ObjectRow | None = node.object
        if self._tier is None or in_s3 is None or node.state in (State.COMMITTED, State.UPLOADING):
            return None
        same = (in_s3.sha256, in_s3.size_bytes) == (node.sha256, node.bytes)
        return ObjectCheck(self._tier, node, in_s3) if same else None

    def _may_judge(self, node: FileNode, sha256: bytes, local: Copy) -> bool:
        """Whether the file is still the one that was looked at. Atomic."""
        is_written = node.body is not None and node.body.writers > 0
        same = not node.unlinked and node.sha256 == sha256 and node.state in VERIFIED
        left = node.state is State.EVICTED and local is not Copy.NONE
        return same and not is_written and not left and node.ino not in self._changing

    async def _act(
        self, node: FileNode, found: tuple[Copy, Copy], reason: str, check: ObjectCheck | None, pace: Paced
    ) -> tuple[Verdict, str]:
        """Do what follows from what was found. The first step is taken before anything is awaited."""
        local, far = found
        match remedy(node.state, local, far):
            case Remedy.HEAL:
                node.enter(State.COMMITTED)
                self._tree.events.committed(node)
                self._behind.node(node)
                if node.staging is not None:
                    node.pending |= Pending.MOVE
                    self._behind.publish(node)
                log.warning("%s was corrupt, and is right again", node.path)
                self._tree.events.noted(EventKind.REPAIRED, node, "its bytes are right again")
                return Verdict.RIGHT, ""
            case Remedy.CONDEMN:
                self._condemn(node, reason)
                return Verdict.CORRUPT, reason
            case Remedy.FROM_OBJECT:
                assert check is not None
                self._condemn(node, reason)
                done, how = await self._repair.from_object(node, check, pace)
                if not done and node.state is not State.CORRUPT:
                    return Verdict.SKIPPED, how  # it was rewritten or removed meanwhile
                return (Verdict.REPAIRED if done else Verdict.CORRUPT), f"{reason}; {how}"
            case Remedy.COME_BACK:
                return self._come_back(node, reason)
            case Remedy.SEND_AGAIN:
                assert check is not None
                return await self._send_again(node, check, reason)
            case Remedy.NONE:
                return _verdict_on(local, far), reason

    def _condemn(self, node: FileNode, reason: str) -> None:
        """The file is corrupt. Atomic."""
        if node.state is State.CORRUPT:
            return
        node.enter(State.CORRUPT)
        self._behind.node(node)
        log.error("%s is corrupt: %s", node.path, reason)
        self._tree.events.noted(EventKind.CORRUPT, node, reason)

    def _come_back(self, node: FileNode, reason: str) -> tuple[Verdict, str]:
        """It has no local bytes, and the object is right: it is read from there."""
        assert self._tier is not None
        was_corrupt = node.state is State.CORRUPT
        if not self._tier.evictor.gone(node):
            return Verdict.SKIPPED, "it is open, or being moved"
        log.warning("%s: %s; S3 has its bytes", node.path, reason or "it was corrupt")
        how = "S3 has its bytes, and they are read from there"
        self._tree.events.noted(EventKind.REPAIRED, node, how)
        return Verdict.REPAIRED, f"{reason or 'it was corrupt'}; {how}" if reason or was_corrupt else how

    async def _send_again(self, node: FileNode, check: ObjectCheck, reason: str) -> tuple[Verdict, str]:
        """The local bytes are right, the object is not: it is kept, and then they are uploaded over it."""
        assert self._tier is not None
        log.error("%s: %s", node.path, reason)
        try:
            kept = await check.keep_bad()
        except (RecfsError, OSError) as error:
            return Verdict.UNREADABLE, f"{reason}; it could not be kept, so nothing is put over it: {error}"
        if not check.is_current or not await self._tier.store_anew(node):
            return Verdict.SKIPPED, f"{reason}; it was changed meanwhile"
        where = f"; what S3 has is kept there as {kept}" if kept is not None else ""
        self._tree.events.noted(EventKind.REPAIRED, node, f"its object was wrong: it is uploaded again{where}")
        return Verdict.REPAIRED, f"{reason}; the local bytes are right, and are uploaded again{where}"

    def _tell(self, node: FileNode, result: Verified) -> None:
        """Note what is wrong with the file until it is right, rewritten or removed."""
        if result.is_flaky:
            log.warning("%s was read wrong, and right the second time: look after memory and disk", result.path)
        if result.verdict in (Verdict.CORRUPT, Verdict.UNREADABLE):
            known = self._problems.has(PART, node.ino)
            if not node.unlinked and (known or self._problems.count(PART) < MOST_PROBLEMS):
                quiet = result.verdict is Verdict.CORRUPT  # it was logged when it became corrupt
                self._problems.note(PART, node.ino, IoFailure(result.reason), result.path, quiet=quiet)
        elif result.verdict is not Verdict.SKIPPED:
            self._problems.solved(PART, node.ino)


def _verdict_on(local: Copy, far: Copy) -> Verdict:
    """What is said of a file about which nothing is to be done."""
    if Copy.UNREADABLE in (local, far):
        return Verdict.UNREADABLE
    if Copy.UNSETTLED in (local, far):
        return Verdict.SKIPPED
    return Verdict.ELSEWHERE if local is Copy.NONE and far is Copy.NONE else Verdict.RIGHT


class Pacer:
    """Waits so long after each piece that a rate is kept, and others have their turn."""

    def __init__(self, pace: Pace, is_busy: Callable[[], bool]) -> None:
        """*is_busy*: whether somebody writes."""
        self._pace = pace
        self._is_busy = is_busy
        self._since_s = trio.current_time()

    @property
    def slice_bytes(self) -> int:
        """How much to read at a time."""
        return self._pace.slice_bytes

    async def took(self, read_bytes: int) -> None:
        """Wait, after so much was read."""
        now_s = trio.current_time()
        pause_s = self._pace.pause_s(now_s, read_bytes)
        if self._is_busy():
            pause_s = max(pause_s, min(MOST_YIELD_S, YIELD_SHARE * (now_s - self._since_s)))
        await trio.sleep(pause_s)
        self._since_s = trio.current_time()


__all__ = ["PART", "Pacer", "Verified", "Verifier"]
