"""What a reverse proxy in front says of a request: where it came from, by which scheme, and who sent it.

It is believed if the connection comes from an address of the configuration, and from nobody else: everybody can send
such headers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MOST_HOPS: Final = 32


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a request came from."""

    address: str
    """Of the client; empty where the connection has none."""
    trusted: bool
    """Whether the connection is a trusted proxy's."""
    scheme: str
    """http or https, as the client sees it."""
    host: str
    """The host (and port) that the client asked for; empty where it did not say."""


class Proxies:
    """The proxies that are trusted."""

    def __init__(self, trusted: Iterable[_Network] = (), subject_header: str = "") -> None:
        """*subject_header*: by which they name whoever has logged in; empty: nobody is let in by that."""
        self._networks = tuple(trusted)
        self._subject = subject_header.lower().encode("latin-1")

    def peer(self, scope: Any) -> Peer:
        """Where a request (an ASGI scope) came from."""
        direct = _direct(scope)
        trusted = self._trusts(direct)
        scheme, host = str(scope.get("scheme") or "http"), _one(scope, b"host") or ""
        if not trusted:
            return Peer(direct, False, scheme, host)
        forwarded = (_one(scope, b"x-forwarded-proto") or "").lower()
        if forwarded in ("http", "https"):
            scheme = forwarded
        return Peer(self._client(scope, direct), True, scheme, _one(scope, b"x-forwarded-host") or host)

    def subject(self, scope: Any) -> str | None:
        """Whom a trusted proxy names as the sender; None: nobody, or not by one that is trusted, or more than one."""
        if not self._subject or not self._trusts(_direct(scope)):
            return None
        return _one(scope, self._subject) or None

    def _trusts(self, address: str) -> bool:
        found = _parsed(address)
        return found is not None and any(found in each for each in self._networks)

    def _client(self, scope: Any, direct: str) -> str:
        """The last address of X-Forwarded-For that no trusted proxy has: what stands left of it anybody could write."""
        lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        found = direct
        for each in list(reversed(",".join(lines).split(",")))[:_MOST_HOPS]:
            address = _parsed(each.strip())
            if address is None:
                break
            found = str(address)
            if not self._trusts(found):
                break
        return found


def _direct(scope: Any) -> str:
    client = scope.get("client")
    return str(client[0]) if client and client[0] else ""


def _parsed(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _one(scope: Any, name: bytes) -> str | None:
    """The value of a header that is there once; None where it is missing, there twice, or no text."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) != 1:
        return None
    try:
        text: str = found[0].decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    return text


__all__ = ["Peer", "Proxies"]
