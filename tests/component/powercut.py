"""What a power cut leaves: only what was synced.

The model is a journalling file system (ext4, XFS) at its most forgetful: a file's bytes, size and attributes are those
of its last fsync (or syncfs); names are those of the last fsync of any directory, which commits the journal; the
catalogue's log ends where it was last fsynced. Data that was not synced is lost, or (torn) half of it made it.
Inode numbers stay what they were, as on a real disk: files are kept alive by links beside the store, directories are
moved and not made anew.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LABEL = "user.recfs.label"
BOOKS = ("catalogue.db", "catalogue.db-wal", "catalogue.db-shm", "lock")


@dataclass(frozen=True)
class Durable:
    """A file as the disk has it."""

    content: bytes = b""
    label: bytes | None = None


@dataclass
class Disk:
    """Watches the system calls of one store, and can cut its power."""

    root: Path
    beside: Path
    names: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Relative path → (inode number, st_mode), as of the last directory fsync; parents first."""
    files: dict[int, Durable] = field(default_factory=dict)
    books: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.beside.mkdir()
        self.sync_all()
        self.books = {name: self._book(name) for name in BOOKS[:2]}

    # --- watching ------------------------------------------------------------------------------------------------

    def watch(self, name: str, args: tuple[Any, ...]) -> None:
        """An observer for `Faults`."""
        if name == "sync_all":
            self.sync_all()
        elif name in ("fsync", "fdatasync"):
            path = os.readlink(f"/proc/self/fd/{args[0]}")
            if path.endswith("catalogue.db-wal"):
                self.books["catalogue.db-wal"] = Path(path).read_bytes()
            elif stat.S_ISDIR(os.fstat(args[0]).st_mode):
                self._sync_names()
            else:
                self._sync_file(f"/proc/self/fd/{args[0]}")

    def sync_all(self) -> None:
        """syncfs(2)."""
        self._sync_names()
        for path, (_, mode) in self.names.items():
            if stat.S_ISREG(mode):
                self._sync_file(str(self.root / path))
        self.books["catalogue.db-wal"] = self._book("catalogue.db-wal")

    def _book(self, name: str) -> bytes:
        path = self.root / ".recfs" / name
        return path.read_bytes() if path.exists() else b""

    def _sync_file(self, path: str) -> None:
        with open(path, "rb") as file:
            label = os.getxattr(file.fileno(), LABEL) if LABEL in os.listxattr(file.fileno()) else None
            self.files[os.fstat(file.fileno()).st_ino] = Durable(file.read(), label)

    def _sync_names(self) -> None:
        self.names = {}
        for folder, dirs, files in os.walk(self.root):
            for name in (*dirs, *files):
                path = Path(folder) / name
                if path.parent.name == ".recfs" and name in BOOKS:
                    continue
                info = path.lstat()
                self.names[str(path.relative_to(self.root))] = (info.st_ino, info.st_mode)
                kept = self.beside / str(info.st_ino)
                if not stat.S_ISDIR(info.st_mode) and not os.path.lexists(kept):
                    os.link(path, kept, follow_symlinks=False)

    # --- cutting -------------------------------------------------------------------------------------------------

    def cut(self, *, torn: bool, names_kept: bool) -> None:
        """Leave what a power cut leaves. The store must not be open."""
        if names_kept:
            self._sync_names()
        directories = self.beside / "directories"
        directories.mkdir()
        for folder, dirs, files in os.walk(self.root, topdown=False):
            for name in files:
                if not (Path(folder).name == ".recfs" and name in BOOKS):
                    os.unlink(os.path.join(folder, name))
            for name in dirs:
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    os.unlink(path)
                elif path != str(self.root / ".recfs"):
                    os.rename(path, directories / str(os.stat(path).st_ino))
        for path, (ino, mode) in self.names.items():
            target = self.root / path
            if stat.S_ISDIR(mode):
                if (directories / str(ino)).exists():
                    os.rename(directories / str(ino), target)
                elif path != ".recfs":
                    target.mkdir(mode=stat.S_IMODE(mode))
            else:
                os.link(self.beside / str(ino), target, follow_symlinks=False)
                if stat.S_ISREG(mode):
                    self._forget(target, self.files.get(ino, Durable()), torn=torn)
        for name in BOOKS[:2]:
            (self.root / ".recfs" / name).write_bytes(self.books[name])
        (self.root / ".recfs" / "catalogue.db-shm").unlink(missing_ok=True)

    @staticmethod
    def _forget(path: Path, durable: Durable, *, torn: bool) -> None:
        now = path.read_bytes()
        if now == durable.content:
            return
        if torn:
            half = len(now) // 2
            content = now[:half] + durable.content[half:].ljust(len(now) - half, b"\0")[: len(now) - half]
        else:
            content = durable.content
            if LABEL in os.listxattr(path):
                os.removexattr(path, LABEL)
            if durable.label is not None:
                os.setxattr(path, LABEL, durable.label)
        path.write_bytes(content)
