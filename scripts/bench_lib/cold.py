"""Whole directories, from cold and again.

Cold: the target freshly mounted, so that neither its daemon nor the kernel knows anything of the mount. What lies
behind the targets stays as it is, in the kernel's caches too, for all of them alike.
"""

import os
import subprocess
from pathlib import Path

from .fleet import NATIVE, RECFS
from .measure import Sample, rss_mb
from .small import fill
from .spec import Better, Context, Group, Metric, Workload
from .target import Target

LIST_USER = 2
WALK_USER = 3
DU_USER = 8
PREPARE_BUDGET_S = 60.0

_IN_S = (Better.LOWER, Group.METADATA)
LS_COLD = Metric("ls_cold", "ls -l, {list_files:,} files, cold", "s", *_IN_S, bar=0.3)
LS_WARM = Metric("ls_warm", "ls -l, {list_files:,} files, again", "s", *_IN_S)
SCAN_WARM = Metric("scan", "readdir + stat, {list_files:,} files", "/s", Better.HIGHER, Group.METADATA)
LOOKUP_COLD = Metric("lookup_cold", "stat one by one, cold", "/s", Better.HIGHER, Group.METADATA)
DU = Metric("du", "du -s, {du_files:,} files, cold", "s", *_IN_S)
DU_WARM = Metric("du_warm", "du -s, {du_files:,} files, again", "s", *_IN_S)
DU_COLD = Metric("du_cold", "du -s, {walk_files:,} files, cold", "s", Better.LOWER, bar=3.0, full_size_only=True)
RSS_WALKED = Metric("rss_walked", "  RSS idle afterwards", "MB", Better.LOWER, bar=150, full_size_only=True)


def _command(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})


def _scan(directory: Path) -> int:
    with os.scandir(directory) as entries:
        return sum(1 for entry in entries if entry.stat(follow_symlinks=False).st_size)


def _prepare_list(context: Context) -> None:
    fill([context.feed(LIST_USER, 1)], context.sizes.list_files, PREPARE_BUDGET_S)
    context.target.settle()


def _list(context: Context) -> None:
    directory = context.target.tree / "users" / str(LIST_USER) / "recordings" / "1"
    context.target.go_cold()
    with context.meter() as meter:
        _command("ls", "-l", directory)
    context.put(LS_COLD.key, meter.duration())
    with context.meter() as meter:
        _command("ls", "-l", directory)
    context.put(LS_WARM.key, meter.duration())
    count = context.sizes.list_files
    with context.meter() as meter:
        listed = _scan(directory)
    if listed != count:
        raise AssertionError(f"readdir shows {listed} of {count} files")
    context.put(SCAN_WARM.key, meter.rate(count))

    context.target.go_cold()
    prefix = os.fspath(directory) + "/f"
    with context.meter() as meter:
        for number in range(count):
            os.stat(f"{prefix}{number}")
    context.put(LOOKUP_COLD.key, meter.rate(count))


def _dirs(context: Context, user: int, count: int) -> list[Path]:
    return [context.feed(user, number) for number in range(1, count + 1)]


def _prepare_du(context: Context) -> None:
    fill(_dirs(context, DU_USER, context.sizes.du_dirs), context.sizes.files_per_dir, PREPARE_BUDGET_S)
    context.target.settle()


def _du(context: Context) -> None:
    top = context.target.tree / "users" / str(DU_USER)
    context.target.go_cold()
    with context.meter() as meter:
        _command("du", "-s", top)
    context.put(DU.key, meter.duration())
    with context.meter() as meter:
        _command("du", "-s", top)
    context.put(DU_WARM.key, meter.duration())


def _prepare_walk(context: Context) -> None:
    fill(_dirs(context, WALK_USER, context.sizes.walk_dirs), context.sizes.files_per_dir, float("inf"))
    context.target.settle()


def _walk(context: Context) -> None:
    context.target.go_cold()
    with context.meter() as meter:
        _command("du", "-s", context.target.tree / "users" / str(WALK_USER))
    context.put(DU_COLD.key, meter.duration())
    if pids := context.target.pids():
        context.target.settle()
        context.put(RSS_WALKED.key, Sample(rss_mb(pids), None))


def _is_recfs_or_native(target: Target) -> bool:
    # A hundred thousand files are for recfs's own bars; on every peer they would take the run's time twice over.
    return target.name in (RECFS, NATIVE)


WORKLOADS = (
    Workload("list", (LS_COLD, LS_WARM, SCAN_WARM, LOOKUP_COLD), _list, prepare=_prepare_list, warm_up=False),
    Workload("du", (DU, DU_WARM), _du, prepare=_prepare_du, warm_up=False),
    Workload("walk", (DU_COLD, RSS_WALKED), _walk, prepare=_prepare_walk, applies=_is_recfs_or_native, warm_up=False),
)
