"""Bringing files to where the rules want them, both ways, and telling what they want of a path."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from recfs.api.s3.far import MOST_TOLD, Outcome, side_by_side
from recfs.api.s3.walk import Found, walk
from recfs.api.summaries_s3 import route_explain, wanted_class
from recfs.core.model import State
from recfs.core.routing import age_of, route
from recfs.core.tiering import Move, Step, move_for
from recfs.errors import Busy, InvalidArgument
from recfs.tier.journal import UPLOAD

if TYPE_CHECKING:
    from recfs.api.s3.far import Far
    from recfs.state.nodes import FileNode

AT_ONCE = 4
"""Files brought home, or uploaded anew, at the same time."""
LOOK_EVERY = 100
"""After so many journalled uploads it is looked whether they fill the budget."""


class TierAnswers:
    """route_explain, tier_run."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._run: _Run | None = None

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far the run under way is; None if there is none."""
        return self._run.told() if self._run is not None else None

    async def explain(self, params: dict[str, Any]) -> dict[str, Any]:
        """What each rule says of a path, which need not exist, and which one decides. Also without [s3]."""
        size_bytes, age_s = params.get("size_bytes"), params.get("age_s")
        if not all(each is None or (isinstance(each, (int, float)) and each >= 0) for each in (size_bytes, age_s)):
            raise InvalidArgument("size and age are numbers of at least 0")
        far, path = self._far, str(params.get("path") or "")
        now = far.vfs.tree.clock.now_ns()
        return await far.read(
            route_explain, far.config, now, path, None if size_bytes is None else int(size_bytes), age_s
        )

    async def run(self, params: dict[str, Any]) -> dict[str, Any]:
        """Look at every file, and bring it to where the rules want it; `dry_run`: only tell.

        Uploads are journalled, no more at a time than half the budget; the rest is done when this returns. Raises Busy
        while another run is under way.
        """
        dry_run = bool(params.get("dry_run"))
        run = _Run(self._far, dry_run=dry_run)
        if dry_run:
            await run.all()
            return run.told()
        if self._run is not None:
            raise Busy("another `recfs tier run` is under way; `recfs status` shows how far it is")
        self._run = run
        try:
            await run.all()
        finally:
            self._run = None
        await self._far.vfs.behind.durable()
        return run.told()


class _Run:
    """One walk through all files."""

    def __init__(self, far: Far, *, dry_run: bool) -> None:
        self._far, self._tier, self._dry_run = far, far.tier, dry_run
        self._slots = trio.CapacityLimiter(AT_ONCE)
        self._looked = 0
        self._failed = Outcome()
        self._files: Counter[Step] = Counter()
        self._bytes: Counter[Step] = Counter()
        self._list: list[dict[str, Any]] = []

    def told(self) -> dict[str, Any]:
        """As JSON, also while it goes on."""
        steps = {
            step.value: {"files": self._files[step], "bytes": self._bytes[step]} for step in Step if step != Step.WAIT
        }
        failed = self._failed.told()
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
        """Walk."""
        async with side_by_side() as nursery:
            async for found in walk(self._far.vfs, self._far.vfs.tree.root):
                self._looked += 1
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
        tier, config = self._tier, self._far.config
        age_s = age_of(self._far.vfs.tree.clock.now_ns(), found.mtime_ns, found.ctime_ns)
        decision = route(tier.settings.rules, found.parts, found.size_bytes, age_s)
        wanted = wanted_class(config, decision.storage_class) if decision.store == "s3" else None
        held = None
        if found.has_object and wanted is not None:
            node = self._far.vfs.tree.nodes.get(found.ino)
            held = getattr(node, "object", None) or await self._far.vfs.tree.catalogue.object(found.ino)
        return move_for(
            decision, found.state, queued=tier.journal.upload_of(found.ino) is not None, has_object=found.has_object,
            storage_class=held.storage_class if held is not None else None, wanted=wanted,
        )  # fmt: skip

    def _tell(self, found: Found, move: Move) -> None:
        self._count(move.step, found.size_bytes)
        if len(self._list) < MOST_TOLD:
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
        move = await self._move(Found(self._far.vfs, tuple(node.parts()), node))
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
        while self._unsent_bytes() > half:
            await self._tier.journal.progress()

    def _unsent_bytes(self) -> int:
        """What is on its way, or would be if S3 let it; not what waits for a better name."""
        journal, now = self._tier.journal, self._far.vfs.tree.clock.steady_ns()
        return sum(
            row.size_bytes
            for row in journal.rows.values()
            if row.kind == UPLOAD and (row.id in journal.running or row.attempts or row.next_try_ns <= now)
        )
