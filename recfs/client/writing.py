"""Files that are there whole or not at all: written beside their place, proven, synced, and renamed into it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, TypeVar, cast

from recfs.client.errors import VerifyFailed
from recfs.client.waiting import checkpoint, in_thread

S = TypeVar("S")
A = TypeVar("A")

Verify = Callable[[Path], object]
"""Is given the path of what was written, synced and closed, before anybody sees it. Raises, or returns False, for what
must not be shown."""

_NAME_BYTES = 200
"""Room for what is put around the name."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOREPLACE = 1
"""RENAME_NOREPLACE of renameat2(2)."""
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def rename_new(source: str, target: str, folder: int, into: int | None = None) -> None:
    """Rename within a directory, or *into* another one, unless *target* is there (FileExistsError), in one step.

    By renameat2(2); where the file system does not have that, by link(2), which is as exclusive. Raises OSError.
    """
    to = folder if into is None else into
    if _renameat2 is not None:
        if _renameat2(folder, os.fsencode(source), to, os.fsencode(target), _NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), target)
    os.link(source, target, src_dir_fd=folder, dst_dir_fd=to, follow_symlinks=False)
    os.unlink(source, dir_fd=folder)


def _keep_owner(opened: int, before: os.stat_result) -> bool:
    """Give a file owner and group of the one that it replaces, as far as that is allowed; whether it has its group."""
    info = os.fstat(opened)
    if (info.st_uid, info.st_gid) == (before.st_uid, before.st_gid):
        return True
    for uid in (before.st_uid, -1):  # root may give a file away, its owner change the group to another of theirs
        try:
            os.fchown(opened, uid, before.st_gid)
        except OSError:
            continue
        return True
    return info.st_gid == before.st_gid


_DRAFT = re.compile(r"\..*\.[0-9a-f]{16}(\.[^.]*)?", re.DOTALL)


def is_draft(name: str) -> bool:
    """Whether a file is called as one that is being written, or was when its writer died."""
    return _DRAFT.fullmatch(name) is not None


