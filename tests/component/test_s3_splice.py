"""Bytes that go from the socket into the file by themselves arrive as they would otherwise, whatever happens."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recfs.config import S3Section
from recfs.errors import IoFailure, OutOfSpace
from recfs.ports.object_errors import TransferCancelled
from recfs.ports.objects import MIB
from recfs.stores.s3.splice import PIPE_BYTES
from recfs.stores.s3.store import S3Store

DATA = os.urandom(3 * MIB + 4321)
KEY = "source.mp4"
REAL = os.splice
Splice = Callable[..., int]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


class Server(ThreadingHTTPServer):
    """One object, and connections that stay open; moto closes them."""

    daemon_threads = True

    def __init__(self) -> None:
        self.connections = 0
        super().__init__(("127.0.0.1", 0), Answers)

    def get_request(self) -> tuple[object, object]:  # type: ignore[override]
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: object) -> None:
        """The other side hangs up in the middle, on purpose."""


class Answers(BaseHTTPRequestHandler):
    """To ranged GETs."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("ETag", '"version"')
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(DATA)}")
        self.end_headers()
        self.wfile.write(DATA[first : last + 1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store = S3Store(S3Section(bucket="media", endpoint=f"http://127.0.0.1:{server.server_port}"))
    yield store
    store.close()


def fetch(store: S3Store, target: int, cancel: Callable[[], bool] | None = None) -> bytes:
    assert store.get_range(KEY, 0, len(DATA), if_match=None, into=target, at=100, cancel=cancel) == len(DATA)
    return os.pread(target, 2 * len(DATA), 100)


class Spliced:
    """os.splice, counted, and broken by choice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = PIPE_BYTES, fault: OSError | None = None) -> None:
        self.into_file = 0
        self._most, self._fault = most, fault
        monkeypatch.setattr(os, "splice", self)

    def __call__(self, source: int, target: int, count: int, *, offset_dst: int | None = None) -> int:
        if offset_dst is None:
            return REAL(source, target, min(count, self._most))
        if self._fault is not None:
            raise self._fault
        moved = REAL(source, target, min(count, self._most), offset_dst=offset_dst)
        self.into_file += moved
        return moved


@pytest.mark.parametrize("most", [1 << 20, 4097])
def test_all_arrive_and_the_connection_serves_again(
    server: Server, store: S3Store, target: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little the kernel moves at a time."""
    spliced = Spliced(monkeypatch, most)
    for _ in range(3):
        os.ftruncate(target, 0)
        assert fetch(store, target) == DATA
    assert server.connections == 1
    assert spliced.into_file > 3 * (len(DATA) - MIB), "it went the ordinary way"


def test_a_file_system_that_takes_nothing_from_a_pipe(
    store: S3Store, target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spliced = Spliced(monkeypatch, fault=OSError(errno.EINVAL, "Invalid argument"))
    assert fetch(store, target) == DATA
    assert spliced.into_file == 0


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EIO, IoFailure)]
)
@pytest.mark.table
def test_a_local_file_that_cannot_be_written(
    store: S3Store, target: int, number: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not taken for trouble with the network; the next fetch is as good as any."""
    Spliced(monkeypatch, fault=OSError(number, os.strerror(number)))
    with pytest.raises(kind, match=os.strerror(number)):
        fetch(store, target)
    monkeypatch.undo()
    assert fetch(store, target) == DATA


def test_a_device_that_is_full(store: S3Store) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OutOfSpace):
        fetch(store, full)
    os.close(full)


def test_cancelled_in_the_middle(store: S3Store, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spliced = Spliced(monkeypatch)
    with pytest.raises(TransferCancelled):
        fetch(store, target, cancel=lambda: spliced.into_file > MIB)
    assert spliced.into_file < len(DATA) - MIB
    assert fetch(store, target) == DATA


def test_no_descriptors_for_a_pipe(store: S3Store, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", none)
    assert fetch(store, target) == DATA


def test_no_pipe_stays_open(store: S3Store, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(store, target)
    before = len(os.listdir("/proc/self/fd"))
    fetch(store, target)
    Spliced(monkeypatch, fault=OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OutOfSpace):
        fetch(store, target)
    assert len(os.listdir("/proc/self/fd")) <= before
