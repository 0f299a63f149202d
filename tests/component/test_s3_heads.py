"""HeadObject over connections of its own: what is taken for an answer, and what is asked for the ordinary way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from recfs.config import S3Section
from recfs.ports.object_errors import ObjectStoreError
from recfs.stores.s3.store import S3Store

HEADERS = b'ETag: "' + b"0" * 32 + b'"\r\nContent-Length: 10240\r\nX-Amz-Meta-Mode:  0640 \r\n'
PLAIN = b"HTTP/1.1 200 OK\r\n" + HEADERS + b"\r\n"
CUT = b""


class Scripted:
    """A server that sends one piece after another to each request; a piece that is empty hangs up."""

    def __init__(self) -> None:
        self.answers: list[list[bytes]] = []
        self.connections: list[int] = []
        """By request, the number of its connection."""
        self._made = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._made += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection, self._made), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            while True:
                while (line := stream.readline()) != b"\r\n":
                    if not line:
                        return
                self.connections.append(number)
                for piece in self.answers.pop(0) if self.answers else [PLAIN]:
                    if piece == CUT:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    connection.sendall(piece)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def server() -> Iterator[Scripted]:
    found = Scripted()
    yield found
    found.close()


@pytest.fixture
def store(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found = S3Store(S3Section(bucket="media", endpoint=server.url, read_timeout=1))
    yield found
    found.close()


def size_of(store: S3Store) -> int | None:
    found = store.head("a b/ä")
    return None if found is None else found.size_bytes


def test_one_connection_serves_one_request_after_another(store: S3Store, server: Scripted) -> None:
    found = [store.head("a") for _ in range(3)]
    assert [(each.size_bytes, each.metadata) for each in found if each is not None] == [(10240, {"mode": "0640"})] * 3
    assert server.connections == [1, 1, 1]


@pytest.mark.parametrize(
    ("pieces", "connections"),
    [
        ([PLAIN[:5], PLAIN[5:40], PLAIN[40:-1], PLAIN[-1:]], [1, 1]),
        ([PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")], [1, 2]),
        ([PLAIN + b"junk"], [1, 2]),
        ([PLAIN, CUT], [1, 2]),
    ],
    ids=["in pieces", "the last of its connection", "with a body that HEAD has not", "hung up behind it"],
)
def test_what_comes_behind_an_answer_is_no_other_requests(
    store: S3Store, server: Scripted, pieces: list[bytes], connections: list[int]
) -> None:
    server.answers.append(pieces)
    assert (size_of(store), size_of(store)) == (10240, 10240)
    assert server.connections == connections


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n" + HEADERS + b"\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + HEADERS + b"X-Folded: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + HEADERS + b"no header\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        PLAIN[:-4],
    ],
    ids=["HTTP/1.0", "interim", "folded", "no header", "no HTTP", "cut off"],
)
def test_what_is_no_plain_answer_is_asked_for_the_ordinary_way(store: S3Store, server: Scripted, answer: bytes) -> None:
    server.answers += [[answer, CUT], [PLAIN]]
    assert (size_of(store), server.connections) == (10240, [1, 2])


def test_a_server_that_says_nothing_is_waited_for_once(store: S3Store, server: Scripted) -> None:
    server.answers.append([])
    with pytest.raises(ObjectStoreError) as caught:
        size_of(store)
    assert (caught.value.outage, server.connections) == (True, [1])


def test_a_missing_object_is_asked_for_once(store: S3Store, server: Scripted) -> None:
    page = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated>'
    page += b"</ListBucketResult>"
    listed = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    server.answers += [[b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"], [listed]]
    assert size_of(store) is None
    assert len(server.connections) == 2
