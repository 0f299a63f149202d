"""What the daemon answers of its sweeps: the control protocol's method behind `recfs sweep list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.services.sweeps import Sweeps


class SweepAnswers:
    """sweep_list."""

    def __init__(self, sweeps: Sweeps) -> None:
        self._sweeps = sweeps

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"sweep_list": self.list}

    async def list(self, params: dict[str, Any]) -> dict[str, Any]:
        """What is looked at now and then: when it was last, with what result, and when it will be again."""
        return {"sweeps": self._sweeps.as_json()}
