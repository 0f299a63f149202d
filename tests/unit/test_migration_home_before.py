"""Whether what was put into the home tree is waited for: level by level, and no longer than it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from recfs.cli.migration import home_before

if TYPE_CHECKING:
    from recfs.cli.common.store import Store
    from recfs.migration.run.destination import Destination
    from recfs.migration.run.state import State


class Facts:
    """The facts of a plan's state."""

    def __init__(self) -> None:
        self.facts = {"home": "1"}

    def fact(self, name: str) -> str:
        return self.facts[name]

    def put_fact(self, name: str, value: str) -> None:
        self.facts[name] = value


class Daemon:
    """Takes over a level of directories after each look at everything; nothing waits when the look has ended."""

    def __init__(self, levels: int, *, is_on: bool = True) -> None:
        self.levels, self.is_on = levels, is_on
        self.scans = self.adopted = 0

    def call(self, method: str) -> dict[str, Any]:
        if not self.is_on:
            return {"enabled": False}
        if method == "watch_scan":
            self.scans += 1
        told = {"enabled": True, "scans": self.scans, "scanning": False, "waiting": 0, "adopted": self.adopted}
        if method == "watch_scan":
            self.adopted = min(self.scans, self.levels)
        return told

    def missing(self) -> int:
        """Files that it does not show yet: they are in the last level, but for one that is nowhere."""
        return 1 if self.adopted == self.levels else 22


def waited(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Wait for it; what is known then."""
    facts = Facts()
    monkeypatch.setattr(home_before, "_missing", lambda *_: daemon.missing())
    monkeypatch.setattr(home_before.time, "sleep", lambda _: None)
    home_before.wait_until_taken_over(
        cast("State", facts), cast("Store", daemon), cast("Destination", None), lambda _: None
    )
    return facts


def test_each_level_of_directories_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon(9)
    facts = waited(daemon, monkeypatch)
    assert (daemon.adopted, daemon.missing(), facts.facts) == (9, 1, {"home": ""})


def test_nobody_waits_where_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(home_before.InvalidArgument, match="does not watch it"):
        waited(Daemon(9, is_on=False), monkeypatch)
