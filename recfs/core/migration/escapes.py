"""Names of any bytes in lines of text: what editors do not show, or readers of lines do not survive, is escaped."""

from __future__ import annotations

import re

from recfs.errors import InvalidArgument

_NAMED = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_BACK = {"\\": b"\\", "t": b"\t", "n": b"\n", "r": b"\r"}
# Control characters, line and paragraph separators, marks that change the direction of text, and lone surrogates
# (bytes that are no UTF-8, PEP 383).
_TO_ESCAPE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(.?))", re.DOTALL)


def escaped(name: bytes) -> str:
    r"""Write *name* so that it is one field of one line: `\\`, `\t`, `\n`, `\r`, and `\xNN` for other bytes.

    A space at either end is `\x20`, since editors drop it. `unescaped` gives the bytes back.
    """
    text = _TO_ESCAPE.sub(_one, name.decode("utf-8", "surrogateescape"))
    inner = text.strip(" ")
    if len(inner) == len(text):
        return text
    if not inner:
        return "\\x20" * len(text)
    begin = text.index(inner)
    return "\\x20" * begin + inner + "\\x20" * (len(text) - begin - len(inner))


def _one(match: re.Match[str]) -> str:
    char = match[0]
    return _NAMED.get(char) or "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def unescaped(text: str) -> bytes:
    """Give the bytes that `escaped` wrote. Raises InvalidArgument for an escape that it does not write."""
    parts: list[bytes] = []
    position = 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[position : match.start()].encode("utf-8", "surrogateescape"))
        if match[1] is not None:
            parts.append(bytes.fromhex(match[1]))
        elif match[2] in _BACK:
            parts.append(_BACK[match[2]])
        else:
            raise InvalidArgument(f"{match[0]!r} is no escape; a backslash itself is written \\\\")
        position = match.end()
    parts.append(text[position:].encode("utf-8", "surrogateescape"))
    return b"".join(parts)


__all__ = ["escaped", "unescaped"]
