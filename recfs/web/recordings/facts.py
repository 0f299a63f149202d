"""What lists tell of recordings and of what is in them. Blocking calls, for threads."""

from __future__ import annotations

import os
import stat
from typing import Any, Final

from recfs.client.file_facts import WHOLE
from recfs.client.media import told_media
from recfs.client.uploads import mime_type_of
from recfs.web.answers import href
from recfs.web.recordings.attributes import Attributes
from recfs.web.recordings.thumbnail import IN_ASSETS, PICTURES

_NAMED: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = _NAMED | os.O_DIRECTORY
"""Reached and asked for its attributes, and not opened: a mount is asked for nothing more (O_PATH, open(2))."""
_SOURCE: Final = "source."
_VIDEO: Final = "video.mp4"


def entry_of(folder: int, name: str, user: str, recording: str, above: tuple[str, ...]) -> dict[str, Any] | None:
    """Tell of one entry of a directory; None for what is neither file nor directory, or went meanwhile.

    The file is not opened (O_PATH, open(2)): it counts as used by nobody, and need not be readable.
    """
    try:
        file = os.open(name, _NAMED, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        info = os.fstat(file)
        if stat.S_ISDIR(info.st_mode):
            return _folder(name, info, user, recording, above)
        if not stat.S_ISREG(info.st_mode):
            return None
        return _file(_attributes(file), info, name, user, recording, above)
    finally:
        os.close(file)


def _attributes(named: int) -> Attributes:
    """Those of what is reached by a descriptor of O_PATH, which calls of attributes do not take."""
    return Attributes(f"/proc/self/fd/{named}")


def _folder(name: str, info: os.stat_result, user: str, recording: str, above: tuple[str, ...]) -> dict[str, Any]:
    return {
        "kind": "directory",
        "name": name,
        "path": "/".join((*above, name)),
        "href": href("users", user, "recordings", recording, *above, name),
        "modified_ns": info.st_mtime_ns,
    }


def _file(
    known: Attributes, info: os.stat_result, name: str, user: str, recording: str, above: tuple[str, ...]
) -> dict[str, Any]:
    state = known.text("state")
    media, tags = told_media(known.text("media_facts"))
    upload = known.upload()
    said = upload.mime_type if upload is not None else ""
    whole = state is None or state in WHOLE
    return {
        "kind": "file",
        "name": name,
        "path": "/".join((*above, name)),
        "href": href("users", user, "recordings", recording, *above, name),
        "size_bytes": info.st_size,
        "modified_ns": info.st_mtime_ns,
        "state": state or "committed",
        "location": known.text("location") or "local",
        "sha256": known.text("sha256") if whole else None,
        "mime": str(media.get("mime") or said or mime_type_of(name)),
        "media": media,
        "tags": tags,
        "verdict": known.text("media"),
        "status": known.text("status"),
        "original_name": upload.original_name if upload is not None else None,
        "uploaded_at": upload.uploaded_at.isoformat() if upload is not None and upload.uploaded_at else None,
    }


def recording_facts(recordings: int, recording: str, user: str) -> dict[str, Any] | None:
    """Tell of one recording in the directory of a user's. Raises OSError.

    None for one that went meanwhile, or that the gateway's user may not look into.
    """
    try:
        folder = os.open(recording, _FOLDER, dir_fd=recordings)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        try:
            known = _attributes(folder)
            names = known.names()
        except PermissionError:
            return None
        principal = _principal(names)
        source = None if principal is None else entry_of(folder, principal, user, recording, ())
        info = os.fstat(folder)
        return {
            "id": recording,
            "user": user,
            "href": href("users", user, "recordings", recording),
            "modified_ns": info.st_mtime_ns,
            "size_bytes": known.number("rbytes"),
            "files": known.number("rfiles"),
            "status": known.text("status") or "active",
            "expires_at": known.text("expires_at"),
            "keep": known.text("keep") == "1",
            "source": source if source is not None and source["kind"] == "file" else None,
            "thumbnail": href("users", user, "recordings", recording, "thumbnail"),
            "has_thumbnail": _has_picture(folder, names),
        }
    finally:
        os.close(folder)


def _has_picture(folder: int, names: list[str]) -> bool:
    """Whether a recording has a picture of its own, or one that was made from it."""
    if any(each in names for each in PICTURES):
        return True
    if "assets" not in names:
        return False
    try:
        assets = os.open("assets", _FOLDER, dir_fd=folder)
    except OSError:
        return False
    try:
        return not set(IN_ASSETS).isdisjoint(_attributes(assets).names())
    except PermissionError:
        return False
    finally:
        os.close(assets)


def _principal(names: list[str]) -> str | None:
    """The file that a recording is known by: its source, else the video."""
    sources = sorted(name for name in names if name.startswith(_SOURCE) and name != _SOURCE)
    return sources[0] if sources else (_VIDEO if _VIDEO in names else None)


__all__ = ["entry_of", "recording_facts"]
