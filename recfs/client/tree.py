"""The tree of a store as paths: which ids and names it has, and where a recording's known files lie.

    shared/thumbnails/<name>
    users/<user>/recordings/<recording>/  source.mp4  video.mp4  audio.mp3
        transcription/  master.json  topics_v1.json …  subtitles.srt  subtitles.vtt
        assets/<name>
    temp/<user>/<job>/<name>

Local disk, mount and bucket have the same tree, so one builder makes paths for all of them.
"""

from __future__ import annotations

import operator
import os
import re
import shutil
import stat
from pathlib import Path
from uuid import UUID

from recfs.client.errors import InvalidName, NotAMount
from recfs.client.uploads import attribute, extension_of

NAME_MAX_BYTES = 255
PATH_MAX_BYTES = 4095
_ID_DIGITS = 20
_match_id = re.compile(
    rf"0|[1-9][0-9]{{0,{_ID_DIGITS - 1}}}|[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}", re.ASCII
).fullmatch
_SUBTITLES = ("srt", "vtt")
Id = int | str | UUID
"""A user's, a recording's or a job's: a whole number (not negative, 20 digits at most) or a UUID."""


def id_of(what: str, value: Id) -> str:
    """Give an id as the tree has it. Raises InvalidName, which says *what* it should be."""
    text = str(value)  # of a bool, or whatever a caller without types passes, no id
    if not _match_id(text):
        raise InvalidName(
            f"{_shown(value)} is no id of a {what}: a whole number without sign or leading zero, or a UUID"
        )
    return text


def name_of(name: str) -> str:
    """Give back a name that is one, and fit to be shown. Raises InvalidName; `sanitize_name` makes one of any text.

    The file system itself takes more (anything but "/" and NUL): what is refused besides is what a program would not
    write by intent: control characters, marks that turn the direction of text, bytes that are no UTF-8.
    """
    if name in ("", ".", "..") or "/" in name:
        raise InvalidName(f"{_shown(name)} is not a name")
    if not all(char.isprintable() for char in name):
        raise InvalidName(f"{_shown(name)} has characters that cannot be shown; sanitize_name() makes a name of it")
    if len(name.encode("utf-8")) > NAME_MAX_BYTES:
        raise InvalidName(f"{_shown(name)}: a name has {NAME_MAX_BYTES} bytes at most; sanitize_name() cuts it")
    return name


