"""Lines of JSON in which events and acts are told: one each, whatever a name has in it.

ASCII alone: control characters are escaped (RFC 8259, section 7), so a name never makes two lines of one. Bytes of a
name that are not UTF-8 appear as `\\udc80` to `\\udcff` (as in all JSON of recfs), which not every parser keeps; the
exact bytes are then told once more, in hexadecimal.
"""

import json
import os
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

_NS = 1_000_000_000


def line_of(told: dict[str, Any]) -> str:
    """One line, without its newline."""
    return json.dumps(told, separators=(",", ":"), allow_nan=False)


def named(key: str, name: bytes) -> dict[str, str]:
    """A path under a key, and its bytes in hexadecimal where it is not UTF-8."""
    text = os.fsdecode(name)
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return {key: text, f"{key}_hex": name.hex()}
    return {key: text}


def moment(at_ns: int) -> str:
    """A time in ISO 8601, UTC, to the microsecond."""
    seconds, rest = divmod(at_ns, _NS)
    whole = _whole(seconds)
    return f"{whole}.{rest // 1000:06d}Z" if whole else f"{at_ns} ns"


@lru_cache(maxsize=64)
def _whole(seconds: int) -> str:
    """A whole second; empty where no calendar has it. Kept, since this takes longer than all the rest of a line."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return ""


__all__ = ["line_of", "moment", "named"]
