"""What the tests of sweeps have in common: a run of one, as its schedule or an operator starts it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from recfs.services.sweeps import Sweeps

    from .build import Filesystem


async def swept(fs: Filesystem, name: str) -> dict[str, Any]:
    """Have one run now, and wait for its end; the sweep as JSON."""
    async with running(fs, name) as sweeps:
        return await sweeps.wait(name, sweeps.ask(name), math.inf)  # the clock jumps while threads work


@contextlib.asynccontextmanager
async def running(fs: Filesystem, name: str) -> AsyncIterator[Sweeps]:
    """The registry, with that sweep served, which the services of a store that is not mounted do not do."""
    sweeps = fs.parts.sweeps
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeps.repeat, name)
        await trio.lowlevel.checkpoint()
        yield sweeps
        nursery.cancel_scope.cancel()
