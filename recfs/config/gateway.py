"""[gateway]: a second control socket, of reduced rights."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from recfs.config.types import AbsolutePath, Gid, Section
from recfs.core.access.methods import GATEWAY_METHODS, check_offered

_OWNER, _ALL = 0o600, 0o666
_NAME_MAX_BYTES = 240
"""The socket is made under its name with a process id behind it."""


def _mode(value: object) -> str:
    """The mode of a socket in octal digits, as it is written; TOML's 0o660 will do."""
    mode = value
    if isinstance(value, str):
        digits = value.removeprefix("0o")
        mode = int(digits, 8) if digits and len(digits) <= 5 and set(digits) <= set("01234567") else None
    if not isinstance(mode, int) or isinstance(mode, bool):
        raise ValueError('permission bits in octal digits and quotes, such as "0660"')
    if mode & _OWNER != _OWNER or mode & ~_ALL:
        raise ValueError(f'{mode:#o}: "0600", "0660" for a group, or "0666" for every user of the machine')
    return f"{mode:04o}"


def _methods(methods: tuple[str, ...]) -> tuple[str, ...]:
    check_offered(methods)
    return methods


def _socket(path: AbsolutePath) -> AbsolutePath:
    if not path.name or len(path.name.encode("utf-8", "surrogateescape")) > _NAME_MAX_BYTES:
        raise ValueError('the path of a socket, such as "/run/recfs/gateway.sock"')
    return path


class GatewaySection(Section):
    """[gateway]"""

    socket: Annotated[AbsolutePath, AfterValidator(_socket)] | None = Field(
        default=None, description="where a second control socket lies; none: there is none"
    )
    group: Gid | None = Field(default=None, description="group that it belongs to; none: the daemon's")
    mode: Annotated[str, BeforeValidator(_mode)] = Field(
        default="0660", description="permission bits: who may write to it may ask"
    )
    methods: Annotated[tuple[str, ...], AfterValidator(_methods)] = Field(
        default=GATEWAY_METHODS, description="control methods that are answered there"
    )
    max_connections: int = Field(
        default=16,
        strict=True,
        ge=1,
        le=1024,
        description="connections that are served at once; of users who have fewer than two, up to twice as many",
    )


__all__ = ["GatewaySection"]
