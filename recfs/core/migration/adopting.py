"""Whether an object may become a file without being read: whose word is good for its checksum; and where it lies."""

from __future__ import annotations

from typing import NamedTuple

from recfs.errors import InvalidArgument

_SCHEME = "s3://"


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


class Place(NamedTuple):
    """A bucket, and a prefix in it: empty, or with a slash at its end."""

    bucket: str
    prefix: str

    def below(self, other: Place) -> str | None:
        """This prefix relative to that of *other*; None where it does not lie there."""
        if self.bucket != other.bucket or not self.prefix.startswith(other.prefix):
            return None
        return self.prefix[len(other.prefix) :]


def place_of_url(url: str) -> Place:
    """Read `s3://BUCKET[/PREFIX]`. Raises InvalidArgument."""
    bucket, _, prefix = url.removeprefix(_SCHEME).partition("/")
    if not url.startswith(_SCHEME) or not bucket or "//" in f"/{prefix}":
        raise InvalidArgument(f"{url!r} is no place in a bucket; it is written s3://BUCKET/PREFIX")
    return Place(bucket, f"{prefix.rstrip('/')}/" if prefix else "")


__all__ = ["Digests", "Place", "Told", "digests_of", "place_of_url"]
