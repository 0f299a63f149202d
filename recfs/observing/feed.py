"""Reading events by a cursor, and waiting for the next: the catalogue is the buffer, however slow a reader is.

What a reader is told survives a power cut: otherwise it could have seen what then never happened. So the log is synced
before it is told, once for all readers and only while there are any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from recfs.core.layout import owner_of
from recfs.core.observing.cursors import EPOCH, NOW, OLDEST, Cursor, parse_since
from recfs.core.observing.kinds import KINDS
from recfs.core.observing.lines import moment, named
from recfs.errors import Busy, CursorLost, InvalidArgument

if TYPE_CHECKING:
    from recfs.observing.journal import EventJournal
    from recfs.ports.reports import Reports, Snapshot
    from recfs.ports.rows import EventRow
    from recfs.state.writebehind import WriteBehind

PAGE = 1000
"""So many events are looked at before others have their turn, and told at most in one answer."""
PAGES = 20
"""Of so many pages an answer comes, though none of the events in them was wanted: the next question goes on."""
GATHER_S = 0.1
"""After the first event that somebody waits for, others may join it: no more than ten answers a second."""
LONGEST_WAIT_S = 60.0
MOST_READERS = 16
"""So many may wait at once: other commands need connections, too."""


class Wanted(NamedTuple):
    """Which events somebody wants."""

    kinds: frozenset[str] = KINDS
    user: str | None = None

    def has(self, row: EventRow) -> bool:
        """Whether it is one of them."""
        if row.kind not in self.kinds:
            return False
        if self.user is None:
            return True
        return self.user in (_user_of(row.path), _user_of(row.was))


class Page(NamedTuple):
    """Some events, and where to go on."""

    events: list[dict[str, Any]]
    cursor: Cursor
    more: bool
    """Whether there are others already."""

    def as_json(self) -> dict[str, Any]:
        """As the control protocol has it."""
        return {"events": self.events, "cursor": str(self.cursor), "more": self.more}


def wanted(kinds: list[str] | None, user: str | None) -> Wanted:
    """Check what somebody asks for. Raises InvalidArgument."""
    unknown = sorted(set(kinds or ()) - KINDS)
    if unknown:
        raise InvalidArgument(f"no kind of events: {', '.join(unknown)}; there are {', '.join(sorted(KINDS))}")
    return Wanted(frozenset(kinds) if kinds else KINDS, user)


def read(snapshot: Snapshot, since: str, which: Wanted, limit: int, now_ns: int, until: int | None = None) -> Page:
    """Events after *since*, a cursor or what may stand for one; *until*: none after that one. Blocking.

    Raises CursorLost where events after the cursor are not kept any more, InvalidArgument.
    """
    epoch = snapshot.meta().get(EPOCH) or "0" * 8
    first, last = snapshot.event_span()
    last = last if until is None else min(last, until)
    at = _position(snapshot, since, Cursor(epoch, last), first, now_ns)
    found: list[dict[str, Any]] = []
    for _ in range(PAGES):
        rows = snapshot.events(at, min(PAGE, last - at))
        for row in rows:
            at = row.id
            if which.has(row):
                found.append(as_json(row, Cursor(epoch, at)))
                if len(found) >= limit:
                    return Page(found, Cursor(epoch, at), at < last)
        if at >= last or not rows:
            return Page(found, Cursor(epoch, max(at, last)), False)
    return Page(found, Cursor(epoch, at), True)


def _position(snapshot: Snapshot, since: str, newest: Cursor, first: int, now_ns: int) -> int:
    try:
        start = parse_since(since, now_ns)
    except ValueError as error:
        raise InvalidArgument(f"since: {error}; or a cursor, {OLDEST} or {NOW}") from None
    if isinstance(start, Cursor):
        if start.epoch != newest.epoch:
            raise CursorLost(
                f"the cursor {start} is of another history: the catalogue was restored or made anew, or events were"
                f" turned off for a time. Look at the files themselves (`recfs ls-files`), and go on from {OLDEST!r} or"
                f" {NOW!r}"
            )
        if start.id < first - 1:
            raise CursorLost(
                f"the cursor {start} is too old: the first event that is kept comes after {newest.epoch}-{first - 1}"
                f" ([events] keep and most). Look at the files themselves (`recfs ls-files`), and go on from"
                f" {OLDEST!r} or {NOW!r}"
            )
        if start.id > newest.id:
            raise CursorLost(f"the cursor {start} lies ahead of the last event, {newest}: it is not of this store")
        return start.id
    if start == OLDEST:
        return max(0, first - 1)
    if start == NOW:
        return newest.id
    assert isinstance(start, int)
    found = snapshot.event_since(start)
    return newest.id if found is None else min(found - 1, newest.id)


def as_json(row: EventRow, cursor: Cursor) -> dict[str, Any]:
    """An event for programs; what it does not have is left out."""
    told: dict[str, Any] = {
        "cursor": str(cursor), "time": moment(row.at_ns), "time_ns": row.at_ns, "event": row.kind,
        **named("path", row.path),
    }  # fmt: skip
    if row.was is not None:
        told |= named("was", row.was)
    user = _user_of(row.path)
    if user is not None:
        told["user"] = user
    if row.ino:
        told["ino"] = row.ino
    if row.size_bytes is not None:
        told["size_bytes"] = row.size_bytes
    if row.sha256 is not None:
        told["sha256"] = row.sha256.hex()
    if row.detail:
        told["detail"] = row.detail
    return told


def _user_of(path: bytes | None) -> str | None:
    return owner_of(tuple(path.split(b"/"))) if path is not None else None


class Feed:
    """Answers readers of a store in use."""

    def __init__(self, journal: EventJournal, behind: WriteBehind, reports: Reports) -> None:
        self._journal = journal
        self._behind = behind
        self._reports = reports
        self.readers = 0
        """How many wait for events right now."""

    async def read(
        self, since: str, which: Wanted, limit: int, now_ns: int, wait_s: float = 0.0, *, own: bool = False
    ) -> Page:
        """Events after *since*; where there are none, wait for some, for *wait_s* seconds at most.

        *own*: for the daemon itself, which always has a place.

        Raises CursorLost, InvalidArgument, IoFailure or OutOfSpace; Busy where too many wait already.
        """
        await self._behind.flush()
        until = self._journal.written_id
        found = await self._read(since, which, limit, now_ns, until)
        if found.events or found.more or wait_s <= 0:
            return found
        if self.readers >= MOST_READERS and not own:
            raise Busy(f"{self.readers} others are waiting for events already; try again later")
        self.readers += 1
        try:
            with trio.move_on_after(min(wait_s, LONGEST_WAIT_S)):
                while not found.events and not found.more:
                    await self._journal.written_beyond(until)
                    await trio.sleep(GATHER_S)
                    until = self._journal.written_id
                    found = await self._read(str(found.cursor), which, limit, now_ns, until)
        finally:
            self.readers -= 1
        return found

    async def _read(self, since: str, which: Wanted, limit: int, now_ns: int, until: int) -> Page:
        await self._behind.synced()
        return await self._reports.ask(read, since, which, limit, now_ns, until)


__all__ = ["Feed", "Page", "Wanted", "as_json", "read", "wanted"]
