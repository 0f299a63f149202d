"""The bytes of a file as an answer: read in threads, so that no read of a disk or of S3 holds others up.

The first ones go the way of all answers; what follows threads write into the connection themselves (`copying`), where
the server lets them. A reader that stops holds a descriptor and one block, and no thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from recfs.web.answers import until_gone
from recfs.web.copying import COPIED, Step
from recfs.web.limiters import Limiters, in_thread
from recfs.web.problems import Problem
from recfs.web.recordings.opening import FIRST_BYTES, Opened
from recfs.web.recordings.ranges import Span

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

BLOCK_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 256 << 10
"""What a thread reads and writes at a time: it stays in the CPU's caches."""
COPY_BYTES: Final = 8 << 20
"""What is copied in one go where nothing else is: going to a thread and back costs as much as some 256 KiB. Of several
downloads each has BLOCK_BYTES at a time, or small requests would wait for the CPU."""
_TAKEN_MS: Final = 5
"""So long a thread that nobody else wants waits for a fast reader, who nearly always takes the next bytes sooner."""
_SLOW_S: Final = 0.5
"""A read that took longer than this has those that follow done among the slow ones."""
_NOT_ANY_MORE: Final = "whoever gets it may not have it any more"


class _CutOff(Exception):
    """Somebody wrote to the file while it was sent, or whoever gets it may not have it any more."""


