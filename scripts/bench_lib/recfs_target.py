"""recfs as a user starts it, with kernel passthrough as it comes and without."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

from recfs.api.client import ControlClient
from recfs.config import Config

from .target import DRAIN_TIMEOUT_S, START_TIMEOUT_S, Target, TargetError, run, uninterrupted


def is_dead_mount(path: Path) -> bool:
    """Whether a FUSE mount is there with nobody behind it (ENOTCONN)."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


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

    def _settings(self) -> tuple[str | Path, ...]:
        """The options of `recfs mount` that say which store, and how."""
        return ("--root", self.root)

    def start(self) -> None:
        if self._pid is not None and not is_dead_mount(self.tree):
            return
        self.root.mkdir(parents=True, exist_ok=True)
        if not is_dead_mount(self.tree):
            self.tree.mkdir(exist_ok=True)
        with uninterrupted():
            run([self.command, "mount", *self._settings(), "-d", self.tree])
            self._pid = int(self.call("status")["pid"])

    def stop(self) -> None:
        if self._pid is None:
            return
        self._note_end()
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

    def stored(self, path: Path) -> Path | None:
        return self.root / path.relative_to(self.tree)

    def settle(self) -> None:
        pending = self.call("drain", timeout_s=DRAIN_TIMEOUT_S)["pending"]
        if pending:
            raise TargetError(f"recfs drain: {pending} still pending after {DRAIN_TIMEOUT_S:g} s")

    def call(self, method: str, **params: Any) -> Any:
        """Ask the daemon over its control socket; the CLI's own start would dwarf what is measured here."""
        client = ControlClient(self.root / ".recfs" / "control.sock", DRAIN_TIMEOUT_S + 10)
        return client.call(method, **params)


class RecfsOffTarget(RecfsTarget):
    """recfs with `passthrough = "off"`: every byte goes through the daemon."""

    name = "recfs-off"

    @classmethod
    def missing(cls) -> str | None:
        return None if "passthrough" in Config.model_fields else "this recfs has no setting `passthrough`"

    def _settings(self) -> tuple[str | Path, ...]:
        settings = self.home / "recfs.conf"
        settings.write_text(f'root = "{self.root}"\npassthrough = "off"\n')
        return ("--config", settings)


def is_recfs(target: Target) -> bool:
    """Whether `target` is recfs as it comes: for rows that only recfs has."""
    return target.name == RecfsTarget.name


def _runs(pid: int, word: str) -> bool:
    """Whether `pid` is alive and its command line holds `word` (numbers are given out again)."""
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
