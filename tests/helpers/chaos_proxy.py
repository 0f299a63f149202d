"""A proxy between an S3 client and its server that goes wrong on request: refuses, resets, stalls, cuts, lies.

    with ChaosProxy(server_url) as proxy:
        proxy.add(Status(503, "SlowDown"), times=2)
        ...requests to proxy.url...

Each request is relayed over a connection of its own. `Fault`s say what becomes of requests, in the order in which they
were added, each for some number of matching ones; what matches none is relayed as it is. Nothing waits for the clock: a
stalled answer stalls until the client hangs up or the proxy stops.
"""

from __future__ import annotations

import http.client
import itertools
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.helpers.chaos_faults import Answer, Fault, Request


@dataclass
class _Planned:
    fault: Fault
    matches: Callable[[Request], bool]
    times: int


def operation(method: str, pattern: str = "") -> Callable[[Request], bool]:
    """Matches requests of *method* ("": any) whose target contains the regular expression *pattern*."""
    return lambda request: method in ("", request.method) and re.search(pattern, request.target) is not None


@dataclass
class _Shared:
    planned: list[_Planned] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class ChaosProxy:
    """Listens on a free port of 127.0.0.1 until closed; `url` is where."""

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = (str(parts.hostname), int(parts.port or 80))
        self._shared = _Shared()
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = socket.socketpair()
        self._threads: list[threading.Thread] = []
        self._upstreams: set[http.client.HTTPConnection] = set()
        self._port = 0
        self._listener: socket.socket | None = None
        self._listen()

    @property
    def url(self) -> str:
        """Endpoint for the client."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far that came whole, in order of arrival."""
        with self._shared.lock:
            return list(self._shared.requests)

    def add(self, fault: Fault, *, times: int = 1_000_000, on: Callable[[Request], bool] | None = None) -> None:
        """Let *fault* befall the next *times* requests that *on* matches (None: any)."""
        with self._shared.lock:
            self._shared.planned.append(_Planned(fault, on or operation(""), times))

    def heal(self) -> None:
        """Relay everything as it is."""
        with self._shared.lock:
            self._shared.planned.clear()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Connections are refused meanwhile, and those that stand are gone."""
        self._unlisten()
        yield
        self._listen()

    # --- inside --------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._stopping.clear()
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def _unlisten(self) -> None:
        self._stopping.set()
        self._wake_write.send(b"x")
        assert self._listener is not None
        for thread in list(self._threads):
            while thread.is_alive():
                self._hang_up()
                thread.join(0.1)
        self._threads.clear()
        self._wake_read.recv(1)
        self._listener.close()

    def _hang_up(self) -> None:
        """Nobody waits for the server's answers any more."""
        for upstream in list(self._upstreams):
            if (connected := upstream.sock) is not None:
                with suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[[socket.socket], None], connection: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(connection,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _readable(self, connection: socket.socket) -> bool:
        """Wait until something comes; False when the proxy stops."""
        select.select([connection, self._wake_read], [], [])
        return not self._stopping.is_set()

    def _accept(self, listener: socket.socket) -> None:
        while self._readable(listener):
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while self._readable(connection) and (request := _receive(stream)) is not None:
                    fault = self._due(request)
                    if request.headers.get("expect", "").lower() == "100-continue":
                        connection.sendall((fault.early if fault else b"") + b"HTTP/1.1 100 Continue\r\n\r\n")
                    if fault is not None and not fault.takes_body:
                        self._stopping.wait()
                        return
                    request = _with_body(request, stream)
                    with self._shared.lock:
                        self._shared.requests.append(request)
                    answer = Answer(200, "OK", {}, b"")
                    if fault is None or fault.asks_server:
                        answer = self._relay(request)
                    if fault is not None:
                        answer = fault.change(request, answer)
                    if not self._answer(connection, request, answer):
                        return
            except OSError:
                return

    def _due(self, request: Request) -> Fault | None:
        with self._shared.lock:
            for planned in self._shared.planned:
                if planned.times > 0 and planned.matches(request):
                    planned.times -= 1
                    return planned.fault
        return None

    def _relay(self, request: Request) -> Answer:
        upstream = http.client.HTTPConnection(*self._server)
        self._upstreams.add(upstream)
        try:
            headers = {name: value for name, value in request.headers.items() if name != "expect"}
            upstream.request(request.method, request.target, request.body or None, headers)
            response = upstream.getresponse()
            body = response.read()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
            if "Content-Length" not in kept:
                kept["Content-Length"] = str(len(body))
            return Answer(response.status, response.reason, kept, body)
        except http.client.HTTPException as error:
            raise ConnectionAbortedError(f"the server's answer: {error!r}") from error
        finally:
            self._upstreams.discard(upstream)
            upstream.close()

    def _answer(self, connection: socket.socket, request: Request, answer: Answer) -> bool:
        """Send it; whether the connection may carry another request."""
        head = f"HTTP/1.1 {answer.status} {answer.reason}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items()) + "\r\n"
        body = b"" if request.method == "HEAD" else answer.body
        if answer.endless:
            return self._trickle(connection, answer.interim, endless=True)
        connection.sendall(answer.interim)
        if answer.trickle:
            connection.sendall(head.encode("latin-1"))
            return self._trickle(connection, body)
        if answer.sent is None:
            connection.sendall(head.encode("latin-1") + body)
            return True
        if answer.sent >= 0:
            connection.sendall(head.encode("latin-1") + body[: answer.sent])
        if answer.end == "stall":
            self._readable(connection)  # until the client hangs up
        elif answer.end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _trickle(self, connection: socket.socket, body: bytes, *, endless: bool = False) -> bool:
        pieces = itertools.repeat(body) if endless else (body[at : at + 1] for at in range(len(body)))
        for piece in pieces:
            connection.sendall(piece)
            # The pace of the fault itself, not a wait for something: the client's patience is what is tested.
            if select.select([connection, self._wake_read], [], [], 0.01)[0]:
                return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlisten()
        self._wake_read.close()
        self._wake_write.close()


_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})


def _receive(stream: object) -> Request | None:
    """The next request of a connection, without its body; None at its end."""
    read_line = stream.readline  # type: ignore[attr-defined]
    line = read_line().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers: dict[str, str] = {}
    while (raw := read_line().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = raw.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(line[0], line[1], headers, b"")


def _with_body(request: Request, stream: object) -> Request:
    length = int(request.headers.get("content-length", 0))
    body = stream.read(length) if length else b""  # type: ignore[attr-defined]
    if len(body) < length:
        raise ConnectionResetError("the client is gone, in the middle of its request")  # the server would wait for more
    return replace(request, body=body)
