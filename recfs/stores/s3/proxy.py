"""Which proxy stands between recfs and S3, by the environment: one answer for boto3's requests and for recfs's own.

botocore alone sends no credentials without a password, fails on those that are not ASCII, and knows neither ALL_PROXY
nor networks in no_proxy; so it is told what is found here. The variables are those of curl(1), read as
urllib.request.getproxies does: lower case goes before upper case.
"""

from __future__ import annotations

import base64
import ipaddress
import urllib.request
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit


class Proxy(NamedTuple):
    """A proxy, and what it is told of who asks."""

    url: str
    """With a scheme, without credentials: it may stand in messages."""
    headers: dict[str, str]


def proxy_for(endpoint: str) -> Proxy | None:
    """The proxy that http_proxy, https_proxy or all_proxy name for *endpoint*; None: straight, or no_proxy says so."""
    found = urllib.request.getproxies()
    chosen = (found.get(urlsplit(endpoint).scheme) or found.get("all") or "").strip()
    if not chosen or _is_direct(endpoint, found.get("no", "")):
        return None
    scheme, separator, rest = chosen.rpartition("//")
    scheme = scheme if separator and scheme else "http:"  # as curl(1) takes it
    credentials, at, place = rest.rpartition("@")
    headers = {}
    if at and credentials:
        user, _, password = credentials.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
    return Proxy(f"{scheme}//{place}", headers)


def _is_direct(endpoint: str, no_proxy: str) -> bool:
    """Whether *no_proxy* names this host: a name, a suffix, either with a port, an address, a network, or `*`."""
    parts = urlsplit(endpoint)
    entries = [entry.strip() for entry in no_proxy.split(",")]
    names = ",".join(entry.removeprefix("*.") for entry in entries)
    if "*" in entries or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2], {"no": names}):
        return True
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return False
    return any(address in network for entry in entries if (network := _network(entry)) is not None)


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def give_to(client: Any, proxy: Proxy | None) -> None:
    """Have boto3's *client*, made for this proxy, send the proxy's headers."""
    if proxy is not None:
        client._endpoint.http_session._proxy_config.proxy_headers_for = lambda _url: dict(proxy.headers)


__all__ = ["Proxy", "give_to", "proxy_for"]
