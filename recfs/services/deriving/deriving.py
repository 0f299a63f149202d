"""The queue of products: what is to be made, when it is tried, and what came of it.

The catalogue has it; here is what of it is pending. Products are asked for by `recfs derive`, and by rules that are
automatic: when a source is committed or gets its name, and by the sweep `derive`, which finds what a death or a change
of the rules has left out.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from recfs.core.layout import Role
from recfs.core.media.derived import Derived, Product, Status, Step, after_failure, judge, principal, wanted
from recfs.core.model import Kind, State
from recfs.core.sweeping import Schedule
from recfs.errors import FsError, InvalidArgument, MediaUnavailable
from recfs.fs.session.stats import is_committed
from recfs.ports.sweep import Progress, Sweep
from recfs.services.deriving import PART
from recfs.services.deriving.reasons import Changed, Gone, Unmade, Waits, goes_better, is_expected, told
from recfs.services.deriving.shares import Shares
from recfs.state.events.subscribers import Subscriber
from recfs.state.nodes import DirNode, FileNode, is_gone
from recfs.state.problems import forever
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.core.media.derived import DeriveRule
    from recfs.fs.vfs import Vfs
    from recfs.ports.derived import DerivedBooks
    from recfs.ports.reports import Reports, Snapshot
    from recfs.services.deriving.making import Making
    from recfs.services.deriving.placing import Placing
    from recfs.services.deriving.programs import Programs
    from recfs.state.nodes import Node

log = logging.getLogger("recfs.derive")

WAIT_S = 600.0
"""What waits for something is looked at again after so long."""
MISSING_S = 60.0
"""So is whether there is a program, where there was none."""
PATIENCE_S = 86_400.0
SEALING_S = 10.0
"""So long whoever asks waits for files that were closed just now to be committed. Of a larger one it is told."""
_NS = 10**9
_DEPTH = 4
"""Levels of a recording's path."""

Key = tuple[int, Product]


class Candidate(NamedTuple):
    """A file from which rules make something."""

    ino: int
    path: tuple[bytes, ...]
    """As it was when it was found."""


