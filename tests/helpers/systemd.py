"""A real systemd as process 1 of namespaces of its own, which knows no units but those that a test gives it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.helpers.userns import LEAVE_FUSE_MOUNTS

MANAGER = Path("/lib/systemd/systemd")
_BOOT = f"""
set -e
mount --make-rshared /
mount -t proc proc /proc
{LEAVE_FUSE_MOUNTS}
mount -t tmpfs tmpfs /run
mkdir /run/lock
umount --lazy --recursive /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$3" /dev/console
exec env container=recfs-tests SYSTEMD_UNIT_PATH="$1" "$2" --system --unit=tests.target --log-target=console \
    --log-level=info --show-status=no
"""
_START_S = 60.0


class Systemd:
    """Runs until `close`. It has none of the FUSE mounts of others; what it mounts is its own."""

    def __init__(self, folder: Path) -> None:
        """*folder*: an empty directory, for units and the log."""
        self.units = folder / "units"
        self.units.mkdir()
        self.log_path = folder / "systemd.log"
        for name in ("tests", "sysinit", "basic", "local-fs", "shutdown", "umount", "remote-fs", "network-online"):
            text = f"[Unit]\nDescription={name}, of which nothing is needed\nDefaultDependencies=no\n"
            (self.units / f"{name}.target").write_text(text)
        # It takes what it wants as process 1 of a machine: none of that is to be this one's.
        with self.log_path.open("ab") as log:
            self._unshare = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "--pid", "--cgroup", "--uts", "--ipc", "--fork",
                 "--kill-child", "sh", "-c", _BOOT, "sh", str(self.units), str(MANAGER),
                 str(self.log_path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._pid = 0
        deadline = time.monotonic() + _START_S
        while not self._pid or self.control("is-system-running").stdout.strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline, self.log()
            assert self._unshare.poll() is None, self.log()
            if not self._pid:
                children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text("ascii")
                self._pid = int(children.split()[0]) if children.split() else 0
            time.sleep(0.05)

    def log(self) -> str:
        """What it and its services said."""
        return self.log_path.read_text("utf-8", "replace")

    def run(self, *command: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command where it runs."""
        return subprocess.run(
            self.entering(*command), capture_output=True, text=True, check=False, timeout=timeout_s
        )  # fmt: skip

    def entering(self, *command: str) -> list[str]:
        """What runs a command where it runs."""
        return ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--cgroup", "--", *command]

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """systemctl(1)."""
        return self.run("systemctl", *arguments)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.control("show", "--value", f"--property={name}", unit).stdout.strip()

    def close(self) -> None:
        """End it, with all of its services."""
        os.kill(self._unshare.pid, 9)  # --kill-child: and its process 1, with which all end
        self._unshare.wait()


__all__ = ["MANAGER", "Systemd"]
