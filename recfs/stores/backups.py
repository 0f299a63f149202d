"""A directory with backups of the catalogue, on the store's disk or another. Blocking.

A backup is there when its header is, which is renamed into its place last, after the bytes: whoever dies before leaves
files that are no backup, and that the next one clears away. It knows them by the header, which lies there under another
name until then: other bytes without a header are somebody's, who put them there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from recfs.core.naming import show_name
from recfs.core.upkeep.backups import FOLDER, HEADER, Header, Kept, header_of, read_header
from recfs.errors import OutOfSpace, StoreError
from recfs.stores.local import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAKING = ".making-"
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupFolder:
    """The directory, and what is written there."""

    path: Path
    is_own: bool
    """Whether it is the store's own, which is made where it is missing; of another the disk may not have come up."""

    def require(self) -> None:
        """Have the directory. Raises StoreError."""
        if self.is_own:
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        try:
            if not stat.S_ISDIR(os.stat(self.path).st_mode):
                raise StoreError(f"{show_name(str(self.path))}, for backups, is no directory")
        except OSError as error:
            raise StoreError(
                f"backups go to {show_name(str(self.path))}, which cannot be used ({error.strerror}): is its disk"
                f" mounted? Otherwise make that directory, or set another [backup] directory"
            ) from error

    def trouble(self, needed_bytes: int, min_free: int) -> str | None:
        """What would keep a backup of so many bytes from being made now; None where nothing is seen. Makes nothing."""
        if self.is_own and not self.path.exists():
            return None
        try:
            self.require()
            if not os.access(self.path, os.W_OK | os.X_OK, effective_ids=True):
                return f"backups go to {show_name(str(self.path))}, and nothing can be written there"
            self.admit(needed_bytes, min_free)
        except (StoreError, OutOfSpace, OSError) as error:
            return str(error)
        return None

    def admit(self, needed_bytes: int, min_free: int) -> None:
        """Raise OutOfSpace where there is no room for so many bytes above the reserve *min_free*."""
        disk = os.statvfs(self.path)
        left = disk.f_bavail * disk.f_frsize - min_free
        if needed_bytes > left:
            raise OutOfSpace(
                f"no room for a backup of the catalogue in {show_name(str(self.path))}: it takes {needed_bytes} bytes,"
                f" and {max(left, 0)} are left above min_free"
            )

    @contextmanager
    def making(self, store: str) -> Iterator[Path]:
        """The name of a file that is being made; gone afterwards, unless it was renamed. Raises OSError."""
        path = self._beside(store)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def _beside(self, store: str) -> Path:
        return self.path / f"{_MAKING}{store[:8]}-{os.urandom(8).hex()}"

    def clear(self, store: str) -> int:
        """Remove what was being made, or removed, when whoever did that died; how many files there were.

        Only of this *store*, whose lock the caller has: others may keep theirs in the same directory.
        """
        names = set(os.listdir(self.path))
        begun = [name for name in names if name.startswith(f"{_MAKING}{store[:8]}-")]
        headers = [header for name in begun if (header := self._header(name, strict=False)) is not None]
        halves = [each.name for each in headers if each.name in names and header_of(each.name) not in names]
        begun = halves + begun  # in this order: the latter tell of the former
        for name in begun:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path / name)
        return len(begun)

    def has(self, stem: str) -> bool:
        """Whether anything has a name that begins so."""
        return any(name.split(".", 1)[0] == stem for name in os.listdir(self.path))

    def put(self, made: Path, header: Header) -> None:
        """Make a file that was written to its end, and is durable, a backup. Raises OSError."""
        with self.making(header.contents.store) as beside:
            with open(beside, "wb") as file:
                file.write(header.to_json())
                sync(file)
            self._sync()
            os.rename(made, self.path / header.name)
            try:
                self._sync()
                os.rename(beside, self.path / header_of(header.name))
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(self.path / header.name)
                raise
        self._sync()

    def kept(self, store: str | None = None, *, all_of_it: bool = False) -> list[Kept]:
        """The backups there, oldest first; *store*: of that one only. Empty where there is no directory.

        Raises OSError, *all_of_it* also where a header may not be read: else what it tells of is left out.
        """
        try:
            names = set(os.listdir(self.path))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            header = self._header(name, strict=all_of_it) if name.endswith(HEADER) else None
            if header is not None and store in (None, "", header.contents.store) and header_of(header.name) == name:
                found.append(Kept(header, str(self.path), self._damage(header)))
        return sorted(found, key=lambda each: each.header.order)

    def _header(self, name: str, *, strict: bool) -> Header | None:
        try:
            with open(self.path / name, "rb", opener=_at_once) as file:
                is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                return read_header(file.read(_MAX_HEADER_BYTES)) if is_file else None
        except PermissionError:
            if strict:
                raise
            return None
        except OSError:
            return None

    def _damage(self, header: Header) -> str | None:
        try:
            info = os.stat(self.path / header.name, follow_symlinks=False)
        except OSError as error:
            return f"its file cannot be read: {error.strerror}"
        if not stat.S_ISREG(info.st_mode):
            return "it is no file"
        return (
            None if info.st_size == header.size_bytes else f"it has {info.st_size:,} bytes, not {header.size_bytes:,}"
        )

    def remove(self, header: Header) -> None:
        """Remove a backup: first what says that it is one. Raises OSError."""
        beside = self._beside(header.contents.store)  # until the bytes are gone it says what they were
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path / header_of(header.name), beside)
        for path in (self.path / header.name, beside):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._sync()

    def _sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _at_once(path: str, flags: int) -> int:
    """Open what may be a FIFO, by whomever, and not wait for who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def backup_folder(root: Path, directory: Path | None) -> BackupFolder:
    """Where the backups of the store at *root* lie: in *directory*, if one is configured."""
    return BackupFolder(directory or root / PRIVATE / FOLDER, is_own=directory is None)


def sync(file: BinaryIO) -> None:
    """Have what was written to a file on stable storage, and out of the page cache. Raises OSError."""
    file.flush()
    os.fsync(file.fileno())
    with contextlib.suppress(OSError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # files that users read are worth more there


__all__ = ["BackupFolder", "backup_folder", "sync"]
