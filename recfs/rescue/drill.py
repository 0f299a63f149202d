"""`recfs backup drill`: proves in a scratch place that a backup can be relied on, and leaves nothing behind.

It is decrypted, looked through, and opened as a start would open it, with the migrations that it lacks; its counters
are added up anew; and of some files, chosen at random, the bytes are held against it: on the disk by size and checksum,
in the bucket by what the server says of the object. A file that was changed, renamed or removed since proves nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.reports import SqliteReports
from recfs.catalogue.sampling import Sampled, sample
from recfs.ports.object_errors import ObjectStoreError
from recfs.state.problems import reason_of
from recfs.stores.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.config import Config
    from recfs.ports.objects import ObjectStore
    from recfs.rescue.backups import Backups

CHUNK_BYTES = 1 << 20
PROVED, SINCE, WRONG, UNKNOWN = "proved", "since", "wrong", "unknown"
"""What became of a file of the sample: as the backup says; other, or elsewhere, by now; other than it has to be; not to
be looked at."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A file of the sample."""

    path: str
    outcome: str
    reason: str = ""


class Drill:
    """One drill. Blocking."""

    def __init__(self, config: Config, backups: Backups, objects: ObjectStore | None) -> None:
        self._store = LocalStore(config.root)
        self._backups = backups
        self._objects = objects

    def run(
        self, name: str | None, identity: Path | None, *, files: int, scratch: Path | None = None
    ) -> dict[str, Any]:
        """Do it with the newest good one, or the one of that *name*; what came of it.

        Raises NotFound, InvalidArgument, BackupDamaged, OSError.
        """
        began_s = time.monotonic()
        chosen = self._backups.chosen(name)
        with self._backups.opened(chosen, identity, scratch) as backup:
            opened_s = time.monotonic() - began_s
            self._store.beneath.open(())
            try:
                open_catalogue(backup.file, keep=False).close()
                with SqliteReports(backup.file).reading() as snapshot:
                    checked = snapshot.check()
                looked = [
                    self._look(each, chosen.header.made_ns) for each in sample(backup.file, files, int(time.time_ns()))
                ]
            finally:
                self._store.beneath.close()
        counted = Counter(each.outcome for each in looked)
        off = [each.what for each in checked.differences]
        return {
            "backup": chosen.as_json(time.time_ns()),
            "skipped": list(self._backups.skipped),
            "opened_s": opened_s, "took_s": time.monotonic() - began_s,
            "checked_files": checked.files, "differences": off,
            "sample": {outcome: counted[outcome] for outcome in (PROVED, SINCE, WRONG, UNKNOWN)},
            "wrong": [
                {"path": each.path, "reason": each.reason} for each in looked if each.outcome in (WRONG, UNKNOWN)
            ],
            "good": not off and not counted[WRONG] and _is_enough(counted, looked),
        }  # fmt: skip

    def _look(self, sampled: Sampled, made_ns: int) -> Looked:
        path = os.fsdecode(b"/".join(sampled.path))
        if sampled.state.is_remote:
            return self._look_afar(sampled, path)
        try:
            fd = self._store.beneath.open_at(self._store.home(sampled.path), os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                return Looked(path, SINCE, "it is not there any more")
            return Looked(path, UNKNOWN, reason_of(error))
        try:
            return _held_against(sampled, path, fd, made_ns)
        except OSError as error:
            return Looked(path, UNKNOWN, reason_of(error))
        finally:
            os.close(fd)

    def _look_afar(self, sampled: Sampled, path: str) -> Looked:
        if self._objects is None or sampled.key is None:
            return Looked(path, UNKNOWN, "it is in S3, which the configuration does not name")
        try:
            info = self._objects.head(sampled.key)
        except ObjectStoreError as error:
            return Looked(path, UNKNOWN, str(error))
        if info is None:
            return Looked(path, SINCE, "its object is not there any more")
        if info.etag != sampled.etag:
            return Looked(path, SINCE, "its object is another one by now")
        same = info.size_bytes == sampled.size_bytes and info.sha256 in (None, sampled.sha256)
        return Looked(path, PROVED) if same else Looked(path, WRONG, "its object has another size or checksum")


def _held_against(sampled: Sampled, path: str, fd: int, made_ns: int) -> Looked:
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_ctime_ns >= made_ns - 10**9:
        return Looked(path, SINCE, "it was changed since")
    if info.st_size != sampled.size_bytes:
        return Looked(path, WRONG, f"it has {info.st_size} bytes, not {sampled.size_bytes}, and was not changed since")
    digest = hashlib.sha256()
    while data := os.read(fd, CHUNK_BYTES):
        digest.update(data)
    if digest.digest() != sampled.sha256:
        return Looked(path, WRONG, "its bytes have another checksum, and were not changed since")
    return Looked(path, PROVED)


def _is_enough(counted: Counter[str], looked: Sequence[Looked]) -> bool:
    """Whether the sample says something: nothing of a store without files has to be proved."""
    return not looked or counted[PROVED] > 0 or counted[UNKNOWN] == 0


__all__ = ["Drill"]
