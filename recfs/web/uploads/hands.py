"""What this process has in hand of uploads: who works on which, and which descriptors are open.

These stay open between requests, so that a file is not sealed after each piece; what nobody asks for is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from recfs.web.uploads import staged
from recfs.web.uploads.errors import NoUpload, UploadError
from recfs.web.uploads.live import Live
from recfs.web.uploads.plan import UploadId
from recfs.web.uploads.staged import Folders, Held

T = TypeVar("T")
MOST_IDLE: Final = 64
"""So many uploads stay open that nobody works on: a process, and a caller of the mount, may open so many files."""


class Hands:
    """Uploads by their ids, each as long as anybody works on it or it is open; for the event loop."""

    def __init__(self, folders: Folders, calls: CapacityLimiter, writes: CapacityLimiter, idle_s: float) -> None:
        self._folders = folders
        self._calls = calls
        self._writes = writes
        self._idle_s = idle_s
        self._live: dict[UploadId, Live] = {}
        self._idle: dict[UploadId, Live] = {}
        """Those that are open and nobody works on, in the order in which they were left."""
        self._background: set[asyncio.Task[None]] = set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    @asynccontextmanager
    async def _using(self, id: UploadId) -> AsyncIterator[Live]:
        live = self._live.get(id)
        if live is None:
            live = self._live[id] = Live(id)
        live.users += 1
        if live.idle is not None:
            live.idle.cancel()
            live.idle = None
            self._idle.pop(id, None)
        idle_s = self._idle_s
        try:
            yield live
        except UploadError:
            raise
        except Exception:
            # Of a mount that is gone nothing stays open, however often its clients ask, or it could never come back.
            idle_s = 0.0
            raise
        finally:
            live.users -= 1
            if live.users == 0:
                if live.held is None:
                    self._live.pop(id, None)
                else:
                    live.idle = asyncio.get_running_loop().call_later(idle_s, self._retire, live)
                    self._idle[id] = live
                    if len(self._idle) > MOST_IDLE:
                        self._retire(self._idle.pop(next(iter(self._idle))))

    @asynccontextmanager
    async def _many(self, id: UploadId) -> AsyncIterator[Live]:
        """`_using`, of an upload that comes in many requests. Raises NoUpload for others."""
        async with self._using(id) as live:
            if live.one_shot:
                raise NoUpload("there is no such upload")
            yield live

    def _retire(self, live: Live) -> None:
        """Close what nobody asked for."""

        async def close() -> None:
            async with self._using(live.id) as again:
                if again.users == 1:
                    await self._drop(again)

        self._spawn(close())

    @asynccontextmanager
    async def _opened(self, live: Live) -> AsyncIterator[Held | None]:
        """Have an upload in hand for a block; None where it is committed. Raises as `staged.hold`.

        After an error of the system it is opened anew by the next one: it may be of a mount that is gone.
        """
        async with live.opening:
            if live.held is None:
                _, live.held = await self._in_thread(self._calls, lambda: staged.hold(self._folders, live.id))
            held = live.held
            if held is not None:
                held.users += 1
        try:
            yield held
        except OSError:
            if live.held is held:
                live.held = None
            raise
        finally:
            if held is not None:
                held.users -= 1
                if held.users == 0 and live.held is not held:
                    await self._in_thread(self._writes, held.close)

    async def _drop(self, live: Live) -> None:
        """Close what is open, or have the last who uses it close it."""
        async with live.opening:
            held, live.held = live.held, None
            if held is not None and held.users == 0:
                await self._in_thread(self._writes, held.close)

    async def close(self) -> None:
        """Stop who sends, wait for what is being committed, and close everything."""
        for task in list(self._background):
            task.cancel()
        for live in list(self._live.values()):
            await live.stop()
            if live.commit is not None:
                await asyncio.wait([live.commit])
            if live.idle is not None:
                live.idle.cancel()
            await self._drop(live)
        self._live.clear()

    @staticmethod
    async def _in_thread(limiter: CapacityLimiter, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(call, limiter=limiter)


__all__ = ["MOST_IDLE", "Hands"]
