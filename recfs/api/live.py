"""What `recfs top` is told: what goes on, as counters since somebody began to look, and the pipeline as it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from recfs.api.paths import text
from recfs.fs.handles import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.api.control import Handler
    from recfs.disk.commit.committer import Committer
    from recfs.disk.home.publisher import HomePublisher
    from recfs.fs.vfs import Vfs
    from recfs.fuse.observers.live import Doing, LiveCounts

Key = TypeVar("Key")

BUSIEST = 50
"""So many files and users are told, those that do most."""


class LiveAnswers:
    """top."""

    def __init__(
        self, vfs: Vfs, committer: Committer, publisher: HomePublisher, counts: LiveCounts,
        problems: Callable[[], list[str]],
    ) -> None:  # fmt: skip
        self._vfs = vfs
        self._committer = committer
        self._publisher = publisher
        self._counts = counts
        self._problems = problems

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"top": self.top}

    async def top(self, params: dict[str, Any]) -> dict[str, Any]:
        """What goes on."""
        counts = self._counts
        self._vfs.files.modes.measure()
        counts.look()
        handles = self._vfs.files.handles.values()
        return {
            "at_s": time.monotonic(),
            "requests": {
                op: {"count": int(count), "failed": int(failed), "seconds": seconds}
                for op, (count, failed, seconds) in counts.requests.items()
            },
            "users": [{"user": user} | doing.as_json() for user, doing in _busiest(counts.users)],
            "files": [{"ino": ino, "path": self._path(ino)} | doing.as_json() for ino, doing in _busiest(counts.files)],
            "open": {
                "handles": len(handles),
                "writers": sum(each.writes for each in handles),
                "kernel": sum(each.mode is Mode.PASS for each in handles),
            },
            "pipeline": {
                "sealing": self._committer.depth,
                "hashing_bytes": self._committer.outlook.hashing_bytes,
                "settling": self._publisher.depth,
                "dirty": self._vfs.behind.depth,
                **self._committer.outlook.as_json(),
            },
            "problems": self._problems(),
        }

    def _path(self, ino: int) -> str | None:
        tree = self._vfs.tree
        node = tree.nodes.get(ino) or tree.orphans.get(ino)
        return "/".join(map(text, node.parts())) if node is not None else None


def _busiest(known: dict[Key, Doing]) -> list[tuple[Key, Doing]]:
    def how_busy(each: tuple[Key, Doing]) -> tuple[int, int]:
        doing = each[1]
        return doing.read_bytes + doing.written_bytes + doing.kernel_bytes, doing.requests

    return sorted(known.items(), key=how_busy, reverse=True)[:BUSIEST]


__all__ = ["BUSIEST", "LiveAnswers"]
