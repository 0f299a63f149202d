"""What is mounted inside the home tree is told, and neither it nor what it covers is looked at."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from recfs.errors import IoFailure
from recfs.stores.mounted import Mounted, remedy_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.disk.home.path_resolver import PathResolver
    from recfs.state.nodes import DirNode
    from recfs.state.problems import Problems
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.watch")

LOOK_S = 5.0
"""How often it is asked whether anything was mounted: no event tells it."""


class Covered:
    """Of one store."""

    def __init__(
        self, store: LocalStore, places: PathResolver, problems: Problems, part: str, uncovered: Callable[[], None]
    ) -> None:
        """*uncovered* is called when something was unmounted: what it covered is to be looked at."""
        self._places = places
        self._problems = problems
        self._part = part
        self._uncovered = uncovered
        self._mounted = Mounted(store.root)
        self._start = len(os.fsencode(store.root)) + 1
        self._told: frozenset[bytes] = frozenset()
        self._limiter = trio.CapacityLimiter(1)

    @property
    def points(self) -> list[str]:
        """Mount points in the home tree, as mount paths, as far as they are known."""
        return sorted(os.fsdecode(point) for point in self._told)

    async def begin(self) -> None:
        """Look for the first time."""
        await trio.to_thread.run_sync(self._mounted.open, limiter=self._limiter)
        self._tell()

    async def watch(self) -> None:
        """Look now and then, for ever."""
        while True:
            await trio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """See what is mounted now."""
        await trio.to_thread.run_sync(self._mounted.look, limiter=self._limiter)
        self._tell()

    def close(self) -> None:
        """Look no more."""
        self._mounted.close()

    def _tell(self) -> None:
        now, before = self._mounted.points, self._told
        self._told = now
        for point in now - before:
            error, path = IoFailure(remedy_of(self._mounted.root, point)), os.fsdecode(point)
            log.warning("%s: %s", path, error)
            self._problems.note(self._part, ("mounted", point), error, path, quiet=True)
        for point in before - now:
            self._problems.solved(self._part, ("mounted", point))
        if before - now:
            self._uncovered()

    def has(self, folder: DirNode, name: bytes) -> bool:
        """Whether an entry's place is a mount point, or below one. Atomic."""
        return bool(self._told) and self._is_covered(self._places.at((folder, name)))

    def has_folder(self, folder: DirNode) -> bool:
        """Whether a directory's is. Atomic."""
        return bool(self._told) and self._is_covered(self._places.home(folder))

    def _is_covered(self, local_path: bytes) -> bool:
        path = local_path[self._start :]
        return any(path == point or path.startswith(point + b"/") for point in self._told)


__all__ = ["Covered"]
