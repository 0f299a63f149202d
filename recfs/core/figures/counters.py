"""Which counters a file is counted in: one by user, category and place of its bytes, and of an upload one by month."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.figures.categories import BY_EXTENSION, HEADS, SOURCE, Category, category_of, marks_of
from recfs.core.layout import Role
from recfs.core.quota import month_of

if TYPE_CHECKING:
    from recfs.core.figures.places import Place

RECOUNT_DUE: Final = "figures_recount"
"""Fact of a store: the counters are not to be believed before they were counted anew; "0", or not there: they are. Each
change that could not be counted at once makes it another number."""

NOT_KNOWN: Final = "?"
"""In place of a storage class: where the bytes were on an earlier day is not known, as of days before that was kept."""

_marks_of = lru_cache(1024)(marks_of)
_MAY_BE_HEADS: Final = bytes({byte for head in HEADS for byte in (head[0], head[:1].upper()[0])})


class FigureKey(NamedTuple):
    """A counter of files."""

    user: str
    """Who is charged; empty: nobody, as of shared files."""
    category: Category
    here: bool
    """Whether their bytes are on the local disk."""
    storage_class: str
    """That of their objects; empty: S3 has none."""

    def __str__(self) -> str:
        where = self.storage_class or "no object"
        return f"{self.category.value} of {self.user or 'nobody'}, {'here' if self.here else 'not here'}, {where}"


class MonthKey(NamedTuple):
    """A counter of uploads."""

    user: str
    month: str
    """UTC, as "2026-11": in which they were last written."""

    def __str__(self) -> str:
        return f"uploads of {self.user} in {self.month}"


Key = FigureKey | MonthKey


def day_of(now_ns: int) -> str:
    """Give the day (UTC) of a time in ns since 1970 as "2026-11-29"."""
    return f"{datetime.fromtimestamp(now_ns // 10**9, UTC):%Y-%m-%d}"


def figure_of(name: bytes, place: Place, storage_class: str, *, here: bool) -> FigureKey:
    """The counter of a file in a directory that is *place*."""
    return FigureKey(place.user or "", category_in(place, name), here, storage_class)


def category_in(place: Place, name: bytes) -> Category:
    """The category of a file in a directory that is *place*. Asked for every file that changes."""
    if place.category is not None:
        return place.category
    if name[:1] in _MAY_BE_HEADS:
        return category_of(None, place.role, _marks_of(name))
    dot = name.rfind(b".")
    return BY_EXTENSION.get(name[dot + 1 :].lower(), Category.OTHER) if dot >= 0 else Category.OTHER


def month_key(name: bytes, place: Place, mtime_ns: int) -> MonthKey | None:
    """The counter of uploads that a file is counted in as well; None: it is no upload of a user's."""
    if place.role is not Role.RECORDING or place.user is None or _marks_of(name).head != SOURCE:
        return None
    return MonthKey(place.user, month_of(mtime_ns))


__all__ = [
    "NOT_KNOWN",
    "RECOUNT_DUE",
    "FigureKey",
    "Key",
    "MonthKey",
    "category_in",
    "day_of",
    "figure_of",
    "month_key",
]
