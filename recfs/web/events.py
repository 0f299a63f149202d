"""What happens, as server-sent events: one reader of the daemon's feed for all who listen here.

The daemon lets a few wait for its events; here many do. What it tells is kept in a ring, from which everybody reads at
their own pace; who comes with an older cursor, or has fallen behind, is given what is missing page by page. So nobody
holds up another, and nobody misses an event or gets one twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from recfs.client.errors import ClientError, CursorLost
from recfs.core.observing.cursors import NOW, Cursor, parse_since
from recfs.web.daemon import Daemon
from recfs.web.who.principal import Principal

logger = logging.getLogger(__name__)

RING: Final = 2000
"""So many of the daemon's events are kept for listeners that fall behind or come again."""
NOTES: Final = 500
"""So many of the gateway's own."""
WAIT_S: Final = 20.0
"""How long one question to the daemon waits for an event."""
AGAIN_S: Final = 1.0
STATUS_S: Final = 5.0
"""How often the daemon is asked how it is, while an admin listens."""
TICK_S: Final = 1.0
"""So long after their token was revoked, at most, listeners are sent away; nothing is told them in that time."""
BEAT_S: Final = 15.0
"""How often something is sent where nothing happens: proxies end connections that stand still."""


class Told(NamedTuple):
    """One event for somebody; without a kind it only says how far they are."""

    kind: str
    data: Any
    cursor: str | None


class _Note(NamedTuple):
    """What the gateway itself has to tell, which is not kept."""

    number: int
    user: str | None
    kind: str
    data: Any


class Feed:
    """The daemon's events for all who listen. For one event loop."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._ring: deque[tuple[int, dict[str, Any]]] = deque()
        self._first: Cursor | None = None
        """What comes after it is in the ring; None: nothing has been heard of the daemon yet."""
        self._last: Cursor | None = None
        self._notes: deque[_Note] = deque(maxlen=NOTES)
        self._noted = 0
        self._status: Any = None
        self._listeners = self._admins = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._closed = False

    def note(self, kind: str, data: Any, user: str | None = None) -> None:
        """Tell something of the gateway's own to those who listen now: of a *user*'s, or (None) to admins alone."""
        self._noted += 1
        self._notes.append(_Note(self._noted, user, kind, data))
        self._wake()

    async def follow(
        self, who: Principal, since: str | None, wanted: Callable[[dict[str, Any]], bool], still: Callable[[], bool]
    ) -> AsyncGenerator[Told, None]:
        """Events for somebody, after a cursor (or what may stand for one; None: from now on), for as long as they may.

        Ends when *still* says no, before anything more is told. Raises what the daemon answers to the first question.
        """
        self._begin(who.is_admin)
        try:
            noted, status = self._noted, None
            at, beat_s = await self._start(since), 0.0
            yield Told("", None, str(at))
            while not self._closed and still():
                page, cursor = await self._page(at)
                if cursor is None:  # what comes after is not kept, or is of another history
                    at = await self._start(None)
                    yield Told("lost", {"cursor": str(at)}, str(at))
                    await asyncio.sleep(AGAIN_S)
                    continue
                sent = False
                for event in page:
                    mine = for_user(event, who)
                    if mine is not None and wanted(mine):
                        if not still():
                            return
                        yield Told(mine["event"], mine, event["cursor"])
                        sent = True
                moved, at = cursor != at, cursor
                for note in [each for each in self._notes if each.number > noted]:
                    noted = note.number
                    if who.is_admin or (note.user is not None and who.sees(note.user)):
                        yield Told(note.kind, note.data, None)
                if who.is_admin and self._status is not None and self._status != status:
                    status = self._status
                    yield Told("status", status, None)
                beat_s = 0.0 if sent else beat_s
                if not moved:
                    beat_s += await self._wait()
                if beat_s >= BEAT_S:
                    beat_s = 0.0
                    yield Told("", None, str(at))
        finally:
            self._end(who.is_admin)

    async def _start(self, since: str | None) -> Cursor:
        """Where somebody begins. Raises DaemonUnreachable, DaemonRefused."""
        if since is None and self._last is not None:
            return self._last
        page = await self._daemon.ask("events", since=since or NOW, limit=1)
        if since is None or not page["events"]:
            return _cursor(page["cursor"])
        first = _cursor(page["events"][0]["cursor"])
        return first._replace(id=first.id - 1)

    async def _page(self, at: Cursor) -> tuple[list[dict[str, Any]], Cursor | None]:
        """What comes after a cursor, as far as it is known at once, and where that ends; None: it is lost."""
        first, last = self._first, self._last
        if first is not None and last is not None and first.epoch == at.epoch and at.id >= first.id:
            found = [event for number, event in self._ring if number > at.id]
            return found, last if last.id > at.id else at
        try:
            page = await self._daemon.ask("events", since=str(at))
        except CursorLost:
            return [], None
        except ClientError:
            return [], at
        return page["events"], _cursor(page["cursor"])

    async def _wait(self) -> float:
        """Wait until something has changed, a moment at most; gives how long that may have taken."""
        changed = self._changed
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await changed.wait()
        return TICK_S

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _begin(self, admin: bool) -> None:
        self._listeners += 1
        self._admins += admin
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._look())]

    def _end(self, admin: bool) -> None:
        self._listeners -= 1
        self._admins -= admin
        if not self._listeners:
            self.stop()

    def close(self) -> None:
        """Send all listeners away: the gateway ends."""
        self._closed = True
        self._wake()

    def stop(self) -> None:
        """Ask the daemon nothing more; what is in the ring would have a gap later."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._forget()

    def _forget(self) -> None:
        self._ring.clear()
        self._first = self._last = None

    async def _read(self) -> None:
        """Fill the ring, over restarts of the daemon."""
        while True:
            try:
                since = NOW if self._last is None else str(self._last)
                wait = {} if self._last is None else {"wait_s": WAIT_S}
                before, at_s = self._last, time.monotonic()
                self._keep(await self._daemon.ask("events", since=since, **wait))
                if self._last == before and time.monotonic() - at_s < AGAIN_S:
                    await asyncio.sleep(AGAIN_S)  # it was to wait for an event, and has not
            except CursorLost:
                self._forget()
                await asyncio.sleep(AGAIN_S)
            except ClientError:
                await asyncio.sleep(AGAIN_S)
            except Exception:
                logger.exception("events could not be read")
                self._forget()
                await asyncio.sleep(AGAIN_S)

    def _keep(self, page: dict[str, Any]) -> None:
        end = _cursor(page["cursor"])
        if self._first is None:
            self._first = end
        else:
            self._ring.extend((_cursor(event["cursor"]).id, event) for event in page["events"])
            while len(self._ring) > RING:
                self._first = self._first._replace(id=self._ring.popleft()[0])
        moved, self._last = end != self._last, end
        if moved:
            self._wake()

    async def _look(self) -> None:
        """Ask how the daemon is while an admin wants to know."""
        while True:
            if self._admins:
                try:
                    found: Any = condition(await self._daemon.ask("status"))
                except ClientError as error:
                    found = {"daemon": "away", "reason": type(error).__name__}
                except Exception:
                    logger.exception("the daemon's status could not be read")
                    found = self._status
                if found != self._status:
                    self._status = found
                    self._wake()
            await asyncio.sleep(STATUS_S)


