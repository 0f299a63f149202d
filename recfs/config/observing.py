"""[events], [audit] and [notify]: what is told of what happens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from recfs.config.types import AbsolutePath, Duration, Section, Size, Text
from recfs.core.observing.kinds import KINDS

DAY_S = 86_400.0


class EventsSection(Section):
    """[events]"""

    enabled: bool = Field(default=True, strict=True, description="whether `recfs events` has anything to tell")
    keep: Duration = Field(default=30 * DAY_S, ge=60.0, le=3660 * DAY_S, description="time events are kept (seconds)")
    most: int = Field(
        default=200_000, strict=True, ge=1000, le=50_000_000, description="events kept at most, some 150 bytes each"
    )


class AuditSection(Section):
    """[audit]"""

    enabled: bool = Field(default=False, strict=True, description="whether who did what is written down")
    reads: bool = Field(default=False, strict=True, description="whether opening a file for reading is, too")
    directory: AbsolutePath | None = Field(
        default=None, description="where the audit log lies; none: .recfs/audit in the store"
    )
    journal: bool = Field(default=False, strict=True, description="whether it goes to systemd's journal as well")
    journal_socket: AbsolutePath = Field(
        default=Path("/run/systemd/journal/socket"), description="the socket of that journal"
    )
    file_size: Size = Field(default=64 << 20, ge=64 << 10, description="bytes at which another file is begun")
    rotate: Duration = Field(default=DAY_S, ge=60.0, description="age at which another file is begun (seconds)")
    keep: Duration = Field(default=90 * DAY_S, ge=60.0, description="time files are kept (seconds)")
    most: Size = Field(default=2 << 30, ge=1 << 20, description="bytes of all files that are kept")


def _kinds(values: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [value for value in values if value not in KINDS]
    if unknown or not values:
        what = f"{unknown[0]!r} is" if unknown else "an empty list has"
        raise ValueError(f"{what} no kind of events; there are {', '.join(sorted(KINDS))}")
    return values


class NotifySection(Section):
    """[notify]"""

    command: Text | None = Field(default=None, description="what is run for events, by sh(1); none: nothing")
    events: Annotated[tuple[str, ...], AfterValidator(_kinds)] = Field(
        default=("corrupt", "quota_reached"), description="the kinds of events that it is run for"
    )
    timeout: Duration = Field(default=30.0, ge=1.0, le=3600.0, description="longest run before it is killed (seconds)")
    per_minute: int = Field(default=60, strict=True, ge=1, le=6000, description="runs a minute, at most")
    most_events: int = Field(default=1, strict=True, ge=1, le=1000, description="events given to one run, at most")


__all__ = ["AuditSection", "EventsSection", "NotifySection"]
