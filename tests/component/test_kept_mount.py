"""What the service manager keeps of a mount, and what is made of its refusal."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recfs import keeping
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
