"""What a power cut leaves: what was synced, and of the rest some.

The model is a journalling file system (ext4, XFS) at its most forgetful:
- a file's bytes and size are those of its last fsync (or syncfs). Of what was written since, nothing is left, or (torn)
  half of it made it;
- names and attributes (mode, owner, mtime) are journalled in the order of their changes. fsync of a directory commits
  the journal up to the last change of that directory, and no further; fsync of a file commits its own attributes. What
  comes later is lost, or all there, or (some) there up to a point in between;
- the catalogue's files are what SQLite wrote into them (sqlitefiles.py): what it, or recfs, synced, and of the rest
  nothing, everything, or (torn) any sectors.
Inode numbers stay what they were, as on a real disk: files are kept alive by links beside the store, directories are
moved and not made anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from recfs.stores.local import MARK_XATTR

from .faults import Faults

LABEL = "user.recfs.label"
PRIVATE = ".recfs"
UNKEPT = ("catalogue.db-shm", "lock")
"""Neither is read again after a power cut."""
SECTOR_BYTES = 512
NAMING = {"rename": 2, "unlink": 1, "mkdir": 1, "rmdir": 1, "symlink": 2, "create": 1}
"""Effects that change names, and how many of their arguments are paths."""
DRESSING = ("chmod", "chown", "utime", "setxattr")

_rename = os.rename  # not that of `Faults`

Kept = Literal["none", "some", "all"]
"""How much of what was journalled after the last commit is there."""


class Dress(NamedTuple):
    """What a journal holds of an inode."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    mark: bytes | None = None
    """Of a directory: the attribute that tells which time the tree is of."""


@dataclass(frozen=True)
class Durable:
    """A file as the disk has it."""

    content: bytes = b""
    label: bytes | None = None


@dataclass(frozen=True)
class Journal:
    """Names and attributes at one moment."""

    names: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Relative path → (inode number, st_mode); parents first."""
    dressed: dict[int, Dress] = field(default_factory=dict)


@dataclass
class Book:
    """A file of the catalogue: what is synced, and the writes since."""

    durable: bytes = b""
    exists: bool = False
    """Whether its name would survive."""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, bytes) of each write, (size, None) of each truncation."""

    def sync(self) -> None:
        """Everything written so far is durable."""
        self.durable, self.since, self.exists = self.after(lambda: True), [], True

    def after(self, kept: Any) -> bytes:
        """The file with those of the later writes, sector by sector, that *kept* lets be there."""
        content = bytearray(self.durable)
        for place, data in self.since:
            if data is None:
                if kept():
                    content[place:] = bytes(max(0, place - len(content)))
                continue
            for start in range(0, len(data), SECTOR_BYTES):
                if kept():
                    part = data[start : start + SECTOR_BYTES]
                    content.extend(bytes(max(0, place + start - len(content))))
                    content[place + start : place + start + len(part)] = part
        return bytes(content)


