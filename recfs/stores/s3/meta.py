"""What recfs writes beside the bytes: object metadata, content type, tags; and reading it back.

Metadata values travel in HTTP headers, so they are ASCII; the original file name is percent-encoded, byte for byte.
`mtime` is seconds with a fraction, as s3fs and rclone write it; `mode` is octal, permission bits only.
"""

from __future__ import annotations

import base64
import mimetypes
import re
import urllib.parse
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from recfs.core.bounds import time_ns
from recfs.ports.objects import ARCHIVE_CLASSES, ObjectInfo, ObjectMeta, RestoreState

_T = TypeVar("_T")

SHA256, MD5 = "checksum-sha256", "checksum-md5"
ORIGINAL_FILENAME, UPLOAD_TIMESTAMP = "original-filename", "upload-timestamp"
MODE, OWNER, MTIME = "mode", "owner", "mtime"

_ONGOING = re.compile(r'ongoing-request="(true|false)"')
_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")
_DIGESTS = {size: re.compile(rf"[0-9a-fA-F]{{{2 * size}}}") for size in (16, 32)}
"""By size in bytes. Compiled once: an import reads the metadata of a hundred thousand objects."""
_MODE = re.compile(r"[0-7]{1,7}")
_SECONDS = re.compile(r"-?\d{1,12}(\.\d+)?")
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z")

# mimetypes without the machine's own tables: the same name gets the same type everywhere.
_TYPES = mimetypes.MimeTypes(filenames=())
for _extension, _type in {
    ".aac": "audio/aac",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".m4s": "video/iso.segment",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".mkv": "video/x-matroska",
    ".mpd": "application/dash+xml",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".srt": "application/x-subrip",
    ".ts": "video/mp2t",
    ".vtt": "text/vtt",
    ".webp": "image/webp",
}.items():
    _TYPES.add_type(_type, _extension)


def content_type(key: str) -> str:
    """Media type by the extension of *key*."""
    kind, encoding = _TYPES.guess_type(key.rsplit("/", 1)[-1].lower())
    return kind if kind and not encoding else "application/octet-stream"


def to_metadata(meta: ObjectMeta) -> dict[str, str]:
    """User metadata (without x-amz-meta-) for *meta*."""
    found: dict[str, str] = {}
    if meta.sha256 is not None:
        found[SHA256] = meta.sha256.hex()
    if meta.md5 is not None:
        found[MD5] = meta.md5.hex()
    if meta.original_filename is not None:
        found[ORIGINAL_FILENAME] = urllib.parse.quote_from_bytes(meta.original_filename, safe="")
    if meta.uploaded_ns is not None:
        # A float has no room for nanoseconds: the fraction is written as digits.
        seconds, fraction = divmod(meta.uploaded_ns, 10**9)
        found[UPLOAD_TIMESTAMP] = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
    if meta.mode is not None:
        found[MODE] = f"{meta.mode & 0o7777:04o}"
    if meta.owner is not None:
        found[OWNER] = urllib.parse.quote(meta.owner, safe=":")
    if meta.mtime_ns is not None:
        sign, size = ("-", -meta.mtime_ns) if meta.mtime_ns < 0 else ("", meta.mtime_ns)
        found[MTIME] = f"{sign}{size // 10**9}.{size % 10**9:09d}"
    return found


def from_metadata(metadata: Mapping[str, str]) -> ObjectMeta:
    """What the metadata of an object says; what is missing or unreadable is None (others may have written it)."""
    name, owner = metadata.get(ORIGINAL_FILENAME), metadata.get(OWNER)
    return ObjectMeta(
        sha256=_digest(metadata.get(SHA256), 32),
        md5=_digest(metadata.get(MD5), 16),
        original_filename=None if name is None else urllib.parse.unquote_to_bytes(name),
        uploaded_ns=_timestamp(metadata.get(UPLOAD_TIMESTAMP)),
        mode=_matched(_MODE, metadata.get(MODE), lambda text: int(text, 8) & 0o7777),
        owner=None if owner is None else urllib.parse.unquote(owner),
        mtime_ns=_matched(_SECONDS, metadata.get(MTIME), _nanoseconds),
    )


def info_of(key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    """ObjectInfo from an answer to HEAD."""
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    storage_class = answer.get("StorageClass") or "STANDARD"
    return ObjectInfo(
        key=key,
        size_bytes=int(answer["ContentLength"]),
        etag=unquoted(answer["ETag"]),
        storage_class=storage_class,
        sha256=_digest(metadata.get(SHA256), 32),
        md5=_digest(metadata.get(MD5), 16),
        metadata=metadata,
        last_modified_ns=modified_ns(answer),
        restore_state=restore_state(storage_class, answer.get("Restore"), answer.get("ArchiveStatus")),
        version_id=answer.get("VersionId"),
        stored_sha256=_whole_sha256(answer),
    )


def _whole_sha256(answer: Mapping[str, Any]) -> bytes | None:
    """The server's own checksum of the whole object; None where there is none, or one of the checksums of its parts.

    Those have the number of parts behind a dash (S3 User Guide, "Checking object integrity").
    """
    if answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    try:
        found = base64.b64decode(answer.get("ChecksumSHA256", ""), validate=True)
    except ValueError:
        return None
    return found if len(found) == 32 else None


def modified_ns(answer: Mapping[str, Any]) -> int:
    """LastModified in nanoseconds; 0 if the server does not say."""
    modified = answer.get("LastModified")
    return int(modified.timestamp()) * 10**9 + modified.microsecond * 1000 if modified else 0


def restore_state(storage_class: str, restore: str | None, archive_status: str | None = None) -> RestoreState | None:
    """State by the headers x-amz-storage-class, x-amz-restore and x-amz-archive-status (S3 API, HeadObject)."""
    if restore is not None and (found := _ONGOING.search(restore)):
        return RestoreState.RESTORING if found[1] == "true" else RestoreState.RESTORED
    if storage_class in ARCHIVE_CLASSES or archive_status:
        return RestoreState.ARCHIVED
    return None


def unquoted(etag: str) -> str:
    """An etag without its quotes."""
    return etag.strip('"')


def plain_md5(etag: str) -> bytes | None:
    """The MD5 that an etag of this form stands for (unless KMS encryption made it something else)."""
    return bytes.fromhex(etag) if _PLAIN_MD5.fullmatch(etag) else None


def b64(digest: bytes) -> str:
    """As checksum headers want it."""
    return base64.b64encode(digest).decode("ascii")


def tagging(tags: Mapping[str, str]) -> str:
    """Tags as the x-amz-tagging header wants them; a space as %20, for Ceph takes a plus sign for one."""
    return urllib.parse.urlencode(tags, quote_via=urllib.parse.quote)


def _digest(text: str | None, size_bytes: int) -> bytes | None:
    return _matched(_DIGESTS[size_bytes], text, bytes.fromhex)


def _timestamp(text: str | None) -> int | None:
    if text is None or not (found := _TIMESTAMP.fullmatch(text)):
        return None
    try:
        seconds = int(datetime.fromisoformat(found[1] + "+00:00").timestamp())
    except ValueError:
        return None
    return seconds * 10**9 + int((found[2] or ".")[1:].ljust(9, "0"))


def _nanoseconds(text: str) -> int:
    whole, _, fraction = text.lstrip("-").partition(".")
    value = int(whole) * 10**9 + int(fraction[:9].ljust(9, "0"))
    return time_ns(-value if text.startswith("-") else value)


def _matched(pattern: re.Pattern[str], text: str | None, parse: Callable[[str], _T]) -> _T | None:
    return parse(text) if text is not None and pattern.fullmatch(text) else None
