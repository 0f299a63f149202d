"""How long recordings live: rules, and what is to be done about a recording now. Decisions only, each with its reason.

A [[retention]] table of recfs.conf is a rule; the first that takes a recording decides about it, and no other. Without
one nothing expires. `services/expiry.py` carries out what `judge` says.

Two clocks (`recfs/clock.py`). Ages go by `steady_ns`, the time that passed. A date is a person's, so the calendar says
whether it has come; but a calendar can be wrong, so the time from when the date was set until then has to have passed
by `steady_ns`, too. A clock that is put ahead brings no date nearer, and what was set while it was wrong is judged anew
as soon as it is right: an expired recording whose date lies ahead again is active again. The time in which the machine
is off does not count in `steady_ns`: after it a date comes later by as much, and never early.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from recfs.core.dates import date_text
from recfs.core.globs import Match, Path, PathGlob, compiled, is_glob
from recfs.core.layout import is_id
from recfs.core.life import Cause, Life, Status
from recfs.core.places import ID, meets
from recfs.core.units import format_duration

Since = Literal["change", "creation"]

_NS = 1_000_000_000
_PLACE = (b"users", ID, b"recordings", ID)
CHANGED_EVERY_NS = 60 * _NS
"""How precisely the last change of a recording is recorded: as up to so much later, so that nothing goes early."""


class Now(NamedTuple):
    """The time, by the clocks that count here."""

    steady_ns: int
    calendar_ns: int


class Use(NamedTuple):
    """How many different files of a recording are open."""

    files: int = 0
    writers: int = 0
    """Of these, for writing."""
    holds: str = ""
    """What in it is not to go with it, and why (`held_up`); empty: nothing."""


UNUSED = Use()


class Action(StrEnum):
    """What is to be done about a recording."""

    NONE = "none"
    EXPIRE = "expire"
    """It becomes `expired`."""
    REVIVE = "revive"
    """It is `active` again: what made it expire does not hold any more."""
    REMOVE = "remove"
    """Its grace is over, or its removal was begun: it goes with everything in it."""


class Verdict(NamedTuple):
    """What is to be done about a recording now, and why."""

    action: Action
    reason: str
    rule: int | None = None
    """The rule it falls under, counted from 1."""
    due_ns: int | None = None
    """When it expires or, expired, is removed (`Clock.steady_ns`): what is open may hold that up. None: never."""
    storage_class: str | None = None
    """The class that the objects of its files are to have, as it has come of age."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """One validated [[retention]] table. Raises ValueError that says what to write instead."""

    pattern: str = "users/*/recordings/*"
    user: str = "*"
    retention_s: float | None = None
    """The age at which a recording expires; None: never."""
    since: Since = "change"
    """From when its age counts: the last change inside it, or its creation."""
    auto_cleanup: bool = True
    """Whether one that is due expires by itself, or is only told of."""
    grace_s: float | None = None
    """How long an expired one can still be read; None: as [recordings] says."""
    archive_threshold_s: float | None = None
    """The age at which the objects of its files get another storage class; None: never."""
    archive_storage_class: str | None = None
    _glob: PathGlob = field(init=False, repr=False, compare=False)
    _is_user: Match = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        glob = PathGlob(self.pattern)
        if not meets(glob.parts, _PLACE):
            raise ValueError(
                f"pattern {self.pattern!r} takes no recording: these are the directories users/<id>/recordings/<id>"
            )
        user = self.user.encode("utf-8", "surrogateescape")
        if not (is_id(user) or is_glob(user)) or b"/" in user:
            raise ValueError(f'user {self.user!r}: a user is an id, or a pattern of ids such as "1*"')
        for name, value in (("retention", self.retention_s), ("archive_threshold", self.archive_threshold_s)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is more than 0s; to have recordings expire at once is what no rule does")
        if (self.archive_threshold_s is None) != (self.archive_storage_class is None):
            raise ValueError("archive_threshold and archive_storage_class need each other; write both or neither")
        object.__setattr__(self, "_glob", glob)
        object.__setattr__(self, "_is_user", compiled(user))

    def matches(self, path: Path) -> bool:
        """Tell whether the rule is for the recording at a mount path."""
        return bool(self._is_user(path[1])) and self._glob.matches(path)

    def covers(self, other: "RetentionRule") -> bool:
        """Tell whether the rule surely takes every recording that *other* does."""
        return self.user in ("*", other.user) and self._glob.covers(other._glob)


@dataclass(frozen=True, slots=True)
class Policy:
    """All of the rules, in order, and what holds where they say nothing."""

    rules: tuple[RetentionRule, ...] = ()
    grace_s: float = 7 * 86_400.0

    def rule_for(self, path: Path) -> tuple[int | None, RetentionRule | None]:
        """The first rule that takes the recording at *path*, and its number, counted from 1."""
        for number, rule in enumerate(self.rules, start=1):
            if rule.matches(path):
                return number, rule
        return None, None


NOTHING_EXPIRES = Policy()
"""What holds where no rule is set."""


class Horizon(NamedTuple):
    """The latest times (`Clock.steady_ns`) from which an age may be enough for any rule; -1: no rule asks for it."""

    changed_ns: int = -1
    born_ns: int = -1


def horizon(policy: Policy, steady_ns: int) -> Horizon:
    """Tell what is young enough for all rules, so that it need not be judged unless a date or status is set of it."""
    youngest: dict[Since, int] = {"change": -1, "creation": -1}
    for rule in policy.rules:
        for age_s in (rule.retention_s, rule.archive_threshold_s):
            if age_s is not None:
                youngest[rule.since] = max(youngest[rule.since], steady_ns - round(age_s * _NS))
    return Horizon(youngest["change"], youngest["creation"])


def check_retention(rules: Sequence[RetentionRule]) -> None:
    """Refuse a list with a rule that can never decide. Raises ValueError."""
    for index, later in enumerate(rules):
        for number, earlier in enumerate(rules[:index], start=1):
            if earlier.covers(later):
                raise ValueError(
                    f"rule {index + 1} ({later.pattern}) never applies: rule {number} ({earlier.pattern}) comes first"
                    f" and takes the same recordings; put the narrower first or drop one"
                )


# --- judging ---------------------------------------------------------------------------------------------------------


class _Due(NamedTuple):
    """Whether and when a recording expires."""

    is_due: bool
    at_ns: int | None
    cause: Cause
    why: str


def judge(policy: Policy, path: Path, life: Life, now: Now, use: Use = UNUSED) -> Verdict:
    """What is to be done about the recording at a mount path. Pure: the same answer for the same sight.

    A writer keeps a recording from expiring, and any open file keeps it from being removed.
    """
    number, rule = policy.rule_for(path)
    if life.status is Status.REMOVING:
        told = "its removal has begun"
        held = _held(use, use.files, "open")
        return Verdict(Action.NONE if held else Action.REMOVE, told + held, number, now.steady_ns)
    if life.keep:
        return Verdict(_revived(life), "kept", number)
    due = _due(rule, number, life, now)
    is_told = due.is_due and due.cause is Cause.RULE and rule is not None and not rule.auto_cleanup
    if is_told:
        due = due._replace(why=f"{due.why}; auto_cleanup is off")
    if life.status is Status.EXPIRED:
        if not due.is_due or is_told:
            return Verdict(Action.REVIVE, due.why, number, None if is_told else due.at_ns)
        return _expired(policy, rule, number, life, now, use, due.why)
    storage_class = _storage_class(rule, life, now.steady_ns)
    if not due.is_due or is_told:
        return Verdict(Action.NONE, due.why, number, due.at_ns, storage_class)
    held = _held(use, use.writers, "open for writing")
    return Verdict(Action.NONE if held else Action.EXPIRE, due.why + held, number, due.at_ns)


def _held(use: Use, files: int, how: str) -> str:
    """What holds it up, as the end of a sentence; empty: nothing does."""
    if files:
        return f", but {_files(files)} {how}"
    return f", but {use.holds}" if use.holds else ""


def cause_of(policy: Policy, path: Path, life: Life, now: Now) -> Cause:
    """What makes the recording expire of which `judge` says so."""
    number, rule = policy.rule_for(path)
    return _due(rule, number, life, now).cause


def _revived(life: Life) -> Action:
    return Action.REVIVE if life.status is Status.EXPIRED else Action.NONE


def _expired(
    policy: Policy, rule: RetentionRule | None, number: int | None, life: Life, now: Now, use: Use, why: str
) -> Verdict:
    grace_s = rule.grace_s if rule is not None and rule.grace_s is not None else policy.grace_s
    at_ns = life.expired_ns + round(grace_s * _NS)
    told = f"{why}; grace {format_duration(grace_s)}"
    if now.steady_ns < at_ns:
        return Verdict(Action.NONE, f"{told}: removed in {_time(at_ns - now.steady_ns)}", number, at_ns)
    held = _held(use, use.files, "open")
    return Verdict(Action.NONE if held else Action.REMOVE, f"{told} is over{held}", number, at_ns)


def _due(rule: RetentionRule | None, number: int | None, life: Life, now: Now) -> _Due:
    if life.status is not Status.ACTIVE and life.expired_by is Cause.OPERATOR:
        return _Due(True, life.expired_ns, Cause.OPERATOR, f"expired by {life.set_by or 'the operator'}")
    if life.expires_ns is not None:
        return _by_date(life, life.expires_ns, now)
    if rule is None:
        return _Due(False, None, Cause.NOBODY, "no rule takes it, and no date is set")
    if rule.retention_s is None:
        return _Due(False, None, Cause.NOBODY, f"rule {number} names no retention")
    return _by_age(rule, number, life, rule.retention_s, now.steady_ns)


def _by_date(life: Life, expires_ns: int, now: Now) -> _Due:
    passed_ns = life.dated_ns + life.ahead_ns
    at_ns = max(passed_ns, now.steady_ns + expires_ns - now.calendar_ns)
    told = f"expires_at {date_text(expires_ns)}"
    if now.steady_ns >= at_ns:
        return _Due(True, at_ns, Cause.DATE, told)
    left = _time(at_ns - now.steady_ns)
    if now.calendar_ns >= expires_ns:
        return _Due(
            False, at_ns, Cause.DATE,
            f"{told} has come by the calendar, but the time until then has not passed: due in {left}",
        )  # fmt: skip
    return _Due(False, at_ns, Cause.DATE, f"{told}: due in {left}")


def _by_age(rule: RetentionRule, number: int | None, life: Life, retention_s: float, steady_ns: int) -> _Due:
    from_ns = _age_from(rule, life)
    at_ns = from_ns + round(retention_s * _NS)
    what = "last change" if rule.since == "change" else "made"
    if from_ns > steady_ns:  # a wrong clock recorded it, or it is of this very minute
        told = f"{what} just now"
    else:
        told = f"{what} {_time(steady_ns - from_ns)} ago"
    told = f"{told}, retention {format_duration(retention_s)} (rule {number})"
    if steady_ns >= at_ns:
        return _Due(True, at_ns, Cause.RULE, told)
    return _Due(False, at_ns, Cause.RULE, f"{told}: due in {_time(at_ns - steady_ns)}")


def _age_from(rule: RetentionRule, life: Life) -> int:
    return life.changed_ns if rule.since == "change" else life.born_ns


def protected(life: Life, now: Now) -> str:
    """Why a directory that had been a recording is not to go with what it was moved into; empty: it may.

    It is kept, or a date is set that has not come. Its status and the rules count where it is a recording alone.
    """
    if life.keep:
        return "is kept"
    due = _by_date(life, life.expires_ns, now) if life.expires_ns is not None else None
    return f"has {due.why}" if due is not None and not due.is_due else ""


class Inside(NamedTuple):
    """A directory that had been a recording and was moved into something else, with a mark or a date of its own."""

    path: Path
    life: Life
    at: Sequence[int]
    """Its inode number, and those of all directories above it."""


def held_up(found: Iterable[Inside], now: Now) -> dict[int, str]:
    """Which directories are not to be removed with all that is in them, and why."""
    held: dict[int, str] = {}
    for each in found:
        why = protected(each.life, now)
        for ino in each.at if why else ():
            held.setdefault(
                ino, f"{os.fsdecode(b'/'.join(each.path))} in it {why}" if ino != each.at[0] else f"it {why}"
            )
    return held


class Archive(NamedTuple):
    """The storage class that the objects of a recording's files are to have, and why."""

    storage_class: str
    why: str


