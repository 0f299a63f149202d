"""The mount point: clearing a dead mount, mount options, unmounting. Knows the mount table, nothing of the store."""

from __future__ import annotations

import ctypes
import enum
import errno
import json
import logging
import os
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from recfs.clock import boot_id
from recfs.core.upkeep.mount_points import lines_of
from recfs.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recfs.config import Config

log = logging.getLogger("recfs.daemon")

FUSE_CONF = Path("/etc/fuse.conf")
MOUNTINFO = Path("/proc/self/mountinfo")
SUBTYPE = "recfs"
KIND = f"fuse.{SUBTYPE}"
AUTOMOUNT = "autofs"
"""What lies on a mount point that is mounted when somebody comes (x-systemd.automount), and stays below the mount."""


def fuse_options(config: Config) -> set[str]:
    """Mount options (fuse(8)). `allow_other` where root or /etc/fuse.conf permits it, unless the config decides."""
    # A comma would end it, and a backslash makes it one that does not (fuse_opt_parse, libfuse). The source is what
    # `mount -a` knows a line of /etc/fstab by.
    source = str(config.root).replace("\\", "\\\\").replace(",", "\\,")
    options = {"default_permissions", f"fsname={source}", f"subtype={SUBTYPE}"}
    if config.allow_other is True or (config.allow_other == "auto" and may_allow_other()):
        options.add("allow_other")
    return options


def may_allow_other() -> bool:
    """Whether other users may be let in."""
    if os.geteuid() == 0:
        return True
    try:
        lines = FUSE_CONF.read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def prepare_mountpoint(mountpoint: Path, root: Path) -> None:
    """Clear a dead mount of ours, and make sure the directory is there, free and empty. Raises MountError."""
    real_root = Path(os.path.realpath(root))
    if mountpoint.is_relative_to(real_root) or real_root.is_relative_to(mountpoint):
        raise MountError(f"{mountpoint} and the store {real_root} lie inside one another; keep them apart")
    end_stuck(real_root)
    kind = mounted_type(mountpoint)
    if kind is not None and kind != AUTOMOUNT:
        if kind != KIND:
            raise MountError(f"{mountpoint} is in use: a {kind} file system is mounted there")
        try:
            os.statvfs(mountpoint)  # always asks the daemon; stat(2) of the top may be answered from the kernel's cache
        except OSError:
            log.info("clearing the dead mount at %s", mountpoint)
            detach(mountpoint)
        else:
            raise MountError(f"{mountpoint} already has a recfs mounted; `recfs umount {mountpoint}` ends it")
    try:
        if any(mountpoint.iterdir()):
            raise MountError(
                f"{mountpoint} is not empty: a mount would hide what is in it. Move it away or choose another."
            )
    except OSError as error:
        raise MountError(
            f"{mountpoint} cannot be used as a mount point: {error.strerror}; it has to be an empty directory"
        ) from error


STUCK_S = 10.0
"""In which a killed daemon has to end once nothing keeps it in the kernel any more."""
_MNT_FORCE = 1


def end_stuck(root: Path) -> None:
    """Let a killed daemon of this store end that the kernel keeps. Raises MountError if it stays.

    A thread of it that was telling the kernel of a change waits there for a lock of a directory or page, and whoever
    has that lock waits for an answer of the daemon. So neither ever ends, nor does the mount, and calls on it hang.
    Aborting the connection (umount2(2), MNT_FORCE) fails what waits for answers.
    """
    private = root / ".recfs"
    try:
        pid = int((private / "lock").read_text("ascii"))
    except (OSError, ValueError):
        return
    if not is_stuck(pid):
        return
    point = left_by(private / "mounted")
    log.warning("the daemon that was killed (process %d) cannot end before its mount %s does; ending that", pid, point)
    deadline = time.monotonic() + STUCK_S
    while is_stuck(pid):
        if point is not None:
            _libc.umount2(os.fsencode(point), _MNT_FORCE)
        if time.monotonic() > deadline:
            raise MountError(
                f"process {pid}, a recfs that was killed, is kept by the kernel, and its mount with it: "
                f"run `umount --force {point or 'its mount point'}` as root"
            )
        time.sleep(0.02)


def abort(mountpoint: Path) -> None:
    """Fail all requests of the mount there, which nobody answers any more, and those to come. Raises nothing."""
    _libc.umount2(os.fsencode(mountpoint), _MNT_FORCE)
    detach(mountpoint)


