"""Sequential bytes in blocks of 4 KiB, 32 KiB (FFmpeg's) and 1 MiB: new pages and warm ones, reads cold and warm."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .measure import Sample
from .recfs_target import is_recfs
from .spec import Better, Context, Group, Metric, Sizes, Workload

USER = 4
KIB, MIB = 1 << 10, 1 << 20
BLOCK = os.urandom(MIB)


def _row(key: str, title: str, of_native: float | None, bar: float | None = None) -> Metric:
    return Metric(
        key, title, "GB/s", Better.HIGHER, Group.DATA, bar=bar, of_native=of_native, tmpfs_only=bar is not None
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """One block size: its rows, and how large the file is and the part that is rewritten, in MiB."""

    block_bytes: int
    write: Metric
    rewrite: Metric
    read: Metric
    reread: Metric
    file_mib: Callable[[Sizes], int]
    rewrite_mib: Callable[[Sizes], int]


LARGE = Stream(
    MIB,
    write=_row("write", "write, 1 MiB blocks, new file", 0.9),
    rewrite=_row("rewrite", "write, 1 MiB blocks, warm pages", 0.9, bar=1.5),
    read=_row("read", "read, 1 MiB blocks, cold", 0.9),
    reread=_row("reread", "read, 1 MiB blocks, warm", 0.9),
    file_mib=lambda sizes: sizes.stream_mib,
    rewrite_mib=lambda sizes: sizes.stream_mib,
)
MIDDLE = Stream(
    32 * KIB,
    write=_row("write_32k", "write, 32 KiB blocks, new file", 0.9),
    rewrite=_row("rewrite_32k", "write, 32 KiB blocks, warm pages", 0.9),
    read=_row("read_32k", "read, 32 KiB blocks, cold", 0.9),
    reread=_row("reread_32k", "read, 32 KiB blocks, warm", 0.9),
    file_mib=lambda sizes: sizes.stream_32k_mib,
    rewrite_mib=lambda sizes: sizes.stream_32k_mib // 2,
)
SMALL = Stream(
    4 * KIB,
    write=_row("write_4k", "write, 4 KiB blocks, new file", 0.8),
    rewrite=_row("rewrite_4k", "write, 4 KiB blocks, warm pages", 0.8),
    read=_row("read_4k", "read, 4 KiB blocks, cold", None),
    reread=_row("reread_4k", "read, 4 KiB blocks, warm", None),
    file_mib=lambda sizes: sizes.stream_4k_mib,
    rewrite_mib=lambda sizes: sizes.rewrite_4k_mib,
)
COMMIT_STREAM = Metric("commit_stream", "  close → committed, {stream_mib:,} MiB", "ms", Better.LOWER)
HASH_RATE = Metric("hash_rate", "  its speed ÷ the slower digest's own", "×", Better.HIGHER, bar=0.8, tmpfs_only=True)


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
    size, write = len(block), os.write
    try:
        for _ in range(size_mib * MIB // size):
            if write(fd, block) != size:
                raise OSError(f"short write to {path}")
    finally:
        os.close(fd)


def overwrite(fd: int, size_mib: int, block: bytes | memoryview) -> None:
    """Write the first `size_mib` MiB of an open file again, in blocks of len(block)."""
    size, pwrite = len(block), os.pwrite
    for offset in range(0, size_mib * MIB, size):
        if pwrite(fd, block, offset) != size:
            raise OSError("short write")


def read_stream(path: Path, size_mib: int, block_bytes: int) -> None:
    """Open, read to the end in blocks into one buffer, close."""
    buffers = [bytearray(block_bytes)]
    readv = os.readv
    fd = os.open(path, os.O_RDONLY)
    done = 0
    try:
        while got := readv(fd, buffers):
            done += got
    finally:
        os.close(fd)
    if done != size_mib * MIB:
        raise AssertionError(f"{path}: read {done} of {size_mib * MIB} bytes")


def slower_digest_rate(size_bytes: int) -> float:
    """Bytes per second of the slower of sha256 and md5, alone on one thread, over bytes in memory."""
    slowest = float("inf")
    for digest in (hashlib.sha256(), hashlib.md5(usedforsecurity=False)):
        start = time.perf_counter()
        for _ in range(size_bytes // MIB):
            digest.update(BLOCK)
        slowest = min(slowest, size_bytes / (time.perf_counter() - start))
    return slowest


def _stream(context: Context, stream: Stream) -> None:
    path = context.recording(USER, 1) / "source.mp4"
    size_mib = stream.file_mib(context.sizes)
    gigabytes = size_mib * MIB / 1e9
    block = memoryview(BLOCK)[: stream.block_bytes]

    # Twice the file: its pages on the disk (tmpfs), and the mount's own page cache of it.
    warm_memory(context.scratch, 2 * size_mib)
    with context.meter() as meter:
        write_stream(path, size_mib, block)
    context.put(stream.write.key, meter.rate(gigabytes))

    with context.meter() as meter:
        context.target.settle()
    if stream is LARGE and is_recfs(context.target):
        context.put(COMMIT_STREAM.key, meter.duration(1000))
        speed = size_mib * MIB / meter.wall_s
        context.put(HASH_RATE.key, Sample(speed / slower_digest_rate(128 * MIB), None))

    context.target.drop_pages(path)
    with context.meter() as meter:
        read_stream(path, size_mib, stream.block_bytes)
    context.put(stream.read.key, meter.rate(gigabytes))
    # Not the first again: a target may need one complete read to have all of the file in its cache.
    read_stream(path, size_mib, MIB)
    context.put_repeated(stream.reread.key, gigabytes, partial(read_stream, path, size_mib, stream.block_bytes))

    # The same pages again: what the write path costs, without what a first touch of memory costs.
    rewrite_mib = stream.rewrite_mib(context.sizes)
    fd = os.open(path, os.O_RDWR)
    try:
        overwrite(fd, rewrite_mib, BLOCK)
        again = partial(overwrite, fd, rewrite_mib, block)
        context.put_repeated(stream.rewrite.key, rewrite_mib * MIB / 1e9, again)
    finally:
        os.close(fd)
    path.unlink()
    context.target.settle()


WORKLOADS = (
    Workload(
        "stream_1m",
        (LARGE.write, LARGE.rewrite, COMMIT_STREAM, HASH_RATE, LARGE.read, LARGE.reread),
        partial(_stream, stream=LARGE),
    ),
    *(
        Workload(key, (stream.write, stream.rewrite, stream.read, stream.reread), partial(_stream, stream=stream))
        for key, stream in (("stream_32k", MIDDLE), ("stream_4k", SMALL))
    ),
)
