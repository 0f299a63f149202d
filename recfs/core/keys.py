"""The keys of objects: a file's path is its key, as far as servers take it."""

from __future__ import annotations

import re

# Object keys are UTF-8, and servers change or refuse some of it: a backslash becomes a slash, control characters and
# U+FFFE and U+FFFF have no place in XML. Such bytes, and those of a name that are no UTF-8, become U+F701..U+F7FF of
# the private use area, one each; so do the bytes of these very characters, should a name contain them, and thus no two
# paths ever share a key.
_ESCAPE_BASE = 0xF700
_UNSAFE = frozenset({*range(1, 0x20), ord("\\"), 0x7F})
_ESCAPES = frozenset(_ESCAPE_BASE + byte for byte in (*_UNSAFE, *range(0x80, 0x100)))
_ESCAPED = _ESCAPES | {0xFFFE, 0xFFFF}
_PLAIN = re.compile(r"[ -\[\]-~]*")


def key_for(path: bytes) -> str:
    """Object key of a mount path. Any bytes but NUL; reversible by `path_for`."""
    text = path.decode("utf-8", "surrogateescape")
    if _PLAIN.fullmatch(text):
        return text
    out: list[str] = []
    for char in text:
        code = ord(char)
        if code in _UNSAFE:
            out.append(chr(_ESCAPE_BASE + code))
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(chr(_ESCAPE_BASE + code - 0xDC00))
        elif code in _ESCAPED:
            out.extend(chr(_ESCAPE_BASE + byte) for byte in char.encode())
        else:
            out.append(char)
    return "".join(out)


def path_for(key: str) -> bytes:
    """Mount path of an object key that `key_for` made."""
    if key.isascii():
        return key.encode()
    return b"".join(bytes([ord(c) - _ESCAPE_BASE]) if ord(c) in _ESCAPES else c.encode() for c in key)
