"""What goes with the bytes of a file: type, name, digest, and what a browser may do with them."""

from __future__ import annotations

import base64
import re
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote

from recfs.web.recordings.opening import Opened

INLINE: Final = frozenset({
    "audio/aac", "audio/flac", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/wav", "audio/webm", "audio/x-matroska",
    "image/gif", "image/jpeg", "image/png", "image/webp", "text/vtt",
    "video/3gpp", "video/mp2t", "video/mp4", "video/mpeg", "video/ogg", "video/quicktime", "video/webm",
    "video/x-matroska", "video/x-msvideo", "video/x-ms-wmv", "video/x-flv", "video/x-ms-asf",
})  # fmt: skip
"""Types that a browser shows by itself and that cannot carry a script. All else is saved, SVG and HTML among it."""
_UNKNOWN: Final = "application/octet-stream"
_is_type = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}", re.ASCII).fullmatch
_SANDBOX: Final = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"


def headers_of(opened: Opened, *, attachment: bool = False) -> dict[str, str]:
    """Give the header of an answer about a file, but for Content-Length and ranges."""
    mime = opened.mime if _is_type(opened.mime) else _UNKNOWN
    inline = mime in INLINE and not attachment
    told = {
        "Content-Type": "text/vtt; charset=utf-8" if mime == "text/vtt" else mime,
        "Content-Disposition": disposition(opened.name, inline=inline),
        **validators_of(opened),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": _SANDBOX,
    }
    if opened.sha256 is not None:
        told["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(opened.sha256)).decode('ascii')}:"
    return told


def validators_of(opened: Opened) -> dict[str, str]:
    """Give what an answer of 304 has, too."""
    return {
        "ETag": opened.etag,
        "Last-Modified": format_datetime(opened.changed, usegmt=True),
        # Kept, and asked about each time: who may see it may change.
        "Cache-Control": "private, no-cache",
    }


def disposition(name: str, *, inline: bool) -> str:
    """Give Content-Disposition (RFC 6266), with a name of any characters in the manner of RFC 8187."""
    kind = "inline" if inline else "attachment"
    plain = re.sub(r"[^A-Za-z0-9 ._()\[\]+,=@-]", "_", name)
    if plain == name:
        return f'{kind}; filename="{name}"'
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(shown, safe='')}"


__all__ = ["INLINE", "disposition", "headers_of", "validators_of"]
