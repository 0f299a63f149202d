"""Runs a command of the operator's for chosen events: alerts without a monitoring system.

It reads the events by a cursor of its own, which is kept in the catalogue and goes on after a command has run. So
each event is given to a command at least once, in order, whatever dies in between; what comes while a command runs,
or faster than the rate allows, waits in the catalogue and not in memory. One command runs at a time. It reads one
event for each line of its standard input, is killed with its process group when it takes too long, and is tried some
times if it fails. Nothing of the daemon waits for it, not for long even for its end once it is killed: it may
wait for an answer of this very mount, which cannot be interrupted and does not come while the mount is handed over.
"""

from __future__ import annotations

import logging
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.naming import show_name
from recfs.core.observing.cursors import NOW, OLDEST, Cursor
from recfs.core.observing.lines import line_of
from recfs.errors import CursorLost, IoFailure
from recfs.observing.feed import LONGEST_WAIT_S, Feed, Page, Wanted
from recfs.subprocesses import REAP_AT_END_S, Hanging, end, hear_end, kill_group

if TYPE_CHECKING:
    from recfs.observing.journal import EventJournal
    from recfs.ports.catalogue import Catalogue
    from recfs.state.tree import Tree

log = logging.getLogger("recfs.notify")

PART = "notify"
CURSOR = "notify_cursor"
"""Store-wide fact: up to where events were given to the command."""
TRIES = 3
FIRST_PAUSE_S = 1.0
"""Between the first try and the second; then twice as long."""
SAID_BYTES = 2000
"""So much of what a command said last on standard error is kept …"""
SHOWN_CHARS = 200
"""… and so much of its last line told, when it fails."""
END_S = 2.0
"""How long a command's output is waited for after its end: a child of it may hold that open."""
REAP_S = 2.0
"""How long the end of a command that took too long is waited for once it is killed."""
MOST_HANGING = 10
"""Where so many commands were killed and have not ended, no more are run until one has."""
LOOK_S = 0.5
"""How often it is looked whether one of those has."""
SKIPPED = (
    "[notify]: the catalogue was put back or made anew, and nobody knows which of its events the command has had: those"
    " before this start were not given to it. `recfs events` shows what is kept of them; look through it. This is told"
    " until the daemon starts again"
)
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""What a command hears of the daemon's environment, where credentials may be."""


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """What is run, and for what."""

    command: str
    """For sh(1); empty: nothing is run, and what happens meanwhile is not passed over."""
    kinds: frozenset[str]
    timeout_s: float
    per_minute: int
    """Runs a minute at most, on the average; so many at once after a quiet minute."""
    most_events: int
    """Given to one run at most."""


