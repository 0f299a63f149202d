"""What the daemon answers of its sweeps: the control protocol's methods behind `recfs sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.services.sweeper import Sweeper
    from recfs.services.sweeps import Sweeps


class SweepAnswers:
    """sweep_temp and, where sweeps run, sweep_list."""

    def __init__(self, sweeper: Sweeper, sweeps: Sweeps | None) -> None:
        self._sweeper = sweeper
        self._sweeps = sweeps

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        sweeps = self._sweeps
        if sweeps is None:
            return {"sweep_temp": self.temp}

        async def listed(params: dict[str, Any]) -> dict[str, Any]:
            """What is looked at now and then: when it was last, with what result, and when it will be again."""
            return {"sweeps": sweeps.as_json()}

        return {"sweep_temp": self.temp, "sweep_list": listed}

    async def temp(self, params: dict[str, Any]) -> dict[str, Any]:
        """Sweep now."""
        return {"jobs": await self._sweeper.sweep_temp(dry_run=bool(params.get("dry_run")), kept=True)}
