"""Metrics in the client library's terms, and as text. Names follow prometheus.io/docs/practices/naming."""

from __future__ import annotations

import errno
import platform
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from recfs import __version__
from recfs.core.sweeping import RunOutcome
from recfs.metrics.requests import BOUNDS_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from recfs.metrics.looking import OfUser, Queue, Seen, Told
    from recfs.metrics.requests import Latency

CONTENT_TYPE = CONTENT_TYPE_LATEST


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"recfs_{name}", what, value=value)


def _labelled(name: str, what: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(f"recfs_{name}", what, labels=[label])
    for each, value in values:
        family.add_metric([each], value)
    return family


class _Given(Collector):
    """These families, once."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._families


class Metrics(Collector):
    """Everything that one scrape tells."""

    def __init__(
        self, seen: Seen, results: Mapping[tuple[str, int], int], latencies: Mapping[str, Latency], started_s: float
    ) -> None:
        """*started_s*: when the daemon began, in seconds since 1970."""
        self._seen, self._results, self._latencies, self._started_s = seen, results, latencies, started_s

    def text(self) -> bytes:
        """In Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Given(self._of_all()))
        return generate_latest(registry) + _users_as_text(self._seen.written.users).encode("utf-8")

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from self._of_all()
        yield from _users(self._seen.written.users)

    def _of_all(self) -> Iterator[Metric]:
        """All but those of single users."""
        seen, written = self._seen, self._seen.written
        yield from self._requests()
        yield _gauge("sealing_files", "Closed files that wait for their checksums and their commit.", seen.sealing)
        yield _gauge("sealing_oldest_seconds", "How long the oldest of them waits.", seen.sealing_s)
        yield _gauge("settling_files", "What the home tree does not show yet.", seen.settling)
        yield _gauge("hashing_bytes", "Bytes that are yet to be hashed.", seen.hashing_bytes)
        what = "Bytes a second that one thread hashes, as it was lately."
        yield _gauge("hashing_bytes_per_second", what, seen.hashing_rate)
        yield _gauge("dirty_rows", "Changes that are not written to the catalogue yet.", seen.dirty)
        yield _gauge("open_handles", "Handles of open files.", seen.open_files)
        yield _gauge("inodes_cached", "Files and directories in memory.", seen.inodes)
        yield _gauge("disk_free_bytes", "Free bytes of the store's disk.", seen.free_bytes)
        yield _gauge("disk_size_bytes", "Size of the store's disk.", seen.total_bytes)
        yield _gauge("disk_reserve_bytes", "What writers leave free: below, they are refused.", seen.reserve_bytes)
        if seen.inodes_of_disk is not None:
            inodes, free, reserve = seen.inodes_of_disk
            yield _gauge("disk_inodes", "Inodes of the store's disk.", inodes)
            yield _gauge("disk_free_inodes", "Free inodes of the store's disk.", free)
            yield _gauge("disk_reserve_inodes", "What writers leave free of them: below, they are refused.", reserve)
        yield _labelled("files", "Files by state.", "state", written.states.items())
        if seen.passthrough is not None:
            told = zip(("read", "write"), map(float, seen.passthrough), strict=True)
            yield _labelled("passthrough", "Whether the kernel does it by itself.", "what", told)
        yield _labelled("problems", "What failed and is tried again, by part.", "part", seen.problems.items())
        yield from self._media()
        yield from self._sweeps()
        yield _gauge("backup_every_seconds", "How often a backup is to be made; 0: never.", seen.backup.every_s)
        if seen.backup.age_s is not None:
            what = "How old the newest good backup of the catalogue is; infinite: there is none."
            yield _gauge("backup_age_seconds", what, seen.backup.age_s)
        if seen.told is not None:
            yield from _told(seen.told)
        if seen.queue is not None:
            yield from _queue(seen.queue)
        yield _gauge("users_not_told", "Users left out because [metrics] users is less.", written.more_users)
        build = GaugeMetricFamily("recfs_build_info", "1, with the version.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield _gauge("start_time_seconds", "When the daemon began.", self._started_s)

    def _requests(self) -> Iterator[Metric]:
        results = CounterMetricFamily(
            "recfs_requests", "Requests of the kernel by kind and result.", labels=["op", "result"]
        )
        for (op, number), count in self._results.items():
            results.add_metric([op, errno.errorcode.get(number, str(number)) if number else "ok"], count)
        yield results
        times = HistogramMetricFamily("recfs_request_seconds", "How long requests took.", labels=["op"])
        for op, latency in self._latencies.items():
            below, buckets = 0, []
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), latency.counts, strict=True):
                below += count
                buckets.append((bound, float(below)))
            times.add_metric([op], buckets, latency.total_s)
        yield times

    def _media(self) -> Iterator[Metric]:
        what = "Files that are to be looked into (pending), are broken, or could not be looked into, by verdict."
        yield _labelled("media_files", what, "verdict", self._seen.written.media.items())
        looks = self._seen.looks.items()
        yield _counted("media_looks", "Looks into files, by what came of them.", "result", looks)

    def _sweeps(self) -> Iterator[Metric]:
        ran = [each for each in self._seen.sweeps if each["last_ns"] is not None]
        yield _labelled(
            "sweep_last_run_seconds",
            "When the last run began.",
            "sweep",
            ((s["name"], s["last_ns"] / 1e9) for s in ran),
        )
        bad = RunOutcome.FAILED.value
        yield _labelled(
            "sweep_failed",
            "Whether the last run failed.",
            "sweep",
            ((s["name"], float(s["outcome"] == bad)) for s in ran),
        )


