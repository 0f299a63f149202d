"""What `recfs stats` calls the ages of recordings."""

from pathlib import Path

from tests.system.fake_daemon import ANSWERS, FakeDaemon, run


def test_the_youngest_are_named_by_the_age_they_have_not_reached(root: Path) -> None:
    """Also where there are no others, and "less than that" would be less than nothing that is told."""
    ages = [
        {"unchanged_d": least, "processed": "never", "recordings": count, "files": count, "bytes": count << 20}
        for least, count in ((0, 6), (30, 0), (90, 0))
    ]
    unread = [{"unread_d": None} | ages[0], {"unread_d": 0} | ages[0], {"unread_d": 30} | ages[0]]
    with FakeDaemon(root, {"stats": ANSWERS["stats"] | {"ages": ages, "unread": unread}}):
        shown = run("stats", "--root", root).stdout
    assert shown.count("less than 30 d") == 2
    assert "less than that" not in shown
