"""Whether a recording ends where it says that it does: what its writer left behind who died, or a copy that broke off.

ffprobe reads the beginning of a file, and takes its word for the rest. Containers say how long they are, in a few bytes
that are looked at here; every step is bounded, whatever they say. Sources: ISO/IEC 14496-12 (boxes), the RIFF and AVI
specifications of Microsoft, RFC 8794 and 9559 (EBML, Matroska), RFC 3533 (Ogg), RFC 9639 (FLAC), the Xing header as
LAME writes it, ISO/IEC 13818-1 (transport streams).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Read = Callable[[int, int], bytes]
"""Bytes at an offset, up to so many; fewer only at the end."""

MOST_BOXES: Final = 200_000
"""Boxes and chunks that are gone through; what comes after is not looked at."""
_TAIL: Final = 1 << 17
_OGG_LONGEST: Final = 27 + 255 + 255 * 255


def cut_off(read: Read, size: int) -> str | None:
    """Why a file of *size* bytes is not all that it says to be; None: nothing speaks against it."""
    if not size:
        return "it is empty"
    start = read(0, 16)
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof"):
        return _boxes(read, size)
    if start[:4] == b"RIFF":
        return _riff(read, size, is_avi=start[8:12] == b"AVI ")
    if start[:4] == b"FORM":
        return _ends(8 + int.from_bytes(start[4:8], "big"), size)
    if start[:4] == b"\x1a\x45\xdf\xa3":
        return _ebml(read, size)
    if start[:4] == b"OggS":
        return _ogg(read, size)
    if start[:4] == b"fLaC":
        return _flac(read, size)
    if start[:3] == b"ID3" or (start[:1] == b"\xff" and len(start) > 1 and start[1] & 0xE0 == 0xE0):
        return _mp3(read, size)
    if start[:1] == b"\x47":
        return _transport(read, size)
    return None


def _ends(end: int, size: int) -> str | None:
    return f"truncated: it has {size} bytes of {end}" if end > size else None


_MATTERING: Final = (b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"styp")


def _boxes(read: Read, size: int) -> str | None:
    at, seen, last = 0, set[bytes](), b""
    for _ in range(MOST_BOXES):
        if at == size:
            break
        header = read(at, 16)
        if seen >= {b"moov", b"mdat"} and b"moof" not in seen and header[4:8] not in _MATTERING:
            break  # it is whole: cameras write what is theirs behind it, which players pass over
        if len(header) < 8:
            return "truncated: it ends within the header of a box"
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            if len(header) < 16:
                return "truncated: it ends within the header of a box"
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:
            length = size - at
        if length < 8:
            return f"damaged: a box of {length} bytes at {at}"
        if at + length > size:
            return f"truncated: its {show(name)} box ends at {at + length}, the file at {size}"
        seen.add(name)
        at, last = at + length, name
    if last == b"moof" or (b"moov" in seen and b"mdat" not in seen and b"moof" not in seen):
        return "truncated: the bytes of its pictures and sound (mdat) are missing"
    return None


def show(name: bytes) -> str:
    """A name of four bytes, for people."""
    return "".join(chr(byte) if 32 < byte < 127 else "?" for byte in name)


def _riff(read: Read, size: int, *, is_avi: bool) -> str | None:
    at = 0
    for _ in range(MOST_BOXES):
        header = read(at, 12)
        if at and header[:4] != b"RIFF":
            return None  # whatever follows, it is no part of it
        length = int.from_bytes(header[4:8], "little")
        if length == 0 and is_avi:
            return "not finished: its header has no length yet"
        if length in (0, 0xFFFFFFFF):
            return None  # written as a stream: nobody knew
        found = _ends(at + 8 + length, size)
        if found is not None or not is_avi:
            return found
        at += 8 + length + length % 2
    return None


def _vint(data: bytes) -> tuple[int | None, int]:
    """A length of EBML, and how many bytes say it; None: it is unknown. (0, 0): there is none."""
    if not data or not data[0]:
        return 0, 0
    width = 9 - data[0].bit_length()
    if len(data) < width:
        return 0, 0
    value = int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width


def _ebml(read: Read, size: int) -> str | None:
    length, width = _vint(read(4, 8))
    if not width or length is None:
        return "damaged: its first element has no length"
    at = 4 + width + length
    for _ in range(64):
        header = read(at, 12)
        if not header:
            return "truncated: it ends before its segment"
        if header[:4] == b"\x18\x53\x80\x67":
            length, width = _vint(header[4:])
            if not width:
                return "truncated: it ends within the header of its segment"
            return None if length is None else _ends(at + 4 + width + length, size)
        skipped, width = _vint(header[1:])
        if header[:1] != b"\xec" or skipped is None or not width:  # Void
            return None
        at += 1 + width + skipped
    return None


def _ogg(read: Read, size: int) -> str | None:
    first = max(0, size - _TAIL)
    tail = read(first, _TAIL)
    at = len(tail)
    while (at := tail.rfind(b"OggS\0", 0, at)) >= 0:
        header = tail[at : at + 27]
        lengths = tail[at + 27 : at + 27 + header[26]] if len(header) == 27 else b""
        if len(header) < 27 or len(lengths) < header[26]:
            return "truncated: it ends within the header of a page"
        end = first + at + 27 + len(lengths) + sum(lengths)
        if end > size:
            return f"truncated: its last page ends at {end}, the file at {size}"
        return None if header[5] & 4 else "truncated: its last page does not end a stream"
    return f"damaged: no page begins in its last {_OGG_LONGEST} bytes"


def _mp3(read: Read, size: int) -> str | None:
    at, header = 0, read(0, 10)
    if header[:3] == b"ID3" and len(header) == 10:
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
        if at > size:
            return _ends(at, size)
    frame = read(at, 200)
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return None  # the frames begin elsewhere, or it is something else
    is_first, is_mono = frame[1] & 0x18 == 0x18, frame[3] & 0xC0 == 0xC0
    where = 4 + ((17 if is_mono else 32) if is_first else (9 if is_mono else 17))
    if frame[where : where + 4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(frame[where + 4 : where + 8], "big")
    if not flags & 2:
        return None
    place = where + 8 + (4 if flags & 1 else 0)
    return _ends(at + int.from_bytes(frame[place : place + 4], "big"), size)


def _transport(read: Read, size: int) -> str | None:
    packet = 188
    if size >= 2 * packet and read(packet, 1) != b"\x47":
        return None
    return f"truncated: its last packet has {size % packet} bytes of {packet}" if size % packet else None


# --- FLAC ------------------------------------------------------------------------------------------------------------


def _flac(read: Read, size: int) -> str | None:
    info = read(8, 34)
    if len(info) < 34:
        return "truncated: it ends within its header"
    largest = int.from_bytes(info[2:4], "big")
    total = int.from_bytes(info[13:18], "big") & ((1 << 36) - 1)
    at = 4
    for _ in range(1024):
        block = read(at, 4)
        if len(block) < 4:
            return "truncated: it ends before its first frame"
        at += 4 + int.from_bytes(block[1:4], "big")
        if block[0] & 0x80:
            break
    if at >= size:
        return "truncated: it ends before its first frame"
    if not total:
        return None  # written as a stream
    first = max(at, size - _TAIL)
    tail = read(first, _TAIL)
    if tail[-128:-125] == b"TAG" or b"APETAGEX" in tail:
        return None
    place = len(tail)
    while (place := tail.rfind(b"\xff", 0, place)) >= 0:
        end = _frame_end(tail, place, largest)
        if end is None:
            continue
        if end < total:
            return f"truncated: it ends at sample {end} of {total}"
        return None if not _crc16(tail[place:]) else "truncated: its last frame is not whole"
    return "damaged: no frame begins near its end"


def _frame_end(data: bytes, at: int, largest: int) -> int | None:
    """The sample after a frame that begins there; None: none does (RFC 9639, section 9.1)."""
    head = data[at : at + 16]
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    first = head[4]
    more = 0 if first < 0x80 else 7 - (first ^ 0xFF).bit_length()
    if first >= 0x80 and not 1 <= more <= 6:
        return None
    number = first if not more else first & ((1 << (6 - more)) - 1)
    for byte in head[5 : 5 + more]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    code, rate, place = head[2] >> 4, head[2] & 15, 5 + more
    if code == 6:
        block, place = head[place : place + 1], place + 1
        length = int.from_bytes(block, "big") + 1
    elif code == 7:
        block, place = head[place : place + 2], place + 2
        length = int.from_bytes(block, "big") + 1
    else:
        length = {0: 0, 1: 192}.get(code) or (576 << code - 2 if code < 6 else 256 << code - 8)
    place += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if not code or rate == 15 or place >= len(head) or _crc8(head[:place]) != head[place]:
        return None
    return (number if head[1] & 1 else number * largest) + length


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def _table16() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
        table.append(crc)
    return tuple(table)


_TABLE16: Final = _table16()


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ _TABLE16[crc >> 8 ^ byte]
    return crc


__all__ = ["Read", "cut_off", "show"]
