"""Places in buckets: what `s3://BUCKET/PREFIX` means."""

from __future__ import annotations

from typing import NamedTuple

from recfs.errors import InvalidArgument

_SCHEME = "s3://"


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


__all__ = ["Place", "place_of_url"]
