"""Header fields of uploads: those of tus 1.0, digests (RFC 9530), preconditions. Nothing in them is believed."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers

from recfs.web.problems import Problem
from recfs.web.uploads.body import Checksum
from recfs.web.uploads.plan import ANYTHING, MAX_BYTES, NOTHING

_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,128}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_DIGEST: Final = re.compile(r"(?:^|,)[ \t]*sha-256=:([A-Za-z0-9+/=]*):[ \t]*(?=,|$)", re.ASCII)
_TAG: Final = re.compile(r'"([0-9a-f]{64})"', re.ASCII)
MOST_METADATA: Final = 4096
"""Bytes of Upload-Metadata."""


def number(fields: Mapping[str, str], name: str) -> int | None:
    """Give a field that is a number of bytes; None where it is not there. Raises Problem."""
    text = fields.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > MAX_BYTES:
        raise Problem("BadRequest", f"{name} is a number of bytes")
    return int(text)


def needed(fields: Mapping[str, str], name: str) -> int:
    """`number`, of one that has to be there."""
    found = number(fields, name)
    if found is None:
        raise Problem("BadRequest", f"{name} is missing")
    return found


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def metadata_of(text: str | None) -> dict[str, str]:
    """Give the pairs of Upload-Metadata: keys, each with a space and a value in Base64, or without. Raises Problem."""
    if not text:
        return {}
    if len(text) > MOST_METADATA:
        raise Problem("BadRequest", f"Upload-Metadata has {MOST_METADATA} bytes at most")
    found: dict[str, str] = {}
    for pair in text.split(","):
        key, _, value = pair.strip(" ").partition(" ")
        raw = _decoded(value)
        if not _KEY.fullmatch(key) or key in found or raw is None:
            raise Problem("BadRequest", "Upload-Metadata is keys, each once, with values in Base64")
        try:
            found[key] = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Problem("BadRequest", f"Upload-Metadata: {key[:40]} is no UTF-8") from None
    return found


def checksum_of(text: str | None) -> Checksum | None:
    """Give what Upload-Checksum says of the body. Raises Problem."""
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    raw = _decoded(value)
    if raw is None:
        raise Problem("BadRequest", "Upload-Checksum is an algorithm and a digest in Base64")
    try:
        return Checksum(algorithm, raw)
    except ValueError as error:
        raise Problem("BadRequest", f"Upload-Checksum: {error}") from None


def hex_of(text: str | None) -> str | None:
    """Give a sha256 in hex, in small letters. Raises Problem."""
    if text is None or text == "":
        return None
    if not _SHA256.fullmatch(text):
        raise Problem("BadRequest", "a sha256 has 64 hex digits")
    return text.lower()


def digest_of(fields: Mapping[str, str]) -> str | None:
    """Give the sha-256 that Repr-Digest or Content-Digest says (RFC 9530), in hex; None for others. Raises Problem."""
    for name in ("Repr-Digest", "Content-Digest"):
        text = fields.get(name)
        if text is None or "sha-256=" not in text:
            continue
        match = _DIGEST.search(text)
        raw = _decoded(match[1]) if match else None
        if raw is None or len(raw) != 32:
            raise Problem("BadRequest", f"{name}: a sha-256 is 32 bytes in Base64, between colons")
        return raw.hex()
    return None


def digest_field(sha256: str) -> str:
    """Give a Repr-Digest."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode('ascii')}:"


def replaces_of(fields: Headers) -> str:
    """Give what a PUT may replace: nothing, unless If-Match says what. Raises Problem."""
    text = fields.get("If-Match")
    if text is not None and len(fields.getlist("If-Match")) > 1:
        raise Problem("BadRequest", "If-Match has one ETag: that of the file that is to be replaced")
    if fields.get("If-None-Match") is not None:
        if fields["If-None-Match"].strip() != "*" or text is not None:
            raise Problem("BadRequest", "a PUT has If-None-Match: *, or If-Match, or neither")
        return NOTHING
    if text is None:
        return NOTHING
    if text.strip() == "*":
        return ANYTHING
    tag = _TAG.fullmatch(text.strip())
    if tag is None:  # one that no file has
        raise Problem("PreconditionFailed", "If-Match is * or the ETag of the file that is to be replaced")
    return tag[1]


__all__ = [
    "MOST_METADATA",
    "checksum_of",
    "digest_field",
    "digest_of",
    "hex_of",
    "metadata_of",
    "needed",
    "number",
    "replaces_of",
]
