"""Dates in answers. botocore reads them with dateutil, in 0.2 ms: most of what an object costs in a list of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from botocore.utils import parse_timestamp


def moment(value: Any) -> datetime:
    """What botocore makes of *value*: ISO 8601 with a zone, as lists have it, without its help. Raises ValueError."""
    if isinstance(value, str) and "T" in value:
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            if found.tzinfo is not None:
                return found
    known: datetime = parse_timestamp(value)
    return known


__all__ = ["moment"]
