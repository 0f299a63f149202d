"""Each object of the bucket becomes a file that S3 alone has, by its key and metadata; the walk at home tells the rest.

The bucket is listed in pages. With the rows of a page goes its last key, from where an interrupted rebuild goes on.
Memory grows with a page, not with the bucket.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.model import Kind, State
from recfs.core.ownership import MARK_KEY
from recfs.core.upkeep.rebuilding import owner_in, place_of
from recfs.fs.rebuild.site import PAGE, Site, disk_failure
from recfs.ports.object_errors import (
    AccessRefused,
    KeyTooLong,
    NotOffered,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    ObjectStoreError,
    RequestRefused,
)
from recfs.ports.objects import ARCHIVE_CLASSES, MIB, ObjectInfo, RestoreState
from recfs.ports.rows import ROOT_INO, LocalCopy, NodeRow, ObjectRow, Placement
from recfs.stores.s3.meta import from_metadata, plain_md5

if TYPE_CHECKING:
    from recfs.ports.objects import ObjectStore

log = logging.getLogger("recfs.rebuild")

CURSOR = "rebuild_listed"
"""Fact of the new catalogue: up to which key the bucket was taken in; with all of it, `DONE`."""
DONE = "\U0010ffff"
"""Above every key."""
PRIVATE = ".recfs/"
_MOVING = ".recfs/moving/"
_OF_ONE = (AccessRefused, KeyTooLong, NotOffered, ObjectArchived, ObjectChanged, ObjectMissing, RequestRefused)
"""What concerns one object, and not the bucket or the way to it."""
Found = ObjectInfo | ObjectStoreError | None


class _Folder(NamedTuple):
    """A directory."""

    ino: int
    old: int | None
    """Its inode number in the old catalogue, if that is believed."""


_TOP = _Folder(ROOT_INO, ROOT_INO)


class BucketPass:
    """Takes the bucket in."""

    def __init__(self, site: Site, objects: ObjectStore) -> None:
        self._site = site
        self._objects = objects
        self._folders: dict[tuple[bytes, ...], _Folder | None] = {(): _TOP}
        """Directories by path; None where there cannot be one. Emptied with each page."""
        self._made: set[int] = set()
        """Directories of this page, in which nothing was before."""
        self._page: set[tuple[int, bytes]] = set()
        """Files of this page."""

    async def run(self) -> None:
        """Take in what is left of it. Raises ObjectStoreError, StoreError, OutOfSpace."""
        site = self._site
        after = (await site.catalogue.meta()).get(CURSOR, "")
        if after == DONE:
            return
        with ThreadPoolExecutor(site.s3_threads, thread_name_prefix="recfs-rebuild") as threads:
            listed = self._objects.list("", after)
            while page := list(islice(listed, PAGE)):
                placed = [(parts, info) for info in page if (parts := self._place(info.key)) is not None]
                looked = threads.map(self._look, [info for _, info in placed])
                for (parts, info), found in zip(placed, looked, strict=True):
                    await self._take(parts, info.key, found)
                site.batch.meta[CURSOR] = page[-1].key
                await site.write()
                self._folders = {(): _TOP}
                self._page.clear()
                self._made.clear()
                site.findings.objects += len(page)
                site.tell("objects", site.findings.objects, None)
        site.batch.meta[CURSOR] = DONE
        await site.write()

    def _look(self, listed: ObjectInfo) -> Found:
        """In a thread: what the server knows of an object."""
        try:
            return self._objects.head(listed.key)
        except _OF_ONE as error:
            return error

    def _place(self, key: str) -> tuple[bytes, ...] | None:
        """Path of the file that an object may be of; what is none of a file's is told."""
        parts = place_of(key)
        if parts is None:
            self._tell_other(key)
        return parts

    async def _take(self, parts: tuple[bytes, ...], key: str, found: Found) -> None:
        site = self._site
        if isinstance(found, ObjectStoreError):
            site.findings.unplaced.add(key, str(found))
        elif found is not None and b"/".join(parts) not in site.claimed:
            try:
                await self._file(parts, found)
            except OSError as error:
                raise disk_failure(site, error) from error

    def _tell_other(self, key: str) -> None:
        if key.startswith(_MOVING):
            why = "it was on its way to another name, which only the old catalogue knew"
            self._site.findings.unplaced.add(key, why)
        elif not key.startswith(PRIVATE) and key != MARK_KEY:
            self._site.findings.foreign.add(key, "no file of a mount can have that name")

    async def _file(self, parts: tuple[bytes, ...], info: ObjectInfo) -> None:
        """Make the rows of a file that S3 has."""
        site, meta = self._site, from_metadata(info.metadata)
        sha256, md5 = info.sha256, info.md5 or plain_md5(info.etag)
        foreign = sha256 is None or md5 is None
        if foreign and not site.options.adopt_foreign:
            site.findings.foreign.add(info.key, "it has no checksums of recfs's")
            return
        if foreign or site.options.verify_remote:
            actual = self._hashed(info)
            if actual is None:
                return
            if not foreign and actual[0] != sha256:
                site.findings.unplaced.add(info.key, "its bytes are not those of its checksum")
                return
            sha256, md5 = actual
        assert sha256 is not None
        assert md5 is not None
        owner = owner_in(meta.owner) or self._owner_above(parts)
        folder, name = await self._folder(parts, owner), parts[-1]
        if folder is None or (folder.ino, name) in self._page:
            site.findings.unplaced.add(info.key, "another object, or a file, has a part of its path for its name")
            return
        parent = folder.ino
        before = await site.catalogue.child(parent, name) if parent not in self._made else None
        if before is not None and before.kind is Kind.DIR:
            site.findings.unplaced.add(info.key, "there is a directory of its name")
            return
        old = await site.old.child(folder.old, name)
        ino = before.ino if before is not None else await site.number(old, Kind.FILE)
        away = info.restore_state in (RestoreState.ARCHIVED, RestoreState.RESTORING) or (
            info.storage_class in ARCHIVE_CLASSES and info.restore_state is None
        )
        mtime_ns = meta.mtime_ns if meta.mtime_ns is not None else info.last_modified_ns
        mode = meta.mode if meta.mode is not None else 0o644
        uploaded_ns = meta.uploaded_ns or info.last_modified_ns
        self._page.add((parent, name))
        row = NodeRow(
            ino, parent, name, Kind.FILE, mode, *owner, info.size_bytes, 0, mtime_ns, mtime_ns, mtime_ns,
            State.ARCHIVED if away else State.EVICTED, sha256, md5, None, 0, 0, 1, Placement(),
        )  # fmt: skip
        copy = LocalCopy(pinned=await site.old.pinned(old))
        far = ObjectRow(
            ino, info.key, info.etag, info.size_bytes, sha256, md5, mtime_ns, info.storage_class, uploaded_ns, copy
        )
        site.put(row if old is None else await site.take_over(row, old), far)

    def _owner_above(self, parts: tuple[bytes, ...]) -> tuple[int, int]:
        """Who owns the next directory above at home."""
        for depth in range(len(parts) - 1, 0, -1):
            info = self._site.store.stat(self._site.local(b"/".join(parts[:depth])))
            if info is not None:
                return info.st_uid, info.st_gid
        return 0, 0

    async def _folder(self, path: tuple[bytes, ...], owner: tuple[int, int]) -> _Folder | None:
        """The directory of a file, made where there is none; None where something else is."""
        parts = path[:-1]
        known = len(parts)
        while parts[:known] not in self._folders:
            known -= 1
        folder = self._folders[parts[:known]]
        for depth in range(known + 1, len(parts) + 1):
            if folder is not None:
                folder = await self._entry(folder, parts[:depth], path[depth], owner)
            self._folders[parts[:depth]] = folder
        return folder

    async def _entry(
        self, above: _Folder, parts: tuple[bytes, ...], below: bytes, owner: tuple[int, int]
    ) -> _Folder | None:
        site, name, parent = self._site, parts[-1], above.ino
        if (parent, name) in self._page:
            return None
        before = await site.catalogue.child(parent, name) if parent not in self._made else None
        path = b"/".join(parts)
        old = await site.lineage.of(above.old, path, site.store.stat(site.local(path)), below)
        old_ino = old.ino if old is not None and old.kind is Kind.DIR else None
        if before is not None:
            return _Folder(before.ino, old_ino) if before.kind is Kind.DIR else None
        try:
            site.make_folder(path, owner)
        except FileExistsError:
            return None
        now = site.clock.now_ns()
        ino = await site.number(old, Kind.DIR)
        self._made.add(ino)
        row = NodeRow(
            ino, parent, name, Kind.DIR, 0o755, *owner, 0, 0, now, now, now, None, None, None, None, 0, 0, 0,
            Placement(),
        )  # fmt: skip
        site.put(row if old is None else await site.take_over(row, old))
        return _Folder(ino, old_ino)

    def _hashed(self, info: ObjectInfo) -> tuple[bytes, bytes] | None:
        """Both digests of an object's bytes, read in pieces; None, and told, where they cannot be read."""
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            for piece in self._pieces(info):
                sha256.update(piece)
                md5.update(piece)
        except _OF_ONE as error:
            self._site.findings.unplaced.add(info.key, str(error))
            return None
        return sha256.digest(), md5.digest()

    def _pieces(self, info: ObjectInfo) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(8 * MIB, max(1, info.size_bytes))))
        for start in range(0, info.size_bytes, len(buffer)):
            part = buffer[: min(len(buffer), info.size_bytes - start)]
            self._objects.get_range(info.key, start, len(part), if_match=info.etag, into=part)
            yield part
