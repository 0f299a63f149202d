"""`StorageBackend`: files of the tree by their paths, for coroutines; over a mount or a plain directory."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from recfs.client.errors import UploadRefused, VerifyFailed
from recfs.client.places import checked_root
from recfs.client.tree import parts_of
from recfs.client.uploads import Upload, note_upload
from recfs.client.waiting import checkpoint, in_thread
from recfs.client.writing import Draft, open_folder

BLOCK_BYTES = 1 << 20


@runtime_checkable
class Readable(Protocol):
    """A binary file, of which `read(size)` gives bytes until it gives none."""

    def read(self, size: int, /) -> bytes:
        """Some bytes."""


Data = bytes | bytearray | memoryview | os.PathLike[str] | Readable | Iterable[bytes] | AsyncIterable[bytes]
"""What can be saved: bytes, the path of a file (a Path; a str could be either), a binary file, or blocks of bytes."""


class StorageBackend:
    """Saves, loads and deletes files of a tree. Paths are as in the tree: `users/5/recordings/142/source.mp4`.

    *root* is a mount or a plain directory. Nothing leaves it: a path is checked (InvalidName), and below *root* no
    symbolic link is followed (NotADirectoryError, or OSError with ELOOP). With *mounted* each call makes sure that
    recfs is mounted there (NotAMount), for else files would be written below a mount that is away.

    What `save` returns is the full path; with *s3_url*, such as `s3://bucket/prefix`, the URL that the object has, or
    gets when a route takes the file to S3: the tree is the same there. All methods can be cancelled; one that is under
    way in the kernel ends first.

    >>> import asyncio
    >>> backend = StorageBackend(folder)
    >>> asyncio.run(backend.save("users/5/recordings/142/assets/a.json", b"{}")) == str(
    ...     folder / "users/5/recordings/142/assets/a.json"
    ... )
    True
    >>> asyncio.run(backend.load("users/5/recordings/142/assets/a.json"))
    b'{}'
    >>> asyncio.run(backend.exists("users/5/recordings/142/source.mp4"))
    False
    """

    def __init__(self, root: str | os.PathLike[str], *, s3_url: str | None = None, mounted: bool = False) -> None:
        if s3_url is not None and not s3_url.startswith("s3://"):
            raise ValueError("s3_url is such as s3://bucket/prefix")
        self._where = Path(root)
        self._mounted = mounted
        self._s3_url = None if s3_url is None else s3_url.rstrip("/")

    @property
    def _root(self) -> Path:
        return checked_root(self._where, mounted=self._mounted)

    def url(self, path: str | os.PathLike[str]) -> str:
        """What `save` returns for a path. Raises InvalidName."""
        inside = "/".join(parts_of(path))
        return str(self._where / inside) if self._s3_url is None else f"{self._s3_url}/{inside}"

    async def save(
        self,
        path: str | os.PathLike[str],
        data: Data,
        *,
        max_bytes: int | None = None,
        sha256: str | None = None,
        upload: Upload | None = None,
    ) -> str:
        """Store *data* and give the full path or URL: when this returns, the file is there and survives a power cut.

        Nobody ever sees a part of it: it is written aside and renamed, over the file that was there. Directories that
        are missing are made. *data* is read in blocks and never as a whole; a file object and iterators are left where
        they are if this raises. *max_bytes* refuses what is larger as soon as it is (UploadRefused), *sha256* what has
        another checksum (VerifyFailed); *upload* is kept with the file, in the same step. Raises InvalidName also for a
        new name that cannot be shown, and OSError, on recfs also of limits; then nothing is left of it but directories.
        """
        parts = parts_of(path, new=True)
        if isinstance(data, str):
            raise TypeError("data is bytes, a Path, a binary file or blocks of bytes; a str could be text or a path")
        await checkpoint()
        writer = _Writer(lambda: self._root, parts, max_bytes, sha256, upload)
        try:
            await in_thread(writer.open)
            if isinstance(data, AsyncIterable):
                async for block in data:
                    await in_thread(lambda block=block: writer.write(block))  # type: ignore[misc]
            else:
                await _copy(data, writer)
            await checkpoint()
            await in_thread(writer.finish)
        finally:
            await in_thread(writer.discard)
        return self.url(path)

    async def load(self, path: str | os.PathLike[str]) -> bytes:
        """Give all bytes of a file. Raises InvalidName and OSError: FileNotFoundError, IsADirectoryError."""
        return b"".join([block async for block in self.stream(path)])

    async def stream(self, path: str | os.PathLike[str], block_bytes: int = BLOCK_BYTES) -> AsyncIterator[bytes]:
        """Give a file block by block: close what is not read to its end (`contextlib.aclosing`). Raises as `load`."""
        parts = parts_of(path)
        await checkpoint()
        opened: list[BinaryIO] = []
        try:
            await in_thread(lambda: opened.append(_open_file(self._root, parts)))
            while block := await in_thread(lambda: opened[0].read(block_bytes)):
                await checkpoint()
                yield block
        finally:
            for file in opened:
                file.close()  # it was only read from: nothing is waited for

    async def delete(self, path: str | os.PathLike[str]) -> bool:
        """Remove a file, or a link itself; False if there was none. Raises InvalidName and OSError."""
        parts = parts_of(path)
        await checkpoint()

        def remove() -> bool:
            try:
                folder = open_folder(self._root, parts[:-1])
            except FileNotFoundError:
                self._root.stat()  # a tree that is away is no file that is not there
                return False
            try:
                os.unlink(parts[-1], dir_fd=folder)
                os.fsync(folder)
            except FileNotFoundError:
                return False
            finally:
                os.close(folder)
            return True

        return await in_thread(remove)

    async def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is a regular file of that path. Raises InvalidName and OSError."""
        parts = parts_of(path)
        await checkpoint()

        def look() -> bool:
            try:
                folder = open_folder(self._root, parts[:-1])
            except (FileNotFoundError, NotADirectoryError):
                self._root.stat()
                return False
            try:
                return stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode)
            except FileNotFoundError:
                return False
            finally:
                os.close(folder)

        return await in_thread(look)