def is_stuck(pid: int) -> bool:
    """Whether a process was killed, and threads of it are still in the kernel (proc_pid_stat(5), state Z)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) > 1
    except (OSError, IndexError):
        return False


class Line(NamedTuple):
    """A line of /proc/self/mountinfo (proc_pid_mountinfo(5)), as far as it matters here."""

    mount_id: int
    device: bytes
    """Of the file system, as major:minor."""
    point: bytes
    kind: str


def _lines() -> list[Line]:
    found = []
    for line in lines_of(MOUNTINFO.read_bytes()):
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        found.append(Line(int(fields[0]), fields[2], _unescape(fields[4]), os.fsdecode(after.split(b" ")[0])))
    return found


def mounted_type(mountpoint: Path) -> str | None:
    """File system type mounted exactly there, on top of others; None if nothing is."""
    top = _top(os.fsencode(mountpoint))
    return None if top is None else top.kind


def _top(point: bytes) -> Line | None:
    return next((line for line in reversed(_lines()) if line.point == point), None)


def _unescape(path: bytes) -> bytes:
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        path = path.replace(code, char)
    return path


_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW, _AT_NO_AUTOMOUNT, _AT_STATX_DONT_SYNC = 0x100, 0x800, 0x4000
_STATX_MNT_ID_UNIQUE = 0x4000
_MASK, _MNT_ID = struct.Struct("=I"), struct.Struct("=Q")
_MNT_ID_OFFSET = 0x90
_libc = ctypes.CDLL(None, use_errno=True)


def _unique_id(point: bytes) -> int | None:
    """The number of the mount on top at *point*, which is never given to another (statx(2), since Linux 6.8).

    None where there is none, or nobody knows. Asks no daemon.
    """
    answer = ctypes.create_string_buffer(256)
    flags = _AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT | _AT_STATX_DONT_SYNC
    try:
        if _libc.statx(_AT_FDCWD, point, flags, _STATX_MNT_ID_UNIQUE, answer) != 0:
            return None
    except AttributeError:  # an old C library
        return None
    if not _MASK.unpack_from(answer)[0] & _STATX_MNT_ID_UNIQUE:
        return None
    return int(_MNT_ID.unpack_from(answer, _MNT_ID_OFFSET)[0])


class Detached(enum.Enum):
    """How a mount went."""

    IDLE = "idle"
    """Nothing in it was open."""
    BUSY = "busy"
    """Lazily: what is open stays so until it is closed."""
    ABSENT = "absent"
    """It was not there."""


class OwnMount:
    """The mount that this process made: known by its numbers, for its directory, or one above, may be renamed.

    Those of the mount table are soon given to others. Where the kernel has a number that is not, that one decides; else
    only what is still where it was mounted is taken for ours.
    """

    def __init__(self, asked: Path) -> None:
        self.point = asked
        """Where it was when last looked at."""
        self._known: tuple[int, bytes] | None = None
        self._unique: int | None = None

    def identify(self) -> None:
        """Call right after mounting: what is on top there is ours."""
        top = _top(os.fsencode(self.point))
        if top is not None and top.kind == KIND:
            self._known, self._unique = (top.mount_id, top.device), _unique_id(top.point)

    def told(self) -> dict[str, object]:
        """Which mount it is, for another process of this boot (`identified`); nothing where that is not known."""
        if self._known is None:
            return {}
        number, device = self._known
        known = {"point": os.fsdecode(self.point), "mount_id": number, "device": device.decode("ascii")}
        return known | {"unique": self._unique, "boot": boot_id()}

    @classmethod
    def identified(cls, told: Mapping[str, Any]) -> OwnMount:
        """The mount that `told` told of. Raises KeyError, ValueError or TypeError where it is something else."""
        own = cls(Path(told["point"]))
        own._known = (int(told["mount_id"]), str(told["device"]).encode("ascii"))
        own._unique = told["unique"]
        return own

    def note(self, file: Path) -> None:
        """Write down which mount it is: if this process dies, others find it by that (`left_by`)."""
        told = self.told()
        if not told:
            return
        try:
            with _plain_file(file, os.O_WRONLY | os.O_CREAT) as note:
                note.truncate()
                note.write(json.dumps(told).encode("ascii"))
        except OSError as error:  # a full disk, say: who names the mount point finds it all the same
            log.debug("%s: %s", file, error.strerror)

    def look(self) -> Path:
        """Where it is now; where it was, if it is gone."""
        self.is_there()
        return self.point

    def place(self) -> Path | None:
        """Where it is now; None if it is gone."""
        return self.point if self.is_there() else None

    def is_there(self) -> bool:
        """Whether it is still mounted, in the mount namespace of this process."""
        if self._known is None:
            return mounted_type(self.point) == KIND
        lines = _lines()
        for line in lines:
            if (line.mount_id, line.device) == self._known and self._is_ours(line, lines):
                self.point = Path(os.fsdecode(line.point))
                return True
        return False

    def _is_ours(self, line: Line, lines: list[Line]) -> bool:
        if line.kind != KIND:
            return False
        if self._unique is None:
            return line.point == os.fsencode(self.point)
        if next(each for each in reversed(lines) if each.point == line.point) is not line:
            return line.point == os.fsencode(
                self.point
            )  # something lies over it, and nothing is asked of what is below
        return _unique_id(line.point) == self._unique

    def detach(self) -> Detached:
        """Take it away, wherever it is by now, and nothing else that is mounted in its place."""
        if self._known is None:
            return detach(self.point)
        if not self.is_there():
            return Detached.ABSENT
        top = _top(os.fsencode(self.point))
        if top is not None and top.mount_id != self._known[0]:
            log.error("cannot unmount %s: a %s file system is mounted over it", self.point, top.kind)
            return Detached.ABSENT
        return detach(self.point)


def detach(mountpoint: Path) -> Detached:
    """Take the mount away, lazily if it is busy."""
    complaint = ""
    for extra, how in (([], Detached.IDLE), (["-z"], Detached.BUSY)):
        done = subprocess.run(
            ["fusermount3", "-u", *extra, "--", str(mountpoint)], capture_output=True, check=False, text=True
        )
        if done.returncode == 0:
            return how
        complaint = done.stderr.strip()
    if mounted_type(mountpoint) is not None:
        log.error("cannot unmount %s: %s", mountpoint, complaint)
    return Detached.ABSENT


def _plain_file(path: Path, flags: int) -> BinaryIO:
    """Open a file, and nothing else that stands there: a FIFO would be waited for. Raises OSError."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no file", str(path))
    return os.fdopen(fd, "rb" if flags == os.O_RDONLY else "wb", buffering=0)


def left_by(file: Path) -> Path | None:
    """Where the mount is that the daemon which wrote *file* (`OwnMount.note`) has left behind; None if it has not.

    Nothing is asked of the mount. Whether its daemon has died is for the caller to know.
    """
    try:
        with _plain_file(file, os.O_RDONLY) as note:
            known = json.loads(note.read())
        own = OwnMount.identified(known)
        there = known["boot"] == boot_id() and own.is_there()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return own.point if there else None
