"""Bytes that go from a file into a connection in a thread: what is large never passes through the event loop.

There a block of a download would hold up everybody: writing a MiB to a socket takes as long as serving small requests
does. Not by sendfile(2): that sends pages of the page cache, and somebody who writes to the file would change bytes
that are under way already, after the look at the end whether anybody did.

An ASGI server that offers it (`CopyingProtocol`) has the extension COPIED in its scopes, and takes messages of that
type with a `Copy`, between the start of an answer and its last body.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from starlette.types import Message
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

COPIED: Final = "recfs.response.copied"


class Step(enum.Enum):
    """How far a copy came."""

    DONE = enum.auto()
    FULL = enum.auto()
    """The connection takes nothing more at the moment."""
    GONE = enum.auto()
    """Nobody takes it any more."""


class Copy(Protocol):
    """Something that is to be copied."""

    size: int
    sent: int
    """Bytes that went already."""

    async def step(self, descriptor: int) -> Step:
        """Write to a non-blocking descriptor as long as it takes something. Raises OSError for the file's faults."""


class CopyingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with the extension COPIED."""

    _wanted: asyncio.Future[None] | None = None
    """Is done when the connection takes something again, or is lost."""

    def on_headers_complete(self) -> None:
        """Offer the extension to whoever answers this request, which nobody does yet."""
        super().on_headers_complete()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            self.scope["extensions"] = {COPIED: {}}
            cycle.send = self._sending(cycle, cycle.send)  # type: ignore[method-assign, assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody has to wait any more."""
        super().connection_lost(exc)
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def waits_for_reader(self) -> None:
        """The reader takes nothing at the moment: a protocol with deadlines begins one."""

    def reader_took(self) -> None:
        """It took some."""

    def _sending(
        self, cycle: RequestResponseCycle, plain: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Message], Awaitable[None]]:
        async def send(message: Message) -> None:
            if message["type"] == COPIED:
                await self._copy(cycle, message["copy"])
                return
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last:
                self.answer_ends(cycle)
            await plain(message)
            if last:
                self.answer_ended()

        return send

    def answer_ends(self, cycle: RequestResponseCycle) -> None:
        """The last of an answer is about to be sent: a protocol with deadlines says what becomes of the connection."""

    def answer_ended(self) -> None:
        """It was sent."""

    async def _copy(self, cycle: RequestResponseCycle, copy: Copy) -> None:
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()  # the write buffer has no room (`set_write_buffer_limits`), so it is empty then
        sock = self.transport.get_extra_info("socket")
        if cycle.disconnected or sock is None or sock.fileno() < 0:
            return
        if copy.size > cycle.expected_content_length or self.transport.get_write_buffer_size():
            raise RuntimeError("bytes of a file out of turn")
        cycle.expected_content_length -= copy.size
        own = os.dup(sock.fileno())  # a number that stays ours, whatever becomes of the connection meanwhile
        try:
            while not cycle.disconnected:
                step = await copy.step(own)
                if step is Step.DONE:
                    return
                if step is Step.GONE:
                    self.transport.abort()
                    return
                await self._room(own)
        finally:
            os.close(own)

    async def _room(self, own: int) -> None:
        """Wait until the connection takes something again, or is lost."""
        if self.transport.is_closing():
            return
        self._wanted = wanted = self.loop.create_future()
        self.waits_for_reader()
        self.loop.add_writer(own, _done, wanted)
        try:
            await wanted
        finally:
            self.loop.remove_writer(own)
            self.reader_took()
            self._wanted = None


def _done(wanted: asyncio.Future[None]) -> None:
    if not wanted.done():
        wanted.set_result(None)


__all__ = ["COPIED", "Copy", "CopyingProtocol", "Step"]
