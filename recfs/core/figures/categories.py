"""Which category a file is in: decided by where it lies and by its name, never by its bytes.

The place goes first: `temp/`, `shared/` and `users/<id>/thumbnails/` are categories of their own, whatever lies there.
In a recording, a directory named for a category gives that to all below it. Else the name decides: its beginning, then
its last extension. `recfs/catalogue/figures.py` has the same marks in SQL; a contract test compares them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from recfs.core.layout import Role, is_upload


class Category(StrEnum):
    """What a file is for."""

    SOURCE = "source"
    VIDEO = "video"
    AUDIO = "audio"
    TRANSCRIPTION = "transcription"
    ASSETS = "assets"
    THUMBNAILS = "thumbnails"
    TEMP = "temp"
    SHARED = "shared"
    OTHER = "other"


HEADS: Final = (b"source.", b"transcript", b"thumbnail")
"""Beginnings of names that say something; a name's mark is the place of the first that fits, from 1 on, else 0."""
SOURCE, TRANSCRIPT, THUMBNAIL = 1, 2, 3

_EXTENSIONS: Final = {
    Category.VIDEO: "3gp avi f4v flv m2ts m4s m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv",
    Category.AUDIO: "aac ac3 aif aiff alac amr caf eac3 flac m4a mka mp2 mp3 oga ogg opus wav wma",
    Category.TRANSCRIPTION: "ass sbv scc srt ssa stl sub ttml vtt",
    Category.ASSETS: "ai avif bmp cube eps gif heic heif ico jpeg jpg jxl otf pdf png psd svg tif tiff ttf webp woff",
}
BY_EXTENSION: Final = {
    extension.encode(): category for category, names in _EXTENSIONS.items() for extension in names.split()
}
"""Extensions in lower case that say something."""

_BY_ROLE: Final = {
    Role.TEMP_TOP: Category.TEMP,
    Role.TEMP_USER: Category.TEMP,
    Role.JOB: Category.TEMP,
    Role.SHARED_TOP: Category.SHARED,
    Role.SHARED_DIR: Category.SHARED,
    Role.USER_THUMBNAILS: Category.THUMBNAILS,
}
_BY_FOLDER: Final = {
    b"video": Category.VIDEO,
    b"videos": Category.VIDEO,
    b"audio": Category.AUDIO,
    b"transcription": Category.TRANSCRIPTION,
    b"transcriptions": Category.TRANSCRIPTION,
    b"transcript": Category.TRANSCRIPTION,
    b"transcripts": Category.TRANSCRIPTION,
    b"assets": Category.ASSETS,
    b"thumbnails": Category.THUMBNAILS,
}


class Marks(NamedTuple):
    """What a name says of a file."""

    head: int
    """Which of HEADS it begins with, from 1 on, in any case of letters; SOURCE: named as an upload is. 0: none."""
    extension: bytes
    """The last extension, in lower case, where it is in BY_EXTENSION; else empty."""


def marks_of(name: bytes) -> Marks:
    """What a name says."""
    lower = name.lower()
    _, dot, extension = lower.rpartition(b".")
    head = 0
    if is_upload(Role.RECORDING, name):
        head = SOURCE
    elif lower.startswith(HEADS[TRANSCRIPT - 1]):
        head = TRANSCRIPT
    elif lower.startswith(HEADS[THUMBNAIL - 1]):
        head = THUMBNAIL
    return Marks(head, extension if dot and extension in BY_EXTENSION else b"")


def folder_category(above: Category | None, role: Role, name: bytes) -> Category | None:
    """The category that a directory gives to all files below it; None: their names decide.

    *above*: that of the directory which it is in. *role*: the directory's own.
    """
    if above is not None:
        return above
    return _BY_FOLDER.get(name.lower()) if role is Role.INSIDE else _BY_ROLE.get(role)


def category_of(folder: Category | None, role: Role, marks: Marks) -> Category:
    """The category of a file in a directory with *role*, of which `folder_category` has said *folder*."""
    if folder is not None:
        return folder
    if marks.head == SOURCE and role is Role.RECORDING:
        return Category.SOURCE
    if marks.head == TRANSCRIPT:
        return Category.TRANSCRIPTION
    by_name = BY_EXTENSION.get(marks.extension, Category.OTHER)
    return Category.THUMBNAILS if marks.head == THUMBNAIL and by_name is Category.ASSETS else by_name


__all__ = [
    "BY_EXTENSION", "HEADS", "SOURCE", "THUMBNAIL", "TRANSCRIPT", "Category", "Marks", "category_of",
    "folder_category", "marks_of",
]  # fmt: skip
