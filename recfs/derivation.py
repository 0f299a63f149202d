"""Builds what makes something of recordings: products that rules name, and chunks of their audio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from recfs.api.work import MediaWork
from recfs.media.checks import Checks, CheckSettings
from recfs.media.runner import Runner
from recfs.services.deriving import PART
from recfs.services.deriving.asking import Asking
from recfs.services.deriving.chunking import Chunking
from recfs.services.deriving.deriving import Deriving
from recfs.services.deriving.looking import Looking
from recfs.services.deriving.making import Making
from recfs.services.deriving.placing import Placing
from recfs.services.deriving.planning import Planning
from recfs.services.deriving.programs import Programs
from recfs.services.deriving.sources import Sources
from recfs.services.deriving.waiting import Waiting
from recfs.stores.rooms import Rooms

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.disk.committed import CommittedFiles
    from recfs.fs.session import Sessions
    from recfs.fs.vfs import Vfs
    from recfs.ports.derived import DerivedBooks
    from recfs.ports.reports import Reports
    from recfs.ports.sweep import Sweep
    from recfs.state.media import MediaRows
    from recfs.stores.local import LocalStore

THREADS = 4
"""For blocking disk work of these services (limiter media_io): none of requests' own."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """The parts."""

    work: MediaWork
    planning: Planning
    programs: Programs
    looking: Looking
    sources: Sources

    def reconfigure(self, config: Config) -> None:
        """Go on with another configuration, from the next product and the next plan on. Atomic."""
        self.work.asking.rules = config.derive
        self.work.chunking.defaults = config.chunks.options()
        self.planning.rules = config.chunks.rules()
        self.work.chunking.threshold_s = config.chunks.threshold
        self.looking.checks.settings = CheckSettings.of(config.media)
        self.programs.timeout_s = config.deriving.timeout
        self.programs.max_output = config.deriving.max_output
        self.sources.max_fetch = config.deriving.max_fetch

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """What is looked at now and then."""
        return [self.work.asking.sweep()]

    def services(self, *, mounted: bool) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What has to run, by the name of its part; nothing for a command alone."""
        runs = (self.work.deriving.run, self.work.chunking.run, self.planning.run)
        return [(PART, run) for run in runs] if mounted else []


def build(
    config: Config, vfs: Vfs, store: LocalStore, files: CommittedFiles, sessions: Sessions, books: DerivedBooks,
    reports: Reports, rows: MediaRows,
) -> Derivation:  # fmt: skip
    """Put it together. Its programs have workers of their own: whoever looks into a file does not wait for an hour."""
    threads = trio.CapacityLimiter(THREADS)
    bounds, rooms = config.deriving, Rooms(store.private)
    rooms.clear()
    runner = Runner(bounds.jobs, config.media.user)
    programs = Programs(runner, vfs.files.space.left, bounds.timeout, bounds.max_output)
    sources = Sources(vfs, files, sessions, rooms, threads, max_fetch=bounds.max_fetch)
    looking = Looking(rows, Checks(runner, CheckSettings.of(config.media)))
    placing = Placing(vfs, sessions, threads)
    making = Making(vfs.tree, books, sources, looking, programs, rooms, placing, threads)
    chunking = Chunking(
        vfs, books, sources, looking, programs, rooms, placing, threads, config.chunks.options(),
        threshold_s=config.chunks.threshold, jobs=bounds.jobs,
    )  # fmt: skip
    planning = Planning(vfs.tree, chunking, config.chunks.rules(), looks=config.media.enabled)
    vfs.tree.events.subscribe(planning)
    waiting = Waiting()
    asking = Asking(
        vfs, books, reports, making, placing, programs, waiting, planning, config.derive, every_s=bounds.every
    )  # fmt: skip
    deriving = Deriving(vfs, books, asking, making, programs, waiting, jobs=bounds.jobs)
    vfs.tree.events.subscribe(deriving)
    return Derivation(MediaWork(asking, deriving, chunking), planning, programs, looking, sources)


__all__ = ["Derivation", "build"]
