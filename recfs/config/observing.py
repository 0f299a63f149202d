"""[events]: what is remembered of what becomes of files."""

from __future__ import annotations

from pydantic import Field

from recfs.config.types import Duration, Section


class EventsSection(Section):
    """[events]"""

    enabled: bool = Field(default=True, strict=True, description="whether `recfs events` has anything to tell")
    keep: Duration = Field(
        default=30 * 86_400.0, ge=60.0, le=10 * 366 * 86_400.0, description="time events are kept (seconds)"
    )
    most: int = Field(
        default=200_000, strict=True, ge=1000, le=50_000_000, description="events kept at most, some 150 bytes each"
    )


__all__ = ["EventsSection"]
