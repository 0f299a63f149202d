"""What a request's header may be, beyond what the parser sees to: RFC 9112 (framing), RFC 9110 (Host, Upgrade).

The parser takes some of what the RFCs have refused, and for a request that asks for another protocol it says that there
is no body, whatever follows: those bytes would be lost, or be taken for the next request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from recfs.web.problems import Problem

MOST_FIELDS: Final = 128
"""So many fields a header may have: each takes far more memory here than it does on the wire."""


def refusal(version: str, fields: Sequence[tuple[bytes, bytes]], *, upgrade: bool) -> Problem | None:
    """Tell why a request of such a header is not taken; None where it is.

    *fields* have their names in lower case. *upgrade*: the parser takes it for one that asks for another protocol.
    """
    hosts = codings = 0
    has_body = False
    for name, value in fields:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            codings += 1
            if version == "1.0":
                return Problem("BadRequest", "Transfer-Encoding is not of HTTP/1.0")
            if codings > 1 or value.strip().lower() != b"chunked":
                return Problem("NotImplemented", "Transfer-Encoding: chunked alone is understood")
            has_body = True
        elif name == b"content-length":
            has_body = has_body or value.strip(b" \t0") != b""
    if hosts > 1 or (hosts == 0 and version != "1.0"):
        return Problem("BadRequest", "Host has to be there once")
    if upgrade and has_body:
        return Problem("NotImplemented", "no other protocol is spoken here: send the body without Upgrade")
    return None


__all__ = ["MOST_FIELDS", "refusal"]
