"""Listing from cold: the target freshly mounted, so neither its daemon nor the kernel has anything cached."""

import os
import subprocess
from pathlib import Path

from .measure import Sample, rss_mb
from .small import create_files
from .spec import Better, Context, Metric, Workload

LIST_USER = 2
WALK_USER = 3

LS_COLD = Metric("ls_cold", "ls -l, {list_files:,} files, cold", "s", Better.LOWER, bar=0.3)
LOOKUP_COLD = Metric("lookup_cold", "stat one by one, cold", "/s", Better.HIGHER)
DU_COLD = Metric("du_cold", "du -s, {walk_files:,} files, cold", "s", Better.LOWER, bar=3.0, full_size_only=True)
RSS_WALKED = Metric(
    "rss_walked",
    "  RSS idle afterwards",
    "MB",
    Better.LOWER,
    bar=150,
    full_size_only=True,
)


def _command(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})


def _prepare_list(context: Context) -> None:
    create_files(context.recording(LIST_USER, 1), context.sizes.list_files)
    context.target.settle()


def _list(context: Context) -> None:
    directory = context.target.tree / "users" / str(LIST_USER) / "recordings" / "1"
    context.target.go_cold()
    with context.meter() as meter:
        _command("ls", "-l", directory)
    context.put(LS_COLD.key, meter.duration())

    context.target.go_cold()
    prefix = os.fspath(directory) + "/f"
    count = context.sizes.list_files
    with context.meter() as meter:
        for number in range(count):
            os.stat(f"{prefix}{number}")
    context.put(LOOKUP_COLD.key, meter.rate(count))


def _prepare_walk(context: Context) -> None:
    for number in range(1, context.sizes.walk_dirs + 1):
        create_files(context.recording(WALK_USER, number), context.sizes.walk_files_per_dir)
    context.target.settle()


def _walk(context: Context) -> None:
    context.target.go_cold()
    with context.meter() as meter:
        _command("du", "-s", context.target.tree / "users" / str(WALK_USER))
    context.put(DU_COLD.key, meter.duration())
    if pids := context.target.pids():
        context.target.settle()
        context.put(RSS_WALKED.key, Sample(rss_mb(pids), None))


WORKLOADS = (
    Workload("list", (LS_COLD, LOOKUP_COLD), _list, prepare=_prepare_list, warm_up=False),
    Workload("walk", (DU_COLD, RSS_WALKED), _walk, prepare=_prepare_walk, warm_up=False),
)
