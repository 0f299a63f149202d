"""The services whose work commands start, wait for and tell of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.services.draining import Draining
    from recfs.services.local_copies import LocalCopies
    from recfs.services.sweeper import Sweeper
    from recfs.services.tier_run import TierRun


@dataclass(frozen=True, slots=True)
class Work:
    """Those of a store; without [s3] there is neither `copies` nor `tier_run`."""

    sweeper: Sweeper
    draining: Draining
    copies: LocalCopies | None
    tier_run: TierRun | None
