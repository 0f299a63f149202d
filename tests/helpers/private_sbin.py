"""A mount namespace with programs in /sbin that this machine has not, for what mount(8) and systemd run from there."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.userns import LEAVE_FUSE_MOUNTS

_SCRIPT = f"""
set -e
{LEAVE_FUSE_MOUNTS}
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$1/upper,workdir=$1/work" /usr/sbin
echo ready
exec cat
"""


class PrivateSbin:
    """Ends with `close`. It keeps nobody's mount."""

    def __init__(self, directory: Path, programs: Mapping[str, Path]) -> None:
        """*directory*: an empty one; *programs*: what links in /sbin lead to."""
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _SCRIPT, "sh", str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        for name, program in programs.items():
            self.run("ln", "-s", str(program), f"/usr/sbin/{name}", check=True)

    def run(self, *command: str, check: bool = False, timeout_s: float = 90.0) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        entered = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *command]
        return subprocess.run(entered, capture_output=True, text=True, check=check, timeout=timeout_s)

    def close(self) -> None:
        """End it."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(30.0)
        assert self._holder.stdout is not None
        self._holder.stdout.close()
