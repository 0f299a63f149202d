"""The disk under the root: home tree, staging, trash. Blocking calls only; callers choose the thread.

Everything that moves between the areas moves by rename(2) within one file system. The home tree is changed only through
`apply`, which carries out a list of steps in order, tells for each whether it worked, and fsyncs the directories it
touched, so that a row may say "done" afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from recfs.clock import boot_id
from recfs.errors import RootBusy, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PRIVATE = ".recfs"
TOP_LEVELS = (b"shared", b"users", b"temp")
LABEL_XATTR = "user.recfs.label"
"""On staging files: what the bytes are, so that they can be adopted without their row."""

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2 = 437
_RESOLVE_NO_SYMLINKS, _RESOLVE_CACHED = 0x04, 0x20


_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER = 1 << 0, 1 << 1, 1 << 3


def effective_capabilities() -> int:
    """CapEff of this process (capabilities(7), proc(5))."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


class StepKind(Enum):
    """What `LocalStore.apply` can do to the home tree."""

    MKDIR = "mkdir"
    SYMLINK = "symlink"
    MOVE = "move"
    REMOVE = "remove"
    RMDIR = "rmdir"
    ATTRS = "attrs"


@dataclass(frozen=True, slots=True)
class Attrs:
    """What the row says of an entry; applied to its home counterpart."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the home tree. *path* and *to* are local paths."""

    kind: StepKind
    path: bytes
    to: bytes = b""
    attrs: Attrs | None = None
    home_ino: int | None = None
    """st_ino that *path* must have; anything else found there is left alone and the step fails."""
    symlink_target: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step: st_ino of the entry it left (0 if none), or the error number."""

    home_ino: int = 0
    error: int = 0
    warning: str = ""
    unsynced: int = 0
    """The step was carried out, but the fsync after it failed with this error number: a power cut may undo it."""


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
        self._home = os.fsencode(root)
        self._staging = os.fsencode(self.private / "staging")
        self._trash = os.fsencode(self.private / "trash")
        self._limbo = os.fsencode(self.private / "limbo")
        self._lost = os.fsencode(self.private / "lost+found")
        self._lock_fd = -1
        self._root_fd = -1
        self._openat2 = True
        capabilities = effective_capabilities()
        self._may_chown = bool(capabilities & _CAP_CHOWN)
        # Without the right to override permission bits, the daemon's own access is kept on disk whatever the row says.
        overrides = capabilities & _CAP_DAC_OVERRIDE and capabilities & _CAP_FOWNER
        self._own_access = (0, 0) if overrides else (0o600, 0o700)

    # --- life cycle ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Create what is missing, take the lock. Raises StoreError (with the remedy) or RootBusy."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.private.mkdir(mode=0o700, exist_ok=True)
            for name in ("staging", "trash", "limbo", "lost+found"):
                (self.private / name).mkdir(mode=0o700, exist_ok=True)
            for top in TOP_LEVELS:
                (self.root / os.fsdecode(top)).mkdir(mode=0o755, exist_ok=True)
            self._lock_fd = os.open(self.private / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"store {self.root}: cannot write to it ({error.strerror}: {error.filename}). "
                f"Give this user the directory (chown), or choose another with --root."
            ) from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock_fd, 64, 0).decode("ascii", "replace").strip()
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise RootBusy(
                f"store {self.root} is in use by another recfs daemon (process {holder or 'unknown'}). "
                f"Stop it with `recfs umount`, or use its mount."
            ) from error
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode("ascii"), 0)
        self._root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._sync_paths([self._home, os.fsencode(self.private)])

    def has_files(self) -> bool:
        """Whether anything lies in the home tree or in staging."""
        for folder in (self._staging, *(self.home([top]) for top in TOP_LEVELS)):
            with os.scandir(folder) as entries:
                if next(entries, None) is not None:
                    return True
        return False

    def close(self) -> None:
        """Give the lock back."""
        for fd in (self._root_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._root_fd = self._lock_fd = -1

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
    def limbo(self) -> bytes:
        """Directory for entries that must make room before their own place is free."""
        return self._limbo

    def lost(self, name: str) -> bytes:
        """Local path in lost+found."""
        return self._lost + b"/" + os.fsencode(name)

    # --- opening -------------------------------------------------------------------------------------------------

    def open_file(self, path: bytes, flags: int, *, cached: bool = False) -> int | None:
        """openat2(2) without following any symlink: the home tree may belong to users who could plant one.

        *cached*: only if the kernel can do it without waiting for the disk (RESOLVE_CACHED); None when it cannot.
        """
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        if self._openat2:
            resolve = _RESOLVE_NO_SYMLINKS | (_RESOLVE_CACHED if cached else 0)
            how = struct.pack("=QQQ", flags, 0, resolve)
            fd: int = _libc.syscall(_SYS_OPENAT2, -100, path, how, len(how))
            if fd >= 0:
                return fd
            number = ctypes.get_errno()
            if number not in (errno.ENOSYS, errno.EAGAIN, errno.EINVAL):
                raise OSError(number, os.strerror(number), os.fsdecode(path))
            self._openat2 = number != errno.ENOSYS
        return None if cached else os.open(path, flags)

    # --- space ---------------------------------------------------------------------------------------------------

    def space(self) -> os.statvfs_result:
        """statvfs(3) of the root."""
        return os.fstatvfs(self._root_fd)

    def hold_ballast(self) -> None:
        """Keep some room on the disk for the catalogue, for when others have filled it. Without room, nothing."""
        path = self.private / BALLAST
        disk = self.space()
        size = min(BALLAST_BYTES, disk.f_blocks * disk.f_frsize // 64)
        with contextlib.suppress(OSError):
            if os.stat(path).st_size >= size:
                return
        with contextlib.suppress(OSError), open(path, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def drop_ballast(self) -> bool:
        """Give that room up; False if there was none."""
        try:
            os.unlink(self.private / BALLAST)
        except OSError:
            return False
        return True

    def sync_all(self) -> None:
        """syncfs(2): everything written to this file system so far is on stable storage."""
        if _libc.syncfs(self._root_fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fsdecode(self._home))

    # --- staging -------------------------------------------------------------------------------------------------

    def make_staging(self, ids: Sequence[str]) -> list[int]:
        """Create staging files, open for reading and writing, their names durable. On failure none is left."""
        made: list[int] = []
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            made.extend(os.open(self.staging(each), flags, 0o600) for each in ids)
            self._sync_paths([self._staging])
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
        self._sync_paths([self._staging])

    def drop_staging(self, ids: Iterable[str]) -> None:
        """Remove staging files that were never used."""
        for staging_id in ids:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.staging(staging_id))

    def label(self, fd: int, label: bytes) -> None:
        """Write on a staging file what its bytes are. Ignored where there are no user xattrs, and on a frozen file."""
        try:
            os.setxattr(fd, LABEL_XATTR, label)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSPC, errno.E2BIG, errno.EDQUOT, errno.EPERM):
                raise

    def scan_staging(self) -> dict[str, StagingFile]:
        """Everything that lies in staging, by staging id."""
        found: dict[str, StagingFile] = {}
        with os.scandir(self._staging) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                name = os.fsdecode(entry.name)
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
        try:
            return os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def find(self, st_ino: int) -> bytes | None:
        """Local path of the entry with this inode number in the home tree or limbo. Walks everything."""
        for top in (*(self.home([name]) for name in TOP_LEVELS), self._limbo):
            for folder, dirs, files in os.walk(top):
                for name in (*dirs, *files):
                    path = folder + b"/" + name
                    if os.lstat(path).st_ino == st_ino:
                        return path
        return None

    def apply(self, steps: Sequence[Step], *, durable: bool = True) -> list[Outcome]:
        """Carry out *steps* in order, then fsync what they touched.

        A failing step does not stop the rest, except those that build on it: what should have made room, or arrived, or
        been made by it. They fail with ECANCELED.

        Raises nothing: what went wrong is in the outcomes.
        """
        outcomes: list[Outcome] = []
        touched: set[bytes] = set()
        failed: set[bytes] = set()
        for step in steps:
            try:
                if failed and _builds_on(step, failed):
                    raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
                outcomes.append(self._one(step))
            except OSError as error:
                outcomes.append(Outcome(error=error.errno or errno.EIO))
                failed.update((step.path, step.to or step.path))
            else:
                touched.add(os.path.dirname(step.path))
                if step.to:
                    touched.add(os.path.dirname(step.to))
        try:
            if durable and len(touched) > 8:
                self.sync_all()
            elif durable:
                self._sync_paths(touched)
        except OSError as error:
            return [replace(outcome, unsynced=error.errno or errno.EIO) for outcome in outcomes]
        return outcomes

    def _one(self, step: Step) -> Outcome:
        match step.kind:
            case StepKind.MKDIR:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step.path, 0o700)
                return self._dress(step.path, step.attrs)
            case StepKind.SYMLINK:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(step.path)
                os.symlink(step.symlink_target, step.path)
                return self._dress(step.path, step.attrs)
            case StepKind.MOVE:
                self._expect(step.path, step.home_ino)
                # Nothing of ours may be at the target: what was there has been moved away by an earlier step. A
                # stranger (put there past recfs) is kept beside it rather than overwritten.
                self._set_aside(step.to)
                os.rename(step.path, step.to)
                return self._dress(step.to, step.attrs)
            case StepKind.REMOVE:
                info = self.stat(step.path)
                if info is not None and step.home_ino is not None and info.st_ino != step.home_ino:
                    return Outcome(warning=f"{os.fsdecode(step.path)}: another file stands here; left alone")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(step.path)
                return Outcome()
            case StepKind.RMDIR:
                info = self.stat(step.path)
                if info is None or (step.home_ino is not None and info.st_ino != step.home_ino):
                    return Outcome()  # gone, and another has its name
                try:
                    os.rmdir(step.path)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    # Only strangers can be left in it: recfs's own entries were removed before their directory.
                    os.rename(step.path, self.lost(f"dir-{os.lstat(step.path).st_ino}"))
                    return Outcome(
                        warning=f"{os.fsdecode(step.path)} held files recfs does not know; kept in lost+found"
                    )
                return Outcome()
            case StepKind.ATTRS:
                self._expect(step.path, step.home_ino)
                return self._dress(step.path, step.attrs)

    def _expect(self, path: bytes, home_ino: int | None) -> None:
        found = os.lstat(path).st_ino
        if home_ino is not None and found != home_ino:
            raise FileNotFoundError(errno.ENOENT, "another file stands here", path)

    def _set_aside(self, path: bytes) -> None:
        info = self.stat(path)
        if info is not None:
            os.rename(path, self.lost(f"{info.st_ino}-{os.fsdecode(os.path.basename(path))[:100]}"))

    def _dress(self, path: bytes, attrs: Attrs | None) -> Outcome:
        info = os.lstat(path)
        if attrs is None:
            return Outcome(info.st_ino)
        link = stat.S_ISLNK(info.st_mode)
        if self._may_chown and (info.st_uid, info.st_gid) != (attrs.uid, attrs.gid):
            os.chown(path, attrs.uid, attrs.gid, follow_symlinks=False)
        if not link:
            os.chmod(path, attrs.mode & 0o7777 | self._own_access[stat.S_ISDIR(info.st_mode)])
        if not stat.S_ISDIR(info.st_mode):
            os.utime(path, ns=(attrs.atime_ns, attrs.mtime_ns), follow_symlinks=False)
        return Outcome(info.st_ino)

    def _sync_paths(self, folders: Iterable[bytes]) -> None:
        for folder in folders:
            try:
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _builds_on(step: Step, failed: set[bytes]) -> bool:
    """Whether *step* concerns, or lies below, a path at which an earlier step failed."""
    for path in (step.path, step.to):
        while len(path) > 1:
            if path in failed:
                return True
            path = os.path.dirname(path)
    return False
