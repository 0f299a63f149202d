"""For the tests of recfs.client: the event loops it runs on, and a plain directory with a recording."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio

T = TypeVar("T")

LOOPS = ("asyncio", "anyio on asyncio", "anyio on trio")
REC = Path("users/5/recordings/142")


def run(loop: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function in one of them."""
    if loop == "asyncio":

        async def wrapped() -> T:
            return await main()

        return asyncio.run(wrapped())
    return anyio.run(main, backend=loop.removeprefix("anyio on "))


def all_below(top: Path) -> list[str]:
    """Paths of all that is no directory below *top*, sorted; hidden ones, too."""
    return sorted(
        str((Path(folder) / name).relative_to(top)) for folder, _, names in os.walk(top) for name in names
    )  # fmt: skip
