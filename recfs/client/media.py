"""What is in a recording: as recfs has it in its attributes, or as ffprobe finds it in a file of a plain directory.

ffprobe reads what strangers send. It is told to read nothing but the one file, and only as containers that people
record in (a playlist that is called .mp4 would have it read other files); its time, memory and output are limited. A
program that takes uploads lets recfs do this, which runs it in a cage.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Mapping
from typing import Any, Final

from recfs.client.uploads import MEDIA_TYPES, extension_of

Value = str | int | float

NUMBERS: Final[Mapping[str, type[int] | type[float]]] = {
    "duration_s": float,
    "width": int,
    "height": int,
    "frame_rate": float,
    "sample_rate": int,
    "channels": int,
    "bitrate": int,
}
"""Facts that are numbers: seconds, pixels, pictures per second, Hz, bits per second."""
WORDS: Final = ("container", "mime", "video_codec", "audio_codec")
"""Those that are words, as ffmpeg has them."""

_DEMUXERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mp3,wav,w64,flac,ogg,aac,mpegts,mpeg,flv,asf,aiff,caf,amr,mxf"
)
_TIMEOUT_S: Final = 30.0
_CPU_S: Final = 20
_MEMORY_BYTES: Final = 1 << 30
_OUTPUT_BYTES: Final = 1 << 20


def told_media(told: str | None) -> tuple[dict[str, Value], dict[str, str]]:
    """What recfs knows (user.recfs.media_facts, JSON), and the file's tags; what is not as it should be is left out."""
    try:
        known = json.loads(told or "{}")
        tags = {str(name): str(value) for name, value in known.get("tags", {}).items()}
    except (ValueError, AttributeError):
        return {}, {}
    found: dict[str, Value] = {name: known[name] for name in WORDS if isinstance(known.get(name), str)}
    for name, kind in NUMBERS.items():
        _add(found, name, kind, known.get(name))
    return found, tags


def _add(found: dict[str, Value], name: str, kind: type[int] | type[float], told: Any) -> None:
    try:
        value = kind(float(told))
    except (TypeError, ValueError, OverflowError):
        return
    if value > 0:
        found[name] = value


def computed_media(descriptor: int, path: str) -> dict[str, Value]:
    """What ffprobe finds in an open file; empty where there is no ffprobe, or nothing is found."""
    program = shutil.which("ffprobe")
    if program is None or extension_of(os.path.basename(path)) not in MEDIA_TYPES:
        return {}
    try:
        told = json.loads(_run([program, *_ARGUMENTS], descriptor))
        return _found(told["format"], told["streams"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


_ARGUMENTS: Final = (
    "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", _DEMUXERS, "-max_streams", "64",
    "-print_format", "json", "-show_format", "-show_streams", "-i", "file:/proc/self/fd/0",
)  # fmt: skip
"""The descriptor is opened again by its name in proc(5): a stream could not be read whose index is at its end."""


def _run(command: list[str], descriptor: int) -> bytes:
    """What a program says of the file; it is killed when it takes, or says, too much."""
    with subprocess.Popen(
        command, stdin=descriptor, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as child:
        end = threading.Timer(_TIMEOUT_S, child.kill)
        end.start()
        try:
            resource.prlimit(child.pid, resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
            resource.prlimit(child.pid, resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
            told: bytes = child.stdout.read(_OUTPUT_BYTES) if child.stdout is not None else b""
        finally:
            end.cancel()
            child.kill()
    return told


def _found(form: dict[str, Any], streams: list[dict[str, Any]]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    _add(found, "duration_s", float, form.get("duration"))
    _add(found, "bitrate", int, form.get("bit_rate"))
    video = next((each for each in streams if each.get("codec_type") == "video" and not _is_picture(each)), None)
    audio = next((each for each in streams if each.get("codec_type") == "audio"), None)
    if video is not None:
        found["video_codec"] = str(video["codec_name"])
        _add(found, "width", int, video.get("width"))
        _add(found, "height", int, video.get("height"))
        over, _, under = str(video.get("avg_frame_rate", "")).partition("/")
        if over.isdigit() and under.isdigit() and int(under):
            _add(found, "frame_rate", float, round(int(over) / int(under), 3))
    if audio is not None:
        found["audio_codec"] = str(audio["codec_name"])
        _add(found, "sample_rate", int, audio.get("sample_rate"))
        _add(found, "channels", int, audio.get("channels"))
    if form.get("format_name"):
        found["container"] = _container(str(form["format_name"]), {found.get("video_codec"), found.get("audio_codec")})
        found["mime"] = _mime(str(found["container"]), is_video="video_codec" in found)
    return found


_OF_EITHER: Final = {
    "mp4": "mp4", "matroska": "x-matroska", "webm": "webm", "ogg": "ogg", "asf": "x-ms-asf", "mov": "mp4",
}  # fmt: skip
"""Containers of sound, and of video: how their MIME types end."""
_OF_ONE: Final = {
    "mp3": "audio/mpeg", "wav": "audio/wav", "w64": "audio/x-w64", "flac": "audio/flac", "aac": "audio/aac",
    "mpegts": "video/mp2t", "mpeg": "video/mpeg", "avi": "video/x-msvideo", "flv": "video/x-flv",
    "aiff": "audio/aiff", "caf": "audio/x-caf", "amr": "audio/amr", "ac3": "audio/ac3", "eac3": "audio/eac3",
    "mxf": "application/mxf",
}  # fmt: skip


def _mime(container: str, *, is_video: bool) -> str:
    """As recfs has it: by what is in the file, whatever it is called."""
    if container in _OF_EITHER:
        return f"{'video' if is_video else 'audio'}/{_OF_EITHER[container]}"
    return _OF_ONE.get(container, "application/octet-stream")


def _container(name: str, codecs: set[Value | None]) -> str:
    """As recfs has it: ffprobe names all that one demuxer reads."""
    if name == "matroska,webm":
        return "webm" if codecs <= {"vp8", "vp9", "av1", "opus", "vorbis", None} else "matroska"
    return "mp4" if name.startswith("mov,mp4,") else name


def _is_picture(stream: dict[str, Any]) -> bool:
    """A cover is a stream of video to ffmpeg."""
    return bool(stream.get("disposition", {}).get("attached_pic"))


__all__ = ["NUMBERS", "WORDS", "Value", "computed_media", "told_media"]
