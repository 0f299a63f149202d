"""Whoever is slow loses the connection, and holds up nobody else. On a real server, with short deadlines."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recfs.web.deadlines import FEW_PIECES, MOST_WAITING, PORTION_BYTES, DeadlineProtocol
from recfs.web.limiters import WHOLES_OF_USER
from recfs.web.recordings import body, routes
from recfs.web.recordings.opening import Opened
from recfs.web.who.tokens import Role
from tests.component.web.running import LONG_S, SIZE, SOURCE, Running
from tests.component.web.site import API

if TYPE_CHECKING:
    import pytest

    from recfs.web.context import Context

DEADLINE_S = 0.3


def ended(sock: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while got := sock.recv(1 << 20):
            told += got
    return told


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def test_a_header_that_is_not_finished_ends_its_connection_and_nobody_waits_for_it(tmp_path: Path) -> None:
    with Running(tmp_path, header_timeout_s=DEADLINE_S)() as gateway:
        silent, half, later, newlines = (gateway.connect() for _ in range(4))
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: g")
        later.sendall(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
        assert b"200 OK" in later.recv(4096)
        later.sendall(b"GET /hea")  # of the second request on a connection, too
        newlines.sendall(b"\r\n")
        assert gateway.get() == (200, SIZE)
        for sock in (silent, half, later, newlines):
            assert b" 408 " in ended(sock)
            sock.close()
        assert gateway.get("/healthz")[0] == 200


def test_a_header_without_end_is_refused_before_its_deadline(tmp_path: Path) -> None:
    with Running(tmp_path)() as gateway:
        sock = gateway.connect()
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: g\r\n")
        told = b""
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                sock.sendall(b"X: " + b"a" * 1000 + b"\r\n")
        told = ended(sock)
        assert b" 431 " in told or told == b""  # reset, where more had come than was read
        sock.close()
        assert gateway.get("/healthz")[0] == 200


def test_fields_behind_a_body_are_bounded_as_a_header_is(tmp_path: Path) -> None:
    with Running(tmp_path)() as gateway:
        begun = gateway.head("POST", f"{API}/session", "Transfer-Encoding: chunked") + b"0\r\n"
        for piece in (b"a:\r\n" * 1000, b"a" * 4000):  # many, and one without end
            sock = gateway.connect()
            sock.sendall(begun)
            told = b""
            with contextlib.suppress(ConnectionError):
                for _ in range(200):
                    sock.sendall(piece)
                told = ended(sock)
            assert b" 200 " not in told
            sock.close()
        sock = gateway.connect()
        begun = gateway.head("GET", "/healthz", "Transfer-Encoding: chunked\r\nConnection: close")
        sock.sendall(begun + b"0\r\nX-Checksum: 5\r\n\r\n")
        assert b" 200 " in ended(sock)
        sock.close()


def test_requests_that_wait_for_others_of_their_connection_are_bounded(tmp_path: Path) -> None:
    with Running(tmp_path)() as gateway:
        each, last = gateway.head("GET", "/healthz"), gateway.head("GET", "/healthz", "Connection: close")
        few, many = gateway.connect(), gateway.connect()
        few.sendall(each * MOST_WAITING + last)
        assert ended(few).count(b"HTTP/1.1 200") == MOST_WAITING + 1
        with contextlib.suppress(ConnectionError):
            many.sendall(each * 1000 + last)
        assert ended(many).count(b"HTTP/1.1 200") < 1000
        for sock in (few, many):
            sock.close()
        assert gateway.get("/healthz")[0] == 200


def test_what_is_no_http_is_a_problem_too(tmp_path: Path) -> None:
    with Running(tmp_path)() as gateway:
        for sent in (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /a b HTTP/1.1\r\n\r\n"):
            sock = gateway.connect()
            sock.sendall(sent)
            told = ended(sock)
            assert told.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"application/problem+json" in told
            sock.close()


def test_what_follows_a_large_body_on_the_same_connection_is_no_large_header(tmp_path: Path) -> None:
    with Running(tmp_path)() as gateway:
        sock = gateway.connect()
        body_ = b"x" * 200_000
        first = gateway.head("DELETE", f"{API}/users/5/recordings/9", f"Content-Length: {len(body_)}")
        second = gateway.head("GET", "/healthz", "Connection: close")
        sock.sendall(first + body_ + second[:20])
        told = sock.recv(4096)
        sock.sendall(second[20:])
        told += ended(sock)
        assert (told.count(b"HTTP/1.1 404"), told.count(b"HTTP/1.1 200")) == (1, 1)
        sock.close()


def test_a_body_that_trickles_ends_its_connection(tmp_path: Path) -> None:
    with Running(tmp_path, body_timeout_s=DEADLINE_S, body_rate=1000)() as gateway:
        sock = gateway.connect()
        sock.sendall(gateway.head("DELETE", f"{API}/users/5/recordings/9", "Content-Length: 1000000"))
        sock.sendall(b"a")
        assert b" 404 " in ended(sock)
        sock.close()
        assert gateway.get() == (200, SIZE)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_fault_of_the_gateway(tmp_path: Path) -> None:
    """And so it is no line in the log, which would fail this test."""
    with Running(tmp_path)() as gateway:
        told: list[Any] = []
        gateway.site.context.listeners.append(told.append)
        sock = gateway.connect()
        kind = "Content-Type: application/json"
        sock.sendall(gateway.head("POST", f"{API}/uploads", kind, "Content-Length: 1000") + b"{")
        sock.close()
        until(lambda: len(told) == 1)
        assert told[0].outcome == "broken"


def test_a_reader_that_stops_ends_its_connection_and_another_goes_on(tmp_path: Path) -> None:
    with contextlib.ExitStack() as sockets, Running(tmp_path, send_timeout_s=DEADLINE_S)() as gateway:
        told: list[Any] = []
        gateway.site.context.listeners.append(told.append)
        stopped = [sockets.enter_context(gateway.connect(4096)) for _ in range(gateway.site.settings.reads + 4)]
        for sock in stopped:
            sock.sendall(gateway.head())
            assert sock.recv(10) == b"HTTP/1.1 2"
        assert gateway.get() == (200, SIZE), "they hold no thread"
        until(lambda: len(told) == len(stopped) + 1)
        # Of the one that goes on nothing is said: it has all bytes, and may be gone before the gateway has told of it.
        assert [each.outcome for each in told].count("broken") >= len(stopped)


def test_a_reader_that_is_slow_and_goes_on_comes_to_the_end(tmp_path: Path) -> None:
    with Running(tmp_path, send_timeout_s=DEADLINE_S)() as gateway:
        sock = gateway.connect(4096)
        sock.sendall(gateway.head("GET", SOURCE, "Range: bytes=0-8388607", "Connection: close"))
        began_s, size = time.monotonic(), 0
        while got := sock.recv(1 << 18 if time.monotonic() - began_s > 3 * DEADLINE_S else 1 << 12):
            size += len(got)
            if time.monotonic() - began_s < 3 * DEADLINE_S:
                time.sleep(0.01)  # the reader is slow: that is what is tested
        assert size > 8 << 20
        sock.close()


def test_connections_of_one_address_are_bounded_and_come_free_again(tmp_path: Path) -> None:
    with Running(tmp_path, max_connections_per_address=3)() as gateway:
        held = [gateway.connect() for _ in range(3)]
        for sock in held:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
            assert b"200 OK" in sock.recv(4096)
        one_more = gateway.connect()
        assert b" 429 " in ended(one_more)
        one_more.close()
        held.pop().close()
        doors = gateway.site.served
        assert doors is not None
        until(lambda: gateway.get("/healthz")[0] == 200)
        for sock in held:
            sock.close()


def test_those_of_a_proxy_are_not_bounded_but_all_together_are(tmp_path: Path) -> None:
    import ipaddress

    proxies = (ipaddress.ip_network("127.0.0.0/8"),)
    with Running(tmp_path, max_connections_per_address=1, max_connections=3, proxies=proxies)() as gateway:
        held = [gateway.connect() for _ in range(3)]
        for sock in held:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
            assert b"200 OK" in sock.recv(4096)
        one_more = gateway.connect()
        assert b" 429 " in ended(one_more)
        for sock in (one_more, *held):
            sock.close()


def test_what_has_to_come_from_s3_holds_up_nobody_who_reads_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    come, real = threading.Event(), body._read

    def read(opened: Opened, at: int, size: int, last: bool) -> tuple[bytes, float]:
        if opened.far:
            assert come.wait(LONG_S)
        return real(opened, at, size, last)

    monkeypatch.setattr(body, "_read", read)
    with Running(tmp_path, slow_reads=2, max_connections_per_address=1000)() as gateway:
        site = gateway.site
        site.file("users/5/recordings/9/far.mp4", b"x" * 1000, state="evicted", location="s3")
        far = f"{API}/users/5/recordings/9/far.mp4"
        got: list[tuple[int, int]] = []
        readers = [threading.Thread(target=lambda: got.append(gateway.get(far))) for _ in range(12)]
        for each in readers:
            each.start()
        try:
            until(lambda: site.context.limiters.slow_reads.statistics().tasks_waiting == 10)
            assert gateway.get() == (200, SIZE)
            assert gateway.get("/readyz")[0] == 200
            assert gateway.get(f"{API}/users/5/recordings")[0] == 200
            assert got == []
        finally:
            come.set()
            for each in readers:
                each.join(LONG_S)
        assert got == [(200, 1000)] * 12


def test_a_file_whose_first_read_was_slow_is_read_among_the_slow_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes left the disk after it was opened, or the disk does not answer: nothing said so before."""
    monkeypatch.setattr(body, "_SLOW_S", -1.0)
    with Running(tmp_path)() as gateway:
        used: list[int] = []
        real = body._read

        def read(opened: Opened, at: int, size: int, last: bool) -> tuple[bytes, float]:
            used.append(gateway.site.context.limiters.slow_reads.borrowed_tokens > 0)
            return real(opened, at, size, last)

        copied = body._Copy.read

        def copy(self: body._Copy) -> None:
            used.append(gateway.site.context.limiters.slow_reads.borrowed_tokens > 0)
            copied(self)

        monkeypatch.setattr(body, "_read", read)
        monkeypatch.setattr(body._Copy, "read", copy)
        assert gateway.get() == (200, SIZE)
        assert used[0] is False
        assert len(used) > SIZE >> 20
        assert all(used[1:])


