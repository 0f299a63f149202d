"""scripts/bench_lib: the arithmetic of rounds, who is judged by what, and that a bad target costs only its own rows.

No number that a machine produced is asserted here.
"""

import contextlib
import http.client
import os
import shutil
import signal
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from scripts.bench_lib import chart, fleet, migrate, report, rows, small
from scripts.bench_lib.bars import Judgement, best_mount, verdicts
from scripts.bench_lib.measure import Sample
from scripts.bench_lib.peers import Bucket, S3fsTarget
from scripts.bench_lib.runner import Note, Results, Runner, Usage
from scripts.bench_lib.s3_count import CountingProxy
from scripts.bench_lib.spec import QUICK, Better, Context, Group, Metric, Sizes, Workload
from scripts.bench_lib.target import LeftOut, NativeTarget, Target, TargetError, forget_pages, uninterrupted

TMPFS = {"file_system": "tmpfs", "cpus": 2, "kernel": "6.18", "disk": "/dev/shm", "python": "3.11"}
SPEED = Metric("speed", "speed of it", "/s", Better.HIGHER, Group.DATA, of_native=0.9)
NAMES = Metric("names", "names", "s", Better.LOWER, Group.METADATA)
FULL = Sizes()


def results(*metrics: Metric, **values: list[float | None]) -> Results:
    """Results in which every metric has these values per round (None: not measured); recfs_off is recfs-off."""
    names = {name.replace("_", "-"): series for name, series in values.items()}
    found = Results(list(names), max(map(len, names.values())))
    for name, series in names.items():
        for index, value in enumerate(series):
            if value is not None:
                found.add(name, index, {metric.key: Sample(value, None) for metric in metrics})
    return found


# --- ratios ----------------------------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    found = results(SPEED, native=[1, 10, 100], recfs=[1, 50, 30])
    assert found.ratio(SPEED, "recfs", "native") == 1.0  # of 1, 5 and 0.3; the medians' ratio would be 3
    assert results(NAMES, native=[1], recfs=[4]).ratio(NAMES, "recfs", "native") == 0.25


def test_a_ratio_compares_the_same_round_only() -> None:
    found = results(SPEED, native=[None, 10, 20], recfs=[1000, 5, None])
    assert found.ratio(SPEED, "recfs", "native") == 0.5
    assert results(SPEED, native=[1], recfs=[None]).ratio(SPEED, "recfs", "native") is None


# --- bars ------------------------------------------------------------------------------------------------------------


def judged(metric: Metric, found: Results, sizes: Sizes = FULL, file_system: str = "tmpfs") -> dict[str, Judgement]:
    where = {**TMPFS, "file_system": file_system}
    return {verdict.kind: verdict.judgement for verdict in verdicts(metric, found, sizes, where)}


def test_an_absolute_bar_needs_its_size_and_its_disk() -> None:
    metric = Metric("m", "m", "s", Better.LOWER, bar=3.0, full_size_only=True, tmpfs_only=True)
    assert judged(metric, results(metric, recfs=[2.9])) == {"absolute": Judgement.KEPT}
    assert judged(metric, results(metric, recfs=[3.0])) == {"absolute": Judgement.MISSED}
    assert judged(metric, results(metric, recfs=[2.9]), sizes=QUICK) == {"absolute": Judgement.NOT_JUDGED}
    assert judged(metric, results(metric, recfs=[2.9]), file_system="ext4") == {"absolute": Judgement.NOT_JUDGED}
    assert judged(metric, results(metric, native=[1])) == {"absolute": Judgement.NOT_JUDGED}


@pytest.mark.parametrize(("ours", "judgement"), [(90, Judgement.KEPT), (89, Judgement.MISSED)])
def test_a_part_of_native(ours: float, judgement: Judgement) -> None:
    assert judged(SPEED, results(SPEED, native=[100], recfs=[ours])) == {"native": judgement}


@pytest.mark.parametrize(
    ("ours", "ahead", "level"),
    [
        (101, Judgement.KEPT, Judgement.KEPT),
        (100, Judgement.LEVEL, Judgement.KEPT),
        (95, Judgement.LEVEL, Judgement.KEPT),
        (94, Judgement.MISSED, Judgement.MISSED),
    ],
)
def test_peers(ours: float, ahead: Judgement, level: Judgement) -> None:
    metric = Metric("m", "m", "/s", Better.HIGHER, Group.METADATA)
    assert judged(metric, results(metric, recfs=[ours], rclone=[100], mergerfs=[10])) == {
        "ahead": ahead,
        "level": level,
    }


