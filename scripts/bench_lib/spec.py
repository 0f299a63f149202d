"""The vocabulary of the benchmark: metrics with their bars, workloads, and what a workload is given."""

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .measure import Meter, Sample
from .targets import Target


class Better(enum.Enum):
    """Which way a metric improves."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    `bar` is what recfs promises for it, in `unit`; None is a row without a promise. The bar of a
    `full_size_only` row speaks of a size that --quick does not reach, that of a `tmpfs_only` row of a disk at
    the speed of memory: elsewhere they are not judged.
    """

    key: str
    title: str
    unit: str
    better: Better
    bar: float | None = None
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

    small_files: int = 5_000
    fsync_files: int = 500
    stream_mib: int = 512
    writers: int = 16
    writer_mib: int = 64
    list_files: int = 10_000
    walk_dirs: int = 1_000
    walk_files_per_dir: int = 100
    catalogue_files: int = 1_000_000
    full: bool = True


QUICK = Sizes(
    small_files=1_000,
    fsync_files=100,
    stream_mib=256,
    writer_mib=16,
    walk_dirs=100,
    catalogue_files=100_000,
    full=False,
)


@dataclass(slots=True)
class Context:
    """What a workload gets for one run on one target: where to work, how much, where to put its numbers."""

    target: Target
    sizes: Sizes
    warm_dir: Path
    round_index: int
    samples: dict[str, Sample] = field(default_factory=dict)

    def recording(self, user: int, recording: int) -> Path:
        """An existing directory for free use: users/<user>/recordings/<recording> of the target."""
        directory = self.target.tree / "users" / str(user) / "recordings" / str(recording)
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


@dataclass(frozen=True, slots=True)
class Workload:
    """A piece of work that yields one or several metrics on one target.

    `run` is called once per round and target, after `prepare` once per target. `warm_up`: a first, discarded
    round (fresh memory and first-time code paths are slow and are not what is asked for).
    """

    key: str
    metrics: tuple[Metric, ...]
    run: Callable[[Context], None]
    prepare: Callable[[Context], None] | None = None
    applies: Callable[[Target], bool] = lambda target: True
    warm_up: bool = True
