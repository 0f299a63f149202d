"""Whose the prefix in the bucket is."""

from pathlib import Path
from typing import TYPE_CHECKING

from recfs.cli.checks import Check, Level
from recfs.core.ownership import MARK_KEY, read_mark
from recfs.object_errors import ObjectStoreError

if TYPE_CHECKING:
    from recfs.objects import ObjectStore

_NAME = "s3 prefix"


def owner_check(url: str, store: "ObjectStore", store_id: str | None) -> Check:
    """Judge the mark in the bucket. *store_id*: of the store that is to use it; None: it is not made yet."""
    try:
        found = store.get_small(MARK_KEY)
    except ObjectStoreError as exc:
        return Check(_NAME, Level.WARN, str(exc).partition("; ")[0], "let these credentials read objects in the bucket")
    if found is None:
        return Check(_NAME, Level.OK, f"{url}: no store has taken it into use yet")
    mark = read_mark(found)
    if mark.store == store_id:
        return Check(_NAME, Level.OK, f"{url} is this store's")
    remedy = "mount that store, or set another [s3] prefix, or take it over with `recfs bucket claim --force`"
    return Check(_NAME, Level.FAIL, f"{url} belongs to {mark}", remedy)


def store_id_at(root: Path) -> str | None:
    """The id of the store at *root*; None if there is none, or it cannot be read."""
    return fact_at(root, "store_id")


def fact_at(root: Path, name: str) -> str | None:
    """A store-wide fact of the store at *root*; None if there is no store, or it is not known."""
    from recfs.catalogue.reading import facts
    from recfs.errors import RecfsError

    try:
        return facts(root / ".recfs" / "catalogue.db").get(name)
    except (RecfsError, OSError):
        return None
