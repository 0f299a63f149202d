"""Several byte strings as one, and back: each after its length."""

import struct
from collections.abc import Mapping

_LENGTH = struct.Struct(">I")


def packed(pairs: Mapping[bytes, bytes]) -> bytes:
    """Names and values as one byte string."""
    return b"".join(_LENGTH.pack(len(each)) + each for pair in sorted(pairs.items()) for each in pair)


def unpacked(data: bytes) -> dict[bytes, bytes]:
    """What `packed` made it of. Raises ValueError for anything else."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise ValueError("the last length is cut off")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        if at > len(data):
            raise ValueError("the last of them is cut off")
        found.append(data[at - length : at])
    if len(found) % 2:
        raise ValueError("a name without a value")
    return dict(zip(found[::2], found[1::2], strict=True))