@dataclass
class Disk:
    """Watches the system calls of one store, and can cut its power."""

    root: Path
    beside: Path
    committed: Journal = field(default_factory=Journal)
    later: list[tuple[Journal, frozenset[bytes]]] = field(default_factory=list)
    """The journal after each change since, with the directories that it was a change of."""
    files: dict[int, Durable] = field(default_factory=dict)
    books: dict[str, Book] = field(default_factory=dict)
    _kept: set[int] = field(default_factory=set)
    """Inode numbers of the files that have a link beside the store."""

    def __post_init__(self) -> None:
        (self.beside / "directories").mkdir(parents=True)
        self.sync_all()

    def attach(self, faults: Faults) -> None:
        """Watch a store from now on; it was started with `books_watched`."""
        assert faults.books_watched
        faults.observers.append(self.watch)
        faults.rmdir = self.keep_directory

    def detach(self, faults: Faults) -> None:
        """Look no longer."""
        faults.observers.clear()
        faults.rmdir = None

    def keep_directory(self, path: str | bytes) -> None:
        """rmdir(2), but that the directory goes where it can be had back from, as itself."""
        if os.listdir(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        _rename(path, os.fsencode(self.beside / "directories" / str(os.stat(path).st_ino)))

    # --- watching ------------------------------------------------------------------------------------------------

    def watch(self, name: str, args: tuple[Any, ...]) -> None:
        """An observer for `Faults`."""
        if name == "sync_all":
            self.sync_all()
        elif name in ("fsync", "fdatasync"):
            path = os.readlink(f"/proc/self/fd/{args[0]}")
            if self._is_book(path):
                self.books.setdefault(os.path.basename(path), Book()).sync()
            elif stat.S_ISDIR(os.fstat(args[0]).st_mode):
                self._commit(os.fsencode(path))
            else:
                self._sync_file(f"/proc/self/fd/{args[0]}")
        elif name in NAMING:
            changed = args[1:2] if name == "symlink" else args[: NAMING[name]]
            self._log(frozenset(os.path.dirname(os.fsencode(path)) for path in changed))
        elif name in DRESSING:
            path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else args[0]
            self._log(frozenset([os.fsencode(path)]))
        elif name.startswith("sqlite-"):
            book = self.books.setdefault(os.path.basename(args[0]), Book())
            if name == "sqlite-sync":
                if not book.exists:  # SQLite syncs the directory with the first sync of a file in it
                    self._forget_removed_books()
                book.sync()
            else:
                book.since.append((args[1], args[2] if name == "sqlite-write" else None))

    def _is_book(self, path: str) -> bool:
        return os.path.basename(path).startswith("catalogue.db") and os.path.dirname(path) == str(self.root / PRIVATE)

    def sync_all(self) -> None:
        """syncfs(2)."""
        self.committed, self.later = self._look(), []
        for path, (_, mode) in self.committed.names.items():
            if stat.S_ISREG(mode):
                self._sync_file(str(self.root / path))
        for path in (self.root / PRIVATE).glob("catalogue.db*"):
            if path.name not in UNKEPT:
                self.books[path.name] = Book(path.read_bytes(), exists=True)

    def _sync_file(self, path: str) -> None:
        with open(path, "rb") as file:
            label = os.getxattr(file.fileno(), LABEL) if LABEL in os.listxattr(file.fileno()) else None
            info = os.fstat(file.fileno())
            self.files[info.st_ino] = Durable(file.read(), label)
            self._dress(info.st_ino, _dress(path, info))

    def _dress(self, ino: int, dress: Dress) -> None:
        """The inode's attributes are durable: in what is committed, and in every later moment that has older ones."""
        for journal in (self.committed, *(journal for journal, _ in self.later)):
            journal.dressed[ino] = dress

    def _log(self, folders: frozenset[bytes]) -> None:
        self.later.append((self._look(), folders))

    def _commit(self, folder: bytes) -> None:
        """fsync of a directory: up to its last change."""
        if folder == os.fsencode(self.root / PRIVATE):
            self._forget_removed_books()
        for index in range(len(self.later) - 1, -1, -1):
            if folder in self.later[index][1]:
                self.committed = self.later[index][0]
                del self.later[: index + 1]
                return

    def _forget_removed_books(self) -> None:
        for name in list(self.books):
            if not (self.root / PRIVATE / name).exists():
                del self.books[name]

    def _look(self) -> Journal:
        found = Journal()
        folders = [("", str(self.root))]
        for above, folder in folders:  # which grows
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # a thread may be at work
                for entry in entries:
                    name, path = f"{above}{entry.name}", entry.path
                    if entry.name in UNKEPT or self._is_book(path):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        info = entry.stat(follow_symlinks=False)
                        if stat.S_ISDIR(info.st_mode):
                            folders.append((f"{name}/", path))
                        elif info.st_ino not in self._kept:
                            os.link(path, self.beside / str(info.st_ino), follow_symlinks=False)
                            self._kept.add(info.st_ino)
                        found.names[name] = (info.st_ino, info.st_mode)
                        found.dressed[info.st_ino] = _dress(path, info)
        return found

    # --- cutting -------------------------------------------------------------------------------------------------

    def cut(self, *, torn: bool, kept: Kept, seed: int = 0) -> None:
        """Leave what a power cut leaves. The store must not be open."""
        chance = random.Random(seed)
        moments = [self.committed, *(journal for journal, _ in self.later)]
        now = moments[{"none": 0, "some": chance.randrange(len(moments)), "all": -1}[kept]]
        directories = self.beside / "directories"
        for folder, dirs, files in os.walk(self.root, topdown=False):
            for name in files:
                os.unlink(os.path.join(folder, name))
            for name in dirs:
                path = os.path.join(folder, name)
                if os.path.islink(path):
                    os.unlink(path)
                elif path != str(self.root / PRIVATE):
                    os.rename(path, directories / str(os.stat(path).st_ino))
        for path, (ino, mode) in now.names.items():
            target = self.root / path
            if stat.S_ISDIR(mode):
                if (directories / str(ino)).exists():
                    os.rename(directories / str(ino), target)
                elif path != PRIVATE:
                    target.mkdir(mode=stat.S_IMODE(mode))
            else:
                os.link(self.beside / str(ino), target, follow_symlinks=False)
                if stat.S_ISREG(mode):
                    self._forget(target, self.files.get(ino, Durable()), torn=torn)
        for path, (ino, _) in reversed(now.names.items()):  # a directory's own after what is done in it
            _undress(self.root / path, now.dressed[ino])
        self._leave_books(torn=torn, kept=kept, chance=chance)

    def _leave_books(self, *, torn: bool, kept: Kept, chance: random.Random) -> None:
        for name, book in self.books.items():
            if book.exists or (kept == "all" and not torn):
                share = 0.5 if torn else float(kept == "all")
                content = book.after(lambda share=share: chance.random() < share)
                (self.root / PRIVATE / name).write_bytes(content)

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


def _dress(path: str | Path, info: os.stat_result) -> Dress:
    mark = None
    if stat.S_ISDIR(info.st_mode):
        with contextlib.suppress(OSError):
            mark = os.getxattr(path, MARK_XATTR)
    return Dress(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, mark)


def _undress(path: Path, dress: Dress) -> None:
    """Give an inode the attributes that the journal has."""
    info = path.lstat()
    if (info.st_uid, info.st_gid) != (dress.uid, dress.gid):
        os.chown(path, dress.uid, dress.gid, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return
    os.chmod(path, dress.mode)
    if stat.S_ISDIR(info.st_mode):
        with contextlib.suppress(OSError):
            os.removexattr(path, MARK_XATTR)
        if dress.mark is not None:
            os.setxattr(path, MARK_XATTR, dress.mark)
    os.utime(path, ns=(info.st_atime_ns, dress.mtime_ns), follow_symlinks=False)
