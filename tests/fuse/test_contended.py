"""A program that keeps a file locked in the kernel, for as long as it likes, keeps nobody else from anything.

The kernel holds the lock of a file that it writes by itself while it reads the program's buffer. That buffer is here a
mapping of a file on another mount, whose daemon is stopped. So does it, on ext4, while it reads past the page cache.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.consistency import assert_store
from tests.helpers.disks import disk

from .clients import PYTHON, need_root, pattern, sha256, sha256_of, state, wait_until
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

HOLD_READING = """
import mmap, os, sys
buffer, target = sys.argv[1:]
source = os.open(buffer, os.O_RDWR)
view = mmap.mmap(source, 0)
os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
fd = os.open(target, os.O_RDONLY | os.O_DIRECT)
print("ready", flush=True)
sys.stdin.readline()
print("read", os.preadv(fd, [view], 0), flush=True)
"""

ACTS = {
    "open to overwrite": "os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))",
    "cut": "os.truncate(path, 3)",
    "grow": "os.truncate(path, 5_000_000)",
    "allocate": "os.posix_fallocate(os.open(path, os.O_RDWR), 0, 4096)",
    "look for holes": "os.lseek(os.open(path, os.O_RDONLY), 0, os.SEEK_HOLE)",
    "write with limits": "os.pwrite(os.open(path, os.O_WRONLY), b'x', 0)",
}


READ_BESIDE = {
    "open to write": ("os.close(os.open(path, os.O_WRONLY))", True),
    "open to overwrite": ("os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))", False),
    "write": ("os.pwrite(os.open(path, os.O_WRONLY), b'new', 0)", False),
    "touch": ("os.utime(path, (5, 5)); os.close(os.open(path, os.O_WRONLY | os.O_CREAT))", True),
    "chmod": ("os.chmod(path, 0o600)", True),
    "remove": ("os.unlink(path)", True),
    "replace": ("open(path + '.new', 'wb').write(b'new'); os.rename(path + '.new', path)", True),
    "remove and make again": ("os.unlink(path); open(path, 'wb').write(b'new')", True),
    "remove with its directory": ("import shutil; shutil.rmtree(os.path.dirname(path))", True),
    "move": ("os.rename(path, path + '.moved'); open(path, 'wb').write(b'new')", True),
}
"""What its owner does with a file that somebody reads, and whether it is done while that lasts."""


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
        [*PYTHON, code, *map(str, arguments)],
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


@pytest.fixture(params=["auto", "read"])
def on_ext4(store: Mount, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A store whose kernel holds a file that is read past the page cache; with retention it keeps what is removed."""
    need_root()
    with disk("ext4", store.root, 512 << 20) as why_not:
        if why_not is not None:
            pytest.skip(f"no disk of its own: {why_not}")
        store.start(config=f'passthrough = "{request.param}"\n{BASE_CONFIG}\n[trash]\nretention = "1h"\n')
        if not store.status()["passthrough"]["reads"]:
            pytest.skip("the kernel reads no files by itself here")
        yield store
        if store.process is not None:
            store.umount()
        assert_store(store.root / ".recfs/catalogue.db", store.root, trash=len(store.leftovers("trash")))


class Reader:
    """Somebody who reads a file past the page cache, into what never answers while the other daemon is stopped."""

    def __init__(self, stopped: Mount, target: Path) -> None:
        buffer = stopped.recording() / "buffer"
        if not buffer.exists():
            buffer.write_bytes(pattern(SIZE, seed=1))
            stopped.drain()
        assert stopped.process is not None
        self._daemon = stopped.process
        self.process = python(HOLD_READING, buffer, target)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        """Read, and hang."""
        assert self.process.stdin is not None
        self._daemon.send_signal(signal.SIGSTOP)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        wait_until(
            lambda: "folio" in wchan(self.process.pid) or "fuse" in wchan(self.process.pid), "the buffer is waited for"
        )

    def end(self) -> str:
        """Let the other daemon go on, and with it the reader; what that said."""
        self._daemon.send_signal(signal.SIGCONT)
        return self.process.communicate(timeout=30)[0]


def go_on(store: Mount, mine: Path) -> None:
    """Nobody else notices anything: files are made, changed, renamed, removed, committed, and come home."""
    mine.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        (mine / f"file{number}").write_bytes(pattern(200_000, seed=number))
    assert sorted(os.listdir(mine)) == [f"file{number}" for number in range(4)]
    (mine / "file3").rename(mine / "renamed")
    (mine / "file2").unlink()
    with (mine / "file1").open("r+b") as stream:
        stream.truncate(1000)
    os.chmod(mine / "file0", 0o600)
    store.drain()
    assert state(mine / "renamed") == "committed"
    assert sorted(os.listdir(store.home(mine))) == ["file0", "file1", "renamed"]
    assert store.home(mine / "file0").stat().st_mode & 0o777 == 0o600
    assert store.status()["problems"] == []


@pytest.mark.parametrize("act", READ_BESIDE)
def test_a_file_that_is_read_for_ever_holds_up_nobody_else(on_ext4: Mount, stopped: Mount, act: str) -> None:
    store, path = on_ext4, on_ext4.recording(user=1) / "sub/file"
    path.parent.mkdir()
    path.write_bytes(pattern(SIZE, seed=7))
    store.drain()
    reader = Reader(stopped, path)
    reader.begin()
    code, at_once = READ_BESIDE[act]
    owner = python(f"import os, sys\npath = sys.argv[1]\n{code}", path)
    try:
        if at_once:
            assert (owner.wait(30), owner.stdout.read() if owner.stdout else "") == (0, "")
        go_on(store, store.path / "users/2/recordings/2")
        if at_once:
            assert owner.returncode == 0
    finally:
        assert reader.end() == f"read {SIZE}\n"
        owner.communicate(timeout=30)
    assert owner.returncode == 0
    store.assert_consistent()


def test_a_file_that_is_read_for_ever_is_committed_and_comes_home_later(on_ext4: Mount, stopped: Mount) -> None:
    store, path = on_ext4, on_ext4.recording(user=1) / "file"
    content = pattern(SIZE, seed=7)
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        reader = Reader(stopped, path)
        if store.status()["passthrough"]["writes"]:
            reader.begin()
    try:
        wait_until(lambda: state(path) == "committed", "it is committed")
        go_on(store, store.path / "users/2/recordings/2")
        waits = store.status()["passthrough"]["writes"]
        assert store.home(path).exists() == (not waits)
    finally:
        if store.status()["passthrough"]["writes"]:
            assert reader.end() == f"read {SIZE}\n"
        else:
            reader.process.communicate("\n", timeout=30)
    wait_until(lambda: store.home(path).exists(), "it comes home")
    store.assert_consistent()
    assert store.home(path).read_bytes() == content


def wchan(pid: int) -> str:
    """Where in the kernel a process waits (proc(5))."""
    return Path(f"/proc/{pid}/stack").read_text()
