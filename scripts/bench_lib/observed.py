"""What it costs to see inside: a scrape and `recfs stats` of a large store, and files made while all of it is told."""

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from .measure import Sample, median
from .million import FILES_PER_RECORDING, build
from .recfs_target import RecfsTarget, is_recfs
from .small import create_files
from .spec import Better, Context, Metric, Workload
from .target import TargetError

SCRAPE = Metric("scrape", "scrape, {catalogue_files:,} files", "ms", Better.LOWER, bar=50.0, full_size_only=True)
SCRAPE_WORST = Metric(
    "scrape_worst", "  the slowest, all counted anew", "ms", Better.LOWER, bar=50.0, full_size_only=True
)
STATS = Metric("stats", "recfs stats, from call to exit", "s", Better.LOWER, bar=0.2, full_size_only=True)
STATS_CALL = Metric("stats_call", "  of it, the daemon's answer", "s", Better.LOWER)
AUDITED = {
    name: Metric(f"audited_{name}", f"{name}, audit and events on ÷ off", "×", Better.HIGHER, bar=0.95)
    for name in ("create", "rename", "unlink")
}

RECORDINGS_PER_USER = 10
SCRAPES = 9
FRESH_S = 1.05
"""A scrape that comes sooner after another one is told the same."""
COUNTED_S = 61.0
"""So long after files were counted by state they are counted again."""
COUNT_TIMEOUT_S = 300.0


class _Scraped(RecfsTarget):
    """A store with the endpoint for Prometheus, whose users all have limits."""

    name = "recfs-scraped"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])

    def _settings(self) -> tuple[str | Path, ...]:
        settings = self.home / "recfs.conf"
        limits = 'max_bytes = "1 TiB"\nmax_files = 1_000_000\nmax_monthly_uploads = 10_000'
        metrics = f'listen = "127.0.0.1:{self.port}"'
        settings.write_text(f'root = "{self.root}"\n[quota]\n{limits}\n[metrics]\n{metrics}\n')
        return ("--config", settings)

    def scrape(self) -> tuple[float, bytes]:
        """(milliseconds until all was received, what that was)."""
        began = time.perf_counter()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != 200:
            raise TargetError(f"/metrics answers {answer.status}: {body[:200]!r}")
        return (time.perf_counter() - began) * 1000, body


def _prepare_scrape(context: Context) -> None:
    store = _Scraped(context.target.home / "scraped")
    store.home.mkdir(parents=True, exist_ok=True)
    try:
        build(store, context.sizes.catalogue_files, RECORDINGS_PER_USER)
    finally:
        store.stop()


def _scrape(context: Context) -> None:
    store = _Scraped(context.target.home / "scraped")
    users = context.sizes.catalogue_files // (RECORDINGS_PER_USER * FILES_PER_RECORDING)
    try:
        store.start()
        store.settle()
        began = time.monotonic()
        while store.call("stats")["counted"] != "counters":
            if time.monotonic() - began > COUNT_TIMEOUT_S:
                raise TargetError("the daemon does not come to an end with counting files by category")
            time.sleep(0.2)
        _, body = store.scrape()
        if body.count(b"\nrecfs_user_used_bytes{") != users:
            raise TargetError(f"{body.count(b'recfs_user_used_bytes{')} users are told, and not {users}")
        took = []
        for _ in range(SCRAPES):
            time.sleep(FRESH_S)
            took.append(store.scrape()[0])
        stats = [_timed(lambda: store.call("stats")) for _ in range(SCRAPES)]
        command = [store.command, "stats", "--root", store.root]
        commands = [_timed(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(SCRAPES)]
        time.sleep(COUNTED_S)
        counted = store.scrape()[0]
    finally:
        store.stop()
    context.put(SCRAPE.key, Sample(median(took) or 0.0, None))
    context.put(SCRAPE_WORST.key, Sample(max(*took, counted), None))
    context.put(STATS.key, Sample(median(commands) or 0.0, None))
    context.put(STATS_CALL.key, Sample(median(stats) or 0.0, None))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# --- told or not -------------------------------------------------------------------------------------------------


class _Told(RecfsTarget):
    """A store that writes down who did what, and what became of files."""

    name = "recfs-told"
    is_on = "true"

    def _settings(self) -> tuple[str | Path, ...]:
        settings = self.home / "recfs.conf"
        settings.write_text(
            f'root = "{self.root}"\n[audit]\nenabled = {self.is_on}\n[events]\nenabled = {self.is_on}\n'
        )
        return ("--config", settings)


class _Untold(_Told):
    """The same without."""

    name = "recfs-untold"
    is_on = "false"


def _acts(store: RecfsTarget, files: int) -> dict[str, float]:
    """Seconds by kind of act."""
    folder = store.tree / "users" / "1" / "recordings" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    prefix = os.fspath(folder) + "/f"

    def rename() -> None:
        for number in range(files):
            os.rename(f"{prefix}{number}", f"{prefix}{number}.r")

    def unlink() -> None:
        for number in range(files):
            os.unlink(f"{prefix}{number}.r")

    took = {"create": _timed(lambda: create_files(folder, files))}
    store.settle()
    took["rename"] = _timed(rename)
    store.settle()
    took["unlink"] = _timed(unlink)
    store.settle()
    return took


def _audit(context: Context) -> None:
    """Pairs that alternate; the medians of their ratios."""
    on, off = (kind(context.target.home / kind.name) for kind in (_Told, _Untold))
    ratios: dict[str, list[float]] = {name: [] for name in AUDITED}
    try:
        for store in (on, off):
            store.home.mkdir(parents=True, exist_ok=True)
            store.start()
            _acts(store, context.sizes.audited_files)
        for pair in range(context.sizes.audited_pairs):
            took: dict[str, dict[str, float]] = {}
            for store in (on, off) if pair % 2 == 0 else (off, on):
                took[store.name] = _acts(store, context.sizes.audited_files)
            for name, found in ratios.items():
                found.append(took[off.name][name] / took[on.name][name])
    finally:
        for store in (on, off):
            store.stop()
    for name, metric in AUDITED.items():
        context.put(metric.key, Sample(median(ratios[name]) or 0.0, None))


WORKLOADS = (
    Workload(
        "scrape", (SCRAPE, SCRAPE_WORST, STATS, STATS_CALL), _scrape, _prepare_scrape, applies=is_recfs, warm_up=False
    ),
    Workload("audit", tuple(AUDITED.values()), _audit, applies=is_recfs, warm_up=False),
)
