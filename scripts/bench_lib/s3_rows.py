"""The S3 tier against one server: a large file up and down, small files, listings, and the daemon's memory.

An upload is over when S3 has everything: the copy and `recfs drain`, rclone's queue, s3fs's close. Cold: no byte of
the file is on this machine, and the mount's caches are empty.
"""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from .measure import Sample, peak_rss_mb, reset_peak_rss
from .recfs_target import is_recfs
from .s3_count import CountingProxy
from .s3_targets import DirectTarget, Far
from .small import fill
from .spec import Better, Context, Group, Metric, Workload
from .streams import BLOCK, MIB, read_stream, warm_memory, write_stream
from .target import LeftOut, Target

USER, LIST_USER = 11, 12
STREAMS = 16
BUDGET_S = 60.0
"""No more directories of small files are copied after this: slow mounts would need many minutes."""
SMALL_BYTES = (4 << 10, 16 << 10)
LIST_TIMEOUT_S = 300.0

UPLOAD = Metric("s3_upload", "S3: write {s3_file_mib} MiB and drain", "MB/s", Better.HIGHER, Group.DATA, of_native=0.9)
UPLOAD_CPU = Metric("s3_upload_cpu", "  CPU s per GB of it", "s", Better.LOWER)
TRANSFER = Metric("s3_transfer", "  the upload alone, once hashed", "MB/s", Better.HIGHER, of_native=0.9)
READ = Metric("s3_read", "S3: read them again, cold", "MB/s", Better.HIGHER, Group.DATA, of_native=0.9)
READ_CPU = Metric("s3_read_cpu", "  CPU s per GB of it", "s", Better.LOWER)
FIRST = Metric("s3_first", "  open → first block", "ms", Better.LOWER)
SMALL = Metric(
    "s3_small", "S3: copy {s3_small_files:,} files of 4–16 KiB and drain", "/s", Better.HIGHER, Group.METADATA
)
SMALL_CPU = Metric("s3_small_cpu", "  CPU ms per file", "ms", Better.LOWER)
LS = Metric("s3_ls", "S3: ls -lR, {s3_list_files:,} stored files, cold", "s", Better.LOWER, Group.METADATA)
DU = Metric("s3_du", "S3: du -s of them, cold", "s", Better.LOWER, Group.METADATA)
REQUESTS = Metric("s3_requests", "  S3 requests for the ls -lR", "", Better.LOWER, bar=1)
RSS = Metric("s3_rss", "S3: RSS peak, 16 uploads and 16 readers", "MB", Better.LOWER, bar=400)


def _is_mount(target: Target) -> bool:
    return not isinstance(target, DirectTarget)


def _source(context: Context, size_mib: int) -> Path:
    path = context.scratch / f"source-{size_mib}"
    if not path.exists():
        write_stream(path, size_mib, BLOCK)
    return path


# --- one large file ----------------------------------------------------------------------------------------------


def _large(context: Context) -> None:
    target = cast(Far, context.target)
    size_mib = context.sizes.s3_file_mib
    megabytes = size_mib * MIB / 1e6
    warm_memory(context.scratch, 2 * size_mib)
    if isinstance(target, DirectTarget):
        key, source = target.prefix + "large", _source(context, size_mib)
        copy = target.tree / "copy"
        _timed(context, UPLOAD, UPLOAD_CPU, megabytes, lambda: target.library.upload(source, key))
        context.put(TRANSFER.key, context.samples[UPLOAD.key])
        _timed(context, READ, READ_CPU, megabytes, lambda: target.library.download(key, size_mib * MIB, copy))
        copy.unlink()
        return
    path = context.recording(USER, 1) / "source.mp4"

    def write() -> None:
        write_stream(path, size_mib, BLOCK)
        if is_recfs(target):
            os.getxattr(path, "user.recfs.sha256")  # comes with the commit, before which nothing is sent
            with context.meter() as meter:
                target.settle()
            context.put(TRANSFER.key, meter.rate(megabytes))
        target.settle()

    _timed(context, UPLOAD, UPLOAD_CPU, megabytes, write)
    target.make_cold(path)
    _first_block(context, path)
    target.make_cold(path)
    _timed(context, READ, READ_CPU, megabytes, lambda: read_stream(path, size_mib, MIB))
    path.unlink()
    target.settle()


def _timed(context: Context, speed: Metric, cpu: Metric, megabytes: float, work: Callable[[], None]) -> None:
    target = cast(Far, context.target)
    before = target.cpu()
    with context.meter() as meter:
        work()
    context.put(speed.key, meter.rate(megabytes))
    target.settle()  # verifying what came is part of what it costs
    context.put(cpu.key, Sample((target.cpu() - before).total_s / megabytes * 1000, None))


def _first_block(context: Context, path: Path) -> None:
    with context.meter() as meter:
        fd = os.open(path, os.O_RDONLY)
        try:
            if not os.pread(fd, 4096, 0):
                raise AssertionError(f"{path} is empty")
        finally:
            end = time.perf_counter()
            os.close(fd)
    context.put(FIRST.key, Sample((end - meter.start) * 1000, None))
    context.target.settle()


