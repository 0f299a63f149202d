"""[prices]: what storage costs, for `recfs stats`."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, Field

from recfs.config.types import Section
from recfs.core.figures.costs import LOCAL, Prices
from recfs.core.routing import check_storage_class


def _per_class(value: dict[str, float]) -> dict[str, float]:
    for name, price in value.items():
        if name != LOCAL:
            check_storage_class(name)
        if not (math.isfinite(price) and price >= 0):
            raise ValueError(f"{name} = {price}: a price is a number of at least 0")
    return value


class PricesSection(Section):
    """[prices]"""

    currency: str = Field(default="", strict=True, max_length=16, description="what the prices are in, as it is shown")
    per_gib_month: Annotated[dict[str, float], AfterValidator(_per_class)] = Field(
        default={}, description='price of a GiB for a month by storage class, and of the local disk ("local")'
    )

    def table(self) -> Prices:
        """Give the prices as the core's value."""
        return Prices(self.currency, self.per_gib_month)


__all__ = ["PricesSection"]
