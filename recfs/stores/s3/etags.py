"""What the etags and checksums that S3 names say."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from recfs.stores.s3.meta import plain_md5

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.ports.objects import ObjectInfo, ObjectMeta, PartInfo


_MULTIPART_ETAG = re.compile(r"([0-9a-f]{32})-(\d+)")


def multipart_etag(etag: str) -> tuple[str, int] | None:
    """(MD5 of the parts' MD5s in hex, number of parts) of an etag of this form."""
    found = _MULTIPART_ETAG.fullmatch(etag)
    return (found[1], int(found[2])) if found else None


def algorithm_of_parts(parts: Sequence[PartInfo]) -> str | None:
    """The checksum that these parts were sent with, by its length in base64."""
    lengths = {8: "CRC32C", 44: "SHA256"}
    return next((lengths.get(len(part.checksum)) for part in parts if part.checksum), None)


def etag_of_parts(parts: Sequence[PartInfo]) -> str | None:
    """The etag S3 gives an object of these parts (MD5 of their MD5s, dash, count); None if theirs are no MD5s."""
    digests = [plain_md5(part.etag) for part in parts]
    joined = b"".join(digest for digest in digests if digest is not None)
    if len(joined) != 16 * len(parts):
        return None
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"


def is_same_object(info: ObjectInfo, wanted_etag: str | None, meta: ObjectMeta) -> bool:
    if wanted_etag is not None and multipart_etag(info.etag):
        return info.etag == wanted_etag
    return meta.sha256 is not None and info.sha256 == meta.sha256


def is_kms(answer: dict[str, Any]) -> bool:
    """Whether the object is encrypted in a way that makes its etag something else than an MD5."""
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
