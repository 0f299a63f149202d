"""Rows as SQLite has them: statements that write a batch, and values that come back.

Times are kept in the range of ext4, folded into 64 bits (`core/bounds.py`). Rows as they usually are go to SQLite as
they are; only when it refuses one is the batch looked through (`fitting.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from recfs.core import bounds
from recfs.core.life import Cause, Life, Status
from recfs.core.model import Kind, State
from recfs.ports.batch import Batch
from recfs.ports.rows import (
    HOST,
    AccountRow,
    EventRow,
    GarbageRow,
    JournalRow,
    LocalCopy,
    MediaRow,
    NodeRow,
    ObjectRow,
    Placement,
    Promise,
    SweepRow,
    TrashRow,
    UnansweredRow,
)

Values = Sequence[Any]
Run = tuple[str, Values]
"""A statement's text, and the values for it."""


def _here(what: type[Placement | LocalCopy], table: str) -> str:
    """The columns of what is true of this machine alone, for which there need not be a row."""
    defaults = what._field_defaults
    return ", ".join(
        f"{table}.{field}" if defaults[field] is None else f"coalesce({table}.{field}, {defaults[field]}) as {field}"
        for field in what._fields
    )


def _and_here(table: str, here: str) -> str:
    return f"left join {here} on {here}.host = {HOST} and {here}.ino = {table}.ino"


NODE_FIELDS: Final = NodeRow._fields[:-1]
OBJECT_FIELDS: Final = ObjectRow._fields[:-1]
NODE_ALONE: Final = ", ".join(f"node.{field}" for field in NODE_FIELDS)
NODE: Final = f"{NODE_ALONE}, {_here(Placement, 'placement')}"
"""The columns of `node_row`, from NODES."""
AND_PLACEMENT: Final = _and_here("node", "placement")
NODES: Final = f"node {AND_PLACEMENT}"
NAMED: Final = "node.parent not in (select ino from garbage where kind = 'dir')"
"""Not of a file that lost its name together with its directory, and whose bytes are still to go."""
CONTENT: Final = (
    "node.ino, name, home_ino, size_bytes, kind = 'file' and state = 'committed' and has_object = 0"
    " and coalesce(pending, 0) = 0 and staging is null and home_name is null and coalesce(promised, 0) = 0"
)
"""The columns of `Content`, from NODES."""
OBJECT: Final = ", ".join(f"object.{field}" for field in OBJECT_FIELDS) + ", " + _here(LocalCopy, "local_copy")
"""The columns of `object_row`, from OBJECTS."""
OBJECTS: Final = f"object {_and_here('object', 'local_copy')}"
GARBAGE: Final = ", ".join(GarbageRow._fields)
ACCOUNT: Final = ", ".join(AccountRow._fields)
COPIES: Final = f"local_copy join object using (ino) where host = {HOST}"
UNDER_WAY: Final = (
    "placement indexed by placement_unsettled join node using (ino)"
    f" where host = {HOST} and (pending <> 0 or staging is not null)"
)
STAGED: Final = f"select staging from {UNDER_WAY} and staging is not null"
UNSETTLED: Final = (
    f"select ino from {UNDER_WAY} and (pending <> 0 or state = 'incomplete')"
    f" union select node.ino from {NODES} where state in ('writing', 'sealing')"
    f" and coalesce(promised, 0) & {Promise.UNHASHED} = 0"
)
"""The inode numbers of what was under way. Each part has an index of its own: no settled file is looked at, nor the row
of one that lies at home and is hashed when there is time."""
UNHASHED: Final = (
    f"from node indexed by node_unsettled cross join placement on placement.host = {HOST} and placement.ino = node.ino"
    f" where state in ('writing', 'sealing') and promised & {Promise.UNHASHED} <> 0"
)
"""In order of inode number: a cross join is done as it is written (sqlite.org/optoverview.html, "Manual Control")."""
JOURNAL: Final = ", ".join(JournalRow._fields)
SWEEP: Final = ", ".join(SweepRow._fields)
TRASH: Final = ", ".join("x'' as xattrs" if field == "xattrs" else field for field in TrashRow._fields)
"""Without the attributes, which may be large and many."""
EVENT: Final = ", ".join(EventRow._fields)
UNANSWERED: Final = ", ".join(UnansweredRow._fields)
MEDIA: Final = ", ".join(f"media.{field}" for field in MediaRow._fields)
LIFE: Final = ", ".join(f"recording.{field}" for field in Life._fields)
"""The columns of `life`."""

