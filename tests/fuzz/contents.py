"""The bytes of files that all clients write: those of their offset, or zero."""

from __future__ import annotations

SIZE = 1 << 18
_BYTES = b"".join(bytes([block % 255 + 1]) * 512 for block in range(2 * SIZE // 512))


def expected(offset: int, size: int) -> bytes:
    """What may lie there, if anything does."""
    return _BYTES[offset : offset + size]


def is_foreign(data: bytes, offset: int) -> bool:
    """Whether there are bytes in *data* that are neither those of their offset nor zero."""
    wanted = expected(offset, len(data))
    if data == wanted or not data.strip(b"\0"):
        return False
    place = 0
    while place < len(data):
        end = min(len(data), place + 512 - (offset + place) % 512)
        if data[place:end].translate(None, b"\0" + wanted[place : place + 1]):
            return True
        place = end
    return False
