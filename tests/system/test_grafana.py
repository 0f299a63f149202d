"""The dashboard for Grafana asks for metrics that there are, in PromQL that Prometheus takes; so do the alert rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recfs.core.observing.kinds import EventKind
from recfs.core.quota import Limits
from recfs.metrics.families import Metrics
from recfs.metrics.looking import BackupAge, OfUser, Queue, Seen, Told, Written
from recfs.metrics.requests import Latency
from tests.helpers.machine import skip

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana/recfs.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES: list[str] = [each["expr"] for panel in PANELS for each in panel.get("targets", ())]
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}


def told() -> dict[str, set[str]]:
    """What a scrape of a store with S3 tells, by its name in Prometheus, each with its labels."""
    queue = Queue({"upload": 1}, 0, 0.0, 0, 0)
    limits = Limits(max_bytes=1, max_files=1, max_monthly_uploads=1)
    sweeps = [{"name": "temp", "last_ns": 1, "outcome": "done"}]
    written = Written({"committed": 1}, [OfUser("5", 1, 1, 1, limits)], 0, {"broken": 1})
    said = Told(dict.fromkeys(EventKind, 1), {EventKind.COMMITTED: 1}, {"file": 1}, {"file": 0}, 0, 0)
    seen = Seen(
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        (True, True),
        {"part": 1},
        sweeps,
        queue,
        written,
        {"whole": 1},
        backup=BackupAge(1.0, 1.0),
        told=said,
        inodes_of_disk=(3, 2, 1),
    )
    metrics = Metrics(seen, {("read", 0): 1}, {"read": Latency()}, 0.0)
    return {
        sample.name: {"instance", "job", *sample.labels} for family in metrics.collect() for sample in family.samples
    }


@pytest.fixture(scope="module")
def promtool() -> str:
    """The program that knows what Prometheus takes."""
    found = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))
    if found is None:
        skip("needs promtool: scripts/setup --dev fetches it where there is Debian's package")
    assert found is not None
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_and_label_of_the_dashboard_is_told(query: str) -> None:
    metrics = told()
    used = set(re.findall(r"\b(?:recfs_\w+|up)(?=\{)", query))
    assert used
    assert used <= {*metrics, "up"}
    labels = set().union(*(metrics.get(name, {"instance", "job"}) for name in used))
    asked = {name for group in re.findall(r"\{([^}]*)\}", query) for name in re.findall(r"(\w+)[=!]", group)}
    asked |= {name for group in re.findall(r"\bby \(([^)]*)\)", query) for name in re.split(r",\s*", group)}
    assert asked <= labels


def test_every_metric_but_counts_of_what_is_left_out_is_shown() -> None:
    """A new one gets its place in the dashboard."""
    shown = set(re.findall(r"recfs_\w+", " ".join(QUERIES)))
    left_out = {"recfs_users_not_told"}
    assert {re.sub(r"_created$", "", name) for name in told()} - shown == left_out


def test_panels_have_room_titles_and_a_source() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = []
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        assert panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not any(cells & others for others in places)
        places.append(cells)
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
    names = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "instance"}


def test_prometheus_takes_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = []
    for number, query in enumerate(QUERIES):
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        assert "$" not in query
        rules.append({"record": f"panel:{number}", "expr": query})
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    _run(promtool, "check", "rules", str(path))
    rules[0]["expr"] += " +"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    with pytest.raises(subprocess.CalledProcessError):
        _run(promtool, "check", "rules", str(path))


@pytest.mark.parametrize("args", [("check", "rules", "recfs.rules.yml"), ("test", "rules", "recfs.rules.test.yml")])
def test_prometheus_takes_the_alert_rules_and_they_fire_as_told(promtool: str, args: tuple[str, ...]) -> None:
    assert "SUCCESS" in _run(promtool, *args, cwd=DOCS / "prometheus")


def _run(*args: str, cwd: Path | None = None) -> str:
    return subprocess.run(args, cwd=cwd, check=True, capture_output=True, text=True).stdout