# --- small files -------------------------------------------------------------------------------------------------


def _small_source(context: Context) -> list[Path]:
    """Directories of small files, as another program left them on the disk."""
    sizes = context.sizes
    top = context.scratch / f"small-{sizes.s3_small_dirs}"
    directories = [top / str(number) for number in range(1, sizes.s3_small_dirs + 1)]
    if not top.exists():
        chosen = random.Random(1)
        for directory in directories:
            directory.mkdir(parents=True)
            for number in range(sizes.files_per_dir):
                size = chosen.randint(*SMALL_BYTES)
                start = chosen.randrange(MIB - size)
                (directory / f"f{number}").write_bytes(BLOCK[start : start + size])
    return directories


def _small(context: Context) -> None:
    target = cast(Far, context.target)
    directories = _small_source(context)
    count = 0
    before = target.cpu()
    if isinstance(target, DirectTarget):
        files = [path for directory in directories for path in sorted(directory.iterdir())]
        with context.meter() as meter:
            target.library.put_all(files, f"{target.prefix}small-{context.round_index}/")
        count = len(files)
    else:
        # What is there of earlier rounds stays until the end: deleting it one by one would take as long again.
        into = context.recording(USER, 100 + context.round_index)
        with context.meter() as meter:
            for directory in directories:
                subprocess.run(["cp", "-r", directory, into], check=True)
                count += context.sizes.files_per_dir
                if time.perf_counter() - meter.start > BUDGET_S:
                    break
            target.settle()
    context.put(SMALL.key, meter.rate(count))
    context.put(SMALL_CPU.key, Sample((target.cpu() - before).total_s / count * 1000, None))


# --- listings ----------------------------------------------------------------------------------------------------


def _prepare_list(context: Context) -> None:
    if not cast(Far, context.target).makes_list:
        return
    top = context.target.tree / "users" / str(LIST_USER)
    numbers = range(1, context.sizes.s3_list_dirs + 1)
    fill([context.recording(LIST_USER, number) for number in numbers], context.sizes.files_per_dir, float("inf"))
    context.target.settle()
    cast(Far, context.target).make_cold(top)


def _list(context: Context) -> None:
    target = cast(Far, context.target)
    count = context.sizes.s3_list_dirs * context.sizes.files_per_dir
    top = target.listed / "users" / str(LIST_USER)
    target.go_cold()
    with context.meter() as meter:
        listed = _output("ls", "-lR", top).count("\n-")
    if listed != count:
        raise AssertionError(f"ls -lR shows {listed} of {count} files")
    context.put(LS.key, meter.duration())
    target.go_cold()
    with context.meter() as meter:
        _output("du", "-s", top)
    context.put(DU.key, meter.duration())
    if context.round_index or not target.speaks_s3:
        return
    server = target.endpoint
    try:
        with CountingProxy(server) as proxy:
            target.redirect(proxy.endpoint)
            before = proxy.requests
            _output("ls", "-lR", top)
            context.put(REQUESTS.key, Sample(proxy.requests - before, None))
            target.stop()
    finally:
        target.redirect(server)


def _output(*command: str | Path) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment, timeout=LIST_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise LeftOut(f"{command[0]} takes longer than {LIST_TIMEOUT_S:g} s") from error
    return done.stdout


# --- memory ------------------------------------------------------------------------------------------------------


def _streams(context: Context) -> None:
    target, mib = cast(Far, context.target), context.sizes.s3_stream_mib
    read = context.recording(USER, 3)
    for number in range(STREAMS):
        write_stream(read / str(number), mib, BLOCK)
    target.settle()
    target.make_cold(*(read / str(number) for number in range(STREAMS)))
    written = context.recording(USER, 2)  # not before: rclone forgets empty directories
    reset_peak_rss(target.pids())
    commands = [(f"if={_source(context, mib)}", f"of={written / str(number)}") for number in range(STREAMS)]
    commands += [(f"if={read / str(number)}", "of=/dev/null") for number in range(STREAMS)]
    running = [subprocess.Popen(["dd", "bs=1M", *command], stderr=subprocess.DEVNULL) for command in commands]
    if failed := sum(process.wait() != 0 for process in running):
        raise AssertionError(f"{failed} of {len(running)} copies failed")
    target.settle()
    context.put(RSS.key, Sample(peak_rss_mb(target.pids()), None))
    for directory in (written, read):
        shutil.rmtree(directory)
    target.settle()


WORKLOADS = (
    Workload("s3_large", (UPLOAD, TRANSFER, UPLOAD_CPU, READ, READ_CPU, FIRST), _large, far=True),
    Workload("s3_small", (SMALL, SMALL_CPU), _small, warm_up=False, far=True),
    Workload("s3_list", (LS, DU, REQUESTS), _list, prepare=_prepare_list, applies=_is_mount, warm_up=False, far=True),
    Workload("s3_streams", (RSS,), _streams, applies=_is_mount, warm_up=False, far=True),
)
