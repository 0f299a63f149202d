"""What is in the trash, and what is to become of it: restored, alone or with all that was below a path, or given up."""

from __future__ import annotations

import os
from functools import partial
from heapq import nsmallest
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.layout import is_cut, is_temporary, owner_of
from recfs.core.model import Kind
from recfs.errors import InvalidArgument, NotFound, NotSupported, RecfsError
from recfs.fs.trash.returning import Returning
from recfs.ports.rows import TrashRow
from recfs.state.nodes import DirNode
from recfs.state.work.outcome import Outcome
from recfs.state.work.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.disk.home.publisher import HomePublisher
    from recfs.disk.trash_index import TrashIndex
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.state.nodes import Garbage, Node
    from recfs.stores.local import LocalStore
    from recfs.tier.trashed import TrashedObjects

_NS = 1_000_000_000
LOOKED_AT_ONCE = 50
"""After so many entries it is looked whether the turn is over."""
PAGE = 500
"""Entries of a page, at most."""
PAGE_BYTES = 256 << 10
"""Of their paths, at which a page ends: as JSON each byte may be six."""


class Trashed(NamedTuple):
    """One version of a file, or a directory or link, in the trash."""

    number: int
    kind: Kind
    path: bytes
    """Which it had."""
    size_bytes: int
    sha256: bytes | None
    """None: it was deleted before it was committed, or is no file."""
    uid: int
    gid: int
    age_s: float
    """Since it was deleted or overwritten."""
    is_far: bool
    """Only S3 has the bytes."""

    @property
    def user(self) -> str | None:
        """In whose part of the tree it was."""
        return owner_of(tuple(self.path.split(b"/")))


