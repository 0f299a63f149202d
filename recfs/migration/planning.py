"""Making a plan: the old tree is walked, the database read, and it is decided, with equals proved by their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from recfs.core.migration.claims import File, Named, named_by
from recfs.core.migration.escapes import escaped
from recfs.core.migration.lookup import Index
from recfs.core.migration.matching import decide
from recfs.core.migration.names import bytes_of
from recfs.core.migration.oldtree import Slot, other_owner
from recfs.core.migration.plan import LEFT, Action, Plan
from recfs.core.migration.rows import EXPIRED_STATUS, ID, NOW, Row, moment, row_of
from recfs.errors import InvalidArgument
from recfs.migration import database, dumps
from recfs.migration.mapping import Names
from recfs.migration.plans import ELSEWHERE
from recfs.migration.regular import opened_below
from recfs.migration.walking import Walk, file_at, top_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    Tell = Callable[[str, int], None]
    """What is being done, and how much of it is: files that were found, or bytes that were read."""

_DATABASE: Final = "data.db"
"""What the platform calls it, in the old tree."""
_BLOCK: Final = 1 << 20
_CHANGED: Final = "it changed meanwhile"
_TOLD_EVERY: Final = 1000
_PROBLEMS: Final = 1000
"""So many rows are told that mean nothing."""
_TOLD: Final = 200
"""So many characters of a text are told that is there for people alone."""
_UNSAFE: Final = re.compile("[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a plan is to be made of."""

    old: Path
    database: Path | None = None
    dump: Path | None = None
    """A table as CSV instead."""
    encoding: str | None = None
    """Of `dump`."""
    names: Names = field(default_factory=Names)
    take_expired: bool = False
    elsewhere: Sequence[Path] = ()
    """Directories outside the old tree, of which files are taken that the database names."""
    one_file_system: bool = False


