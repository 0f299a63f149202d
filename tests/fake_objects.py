"""What the fake object store keeps, and how a call of it goes wrong."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, field

from recfs.ports.object_errors import KeyTooLong, SourceChanged, TransferCancelled
from recfs.ports.objects import MIB, Cancel, ObjectMeta, PartInfo, Progress, RestoreState


@dataclass
class Stored:
    data: bytes
    etag: str
    metadata: dict[str, str]
    storage_class: str
    tags: dict[str, str]
    modified_ns: int
    restore_state: RestoreState | None = None
    stored_sha256: bytes | None = None
    """The server's own checksum, made when the bytes were put there."""


@dataclass
class Upload:
    key: str
    meta: ObjectMeta
    initiated_ns: int
    parts: dict[int, tuple[bytes, PartInfo]] = field(default_factory=dict)


@dataclass
class Planned:
    operation: str
    error: Exception
    times: int
    skip: int
    after: bool


class Call:
    """The lock, with a fault that comes before or after what is done under it."""

    def __init__(self, lock: threading.RLock, due: tuple[Exception | None, Exception | None]) -> None:
        self._lock, (self._first, self._last) = lock, due

    def __enter__(self) -> None:
        if self._first is not None:
            raise self._first
        self._lock.acquire()

    def __exit__(self, kind: object, *_: object) -> None:
        self._lock.release()
        if self._last is not None and kind is None:
            raise self._last


def sorted_parts(parts: dict[int, tuple[bytes, PartInfo]]) -> list[tuple[bytes, PartInfo]]:
    """By number."""
    return [parts[number] for number in sorted(parts)]


def checked(key: str) -> str:
    if len(key.encode()) > 1024:
        raise KeyTooLong(key)
    return key


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def read(fd: int, offset: int, length: int, progress: Progress | None, cancel: Cancel | None) -> bytes:
    data = b""
    while len(data) < length:
        if cancel is not None and cancel():
            raise TransferCancelled("cancelled")
        block = os.pread(fd, min(MIB, length - len(data)), offset + len(data))
        if not block:
            raise SourceChanged("the file ended early")
        data += block
        if progress is not None:
            progress(len(data))
    return data
