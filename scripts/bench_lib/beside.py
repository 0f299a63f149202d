"""Upkeep beside users: how long a stat takes, and how fast a writer is, while recfs sweeps, backs up and verifies."""

import hashlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .measure import Sample
from .million import FILES_PER_RECORDING, build
from .recfs_target import RecfsTarget, is_recfs
from .remux import ffmpeg
from .small import PAYLOAD
from .spec import Better, Context, Metric, Workload

SWEEP = Metric("beside_sweep", "temp sweep, {sweep_files:,} files", "s", Better.LOWER, bar=10.0, full_size_only=True)
SWEEP_STAT = Metric("beside_sweep_stat", "  stat beside it, p99 above idle", "ms", Better.LOWER, bar=5.0)
BACKUP = Metric("beside_backup", "backup, {catalogue_files:,} files", "s", Better.LOWER, bar=10.0, full_size_only=True)
BACKUP_STAT = Metric("beside_backup_stat", "  stat beside it, p99 above idle", "ms", Better.LOWER, bar=5.0)
VERIFY = Metric("beside_verify", "verify --level hash ÷ sha256 alone", "×", Better.HIGHER, bar=0.9)
VERIFY_WRITE = Metric("beside_verify_write", "  writes beside it ÷ alone", "×", Better.HIGHER, bar=0.9)

PROBES = Metric("beside_probes", "{media_files} recordings committed and looked into", "s", Better.LOWER)
PROBES_STAT = Metric("beside_probes_stat", "  stat beside it, p99 above idle", "ms", Better.LOWER, bar=5.0)
PROBES_WRITE = Metric("beside_probes_write", "  writes beside it ÷ alone", "×", Better.HIGHER, bar=0.9)

PACE_S = 0.001
"""Between two stats: one user who looks around, and not a load by itself."""
JOB_FILES = 1_000
BLOCK = bytes(1 << 20)
FILE_MIB = 256


class _Sweeping(RecfsTarget):
    """A store whose temp jobs are due at once, and are swept when that is asked for."""

    name = "recfs-sweeping"

    def _settings(self) -> tuple[str | Path, ...]:
        settings = self.home / "recfs.conf"
        settings.write_text(f'root = "{self.root}"\n[temp]\nmax_age = "1s"\nsweep_interval = "1d"\n')
        return ("--config", settings)


def _p99_ms(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98] * 1000


def _stats(paths: Iterator[Path], until: Callable[[int], bool]) -> list[float]:
    """How long a stat of each took, of names that the kernel does not know yet, *until* so many were enough."""
    took: list[float] = []
    for path in paths:
        began = time.perf_counter()
        os.stat(path)
        took.append(time.perf_counter() - began)
        if until(len(took)):
            break
        time.sleep(PACE_S)
    return took


