"""As test_both_at_once.py, with the events of the home tree alone to go by, which come at once, or only when everything
else has been done or given up.

The test reads them itself, in the place of the thread that does otherwise, so that they come when it says by the clock
of the test.
"""

from __future__ import annotations

import array
import fcntl
import os
import random
import termios
from collections import deque
from typing import TYPE_CHECKING

import pytest
import trio

from recfs.disk.watching import inotify

from .build import REC, Filesystem, filesystem
from .test_both_at_once import BESIDE, OPERATORS, OURS, SEEDS, USERS, Random, act, contents, same, told
from .watching import Watched, watching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("any_log", "no_reader")]

STEP_S = 0.05
LONGEST_S = 150.0
"""By then it has come to an end, by the clock of the test."""


@pytest.fixture
def no_reader(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> Iterator[None]:
    """Nobody reads events but the test, and the clock leaps only when threads have ended, as a rule."""
    autojump_clock.autojump_threshold = 0.004

    def idle(reader: inotify._Reader) -> None:
        reader._is_reading = False
        reader.stopped_event.wait()

    monkeypatch.setattr(inotify._Reader, "run", idle)
    return iter([None])


class Late:
    """Events that come so many seconds after they happened."""

    def __init__(self, watched: Watched, delay_s: float) -> None:
        watches = watched.watcher._watches
        assert watches is not None
        self._reader = watches._reader
        self._delay_s = delay_s
        self._held: deque[tuple[float, bytes]] = deque()

    def come(self) -> None:
        """Those whose time has come."""
        now_s = trio.current_time()
        there = array.array("i", [0])
        fcntl.ioctl(self._reader._inotify_fd, termios.FIONREAD, there)
        if there[0]:
            self._held.append((now_s, os.read(self._reader._inotify_fd, there[0])))
        while self._held and self._held[0][0] <= now_s - self._delay_s:
            self._reader.mark(self._held.popleft()[1])

    def __len__(self) -> int:
        return len(self._held)


async def agreed(watched: Watched, events: Late) -> None:
    """Let time pass until mount and tree agree, and nothing waits."""
    end_s = trio.current_time() + LONGEST_S
    calm = 0
    while calm < 5:
        for _ in range(20):
            events.come()
            await trio.sleep(STEP_S)
        waits = len(events) or watched.waits() or watched.fs.parts.publisher.depth
        calm = 0 if waits or not await same(watched.fs) else calm + 1
        assert trio.current_time() < end_s, await told(watched)


async def nothing_is_left(watched: Watched) -> None:
    """A look at everything, the first since the start, finds nothing more."""
    before = watched.watcher.as_json()
    assert before["scans"] == 1
    await watched.settled()
    after = watched.watcher.as_json()
    differs = {what: (before[what], after[what]) for what in before if before[what] != after[what]}
    assert differs.keys() == {"scans"}, differs


async def made(fs: Filesystem, users: list[str]) -> dict[str, str]:
    """What users work on, each in a directory of its own."""
    tops = {user: f"{REC}/{user}" for user in users}
    for top in tops.values():
        await fs.write(f"{top}/d/f", OURS)
        await fs.write(f"{top}/e/beside", BESIDE)
    await fs.drain()
    return tops


@pytest.mark.parametrize("delay_s", [0.0, 1.5, 8.0])
@pytest.mark.parametrize("operator", OPERATORS)
async def test_events_alone_are_enough(place: Path, operator: str, delay_s: float) -> None:
    async with filesystem(place / "root") as fs:
        fs.checked_at_end = False
        tops = await made(fs, USERS)
        async with watching(fs) as watched:
            watched.watcher.accept()
            events = Late(watched, delay_s)
            for user, top in tops.items():
                await act(fs, operator, user, top)
            await agreed(watched, events)
            assert watched.watcher.scans == 1
            await nothing_is_left(watched)


@pytest.mark.parametrize("seed", SEEDS)
async def test_events_alone_are_enough_at_random(place: Path, seed: int) -> None:
    attic = place / "attic"
    attic.mkdir()
    delays = random.Random(seed)
    async with filesystem(place / "root", trash={"retention": 3600.0}) as fs:
        fs.checked_at_end = False
        await fs.mkdirs(REC)
        await fs.drain()
        both = Random(fs, seed, attic)
        async with watching(fs) as watched:
            watched.watcher.accept()
            for _ in range(4):
                events = Late(watched, delays.choice((0.0, 0.0, 0.7, 5.0)))
                for _ in range(delays.choice((5, 15, 30))):
                    if both.random.random() < 0.5:
                        both.operate()
                    else:
                        await both.use()
                    if both.random.random() < 0.5:
                        for _ in range(delays.choice((1, 1, 10, 60))):
                            events.come()
                            await trio.sleep(STEP_S)
                await agreed(watched, events)
            await nothing_is_left(watched)
        everywhere = b"".join(contents(place))
        assert [each for each in both.written if each not in everywhere] == [], "\n".join(both.done)
