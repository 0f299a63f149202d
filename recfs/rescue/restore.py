"""`recfs restore-catalogue`: a backup becomes the store's catalogue again, and is told what has changed since."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from recfs.catalogue.opening import open_catalogue
from recfs.core.generation import AT, Mark, count_of
from recfs.errors import NotAStore, NotFound, StoreError, first_error_alone
from recfs.fs.recovery.survey import Survey, told
from recfs.parts import DRAIN_S, NoKernelCache, opened
from recfs.rescue.backups import SCRATCH, Backups
from recfs.services.reunion import Reunion, Reunited
from recfs.state.problems import reason_of
from recfs.stores import restoring
from recfs.stores.local import PRIVATE, TOP_LEVELS, LocalStore
from recfs.stores.mounted import require_bare
from recfs.stores.presence import as_whom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recfs.config import Config
    from recfs.core.upkeep.backups import Kept
    from recfs.parts import Parts
    from recfs.ports.objects import ObjectStore
    from recfs.rescue.backups import Opened
    from recfs.stores.restoring import Restoration

TELL_EVERY_S = 2.0
_REPORTED = ("moved", "trashed", "taken", "found", "linked", "gone", "remade", "forgotten", "lost", "kept")
"""Lists of the start's report that people are told."""


class Restore:
    """One restore. Blocking; nothing else may have the store in use."""

    def __init__(self, config: Config, tell: Callable[[str], None], objects: ObjectStore | None = None) -> None:
        """*tell* is given a line for people, now and then; *objects*: instead of the configured object store."""
        self._config = config
        self._tell = tell
        self._objects = objects
        self._store = LocalStore(config.root)

    def dry_run(self, wanted: str | None, identity: Path | None) -> dict[str, Any]:
        """What a restore would find. Changes nothing. Raises as `run`."""
        with self._plainly(), self._read(identity) as backups, self._opened(backups, wanted, identity) as backup:
            self._tell(f"comparing {backup.contents.rows.get('node', 0):,} rows with what lies on the disk")
            finds = trio.run(self._survey, backup.file)
            return {"backup": _name(backup), "dry_run": True, "finds": finds}

    async def _survey(self, file: Path) -> list[dict[str, str]]:
        catalogue = open_catalogue(file, keep=False)  # a scratch copy, brought up to date as a start would
        try:
            seen = await Survey(catalogue, self._store, count_of(await catalogue.meta(), AT)).run()
            return [{"what": what, "path": path} for what, path in told(seen)]
        finally:
            catalogue.close()

    def run(self, wanted: str | None, identity: Path | None, *, forget: bool, bucket: bool = True) -> dict[str, Any]:
        """Put a backup back, or go on with a restore that died; what came of it.

        *wanted*: its name, or a file; None: the newest good one. *forget*: rows of files that are nowhere go.
        *bucket* False: what is in S3 is left as the backup has it. Raises RecfsError: RootBusy while a daemon runs,
        StoreError for a backup of another store, ObjectStoreError: run it again when S3 answers.
        """
        with self._plainly(), self._read(identity) as backups:
            restoration = restoring.finish(self._store.private)
            if restoration is None:
                with self._opened(backups, wanted, identity) as backup:
                    restoration = self._place(backup, forget=forget)
            else:
                self._tell(f"going on with the restore of {restoration.backup}")
        with first_error_alone():
            found = trio.run(self._reconcile, restoration.forget, bucket)
        return {"backup": restoration.backup, "kept_as": restoration.aside, "dry_run": False, **found}

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        """What the disk, or its permissions, keep from being done is a StoreError with its reason."""
        try:
            yield
        except OSError as error:
            remedy = as_whom(error) or "the catalogue can be restored again at any time"
            raise StoreError(f"store {self._store.root}: {reason_of(error)}; {remedy}") from error

    @contextlib.contextmanager
    def _read(self, identity: Path | None) -> Iterator[Backups]:
        """Read the secret keys, and lock the store then: whoever is to write them into a pipe may never do it."""
        backups = Backups(self._config, self._objects)
        if identity is not None:
            backups.keys(identity)
        with self._locked():
            yield backups

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        private = self._store.private
        if not private.is_dir() and not any((self._store.root / os.fsdecode(top)).is_dir() for top in TOP_LEVELS):
            raise NotAStore(f"no recfs store at {self._store.root}: is its disk mounted?")
        require_bare(self._store.root)
        self._store.open()
        try:
            for left in private.glob(f"{SCRATCH}*"):  # of a command that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            self._store.close()

    @contextlib.contextmanager
    def _opened(self, backups: Backups, wanted: str | None, identity: Path | None) -> Iterator[Opened]:
        """The backup, whole, checked and of this store, in a scratch directory on its disk."""
        chosen = Path(wanted) if wanted is not None and os.sep in wanted else self._listed(backups, wanted)
        for skipped in backups.skipped:
            self._tell(f"damaged, and left out: {skipped}")
        with backups.opened(chosen, identity, self._store.private) as backup:
            mark = Mark.decode(self._store.tree_mark())
            if mark is not None and backup.contents.store not in ("", mark.store):
                raise StoreError(f"{_name(backup)} is a backup of another store's catalogue: nothing was changed")
            yield backup

    @staticmethod
    def _listed(backups: Backups, name: str | None) -> Kept:
        """One of the backups that are known. Raises NotFound, BackupDamaged."""
        try:
            return backups.chosen(name)
        except NotFound as error:
            if name is None or not os.path.isfile(name):
                raise
            raise NotFound(f"{error}; a file is named by its path: ./{name}") from error

    def _place(self, backup: Opened, *, forget: bool) -> Restoration:
        private = self._store.private
        fd = os.open(backup.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        owner = os.stat(private)
        with contextlib.suppress(PermissionError):  # root restores the store of another user
            os.chown(backup.file, owner.st_uid, owner.st_gid)
        when = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%SZ")
        aside, serial = f"{restoring.ASIDE}{when}", 0
        while os.path.lexists(private / aside):
            serial += 1
            aside = f"{restoring.ASIDE}{when}-{serial}"
        os.rename(backup.file, private / restoring.NEXT)
        restoration = restoring.Restoration(_name(backup), aside, forget)
        restoring.place(private, restoration)
        self._tell(f"{restoration.backup} is the catalogue now; the one before it is kept as {PRIVATE}/{aside}")
        return restoration

    async def _reconcile(self, forget: bool, bucket: bool) -> dict[str, Any]:
        """Start as a daemon would, without a mount: recovery does it; then what was found is hashed and committed."""
        self._tell("comparing with what lies on the disk")
        kernel = NoKernelCache()
        # A restore deletes no file, whatever this configuration says of the trash; the next mount goes by its own.
        config = self._config.giving_nothing_up()
        async with (
            opened(config, kernel, objects=self._objects, restores=True) as parts,
            trio.open_nursery() as nursery,
        ):
            afar = await self._reunite(parts, forget) if bucket else Reunited()
            restoring.compared(self._store.private, at_its_end=True)
            await parts.serve(nursery, s3=False)
            nursery.start_soon(self._say_how_far, parts)
            await parts.work.draining.drain(uploads=False)
            report = parts.recovered
            found = {name: list(getattr(report, name)) for name in _REPORTED}
            problems = parts.problems.as_json()
            with trio.move_on_after(DRAIN_S):
                await parts.work.draining.drain(uploads=False)
            parts.behind.meta("clean", "1")
            nursery.cancel_scope.cancel()
        return found | {"set_aside": problems, "bucket": asdict(afar)}

    async def _reunite(self, parts: Parts, forget: bool) -> Reunited:
        """Compare with the bucket, if there is one."""
        if parts.tier is None:
            return Reunited()
        self._tell("comparing with what lies in the bucket")
        return await Reunion(parts.tier, parts.vfs, parts.recovered.written_ns).run(forget=forget)

    async def _say_how_far(self, parts: Parts) -> None:
        while True:
            await trio.sleep(TELL_EVERY_S)
            if parts.committer.depth:
                self._tell(f"{parts.committer.depth:,} files are still to be hashed")


def _name(backup: Opened) -> str:
    return backup.kept.header.name if backup.kept is not None else str(backup.source)


__all__ = ["Restore"]
