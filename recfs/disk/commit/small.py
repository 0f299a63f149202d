"""Small files: brought to stable storage and hashed many at a time. Blocking; for threads.

Those that are as files mostly are go together (`stores/many.py`), and what is left of them one by one (`digests.py`).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from recfs.disk.commit.digests import CHUNK_BYTES, Digest, digest_one
from recfs.stores import many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.disk.commit.digests import Source
    from recfs.stores.local import LocalStore

GROUP_SYNC_FILES = 8
"""From this many files in a batch one syncfs(2) costs less than an fdatasync(2) each …"""
GROUP_SYNC_BYTES = 1 << 20
"""… unless the system has more than this for each of them to write: syncfs waits for everybody's bytes."""
GROUP_SYNC_SPARE_BYTES = 32 << 20


def digest_files(sources: Sequence[Source], store: LocalStore) -> list[Digest]:
    """Bring small files to stable storage and hash them, many at a time."""
    grouped = len(sources) >= GROUP_SYNC_FILES and _dirty_bytes() <= (
        len(sources) * GROUP_SYNC_BYTES + GROUP_SYNC_SPARE_BYTES
    )
    if grouped:
        store.sync_all()
    found: dict[int, Digest] = {}
    if not grouped:
        folders = {os.path.dirname(source.path) for source in sources if source.in_place}
        unsynced = {folder: error for folder in folders if (error := _unsynced(folder, store)) is not None}
        for index, source in enumerate(sources):
            if source.in_place and (folder := os.path.dirname(source.path)) in unsynced:
                found[index] = Digest(error=unsynced[folder])
    found |= _together(sources, store, [index for index in range(len(sources)) if index not in found], sync=not grouped)
    if len(found) < len(sources):
        buffer = memoryview(bytearray(CHUNK_BYTES if len(sources) == 1 else 64 << 10))
        for index, source in enumerate(sources):
            if index not in found:
                found[index] = digest_one(source, store, buffer, sync=not grouped)
    return [found[index] for index in range(len(sources))]


def _together(sources: Sequence[Source], store: LocalStore, wanted: Sequence[int], *, sync: bool) -> dict[int, Digest]:
    """Those of the *wanted* that could be read together, by their places."""
    # Of what may be known already the bytes need not be read.
    plain = [index for index in wanted if sources[index].untouched is None]
    paths = [sources[index].path for index in plain]
    found: dict[int, Digest] = {}
    for each in many.read(store.beneath, paths, bytes(_how(sources[index], sync=sync) for index in plain)):
        index = plain[each.number]
        source = sources[index]
        if isinstance(each, many.Unreadable):
            found[index] = Digest(error=each.error)
            continue
        content, sha256, md5 = each.content, each.sha256, each.md5
        if sha256 is None:
            sha256 = hashlib.sha256(content).digest()
            md5 = hashlib.md5(content, usedforsecurity=False).digest() if source.md5 else None
        attributes = (each.mode, each.uid, each.gid, each.mtime_ns) if source.in_place else None
        found[index] = Digest(sha256, md5, len(content), each.st_ino, attributes=attributes)
    return found


def _how(source: Source, *, sync: bool) -> int:
    how = (many.LEASE if source.alone else 0) | (many.MD5 if source.md5 else 0)
    if sync:
        how |= many.SYNC_WHOLE if source.in_place else many.SYNC_DATA
    return how


def _unsynced(folder: bytes, store: LocalStore) -> OSError | None:
    """Bring the names in a directory to stable storage; what went wrong."""
    try:
        store.beneath.sync(folder)
    except OSError as error:
        return error
    return None


def _dirty_bytes() -> int:
    """What the whole system has yet to write to its disks (proc_meminfo(5)); 0 where that cannot be told."""
    try:
        with open("/proc/meminfo", "rb", buffering=0) as file:
            words = file.read(4096).split()
        return 1024 * sum(int(words[words.index(name) + 1]) for name in (b"Dirty:", b"Writeback:"))
    except (OSError, ValueError, IndexError):
        return 0


__all__ = ["digest_files"]
