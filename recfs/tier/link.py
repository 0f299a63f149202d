"""How the tier speaks to S3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.stores.breaker import BreakerState
from recfs.stores.wrap import RetryingObjectStore

if TYPE_CHECKING:
    import trio

    from recfs.ports.objects import ObjectStore
    from recfs.stores.breaker import CircuitBreaker
    from recfs.tier.downloads.fetchslots import FetchSlots
    from recfs.tier.ownership import Ownership


@dataclass(frozen=True, slots=True)
class Link:
    """The object store, and what is asked before it is."""

    objects: ObjectStore
    ownership: Ownership
    """Asked before anything in S3 is changed."""
    limiter: trio.CapacityLimiter
    """For threads that read from S3."""
    slots: FetchSlots
    """Who of the readers may ask next."""

    @property
    def breaker(self) -> CircuitBreaker | None:
        """The circuit breaker before the object store; None where there is none."""
        return self.objects.breaker if isinstance(self.objects, RetryingObjectStore) else None

    @property
    def is_down(self) -> bool:
        """Whether S3 is known to be down."""
        return self.breaker is not None and self.breaker.state is not BreakerState.CLOSED

    @property
    def trouble(self) -> Exception | None:
        """What S3 said last, if it is in trouble."""
        return self.breaker.trouble if self.breaker is not None else None


__all__ = ["Link"]
