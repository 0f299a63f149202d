"""Makes every await of a daemon take long now and then, so that what may overtake something does.

All of it is what a slower machine could do: a task that is awake gets its turn later, a thread begins or ends later,
the catalogue answers later (a server database would), inodes leave memory, the kernel asks for a name again. Nothing is
changed in what the code awaits, and a task that was given something (a lock, a descriptor) is not cancelled for it.
"""

from __future__ import annotations

import functools
import inspect
import random
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

import trio
import trio._core._run

if TYPE_CHECKING:
    from recfs.parts import Parts

MEAN_S = 0.002
"""Of a pause; most are shorter, one in a hundred lasts longer than ten of them."""
LONGEST_S = 0.1
LOOK_S = 0.03
"""About so often something leaves memory, or the kernel's."""


class Disturbance:
    """Where a daemon pauses. *rate*: how many of its awaits do, from 0 to 1."""

    def __init__(self, seed: int, rate: float) -> None:
        self.random = random.Random(seed)
        self.rate = rate
        self.running: dict[int, Coroutine[Any, Any, Any]] = {}
        """Coroutines driven from here, which a dump of the tasks would not find otherwise."""
        self._next = 0

    def seconds(self) -> float:
        """How long to pause now; mostly 0."""
        if self.random.random() >= self.rate:
            return 0.0
        return min(self.random.expovariate(1 / MEAN_S), LONGEST_S)

    async def pause(self) -> None:
        """Pause, perhaps."""
        if seconds := self.seconds():
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)

    def driven(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """*function*, with a pause before it and whenever it comes back from an await that really waited."""

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            await self.pause()
            number = self._next = self._next + 1
            coroutine: Any = function(*args, **kwargs)
            self.running[number] = coroutine
            try:
                return await self._drive(coroutine)
            finally:
                del self.running[number]

        return wrapper

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        resume, value = coroutine.send, None
        while True:
            try:
                trap = resume(value)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            try:
                value, resume = (yield trap), coroutine.send
            except BaseException as error:
                value, resume = error, coroutine.throw  # type: ignore[assignment]
            yield from self.pause().__await__()

    # --- where ---------------------------------------------------------------------------------------------------

    def shuffle(self) -> None:
        """Have trio take the runnable tasks in an order that the seed decides."""
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
        trio._core._run._r.seed(self.random.random())

    def threads(self) -> None:
        """Have threads begin and end late."""
        run_sync = trio.to_thread.run_sync

        async def slowly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            before, after = self.seconds(), self.seconds()
            if not before and not after:
                return await run_sync(function, *args, **kwargs)

            def late() -> Any:
                time.sleep(before)
                try:
                    return function(*args)
                finally:
                    time.sleep(after)

            return await run_sync(late, **kwargs)

        trio.to_thread.run_sync = slowly  # type: ignore[assignment]

    def methods(self, kind: type) -> None:
        """Have every coroutine of a class pause before it begins and before it returns."""
        for name, method in inspect.getmembers(kind, inspect.iscoroutinefunction):
            setattr(kind, name, self._around(method))

    def _around(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            await self.pause()
            try:
                return await method(*args, **kwargs)
            finally:
                await self.pause()

        return wrapper

    async def forgetting(self, parts: Parts) -> None:
        """Unload what can be unloaded, and have the kernel ask again for what it knows, for ever."""
        memory, kept = parts.tree.memory, parts.tree.memory.cached_inodes
        while True:
            await trio.sleep(self.random.expovariate(1 / LOOK_S))
            memory.cached_inodes = self.random.choice([0, 0, 10, kept])
            memory.shrink()
            nodes = list(parts.tree.nodes.values())
            for node in self.random.sample(nodes, min(len(nodes), self.random.choice([0, 1, 5, 50]))):
                if node.parent is not node:
                    parts.vfs.trees._kernel.forget_entry(node.parent.ino, node.name, 0)
