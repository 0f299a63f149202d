"""Archives of tar(1) as they are read: one is over where it says so, and no header of it takes all memory."""

from __future__ import annotations

import contextlib
import tarfile
from typing import IO, Self, cast

from recfs.migration.transfer.items import BLOCK_BYTES

_HEADER_MAX_BYTES = 1 << 20
_EXTRA_HEADERS = frozenset({
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
})  # fmt: skip
_CHAINED = 64
"""So many extra headers are read of one member at most: tarfile reads each inside the one before it."""
_READS_AFTER = 16
"""So often tarfile may read beyond the end of a stream: it looks for the last blocks there."""
_BLOCK_BYTES = tarfile.BLOCKSIZE
_NO_BLOCK = bytes(_BLOCK_BYTES)
_INVALID: type[Exception] = tarfile.InvalidHeaderError  # type: ignore[attr-defined]
_PADDING_MAX_BYTES = 16 << 20
"""So much is looked at after the end of an archive: tar(1) fills its last record with zeros, and some are large."""


class _Member(tarfile.TarInfo):
    """A member whose extra headers are no larger and no more than they have any reason to be: they are kept in memory.

    And one that is a member: tarfile takes a header that is damaged, cut short or missing for the end of an archive.
    That end are two blocks of zeros (POSIX.1-2017, pax, "ustar Interchange Format"), and nothing else.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next member. Raises ReadError, which ends the reading; EOFHeaderError at the end of an archive."""
        file = cast("IO[bytes]", tar.fileobj)
        block = file.read(_BLOCK_BYTES)
        if len(block) < _BLOCK_BYTES:
            raise tarfile.ReadError(f"it breaks off {'in a header' if block else 'before the end of its archive'}")
        if block == _NO_BLOCK and file.read(_BLOCK_BYTES) != _NO_BLOCK:
            raise tarfile.ReadError("it breaks off in the end of its archive")
        try:
            member = cls.frombuf(block, tar.encoding or "", tar.errors or "")
        except _INVALID as error:
            raise tarfile.ReadError(f"a header is damaged: {error}") from error
        member.offset = file.tell() - _BLOCK_BYTES
        return cast("Self", member._proc_member(cast("Archive", tar)))

    def _proc_member(self, tar: Archive) -> tarfile.TarInfo:
        is_extra = self.type in _EXTRA_HEADERS
        if self.size < 0 or (is_extra and self.size > _HEADER_MAX_BYTES):
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        tar.chained = tar.chained + 1 if is_extra else 0
        if tar.chained > _CHAINED:
            raise tarfile.ReadError(f"more than {_CHAINED} extra headers of one file")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found


class Archive(tarfile.TarFile):
    """An archive that is read."""

    tarinfo = _Member
    chained = 0
    """So many extra headers came one after another."""


def follows(tar: tarfile.TarFile) -> bool:
    """Whether anything but zeros comes after the end of an archive. Raises OSError.

    It is read for the sake of whoever writes the stream, too: a program whose pipe is closed ends with an error.
    """
    file, left = cast("IO[bytes]", tar.fileobj), _PADDING_MAX_BYTES
    with contextlib.suppress(EOFError):  # after the end of what bzip2 or xz compressed
        while left > 0 and (block := file.read(BLOCK_BYTES)):
            if block.count(0) != len(block):
                return True
            left -= len(block)
    return False


class Ending:
    """A stream that cannot be read for ever beyond its end: tarfile goes on for as long as a size that lies is."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._after = 0

    def read(self, size: int) -> bytes:
        """As that of files. Raises EOFError, OSError."""
        block = self._file.read(size)
        if not block:
            self._after += 1
            if self._after > _READS_AFTER:
                raise EOFError("it ends before its last file does")
        return block


__all__ = ["Archive", "Ending", "follows"]
