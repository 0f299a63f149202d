"""An object store in memory, held to the port's contract by the suite that the real ones run.

For tests of what uses the port: `fail` and `before` break or stop any call, `calls` tells what was asked, `tamper`,
`vanish` and `archive` do what others may do to a bucket behind recfs's back.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from recfs.core.migration.places import Place
from recfs.ports.object_errors import (
    ChecksumMismatch,
    KeyTooLong,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    ObjectStoreError,
    RequestRefused,
    TransferCancelled,
    UploadGone,
    UploadInvalid,
)
from recfs.ports.objects import (
    MIB,
    Cancel,
    CheckReport,
    LifecycleRule,
    ObjectInfo,
    ObjectMeta,
    PartInfo,
    Progress,
    RestoreSpeed,
    RestoreState,
    UploadInfo,
    part_size,
)
from recfs.stores.s3.meta import from_metadata, to_metadata
from tests.fake_objects import Call, Planned, Stored, Upload, checked, md5, read, sorted_parts

START_NS = 1_793_880_000_000_000_000


class FakeObjectStore:
    """The ObjectStore port. Thread-safe."""

    def __init__(self, *, smallest_part: int = 8 * MIB, tags: Mapping[str, str] | None = None) -> None:
        self.calls: list[tuple[str, str | None]] = []
        """(method, key) of every call, in order."""
        self.before: Callable[[str, str | None], None] = lambda _operation, _key: None
        """Called first in every call, outside the lock: may block or raise."""
        self.hold_parts_to_minimum = True
        """Whether finishing refuses parts below 5 MiB, as S3 does."""
        self.knows_conditions = True
        """Whether a small object is put only where there is none if asked so."""
        self.serves_archived = False
        """Whether archive classes are mere labels: such objects are read like others."""
        self.others: dict[Place, FakeObjectStore] = {}
        """Other places on the same server, from which can be copied."""
        self._smallest_part, self._tags = smallest_part, dict(tags or {})
        self._lock = threading.RLock()
        self._ids = itertools.count(1)
        self.keeps_checksums = False
        """Whether it makes a sha256 of its own of what is put in one request or by somebody else."""
        self._objects: dict[str, Stored] = {}
        self._small: dict[str, bytes] = {}
        self._uploads: dict[str, Upload] = {}
        self._rules: tuple[LifecycleRule, ...] = ()
        self._faults: list[Planned] = []

    # --- for tests -----------------------------------------------------------------------------------------------

    def fail(self, operation: str, error: Exception, *, times: int = 1, skip: int = 0, after: bool = False) -> None:
        """Let *operation* ("*": any) raise *error*, *times* times after the first *skip* calls.

        With *after* the call is carried out first: the server did it, and only the answer was lost.
        """
        self._faults.append(Planned(operation, error, times, skip, after))

    def heal(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def data(self, key: str) -> bytes:
        """The bytes of an object."""
        return self._objects[key].data

    def keys(self) -> list[str]:
        """All keys, in order."""
        return sorted(self._objects, key=str.encode)

    def tamper(self, key: str, data: bytes) -> None:
        """Replace an object as somebody else would: another etag, no metadata."""
        self._objects[key] = Stored(data, md5(data), {}, "STANDARD", {}, self._now())
        if self.keeps_checksums:
            self._objects[key].stored_sha256 = hashlib.sha256(data).digest()

    def vanish(self, key: str) -> None:
        """Delete an object as somebody else would."""
        del self._objects[key]

    def archive(self, key: str, state: RestoreState = RestoreState.ARCHIVED) -> None:
        """Move an object to an archive class."""
        self._objects[key].storage_class = "GLACIER"
        self._objects[key].restore_state = state

    def finish_restore(self, key: str) -> None:
        """The restore that was asked for is done."""
        self._objects[key].restore_state = RestoreState.RESTORED

    # --- the port ------------------------------------------------------------------------------------------------

    def head(self, key: str, *, checksum: bool = False) -> ObjectInfo | None:
        """As the port says."""
        with self._call("head", key):
            found = self._objects.get(checked(key))
            if found is None:
                return None
            info = self._info(key, found)
            return replace(info, stored_sha256=found.stored_sha256) if checksum else info

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
        """As the port says."""
        if length <= 0 or start < 0:
            raise ValueError("an empty range")
        with self._call("get_range", key):
            found = self._existing(key)
            away = found.restore_state in (RestoreState.ARCHIVED, RestoreState.RESTORING)
            if away and not self.serves_archived:
                raise ObjectArchived(f"{key}: archived")
            if if_match is not None and found.etag != if_match:
                raise ObjectChanged(f"{key}: etag {found.etag}, not {if_match}")
            data = found.data[start : start + length]
        if len(data) < length:
            raise ObjectChanged(f"{key}: has {len(found.data)} bytes")
        if cancel is not None and cancel():
            raise TransferCancelled(key)
        if isinstance(into, memoryview):
            into[:length] = data
        else:
            os.pwrite(into, data, start if at is None else at)
        return length

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
        """As the port says."""
        with self._call("put_file", key):
            data = read(fd, 0, size, progress, cancel)
            if meta.md5 not in (None, hashlib.md5(data).digest()):
                raise ChecksumMismatch(f"{key}: other bytes than meta.md5")
            if meta.sha256 not in (None, hashlib.sha256(data).digest()):
                raise ChecksumMismatch(f"{key}: other bytes than meta.sha256")
            return self._info(key, self._store(key, data, md5(data), meta))

    def part_size(self, size_bytes: int) -> int:
        """As the port says."""
        return part_size(size_bytes, self._smallest_part)

    def start_multipart(self, key: str, meta: ObjectMeta) -> str:
        """As the port says."""
        with self._call("start_multipart", key):
            upload_id = f"upload-{next(self._ids)}"
            self._uploads[upload_id] = Upload(checked(key), meta, self._now())
            return upload_id

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
        """As the port says."""
        with self._call("upload_part", key):
            upload = self._upload(key, upload_id)
            data = read(fd, offset, length, progress, cancel)
            part = PartInfo(number, md5(data), length, None)
            upload.parts[number] = (data, part)
            return part

    def finish_multipart(
        self, key: str, upload_id: str, parts: Sequence[PartInfo], meta: ObjectMeta, size: int
    ) -> ObjectInfo:
        """As the port says."""
        with self._call("finish_multipart", key):
            ordered = sorted(parts, key=lambda part: part.number)
            joined = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in ordered)).hexdigest()
            etag = f"{joined}-{len(ordered)}"
            if sum(part.size_bytes for part in ordered) != size:
                raise UploadInvalid(f"{key}: parts of another size")
            if upload_id not in self._uploads:
                found = self._objects.get(key)
                if found is None or found.etag != etag:
                    raise UploadGone(upload_id)
                return self._info(key, found)
            upload = self._upload(key, upload_id)
            if not ordered or [part for _, part in sorted_parts(upload.parts)] != ordered:
                raise UploadInvalid(f"{key}: other parts than were uploaded")
            if self.hold_parts_to_minimum and any(part.size_bytes < 5 * MIB for part in ordered[:-1]):
                raise UploadInvalid(f"{key}: a part is too small")
            data = b"".join(data for data, _ in sorted_parts(upload.parts))
            stored = self._store(key, data, etag, upload.meta)
            del self._uploads[upload_id]
            return self._info(key, stored)

    def abort_multipart(self, key: str, upload_id: str) -> None:
        """As the port says."""
        with self._call("abort_multipart", key):
            self._uploads.pop(upload_id, None)

    def list_parts(self, key: str, upload_id: str, known: Sequence[PartInfo] = ()) -> Sequence[PartInfo]:
        """As the port says."""
        with self._call("list_parts", key):
            return [part for _, part in sorted_parts(self._upload(key, upload_id).parts)]

    def list_multiparts(self, prefix: str = "") -> Sequence[UploadInfo]:
        """As the port says."""
        with self._call("list_multiparts", None):
            found = ((upload_id, upload) for upload_id, upload in self._uploads.items())
            listed = [UploadInfo(each.key, upload_id, each.initiated_ns) for upload_id, each in found]
            return sorted((each for each in listed if each.key.startswith(prefix)), key=lambda each: each.key)

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
        """As the port says."""
        elsewhere = self if origin is None else self.others[origin]
        in_place = elsewhere is self and src == dst
        if in_place and (meta is None or fresh):
            raise ValueError("a copy onto itself changes nothing without meta")
        with self._call("copy", src):
            found = elsewhere._existing(src)
            known = {} if meta is None else to_metadata(meta)
            if in_place and meta is not None and meta.sha256 and known.items() <= found.metadata.items():
                return self._info(src, found)
            if (if_match is not None and found.etag != if_match) or len(found.data) != size:
                raise ObjectChanged(f"{src}: etag {found.etag}, {len(found.data)} bytes")
            if found.restore_state in (RestoreState.ARCHIVED, RestoreState.RESTORING):
                raise ObjectArchived(src)
            if meta is None:
                made = replace(found, tags=dict(found.tags), modified_ns=self._now())
                self._objects[checked(dst)] = made
            elif fresh:
                made = self._store(dst, found.data, md5(found.data), meta)
            else:
                made = self._store(dst, found.data, md5(found.data), meta, found)
                made.metadata = {**found.metadata, **known}
            return self._info(dst, made)

    def delete(self, keys: Iterable[str]) -> Sequence[tuple[str, ObjectStoreError]]:
        """As the port says."""
        with self._call("delete", None):
            failed: list[tuple[str, ObjectStoreError]] = []
            for key in keys:
                try:
                    self._objects.pop(checked(key), None)
                    self._small.pop(key, None)
                except KeyTooLong as error:
                    failed.append((key, error))
            return failed

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """As the port says."""
        with self._call("list", None):
            found = [
                replace(self._info(key, self._objects[key]), sha256=None, md5=None, metadata={}, restore_state=None)
                for key in self.keys()
                if key.startswith(prefix) and key.encode() > after.encode()
            ]
        yield from found

    def get_small(self, key: str) -> bytes | None:
        """As the port says."""
        with self._call("get_small", key):
            return self._small.get(checked(key))

    def put_small(self, key: str, data: bytes, *, only_new: bool) -> bool:
        """As the port says. Kept apart from the objects, which tests count."""
        with self._call("put_small", key):
            if only_new and self.knows_conditions and checked(key) in self._small:
                return False
            self._small[key] = data
            return True

    def restore(self, key: str, days: int, tier: RestoreSpeed = "Standard") -> None:
        """As the port says."""
        with self._call("restore", key):
            found = self._existing(key)
            if found.restore_state is None:
                raise RequestRefused(f"{key}: not archived")
            if found.restore_state is RestoreState.ARCHIVED:
                found.restore_state = RestoreState.RESTORING

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """As the port says."""
        with self._call("set_tags", key):
            self._existing(key).tags = dict(tags)

    def get_tags(self, key: str) -> dict[str, str]:
        """As the port says."""
        with self._call("get_tags", key):
            return dict(self._existing(key).tags)

    def presign(self, key: str, method: Literal["GET", "PUT"], expires_s: int) -> str:
        """As the port says, for a server that nobody can reach."""
        if not 1 <= expires_s <= 7 * 86_400:
            raise ValueError(expires_s)
        return f"https://fake.invalid/{key}?X-Amz-Expires={expires_s}&method={method}"

    def get_lifecycle(self) -> tuple[LifecycleRule, ...]:
        """As the port says."""
        with self._call("get_lifecycle", None):
            return self._rules

    def put_lifecycle(self, rules: Sequence[LifecycleRule]) -> None:
        """As the port says."""
        with self._call("put_lifecycle", None):
            marked = (
                rule if rule.rule_id.startswith("recfs-") else replace(rule, rule_id=f"recfs-{rule.rule_id}")
                for rule in rules
            )
            self._rules = tuple(replace(rule, transitions=tuple(sorted(rule.transitions))) for rule in marked)

    def check(self) -> CheckReport:
        """As the port says."""
        with self._call("check", None):
            return CheckReport("fake", "memory", "nowhere", 0.0)

    def close(self) -> None:
        """Nothing to close."""

    # --- inside --------------------------------------------------------------------------------------------------

    def _call(self, operation: str, key: str | None) -> Call:
        self.calls.append((operation, key))
        self.before(operation, key)
        return Call(self._lock, self._due(operation))

    def _due(self, operation: str) -> tuple[Exception | None, Exception | None]:
        with self._lock:
            for fault in self._faults:
                if fault.operation not in ("*", operation):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return (None, fault.error) if fault.after else (fault.error, None)
        return None, None

    def _now(self) -> int:
        return START_NS + next(self._ids) * 10**9

    def _existing(self, key: str) -> Stored:
        found = self._objects.get(checked(key))
        if found is None:
            raise ObjectMissing(key)
        return found

    def _upload(self, key: str, upload_id: str) -> Upload:
        found = self._uploads.get(upload_id)
        if found is None or found.key != key:
            raise UploadGone(upload_id)
        return found

    def _store(self, key: str, data: bytes, etag: str, meta: ObjectMeta, old: Stored | None = None) -> Stored:
        storage_class = meta.storage_class or (old.storage_class if old else "STANDARD")
        tags = {**self._tags, **meta.tags} if meta.tags or old is None else dict(old.tags)
        made = Stored(data, etag, to_metadata(meta), storage_class, tags, self._now())
        if self.keeps_checksums and "-" not in etag:
            made.stored_sha256 = hashlib.sha256(data).digest()
        self._objects[checked(key)] = made
        return made

    def _info(self, key: str, found: Stored) -> ObjectInfo:
        known = from_metadata(found.metadata)
        return ObjectInfo(
            key=key,
            size_bytes=len(found.data),
            etag=found.etag,
            storage_class=found.storage_class,
            sha256=known.sha256,
            md5=known.md5,
            metadata=dict(found.metadata),
            last_modified_ns=found.modified_ns,
            restore_state=found.restore_state,
        )
