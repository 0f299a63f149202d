"""The parts of a store taken into use, and how they are set to work."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.api.work import Work
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.core.access.owners import Mistaken
from recfs.disk.backing_files import BackingFiles
from recfs.disk.commit.committer import Committer
from recfs.disk.commit.hashing import Hashing
from recfs.disk.commit.unhashed import PART as UNHASHED_PART
from recfs.disk.commit.unhashed import Unhashed
from recfs.disk.home.publisher import HomePublisher
from recfs.disk.trash_index import TrashIndex
from recfs.fs import survivors
from recfs.fs.recovery import Report
from recfs.fs.session import Sessions
from recfs.fs.vfs import Vfs
from recfs.fuse.acceleration import Acceleration
from recfs.observing.assembly import Observing
from recfs.remote import S3Services
from recfs.services.reuse import processing
from recfs.services.sweeps import Sweeps
from recfs.services.timekeeper import Timekeeper
from recfs.state import generations
from recfs.state.events import acting_for, own
from recfs.state.problems import Problems, forever
from recfs.state.tree import Tree
from recfs.state.writebehind import WriteBehind
from recfs.stores.local import LocalStore

if TYPE_CHECKING:
    import trio

    from recfs.contents import Contents
    from recfs.derivation import Derivation
    from recfs.fs.fallback_rules import FallbackRules
    from recfs.ports.reports import Reports
    from recfs.tier.tier import Tier
    from recfs.upkeep import Figures, InEffect, Upkeep


DRAIN_S = 120.0
"""How long a stop waits for the pipeline."""


class NoKernelCache:
    """The KernelCache port where nothing is mounted."""

    def forget_entry(self, parent: int, name: bytes, ino: int) -> None:
        """Nobody to tell."""

    def forget_inode(self, ino: int) -> None:
        """Nobody to tell."""

    async def flush(self) -> None:
        """Nobody to tell."""


class NoKernelFiles:
    """The KernelFiles port where nothing is mounted."""

    acceleration = Acceleration("off")

    def backing_open(self, fd: int) -> int:
        """Never asked for."""
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def backing_close(self, backing_id: int) -> None:
        """Never asked for."""


@dataclass(slots=True)
class Parts:
    """A store taken into use."""

    store: LocalStore
    catalogue: SqliteCatalogue
    behind: WriteBehind
    tree: Tree
    backing_files: BackingFiles
    publisher: HomePublisher
    hashing: Hashing
    committer: Committer
    unhashed: Unhashed
    vfs: Vfs
    work: Work
    upkeep: Upkeep
    derivation: Derivation
    sweeps: Sweeps
    timekeeper: Timekeeper
    s3_services: S3Services | None
    limiter: trio.CapacityLimiter
    reports: Reports
    recovered: Report
    trash_index: TrashIndex
    generations: generations.Generations
    sessions: Sessions
    observing: Observing
    operators: frozenset[int]
    """Users who may change what is shared."""
    mistaken_operator: Mistaken | None
    """Why the one who is configured is not among them."""
    in_effect: InEffect
    contents: Contents
    figures: Figures
    fallback: FallbackRules

    @property
    def tier(self) -> Tier | None:
        """What knows of bytes in S3; None without [s3]."""
        return self.s3_services.tier if self.s3_services is not None else None

    @property
    def problems(self) -> Problems:
        """What is set aside."""
        return self.behind.problems

    async def serve(self, nursery: trio.Nursery, *, s3: bool = True, mounted: bool = False) -> None:
        """Start the services, with what the last run left (*mounted*: with all sweeps).

        *s3* False: without those that ask S3 for something by themselves.
        """
        services: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("catalogue", self.behind.run),
            ("staging", self.backing_files.pool.run),
            ("home tree", self.publisher.run),
            ("home tree", self.publisher.emptying.run),
            ("hashing", self.hashing.run),
            ("commit", self.committer.run),
            (UNHASHED_PART, self.unhashed.run),
            (generations.PART, self.generations.run),
            (survivors.PART, self.vfs.survivors.run),
            (processing.PART, self.work.reuse.processing.run),
            *self.sweeps.services(mounted=mounted),
            *self.observing.services(mounted=mounted),
            *self.upkeep.services(mounted=mounted),
            *self.derivation.services(mounted=mounted),
            *self.contents.services(mounted=mounted),
        ]
        if self.s3_services is not None:
            services += self.s3_services.downloads()
            services += self.s3_services.services() if s3 else []
        for part, run in services:  # none of them is to end; should one, whatever it met, it begins again
            nursery.start_soon(forever, part, run, self.problems)
        with self.problems.aside("sweeping", "trash", "trash"), acting_for(own("sweep trash")):
            self.work.upkeep.sweeper.sweep_trash()
        for ino in self.recovered.resealed:
            self.committer.submit(ino)
        for ino in self.recovered.unpublished:
            self.publisher.add(ino)
        for entry in self.tree.garbage.values():
            if not self.publisher.stays(entry):
                self.publisher.discarded(entry)
