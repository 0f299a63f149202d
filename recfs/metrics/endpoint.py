"""The endpoint: HTTP/1.1 for `GET /metrics`, one request a connection. Whoever asks, and however, holds nobody up.

So many connections are served at once, each for so long; what is more is closed. What a scrape finds is told to all who
ask within a second, so that asking faster costs no more.
"""

from __future__ import annotations

import math
import time
from copy import deepcopy
from typing import TYPE_CHECKING

import trio

from recfs.metrics.families import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recfs.metrics.looking import Seen
    from recfs.metrics.requests import Requests

PART = "metrics"
CONNECTIONS = 8
"""So many are served at once."""
DEADLINE_S = 10.0
"""A connection's whole life."""
HEAD_BYTES = 8192
"""A request's line and headers, at most."""
FRESH_S = 1.0
_END = b"\r\n\r\n"


class Endpoint:
    """Serves what `look` sees."""

    def __init__(self, host: str, port: int, look: Callable[[], Awaitable[Seen]], requests: Requests) -> None:
        self._host, self._port = host, port
        self._look, self._requests = look, requests
        self._started_s = time.time()
        self._served = 0
        self._turn = trio.Lock()
        self._text, self._made_s = b"", -math.inf
        self._limiter = trio.CapacityLimiter(1)
        self.port: int | None = None
        """Where it listens, once it does."""

    async def run(self) -> None:
        """Listen, for ever. Raises OSError where that address cannot be had: somebody else has it, say."""
        try:
            listeners = await trio.open_tcp_listeners(self._port, host=self._host, backlog=CONNECTIONS)
        except OSError as error:
            host = f"[{self._host}]" if ":" in self._host else self._host
            raise OSError(error.errno, f'{error.strerror}: [metrics] listen = "{host}:{self._port}"') from error
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One connection. Raises nothing but Cancelled: an exception here would end the others."""
        if self._served >= CONNECTIONS:
            stream.socket.close()
            return
        self._served += 1
        try:
            with trio.move_on_after(DEADLINE_S):
                await self._answer(stream)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went away
        finally:
            self._served -= 1
            stream.socket.close()

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = bytearray()
        while _END not in head:
            got = await stream.receive_some(HEAD_BYTES)
            if not got:
                return
            head += got
            if len(head) > HEAD_BYTES:
                await stream.send_all(_response("431 Request Header Fields Too Large", b"too long\n"))
                return
        method, _, rest = bytes(head).partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            answer = _response("405 Method Not Allowed", b"GET /metrics\n")
        elif path != b"/metrics":
            answer = _response("404 Not Found", b"GET /metrics\n")
        else:
            answer = await self._metrics()
        await stream.send_all(answer.partition(_END)[0] + _END if method == b"HEAD" else answer)

    async def _metrics(self) -> bytes:
        async with self._turn:
            if trio.current_time() - self._made_s > FRESH_S:
                try:
                    seen = await self._look()
                except Exception as error:
                    return _response("503 Service Unavailable", f"{type(error).__name__}\n".encode())
                results, latencies = dict(self._requests.results), deepcopy(dict(self._requests.latencies))
                made = Metrics(seen, results, latencies, self._started_s)
                self._text = await trio.to_thread.run_sync(made.text, limiter=self._limiter)
                self._made_s = trio.current_time()
            return _response("200 OK", self._text, CONTENT_TYPE)


def _response(status: str, body: bytes, kind: str = "text/plain; charset=utf-8") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode("ascii") + body


__all__ = ["CONNECTIONS", "DEADLINE_S", "PART", "Endpoint"]
