"""Programs that wait for an S3 that sends nothing can be ended, and the names around their file go on."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .clients import PYTHON, pattern, run, state, wait_until
from .harness import Mount
from .s3 import GET, MIB, S3, Gate, s3, settle

__all__ = ["s3"]

pytestmark = [pytest.mark.modeless, pytest.mark.timeout(120), pytest.mark.slow]

CONTENT = pattern(300_000, seed=1)
READ = "os.read(os.open(path, os.O_RDONLY), 100)"
OPEN = "os.open(path, os.O_RDWR)"
TRUNCATE = "os.truncate(path, 5)"


@pytest.fixture
def rec(s3: S3, store: Mount) -> Path:
    """A recording on a mount whose S3 may take its time: read_timeout is no way out."""
    patient = {"read_timeout": 100.0, "deadline": 300.0}
    store.start(config=s3.config(s3=patient, cache={"fetch_whole_below": 65536}))
    return store.recording()


@contextmanager
def waiting(s3: S3, store: Mount, path: Path, what: str) -> Iterator[tuple[subprocess.Popen[bytes], Gate]]:
    """A program that waits for bytes of a file that only S3 has."""
    path.write_bytes(CONTENT)
    settle(store, path)
    with s3.holding(GET) as gate:
        code = f"import os,sys\npath = sys.argv[1]\n{what}"
        client = subprocess.Popen([*PYTHON, code, path], stderr=subprocess.DEVNULL)
        wait_until(lambda: gate.waiting, "S3 is asked")
        try:
            yield client, gate
        finally:
            gate.open()
            client.kill()
            client.wait(30)


@pytest.mark.parametrize("what", [READ, OPEN, TRUNCATE], ids=["read", "open", "truncate"])
def test_a_client_that_waits_for_s3_is_killed_at_once(s3: S3, store: Mount, rec: Path, what: str) -> None:
    path = rec / "file"
    with waiting(s3, store, path, what) as (client, gate):
        client.kill()
        client.wait(5)
        assert sorted(os.listdir(rec)) == ["file"]
        gate.open()
        assert path.read_bytes() == CONTENT


def test_a_second_reader_of_a_file_that_stalls_is_killed_at_once(s3: S3, store: Mount, rec: Path) -> None:
    """An open that has the kernel drop the pages waits for those the first one's read holds, and nothing ends that."""
    path = rec / "file"
    with waiting(s3, store, path, READ) as (first, gate):
        code = f"import os,sys\npath = sys.argv[1]\n{READ}"
        second = subprocess.Popen([*PYTHON, code, path])
        wait_until(lambda: [file["readers"] for file in store.status()["open_files"]] == [2], "both have it open")
        second.kill()
        try:
            second.wait(5)
            assert first.poll() is None
        finally:
            gate.open()
            second.wait(30)
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("what", [READ, OPEN], ids=["read", "open"])
def test_the_file_is_removed_while_others_wait_for_its_bytes(s3: S3, store: Mount, rec: Path, what: str) -> None:
    path = rec / "file"
    with waiting(s3, store, path, what):
        run("rm", path, timeout_s=10)
        assert os.listdir(rec) == []


def test_the_read_ahead_of_one_user_keeps_nobody_from_local_files(s3: S3, store: Mount) -> None:
    """What the kernel asks in the background has one queue for all: also for the RELEASE that lets a file be sealed."""
    # Of what the kernel asked for ahead, the end may not have come a minute later: a slow machine has other work.
    store.expect_log(r"read: \S+/far: nothing of bytes")
    config = s3.config(s3={"read_timeout": 100.0, "deadline": 300.0}, cache={"fetch_whole_below": 65536})
    store.start(config=f'passthrough = "off"\n{config}')
    rec, local = store.recording(), store.path / "temp/1/7"
    local.mkdir(parents=True)
    (local / "read").write_bytes(CONTENT)
    (rec / "far").write_bytes(bytes(100 * MIB))
    settle(store, rec / "far")
    store.remount()  # so that the kernel has no page of it
    ahead = (
        "fd = os.open(path, os.O_RDONLY)\n"
        f"for offset in range(0, {100 * MIB}, {MIB}): os.posix_fadvise(fd, offset, {MIB}, os.POSIX_FADV_WILLNEED)\n"
        "print('asked', flush=True)\nsys.stdin.read()"
    )
    with s3.holding(GET) as gate:
        client = subprocess.Popen(
            [*PYTHON, f"import os,sys\npath = sys.argv[1]\n{ahead}", rec / "far"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"asked\n"
            wait_until(lambda: gate.waiting, "S3 is asked")
            assert run("cat", local / "read", timeout_s=20).stdout == CONTENT
            (local / "closed").write_bytes(CONTENT)
            wait_until(lambda: state(local / "closed") == "committed", "what is closed is sealed")
        finally:
            gate.open()
            client.kill()
            client.communicate(timeout=30)


def test_attributes_and_emptying_ask_s3_nothing(s3: S3, store: Mount, rec: Path) -> None:
    path = rec / "file"
    path.write_bytes(CONTENT)
    settle(store, path)
    with s3.holding(GET) as gate:
        for call in ("chmod(path, 0o600)", "utime(path, (1, 1))", "chown(path, 0, 0)", "truncate(path, 0)"):
            run(*PYTHON, f"import os,sys\npath = sys.argv[1]\nos.{call}", path, timeout_s=20)
        assert gate.waiting == 0


def test_truncating_holds_names_up_for_a_moment_only(s3: S3, store: Mount, rec: Path) -> None:
    """The kernel holds the file meanwhile, and who removes it holds the directory: truncate(2) ends with EAGAIN."""
    store.expect_log("from S3 and was told to try again")
    path = rec / "file"
    told = f"try:\n    {TRUNCATE}\nexcept OSError as error:\n    sys.exit(error.errno)"
    with waiting(s3, store, path, told) as (client, _):
        began = time.monotonic()
        run("rm", path, timeout_s=40)
        assert os.listdir(rec) == []
        assert client.wait(10) == errno.EAGAIN
        assert time.monotonic() - began < 40
