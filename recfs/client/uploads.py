"""Upload hygiene: what front ends do with the names, kinds and sizes that strangers send them.

What a file was called, its MIME type and the time of its upload are kept with it as extended attributes
(`note_upload`), which anybody who may write the file may set: they are what the uploader said, and proven by nobody.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from recfs.client.errors import InvalidName, UploadRefused
from recfs.client.folding import fold

MEDIA_TYPES: Final = {
    ".3gp": "video/3gpp",
    ".aac": "audio/aac",
    ".avi": "video/x-msvideo",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".ts": "video/mp2t",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".wmv": "video/x-ms-wmv",
}
"""MIME types of media files by their extension."""
OTHER_TYPES: Final = {
    ".csv": "text/csv",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".png": "image/png",
    ".srt": "application/x-subrip",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".webp": "image/webp",
}
ALLOWED_EXTENSIONS: Final = frozenset(MEDIA_TYPES)
"""What may be uploaded as a recording's source unless something else is said."""

NAME_BYTES: Final = 128
"""How long a name becomes at most: with what programs put before and behind it, it stays below NAME_MAX (255)."""
_EXTENSION_CHARS = 16
_HASH_DIGITS = 10

_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")
_EDGES = "-_."
_WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$|clock\$)", re.IGNORECASE)
"""Device names of Windows, whatever their extension: nobody could download such a file there."""
_TEMPORARY = frozenset({".tmp", ".part", ".partial", ".crdownload"})
"""Endings by which recfs knows files that are still being written: they are not uploaded to S3."""

ORIGINAL_NAME: Final = "user.original_name"
MIME_TYPE: Final = "user.mime_type"
"""The attribute's name is freedesktop.org's (Shared MIME-info Database, "Storing the MIME type using Extended
Attributes")."""
UPLOAD_TIME: Final = "user.upload_time"
_VALUE_BYTES = 4096


def extension_of(name: str) -> str:
    """Give the last extension of a name in small letters, with its dot; "" where it has none.

    >>> extension_of("Holiday.Final.MP4"), extension_of(".hidden"), extension_of("README")
    ('.mp4', '', '')
    """
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if stem and dot and extension else ""


def mime_type_of(name: str) -> str:
    """Give the MIME type that a name promises; application/octet-stream for what is not known here.

    >>> mime_type_of("a.MOV"), mime_type_of("a.exe")
    ('video/quicktime', 'application/octet-stream')
    """
    extension = extension_of(name)
    return MEDIA_TYPES.get(extension) or OTHER_TYPES.get(extension) or "application/octet-stream"


def sanitize_name(name: str | bytes, *, max_bytes: int = NAME_BYTES, fallback: str = "file") -> str:
    """Make a name that is safe everywhere of whatever somebody sent: letters, digits, dash, underscore and dot.

    What stands before the last slash or backslash is dropped; letters of other alphabets are folded to ASCII, anything
    else becomes a dash. It never begins with a dot or a dash, is never empty (then *fallback*), never a device name of
    Windows nor one that recfs takes for a file still being written, and has *max_bytes* at most, with its extension.
    The same name always becomes the same, and what is safe already stays as it is. *fallback* has to be safe itself.

    >>> sanitize_name("C:\\\\fakepath\\\\Интервью (финал).mp4")
    'Intervyu-final.mp4'
    >>> [sanitize_name(each) for each in ("../../etc/passwd", "\\u202egpj.exe\\0", "con.mp4", "☃")]
    ['passwd', 'gpj.exe', 'con_.mp4', 'file']
    """
    if (
        max_bytes < _EXTENSION_CHARS + 8
        or not fallback
        or _OTHERS.search(fallback)
        or fallback != fallback.strip("._-")
    ):
        raise ValueError(f"max_bytes is at least {_EXTENSION_CHARS + 8}, and fallback a safe name")
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    text = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    text = re.sub(r"[^\S ]|[\ud800-\udfff]", " ", text)
    text = "".join(char for char in text if char.isprintable())
    text = _OTHERS.sub("-", fold(text))
    text = re.sub(r"\.{2,}", ".", text)
    while (safe := _made_safe(text, max_bytes, fallback)) != text:  # what is cut or stripped may end in something new
        text = safe
    return safe


def _made_safe(text: str, max_bytes: int, fallback: str) -> str:
    stem, extension = _parted(text)
    stem = re.sub(r"-{2,}", "-", stem)[: max_bytes - len(extension) - 1].strip(_EDGES) or fallback
    if _WINDOWS.fullmatch(stem.partition(".")[0]):
        head, dot, rest = stem.partition(".")
        stem = f"{head}_{dot}{rest}"
    return stem + extension


def _parted(text: str) -> tuple[str, str]:
    """Stem and extension; a long or odd "extension" belongs to the stem, and so does one that says "unfinished"."""
    text = text.strip("-_ ").rstrip(".")
    stem, dot, extension = text.rpartition(".")
    fits = dot and extension.isalnum() and len(extension) < _EXTENSION_CHARS
    if not fits:
        return text, ""
    if f".{extension.lower()}" in _TEMPORARY:
        return f"{stem}-{extension}", ""
    return stem, f".{extension}"


