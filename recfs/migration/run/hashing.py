"""Checksums: of bytes that are read here, and those that recfs knows of its files without reading any."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from recfs.core.migration.escapes import escaped
from recfs.core.migration.steps import Proof, Seen
from recfs.errors import InvalidPath, IoFailure, TryAgain
from recfs.migration.run.trees import Tree, seen_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Sha256Of = Callable[[Tree, bytes], str | None]
    """The sha256 of the file at a path of the store, in hex; None where recfs has none of it (yet). Raises OSError."""

_BLOCK: Final = 1 << 20
_SEALED_WITHIN_S: Final = 3600.0
_SHA256: Final = "user.recfs.sha256"
_SHOWN: Final = "user.recfs.shown"
_STATE: Final = "user.recfs.state"
_WRITTEN: Final = (b"writing", b"sealing")
_MODE_BEGUN: Final = 0o600
"""With which rsync makes a file that it writes where it is to be; it gets its own when it is whole."""


class Stopped(Exception):
    """Whoever hashes was told to stop."""


@dataclass(slots=True)
class Meter:
    """How many bytes were dealt with, by all threads together, and whether they are to stop."""

    done: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, size: int) -> None:
        """Count bytes; less than none takes some back."""
        with self._lock:
            self.done += size

    def add(self, size: int) -> None:
        """Count bytes. Raises Stopped."""
        self.count(size)
        if self.stop.is_set():
            raise Stopped


def sha256_of(fd: int, meter: Meter, size: int) -> str:
    """Hash a file from its beginning, *size* bytes or all of it, however it grows. Raises OSError, Stopped."""
    found = hashlib.sha256()
    position = 0
    while position < size:
        block = os.pread(fd, min(_BLOCK, size - position), position)
        if not block:
            break
        found.update(block)
        position += len(block)
        meter.add(len(block))
    return found.hexdigest()


def hashed(tree: Tree, path: bytes, meter: Meter) -> tuple[str, Seen]:
    """Hash a regular file; with what it was like. Raises TryAgain where it changed meanwhile, InvalidPath, OSError."""
    fd, before = tree.open(path)
    try:
        found = sha256_of(fd, meter, before.size)
        if seen_of(os.fstat(fd)) != before:
            raise TryAgain(f"{escaped(path)} changes while it is read")
    finally:
        os.close(fd)
    return found, before


def asked(tree: Tree, path: bytes, meter: Meter | None = None) -> str | None:
    """Ask recfs: its own sha256 of a file of the mount, wherever the bytes are. A file that is sealed is waited for.

    None where there is none: it is being written, or was cut off. Raises InvalidPath, OSError; Stopped as *meter* says.
    """
    until_s = time.monotonic() + _SEALED_WITHIN_S
    with tree.named(path) as name:
        while True:
            try:
                return os.getxattr(name, _SHA256).decode("ascii")
            except OSError as error:
                if error.errno == errno.ENODATA:
                    return None
                # A daemon answers so after half a minute (state/waits.py), and a large file may take longer.
                if error.errno != errno.EAGAIN or time.monotonic() >= until_s:
                    raise
            if meter is not None:
                meter.add(0)


def read(tree: Tree, path: bytes) -> str | None:
    """Read a file of the home tree, of which no daemon tells. Raises InvalidPath, OSError."""
    fd, seen = tree.open(path)
    try:
        return sha256_of(fd, Meter(), seen.size)
    finally:
        os.close(fd)


def is_shown(tree: Tree, path: bytes) -> bool:
    """Whether a file is a shared one that the mount shows where the user has none. Raises InvalidPath, OSError."""
    with tree.named(path) as name:
        try:
            os.getxattr(name, _SHOWN)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return False
            raise
    return True


def is_written(tree: Tree, path: bytes) -> bool:
    """Whether somebody writes to a file of the mount at the moment. Raises InvalidPath, OSError."""
    with tree.named(path) as name:
        try:
            return os.getxattr(name, _STATE) in _WRITTEN
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return False
            raise


def proven(fd: int, source: Seen, store: Tree, target: bytes, ask: Sha256Of, meter: Meter) -> tuple[Proof, str | None]:
    """Compare what lies at a target with a source that is open; with the source's sha256 where all of it was hashed.

    An empty file is the beginning of all: that it is one of rsync's, its mode tells. A file of which recfs has no
    checksum, for its writer was cut off with the daemon, is read.

    Raises InvalidPath where the target is no regular file, IoFailure, OSError, Stopped.
    """
    found = store.look(target)
    if found is None or not stat.S_ISREG(found.st_mode):
        raise InvalidPath(f"{escaped(target)} is no regular file")
    there = ask(store, target)
    if there is None and is_written(store, target):
        return Proof.UNKNOWN, None
    found = store.look(target)  # once more: who is asked waits for those who wrote to it
    if found is None or not stat.S_ISREG(found.st_mode):
        raise InvalidPath(f"{escaped(target)} is no regular file")
    if found.st_size > source.size:
        return Proof.OTHER, None
    if not found.st_size and source.size and stat.S_IMODE(found.st_mode) != _MODE_BEGUN:
        return Proof.OTHER, None
    known = there is not None
    if there is None:
        there, read_of = hashed(store, target, meter)
        meter.count(-read_of.size)  # it is the source that counts
        if not read_of.is_like(seen_of(found)):
            return Proof.UNKNOWN, None
    here = sha256_of(fd, meter, found.st_size)
    if seen_of(os.fstat(fd)) != source:
        raise IoFailure("the source changes while it is read")
    whole = here if found.st_size == source.size else None
    if here != there:
        return Proof.OTHER, whole
    if not known:
        return Proof.CUT_OFF, whole
    return Proof.EQUAL if whole is not None else Proof.BEGINNING, whole


__all__ = ["Meter", "Stopped", "asked", "hashed", "is_shown", "is_written", "proven", "read", "sha256_of"]