def condition(status: dict[str, Any]) -> dict[str, Any]:
    """What of `recfs status` is worth an event when it changes: problems and the queues."""
    far = status.get("s3") or {}
    return {
        "daemon": "here",
        "problems": status.get("problems", []),
        "queue": far.get("queue"),
        "s3": far.get("trouble"),
    }


def for_user(event: dict[str, Any], who: Principal) -> dict[str, Any] | None:
    """An event as somebody may know it; None: not at all. Of a name that came from a foreign user, or went to one,
    the other side is not told: for those whom it left it is gone.
    """
    if who.is_admin:
        return event
    here, there = (user_of(event.get(key)) for key in ("path", "was"))
    if here is not None and who.sees(here):
        if "was" in event and (there is None or not who.sees(there)):
            return {key: value for key, value in event.items() if key not in ("was", "was_hex")}
        return event
    if there is not None and who.sees(there):
        kept = {key: event[key] for key in ("cursor", "time", "time_ns", "ino", "size_bytes") if key in event}
        gone = kept | {"event": "removed", "path": event["was"], "user": there}
        return gone | ({"path_hex": event["was_hex"]} if "was_hex" in event else {})
    return None


def user_of(path: str | None) -> str | None:
    """Whose a path is; None: nobody's."""
    parts = (path or "").split("/", 2)
    return parts[1] if len(parts) > 1 and parts[0] in ("users", "temp") else None


def _cursor(text: str) -> Cursor:
    found = parse_since(text, 0)
    if not isinstance(found, Cursor):
        raise ValueError(f"no cursor: {text[:40]!r}")
    return found


def encoded(told: Told) -> bytes:
    """As the HTML standard has it (section 9.2.6, interpreting an event stream); JSON in ASCII is one line."""
    lines = [] if told.cursor is None else [f"id: {told.cursor}"]
    if told.kind:
        lines += [f"event: {told.kind}", f"data: {json.dumps(told.data, separators=(',', ':'))}"]
    else:
        lines.append(":")
    return ("\n".join(lines) + "\n\n").encode("ascii")


__all__ = ["Feed", "Told", "condition", "encoded", "for_user", "user_of"]
