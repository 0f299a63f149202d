"""`Settings`: what `recfs serve` is told, as one frozen value. recfs.conf's [serve] and the command line make it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one gateway. Durations are seconds."""

    root: Path
    """The mount, or a plain directory with the same tree."""
    directory: Path
    """Where the gateway keeps what is its own: tokens, keys, its audit log. 0700, of its user."""
    socket: Path | None = None
    """The daemon's control socket; None: nothing can be asked of a daemon."""
    mounted: bool = True
    """Whether `root` has to be a mount: what is below it when it is away is never served."""
    host: str = "127.0.0.1"
    port: int = 8080
    url: str | None = None
    """What browsers know the gateway as ("https://media.example.org"); None: as they ask for it."""
    proxies: tuple[Network, ...] = ()
    """Addresses of proxies in front, whose X-Forwarded-For and X-Forwarded-Proto count."""
    subject_header: str = ""
    """The field in which these proxies say who has logged in; "": they are believed in nothing of that."""
    requests_per_s: float = 200.0
    """Of one token, on average: a fast upload in pieces of 5 MiB makes a hundred …"""
    requests_burst: int = 1000
    """… and so many at once."""
    uploads_per_user: int = 16
    """Uploads of one user that may be under way at once."""
    streams_per_token: int = 16
    """Listeners to events."""
    header_timeout_s: float = 10.0
    """For a request's header, from its first byte (of the first request: from the connection) to its last."""
    body_timeout_s: float = 30.0
    """In such a time `body_rate` has to be kept up by whoever sends a body."""
    body_rate: int = 1024
    """Bytes per second."""
    send_timeout_s: float = 60.0
    """In such a time whoever is sent something has to take some of it."""
    linger_s: float = 30.0
    """So long a body is dropped that goes on behind its answer; then the connection ends."""
    temp_max_age_s: float = 86_400.0
    """The mount's [temp].max_age: an upload that nobody goes on with is removed then."""
    max_connections: int = 512
    max_connections_per_address: int = 64
    """Proxies in front are not counted."""
    reads: int = 8
    """Threads that read bytes which are here."""
    slow_reads: int = 16
    """Threads that read what may have to come from S3, or from a disk that does not answer."""
    calls: int = 8
    """Threads for short calls: looking up, attributes."""
    wholes: int = 6
    """Threads for lists, and for the removal of whole recordings."""
    waits: int = 16
    """Threads for calls that wait for the daemon: checksums of files that are being sealed, its control socket."""
    writes: int = 8
    """Threads that write."""


__all__ = ["Network", "Settings"]
