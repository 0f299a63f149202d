"""A file system with the watcher of the home tree beside it, which no other component test has."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from recfs.disk.home.path_resolver import PathResolver
from recfs.services.watcher import Watcher
from recfs.state.problems import forever

from .build import REC, Filesystem, until

QUIET_S = 2.0
FILE, OTHER = f"{REC}/file", f"{REC}/sub/other"
"""What a watched file system begins with."""


class Watched:
    """A file system with a watcher."""

    def __init__(self, fs: Filesystem, nursery: trio.Nursery) -> None:
        self.fs = fs
        self.home = fs.root
        self._nursery = nursery
        self.watcher: Watcher

    async def begin(self, **settings: Any) -> None:
        """Have it run, and look at everything once."""
        parts = self.fs.parts
        self.watcher = Watcher(
            parts.vfs, PathResolver(parts.store), parts.store, parts.publisher, self.fs.kernel,
            **({"quiet_s": QUIET_S, "scan_interval_s": 600.0} | settings),
        )  # fmt: skip
        self._nursery.start_soon(forever, "watch", self.watcher.run, parts.problems)
        await until(lambda: self.watcher.scans)

    async def seen(self, condition: Callable[[], object]) -> None:
        """Until the events had that effect: they come from another thread, in real time."""
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            await trio.to_thread.run_sync(time.sleep, 0.001)
            await trio.sleep(0.05)

    async def settled(self) -> None:
        """Until all is looked at, whatever became of events, and nothing waits any more."""
        found = [-1, -2]
        while found[-2] != found[-1]:  # what was found may have led to more
            scans = self.watcher.scans
            self.watcher.scan()
            await until(lambda: self.watcher.scans > scans)  # noqa: B023
            with trio.move_on_after(100 * QUIET_S):
                await until(lambda: not self.waiting)
            found.append(self.found())
        await self.fs.drain()

    @property
    def waiting(self) -> int:
        """How many entries are not yet believed."""
        return int(self.watcher.as_json()["waiting"])

    def waits(self) -> dict[str, str]:
        """The same, by path, and what each is found to be."""
        nodes = self.fs.parts.tree.nodes
        return {
            f"{nodes[ino].path if ino in nodes else ino}/{os.fsdecode(name)}": each.finding.value
            for (ino, name), each in self.watcher._candidates._known.items()
        }

    def count(self, what: str) -> int:
        """How many entries became that."""
        return int(self.watcher.as_json()[what])

    def found(self) -> int:
        """How many entries were taken for somebody else's work."""
        return sum(map(self.count, ("adopted", "changed", "described", "moved", "removed", "evicted")))

    def problems(self) -> dict[str, str]:
        """What it tells, by path."""
        return {each["path"]: each["reason"] for each in self.fs.parts.problems.as_json() if each["part"] == "watch"}


@contextlib.asynccontextmanager
async def watching(fs: Filesystem, **settings: Any) -> AsyncIterator[Watched]:
    """Watch a running file system until the block ends; everything was looked at once."""
    async with trio.open_nursery() as nursery:
        made = Watched(fs, nursery)
        await made.begin(**settings)
        yield made
        nursery.cancel_scope.cancel()
