"""What is known of a file: asked of recfs on a mount, computed on a plain directory."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from recfs.client.errors import CommitTimeout, NotCommitted
from recfs.client.media import Value, computed_media, told_media
from recfs.client.places import store_root
from recfs.client.uploads import attribute, mime_type_of, noted_upload
from recfs.client.waiting import checkpoint, in_thread, sleep

WHOLE: Final = frozenset({"committed", "uploading", "stored", "evicted", "fetching", "archived"})
"""States in which a file is whole and its checksum known (docs/semantics.md, section 8)."""
_COMING: Final = frozenset({"writing", "sealing"})
_BLOCK_BYTES = 1 << 20
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.01, 0.25
_NUDGE_S = 0.2
"""A file that is written again and again is sealed later, unless somebody asks for its checksum (semantics, 8.6)."""
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one file at one moment."""

    path: str
    state: str
    """As recfs has it; "committed" on a plain directory."""
    size_bytes: int
    mtime_ns: int
    sha256: str | None
    """In hex; None while a file is being written, and of one that is incomplete."""
    md5: str | None
    mime_type: str
    """What the media registry found, else what the uploader said, else what the name promises."""
    location: str
    """Where its bytes are: "local", "staging", "local,s3", "partial,s3" or "s3"."""
    object_key: str | None
    """Of its object in S3, below the store's prefix."""
    original_name: str | None
    """As the uploader sent it: escape it wherever it is shown."""
    uploaded_at: datetime | None
    """When it came, as whoever took it noted."""
    media: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    """What is in it: container, mime, duration_s, bitrate, video_codec, width, height, frame_rate, audio_codec,
    sample_rate, channels; what is not known is left out."""
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Title, artist and so on, as whoever made the file wrote them; on a mount alone."""
    verdict: str | None = None
    """Whether it is a whole recording (user.recfs.media): None where nobody has looked."""
    status: str | None = None
    """Where it stands, in the words of applications (user.recfs.status); on a mount alone."""

    @property
    def whole(self) -> bool:
        """Whether all its bytes are committed."""
        return self.state in WHOLE


def facts(path: str | os.PathLike[str], *, media: bool = True) -> Facts:
    """Give what is known of a file.

    On a mount all is asked of recfs; nothing is read, and a file that is being sealed is waited for (30 s at most, then
    its checksums are None). On a plain directory it is read once for its checksums and, with *media*, looked into by
    ffprobe if there is one. Raises OSError; IsADirectoryError for what is no regular file.

    >>> found = facts(folder / "video.mp4")
    >>> found.size_bytes, found.mime_type, found.state, found.sha256[:12]
    (5, 'video/mp4', 'committed', '2cf24dba5fb0')
    """
    where = os.fspath(path)
    info = os.stat(where)
    if not stat.S_ISREG(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a regular file", where)
    return _told(where, media=media) if store_root(where) is not None else _computed(where, media=media)


def _text(path: str, name: str) -> str | None:
    value = attribute(path, f"user.recfs.{name}")
    return None if value is None else os.fsdecode(value)


def _checksum(path: str, name: str) -> str | None:
    """A checksum, when it is there; None while it takes longer, or where recfs has none."""
    try:
        return _text(path, name)
    except BlockingIOError:
        return None


def _told(path: str, *, media: bool) -> Facts:
    sha256 = _checksum(path, "sha256")
    md5 = None if sha256 is None else _checksum(path, "md5")
    state = _text(path, "state") or "writing"
    found, tags = told_media(_text(path, "media_facts")) if media else ({}, {})
    verdict, status = (_text(path, "media"), _text(path, "status")) if media else (None, None)
    location, key = _text(path, "location") or "local", _text(path, "object_key")
    told = _facts(path, os.stat(path), state, sha256, md5, location, found, key)
    return replace(told, tags=MappingProxyType(tags), verdict=verdict, status=status)


def _computed(path: str, *, media: bool) -> Facts:
    info = os.stat(path)
    for _ in range(_TRIES):
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            while block := file.read(_BLOCK_BYTES):
                sha256.update(block)
                md5.update(block)
            found = computed_media(file.fileno(), path) if media else {}
            info = os.fstat(file.fileno())
        if (info.st_size, info.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
            return _facts(path, info, "committed", sha256.hexdigest(), md5.hexdigest(), "local", found, None)
    return _facts(path, info, "writing", None, None, "local", {}, None)  # somebody goes on writing


def _facts(
    path: str, info: os.stat_result, state: str, sha256: str | None, md5: str | None, location: str,
    media: Mapping[str, Value], object_key: str | None,
) -> Facts:  # fmt: skip
    upload = noted_upload(path)
    said = upload.mime_type if upload is not None else ""
    mime = str(media.get("mime") or said or mime_type_of(os.path.basename(path)))
    return Facts(
        path, state, info.st_size, info.st_mtime_ns, sha256, md5, mime, location, object_key,
        None if upload is None else upload.original_name, None if upload is None else upload.uploaded_at,
        MappingProxyType(dict(media)),
    )  # fmt: skip


class _Look:
    """How far a file on a mount is, look by look; used in threads."""

    def __init__(self, path: str | os.PathLike[str], timeout_s: float) -> None:
        self._path = os.fspath(path)
        self._began_s = time.monotonic()
        self._timeout_s = timeout_s
        self._asked = False
        self.pause_s = _FIRST_WAIT_S

    def done(self) -> bool:
        """Whether the file is committed. Raises NotCommitted, CommitTimeout, OSError."""
        info = os.stat(self._path)
        state = _text(self._path, "state")
        if state is None:
            if not stat.S_ISREG(info.st_mode) or store_root(self._path) is not None:
                raise IsADirectoryError(errno.EISDIR, "not a regular file", self._path)
            return True
        if state in WHOLE:
            return True
        if state not in _COMING:
            raise NotCommitted(f"{self._path} is {state}, and will not be committed by itself")
        passed_s = time.monotonic() - self._began_s
        if passed_s >= self._timeout_s:
            raise CommitTimeout(f"{self._path} is still {state} after {passed_s:.1f} s")
        if state == "sealing" and passed_s > _NUDGE_S and not self._asked:
            self._asked = True
            threading.Thread(target=_ask, args=(self._path,), daemon=True).start()
        self.pause_s = min(self.pause_s * 1.5, _LONGEST_WAIT_S, max(self._timeout_s - passed_s, 0.001))
        return False


def _ask(path: str) -> None:
    """Ask for a checksum, which has the file sealed now. It waits in the kernel for up to 30 s, so in a thread."""
    try:
        os.getxattr(path, "user.recfs.sha256")
    except OSError:
        pass  # whoever waits looks at the state


def wait_committed(path: str | os.PathLike[str], timeout_s: float = 60.0, *, media: bool = True) -> Facts:
    """Wait until a file is committed: all its bytes on stable storage, with their checksum. Gives its facts.

    A file that is being written is waited for until its writers have closed it. On a plain directory nothing is waited
    for: its facts are computed. Raises CommitTimeout, NotCommitted for one that will not come (incomplete, corrupt),
    and OSError: FileNotFoundError when it is removed or renamed meanwhile.

    >>> wait_committed(folder / "video.mp4").whole
    True
    """
    look = _Look(path, timeout_s)
    while not look.done():
        time.sleep(look.pause_s)
    return facts(path, media=media)


async def wait_committed_async(path: str | os.PathLike[str], timeout_s: float = 60.0, *, media: bool = True) -> Facts:
    """`wait_committed` for coroutines."""
    look = _Look(path, timeout_s)
    await checkpoint()
    while not await in_thread(look.done):
        await sleep(look.pause_s)
    return await in_thread(lambda: facts(path, media=media))


async def facts_async(path: str | os.PathLike[str], *, media: bool = True) -> Facts:
    """`facts` for coroutines."""
    await checkpoint()
    return await in_thread(lambda: facts(path, media=media))


__all__ = ["WHOLE", "Facts", "facts", "facts_async", "wait_committed", "wait_committed_async"]