class Notify:
    """The service."""

    def __init__(self, settings: NotifySettings, feed: Feed, journal: EventJournal, tree: Tree) -> None:
        self.settings = settings
        self._feed = feed
        self._journal = journal
        self._behind = tree.behind
        self._clock = tree.clock
        self._problems = tree.behind.problems
        self._cursor = NOW
        self._tokens = float(settings.per_minute)
        self._filled_s = 0.0
        self.runs = 0
        self.failed = 0
        """Runs that failed; a run and its repetitions count each."""
        self.given_up = 0
        """Events whose command failed to the end."""
        self.lost = 0
        """How often the cursor was lost: events were dropped before the command had them."""
        self.skipped: str | None = None
        """What was not given to the command since this daemon's start, and what to do about it."""
        self.running = False
        self._hanging = Hanging(log, "a command")
        self._changed = trio.Event()
        self._reading = trio.CancelScope()

    async def load(self, catalogue: Catalogue) -> None:
        """Go on where the last daemon ended; the first begins with what comes."""
        self._cursor = (await catalogue.meta()).get(CURSOR, NOW)

    @property
    def is_on(self) -> bool:
        """Whether there is a command."""
        return bool(self.settings.command)

    def reconfigure(self, settings: NotifySettings) -> None:
        """Go by other settings, from the next run of the command on. Atomic."""
        if settings != self.settings:
            self.settings = settings
            self._changed.set()
            self._changed = trio.Event()
            self._reading.cancel()

    async def run(self) -> None:
        """Look for events, and run the command for them, for ever."""
        self._filled_s = trio.current_time()
        while True:
            if self.is_on:
                await self._next()
            else:
                self._problems.solved(PART, "command")
                await self._changed.wait()

    def _keep(self, cursor: Cursor) -> None:
        if str(cursor) != self._cursor:
            self._cursor = str(cursor)
            self._behind.meta(CURSOR, self._cursor)

    async def _page(self, since: str, wait_s: float = 0.0) -> Page | None:
        """What is to be given; None: by other settings, so look again."""
        settings = self.settings
        with trio.CancelScope() as self._reading:
            page = await self._feed.read(
                since, Wanted(settings.kinds), settings.most_events, self._clock.now_ns(), wait_s, own=True
            )
            return page if self.settings is settings else None
        return None

    async def _next(self) -> None:
        self._hanging.reap()
        try:
            # The first time nothing is waited for: from then on it is known where to go on.
            page = await self._page(self._cursor, 0.0 if self._cursor == NOW else LONGEST_WAIT_S)
        except CursorLost as error:
            self.lost += 1
            log.warning("events were dropped before the command had them: %s", error)
            # Of another history nobody knows what was new; of this one, what is kept is.
            is_other = not self._cursor.startswith(f"{self._journal.epoch}-")
            self._cursor = NOW if is_other else OLDEST
            if is_other:
                self.skipped = SKIPPED
            return
        if page is None or (page.events and not await self._give(page.events)):
            return
        self._keep(page.cursor)

    async def _turn(self) -> None:
        """Wait until the rate allows one more run, or there is no command any more."""
        while self.is_on:
            per_s = self.settings.per_minute / 60
            now = trio.current_time()
            self._tokens = min(self._tokens + (now - self._filled_s) * per_s, float(self.settings.per_minute))
            self._filled_s = now
            if self._tokens >= 1.0:
                self._tokens -= 1.0
                return
            with trio.move_on_after((1.0 - self._tokens) / per_s):
                await self._changed.wait()

    async def _give(self, events: list[dict[str, Any]]) -> bool:
        """Run the command for *events*, some times if it fails; False: there is none any more. Raises nothing of it."""
        await self._turn()
        lines = "".join(f"{line_of(event)}\n" for event in events).encode("ascii")
        pause_s, why = FIRST_PAUSE_S, None
        for number in range(1, TRIES + 1):
            if not self.is_on:
                return False
            why = await self._run(lines)
            if why is None:
                self._problems.solved(PART, "command")
                return True
            self.failed += 1
            log.debug("the command failed: %s", why)
            if number < TRIES:
                with trio.move_on_after(pause_s):
                    while self.is_on:
                        await self._changed.wait()
                pause_s *= 2
        self.given_up += len(events)
        first = events[0]
        what = f"{first['event']} of {first['path']}" + (f" and {len(events) - 1} more" if len(events) > 1 else "")
        self._problems.note(PART, "command", IoFailure(f"{why}; it was for {what}"), "the command of [notify]")
        return True

    async def _run(self, lines: bytes) -> str | None:
        """Run the command once; what went wrong, or None."""
        while self._hanging.reap() >= MOST_HANGING:  # noqa: ASYNC110  # they tell nobody
            await trio.sleep(LOOK_S)
        self.runs += 1
        self.running = True
        try:
            return await self._run_shell(lines)
        except OSError as error:
            return f"it cannot be run: {error}"
        finally:
            self.running = False

    async def _run_shell(self, lines: bytes) -> str | None:
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        # sh(1) is what the daemon waits for until it runs, with all of Python held up; the command itself, which could
        # lie in this very mount, is the shell's to wait for.
        process = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", self.settings.command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True, cwd="/", env=environment,
        )  # fmt: skip
        assert process.stderr is not None
        said = bytearray()
        is_late = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_feed, process, lines)
                nursery.start_soon(hear_end, process.stderr, said, SAID_BYTES)
                with trio.move_on_after(self.settings.timeout_s) as scope:
                    await process.wait()
                is_late = scope.cancelled_caught
                if is_late:
                    kill_group(process)
                    with trio.move_on_after(REAP_S):
                        await process.wait()
                nursery.cancel_scope.deadline = trio.current_time() + END_S
        finally:
            await end(process, self._hanging, REAP_AT_END_S)
        said_lines = bytes(said).decode("utf-8", "backslashreplace").split("\n")
        last = show_name(next((line.strip() for line in reversed(said_lines) if line.strip()), "")[:SHOWN_CHARS])
        if is_late:
            return f"it took longer than {self.settings.timeout_s:g} s" + (f": {last}" if last else "")
        if process.returncode:
            code = process.returncode
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return how + (f": {last}" if last else "")
        return None

    def as_json(self) -> dict[str, Any]:
        """For `recfs status`."""
        return {
            "runs": self.runs, "failed": self.failed, "given_up": self.given_up, "lost": self.lost,
            "skipped": self.skipped, "running": self.running, "hanging": self._hanging.reap(), "cursor": self._cursor,
        }  # fmt: skip


async def _feed(process: trio.Process, lines: bytes) -> None:
    assert process.stdin is not None
    try:
        await process.stdin.send_all(lines)
        await process.stdin.aclose()
    except trio.BrokenResourceError:
        pass  # it does not read all of it, or anything


__all__ = ["PART", "Notify", "NotifySettings"]
