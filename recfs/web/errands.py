"""What the daemon takes long for: it is asked on behalf of a request that has been answered already."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from recfs.client.errors import ClientError
from recfs.web.daemon import Daemon
from recfs.web.events import Feed
from recfs.web.problems import Problem, problem_of

MOST: Final = 4
"""So many at once: each has a thread that waits."""
PATIENCE_S: Final = 6 * 3600.0
"""So long a large file may take to come from S3."""


class Errands:
    """Errands of admins. How one ended is told to those who listen, as event `done` or `failed`."""

    def __init__(self, daemon: Daemon, feed: Feed) -> None:
        self._daemon = daemon
        self._feed = feed
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, method: str, params: dict[str, Any]) -> None:
        """Begin one. Raises Problem("TooManyRequests") while there are `MOST`."""
        if len(self._running) >= MOST:
            raise Problem("TooManyRequests", f"{MOST} such tasks are under way; one has to end first")
        task = asyncio.create_task(self._run(method, params))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def stop(self) -> None:
        """Wait for none of them any more; what was asked for, the daemon goes on with."""
        for task in self._running:
            task.cancel()

    async def _run(self, method: str, params: dict[str, Any]) -> None:
        told: dict[str, Any] = {"asked": method, "params": params}
        try:
            result = await self._daemon.ask(method, patience_s=PATIENCE_S, **params)
        except (ClientError, OSError) as error:
            self._feed.note("failed", told | {"problem": problem_of(error).document()})
        else:
            self._feed.note("done", told | {"result": result})


__all__ = ["Errands"]
