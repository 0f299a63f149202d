"""What a plan tells of recordings: when they expire, which the store is told, and what the database is to call them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from recfs.core.migration.plan import MOVED
from recfs.core.migration.rows import NOW
from recfs.core.migration.steps import Step
from recfs.errors import DaemonNotRunning, InvalidArgument, RecfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recfs.core.migration.plan import Plan
    from recfs.migration.run.state import State

_KEY: Final = "recording "
_EXPIRED: Final = "expired"


@dataclass(frozen=True, slots=True)
class Told:
    """One recording, by its line of the plan."""

    path: str
    """Below the mount."""
    row: str | int | None = None
    """Its id, as the platform's database has it."""
    expires: str = ""
    """ISO 8601; NOW for one that has expired at no date; or ""."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Paths below the mount, by the names that the mapping explains."""
    was: Mapping[str, str] = field(default_factory=dict)
    """What these columns had when the plan was made, as far as it tells."""


def told(plan: Plan) -> list[Told]:
    """What *plan* tells. Raises InvalidArgument that names the line's key where an editor broke one."""
    found = []
    for key, value in plan.made_of.items():
        if not key.startswith(_KEY):
            continue
        try:
            facts = json.loads(value)
            columns, was = facts.get("columns") or {}, facts.get("was") or {}
            expires = str(facts.get("expires") or "")
            if "expires" not in facts and str(facts.get("status") or "").strip().casefold() == _EXPIRED:
                expires = NOW  # a plan from before plans told it
            found.append(Told(key.removeprefix(_KEY), facts.get("row"), expires, dict(columns), dict(was)))
        except (ValueError, TypeError, AttributeError):
            raise InvalidArgument(f"`#: {key} = …` is no JSON object of a recording") from None
    return found


def carry_expiry(plan: Plan, state: State, set_expiry: Callable[[str, str], None]) -> int:
    """Have recordings expire as they did on the platform, once all their files are there; how many were told.

    *set_expiry* gets path and date, or NOW. A recording is told once; what is refused has a problem in the state.
    Raises DaemonNotRunning, OutOfSpace, IoFailure.
    """
    missing = {
        _recording(entry.target)
        for entry in plan.entries
        if entry.action in MOVED and not state.row(entry.source, entry.target).is_done
    }
    there = {
        _recording(row.target) for row in state.rows() if row.is_done and row.step is not Step.ROLLED_BACK
    } - missing
    count = 0
    for each in told(plan):
        if not each.expires or each.path not in there or state.recordings.get(each.path) == (each.expires, ""):
            continue
        try:
            set_expiry(each.path, each.expires)
        except DaemonNotRunning:
            raise
        except RecfsError as error:
            state.put_expiry(each.path, each.expires, str(error))
        else:
            state.put_expiry(each.path, each.expires)
            count += 1
    return count


def waiting(plan: Plan, state: State) -> int:
    """How many recordings have an expiry that the store was not told yet."""
    return sum(bool(each.expires) and state.recordings.get(each.path) != (each.expires, "") for each in told(plan))


def _recording(target: bytes) -> str:
    return os.fsdecode(b"/".join(target.split(b"/")[:4]))


__all__ = ["NOW", "Told", "carry_expiry", "told", "waiting"]
