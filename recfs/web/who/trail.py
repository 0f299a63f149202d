"""The audit log of the gateway: who asked for what, from where, and what became of it; one line of JSON each.

It is the gateway's own: the daemon's log knows the gateway as one process alone. Nobody waits for it, and a disk that
takes nothing costs lines, which are counted, and no request.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final, NamedTuple

from recfs.core.observing.lines import line_of, moment, named
from recfs.errors import ConfigError
from recfs.web.accesses import Access
from recfs.web.problems import Problem

logger = logging.getLogger(__name__)

FILE: Final = "audit.jsonl"
FILE_BYTES: Final = 16 << 20
KEPT: Final = 15
"""Files that were put aside (`audit.jsonl.1`, the newest, to `.15`), besides the one that is written."""
WAITING: Final = 20_000
"""Lines in memory, of a disk that is slow."""
TEXT_CHARS: Final = 4096
"""So much of a path or a range is told."""
_END_S: Final = 5.0
_BLOCK_BYTES: Final = 64 << 10
_LINE_BYTES: Final = 1 << 20
_LOOKED_AT: Final = 50_000
"""Lines that one question looks at; the answer says where the next goes on."""
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


_SIGNATURE: Final = re.compile(r"(signature=)[^&]*", re.IGNORECASE)


def _without_signature(path: str) -> str:
    """A path as it may be told: programs that send links by chat or mail write their "?" in another way at times."""
    return _SIGNATURE.sub(r"\1…", path)


def line_for(access: Access) -> str:
    """The line of one access. Nothing that a client chooses makes another line or field of it."""
    told: dict[str, Any] = {
        "time": moment(access.began_ns),
        "time_ns": access.began_ns,
        "address": access.address,
        "token": access.token_id,
        "via": access.via or None,
        "method": access.method[:32],
        **named("path", os.fsencode(_without_signature(access.path)[:TEXT_CHARS])),
        "status": access.status,
        "outcome": access.outcome,
        "sent_bytes": access.sent_bytes,
        "received_bytes": access.received_bytes,
        "duration_s": round(access.duration_s, 6),
    }
    if access.range is not None:
        told["range"] = access.range[:TEXT_CHARS]
    return line_of(told | access.told)


class _File(RotatingFileHandler):
    """The file, for its owner alone."""

    def __init__(self, path: Path, file_bytes: int, kept: int, failed: Callable[[], None]) -> None:
        self._failed = failed
        super().__init__(path, maxBytes=file_bytes, backupCount=kept, encoding="utf-8", delay=True)

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, _FLAGS, 0o600)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":  # half a line of a full disk, or a death: it spoils no other
            os.write(fd, b"\n")
        return open(fd, "a", encoding="utf-8")

    def begin(self) -> None:
        """Open it. Raises OSError."""
        self.stream = self._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, to a new file where somebody has taken the old one away."""
        if self.stream is not None and not self._is_open(self.stream):
            self.stream.close()
            self.stream = None  # the next line opens it
        super().emit(record)

    def _is_open(self, stream: TextIOWrapper) -> bool:
        try:
            return os.path.samestat(os.stat(self.baseFilename), os.fstat(stream.fileno()))
        except OSError:
            return False

    def handleError(self, record: logging.LogRecord) -> None:  # the name is logging's
        """Count a line that the disk did not take, and begin anew with the next one."""
        self._failed()
        with suppress(OSError):
            self.close()


