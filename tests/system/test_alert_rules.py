"""The alert rules for Prometheus are about metrics that there are."""

import re
from pathlib import Path

from recfs.metrics.families import Metrics
from recfs.metrics.looking import Queue, Seen, Written

FOLDER = Path(__file__).parents[2] / "docs/prometheus"
RULES = (FOLDER / "recfs.rules.yml").read_text("utf-8")


def test_every_metric_of_a_rule_is_told() -> None:
    queue = Queue({"upload": 0}, 0, 0.0, 0, 0)
    seen = Seen(0, 0, 0, 0, 0, 0, 0, 0, (True, True), {}, [], queue, Written({}, [], 0))
    told = {family.name for family in Metrics(seen, {}, {}, 0.0).collect()}
    used = set(re.findall(r"\brecfs_\w+", RULES))
    assert len(used) >= 9
    assert used <= told


def test_every_rule_says_what_is_the_matter() -> None:
    assert RULES.count("- alert: ") == RULES.count("summary: ") == RULES.count("severity: ") == 10
