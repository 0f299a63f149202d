"""[metrics]: Prometheus' endpoint."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from recfs.config.types import Section, Text

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})")


def address_of(value: str) -> tuple[str, int]:
    """Give the IP address and the port of "127.0.0.1:9435" or "[::1]:9435". Raises ValueError."""
    found = _ADDRESS.fullmatch(value)
    try:
        if found is None or int(found[3]) > 65535:
            raise ValueError(value)
        return str(ipaddress.ip_address(found[1] or found[2])), int(found[3])
    except ValueError:
        raise ValueError('an IP address and a port, such as "127.0.0.1:9435" or "[::1]:9435"') from None


def _address(value: str) -> str:
    address_of(value)
    return value


class MetricsSection(Section):
    """[metrics]"""

    listen: Annotated[Text, AfterValidator(_address)] | None = Field(
        default=None, description="address and port at which metrics are served; none: nowhere"
    )
    users: int = Field(
        default=1000,
        strict=True,
        ge=0,
        le=100_000,
        description="users told one by one: those near a limit first, then those that use most",
    )


__all__ = ["MetricsSection", "address_of"]
