"""The answer to `recfs stats --trend`: how a store grew from day to day, by what is remembered of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from recfs.api.stats.figures import Asked
from recfs.api.stats.sums import classes_of, store_of
from recfs.clock import SystemClock, boot_id
from recfs.core.figures.categories import Category
from recfs.core.figures.counters import NOT_KNOWN, FigureKey, day_of
from recfs.errors import Busy, InvalidArgument

if TYPE_CHECKING:
    from recfs.ports.figures import Remembered
    from recfs.ports.reports import Snapshot

MOST_DAYS = 3660
Pair = tuple[int, int]
"""Files and bytes."""
Of = dict[FigureKey, Pair]
_Names = Callable[[FigureKey], Sequence[str]]
_NOTHING: Final = (0, 0)


def trend(snapshot: Snapshot, params: dict[str, Any], calendar_ns: int | None = None) -> dict[str, Any]:
    """How a store, a user, a category, or what is in one place grew in the last days.

    Raises InvalidArgument; Busy while files are counted. *calendar_ns*: the daemon's `Clock.calendar_ns`; None: what
    one that started now would have.
    """
    wanted = params.get("days")
    if not isinstance(wanted, int) or not 1 <= wanted <= MOST_DAYS:
        raise InvalidArgument(f"a trend of {wanted!r} days: from 1 to {MOST_DAYS}")
    asked = Asked.of({name: params.get(name) for name in ("user", "category", "store")})
    if calendar_ns is None:
        calendar_ns = SystemClock(snapshot.meta(), boot_id()).calendar_ns()
    counted = snapshot.counted(asked.user)
    if counted is None:
        raise Busy("files are being counted anew, or the daemon has not begun with it: try again in a minute")
    today = date.fromisoformat(day_of(calendar_ns))
    since = (today - timedelta(days=wanted)).isoformat()
    current = {key: (files, size) for key, files, size in counted.figures if asked.takes_counter(key)}
    known = _known(snapshot.remembered(since), asked)
    days = known.days if asked.store is None else [each for each in known.days if each.classes is not None]
    first = known.first if asked.store is None else known.first_placed
    months: dict[str, Pair] = defaultdict(lambda: _NOTHING)
    for upload, files, size in counted.months if asked.category in (None, Category.SOURCE) else ():
        months[upload.month] = _plus(months[upload.month], (files, size))
    return {
        "since": days[0].day if days else None,
        "placed_since": next((each.day for each in days if each.classes is not None), None),
        "asked_since": since,
        "at_ns": calendar_ns,
        "user": asked.user,
        "category": asked.category,
        "store": asked.store,
        "days": _days(days, current, today),
        "gaps": _gaps([each.day for each in days], today),
        "categories": _grown(first, current, lambda key: [key.category.value]),
        "users": _grown(first, current, lambda key: [key.user]),
        "stores": _grown(known.first_placed, current, lambda key: [store_of(key.here, key.storage_class or None)]),
        "classes": _grown(known.first_placed, current, _classes),
        "uploads": {month: {"files": files, "bytes": size} for month, (files, size) in sorted(months.items())},
    }


class _Day(NamedTuple):
    day: str
    total: Pair
    """What there was."""
    classes: dict[str, Pair] | None
    """The same by storage class; None: of some files it is not known where their bytes were."""


class _Known(NamedTuple):
    days: list[_Day]
    first: Of | None
    """All that there was on the first of these days; None: there is none."""
    first_placed: Of | None
    """The same of the first of which it is known where the bytes were."""


def _known(found: Remembered, asked: Asked) -> _Known:
    """What there was on each day that is remembered."""
    days: list[_Day] = []
    first: Of | None = None
    first_placed: Of | None = None
    so_far: Of = {}
    total, classes, not_placed = _NOTHING, dict[str, Pair](), 0
    rows = iter(found.rows)
    row = next(rows, None)
    for day, _ in found.days:
        while row is not None and row.day <= day:
            key = FigureKey(row.user, Category(row.category), bool(row.here), row.storage_class)
            is_placed = key.storage_class != NOT_KNOWN
            if _is_meant(asked, key, is_placed=is_placed):
                more = _minus((row.files, row.size_bytes), so_far.get(key, _NOTHING))
                total = _plus(total, more)
                for name in _classes(key) if is_placed else ():
                    classes[name] = _plus(classes.get(name, _NOTHING), more)
                not_placed += 0 if is_placed else more[0]
                so_far[key] = row.files, row.size_bytes
            row = next(rows, None)
        if first is None:
            first = dict(so_far)
        if first_placed is None and not not_placed:
            first_placed = dict(so_far)
        days.append(_Day(day, total, None if not_placed else dict(classes)))
    return _Known(days, first, first_placed)


def _is_meant(asked: Asked, key: FigureKey, *, is_placed: bool) -> bool:
    if asked.user is not None and key.user != asked.user:
        return False
    return asked.takes_counter(key) if is_placed else asked.category in (None, key.category)


def _days(known: Sequence[_Day], current: Of, today: date) -> list[dict[str, Any]]:
    """What there was at the beginning of each day that is remembered, and how it grew until the next one, or now."""
    now = _Day("", _total(current), _summed(current, _classes))
    told = []
    for each, after in zip(known, [*known[1:], now], strict=False):
        until = date.fromisoformat(after.day) if after.day else today + timedelta(days=1)
        classes = None
        if each.classes is not None and after.classes is not None:
            classes = _more(each.classes, after.classes, each.classes)
        told.append(
            {
                "day": each.day,
                "days": (until - date.fromisoformat(each.day)).days,
                **_told(each.total, _minus(after.total, each.total)),
                "classes": classes,
            }
        )
    return told


def _total(of: Of) -> Pair:
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


def _grown(first: Of | None, current: Of, names: _Names) -> dict[str, dict[str, int]]:
    """Files and bytes now, and how many more than at first, by name; what grew most comes first."""
    now = _summed(current, names)
    told = _more(now if first is None else _summed(first, names), now, now)
    return dict(sorted(told.items(), key=lambda each: -abs(each[1]["grown_bytes"])))


def _more(before: dict[str, Pair], after: dict[str, Pair], there: dict[str, Pair]) -> dict[str, dict[str, int]]:
    """What is *there*, and how much more there was *after* than *before*, by name."""
    return {
        name: _told(there.get(name, _NOTHING), _minus(after.get(name, _NOTHING), before.get(name, _NOTHING)))
        for name in sorted(before.keys() | after.keys())
    }


def _told(there: Pair, more: Pair) -> dict[str, int]:
    return {"files": there[0], "bytes": there[1], "grown_files": more[0], "grown_bytes": more[1]}


def _summed(of: Of, names: _Names) -> dict[str, Pair]:
    sums: dict[str, Pair] = {}
    for key, pair in of.items():
        for name in names(key):
            sums[name] = _plus(sums.get(name, _NOTHING), pair)
    return sums


def _classes(key: FigureKey) -> list[str]:
    return classes_of(key.here, key.storage_class or None)


def _plus(one: Pair, other: Pair) -> Pair:
    return one[0] + other[0], one[1] + other[1]


def _minus(one: Pair, other: Pair) -> Pair:
    return one[0] - other[0], one[1] - other[1]


__all__ = ["MOST_DAYS", "trend"]
