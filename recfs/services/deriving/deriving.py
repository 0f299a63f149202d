"""The queue of products is worked off: when each is tried, and what came of it.

The catalogue has what is to be made; here is what of it is pending. Products are asked for by `recfs derive`, and by
rules that are automatic: when a source is committed or gets its name, and by the sweep `derive`, which finds what a
death, a change of the rules or a full queue has left out (`asking.py`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from recfs.core.layout import Role, owner_of
from recfs.core.media.derived import Derived, Status, after_failure, wanted
from recfs.errors import FsError, MediaUnavailable
from recfs.fs.session.stats import is_committed
from recfs.services.deriving import PART
from recfs.services.deriving.programs import MISSING_S
from recfs.services.deriving.reasons import Changed, Gone, Unmade, Waits, goes_better, is_expected, told
from recfs.state.events.subscribers import Subscriber
from recfs.state.nodes import DirNode, FileNode, is_gone
from recfs.state.problems import forever
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from recfs.core.media.derived import DeriveRule
    from recfs.fs.vfs import Vfs
    from recfs.ports.derived import DerivedBooks
    from recfs.services.deriving.asking import Asking
    from recfs.services.deriving.making import Making
    from recfs.services.deriving.programs import Programs
    from recfs.services.deriving.waiting import Waiting
    from recfs.state.nodes import Node

log = logging.getLogger("recfs.derive")

WAIT_S = 600.0
"""What waits for something is looked at again after so long."""
_NS: Final = 10**9


class Deriving(Subscriber):
    """Makes products, a few at a time."""

    def __init__(
        self, vfs: Vfs, books: DerivedBooks, asking: Asking, making: Making, programs: Programs, waiting: Waiting,
        *, jobs: int,
    ) -> None:  # fmt: skip
        self._tree = vfs.tree
        self._books = books
        self._asking = asking
        self._making = making
        self._programs = programs
        self._waiting = waiting
        self._jobs = jobs
        self._problems = vfs.behind.problems
        self._heard: dict[int, None] = {}
        """Sources that were committed, or named, since they were last looked at."""

    # --- what is heard (atomic) ----------------------------------------------------------------------------------

    def committed(self, node: FileNode) -> None:
        """A source, perhaps."""
        if self._asking.rules and node.parent.role is Role.RECORDING:
            self._heard[node.ino] = None
            self._waiting.wake()

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """Recorders write aside, and rename when it is whole."""
        if isinstance(node, FileNode):
            self.committed(node)

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
                self._waiting.put(record, await self._owner(record.folder))
                try:
                    is_cut = record.status is Status.PROCESSING
                    await self._settle(record, await self._making.recovered(record) if is_cut else record)
                except Gone as error:
                    await self._settle(record, await self._after(record, error))
            await trio.lowlevel.checkpoint()

    async def _owner(self, folder: int) -> str | None:
        try:
            return owner_of(tuple((await self._tree.directory(folder)).parts()))
        except FsError:
            return None

    async def _listen(self) -> None:
        """Look at the next source that was heard of."""
        await trio.lowlevel.checkpoint()
        while not self._heard:
            await self._waiting.woken(None)
        ino = next(iter(self._heard))
        del self._heard[ino]
        node = await file_at(self._tree, ino)
        if node is None or node.unlinked:
            return
        self._waiting.source_came(ino)
        for rule in wanted(self._asking.rules, tuple(node.parts()), automatic=True):
            with self._problems.aside(PART, (ino, rule.make), node.path):
                await self._asking.one(ino, rule, asked=False)

    async def _work(self) -> None:
        """Make the next product that is due; wait for one."""
        await trio.lowlevel.checkpoint()  # what fails at once would not let anybody else have a turn
        now_ns = self._tree.clock.steady_ns()
        due, soonest_ns = self._waiting.pick(now_ns)
        if due is None:
            until_s = None if soonest_ns is None else trio.current_time() + (soonest_ns - now_ns) / _NS
            await self._waiting.woken(until_s)
            return
        key = (due.folder, due.product)
        owner = self._waiting.begin(key)
        try:
            await self._make(due)
        finally:
            self._waiting.end(key, owner)

    async def _make(self, record: Derived) -> None:
        try:
            rule = await self._rule(record)
            await self._programs.ready()
            done = await self._making.make(record._replace(options=rule.options), rule)
        except Exception as error:
            await self._settle(record, await self._after(record, error))
        else:
            self._problems.solved(PART, (record.folder, record.product))
            await self._settle(record, done)

    async def _rule(self, record: Derived) -> DeriveRule:
        """Which rule makes it now. Raises Gone or Unmade."""
        _, node = await self._making.place_of(record)
        for rule in wanted(self._asking.rules, tuple(node.parts())):
            if rule.product is record.product:
                return rule
        raise Unmade("no [[derive]] rule makes it any more")

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
        later = self._asking.later.pop(key, None)
        if record is None:
            self._waiting.drop(key)
            await self._books.drop_derived(tried.folder, tried.product.value)
            return
        if later is not None and (later.source, later.sha256, later.options) != (
            record.source, record.sha256, record.options,
        ):  # fmt: skip
            record = later._replace(files=record.files)
        await self._books.keep_derived(record)
        if record.status is Status.PENDING:
            self._waiting.put(record)
        else:
            self._waiting.drop(key)
            why = record.reason and f": {record.reason}"
            log.info("%s of inode %d: %s%s", record.product, record.folder, record.status, why)


__all__ = ["Deriving"]
