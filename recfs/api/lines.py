"""The lines that requests of the control protocol come in, and what they may be before anything is made of them.

Whoever may ask on the second socket may send anything. Most methods need a path and some words, so that their lines are
short and have few values: what has more is refused by its bytes, without being parsed. The results of `cache_put` alone
are larger; such a line names its method first.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from recfs.core.json_bounds import MAX_LEVELS, exceeds, has_more_values, is_deeper

if TYPE_CHECKING:
    import trio

MAX_LINE_BYTES: Final = 1 << 20
"""Longest request; the largest real one is a path of 4 KiB."""
LARGE: Final = frozenset({"cache_put"})
"""Methods that need so much, or so many values, …"""
CONTENTS: Final = frozenset({"result", "packed"})
"""… for these parameters."""
_LEVELS: Final = MAX_LEVELS + 3
"""Those of a request around a result that is as deep as it may be, and one to spare."""
_READ_BYTES: Final = 1 << 16
_FIRST: Final = re.compile(rb'\s*\{\s*"method"\s*:\s*"([a-z0-9_]{1,64})"')
_HEAD_BYTES: Final = 256
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class Bounds(NamedTuple):
    """What a line may be."""

    line_bytes: int = MAX_LINE_BYTES
    values: int | None = None
    """None: as many as there is room for."""


OWN: Final = Bounds()
"""On the store's own socket: root and the daemon's user could do worse."""
OTHERS: Final = Bounds(1 << 18, 5_000)
OTHERS_LARGE: Final = Bounds(MAX_LINE_BYTES, 200_000)


class LineTooLong(Exception):
    """A request beyond its bound."""

    def __init__(self, most: int) -> None:
        super().__init__(f"a request may have {most} bytes at most")


Request = tuple[str, dict[str, Any]]
"""Method and parameters."""


def is_large(line: bytes | bytearray) -> bool:
    """Whether a line says first that it is a request that may be large."""
    found = _FIRST.match(bytes(line[:_HEAD_BYTES]))
    return found is not None and found[1].decode() in LARGE


class LineReader:
    """Splits a stream into lines, holding never more than one line and one read."""

    def __init__(self, stream: trio.SocketStream, *, has_bounds: bool) -> None:
        """*has_bounds*: those of others' requests, see `bounds_of`."""
        self._stream = stream
        self._has_bounds = has_bounds
        self._buffer = bytearray()

    async def next_line(self) -> bytes | None:
        """Return the next line without its newline; None at the end. Raises LineTooLong."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            self._require(searched)
            chunk = await self._stream.receive_some(_READ_BYTES)
            if not chunk:
                return None
            self._buffer += chunk
        self._require(end)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _require(self, size: int) -> None:
        most = bounds_of(self._buffer, has_bounds=self._has_bounds).line_bytes
        if size > most:
            raise LineTooLong(most)


def bounds_of(line: bytes | bytearray, *, has_bounds: bool) -> Bounds:
    """What holds for a line that begins so."""
    if not has_bounds:
        return OWN
    return OTHERS_LARGE if is_large(line) else OTHERS


def parsed(line: bytes, bounds: Bounds = OWN) -> Request | str:
    """What a line asks for, or what is wrong with it."""
    if bounds.values is not None and has_more_values(line, bounds.values):
        return f"a request may have {bounds.values} values at most"
    request: Any = None
    try:
        request = json.loads(line)
        is_too_deep = is_deeper(request, line, _LEVELS)
    except ValueError as exc:
        return f"a request is one line of JSON: {exc}"
    except RecursionError:
        is_too_deep = True
    if is_too_deep:
        return f"a request may have {_LEVELS} lists and tables inside each other at most"
    method = request.get("method") if isinstance(request, dict) else None
    params = request.get("params", {}) if isinstance(request, dict) else None
    if not isinstance(method, str) or not isinstance(params, dict):
        return 'a request looks like {"method": "status", "params": {}}'
    if bounds is OTHERS_LARGE and not _is_as_it_says(method, params):
        return f"a request may have {OTHERS.values} values at most besides a result, and names its method once"
    if (_SURROGATE.search(line) or not _is_utf8(line)) and not _is_text(request):
        return "a request has text, and names as os.fsdecode of Python makes them; no other surrogates"
    return method, params


def _is_as_it_says(method: str, params: dict[str, Any]) -> bool:
    """Whether a line that was let through for its results has no more than others have in anything else."""
    others = {name: value for name, value in params.items() if name not in CONTENTS}
    return method in LARGE and not exceeds(others, _LEVELS, OTHERS.values or 0)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_text(request: object) -> bool:
    try:
        os.fsencode(json.dumps(request, ensure_ascii=False))
    except ValueError:
        return False
    return True


__all__ = [
    "CONTENTS", "LARGE", "MAX_LINE_BYTES", "OTHERS", "OTHERS_LARGE", "Bounds", "LineReader", "LineTooLong", "Request",
    "bounds_of", "is_large", "parsed",
]  # fmt: skip