def _beside(paths: Iterator[Path], work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds that *work* took, p99 of a stat meanwhile above the one before, in ms)."""
    idle = _p99_ms(_stats(paths, lambda count: count >= 2_000))
    ended = threading.Event()
    took: list[float] = []

    def carry_out() -> None:
        began = time.perf_counter()
        try:
            work()
            took.append(time.perf_counter() - began)
        finally:
            ended.set()

    worker = threading.Thread(target=carry_out)
    worker.start()
    busy = _stats(paths, lambda _: ended.is_set())
    worker.join()
    return took[0], max(0.0, _p99_ms(busy) - idle)


def _fill(folder: Path, files: int) -> None:
    folder.mkdir(parents=True)
    for number in range(files):
        (folder / f"f{number}").write_bytes(PAYLOAD)


# --- a sweep -----------------------------------------------------------------------------------------------------


def _sweep(context: Context) -> None:
    store = _Sweeping(context.target.home / f"sweeping-{context.round_index}")
    store.home.mkdir(parents=True, exist_ok=True)
    try:
        store.start()
        probed = store.tree / "users" / "1" / "recordings" / "1"
        _fill(probed, context.sizes.probed_files)
        store.settle()
        store.go_cold()  # which sweeps, too: so the jobs come after it
        for job in range(context.sizes.sweep_files // JOB_FILES):
            _fill(store.tree / "temp" / "1" / str(job), JOB_FILES)
        store.settle()
        time.sleep(1.1)  # the jobs are as old then as they may be

        def sweep() -> None:
            run = store.call("sweep_run", name="temp")["run"]
            while not store.call("sweep_wait", name="temp", run=run, timeout_s=60.0)["ended"]:
                pass

        took, above = _beside((probed / f"f{number}" for number in range(context.sizes.probed_files)), sweep)
        context.put(SWEEP.key, Sample(took, None))
        context.put(SWEEP_STAT.key, Sample(above, None))
    finally:
        store.stop()


# --- a backup ----------------------------------------------------------------------------------------------------


def _catalogued(context: Context) -> RecfsTarget:
    return RecfsTarget(context.target.home / "catalogued")


def _prepare_backup(context: Context) -> None:
    store = _catalogued(context)
    try:
        build(store, context.sizes.catalogue_files)
    finally:
        store.stop()


def _backup(context: Context) -> None:
    store = _catalogued(context)
    try:
        store.start()
        recordings = store.tree / "users" / "1" / "recordings"
        # The first one has the template alone.
        found = (
            recordings / str(number) / f"f{each}" for number in range(2, 100) for each in range(FILES_PER_RECORDING)
        )
        took, above = _beside(found, lambda: store.call("backup_now"))
        context.put(BACKUP.key, Sample(took, None))
        context.put(BACKUP_STAT.key, Sample(above, None))
    finally:
        store.stop()


# --- verification ------------------------------------------------------------------------------------------------


def _write(folder: Path, until: Callable[[], bool]) -> float:
    """MiB a second of one who writes files of 8 MiB, over and over the same four."""
    folder.mkdir(parents=True, exist_ok=True)
    written, began = 0, time.perf_counter()
    while not until():
        with (folder / f"w{written // 8 % 4}").open("wb", buffering=0) as file:
            for _ in range(8):
                file.write(BLOCK)
        written += 8
    return written / (time.perf_counter() - began)


def _write_for(folder: Path, seconds: float) -> float:
    """The same, for so long."""
    ends = time.monotonic() + seconds
    return _write(folder, lambda: time.monotonic() > ends)


def _verify(context: Context) -> None:
    store = RecfsTarget(context.target.home / "verified")
    try:
        store.start()
        folder = store.tree / "users" / "1" / "recordings" / "1"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(context.sizes.verified_mib // FILE_MIB):
            (folder / f"f{number}").write_bytes(BLOCK * FILE_MIB)
        store.settle()
        writes = store.tree / "users" / "2" / "recordings" / "1"

        def verify() -> float:
            """MiB a second."""
            began = time.perf_counter()
            run = store.call("verify_begin", path="users/1", level="hash", since_s=None, rate=None)["run"]
            while not store.call("verify_wait", run=run, timeout_s=60.0)["ended"]:
                pass
            return context.sizes.verified_mib / (time.perf_counter() - began)

        began = time.perf_counter()
        for _ in range(256):
            hashlib.sha256(BLOCK).digest()
        digest = 256 / (time.perf_counter() - began)
        verify()  # the pages are warm, and the code
        context.put(VERIFY.key, Sample(verify() / digest, None))
        store.settle()
        alone = _write_for(writes, 3.0)
        store.settle()
        worker = threading.Thread(target=verify)
        worker.start()
        beside = _write(writes, lambda: not worker.is_alive())
        worker.join()
        context.put(VERIFY_WRITE.key, Sample(beside / alone, None))
    finally:
        store.stop()


# --- looks into media --------------------------------------------------------------------------------------------


def _clip(context: Context) -> bytes:
    """A second of video and sound."""
    path = context.scratch / "probed.mp4"
    if not path.exists():
        picture, sound = "testsrc2=size=320x240:rate=10:duration=1", "sine=duration=1"
        ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-c:v", "mpeg4", "-c:a", "aac", path)
    return path.read_bytes()


def _probes(context: Context) -> None:
    clip, files = _clip(context), context.sizes.media_files
    store = RecfsTarget(context.target.home / f"media-{context.round_index}")
    try:
        store.start()
        probed = store.tree / "users" / "1" / "recordings" / "9"
        _fill(probed, context.sizes.probed_files)
        store.settle()
        writes = store.tree / "users" / "2" / "recordings" / "1"
        before = _write_for(writes, 3.0)
        store.settle()
        store.go_cold()

        def looked_into() -> int:
            looks = store.call("status")["media"]["looks"]
            return sum(looks.get(verdict, 0) for verdict in ("whole", "broken", "unknown"))

        def commit(first: int) -> None:
            for number in range(first, first + files):
                folder = store.tree / "users" / "3" / "recordings" / str(number + 1)
                folder.mkdir(parents=True)
                # What follows the last box is nobody's: each is another file, and they are alike to ffprobe.
                (folder / "source.mp4").write_bytes(clip + b"\0\0\0\x0cfree" + number.to_bytes(4))

        def look(until: int) -> None:
            while looked_into() < until:
                time.sleep(0.1)

        def storm() -> None:
            commit(0)
            look(files)

        took, above = _beside((probed / f"f{number}" for number in range(context.sizes.probed_files)), storm)
        context.put(PROBES.key, Sample(took, None))
        context.put(PROBES_STAT.key, Sample(above, None))
        commit(files)  # whoever commits is a writer, too: the other one is measured beside the looks alone
        worker = threading.Thread(target=look, args=(2 * files,))
        worker.start()
        beside = _write(writes, lambda: not worker.is_alive())
        worker.join()
        store.settle()
        # Before and after: who else uses the machine comes and goes.
        alone = (before + _write_for(writes, 3.0)) / 2
        context.put(PROBES_WRITE.key, Sample(beside / alone, None))
    finally:
        store.stop()


WORKLOADS = (
    Workload("sweep", (SWEEP, SWEEP_STAT), _sweep, applies=is_recfs, warm_up=False),
    Workload("backup", (BACKUP, BACKUP_STAT), _backup, prepare=_prepare_backup, applies=is_recfs, warm_up=False),
    Workload("verify", (VERIFY, VERIFY_WRITE), _verify, applies=is_recfs, warm_up=False),
    Workload("probes", (PROBES, PROBES_STAT, PROBES_WRITE), _probes, applies=is_recfs, warm_up=False),
)
