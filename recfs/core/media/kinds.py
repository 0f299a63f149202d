"""What a file's name says that it is: by its ending, and by the names that recordings have for one kind of file."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Checker(StrEnum):
    """How a file is looked into; the words are in the catalogue."""

    MEDIA = "media"
    """By ffprobe."""
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


class Kind(StrEnum):
    """What a name says."""

    VIDEO = "video"
    """Moving pictures: the file is called video.*."""
    AUDIO = "audio"
    """Sound, and no moving pictures."""
    EITHER = "audio or video"
    """A container that may hold one or the other."""
    JSON = "JSON"
    SRT = "SubRip subtitles"
    VTT = "WebVTT subtitles"

    @property
    def checker(self) -> Checker:
        """What looks into a file of this kind."""
        return _CHECKERS.get(self, Checker.MEDIA)


_CHECKERS: Final = {Kind.JSON: Checker.JSON, Kind.SRT: Checker.SRT, Kind.VTT: Checker.VTT}

_CONTAINERS: Final = (
    b"mp4", b"m4v", b"mov", b"qt", b"3gp", b"3g2", b"avi", b"mkv", b"webm", b"ts", b"m2ts", b"mts", b"mpg", b"mpeg",
    b"flv", b"wmv", b"asf", b"mxf", b"ogv", b"ogg", b"oga", b"ogx",
)  # fmt: skip
_SOUND: Final = (
    b"mp3", b"m4a", b"m4b", b"aac", b"wav", b"w64", b"flac", b"opus", b"aif", b"aiff", b"caf", b"amr", b"ac3", b"eac3",
    b"wma", b"mka",
)  # fmt: skip

_BY_ENDING: Final[dict[bytes, Kind]] = {
    **dict.fromkeys(_CONTAINERS, Kind.EITHER),
    **dict.fromkeys(_SOUND, Kind.AUDIO),
    b"json": Kind.JSON, b"srt": Kind.SRT, b"vtt": Kind.VTT,
}  # fmt: skip
_BY_STEM: Final = {b"video": Kind.VIDEO, b"audio": Kind.AUDIO}


def kind_of(name: bytes) -> Kind | None:
    """What *name* says that a file is; None: nothing that is looked into."""
    stem, dot, ending = name.rpartition(b".")
    if not dot or not stem:
        return None
    kind = _BY_ENDING.get(ending) or _BY_ENDING.get(ending.lower())
    if kind is Kind.EITHER:
        return _BY_STEM.get(stem.lower(), kind)
    return kind


__all__ = ["Checker", "Kind", "kind_of"]
