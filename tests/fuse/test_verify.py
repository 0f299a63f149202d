"""Verification on a real mount: what programs see of a file whose bytes went wrong, and while one is verified."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from .clients import pattern, recfs, state
from .harness import BASE_CONFIG, Mount, errno_is

pytestmark = pytest.mark.modes("auto", "off")
CONFIG = f"{BASE_CONFIG}\n[watch]\nenabled = false\n"


def flipped(path: Path) -> None:
    """Change one bit past recfs, and leave all that stat(2) tells as it was."""
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_a_flipped_bit_is_found_told_and_not_served(store: Mount) -> None:
    store.start(config=CONFIG)
    rec = store.recording()
    for name in ("good", "bad"):
        (rec / name).write_bytes(pattern(3_000_000))
    store.drain()
    assert b"2 right" in recfs("verify", rec).stdout
    store.expect_log(r"is corrupt")
    flipped(store.home(rec / "bad"))
    found = recfs("verify", rec, check=False)
    assert (found.returncode, b"bad: corrupt: " in found.stdout, b"1 right, 1 corrupt" in found.stdout) == (
        1,
        True,
        True,
    )
    assert state(rec / "bad") == "corrupt"
    with errno_is(errno.EIO):
        os.open(rec / "bad", os.O_RDONLY)
    assert (rec / "good").read_bytes() == pattern(3_000_000)
    assert [each["part"] for each in store.status()["set_aside"]] == ["verification"]
    store.expect_log(r"right again")
    flipped(store.home(rec / "bad"))
    assert b"2 right" in recfs("verify", rec).stdout
    assert (rec / "bad").read_bytes() == pattern(3_000_000)
    assert store.status()["set_aside"] == []


def test_what_is_written_while_it_is_verified_is_no_mismatch(store: Mount) -> None:
    store.start(config=CONFIG)
    rec = store.recording()
    (rec / "file").write_bytes(pattern(2_000_000))
    store.drain()
    number = store.call("verify_begin", path=store.inner(rec), level="hash", rate=1_000_000)["run"]
    for seed in range(5):
        (rec / "file").write_bytes(pattern(2_000_000, seed))
        with (rec / "file").open("r+b") as file:
            file.write(b"changed in place")
    told = store.call("verify_wait", run=number, timeout_s=30)
    assert (told["ended"], told["corrupt"], told["unreadable"], told["files"]) == (True, 0, 0, 1)
    store.drain()
    assert b"1 right" in recfs("verify", rec).stdout
