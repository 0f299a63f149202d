"""An old tree, a plan of it and a store that is a plain directory, for tests of what a run does without a kernel."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recfs.core.migration.plan import Action, Entry, Plan
from recfs.core.migration.steps import Row
from recfs.migration.run import rsync
from recfs.migration.run.destination import Destination
from recfs.migration.run.hashing import Meter, read
from recfs.migration.run.running import Outcome, Run, Settings
from recfs.migration.run.state import State, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_AGO_NS = 1_700_000_000_123_456_789


@dataclass
class Migration:
    """One migration below a temporary directory."""

    base: Path
    plan: Plan = field(default_factory=Plan)
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        self.old, self.store = self.base / "old", self.base / "store"
        for each in (self.old, self.store):
            each.mkdir(exist_ok=True)
        self.destination = Destination(os.fsencode(self.store), read)
        self.meter = Meter()

    def file(
        self, source: str, data: bytes, target: str = "", action: Action = Action.COPY, *, mtime_ns: int = LONG_AGO_NS
    ) -> Path:
        """Make a file of the old tree, and its line of the plan where it is new."""
        path = self.old / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(mtime_ns, mtime_ns))
        entry = Entry(action, len(data), os.fsencode(target), os.fsencode(source), "a test")
        if all((each.source, each.target) != (entry.source, entry.target) for each in self.plan.entries):
            self.plan.entries.append(entry)
        return path

    @contextmanager
    def state(self) -> Iterator[State]:
        """The state of the run, for as long as the block lasts."""
        with opened(self.base / "plan") as state:
            yield state

    def run(self) -> Outcome:
        """Run the plan."""
        with self.state() as state:
            run = Run(
                self.plan, os.fsencode(self.old), state, self.destination, rsync.found(), self.settings, self.meter
            )
            return run.run()

    def row(self, source: str) -> Row:
        """What the state says of a source, by its first target."""
        name = os.fsencode(source)
        with self.state() as state:
            return next(each for each in state.rows() if each.source == name)

    def at(self, target: str) -> Path:
        """A path of the store."""
        return self.store / target
