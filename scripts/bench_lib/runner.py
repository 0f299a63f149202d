"""Runs the workloads, every round on every target, and keeps what they measured."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .measure import Sample, median
from .spec import Context, Sizes, Workload
from .targets import TARGETS, Target


@dataclass(slots=True)
class Series:
    """The samples of one metric on one target, one per round."""

    values: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        self.values.append(sample.value)
        if sample.cpu_s is not None:
            self.cpu_s.append(sample.cpu_s)

    @property
    def median(self) -> float | None:
        return median(self.values)


@dataclass(slots=True)
class Results:
    """Everything measured: by metric key, then target name. `failures` holds (workload, target, message)."""

    targets: list[str]
    rounds: int
    series: dict[str, dict[str, Series]] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def of(self, metric: str, target: str) -> Series:
        """The series of `metric` on `target`; empty when it was not measured there."""
        return self.series.get(metric, {}).get(target, Series())

    def add(self, target: str, samples: dict[str, Sample]) -> None:
        """Take the samples of one round."""
        for key, sample in samples.items():
            self.series.setdefault(key, {}).setdefault(target, Series()).add(sample)


@contextlib.contextmanager
def running_targets(base: Path, names: Sequence[str]) -> Iterator[list[Target]]:
    """Start the named targets under `base`, stop them on the way out."""
    targets = [TARGETS[name](base / name) for name in names]
    try:
        for target in targets:
            target.home.mkdir(parents=True)
            target.start()
        yield targets
    finally:
        for target in targets:
            try:
                target.stop()
            except Exception as error:  # the other targets must be unmounted all the same
                print(f"bench: stopping {target.name}: {error}", file=sys.stderr)


class Runner:
    """Interleaves the work: within a round every target does the same, in alternating order."""

    def __init__(
        self,
        targets: Sequence[Target],
        sizes: Sizes,
        rounds: int,
        warm_dir: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._targets = targets
        self._sizes = sizes
        self._rounds = rounds
        self._warm_dir = warm_dir
        self._tell = tell

    def run(self, workloads: Sequence[Workload]) -> Results:
        """Run all `workloads`. One that fails on a target is noted and left out there; the rest goes on."""
        results = Results([target.name for target in self._targets], self._rounds)
        for workload in workloads:
            self._run_workload(workload, results)
        return results

    def _run_workload(self, workload: Workload, results: Results) -> None:
        able = [target for target in self._targets if workload.applies(target)]
        if workload.prepare is not None:
            for target in list(able):
                self._tell(f"{workload.key}: preparing {target.name}")
                if self._attempt(workload, workload.prepare, target, -1, results) is None:
                    able.remove(target)
        first = -1 if workload.warm_up else 0
        for round_index in range(first, self._rounds):
            stage = "warming up" if round_index < 0 else f"round {round_index + 1} of {self._rounds}"
            # A then B, B then A: neither always runs on what the other left in the caches.
            for target in list(able if round_index % 2 == 0 else reversed(able)):
                self._tell(f"{workload.key}: {stage}, {target.name}")
                samples = self._attempt(workload, workload.run, target, round_index, results)
                if samples is None:
                    able.remove(target)
                elif round_index >= 0:
                    results.add(target.name, samples)

    def _attempt(
        self,
        workload: Workload,
        step: Callable[[Context], None],
        target: Target,
        round_index: int,
        results: Results,
    ) -> dict[str, Sample] | None:
        context = Context(target, self._sizes, self._warm_dir, round_index)
        try:
            target.start()
            target.settle()
            step(context)
        except Exception as error:  # whatever it was, it must not cost the rows that work
            results.failures.append((workload.key, target.name, f"{type(error).__name__}: {error}"))
            return None
        return context.samples
