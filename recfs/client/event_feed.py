"""What becomes of files, as it happens: the daemon's events by its socket, with a cursor to go on from."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from recfs.client.asking import Question, socket_of
from recfs.client.errors import DaemonUnreachable
from recfs.client.waiting import abandoned, sleep

OLDEST: Final = "oldest"
NOW: Final = "now"
_WAIT_S = 20.0
"""How long one question waits for an event."""
_SILENCE_S = 30.0
_AGAIN_S = 1.0
"""How long a daemon that does not answer is left alone."""


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a file (docs/commands.md, `recfs events`, has the kinds)."""

    cursor: str
    time_ns: int
    kind: str
    path: str
    """In the tree; bytes that are not UTF-8 as `os.fsdecode` has them."""
    was: str | None
    """Its path before, of one that was renamed."""
    user: str | None
    size_bytes: int | None
    sha256: str | None
    told: Mapping[str, Any]
    """All that was told, as `recfs --json events` has it."""


def _event(told: dict[str, Any]) -> Event:
    return Event(
        told["cursor"], told["time_ns"], told["event"], told["path"], told.get("was"), told.get("user"),
        told.get("size_bytes"), told.get("sha256"), MappingProxyType(told),
    )  # fmt: skip


class events:
    """Go through what becomes of files: `for event in events("/mnt/recfs")`, or `async for`.

    *where* is a path of the mount (then the store's own socket is asked, which is its owner's and root's), or a socket:
    that of `[gateway]`, for others. None: the mount that there is. It goes on for ever, over restarts of the daemon,
    unless *follow* is False: then it ends with the last event there is. *since* is a cursor, a date, how long ago
    ("2h"), "oldest" or "now". Only events of some *kinds*, or of one user's files, can be asked for.

    `cursor` is that of the last event that was given: who keeps it with what it has done goes on there with `since`,
    and misses none. Raises CursorLost where that is not possible any more, DaemonRefused, NotAMount for a plain
    directory, DaemonUnreachable when nobody answers at first (later it is waited for, if *follow*).
    """

    def __init__(
        self, where: str | os.PathLike[str] | None = None, *, since: str = OLDEST, kinds: Iterable[str] = (),
        user: str | int | None = None, follow: bool = True,
    ) -> None:  # fmt: skip
        self.cursor = since
        self._where = where
        self._follow = follow
        self._asked = {"kinds": sorted(kinds) or None, "user": None if user is None else str(user)}
        self._answered = False

    def __iter__(self) -> Iterator[Event]:
        question = Question(socket_of(self._where))
        while True:
            page = self._page(question)
            if page is None:
                time.sleep(_AGAIN_S)
                continue
            yield from self._told(page)
            if self._ends(page):
                return

    async def __aiter__(self) -> AsyncIterator[Event]:
        path = await abandoned(lambda: socket_of(self._where), lambda: None)
        while True:
            question = Question(path)
            page = await abandoned(lambda: self._page(question), question.stop)  # noqa: B023 - it has ended by then
            if page is None:
                await sleep(_AGAIN_S)
                continue
            for event in self._told(page):
                yield event
            if self._ends(page):
                return

    def _page(self, question: Question) -> dict[str, Any] | None:
        """Some events, and where to go on; None while the daemon that has answered before is away."""
        wait = {"wait_s": _WAIT_S} if self._follow and self._answered else {}
        try:
            page = question.ask("events", {**self._asked, "since": self.cursor, **wait})
        except DaemonUnreachable:
            if self._follow and self._answered:
                return None
            raise
        self._answered = True
        return page

    def _told(self, page: dict[str, Any]) -> Iterator[Event]:
        for told in page["events"]:
            event = _event(told)
            self.cursor = event.cursor
            yield event
        self.cursor = page["cursor"]  # what was looked at and not wanted is behind, too

    def _ends(self, page: dict[str, Any]) -> bool:
        return not self._follow and not page["more"]


__all__ = ["NOW", "OLDEST", "Event", "events"]
