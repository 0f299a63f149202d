"""The alert rules for Prometheus are about metrics that there are."""

import re
from pathlib import Path

from recfs.metrics.families import Metrics
from recfs.metrics.looking import BackupAge, Queue, Seen, Told, Written

FOLDER = Path(__file__).parents[2] / "docs/prometheus"
RULES = (FOLDER / "recfs.rules.yml").read_text("utf-8")


def test_every_metric_of_a_rule_is_told() -> None:
    queue = Queue({"upload": 0}, 0, 0.0, 0, 0)
    said = Told({}, {}, {"file": 1}, {"file": 0}, 0, 0)
    written = Written({}, [], 0)
    seen = Seen(
        *[0] * 8, (True, True), {}, [], queue, written, backup=BackupAge(1.0, 1.0), told=said, inodes_of_disk=(3, 2, 1)
    )
    families = list(Metrics(seen, {}, {}, 0.0).collect())
    told = {family.name for family in families} | {each.name for family in families for each in family.samples}
    used = set(re.findall(r"\brecfs_\w+", RULES))
    assert len(used) >= 9
    assert used <= told


def test_every_rule_says_what_is_the_matter() -> None:
    assert RULES.count("- alert: ") == RULES.count("summary: ") == RULES.count("severity: ") == 12


def test_of_every_rule_it_is_tried_that_it_fires_and_that_it_does_not() -> None:
    """As `promtool test rules` tries them: expected alerts are all that there may be at that time."""
    tried = re.findall(r"alertname: (\w+)\n(\s+exp_alerts:)?", (FOLDER / "recfs.rules.test.yml").read_text("utf-8"))
    rules = set(re.findall(r"- alert: (\w+)", RULES))
    assert {name for name, fires in tried if fires} == rules
    assert {name for name, fires in tried if not fires} == rules
