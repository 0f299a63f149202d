"""Backups of the catalogue in the bucket, below a key of recfs's own. Blocking, for threads.

As on a disk, one is there when its header is: that is written last and removed first. What has none is cleared away by
the next one; an upload in parts that nobody ended is aborted by it, too.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from recfs.core.upkeep.backups import BUCKET_FOLDER, HEADER, Header, Kept, header_of, is_given, read_header
from recfs.errors import BackupDamaged, Interrupted
from recfs.ports.object_errors import ObjectStoreError
from recfs.ports.objects import ObjectMeta

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from recfs.ports.backups import Stopped
    from recfs.ports.objects import ObjectStore, PartInfo

RANGE_BYTES = 8 << 20
_TYPE = "application/octet-stream"


class BucketBackups:
    """Those of one store. Who changes anything has seen before that the prefix is this store's."""

    def __init__(self, objects: ObjectStore, place: str) -> None:
        """*place*: the prefix, for people."""
        self._objects = objects
        self.place = f"{place.rstrip('/')}/{BUCKET_FOLDER.rstrip('/')}"

    def kept(self, store: str | None = None) -> list[Kept]:
        """The backups there, oldest first; *store*: of that one only. Raises what S3 answers."""
        found = []
        for info in self._objects.list(BUCKET_FOLDER):
            name = info.key.removeprefix(BUCKET_FOLDER)
            if name.endswith(HEADER) or "/" in name:
                continue
            data = self._objects.get_small(BUCKET_FOLDER + header_of(name))
            header = read_header(data) if data is not None else None
            if header is None or header.name != name or store not in (None, "", header.contents.store):
                continue
            size = header.size_bytes
            damage = None if info.size_bytes == size else f"it has {info.size_bytes:,} bytes, not {size:,}"
            found.append(Kept(header, self.place, damage, in_bucket=True))
        return sorted(found, key=lambda each: each.header.order)

    def clear(self) -> None:
        """Remove what was not sent to its end: what else somebody keeps there stays. Raises what S3 answers."""
        for begun in self._objects.list_multiparts(BUCKET_FOLDER):
            if is_given(begun.key.removeprefix(BUCKET_FOLDER)):
                self._objects.abort_multipart(begun.key, begun.upload_id)
        names = [info.key.removeprefix(BUCKET_FOLDER) for info in self._objects.list(BUCKET_FOLDER)]
        bytes_of = [name for name in names if is_given(name)]
        self._delete(name for name in bytes_of if self._objects.get_small(BUCKET_FOLDER + header_of(name)) is None)

    def put(self, file: Path, header: Header, stopped: Stopped) -> None:
        """Send a backup. Raises Interrupted, OSError, what S3 answers."""
        key = BUCKET_FOLDER + header.name
        meta = ObjectMeta(sha256=bytes.fromhex(header.sha256), content_type=_TYPE)
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            part_bytes = self._objects.part_size(header.size_bytes)
            if header.size_bytes <= part_bytes:
                self._objects.put_file(fd, header.size_bytes, key, meta, cancel=stopped)
            else:
                self._put_parts(fd, key, meta, header.size_bytes, part_bytes, stopped)
        finally:
            os.close(fd)
        if stopped():
            raise Interrupted("the backup was stopped")
        self._objects.put_small(BUCKET_FOLDER + header_of(header.name), header.to_json(), only_new=False)

    def _put_parts(self, fd: int, key: str, meta: ObjectMeta, size: int, part_bytes: int, stopped: Stopped) -> None:
        upload = self._objects.start_multipart(key, meta)
        try:
            parts: list[PartInfo] = []
            for offset in range(0, size, part_bytes):
                length = min(part_bytes, size - offset)
                parts.append(self._objects.upload_part(key, upload, len(parts) + 1, fd, offset, length, cancel=stopped))
            self._objects.finish_multipart(key, upload, parts, meta, size)
        except BaseException:
            try:
                self._objects.abort_multipart(key, upload)
            except ObjectStoreError:  # the next backup finds it
                pass
            raise

    def fetch(self, header: Header, fd: int, stopped: Stopped) -> None:
        """Read a backup into an empty file. Raises BackupDamaged, Interrupted, OSError, what S3 answers."""
        key, digest = BUCKET_FOLDER + header.name, hashlib.sha256()
        info = self._objects.head(key)
        if info is None or info.size_bytes != header.size_bytes:
            raise BackupDamaged(f"{header.name} in {self.place} is gone, or has another size")
        for offset in range(0, header.size_bytes, RANGE_BYTES):
            if stopped():
                raise Interrupted("it was stopped")
            length = min(RANGE_BYTES, header.size_bytes - offset)
            self._objects.get_range(key, offset, length, if_match=info.etag, into=fd, cancel=stopped)
            digest.update(os.pread(fd, length, offset))
        if digest.hexdigest() != header.sha256:
            raise BackupDamaged(f"{header.name} in {self.place}: its checksum is another")

    def remove(self, header: Header) -> None:
        """Remove a backup: first what says that it is one. Raises what S3 answers."""
        self._delete([header_of(header.name)])
        self._delete([header.name])

    def _delete(self, names: Iterable[str]) -> None:
        for _, error in self._objects.delete([BUCKET_FOLDER + name for name in names]):
            raise error


__all__ = ["BucketBackups"]