class Draft:
    """A file that is being written in a directory, under a name that nobody takes for a finished one.

    It belongs to whoever made it: `publish` or `discard` ends it. The directory is kept open, so that it does not
    matter where it is moved meanwhile.
    """

    def __init__(self, folder: int, shown: Path, name: str) -> None:
        """*folder* is a descriptor, which is the draft's from now on; *shown* is its path, for programs and people."""
        self._folder = folder
        self._shown = shown
        self._name = name
        self.temp = ""
        self.file: BinaryIO | None = None

    def open(self, mode: int | None = None) -> BinaryIO:
        """Make the temporary file. *mode*: permission bits; None: of the file it replaces, or as by umask(2)."""
        # A leading dot says "temporary" to recfs; the extension stays last, by which ffmpeg picks the format.
        stem, dot, extension = self._name.rpartition(".")
        stem, extension = (stem, f"{dot}{extension}") if stem and len(os.fsencode(extension)) < 32 else (self._name, "")
        stem = os.fsdecode(os.fsencode(stem)[:_NAME_BYTES]).lstrip(".")
        name = f".{stem}.{secrets.token_hex(8)}{extension}"  # nobody has another of that name: O_EXCL would say so
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = os.open(name, flags, 0o666, dir_fd=self._folder)
        self.temp = name  # from now on it is taken away again
        try:
            before = self._replaced()
            bits = mode
            if before is not None:
                kept = _keep_owner(opened, before)
                if bits is None:
                    bits = stat.S_IMODE(before.st_mode) & 0o777
                    # Its group's rights are no other group's: these have what everybody has.
                    bits = bits if kept else bits & ~0o070 | (bits & 0o007) << 3 & bits
            if bits is not None:
                os.fchmod(opened, bits & 0o7777)
        except BaseException:
            os.close(opened)
            raise
        # By path, for `name` of the file object is what other programs are given.
        self.file = cast(BinaryIO, open(self.path, "r+b", opener=lambda *_: opened))  # noqa: SIM115
        return self.file

    def _replaced(self) -> os.stat_result | None:
        try:
            info = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return info if stat.S_ISREG(info.st_mode) else None

    @property
    def path(self) -> str:
        """Where it is being written: other programs may write there, too."""
        return str(self._shown / self.temp)

    @property
    def target(self) -> str:
        """The path under which it is to be shown."""
        return str(self._shown / self._name)

    def taken(self) -> bool:
        """Whether there is anything under that name."""
        try:
            os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def prove(self, verify: Verify | None = None) -> None:
        """Sync what was written and have it verified. Raises OSError, VerifyFailed, and what *verify* does."""
        file = self.file
        if file is None or file.closed:
            return self._prove_closed(None, verify)
        file.flush()
        os.fsync(file.fileno())
        ino = os.fstat(file.fileno()).st_ino
        file.close()  # recfs tells of a limit that was met at the latest now
        return self._prove_closed(ino, verify)

    def _prove_closed(self, synced: int | None, verify: Verify | None) -> None:
        if verify is not None and verify(Path(self.path)) is False:
            raise VerifyFailed(f"{self._shown / self._name}: what was written did not pass its verification")
        info = os.stat(self.temp, dir_fd=self._folder, follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode):
            raise VerifyFailed(f"{self._shown / self._name}: what was written is no regular file any more")
        if info.st_ino != synced:  # a program has put another one there, or it was closed before
            descriptor = os.open(self.temp, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def publish(self, name: str | None = None, *, replace: bool = True) -> Path:
        """Show it under its name, or *name*; sync the directory. Raises OSError; FileExistsError unless *replace*."""
        target = self._name if name is None else name
        if replace:
            os.rename(self.temp, target, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:
            rename_new(self.temp, target, self._folder)
        self.temp = ""
        try:
            os.fsync(self._folder)
        finally:
            self._close()
        return self._shown / target

    def names(self) -> list[str]:
        """What is in the directory."""
        return os.listdir(self._folder)

    def discard(self) -> None:
        """Leave nothing. May be called at any time, also after `publish`. Raises nothing."""
        with contextlib.suppress(OSError):
            if self.file is not None:
                self.file.close()
        if self.temp and self._folder >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.temp, dir_fd=self._folder)
        self._close()

    def _close(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


class AsyncFile:
    """The same file for coroutines."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @property
    def name(self) -> str:
        """Where it is being written."""
        return str(self._file.name)

    async def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of *data*."""
        return await in_thread(lambda: self._file.write(data))

    async def flush(self) -> None:
        """Hand over to the kernel what was written, so that others can read it by `name`."""
        await in_thread(self._file.flush)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As that of files."""
        return await in_thread(lambda: self._file.seek(offset, whence))

    async def read(self, size: int = -1) -> bytes:
        """As that of files."""
        return await in_thread(lambda: self._file.read(size))


class WritingBlock(Generic[S, A]):
    """A block of `with` or `async with` at whose end a draft is shown, or taken away if anything raises."""

    _draft: Draft | None = None

    def _begin(self) -> S:
        """Make the draft, and what `with` gives."""
        raise NotImplementedError

    def _for_async(self, begun: S) -> A:
        """What `async with` gives instead."""
        raise NotImplementedError

    def _finish(self, draft: Draft) -> None:
        """Show it."""
        raise NotImplementedError

    def _open(self, folder: Path, name: str, mode: int | None = None) -> BinaryIO:
        if self._draft is not None:
            raise RuntimeError("each is for one block")
        self._draft = Draft(os.open(folder, _FOLDER), folder, name)
        return self._draft.open(mode)

    def _end(self) -> None:
        if self._draft is not None:
            self._finish(self._draft)

    def _discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()

    def __enter__(self) -> S:
        try:
            return self._begin()
        except BaseException:
            self._discard()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            self._discard()

    async def __aenter__(self) -> A:
        await checkpoint()
        try:
            return self._for_async(await in_thread(self._begin))
        except BaseException:
            await in_thread(self._discard)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await checkpoint()
                await in_thread(self._end)
        finally:
            await in_thread(self._discard)


class atomic_write(WritingBlock[BinaryIO, AsyncFile]):
    """Write a file that is there whole or not at all: `with atomic_write(path) as f`, or `async with`.

    `f` is a binary file, and `f.name` the path under which it is being written: in the same directory, hidden, with
    the extension of *path*, so that `ffmpeg … f.name` does what it would do there. At the end of the block it is
    flushed, synced (fsync), verified, renamed over *path*, and the directory is synced: then it survives a power cut.
    If the block, *verify* or any of these steps raises, or the coroutine is cancelled, nothing is left and *path* is
    what it was. A death of the process leaves the hidden file alone.

    A file that is there is replaced; its permission bits are kept, and its owner and group as far as the system lets:
    root alone gives files away, and without its group the bits of the group are no more than everybody's. Its extended
    attributes are not; and a symbolic link is replaced, not what it leads to. *verify* is given the path of what was
    written; what it raises goes on, and for False VerifyFailed is raised. *mode* are other permission bits. Raises
    OSError, on recfs also of a limit (EDQUOT).

    >>> path = folder / "metadata.json"
    >>> with atomic_write(path) as f:
    ...     f.write(b"{}")
    2
    >>> with atomic_write(path, verify=lambda written: written.stat().st_size > 0):
    ...     pass
    Traceback (most recent call last):
        ...
    recfs.client.errors.VerifyFailed: ...metadata.json: what was written did not pass its verification
    >>> path.read_bytes(), [entry.name for entry in folder.iterdir()]
    (b'{}', ['metadata.json'])
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: Verify | None = None, mode: int | None = None) -> None:
        self._path = Path(path)
        self._verify = verify
        self._mode = mode

    def _begin(self) -> BinaryIO:
        path = self._path
        if path.name in ("", ".."):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return self._open(path.parent, path.name, self._mode)

    def _for_async(self, begun: BinaryIO) -> AsyncFile:
        return AsyncFile(begun)

    def _finish(self, draft: Draft) -> None:
        draft.prove(self._verify)
        draft.publish()


def open_folder(
    root: str | os.PathLike[str], parts: tuple[str, ...], *, make: bool = False, on_the_way: bool = False
) -> int:
    """Open a directory of a tree, name by name; no link below *root* is followed. Returns a descriptor.

    With *make* those that are missing are made, and what they were made in is synced. With *on_the_way* the descriptor
    is for reaching what is inside alone (O_PATH). Raises OSError: NotADirectoryError for a link.
    """
    way = _FOLDER if make else _FOLDER | os.O_PATH  # which a mount is not asked about
    folder = os.open(root, way if parts or on_the_way else _FOLDER)
    try:
        for number, part in enumerate(parts, 1):
            made = False
            if make:
                try:
                    os.mkdir(part, dir_fd=folder)
                    made = True
                except FileExistsError:
                    pass
            flags = way if on_the_way or number < len(parts) else _FOLDER
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
            try:
                if made:
                    os.fsync(folder)
            finally:
                above, folder = folder, below
                os.close(above)
    except BaseException:
        os.close(folder)
        raise
    return folder


__all__ = ["AsyncFile", "Draft", "Verify", "WritingBlock", "atomic_write", "is_draft", "open_folder", "rename_new"]
