"""Small files: create, stat, read, list, rename, unlink, and how soon they are committed."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from .measure import Sample
from .recfs_target import is_recfs
from .spec import Better, Context, Group, Metric, Workload
from .target import LeftOut

USER = 1
PAYLOAD = os.urandom(1024)
BUDGET_S = 3.0
"""No more files are created after this: a target that asks a server for each would need minutes."""
_LOOK_EVERY = 16
_TRIAL_FILES = 100

CREATE = Metric(
    "create", "create + write 1 KiB + close", "/s", Better.HIGHER, Group.METADATA, bar=3000, tmpfs_only=True
)
COMMIT_SMALL = Metric("commit_small", "  last close → all committed", "ms", Better.LOWER)
STAT = Metric("stat", "stat, files just made", "/s", Better.HIGHER, Group.METADATA)
READ_SMALL = Metric("read_small", "open + read 1 KiB + close", "/s", Better.HIGHER, Group.METADATA)
READDIR = Metric("readdir", "readdir, entries", "/s", Better.HIGHER, Group.METADATA)
RENAME = Metric("rename", "rename in the directory", "/s", Better.HIGHER, Group.METADATA)
UNLINK = Metric("unlink", "unlink", "/s", Better.HIGHER, Group.METADATA)
CREATE_FSYNC = Metric("create_fsync", "create + write + fsync + close", "/s", Better.HIGHER, Group.METADATA)
COMMIT_ONE = Metric("commit_one", "one small file: close → sha256 known", "ms", Better.LOWER)


def create_files(
    directory: Path, count: int, *, first: int = 0, fsync: bool = False, budget_s: float = float("inf")
) -> int:
    """Create files of 1 KiB named f<first> up to f<count - 1> as a program does: by path, one at a time.

    Returns how many there are: fewer when `budget_s` was over before.
    """
    prefix = os.fspath(directory) + "/f"
    deadline = time.monotonic() + budget_s
    for number in range(first, count):
        if number % _LOOK_EVERY == 0 and time.monotonic() > deadline:
            return number
        fd = os.open(f"{prefix}{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(fd, PAYLOAD)
            if fsync:
                os.fsync(fd)
        finally:
            os.close(fd)
    return count


def fill(directories: Sequence[Path], files_each: int, budget_s: float) -> None:
    """Create `files_each` files in each directory; LeftOut if the first show that it would take over `budget_s`."""
    trial = min(_TRIAL_FILES, files_each)
    start = time.monotonic()
    create_files(directories[0], trial)
    rate = trial / (time.monotonic() - start)
    total = len(directories) * files_each
    if total / rate > budget_s:
        raise LeftOut(f"to prepare {total:,} files at {rate:.0f}/s takes too long")
    create_files(directories[0], files_each, first=trial)
    for directory in directories[1:]:
        create_files(directory, files_each)


def _small_files(context: Context) -> None:
    directory = context.recording(USER, 1)
    prefix = os.fspath(directory) + "/f"

    with context.meter() as meter:
        count = create_files(directory, context.sizes.small_files, budget_s=BUDGET_S)
    context.put(CREATE.key, meter.rate(count))

    with context.meter() as meter:
        context.target.settle()
    if is_recfs(context.target):
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
    with context.meter() as meter:
        count = create_files(directory, context.sizes.fsync_files, fsync=True, budget_s=BUDGET_S)
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


WORKLOADS = (
    Workload("small", (CREATE, COMMIT_SMALL, STAT, READ_SMALL, READDIR, RENAME, UNLINK), _small_files),
    Workload("fsync", (CREATE_FSYNC,), _fsync_files),
    Workload("commit", (COMMIT_ONE,), _commit_one, applies=is_recfs),
)
