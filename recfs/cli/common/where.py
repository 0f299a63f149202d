"""Which recfs mount a path lies in, and which store is behind it. Knows /proc/self/mountinfo, no config."""

import contextlib
import errno
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from recfs.cli.common import cwd
from recfs.core.upkeep.mount_points import lines_of
from recfs.errors import MountError

ROOT_XATTR = "user.recfs.root"
MOUNTINFO = Path("/proc/self/mountinfo")

LINKS_MAX = 40
"""As the kernel has it (path_resolution(7))."""

ANSWER_S = 15.0
"""So long is waited for the answer of a mount that a command means."""
OTHERS_S = 3.0
"""So long for all the mounts together that are only looked at."""

_ASK = """
import os, sys
try:
    os.write(1, b"=" + os.getxattr(sys.argv[1], sys.argv[2]))
except OSError as error:
    os.write(1, b"!%d" % error.errno)
"""
_UNANSWERED: "list[subprocess.Popen[bytes]]" = []
"""Children that were given up: they end when the mount answers or goes away."""

_FSTYPES = frozenset({"fuse", "fuse.recfs"})
_OCTAL = re.compile(rb"\\([0-7]{3})")


class DeadMount(MountError):
    """The daemon behind a mount point is gone and the mount is still there."""


class SilentMount(MountError):
    """Whoever is behind a mount point is there, and does not answer."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    mount_id: int
    """Unique among what is mounted now: tells a mount from the next one on the same directory."""
    mount_point: Path
    subtree: str
    """What of the file system is mounted: "" for all of it, "users/5" for a bind mount of that directory."""
    fstype: str


def mounts() -> list[Mount]:
    """Return what is mounted here, later mounts over earlier ones last."""
    return [_parse(line) for line in lines_of(MOUNTINFO.read_bytes())]


def _parse(line: bytes) -> Mount:
    before, _, after = line.partition(b" - ")
    fields = before.split(b" ")
    subtree, mount_point = (_unescape(field) for field in fields[3:5])
    return Mount(int(fields[0]), Path(mount_point), subtree.lstrip("/"), os.fsdecode(after.split(b" ", 1)[0]))


def _unescape(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))


def resolve(path: Path) -> Path:
    """Return an absolute path with links resolved, but for a link that recfs keeps: a last name inside a mount.

    Goes by readlink(2): a mount point may be dead, and cannot be looked at then. Raises MountError for links that lead
    in a circle, and when a relative path is given in a working directory that is gone.
    """
    for _ in range(LINKS_MAX):
        if path.name in ("", ".."):
            return _real(path)
        path = _real(path.parent) / path.name
        if any(is_recfs_type(mount) and mount.mount_point in path.parents for mount in mounts()):
            return path
        try:
            path = path.parent / os.readlink(path)
        except OSError:
            return path
    raise MountError(f"{path}: its symbolic links lead in a circle")


def _real(path: Path) -> Path:
    if not path.is_absolute() and cwd.LOST is not None:
        cwd.absolute(path)
    return Path(os.path.realpath(path))


def is_recfs_type(mount: Mount) -> bool:
    """Say whether a mount can be recfs at all; other file systems are not even asked."""
    return mount.fstype in _FSTYPES


def mount_on(mount_point: Path) -> Mount | None:
    """Return the topmost mount on exactly this directory."""
    resolved = resolve(mount_point)
    return next((mount for mount in reversed(mounts()) if mount.mount_point == resolved), None)


def mount_around(path: Path) -> Mount | None:
    """Return the recfs-like mount that `path` lies in, judged by names alone."""
    resolved = resolve(path)
    best: Mount | None = None
    for mount in mounts():
        inside = resolved.is_relative_to(mount.mount_point)
        if inside and (best is None or len(mount.mount_point.parts) >= len(best.mount_point.parts)):
            best = mount
    return best if best is not None and is_recfs_type(best) else None


def dead_mounts() -> list[Path]:
    """Find the recfs mounts whose daemon is gone, whatever their store was: nobody can ask them."""
    return [point for point, why in failing_mounts() if isinstance(why, DeadMount)]


def failing_mounts() -> list[tuple[Path, DeadMount | SilentMount]]:
    """Find the recfs mounts whose daemon is gone, or does not answer. Takes OTHERS_S at most."""
    # Only mounts that say they are recfs: other file systems are none of its business.
    asked: list[tuple[Mount, subprocess.Popen[bytes]]] = []
    for mount in mounts():
        if is_recfs_type(mount) and mount.fstype != "fuse":
            with contextlib.suppress(MountError):
                asked.append((mount, _ask(mount)))
    until_s = time.monotonic() + OTHERS_S
    found: list[tuple[Path, DeadMount | SilentMount]] = []
    for mount, child in asked:
        try:
            _root_told(mount, child, until_s)
        except (DeadMount, SilentMount) as why:
            found.append((mount.mount_point, why))
        except MountError:
            continue
    return found


def path_in_mount(mount: Mount, path: Path) -> str:
    """Return `path` as recfs knows it: relative to the root of the file system, "" for the root."""
    inside = resolve(path).relative_to(mount.mount_point)
    joined = os.path.join(mount.subtree, inside)
    return "" if joined in ("", ".") else os.path.normpath(joined)


def root_behind(mount: Mount) -> Path | None:
    """Ask a mount for its store's root; None when it is some other file system. Waits ANSWER_S at most.

    Raises DeadMount when its daemon is gone, SilentMount when it does not answer, MountError when it does not let us
    ask.
    """
    return _root_told(mount, _ask(mount), time.monotonic() + ANSWER_S)


def _ask(mount: Mount) -> "subprocess.Popen[bytes]":
    """Have a child ask for the root.

    A request that a daemon has read and does not answer is waited for in the kernel, and no signal ends that
    (request_wait_answer in fs/fuse/dev.c): a thread would keep this process from ending. Raises MountError.
    """
    command = [sys.executable, "-I", "-S", "-c", _ASK, str(mount.mount_point), ROOT_XATTR]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as exc:  # an installation of which not all may be run by this user
        raise MountError(f"{mount.mount_point} cannot be asked: {sys.executable}: {exc.strerror}") from exc


def _root_told(mount: Mount, child: "subprocess.Popen[bytes]", until_s: float) -> Path | None:
    """What the child was told, by *until_s* of the monotonic clock. Raises as root_behind does."""
    try:
        told, _ = child.communicate(timeout=max(until_s - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired as exc:
        child.kill()
        if child.stdout is not None:
            child.stdout.close()
        _UNANSWERED[:] = [each for each in (*_UNANSWERED, child) if each.poll() is None]
        raise SilentMount(
            f"{mount.mount_point} does not answer: the process behind this mount is stopped or hangs"
        ) from exc
    if told.startswith(b"="):
        return Path(os.fsdecode(told[1:]))
    code = int(told[1:]) if told.startswith(b"!") else 0
    if code in (errno.ENOTCONN, errno.ECONNABORTED):
        raise DeadMount(
            f"{mount.mount_point} is a dead mount: its daemon ended without unmounting. "
            f"Clear it with `recfs umount {mount.mount_point}`, then mount again"
        )
    if code in (errno.EACCES, errno.EPERM):
        raise MountError(f"{mount.mount_point} belongs to another user and was mounted without allow_other")
    if not code:
        raise MountError(f"{mount.mount_point} cannot be asked: {sys.executable} ended with {child.returncode}")
    return None
