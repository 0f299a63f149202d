"""A JSON document that its owner alone may read, changed by several processes, and read anew as soon as it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

from recfs.client.writing import atomic_write
from recfs.errors import ConfigError, NotAllowed

T = TypeVar("T")
R = TypeVar("R")

MODE: Final = 0o600
MOST_BYTES: Final = 16 << 20
_RACY_NS: Final = 50_000_000
"""A file that changed this shortly before it was read may have changed once more within the kernel's tick."""
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class _Stamp(NamedTuple):
    """What differs between two versions of a file."""

    device: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int


class PrivateFile(Generic[T]):
    """A document in a file 0600, parsed to T. Nothing of it is trusted that others could have written.

    Looking whether it changed is one stat(2), so it can be done for every request: what another process takes away is
    gone with the next one. Threads and processes may change it at the same time: each change is made to what the one
    before has left, and the file is replaced whole.
    """

    def __init__(self, path: Path, parse: Callable[[dict[str, Any]], T]) -> None:
        """*parse* makes a T of what `json` found; {} is a file that is not there. It raises ValueError, KeyError."""
        self.path = path
        self._parse = parse
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._value = parse({})

    def value(self) -> T:
        """What it says now. Raises ConfigError, NotAllowed for a file that must not be trusted, or cannot be read."""
        with self._lock:
            stamp = self._look()
            if stamp is None:
                self._stamp, self._value = None, self._parse({})
            elif stamp != self._stamp:
                try:
                    self._read()
                except OSError as error:
                    raise NotAllowed(f"{self.path} cannot be read: {error.strerror}") from error
            return self._value

    def change(self, edit: Callable[[T], tuple[dict[str, Any], R]]) -> R:
        """Have *edit* give the next document of the present one; what else it gives is returned when that is durable.

        Raises as `value`, whatever *edit* does, and OSError. Takes as long as the disk does.
        """
        with self._alone():
            document, result = edit(self.value())
            try:
                with atomic_write(self.path, mode=MODE) as file:
                    self._give_to_owner(file.fileno())
                    file.write(json.dumps(document, indent=1, sort_keys=True).encode("ascii") + b"\n")
            except PermissionError as error:
                raise NotAllowed(f"{self.path} cannot be written: run this as its owner or root") from error
        return result

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes and threads from changing it: flock(2) of the directory, which no one replaces."""
        try:
            folder = os.open(self.path.parent, _FOLDER)
        except FileNotFoundError as error:
            raise ConfigError(f"{self.path}: there is no directory {self.path.parent}; make it, mode 0700") from error
        except PermissionError as error:
            raise NotAllowed(f"{self.path.parent} is not yours to read: run this as its owner or root") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _give_to_owner(self, fd: int) -> None:
        """A file that root makes for the gateway's user has to be that user's."""
        if os.geteuid() == 0 and not self.path.exists():
            info = os.stat(self.path.parent)
            os.fchown(fd, info.st_uid, info.st_gid)

    def _look(self) -> _Stamp | None:
        try:
            info = os.lstat(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotAllowed(f"{self.path} cannot be looked at: {error.strerror}") from error
        return _stamp(info)

    def _read(self) -> None:
        self._stamp = None  # whatever goes wrong now, what was known before does not hold any more
        try:
            fd = os.open(self.path, _FLAGS)
        except FileNotFoundError:
            self._value = self._parse({})
            return
        except PermissionError as error:
            raise NotAllowed(f"{self.path} cannot be read: it has to belong to the user that reads it") from error
        except OSError as error:
            raise ConfigError(f"{self.path} is no plain file ({error.strerror}): a link is not followed") from error
        try:
            info = os.fstat(fd)
            self._check(info)
            with open(fd, "rb", closefd=False) as file:
                raw = file.read(MOST_BYTES + 1)
        finally:
            os.close(fd)
        if len(raw) > MOST_BYTES:
            raise ConfigError(f"{self.path} has more than {MOST_BYTES >> 20} MiB: that is none of ours")
        try:
            found = json.loads(raw)
            if not isinstance(found, dict):
                raise ValueError("no object")
            self._value = self._parse(found)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{self.path} is damaged: {type(error).__name__}; put back a copy, or remove it"
            ) from error
        if time.time_ns() - info.st_ctime_ns > _RACY_NS:
            self._stamp = _stamp(info)

    def _check(self, info: os.stat_result) -> None:
        """Raise ConfigError where somebody else may read the file, or could have put it there."""
        folder = os.stat(self.path.parent)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"{self.path} is no plain file")
        mode = stat.S_IMODE(info.st_mode)
        if mode & 0o077:
            raise ConfigError(f"{self.path} has mode {mode:04o}: others may read it; `chmod 0600 {self.path}`")
        euid = os.geteuid()
        owners = {0, euid} | ({folder.st_uid} if euid == 0 else set())
        if info.st_uid not in owners:
            raise ConfigError(f"{self.path} belongs to uid {info.st_uid}, and not to uid {euid} that reads it")
        if folder.st_uid not in owners:
            raise ConfigError(f"{self.path.parent} belongs to uid {folder.st_uid}, who could replace {self.path.name}")
        if stat.S_IMODE(folder.st_mode) & 0o022:
            raise ConfigError(f"{self.path.parent} can be written by others; `chmod go-w {self.path.parent}`")


def _stamp(info: os.stat_result) -> _Stamp:
    return _Stamp(
        info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode, info.st_uid
    )  # fmt: skip


__all__ = ["MODE", "PrivateFile"]
