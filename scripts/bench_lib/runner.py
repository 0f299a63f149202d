"""Runs the workloads, every round on every target, and keeps what they measured."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .measure import Sample, median, median_ratio
from .spec import QUICK, Better, Context, Metric, Sizes, Workload
from .target import LeftOut, NativeTarget, Target


@dataclass(slots=True)
class Series:
    """The samples of one metric on one target, by round."""

    samples: dict[int, Sample] = field(default_factory=dict)

    @property
    def values(self) -> list[float]:
        return [sample.value for sample in self.samples.values()]

    @property
    def cpu_s(self) -> list[float]:
        return [sample.cpu_s for sample in self.samples.values() if sample.cpu_s is not None]

    @property
    def median(self) -> float | None:
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a target's daemon took for one round of a workload, its background work included."""

    cpu_s: float
    peak_rss_mb: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to a workload on a target."""

    workload: str
    target: str
    message: str


@dataclass(slots=True)
class Results:
    """Everything measured.

    `series`: by metric key, then target name. `usage`: by workload key, then target, one per round. `took_s`: by
    workload key, of all targets and rounds. `left_out` was not to be measured, `failures` could not.
    """

    targets: list[str]
    rounds: int
    reference: str = NativeTarget.name
    """The target that the others are compared with."""
    series: dict[str, dict[str, Series]] = field(default_factory=dict)
    usage: dict[str, dict[str, list[Usage]]] = field(default_factory=dict)
    took_s: dict[str, float] = field(default_factory=dict)
    left_out: list[Note] = field(default_factory=list)
    failures: list[Note] = field(default_factory=list)

    def of(self, metric: str, target: str) -> Series:
        """The series of `metric` on `target`; empty when it was not measured there."""
        return self.series.get(metric, {}).get(target, Series())

    def ratio(self, metric: Metric, ours: str, theirs: str) -> float | None:
        """Median over the rounds of how many times as fast `ours` was as `theirs` in the same round."""
        mine, other = self.of(metric.key, ours).samples, self.of(metric.key, theirs).samples
        rounds = sorted(mine.keys() & other.keys())
        return median_ratio(
            [mine[index].value for index in rounds],
            [other[index].value for index in rounds],
            higher_is_better=metric.better is Better.HIGHER,
        )

    def add(self, target: str, round_index: int, samples: dict[str, Sample]) -> None:
        """Take the samples of one round."""
        for key, sample in samples.items():
            self.series.setdefault(key, {}).setdefault(target, Series()).samples[round_index] = sample

    def shared_workloads(self) -> list[str]:
        """Keys of the workloads that every target did in every round: what the daemons' use is compared for."""
        return [
            key
            for key, used in self.usage.items()
            if all(len(used.get(name, ())) == self.rounds for name in self.targets)
        ]

    def daemon_use(self, target: str) -> Usage:
        """CPU seconds per round and memory peak of the daemon of `target`, in the shared workloads."""
        shared = [self.usage[key][target] for key in self.shared_workloads()]
        return Usage(
            sum(statistics.median(used.cpu_s for used in rounds) for rounds in shared),
            max((used.peak_rss_mb for rounds in shared for used in rounds), default=0.0),
        )


class Runner:
    """Interleaves the work: within a round every target does the same, in alternating order."""

    def __init__(
        self,
        targets: Sequence[Target],
        sizes: Sizes,
        rounds: int,
        scratch: Path,
        tell: Callable[[str], None],
        reference: str = NativeTarget.name,
    ) -> None:
        self._targets = targets
        self._sizes = sizes
        self._rounds = rounds
        self._scratch = scratch
        self._tell = tell
        self._results = Results([target.name for target in targets], rounds, reference)

    def run(self, workloads: Sequence[Workload]) -> Results:
        """Run all `workloads`. One that fails on a target is noted and left out there; the rest goes on."""
        for workload in workloads:
            start = time.monotonic()
            self._run_workload(workload)
            self._results.took_s[workload.key] = time.monotonic() - start
        return self._results

    def _run_workload(self, workload: Workload) -> None:
        able = [target for target in self._targets if workload.applies(target)]
        prepared = list(able)
        if workload.prepare is not None:
            for target in prepared:
                self._tell(f"{workload.key}: preparing {target.name}")
                if self._attempt(workload, workload.prepare, target) is None:
                    able.remove(target)
        for round_index in range(-1 if workload.warm_up else 0, self._rounds):
            stage = "warming up" if round_index < 0 else f"round {round_index + 1} of {self._rounds}"
            # A then B, B then A: neither always runs on what the other left in the caches.
            for target in list(able if round_index % 2 == 0 else reversed(able)):
                self._tell(f"{workload.key}: {stage}, {target.name}")
                cpu_s = target.cpu_s
                target.take_peak_rss_mb()
                samples = self._attempt(workload, workload.run, target, round_index)
                if samples is None:
                    able.remove(target)
                elif round_index >= 0:
                    self._results.add(target.name, round_index, samples)
                    usage = Usage(target.cpu_s - cpu_s, target.take_peak_rss_mb())
                    self._results.usage.setdefault(workload.key, {}).setdefault(target.name, []).append(usage)
        if workload.clear is not None:
            for target in prepared:
                self._attempt(workload, workload.clear, target)

    def _attempt(
        self, workload: Workload, step: Callable[[Context], None], target: Target, round_index: int = 0
    ) -> dict[str, Sample] | None:
        context = Context(target, self._sizes if round_index >= 0 else QUICK, self._scratch, round_index)
        try:
            target.start()
            target.settle()
            step(context)
            target.settle()
        except LeftOut as reason:
            self._note(self._results.left_out, workload, target, str(reason))
            return None
        except Exception as error:  # whatever it was, it must not cost the rows that work
            self._note(self._results.failures, workload, target, f"{type(error).__name__}: {error}")
            return None
        return context.samples

    @staticmethod
    def _note(notes: list[Note], workload: Workload, target: Target, message: str) -> None:
        note = Note(workload.key, target.name, message)
        if note not in notes:
            notes.append(note)