def test_a_peer_that_is_not_for_metadata_does_not_count_for_level() -> None:
    found = results(NAMES, recfs=[2], bindfs=[1], rclone=[3])
    assert judged(NAMES, found) == {"ahead": Judgement.MISSED, "level": Judgement.KEPT}


def test_recfs_off_is_no_peer_but_may_be_the_best_mount() -> None:
    found = results(SPEED, native=[10], recfs=[10], recfs_off=[11], bindfs=[9])
    assert judged(SPEED, found) == {"native": Judgement.KEPT, "ahead": Judgement.KEPT}
    assert best_mount(SPEED, found) == "recfs-off"


def test_rows_about_s3_are_compared_with_the_library() -> None:
    found = results(SPEED, direct=[100], recfs=[80], s3fs=[70])
    found.reference = "direct"
    (part, ahead) = verdicts(SPEED, found, FULL, TMPFS)
    assert (part.bar, part.judgement) == ("≥ 0.9 of direct", Judgement.MISSED)
    assert (ahead.judgement, best_mount(SPEED, found)) == (Judgement.KEPT, "recfs")


def test_own_rows_are_not_compared() -> None:
    own = Metric("own", "own", "MB", Better.LOWER)
    found = results(own, native=[1], recfs=[5], bindfs=[1])
    assert judged(own, found) == {}
    assert best_mount(own, found) is None


# --- runner ----------------------------------------------------------------------------------------------------------


