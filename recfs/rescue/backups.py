"""What is done with backups of a store's catalogue whether a daemon runs or not: listing them, and proving them.

Reads and writes nothing of the store itself but its own scratch files. Blocking.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recfs import remote
from recfs.catalogue.copying import CatalogueCopies
from recfs.clock import SystemClock, boot_id
from recfs.core.generation import Mark
from recfs.core.naming import show_name
from recfs.core.upkeep.backups import SEALED, Contents, Kept, newest
from recfs.errors import BackupDamaged, InvalidArgument, NotAllowed, NotFound, RecfsError, StoreError
from recfs.ports.object_errors import ObjectStoreError
from recfs.state.problems import reason_of
from recfs.stores import sealing
from recfs.stores.backups import backup_folder
from recfs.stores.local import LocalStore
from recfs.tier.backups import BucketBackups
from recfs.tier.queue.unanswered import Unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recfs.config import Config
    from recfs.ports.objects import ObjectStore

SCRATCH = "recfs-backup-"
DEADLINE_S = 30.0
"""How long a command tries to get an answer of S3, at most."""


def never() -> bool:
    """A command ends by itself, or by a signal."""
    return False


@dataclass(frozen=True, slots=True)
class Opened:
    """A backup's catalogue, in the clear and checked."""

    source: Path
    file: Path
    contents: Contents
    kept: Kept | None
    """None: of a file that nothing is known of."""


