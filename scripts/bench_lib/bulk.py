"""Bulk bytes: one sequential stream, and sixteen writers at once."""

import os
import shutil
import subprocess
from pathlib import Path

from .measure import Sample, peak_rss_mb, reset_peak_rss
from .spec import Better, Context, Metric, Workload
from .targets import RecfsTarget

USER = 4
MIB = 1 << 20
BLOCK = os.urandom(MIB)

WRITE = Metric("write", "write, 1 MiB blocks, new file", "GB/s", Better.HIGHER)
REWRITE = Metric("rewrite", "write, 1 MiB blocks, warm pages", "GB/s", Better.HIGHER, bar=1.5, tmpfs_only=True)
WRITE_32K = Metric("write_32k", "write, 32 KiB blocks (FFmpeg's)", "GB/s", Better.HIGHER)
COMMIT_STREAM = Metric("commit_stream", "  close → committed", "ms", Better.LOWER)
READ = Metric("read", "sequential read, page cache empty", "GB/s", Better.HIGHER)
REREAD = Metric("reread", "sequential read again", "GB/s", Better.HIGHER)
PARALLEL = Metric("parallel_write", "write, 16 at once (dd bs=1M)", "GB/s", Better.HIGHER)
RSS_PARALLEL = Metric("rss_parallel", "  RSS peak of the daemon", "MB", Better.LOWER, bar=300)


def warm_memory(directory: Path, mib: int) -> None:
    """Touch `mib` MiB of memory through a file in `directory` and give it back.

    On a virtual machine the first touch of a page asks the host for it: several times dearer than the write.
    """
    path = directory / "warm"
    with path.open("wb", buffering=0) as file:
        for _ in range(mib):
            file.write(BLOCK)
    path.unlink()


def write_stream(path: Path, size_mib: int, block: bytes | memoryview) -> None:
    """Write a new file of `size_mib` MiB in blocks of len(block)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for _ in range(size_mib * MIB // len(block)):
            if os.write(fd, block) != len(block):
                raise OSError(f"short write to {path}")
    finally:
        os.close(fd)


def _rewrite(fd: int, size_mib: int) -> None:
    for index in range(size_mib):
        if os.pwrite(fd, BLOCK, index * MIB) != MIB:
            raise OSError("short write")


def _read_stream(path: Path, size_mib: int) -> None:
    buffer = bytearray(MIB)
    fd = os.open(path, os.O_RDONLY)
    done = 0
    try:
        while got := os.readv(fd, [buffer]):
            done += got
    finally:
        os.close(fd)
    if done != size_mib * MIB:
        raise AssertionError(f"{path}: read {done} of {size_mib * MIB} bytes")


def _stream(context: Context) -> None:
    directory = context.recording(USER, 1)
    path = directory / "source.mp4"
    size_mib = context.sizes.stream_mib
    gigabytes = size_mib * MIB / 1e9

    # Twice the file: its pages on the disk (tmpfs), and the mount's own page cache of it.
    warm_memory(context.warm_dir, 2 * size_mib)
    with context.meter() as meter:
        write_stream(path, size_mib, BLOCK)
    context.put(WRITE.key, meter.rate(gigabytes))

    with context.meter() as meter:
        context.target.settle()
    if isinstance(context.target, RecfsTarget):
        context.put(COMMIT_STREAM.key, meter.duration(1000))

    context.target.drop_pages(path)
    with context.meter() as meter:
        _read_stream(path, size_mib)
    context.put(READ.key, meter.rate(gigabytes))
    with context.meter() as meter:
        _read_stream(path, size_mib)
    context.put(REREAD.key, meter.rate(gigabytes))

    # The same pages again: what the write path costs, without what a first touch of memory costs.
    fd = os.open(path, os.O_WRONLY)
    try:
        _rewrite(fd, size_mib)
        with context.meter() as meter:
            _rewrite(fd, size_mib)
    finally:
        os.close(fd)
    context.put(REWRITE.key, meter.rate(gigabytes))
    path.unlink()
    context.target.settle()

    # A quarter of the size: at 32 KiB a slow target needs ten times as long.
    with context.meter() as meter:
        write_stream(path, size_mib // 4, memoryview(BLOCK)[: 32 * 1024])
    context.put(WRITE_32K.key, meter.rate(gigabytes / 4))
    context.target.settle()
    path.unlink()
    context.target.settle()


def _parallel(context: Context) -> None:
    directory = context.recording(USER, 2)
    sizes = context.sizes
    pids = context.target.pids()
    warm_memory(context.warm_dir, 2 * sizes.writers * sizes.writer_mib)
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


WORKLOADS = (
    Workload("stream", (WRITE, REWRITE, COMMIT_STREAM, READ, REREAD, WRITE_32K), _stream),
    Workload("parallel", (PARALLEL, RSS_PARALLEL), _parallel),
)
