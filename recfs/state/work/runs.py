"""Long work that commands ask for: each run goes on by itself, is asked how far it is, and ends if nobody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

import trio

from recfs.errors import Busy, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable

ABANDONED_S = 60.0
"""A run that nobody has asked about for so long ends, or is forgotten: whoever began it is gone."""


class Run(Protocol):
    """One of them. `all` sets `ended`, whatever happens, and raises nothing."""

    scope: trio.CancelScope
    """Cancelled, it ends."""
    ended: trio.Event
    asked_s: float
    """When somebody asked last, in trio's time."""

    def all(self) -> Awaitable[None]:
        """Do all of it."""

    def as_json(self) -> dict[str, Any]:
        """How far it is."""


R = TypeVar("R", bound=Run)


class Runs(Generic[R]):
    """Those of a kind, by number."""

    def __init__(self, what: str, most: int) -> None:
        """*what* they are, one of them; *most* of them go on at the same time."""
        self._what = what
        self._most = most
        self._runs: dict[int, R] = {}
        self._last = 0
        self._nursery: trio.Nursery | None = None

    async def run(self) -> NoReturn:
        """Be where runs go on, for ever."""
        async with trio.open_nursery() as self._nursery:
            while True:
                await trio.sleep(ABANDONED_S / 4)
                self._forget(trio.current_time() - ABANDONED_S)

    def _forget(self, asked_before_s: float) -> None:
        for number, each in list(self._runs.items()):
            if each.asked_s < asked_before_s:
                each.scope.cancel()
                del self._runs[number]

    def begin(self, run: R) -> int:
        """Have it go on by itself; its number. Raises Busy."""
        if self._nursery is None or sum(not each.ended.is_set() for each in self._runs.values()) >= self._most:
            raise Busy(f"{self._most} {self._what} under way already; wait until it has ended")
        self._last += 1
        self._runs[self._last] = run
        self._nursery.start_soon(run.all)
        return self._last

    def _known(self, number: int) -> R:
        run = self._runs.get(number)
        if run is None:
            raise NotFound(f"no {self._what} {number} is under way")
        run.asked_s = trio.current_time()
        return run

    async def wait(self, number: int, timeout_s: float) -> dict[str, Any]:
        """How far it is, when it ends, or after a while. Raises NotFound."""
        run = self._known(number)
        with trio.move_on_after(timeout_s):
            await run.ended.wait()
        return run.as_json()

    async def stop(self, number: int) -> dict[str, Any]:
        """End it; how far it came. Raises NotFound."""
        run = self._known(number)
        run.scope.cancel()
        await run.ended.wait()
        return run.as_json()


async def followed(run: Run, tell: object, every_s: float = 0.5) -> dict[str, Any]:
    """Do all of a run here; *tell*, for who asks in this very process, hears how far it is. Returns how far it came."""
    async with trio.open_nursery() as nursery:
        if callable(tell):

            async def telling() -> NoReturn:
                while True:
                    await trio.sleep(every_s)
                    tell(run.as_json())

            nursery.start_soon(telling)
        await run.all()
        nursery.cancel_scope.cancel()
    return run.as_json()


__all__ = ["ABANDONED_S", "Run", "Runs", "followed"]
