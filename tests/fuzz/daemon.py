"""`python -m tests.fuzz.daemon ... recfs mount ...`: a daemon that is disturbed and looked into while it works.

The environment says how: RECFS_FUZZ_SEED, RECFS_FUZZ_RATE (how many awaits pause, 0 to 1), RECFS_FUZZ_LOOKS (after how
many requests its memory is looked at, 0 to 1). SIGUSR2 has it write down where each of its tasks stands.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from recfs.fuse import guard
from recfs.state import problems
from tests.fuzz.disturb import Disturbance

if TYPE_CHECKING:
    from recfs.parts import Parts
    from tests.helpers.watch import Watch

BROKEN = "INVARIANT"
"""Begins each line of the log that tells of a broken one."""


class Looks:
    """Looks at the parts of a running daemon after its requests."""

    def __init__(self, disturbance: Disturbance, share: float) -> None:
        self._disturbance = disturbance
        self._share = share
        self._told: set[str] = set()
        self.parts: Parts | None = None
        self.watch: Watch

    def after(self, handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """*handler*, with a look at its end."""

        @functools.wraps(handler)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return await handler(*args, **kwargs)
            finally:
                if self._disturbance.random.random() < self._share:
                    self.look(handler.__name__)

        return wrapper

    def look(self, where: str) -> None:
        """Write down what is wrong, each kind of it once."""
        from tests.helpers.invariants import broken

        if self.parts is None:
            return
        found = [*broken(self.parts), *self.watch.found.items()]
        for kind, what in found:
            if kind not in self._told:
                self._told.add(kind)
                print(f"{BROKEN} after {where}: {kind}: {what}", file=sys.stderr, flush=True)

    async def keep_watching(self, parts: Parts) -> None:
        """Look whether locks are taken in order, and what they hold is changed by nobody else, for ever."""
        from tests.helpers.watch import watched

        with watched(parts, few_nodes=0) as self.watch:
            self.parts = parts
            await trio.sleep_forever()


def tell_tasks(disturbance: Disturbance) -> None:
    """Where each task and each driven coroutine waits."""
    tasks = [trio.lowlevel.current_root_task()]
    while tasks:
        task = tasks.pop()
        if task is None:
            continue
        print(f"--- task {task.name}", file=sys.stderr)
        _stack(task.coro)
        for nursery in task.child_nurseries:
            tasks.extend(nursery.child_tasks)
    for coroutine in list(disturbance.running.values()):
        print(f"--- driven {coroutine.__qualname__}", file=sys.stderr)
        _stack(coroutine)
    sys.stderr.flush()


def _stack(step: Any) -> None:
    while step is not None:
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None)
        if frame is not None:
            print("".join(traceback.format_stack(frame, limit=1)).rstrip(), file=sys.stderr)
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)


def install() -> None:
    """Change the modules before those that use them are imported."""
    disturbance = Disturbance(int(os.environ["RECFS_FUZZ_SEED"]), float(os.environ["RECFS_FUZZ_RATE"]))
    looks = Looks(disturbance, float(os.environ["RECFS_FUZZ_LOOKS"]))
    disturbance.shuffle()
    for name in ("guarded", "guarded_apart"):
        plain = getattr(guard, name)
        setattr(guard, name, lambda handler, plain=plain: plain(looks.after(disturbance.driven(handler))))
    forever = problems.forever
    problems.forever = lambda part, step, known: forever(part, disturbance.driven(step), known)  # type: ignore[assignment]

    from recfs import parts
    from recfs.catalogue.sqlite import SqliteCatalogue

    disturbance.methods(SqliteCatalogue)
    disturbance.threads()
    serve = parts.Parts.serve

    async def serve_and_look(self: parts.Parts, nursery: trio.Nursery, **kwargs: Any) -> None:
        await serve(self, nursery, **kwargs)
        nursery.start_soon(looks.keep_watching, self)
        nursery.start_soon(disturbance.forgetting, self)

    parts.Parts.serve = serve_and_look  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR2, lambda number, frame: tell_tasks(disturbance))


if __name__ == "__main__":
    install()
    sys.argv = ["recfs", *sys.argv[sys.argv.index("recfs") + 1 :]]
    from recfs.cli.main import main

    main()
