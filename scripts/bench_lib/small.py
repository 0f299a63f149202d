"""Small files: create, stat, read, list, rename, unlink, and how soon they are committed."""

import os
import shutil
from pathlib import Path

from .measure import Sample
from .spec import Better, Context, Metric, Workload
from .targets import RecfsTarget, Target

USER = 1
PAYLOAD = os.urandom(1024)

CREATE = Metric("create", "create + write 1 KiB + close", "/s", Better.HIGHER, bar=3000, tmpfs_only=True)
COMMIT_SMALL = Metric("commit_small", "  last close → all committed", "ms", Better.LOWER)
STAT = Metric("stat", "stat, known to the kernel", "/s", Better.HIGHER)
READ_SMALL = Metric("read_small", "open + read 1 KiB + close", "/s", Better.HIGHER)
READDIR = Metric("readdir", "readdir, entries", "/s", Better.HIGHER)
RENAME = Metric("rename", "rename in the directory", "/s", Better.HIGHER)
UNLINK = Metric("unlink", "unlink", "/s", Better.HIGHER)
CREATE_FSYNC = Metric("create_fsync", "create + write + fsync + close", "/s", Better.HIGHER)
COMMIT_ONE = Metric("commit_one", "one small file: close → sha256 known", "ms", Better.LOWER)


def create_files(directory: Path, count: int, *, fsync: bool = False) -> None:
    """Create `count` files of 1 KiB named f0, f1, ... as a program does: by path, one at a time."""
    prefix = os.fspath(directory) + "/f"
    for number in range(count):
        fd = os.open(f"{prefix}{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(fd, PAYLOAD)
            if fsync:
                os.fsync(fd)
        finally:
            os.close(fd)


def _small_files(context: Context) -> None:
    directory = context.recording(USER, 1)
    count = context.sizes.small_files
    prefix = os.fspath(directory) + "/f"

    with context.meter() as meter:
        create_files(directory, count)
    context.put(CREATE.key, meter.rate(count))

    with context.meter() as meter:
        context.target.settle()
    if isinstance(context.target, RecfsTarget):
        context.put(COMMIT_SMALL.key, meter.duration(1000))

    with context.meter() as meter:
        for number in range(count):
            os.stat(f"{prefix}{number}")
    context.put(STAT.key, meter.rate(count))

    with context.meter() as meter:
        for number in range(count):
            fd = os.open(f"{prefix}{number}", os.O_RDONLY)
            os.read(fd, 2048)
            os.close(fd)
    context.put(READ_SMALL.key, meter.rate(count))

    with context.meter() as meter:
        listed = len(os.listdir(directory))
    if listed != count:
        raise AssertionError(f"readdir shows {listed} of {count} files")
    context.put(READDIR.key, meter.rate(count))

    with context.meter() as meter:
        for number in range(count):
            os.rename(f"{prefix}{number}", f"{prefix}{number}.r")
    context.put(RENAME.key, meter.rate(count))

    with context.meter() as meter:
        for number in range(count):
            os.unlink(f"{prefix}{number}.r")
    context.put(UNLINK.key, meter.rate(count))
    context.target.settle()


def _fsync_files(context: Context) -> None:
    directory = context.recording(USER, 2)
    count = context.sizes.fsync_files
    with context.meter() as meter:
        create_files(directory, count, fsync=True)
    context.put(CREATE_FSYNC.key, meter.rate(count))
    shutil.rmtree(directory)
    context.target.settle()


def _commit_one(context: Context) -> None:
    path = context.recording(USER, 3) / "one"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, PAYLOAD)
    with context.meter() as meter:
        os.close(fd)
        os.getxattr(path, "user.recfs.sha256")
    context.put(COMMIT_ONE.key, Sample(meter.wall_s * 1000, meter.cpu_s))
    path.unlink()
    context.target.settle()


def _is_recfs(target: Target) -> bool:
    return isinstance(target, RecfsTarget)


WORKLOADS = (
    Workload("small", (CREATE, COMMIT_SMALL, STAT, READ_SMALL, READDIR, RENAME, UNLINK), _small_files),
    Workload("fsync", (CREATE_FSYNC,), _fsync_files),
    Workload("commit", (COMMIT_ONE,), _commit_one, applies=_is_recfs),
)
