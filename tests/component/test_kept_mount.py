"""What the service manager keeps of a mount, and what is made of its refusal."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recfs import keeping, notifying
from recfs.fuse.acceleration import Acceleration
from recfs.fuse.mounting import OwnMount
from recfs.fuse.passthrough import Inherited
from recfs.kept_mount import KeptMount

from .build import Filesystem


@pytest.fixture
def kept(fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> KeptMount:
    """Of a mount that a service manager offers to keep."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("FDSTORE", "64")
    told = Inherited(0, b"request", b"answer", Acceleration("auto"), given_up=False)
    session: Any = SimpleNamespace(why_not_left=lambda: None, told=lambda: told)
    return KeptMount(fs.parts, session, OwnMount(tmp_path), None)


async def test_a_mount_that_is_kept_is_known_to_be(kept: KeptMount, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[str] = []
    monkeypatch.setattr(keeping, "store", lambda fd, name: stored.append(name))
    kept.keep()
    assert (kept.is_kept, stored) == (True, [keeping.LEDGER, keeping.DEVICE])


async def test_a_mount_that_nobody_took_is_not_left_to_anybody(
    kept: KeptMount, fs: Filesystem, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    def full(fd: int, name: str) -> None:
        if name == keeping.DEVICE:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    removed: list[str] = []
    monkeypatch.setattr(keeping, "store", full)
    monkeypatch.setattr(keeping, "remove", removed.append)
    expect_log("No buffer space")
    kept.keep()
    assert not kept.is_kept
    assert fs.parts.problems.as_json(), "it is told"
    kept.let_go()
    assert {keeping.LEDGER, keeping.DEVICE} <= set(removed), "nor does half of it stay there"


class Manager:
    """A service manager that takes what it is told when it comes to it."""

    def __init__(self, place: Path) -> None:
        self.heard: list[bytes] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(place))

    def hear(self) -> None:
        """Take one message; copies of descriptors are closed, as sd_notify_barrier(3) wants it."""
        said, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
        self.heard.append(said)
        for fd in fds:
            os.close(fd)

    def close(self) -> None:
        self.socket.close()


async def test_a_daemon_that_leaves_ends_when_its_note_was_taken(kept: KeptMount, tmp_path: Path) -> None:
    """Else the next one starts without it, and takes this one for dead."""
    with contextlib.closing(Manager(tmp_path / "nobody")) as manager:
        late = threading.Thread(target=lambda: [manager.hear() for _ in range(2)])
        late.start()
        kept.leave([7])
        assert manager.heard == [b"FDSTORE=1\nFDNAME=recfs-left", b"BARRIER=1"]
        late.join(10)


async def test_a_manager_that_does_not_hear_holds_up_no_end(
    kept: KeptMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    monkeypatch.setattr(notifying, "HEARD_S", 0.01)
    expect_log("has not said that it has the note")
    with contextlib.closing(Manager(tmp_path / "nobody")):
        kept.leave([])


@pytest.mark.expect_log("keeping: .*No such file")
async def test_where_there_is_no_manager_any_more_that_is_told(kept: KeptMount, fs: Filesystem) -> None:
    kept.leave([])
    assert [each["part"] for each in fs.parts.problems.as_json()] == ["keeping"]
