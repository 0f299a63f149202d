"""What is to be made: asked for by `recfs derive`, found by rules that are automatic, and told of.

Each product of each source is judged by what is kept of it and what lies in its place; what is to be made is queued.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from recfs.core.layout import owner_of
from recfs.core.media.derived import Derived, Product, Status, Step, judge, principal, wanted
from recfs.core.model import Kind, State
from recfs.core.sweeping import Schedule
from recfs.errors import FsError, InvalidArgument
from recfs.fs.session.stats import is_committed
from recfs.ports.sweep import Progress, Sweep
from recfs.services.deriving import PART
from recfs.services.deriving.reasons import Unmade, told
from recfs.state.nodes import FileNode
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.core.media.chunks import ChunkRule
    from recfs.core.media.derived import DeriveRule
    from recfs.fs.vfs import Vfs
    from recfs.ports.derived import DerivedBooks
    from recfs.ports.reports import Reports, Snapshot
    from recfs.services.deriving.making import Making
    from recfs.services.deriving.placing import Placing
    from recfs.services.deriving.planning import Planning
    from recfs.services.deriving.programs import Programs
    from recfs.services.deriving.waiting import Waiting

    Key = tuple[int, Product]

PATIENCE_S = 86_400.0
SEALING_S = 10.0
"""So long whoever asks waits for files that were closed just now to be committed. Of a larger one it is told."""
TOLD_TOGETHER_S: Final = 1.0
"""Whoever follows many products is told of them that often."""
_MANY: Final = 50
_DEPTH = 4
"""Levels of a recording's path."""


class Candidate(NamedTuple):
    """A file from which rules make something."""

    ino: int
    path: tuple[bytes, ...]
    """As it was when it was found."""


