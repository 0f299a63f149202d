"""Files that a session has open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.bounds import end_of
from recfs.disk.refresh import refresh
from recfs.errors import Interrupted, Stale
from recfs.fs.session.stats import is_committed

if TYPE_CHECKING:
    from recfs.fs.files import OpenFiles
    from recfs.fs.vfs import Vfs


class Reader:
    """A file that is open for reading: moves and eviction do not touch it, and its bytes come from S3 if need be."""

    def __init__(self, vfs: Vfs, number: int, *, committed: bool) -> None:
        self._files = vfs.files
        self._number = number
        self._node = vfs.files.handles[number].node
        self._committed = committed
        self._version = self._node.sha256
        refresh(vfs.tree, self._node)
        self.size_bytes = self._node.bytes
        """When it was opened."""

    def check(self) -> None:
        """Raise Stale where committed bytes are wanted and these are being changed, or are other ones by now."""
        if self._committed and not (is_committed(self._node) and self._node.sha256 == self._version):
            raise Stale(f"{self._node.path} was changed while it was read")

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes from *offset*; fewer than *length* only at the end.

        Raises FsError (InvalidArgument for what is negative, Stale after the block), ObjectStoreError or OSError.
        """
        end_of(offset, length)
        _open(self._files, self._number)
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
        self.ino = vfs.files.handles[number].node.ino
        """Of the file, whoever has its name later."""
        self.size_bytes = 0
        """Written so far, one after another."""
        self._failed: BaseException | None = None

    async def write(self, data: bytes | memoryview) -> None:
        """Append. Raises QuotaExceeded, FileTooLarge, OutOfSpace or OSError; Stale after the block.

        What fails or is cancelled fails the file: whatever becomes of the error, it does not come to its name.
        """
        self.check()
        _open(self._files, self._number)
        left = memoryview(data)
        try:
            while left:
                done = await self._files.write(self._number, self.size_bytes, bytes(left))
                self.size_bytes += done
                left = left[done:]
        except BaseException as error:
            self._failed = error
            raise

    async def sync(self) -> None:
        """Have on stable storage what was written so far (fsync(2)). An error fails the file like one of `write`."""
        self.check()
        _open(self._files, self._number)
        try:
            await self._files.fsync(self._number)
        except Exception as error:
            self._failed = error
            raise

    def check(self) -> None:
        """Raise what failed it."""
        if isinstance(self._failed, Exception):
            raise self._failed
        if self._failed is not None:
            raise Interrupted("a write was cancelled: nobody knows what of it is in the file")


def _open(files: OpenFiles, number: int) -> None:
    if number not in files.handles:
        raise Stale("the file is used after it was closed")


__all__ = ["Reader", "Writer"]
