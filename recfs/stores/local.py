"""The disk under the root: home tree, staging, trash. Blocking calls only; callers choose the thread.

Everything that moves between the areas moves by rename(2) within one file system. The home tree is changed only through
`apply`, which carries out a list of steps in order, tells for each whether it worked, and fsyncs the directories it
touched, so that a row may say "done" afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recfs.clock import boot_id
from recfs.core.bounds import MAX_INT
from recfs.errors import StoreError
from recfs.stores import obstacles, presence
from recfs.stores.beneath import Beneath
from recfs.stores.emptying import remove_files
from recfs.stores.lock import RootLock
from recfs.stores.removals import Removals
from recfs.stores.steps import Outcome, Step, Steps, can_chown, overrides_modes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from recfs.ports.rows import Content

PRIVATE = ".recfs"
TOP_LEVELS = (b"shared", b"users", b"temp")
LABEL_XATTR = "user.recfs.label"
"""On staging files: what the bytes are, so that they can be adopted without their row."""
MARK_XATTR = "user.recfs.generation"
"""On `users/`: which time the home tree is of (core/generation.py)."""

log = logging.getLogger("recfs.store")

_libc = ctypes.CDLL(None, use_errno=True)


def effective_capabilities() -> int:
    """CapEff of this process (capabilities(7), proc(5))."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


BALLAST = "ballast"
BALLAST_BYTES = 16 << 20
"""Room for some 10,000 rows; on a small disk, a 64th of it."""


@dataclass(frozen=True, slots=True)
class StagingFile:
    """A file found in staging: its id, what its label says, and its facts."""

    id: str
    label: bytes | None
    st_ino: int
    size_bytes: int


