"""What is measured: the contract of a target, and the one without a daemon.

`recfs_target` and `peers` hold the others.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from .measure import cpu_time, peak_rss_mb, reset_peak_rss

START_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 600.0


class TargetError(Exception):
    """A target did not start, stop or answer; the message says which command and what it printed."""


class LeftOut(Exception):
    """A workload that makes no sense or no end on this target or machine; the message says why."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM until the block ends: half a start or half a stop leaves mounts behind."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda received, frame: caught.append(received)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for received in caught[:1]:
            signal.raise_signal(received)


def run(command: Sequence[str | Path], *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Run a command, out of Ctrl-C's reach. Raises TargetError with what it printed when it fails or takes too long."""
    shown = " ".join(str(part) for part in command)
    # A file, not a pipe: a daemon that inherits the stream must not keep us waiting for its end.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=timeout_s,
                check=False,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise TargetError(f"{shown}: not found") from error
        except subprocess.TimeoutExpired as error:
            raise TargetError(f"{shown}: no end after {timeout_s:g} s") from error
        if done.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
            raise TargetError(f"{shown}: exit {done.returncode}: {said}")


def forget_pages(path: Path) -> None:
    """Drop the cached pages of `path`, dirty ones written first. Does nothing on tmpfs: there they are the file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def read_through(path: Path) -> None:
    """Read all of `path` once."""
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


class Target(ABC):
    """A directory tree to measure, and the processes that serve it.

    `home` is this target's own directory on the measured disk; everything it keeps is below it.
    """

    name: ClassVar[str]

    def __init__(self, home: Path) -> None:
        self.home = home
        self._ended_cpu_s = 0.0
        self._peak_rss_mb = 0.0

    @classmethod
    def missing(cls) -> str | None:
        """Why this target cannot be measured here; None when it can."""
        return None

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

    @property
    def feed(self) -> Path:
        """Where files may be put so that they are in the tree after go_cold: its source, if that is a directory."""
        return self.tree

    def stored(self, path: Path) -> Path | None:
        """The local file that holds the bytes of settled file `path` of the tree; None if there is none."""
        return self.feed / path.relative_to(self.tree)

    def drop_pages(self, path: Path) -> None:
        """Make the next read of settled file `path` a cold one: for the mount's page cache and the disk's."""
        stored = self.stored(path)
        if stored is not None:
            # On tmpfs these pages stay, and their first reader after the writer pays a quarter of its speed for the
            # kernel's marking them active. Where a file is hashed that was not the reader measured; so nowhere.
            read_through(stored)
        forget_pages(path)
        if stored is not None and stored != path:
            forget_pages(stored)

    def _note_end(self) -> None:
        """Keep what the processes used; to be called before they are ended."""
        self._peak_rss_mb = max(self._peak_rss_mb, self._resident_peak_mb())
        self._ended_cpu_s += cpu_time(self.pids()).total_s

    def _resident_peak_mb(self) -> float:
        try:
            peak = peak_rss_mb(self.pids())
            reset_peak_rss(self.pids())
        except OSError:  # it died; the workload says so
            return 0.0
        return peak

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes that ever served this target."""
        return self._ended_cpu_s + cpu_time(self.pids()).total_s

    def take_peak_rss_mb(self) -> float:
        """The largest resident set since the last call, in MB of 10^6 bytes; 0 without a daemon."""
        peak = max(self._peak_rss_mb, self._resident_peak_mb())
        self._peak_rss_mb = 0.0
        return peak


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
