"""The object store port: contract and value types. Blocking calls, made from worker threads under a named limiter.

Keys are `str` and relative to the configured prefix: the key of `users/5/recordings/142/source.mp4` is just that
(`core.keys` for names that are not UTF-8). Etags are without their quotes.

Every method may be called from many threads at once, makes one attempt, and raises a class of `object_errors`. Retries
and the circuit breaker are `stores.wrap.RetryingObjectStore`, which has the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from recfs.core.migration.places import Place
from recfs.ports.object_errors import ObjectStoreError

MIB = 1 << 20
MAX_PARTS = 10_000
MAX_OBJECT_BYTES = 5 << 40
MAX_PUT_BYTES = 5 << 30
"""S3's limit for one PUT, one part, and one CopyObject."""
DELETE_BATCH = 1000
SMALL_BYTES = 64 << 10
"""What is read of an object that is small by what it is for."""
ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects cannot be read before a restore."""

RETRIEVAL_CLASSES = frozenset({"STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"})
"""Storage classes whose objects cost something each time that they are read or copied."""

Cancel = Callable[[], bool]
"""True as soon as the transfer is not wanted any more. Asked about every MiB, from the thread of the transfer."""
Progress = Callable[[int], None]
"""Told how many bytes of this call have gone out so far; falls back to 0 when an attempt starts again."""
RestoreSpeed = Literal["Standard", "Bulk", "Expedited"]


class RestoreState(StrEnum):
    """How an object of an archive class stands."""

    ARCHIVED = "archived"
    """Not readable; ask for a restore."""
    RESTORING = "restoring"
    """A restore was asked for and is under way."""
    RESTORED = "restored"
    """A readable copy exists for some days."""


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What recfs knows of a file and writes beside its bytes. None: not known, not written."""

    sha256: bytes | None = None
    md5: bytes | None = None
    original_filename: bytes | None = None
    uploaded_ns: int | None = None
    mode: int | None = None
    owner: str | None = None
    mtime_ns: int | None = None
    content_type: str | None = None
    """None: by the key's extension."""
    storage_class: str | None = None
    """None: the store's."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """In addition to the store's."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as the server describes it. A listing knows no metadata, checksums or restore state."""

    key: str
    size_bytes: int
    etag: str
    storage_class: str = "STANDARD"
    sha256: bytes | None = None
    """From the metadata: what recfs wrote there, not what the server computed."""
    md5: bytes | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    last_modified_ns: int = 0
    restore_state: RestoreState | None = None
    """None: the bytes are there for reading."""
    version_id: str | None = None
    stored_sha256: bytes | None = None
    """What the server computed of all of it when it was put there, and kept. None where it has none, or was not asked,
    or does not say."""


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One uploaded part of a multipart upload. A journal keeps all of it."""

    number: int
    etag: str
    size_bytes: int
    checksum: str | None = None
    """Base64 of the CRC32C or SHA-256 that the server confirmed; None where it confirms none."""


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """One multipart upload that was started and neither finished nor aborted."""

    key: str
    upload_id: str
    initiated_ns: int


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """One rule of the bucket's lifecycle configuration. Days count from the object's creation."""

    rule_id: str
    prefix: str = ""
    """Relative to the store's prefix."""
    enabled: bool = True
    transitions: tuple[tuple[int, str], ...] = ()
    """(days, storage class)"""
    expire_days: int | None = None
    abort_multipart_days: int | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found when all is well."""

    bucket: str
    endpoint: str
    region: str
    skew_s: float
    """Server's clock minus this machine's."""
    warnings: tuple[str, ...] = ()


def part_size(size_bytes: int, minimum_bytes: int = 8 * MIB) -> int:
    """Size of a part such that 10,000 parts are enough: at least *minimum_bytes*, a multiple of 1 MiB.

    Raises ValueError above 5 TiB (an S3 object's largest size when this was written).
    """
    if size_bytes > MAX_OBJECT_BYTES:
        raise ValueError(f"{size_bytes} bytes: an S3 object has at most {MAX_OBJECT_BYTES} (5 TiB)")
    needed = max(minimum_bytes, -(-size_bytes // MAX_PARTS))
    return -(-needed // MIB) * MIB


class ObjectReads(Protocol):
    """What is there, and its bytes."""

    def head(self, key: str, *, checksum: bool = False) -> ObjectInfo | None:
        """What the server knows of *key*; None if there is no such object (the bucket having been seen).

        *checksum*: with `stored_sha256`, where the server has that.
        """

    def get_range(
        self,
        key: str,
        start: int,
        length: int,
        *,
        if_match: str | None,
        into: memoryview | int,
        at: int | None = None,
        cancel: Cancel | None = None,
    ) -> int:
        """Read *length* > 0 bytes from *start* into a buffer, or a file descriptor at offset *at* (None: *start*).

        Returns *length*. Anything short of that is an exception, after which the target may hold some of the bytes:
        ObjectChanged if the object's etag is not *if_match* or the range lies beyond its end, ObjectMissing,
        ObjectArchived, BadAnswer.
        """

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """All objects below *prefix* with key > *after*, in order of their UTF-8 bytes."""

    def get_small(self, key: str) -> bytes | None:
        """The bytes of an object, up to SMALL_BYTES; None if there is no such object (the bucket having been seen)."""

    def get_tags(self, key: str) -> dict[str, str]:
        """The object's tags."""


class ObjectWrites(Protocol):
    """Objects in one request."""

    def put_file(
        self,
        fd: int,
        size: int,
        key: str,
        meta: ObjectMeta,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> ObjectInfo:
        """Store the first *size* bytes of *fd* in one request, confirmed by checksum or size; up to 5 GiB.

        Replaces what was there, atomically. Files of more than one `part_size` belong to the multipart calls.
        Idempotent. ChecksumMismatch also when the bytes are not those of `meta.sha256` or `meta.md5`, where the server
        can tell.
        """

    def put_small(self, key: str, data: bytes, *, only_new: bool) -> bool:
        """Write an object whole. *only_new*: only where there is none; False if there is one.

        A server that does not know the condition replaces what came up in the same moment: read it back to be sure.
        """

    def copy(
        self,
        src: str,
        dst: str,
        size: int,
        *,
        meta: ObjectMeta | None = None,
        if_match: str | None = None,
        fresh: bool = False,
        origin: Place | None = None,
        cancel: Cancel | None = None,
    ) -> ObjectInfo:
        """Copy on the server: within the bucket, or from *origin*, to whose prefix *src* is relative then.

        *meta* None keeps metadata, content type, storage class and tags.
        With *meta* what it knows is new, and the content type is by *dst*; all else stays, as others may have set it;
        with *fresh*, nothing of that stays: it is an object as `put_file` makes it with this *meta*, of other bytes.
        *src* = *dst* does so in place, and is idempotent by its outcome: an object of this size that has just *meta*,
        its `sha256` among it, is the copy, whatever its etag. ObjectMissing; ObjectChanged if the source's etag is not
        *if_match* or its size not *size*.
        """

    def delete(self, keys: Iterable[str]) -> Sequence[tuple[str, ObjectStoreError]]:
        """Delete objects, 1000 a request. Returns those that failed; a missing one has not failed."""

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Replace all tags of the object."""

    def restore(self, key: str, days: int, tier: RestoreSpeed = "Standard") -> None:
        """Ask for a readable copy of an archived object. Fine if one was asked for already. NotOffered."""


class MultipartUploads(Protocol):
    """Objects part by part."""

    def part_size(self, size_bytes: int) -> int:
        """`part_size` with the configured minimum."""

    def start_multipart(self, key: str, meta: ObjectMeta) -> str:
        """Begin a multipart upload; the id is to be recorded before the first part. Repeating it leaves an orphan."""

    def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        fd: int,
        offset: int,
        length: int,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> PartInfo:
        """Send part *number* (from 1), confirmed by checksum. Replaces an earlier part of that number. UploadGone."""

    def finish_multipart(
        self, key: str, upload_id: str, parts: Sequence[PartInfo], meta: ObjectMeta, size: int
    ) -> ObjectInfo:
        """Make the object of all parts and confirm its size and etag. Idempotent: finishing twice is fine.

        UploadInvalid if the parts do not fit, UploadGone if the upload is unknown and no such object stands there.
        """

    def abort_multipart(self, key: str, upload_id: str) -> None:
        """Drop the upload and its parts. Fine if it is gone already."""

    def list_parts(self, key: str, upload_id: str, known: Sequence[PartInfo] = ()) -> Sequence[PartInfo]:
        """Parts that the server has, by number. UploadGone.

        *known*: those that an earlier process sent and recorded. They tell with which checksums the upload began, and
        so has to go on; not every server does.
        """

    def list_multiparts(self, prefix: str = "") -> Sequence[UploadInfo]:
        """Uploads under way below *prefix*."""


class Bucket(Protocol):
    """What is not about one object, or is done by others with it."""

    def check(self) -> CheckReport:
        """Reach the bucket with these credentials. Raises the one exception that says what is wrong and what helps."""

    def presign(self, key: str, method: Literal["GET", "PUT"], expires_s: int) -> str:
        """A URL that reads or writes the object without credentials for *expires_s* (1..604800) seconds. No request."""

    def get_lifecycle(self) -> tuple[LifecycleRule, ...]:
        """recfs's own rules in the bucket."""

    def put_lifecycle(self, rules: Sequence[LifecycleRule]) -> None:
        """Replace recfs's own rules, leaving those of others as they are, and read them back to be sure."""

    def close(self) -> None:
        """Drop idle connections; calls under way go on."""


class ObjectStore(ObjectReads, ObjectWrites, MultipartUploads, Bucket, Protocol):
    """Objects in one bucket below one prefix."""


__all__ = [
    "ARCHIVE_CLASSES",
    "DELETE_BATCH",
    "MAX_OBJECT_BYTES",
    "MAX_PARTS",
    "MAX_PUT_BYTES",
    "MIB",
    "RETRIEVAL_CLASSES",
    "SMALL_BYTES",
    "Bucket",
    "Cancel",
    "CheckReport",
    "LifecycleRule",
    "MultipartUploads",
    "ObjectInfo",
    "ObjectMeta",
    "ObjectReads",
    "ObjectStore",
    "ObjectWrites",
    "PartInfo",
    "Progress",
    "RestoreSpeed",
    "RestoreState",
    "UploadInfo",
    "part_size",
]