@dataclass(slots=True)
class Made:
    """A plan, and what is to be said besides."""

    plan: Plan
    rows: int | None
    """Recordings that the database has; None without one."""
    expired: int
    """Recordings that are skipped, since they have expired."""
    missing: int
    """Paths of the database that name no file."""
    bad_rows: int
    mounts: Sequence[bytes]
    vanished: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing needs a person."""
        return not (self.missing or self.bad_rows or set(self.plan.counts()) & LEFT)


def make(wishes: Wishes, now: datetime, tell: Tell = lambda _what, _done: None) -> Made:
    """Look at everything, and decide. *now*: by it recordings have expired.

    Raises as `Walk.files`, and `rows_in` of `database` and `dumps`; InvalidArgument where no row is any recording's.
    """
    top = top_of(os.fsencode(wishes.old))
    walk = Walk(top, wishes.one_file_system)
    rows, bad = _rows(wishes)  # before the tree: a wrong name of a column is known at once
    own = _own_files(wishes)
    files: list[File] = []
    for file in walk.files():
        why = own.get(os.path.join(top, file.path))
        files.append(file if why is None else replace(file, left=Action.SKIP, reason=why))
        if len(files) % _TOLD_EVERY == 0:
            tell("files found", len(files))
    for number, file in enumerate(files):  # now that all directories are known
        if file.left is None and (why := other_owner(file.path, file.owner, walk.owners)):
            files[number] = replace(file, left=Action.AMBIGUOUS, reason=why)
    named = Named()
    expired: dict[tuple[str, str], str] = {}
    if rows is not None:
        named = _named(wishes, top, rows, files, walk.folders)
        if not wishes.take_expired:
            expired = {(row.user, row.id): why for row in rows if (why := row.expired(now, wishes.names.expired))}
    digests = Digests(top, tell)
    decided = decide(files, rows, named, digests.of, expired)
    plan = Plan(_header(wishes, top, now), decided.entries)
    missing = [each for each in named.missing if (each.row.user, each.row.id) not in expired]
    for row in rows or ():
        if row.where in decided.columns:
            plan.made_of[f"recording {row.where.decode()}"] = _told(
                row, decided.columns[row.where], wishes.names.expired
            )
    for each in missing:
        text = f"{escaped(bytes_of(each.row.paths[each.slot]))}: {escaped(each.reason.encode('utf-8', 'replace'))}"
        plan.made_of[f"missing {each.row.where.decode()} {each.slot.value}"] = text
    for number, (which, why) in enumerate(bad[:_PROBLEMS], 1):
        plan.made_of[f"row {number}"] = escaped(f"{which}: {why}".encode("utf-8", "surrogateescape"))
    return Made(
        plan, None if rows is None else len(rows), len(expired), len(missing), len(bad), walk.mounts, walk.vanished
    )


def _named(wishes: Wishes, top: bytes, rows: Sequence[Row], files: Sequence[File], folders: set[bytes]) -> Named:
    """What rows name; the indexes by which it is found take room, and are gone afterwards."""
    bases = dict.fromkeys((top, os.path.abspath(os.fsencode(wishes.old))))
    return named_by(rows, Index(file.path for file in files), Index(folders), list(bases), _elsewhere(wishes))


def _header(wishes: Wishes, top: bytes, now: datetime) -> dict[str, str]:
    """What a plan says that it was made of."""
    made_of = {"made": moment(now), "old": escaped(top)}
    if wishes.database is not None:
        made_of["db"] = escaped(os.path.abspath(os.fsencode(wishes.database)))
    if wishes.dump is not None:
        made_of["map"] = escaped(os.path.abspath(os.fsencode(wishes.dump)))
    if wishes.database is not None or wishes.dump is not None:
        made_of["mapping"] = _json(wishes.names.told())
        made_of["expired"] = "migrate" if wishes.take_expired else "skip"
    if wishes.elsewhere:
        made_of[ELSEWHERE] = _json([escaped(os.path.realpath(os.fsencode(each))) for each in wishes.elsewhere])
    return made_of


def _json(document: Any) -> str:
    """JSON in one line that can be read, whatever names have in them."""
    text = json.dumps(document, ensure_ascii=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _told(row: Row, columns: Mapping[str, str], expired: frozenset[str]) -> str:
    """What a run and an update of the database need to know of a recording."""
    status = row.status.strip().casefold()
    told: dict[str, Any] = {"row": row.told_id}
    if row.expires is not None:
        told["expires"] = moment(row.expires)
    elif status in expired or status in EXPIRED_STATUS:
        told["expires"] = NOW if status in expired else ""
    was = {column: row.paths.get(Slot(column), "") for column in sorted(columns)}
    told |= {
        "status": row.status[:_TOLD],
        "name": row.name[:_TOLD],
        "columns": dict(sorted(columns.items())),
        "was": was,
    }
    return _json(told)


def _own_files(wishes: Wishes) -> dict[bytes, str]:
    """Files of the platform and of the plan itself that may lie in the tree, by real path, and what they are."""
    found: dict[bytes, str] = {}
    for each in filter(None, (wishes.old / _DATABASE, wishes.database)):
        for path in database.files_of(each):
            found[os.path.realpath(os.fsencode(path))] = "the platform's database"
        for path in database.copies_of(each):
            found[os.path.realpath(os.fsencode(path))] = "the platform's database before `verify --update-db`"
    if wishes.dump is not None:
        found[os.path.realpath(os.fsencode(wishes.dump))] = "the platform's table"
    return found


def _rows(wishes: Wishes) -> tuple[list[Row] | None, list[tuple[str, str]]]:
    """The recordings, and the rows that are none, with the reason. None without a database."""
    if wishes.database is not None:
        told, where = database.rows_in(wishes.database, wishes.names), wishes.database
    elif wishes.dump is not None:
        told, where = dumps.rows_in(wishes.dump, wishes.names, wishes.encoding), wishes.dump
    else:
        return None, []
    rows: dict[tuple[str, str], Row] = {}
    bad: list[tuple[str, str]] = []
    for number, values in enumerate(told, 1):
        identity = values[ID]
        which = str(identity)[:_TOLD] if isinstance(identity, (int, str)) and identity != "" else f"number {number}"
        try:
            row = row_of(values)
        except InvalidArgument as error:
            bad.append((which, str(error)))
            continue
        if rows.setdefault((row.user, row.id), row) is not row:
            raise InvalidArgument(f"{where}: recording {row.id} of user {row.user} is there twice")
    if bad and not rows:
        which, why = bad[0]
        raise InvalidArgument(f"{where}: no row is a recording's; row {which}: {why}. --columns says what columns mean")
    return list(rows.values()), bad


def _elsewhere(wishes: Wishes) -> Callable[[bytes], File | str | None]:
    """Looks at files outside the old tree: those below directories that were named are taken, and no others.

    A row may name any file of the machine, and whoever can write rows is not to have it put into his directory.
    """
    allowed = [os.path.realpath(os.fsencode(each)).rstrip(b"/") + b"/" for each in wishes.elsewhere]

    def look(path: bytes) -> File | str | None:
        real = os.path.realpath(path) if b"\0" not in path else path
        if not any(real.startswith(each) for each in allowed):
            return "no such file in the old tree, and none outside is taken but below what --elsewhere names"
        return file_at(real)

    return look


class Digests:
    """Says of files what their bytes are: the sha256 of each that is asked for, read once."""

    def __init__(self, top: bytes, tell: Tell) -> None:
        self._top = top
        self._tell = tell
        self._known: dict[bytes | tuple[int, int], bytes | str] = {}
        self._read = 0

    def of(self, file: File) -> bytes | str:
        """The sha256, or why the file cannot be read."""
        key = file.inode or file.path
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._digest(file)
        return found

    def _digest(self, file: File) -> bytes | str:
        digest = hashlib.sha256()
        size = 0
        top, path = (b"/", file.path[1:]) if file.path.startswith(b"/") else (self._top, file.path)
        try:
            with open(opened_below(top, path), "rb", buffering=0) as stream:
                # One byte more than it had shows that it grew: one that grows all the time would have no end.
                while block := stream.read(min(_BLOCK, file.size + 1 - size)):
                    digest.update(block)
                    size += len(block)
                    self._read += len(block)
                    self._tell("bytes compared", self._read)
        except OSError as error:
            return error.strerror or str(error)
        except InvalidArgument:
            return _CHANGED
        return digest.digest() if size == file.size else _CHANGED


__all__ = ["Digests", "Made", "Wishes", "make"]
