"""A catalogue that takes its time, as a server database would: `--slow-catalogue`, for the component tests.

Every call of the Catalogue and Reports ports waits up to 10 ms, in part before anything is done, in part before its
answer is there. What ran in one stretch with SQLite then has others run in between.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import trio
from trio.testing import MockClock

from recfs.catalogue.reports import SqliteReports
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.ports.catalogue import Catalogue
from recfs.ports.reports import Reports

if TYPE_CHECKING:
    import pytest

OPTION = "--slow-catalogue"
SEED = "--slow-catalogue-seed"
LONGEST_S = 0.01
TURNS = 30


def add_option(parser: pytest.Parser) -> None:
    """Let it be asked for."""
    parser.addoption(OPTION, action="store_true", help="have each call of the catalogue take up to 10 ms")
    parser.addoption(SEED, type=int, default=1, metavar="NUMBER", help="which of the 10 ms")


@contextlib.contextmanager
def slowed(dice: random.Random) -> Iterator[None]:
    """Every call takes as long as the dice say."""
    with contextlib.ExitStack() as stack:
        for port, kind in ((Catalogue, SqliteCatalogue), (Reports, SqliteReports)):
            for name, _ in inspect.getmembers(port, inspect.iscoroutinefunction):
                stack.enter_context(mock.patch.object(kind, name, _slow(getattr(kind, name), dice)))
        yield


def _slow(method: Callable[..., Awaitable[Any]], dice: random.Random) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def slow(*args: Any, **kwargs: Any) -> Any:
        seconds, share = dice.uniform(0, LONGEST_S), dice.random()
        await _pass(seconds * share)
        answer = await method(*args, **kwargs)
        with trio.CancelScope(shield=True):  # it was done, and the caller gets to know that
            await _pass(seconds * (1 - share))
        return answer

    return slow


async def _pass(seconds: float) -> None:
    """Let others go on for so long, or, where time stands still (a test's own clock), for some turns."""
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, MockClock) and math.isinf(clock.autojump_threshold):
        for _ in range(round(seconds / LONGEST_S * TURNS)):
            await trio.lowlevel.checkpoint()
    else:
        await trio.sleep(seconds)
