"""Whether an object may become a file without being read: whose word is good for its checksum"""

from __future__ import annotations

from typing import NamedTuple


class Told(NamedTuple):
    """What the server says of an object."""

    sha256: bytes | None
    """From recfs's own metadata …"""
    md5: bytes | None
    stored_sha256: bytes | None
    """… and what the server computed of all of it when it came; None: it has none, or was not asked."""
    etag_md5: bytes | None
    """The MD5 that its etag is; None: the etag is something else."""


class Digests(NamedTuple):
    """What is believed of an object's bytes."""

    sha256: bytes
    md5: bytes


def digests_of(told: Told) -> Digests | str:
    """What may be believed without reading it; or why nothing, in words.

    An MD5 alone proves nothing to recfs, which knows bytes by their sha256, and an etag need not even be one.
    """
    if told.sha256 is not None and told.stored_sha256 is not None and told.sha256 != told.stored_sha256:
        return "the checksum in its metadata is not the one that the server has of it"
    sha256 = told.sha256 if told.sha256 is not None else told.stored_sha256
    md5 = told.md5 if told.sha256 is not None and told.md5 is not None else told.etag_md5
    if sha256 is None:
        return "neither its metadata nor the server has a sha256 of it"
    if md5 is None:
        return "nothing tells its MD5: its etag is none"
    return Digests(sha256, md5)


__all__ = ["Digests", "Told", "digests_of"]