def parts_of(path: str | os.PathLike[str], *, new: bool = False) -> tuple[str, ...]:
    """Give the names of a path inside the tree that a file can have. Raises InvalidName.

    It is relative to the tree's root. Whatever the fixed levels (docs/semantics.md, section 1) have no place for is
    refused, and so is what leads out of the tree. For *new* files the names have to be such as `name_of` takes.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise InvalidName(f"{_shown(text)}: a path is text")
    parts = tuple(text.split("/"))
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidName(f"{_shown(text)} is no path: {error.reason}") from error
    if b"\0" in raw or len(raw) > PATH_MAX_BYTES or any(part in ("", ".", "..") for part in parts):
        raise InvalidName(f"{_shown(text)} is no path inside the tree, such as users/5/recordings/142/source.mp4")
    if any(len(name) > NAME_MAX_BYTES for name in raw.split(b"/")):
        raise InvalidName(f"{_shown(text)}: a name has {NAME_MAX_BYTES} bytes at most")
    _check_levels(parts, text)
    if new:
        for part in parts:
            name_of(part)
    return parts


def _check_levels(parts: tuple[str, ...], text: str) -> None:
    """Raise InvalidName where the fixed levels of the tree have no file of that path."""
    top, depth = parts[0], len(parts)
    if top == "shared" and depth >= 2:
        return
    if top == "users" and depth >= 4:
        id_of("user", parts[1])
        if parts[2] == "thumbnails":
            return
        if parts[2] == "recordings" and depth >= 5:
            id_of("recording", parts[3])
            return
    if top == "temp" and depth >= 4:
        id_of("user", parts[1])
        id_of("job", parts[2])
        return
    raise InvalidName(
        f"{_shown(text)} is no file of the tree: shared/…, users/<id>/thumbnails/…, users/<id>/recordings/<id>/…,"
        " temp/<id>/<id>/…"
    )


def _shown(value: object) -> str:
    """An ASCII form for messages, cut."""
    told = ascii(value)
    return told if len(told) <= 120 else f"{told[:117]}..."


class StoragePathBuilder:
    """Makes the paths of known files, so that no program puts them together by itself.

    *root* stands before each: a mount, a plain directory or a URL such as `s3://bucket/prefix`; without one they are
    relative to the tree's root, as `StorageBackend` takes them. Ids and names are checked: InvalidName.

    >>> paths = StoragePathBuilder("/mnt/recfs")
    >>> paths.recording_source(5, 142)
    '/mnt/recfs/users/5/recordings/142/source.mp4'
    >>> StoragePathBuilder().transcription_topics(5, 142, version=3)
    'users/5/recordings/142/transcription/topics_v3.json'
    >>> StoragePathBuilder("s3://media/prod").asset(5, 142, "cover.png")
    's3://media/prod/users/5/recordings/142/assets/cover.png'
    >>> paths.asset(5, 142, "../../141/source.mp4")
    Traceback (most recent call last):
        ...
    recfs.client.errors.InvalidName: '../../141/source.mp4' is not a name
    """

    __slots__ = ("_root",)

    def __init__(self, root: str | os.PathLike[str] = "") -> None:
        text = os.fspath(root)
        self._root = f"{text.rstrip('/')}/" if text else ""

    def shared_thumbnail(self, name: str) -> str:
        """A thumbnail that every user sees who has none of that name."""
        return f"{self._root}shared/thumbnails/{name_of(name)}"

    def recording_source(self, user_id: Id, recording_id: Id, extension: str = ".mp4") -> str:
        """The file that was uploaded. It has one extension, whatever the file was called."""
        if (
            not re.fullmatch(r"\.[A-Za-z0-9]{1,16}", extension)
            or extension_of(f"source{extension}") != extension.lower()
        ):
            raise InvalidName(f"{_shown(extension)} is no extension such as .mp4")
        return self._in_recording(user_id, recording_id, f"source{extension}")

    def recording_video(self, user_id: Id, recording_id: Id) -> str:
        """The video that is shown."""
        return self._in_recording(user_id, recording_id, "video.mp4")

    def recording_audio(self, user_id: Id, recording_id: Id) -> str:
        """The sound of it."""
        return self._in_recording(user_id, recording_id, "audio.mp3")

    def transcription_master(self, user_id: Id, recording_id: Id) -> str:
        """The whole transcription."""
        return self._in_recording(user_id, recording_id, "transcription/master.json")

    def transcription_topics(self, user_id: Id, recording_id: Id, version: int = 1) -> str:
        """One version of the topics, from 1 on; `next_version` makes new ones."""
        try:
            number = 0 if isinstance(version, bool) else operator.index(version)  # numpy's are whole numbers, too
        except TypeError:
            number = 0
        if not 1 <= number < 10**18:
            raise InvalidName(f"{_shown(version)} is no version: they count from 1")
        return self._in_recording(user_id, recording_id, f"transcription/topics_v{number}.json")

    def transcription_subtitles(self, user_id: Id, recording_id: Id, format: str = "srt") -> str:
        """Subtitles, as "srt" or "vtt"."""
        if format not in _SUBTITLES:
            raise InvalidName(f"{_shown(format)} is no format of subtitles here: srt or vtt")
        return self._in_recording(user_id, recording_id, f"transcription/subtitles.{format}")

    def asset(self, user_id: Id, recording_id: Id, name: str) -> str:
        """What belongs to a recording besides: thumbnails, metadata."""
        return self._in_recording(user_id, recording_id, f"assets/{name_of(name)}")

    def temp_file(self, user_id: Id, job_id: Id, name: str) -> str:
        """A file of a temporary job (`temp_job`), gone a day after the last change there."""
        return f"{self._root}temp/{id_of('user', user_id)}/{id_of('job', job_id)}/{name_of(name)}"

    def delete_recording_files(self, user_id: Id, recording_id: Id) -> int:
        """Remove a recording with all that is in it; returns how many files and links these were, 0 for none.

        Links are removed and not followed. Raises OSError for what cannot be removed: the rest may be gone then.
        On a mount the files go to the trash, where that keeps anything.
        """
        folder = self._local(user_id, recording_id)
        count = sum(1 for _ in _files_below(folder))
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if folder.exists():
                raise
            return 0
        return count

    def get_recording_size(self, user_id: Id, recording_id: Id) -> int:
        """Bytes of all files of a recording, 0 for one that is not there. Raises OSError.

        On a mount they are known, and nothing is walked.
        """
        folder = self._local(user_id, recording_id)
        try:
            known = attribute(folder, "user.recfs.rbytes")
        except FileNotFoundError:
            return 0
        if known is not None:
            return int(known)
        return sum(info.st_size for info in _files_below(folder) if stat.S_ISREG(info.st_mode))

    def _in_recording(self, user_id: Id, recording_id: Id, rest: str) -> str:
        user, recording = id_of("user", user_id), id_of("recording", recording_id)
        return f"{self._root}users/{user}/recordings/{recording}/{rest}"

    def _local(self, user_id: Id, recording_id: Id) -> Path:
        if not self._root or "://" in self._root:
            raise NotAMount("that takes a builder whose root is a mount or a directory")
        return Path(self._in_recording(user_id, recording_id, "")).absolute()


def _files_below(folder: Path) -> list[os.stat_result]:
    """What is in a directory at any depth besides directories; links are not followed."""
    found: list[os.stat_result] = []
    try:
        for _, folders, names, descriptor in os.fwalk(folder, follow_symlinks=False):
            for name in folders + names:  # a link to a directory is among the directories
                try:
                    found.append(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
                except FileNotFoundError:
                    continue  # it went meanwhile
    except FileNotFoundError:
        return []
    return [info for info in found if not stat.S_ISDIR(info.st_mode)]


__all__ = ["NAME_MAX_BYTES", "PATH_MAX_BYTES", "Id", "StoragePathBuilder", "id_of", "name_of", "parts_of"]
