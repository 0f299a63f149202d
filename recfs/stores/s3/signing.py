"""Signature Version 4 of one request: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"
_TERMINATOR = "aws4_request"


class Credentials(Protocol):
    """As botocore freezes them."""

    access_key: str
    secret_key: str
    token: str | None


class _Key(NamedTuple):
    secret: str
    day: str
    key: bytes


class Signer:
    """Signs requests to S3 in one region. Thread-safe: the day's key is one assignment."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._last = _Key("", "", b"")

    def _key(self, secret: str, day: str) -> bytes:
        last = self._last
        if last.secret != secret or last.day != day:
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, "s3", _TERMINATOR):
                key = hmac.digest(key, part.encode(), "sha256")
            self._last = last = _Key(secret, day, key)
        return last.key

    def sign(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: dict[str, str],
        payload: str,
        credentials: Credentials,
        now: datetime | None = None,
    ) -> str:
        """Add what S3 wants to *headers* (lower-case names, `host` among them); returns the query string.

        *path* is percent-encoded as it will be sent. *payload*: SHA-256 of the body in hex, or `UNSIGNED`.
        """
        stamp = f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        headers["x-amz-date"] = stamp
        headers["x-amz-content-sha256"] = payload
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        names = sorted(headers)
        signed = ";".join(names)
        sent_query = "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))
        lines = [f"{name}:{' '.join(headers[name].split())}" for name in names]
        canonical = "\n".join([method, path, sent_query, *lines, "", signed, payload])
        scope = f"{stamp[:8]}/{self._region}/s3/{_TERMINATOR}"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key(credentials.secret_key, stamp[:8]), text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, "
            f"Signature={signature}"
        )
        return sent_query
