"""What the daemon answers of its sweeps: the control protocol's methods behind `recfs sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.api.summaries_upkeep import sweep_history

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recfs.api.control import Handler
    from recfs.services.clearing.sweeper import Sweeper
    from recfs.services.sweeps import Sweeps

HISTORY = 1000
"""How many runs an answer tells of at most."""


class SweepAnswers:
    """sweep_temp, sweep_history and, where sweeps run, sweep_list, sweep_run, sweep_wait and sweep_stop."""

    def __init__(self, sweeper: Sweeper, sweeps: Sweeps | None, read: Callable[..., Awaitable[dict[str, Any]]]) -> None:
        """*read*: has a question answered from what is written of the store."""
        self._sweeper = sweeper
        self._sweeps = sweeps
        self._read = read

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        always: dict[str, Handler] = {"sweep_temp": self.temp, "sweep_history": self.history}
        if self._sweeps is None:
            return always
        sweeps = self._sweeps

        async def listed(params: dict[str, Any]) -> dict[str, Any]:
            """What is looked at now and then: when it was last, with what result, and when it will be again."""
            return {"sweeps": sweeps.as_json()}

        async def run(params: dict[str, Any]) -> dict[str, Any]:
            """Have a sweep run now; the number of the run that `sweep_wait` may wait for."""
            return {"run": sweeps.ask(str(params["name"]))}

        async def wait(params: dict[str, Any]) -> dict[str, Any]:
            """Wait until a run has ended, for `timeout_s` at most."""
            return await sweeps.wait(str(params["name"]), int(params["run"]), float(params.get("timeout_s") or 0.0))

        async def stop(params: dict[str, Any]) -> dict[str, Any]:
            """Have the run under way end after what it is at."""
            return {"running": sweeps.stop(str(params["name"]))}

        return always | {"sweep_list": listed, "sweep_run": run, "sweep_wait": wait, "sweep_stop": stop}

    async def temp(self, params: dict[str, Any]) -> dict[str, Any]:
        """Sweep now."""
        return {"jobs": await self._sweeper.sweep_temp(dry_run=bool(params.get("dry_run")), kept=True)}

    async def history(self, params: dict[str, Any]) -> dict[str, Any]:
        """The last runs, newest first."""
        name, limit = params.get("name"), int(params.get("limit") or HISTORY)
        return await self._read(sweep_history, str(name) if name is not None else None, max(1, min(limit, HISTORY)))
