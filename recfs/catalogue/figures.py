"""Sums over many files, as SQLite makes them: rows are grouped in C, without the interpreter's lock.

The expressions below say of a name what `core/figures/categories.py` says: a contract test compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recfs.catalogue.rows import NAMED, added_up
from recfs.core.figures.categories import BY_EXTENSION, HEADS, SOURCE, THUMBNAIL, TRANSCRIPT, Marks
from recfs.core.model import State
from recfs.ports.figures import Duplicates, Folder, Tally, Twins
from recfs.ports.rows import HOST

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_EXTENSIONS: Final = ", ".join(f"'{each.decode()}'" for each in sorted(BY_EXTENSION))
# Everything behind the last dot: what rtrim leaves when it takes away all characters but dots.
_EXTENSION: Final = "lower(substr(name, length(rtrim(name, replace(name, '.', ''))) + 1))"
# Of a name that is no UTF-8 the functions of text may count too many bytes as one character: its end is what counts.
_ENDS_SO: Final = f"lower(cast(substr(cast(name as blob), -1 - length({_EXTENSION})) as text)) = '.' || {_EXTENSION}"
_KNOWN: Final = f"instr(name, '.') > 0 and {_EXTENSION} in ({_EXTENSIONS}) and {_ENDS_SO}"
_HEAD: Final = (
    f"case when name glob '{HEADS[SOURCE - 1].decode()}?*' and name not glob '*.*.*' then {SOURCE}"
    f" when name like '{HEADS[TRANSCRIPT - 1].decode()}%' then {TRANSCRIPT}"
    f" when name like '{HEADS[THUMBNAIL - 1].decode()}%' then {THUMBNAIL} else 0 end"
)
_REMOTE: Final = ", ".join(f"'{each.value}'" for each in State if each.is_remote)
BELOW: Final = (
    "with recursive below (ino) as (select ? union all"
    " select node.ino from below cross join node on node.parent = below.ino where node.kind = 'dir' and node.ino <> 1)"
)


def folders(db: sqlite3.Connection, top: int | None) -> Iterator[Folder]:
    """All directories, or those at and below one, from there downwards."""
    if top is None:
        return map(Folder._make, db.execute("select ino, parent, name from node where kind = 'dir'"))
    query = f"{BELOW} select node.ino, parent, name from below cross join node on node.ino = below.ino"
    return map(Folder._make, db.execute(query, (top,)))


def tallies(
    db: sqlite3.Connection, top: int | None, since_ns: int, *, knows_s3: bool, knows_uses: bool = False
) -> Iterator[Tally]:
    """Files in groups. *knows_s3*: whether the catalogue has a table of objects; *knows_uses*: of local copies."""
    storage_class, used, objects = "null", "null", ""
    if knows_s3:
        storage_class, objects = "storage_class", "left join object on has_object and object.ino = node.ino"
    if knows_s3 and knows_uses:
        used = "nullif(used_ns, 0)"
        objects += f" left join local_copy on has_object and host = {HOST} and local_copy.ino = node.ino"
    files = f"node {objects} where kind = 'file'"
    begin: tuple[int, ...] = ()
    below = ""
    if top is not None:
        below, begin = BELOW, (top,)
        files = f"below cross join node on node.parent = below.ino {objects} where kind = 'file'"
    query = (
        f"{below} select parent, {_HEAD} as head, iif({_KNOWN}, {_EXTENSION}, '') as ext,"
        " here, class, recent, count(*), sum(bytes >> 32), sum(bytes & 4294967295), min(mtime_ns), max(mtime_ns),"
        " max(used)"
        " from (select node.parent, cast(name as text) as name, node.size_bytes as bytes, node.mtime_ns,"
        f" state not in ({_REMOTE}) as here, {storage_class} as class, node.mtime_ns >= ? as recent,"
        f" {used} as used"
        f" from {files}) group by 1, 2, 3, 4, 5, 6"
    )
    for parent, head, extension, here, name, recent, count, high, low, oldest, newest, used_ns in db.execute(
        query, (*begin, since_ns)
    ):
        marks = Marks(head, extension.encode())
        size = added_up([(high, low)])
        yield Tally(parent, marks, bool(here), name, bool(recent), count, size, oldest, newest, used_ns)


COMMITTED: Final = (
    f"{NAMED} and kind = 'file' and sha256 is not null and size_bytes > 0"
    " and state not in ('writing', 'sealing', 'incomplete', 'corrupt')"
)
"""Files with bytes that their checksum vouches for."""


def duplicates(db: sqlite3.Connection, worst: int, named: int) -> Duplicates:
    """Files with the same bytes. The sort is SQLite's, in a file where it is large."""
    db.execute("pragma temp_store = file")
    twins = (
        "select sha256, count(*) as files, max(size_bytes) as bytes from node"
        f" where {COMMITTED} group by sha256 having count(*) > 1"
    )
    # a product of two such numbers may be beyond 64 bits: by halves, as sums of sizes are
    sets, files, high, low = db.execute(
        "select count(*), coalesce(sum(files), 0), coalesce(sum((files - 1) * (bytes >> 32)), 0),"
        f" coalesce(sum((files - 1) * (bytes & 4294967295)), 0) from ({twins})"
    ).fetchone()
    most = db.execute(f"{twins} order by (count(*) - 1.0) * max(size_bytes) desc, sha256 limit ?", (worst,)).fetchall()
    some: dict[bytes, list[int]] = {digest: [] for digest, _, _ in most}
    if most:
        marks = ", ".join("?" * len(some))
        wanted = f"select sha256, ino from node where kind = 'file' and sha256 in ({marks})"
        for digest, ino in db.execute(wanted, list(some)):
            if len(some[digest]) < named:
                some[digest].append(ino)
    told = [Twins(digest, count, size, some[digest]) for digest, count, size in most]
    return Duplicates(sets, files, added_up([(high, low)]), told)


__all__ = ["BELOW", "COMMITTED", "duplicates", "folders", "tallies"]
