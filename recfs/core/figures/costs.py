"""What bytes cost a month."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 1 << 30
LOCAL = "local"
"""The name of the local disk among storage classes, which are in capital letters."""


@dataclass(frozen=True, slots=True)
class Prices:
    """A price table."""

    currency: str = ""
    per_gib_month: Mapping[str, float] = field(default_factory=dict)
    """By storage class, and LOCAL."""

    def monthly(self, storage_class: str, size_bytes: int) -> float | None:
        """What so many bytes cost a month at rest; None: the table has no price for that class."""
        price = self.per_gib_month.get(storage_class)
        return None if price is None else price * size_bytes / GIB


__all__ = ["GIB", "LOCAL", "Prices"]
