"""Whether the server looks at the bytes: checksums, signed bytes, MD5."""

from __future__ import annotations

import hashlib

from recfs.ports.object_errors import ChecksumMismatch, ObjectStoreError, RequestRefused, StoreOutage, WrongCredentials
from recfs.stores.s3.body import FileBody
from recfs.stores.s3.features.model import OFFERED, Feature, Seen, absent, wrong
from recfs.stores.s3.features.room import OutOfTime, Room, bytes_in_memory, crc32c_in_base64
from recfs.stores.s3.meta import b64

_DATA, OTHER = b"bytes as they were sent\n", b"bytes as they might arrive\n"
"""What is sent, and what is announced."""
_SHA256 = hashlib.sha256(OTHER).digest()
_REFUSALS = (ChecksumMismatch, RequestRefused, WrongCredentials)


def _checksum_kept(room: Room, at: str) -> Seen:
    for field, value in (
        ("ChecksumCRC32C", crc32c_in_base64(_DATA)),
        ("ChecksumSHA256", b64(hashlib.sha256(_DATA).digest())),
    ):
        told = room.put(f"{at}{field}", _DATA, **{field: value}).get(field)
        if told is None:
            return absent(f"{field} is ignored")
        if told != value:
            return wrong(f"another {field} comes back")
    return OFFERED


def _refused(room: Room, key: str, **parameters: str) -> Seen | None:
    """What is seen when it refuses bytes that are not what was announced; None where it takes them."""
    try:
        room.put(key, _DATA, **parameters)
    except _REFUSALS:
        return OFFERED if room.get(key) is None else wrong("it refuses the bytes, and keeps them")
    return None


def _wrong_checksum(room: Room, at: str) -> Seen:
    for field, value in (("ChecksumCRC32C", crc32c_in_base64(OTHER)), ("ChecksumSHA256", b64(_SHA256))):
        seen = _refused(room, f"{at}{field}", **{field: value})
        if seen is None:
            return absent(f"bytes that do not fit their {field} are taken")
        if seen is not OFFERED:
            return seen
    return OFFERED


def _wrong_md5(room: Room, at: str) -> Seen:
    md5 = b64(hashlib.md5(OTHER, usedforsecurity=False).digest())
    return _refused(room, f"{at}md5", ContentMD5=md5) or absent("bytes that do not fit their Content-MD5 are taken")


def _signed(room: Room, at: str) -> Seen:
    key = room.will_make(f"{at}signed")
    with bytes_in_memory(_DATA) as fd:
        try:
            room.client.send(FileBody(fd, 0, len(_DATA)), key, _SHA256)
        except (StoreOutage, OutOfTime):
            raise
        except ObjectStoreError:
            return OFFERED
    return absent("bytes that do not fit the signature are taken")


def _etag(room: Room, at: str) -> Seen:
    etag = room.put(f"{at}etag", _DATA).get("ETag", "").strip('"')
    wanted = hashlib.md5(_DATA, usedforsecurity=False).hexdigest()
    return OFFERED if etag == wanted else absent("the etag of an object is something else")


WATCHES = frozenset({"wrong checksum refused", "wrong signed bytes refused", "wrong Content-MD5 refused"})
"""Where a server does none of these, nothing but the etag says what has arrived."""

FEATURES = (
    Feature(
        "checksum kept",
        _checksum_kept,
        "uploads are confirmed by the signature, or MD5, instead",
        'nothing with [s3] checksums = "auto"',
    ),
    Feature(
        "wrong checksum refused",
        _wrong_checksum,
        "bytes that change on the way are noticed by the signature, or MD5, alone",
        'use https, or [s3] payload_signing = "on"',
    ),
    Feature(
        "wrong signed bytes refused",
        _signed,
        "bytes that change on the way are noticed by their checksum, or MD5, alone",
        "use https where the network is not your own",
    ),
    Feature(
        "wrong Content-MD5 refused",
        _wrong_md5,
        "bytes that change on the way are noticed by their checksum, or the signature, alone",
        'leave [s3] checksums at "auto"',
    ),
    Feature(
        "etag is the MD5",
        _etag,
        "uploads are not compared with their MD5 in addition",
        "nothing",
    ),
)
