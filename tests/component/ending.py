"""The end of a daemon of a file system under test; nothing is mounted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recfs import daemon
from recfs.config.settings import Settings
from recfs.reloading import Current

from .build import Filesystem


def ending_of(fs: Filesystem, mountpoint: Path) -> Any:
    """As it is once the mount is there."""
    session: Any = None
    kernel: Any = fs.kernel
    current = Current(Settings(fs.config, {}))
    return daemon._Daemon(current, mountpoint, fs.parts, session, kernel, (), None).ending