class FileBody(Response):
    """An answer with bytes of an open file, which it closes.

    One span is sent as it is, several as multipart/byteranges (RFC 9110, 14.6). When the file changes before the end,
    the connection is cut off: bytes of two versions would be nobody's, whatever the ETag says. So it is when *still*
    says no: a token that is revoked ends the download that is under way.
    """

    def __init__(
        self, opened: Opened, limiters: Limiters, headers: Mapping[str, str], spans: Sequence[Span] | None,
        still: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        self._opened = opened
        self._still = still
        self._limiters = limiters
        self._begun = False
        told = dict(headers)
        self._pieces: list[bytes | Span]
        if spans is None:
            status, self._pieces = 200, [Span(0, opened.size)]
        elif len(spans) == 1:
            status, self._pieces = 206, [spans[0]]
            told["Content-Range"] = _content_range(spans[0], opened.size)
        else:
            status = 206
            boundary = secrets.token_hex(16)
            self._pieces = list(_multipart(spans, opened.size, told["Content-Type"], boundary))
            told["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
        size = sum(each.size if isinstance(each, Span) else len(each) for each in self._pieces)
        super().__init__(None, status, told)
        self.headers["Content-Length"] = str(size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. What keeps the first bytes from being read is raised; later the answer just ends too early."""
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            whole = True
            if scope["method"] == "HEAD":
                await self._begin(send)
            else:
                whole = await self._send(send, gone, copies=COPIED in scope.get("extensions", {}))
            if whole:  # also when whoever has it all has left by now
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (_CutOff, OSError) as error:
            if not self._begun and isinstance(error, _CutOff):
                raise Problem("TryAgain", "the file has just been written to") from error
            if not self._begun:
                raise
            # The server finds less than was promised, and cuts the connection off.
            logger.warning("%s was sent in part: %s", ascii(self._opened.name[:200]), error)
        finally:
            gone.cancel()
            self._opened.close()

    async def _begin(self, send: Send) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _send(self, send: Send, gone: asyncio.Future[None], *, copies: bool) -> bool:
        """Send the pieces; whether all went before the client left."""
        opened = self._opened
        limiter = self._limiters.slow_reads if opened.far else self._limiters.reads
        copier = self._limiters.slow_reads if opened.far else self._limiters.copies
        buffer = memoryview(bytearray(PIECE_BYTES if copies and self._opened.size > FIRST_BYTES else 0))
        left = sum(each.size for each in self._pieces if isinstance(each, Span))
        for piece in self._pieces:
            if isinstance(piece, bytes):
                if gone.done():
                    return False
                await self._begin(send)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                continue
            at, end = piece
            while at < end:
                if gone.done():
                    return False
                if not self._still():
                    raise _CutOff(_NOT_ANY_MORE)
                size = min(BLOCK_BYTES, end - at)
                last = size == left
                if self._begun and copies and end - at > FIRST_BYTES:
                    size = min(BLOCK_BYTES if copier.borrowed_tokens else COPY_BYTES, end - at)
                    copy = _Copy(opened, at, size, size == left, copier, buffer, self._still)
                    await send({"type": COPIED, "copy": copy})
                    if copy.sent < size:  # the connection ended meanwhile
                        return False
                    if copy.longest_s > _SLOW_S:
                        limiter = copier = self._limiters.slow_reads
                    at += size
                    left -= size
                    continue
                if copies:
                    size = min(FIRST_BYTES, size)
                    last = size == left
                if opened.first is not None:  # all of it, of one moment
                    block, took_s = opened.first[at : at + size], 0.0
                else:
                    block, took_s = await in_thread(limiter, partial(_read, opened, at, size, last))
                if took_s > _SLOW_S:
                    limiter = copier = self._limiters.slow_reads
                at += len(block)
                left -= len(block)
                await self._begin(send)
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await self._begin(send)
        return True


class _Copy:
    """A part of a file that a thread brings into a connection."""

    def __init__(
        self, opened: Opened, at: int, size: int, last: bool, limiter: CapacityLimiter, buffer: memoryview,
        still: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._opened, self._at, self._end, self._last, self._limiter = opened, at, at + size, last, limiter
        self._still = still
        self._buffer = buffer
        self._unsent = self._buffer[:0]
        self.size, self.sent, self.longest_s = size, 0, 0.0

    async def step(self, descriptor: int) -> Step:
        """Write as long as the connection takes something. Raises OSError, _CutOff."""
        if not self._still():  # of a slow reader a copy takes long, and has many of these
            raise _CutOff(_NOT_ANY_MORE)
        return await in_thread(self._limiter, partial(self._step, descriptor))

    def _step(self, descriptor: int) -> Step:
        while self._unsent or self._at < self._end:
            if not self._unsent:
                self.read()
            try:
                size = os.write(descriptor, self._unsent)
            except BlockingIOError:
                if self._limiter.borrowed_tokens > 1 or not _takes(descriptor):
                    return Step.FULL
                continue
            except OSError:  # of the connection, which whoever reads has left
                return Step.GONE
            self._unsent = self._unsent[size:]
            self.sent += size
        return Step.DONE

    def read(self) -> None:
        """Read the next piece. Raises OSError, _CutOff."""
        began_s = time.monotonic()
        piece = self._buffer[: self._end - self._at]
        size = os.preadv(self._opened.file, [piece], self._at)
        self._at += size
        if not size or (self._last and self._at == self._end and not self._opened.same()):
            raise _CutOff("it was written to")
        self._unsent = piece[:size]
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)


def _takes(descriptor: int) -> bool:
    """Wait a moment; whether a connection takes something again. One that is lost does: writing to it tells."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(_TAKEN_MS))


def _read(opened: Opened, at: int, size: int, last: bool) -> tuple[bytes, float]:
    began_s = time.monotonic()
    block = os.pread(opened.file, size, at)
    if not block or (last and not opened.same()):
        raise _CutOff("it was written to")
    return block, time.monotonic() - began_s


def _content_range(span: Span, size: int) -> str:
    return f"bytes {span.start}-{span.end - 1}/{size}"


def _multipart(spans: Sequence[Span], size: int, kind: str, boundary: str) -> Iterator[bytes | Span]:
    for number, span in enumerate(spans):
        head = f"{'' if number == 0 else chr(13) + chr(10)}--{boundary}\r\nContent-Type: {kind}\r\n"
        yield f"{head}Content-Range: {_content_range(span, size)}\r\n\r\n".encode("latin-1")
        yield span
    yield f"\r\n--{boundary}--\r\n".encode("ascii")


__all__ = ["BLOCK_BYTES", "FileBody"]
