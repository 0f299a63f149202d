"""Whose the prefix in the bucket is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from recfs.cli.checks import Check, Level
from recfs.cli.common.store import reports_at
from recfs.core.ownership import LOST_REMEDY, MARK_KEY, lost_words, read_mark
from recfs.ports.object_errors import ObjectStoreError

if TYPE_CHECKING:
    from recfs.ports.objects import ObjectStore

_NAME = "s3 prefix"


class OwnStore(NamedTuple):
    """The store that is to use the prefix."""

    id: str | None
    """None: it is not made yet."""
    keys: Sequence[str] = ()
    """A few that its catalogue has."""
    remote_files: int = 0
    """How many files are in S3 alone."""


def owner_check(url: str, store: "ObjectStore", own: OwnStore) -> Check:
    """Judge the mark in the bucket."""
    try:
        found = store.get_small(MARK_KEY)
    except ObjectStoreError as exc:
        return Check(_NAME, Level.WARN, str(exc).partition("; ")[0], "let these credentials read objects in the bucket")
    if found is None and own.keys:
        try:
            gone = any(store.head(key) is None for key in own.keys)
        except ObjectStoreError as exc:
            return Check(
                _NAME, Level.WARN, str(exc).partition("; ")[0], "let these credentials read objects in the bucket"
            )
        if gone:
            return Check(_NAME, Level.FAIL, lost_words(url, own.remote_files), LOST_REMEDY)
        return Check(_NAME, Level.OK, f"{url}: its mark is gone and this store's objects are there; it is put back")
    if found is None:
        return Check(_NAME, Level.OK, f"{url}: no store has taken it into use yet")
    mark = read_mark(found)
    if mark.store == own.id:
        return Check(_NAME, Level.OK, f"{url} is this store's")
    remedy = "mount that store, or set another [s3] prefix, or take it over with `recfs bucket claim --force`"
    return Check(_NAME, Level.FAIL, f"{url} belongs to {mark}", remedy)


def own_store_at(root: Path) -> OwnStore:
    """What the catalogue at *root* says; nothing if there is none, or it cannot be read."""
    from recfs.errors import RecfsError

    store_id = fact_at(root, "store_id")
    try:
        with reports_at(root).reading() as snapshot:
            return OwnStore(store_id, *snapshot.some_objects())
    except (RecfsError, OSError):
        return OwnStore(store_id)


def fact_at(root: Path, name: str) -> str | None:
    """A store-wide fact of the store at *root*; None if there is no store, or it is not known."""
    from recfs.errors import RecfsError

    try:
        with reports_at(root).reading() as snapshot:
            return snapshot.meta().get(name)
    except (RecfsError, OSError):
        return None
