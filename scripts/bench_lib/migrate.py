"""A migration: `recfs migrate run` into the mount, beside plain rsync of the same bytes to the same disk."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.old_tree_lib.rows import Row, write_database

from .recfs_target import RecfsTarget, is_recfs
from .spec import Better, Context, Metric, Workload
from .target import LeftOut, NativeTarget, Target, run

SMALL_BYTES = 10_000
LARGE_BYTES = 50_000_000
USERS = 20
SLOWER_AT_MOST = 1.3
"""A migration takes at most so many times as long as rsync of the same bytes."""

MIGRATE = Metric(
    "migrate",
    "migrate {migrate_small:,} files of 10 KB, {migrate_large} of 50 MB",
    "s",
    Better.LOWER,
    of_native=1 / SLOWER_AT_MOST,
)
MIGRATE_COMMIT = Metric("migrate_commit", "  … → all committed", "s", Better.LOWER)
_SMALL_PER_RECORDING = 4
_PLACES = (
    ("local_video_path", "video/unprocessed", ".mp4"),
    ("processed_video_path", "video/processed", "_processed.mp4"),
    ("processed_audio_path", "audio/processed", "_processed.mp3"),
)
_TIMEOUT_S = 3600.0


def _applies(target: Target) -> bool:
    return isinstance(target, NativeTarget) or is_recfs(target)


def fill_old_tree(old: Path, small: int, large: int) -> int:
    """Make an old tree with a database in the new directory *old*; returns its bytes.

    Each recording has four small files, those of large ones are a source alone.
    """
    rows: list[Row] = []
    for number in range(small // _SMALL_PER_RECORDING):
        row = _next_row(rows)
        for column, place, end in _PLACES:
            path = f"user_{row.user_id}/{place}/title_{number}{end}"
            setattr(row, column, path)
            _write(old / path, SMALL_BYTES)
        row.transcription_dir = f"user_{row.user_id}/transcriptions/{row.id}"
        _write(old / row.transcription_dir / "master.json", SMALL_BYTES)
    for number in range(large):
        row = _next_row(rows)
        row.local_video_path = f"user_{row.user_id}/video/unprocessed/large_{number}.mp4"
        _write(old / row.local_video_path, LARGE_BYTES)
    write_database(old / "data.db", rows)
    return small // _SMALL_PER_RECORDING * _SMALL_PER_RECORDING * SMALL_BYTES + large * LARGE_BYTES


def _next_row(rows: list[Row]) -> Row:
    row = Row(len(rows) + 1, len(rows) % USERS + 1, f"title {len(rows)}")
    rows.append(row)
    return row


def _write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))


def _source(context: Context) -> tuple[Path, Path]:
    """The old tree of this size, made once per run, and its plan."""
    small, large = context.sizes.migrate_small, context.sizes.migrate_large
    old = context.scratch / f"old-{small}-{large}"
    plan = old.with_suffix(".plan")
    if not plan.exists():
        needed = 3 * (small * SMALL_BYTES + large * LARGE_BYTES)  # the tree, rsync's copy, recfs's
        free = shutil.disk_usage(context.scratch).free
        if free < needed + (1 << 30):
            raise LeftOut(f"takes {needed / 1e9:.1f} GB of the disk, and {free / 1e9:.1f} GB are free")
        shutil.rmtree(old, ignore_errors=True)
        fill_old_tree(old, small, large)
        _recfs("plan", old, "--db", old / "data.db", "--output", plan)
    return old, plan


def _recfs(*arguments: str | Path) -> None:
    run([RecfsTarget.command, "migrate", *arguments], timeout_s=_TIMEOUT_S)


def _migrate(context: Context) -> None:
    if shutil.which("rsync") is None:
        raise LeftOut("rsync is not installed")
    old, plan = _source(context)
    top = context.target.tree
    if isinstance(context.target, RecfsTarget):
        with context.meter() as meter:
            _recfs("run", plan, "--root", context.target.root)
        context.put(MIGRATE.key, meter.duration())
        with context.meter() as meter:
            context.target.settle()
        context.put(MIGRATE_COMMIT.key, meter.duration())
        made: Sequence[Path] = list((top / "users").iterdir())
    else:
        with context.meter() as meter:
            run(["rsync", "-a", "--exclude=/data.db", f"{old}/", top / "copy"], timeout_s=_TIMEOUT_S)
        context.put(MIGRATE.key, meter.duration())
        made = [top / "copy"]
    _assert_whole(made, context)
    for folder in made:
        shutil.rmtree(folder)
    for left in plan.parent.glob(f"{plan.name}.*"):
        left.unlink()
    context.target.settle()


def _assert_whole(made: Sequence[Path], context: Context) -> None:
    expected = context.sizes.migrate_small // _SMALL_PER_RECORDING * _SMALL_PER_RECORDING + context.sizes.migrate_large
    found = sum(len(files) for folder in made for _, _, files in os.walk(folder))
    if found != expected:
        raise AssertionError(f"{found} of {expected} files were brought")


WORKLOADS = (Workload("migrate", (MIGRATE, MIGRATE_COMMIT), _migrate, applies=_applies),)
