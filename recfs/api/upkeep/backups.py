"""What the daemon answers of backups of its catalogue: the control protocol's method behind `recfs backup now`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from recfs.errors import RecfsError
from recfs.state.problems import reason_of

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
        took_s, kept_away = trio.current_time() - began_s, None
        try:
            sent = await self._backups.send(made)
        except (RecfsError, OSError) as error:  # it is made, and will be sent when that can be
            sent, kept_away = False, reason_of(error)
        return made.as_json(self._clock.now_ns()) | {"took_s": took_s, "sent": sent, "not_sent": kept_away}
