"""When sweeps run: what is looked at now and then. Decisions only: `services/sweeps.py` carries them out."""

import enum
import math
from dataclasses import dataclass

RETRY_S = 3600.0
"""What looks less often than that is tried again after so long when it failed."""
FAILED_S = 1.0
"""A sweep that failed is left alone at least so long, however often it looks."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often something is looked at."""

    period_s: float
    """Between the end of one run and the beginning of the next; `math.inf`: it runs only when somebody asks for it."""
    at_once: bool = False
    """The first run is at the start, and not a period later."""
    patience_s: float = 60.0
    """A run that takes longer is told as a problem. It goes on, and so do the others."""

    @classmethod
    def every(cls, period_s: float, *, patience_s: float) -> "Schedule":
        """Make one of a period as recfs.conf has it: 0 is never."""
        return cls(period_s or math.inf, patience_s=patience_s)

    @property
    def is_periodic(self) -> bool:
        """Whether it runs by itself."""
        return self.period_s < math.inf

    def first_s(self, since_last_s: float | None = None) -> float:
        """How long after the start the first run begins, in seconds.

        *since_last_s*: how long ago the last run ended, if one is known of: a start does not put off what is looked at
        once a week.
        """
        if self.at_once:
            return 0.0
        return self.period_s if since_last_s is None else max(0.0, self.period_s - max(0.0, since_last_s))

    def pause_s(self, failed_delay_s: float | None) -> float:
        """How long after a run the next one begins, in seconds; *failed_delay_s*: of one that failed, else None.

        After a failure that delay, which grows, counts for what looks more often than every `FAILED_S`; what looks once
        a week is tried again after `RETRY_S`.
        """
        if failed_delay_s is None or not self.is_periodic:
            return self.period_s
        if self.period_s >= FAILED_S:
            return min(self.period_s, RETRY_S)
        return max(failed_delay_s, FAILED_S)

    def is_late(self, running_s: float) -> bool:
        """Whether a run that has been under way so long, in seconds, is to be told as a problem."""
        return running_s > self.patience_s


class RunOutcome(enum.StrEnum):
    """How a run of a sweep ended."""

    RUNNING = "running"
    """It has not, or the daemon died meanwhile."""
    DONE = "done"
    NOTHING = "nothing"
    """There was nothing to do."""
    STOPPED = "stopped"
    """Somebody stopped it, or the daemon ended; the next run goes on with what is left."""
    FAILED = "failed"


KEPT_RUNS = 100
"""How many runs of one sweep are remembered."""