class LocalStore:
    """Paths and blocking operations below one root directory."""

    def __init__(self, root: Path) -> None:
        self.root = root = Path(os.path.realpath(root))
        self.private = root / PRIVATE
        self.catalogue_path = self.private / "catalogue.db"
        self.socket_path = self.private / "control.sock"
        self.log_path = self.private / "log"
        self.mount_note = self.private / "mounted"
        """Which mount the daemon serves (`mounting.OwnMount.note`): there while it runs, and when it has died."""
        self._home = os.fsencode(root)
        self._staging = os.fsencode(self.private / "staging")
        self._trash = os.fsencode(self.private / "trash")
        self._holding_area = os.fsencode(self.private / "limbo")
        self._lost = os.fsencode(self.private / "lost+found")
        self.lock = RootLock(root, self.private / "lock")
        self.removals = Removals(self.private)
        self.beneath = Beneath(self._home)
        self.foreign: list[str] = []
        """What stood in the way of the store's own directories, or among its files, and was left alone."""
        self.max_file_bytes = MAX_INT
        """Size of the largest file that the file system below takes; known when the store is open."""
        capabilities = effective_capabilities()
        self.gives_owners = can_chown(capabilities)
        """Whether files on the disk belong to their users; else all are the daemon's."""
        self.shows_attributes = self.gives_owners and overrides_modes(capabilities)
        """Whether files on the disk have just the mode and owner that their rows say."""
        self._steps = Steps(
            self.beneath, self._lost, lambda: self.sync_all(), capabilities
        )  # looked up late, for tests

    # --- life cycle ----------------------------------------------------------------------------------------------

    def open(self, lock_fd: int = -1) -> None:
        """Create what is missing, take the lock. Raises StoreError (with the remedy) or RootBusy.

        *lock_fd*: the open file of the lock, which an earlier daemon has left to this one; it is taken over.
        """
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=presence.ROOT_MODE, exist_ok=True)
            obstacles.require_own(self.private)
            self.private.mkdir(mode=0o700, exist_ok=True)
            for name in obstacles.AREAS:
                self._make_folder(self.private / name, 0o700)
            obstacles.require_inside(self.private)
            for top in TOP_LEVELS:
                self._make_folder(self.root / os.fsdecode(top), 0o755)
            self.lock.open(lock_fd)
        except OSError as error:
            raise StoreError(
                f"store {self.root}: cannot write to it ({error.strerror}: {error.filename}). "
                f"Give this user the directory (chown), or choose another with --root."
            ) from error
        try:
            self.lock.take()
            self._taken()
        except BaseException:
            self.close()  # or nobody in this process could open it again
            raise

    def _taken(self) -> None:
        if presence.is_exposed(self.root):
            log.warning(
                "store %s: users can enter it and work past the mount, its quotas and checksums: chmod 700 %s",
                self.root, self.root,
            )  # fmt: skip
        self.beneath.open((self._staging, self._trash, self._holding_area, self._lost))
        self.max_file_bytes = _largest(self.lock.fd)
        for folder in (self._home, os.fsencode(self.private)):
            self.beneath.sync(folder)

    def _make_folder(self, path: Path, mode: int) -> None:
        """Have a directory of the store's own; somebody's file in its place is kept. Raises OSError, StoreError."""
        try:
            path.mkdir(mode=mode)
        except FileExistsError:
            info = os.lstat(path)
            if stat.S_ISDIR(info.st_mode):
                return
            if stat.S_ISLNK(info.st_mode):
                raise StoreError(
                    f"store {self.root}: {path} is a symbolic link, and the store has to be on one file system. "
                    f"Remove the link; to have another disk there, mount that disk at the store's root."
                ) from None
            aside = self.private / f"foreign-{path.name}-{info.st_ino}"
            path.rename(aside)
            self._found_foreign(f"{path} was no directory; kept as {aside}")
            path.mkdir(mode=mode)

    def _found_foreign(self, what: str) -> None:
        if what not in self.foreign:
            self.foreign.append(what)
            log.warning("%s", what)

    def has_files(self) -> bool:
        """Whether anything lies in the home tree or in staging."""
        for folder in (self._staging, *(self.home([top]) for top in TOP_LEVELS)):
            with os.scandir(folder) as entries:
                if next(entries, None) is not None:
                    return True
        return False

    def tree_mark(self) -> bytes | None:
        """Which time the home tree is of; None where nothing tells."""
        try:
            return os.getxattr(self.home([b"users"]), MARK_XATTR)
        except OSError:
            return None

    def mark_tree(self, mark: bytes, *, durable: bool = False) -> bool:
        """Write down which time the home tree is of; False where it cannot be. Raises nothing. Blocking."""
        folder = self.home([b"users"])
        try:
            os.setxattr(folder, MARK_XATTR, mark)
            if durable:
                self.beneath.sync(folder)
        except OSError as error:
            log.debug("the home tree cannot be marked: %s", error)
            return False
        return True

    def trashed(self) -> set[int]:
        """The numbers that lie in the trash."""
        with os.scandir(self._trash) as entries:
            return {int(entry.name) for entry in entries if entry.name.isascii() and entry.name.isdigit()}

    def forget_mount(self) -> None:
        """The daemon's mount is gone."""
        with contextlib.suppress(OSError):
            self.mount_note.unlink()

    def close(self) -> None:
        """Give the lock back."""
        self.removals.close()
        self.beneath.close()
        self.lock.close()

    @staticmethod
    def boot_id() -> str:
        """What tells a reboot from a crash of the daemon alone (random(4))."""
        return boot_id()

    def identity(self) -> str:
        """What tells this root from a copy of it: a copy's files have other inode numbers."""
        return str(os.stat(self.private).st_ino)

    # --- paths ---------------------------------------------------------------------------------------------------

    def home(self, parts: Iterable[bytes]) -> bytes:
        """Local path of a mount path in the home tree."""
        return b"/".join((self._home, *parts))

    def staging(self, staging_id: str) -> bytes:
        """Local path of a staging file."""
        return self._staging + b"/" + staging_id.encode("ascii")

    def trash(self, gid: int) -> bytes:
        """Local path of a garbage entry in the trash."""
        return b"%s/%d" % (self._trash, gid)

    @property
    def holding_area(self) -> bytes:
        """Directory for entries that must make room before their own place is free."""
        return self._holding_area

    def lost(self, name: str) -> bytes:
        """Local path in lost+found."""
        return self._lost + b"/" + os.fsencode(name)

    def keep_lost(self, path: bytes, name: bytes) -> str:
        """Give a file another name, in lost+found, durably (link(2)); tells which. Blocking. Raises OSError.

        Done twice, it is as if done once.
        """
        with (
            self.beneath.folder(path) as (folder, plain),
            self.beneath.folder(self._lost + b"/" + name) as (lost, kept),
        ):
            info, free, count = os.stat(plain, dir_fd=folder, follow_symlinks=False), kept, 1
            while True:
                try:
                    os.link(plain, free, src_dir_fd=folder, dst_dir_fd=lost, follow_symlinks=False)
                    break
                except FileExistsError:
                    if os.stat(free, dir_fd=lost, follow_symlinks=False).st_ino == info.st_ino:
                        break
                count += 1
                free = b"%b.%d" % (kept, count)
        self.beneath.sync(self._lost)
        return os.fsdecode(free)

    # --- opening -------------------------------------------------------------------------------------------------

    def open_file(self, path: bytes, flags: int) -> int:
        """openat2(2) without following any symlink: the home tree may belong to users who could plant one."""
        return self.beneath.open_at(path, flags)

    def open_cached(self, path: bytes, flags: int) -> int | None:
        """`open_file`, only if the kernel can do it without waiting for the disk; None when it cannot."""
        return self.beneath.open_cached(path, flags)

    def rename(self, path: bytes, to: bytes) -> None:
        """rename(2) within the store."""
        self.beneath.rename(path, to)

    # --- space ---------------------------------------------------------------------------------------------------

    def space(self) -> os.statvfs_result:
        """statvfs(3) of the root."""
        return os.fstatvfs(self.beneath.fd)

    def hold_emergency_reserve(self) -> None:
        """Keep some room on the disk for the catalogue, for when others have filled it. Without room, nothing."""
        path = self.private / BALLAST
        disk = self.space()
        size = min(BALLAST_BYTES, disk.f_blocks * disk.f_frsize // 64)
        if disk.f_bavail * disk.f_frsize < 2 * size:
            return
        with contextlib.suppress(OSError):
            if os.stat(path).st_size >= size:
                return
        with contextlib.suppress(OSError), open(path, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def drop_emergency_reserve(self) -> bool:
        """Give that room up; False if there was none."""
        try:
            os.unlink(self.private / BALLAST)
        except OSError:
            return False
        return True

    def sync_all(self) -> None:
        """syncfs(2): everything written to this file system so far is on stable storage."""
        if _libc.syncfs(self.beneath.fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fsdecode(self._home))

    # --- staging -------------------------------------------------------------------------------------------------

    def make_staging(self, ids: Sequence[str]) -> list[int]:
        """Create staging files, open for reading and writing, their names durable. On failure none is left."""
        made: list[int] = []
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            made.extend(os.open(self.staging(each), flags, 0o600) for each in ids)
            self.beneath.sync(self._staging)
        except OSError:
            for fd, staging_id in zip(made, ids, strict=False):
                os.close(fd)
                os.unlink(self.staging(staging_id))
            raise
        return made

    def make_one_staging(self, staging_id: str) -> int:
        """Create one, like `make_staging`, but without waiting for the disk: see `sync_staging`."""
        return os.open(self.staging(staging_id), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def sync_staging(self) -> None:
        """Make the names in staging durable. Blocking."""
        self.beneath.sync(self._staging)

    def drop_staging(self, ids: Iterable[str]) -> None:
        """Remove staging files that were never used."""
        for staging_id in ids:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.staging(staging_id))

    def label(self, fd: int, label: bytes) -> bool:
        """Write on a staging file what its bytes are. Nothing where there are no user xattrs, and on a frozen file.

        False where it is too long for the file system (ext4 has room for some 4 KB).
        """
        try:
            os.setxattr(fd, LABEL_XATTR, label)
        except OSError as error:
            if error.errno not in (
                errno.EOPNOTSUPP,
                errno.ENOSPC,
                errno.E2BIG,
                errno.ERANGE,
                errno.EDQUOT,
                errno.EPERM,
            ):
                raise
            return error.errno not in (errno.ENOSPC, errno.E2BIG, errno.ERANGE)
        return True

    def scan_staging(self) -> dict[str, StagingFile]:
        """All staging files, by staging id. What is none is left alone, and told in `foreign`."""
        found: dict[str, StagingFile] = {}
        with os.scandir(self._staging) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                name = os.fsdecode(entry.name)
                if not (stat.S_ISREG(info.st_mode) and name.isascii() and name.isprintable()):
                    self._found_foreign(f"{os.fsdecode(entry.path)!a} is no staging file; left alone")
                    continue
                found[name] = StagingFile(name, self._label_of(entry.path), info.st_ino, info.st_size)
        return found

    @staticmethod
    def _label_of(path: bytes) -> bytes | None:
        try:
            return os.getxattr(path, LABEL_XATTR)
        except OSError:
            return None

    # --- the home tree -------------------------------------------------------------------------------------------

    def stat(self, path: bytes) -> os.stat_result | None:
        """lstat(2), or None where nothing is."""
        return self.beneath.stat(path)

    def find(self, st_ino: int) -> bytes | None:
        """Local path of the entry with this inode number in the home tree or the holding area. Walks everything."""
        for top in (*(self.home([name]) for name in TOP_LEVELS), self._holding_area):
            for path, number in self.beneath.walk(top):
                if number == st_ino:
                    return path
        return None

    def empty(self, path: bytes, st_ino: int | None, files: Sequence[Content]) -> None:
        """Remove files from a directory that has lost its name (`stores/emptying.py`). Raises OSError. Blocking."""
        remove_files(self.beneath, path, st_ino, files)

    def apply(self, steps: Sequence[Step], *, durable: bool = True) -> list[Outcome]:
        """Carry out *steps* in the home tree, in order (`stores/steps.py`). Raises nothing."""
        return self._steps.apply(steps, durable=durable)


def _largest(fd: int) -> int:
    """Size of the largest file of this file system: lseek(2) beyond it is EINVAL, and changes but a position."""
    least, most = 0, MAX_INT
    while least < most:
        middle = most - (most - least) // 2
        try:
            os.lseek(fd, middle, os.SEEK_SET)
        except OSError:
            most = middle - 1
        else:
            least = middle
    os.lseek(fd, 0, os.SEEK_SET)
    return least or MAX_INT
