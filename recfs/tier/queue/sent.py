"""What an upload has begun to send, as its journal row keeps it (`JournalRow.parts`): JSON, or empty before it began.

`sha256` is of the bytes that are sent now, `others` tells that other bytes may have been sent under the same key
before, without an answer. The rest is for uploads in parts.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recfs.ports.objects import PartInfo

if TYPE_CHECKING:
    from collections.abc import Iterable


def record(sha256: bytes | None, *, others: bool, parts: Iterable[PartInfo] = (), in_vain: int = 0) -> str:
    """The text of a row; *in_vain*: how often the upload in parts failed while the server was there."""
    return json.dumps(
        {
            "sha256": (sha256 or b"").hex(),
            "others": others,
            "parts": [asdict(part) for part in parts],
            "in_vain": in_vain,
        }
    )


def begun(text: str, sha256: bytes | None, *, tried: bool) -> str:
    """The text of a row that is about to send these bytes; *tried*: its key was recorded for something before."""
    others = tried and (others_in(text) or sha256_in(text) != sha256)
    return record(sha256, others=others)


def sha256_in(text: str) -> bytes | None:
    """Of the bytes that were sent last; None where nobody knows."""
    return bytes.fromhex(str(_read(text).get("sha256", ""))) or None


def others_in(text: str) -> bool:
    """Whether other bytes than those may have been sent; True where nobody knows."""
    return bool(_read(text).get("others", text == ""))


def in_vain(text: str) -> int:
    """How often the upload in parts failed while the server was there."""
    return int(_read(text).get("in_vain", 0))


def parts(text: str) -> list[PartInfo]:
    """The parts that the server has confirmed."""
    return [PartInfo(**part) for part in _read(text).get("parts", [])]


def _read(text: str) -> dict[str, Any]:
    return dict(json.loads(text)) if text else {}


__all__ = ["begun", "in_vain", "others_in", "parts", "record", "sha256_in"]
