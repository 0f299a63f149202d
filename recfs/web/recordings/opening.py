"""A file that is to be sent: opened, and what is known of it at that moment. Blocking calls, for threads."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from recfs.client.file_facts import WHOLE
from recfs.client.uploads import attribute, mime_type_of
from recfs.web.context import Context
from recfs.web.limiters import in_thread
from recfs.web.problems import Problem
from recfs.web.recordings.attributes import Attributes
from recfs.web.replacing import Identity, identity

_SETTLED_NS: Final = 60_000_000_000
"""A file that changed later than this before may be opened for writing again: its checksum may be waited for."""
_FAR: Final = frozenset({"evicted", "fetching", "archived"})
"""States of files whose bytes may have to come from S3 (docs/semantics.md, section 8)."""


FIRST_BYTES: Final = 64 << 10
"""So much is read before an answer begins: what keeps it from being read is a refusal. Small files are no more."""
_small_reads: Final = threading.BoundedSemaphore(2)
"""Short calls that read a small file as well: a disk that does not answer takes no more of their threads."""


@dataclass(slots=True)
class Opened:
    """An open file. Whoever has it calls `close` once, when nothing reads any more."""

    file: int
    name: str
    size: int
    mtime_ns: int
    state: str | None
    """As recfs has it; None on a plain directory."""
    mime: str
    identity: Identity
    far: bool
    """Whether its bytes may have to come from S3."""
    sha256: str | None = None
    looked: bool = False
    """Whether its checksum was asked for already."""
    first: bytes | None = None
    """All bytes of a small file, read when it was opened; None: nothing was read yet."""

    @property
    def etag(self) -> str:
        """Strong by the checksum; weak where there is none: of bytes that are still being written."""
        if self.sha256 is not None:
            return f'"{self.sha256}"'
        return f'W/"{self.size:x}-{self.mtime_ns:x}"'

    @property
    def changed(self) -> datetime:
        """When it was changed, to the second."""
        return datetime.fromtimestamp(self.mtime_ns // 1_000_000_000, UTC)

    def same(self) -> bool:
        """Whether nobody has written to it since. Raises OSError."""
        info = os.fstat(self.file)
        return (info.st_size, info.st_mtime_ns) == (self.size, self.mtime_ns)

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


async def open_recorded(context: Context, *parts: str) -> Opened:
    """Open a file of the tree. Raises OSError, Problem: what is in an archive has to be restored first."""
    limiters = context.limiters
    opened = await in_thread(limiters.calls, lambda: _look(context, parts))
    try:
        if opened.state == "archived":
            raise _archived()
        if not opened.looked and (opened.state is None or opened.state in WHOLE):
            opened.sha256 = await in_thread(limiters.waits, lambda: _checksum(opened))
    except BaseException:
        opened.close()
        raise
    return opened


def _look(context: Context, parts: tuple[str, ...]) -> Opened:
    try:
        file = context.tree.file(*parts)
    except PermissionError:
        with context.tree.inside(*parts[:-1], on_the_way=True) as folder:
            if _state(folder, parts[-1]) == "archived":  # EACCES, too (docs/semantics.md, section 2)
                raise _archived() from None
        raise
    try:
        info = os.fstat(file)
        known = Attributes(file)
        state = known.text("state")
        mime = (known.text("mime") if state is not None else None) or mime_type_of(parts[-1])
        opened = Opened(file, parts[-1], info.st_size, info.st_mtime_ns, state, mime, identity(info), state in _FAR)
        whole = state is None or state in WHOLE
        if whole and known.at_once:
            opened.looked, opened.sha256 = True, _proven(opened, known.text("sha256"))
        elif whole and time.time_ns() - info.st_ctime_ns > _SETTLED_NS:
            opened.looked, opened.sha256 = True, _checksum(opened)
        if 0 < opened.size <= FIRST_BYTES and not opened.far:
            _read_small(opened)
    except BaseException:
        os.close(file)
        raise
    return opened


def _read_small(opened: Opened) -> None:
    """Have the bytes of a small file ready, unless others already wait for some: nobody's calls are held up then."""
    if not _small_reads.acquire(blocking=False):
        return
    try:
        block = os.pread(opened.file, opened.size, 0)
    except OSError:
        return  # whoever sends it tries again, and tells
    finally:
        _small_reads.release()
    if len(block) == opened.size and opened.same():
        opened.first = block


def _archived() -> Problem:
    return Problem("ObjectArchived", "`recfs restore` has it brought back")


def _state(folder: int, name: str) -> str | None:
    """The state of a file that cannot be opened."""
    named = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        return _text(f"/proc/self/fd/{named}", "state")
    finally:
        os.close(named)


def _text(file: int | str, name: str) -> str | None:
    value = attribute(file, f"user.recfs.{name}")
    return None if value is None else value.decode("utf-8", "replace")


def _checksum(opened: Opened) -> str | None:
    """The checksum of the bytes that are there now; None where somebody has begun to write meanwhile."""
    try:
        told = _text(opened.file, "sha256")
    except BlockingIOError:
        return None
    return _proven(opened, told)


def _proven(opened: Opened, told: str | None) -> str | None:
    """A checksum that was told after the file was looked at, if it is one, and the file is still the same."""
    valid = told is not None and len(told) == 64 and set(told) <= set("0123456789abcdef")
    return told if valid and opened.same() else None


__all__ = ["FIRST_BYTES", "Opened", "open_recorded"]
