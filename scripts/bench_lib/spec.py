"""The vocabulary of the benchmark: metrics with what is promised for them, workloads, what a workload is given."""

import enum
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .measure import Meter, Sample
from .target import Target

ROUND_S = 0.25
"""Warm rows repeat their pass until this much time is over: a fast target's one pass is too short to time."""


class Better(enum.Enum):
    """Which way a metric improves."""

    HIGHER = "higher"
    LOWER = "lower"


class Group(enum.Enum):
    """What a row is about, and so what is promised for it (see `bars`)."""

    DATA = "data"
    """Bytes. recfs is to be ahead of every peer."""
    METADATA = "metadata"
    """Names and small files. The same, and at least level with those peers that are built for it."""
    OWN = "own"
    """recfs's own affairs: commits, start-up, memory. Nothing to compare."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    `bar` is what recfs promises for it, in `unit`; `of_native` the part of the native speed it promises (in rows about
    S3: of the library's own speed); None is no promise. The bar of a `full_size_only` row speaks of a size that --quick
    does not reach, that of a `tmpfs_only` row of a disk at the speed of memory: elsewhere they are not judged.
    """

    key: str
    title: str
    unit: str
    better: Better
    group: Group = Group.OWN
    bar: float | None = None
    of_native: float | None = None
    full_size_only: bool = False
    tmpfs_only: bool = False

    def met(self, value: float) -> bool | None:
        """Whether `value` keeps the bar; None where there is none."""
        if self.bar is None:
            return None
        return value >= self.bar if self.better is Better.HIGHER else value < self.bar


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work each workload does."""

    small_files: int = 3_000
    fsync_files: int = 500
    stream_mib: int = 512
    stream_32k_mib: int = 256
    stream_4k_mib: int = 128
    rewrite_4k_mib: int = 32
    random_file_mib: int = 256
    random_reads: int = 65_536
    random_writes: int = 16_384
    media_mb: int = 500
    writers: int = 16
    writer_mib: int = 64
    list_files: int = 10_000
    du_dirs: int = 200
    walk_dirs: int = 1_000
    files_per_dir: int = 100
    rm_files: int = 60_000
    clone_files: int = 5_000
    rsync_files: int = 20_000
    catalogue_files: int = 1_000_000
    migrate_small: int = 10_000
    migrate_large: int = 200
    sweep_files: int = 100_000
    probed_files: int = 20_000
    verified_mib: int = 2_048
    media_files: int = 200
    rebuilt_files: int = 100_000
    rebuilt_mib: int = 8_192
    watched_files: int = 10_000
    audited_files: int = 1_000
    audited_pairs: int = 10
    restarts: int = 10
    s3_file_mib: int = 512
    s3_small_dirs: int = 64
    s3_list_dirs: int = 200
    s3_stream_mib: int = 32
    full: bool = True


QUICK = Sizes(
    small_files=1_000,
    fsync_files=100,
    stream_mib=256,
    stream_32k_mib=64,
    stream_4k_mib=32,
    rewrite_4k_mib=16,
    random_file_mib=64,
    random_reads=16_384,
    random_writes=8_192,
    media_mb=100,
    writer_mib=16,
    list_files=2_000,
    du_dirs=20,
    walk_dirs=100,
    rm_files=3_000,
    clone_files=500,
    rsync_files=1_000,
    catalogue_files=100_000,
    migrate_small=1_000,
    migrate_large=20,
    sweep_files=10_000,
    probed_files=5_000,
    verified_mib=1_024,
    media_files=50,
    rebuilt_files=10_000,
    rebuilt_mib=1_024,
    watched_files=2_000,
    audited_files=300,
    audited_pairs=4,
    restarts=2,
    s3_file_mib=64,
    s3_small_dirs=5,
    s3_list_dirs=10,
    s3_stream_mib=8,
    full=False,
)


@dataclass(slots=True)
class Context:
    """What a workload gets for one run on one target: where to work, how much, where to put its numbers."""

    target: Target
    sizes: Sizes
    scratch: Path
    round_index: int
    samples: dict[str, Sample] = field(default_factory=dict)

    def recording(self, user: int, recording: int) -> Path:
        """An existing directory for free use: users/<user>/recordings/<recording> of the target."""
        return self._made(self.target.tree, user, recording)

    def feed(self, user: int, recording: int) -> Path:
        """The same directory where it may be filled fast, if the target has a way past itself; see Target.feed."""
        return self._made(self.target.feed, user, recording)

    @staticmethod
    def _made(top: Path, user: int, recording: int) -> Path:
        directory = top / "users" / str(user) / "recordings" / str(recording)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    @contextmanager
    def meter(self) -> Iterator[Meter]:
        """Measure the block: wall time and the daemon's CPU time."""
        with Meter(self.target.pids()) as meter:
            yield meter

    def put(self, key: str, sample: Sample) -> None:
        """Record the value of metric `key` for this round."""
        self.samples[key] = sample

    def put_repeated(self, key: str, amount: float, one_pass: Callable[[], None]) -> None:
        """Record `amount` per second of `one_pass`, done again until ROUND_S is over; for warm rows only."""
        passes = 0
        with self.meter() as meter:
            while passes == 0 or time.perf_counter() - meter.start < ROUND_S:
                one_pass()
                passes += 1
        self.put(key, meter.rate(passes * amount))


@dataclass(frozen=True, slots=True)
class Workload:
    """A piece of work that yields one or several metrics on one target.

    `run` is called once per round and target, after `prepare` once per target and before `clear` once per
    target. `warm_up`: a first, discarded round of the quick size (first-time code paths are slow and are not what
    is asked for; memory is warmed by the workloads themselves). Each may raise LeftOut.
    """

    key: str
    metrics: tuple[Metric, ...]
    run: Callable[[Context], None]
    prepare: Callable[[Context], None] | None = None
    clear: Callable[[Context], None] | None = None
    applies: Callable[[Target], bool] = lambda target: True
    warm_up: bool = True
    far: bool = False
    """Measured against an S3 server, on the targets of `s3_targets`."""
