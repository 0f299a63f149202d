"""Whole trees of small files, as programs make and remove them: rm -rf, git clone, rsync -a."""

import os
import shutil
import subprocess
from pathlib import Path

from .small import PAYLOAD, fill
from .spec import Better, Context, Group, Metric, Workload

USER = 9
FILES_PER_DIR = 100
PREPARE_BUDGET_S = 180.0
_RATE = ("files/s", Better.HIGHER, Group.METADATA)

RM = Metric("rm_rf", "rm -rf, {rm_files:,} files", *_RATE)
CLONE = Metric("git_clone", "git clone, {clone_files:,} files", *_RATE)
RSYNC = Metric("rsync", "rsync -a, {rsync_files:,} files of 1 KiB", *_RATE)
_GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "init.defaultBranch=main")


def _command(*command: str | Path) -> None:
    subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}
    )


def _directories(top: Path, files: int) -> list[Path]:
    made = [top / f"d{number}" for number in range(max(files // FILES_PER_DIR, 1))]
    for directory in made:
        directory.mkdir(parents=True)
    return made


def made_tree(top: Path, files: int) -> Path:
    """A tree of *files* small files, of which no two are equal, at *top*; once it is there it is left as it is."""
    if not top.exists():
        unfinished = top.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for number, directory in enumerate(_directories(unfinished, files)):
            for file in range(min(FILES_PER_DIR, files)):
                head = f"{number} {file}\n".encode()
                (directory / f"f{file}.txt").write_bytes(head + PAYLOAD[len(head) :])
        unfinished.rename(top)
    return top


def made_repository(scratch: Path, files: int) -> Path:
    """A bare repository with one commit of such a tree."""
    bare = scratch / f"repository-{files}.git"
    if not bare.exists():
        tree = made_tree(scratch / f"checkout-{files}", files)
        _command(*_GIT, "-C", tree, "init", "-q")
        _command(*_GIT, "-C", tree, "add", ".")
        _command(*_GIT, "-C", tree, "commit", "-q", "-m", "files")
        unfinished = bare.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _command(*_GIT, "clone", "-q", "--bare", "--no-hardlinks", tree, unfinished)
        unfinished.rename(bare)
    return bare


def _remove(context: Context) -> None:
    files = context.sizes.rm_files
    top = context.recording(USER, 1) / "tree"
    fill(_directories(top, files), FILES_PER_DIR, PREPARE_BUDGET_S)
    context.target.settle()
    with context.meter() as meter:
        _command("rm", "-rf", top)
    context.put(RM.key, meter.rate(files))
    context.target.settle()


def _clone(context: Context) -> None:
    files = context.sizes.clone_files
    repository = made_repository(context.scratch, files)
    directory = context.recording(USER, 2)
    with context.meter() as meter:
        _command(*_GIT, "clone", "-q", "--no-local", repository, directory / "clone")
    context.put(CLONE.key, meter.rate(files))
    _clear(context, directory)


def _rsync(context: Context) -> None:
    files = context.sizes.rsync_files
    source = made_tree(context.scratch / f"tree-{files}", files)
    directory = context.recording(USER, 3)
    with context.meter() as meter:
        _command("rsync", "-a", f"{source}/", directory)
    context.put(RSYNC.key, meter.rate(files))
    _clear(context, directory)


def _clear(context: Context, directory: Path) -> None:
    context.target.settle()
    shutil.rmtree(directory)
    context.target.settle()


WORKLOADS = (
    Workload("rm", (RM,), _remove),
    Workload("clone", (CLONE,), _clone),
    Workload("rsync", (RSYNC,), _rsync),
)