_KIND = {kind.value: kind for kind in Kind}
_STATE: dict[str | None, State | None] = {None: None} | {state.value: state for state in State}
_OLDEST: Final = bounds.MIN_TIME_NS
_OF_OBJECT: Final = len(OBJECT_FIELDS)
_NOWHERE: Final = Placement()


SUM: Final = "coalesce(sum(size_bytes >> 32), 0), coalesce(sum(size_bytes & 4294967295), 0)"
"""A sum of sizes in two halves, for `added_up`: SQLite's own sum() fails beyond 64 bits."""


_ALONE: Final = "state is not null and state <> 'committed' and state in ('evicted', 'fetching', 'archived')"
_SOME: Final = 5
SOME_KEYS: Final = (
    f"select * from (select key from object join node using (ino) where {_ALONE} limit {_SOME})"
    f" union select * from (select key from object limit {_SOME})"
)
"""A few of the keys that S3 should hold, those of files that are there alone among them."""
REMOTE_COUNT: Final = f"select count(*) from node where {_ALONE}"
"""How many files are in S3 alone."""


FORGET_FUTURE: Final = (
    "update node set activity_ns = :now where activity_ns <> 0 and activity_ns > :now",
    "update garbage set deleted_ns = :now where deleted_ns > :now",
    "update local_copy set keep_until_ns = max(0, keep_until_ns - used_ns + :now), used_ns = :now"
    f" where host = {HOST} and local = 1 and pinned = 0 and used_ns > :now",
    "update unanswered set noted_ns = :now where noted_ns > :now",
    "update journal set next_try_ns = next_try_ns - created_ns + :now, created_ns = :now,"
    f" lease_until_ns = lease_until_ns - iif(lease_until_ns < {bounds.MAX_INT}, created_ns - :now, 0)"
    " where created_ns > :now",
    "update trash_entry set deleted_ns = :now where deleted_ns > :now",
    "update sweep_run set steady_ns = :now where steady_ns > :now",
    "update derived set next_ns = :now where next_ns > :now",
    "update recording set born_ns = min(born_ns, :now), changed_ns = min(changed_ns, :now),"
    " dated_ns = min(dated_ns, :now), expired_ns = min(expired_ns, :now)"
    " where max(born_ns, changed_ns, dated_ns, expired_ns) > :now",
)
"""Times that lie ahead of `:now` become now, and what was to last some time from then on lasts as long from now."""


def added_up(halves: Sequence[tuple[Any, ...]]) -> int:
    """The sum that the one row of a query for `SUM` says."""
    ((high, low),) = halves
    return (int(high) << 32) + int(low)


KNOWN: Final = 4096
"""Of how many nodes `Known` keeps what was written: some 2 MiB."""
FEW: Final = 8
"""Up to so many known rows are changed one by one."""

AT_ONCE: Final = 32
"""How many rows one run of a statement writes at most."""


class Statement(NamedTuple):
    """A statement, by the number of rows that one run of it writes.

    The binding gives the interpreter's lock away at each run and may have to wait for it behind other threads: with one
    run for each row, a batch takes some three times as long as SQLite needs for it.
    """

    texts: tuple[str, ...]

    def runs(self, rows: Sequence[Values]) -> Iterator[Run]:
        """The runs that write *rows*, in order."""
        for first in range(0, len(rows), AT_ONCE):
            some = rows[first : first + AT_ONCE]
            yield self.texts[len(some)], some[0] if len(some) == 1 else [*chain.from_iterable(some)]


