"""All workloads in the order they run, and how --only picks among them."""

import fnmatch
from collections.abc import Sequence

from . import (
    behind,
    beside,
    cold,
    migrate,
    observed,
    parallel,
    remux,
    restart,
    s3_rows,
    scattered,
    small,
    startup,
    streams,
    trees,
)
from .spec import Metric, Sizes, Workload

WORKLOADS: tuple[Workload, ...] = (
    *startup.WORKLOADS[:1],
    *streams.WORKLOADS,
    *scattered.WORKLOADS,
    *parallel.WORKLOADS,
    *remux.WORKLOADS,
    *small.WORKLOADS,
    *cold.WORKLOADS,
    *trees.WORKLOADS,
    *migrate.WORKLOADS,
    *startup.WORKLOADS[1:],
    *beside.WORKLOADS,
    *behind.WORKLOADS,
    *observed.WORKLOADS,
    *restart.WORKLOADS,
    *s3_rows.WORKLOADS,
)


def select(patterns: Sequence[str]) -> list[Workload]:
    """Workloads with a key, or a row's key, that matches one of the shell `patterns`; all if there are none.

    Raises ValueError for a pattern that matches nothing.
    """
    if not patterns:
        return list(WORKLOADS)
    chosen: set[str] = set()
    for pattern in patterns:
        matching = {workload.key for workload in WORKLOADS if _matches(workload, pattern)}
        if not matching:
            known = " ".join(f"{w.key} ({', '.join(m.key for m in w.metrics)})" for w in WORKLOADS)
            raise ValueError(f"no row {pattern!r}; there are: {known}")
        chosen |= matching
    return [workload for workload in WORKLOADS if workload.key in chosen]


def _matches(workload: Workload, pattern: str) -> bool:
    keys = [workload.key, *(["s3"] if workload.far else []), *(metric.key for metric in workload.metrics)]
    return any(fnmatch.fnmatchcase(key, pattern) for key in keys)


def title(metric: Metric, sizes: Sizes) -> str:
    """The row's title with the sizes of this run."""
    return metric.title.format(
        stream_mib=sizes.stream_mib,
        writers=sizes.writers,
        media_mb=sizes.media_mb,
        list_files=sizes.list_files,
        du_files=sizes.du_dirs * sizes.files_per_dir,
        walk_files=sizes.walk_dirs * sizes.files_per_dir,
        rm_files=sizes.rm_files,
        clone_files=sizes.clone_files,
        rsync_files=sizes.rsync_files,
        catalogue_files=sizes.catalogue_files,
        migrate_small=sizes.migrate_small,
        migrate_large=sizes.migrate_large,
        sweep_files=sizes.sweep_files,
        media_files=sizes.media_files,
        rebuilt_files=sizes.rebuilt_files,
        watched_files=sizes.watched_files,
        restarts=sizes.restarts,
        s3_file_mib=sizes.s3_file_mib,
        s3_small_files=sizes.s3_small_dirs * sizes.files_per_dir,
        s3_list_files=sizes.s3_list_dirs * sizes.files_per_dir,
    )
