"""Deadlines and bounds of connections, which uvicorn has not: whoever is slow loses the connection, and nothing else.

A header that is not finished, a body that trickles, a reader that stops: each costs one connection for a bounded time
and no thread. RFC 9110, 15.5.9 (408) and RFC 6585 (429, 431) have the answers where there is still somebody to answer.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import struct
import termios
from collections import Counter
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

from recfs.web import framing
from recfs.web.copying import CopyingProtocol
from recfs.web.problems import Problem
from recfs.web.settings import Settings

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

HEADER_BYTES: Final = 64 << 10
"""What a request's header may have behind its first piece, which is what came at once: 256 KiB at most. How
many fields it may have, `framing` says."""

FEW_PIECES: Final = 512
"""A body that comes in more pieces than so many in one read is read in small portions from then on …"""
PORTION_BYTES: Final = 4 << 10
"""… of so many bytes: each piece costs a call, and others have their turn between two portions."""

MOST_WAITING: Final = 8
"""So many requests of a connection may wait for the answers before theirs."""


class Doors:
    """How many connections there are, and of whom."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.open = 0
        self.by_address: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Let a connection in, or not. Who is let in has to `leave`."""
        if self.open >= self.settings.max_connections:
            return False
        if not self._is_proxy(address) and self.by_address[address] >= self.settings.max_connections_per_address:
            return False
        self.open += 1
        self.by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One that was let in has ended."""
        self.open -= 1
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.settings.proxies)


