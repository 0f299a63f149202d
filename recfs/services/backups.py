"""Makes backups of the catalogue, by schedule and when asked to, and lets old ones go."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from recfs import __version__
from recfs.core.generation import ID
from recfs.core.sweeping import Schedule
from recfs.core.units import format_size
from recfs.core.upkeep.backups import (
    LOOK_EVERY_S,
    PLAIN,
    SEALED,
    Contents,
    Header,
    Kept,
    is_due,
    newest,
    rotated,
    stem_of,
)  # fmt: skip
from recfs.disk.leisure import at_leisure
from recfs.ports.sweep import Sweep
from recfs.stores import sealing
from recfs.stores.backups import BackupFolder, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from recfs.ports.backups import CatalogueCopies, Stopped
    from recfs.ports.clock import Clock
    from recfs.state.generations import Generations
    from recfs.state.tree import Tree
    from recfs.tier.backups import BucketBackups
    from recfs.tier.ownership import Ownership

PART = "backup"
PATIENCE_S = 900.0
SPARE_BYTES = 1 << 20
"""Room beside the copy's own: its header, and what encryption adds."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """What the configuration says of backups."""

    every_s: float
    keep: int
    folder: BackupFolder
    private: BackupFolder
    """On the store's own disk: where the catalogue is copied to before it is encrypted."""
    catalogue: Path
    min_free: int
    recipients: tuple[str, ...]


