"""What the daemon answers of backups of its catalogue: the control protocol's method behind `recfs backup now`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.ports.clock import Clock
    from recfs.services.backups import Backups


class BackupAnswers:
    """backup_now."""

    def __init__(self, backups: Backups, clock: Clock) -> None:
        self._backups = backups
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"backup_now": self.now}

    async def now(self, params: dict[str, Any]) -> dict[str, Any]:
        """Make one, and tell of it."""
        began_s = trio.current_time()
        made = await self._backups.make()
        return made.as_json(self._clock.now_ns()) | {"took_s": trio.current_time() - began_s}
