"""Files with the same bytes, as SQLite finds them: by a sort of its own, in a file where that is large.

There is no index of all checksums, which every file would pay for: each question reads all rows, a second or two for a
million. Memory is that of the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recfs.catalogue.figures import COMMITTED
from recfs.catalogue.rows import added_up
from recfs.ports.duplicates import Identical, Set, Sets, Twin

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from recfs.ports.duplicates import Which

_HERE: Final = "state in ('committed', 'uploading', 'stored')"
_WASTE: Final = "(count(*) - 1) * max(size_bytes)"


def _files(which: Which) -> tuple[str, list[object]]:
    """(beginning of a statement, files that are meant, values of both): the files are `from {…}`."""
    if which.tops is None:
        return f"node where {COMMITTED} and size_bytes >= ?", [which.min_bytes]
    return (
        f"below cross join node on node.parent = below.ino where {COMMITTED} and size_bytes >= ?",
        [which.min_bytes],
    )


def _below(which: Which) -> tuple[str, list[object]]:
    if which.tops is None:
        return "", []
    tops = " union ".join(["select ?"] * len(which.tops)) or "select null"
    return (
        f"with recursive below (ino) as ({tops} union all"
        " select node.ino from below cross join node on node.parent = below.ino"
        " where node.kind = 'dir' and node.ino <> 1) ",
        list(which.tops),
    )


def sets(db: sqlite3.Connection, which: Which, after: tuple[int | float, bytes] | None, limit: int, named: int) -> Sets:
    """The sets that waste most, after one of them, and what there is in all."""
    db.execute("pragma temp_store = file")
    below, tops = _below(which)
    files, values = _files(which)
    db.execute("drop table if exists temp.twins")
    db.execute(
        f"create temp table twins as {below}"
        f"select sha256, count(*) as files, max(size_bytes) as bytes, {_WASTE} as waste from {files}"
        " group by sha256 having count(*) > 1",
        [*tops, *values],
    )
    # a product of two such numbers may be beyond 64 bits: by halves, as sums of sizes are
    count, total, high, low = db.execute(
        "select count(*), coalesce(sum(files), 0), coalesce(sum((files - 1) * (bytes >> 32)), 0),"
        " coalesce(sum((files - 1) * (bytes & 4294967295)), 0) from temp.twins"
    ).fetchone()
    where = "" if after is None else "where waste < ? or (waste = ? and sha256 > ?)"
    begin = [] if after is None else [after[0], *after]
    query = f"select sha256, files, bytes, waste from temp.twins {where} order by waste desc, sha256 limit ?"
    most = db.execute(query, [*begin, limit]).fetchall()
    some: dict[bytes, list[Twin]] = {digest: [] for digest, *_ in most}
    if most and named:
        marks = ", ".join("?" * len(some))
        wanted = f"{below}select sha256, node.ino, state from {files} and sha256 in ({marks})"
        for digest, ino, state in db.execute(wanted, [*tops, *values, *some]):
            if len(some[digest]) < named:
                some[digest].append(Twin(ino, state))
    db.execute("drop table temp.twins")
    return Sets(
        count, total, added_up([(high, low)]),
        [Set(digest, number, size, waste, some[digest]) for digest, number, size, waste in most],
    )  # fmt: skip


def files_of(db: sqlite3.Connection, which: Which, sha256: bytes, after: int, limit: int) -> Sequence[Twin]:
    """The files of one checksum, by inode number."""
    below, tops = _below(which)
    files, values = _files(which)
    query = f"{below}select node.ino, state from {files} and sha256 = ? and node.ino > ? order by node.ino limit ?"
    return [Twin._make(row) for row in db.execute(query, [*tops, *values, sha256, after, limit])]


def digests(db: sqlite3.Connection, which: Which, least: bytes, most: bytes) -> Sequence[bytes]:
    """Two at most of the checksums between two."""
    below, tops = _below(which)
    files, values = _files(which)
    query = f"{below}select distinct sha256 from {files} and sha256 between ? and ? limit 2"
    return [digest for (digest,) in db.execute(query, [*tops, *values, least, most])]


def identical(
    db: sqlite3.Connection, which: Which, after: tuple[bytes, int] | None, limit: int
) -> Sequence[Identical]:  # fmt: skip
    """Files of which there are several here, by checksum and inode number, from one of them on."""
    db.execute("pragma temp_store = file")
    below, tops = _below(which)
    files, values = _files(which)
    begin, given = ("", []) if after is None else (" and (sha256, node.ino) >= (?, ?)", [*after])
    from_there = "" if after is None else " and sha256 >= ?"
    first = [] if after is None else [after[0]]
    query = (
        f"{below}select sha256, node.ino from {files} and {_HERE}{begin} and sha256 in"
        f" (select sha256 from {files} and {_HERE}{from_there} group by sha256 having count(*) > 1)"
        " order by sha256, node.ino limit ?"
    )
    return [Identical._make(row) for row in db.execute(query, [*tops, *values, *given, *values, *first, limit])]


class DuplicateQueries:
    """The DuplicateFiles port, for a snapshot."""

    _db: sqlite3.Connection

    def twin_sets(self, which: Which, after: tuple[int | float, bytes] | None, limit: int, named: int) -> Sets:
        """The sets that waste most."""
        return sets(self._db, which, after, limit, named)

    def twins(self, which: Which, sha256: bytes, after: int, limit: int) -> Sequence[Twin]:
        """The files of one checksum."""
        return files_of(self._db, which, sha256, after, limit)

    def digests(self, which: Which, least: bytes, most: bytes) -> Sequence[bytes]:
        """Two at most of the checksums between two."""
        return digests(self._db, which, least, most)

    def identical(self, which: Which, after: tuple[bytes, int] | None, limit: int) -> Sequence[Identical]:
        """Files of which there are several here."""
        return identical(self._db, which, after, limit)


__all__ = ["DuplicateQueries"]