def _put(
    table: str, fields: tuple[str, ...], *, here: bool = False, fixed: Mapping[str, str] = MappingProxyType({})
) -> Statement:
    """*here*: of a table of what is true of one machine; *fixed*: what SQL has in further columns of each row."""
    columns, values = [*fields, *fixed], [*"?" * len(fields), *fixed.values()]
    if here:
        columns, values = ["host", *columns], [str(HOST), *values]
    before, row = f"replace into {table} ({', '.join(columns)}) values", f"({', '.join(values)})"
    return Statement(tuple(f"{before} {', '.join([row] * count)}" for count in range(AT_ONCE + 1)))


@cache
def _change(fields: tuple[str, ...]) -> Statement:
    """Of a node that is there. An index whose columns stay as they are is not written to, and no page of the database
    set aside, as it is in case one of several rows is not taken: that is half the time.
    """
    return Statement(("", f"update node set {', '.join(f'{field} = ?' for field in fields)} where ino = ?"))


def _drop(table: str, *key: str, here: bool = False) -> Statement:
    before, row = f"delete from {table} where", f"({', '.join('?' * len(key))})"
    if here:
        before += f" host = {HOST} and"
    single = f"{before} {' and '.join(f'{column} = ?' for column in key)}"
    several = f"{before} ({', '.join(key)}) in (values"
    return Statement(("", single, *(f"{several} {', '.join([row] * count)})" for count in range(2, AT_ONCE + 1))))


# `replace` also removes a row that still holds the (parent, name) a renamed row now takes; such a row changed its own
# name in the same batch, or was removed, so it is written back by its own turn.
_PUT_NODES: Final = _put("node", NODE_FIELDS)
_PUT_PLACEMENTS: Final = _put("placement", ("ino", *Placement._fields), here=True)
_PUT_ACCOUNTS: Final = _put("account", AccountRow._fields)
_PUT_GARBAGE: Final = _put("garbage", GarbageRow._fields)
_PUT_OBJECTS: Final = _put("object", OBJECT_FIELDS)
_PUT_COPIES: Final = _put("local_copy", ("ino", *LocalCopy._fields), here=True)
_PUT_JOURNAL: Final = _put("journal", JournalRow._fields)
_PUT_UNANSWERED: Final = _put("unanswered", UnansweredRow._fields)
_PUT_SWEEPS: Final = _put("sweep_run", SweepRow._fields)
_PUT_RECORDINGS: Final = _put("recording", ("ino", *Life._fields))
_PUT_MEDIA: Final = _put("media", MediaRow._fields)
_PUT_TRASH: Final = _put("trash_entry", TrashRow._fields)
_PUT_EVENTS: Final = _put("event", EventRow._fields)
_BRIEF: Final = EventRow._fields.index("was")
_NO_MORE: Final = tuple(EventRow._field_defaults.values())
_PUT_BRIEF_EVENTS: Final = _put("event", EventRow._fields[:_BRIEF], fixed={"detail": "''"})
"""Of files that were removed there is nothing more to say; with all columns a row takes twice as long."""
_PUT_XATTR: Final = _put("xattr", ("ino", "name", "value"))
_PUT_WHITEOUT: Final = _put("whiteout", ("parent", "name"))
_PUT_VIEWS: Final = _put("view", ("view_id", "ino"))
_PUT_META: Final = _put("meta", ("key", "value"))
_DROP_NODES: Final = _drop("node", "ino")
_DROP_PLACEMENTS: Final = _drop("placement", "ino", here=True)
_DROP_GARBAGE: Final = _drop("garbage", "gid")
_DROP_OBJECTS: Final = _drop("object", "ino")
_DROP_COPIES: Final = _drop("local_copy", "ino", here=True)
_DROP_JOURNAL: Final = _drop("journal", "id")
_DROP_UNANSWERED: Final = _drop("unanswered", "key")
_DROP_SWEEPS: Final = _drop("sweep_run", "id")
_DROP_TRASH: Final = _drop("trash_entry", "gid")
_DROP_EVENTS: Final = _drop("event", "id")
_DROP_XATTR: Final = _drop("xattr", "ino", "name")
_DROP_WHITEOUT: Final = _drop("whiteout", "parent", "name")
_IN_IT: Final = "from node indexed by node_parent where parent = ? and ino between ? and ?"
_DROP_CONTENT: Final = (
    Statement(("", f"delete from placement where host = {HOST} and ino in (select ino {_IN_IT})")),
    Statement(("", f"delete from xattr where ino in (select ino {_IN_IT} and has_xattrs)")),
    Statement(("", f"delete from media where ino in (select ino {_IN_IT})")),
    Statement(("", f"delete {_IN_IT}")),
)
"""One run for each directory, however many rows that are: half of what they cost one by one."""
_DROP_ALL_OF: Final = (
    _DROP_OBJECTS, _DROP_COPIES, _drop("xattr", "ino"), _drop("whiteout", "parent"), _drop("view", "ino"),
    _drop("recording", "ino"), _drop("media", "ino"),
)  # fmt: skip
"""What goes with a node."""


