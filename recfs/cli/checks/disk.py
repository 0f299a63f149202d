"""The disk under a store: writable, with user xattrs, with room, of a kind that keeps what it is given."""

import errno
import os
import shlex
import stat
import tempfile
from pathlib import Path

from recfs.cli.checks import Check, Level
from recfs.cli.common.output import size
from recfs.cli.common.where import mounts
from recfs.stores.backups import backup_folder
from recfs.stores.mounted import mounted_in
from recfs.stores.presence import as_whom, is_exposed

_PROBE_XATTR = "user.recfs.probe"
_ODD_FILE_SYSTEMS = {
    "overlay": (
        "a container's own layer: it goes with the container, and renames cost copies",
        "put the root on a volume (docker run -v /srv/recfs:/srv/recfs)",
    ),
    "tmpfs": ("lives in memory: gone after a reboot", "put the root on a disk, unless this is a test"),
    "ramfs": ("lives in memory: gone after a reboot", "put the root on a disk, unless this is a test"),
} | dict.fromkeys(
    ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs", "afs"),
    (
        "a network file system: fsync, locks and xattrs may not keep what recfs promises",
        "put the root on a local disk (ext4, xfs, btrfs)",
    ),
)


def disk_checks(root: Path, min_free_bytes: int) -> list[Check]:
    """Return the findings about the disk under `root`. Makes and removes one small file there."""
    try:
        existing = next(each for each in (root, *root.parents) if each.exists())
        is_there = existing.is_dir()
        (root / ".recfs").is_dir()
    except OSError as exc:
        remedy = as_whom(exc) or "give --root another directory"
        return [Check("root", Level.FAIL, f"cannot look at {exc.filename}: {exc.strerror}", remedy)]
    if not is_there:
        return [Check("root", Level.FAIL, f"{existing} is not a directory", "give --root another directory")]
    return [
        *check_writable(root, existing),
        *check_access(root),
        *check_mounts(root),
        check_file_system(existing),
        check_free_space(existing, min_free_bytes),
    ]


def check_backups(root: Path, directory: Path | None) -> list[Check]:
    """Judge the directory that backups of the catalogue are to have; nothing where none is named."""
    if directory is None:
        return []
    try:
        is_beside = root.exists() and directory.stat().st_dev == root.stat().st_dev
    except OSError as exc:
        remedy = as_whom(exc) or "have its disk mounted, or make it: recfs does not"
        return [Check("backups", Level.WARN, f"{directory} cannot be used: {exc.strerror}", remedy)]
    if (trouble := backup_folder(root, directory).trouble(0, 0)) is not None:
        return [Check("backups", Level.WARN, trouble, "let recfs write there, or set another [backup] directory")]
    if is_beside:
        detail = f"{directory} is on the disk of the store: they are lost with it"
        return [Check("backups", Level.WARN, detail, "set [backup] directory to one on another disk")]
    return [Check("backups", Level.OK, f"{directory} is on another disk than the store")]


def check_audit(directory: Path | None) -> list[Check]:
    """Judge the directory that the audit log is to have; nothing where none is named."""
    if directory is None:
        return []
    try:
        if not stat.S_ISDIR(directory.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as exc:
        remedy = as_whom(exc) or "have its disk mounted, or make it: recfs does not, and acts are dropped meanwhile"
        return [Check("audit", Level.WARN, f"{directory} cannot be used: {exc.strerror}", remedy)]
    return [Check("audit", Level.OK, f"{directory} is there")]


def check_writable(root: Path, existing: Path) -> list[Check]:
    """Write a probe file, with a user xattr, where the store is or will be."""
    inner = root / ".recfs"
    place = inner if inner.is_dir() else existing
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".recfs-doctor-") as probe:
            found = f"{root} is writable" if root == existing else f"{root} does not exist yet; mount makes it"
            return [Check("root", Level.OK, found), check_xattrs(probe.fileno())]
    except OSError as exc:
        remedy = f"let uid {os.geteuid()} write there (chown, or remount read-write), or give another root"
        return [Check("root", Level.FAIL, f"cannot write in {place}: {exc.strerror}", remedy)]


def check_access(root: Path) -> list[Check]:
    """Judge whether users get at the store past its mount."""
    if not root.is_dir() or not is_exposed(root):
        return []
    detail = f"{root} can be entered by all users, who may work past the mount, its quotas and checksums"
    return [Check("access", Level.WARN, detail, f"chmod 700 {root}")]


def check_mounts(root: Path) -> list[Check]:
    """Name what is mounted in the home tree."""
    points = sorted(os.fsdecode(point) for point in mounted_in(root))
    return [
        Check(
            "home tree", Level.FAIL, f"another file system is mounted on {point}: it is no part of the store",
            f"umount {shlex.quote(str(root / point))}",
        )
        for point in points
    ]  # fmt: skip


def check_xattrs(fd: int) -> Check:
    """Judge whether user xattrs of the length recfs uses survive on the file behind `fd`."""
    value = os.urandom(255)
    try:
        os.setxattr(fd, _PROBE_XATTR, value)
        kept = os.getxattr(fd, _PROBE_XATTR) == value
    except OSError as exc:
        unsupported = exc.errno in (errno.EOPNOTSUPP, errno.ENOSYS)
        detail = "not supported by this file system" if unsupported else f"refused: {exc.strerror}"
        remedy = "put the root on ext4, xfs or btrfs (tmpfs: from Linux 6.6), mounted without nouser_xattr"
        return Check("user xattrs", Level.FAIL, detail, remedy)
    if not kept:
        return Check("user xattrs", Level.FAIL, "come back changed", "put the root on ext4, xfs or btrfs")
    return Check("user xattrs", Level.OK, "supported")


def file_system_of(path: Path) -> str:
    """Return the type of the file system `path` lies on, as in /proc/self/mountinfo."""
    resolved = Path(os.path.realpath(path))
    around = [mount for mount in mounts() if resolved.is_relative_to(mount.mount_point)]
    # A later mount on the same directory hides the earlier one; max() would keep the first of equals.
    return max(reversed(around), key=lambda mount: len(mount.mount_point.parts)).fstype if around else "unknown"


def check_file_system(path: Path) -> Check:
    """Judge the kind of file system."""
    kind = file_system_of(path)
    if kind in _ODD_FILE_SYSTEMS:
        why, remedy = _ODD_FILE_SYSTEMS[kind]
        return Check("file system", Level.WARN, f"{kind}: {why}", remedy)
    if kind.startswith("fuse"):
        remedy = "put the root on a local disk (ext4, xfs, btrfs)"
        return Check("file system", Level.WARN, f"{kind}: another FUSE file system below recfs", remedy)
    return Check("file system", Level.OK, kind)


def check_free_space(path: Path, min_free_bytes: int) -> Check:
    """Judge the space left against the reserve."""
    disk = os.statvfs(path)
    free_bytes = disk.f_bavail * disk.f_frsize
    detail = f"{size(free_bytes)} free, reserve (min_free) {size(min_free_bytes)}"
    if free_bytes <= min_free_bytes:
        remedy = "free some space or lower min_free: writers get ENOSPC now"
        return Check("free space", Level.FAIL, detail, remedy)
    if free_bytes <= 2 * min_free_bytes:
        remedy = "free some space or lower min_free before writers get ENOSPC"
        return Check("free space", Level.WARN, detail, remedy)
    if disk.f_files and disk.f_favail == 0:
        return Check("free space", Level.FAIL, "no inodes left", "remove files from this disk")
    return Check("free space", Level.OK, detail)