class Asking:
    """Judges, queues and tells."""

    def __init__(
        self, vfs: Vfs, books: DerivedBooks, reports: Reports, making: Making, placing: Placing, programs: Programs,
        waiting: Waiting, planning: Planning, rules: Sequence[DeriveRule], *, every_s: float,
    ) -> None:  # fmt: skip
        self._vfs = vfs
        self._tree = vfs.tree
        self._books = books
        self._reports = reports
        self._making = making
        self._placing = placing
        self._programs = programs
        self._waiting = waiting
        self._planning = planning
        self.rules = rules
        self._every_s = every_s
        self._problems = vfs.behind.problems
        self.later: dict[Key, Derived] = {}
        """What was asked for while another version of it is being made."""
        self._progress = Progress()

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
            answers += [await self.one(each.ino, rule, asked=True, dry_run=dry_run) for rule in rules]
            await trio.lowlevel.checkpoint()
        return [each for each in answers if each is not None]

    async def _sealed(self, ino: int) -> None:
        """Wait until a file that was closed just now is committed."""
        node = await file_at(self._tree, ino)
        while node is not None and node.state is State.SEALING and not node.unlinked:
            self._vfs.pipeline.want(ino)
            await self._vfs.pipeline.progress()

    async def _find(self, parts: tuple[bytes, ...], *more: ChunkRule) -> list[Candidate]:
        await self._vfs.behind.flush()
        rules: tuple[DeriveRule | ChunkRule, ...] = (*self.rules, *more)
        return await self._reports.ask(_candidates, parts, rules)

    async def one(self, ino: int, rule: DeriveRule, *, asked: bool, dry_run: bool = False) -> dict[str, Any] | None:
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
        record = self._waiting.open.get(key) or records.get(rule.product)
        other = record is not None and record.source != ino and await self._is_there(record)
        there = await self._placing.there(folder, name)
        record = self._waiting.open.get(key) or record
        verdict = judge(record, ino, sha256, rule.options, there, asked=asked, other_source=other)
        answer |= {"step": verdict.step.value, "reason": verdict.reason}
        if verdict.step is Step.MAKE and dry_run:
            try:
                await self._making.require(folder, node, sha256, rule.product)
            except (Unmade, FsError) as error:
                answer |= {"step": Step.LEAVE.value, "reason": told(error)}
        owner = owner_of(tuple(folder.parts()))
        if verdict.step is Step.MAKE and not dry_run and key not in self._waiting.open and self._waiting.is_full(owner):
            return answer | {"step": "wait", "reason": "too much of this user's waits: ask again when that is made"}
        if verdict.step is Step.MAKE and not dry_run:
            wish = Derived(
                folder.ino, rule.product, ino, sha256, rule.options, Status.PENDING,
                at_ns=self._tree.clock.now_ns(),
            )  # fmt: skip
            if key in self._waiting.busy:
                self.later[key] = wish
            elif record is None:
                await self._queue(wish, owner)
            else:
                await self._queue(wish._replace(job=record.job, files=record.files + record.staged), owner)
        elif (
            verdict.step is Step.UNDER_WAY
            and asked
            and record is not None
            and key not in self._waiting.busy
            and not dry_run
        ):
            self._programs.look_again()
            await self._queue(record._replace(next_ns=0, tries=0), owner)  # what waits is tried at once
        return answer

    async def _is_there(self, record: Derived) -> bool:
        node = await file_at(self._tree, record.source)
        return node is not None and not node.unlinked and node.parent.ino == record.folder

    async def _queue(self, record: Derived, owner: str | None) -> None:
        self._waiting.put(record, owner)
        await self._books.keep_derived(record)

    # --- what is told --------------------------------------------------------------------------------------------

    async def state_of(self, folder: int, product: Product) -> dict[str, Any]:
        """What has become of a product."""
        key = (folder, product)
        kept = {each.product: each for each in await self._books.derived(folder)}
        record = self._waiting.open.get(key) or kept.get(key[1])
        if record is None:
            answer = {"status": None, "reason": "its source is gone"}
        else:
            status = Status.PROCESSING if key in self._waiting.busy else record.status
            answer = {"status": status.value, "reason": record.reason}
        share = await self._making.share(folder, product)
        return {"folder": folder, "product": product.value, "share": share, **answer}

    async def wait(self, keys: Sequence[Key], timeout_s: float) -> list[dict[str, Any]]:
        """Wait until something becomes of one of these products, or for *timeout_s*; then tell of all of them."""
        began_s = trio.current_time()
        with trio.move_on_after(timeout_s):
            await self._waiting.news()
            if len(keys) > _MANY:
                await trio.sleep_until(began_s + TOLD_TOGETHER_S)
        answers = []
        for key in keys:
            answers.append(await self.state_of(*key))
            await trio.lowlevel.checkpoint()
        return answers

    def as_json(self) -> dict[str, Any]:
        """For `recfs status`. Atomic."""
        counts = {"pending": self._waiting.pending, "processing": len(self._waiting.busy)}
        return counts | {"missing": self._programs.missing or None}

    # --- the sweep -----------------------------------------------------------------------------------------------

    def sweep(self) -> Sweep[list[Candidate], list[Candidate]]:
        """What rules that are automatic have missed; and what is kept of recordings and files that are gone."""
        schedule = Schedule(self._every_s or float("inf"), patience_s=PATIENCE_S)
        return Sweep(
            "derive", PART, schedule, self._look, lambda found: found, self._act, mounted=True, progress=self._progress
        )

    async def _look(self) -> list[Candidate]:
        if not self._planning.rules and not any(rule.automatic for rule in self.rules):
            return []
        return await self._find((), *self._planning.rules)

    async def _act(self, found: Sequence[Candidate], going_on: trio.Nursery) -> str:
        await self._vfs.behind.flush()
        gone = await self._books.forget_gone()
        self._progress.total = len(found)
        steps: Counter[str] = Counter()
        for each in found:
            if self._progress.is_stopping:
                break
            self._planning.hear(*each)
            for rule in wanted(self.rules, each.path, automatic=True):
                with self._problems.aside(PART, (each.ino, rule.make), os.fsdecode(b"/".join(each.path))):
                    answer = await self.one(each.ino, rule, asked=False)
                    steps[answer["step"] if answer is not None else "gone"] += 1
            self._progress.done += 1
            await trio.lowlevel.checkpoint()
        return f"{steps[Step.MAKE.value]:,} to be made, {gone:,} of what is gone forgotten"


def _candidates(
    snapshot: Snapshot, parts: tuple[bytes, ...], rules: Sequence[DeriveRule | ChunkRule]
) -> list[Candidate]:
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


__all__ = ["Asking", "Candidate"]