def test_a_client_that_leaves_has_nothing_more_read_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Running(tmp_path)() as gateway:
        told: list[Any] = []
        gateway.site.context.listeners.append(told.append)
        sock = gateway.connect(4096)
        sock.sendall(gateway.head())
        assert sock.recv(10)
        sock.close()
        until(lambda: len(told) == 1)
        assert told[0].outcome == "broken"
        assert told[0].sent_bytes < SIZE


def test_one_who_asks_for_many_lists_holds_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many one user asks for, lists and files of another are there at once."""
    free, held = threading.Event(), threading.Semaphore(0)
    real = routes.recording_page

    def slow(context: Context, user: str, *more: Any, **named: Any) -> Any:
        if user == "5":
            held.release()
            assert free.wait(LONG_S)
        return real(context, user, *more, **named)

    monkeypatch.setattr(routes, "recording_page", slow)
    with Running(tmp_path)() as gateway:
        gateway.site.file("users/6/recordings/142/b.txt", b"b")
        asked = [gateway.connect() for _ in range(40)]
        for sock in asked:
            sock.sendall(gateway.head("GET", f"{API}/users/5/recordings/142", "Connection: close"))
        for _ in range(WHOLES_OF_USER):
            assert held.acquire(timeout=LONG_S)
        gateway.site.token = gateway.site.token_of(Role.USER, "6")
        try:
            assert gateway.get(f"{API}/users/6/recordings/142")[0] == 200
            assert gateway.get(f"{API}/users/6/recordings/142/b.txt") == (200, 1)
        finally:
            free.set()
        for sock in asked:
            assert b" 200 " in ended(sock)
            sock.close()


def test_a_body_behind_its_answer_comes_to_an_end(tmp_path: Path) -> None:
    """Whoever was refused and goes on keeps nobody busy for long; whoever ends has the answer, and goes on."""
    with Running(tmp_path)() as gateway:
        sock = gateway.connect()
        sock.sendall(f"PUT {SOURCE} HTTP/1.1\r\nHost: g\r\nContent-Length: {SIZE}\r\n\r\n".encode() + bytes(SIZE))
        assert b" 401 " in sock.recv(4096)
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
        assert b" 200 " in ended(sock)
        sock.close()
    other = tmp_path / "other"
    other.mkdir()
    with Running(other, linger_s=DEADLINE_S)() as gateway:
        sock = gateway.connect()
        sock.sendall(f"PUT {SOURCE} HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        assert b" 401 " in sock.recv(4096)
        end_s = time.monotonic() + LONG_S
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end_s:
                sock.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        assert time.monotonic() < end_s
        sock.close()


def test_a_body_of_many_small_pieces_is_read_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece costs a call: others have their turn between two portions, whoever sends that, and it is taken."""
    portions: list[int] = []
    real = DeadlineProtocol.data_received

    def counted(self: DeadlineProtocol, data: bytes) -> None:
        portions.append(len(data))
        real(self, data)

    monkeypatch.setattr(DeadlineProtocol, "data_received", counted)
    with Running(tmp_path)() as gateway:
        sock = gateway.connect()
        sock.sendall(gateway.head("PUT", f"{API}/users/5/recordings/142/small.mp4", "Transfer-Encoding: chunked"))
        sock.sendall(b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n")
        assert b" 201 " in sock.recv(4096)
        sock.close()
        assert (gateway.site.root / "users/5/recordings/142/small.mp4").read_bytes() == b"a" * 100_000
        small = next(at for at, size in enumerate(portions) if size > 6 * FEW_PIECES)
        assert max(portions[small + 1 :]) <= PORTION_BYTES


def test_a_body_of_large_and_small_pieces_is_one_file(tmp_path: Path) -> None:
    """Large ones are kept as they are until they are asked for, and small ones behind them are put to them."""
    data = random.Random(5).randbytes(3 << 20)
    with Running(tmp_path)() as gateway:
        for seed in range(4):
            place, pick, at = f"users/5/recordings/142/mixed-{seed}.bin", random.Random(seed), 0
            sock = gateway.connect()
            sock.sendall(gateway.head("PUT", f"{API}/{place}", "Transfer-Encoding: chunked"))
            while at < len(data):
                piece = data[at : at + pick.choice((1, 7, 3000, 65_537, 200_000, 400_000))]
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                at += len(piece)
            sock.sendall(b"0\r\n\r\n")
            assert b" 201 " in sock.recv(4096)
            sock.close()
            assert (gateway.site.root / place).read_bytes() == data