class Deriving(Subscriber):
    """Makes products, a few at a time."""

    def __init__(
        self, vfs: Vfs, books: DerivedBooks, reports: Reports, making: Making, placing: Placing, programs: Programs,
        rules: Sequence[DeriveRule], *, jobs: int, every_s: float,
    ) -> None:  # fmt: skip
        self._vfs = vfs
        self._tree = vfs.tree
        self._books = books
        self._reports = reports
        self._making = making
        self._placing = placing
        self._programs = programs
        self.rules = rules
        self._jobs = jobs
        self._shares = Shares(jobs)
        self._every_s = every_s
        self._problems = vfs.behind.problems
        self._open: dict[Key, Derived] = {}
        """All that is pending, or being made, in the order in which it was asked for."""
        self._busy: set[Key] = set()
        self._later: dict[Key, Derived] = {}
        """What was asked for while another version of it is being made."""
        self._heard: dict[int, None] = {}
        """Sources that were committed, or named, since they were last looked at."""
        self._wake = trio.Event()
        self._changed = trio.Event()
        self._missing = ""
        """Which program there is none of."""
        self._missing_until_s = float("-inf")
        self._progress = Progress()

    # --- what is heard (atomic) ----------------------------------------------------------------------------------

    def committed(self, node: FileNode) -> None:
        """A source, perhaps."""
        if self.rules and node.parent.role is Role.RECORDING:
            self._heard[node.ino] = None
            self._wake.set()

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """Recorders write aside, and rename when it is whole."""
        if isinstance(node, FileNode):
            self.committed(node)

    # --- asked for -----------------------------------------------------------------------------------------------

    async def ask(
        self, path: str, *, everything: bool, dry_run: bool, only: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Have what rules make of the files at and below a path be made, or (dry) say what that would be.

        *everything*: of all recordings there; else *path* is one, or a file in one. *only*: these products. Raises
        NotFound or InvalidArgument.
        """
        unknown = set(only) - set(Product)
        if unknown:
            raise InvalidArgument(f"{min(unknown)!r}: what can be made is {', '.join(Product)}")
        seen = await self._vfs.at(path)
        parts = tuple(part for part in os.fsencode(path).split(b"/") if part)
        if len(parts) < _DEPTH and not everything:
            raise InvalidArgument(f"{path or '/'} is no recording, and no file in one: --all takes all below it")
        if isinstance(seen, FileNode):
            found = [Candidate(seen.ino, tuple(seen.parts()))]
        else:
            found = await self._find(parts)
        if not dry_run:
            with trio.move_on_after(SEALING_S):
                for each in found:
                    await self._sealed(each.ino)
        answers = []
        for each in found:
            rules = [rule for rule in wanted(self.rules, each.path) if not only or rule.make in only]
            answers += [await self._one(each.ino, rule, asked=True, dry_run=dry_run) for rule in rules]
            await trio.lowlevel.checkpoint()
        return [each for each in answers if each is not None]

    async def _sealed(self, ino: int) -> None:
        """Wait until a file that was closed just now is committed."""
        node = await file_at(self._tree, ino)
        while node is not None and node.state is State.SEALING and not node.unlinked:
            self._vfs.pipeline.want(ino)
            await self._vfs.pipeline.progress()

    async def _find(self, parts: tuple[bytes, ...]) -> list[Candidate]:
        await self._vfs.behind.flush()
        return await self._reports.ask(_candidates, parts, tuple(self.rules))

    async def _one(self, ino: int, rule: DeriveRule, *, asked: bool, dry_run: bool = False) -> dict[str, Any] | None:
        """Judge one product of one source, and queue it if it is to be made; None: the source is gone."""
        node = await file_at(self._tree, ino)
        if node is None or node.unlinked or not rule.takes(tuple(node.parts())):
            return None
        folder = node.parent
        name = principal(rule.product)
        answer = {
            "folder": folder.ino, "source": node.path, "product": rule.make, "path": f"{folder.path}/{name}",
            "step": "", "reason": "",
        }  # fmt: skip
        if not is_committed(node) or node.sha256 is None:
            return answer | {"step": "wait", "reason": f"the source is {node.state}"}
        sha256 = node.sha256
        key = (folder.ino, rule.product)
        records = {each.product: each for each in await self._books.derived(folder.ino)}
        record = self._open.get(key) or records.get(rule.product)
        other = record is not None and record.source != ino and await self._is_there(record)
        there = await self._placing.there(folder, name)
        record = self._open.get(key) or record
        self._shares.learn(folder)
        verdict = judge(record, ino, sha256, rule.options, there, asked=asked, other_source=other)
        answer |= {"step": verdict.step.value, "reason": verdict.reason}
        if verdict.step is not Step.MAKE or dry_run:
            self._forget_owner(folder.ino)
        if verdict.step is Step.MAKE and dry_run:
            try:
                await self._making.require(folder, node, sha256, rule.product)
            except (Unmade, FsError) as error:
                answer |= {"step": Step.LEAVE.value, "reason": told(error)}
        if verdict.step is Step.MAKE and not dry_run:
            wish = Derived(
                folder.ino, rule.product, ino, sha256, rule.options, Status.PENDING,
                at_ns=self._tree.clock.now_ns(),
            )  # fmt: skip
            if key in self._busy:
                self._later[key] = wish
            elif record is None:
                await self._queue(wish)
            else:
                await self._queue(wish._replace(job=record.job, files=record.files + record.staged))
        elif verdict.step is Step.UNDER_WAY and asked and record is not None and key not in self._busy and not dry_run:
            self._missing_until_s = float("-inf")
            await self._queue(record._replace(next_ns=0, tries=0))  # what waits is tried at once
        return answer

    async def _is_there(self, record: Derived) -> bool:
        node = await file_at(self._tree, record.source)
        return node is not None and not node.unlinked and node.parent.ino == record.folder

    async def _queue(self, record: Derived) -> None:
        self._open[record.folder, record.product] = record
        await self._books.keep_derived(record)
        self._wake.set()

    # --- what is told --------------------------------------------------------------------------------------------

    async def state_of(self, folder: int, product: Product) -> dict[str, Any]:
        """What has become of a product."""
        key = (folder, product)
        kept = {each.product: each for each in await self._books.derived(folder)}
        record = self._open.get(key) or kept.get(key[1])
        if record is None:
            answer = {"status": None, "reason": "its source is gone"}
        else:
            status = Status.PROCESSING if key in self._busy else record.status
            answer = {"status": status.value, "reason": record.reason}
        share = await self._making.share(folder, product)
        return {"folder": folder, "product": product.value, "share": share, **answer}

    async def wait(self, keys: Sequence[Key], timeout_s: float) -> list[dict[str, Any]]:
        """Wait until something becomes of one of these products, or for *timeout_s*; then tell of all of them."""
        with trio.move_on_after(timeout_s):
            await self._changed.wait()
        return [await self.state_of(*key) for key in keys]

    def as_json(self) -> dict[str, Any]:
        """For `recfs status`. Atomic."""
        counts = {"pending": len(self._open) - len(self._busy), "processing": len(self._busy)}
        return counts | {"missing": self._missing or None}

    # --- the sweep -----------------------------------------------------------------------------------------------

    def sweep(self) -> Sweep[list[Candidate], list[Candidate]]:
        """What rules that are automatic have missed; and what is kept of recordings and files that are gone."""
        schedule = Schedule(self._every_s or float("inf"), patience_s=PATIENCE_S)
        return Sweep(
            "derive", PART, schedule, self._look, lambda found: found, self._act, mounted=True, progress=self._progress
        )

    async def _look(self) -> list[Candidate]:
        if not any(rule.automatic for rule in self.rules):
            return []
        return await self._find(())

    async def _act(self, found: Sequence[Candidate], going_on: trio.Nursery) -> str:
        await self._vfs.behind.flush()
        gone = await self._books.forget_gone()
        self._progress.total = len(found)
        steps: Counter[str] = Counter()
        for each in found:
            if self._progress.is_stopping:
                break
            for rule in wanted(self.rules, each.path, automatic=True):
                with self._problems.aside(PART, (each.ino, rule.make), os.fsdecode(b"/".join(each.path))):
                    answer = await self._one(each.ino, rule, asked=False)
                    steps[answer["step"] if answer is not None else "gone"] += 1
            self._progress.done += 1
        return f"{steps[Step.MAKE.value]:,} to be made, {gone:,} of what is gone forgotten"

    # --- running -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make what is to be made, for ever."""
        await self._load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forever, PART, self._listen, self._problems)
            for _ in range(self._jobs):
                nursery.start_soon(forever, PART, self._work, self._problems)

    async def _load(self) -> None:
        """What an earlier daemon left."""
        for record in await self._books.derived_open():
            with self._problems.aside(PART, record[:2]):
                try:
                    with contextlib.suppress(FsError):
                        self._shares.learn(await self._tree.directory(record.folder))
                    is_cut = record.status is Status.PROCESSING
                    await self._settle(record, await self._making.recovered(record) if is_cut else record)
                except Gone as error:
                    await self._settle(record, await self._after(record, error))

    async def _listen(self) -> None:
        """Look at the next source that was heard of."""
        while not self._heard:
            await self._woken(None)
        ino = next(iter(self._heard))
        del self._heard[ino]
        node = await file_at(self._tree, ino)
        if node is None or node.unlinked:
            return
        for key, record in self._open.items():
            if record.source == ino:  # which may have waited for that
                self._open[key] = record._replace(next_ns=0)
                self._wake.set()
        for rule in wanted(self.rules, tuple(node.parts()), automatic=True):
            with self._problems.aside(PART, (ino, rule.make), node.path):
                await self._one(ino, rule, asked=False)

    async def _woken(self, until_s: float | None) -> None:
        """Wait for something to do, or until *until_s* (trio's time)."""
        wake = self._wake
        with trio.move_on_at(until_s if until_s is not None else float("inf")):
            await wake.wait()
        if wake.is_set() and self._wake is wake:
            self._wake = trio.Event()

    async def _work(self) -> None:
        """Make the next product that is due; wait for one."""
        now_ns = self._tree.clock.steady_ns()
        due, soonest_ns = self._shares.pick(self._open, self._busy, now_ns)
        if due is None:
            await self._woken(None if soonest_ns is None else trio.current_time() + (soonest_ns - now_ns) / _NS)
            return
        key, owner = (due.folder, due.product), self._shares.begin(due.folder)
        self._busy.add(key)
        try:
            await self._make(due)
        finally:
            self._busy.discard(key)
            self._shares.end(owner)
            self._wake.set()  # what an owner has waiting may be made now
            self._changed.set()
            self._changed = trio.Event()

    async def _make(self, record: Derived) -> None:
        try:
            rule = await self._rule(record)
            await self._require_programs()
            done = await self._making.make(record._replace(options=rule.options), rule)
        except Exception as error:
            await self._settle(record, await self._after(record, error))
        else:
            self._problems.solved(PART, (record.folder, record.product))
            await self._settle(record, done)

    async def _rule(self, record: Derived) -> DeriveRule:
        """Which rule makes it now. Raises Gone or Unmade."""
        _, node = await self._making.place_of(record)
        for rule in wanted(self.rules, tuple(node.parts())):
            if rule.product is record.product:
                return rule
        raise Unmade("no [[derive]] rule makes it any more")

    async def _require_programs(self) -> None:
        """Raise MediaUnavailable; what was missing a moment ago is not looked for again."""
        if trio.current_time() < self._missing_until_s:
            raise MediaUnavailable(self._missing)
        try:
            await self._programs.ready()
        except MediaUnavailable as error:
            self._missing, self._missing_until_s = told(error), trio.current_time() + MISSING_S
            raise
        self._missing = ""

    async def _after(self, record: Derived, error: Exception) -> Derived | None:
        """What is kept of a product that was not made; None: nothing."""
        clock, key = self._tree.clock, (record.folder, record.product)
        kept = next(
            (each for each in await self._books.derived(record.folder) if each.product is record.product), record
        )
        # What recfs made stays known as such: what is about to be made may replace it.
        kept = kept._replace(
            sha256=record.sha256, source=record.source, at_ns=clock.now_ns(), job="", reason=told(error), staged=(),
            files=(*kept.files, *(each for each in kept.staged if each not in kept.files)),
        )  # fmt: skip
        steady_ns = clock.steady_ns()
        match error:
            case Gone():
                if not kept.files or not await self._has_folder(record):
                    return None
                return kept._replace(status=Status.FAILED)
            case Changed():
                node = await file_at(self._tree, record.source)
                now = node.sha256 if node is not None and is_committed(node) else None
                if now != record.sha256:
                    return kept._replace(sha256=now or record.sha256, status=Status.PENDING, tries=0, next_ns=0)
            case Waits():
                return kept._replace(status=Status.PENDING, next_ns=steady_ns + round(WAIT_S * _NS))
            case MediaUnavailable():
                return kept._replace(status=Status.PENDING, next_ns=steady_ns + round(MISSING_S * _NS))
        if not is_expected(error):
            self._problems.note(PART, key, error, f"{record.product} of inode {record.folder}")
        again = goes_better(error)
        return after_failure(kept, told(error), again=again, now_ns=clock.now_ns(), steady_ns=steady_ns)

    async def _has_folder(self, record: Derived) -> bool:
        try:
            return not is_gone(await self._tree.directory(record.folder))
        except FsError:
            return False

    async def _settle(self, tried: Derived, record: Derived | None) -> None:
        """Keep what came of a try, and go on with what was asked for meanwhile; None: nothing is kept."""
        key = (tried.folder, tried.product)
        later = self._later.pop(key, None)
        if record is None:
            self._open.pop(key, None)
            self._forget_owner(tried.folder)
            await self._books.drop_derived(tried.folder, tried.product.value)
            return
        if later is not None and (later.source, later.sha256, later.options) != (
            record.source, record.sha256, record.options,
        ):  # fmt: skip
            record = later._replace(files=record.files)
        await self._books.keep_derived(record)
        if record.status is Status.PENDING:
            self._open[key] = record
            self._wake.set()
        else:
            self._open.pop(key, None)
            self._forget_owner(tried.folder)
            log.info(
                "%s of inode %d: %s%s",
                record.product,
                record.folder,
                record.status,
                record.reason and f": {record.reason}",
            )

    def _forget_owner(self, folder: int) -> None:
        if not any((folder, product) in self._open for product in Product):
            self._shares.forget(folder)


def _candidates(snapshot: Snapshot, parts: tuple[bytes, ...], rules: Sequence[DeriveRule]) -> list[Candidate]:
    """Files directly in recordings at and below a path from which any rule makes something."""
    user = os.fsdecode(parts[1]) if len(parts) > 1 else None
    found = []
    for each in snapshot.recordings(user):
        if each.path[: len(parts)] != parts[: len(each.path)]:
            continue
        for entry in snapshot.below(each.row.ino, recursive=False, state=None):
            path = (*each.path, entry.path)
            if entry.row.kind is Kind.FILE and any(rule.takes(path) for rule in rules):
                found.append(Candidate(entry.row.ino, path))
    return found


__all__ = ["Candidate", "Deriving"]
