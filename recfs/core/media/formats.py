"""Which containers are read, by which names ffmpeg knows them, and how it is told to read nothing else.

What is not in the list is refused before a byte of it is interpreted: playlists and scripts that name other files
(HLS, DASH, concat, SDP, image sequences), devices, and formats that nobody records in.
"""

from __future__ import annotations

from typing import Final

DEMUXERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mp3", "wav", "w64", "flac", "ogg", "aac", "mpegts", "mpeg",
    "flv", "asf", "aiff", "caf", "amr", "ac3", "eac3", "mxf",
)  # fmt: skip
"""Names of demuxers (ffmpeg-formats(1)), each with all of its own."""

PROTOCOLS: Final = ("fd", "file", "pipe")
"""Protocols by which anything may be read (ffmpeg-protocols(1)): none that could reach another machine."""

PROBE_BYTES: Final = 5_000_000
"""How much of a file is read to find out what it is (ffprobe's own default) …"""
ANALYZE_US: Final = 5_000_000
"""… and how many microseconds of its streams."""
MOST_STREAMS: Final = 1000
"""Streams that are looked at (ffmpeg's own default); of a transport stream the further ones are left out in silence."""


def reading(*, probe_bytes: int = PROBE_BYTES, analyze_us: int = ANALYZE_US) -> dict[str, str]:
    """Options of an input that bound what it is read as: for `ffmpeg.input`, or before `-i` (`as_words`)."""
    return {
        "protocol_whitelist": ",".join(PROTOCOLS),
        "format_whitelist": ",".join(DEMUXERS),
        "probesize": str(probe_bytes),
        "analyzeduration": str(analyze_us),
        "max_streams": str(MOST_STREAMS),
    }


def as_words(options: dict[str, str]) -> list[str]:
    """Options as a command line has them."""
    return [word for name, value in options.items() for word in (f"-{name}", value)]


__all__ = ["ANALYZE_US", "DEMUXERS", "MOST_STREAMS", "PROBE_BYTES", "PROTOCOLS", "as_words", "reading"]