def upload_name(
    project: str | int, filename: str | bytes, timestamp: str | int | datetime, *, max_bytes: int = NAME_BYTES
) -> str:
    """Give an upload its name: `{stem}-{first 10 hex digits of sha1(project:filename:timestamp)}{ext}`.

    The same upload always has the same. The stem is the sanitised one, the checksum is of what was sent, as UTF-8 in
    Unicode's form NFC: a Mac sends letters with marks in pieces (NFD), and means the same name. A
    *timestamp* that is a datetime is taken in UTC, as `2026-11-29T16:42:42+00:00`; one without a time zone is refused.

    >>> upload_name("demo", "My Holiday.mp4", 1796056962)
    'My-Holiday-8b1d8162fb.mp4'
    """
    safe = sanitize_name(filename, max_bytes=max_bytes - _HASH_DIGITS - 1)
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ValueError("a timestamp needs its time zone")
        timestamp = timestamp.astimezone(UTC).isoformat()
    told = b":".join((_composed(str(project)), _composed(filename), _composed(str(timestamp))))
    digits = hashlib.sha1(told, usedforsecurity=False).hexdigest()[:_HASH_DIGITS]
    stem, extension = _parted(safe)
    return f"{stem}-{digits}{extension}"


def _bytes_of(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _composed(text: str | bytes) -> bytes:
    """In NFC, as UTF-8; what is no UTF-8 as it is."""
    told = _bytes_of(text)
    try:
        return unicodedata.normalize("NFC", told.decode("utf-8")).encode("utf-8")
    except UnicodeDecodeError:
        return told


def check_upload(
    filename: str,
    size_bytes: int | None = None,
    *,
    allowed: Collection[str] = ALLOWED_EXTENSIONS,
    max_bytes: int | None = None,
) -> None:
    """Raise UploadRefused for an upload of another kind than *allowed* ones, an empty one, or a larger one.

    *allowed* are extensions in small letters with their dots. A size that is not known yet is None: then limit what is
    read (`StorageBackend.save` has `max_bytes`).

    >>> check_upload("talk.MOV", 700, max_bytes=1000)
    >>> check_upload("talk.exe")
    Traceback (most recent call last):
        ...
    recfs.client.errors.UploadRefused: 'talk.exe': files of this kind are not taken, but .3gp, .aac, .avi, .flac, ...
    """
    if extension_of(filename) not in allowed:
        raise UploadRefused(f"{filename[:200]!a}: files of this kind are not taken, but {', '.join(sorted(allowed))}")
    if size_bytes is not None and size_bytes <= 0:
        raise UploadRefused(f"{filename[:200]!a} is empty")
    if size_bytes is not None and max_bytes is not None and size_bytes > max_bytes:
        raise UploadRefused(f"{filename[:200]!a} has {size_bytes:,} bytes; at most {max_bytes:,} are taken")


@dataclass(frozen=True, slots=True)
class Upload:
    """What is kept of an upload besides its bytes."""

    original_name: str
    """As it was sent, whatever it is: escape it wherever it is shown."""
    mime_type: str = ""
    """"" for what the name promises."""
    uploaded_at: datetime | None = None
    """With its time zone; None for now."""

    def attributes(self) -> dict[str, bytes]:
        """The extended attributes that say so. Raises InvalidName for what is no MIME type or too long."""
        name = _bytes_of(self.original_name)
        mime = self.mime_type or mime_type_of(self.original_name)
        if len(name) > _VALUE_BYTES:
            raise InvalidName(f"an original name of {len(name):,} bytes; at most {_VALUE_BYTES:,} are kept")
        if not re.fullmatch(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}", mime):  # RFC 6838, section 4.2
            raise InvalidName(f"{mime[:80]!a} is no MIME type")
        at = datetime.now(UTC) if self.uploaded_at is None else self.uploaded_at
        if at.tzinfo is None:
            raise ValueError("uploaded_at needs its time zone")
        told = at.astimezone(UTC).isoformat(timespec="seconds")
        return {ORIGINAL_NAME: name, MIME_TYPE: mime.encode(), UPLOAD_TIME: told.encode()}


def note_upload(path: str | os.PathLike[str] | int, upload: Upload) -> None:
    """Keep with a file what it was called, its MIME type and when it came. *path* may be a descriptor.

    Raises InvalidName, and OSError: ENOTSUP where the file system keeps no attributes.
    """
    for name, value in upload.attributes().items():
        os.setxattr(path, name, value)


def noted_upload(path: str | os.PathLike[str] | int) -> Upload | None:
    """Give what was kept of the upload that a file came by; None where nothing was. Raises OSError."""
    return upload_of(lambda name: attribute(path, name))


def upload_of(read: Callable[[str], bytes | None]) -> Upload | None:
    """Give what was kept of an upload, as `noted_upload` does; *read* gives an attribute by its name."""
    name = read(ORIGINAL_NAME)
    if name is None:
        return None
    mime, at = read(MIME_TYPE) or b"", read(UPLOAD_TIME) or b""
    try:
        when = datetime.fromisoformat(at.decode("ascii"))
    except ValueError:
        when = None
    return Upload(os.fsdecode(name), mime.decode("ascii", "replace"), when)


_NONE = (errno.ENODATA, errno.EOPNOTSUPP)


def attribute(path: str | os.PathLike[str] | int, name: str) -> bytes | None:
    """Give an extended attribute, None where there is none of that name. Raises OSError."""
    try:
        return os.getxattr(path, name)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise


__all__ = [
    "ALLOWED_EXTENSIONS",
    "MEDIA_TYPES",
    "MIME_TYPE",
    "NAME_BYTES",
    "ORIGINAL_NAME",
    "UPLOAD_TIME",
    "Upload",
    "attribute",
    "check_upload",
    "extension_of",
    "mime_type_of",
    "note_upload",
    "noted_upload",
    "sanitize_name",
    "upload_name",
    "upload_of",
]
