"""What came to a store past recfs: a catalogue made anew of it, and the watch over the home tree."""

import hashlib
import os
import shutil
import time
from pathlib import Path

from .measure import Sample
from .recfs_target import RecfsTarget, is_recfs
from .small import PAYLOAD
from .spec import Better, Context, Metric, Workload
from .target import TargetError, run

NAMES = Metric("rebuild_names", "rebuild without hashing, {rebuilt_files:,} files", "1/s", Better.HIGHER, bar=5_000.0)
HASHED = Metric(
    "rebuild_hashed", "rebuild with hashing ÷ sha256 alone", "×", Better.HIGHER, bar=0.9, full_size_only=True
)
WATCHED = Metric("watched", "{watched_files:,} files put into the home tree", "s", Better.LOWER, bar=10.0)

FILES_PER_RECORDING = 1_000
FILE_MIB = 256
BLOCK = os.urandom(1 << 20)
WATCH_TIMEOUT_S = 300.0
LOOK_S = 0.1


def _store(context: Context, name: str) -> RecfsTarget:
    """A store that was mounted once, with nothing in it; each call makes it anew."""
    store = RecfsTarget(context.target.home / name)
    shutil.rmtree(store.home, ignore_errors=True)
    store.home.mkdir(parents=True)
    store.start()
    return store


def _recording(store: RecfsTarget, number: int) -> Path:
    """A recording's directory in the home tree, made there past recfs."""
    folder = store.root / "users" / "1" / "recordings" / str(number)
    folder.mkdir(parents=True)
    return folder


def _rebuild(store: RecfsTarget, checksums: str) -> float:
    """Seconds that it takes, the start of the program and all."""
    began = time.perf_counter()
    run([store.command, "rebuild", "--root", store.root, "--checksums", checksums], timeout_s=3600.0)
    return time.perf_counter() - began


def _names(context: Context) -> None:
    store = _store(context, "rebuilt")
    store.stop()
    files = context.sizes.rebuilt_files
    for number in range(files // FILES_PER_RECORDING):
        folder = _recording(store, number)
        for each in range(FILES_PER_RECORDING):
            (folder / f"f{each}").write_bytes(PAYLOAD)
    context.put(NAMES.key, Sample(files / _rebuild(store, "later"), None))
    shutil.rmtree(store.home)


def _hashed(context: Context) -> None:
    store = _store(context, "rebuilt")
    store.stop()
    mib = context.sizes.rebuilt_mib
    folder = _recording(store, 1)
    for number in range(mib // FILE_MIB):
        (folder / f"f{number}").write_bytes(BLOCK * FILE_MIB)
    began = time.perf_counter()
    for _ in range(256):
        hashlib.sha256(BLOCK).digest()
    digest = 256 / (time.perf_counter() - began)
    context.put(HASHED.key, Sample(mib / _rebuild(store, "verify") / digest, None))
    shutil.rmtree(store.home)


def _watched(context: Context) -> None:
    """From the beginning of the copy until each file is shown, charged and hashed."""
    store = _store(context, "watched")
    files = context.sizes.watched_files
    source = store.home / "source"
    source.mkdir()
    for number in range(files):
        (source / f"f{number}").write_bytes(PAYLOAD)
    try:
        folder = _recording(store, 1)
        began = time.perf_counter()
        shutil.copytree(source, folder, dirs_exist_ok=True)
        while store.call("status")["states"] != {"committed": files}:
            if time.perf_counter() - began > WATCH_TIMEOUT_S:
                raise TargetError(f"after {WATCH_TIMEOUT_S:g} s: {store.call('status')['states']}")
            time.sleep(LOOK_S)
        context.put(WATCHED.key, Sample(time.perf_counter() - began, None))
    finally:
        store.stop()
    shutil.rmtree(store.home)


WORKLOADS = (
    Workload("rebuild-names", (NAMES,), _names, applies=is_recfs, warm_up=False),
    Workload("rebuild-hashed", (HASHED,), _hashed, applies=is_recfs, warm_up=False),
    Workload("watch", (WATCHED,), _watched, applies=is_recfs, warm_up=False),
)
