"""Headers that the RFCs have refused, or that the parser takes for something else: no byte is lost in silence."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from recfs.web.framing import MOST_FIELDS
from tests.component.web.running import Running
from tests.component.web.site import API

TARGET = f"{API}/users/5/recordings/142/new.mp4"
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("gateway"))() as made:
        yield made


def answer(gateway: Running, *sent: bytes) -> bytes:
    """All that comes for what is sent, until the connection ends."""
    told = b""
    with contextlib.closing(gateway.connect()) as sock, contextlib.suppress(ConnectionError):
        for piece in sent:
            sock.sendall(piece)
        while got := sock.recv(1 << 16):
            told += got
    return told


def plain(gateway: Running, *lines: str) -> bytes:
    return "\r\n".join([*lines, f"Authorization: Bearer {gateway.site.token}", "", ""]).encode()


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("framing", "body"),
    [("Transfer-Encoding: chunked", CHUNKED), ("Content-Length: 5", b"hello")],
    ids=["chunked", "length"],
)
def test_no_body_is_lost_to_another_protocol(
    gateway: Running, protocol: str, framing: str, body: bytes, at_once: bool
) -> None:
    """Java's HttpClient asks for h2c by itself where nobody speaks TLS."""
    head = gateway.head("PUT", TARGET, "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", framing)
    told = answer(gateway, head + body) if at_once else answer(gateway, head, body)
    assert told.startswith(b"HTTP/1.1 501 ")
    assert told.count(b"HTTP/1.1") == 1
    assert not (gateway.site.root / "users/5/recordings/142/new.mp4").exists()


def test_a_question_that_asks_for_another_protocol_is_answered_in_this_one(gateway: Running) -> None:
    head = gateway.head(
        "GET", "/healthz", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"
    )
    told = answer(gateway, head)
    assert told.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in told.lower(), "nothing more is parsed after that"


def test_many_fields_are_refused_wherever_they_are(gateway: Running) -> None:
    begun = plain(gateway, "GET /healthz HTTP/1.1", "Host: g").removesuffix(b"\r\n")
    assert b" 200 " in answer(gateway, begun + b"a:\r\n" * (MOST_FIELDS - 3) + b"Connection: close\r\n\r\n")
    for sent in ([begun + b"a:\r\n" * 64_000], [begun, b"a:\r\n" * MOST_FIELDS]):
        told = answer(gateway, *sent)
        assert b" 431 " in told or told == b""  # reset, where more had come than was read
    with contextlib.closing(gateway.connect()) as sock:
        sock.sendall(begun + b"a:\r\n" * MOST_FIELDS)
        assert b" 431 " in sock.recv(1 << 16)


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (501, ("PUT {} HTTP/1.1", "Host: g", "Transfer-Encoding: gzip, chunked")),
        (501, ("PUT {} HTTP/1.1", "Host: g", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked")),
        (501, ("PUT {} HTTP/1.1", "Host: g", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")),
        (400, ("PUT {} HTTP/1.0", "Host: g", "Transfer-Encoding: chunked")),
        (400, ("PUT {} HTTP/1.1", "Transfer-Encoding: chunked")),
        (400, ("PUT {} HTTP/1.1", "Host: g", "Host: h", "Transfer-Encoding: chunked")),
        (400, ("PUT {} HTTP/1.0", "Host: g", "Host: g", "Content-Length: 5")),
    ],
)
def test_what_the_rfcs_have_refused_makes_no_file(gateway: Running, status: int, lines: tuple[str, ...]) -> None:
    told = answer(gateway, plain(gateway, lines[0].format(TARGET), *lines[1:]) + CHUNKED)
    assert told.startswith(b"HTTP/1.1 %d " % status) or (status != 400 and told.startswith(b"HTTP/1.1 400 "))
    assert not (gateway.site.root / "users/5/recordings/142/new.mp4").exists()


def test_http_1_0_is_answered_without_a_host(gateway: Running) -> None:
    assert answer(gateway, b"GET /healthz HTTP/1.0\r\n\r\n").split(b"\r\n")[0].endswith(b"200 OK")


def test_one_who_was_refused_holds_no_connection(gateway: Running) -> None:
    sock: socket.socket
    with contextlib.closing(gateway.connect()) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert b" 400 " in sock.recv(1 << 16)
        assert sock.recv(1) == b""
