"""How ffmpeg(1) makes each product: its arguments, and the texts that go with what it makes.

The program reads its standard input, and writes to one or two files of the directory it is run in: `OUTPUTS`.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.media.derived import DeriveRule, Product
from recfs.core.units import MAX_DURATION_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.core.media.facts import Facts

PRINCIPAL, MEDIA = OUTPUTS = ("principal", "media")
"""What the program calls what it makes: the file that is the product, and the one that this names, if any."""
VIDEO: Final = "0:V:0"
"""The first stream of video that is no cover picture (ffmpeg(1), "Stream specifiers")."""
_AUDIO: Final = (
    "-vn", "-sn", "-dn", "-map", "0:a:0", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact",
    "-ac", "1", "-ar", "16000",
)  # fmt: skip
SPRITE_FRAMES: Final = 100
"""At most so many in one picture."""
_SPRITE_COLUMNS = 10
SEGMENT_S: Final = 6
"""Of HLS; RFC 8216 has no least, Apple's authoring specification recommends 6 s."""


_DONE: Final = re.compile(r"^out_time_us=([0-9]{1,18})$", re.MULTILINE)


def progress_us(text: str) -> int | None:
    """Read how far ffmpeg says that it is (-progress, ffmpeg(1)), in microseconds: what it said last.

    None where it does not say, and where that is 0: nothing is done yet, or has no time.
    """
    found = _DONE.findall(text)
    return int(found[-1]) or None if found else None


class Recipe(NamedTuple):
    """What the program is told."""

    before: tuple[str, ...]
    """Before the input."""
    after: tuple[str, ...]
    """After it."""


class Grid(NamedTuple):
    """How small frames lie in one picture."""

    every_s: int
    """Between two of them."""
    frames: int
    rows: int
    width: int
    height: int


def lacks(product: Product, facts: Facts) -> str:
    """Say what of a source keeps a product from being made from it; empty: nothing does."""
    if product in (Product.THUMBNAIL, Product.SPRITE, Product.HLS) and not facts.has_video:
        return "the source has no video"
    if product in (Product.AUDIO, Product.WAVEFORM) and not facts.has_audio:
        return "the source has no audio"
    if product is not Product.THUMBNAIL and facts.duration_ms <= 0:
        return "the source has no duration"
    return ""


def grid(facts: Facts, width: int) -> Grid:
    """Lay the frames for scrubbing out: a frame a second, or as many seconds as leave `SPRITE_FRAMES` at most."""
    seconds = max(1, math.ceil(min(facts.duration_ms / 1000, MAX_DURATION_S)))
    every_s = math.ceil(seconds / SPRITE_FRAMES)
    frames = math.ceil(seconds / every_s)
    return Grid(every_s, frames, math.ceil(frames / _SPRITE_COLUMNS), width, _even(width * 9 / 16))


def recipe(rule: DeriveRule, facts: Facts) -> Recipe:
    """Give what ffmpeg is told to make a product."""
    wide = rule.wide
    match rule.product:
        case Product.THUMBNAIL:
            return Recipe(
                ("-ss", f"{_at_s(rule, facts):.3f}"),
                ("-map", VIDEO, "-frames:v", "1", "-vf", _within(wide, _TALLEST * wide), *_RGB, PRINCIPAL),
            )
        case Product.AUDIO:
            return Recipe((), (*_AUDIO, "-c:a", "libmp3lame", "-b:a", "64k", "-f", "mp3", PRINCIPAL))
        case Product.WAVEFORM:
            wave = f"[0:a:0]aformat=channel_layouts=mono,showwavespic=s={wide}x{_even(wide / 8)}"
            return Recipe((), ("-filter_complex", wave, "-frames:v", "1", *_PNG, PRINCIPAL))
        case Product.SPRITE:
            laid = grid(facts, wide)
            size = f"{laid.width}:{laid.height}"
            frames = (
                f"fps=1/{laid.every_s}:start_time=0:round=up,{_within(laid.width, laid.height)},"
                f"pad={size}:(ow-iw)/2:(oh-ih)/2,"
                # Where the video ends before its sound, its last frame stays, as players show it.
                f"tpad=stop={laid.frames}:stop_mode=clone,trim=end_frame={laid.frames},tile={_SPRITE_COLUMNS}x{laid.rows}"
            )
            jpeg = ("-f", "image2pipe", "-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p")
            return Recipe((), ("-map", VIDEO, "-vf", frames, "-frames:v", "1", *jpeg, MEDIA))
        case Product.HLS:
            video = (
                "-map", VIDEO, "-map", "0:a:0?", "-map_metadata", "-1", "-c:v", "libx264", "-preset", "veryfast",
                "-crf", "23", "-pix_fmt", "yuv420p", "-vf", f"scale='max(2,trunc(min({wide},iw)/2)*2)':-2",
                "-force_key_frames", f"expr:gte(t,n_forced*{SEGMENT_S})", "-c:a", "aac", "-b:a", "128k", "-ac", "2",
            )  # fmt: skip
            hls = (
                "-f", "hls", "-hls_time", str(SEGMENT_S), "-hls_playlist_type", "vod", "-hls_flags", "single_file",
                "-hls_segment_filename", MEDIA, PRINCIPAL,
            )  # fmt: skip
            return Recipe((), (*video, *hls))


