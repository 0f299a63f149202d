"""What the last daemon of a store has left: who holds it, whether it stopped in order, and its dead mount."""

import fcntl
import shutil
import subprocess
from pathlib import Path

from recfs.cli.common.store import INTERNAL_DIR
from recfs.cli.common.where import DeadMount, SilentMount, is_recfs_type, mount_on, root_behind
from recfs.errors import MountError
from recfs.fuse.mounting import left_by

_CLEAR_S = 30.0


def left_behind(root: Path) -> Path | None:
    """Where the mount is that the store's last daemon has left dead; None where one runs, or none is left."""
    point = left_by(root / INTERNAL_DIR / "mounted") if holder(root) is None else None
    mount = mount_on(point) if point is not None else None
    try:
        if mount is not None and is_recfs_type(mount):
            root_behind(mount)
    except DeadMount:
        return point
    except SilentMount:
        return None  # somebody is behind it
    return None


def holder(root: Path) -> str | None:
    """Return the process id of who holds the store, as it wrote it down; None if nobody does."""
    try:
        with open(root / INTERNAL_DIR / "lock", encoding="ascii", errors="replace") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read(64).strip() or "unknown"
    except OSError:
        pass
    return None


def signed_off(root: Path) -> bool:
    """Whether the last daemon of the store came to the end of an orderly stop (RootLock.sign_off)."""
    try:
        return (root / INTERNAL_DIR / "lock").stat().st_size == 0
    except OSError:
        return False


def clear_dead_mount(mount_point: Path) -> None:
    """Detach a mount whose daemon is gone. Raises MountError with what the tool said."""
    tool = shutil.which("fusermount3")
    command = [tool, "-uz", str(mount_point)] if tool else ["umount", "-l", str(mount_point)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_CLEAR_S)
    except subprocess.CalledProcessError as exc:
        said = exc.stderr.decode("utf-8", "replace").strip()
        raise MountError(f"cannot clear the dead mount {mount_point}: {said}; try it as root") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise MountError(f"cannot clear the dead mount {mount_point}: {exc}; install fuse3") from exc
