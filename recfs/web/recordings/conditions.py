"""Conditional requests (RFC 9110, section 13), evaluated in the order of 13.2.2."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from recfs.web.problems import Problem

_TAG = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)')
NOT_MODIFIED: Final = 304
FAILED: Final = 412


class Fields(Protocol):
    """A request's header."""

    def getlist(self, key: str, /) -> list[str]:
        """All values of a field."""
        ...


def _field(fields: Fields, name: str) -> str | None:
    """A field as one text: several lines are joined (RFC 9110, 5.3)."""
    found = fields.getlist(name)
    return ", ".join(found) if found else None


def _tags(text: str) -> list[tuple[bool, str]] | None:
    """The entity tags of a list, each with whether it is weak; None for what is no such list."""
    found: list[tuple[bool, str]] = []
    at = 0
    while at < len(text):
        match = _TAG.match(text, at)
        if match is None:
            return None
        found.append((match[1] is not None, match[2]))
        at = match.end()
    return found


def _matches(text: str, etag: str | None, *, strongly: bool) -> bool:
    if text.strip() == "*":
        return etag is not None
    if etag is None:
        return False
    weak, opaque = etag.startswith("W/"), etag.removeprefix("W/").strip('"')
    if strongly and weak:
        return False
    return any(tag == opaque and not (strongly and is_weak) for is_weak, tag in _tags(text) or [])


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def judged(fields: Fields, etag: str | None, changed: datetime | None, *, safe: bool) -> int | None:
    """Give 412 or 304 where a condition says so, None where the request is to be carried out.

    *etag* as in the header, None where there is no such thing; *changed* to the second; *safe* for GET and HEAD.
    """
    if (text := _field(fields, "if-match")) is not None:
        if not _matches(text, etag, strongly=True):
            return FAILED
    elif (since := _date(_field(fields, "if-unmodified-since"))) is not None and (changed is None or changed > since):
        return FAILED
    if (text := _field(fields, "if-none-match")) is not None:
        if _matches(text, etag, strongly=False):
            return NOT_MODIFIED if safe else FAILED
        return None
    since = _date(_field(fields, "if-modified-since")) if safe else None
    return NOT_MODIFIED if since is not None and changed is not None and changed <= since else None


def is_conditional(fields: Fields) -> bool:
    """Whether a request that changes something has a condition (If-Modified-Since is for GET alone, 13.1.3)."""
    return any(fields.getlist(name) for name in ("if-match", "if-none-match", "if-unmodified-since"))


def must_hold_of_whole(fields: Fields) -> None:
    """Have the conditions hold of a recording, which has no validators. Raises Problem("PreconditionFailed").

    No ETag matches, so If-Match fails but for `*`, and If-None-Match for `*` alone; a date is not heeded (13.1.4).
    """
    match, none = _field(fields, "if-match"), _field(fields, "if-none-match")
    if (match is not None and match.strip() != "*") or (none is not None and none.strip() == "*"):
        raise Problem("PreconditionFailed")


def range_holds(fields: Fields, etag: str) -> bool:
    """Whether a Range counts: If-Range is missing, or names these bytes (13.1.5).

    A date never does: anybody may set a file's times, so it is no strong validator (8.8.2.2).
    """
    text = _field(fields, "if-range")
    return text is None or (not etag.startswith("W/") and text.strip() == etag)


__all__ = ["FAILED", "NOT_MODIFIED", "Fields", "is_conditional", "judged", "must_hold_of_whole", "range_holds"]