class DeadlineProtocol(CopyingProtocol):
    """uvicorn's HTTP/1.1 with deadlines; `with_deadlines` makes the class for a gateway."""

    doors: ClassVar[Doors]

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        self._settings = self.doors.settings
        self._address: str | None = None
        self._in_body = False
        self._between = True
        """Whether nothing of a next request has come."""
        self._header_bytes = 0
        self._body_bytes = 0
        self._pieces = 0
        """Pieces of a body in what is being parsed."""
        self._took_body = False
        """Whether the piece that is being parsed had something of a body, or began one."""
        self._held_up = False
        """Whether we have not taken the body as it came, since the last look."""
        self._closes = False
        """Whether the connection ends when the body that goes on behind its answer does."""
        self._unsent = 0
        self._refusal: Problem | None = None
        """Why the request that is being parsed is not taken, where that is said of no other."""
        self._header_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let somebody in, or tell that there are too many."""
        super().connection_made(transport)
        # So `pause_writing` comes whenever something is unsent, and its deadline holds for all that is.
        transport.set_write_buffer_limits(high=0)
        address = self.client[0] if self.client else ""
        if not self.doors.enter(address):
            self._turn_away(Problem("TooManyRequests", "there are too many connections, of you or of all"))
            return
        self._address = address
        self._header_timer = self.loop.call_later(self._settings.header_timeout_s, self._no_header)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all."""
        for timer in (self._header_timer, self._body_timer, self._send_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        if self._address is not None:
            self.doors.leave(self._address)
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see whether a header is on its way."""
        if self._address is None or self.transport.is_closing():
            return
        goes_on = not self._in_body and not self._between
        self._took_body = False
        self._pieces = 0
        super().data_received(data)
        if self._pieces > FEW_PIECES:
            self.transport.max_size = PORTION_BYTES  # type: ignore[attr-defined]  # what asyncio's transports read at once
        if self._in_body and not self.transport.is_closing():
            # Fields behind a body (RFC 9112, 7.1.2) are a header, too.
            self._header_bytes = 0 if self._took_body else self._header_bytes + len(data)
            if self._header_bytes > HEADER_BYTES:
                self._turn_away(Problem("HeaderTooLarge"))
            return
        if self._in_body or self._between or self.transport.is_closing():
            return
        # What a header begins with may have come behind a body: from its second piece on it is counted.
        self._header_bytes += len(data) if goes_on else 0
        if self._header_bytes > HEADER_BYTES:
            self._turn_away(Problem("HeaderTooLarge"))
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self._settings.header_timeout_s, self._no_header)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._between = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the header; those behind a body are dropped, for it was answered by the others."""
        if self._in_body:
            return
        if len(self.headers) >= framing.MOST_FIELDS:
            self._refuse(Problem("HeaderTooLarge", f"{framing.MOST_FIELDS} fields are let"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its header is here; the body follows."""
        if len(self.pipeline) >= MOST_WAITING:
            raise ValueError("too many requests at once")  # which ends the parsing, by `send_400_response`
        upgrade = self.parser.should_upgrade()
        refusal = framing.refusal(self.parser.get_http_version(), self.headers, upgrade=upgrade)
        if refusal is not None:
            self._refuse(refusal)
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        self._in_body = self._took_body = True
        self._header_bytes = self._body_bytes = 0
        self._held_up = False
        if self._body_timer is None:
            self._body_timer = self.loop.call_later(self._settings.body_timeout_s, self._look_at_body)
        super().on_headers_complete()
        if upgrade:  # the parser takes nothing more after that
            cycle = self.pipeline[0][0] if self.pipeline else self.cycle
            cycle.keep_alive = False

    def answer_ends(self, cycle: RequestResponseCycle) -> None:
        """Have a connection that is to end with this answer end behind the body instead, which is dropped.

        Closed with bytes that nobody read it would be reset, and the client, a proxy mostly, never see the answer.
        """
        if self._in_body and cycle is self.cycle and not cycle.keep_alive and not self.parser.should_upgrade():
            cycle.keep_alive = self._closes = True

    def answer_ended(self) -> None:
        """Tell a client who reads up to the end of the connection that there is no more."""
        if self._closes and not self.transport.is_closing():
            self.transport.write_eof()

    def _refuse(self, problem: Problem) -> NoReturn:
        """End the parsing, by `send_400_response`."""
        self._refusal = problem
        raise ValueError(str(problem))

    def on_body(self, body: bytes) -> None:
        """Some of the body is here."""
        self._body_bytes += len(body)
        self._pieces += 1
        self._took_body = True
        if self._linger_timer is None and not self.pipeline and self.cycle.response_complete:
            # Behind its answer a body is read and dropped, for a time (RFC 9112, 9.6): many clients read that when they
            # have sent all, and a connection that is closed before takes it from them.
            self._linger_timer = self.loop.call_later(self._settings.linger_s, self.transport.abort)
        self._take(body)
        self._held_up = self._held_up or self.flow.read_paused

    def _take(self, body: bytes) -> None:
        """Keep some of the body until the application asks: a large piece as it is, where uvicorn copies it twice."""
        cycle: Any = self.cycle
        if len(body) > HIGH_WATER_LIMIT and not cycle.body and not cycle.response_complete:
            cycle.body = body
            super().on_body(b"")
            return
        if isinstance(cycle.body, bytes):
            cycle.body = bytearray(cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is here."""
        self._in_body = False
        self._between = True
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        super().on_message_complete()
        if self._closes:
            self.transport.close()

    # Deadlines.

    def _no_header(self) -> None:
        self._header_timer = None
        self._turn_away(Problem("RequestTimeout"))

    def _look_at_body(self) -> None:
        """Whether enough of a body came since the last look; where we did not take it, nobody else is to blame."""
        self._body_timer = None
        held_up = self._held_up or bool(self._answering() and self.cycle.body)
        if not held_up and self._body_bytes < self._settings.body_rate * self._settings.body_timeout_s:
            self.transport.abort()
            return
        self._body_bytes, self._held_up = 0, False
        self._body_timer = self.loop.call_later(self._settings.body_timeout_s, self._look_at_body)

    def pause_writing(self) -> None:
        """Something is unsent."""
        super().pause_writing()
        self.waits_for_reader()

    def resume_writing(self) -> None:
        """All is sent."""
        super().resume_writing()
        self.reader_took()

    def waits_for_reader(self) -> None:
        """Give the reader a time to take something."""
        if self._send_timer is None:
            self._unsent = self._left()
            self._send_timer = self.loop.call_later(self._settings.send_timeout_s, self._look_at_unsent)

    def reader_took(self) -> None:
        """The reader has no deadline until the next wait."""
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _look_at_unsent(self) -> None:
        """Whether the reader took some since the last look."""
        self._send_timer = None
        unsent = self._left()
        if unsent >= self._unsent > 0:
            self.transport.abort()
            return
        self._unsent = unsent
        self._send_timer = self.loop.call_later(self._settings.send_timeout_s, self._look_at_unsent)

    def _left(self) -> int:
        """Bytes that the reader has not taken: ours, and those in the kernel's queue (SIOCOUTQ, tcp(7)), which may hold
        megabytes: a reader of few bytes a second makes no room there for a long time.
        """
        left = self.transport.get_write_buffer_size()
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            with suppress(OSError):
                left += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        return left

    def _answering(self) -> bool:
        """Whether an answer is under way. Before the first request there is no cycle, whatever uvicorn's types say."""
        cycle: object = self.cycle
        return cycle is not None and not self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or not such as is taken."""
        self._turn_away(self._refusal or Problem("BadRequest", msg))

    def _unsupported_upgrade_warning(self) -> None:
        """Whoever asks for another protocol is answered in this one (RFC 9110, 7.8), and nobody else need know."""

    def _turn_away(self, problem: Problem) -> None:
        """End the connection, with an answer where none is under way."""
        if self._answering():
            self.transport.abort()
            return
        response = problem.response()
        head = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode("ascii")]
        head += [name + b": " + value for name, value in (*response.raw_headers, (b"connection", b"close"))]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + bytes(response.body))
        self.transport.close()


def with_deadlines(settings: Settings) -> type[DeadlineProtocol]:
    """Give the protocol for uvicorn's `http`: with the deadlines, and the doors, of one gateway."""
    return type("GatewayProtocol", (DeadlineProtocol,), {"doors": Doors(settings)})


__all__ = ["HEADER_BYTES", "DeadlineProtocol", "Doors", "with_deadlines"]