class Trail:
    """Writes the log in a thread of its own; `told` is a listener of accesses."""

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES, kept: int = KEPT, waiting: int = WAITING) -> None:
        self.path = folder / FILE
        self._full = self._failed = 0
        self._refused = False
        self._kept = kept
        self._queue: queue.Queue[str | None] = queue.Queue(waiting)
        self._file = _File(self.path, file_bytes, kept, self._fail)
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Open the file now. Raises ConfigError where that cannot be: nobody should find out when they look for it."""
        try:
            self._file.begin()
        except OSError as error:
            raise ConfigError(f"the audit log {self.path} cannot be written: {error.strerror}") from error

    def told(self, access: Access) -> None:
        """Tell one access. Returns at once, and raises nothing."""
        try:
            self._queue.put_nowait(line_for(access))
        except queue.Full:
            self._full += 1
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what is left, as far as the disk takes it in a few seconds."""
        thread, self._thread = self._thread, None
        if thread is None:
            self._file.close()
            return
        with suppress(queue.Full):
            self._queue.put(None, timeout=_END_S)
        thread.join(_END_S)

    @property
    def dropped(self) -> int:
        """How many lines are missing: the disk was slow or full."""
        return self._full + self._failed

    def _fail(self) -> None:
        self._refused = True

    def _write(self) -> None:
        told = 0
        while True:
            line = self._queue.get()
            if line is None:
                self._file.close()
                return
            missing = self.dropped - told
            if missing and self._written(line_of({"outcome": "dropped", "count": missing})):
                logger.warning("the audit log lacks %d lines: the disk was slow or full", missing)
                told += missing
            if not self._written(line):
                self._failed += 1

    def _written(self, line: str) -> bool:
        """Whether the disk has taken a line."""
        self._refused = False
        self._file.handle(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))
        return not self._refused

    def files(self) -> list[Path]:
        """The files that there may be, newest first."""
        return [self.path, *(Path(f"{self.path}.{number}") for number in range(1, self._kept + 1))]


class Page(NamedTuple):
    """Some lines, newest first."""

    entries: list[dict[str, Any]]
    following: str | None
    """The cursor of the page that follows; None: there is no older line."""


def read(files: list[Path], wanted: Callable[[dict[str, Any]], bool], limit: int, cursor: str | None) -> Page:
    """Lines that are *wanted*, newest first, those before a cursor. Blocking. Raises Problem("CursorLost"), OSError."""
    found: list[dict[str, Any]] = []
    for looked, (at, entry) in enumerate(_backwards(files, cursor), 1):
        if entry is not None and wanted(entry):
            found.append(entry)
        if len(found) >= limit or looked >= _LOOKED_AT:
            return Page(found, at)
    return Page(found, None)


def _backwards(files: list[Path], cursor: str | None) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Each line with the cursor of what is before it, from the end on; None for a damaged one."""
    ino, end = _position(cursor)
    for path in files:
        try:
            file = open(path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            continue
        with file:
            info = os.fstat(file.fileno())
            if ino is not None and info.st_ino != ino:
                continue
            size = info.st_size if end is None else min(end, info.st_size)
            ino = end = None
            if not size:
                continue
            for start, line in _lines(file.fileno(), size):
                yield f"{info.st_ino}-{start}", _entry(line)
    if ino is not None:
        raise Problem("CursorLost")


def _lines(file: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Each line of a file with where it begins, from *end* on backwards.

    Not by mmap(2): where somebody shortens the file meanwhile, that would end the process (SIGBUS).
    """
    rest, start = b"", end
    while start > 0:
        size = min(_BLOCK_BYTES, start)
        start -= size
        rest = os.pread(file, size, start) + rest
        if len(rest) > _LINE_BYTES and b"\n" not in rest[:-1]:
            rest = rest[-1:]  # none of ours: it counts as a damaged one
        while (cut := rest.rfind(b"\n", 0, len(rest) - 1)) >= 0:
            yield start + cut + 1, rest[cut + 1 :]
            rest = rest[: cut + 1]
    if rest:
        yield 0, rest


def _position(cursor: str | None) -> tuple[int | None, int | None]:
    if cursor is None:
        return None, None
    ino, _, offset = cursor.partition("-")
    if not (len(cursor) <= 40 and ino.isascii() and ino.isdigit() and offset.isascii() and offset.isdigit()):
        raise Problem("InvalidArgument", "cursor: as an earlier answer had it")
    return int(ino), int(offset)


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


__all__ = ["FILE", "Page", "Trail", "line_for", "read"]
