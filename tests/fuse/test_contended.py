"""A program that keeps a file locked in the kernel, for as long as it likes, keeps nobody else from anything.

The kernel holds the lock of a file that it writes by itself while it reads the program's buffer. That buffer is here a
mapping of a file on another mount, whose daemon is stopped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .clients import pattern, sha256, sha256_of, state, wait_until
from .harness import BASE_CONFIG, Mount

pytestmark = [pytest.mark.modeless, pytest.mark.slow, pytest.mark.timeout(90)]

SIZE = 1 << 20

HOLD = """
import mmap, os, sys
buffer, target = sys.argv[1:]
source = os.open(buffer, os.O_RDONLY)
view = mmap.mmap(source, 0, prot=mmap.PROT_READ)
os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
fd = os.open(target, os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b"begun", 0)
print("ready", flush=True)
sys.stdin.readline()
os.pwrite(fd, view, 0)
print("written", flush=True)
"""

ACTS = {
    "open to overwrite": "os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))",
    "cut": "os.truncate(path, 3)",
    "grow": "os.truncate(path, 5_000_000)",
    "allocate": "os.posix_fallocate(os.open(path, os.O_RDWR), 0, 4096)",
    "look for holes": "os.lseek(os.open(path, os.O_RDONLY), 0, os.SEEK_HOLE)",
    "write with limits": "os.pwrite(os.open(path, os.O_WRONLY), b'x', 0)",
}


@pytest.fixture
def stopped(workspace: Path) -> Iterator[Mount]:
    """Another mount, whose daemon the test stops."""
    other = Mount(workspace / "stopped")
    other.start(config=f'passthrough = "off"\n{BASE_CONFIG}')
    try:
        yield other
        assert other.process is not None
        other.process.send_signal(signal.SIGCONT)
        other.umount()
    finally:
        if other.process is not None:
            other.process.send_signal(signal.SIGCONT)
        other.close()


def python(code: str, *arguments: Path) -> subprocess.Popen[str]:
    """A client that may hang."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
def test_a_locked_file_holds_up_nobody_else(store: Mount, stopped: Mount, act: str) -> None:
    rec, mine = store.start(config=BASE_CONFIG).recording(user=1), store.recording(user=2)
    buffer = stopped.recording() / "buffer"
    buffer.write_bytes(pattern(SIZE, seed=1))
    stopped.drain()
    assert stopped.process is not None
    holder = python(HOLD, buffer, rec / "file")
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "ready\n"
    if act == "write with limits":
        os.setxattr(store.path / "users/1", "user.recfs.quota.max_bytes", b"2000000")
    stopped.process.send_signal(signal.SIGSTOP)
    holder.stdin.write("\n")
    holder.stdin.flush()
    wait_until(lambda: "folio" in wchan(holder.pid) or "fuse" in wchan(holder.pid), "the kernel waits for the buffer")
    others = [python(f"import os, sys\npath = sys.argv[1]\n{ACTS[act]}", rec / "file") for _ in range(8)]
    try:
        for number in range(3):
            (mine / f"file{number}").write_bytes(pattern(200_000, seed=number))
            assert sorted(os.listdir(mine)) == [f"file{name}" for name in range(number + 1)]
        wait_until(lambda: state(mine / "file2") == "committed", "another's file is committed")
        with (mine / "file1").open("r+b") as stream:
            stream.truncate(1000)
        assert store.status(), "the daemon answers"
    finally:
        stopped.process.send_signal(signal.SIGCONT)
        ends = [(client.communicate(timeout=30)[0], client.returncode) for client in (holder, *others)]
    assert ends == [("written\n", 0), *[("", 0)] * len(others)]
    store.drain()
    assert sha256_of(mine / "file0") == sha256(pattern(200_000, seed=0))
    assert sha256_of(rec / "file") == os.fsdecode(os.getxattr(rec / "file", "user.recfs.sha256"))


def wchan(pid: int) -> str:
    """Where in the kernel a process waits (proc(5))."""
    return Path(f"/proc/{pid}/stack").read_text()
