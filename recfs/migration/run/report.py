"""What became of a migration: counts and bytes before and after, what is left for people, and whether all is clean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from recfs.core.migration.escapes import escaped
from recfs.core.migration.plan import LEFT, MOVED, Action
from recfs.core.migration.steps import Brought, Row, Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.core.migration.plan import Plan
    from recfs.core.migration.rsync_ends import Verdict
    from recfs.migration.run.state import State

NAMED: Final = 1000
"""So many files of a kind are named; all are counted."""
_ENDS: Final = {
    "run": (Step.COPIED, Step.VERIFIED, Step.CLEANED),
    "report": (Step.COPIED, Step.VERIFIED, Step.CLEANED),
    "verify": (Step.VERIFIED, Step.CLEANED),
    "cleanup": (Step.CLEANED,),
}
"""Which steps are the end of a command. A report is clean of a plan whose files have all come."""
_OF_COPIES: Final = ("run", "report")
"""What says nothing of duplicates, which `verify` looks at."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Files and their bytes."""

    files: int = 0
    size: int = 0

    def plus(self, size: int) -> Sum:
        """With one file more."""
        return Sum(self.files + 1, self.size + size)

    def plain(self) -> dict[str, int]:
        """As JSON has it."""
        return {"files": self.files, "bytes": self.size}


@dataclass(frozen=True, slots=True)
class Named:
    """A file that needs a person."""

    source: str
    target: str
    kind: str
    reason: str


@dataclass(slots=True)
class Report:
    """Where a migration stands."""

    command: str
    before: Sum = field(default_factory=Sum)
    """All files of the old tree that the plan names."""
    after: Sum = field(default_factory=Sum)
    """What lies at its targets."""
    actions: dict[Action, Sum] = field(default_factory=dict)
    steps: dict[Step, Sum] = field(default_factory=dict)
    """Of what is to be brought."""
    saved: Sum = field(default_factory=Sum)
    """Duplicates whose bytes are proven to be there once: they take no room any more."""
    there_before: Sum = field(default_factory=Sum)
    """Of `after`: what was at its target before the run."""
    problems: list[Named] = field(default_factory=list)
    problem_files: int = 0
    left: list[Named] = field(default_factory=list)
    """What the plan leaves alone, for a person to decide."""
    left_files: int = 0
    stopped: list[tuple[str, str, str]] = field(default_factory=list)
    """What stopped before its end: a user or "", why, and what helps."""
    recordings: list[tuple[str, str]] = field(default_factory=list)
    """Recordings whose expiry could not be carried over, and why."""
    is_clean: bool = True
    """Whether the command has come to its end with every file, and no file is left to a person."""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "command": self.command,
            "clean": self.is_clean,
            "before": self.before.plain(),
            "after": self.after.plain(),
            "there_before": self.there_before.plain(),
            "duplicates_saved": self.saved.plain(),
            "actions": {str(action): each.plain() for action, each in self.actions.items()},
            "steps": {str(step): each.plain() for step, each in self.steps.items()},
            "stopped": [{"user": user, "reason": why, "remedy": remedy} for user, why, remedy in self.stopped],
            "problem_files": self.problem_files,
            "problems": [_plain(each) for each in self.problems],
            "left_files": self.left_files,
            "left": [_plain(each) for each in self.left],
            "recordings": [{"path": path, "reason": why} for path, why in self.recordings],
        }


def reported(
    command: str, plan: Plan, state: State, *, stopped: Verdict | None = None, users: dict[str, Verdict] | None = None
) -> Report:
    """Say where the migration of *plan* stands after *command*: `run`, `verify`, `cleanup`, `rollback` or `report`."""
    found = Report(command)
    ends = _ENDS.get(command, ())
    done = True
    for entry in plan.entries:
        action, row = entry.action, state.row(entry.source, entry.target)
        found.before = found.before.plus(entry.size)
        found.actions[action] = found.actions.get(action, Sum()).plus(entry.size)
        if action in LEFT:
            found.left_files += 1
            _name(found.left, entry.source, entry.target, action, entry.reason)
        if action not in MOVED and action is not Action.DUPLICATE:
            continue
        if action in MOVED:
            _count(found, row, entry.size)
        elif row.step in (Step.VERIFIED, Step.CLEANED):
            found.saved = found.saved.plus(entry.size)
        done &= row.step in ends or not ends or (command in _OF_COPIES and action is Action.DUPLICATE)
    _name_problems(found, plan, state.rows())
    if command == "rollback":
        done = not any(row.brought in (Brought.NEW, Brought.MOVED, Brought.REPLACED) for row in state.rows())
    if stopped is not None:
        found.stopped.append(("", stopped.reason, stopped.remedy))
    found.stopped += [(user, why.reason, why.remedy) for user, why in sorted((users or {}).items())]
    found.recordings = [(path, why) for path, (_, why) in sorted(state.recordings.items()) if why]
    bad = found.problem_files or found.left_files or found.stopped or found.recordings
    found.is_clean = done and not bad
    return found


def _count(found: Report, row: Row, size: int) -> None:
    found.steps[row.step] = found.steps.get(row.step, Sum()).plus(size)
    if row.is_done:
        there = row.seen.size if row.seen is not None else size
        found.after = found.after.plus(there)
        if row.brought is Brought.THERE:
            found.there_before = found.there_before.plus(there)


def _name_problems(found: Report, plan: Plan, rows: Iterable[Row]) -> None:
    """Of files of the plan, and of what else a rollback could not take back."""
    # What an earlier verification said of duplicates is not a run's affair: the next one looks again.
    hidden = Action.DUPLICATE if found.command == "run" else None
    planned = {(entry.source, entry.target): entry.action for entry in plan.entries}
    for row in rows:
        action = planned.get((row.source, row.target))
        if action is not None and action is hidden:
            continue
        if row.problem and (action is not None or row.brought is not Brought.NOTHING):
            found.problem_files += 1
            _name(found.problems, row.source, row.target, row.step, row.problem)


def _name(names: list[Named], source: bytes, target: bytes, kind: str, reason: str) -> None:
    if len(names) < NAMED:
        names.append(Named(escaped(source), escaped(target) if target else "", str(kind), reason))


def _plain(named: Named) -> dict[str, str]:
    return {"source": named.source, "target": named.target, "kind": named.kind, "reason": named.reason}


__all__ = ["NAMED", "Named", "Report", "Sum", "reported"]
