"""An upload that requests of this process have in hand at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from recfs.web.uploads.body import Body
from recfs.web.uploads.errors import UploadBusy
from recfs.web.uploads.plan import UploadId
from recfs.web.uploads.staged import Committed, Held

TAIL = -1
"""The place of bytes that go on at the end; chunks have their numbers."""


class Live:
    """What requests share about one upload: who sends, what is open, whether it is being committed."""

    def __init__(self, id: UploadId) -> None:
        self.id = id
        self.users = 0
        self.held: Held | None = None
        self.opening = asyncio.Lock()
        self.noting = asyncio.Lock()
        self.ending = asyncio.Lock()
        self.one_shot = False
        """Whether it comes in one request, which nobody else has a part in."""
        self.commit: asyncio.Task[Committed] | None = None
        self.idle: asyncio.TimerHandle | None = None
        self._sending: dict[int, tuple[Body, asyncio.Event]] = {}

    @property
    def committing(self) -> bool:
        """Whether it is being committed."""
        return self.commit is not None and not self.commit.done()

    @property
    def sending(self) -> bool:
        """Whether anybody sends."""
        return bool(self._sending)

    def check(self) -> None:
        """Raise UploadBusy while it is being committed or removed."""
        if self.committing:
            raise UploadBusy("this upload is being committed")
        if self.ending.locked():  # its descriptor is about to be closed
            raise UploadBusy("this upload is being removed")

    @asynccontextmanager
    async def sender(self, place: int, body: Body) -> AsyncIterator[None]:
        """Be the one who sends to a place. Who did before is stopped: its client has gone, or asks again.

        Of a connection that broke the server may hear late; whoever came last is the one who is there. What goes on
        at the end may come to the bytes of any chunk, so these two do not send at once either.
        Raises UploadBusy.
        """
        self.check()
        while before := [each for at, each in self._sending.items() if place in (at, TAIL) or at == TAIL]:
            await _stop(before)
            self.check()
        ended = asyncio.Event()
        self._sending[place] = (body, ended)
        try:
            yield
        finally:
            del self._sending[place]
            ended.set()

    async def stop(self, place: int | None = None) -> None:
        """Stop who sends, to a place or anywhere, and wait until what came of it is noted."""
        while found := [each for at, each in self._sending.items() if place is None or at == place]:
            await _stop(found)


async def _stop(senders: list[tuple[Body, asyncio.Event]]) -> None:
    """Stop some, and wait for the first of them."""
    for body, _ in senders:
        body.stop()
    await senders[0][1].wait()


__all__ = ["TAIL", "Live"]
