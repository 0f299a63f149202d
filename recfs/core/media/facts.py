"""What is in a recording, as ffprobe tells it, brought into bounds: whoever made the file has a say in every word."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from recfs.core.units import MAX_DURATION_S, format_duration

SHOW: Final = (
    "format=format_name,duration,bit_rate:format_tags"
    ":stream=codec_type,codec_name,profile,width,height,avg_frame_rate,r_frame_rate,sample_rate,channels,bit_rate,duration"
    ":stream_disposition=attached_pic"
)
"""What ffprobe is asked for (ffprobe(1), -show_entries)."""

MOST: Final = 2**53 - 1
"""The largest number that is kept: JSON readers take larger ones for others (RFC 8259, section 6)."""
MOST_TAGS: Final = 32
TAG_CHARS: Final = 64
VALUE_CHARS: Final = 256
WORD_CHARS: Final = 32
UNKNOWN: Final = "unknown"
"""The codec of a stream that the ffprobe of this machine does not know."""
LONGEST_S: Final = 100 * 366 * 86_400.0

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
_WORD: Final = re.compile(r"[A-Za-z0-9_.+-]{1,32}")

_MIME: Final = {
    "mp3": "audio/mpeg", "wav": "audio/wav", "w64": "audio/x-w64", "flac": "audio/flac", "aac": "audio/aac",
    "mpegts": "video/mp2t", "mpeg": "video/mpeg", "avi": "video/x-msvideo", "flv": "video/x-flv",
    "aiff": "audio/aiff", "caf": "audio/x-caf", "amr": "audio/amr", "ac3": "audio/ac3", "eac3": "audio/eac3",
    "mxf": "application/mxf",
}  # fmt: skip
_MIME_OF_EITHER: Final = {"mov": "mp4", "matroska": "x-matroska", "webm": "webm", "ogg": "ogg", "asf": "x-ms-asf"}
_WEBM: Final = frozenset({"vp8", "vp9", "av1", "opus", "vorbis"})
_PLAIN_CONTAINER: Final = {"matroska,webm": "matroska", "mov,mp4,m4a,3gp,3g2,mj2": "mp4"}


class Facts(NamedTuple):
    """What is in a recording; None: there is none, or it is not told."""

    container: str
    """mp4 (and what is of its family), matroska, webm, avi, mp3, wav, flac, ogg, mpegts …"""
    mime: str
    duration_s: float | None = None
    bitrate: int | None = None
    """Bits per second, all streams together."""
    streams: int = 0
    video_codec: str | None = None
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    """Pictures per second, on the average."""
    audio_codec: str | None = None
    sample_rate: int | None = None
    """Hertz."""
    channels: int | None = None
    tags: dict[str, str] = {}  # noqa: RUF012  # of a tuple, and never changed

    @property
    def has_video(self) -> bool:
        """Whether there are moving pictures: a cover picture is none."""
        return self.video_codec is not None

    @property
    def has_audio(self) -> bool:
        """Whether there is sound."""
        return self.audio_codec is not None

    @property
    def duration_ms(self) -> int:
        """How long it plays; 0 where that is not told, or longer than anything is."""
        seconds = self.duration_s or 0.0
        return round(seconds * 1000) if seconds <= MAX_DURATION_S else 0

    def as_json(self) -> dict[str, Any]:
        """Without what is not told."""
        return {name: value for name, value in self._asdict().items() if value not in (None, {})}

    def packed(self) -> str:
        """As one text, for the catalogue."""
        return json.dumps(self.as_json(), ensure_ascii=True, separators=(",", ":"))


NO_MEDIA: Final = "it is no audio and no video"


def unpacked(text: str) -> Facts | None:
    """What `packed` made a text of; None: nothing, or it is another version's."""
    try:
        found = json.loads(text) if text else None
        return Facts(**found) if isinstance(found, dict) else None
    except (ValueError, TypeError):
        return None


