"""Looks into committed files: what is in recordings, and whether files are what their names say.

The catalogue is the queue (`state/media.py`): a cursor goes through it, owners take turns, and a few files are looked
into at a time, by programs that are confined (`recfs/media`). Of each owner a bounded number waits in memory (`SHARE`),
no commit waits, and a restart goes on with what is left. A copy of what was looked into takes over what was found. What
could not be looked into is tried some more times, later and later.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from recfs.core.layout import owner_of
from recfs.core.media.facts import unpacked
from recfs.core.media.kinds import Checker, Kind, kind_of
from recfs.core.media.verdicts import Verdict, judge
from recfs.core.observing.kinds import EventKind
from recfs.disk.commit.lanes import Turns
from recfs.errors import MediaUnavailable, Stale
from recfs.ports.rows import MediaRow
from recfs.state.problems import forever
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from recfs.disk.committed import CommittedFiles
    from recfs.media.checks import Checks, Finding
    from recfs.state.media import MediaRows
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree

log = logging.getLogger("recfs.media")

PART: Final = "media"
PAGE: Final = 256
"""Queued files that are read from the catalogue at a time."""
SHARE: Final = 512
"""Files of one owner that wait in memory for their turn; further ones are read when half of these are done."""
READ_PAUSE_S: Final = 1.0
"""Between two times that a long queue is read: it is read anew with each commit."""
MOST_OWNERS: Final = 100_000
"""Files of which it is remembered whose they are."""
SURVEY_PAGE: Final = 1000
"""Files of an earlier version's store that are gone through at a time …"""
SURVEY_PAUSE_S: Final = 0.2
"""… and the pause after them."""
SURVEYED: Final = "media_surveyed"
"""Store-wide fact: up to which inode number files were found that were committed before any were looked into; "all"."""
AGAIN_S: Final = (5.0, 60.0, 600.0, 3600.0)
"""After these pauses it is tried again; then it counts as unknown."""
MISSING_S: Final = 60.0
"""How often it is looked whether a program that was missing is there."""
ASKED: Final = "somebody asked for another look"
"""The reason of a row that waits for that: what was found in a copy does not count."""
_TEXTS: Final = tuple(each.value for each in Checker if each is not Checker.MEDIA)


