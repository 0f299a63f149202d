"""HeadObject by itself: a request in one piece, an answer that is headers alone, over connections of its own.

An import asks for the metadata of every object of a bucket. Most of what that costs through urllib3 is urllib3 and
Python's parser of e-mail, which reads the headers; this way it is a quarter (docs/benchmarks.md). What is not a plain
answer is nobody's here: the caller asks once more the ordinary way, which knows what to make of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import urllib3.util
from urllib3.exceptions import ConnectTimeoutError, ProtocolError, ReadTimeoutError
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from recfs.stores.s3.interim import NoFinalAnswer, is_interim

_ANSWER_BYTES: Final = 1 << 16
"""Longer headers are left to the ordinary way."""
_END: Final = b"\r\n\r\n"


class Place(NamedTuple):
    """Where the requests go, and how many connections are kept for the next."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    connect_s: float
    read_s: float
    kept: int


class Heads:
    """Connections to one server, straight. Thread-safe."""

    def __init__(self, place: Place, socket_options: Sequence[tuple[int, int, int | bytes]]) -> None:
        self._place, self._options = place, list(socket_options)
        self._idle: deque[socket.socket] = deque()

    def ask(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]] | None:
        """Status and headers of the answer, by small names; None where it is to be asked for the ordinary way.

        *path* with the query, percent-encoded. Raises urllib3's TimeoutErrors, for to wait once is enough, and
        ProtocolError.
        """
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        request = f"HEAD {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        if (connection := self._taken()) is None:
            return None
        found, stays = None, False
        try:
            connection.sendall(request)
            found, stays = _parsed(_received(connection))
        except TimeoutError:
            pool: Any = None  # urllib3's own has one
            raise ReadTimeoutError(pool, path, f"no answer within {self._place.read_s:g} s") from None
        except NoFinalAnswer as error:
            raise ProtocolError("no answer", error) from error
        except OSError:
            return None  # closed by the server while it was idle, or worse: the ordinary way tells
        finally:
            if stays and len(self._idle) < self._place.kept:
                self._idle.append(connection)
            else:
                _closed(connection)
        return found

    def close(self) -> None:
        """Drop idle connections; requests under way go on."""
        with contextlib.suppress(IndexError):
            while True:
                _closed(self._idle.pop())

    def _taken(self) -> socket.socket | None:
        """A connection on which nothing is to be read: neither its end, nor what belongs to no request."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connected()
            if not urllib3.util.wait_for_read(connection, 0):
                return connection
            _closed(connection)

    def _connected(self) -> socket.socket | None:
        place = self._place
        try:
            connection = create_connection((place.host, place.port), place.connect_s, socket_options=self._options)
        except TimeoutError:
            raise ConnectTimeoutError(None, f"no connection within {place.connect_s:g} s") from None
        except OSError:
            return None
        try:
            if place.tls is not None:
                connection = place.tls.wrap_socket(connection, server_hostname=place.host)
            connection.settimeout(place.read_s)
        except OSError:  # of TLS, too
            _closed(connection)
            return None
        return connection


def _received(connection: socket.socket) -> bytes:
    """All up to the empty line, or less where the answer is none."""
    answer = b""
    while _END not in answer and len(answer) < _ANSWER_BYTES and (more := connection.recv(_ANSWER_BYTES)):
        answer += more
    return answer


def _parsed(answer: bytes) -> tuple[tuple[int, dict[str, str]] | None, bool]:
    """Status and headers, of a final answer of HTTP/1.1 and nothing else; and whether the connection may stay.

    Raises NoFinalAnswer for a change of protocol.
    """
    head, end, rest = answer.partition(_END)
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, told = first.partition(" ")
    status = told[:3]
    is_plain = end and version == "HTTP/1.1" and status.isdecimal() and told[3:4] in ("", " ")
    if not is_plain or is_interim((version, int(status), "")):
        return None, False
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            return None, False  # also a line that goes on with the one before
        headers[name.lower()] = value.strip(" \t")
    return (int(status), headers), not rest and "close" not in headers.get("connection", "").lower()


def trusting(certificates: str | None) -> ssl.SSLContext:
    """How servers are proved: by the *certificates* in a file or directory; None proves nothing. Raises OSError."""
    context = create_urllib3_context(cert_reqs=ssl.CERT_NONE if certificates is None else ssl.CERT_REQUIRED)
    if certificates is not None:
        context.check_hostname = True
        is_folder = os.path.isdir(certificates)
        context.load_verify_locations(None if is_folder else certificates, certificates if is_folder else None)
    return context


def _closed(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.close()


__all__ = ["Heads", "Place", "trusting"]
