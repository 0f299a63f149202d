"""[sweep]: when the daemon looks for what is left over, and what it does about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from recfs.config.types import AnyCase, Duration, Section

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def _period(value: float) -> float:
    if 0 < value < HOUR_S:
        raise ValueError('at least "1h"; "0s" looks only when it is asked to')
    return value


Period = Annotated[Duration, AfterValidator(_period), Field(le=366 * DAY_S)]


class SweepSection(Section):
    """[sweep]: a period of 0 leaves a sweep to `recfs sweep run`."""

    orphans_every: Period = Field(
        default=7 * DAY_S,
        description="time between two looks for bytes without a row, and the reverse (seconds); 0: none",
    )
    orphans_mode: Annotated[Literal["report", "adopt", "delete"], AnyCase] = Field(
        default="report", description="what such a look does about them"
    )
    orphans_grace: Duration = Field(
        default=DAY_S, ge=HOUR_S, description="time since the last change of what may be deleted (seconds)"
    )
    multiparts_every: Period = Field(
        default=DAY_S, description="time between two looks for unfinished uploads in the bucket (seconds); 0: none"
    )
    multiparts_age: Duration = Field(
        default=7 * DAY_S, ge=HOUR_S, description="age at which unfinished uploads are aborted (seconds)"
    )
    versions_every: Period = Field(
        default=DAY_S,
        description="time between two looks for superfluous versions (seconds); 0: none",
    )
    catalogue_every: Period = Field(
        default=7 * DAY_S, description="time between two checks of the catalogue (seconds); 0: none"
    )
    tier_every: Period = Field(default=0.0, description="time between two runs of `recfs tier run` (seconds); 0: none")


__all__ = ["SweepSection"]