class Probing:
    """The service."""

    def __init__(
        self, rows: MediaRows, checks: Checks, tree: Tree, files: CommittedFiles,
        *, workers: int, known: Callable[[FileNode], None],
    ) -> None:  # fmt: skip
        """*known* is told of each file once it is known what it is, or that nobody can know."""
        self.rows = rows
        self._checks = checks
        self._tree = tree
        self._files = files
        self._workers = workers
        self._known = known
        self._at_work: set[int] = set()
        self._turns: Turns[int] = Turns()
        """What is looked into next, by owner."""
        self._owners: dict[int, str | None] = {}
        """Whose what waits is."""
        self._shares: Counter[str | None] = Counter()
        """How many files of an owner are in `_turns`."""
        self._more: set[str | None] = set()
        """Owners of whom further files were passed over."""
        self._missed: set[int] = set()
        """What was found in the queue while it was being looked into."""
        self._wake = trio.Event()
        self._later: dict[int, float] = {}
        """What is tried again, and when, by trio's clock."""
        self.missing: str | None = None
        """Why no recording can be looked into; None: it can."""
        self.is_running = False
        self.counts: Counter[str] = Counter()
        """Looks since the start, by what came of them: the words of `Verdict`, "copied", "again"."""

    async def run(self) -> None:
        """Look for ever."""
        self.is_running = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(forever, PART, self._survey, self._tree.behind.problems)
                for _ in range(self._workers):
                    nursery.start_soon(forever, PART, self._work, self._tree.behind.problems)
                await forever(PART, self._step, self._tree.behind.problems)
        finally:
            self.is_running = self.rows.is_looking = False

    def _missing(self, why: str | None) -> None:
        if why is not None and self.missing is None:
            log.info("recordings are not looked into: %s", why)
        self.missing = why
        self.rows.is_looking = why is None

    # --- what there is to do -------------------------------------------------------------------------------------

    async def _survey(self) -> None:
        """Queue what was committed before anything was looked into: by an earlier version, or found by a rebuild."""
        facts = await self._tree.catalogue.meta()
        reached = facts.get(SURVEYED, "0")
        while reached != "all":
            page = await self._tree.catalogue.unlooked(int(reached), SURVEY_PAGE)
            for ino, name in page:
                if kind_of(name) is not None and (node := await file_at(self._tree, ino)) is not None:
                    if await self.rows.of(node) is None:
                        self.rows.queue(node)
                    del node
                    self._tree.memory.let_go(ino)
            reached = str(page[-1][0]) if page else "all"
            self._tree.behind.meta(SURVEYED, reached)
            await trio.sleep(SURVEY_PAUSE_S)
        await trio.sleep_forever()

    async def _step(self) -> None:
        """Read the queue once, and wait until there may be more in it."""
        self.rows.queued = trio.Event()
        waiting = await self._tree.catalogue.media_pending((Checker.MEDIA.value,), 0, 1)
        self._missing(await self._checks.available(to_use=bool(waiting)))
        checkers = _TEXTS if self.missing is not None else (*_TEXTS, Checker.MEDIA.value)
        now = trio.current_time()
        after, soonest, read = 0, now + MISSING_S, 0
        self._more.clear()
        while page := await self._tree.catalogue.media_pending(checkers, after, PAGE):
            after, read = page[-1].ino, read + len(page)
            for row in page:
                due = self._later.get(row.ino, 0.0)
                if due > trio.current_time():
                    soonest = min(soonest, due)
                else:
                    await self._put(row.ino)
            await trio.lowlevel.checkpoint()
        if read > PAGE:
            await trio.sleep(READ_PAUSE_S)
        with trio.move_on_at(soonest):
            await self.rows.queued.wait()

    async def _put(self, ino: int) -> None:
        """Have a file wait for its turn."""
        if ino in self._at_work:
            self._missed.add(ino)
            return
        if ino in self._turns:
            return
        owner = await self._owner(ino)
        if self._shares.get(owner, 0) >= SHARE:
            self._more.add(owner)
            return
        self._turns.put(owner, ino)
        self._shares[owner] += 1
        self._wake.set()

    async def _owner(self, ino: int) -> str | None:
        if ino not in self._owners:
            if len(self._owners) >= MOST_OWNERS:
                self._owners = {each: owner for each, owner in self._owners.items() if each in self._turns}
            node = await file_at(self._tree, ino)
            self._owners[ino] = owner_of(tuple(node.parts())) if node is not None else None
            del node
            if ino not in self._at_work:
                self._tree.memory.let_go(ino)
            await trio.lowlevel.checkpoint()
        return self._owners[ino]

    async def _work(self) -> None:
        """Look into the file whose turn it is."""
        while (ino := self._turns.take()) is None:
            wake = self._wake
            await wake.wait()
            if self._wake is wake:
                self._wake = trio.Event()
        owner = self._owners.pop(ino)
        self._shares[owner] -= 1
        if not self._shares[owner]:
            del self._shares[owner]
        if owner in self._more and self._shares.get(owner, 0) <= SHARE // 2:
            self._more.discard(owner)
            self.rows.queued.set()
        try:
            with self._tree.behind.problems.aside(PART, ino, f"inode {ino}"):
                await self.look(ino)
        finally:
            if ino in self._missed:
                self._missed.discard(ino)
                self.rows.queued.set()

    # --- looking -------------------------------------------------------------------------------------------------

    async def look(self, ino: int) -> None:
        """Look into a queued file. Raises nothing of the file: what came of it is in its row."""
        node = await file_at(self._tree, ino)
        try:
            row = await self.rows.of(node) if node is not None else None
            if node is None or row is None or row.verdict != Verdict.PENDING or ino in self._at_work:
                return
            kind = kind_of(node.name)
            if kind is None:
                self.rows.put(row._replace(verdict=Verdict.UNKNOWN, reason="its name does not say what it is"))
                return
            self._at_work.add(ino)
            try:
                await self._look(node, row, kind)
            finally:
                self._at_work.discard(ino)
        finally:
            del node
            self._tree.memory.let_go(ino)

    async def _look(self, node: FileNode, row: MediaRow, kind: Kind) -> None:
        if await self.rows.is_reserved(node):
            if self.rows.is_about(row, node):
                self.rows.pass_over(row)
                self._known(node)
            return
        row = row._replace(began_ns=self._tree.clock.now_ns())
        alike = await self._tree.catalogue.media_alike(row.sha256, row.checker)
        if not self.rows.is_about(row, node):
            return  # there is another row by now
        if alike is not None and row.reason != ASKED and (reason := _of_copy(alike, kind)) is not None:
            self._found(node, row, reason, alike.facts, how="copied")
            return
        try:
            async with self._files.open(node) as file:
                finding = await self._checks.look(kind, file.fd, file.size_bytes)
                is_current = file.is_current and file.sha256 == row.sha256
        except Stale:
            if node.state.is_remote and self.rows.is_about(row, node):
                self._unsure(node, row, "its bytes are in S3 alone")
            return  # else it is written to, or gone: its next commit queues it again
        except MediaUnavailable as error:
            self._missing(str(error))
            return
        except OSError as error:
            if self.rows.is_about(row, node):
                self._unsure(node, row, f"it cannot be read: {error.strerror}")
            return
        if not is_current or not self.rows.is_about(row, node):
            # It has been written to: what was read may be of other bytes, although the ones before are back.
            self._missed.add(node.ino)
            return
        self._judge(node, row, finding)

    def _judge(self, node: FileNode, row: MediaRow, finding: Finding) -> None:
        if not finding.is_sure:
            self._unsure(node, row, finding.reason or "", is_final=finding.is_final)
            return
        packed = finding.facts.packed() if finding.facts is not None else ""
        self._found(node, row, finding.reason or "", packed)

    def _found(self, node: FileNode, row: MediaRow, reason: str, facts: str, how: str = "") -> None:
        """What is in the file is known. Atomic."""
        verdict = Verdict.BROKEN if reason else Verdict.WHOLE
        self._later.pop(node.ino, None)
        now_ns = self._tree.clock.now_ns()
        self.rows.put(row._replace(verdict=verdict, reason=reason, facts=facts, attempts=0, ended_ns=now_ns))
        self.counts[verdict] += 1
        if how:
            self.counts[how] += 1
        if verdict is Verdict.BROKEN:
            log.warning("%s is broken: %s", node.path, reason)
            self._tree.events.noted(EventKind.BROKEN, node, reason)
        else:
            self._tree.events.noted(EventKind.PROBED, node)
        self._known(node)

    def _unsure(self, node: FileNode, row: MediaRow, reason: str, *, is_final: bool = False) -> None:
        """It could not be looked into. *is_final*: nor could it ever be, whatever is tried. Atomic."""
        attempts = row.attempts + 1
        is_over = is_final or attempts > len(AGAIN_S)
        verdict = Verdict.UNKNOWN if is_over else Verdict.PENDING
        self.rows.put(
            row._replace(verdict=verdict, reason=reason, attempts=attempts, ended_ns=self._tree.clock.now_ns())
        )
        if is_over:
            self._later.pop(node.ino, None)
            self.counts[verdict] += 1
            log.warning("%s cannot be looked into: %s", node.path, reason)
            self._known(node)
        else:
            self._later[node.ino] = trio.current_time() + AGAIN_S[attempts - 1]
            self.counts["again"] += 1

    # --- for people ----------------------------------------------------------------------------------------------

    def again(self, node: FileNode) -> bool:
        """Have a file looked into once more; False where its name does not say what it is. Atomic."""
        self._later.pop(node.ino, None)
        return self.rows.queue(node, ASKED)

    def as_json(self) -> dict[str, Any]:
        """For `recfs status`."""
        return {"running": self.is_running, "missing": self.missing, "looks": dict(self.counts),
                "at_work": len(self._at_work), "again": len(self._later)}  # fmt: skip


def _of_copy(alike: MediaRow, kind: Kind) -> str | None:
    """Why a file of that kind is broken that has the bytes of another (empty: it is whole); None: look into it."""
    facts = unpacked(alike.facts)
    is_broken = alike.verdict == Verdict.BROKEN
    if alike.checker != Checker.MEDIA or facts is None:
        return alike.reason if is_broken or alike.checker != Checker.MEDIA else None
    if is_broken and alike.reason not in {judge(each, facts) for each in Kind}:
        return alike.reason  # of the bytes, whatever they are called
    reason = judge(kind, facts)
    # Of one that is broken for the sake of its name no more was looked at.
    return reason or (None if is_broken else "")


__all__ = ["ASKED", "PART", "Probing"]
