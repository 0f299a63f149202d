"""What nobody knows of any more, and how old it has to be to go. Decisions only: `services/` carries them out."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

_NS = 10**9


class Now(NamedTuple):
    """What time it is, by two clocks (`recfs/clock.py`): ages of what others date are by the one that is behind."""

    wall_ns: int
    calendar_ns: int
    """The wall clock without steps that have not lasted: it may have been put ahead a moment ago."""

    def age_s(self, since_ns: int) -> float:
        """How long ago that was at least, in seconds; below 0: it lies ahead, as after a clock that was put back."""
        return (min(self.wall_ns, self.calendar_ns) - since_ns) / _NS


class Begun(NamedTuple):
    """An upload in parts that was begun, and neither finished nor aborted."""

    key: str
    upload_id: str
    initiated_ns: int
    """By the server's clock."""


def stale_uploads(begun: Iterable[Begun], known: Collection[tuple[str, str]], now: Now, age_s: float) -> list[Begun]:
    """Return those that nobody goes on with: as old as *age_s*, none of *known*, (key, upload id) of the journal."""
    return [
        each for each in begun
        if now.age_s(each.initiated_ns) >= age_s and (each.key, each.upload_id) not in known
    ]  # fmt: skip
