"""`recfs quota check`: proves the counters against the rows they count."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from recfs.catalogue.connection import connect
from recfs.catalogue.counting.counters import RECOUNT
from recfs.catalogue.counting.proof import prove
from recfs.catalogue.rows import SUM, added_up
from recfs.core.bounds import total
from recfs.core.figures.counters import RECOUNT_DUE
from recfs.ports.reports import Checked, Difference
from recfs.ports.rows import ROOT_INO

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


def check(db: sqlite3.Connection) -> Checked:
    """Add everything up anew, as one transaction sees it. Memory grows with directories, not with files."""
    return replace(_check_totals(db), figures=prove(db))


def _check_totals(db: sqlite3.Connection) -> Checked:
    parents: dict[int, int] = {}
    names: dict[int, bytes] = {}
    recorded: dict[int, tuple[int, int]] = {}
    for ino, parent, name, size, rfiles in db.execute(
        "select ino, parent, name, size_bytes, rfiles from node where kind = 'dir'"
    ):
        parents[ino], names[ino], recorded[ino] = parent, name, (size, rfiles)
    totals: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    files = 0
    for parent, high, low, count in db.execute(
        f"select parent, {SUM}, count(*) from node where kind <> 'dir' group by parent"
    ):
        files += count * (parent in parents)  # of others the directory is gone already
        totals[parent][0] += added_up([(high, low)])
        totals[parent][1] += count
    for ino in reversed(_downwards(parents)):
        above = totals[parents[ino]]
        above[0] += totals[ino][0]
        above[1] += totals[ino][1]
    differences = [
        Difference(f"directory {_path(ino, parents, names)}", ino, None, *recorded[ino], *totals[ino])
        for ino in sorted(parents)
        if recorded[ino] != (total(totals[ino][0]), totals[ino][1])
    ]
    return Checked(*_check_users(db, parents, names, totals, differences, files))


def recount(catalogue: Path) -> Checked:
    """Have every account and total say what its rows add up to, in one transaction; counters of files are due for it.

    Before anything of them is in memory.
    """
    with closing(connect(catalogue)) as db:
        db.execute("begin immediate")
        found = _check_totals(db)
        for off in found.differences:
            if off.ino is not None:
                values = (total(off.actual_bytes), off.actual_files, off.ino)
                db.execute("update node set size_bytes = ?, rfiles = ? where ino = ?", values)
            else:
                db.execute(
                    "insert or ignore into account (user, used_bytes, used_files, month, month_uploads)"
                    " values (?, 0, 0, '', 0)",
                    (off.user,),
                )
                counted = (total(off.actual_bytes), off.actual_files, off.user)
                db.execute("update account set used_bytes = ?, used_files = ? where user = ?", counted)
        db.execute(RECOUNT, (RECOUNT_DUE,))  # of rows that were not taken, others may have taken the place, uncounted
        db.execute("commit")
        return found


def _downwards(parents: dict[int, int]) -> list[int]:
    """All directories below the root, none before the one it is in."""
    below: dict[int, list[int]] = defaultdict(list)
    for ino, parent in parents.items():
        if ino != ROOT_INO:
            below[parent].append(ino)
    order = [ROOT_INO]
    for ino in order:  # grows as it is read
        order += below[ino]
    return order[1:]


def _check_users(
    db: sqlite3.Connection,
    parents: dict[int, int],
    names: dict[int, bytes],
    totals: dict[int, list[int]],
    differences: list[Difference],
    files: int,
) -> tuple[int, int, list[Difference]]:
    tops = {ino for ino, parent in parents.items() if parent == ROOT_INO and names[ino] in (b"users", b"temp")}
    actual: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for ino, parent in parents.items():
        if parent in tops and ino not in tops:
            user = names[ino].decode("ascii", "replace")
            actual[user][0] += totals[ino][0]
            actual[user][1] += totals[ino][1]
    accounts = {row[0]: (row[1], row[2]) for row in db.execute("select user, used_bytes, used_files from account")}
    for user in sorted(actual.keys() | accounts.keys()):
        counted = accounts.get(user, (0, 0))
        if counted != (total(actual[user][0]), actual[user][1]):
            differences.append(Difference(f"user {user}", None, user, *counted, *actual[user]))
    return len(actual.keys() | accounts.keys()), files, differences


def _path(ino: int, parents: dict[int, int], names: dict[int, bytes]) -> str:
    parts: list[str] = []
    while ino != ROOT_INO and ino in parents:
        parts.append(names[ino].decode("utf-8", "surrogateescape"))
        ino = parents[ino]
    return "/".join(reversed(parts)) or "/"


__all__ = ["check", "recount"]