# --- reading -------------------------------------------------------------------------------------------------------


def node_row(values: tuple[Any, ...]) -> NodeRow:
    """Turn a result row into a NodeRow with its enums; one of the columns of `node` alone into one that is nowhere."""
    (
        ino, parent, name, kind, mode, uid, gid, size, rfiles, atime, mtime, ctime, state, sha256, md5, target,
        activity, has_xattrs, has_object, *here,
    ) = values  # fmt: skip
    if atime < _OLDEST or mtime < _OLDEST or ctime < _OLDEST:
        atime, mtime, ctime = bounds.loaded_time(atime), bounds.loaded_time(mtime), bounds.loaded_time(ctime)
    return NodeRow(
        ino, parent, name, _KIND[kind], mode, uid, gid, size, rfiles, atime, mtime, ctime, _STATE[state], sha256, md5,
        target, activity, has_xattrs, has_object, Placement._make(here) if here else _NOWHERE,
    )  # fmt: skip


def garbage_row(values: tuple[Any, ...]) -> GarbageRow:
    """Turn a result row into a GarbageRow with its enums."""
    gid, ino, kind, *rest = values
    row = GarbageRow(gid, ino, _KIND[kind], *rest)
    return row._replace(mtime_ns=bounds.loaded_time(row.mtime_ns))


def trash_row(values: tuple[Any, ...]) -> TrashRow:
    """Turn a result row into a TrashRow with its enums."""
    gid, ino, kind, *rest = values
    row = TrashRow(gid, ino, _KIND[kind], *rest)
    return row._replace(mtime_ns=bounds.loaded_time(row.mtime_ns))


def object_row(values: tuple[Any, ...]) -> ObjectRow:
    """Turn a result row into an ObjectRow."""
    row = ObjectRow._make((*values[:_OF_OBJECT], LocalCopy._make(values[_OF_OBJECT:])))
    return row._replace(mtime_ns=bounds.loaded_time(row.mtime_ns)) if row.mtime_ns < _OLDEST else row


def life(values: tuple[Any, ...]) -> Life:
    """Turn the columns of LIFE into a Life with its enums."""
    found = Life._make(values)
    return found._replace(status=Status(found.status), expired_by=Cause(found.expired_by))


# --- writing -------------------------------------------------------------------------------------------------------


class Known:
    """What the catalogue has of the nodes written last: of a row, or its place, that is the same nothing is written.

    A file is written several times in its first seconds; in half of them its place alone is another one.
    """

    def __init__(self) -> None:
        self.rows: dict[int, NodeRow] = {}
        """As they are in the catalogue, by inode number."""

    def forget(self, inos: Sequence[int] | None = None) -> None:
        """Others may have changed these; None: any."""
        if inos is None:
            self.rows.clear()
        for ino in inos or ():
            self.rows.pop(ino, None)

    def written(self, rows: Sequence[NodeRow]) -> None:
        """These are in the catalogue."""
        if len(self.rows) > KNOWN:
            self.rows.clear()
        self.rows.update((row.ino, row) for row in rows)

    def statements(self, rows: Sequence[NodeRow]) -> Iterator[tuple[Statement, Sequence[Values]]]:
        """What is to be written of *rows*."""
        nodes: list[Values] = []
        changed: list[tuple[NodeRow, NodeRow]] = []
        placed: list[Values] = []
        nowhere: list[Values] = []
        few = len(rows) <= FEW
        for row in rows:
            before, here = self.rows.get(row.ino), row.placement
            if before is not None and before[:-1] == row[:-1]:
                pass
            elif before is not None and (few or row.kind is Kind.DIR):
                changed.append((before, row))
            else:
                nodes.append(row[:-1])
            if before is None or before.placement != here:
                if here == _NOWHERE:
                    nowhere.append((row.ino,))
                else:
                    placed.append((row.ino, *here))
        if len(changed) > FEW or sum(before[1:3] != row[1:3] for before, row in changed) > 1:  # names may change places
            nodes += [row[:-1] for _, row in changed]
        else:
            for before, row in changed:
                fields = tuple(field for field, was, now in zip(NODE_FIELDS, before, row, strict=False) if was != now)
                yield _change(fields), [(*(getattr(row, field) for field in fields), row.ino)]
        yield _PUT_NODES, nodes
        yield _PUT_PLACEMENTS, placed
        yield _DROP_PLACEMENTS, nowhere


