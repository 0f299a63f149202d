"""Limits of a user, and what they allow: exact to the byte, and never in the way of shrinking.

`grow` and `add_file` run for every write and every create, so the allowed case allocates nothing: `grow`
answers with a plain int, and only a caller that got less than it wanted asks `grow_reason` why.
"""

import enum
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final

UNLIMITED: Final = 2**63 - 1
"""As a user's own limit: none, whatever the default. SQLite's largest integer; `merge` turns it into None."""

HEADROOM_BYTES: Final = 10 << 30
"""Room a user must have left for each writer that nobody checks write by write …"""
HEADROOM_SHARE: Final = 10
"""… or this part of max_bytes (one in …), whichever is larger."""

_NS_PER_S = 1_000_000_000


class Reason(enum.StrEnum):
    """Which limit refused; the value is the limit's name in recfs.conf and in `recfs quota set`."""

    QUOTA_BYTES = "max_bytes"
    QUOTA_FILES = "max_files"
    FILE_SIZE = "max_file_size"
    MONTHLY_UPLOADS = "max_monthly_uploads"


@dataclass(frozen=True, slots=True)
class Limits:
    """Four limits, each a number >= 0 or None.

    None means "no limit" in the limits that apply (defaults, and what `merge` returns), and "the default
    applies" in a user's own limits. Raises ValueError for a negative or non-integer value.
    """

    max_bytes: int | None = None
    max_files: int | None = None
    max_file_size: int | None = None
    max_monthly_uploads: int | None = None

    def __post_init__(self) -> None:
        # By name, and not by fields(): thousands of users are told at a time.
        values: tuple[object, ...] = (self.max_bytes, self.max_files, self.max_file_size, self.max_monthly_uploads)
        for index, value in enumerate(values):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                name = fields(self)[index].name
                raise ValueError(f"{name} is a whole number of at least 0, or unlimited; not {value!r}")

    def as_dict(self) -> dict[str, int | None]:
        """By name, as asdict(), which takes ten times as long."""
        return {
            "max_bytes": self.max_bytes,
            "max_files": self.max_files,
            "max_file_size": self.max_file_size,
            "max_monthly_uploads": self.max_monthly_uploads,
        }


def merge(own: Limits, defaults: Limits) -> Limits:
    """Combine a user's own limits with the defaults; an own limit of `UNLIMITED` lifts the default."""
    return Limits(
        max_bytes=_effective(own.max_bytes, defaults.max_bytes),
        max_files=_effective(own.max_files, defaults.max_files),
        max_file_size=_effective(own.max_file_size, defaults.max_file_size),
        max_monthly_uploads=_effective(own.max_monthly_uploads, defaults.max_monthly_uploads),
    )


def _effective(own: int | None, default: int | None) -> int | None:
    value = default if own is None else own
    return None if value is None or value >= UNLIMITED else value


def grow(limits: Limits, used_bytes: int, file_size: int, wanted_size: int) -> int:
    """Give the size a file may have: `wanted_size`, or less where a limit bites.

    `used_bytes` is all the owner is charged for, this file's `file_size` included. The answer is
    `wanted_size` whenever that does not exceed `file_size` (shrinking is always allowed), and otherwise
    lies between the two: the caller writes that far (a partial write), and refuses when nothing is left. If
    the answer is below `wanted_size`, `grow_reason` with the same arguments names the limit.
    """
    if wanted_size <= file_size:
        return wanted_size
    allowed = wanted_size
    limit = limits.max_bytes
    if limit is not None and allowed - file_size > limit - used_bytes:
        allowed = file_size + limit - used_bytes
    limit = limits.max_file_size
    if limit is not None and allowed > limit:
        allowed = limit
    if allowed > file_size:  # not max(): a builtin call costs more than the rest of this function's branch
        return allowed
    return file_size


def grow_reason(limits: Limits, used_bytes: int, file_size: int, wanted_size: int) -> Reason | None:
    """Name the limit that bites first in `grow` with the same arguments; None if the wanted size is allowed.

    Where both bite at the same byte the answer is FILE_SIZE: freeing space elsewhere would not help.
    """
    allowed = grow(limits, used_bytes, file_size, wanted_size)
    if allowed >= wanted_size:
        return None
    limit = limits.max_file_size
    if limit is None or limit > allowed:
        return Reason.QUOTA_BYTES
    if limits.max_bytes is None:
        return Reason.FILE_SIZE
    # `allowed` is no guide for a file that is past a limit already; compare the limits themselves.
    return Reason.FILE_SIZE if limit <= file_size + limits.max_bytes - used_bytes else Reason.QUOTA_BYTES


def add_file(limits: Limits, used_files: int, month_uploads: int, *, upload: bool) -> Reason | None:
    """Name the limit that refuses one more file, or None if it is allowed.

    `used_files` and `month_uploads` count what exists before. `upload`: the new file counts towards
    max_monthly_uploads (`layout.is_upload`).
    """
    limit = limits.max_files
    if limit is not None and used_files >= limit:
        return Reason.QUOTA_FILES
    if upload:
        limit = limits.max_monthly_uploads
        if limit is not None and month_uploads >= limit:
            return Reason.MONTHLY_UPLOADS
    return None


def may_write_unchecked(limits: Limits, used_bytes: int, file_size: int, writers: int, headroom: int | None) -> bool:
    """Tell whether one more writer may write without being checked at each write.

    `writers`: how many of this user's do already. `headroom`: bytes that have to be left for each, itself included;
    None for the default. A writer is told to stop within a tenth of a second after it crossed a limit, so the room
    decides whether it can cross it at all before the next open notices.
    """
    if limits.max_bytes is not None:
        room = max(HEADROOM_BYTES, limits.max_bytes // HEADROOM_SHARE) if headroom is None else headroom
        if limits.max_bytes - used_bytes < room * (writers + 1):
            return False
    if limits.max_file_size is not None:
        return limits.max_file_size - file_size >= (HEADROOM_BYTES if headroom is None else headroom)
    return True


def exceeded(limits: Limits, used_bytes: int, file_size: int) -> Reason | None:
    """Name the limit that is passed already, or None: for growth that is only measured afterwards."""
    if limits.max_file_size is not None and file_size > limits.max_file_size:
        return Reason.FILE_SIZE
    if limits.max_bytes is not None and used_bytes > limits.max_bytes:
        return Reason.QUOTA_BYTES
    return None


def month_of(now_ns: int) -> str:
    """Give the month (UTC) of a time in ns since 1970 as "2026-11": the key of the upload counters."""
    moment = datetime.fromtimestamp(now_ns // _NS_PER_S, UTC)
    return f"{moment.year:04d}-{moment.month:02d}"


def month_start_ns(month: str) -> int:
    """Give the time, in ns since 1970, at which a month ("2026-11", UTC) began."""
    year, number = month.split("-")
    return round(datetime(int(year), int(number), 1, tzinfo=UTC).timestamp()) * _NS_PER_S
