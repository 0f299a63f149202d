"""Brings files to where the rules want them, both ways."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.model import State
from recfs.core.routing import age_of, route
from recfs.core.sweeping import Schedule
from recfs.core.tiering import Move, Step, move_for
from recfs.errors import Busy
from recfs.ports.rows import UPLOAD
from recfs.ports.sweep import Progress, Sweep
from recfs.state.walk import Found, Walk
from recfs.state.work.outcome import MOST_NAMED, Outcome, side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.ports.rows import JournalRow
    from recfs.state.nodes import DirNode, FileNode
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier

AT_ONCE = 4
"""Files brought home, or uploaded anew, at the same time."""
PART = "tier run"
PATIENCE_S = 86_400.0
STOP_LOOK_S = 1.0
"""How often a run that waits for S3 looks whether it is to stop."""
LOOK_EVERY = 100
"""After so many journalled uploads it is looked whether they fill the budget."""


_DID = {
    Step.UPLOAD: "queued for upload", Step.UNQUEUE: "taken out of the queue", Step.BRING_HOME: "brought home",
    Step.STORE_ANEW: "stored anew",
}  # fmt: skip


def idle(free: bool) -> bool | None:
    """The decision: a run where none is under way."""
    return free or None


class TierRun:
    """One run at a time, and any number that only tell."""

    def __init__(self, tier: Tier, tree: Tree, default_class: str | None, *, every_s: float = 0.0) -> None:
        """*every_s*: how often the daemon starts one by itself; 0: never."""
        self._tier = tier
        self._tree = tree
        self._default_class = default_class
        """The storage class of files whose rule names none; None: the bucket's default."""
        self._under_way: _Run | None = None
        self.every_s = every_s
        self._swept = Progress()

    def sweep(self) -> Sweep[Any, Any]:
        """A run by schedule, for the registry. While a command's is under way it finds nothing to do."""
        schedule = Schedule.every(self.every_s, patience_s=PATIENCE_S)
        return Sweep("tier", PART, schedule, self._is_free, idle, self._act, mounted=True, progress=self._swept)

    async def _is_free(self) -> bool:
        return self._under_way is None

    async def _act(self, free: bool, going_on: trio.Nursery) -> str:
        ended = await self.run(dry_run=False, swept=self._swept)
        did = [f"{done['files']:,} {_DID[Step(step)]}" for step, done in ended["steps"].items() if done["files"]]
        if ended["kept_files"]:
            did.append(f"{ended['kept_files']:,} kept: {ended['kept'][0]['path']}: {ended['kept'][0]['reason']}")
        return ", ".join(did) or f"{ended['files']:,} files, all where they belong"

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far the run under way is; None if there is none."""
        return self._under_way.as_json() if self._under_way is not None else None

    async def run(
        self, *, dry_run: bool, swept: Progress | None = None, tops: Sequence[DirNode] | None = None
    ) -> dict[str, Any]:
        """Look at every file, and bring it to where the rules want it; *dry_run*: only tell.

        *tops*: at those below these directories alone, and only at the storage class of what is in S3.

        Uploads are journalled, no more at a time than half the budget; the rest is done when this returns. *swept*: how
        far it is, and whether it is to stop. Raises Busy while another run is under way.
        """
        run = _Run(self._tier, self._tree, self._default_class, swept or Progress(), tops, dry_run=dry_run)
        if dry_run:
            await run.all()
            return run.as_json()
        if self._under_way is not None:
            raise Busy("another `recfs tier run` is under way; `recfs status` shows how far it is")
        self._under_way = run
        try:
            await run.all()
        finally:
            self._under_way = None
        await self._tree.behind.durable()
        return run.as_json()


class _Run:
    """One walk through all files."""

    def __init__(
        self, tier: Tier, tree: Tree, default_class: str | None, swept: Progress, tops: Sequence[DirNode] | None,
        *, dry_run: bool,
    ) -> None:  # fmt: skip
        self._swept = swept
        self._tops = (tree.root,) if tops is None else tuple(tops)
        self._only = None if tops is None else (Step.STORE_ANEW, Step.WAIT)
        """The steps that are taken; None: all."""
        self._tier, self._tree, self._default_class, self._dry_run = tier, tree, default_class, dry_run
        self._slots = trio.CapacityLimiter(AT_ONCE)
        self._looked = 0
        self._failed = Outcome()
        self._files: Counter[Step] = Counter()
        self._bytes: Counter[Step] = Counter()
        self._list: list[dict[str, Any]] = []

    def as_json(self) -> dict[str, Any]:
        """As JSON, also while it goes on."""
        steps = {
            step.value: {"files": self._files[step], "bytes": self._bytes[step]} for step in Step if step != Step.WAIT
        }
        failed = self._failed.as_json()
        return {
            "dry_run": self._dry_run,
            "files": self._looked,
            "steps": steps,
            "moved": self._list,
            "more": self._files.total() - len(self._list) if self._dry_run else 0,
            "kept": failed["kept"],
            "kept_files": failed["kept_files"],
        }

    async def all(self) -> None:
        """Walk all files and bring each where the rules want it."""
        async with side_by_side() as nursery:
            for top in self._tops:
                await self._below(top, nursery)
                self._swept.done += self._only is not None

    async def _below(self, top: DirNode, nursery: trio.Nursery) -> None:
        async for found in Walk(self._tree, top):
            if self._swept.is_stopping:
                break
            self._looked += 1
            if self._only is None:
                self._swept.done = self._looked
            move = await self._move(found)
            if move is None:
                continue
            if move.step is Step.WAIT:
                self._failed.keep(found.path, move.reason)
            elif self._dry_run:
                self._tell(found, move)
            else:
                await self._do(nursery, found)

    async def _move(self, found: Found) -> Move | None:
        tier = self._tier
        age_s = age_of(self._tree.clock.now_ns(), found.mtime_ns, found.ctime_ns)
        decision = route(tier.settings.rules, found.parts, found.size_bytes, age_s)
        in_s3 = None
        may_matter = decision.storage_class or self._default_class or tier.settings.policy.rules
        if found.has_object and decision.store == "s3" and may_matter:
            node = self._tree.nodes.get(found.ino)
            in_s3 = getattr(node, "object", None) or await self._tree.catalogue.object(found.ino)
        has_class = in_s3.storage_class if in_s3 is not None else None
        decision = tier.archived(decision, found.folder.recording, has_class)
        wanted = (decision.storage_class or self._default_class) if decision.store == "s3" else None
        move = move_for(
            decision, found.state, queued=tier.journal.upload_of(found.ino) is not None, has_object=found.has_object,
            storage_class=has_class, wanted=wanted,
        )  # fmt: skip
        return move if move is None or self._only is None or move.step in self._only else None

    def _tell(self, found: Found, move: Move) -> None:
        self._count(move.step, found.size_bytes)
        if len(self._list) < MOST_NAMED:
            self._list.append(
                {
                    "path": found.path,
                    "state": found.state.value,
                    "size_bytes": found.size_bytes,
                    "step": move.step.value,
                    "reason": move.reason,
                }
            )

    def _count(self, step: Step, size_bytes: int) -> None:
        self._files[step] += 1
        self._bytes[step] += size_bytes

    # --- doing ---------------------------------------------------------------------------------------------------

    async def _do(self, nursery: trio.Nursery, found: Found) -> None:
        node = await found.node()
        if node is None:
            return
        # It may have changed since its page was read, and have been evicted to make room for what this run fetches.
        move = await self._move(Found(self._tree, node.parent, tuple(node.parts()), node))
        if move is None or move.step is Step.WAIT:
            return
        step = move.step
        if step is Step.UPLOAD:
            self._tier.journal.upload(node, 0.0)
            self._count(step, node.bytes)
            await self._throttle(node.bytes)
        elif step is Step.UNQUEUE:
            self._tier.unwanted(node)
            self._count(step, node.bytes)
        else:
            await self._slots.acquire_on_behalf_of(node)
            nursery.start_soon(self._bring, node, step)

    async def _bring(self, node: FileNode, step: Step) -> None:
        try:
            done = await (self._tier.bring_home(node) if step is Step.BRING_HOME else self._tier.store_anew(node))
        except Exception as error:
            self._failed.failed(node.path, error)
        else:
            if done:
                self._count(step, node.bytes)
            elif node.state is not State.WRITING:
                self._failed.keep(node.path, "it was changed meanwhile")
        finally:
            self._slots.release_on_behalf_of(node)
        if step is Step.STORE_ANEW:
            await self._throttle(node.bytes)

    async def _throttle(self, added_bytes: int) -> None:
        """Leave half the budget to what others write: what is not uploaded yet holds new files back."""
        half = self._tier.settings.max_bytes // 2
        if self._files.total() % LOOK_EVERY and added_bytes < half // LOOK_EVERY:
            return
        while await self._unsent_bytes() > half and not self._swept.is_stopping:
            with trio.move_on_after(STOP_LOOK_S):
                await self._tier.journal.progress()

    async def _unsent_bytes(self) -> int:
        """What is on its way, or would be if S3 let it; not what waits for a better name."""
        journal, now = self._tier.journal, self._tree.clock.steady_ns()
        unsent = 0

        def visit(row: JournalRow) -> None:
            nonlocal unsent
            if row.kind == UPLOAD and (row.id in journal.running or row.attempts or row.next_try_ns <= now):
                unsent += row.size_bytes

        await journal.tally.look_at_all(visit)
        return unsent
