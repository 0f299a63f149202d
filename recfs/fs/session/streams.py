"""Files that a session has open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.errors import Stale
from recfs.fs.session.stats import is_committed

if TYPE_CHECKING:
    from recfs.fs.vfs import Vfs


class Reader:
    """A file that is open for reading: moves and eviction do not touch it, and its bytes come from S3 if need be."""

    def __init__(self, vfs: Vfs, number: int, *, committed: bool) -> None:
        self._files = vfs.files
        self._number = number
        self._node = vfs.files.handles[number].node
        self._committed = committed
        self._version = self._node.sha256
        self.size_bytes = self._node.bytes
        """When it was opened."""

    def check(self) -> None:
        """Raise Stale where committed bytes are wanted and these are being changed, or are other ones by now."""
        if self._committed and not (is_committed(self._node) and self._node.sha256 == self._version):
            raise Stale(f"{self._node.path} was changed while it was read")

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes from *offset*; fewer than *length* only at the end. Raises FsError, ObjectStoreError or OSError."""
        found = bytearray()
        while len(found) < length and (part := await self._files.read(self._number, offset, length - len(found))):
            found += part
            offset += len(part)
        self.check()
        return bytes(found)


class Writer:
    """A new file that is being written, under a name of its own."""

    def __init__(self, vfs: Vfs, number: int) -> None:
        self._files = vfs.files
        self._number = number
        self.size_bytes = 0
        """Written so far, one after another."""

    async def write(self, data: bytes | memoryview) -> None:
        """Append. Raises QuotaExceeded, FileTooLarge, OutOfSpace or OSError."""
        left = memoryview(data)
        while left:
            done = await self._files.write(self._number, self.size_bytes, bytes(left))
            self.size_bytes += done
            left = left[done:]

    async def sync(self) -> None:
        """Have on stable storage what was written so far (fsync(2))."""
        await self._files.fsync(self._number)


__all__ = ["Reader", "Writer"]
