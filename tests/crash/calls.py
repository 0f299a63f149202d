"""The calls a worker makes, each of which `model` can follow, and what they are answered."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Any

from tests.crash.model import pattern
from tests.helpers.syscalls import renameat2

DEAD = {errno.ENOTCONN, errno.ECONNABORTED}
"""What calls on a mount fail with whose daemon is gone (fuse(4); ECONNABORTED: it went while the call waited)."""


class Calls:
    """System calls on a mount, with paths below it, and the files that are open there."""

    def __init__(self, mount: Path) -> None:
        self._mount = mount
        self.descriptors: dict[int, int] = {}

    def make(self, what: str, **with_: Any) -> Any:
        """Make a call; return what the journal is to have of the answer. Raises OSError."""
        return getattr(self, what)(**with_)

    def close_all(self) -> None:
        """Close everything."""
        for fd in self.descriptors.values():
            os.close(fd)
        self.descriptors.clear()

    def _path(self, path: str) -> Path:
        return self._mount / path

    def open(self, path: str, h: int, flags: int, mode: int = 0o644) -> None:
        self.descriptors[h] = os.open(self._path(path), flags | os.O_CLOEXEC, mode)

    def write(self, h: int, offset: int | None, seed: int, size: int) -> int:
        content = pattern(seed, size)
        if offset is None:
            return os.write(self.descriptors[h], content)
        return os.pwrite(self.descriptors[h], content, offset)

    def mapped(self, h: int, offset: int, seed: int, size: int) -> int:
        with mmap.mmap(self.descriptors[h], offset + size) as view:
            view[offset : offset + size] = pattern(seed, size)
            view.flush()
        return size

    def copy(self, path: str, h: int, size: int) -> int:
        fd = os.open(self._path(path), os.O_RDONLY)
        try:
            return os.copy_file_range(fd, self.descriptors[h], size, 0, 0)
        finally:
            os.close(fd)

    def allocate(self, h: int, offset: int, size: int) -> None:
        os.posix_fallocate(self.descriptors[h], offset, size)

    def ftruncate(self, h: int, size: int) -> None:
        os.ftruncate(self.descriptors[h], size)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._path(path), size)

    def fsync(self, h: int) -> None:
        os.fsync(self.descriptors[h])

    def fsyncdir(self, path: str) -> None:
        fd = os.open(self._path(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, h: int) -> None:
        os.close(self.descriptors.pop(h))

    def state(self, path: str) -> str:
        return os.getxattr(self._path(path), "user.recfs.state").decode()

    def mkdir(self, path: str) -> None:
        self._path(path).mkdir()

    def symlink(self, path: str, target: str) -> None:
        self._path(path).symlink_to(target)

    def unlink(self, path: str) -> None:
        self._path(path).unlink()

    def rmdir(self, path: str) -> None:
        self._path(path).rmdir()

    def rename(self, path: str, to: str, flags: int = 0) -> None:
        if flags:
            renameat2(self._path(path), self._path(to), flags)
        else:
            self._path(path).rename(self._path(to))

    def chmod(self, path: str, mode: int) -> None:
        self._path(path).chmod(mode)

    def utime(self, path: str, ns: int) -> None:
        os.utime(self._path(path), ns=(ns, ns))

    def setxattr(self, path: str, name: str, value: str) -> None:
        os.setxattr(self._path(path), name, value.encode())

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._path(path), name)

    def limit(self, user: str, name: str, value: str) -> None:
        os.setxattr(self._path(f"users/{user}"), f"user.recfs.quota.{name}", value.encode())

    def read(self, path: str) -> bytes:
        return self._path(path).read_bytes()

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(self._path(path)))
