"""The harness itself: what it says of a mount that is in use."""

from __future__ import annotations

import os
import subprocess

import pytest

from . import harness
from .clients import Peer
from .harness import Mount

pytestmark = pytest.mark.modeless


def test_unmounting_names_who_holds_the_mount(store: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "BUSY_TIMEOUT_S", 0.2)
    rec = store.start().recording()
    with Peer() as holder:
        holder.open(rec / "file", os.O_RDWR | os.O_CREAT)
        with pytest.raises(pytest.fail.Exception, match=rf"used by \d+: python.*, fd/\d+: {rec / 'file'}"):
            store.umount()
        os.chdir(rec)
        try:
            with pytest.raises(pytest.fail.Exception, match=rf"{os.getpid()}: .*, cwd: {rec}"):
                store.umount()
        finally:
            os.chdir(harness.REPOSITORY)


def test_unmounting_waits_for_a_client_that_is_ending(store: Mount) -> None:
    rec = store.start().recording()
    with subprocess.Popen(["sleep", "0.3"], cwd=rec):
        store.umount()
