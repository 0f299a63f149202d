"""[stats]: what is kept for `recfs stats`."""

from __future__ import annotations

from pydantic import Field

from recfs.config.sweeps import DAY_S, Period
from recfs.config.types import Section


class StatsSection(Section):
    """[stats]"""

    survey_every: Period = Field(
        default=DAY_S,
        description="time between two looks through all files of a large store, for `recfs stats` (seconds); 0: none",
    )


__all__ = ["StatsSection"]
