"""An old tree, a plan of it and a store that is a plain directory, for tests of what a run does without a kernel."""

from __future__ import annotations

import dataclasses
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recfs.core.migration.plan import Action, Entry, Plan
from recfs.migration.run import rsync
from recfs.migration.run.batches import Settings
from recfs.migration.run.cleaning import Cleaning
from recfs.migration.run.destination import Destination
from recfs.migration.run.hashing import Meter, read
from recfs.migration.run.moving import Moving
from recfs.migration.run.report import Report, reported
from recfs.migration.run.running import Outcome, Run
from recfs.migration.run.state import State, opened
from recfs.migration.run.undoing import Undoing
from recfs.migration.run.verifying import Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from recfs.core.migration.steps import Row
    from recfs.migration.run.trees import Tree

LONG_AGO_NS = 1_700_000_000_123_456_789


@dataclass
class Migration:
    """One migration below a temporary directory."""

    base: Path
    plan: Plan = field(default_factory=Plan)
    settings: Settings = field(default_factory=Settings)
    asked: list[bytes] = field(default_factory=list)
    """Targets of which the store's sha256 was asked."""
    answer: Callable[[Tree, bytes], str | None] = read
    """The store's own sha256 of a file."""
    meter: Meter = field(default_factory=Meter)

    def __post_init__(self) -> None:
        self.old, self.store = self.base / "old", self.base / "store"
        for each in (self.old, self.store):
            each.mkdir(exist_ok=True)
        self.destination = Destination(os.fsencode(self.store), self._ask)

    def _ask(self, tree: Tree, target: bytes) -> str | None:
        self.asked.append(target)
        return self.answer(tree, target)

    def at_home(self) -> None:
        """Have the store be a home tree."""
        self.destination = dataclasses.replace(self.destination, is_home=True)

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

    def at(self, target: str) -> Path:
        """A path of the store."""
        return self.store / target

    @contextmanager
    def state(self) -> Iterator[State]:
        """The state of the run, for as long as the block lasts."""
        with opened(self.base / "plan") as state:
            yield state

    def run(self, tell: Callable[[], None] = lambda: None, options: rsync.Options | None = None) -> Outcome:
        """`migrate run`."""
        self.meter = Meter()
        with self.state() as state:
            return Run(
                self.plan, os.fsencode(self.old), state, self.destination, options or rsync.found(), self.settings,
                self.meter, tell,
            ).run()  # fmt: skip

    def move(self) -> None:
        """`migrate run --home --move`."""
        with self.state() as state:
            Moving(self.plan, os.fsencode(self.old), state, self.destination, Meter()).run()

    def verify(self) -> Report:
        """`migrate verify`; bytes that were read are in `meter`."""
        self.meter = Meter()
        with self.state() as state:
            Verification(self.plan, os.fsencode(self.old), state, self.destination, self.meter, jobs=2).run()
            return reported("verify", self.plan, state)

    def clean(self) -> Report:
        """`migrate cleanup --yes`."""
        with self.state() as state:
            Cleaning(self.plan, os.fsencode(self.old), state, self.destination, Meter()).run()
            return reported("cleanup", self.plan, state)

    def undo(self) -> Report:
        """`migrate rollback --yes`."""
        with self.state() as state:
            Undoing(os.fsencode(self.old), state, self.destination, Meter()).run()
            return reported("rollback", self.plan, state)

    def report(self, outcome: Outcome | None = None) -> Report:
        """What `migrate run` would tell."""
        with self.state() as state:
            outcome = outcome or Outcome()
            return reported("run", self.plan, state, stopped=outcome.stopped, users=outcome.users)

    def row(self, source: str) -> Row:
        """What the state says of a source."""
        name = os.fsencode(source)
        with self.state() as state:
            return next(each for each in state.rows() if each.source == name)

    def problem(self, source: str) -> str:
        """Why a source came no further."""
        return self.row(source).problem

    def left(self) -> set[str]:
        """All names below the old tree."""
        return {str(path.relative_to(self.old)) for path in self.old.rglob("*")}

    def there(self) -> dict[str, bytes]:
        """All files of the store."""
        return {
            str(path.relative_to(self.store)): path.read_bytes() for path in self.store.rglob("*") if path.is_file()
        }
