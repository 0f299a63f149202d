"""When temp jobs and trashed bytes may go. Decisions only: `services/clearing/sweeper.py` carries them out.

Times are those of `Clock.steady_ns`, which go by the time that passed, whatever is done to the wall clock, and
`now_ns` is an argument. A time that lies ahead all the same keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from recfs.core.units import format_duration

_NS_PER_S = 1_000_000_000

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Aging(Generic[Item]):
    """What may have become too old, as it was at a time."""

    now_ns: int
    most_s: float
    """How old it may become."""
    items: Sequence[tuple[Item, int, int]]
    """Each with the time from which its age counts, and how many of its files are open."""


@dataclass(frozen=True, slots=True)
class JobVerdict:
    """Whether a temp job goes now, why, and from when on its age allows it.

    `due_ns` depends on the last change alone: a job kept for its open files may have a `due_ns` in the past.
    """

    expire: bool
    reason: str
    due_ns: int


def job_verdict(last_change_ns: int, now_ns: int, max_age_s: float, open_files: int, holds: str = "") -> JobVerdict:
    """Decide about one temp job.

    It expires when `max_age_s` or more has passed since the last change inside it, none of its files is open, and
    nothing in it is to stay (*holds*: what, and why). One that lies ahead of `now_ns` keeps the job.
    """
    due_ns = last_change_ns + round(max_age_s * _NS_PER_S)
    if last_change_ns > now_ns:
        ahead = format_duration((last_change_ns - now_ns) / _NS_PER_S)
        return JobVerdict(False, f"last change lies {ahead} in the future", due_ns)
    age = f"last change {format_duration((now_ns - last_change_ns) / _NS_PER_S)} ago"
    max_age = f"max_age {format_duration(max_age_s)}"
    if now_ns < due_ns:
        left = format_duration((due_ns - now_ns) / _NS_PER_S)
        return JobVerdict(False, f"{age}, {max_age}: due in {left}", due_ns)
    if open_files > 0:
        files = "1 file is" if open_files == 1 else f"{open_files} files are"
        return JobVerdict(False, f"{age}, {max_age}, but {files} open", due_ns)
    if holds:
        return JobVerdict(False, f"{age}, {max_age}, but {holds}", due_ns)
    return JobVerdict(True, f"{age}, {max_age}", due_ns)


def trash_due(deleted_ns: int, now_ns: int, retention_s: float) -> bool:
    """Tell whether trashed bytes may be removed: `retention_s` or more after `deleted_ns`.

    A retention of 0 keeps nothing. Otherwise a deletion that lies ahead of `now_ns` is kept until the retention
    after it.
    """
    return retention_s <= 0 or now_ns >= deleted_ns + round(retention_s * _NS_PER_S)


def expired_jobs(seen: Aging[Item]) -> list[Item] | None:
    """Return the temp jobs that go now, as `job_verdict` has it; None when none does."""
    return [
        each for each, since, used in seen.items if job_verdict(since, seen.now_ns, seen.most_s, used).expire
    ] or None


def expired_trash(seen: Aging[Item]) -> list[Item] | None:
    """Return the trashed bytes that go now, as `trash_due` has it; None when none do."""
    return [each for each, since, _opened in seen.items if trash_due(since, seen.now_ns, seen.most_s)] or None
