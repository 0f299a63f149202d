"""What is measured: a plain directory, recfs on the same disk, and peers that do the same job.

A new peer is one more subclass of Target and its name in PEERS.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from recfs.control import ControlClient

START_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 600.0


class TargetError(Exception):
    """A target did not start, stop or answer; the message says which command and what it printed."""


def run(command: Sequence[str | Path], *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Run a command. Raises TargetError with what it printed when it fails or takes too long."""
    shown = " ".join(str(part) for part in command)
    # A file, not a pipe: a daemon that inherits the stream must not keep us waiting for its end.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(command, stdout=output, stderr=output, timeout=timeout_s, check=False)
        except FileNotFoundError as error:
            raise TargetError(f"{shown}: not found") from error
        except subprocess.TimeoutExpired as error:
            raise TargetError(f"{shown}: no end after {timeout_s:g} s") from error
        if done.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
            raise TargetError(f"{shown}: exit {done.returncode}: {said}")


def is_dead_mount(path: Path) -> bool:
    """Whether a FUSE mount is there with nobody behind it (ENOTCONN)."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class Target(ABC):
    """A directory tree to measure, and the processes that serve it.

    `home` is this target's own directory on the measured disk; everything it keeps is below it.
    """

    name: ClassVar[str]

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    @abstractmethod
    def tree(self) -> Path:
        """The directory that workloads work in."""

    @abstractmethod
    def start(self) -> None:
        """Make the tree usable; no-op when it is. Raises TargetError."""

    @abstractmethod
    def stop(self) -> None:
        """Unmount and end the processes; no-op when nothing runs. Raises TargetError."""

    def pids(self) -> tuple[int, ...]:
        """The serving processes, for CPU time and memory; empty when the kernel alone serves."""
        return ()

    def settle(self) -> None:  # noqa: B027 - most targets do nothing in the background
        """Return when nothing is left to do in the background."""

    def go_cold(self) -> None:
        """Forget all cached metadata and data that a fresh mount would not have."""
        self.stop()
        self.start()

    def drop_pages(self, path: Path) -> None:
        """Drop the page cache of the *mount* for `path`, so that reads reach the target."""
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


class NativeTarget(Target):
    """A plain directory: what the disk and the kernel do without anybody's help."""

    name = "native"

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    def start(self) -> None:
        self.tree.mkdir(parents=True, exist_ok=True)

    def stop(self) -> None:
        pass

    def drop_pages(self, path: Path) -> None:
        # The page cache is this target's store: dropping it would compare a disk with memory.
        pass


class BindfsTarget(Target):
    """bindfs: the plain FUSE mirror in C, a fair picture of what any FUSE file system pays."""

    name = "bindfs"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tree(self) -> Path:
        return self.home / "mnt"

    def start(self) -> None:
        if self._process is not None:
            return
        source = self.home / "source"
        source.mkdir(parents=True, exist_ok=True)
        self.tree.mkdir(exist_ok=True)
        # A session of its own: Ctrl-C must not end it before it is unmounted.
        command: list[str | Path] = ["bindfs", "-f", *self._options(), source, self.tree]
        self._process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.tree.is_mount():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TargetError(f"bindfs did not mount {self.tree}")
            time.sleep(0.01)

    @staticmethod
    def _options() -> tuple[str, ...]:
        # libfuse 2 writes 4 KiB at a time unless asked; libfuse 3 needs no asking and refuses the option.
        version = subprocess.run(["bindfs", "--fuse-version"], capture_output=True, text=True, check=True)
        return ("-o", "big_writes") if "linked version 2." in version.stdout else ()

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            run(["fusermount3", "-u", self.tree])
        except TargetError:
            subprocess.run(["fusermount3", "-uz", self.tree], check=False, capture_output=True)
            process.terminate()
            raise
        finally:
            process.wait(START_TIMEOUT_S)

    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process is not None else ()


class RecfsTarget(Target):
    """recfs as a user starts it: `recfs mount --root DIR -d MOUNTPOINT`, no config file."""

    name = "recfs"
    command: ClassVar[Path] = Path("recfs")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.root = home / "store"
        self._pid: int | None = None

    @property
    def tree(self) -> Path:
        return self.home / "mnt"

    def start(self) -> None:
        if self._pid is not None and not is_dead_mount(self.tree):
            return
        self.root.mkdir(parents=True, exist_ok=True)
        if not is_dead_mount(self.tree):
            self.tree.mkdir(exist_ok=True)
        run([self.command, "mount", "--root", self.root, "-d", self.tree])
        self._pid = int(self.call("status")["pid"])

    def stop(self) -> None:
        if self._pid is None:
            return
        pid, self._pid = self._pid, None
        try:
            run([self.command, "umount", self.tree], timeout_s=DRAIN_TIMEOUT_S)
        except TargetError:
            subprocess.run(["fusermount3", "-uz", self.tree], check=False, capture_output=True)
            if _runs(pid, "recfs"):
                os.kill(pid, signal.SIGTERM)
            raise
        deadline = time.monotonic() + START_TIMEOUT_S
        while _runs(pid, "recfs"):
            if time.monotonic() > deadline:
                raise TargetError(f"recfs umount returned, yet the daemon {pid} still runs")
            time.sleep(0.005)

    def pids(self) -> tuple[int, ...]:
        return (self._pid,) if self._pid is not None else ()

    def settle(self) -> None:
        pending = self.call("drain", timeout_s=DRAIN_TIMEOUT_S)["pending"]
        if pending:
            raise TargetError(f"recfs drain: {pending} still pending after {DRAIN_TIMEOUT_S:g} s")

    def call(self, method: str, **params: Any) -> Any:
        """Ask the daemon over its control socket; the CLI's own start would dwarf what is measured here."""
        client = ControlClient(self.root / ".recfs" / "control.sock", DRAIN_TIMEOUT_S + 10)
        return client.call(method, **params)


def _runs(pid: int, word: str) -> bool:
    """Whether `pid` is alive and its command line holds `word` (numbers are given out again)."""
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False


PEERS: dict[str, type[Target]] = {BindfsTarget.name: BindfsTarget}
TARGETS: dict[str, type[Target]] = {NativeTarget.name: NativeTarget, RecfsTarget.name: RecfsTarget, **PEERS}


def installed_peers() -> list[str]:
    """Peers whose command is on this machine."""
    return [name for name in PEERS if shutil.which(name)]
