"""Sixteen writers at once, and the memory that costs the daemon."""

import shutil
import subprocess

from .measure import Sample, peak_rss_mb, reset_peak_rss
from .spec import Better, Context, Group, Metric, Workload
from .streams import MIB, warm_memory

USER = 6

PARALLEL = Metric("parallel_write", "write, {writers} at once (dd bs=1M)", "GB/s", Better.HIGHER, Group.DATA)
RSS_PARALLEL = Metric("rss_parallel", "  RSS peak of the daemon", "MB", Better.LOWER, bar=300)


def _parallel(context: Context) -> None:
    directory = context.recording(USER, 1)
    sizes = context.sizes
    pids = context.target.pids()
    warm_memory(context.scratch, 2 * sizes.writers * sizes.writer_mib)
    reset_peak_rss(pids)
    with context.meter() as meter:
        writers = [
            subprocess.Popen(
                ["dd", "if=/dev/zero", f"of={directory}/{number}", "bs=1M", f"count={sizes.writer_mib}"],
                stderr=subprocess.DEVNULL,
            )
            for number in range(sizes.writers)
        ]
        failed = [writer.args for writer in writers if writer.wait() != 0]
    if failed:
        raise AssertionError(f"{len(failed)} of {sizes.writers} writers failed, first: {failed[0]!r}")
    context.put(PARALLEL.key, meter.rate(sizes.writers * sizes.writer_mib * MIB / 1e9))
    # The commit pipeline's memory counts too: the peak is read when the last byte is committed.
    context.target.settle()
    if pids:
        context.put(RSS_PARALLEL.key, Sample(peak_rss_mb(pids), None))
    shutil.rmtree(directory)
    context.target.settle()


WORKLOADS = (Workload("parallel", (PARALLEL, RSS_PARALLEL), _parallel),)
