"""The old tree of the platform: what its directories hold, and what becomes of that in a store.

templates/thumbnails/*                       shared/thumbnails/*
user_<n>/video/unprocessed/*                 users/<n>/recordings/<id>/source.mp4
user_<n>/video/processed/*                   users/<n>/recordings/<id>/video.mp4
user_<n>/audio/processed/*  processed_audio/*  …/audio.mp3, two places of one thing
user_<n>/transcriptions/<id>/*               …/transcription/*
user_<n>/thumbnails/*                        users/<n>/thumbnails/*, where they are no copies of templates
**/temp_processing/*                         nothing
video/  transcriptions/                      as those of users, from before there were users
"""

from __future__ import annotations

import enum
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.layout import is_id
from recfs.core.media.kinds import Checker, kind_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


class Slot(enum.Enum):
    """What a recording has one of; the value is the name of the database's column that has its path."""

    SOURCE = "local_video_path"
    VIDEO = "processed_video_path"
    AUDIO = "processed_audio_path"
    TRANSCRIPTION = "transcription_dir"

    @property
    def stem(self) -> bytes:
        """Its name in a store, without the extension."""
        return _STEMS[self]

    @property
    def extension(self) -> bytes:
        """The extension of those whose old names have none."""
        return b"mp3" if self is Slot.AUDIO else b"mp4"

    @property
    def word(self) -> str:
        """What people call it."""
        return _STEMS[self].decode()


_STEMS: Final = {
    Slot.SOURCE: b"source",
    Slot.VIDEO: b"video",
    Slot.AUDIO: b"audio",
    Slot.TRANSCRIPTION: b"transcription",
}


class Kind(enum.Enum):
    """What a directory of the old tree holds."""

    OF_RECORDING = enum.auto()
    TEMPLATE = enum.auto()
    THUMBNAIL = enum.auto()
    TEMPORARY = enum.auto()
    OTHER = enum.auto()


class Place(NamedTuple):
    """Where in the old tree a file lies."""

    kind: Kind
    user: str | None = None
    """The user whose directory it is in."""
    slot: Slot | None = None
    """Of files of recordings."""
    recording: str | None = None
    """The id that its directory is named by."""
    inner: bytes = b""
    """Its path below that directory, or below the thumbnails."""


_USER: Final = b"user_"
_TEMPORARY: Final = b"temp_processing"
_SLOTS: Final = {
    (b"video", b"unprocessed"): Slot.SOURCE,
    (b"video", b"processed"): Slot.VIDEO,
    (b"audio", b"processed"): Slot.AUDIO,
}
_OTHER: Final = Place(Kind.OTHER)
_FIXED: Final = frozenset(
    {
        b"", b"video", b"video/unprocessed", b"video/processed", b"video/temp_processing", b"audio", b"audio/processed",
        b"processed_audio", b"transcriptions", b"thumbnails", b"templates", b"templates/thumbnails",
    }
)  # fmt: skip


def user_of(path: bytes) -> str | None:
    """The id of the user whose directory *path* is in, or is; None elsewhere."""
    top = path.split(b"/", 1)[0]
    if top.startswith(_USER) and is_id(top[len(_USER) :]):
        return top[len(_USER) :].decode("ascii")
    return None


def other_owner(path: bytes, owner: int | None, owners: Mapping[bytes, int]) -> str:
    """Why a file may be another user's than it lies with; "" if nothing says so. *owners*: uids of top directories.

    Who may write in two directories can move files between them that he cannot read (rename(2)). A service that all
    files belong to tells nothing.
    """
    top = path.split(b"/", 1)[0]
    if user_of(path) is None or owner is None or owner == owners.get(top):
        return ""
    others = sorted(each for each, uid in owners.items() if uid == owner and user_of(each) is not None)
    return f"its owner (uid {owner}) is that of {others[0].decode()}, and it lies in {top.decode()}" if others else ""


def hidden_link(file: os.stat_result, top: os.stat_result | None) -> str:
    """Why a file may be one that somebody made a hard link to, to have it read for him; "" if nothing says so.

    Where links are not protected (`fs.protected_hardlinks`, proc_sys_fs(5)) anybody gives a name in his directory to
    what he may not read. *top*: the directory in the old tree's top that it lies in.
    """
    if file.st_nlink < 2 or top is None or top.st_uid in (0, file.st_uid) or file.st_mode & stat.S_IROTH:
        return ""
    if file.st_mode & stat.S_IRGRP and file.st_gid == top.st_gid:
        return ""
    return (
        f"it has other names (hard links), is uid {file.st_uid}'s, and uid {top.st_uid}, whose directory it lies in,"
        " may not read it: `chown` it, if it is theirs"
    )


def is_fixed(folder: bytes) -> bool:
    """Whether a directory, by its path, is one that many recordings have files in."""
    if user_of(folder) is not None:
        folder = folder.partition(b"/")[2]
    return folder in _FIXED


def place_of(path: bytes) -> Place:
    """Where a file lies, by its path below the old tree."""
    parts = path.split(b"/")
    if _TEMPORARY in parts[:-1]:
        return Place(Kind.TEMPORARY, user_of(path))
    user = user_of(path)
    if user is not None:
        del parts[0]
    elif parts[:2] == [b"templates", b"thumbnails"] and len(parts) > 2:
        return Place(Kind.TEMPLATE, inner=b"/".join(parts[2:]))
    if len(parts) > 1:
        if user is not None and parts[0] == b"thumbnails":
            return Place(Kind.THUMBNAIL, user, inner=b"/".join(parts[1:]))
        if parts[0] == b"transcriptions":
            named = parts[1].decode("ascii") if len(parts) > 2 and is_id(parts[1]) else None
            return Place(Kind.OF_RECORDING, user, Slot.TRANSCRIPTION, named, b"/".join(parts[2:]))
        if parts[0] == b"processed_audio":
            return Place(Kind.OF_RECORDING, user, Slot.AUDIO)
        slot = _SLOTS.get((parts[0], parts[1])) if len(parts) > 2 else None
        if slot is not None:
            return Place(Kind.OF_RECORDING, user, slot)
    return Place(Kind.OTHER, user) if user is not None else _OTHER


def is_media(name: bytes) -> bool:
    """Whether a name's ending says that it is audio or video, as what a recording consists of is."""
    kind = kind_of(name)
    return kind is not None and kind.checker is Checker.MEDIA


__all__ = ["Kind", "Place", "Slot", "hidden_link", "is_fixed", "is_media", "other_owner", "place_of", "user_of"]