def facts_of(output: bytes) -> Facts | None:
    """What ffprobe's answer says (-of json); None: it says nothing of audio or video. Raises ValueError: no answer."""
    try:
        found = json.loads(output, parse_int=_digits, parse_constant=lambda word: None)
    except (RecursionError, UnicodeDecodeError) as error:
        raise ValueError("ffprobe's answer cannot be read") from error
    if not isinstance(found, dict):
        raise ValueError("ffprobe's answer cannot be read")
    form, streams = found.get("format"), found.get("streams")
    form = form if isinstance(form, dict) else {}
    streams = [each for each in streams if isinstance(each, dict)] if isinstance(streams, list) else []
    video = next((each for each in streams if each.get("codec_type") == "video" and not _is_cover(each)), None)
    audio = next((each for each in streams if each.get("codec_type") == "audio"), None)
    container = _PLAIN_CONTAINER.get(str(form.get("format_name")), _word(form.get("format_name")))
    if (video is None and audio is None) or container is None:
        return None
    codecs = {each.get("codec_name") for each in (video, audio) if each is not None}
    if container == "matroska" and codecs <= _WEBM:
        container = "webm"
    durations = [_seconds(each.get("duration")) for each in (form, video or {}, audio or {})]
    known = [each for each in durations if each is not None]
    return Facts(
        container, _mime(container, is_video=video is not None),
        duration_s=known[0] if known else None,
        bitrate=_count(form.get("bit_rate")), streams=min(len(streams), MOST),
        video_codec=_codec(video),
        width=_count(video.get("width")) if video else None,
        height=_count(video.get("height")) if video else None,
        frame_rate=(_rate(video.get("avg_frame_rate")) or _rate(video.get("r_frame_rate"))) if video else None,
        audio_codec=_codec(audio),
        sample_rate=_count(audio.get("sample_rate")) if audio else None,
        channels=_count(audio.get("channels")) if audio else None,
        tags=_tags(form.get("tags")),
    )  # fmt: skip


def _digits(text: str) -> int:
    return int(text) if len(text) <= 20 else MOST


def _is_cover(stream: dict[str, Any]) -> bool:
    """Whether it is a picture of the album, and no moving one."""
    disposition = stream.get("disposition")
    return isinstance(disposition, dict) and disposition.get("attached_pic") == 1


def _mime(container: str, *, is_video: bool) -> str:
    if container in ("mp4", *_MIME_OF_EITHER):
        return f"{'video' if is_video else 'audio'}/{_MIME_OF_EITHER.get(container, 'mp4')}"
    return _MIME.get(container, "application/octet-stream")


def _word(value: object) -> str | None:
    text = str(value)[:WORD_CHARS] if isinstance(value, str) else ""
    return text if _WORD.fullmatch(text) else None


def _codec(stream: dict[str, Any] | None) -> str | None:
    """Its name; None: there is no such stream."""
    return None if stream is None else _word(stream.get("codec_name")) or UNKNOWN


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value if not isinstance(value, str) else value[:40])
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(value: object) -> int | None:
    """A number of things; None: none, or no number."""
    number = _number(value)
    return min(int(number), MOST) if number is not None and number >= 1 else None


def _seconds(value: object) -> float | None:
    number = _number(value)
    return round(min(number, LONGEST_S), 6) if number is not None and number >= 0 else None


def _rate(value: object) -> float | None:
    """A fraction ("30000/1001") of pictures per second."""
    above, _, below = value.partition("/") if isinstance(value, str) else ("", "", "")
    number, parts = _number(above), _number(below or "1")
    if number is None or not parts or number <= 0 or parts <= 0:
        return None
    rate = round(number / parts, 3)
    return rate if 0 < rate <= 100_000 else None


def _tags(value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text in value.items() if isinstance(value, dict) else ():
        if len(found) >= MOST_TAGS:
            break
        if isinstance(name, str) and isinstance(text, str) and (key := _clean(name, TAG_CHARS).lower()):
            found[key] = _clean(text, VALUE_CHARS)
    return found


def _clean(text: str, most: int) -> str:
    return _CONTROL.sub(" ", text[: 2 * most])[:most].strip()


def describe(media: Mapping[str, Any]) -> str:
    """What is known of a file, in a few words, of what the daemon says of it; empty: nothing."""
    facts = media["facts"] or {}
    if media["reason"] or not facts:
        return str(media["reason"] or "")
    told = [facts.get("mime", "")]
    if "duration_s" in facts:
        told.append(format_duration(facts["duration_s"]))
    if "width" in facts and "height" in facts:
        told.append(f"{facts['width']}x{facts['height']}")
    return ", ".join([*told, *(facts[each] for each in ("video_codec", "audio_codec") if each in facts)])


__all__ = ["LONGEST_S", "MOST", "NO_MEDIA", "SHOW", "Facts", "describe", "facts_of", "unpacked"]
