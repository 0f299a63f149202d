"""Clocks, /proc readers and the arithmetic of rounds."""

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds spent by a process, in its own code and in the kernel for it."""

    user_s: float
    system_s: float

    @property
    def total_s(self) -> float:
        return self.user_s + self.system_s

    def __sub__(self, earlier: "CpuTime") -> "CpuTime":
        return CpuTime(self.user_s - earlier.user_s, self.system_s - earlier.system_s)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value of one metric, and the daemon's CPU seconds meanwhile (None: no daemon)."""

    value: float
    cpu_s: float | None


def cpu_time(pids: Iterable[int]) -> CpuTime:
    """CPU time of `pids` so far, all threads (proc(5), stat fields 14, 15). One that is gone counts 0."""
    user = system = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        # The command name in parentheses may hold spaces; the fields after it do not.
        fields = stat.rpartition(")")[2].split()
        user += int(fields[11])
        system += int(fields[12])
    return CpuTime(user / _TICKS_PER_S, system / _TICKS_PER_S)


def _status_kib(pids: Iterable[int], field: str) -> int:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                total += int(line.split()[1])
    return total


def rss_mb(pids: Iterable[int]) -> float:
    """Resident set of `pids` now, in MB of 10^6 bytes."""
    return _status_kib(pids, "VmRSS") * 1024 / 1e6


def peak_rss_mb(pids: Iterable[int]) -> float:
    """Largest resident set of `pids` since reset_peak_rss, in MB of 10^6 bytes."""
    return _status_kib(pids, "VmHWM") * 1024 / 1e6


def reset_peak_rss(pids: Iterable[int]) -> None:
    """Start VmHWM again from the current resident set (proc(5), clear_refs value 5)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


class Meter:
    """Context manager: wall time of its block, and the CPU time of `pids` during it."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self.start = self.wall_s = 0.0
        self.cpu_s: float | None = None

    def __enter__(self) -> Self:
        self._cpu = cpu_time(self._pids)
        self.start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall_s = time.perf_counter() - self.start
        if self._pids:
            self.cpu_s = (cpu_time(self._pids) - self._cpu).total_s

    def rate(self, count: float) -> Sample:
        """`count` per second."""
        return Sample(count / self.wall_s, self.cpu_s)

    def duration(self, scale: float = 1.0) -> Sample:
        """The wall time, in seconds times `scale`."""
        return Sample(self.wall_s * scale, self.cpu_s)


def median(values: Sequence[float]) -> float | None:
    """Median, or None of nothing."""
    return statistics.median(values) if values else None


def median_ratio(ours: Sequence[float], theirs: Sequence[float], *, higher_is_better: bool) -> float | None:
    """Median over the rounds of how many times as fast we were as they in the same round.

    The ratio is taken within a round because both ran seconds apart there: what the machine does to one round
    it does to both. 1 is as fast, 0.5 takes twice as long (or twice the memory).
    """
    pairs = [(our, their) for our, their in zip(ours, theirs, strict=False) if our > 0 and their > 0]
    return median([our / their if higher_is_better else their / our for our, their in pairs])
