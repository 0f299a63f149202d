"""Large files go from a thread into the connection, past the event loop. On a real server."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.web.copying import Step
from recfs.web.deadlines import DeadlineProtocol
from recfs.web.recordings import body
from tests.component.web.running import SIZE, SOURCE, Running
from tests.component.web.test_slow_clients import ended, until

if TYPE_CHECKING:
    import asyncio

PLACE = "users/5/recordings/142/source.mp4"


def content_of(gateway: Running) -> bytes:
    """What is to come."""
    return (gateway.site.root / PLACE).read_bytes()


def asked(gateway: Running, connection: http.client.HTTPConnection, **headers: str) -> tuple[int, bytes]:
    """One answer on a connection."""
    connection.request("GET", SOURCE, headers={"Authorization": f"Bearer {gateway.site.token}", **headers})
    response = connection.getresponse()
    return response.status, response.read()


def test_whole_files_ranges_and_several_of_them_come_on_one_connection_and_are_counted(tmp_path: Path) -> None:
    with Running(tmp_path)() as gateway:
        told: list[Any] = []
        gateway.site.context.listeners.append(told.append)
        content = content_of(gateway)
        connection = http.client.HTTPConnection(*gateway.address, timeout=60)
        assert asked(gateway, connection) == (200, content)
        assert asked(gateway, connection, Range="bytes=7-20000006") == (206, content[7:20000007])
        status, parts = asked(gateway, connection, Range="bytes=5-3000000,9000000-12000000")
        assert status == 206
        assert content[5:3000001] in parts
        assert content[9000000:12000001] in parts
        connection.close()
        until(lambda: len(told) == 3)
        assert [(each.outcome, each.sent_bytes) for each in told] == [
            ("ok", SIZE), ("ok", 20000000), ("ok", len(parts)),
        ]  # fmt: skip


def test_no_block_of_a_large_file_passes_through_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copiers: set[int] = set()
    step = body._Copy._step

    def noted(self: body._Copy, descriptor: int) -> Step:
        copiers.add(threading.get_ident())
        return step(self, descriptor)

    monkeypatch.setattr(body._Copy, "_step", noted)
    written: list[int] = []
    made = DeadlineProtocol.connection_made
    loops: set[int] = set()

    def counted(self: DeadlineProtocol, transport: asyncio.Transport) -> None:
        made(self, transport)
        loops.add(threading.get_ident())
        write: Callable[[bytes], None] = transport.write
        monkeypatch.setattr(transport, "write", lambda data: (written.append(len(data)), write(data)), raising=False)

    monkeypatch.setattr(DeadlineProtocol, "connection_made", counted)
    with Running(tmp_path)() as gateway:
        assert gateway.get() == (200, SIZE)
    assert max(written) <= body.FIRST_BYTES
    assert sum(written) < 2 * body.FIRST_BYTES
    assert copiers.isdisjoint(loops)


def test_what_is_sent_does_not_wait_for_what_was_sent_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_NODELAY: else a body waits until its header has been acknowledged, which clients do 40 ms later."""
    found: list[int] = []
    made = DeadlineProtocol.connection_made

    def noted(self: DeadlineProtocol, transport: asyncio.Transport) -> None:
        made(self, transport)
        found.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(DeadlineProtocol, "connection_made", noted)
    with Running(tmp_path)() as gateway:
        assert gateway.get("/healthz")[0] == 200
    assert len(found) == 1
    assert found[0]


@pytest.mark.expect_log("sent in part: whoever gets it may not have it any more")
def test_whoever_reads_slowly_gets_nothing_more_when_the_token_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is copied in one go."""
    monkeypatch.setattr(body, "COPY_BYTES", SIZE)
    waiting = threading.Event()
    waits = DeadlineProtocol.waits_for_reader

    def noted(self: DeadlineProtocol) -> None:
        waits(self)
        waiting.set()

    monkeypatch.setattr(DeadlineProtocol, "waits_for_reader", noted)
    with Running(tmp_path)() as gateway:
        sock = gateway.connect(4096)
        sock.sendall(gateway.head())
        assert waiting.wait(30)
        gateway.site.context.gate.tokens.revoke(gateway.site.token.split("_")[1])
        assert len(ended(sock)) < SIZE
        sock.close()


def _changed(gateway: Running) -> None:
    os.utime(gateway.site.root / PLACE, ns=(1, 1))


def _shorter(gateway: Running) -> None:
    os.truncate(gateway.site.root / PLACE, SIZE // 2)


def _unreadable(_gateway: Running) -> None:
    raise OSError(errno.ECONNABORTED, "a fault of the mount's, and not of the connection")


@pytest.mark.expect_log("sent in part")
@pytest.mark.parametrize("trouble", [_changed, _shorter, _unreadable])
def test_what_changes_or_cannot_be_read_while_it_is_copied_does_not_come_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[Running], None]
) -> None:
    with Running(tmp_path)() as gateway:
        content = content_of(gateway)
        read, reads = body._Copy.read, [0]

        def reading(self: body._Copy) -> None:
            reads[0] += 1
            if reads[0] == 40:
                trouble(gateway)
            read(self)

        monkeypatch.setattr(body._Copy, "read", reading)
        told: list[Any] = []
        gateway.site.context.listeners.append(told.append)
        connection = gateway.connect()
        connection.sendall(gateway.head())
        came = ended(connection).partition(b"\r\n\r\n")[2]
        connection.close()
        assert 0 < len(came) < SIZE
        assert content.startswith(came)
        until(lambda: len(told) == 1)
        assert told[0].outcome == "broken"
        assert told[0].sent_bytes == len(came)


def test_a_reader_that_leaves_in_the_middle_ends_it_and_the_file_is_closed(tmp_path: Path) -> None:
    with Running(tmp_path)() as gateway:
        told: list[Any] = []
        gateway.site.context.listeners.append(told.append)
        connection = gateway.connect(4096)
        connection.sendall(gateway.head())
        assert connection.recv(100)
        until(lambda: gateway.site.context.limiters.copies.borrowed_tokens == 0)
        connection.close()
        until(lambda: len(told) == 1)
        place = str(gateway.site.root / PLACE)
        until(lambda: place not in map(_target, os.listdir("/proc/self/fd")))
        assert gateway.get() == (200, SIZE)


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
