"""Small real media files. FFmpeg makes a handful; each file of the tree is one of them with a mark of its own inside.

The mark is in a place of the container that players pass over, so that every file can be played and no two are equal:

- MP4: a `free` box at the end (ISO/IEC 14496-12, 8.1.2)
- MP3: an ID3v2.3 tag with a TXXX frame in front (id3.org, id3v2.3.0, 3.1 and 4.2.2)
- PNG: a tEXt chunk behind IHDR (W3C PNG, 11.3.3.3)
- Matroska: a Void element at the end (RFC 9559, 6.4.2)
"""

from __future__ import annotations

import random
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VIDEO_SECONDS = (1, 2, 3, 5, 8)
AUDIO_SECONDS = (1, 2, 4, 8)
TEMPLATES = 22

_PNG_HEAD = 8 + 25  # the signature and the IHDR chunk
_VIDEO = ("-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=5:duration={VIDEO_SECONDS[-1]}")
_SOUND = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={VIDEO_SECONDS[-1]}:sample_rate=16000")
_ONCE = ("-threads", "1", "-bitexact")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "40", "-pix_fmt", "yuv420p")
_ENCODED = (*_H264, "-c:a", "aac", "-b:a", "16k", *_ONCE)


@dataclass(frozen=True, slots=True)
class Originals:
    """What FFmpeg made, as bytes."""

    videos: Sequence[bytes]
    audios: Sequence[bytes]
    matroska: bytes
    pictures: Sequence[bytes]
    """TEMPLATES of them, each different."""


def originals(picture_width: int) -> Originals:
    """Have FFmpeg make them; a picture 395 pixels wide has some 210 KB. Raises RuntimeError with what FFmpeg said."""
    with tempfile.TemporaryDirectory(prefix="recfs-old-tree-") as scratch:
        folder = Path(scratch)
        command = [*_VIDEO, *_SOUND]
        for seconds in VIDEO_SECONDS:
            command += ["-map", "0:v", "-map", "1:a", "-t", str(seconds), *_ENCODED, f"{seconds}.mp4"]
        command += ["-map", "0:v", "-map", "1:a", "-t", "1", *_ENCODED, "1.mkv"]
        for seconds in AUDIO_SECONDS:
            command += ["-map", "1:a", "-t", str(seconds), "-c:a", "libmp3lame", "-b:a", "16k"]
            command += [*_ONCE, f"{seconds}.mp3"]
        _ffmpeg(command, folder)
        size = f"{picture_width}x{picture_width * 3 // 4}"
        noisy = f"testsrc2=size={size}:rate=1:duration={TEMPLATES},noise=alls=30:all_seed=7:allf=t+u"
        picture = ("-frames:v", str(TEMPLATES), "-pix_fmt", "rgb24", *_ONCE, "%02d.png")
        _ffmpeg(["-f", "lavfi", "-i", noisy, *picture], folder)
        return Originals(
            [(folder / f"{seconds}.mp4").read_bytes() for seconds in VIDEO_SECONDS],
            [(folder / f"{seconds}.mp3").read_bytes() for seconds in AUDIO_SECONDS],
            (folder / "1.mkv").read_bytes(),
            [(folder / f"{number:02}.png").read_bytes() for number in range(1, TEMPLATES + 1)],
        )


def _ffmpeg(arguments: Sequence[str], folder: Path) -> None:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise RuntimeError("ffmpeg is not installed; scripts/setup installs it") from None
    if done.returncode:
        raise RuntimeError(f"ffmpeg: {done.stderr.decode(errors='replace').strip()}")


def marked_mp4(original: bytes, mark: bytes) -> bytes:
    """The video with a `free` box that holds *mark*."""
    return original + struct.pack(">I4s", 8 + len(mark), b"free") + mark


def marked_mkv(original: bytes, mark: bytes) -> bytes:
    """The video with a Void element behind its segment that holds *mark*."""
    return original + b"\xec" + struct.pack(">Q", (1 << 56) | len(mark)) + mark


def marked_mp3(original: bytes, mark: bytes) -> bytes:
    """The sound with an ID3v2.3 tag whose TXXX frame holds *mark* (Latin-1, no NUL)."""
    text = b"\0mark\0" + mark
    frame = b"TXXX" + struct.pack(">I", len(text)) + b"\0\0" + text
    size = len(frame)
    synchsafe = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + synchsafe + frame + original


def marked_png(original: bytes, mark: bytes) -> bytes:
    """The picture with a comment *mark* (Latin-1, no NUL)."""
    data = b"tEXtComment\0" + mark
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return original[:_PNG_HEAD] + chunk + original[_PNG_HEAD:]


def large(original: bytes, size: int, draw: random.Random) -> bytes:
    """The video brought to *size* bytes (at least its own and 8 more) by a `free` box of bytes that do not compress."""
    return marked_mp4(original, draw.randbytes(max(0, size - len(original) - 8)))


__all__ = [
    "AUDIO_SECONDS",
    "TEMPLATES",
    "VIDEO_SECONDS",
    "Originals",
    "large",
    "marked_mkv",
    "marked_mp3",
    "marked_mp4",
    "marked_png",
    "originals",
]