def statements(batch: Batch, known: Known) -> Iterator[tuple[Statement, Sequence[Values]]]:
    """Statements that write *batch*, in order, each with the rows to run it for."""
    removed = [(ino,) for ino in batch.removed]
    known.forget(batch.removed)
    yield _DROP_NODES, removed
    yield _DROP_PLACEMENTS, removed
    for each in batch.emptied:
        for statement in _DROP_CONTENT:
            yield statement, [each]
    yield from known.statements(batch.nodes)
    yield _PUT_ACCOUNTS, batch.accounts
    yield _PUT_GARBAGE, batch.garbage
    yield _DROP_GARBAGE, [(gid,) for gid in batch.purged]
    for ino, name, value in batch.xattrs:
        yield (_DROP_XATTR, [(ino, name)]) if value is None else (_PUT_XATTR, [(ino, name, value)])
    for parent, name, hidden in batch.whiteouts:
        yield _PUT_WHITEOUT if hidden else _DROP_WHITEOUT, [(parent, name)]
    yield _PUT_VIEWS, batch.views
    yield _DROP_OBJECTS, [(ino,) for ino in batch.objects_gone]
    yield _DROP_COPIES, [(ino,) for ino in batch.objects_gone]
    yield _PUT_OBJECTS, [row[:-1] for row in batch.objects]
    yield _PUT_COPIES, [(row.ino, *row.copy) for row in batch.objects if any(row.copy)]
    yield _DROP_COPIES, [(row.ino,) for row in batch.objects if not any(row.copy)]
    yield _PUT_JOURNAL, batch.journal
    yield _DROP_JOURNAL, [(done,) for done in batch.journal_done]
    yield _PUT_UNANSWERED, batch.unanswered
    yield _DROP_UNANSWERED, [(key,) for key in batch.answered]
    yield _PUT_SWEEPS, batch.sweeps
    yield _DROP_SWEEPS, [(gone,) for gone in batch.sweeps_gone]
    yield _PUT_TRASH, batch.trash
    yield _DROP_TRASH, [(gone,) for gone in (*batch.trash_gone, *batch.purged)]
    yield _PUT_RECORDINGS, [(row.ino, *row.life) for row in batch.recordings]
    yield _PUT_MEDIA, batch.media
    brief: list[Values] = []
    others: list[Values] = []
    for row in batch.events:
        if row[_BRIEF:] == _NO_MORE:
            brief.append(row[:_BRIEF])
        else:
            others.append(row)
    yield _PUT_BRIEF_EVENTS, brief
    yield _PUT_EVENTS, others
    yield _DROP_EVENTS, [(gone,) for gone in batch.events_gone]
    for statement in _DROP_ALL_OF:  # last: the batch may also hold what they were given before they went
        yield statement, removed
    yield _PUT_META, list(batch.meta.items())


def runs(batch: Batch, known: Known) -> list[Run]:
    """What is to be run, in one transaction and in order, to write *batch* as it is.

    SQLite, or its binding, raises one of `fitting.UNFIT` for a row that does not fit.
    """
    return [run for statement, rows in statements(batch, known) if rows for run in statement.runs(rows)]
