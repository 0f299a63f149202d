"""The answer to `recfs stats --trend`: how a store grew from day to day, by what is remembered of each."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from recfs.clock import SystemClock, boot_id
from recfs.core.figures.categories import Category
from recfs.core.figures.counters import day_of
from recfs.errors import Busy, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from recfs.ports.figures import Remembered
    from recfs.ports.reports import Snapshot

MOST_DAYS = 3660
Sums = dict[str, list[int]]
"""Files and bytes, by user or category."""
Of = dict[tuple[str, str], tuple[int, int]]
"""Files and bytes, by user and category."""


def trend(snapshot: Snapshot, params: dict[str, Any], calendar_ns: int | None = None) -> dict[str, Any]:
    """How a store, a user or a category grew in the last days. Raises InvalidArgument; Busy while files are counted.

    *calendar_ns*: the daemon's `Clock.calendar_ns`; None: what one that started now would have.
    """
    wanted, user, category = params.get("days"), params.get("user"), params.get("category")
    if not isinstance(wanted, int) or not 1 <= wanted <= MOST_DAYS:
        raise InvalidArgument(f"a trend of {wanted!r} days: from 1 to {MOST_DAYS}")
    if category is not None and category not in set(Category):
        raise InvalidArgument(f"category {category!r}: there are {', '.join(Category)}")
    if calendar_ns is None:
        calendar_ns = SystemClock(snapshot.meta(), boot_id()).calendar_ns()
    counted = snapshot.counted(user)
    if counted is None:
        raise Busy("files are being counted anew, or the daemon has not begun with it: try again in a minute")
    today = date.fromisoformat(day_of(calendar_ns))
    since = (today - timedelta(days=wanted)).isoformat()
    now: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for key, files, size_bytes in counted.figures:
        now[key.user, key.category.value][0] += files
        now[key.user, key.category.value][1] += size_bytes
    current: Of = {key: (files, size) for key, (files, size) in now.items()}

    def is_meant(key: tuple[str, str]) -> bool:
        return (user is None or key[0] == user) and (category is None or key[1] == category)

    current = {key: value for key, value in current.items() if is_meant(key)}
    known, first = _by_day(snapshot.remembered(since), is_meant)
    if not known:
        first = current
    months: Sums = defaultdict(lambda: [0, 0])
    for upload, files, size_bytes in counted.months if category in (None, Category.SOURCE) else ():
        months[upload.month][0] += files
        months[upload.month][1] += size_bytes
    return {
        "since": known[0].day if known else None,
        "asked_since": since,
        "at_ns": calendar_ns,
        "user": user,
        "category": category,
        "days": _days(known, current, today),
        "gaps": _gaps([each.day for each in known], today),
        "categories": _grown(first, current, 1),
        "users": _grown(first, current, 0),
        "uploads": {month: {"files": files, "bytes": size} for month, (files, size) in sorted(months.items())},
    }


class _Day(NamedTuple):
    day: str
    files: int
    size_bytes: int


def _by_day(found: Remembered, is_meant: Callable[[tuple[str, str]], bool]) -> tuple[list[_Day], Of]:
    """What there was on each day that is remembered; of the first all of it."""
    told: list[_Day] = []
    so_far: Of = {}
    first: Of = {}
    files = size = 0
    rows = iter(found.rows)
    row = next(rows, None)
    for day, _ in found.days:
        while row is not None and row.day <= day:
            key = row.user, row.category
            if is_meant(key):
                was_files, was_size = so_far.get(key, (0, 0))
                files, size = files + row.files - was_files, size + row.size_bytes - was_size
                so_far[key] = row.files, row.size_bytes
            row = next(rows, None)
        if not told:
            first = dict(so_far)
        told.append(_Day(day, files, size))
    return told, first


def _days(known: Sequence[_Day], current: Of, today: date) -> list[dict[str, Any]]:
    """What there was at the beginning of each day that is remembered, and how it grew until the next one, or now."""
    told = []
    ends = [*((each.day, each.files, each.size_bytes) for each in known[1:]), ("", *_total(current))]
    for each, (after, files, size) in zip(known, ends, strict=False):
        until = date.fromisoformat(after) if after else today + timedelta(days=1)
        told.append(
            {
                "day": each.day,
                "days": (until - date.fromisoformat(each.day)).days,
                "files": each.files,
                "bytes": each.size_bytes,
                "grown_files": files - each.files,
                "grown_bytes": size - each.size_bytes,
            }
        )
    return told


def _total(of: Of) -> tuple[int, int]:
    return sum(files for files, _ in of.values()), sum(size for _, size in of.values())


def _gaps(known: list[str], today: date) -> list[list[str]]:
    """First and last day of each stretch of which nothing is remembered, after the first that is."""
    found = []
    ends = [*known, (today + timedelta(days=1)).isoformat()][1:]
    for day, after in zip(known, ends, strict=True):
        first, end = date.fromisoformat(day) + timedelta(days=1), date.fromisoformat(after)
        if first < end:
            found.append([first.isoformat(), (end - timedelta(days=1)).isoformat()])
    return found


def _grown(first: Of, current: Of, which: int) -> dict[str, dict[str, int]]:
    """Files and bytes now, and how many more than at first, by user (0) or category (1); what grew most comes first."""
    before, now = _summed(first, which), _summed(current, which)
    told = {
        name: {
            "files": now.get(name, (0, 0))[0],
            "bytes": now.get(name, (0, 0))[1],
            "grown_files": now.get(name, (0, 0))[0] - before.get(name, (0, 0))[0],
            "grown_bytes": now.get(name, (0, 0))[1] - before.get(name, (0, 0))[1],
        }
        for name in sorted(before.keys() | now.keys())
    }
    return dict(sorted(told.items(), key=lambda each: -abs(each[1]["grown_bytes"])))


def _summed(of: Of, which: int) -> Mapping[str, tuple[int, int]]:
    sums: Sums = defaultdict(lambda: [0, 0])
    for key, (files, size) in of.items():
        sums[key[which]][0] += files
        sums[key[which]][1] += size
    return {name: (files, size) for name, (files, size) in sums.items()}


__all__ = ["MOST_DAYS", "trend"]
