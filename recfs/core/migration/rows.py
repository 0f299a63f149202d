"""Rows of the platform's table of recordings: what is needed of them, and what their values mean."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from recfs.core.migration.names import id_of
from recfs.core.migration.oldtree import Slot
from recfs.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = str | int | float | bytes | None
"""What a database has in a column; str with lone surrogates (PEP 383) where it is no UTF-8."""

ID: Final = "id"
USER: Final = "user_id"
NAME: Final = "display_name"
STATUS: Final = "status"
EXPIRES: Final = "expire_at"
PATHS: Final = tuple(slot.value for slot in Slot)
SIZES: Final = {
    Slot.SOURCE: "local_video_size",
    Slot.VIDEO: "processed_video_size",
    Slot.AUDIO: "processed_audio_size",
}
"""Columns that a platform may have besides, by which files are recognized; they are looked for where they are named."""
COLUMNS: Final = (ID, USER, NAME, STATUS, *PATHS, EXPIRES)
"""Columns that are looked for unless a mapping says that there are none."""
KNOWN: Final = (*COLUMNS, *SIZES.values())
NOW: Final = "now"
"""In a plan, in the place of a date: the recording has expired."""
EXPIRED_STATUS: Final = ("expired",)
"""What `status` is of recordings that have expired, in any case of letters."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final = ("null", "none")
"""What programs write that make a text of what is not there."""
_LAST: Final = datetime(2262, 4, 11, tzinfo=UTC)
"""A store keeps dates as nanoseconds since 1970 in 63 bits."""
_SECONDS_2000: Final = 946_684_800.0
_JULIAN_EPOCH: Final = 2440587.5
"""1970, as SQLite's julianday() tells it (https://sqlite.org/lang_datefunc.html)."""
_JULIAN_2000: Final = 2451544.5
_JULIAN_END: Final = 5373484.5
"""The year 10000; larger numbers are seconds to SQLite as well (`auto`)."""
_NUMBER: Final = re.compile(r"-?\d{1,20}(\.\d+)?")
_UUID_BYTES: Final = 16
_PATH_MAX: Final = 16_384
"""Characters: no path of Linux has more, also where each of its 4,095 bytes was quoted (`%D0`), or read wrongly."""


@dataclass(frozen=True, slots=True)
class Row:
    """A recording, as the platform knows it."""

    id: str
    """As the directory of the recording is named: an integer or a UUID."""
    user: str
    told_id: str
    """As the database has it."""
    name: str = ""
    status: str = ""
    paths: Mapping[Slot, str] = field(default_factory=dict)
    """Those that are told, as they stand there."""
    sizes: Mapping[Slot, int] = field(default_factory=dict)
    expires: datetime | None = None
    """In UTC."""

    @property
    def where(self) -> bytes:
        """Its directory in a store."""
        return f"users/{self.user}/recordings/{self.id}".encode("ascii")

    def expired(self, now: datetime, status: frozenset[str]) -> str:
        """Why it has expired; "" if it has not. *status*: those of expired ones, casefolded."""
        if self.status.strip().casefold() in status:
            return f"its status is {self.status.strip()}"
        if self.expires is not None and self.expires <= now:
            return f"it expired at {moment(self.expires)}"
        return ""


def moment(when: datetime) -> str:
    """A moment in ISO 8601, UTC, to the second, within what a store can keep."""
    return min(max(when, _EPOCH), _LAST).strftime("%Y-%m-%dT%H:%M:%SZ")


def row_of(values: Mapping[str, Value]) -> Row:
    """What *values*, by the names of KNOWN, say.

    Raises InvalidArgument for a value that its column cannot have; the message names column and value.
    """
    identity, user = _id(values, ID), _id(values, USER)
    told_id = told_as(values.get(ID))
    paths = {slot: text for slot in Slot if (text := _text(values, slot.value))}
    sizes = {slot: size for slot, column in SIZES.items() if (size := _size(values, column)) is not None}
    try:
        expires = date_of(values.get(EXPIRES))
    except ValueError as error:
        raise InvalidArgument(f"{EXPIRES}: {error}") from None
    return Row(identity, user, told_id, _text(values, NAME), _text(values, STATUS), paths, sizes, expires)


