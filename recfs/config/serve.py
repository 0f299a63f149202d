"""[serve]: the gateway, `recfs serve`, which is a process of its own. The daemon heeds nothing of it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from recfs.config.metrics import address_of
from recfs.config.types import AbsolutePath, Duration, Section, Size, Text

_url = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?", re.ASCII).fullmatch
_field = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII).fullmatch
_DAY_S = 86_400.0


def _listen(value: str) -> str:
    address_of(value)
    return value


def _origin(value: str) -> str:
    if not _url(value):
        raise ValueError('what browsers call it, without a path, such as "https://media.example.org"')
    return value


def _header(value: str) -> str:
    if not _field(value):
        raise ValueError('the name of a header field, such as "X-Forwarded-User"')
    return value


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError:
            raise ValueError(
                f'{value[:60]!r} is no address and no network; write some such as ["127.0.0.1", "10.0.0.0/8"]'
            ) from None
    return values


Timeout = Annotated[Duration, Field(ge=1.0, le=_DAY_S)]
Threads = Annotated[int, Field(strict=True, ge=1, le=256)]


class ServeSection(Section):
    """[serve]"""

    listen: Annotated[Text, AfterValidator(_listen)] = Field(
        default="127.0.0.1:8080", description="address and port at which the gateway listens"
    )
    url: Annotated[Text, AfterValidator(_origin)] | None = Field(
        default=None, description="what browsers call the gateway; none: as they ask for it"
    )
    directory: AbsolutePath = Field(
        default=Path("/var/lib/recfs-serve"), description="where the gateway keeps tokens, sessions and its audit log"
    )
    proxies: Annotated[tuple[Text, ...], AfterValidator(_networks)] = Field(
        default=(), description="addresses and networks of proxies in front that are believed"
    )
    subject_header: Annotated[Text, AfterValidator(_header)] | None = Field(
        default=None, description="header in which these proxies say who has logged in; none: not believed"
    )
    header_timeout: Timeout = Field(default=10.0, description="longest time for a request's header (seconds)")
    body_timeout: Timeout = Field(default=30.0, description="time in which body_rate has to be kept up (seconds)")
    body_rate: Size = Field(default=1024, ge=0, description="bytes per second that a body has to come with")
    send_timeout: Timeout = Field(default=60.0, description="time in which a reader has to take something (seconds)")
    max_connections: int = Field(
        default=512, strict=True, ge=1, le=65_536, description="connections that are served at once"
    )
    max_connections_per_address: int = Field(
        default=64, strict=True, ge=1, le=65_536, description="those of one address that is no proxy"
    )
    requests_per_second: int = Field(default=200, strict=True, ge=1, le=100_000, description="requests of one token")
    requests_burst: int = Field(default=1000, strict=True, ge=1, le=100_000, description="and so many at once")
    uploads_per_user: int = Field(
        default=16, strict=True, ge=1, le=65_536, description="requests at once that bring bytes of one user"
    )
    read_threads: Threads = Field(default=8, description="reads at once of what is here")
    slow_read_threads: Threads = Field(default=16, description="reads at once of what may have to come from S3")


__all__ = ["ServeSection"]
