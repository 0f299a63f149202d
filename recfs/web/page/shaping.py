"""Parts of pages that several of them have: bars, moments, figures, and what is left of a limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from recfs.web.page.texts import Texts

NEAR: Final = 0.8
FULL: Final = 0.95
"""From such a share of a limit on a bar warns, and warns loudly."""
_LAST_S: Final = 253_402_300_799
"""The end of the year 9999: datetime knows nothing later."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar, as shares of its whole; the kind is a class of the style sheet."""

    kind: str
    start: float
    share: float


@dataclass(frozen=True, slots=True)
class Moment:
    """A time of the wall clock: for programs, and for people in UTC. Scripts write it in the reader's own zone."""

    iso: str
    text: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its name."""

    name: str
    value: str
    more: str = ""
    parts: Sequence[Part] | None = None


def parts(whole: float, sizes: Iterable[tuple[str, float]]) -> list[Part]:
    """Give the parts of a bar, one after the other, as far as there is room."""
    found, start = list[Part](), 0.0
    for kind, size in sizes:
        share = min(max(size / whole if whole > 0 else 0.0, 0.0), 1.0 - start)
        if share > 0:
            found.append(Part(kind, start, share))
            start += share
    return found


def gauge(used: float, limit: float) -> list[Part]:
    """Give the bar of what is used of a limit."""
    share = used / limit if limit > 0 else 1.0
    return parts(1.0, [("full" if share >= FULL else "near" if share >= NEAR else "used", share)])


def moment(time_ns: int | None) -> Moment | None:
    """Give a moment; None for none, and for what no calendar has."""
    if time_ns is None or not 0 <= time_ns // 10**9 <= _LAST_S:
        return None
    at = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return Moment(at.isoformat().replace("+00:00", "Z"), f"{at:%Y-%m-%d %H:%M} UTC")


def stamp(text: str | None) -> Moment | None:
    """Give the moment of a text of the API (RFC 3339); None for none, and for what is no such text."""
    try:
        return None if text is None else moment(int(datetime.fromisoformat(text).timestamp()) * 10**9)
    except (ValueError, OverflowError):
        return None


def usage(t: Texts, user: dict[str, Any]) -> dict[str, Any]:
    """What a user's row says: use against limits, as the daemon counts it."""
    limits = user["limits"]
    limit, uploads = limits["max_bytes"], t.number(user["month_uploads"])
    most = limits["max_monthly_uploads"]
    return {
        "id": user["user"],
        "parts": None if limit is None else gauge(user["used_bytes"], limit),
        "share": "" if limit is None else t.share(user["used_bytes"], limit),
        "used": t.size(user["used_bytes"]),
        "limit": t.size(limit),
        "largest": t.size(limits["max_file_size"]),
        "files": t.number(user["used_files"]),
        "uploads": uploads if most is None else f"{uploads} / {t.number(most)}",
    }


__all__ = ["Figure", "Moment", "Part", "gauge", "moment", "parts", "stamp", "usage"]