def _counted(name: str, what: str, label: str, values: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(f"recfs_{name}", what, labels=[label])
    for each, value in values:
        family.add_metric([each], value)
    return family


def _told(told: Told) -> Iterator[Metric]:
    yield _counted("events", "What became of files, by kind.", "kind", told.events.items())
    yield _counted("event_bytes", "Bytes of the files of such events.", "kind", told.file_bytes.items())
    yield _counted("audit_lines", "Lines of the audit log, by where they went.", "to", told.audit_written.items())
    yield _counted("audit_dropped", "Acts of which there is no line there.", "to", told.audit_dropped.items())
    if told.events_dropped is not None:
        what = "Events that were dropped before their time: there were too many."
        yield CounterMetricFamily("recfs_events_dropped", what, value=told.events_dropped)
    if told.notify_given_up is not None:
        what = "Events for which the command of [notify] failed to the end."
        yield CounterMetricFamily("recfs_notify_given_up", what, value=told.notify_given_up)


def _queue(queue: Queue) -> Iterator[Metric]:
    yield _labelled("queue_rows", "What is to be done in S3, by kind.", "kind", queue.rows.items())
    yield _gauge("queue_failing_rows", "Of it, what failed and is tried again.", queue.failing)
    yield _gauge("queue_oldest_seconds", "How long the oldest of it waits.", queue.oldest_s)
    yield _gauge("cache_bytes", "Bytes of local copies of what S3 holds.", queue.cached_bytes)
    yield _gauge("cache_limit_bytes", "Bytes that local copies may take.", queue.cache_limit_bytes)


_OF_USER: tuple[tuple[str, str, Callable[[OfUser], int | None]], ...] = (
    ("used_bytes", "Bytes that a user stores.", lambda each: each.used_bytes),
    ("used_files", "Files that a user stores.", lambda each: each.used_files),
    ("month_uploads", "Uploads of a user this month.", lambda each: each.month_uploads),
    ("limit_bytes", "Bytes that a user may store.", lambda each: each.limits.max_bytes),
    ("limit_files", "Files that a user may store.", lambda each: each.limits.max_files),
    ("limit_uploads", "Uploads that a user may make a month.", lambda each: each.limits.max_monthly_uploads),
)
"""Name, meaning and value of what is told of each user; None: not told of this one."""


def _users(users: Iterable[OfUser]) -> Iterator[Metric]:
    for name, what, value_of in _OF_USER:
        found = ((each.user, value_of(each)) for each in users)
        yield _labelled(f"user_{name}", what, "user", ((user, value) for user, value in found if value is not None))


def _users_as_text(users: Iterable[OfUser]) -> str:
    """What `generate_latest` makes of `_users`, in a tenth of the time: of a thousand they are nearly all lines.

    The name of a user is a number or a UUID: nothing in it is to be escaped.
    """
    lines = []
    for name, what, value_of in _OF_USER:
        name = f"recfs_user_{name}"
        lines.append(f"# HELP {name} {what}\n# TYPE {name} gauge\n")
        found = ((each.user, value_of(each)) for each in users)
        lines += [f'{name}{{user="{user}"}} {value}\n' for user, value in found if value is not None]
    return "".join(lines)


__all__ = ["CONTENT_TYPE", "Metrics"]
