"""The audit log in systemd's journal, which is a socket here: its protocol, and that nobody waits for it."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from recfs.observing.audit.files import AuditSettings
from recfs.observing.audit.journald import JournalSocket, entry
from recfs.observing.audit.reading import AuditReader, Sought
from recfs.observing.audit.trail import AuditTrail
from tests.fakes import FakeClock


@pytest.fixture
def address(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def journal(address: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.settimeout(30.0)
        yield receiver


def parsed(datagram: bytes) -> dict[str, bytes]:
    """As the journal reads it."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest.startswith(b"\n")
            rest = rest[1:]
        found[name.decode("ascii")] = value
        datagram = rest
    return found


async def recorded(tmp_path: Path, address: Path, count: int, path: bytes = b"users/5/a") -> AuditTrail:
    """An audit log that has written so many acts."""
    settings = AuditSettings(tmp_path / "audit", 1 << 30, 1e9, 1e9, 1 << 40)
    audit = AuditTrail(settings, FakeClock(), reads=False, journal=JournalSocket(address))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for _ in range(count):
            audit.record("unlink", path, 1000, 100, os.getpid(), errno.EACCES)
        while audit.written < count:  # noqa: ASYNC110
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    return audit


def test_an_entry_is_what_the_protocol_says() -> None:
    assert entry({"A": b"x=y", "B": b"1\n2"}) == b"A=x=y\nB\n\x03\0\0\0\0\0\0\x001\n2\n"


async def test_acts_reach_the_journal_with_their_fields(tmp_path: Path, address: Path, journal: socket.socket) -> None:
    forged = b"users/5/a\nRECFS_UID=0\n\xff"
    audit = await recorded(tmp_path, address, 1, forged)
    found = parsed(journal.recv(65536))
    line = json.loads(found.pop("MESSAGE"))
    assert (line["op"], line["uid"], line["path_hex"]) == ("unlink", 1000, forged.hex())
    assert found == {
        "PRIORITY": b"6",
        "SYSLOG_IDENTIFIER": b"recfs-audit",
        "RECFS_OP": b"unlink",
        "RECFS_PATH": forged,
        "RECFS_UID": b"1000",
        "RECFS_PID": str(os.getpid()).encode("ascii"),
        "RECFS_RESULT": b"EACCES",
    }
    assert audit.as_json()["journal"] == {"sent": 1, "dropped": 0, "problem": None}


async def test_a_journal_that_takes_nothing_holds_up_nobody(
    tmp_path: Path, address: Path, journal: socket.socket
) -> None:
    count = 3000
    audit = await recorded(tmp_path, address, count)
    told = audit.as_json()["journal"]
    assert told["sent"] + told["dropped"] == count
    assert 0 < told["sent"] < count, "nobody reads, so the socket is full"
    assert told["problem"].startswith(f"{address}: ")
    assert len(list(AuditReader(tmp_path / "audit").acts(Sought()))) == count, "the files have all of them"


async def test_a_journal_that_comes_back_is_found(tmp_path: Path, address: Path) -> None:
    target = JournalSocket(address)
    settings = AuditSettings(tmp_path / "audit", 1 << 30, 1e9, 1e9, 1 << 40)
    audit = AuditTrail(settings, FakeClock(), reads=False, journal=target)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for turn in range(1, 4):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
                if turn != 2:
                    receiver.bind(str(address))
                    receiver.settimeout(30.0)
                audit.record("unlink", b"users/5/a", 1000, 100, os.getpid(), 0)
                while audit.written < turn:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                if turn != 2:
                    assert parsed(receiver.recv(65536))["RECFS_RESULT"] == b"ok"
            address.unlink(missing_ok=True)
        nursery.cancel_scope.cancel()
    assert (target.sent, target.dropped) == (2, 1)
