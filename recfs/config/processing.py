"""[processing_cache]: results of processing, kept by the checksum of what they were made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from recfs.config.types import Duration, Section, Size, Uid
from recfs.core.reuse.processing import Lifetimes, check_kind

DAY_S = 86_400.0
MIB = 1 << 20


def _kinds(value: dict[str, float]) -> dict[str, float]:
    for kind in value:
        check_kind(kind)
    return value


class ProcessingSection(Section):
    """[processing_cache]"""

    enabled: bool = Field(default=True, strict=True, description="whether results of processing are kept")
    max_size: Size = Field(default=1024 * MIB, ge=MIB, description="bytes of all results together, at most")
    max_entry: Size = Field(
        default=8 * MIB, ge=1024, le=64 * MIB, description="bytes of one result as JSON, before it is compressed"
    )
    expiry: Duration = Field(
        default=90 * DAY_S, description="time after which a result is given up (seconds); 0: when there is no room"
    )
    expiry_by_kind: Annotated[dict[str, Duration], AfterValidator(_kinds)] = Field(
        default={}, description="the same of single kinds of results"
    )
    writers: tuple[Uid, ...] = Field(
        default=(), description="users whose results are given to everybody, as root's and the operator's are"
    )
    sweep_interval: Duration = Field(
        default=6 * 3600.0, ge=60.0, le=7 * DAY_S, description="time between two looks for what is over (seconds)"
    )

    def lifetimes(self) -> Lifetimes:
        """Give the times as the core's value."""
        return Lifetimes(self.expiry, self.expiry_by_kind)


__all__ = ["ProcessingSection"]
