"""Start-up time and idle memory, on an empty store and on a big catalogue; both on stores of their own."""

import os
from pathlib import Path

from .measure import Meter, Sample, cpu_time, rss_mb
from .million import build
from .recfs_target import RecfsTarget, is_recfs
from .spec import Better, Context, Metric, Workload

START_EMPTY = Metric("start_empty", "mount, empty store", "s", Better.LOWER)
RSS_IDLE = Metric("rss_idle", "  RSS idle", "MB", Better.LOWER, bar=150)
START_MILLION = Metric(
    "start_million",
    "mount, {catalogue_files:,} files known",
    "s",
    Better.LOWER,
    bar=2.0,
    full_size_only=True,
)
RSS_MILLION = Metric(
    "rss_million",
    "  RSS idle",
    "MB",
    Better.LOWER,
    bar=150,
    full_size_only=True,
)
STOP = Metric("stop", "  umount", "s", Better.LOWER)

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def _store(context: Context, name: str) -> RecfsTarget:
    return RecfsTarget(context.target.home / name)


def _measure_start(store: RecfsTarget, listed: str) -> tuple[Sample, Sample]:
    """(seconds until the mount answers a listing of `listed`, resident MB then)."""
    if os.geteuid() == 0:
        # On a disk the catalogue is read from it, as after a boot; tmpfs is not touched by this.
        _DROP_CACHES.write_text("1")
    try:
        with Meter(()) as meter:
            store.start()
            os.listdir(store.tree / listed)
        started = Sample(meter.wall_s, cpu_time(store.pids()).total_s)
        store.settle()
        return started, Sample(rss_mb(store.pids()), None)
    finally:
        store.stop()


def _empty(context: Context) -> None:
    store = _store(context, "empty")
    started, resident = _measure_start(store, "users")
    context.put(START_EMPTY.key, started)
    context.put(RSS_IDLE.key, resident)
    store.start()
    store.settle()
    with Meter(()) as meter:
        store.stop()
    context.put(STOP.key, meter.duration())


def _prepare_million(context: Context) -> None:
    store = _store(context, "million")
    try:
        build(store, context.sizes.catalogue_files)
    finally:
        store.stop()


def _million(context: Context) -> None:
    started, resident = _measure_start(_store(context, "million"), "users/1/recordings/2")
    context.put(START_MILLION.key, started)
    context.put(RSS_MILLION.key, resident)


WORKLOADS = (
    Workload("start", (START_EMPTY, RSS_IDLE, STOP), _empty, applies=is_recfs),
    Workload(
        "million",
        (START_MILLION, RSS_MILLION),
        _million,
        prepare=_prepare_million,
        applies=is_recfs,
        warm_up=False,
    ),
)