class Plain(NativeTarget):
    """A directory that calls itself as it is told, and counts its starts and stops."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.__dict__["name"] = home.name
        self.running = 0

    def start(self) -> None:
        super().start()
        self.running = 1

    def stop(self) -> None:
        self.running = 0


def run(tmp_path: Path, workload: Workload, names: str = "a b", rounds: int = 2) -> Results:
    targets = [Plain(tmp_path / name) for name in names.split()]
    return Runner(targets, FULL, rounds, tmp_path, lambda text: None).run([workload])


def test_the_order_alternates_and_the_warm_up_is_small_and_discarded(tmp_path: Path) -> None:
    calls: list[tuple[str, int, bool]] = []

    def work(context: Context) -> None:
        calls.append((context.target.name, context.round_index, context.sizes.full))
        context.put("speed", Sample(context.round_index, None))

    found = run(tmp_path, Workload("w", (SPEED,), work))
    assert calls == [
        ("b", -1, False),
        ("a", -1, False),
        ("a", 0, True),
        ("b", 0, True),
        ("b", 1, True),
        ("a", 1, True),
    ]
    assert found.of("speed", "a").values == [0, 1]


def test_a_failure_costs_the_rows_of_that_target_only(tmp_path: Path) -> None:
    def work(context: Context) -> None:
        if context.target.name == "a" and context.round_index == 1:
            raise OSError("no")
        context.put("speed", Sample(7, None))

    found = run(tmp_path, Workload("w", (SPEED,), work), rounds=3)
    assert found.failures == [Note("w", "a", "OSError: no")]
    assert found.of("speed", "b").values == [7, 7, 7]
    assert list(found.of("speed", "a").samples) == [0]


def test_left_out_is_no_failure_and_what_was_prepared_is_cleared(tmp_path: Path) -> None:
    cleared: list[str] = []

    def prepare(context: Context) -> None:
        if context.target.name == "a":
            raise LeftOut("too slow")

    def work(context: Context) -> None:
        context.put("speed", Sample(1, None))

    workload = Workload("w", (SPEED,), work, prepare, clear=lambda context: cleared.append(context.target.name))
    found = run(tmp_path, workload)
    assert (found.failures, found.left_out) == ([], [Note("w", "a", "too slow")])
    assert "a" not in found.series["speed"]
    assert sorted(cleared) == ["a", "b"]


def test_the_daemons_are_compared_over_workloads_that_all_completed() -> None:
    def used(*cpu_s: float) -> list[Usage]:
        return [Usage(each, 10 * each) for each in cpu_s]

    found = Results(["recfs", "bindfs"], 3)
    found.usage = {
        "both": {"recfs": used(1, 3, 2), "bindfs": used(5, 5, 5)},
        "other": {"recfs": used(1, 1, 1), "bindfs": used(4, 4, 4)},
        "cut short": {"recfs": used(9, 9, 9), "bindfs": used(9)},
        "own": {"recfs": used(9, 9, 9)},
    }
    assert found.shared_workloads() == ["both", "other"]
    assert found.daemon_use("recfs") == Usage(3, 30)
    assert found.daemon_use("bindfs") == Usage(9, 50)


# --- targets ---------------------------------------------------------------------------------------------------------


def test_all_targets_are_stopped_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Plain] = []

    class Noted(Plain):
        def __init__(self, home: Path) -> None:
            super().__init__(home)
            made.append(self)

        def stop(self) -> None:
            super().stop()
            if self.home.name == "a":
                raise TargetError("stuck")

    class Broken(Noted):
        def start(self) -> None:
            raise TargetError("no mount")

    monkeypatch.setattr(fleet, "TARGETS", {"a": Noted, "b": Noted, "broken": Broken})

    def interrupted() -> None:
        with fleet.running(tmp_path / "1", ["a", "b"]) as targets:
            assert [target.running for target in made] == [1, 1]
            assert list(targets) == made
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [target.running for target in made] == [0, 0]
    made.clear()
    with pytest.raises(TargetError, match="no mount"), fleet.running(tmp_path / "2", ["a", "b", "broken"]):
        pytest.fail("started")
    assert [target.running for target in made] == [0, 0, 0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_for_the_end_of_an_uninterrupted_block(number: int) -> None:
    received: list[str] = []
    before = signal.signal(number, lambda *_: received.append("signal"))
    try:
        with uninterrupted():
            os.kill(os.getpid(), number)
            received.append("end of block")
    finally:
        signal.signal(number, before)
    assert received == ["end of block", "signal"]


def test_what_is_not_installed_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    able, absent = fleet.available(["native", "bindfs", "s3fs"])
    assert able == ["native"]
    assert absent["bindfs"] == "bindfs is not installed"
    assert "no bucket given" in absent["s3fs"]


def test_s3fs_wants_a_bucket_and_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(S3fsTarget, "bucket", Bucket.parse("http://127.0.0.1:7480/bench/"))
    assert S3fsTarget.bucket == Bucket("http://127.0.0.1:7480", "bench")
    assert "AWS_ACCESS_KEY_ID" in str(S3fsTarget.missing())


@pytest.mark.parametrize("url", ["", "bucket", "http://host", "http://host/", "http://host/a/b", "s3://bucket/x"])
def test_a_bucket_is_named_by_its_address(url: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        Bucket.parse(url)


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_requests_are_counted_and_answered() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with CountingProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
                assert proxy.requests == 0
                connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=10)
                for path in ("/a", "/b" * 500, "/c"):
                    connection.request("GET", path)
                    assert connection.getresponse().read() == path.encode()
                connection.close()
                assert proxy.requests == 3
        finally:
            server.shutdown()


def test_requests_inside_tls_are_not_counted() -> None:
    with pytest.raises(LeftOut, match="http only"):
        CountingProxy("https://127.0.0.1:1")


def test_native_pages_are_dropped_from_the_disk(tmp_path: Path) -> None:
    target: Target = NativeTarget(tmp_path)
    target.start()
    path = target.tree / "f"
    path.write_bytes(b"x" * 5000)
    assert target.stored(path) == path
    target.drop_pages(path)
    forget_pages(path)
    assert path.read_bytes() == b"x" * 5000


def test_files_are_made_up_to_the_budget(tmp_path: Path) -> None:
    assert small.create_files(tmp_path, 40, budget_s=-1) == 0
    assert small.create_files(tmp_path, 40) == 40
    directories = [tmp_path / "a", tmp_path / "b"]
    for directory in directories:
        directory.mkdir()
    with pytest.raises(LeftOut, match="takes too long"):
        small.fill(directories, 200, 0.0)
    assert len(list(directories[0].iterdir())) == 100
    shutil.rmtree(directories[0])
    directories[0].mkdir()
    small.fill(directories, 200, float("inf"))
    assert [len(list(directory.iterdir())) for directory in directories] == [200, 200]


def test_an_old_tree_to_migrate_has_a_row_for_each_recording(tmp_path: Path) -> None:
    assert migrate.fill_old_tree(tmp_path / "old", 9, 0) == 8 * migrate.SMALL_BYTES
    sizes = [path.stat().st_size for path in (tmp_path / "old").rglob("*.*") if path.name != "data.db"]
    assert sizes == [migrate.SMALL_BYTES] * 8
    with contextlib.closing(sqlite3.connect(tmp_path / "old" / "data.db")) as database:
        rows = database.execute("SELECT local_video_path, processed_video_path, processed_audio_path FROM recordings")
        assert all((tmp_path / "old" / path).is_file() for row in rows for path in row)


def test_a_migration_is_left_out_where_the_disk_has_no_room(tmp_path: Path) -> None:
    (workload,) = migrate.WORKLOADS
    context = Context(NativeTarget(tmp_path), Sizes(migrate_large=10**9), tmp_path, 0)
    with pytest.raises(LeftOut, match=r"GB of the disk|not installed"):
        workload.run(context)
    assert list(tmp_path.iterdir()) == []


# --- rows, document, chart -------------------------------------------------------------------------------------------


def test_every_row_and_group_has_a_name_of_its_own() -> None:
    keys = [metric.key for workload in rows.WORKLOADS for metric in workload.metrics]
    assert len(keys) == len(set(keys))
    titles = [rows.title(metric, FULL) for workload in rows.WORKLOADS for metric in workload.metrics]
    assert not [title for title in titles if "{" in title]


def test_rows_are_chosen_by_pattern() -> None:
    assert [workload.key for workload in rows.select(["rand_*", "du"])] == ["random", "du"]
    assert rows.select([]) == list(rows.WORKLOADS)
    assert rows.select(["s3"]) == [workload for workload in rows.WORKLOADS if workload.far]
    with pytest.raises(ValueError, match="no row 'nothing'"):
        rows.select(["nothing"])


def document() -> dict[str, object]:
    found = results(SPEED, NAMES, native=[10, 10], recfs=[9, 10], recfs_off=[1, 1], bindfs=[2, 30])
    workload = Workload("w", (SPEED, NAMES), lambda context: None)
    return report.document([workload], found, FULL, TMPFS, {"rclone": "rclone is not installed"})


def test_the_document_names_bars_and_the_best_mount() -> None:
    result = document()
    assert result["absent"] == {"rclone": "rclone is not installed"}
    first = result["rows"][0]  # type: ignore[index]
    assert first["times_native"] == {"recfs": 0.95, "recfs-off": 0.1, "bindfs": pytest.approx(1.6)}
    assert first["best"] == "bindfs"
    assert [(bar["kind"], bar["judgement"]) for bar in first["bars"]] == [("native", "kept"), ("ahead", "kept")]


def test_all_are_compared_with_mergerfs_besides() -> None:
    found = results(SPEED, NAMES, native=[10, 10], recfs=[9, 10], mergerfs=[3, 5])
    workload = Workload("w", (SPEED, NAMES), lambda context: None)
    first = report.document([workload], found, FULL, TMPFS, {})["rows"][0]
    assert first["times_mergerfs"] == {"recfs": 2.5}
    console = Console(width=150, record=True, file=StringIO())
    report.print_tables(console, [workload], found, FULL, {**TMPFS, "load": 0.0}, {})
    told = console.export_text().partition("How many times as fast as mergerfs")[2]
    assert "2.50×" in told
    assert "native" not in told.partition("Medians")[0]


def test_the_chart_has_a_bar_for_each_target_and_row() -> None:
    result = document()
    result["rows"][0]["title"] = "a < b & c"  # type: ignore[index]
    svg = ET.fromstring(chart.draw(result))
    name = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.get("width", "")) for bar in svg.iter(name + "rect")]
    assert len(widths) == 3 + 2 * 3  # the legend, two rows
    recfs, recfs_off, bindfs = widths[3:6]
    assert recfs_off < recfs < bindfs
    texts = [element.text for element in svg.iter(name + "text")]
    assert "a < b & c" in texts
    assert "recfs, passthrough off" in texts
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    assert all(float(bar.get("x", "")) + float(bar.get("width", "")) <= width for bar in svg.iter(name + "rect"))
    assert all(float(bar.get("y", "")) < height for bar in svg.iter(name + "rect"))


@pytest.mark.parametrize("make", [chart.linear_scale, chart.logarithmic_scale])
@pytest.mark.parametrize("ratios", [[0.5], [0.001, 3.0], [1.0], [25.0, 0.1]])
def test_scales_hold_every_ratio(make: object, ratios: list[float]) -> None:
    scale = make(ratios)  # type: ignore[operator]
    assert all(0 <= scale.position(ratio) <= 1 for ratio in [*ratios, 1.0, *scale.ticks])
    assert 1.0 in scale.ticks


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(ValueError, match="no row"):
        chart.draw({**document(), "rows": []})