def archive_of(policy: Policy, path: Path, life: Life, steady_ns: int, current: str | None = None) -> Archive | None:
    """What becomes of an object in the recording at a mount path; None: nothing is said of it.

    *current*: the class that it has: one that was archived stays so when its recording is young again.
    """
    number, rule = policy.rule_for(path)
    if rule is None or rule.archive_storage_class is None:
        return None
    name = rule.archive_storage_class
    if _storage_class(rule, life, steady_ns) is not None:
        threshold = format_duration(rule.archive_threshold_s or 0.0)
        return Archive(name, f"its recording is older than archive_threshold {threshold} (rule {number})")
    return Archive(name, "its recording was archived") if current == name else None


def _storage_class(rule: RetentionRule | None, life: Life, steady_ns: int) -> str | None:
    if rule is None or rule.archive_threshold_s is None or life.keep or life.status is not Status.ACTIVE:
        return None
    old = steady_ns - _age_from(rule, life) >= round(rule.archive_threshold_s * _NS)
    return rule.archive_storage_class if old else None


def _time(ns: int) -> str:
    return format_duration(ns / _NS)


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count:,} files are"


# --- many ------------------------------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """A recording as it was when the sweep looked."""

    ino: int
    path: Path
    life: Life
    use: Use


@dataclass(frozen=True, slots=True)
class Seen:
    """Those of which anything may be said, and when that was."""

    now: Now
    candidates: Sequence[Candidate]


def is_of_interest(verdict: Verdict, now: Now) -> bool:
    """Tell whether there is more to be said of a recording than that its time has not come."""
    is_due = verdict.due_ns is not None and verdict.due_ns <= now.steady_ns
    return verdict.action is not Action.NONE or is_due or verdict.storage_class is not None


def judged(policy: Policy, seen: Seen) -> Iterable[tuple[Candidate, Verdict]]:
    """Each with its verdict."""
    return ((each, judge(policy, each.path, each.life, seen.now, each.use)) for each in seen.candidates)


def plan(policy: Policy, seen: Seen) -> list[tuple[Candidate, Verdict]] | None:
    """Those about which something is to be done; None: about none."""
    return [(each, verdict) for each, verdict in judged(policy, seen) if verdict.action is not Action.NONE] or None


def plan_archive(policy: Policy, seen: Seen) -> list[Candidate] | None:
    """Those of which the objects are to have the class of the archive, or have it already; None: there is none."""
    return [each for each, verdict in judged(policy, seen) if verdict.storage_class is not None] or None
