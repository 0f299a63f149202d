"""Dates as people write and read them, and the nanoseconds since the epoch that they stand for."""

from datetime import UTC, datetime

_NS = 1_000_000_000
_LEAST_NS = 10**15
"""Numbers below are no nanoseconds since 1970 that anybody means."""
_BASIC_DIGITS = 8
"""Of a date in the basic form of ISO 8601: YYYYMMDD."""


def parse_date(text: str) -> int | None:
    """A date as people write it, in nanoseconds since the epoch; None for "", "never" and "none".

    ISO 8601 ("2027-01-31", "2027-01-31T18:00", "2027-01-31T18:00:00+01:00", and its basic form, "20270131"; UTC where
    no zone is named, midnight where no time is), or the nanoseconds themselves, which have more than eight digits.
    Raises ValueError that says what to write.
    """
    word = text.strip().rstrip("\0").strip()
    if word.lower() in ("", "never", "none"):
        return None
    if word.isascii() and word.isdigit() and len(word) != _BASIC_DIGITS:
        number = int(word) if len(word) < 20 else 1 << 63
        if not _LEAST_NS <= number < 1 << 63:
            raise ValueError(f"{word[:40]}: a number is nanoseconds since 1970; write a date such as 2027-01-31")
        return number
    try:
        found = datetime.fromisoformat(word.upper())
    except ValueError:
        raise ValueError(f"{word[:40]!r} is no date; write one such as 2027-01-31 or 2027-01-31T18:00:00Z") from None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    since = found - datetime(1970, 1, 1, tzinfo=UTC)
    number = (since.days * 86_400 + since.seconds) * _NS + since.microseconds * 1000
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{word[:40]}: a date lies between 1970 and 2262")
    return number


def date_text(ns: int) -> str:
    """A date in ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(ns // _NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
