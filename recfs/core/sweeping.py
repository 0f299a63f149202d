"""When sweeps run: what is looked at now and then. Decisions only: `services/sweeps.py` carries them out."""

from dataclasses import dataclass

FAILED_S = 1.0
"""A sweep that failed is left alone at least so long, however often it looks."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often something is looked at."""

    period_s: float
    """Between the end of one run and the beginning of the next."""
    at_once: bool = False
    """The first run is at the start, and not a period later."""
    patience_s: float = 60.0
    """A run that takes longer is told as a problem. It goes on, and so do the others."""

    def first_s(self) -> float:
        """How long after the start the first run begins, in seconds."""
        return 0.0 if self.at_once else self.period_s

    def pause_s(self, failed_delay_s: float | None) -> float:
        """How long after a run the next one begins, in seconds; *failed_delay_s*: of one that failed, else None.

        After a failure that delay, which grows, counts for what looks more often than every `FAILED_S`.
        """
        if failed_delay_s is None or self.period_s >= FAILED_S:
            return self.period_s
        return max(failed_delay_s, FAILED_S)

    def is_late(self, running_s: float) -> bool:
        """Whether a run that has been under way so long, in seconds, is to be told as a problem."""
        return running_s > self.patience_s