class Trash:
    """The trash of a store."""

    def __init__(
        self, vfs: Vfs, store: LocalStore, publisher: HomePublisher, kernel: KernelCache, index: TrashIndex,
        objects: TrashedObjects | None,
    ) -> None:  # fmt: skip
        """*objects*: who looks after what only S3 has; None without [s3]."""
        self._tree = vfs.tree
        self._publisher = publisher
        self._index = index
        self._objects = objects
        self._returning = Returning(vfs, store, publisher, kernel, index, objects)
        in_trash = vfs.tree.accounts.in_trash
        in_trash.give_up = self._make_room
        in_trash.shrink()

    @property
    def retention_s(self) -> float:
        """For how long anything is kept, in seconds; 0: not at all."""
        return self._index.retention_s

    def page(self, after: int = 0, most: int = PAGE) -> tuple[list[Trashed], int | None]:
        """What there is of the next *most* numbers after one, in the order in which it was deleted; and the number
        after which more may be, or None. Atomic: in pages, so that nobody waits for a trash of any size.
        """
        numbers = (gid for known in (self._tree.garbage, self._index.rows) for gid in known if gid > after)
        looked, found, path_bytes = nsmallest(most, numbers), list[Trashed](), 0
        for number in looked:
            entry = self._find(number)
            if entry is not None and self._is_kept(entry):
                found.append(self._told(entry))
                path_bytes += len(entry.path)
                if path_bytes > PAGE_BYTES:
                    return found, number
        return found, looked[-1] if len(looked) == most else None

    async def chosen(self, is_meant: Callable[[Trashed], bool]) -> list[Trashed]:
        """Those that are meant, in the order of their deletion; what others do meanwhile may be in it or not."""
        chosen: list[Trashed] = []
        numbers = [*self._tree.garbage, *self._index.rows]
        numbers.sort()
        turn, last = Turn(), 0
        for count, number in enumerate(numbers):
            if count % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1 and turn.is_over:
                await turn.pass_on()  # requests come first
            entry = self._find(number) if number != last else None  # of some, both have a part
            last = number
            if entry is not None and self._is_kept(entry) and is_meant(told := self._told(entry)):
                chosen.append(told)
        return chosen

    def known(self, number: int) -> Trashed:
        """One of them. Raises NotFound. Atomic."""
        return self._told(self._known(number))

    def _told(self, entry: Garbage | TrashRow) -> Trashed:
        age_s = max(0.0, (self._tree.clock.steady_ns() - entry.deleted_ns) / _NS)
        is_far = isinstance(entry, TrashRow) and entry.object_key is not None
        return Trashed(
            entry.gid, entry.kind, entry.path, entry.size_bytes, entry.sha256, entry.uid, entry.gid_owner, age_s, is_far
        )

    def _find(self, number: int) -> Garbage | TrashRow | None:
        return self._index.rows.get(number) or self._tree.garbage.get(number)

    def _is_kept(self, entry: Garbage | TrashRow) -> bool:
        """Whether it is in the trash, or on its way there, and nobody has taken it."""
        if not self._index.is_kept or entry.gid in self._returning.taken:
            return False
        if entry.gid in self._index.rows:
            return True
        garbage = self._tree.garbage.get(entry.gid)
        if garbage is None or garbage.kind is not Kind.FILE or not garbage.size_bytes or garbage.held_by is not None:
            return False
        if is_temporary(garbage.path):
            return False
        return not self._publisher.is_given_up(garbage)

    def is_leaving(self, entry: Garbage) -> bool:
        """Whether it is being brought back, and its bytes may be on their way. Atomic."""
        return entry.gid in self._returning.taken

    def _known(self, number: int) -> Garbage | TrashRow:
        entry = self._find(number)
        if entry is None or not self._is_kept(entry):
            raise NotFound(f"the trash has no number {number}")
        return entry

    # --- giving up -----------------------------------------------------------------------------------------------

    def purge(self, entry: Garbage | TrashRow) -> None:
        """The retention of *entry* is over, or nobody wants it any more. Atomic."""
        if entry.gid in self._returning.taken:
            return
        row = self._index.rows.get(entry.gid)
        garbage = self._tree.garbage.get(entry.gid)
        if row is not None and row.object_key is not None:
            if self._objects is not None:  # else nobody could remove the object: it waits for a configuration with [s3]
                self._tree.events.purged(row.path, row.size_bytes)
                self._objects.give_up(row)
            return
        if row is not None or (garbage is not None and not self._publisher.is_given_up(garbage)):
            self._tree.events.purged(entry.path, entry.size_bytes)
        if row is not None:
            self._index.drop(row.gid)
        elif garbage is not None:
            self._publisher.purge(garbage)
        if self._objects is not None and entry.kind is Kind.FILE:
            self._objects.give_up_copy(entry)

    def _make_room(self, number: int) -> bool:
        """The entry makes room for what its user has deleted since; False: something holds it. Atomic."""
        entry, garbage = self._find(number), self._tree.garbage.get(number)
        if number in self._returning.taken or (garbage is not None and garbage.held_by is not None):
            return False
        if entry is not None:
            self.purge(entry)
        if garbage is not None:
            self._index.drop_beside(garbage)
        return True

    def expired(self) -> list[tuple[Garbage | TrashRow, int, int]]:
        """What only its retention keeps, for `core/lifecycle.py`. Atomic."""
        entries = [each for each in self._tree.garbage.values() if each.in_trash and each.held_by is None]
        return [(each, each.deleted_ns, 0) for each in entries] + list(self._index.expired())

    async def overdue(self, is_due: Callable[[int], bool]) -> list[tuple[Garbage | TrashRow, int, int]]:
        """As `expired`, of those due by when they were deleted; in turns. `purge` ignores what is gone by then."""
        found: list[tuple[Garbage | TrashRow, int, int]] = []
        turn = Turn()
        known: list[Garbage | TrashRow] = [*self._tree.garbage.values(), *self._index.rows.values()]
        for count, each in enumerate(known):
            if count % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1 and turn.is_over:
                await turn.pass_on()
            if is_due(each.deleted_ns) and (isinstance(each, TrashRow) or (each.in_trash and each.held_by is None)):
                found.append((each, each.deleted_ns, 0))
        return found

    async def give_up(self, number: int) -> None:
        """Have a version removed for good: it does not come back once `durable` has returned.

        Raises NotFound, NotSupported (only S3 has it, and there is no [s3]).
        """
        await self._returning.arrived(self._known(number))
        entry = self._known(number)
        if getattr(entry, "object_key", None) is not None and self._objects is None:
            raise NotSupported("its bytes are in S3, and the configuration has no [s3]")
        garbage = self._tree.garbage.get(number)
        if garbage is not None:
            garbage.deleted_ns = 0  # should recfs die before the bytes are gone, the next start finds it overdue
            self._tree.behind.garbage(garbage, discard=False)
        self.purge(entry)

    async def others_first(self) -> None:
        """For those who give up many: requests come first, and who is told of each has to write it."""
        await self._tree.events.caught_up()

    async def durable(self) -> None:
        """What was given up stays so, whatever happens. Raises IoFailure, OutOfSpace."""
        await self._tree.behind.durable()

    # --- bringing back -------------------------------------------------------------------------------------------

    async def restore(self, number: int, to: Sequence[bytes] | None = None, *, force: bool = False) -> Node:
        """Bring a version back to the path it had, or *to* another.

        *force*: in place of a file that is there by now, which goes to the trash in turn. Raises NotFound where there
        is no such version, Stale where its bytes are gone, Exists, and what making a file may (QuotaExceeded …).
        """
        await self._returning.arrived(self._known(number))
        names = list(to) if to is not None else _names(self._known(number).path)
        return await self._returning.bring(number, partial(self._known, number), names, force=force)

    async def restore_all(self, chosen: Sequence[Trashed], *, force: bool) -> tuple[Outcome, list[tuple[int, str]]]:
        """Bring back several, each by itself, to the paths they had; and of which number what is there again.

        Directories come first, with their own mode, owner and attributes. One that is there already stays as it is, and
        is none of those that could not be restored.
        """
        outcome, restored = Outcome(), list[tuple[int, str]]()
        for each in sorted(chosen, key=lambda each: (each.kind is not Kind.DIR, each.path, each.number)):
            try:
                if each.kind is Kind.DIR and await self._is_there(each):
                    continue
                await self._returning.arrived(self._known(each.number))
                names = _names(each.path)
                known = partial(self._known, each.number)
                node = await self._returning.bring(each.number, known, names, force=force, durable=False)
            except (RecfsError, OSError) as error:
                outcome.failed(os.fsdecode(each.path), error)
            else:
                if each.kind is not Kind.DIR:
                    outcome.did(each.size_bytes)
                restored.append((each.number, node.path))
        await self._tree.behind.durable()
        return outcome, restored

    async def _is_there(self, wanted: Trashed) -> bool:
        """Whether a directory is there, or came back with what is in it."""
        node: Node | None = self._tree.root
        for name in _names(wanted.path):
            node = await self._tree.child(node, name) if isinstance(node, DirNode) else None
        return isinstance(node, DirNode)


def _names(path: bytes) -> list[bytes]:
    """The path that an entry had. Raises InvalidArgument where no more of it is kept than its beginning."""
    if is_cut(path):
        raise InvalidArgument("it lay deeper than a path may tell; `recfs trash restore NUMBER --to PATH` has it back")
    return path.split(b"/")


__all__ = ["PAGE", "Trash", "Trashed"]