def told_as(value: Value) -> str:
    """How a plan tells an id: text as it stands, bytes in hex, a whole number in digits."""
    if isinstance(value, bytes):
        return value.hex()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _id(values: Mapping[str, Value], column: str) -> str:
    value = values.get(column)
    found = None
    if isinstance(value, bytes) and len(value) == _UUID_BYTES:
        found = id_of(value.hex())
    elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        found = id_of(str(int(value)))
    elif isinstance(value, str):
        found = id_of(value)
    if found is None:
        raise InvalidArgument(f"{column} is {_shown(value)}, and no integer or UUID")
    return found


def _text(values: Mapping[str, Value], column: str) -> str:
    """A text; whether it is one that a column of paths may hold is looked at there."""
    value = values.get(column)
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        if column in PATHS and "\0" in value:
            raise InvalidArgument(f"{column} is {_shown(value)}, and a path has no NUL")
        if column in PATHS and len(value) > _PATH_MAX:
            raise InvalidArgument(f"{column} has {len(value):,} characters, more than any path: {_shown(value)}")
        return value
    if column in PATHS:
        raise InvalidArgument(f"{column} is {_shown(value)}, and no path")
    return str(value)


def _size(values: Mapping[str, Value], column: str) -> int | None:
    value = values.get(column)
    if value is None or value == "":
        return None
    try:
        found = int(value)
    except (ValueError, OverflowError):
        found = -1
    if found < 0:
        raise InvalidArgument(f"{column} is {_shown(value)}, and no size in bytes")
    return found


def _shown(value: Value) -> str:
    if value is None or value == "":
        return "empty"
    text = repr(value)
    kind = "a number" if isinstance(value, (int, float)) else "a BLOB" if isinstance(value, bytes) else "text"
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({kind})"


def date_of(value: Value) -> datetime | None:
    """A date of a database, in UTC; None where there is none, or never.

    ISO 8601 with a blank or a T, as SQLite, SQLAlchemy and PostgreSQL write it (UTC where no zone is told); infinity,
    as PostgreSQL (`infinity`) and SQLite (`9e999`) have it; and numbers of seconds, milliseconds, microseconds or
    nanoseconds since 1970, by how large they are, or of days, as SQLite's julianday() counts them. No number means a
    moment before 2000: what would is something else, which nobody is to take for an expiry long ago. Raises ValueError
    for that, and anything else.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        value = value.strip()
        if _NUMBER.fullmatch(value):
            value = float(value)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return _date(value)
    seconds = float(value)
    if seconds == math.inf:
        return None
    if _JULIAN_2000 <= seconds < _JULIAN_END:
        seconds = (seconds - _JULIAN_EPOCH) * 86400
    while math.isfinite(seconds) and abs(seconds) >= 1e11:  # the year 5138 in seconds, 1973 in milliseconds
        seconds /= 1000
    if not seconds >= _SECONDS_2000:
        raise ValueError(f"{value!r} is no date: as a number it would be before the year 2000")
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise ValueError(f"{value!r} is no date") from None


def _date(text: str) -> datetime | None:
    word = text.lower()
    if word in ("infinity", "never", *_NOTHING):
        return None
    if word == "-infinity":
        return _EPOCH
    text = text.removesuffix(" UTC").removesuffix(" utc")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is no date; one is 2027-01-31 18:00:00 or 2027-01-31T18:00:00Z") from None
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:  # the first and the last day there is
        return found.replace(tzinfo=UTC)


__all__ = [
    "COLUMNS",
    "EXPIRED_STATUS",
    "EXPIRES",
    "ID",
    "KNOWN",
    "NAME",
    "NOW",
    "PATHS",
    "SIZES",
    "STATUS",
    "USER",
    "Row",
    "Value",
    "date_of",
    "moment",
    "row_of",
    "told_as",
]