def last_frame(rule: DeriveRule, facts: Facts) -> Recipe | None:
    """Give what is tried where `recipe` has made nothing: a thumbnail is of the last frame where none comes later.

    A video may have one frame alone, or end before its sound. All of it is decoded up to that moment.
    """
    if rule.product is not Product.THUMBNAIL:
        return None
    held = f"fps=10:eof_action=pass,tpad=stop=-1:stop_mode=clone,trim=start={_at_s(rule, facts):.3f}"
    shown = f"{held},{_within(rule.wide, _TALLEST * rule.wide)}"
    return Recipe((), ("-map", VIDEO, "-vf", shown, "-frames:v", "1", *_RGB, PRINCIPAL))


def _at_s(rule: DeriveRule, facts: Facts) -> float:
    return min(rule.at_s, facts.duration_ms / 2000)


def chunk_recipe(start_ms: int, duration_ms: int, form: str) -> Recipe:
    """Give what ffmpeg is told to cut a chunk: *form* "mp3" or "wav"."""
    codec = ("libmp3lame", "-b:a", "64k", "-f", "mp3") if form == "mp3" else ("pcm_s16le", "-f", "wav")
    before = ("-ss", f"{start_ms / 1000:.3f}", "-t", f"{duration_ms / 1000:.3f}")
    return Recipe(before, (*_AUDIO, "-c:a", *codec, PRINCIPAL))


def silence_recipe(noise_db: int, least_s: float) -> Recipe:
    """Give what ffmpeg is told to write down silences, for `silences_in`."""
    look = f"silencedetect=noise={noise_db}dB:d={least_s:g},ametadata=mode=print:file={PRINCIPAL}"
    return Recipe((), ("-vn", "-sn", "-dn", "-map", "0:a:0", "-af", look, "-f", "null", "-"))


def scrubbing(laid: Grid, duration_ms: int, picture: str) -> str:
    """Write the WebVTT of small frames: which part of *picture* (a media fragment, #xywh) shows which time."""
    lines = ["WEBVTT", ""]
    for number in range(laid.frames):
        begin, end = number * laid.every_s * 1000, min((number + 1) * laid.every_s * 1000, duration_ms)
        if begin >= end:
            break
        row, column = divmod(number, _SPRITE_COLUMNS)
        place = f"{column * laid.width},{row * laid.height},{laid.width},{laid.height}"
        lines += [f"{_moment(begin)} --> {_moment(end)}", f"{picture}#xywh={place}", ""]
    return "\n".join(lines)


def playlist(written: Iterable[str], media: str) -> str:
    """Have a playlist, in lines, name its media file as it is called in its place. Raises ValueError if it is none."""
    lines = [media if line.strip() == MEDIA else line.rstrip("\r\n") for line in written]
    if not lines or lines[0] != "#EXTM3U" or media not in lines or "#EXT-X-ENDLIST" not in lines:
        raise ValueError("ffmpeg wrote no playlist")
    return "\n".join(lines) + "\n"


_TALLEST: Final = 3
"""A thumbnail is so many times as high as wide at most: a video of 1 by 16384 pixels has one, too."""
_PNG: Final = ("-f", "image2pipe", "-c:v", "png")
_RGB: Final = (*_PNG, "-pix_fmt", "rgb24")
"""Of 8 bits, and no palette: what every viewer shows."""


def _within(width: int, height: int) -> str:
    """Scale to what fits, an even number of pixels that are as wide as high: players show others stretched, too."""
    wide, high = (f"'max(2,round(min({most})/2)*2)'" for most in (f"{width},{height}*dar", f"{height},{width}/dar"))
    return f"scale={wide}:{high},setsar=1"


def _even(number: float) -> int:
    return max(2, round(number / 2) * 2)


def _moment(ms: int) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{ms:03d}"


__all__ = [
    "MEDIA",
    "OUTPUTS",
    "PRINCIPAL",
    "SEGMENT_S",
    "SPRITE_FRAMES",
    "Grid",
    "Recipe",
    "chunk_recipe",
    "grid",
    "lacks",
    "last_frame",
    "playlist",
    "progress_us",
    "recipe",
    "scrubbing",
    "silence_recipe",
]