class Backups:
    """One backup at a time."""

    def __init__(
        self, settings: BackupSettings, tree: Tree, copies: CatalogueCopies, generations: Generations,
        bucket: BucketBackups | None = None, ownership: Ownership | None = None,
    ) -> None:  # fmt: skip
        """*bucket*: where each is to go, too; *ownership*: asked before."""
        self.settings = settings
        self._tree = tree
        self._copies = copies
        self._generations = generations
        self._bucket = bucket
        self._ownership = ownership
        self._sent: str | None = None
        """The newest that is known to be in the bucket."""
        self.has_looked = False
        """Whether it is known what there is: since the first look at the folder."""
        self.newest: Kept | None = None
        """The newest good one that was there at the last look that could be made, or was made since; None: none was."""
        self._lock = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)

    @property
    def clock(self) -> Clock:
        """The store's."""
        return self._tree.clock

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """The schedule; none where it is off."""
        every_s = self.settings.every_s
        if not every_s:
            return []
        schedule = Schedule(min(every_s, LOOK_EVERY_S), patience_s=PATIENCE_S)
        made = Sweep("backup", PART, schedule, self._look, self._due, self._act, mounted=True)
        if self._bucket is None:
            return [made]
        return [made, Sweep("backup to bucket", PART, schedule, self._look, self._unsent, self._send, mounted=True)]

    async def _look(self) -> Sequence[Kept]:
        store = (await self._tree.catalogue.meta()).get(ID)
        found = await self._in_thread(lambda stopped: self.settings.folder.kept(store))
        self.newest, self.has_looked = newest(found), True
        return found

    async def look(self) -> None:
        """Find out what there is now. Raises OSError, and what the catalogue raises."""
        await self._look()

    def _due(self, kept: Sequence[Kept]) -> bool | None:
        return is_due(self.settings.every_s, self._tree.clock.steady_ns(), kept) or None

    async def _act(self, due: bool, going_on: trio.Nursery) -> str:
        made = await self.make()
        return f"{made.header.name}, {format_size(made.header.size_bytes)}"

    def _unsent(self, kept: Sequence[Kept]) -> Kept | None:
        last = newest(kept)
        return last if last is not None and last.header.name != self._sent else None

    async def _send(self, kept: Kept, going_on: trio.Nursery) -> str:
        return f"{kept.header.name}: {'sent' if await self.send(kept) else 'it is there'}"

    async def send(self, kept: Kept) -> bool:
        """Have a backup in the bucket, too, and let go of those there that are too many; False: it was there.

        Raises PrefixTaken, what S3 answers, OSError.
        """
        bucket, ownership = self._bucket, self._ownership
        if bucket is None or ownership is None:
            return False
        async with self._lock:
            await ownership.ensure()
            sent = await self._in_thread(lambda stopped: self._sent_now(bucket, kept, stopped))
            self._sent = kept.header.name
            return sent

    def _sent_now(self, bucket: BucketBackups, kept: Kept, stopped: Stopped) -> bool:
        store = kept.header.contents.store
        there = bucket.kept(store)
        is_new = all(each.header.name != kept.header.name or each.damage is not None for each in there)
        if is_new:
            bucket.clear()
            bucket.put(self.settings.folder.path / kept.header.name, kept.header, stopped)
            there = bucket.kept(store)
        for each in rotated(there, self.settings.keep):
            bucket.remove(each.header)
        return is_new

    async def make(self) -> Kept:
        """Make one now; returns when it would survive a power cut, and those that are too many are gone.

        Raises OutOfSpace, IoFailure, StoreError, OSError. Nothing of one that was not made to its end counts as one.
        """
        async with self._lock:
            await self._generations.advance()  # it shows what the mount shows, and says of when it is
            facts = await self._tree.catalogue.meta()
            clock = self._tree.clock
            made_ns, steady_ns, store = clock.now_ns(), clock.steady_ns(), facts.get(ID, "")
            made = await self._in_thread(lambda stopped: self._made(store, made_ns, steady_ns, stopped))
            self.newest, self.has_looked = made, True
            await self._in_thread(lambda stopped: self._rotate(store))
            return made

    async def _in_thread(self, call: Callable[[Stopped], Result]) -> Result:
        """Call it in a thread that is in no hurry, and tell it when nobody waits for it any more."""
        stop = threading.Event()
        try:
            return await trio.to_thread.run_sync(
                at_leisure, lambda: call(stop.is_set), "recfs-backup", limiter=self._limiter, abandon_on_cancel=True
            )
        finally:
            stop.set()

    def _made(self, store: str, made_ns: int, steady_ns: int, stopped: Stopped) -> Kept:
        """In a thread."""
        settings, folder = self.settings, self.settings.folder
        folder.require()
        for each in (folder, settings.private):
            each.clear(store)
        needed = self._copies.room_for(settings.catalogue) + SPARE_BYTES
        folder.admit(needed, settings.min_free)
        sealed = bool(settings.recipients)
        if sealed:
            settings.private.admit(2 * needed, settings.min_free)  # the two may be on one disk
        with folder.making(store) as final:
            if sealed:
                with settings.private.making(store) as copy:
                    held = self._copies.copy(settings.catalogue, copy, stopped)
                    with open(copy, "rb") as source, open(final, "wb") as target:
                        plain, lies = sealing.seal(source, target, settings.recipients, stopped)
                        sync(target)
            else:
                held = self._copies.copy(settings.catalogue, final, stopped)
                with open(final, "rb+") as target:
                    plain = lies = sealing.digest_of(target, stopped)
                    sync(target)
            header = Header(
                self._name(held, made_ns), made_ns, steady_ns, held, lies.size_bytes, lies.sha256, plain.size_bytes,
                plain.sha256, settings.recipients, __version__,
            )  # fmt: skip
            folder.put(final, header)
        return Kept(header, str(folder.path))

    def _name(self, held: Contents, made_ns: int) -> str:
        serial = 0
        while self.settings.folder.has(stem_of(held.store, made_ns, serial)):
            serial += 1
        return stem_of(held.store, made_ns, serial) + (SEALED if self.settings.recipients else PLAIN)

    def _rotate(self, store: str) -> None:
        folder = self.settings.folder
        for each in rotated(folder.kept(store), self.settings.keep):
            folder.remove(each.header)

    @property
    def sent(self) -> str | None:
        """The newest that is known to be in the bucket; None: none is, as far as was looked."""
        return self._sent


__all__ = ["BackupSettings", "Backups"]