async def _copy(
    data: bytes | bytearray | memoryview | os.PathLike[str] | Readable | Iterable[bytes], to: _Writer
) -> None:
    """Write what can be read in a thread, block by block, so that it can be cancelled between two."""
    if isinstance(data, bytes | bytearray | memoryview):
        whole = memoryview(data).cast("B")
        for at in range(0, len(whole), BLOCK_BYTES):
            await in_thread(lambda at=at: to.write(whole[at : at + BLOCK_BYTES]))  # type: ignore[misc]
            await checkpoint()
        return
    if isinstance(data, os.PathLike):
        source = data
        with await in_thread(lambda: open(source, "rb")) as file:
            await _copy(file, to)
        return
    blocks = _blocks(data) if isinstance(data, Readable) else iter(data)

    def step() -> bool:
        block = next(blocks, None)
        if block is None:
            return False
        to.write(block)
        return True

    while await in_thread(step):
        await checkpoint()


def _blocks(file: Readable) -> Iterator[bytes]:
    """What a file object gives."""
    while block := file.read(BLOCK_BYTES):
        yield block


def _open_file(root: Path, parts: tuple[str, ...]) -> BinaryIO:
    folder = open_folder(root, parts[:-1])
    try:
        # Not to wait for the writer of a FIFO that somebody has put there.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(parts[-1], flags, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(mode := os.fstat(file).st_mode):
        os.close(file)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code), str(root.joinpath(*parts)))
    return open(file, "rb", buffering=0)


class _Writer:
    """One file that is being saved; used in threads, by one at a time."""

    def __init__(
        self,
        root: Callable[[], Path],
        parts: tuple[str, ...],
        max_bytes: int | None,
        sha256: str | None,
        upload: Upload | None,
    ) -> None:
        if upload is not None:
            upload.attributes()  # what is wrong with it is said before anything is written
        self._root, self._parts = root, parts
        self._max_bytes, self._sha256, self._upload = max_bytes, sha256, upload
        self._digest = hashlib.sha256() if sha256 is not None else None
        self._written = 0
        self._draft: Draft | None = None
        self._file: BinaryIO | None = None

    def open(self) -> None:
        root = self._root()
        folder = open_folder(root, self._parts[:-1], make=True)
        self._draft = Draft(folder, root.joinpath(*self._parts[:-1]), self._parts[-1])
        self._file = self._draft.open()

    def write(self, block: bytes | memoryview) -> None:
        if self._file is None or not isinstance(block, bytes | bytearray | memoryview):
            raise TypeError(f"what is saved is bytes, and no {type(block).__name__}")
        self._written += memoryview(block).nbytes
        if self._max_bytes is not None and self._written > self._max_bytes:
            raise UploadRefused(f"{self._parts[-1]!a}: more than {self._max_bytes:,} bytes")
        if self._digest is not None:
            self._digest.update(block)
        self._file.write(block)

    def finish(self) -> None:
        if self._draft is None or self._file is None:
            return
        if self._digest is not None and self._digest.hexdigest() != (self._sha256 or "").lower():
            raise VerifyFailed(f"{self._parts[-1]!a}: its sha256 is {self._digest.hexdigest()}, not {self._sha256!a}")
        if self._upload is not None:
            note_upload(self._file.fileno(), self._upload)
        self._draft.prove()
        self._draft.publish()

    def discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()


__all__ = ["BLOCK_BYTES", "Data", "Readable", "StorageBackend"]
