"""[stats]: what is kept for `recfs stats`."""

from __future__ import annotations

from pydantic import Field

from recfs.config.sweeps import DAY_S, Period
from recfs.config.types import Duration, Section


class StatsSection(Section):
    """[stats]"""

    survey_every: Period = Field(
        default=DAY_S,
        description="time between two looks through all files of a large store, for `recfs stats` (seconds); 0: none",
    )
    keep: Duration = Field(
        default=400 * DAY_S, ge=DAY_S, le=3660 * DAY_S, description="how long figures of days are kept (seconds)"
    )


__all__ = ["StatsSection"]
