"""How the tier speaks to S3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

    from recfs.ports.objects import ObjectStore
    from recfs.tier.downloads.fetchslots import FetchSlots
    from recfs.tier.ownership import Ownership


@dataclass(frozen=True, slots=True)
class Link:
    """The object store, and what is asked before it is."""

    objects: ObjectStore
    owner: Ownership
    """Asked before anything in S3 is changed."""
    limiter: trio.CapacityLimiter
    """For threads that read from S3."""
    slots: FetchSlots
    """Who of the readers may ask next."""


__all__ = ["Link"]