class Backups:
    """The backups of one store, as the configuration says where they are."""

    def __init__(self, config: Config, objects: ObjectStore | None = None) -> None:
        """*objects*: instead of the configured one."""
        self.config = config
        self._folder = backup_folder(config.root, config.backup.directory)
        self._copies = CatalogueCopies()
        self.objects = objects if objects is not None else self._connected()
        """The object store of the configuration; None without [s3]. Asks nothing of the server by itself."""
        url = config.s3.url if config.s3 is not None else "the bucket"
        self._bucket = BucketBackups(self.objects, url) if self.objects is not None else None
        self.trouble: str | None = None
        """Why those in the bucket are not known, if they are not."""
        self.skipped: list[str] = []
        """Which were not taken for the newest good one, and why."""
        self._keys: dict[Path, Sequence[Any]] = {}

    def kept(self) -> list[Kept]:
        """All of them, oldest first; of the bucket as far as it answers (`trouble`). Raises NotAllowed, StoreError."""
        try:
            store = self._store()
            found = self._folder.kept(store, all_of_it=True)
        except PermissionError as error:
            raise NotAllowed(f"{error.filename} cannot be read: run this as its owner or root") from error
        except OSError as error:
            raise StoreError(
                f"backups lie in {show_name(str(self._folder.path))}, which cannot be looked into ({error.strerror}):"
                f" put that right, or set another [backup] directory"
            ) from error
        if self._bucket is not None:
            try:
                found += self._bucket.kept(store)
            except ObjectStoreError as error:
                self.trouble = str(error)
        return sorted(found, key=lambda each: (each.header.order, each.in_bucket))

    def _store(self) -> str:
        """Of which store those are that are meant; empty where nothing tells, and all are."""
        store = LocalStore(self.config.root)
        if (mark := Mark.decode(store.tree_mark())) is not None:
            return mark.store
        held = self._copies.contents(store.catalogue_path)
        return held.store if held is not None else ""

    @property
    def place(self) -> str:
        """The directory they lie in, for people; where no configuration names one, also how to name it."""
        if self.config.backup.directory is not None:
            return str(self._folder.path)
        return f"{self._folder.path}; where a recfs.conf names another [backup] directory, give it with --config"

    def _connected(self) -> ObjectStore | None:
        if self.config.s3 is None:
            return None
        hasty = self.config.s3.model_copy(update={"deadline": min(self.config.s3.deadline, DEADLINE_S)})
        config = self.config.model_copy(update={"s3": hasty})
        return remote.connect(config, Unanswered(SystemClock({}, boot_id())))

    def chosen(self, name: str | None) -> Kept:
        """The one that is called so, or the newest good one. Raises NotFound, BackupDamaged."""
        kept = self.kept()
        if name is None:
            self.skipped.clear()
            found = self._newest_good(kept)
            if found is None and self.skipped:
                raise BackupDamaged("; ".join(self.skipped))
            if found is None:
                where = self._folder.path if kept else self.place
                damaged = f"; {len(kept)} are damaged" if kept else ""
                afar = f", and those in the bucket are not known: {self.trouble}" if self.trouble else ""
                raise NotFound(f"there is no backup of the catalogue in {where}{damaged}{afar}")
            return found
        named = [each for each in kept if each.header.name == name]
        if not named:
            afar = f" (those in the bucket are not known: {self.trouble})" if self.trouble else ""
            raise NotFound(f"there is no backup called {name}: `recfs backup list` shows those that are there{afar}")
        return next((each for each in named if each.damage is None), named[0])

    def _newest_good(self, kept: Sequence[Kept]) -> Kept | None:
        """The newest whose file is what was written; one that lies here rather than one in the bucket."""
        local = [each for each in kept if not each.in_bucket and each.damage is None]
        for each in sorted(local, key=lambda each: each.header.order, reverse=True):
            damage = self._damage(each, None, deep=False)
            if damage is None:
                return each
            if not self._is_there(each):
                return self._newest_good(self.kept())  # there is a newer one, since it was one too many
            self.skipped.append(f"{each.header.name}: {damage}")
        return newest(each for each in kept if each.in_bucket)

    def keys(self, identity: Path) -> Sequence[Any]:
        """The secret keys in a file, which is read once: it may be a pipe. Waits for who writes to it.

        Raises InvalidArgument.
        """
        if identity not in self._keys:
            self._keys[identity] = sealing.identities_in(identity)
        return self._keys[identity]

    @contextmanager
    def opened(self, wanted: Kept | Path, identity: Path | None, scratch: Path | None = None) -> Iterator[Opened]:
        """Decrypt a backup and look through it, in a scratch directory that is gone afterwards.

        *wanted*: one that is listed, or some file. Raises BackupDamaged, InvalidArgument (the wrong key, or none),
        OSError.
        """
        path = wanted if isinstance(wanted, Path) else Path(wanted.place) / wanted.header.name
        kept = None if isinstance(wanted, Path) else wanted
        is_sealed = kept.header.is_sealed if kept is not None else path.name.endswith(SEALED)
        if is_sealed and identity is None:
            raise InvalidArgument(f"{path.name} is encrypted: give --identity FILE, with a secret key it is for")
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=scratch) as folder:
            file = Path(folder) / "catalogue.db"
            if kept is not None and kept.in_bucket:
                path = self._fetched(kept, Path(folder))
            with sealing.source(path) as source, open(file, "wb") as target:
                os.fchmod(target.fileno(), 0o600)
                if is_sealed and identity is not None:
                    plain = sealing.unseal(source, target, self.keys(identity), never)
                else:
                    plain = sealing.copy(source, target, never)
            if kept is not None and (plain.size_bytes, plain.sha256) != (
                kept.header.plain_bytes, kept.header.plain_sha256,
            ):  # fmt: skip
                raise BackupDamaged(f"{path.name}: it is not what was written: its checksum is another")
            try:
                contents = self._copies.check(file, never)
            except (
                BackupDamaged
            ) as error:  # people know it by the name that it has, and not by that of the scratch file
                raise BackupDamaged(f"{path.name}{str(error).removeprefix(file.name)}") from error
            if kept is not None and contents != kept.header.contents:
                raise BackupDamaged(f"{path.name}: it does not hold what is written beside it")
            yield Opened(path, file, contents, kept)

    def _fetched(self, kept: Kept, folder: Path) -> Path:
        assert self._bucket is not None
        path = folder / kept.header.name
        with open(path, "wb+") as file:
            self._bucket.fetch(kept.header, file.fileno(), never)
        return path

    def verify(self, names: Sequence[str], identity: Path | None) -> list[dict[str, Any]]:
        """Read all of each (all there are, if none is named), and say what is wrong with it, if anything is.

        Of an encrypted one without *identity*: only whether its file is what was written. Raises NotFound.
        """
        told = []
        for kept in [self.chosen(name) for name in names] if names else self.kept():
            deep = identity is not None or not kept.header.is_sealed
            damage = kept.damage or self._damage(kept, identity, deep=deep)
            if damage and not self._is_there(kept):  # it was one too many meanwhile
                if not names:
                    continue
                kept = self.chosen(kept.header.name)  # at another place
                damage = kept.damage or self._damage(kept, identity, deep=deep)
            told.append({"name": kept.header.name, "place": kept.place, "damage": damage, "opened": deep})
        return told

    def _is_there(self, kept: Kept) -> bool:
        """Whether it is listed still: the daemon removes those that are too many at any time."""
        listed = [(each.header, each.in_bucket) for each in self.kept()]
        return (kept.header, kept.in_bucket) in listed or (kept.in_bucket and self.trouble is not None)

    def _damage(self, kept: Kept, identity: Path | None, *, deep: bool) -> str | None:
        try:
            if kept.in_bucket:
                with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
                    self._fetched(kept, Path(folder))
            else:
                with open(Path(kept.place) / kept.header.name, "rb") as file:
                    if sealing.digest_of(file, never).sha256 != kept.header.sha256:
                        return "its bytes are not those that were written: its checksum is another"
            if deep:
                with self.opened(kept, identity):
                    pass
        except InvalidArgument:
            raise
        except (RecfsError, OSError) as error:
            return reason_of(error)
        return None


__all__ = ["Backups", "Opened"]
