"""The files of the audit log: one that is written, and those it was before. Blocking: a thread's business.

`audit.jsonl` is written; when it is large or old it becomes `audit-<UTC time of its first line>.jsonl`, with a number
where there is one of that name. Those beyond the age or the size that is kept are removed, oldest first. Mode 0600.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from recfs.core.naming import show_name

CURRENT = "audit.jsonl"
FOLDER_MODE, FILE_MODE = 0o700, 0o600
LOOK_S = 10.0
"""How often it is looked whether somebody has moved the file away, or taken what is kept."""
_REMEDY = "is its disk mounted? Otherwise make it, or set another [audit] directory"


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Where the audit log lies, and how much of it is kept."""

    folder: Path
    max_bytes: int
    """Of one file."""
    rotate_s: float
    keep_s: float
    most_bytes: int
    """Of all files."""
    is_own: bool = True
    """Whether it is the store's own, which is made where it is missing; of another the disk may not be mounted."""


class AuditFiles:
    """Writes lines. One thread at a time: others wait for `lock`."""

    def __init__(self, settings: AuditSettings) -> None:
        self.settings = settings
        self._fd = -1
        self._size = 0
        self._since_s = 0.0
        """Wall clock of the file's first line, in seconds."""
        self._looked_s = float("-inf")
        self.lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self.settings.folder / CURRENT

    def require(self) -> None:
        """Have the directory. Raises OSError, with the remedy."""
        folder = self.settings.folder
        if self.settings.is_own:
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{show_name(str(folder))} is no directory: {_REMEDY}")

    def write(self, lines: bytes, now_s: float, steady_s: float) -> None:
        """Append whole lines, all or none. Raises OSError; then there are no more lines than before.

        *now_s*: wall clock, *steady_s*: monotonic, in seconds.
        """
        self._ready(now_s, steady_s)
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)  # half a line would spoil the next
            self.close()
            raise
        if not self._size:
            self._since_s = now_s
        self._size += len(lines)

    def _ready(self, now_s: float, steady_s: float) -> None:
        """Have the file open, and another one begun where it is time for that."""
        if self._fd >= 0 and steady_s - self._looked_s >= LOOK_S:
            self._looked_s = steady_s
            if not self._is_there():
                self.close()
        if self._fd < 0:
            self._open(now_s)
            self._looked_s = steady_s
        settings = self.settings
        is_old = abs(now_s - self._since_s) >= settings.rotate_s  # the clock may have been put back as well
        if self._size and (self._size >= settings.max_bytes or is_old):
            self._rotate()
            self._prune(now_s)  # first: on a full disk nothing else makes room for another file
            self._open(now_s)

    def _is_there(self) -> bool:
        try:
            found, own = os.stat(self.path, follow_symlinks=False), os.fstat(self._fd)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def _open(self, now_s: float) -> None:
        self.require()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, FILE_MODE)
        info = os.fstat(self._fd)
        self._size = info.st_size
        # The first line is as old as the file at most; a file system that cannot tell when it was made tells its mtime.
        self._since_s = min(now_s, _first_s(self._fd) or info.st_mtime)
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            os.write(self._fd, b"\n")  # the machine died in the middle of a line, which is nobody's by that
            self._size += 1

    def _rotate(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(0.0, self._since_s)))
        before = [number for at, number in map(_order, rotated(self.settings.folder)) if at == stamp]
        number = max(before) + 1 if before else 0
        name = f"audit-{stamp}{f'-{number}' if number else ''}.jsonl"
        os.rename(self.path, self.settings.folder / name)
        self.close()

    def _prune(self, now_s: float) -> None:
        """Remove what is not kept any longer."""
        files = rotated(self.settings.folder)
        sizes: dict[Path, os.stat_result] = {}
        for path in files:
            with contextlib.suppress(OSError):
                sizes[path] = path.stat()
        total = sum(info.st_size for info in sizes.values())
        for path, info in sizes.items():
            if total > self.settings.most_bytes or now_s - info.st_mtime > self.settings.keep_s:
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= info.st_size

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def rotated(folder: Path) -> list[Path]:
    """Those that are not written any more, oldest first. Raises OSError."""
    found = [path for path in folder.iterdir() if path.name.startswith("audit-") and path.name.endswith(".jsonl")]
    return sorted(found, key=_order)


def _order(path: Path) -> tuple[str, int]:
    stamp, _, number = path.name.removeprefix("audit-").removesuffix(".jsonl").partition("-")
    return stamp, int(number) if number.isdigit() else 0


def _first_s(fd: int) -> float | None:
    """The time of the first line of a file, in seconds; None where it says none."""
    begin = os.pread(fd, 200, 0)
    _, found, rest = begin.partition(b'"time_ns":')
    digits = rest.split(b",", 1)[0]
    return int(digits) / 1e9 if found and digits.isdigit() else None


__all__ = ["CURRENT", "AuditFiles", "AuditSettings", "rotated"]
