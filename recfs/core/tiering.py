"""What it takes to bring one file to where the rules want it. Decisions only."""

from dataclasses import dataclass
from enum import StrEnum

from recfs.core.model import State
from recfs.core.routing import Decision


class Step(StrEnum):
    """What `recfs tier run` does about a file."""

    UPLOAD = "upload"
    """It belongs to S3 and is not there."""
    UNQUEUE = "unqueue"
    """It belongs here, and its upload waits: the upload is taken out of the queue."""
    BRING_HOME = "bring home"
    """It belongs here: fetched if need be, and its object deleted."""
    STORE_ANEW = "store anew"
    """It is in S3 in another storage class than it should be: uploaded again."""
    WAIT = "wait"
    """Something has to be done, and cannot be now."""


@dataclass(frozen=True, slots=True)
class Move:
    """A step, and why."""

    step: Step
    reason: str


_IN_S3 = frozenset({State.STORED, State.EVICTED, State.FETCHING})


def move_for(
    decision: Decision, state: State, *, queued: bool, has_object: bool, storage_class: str | None, wanted: str | None
) -> Move | None:
    """What is to be done about a file; None: it is where it belongs, or being changed right now.

    *queued*: its upload is journalled. *storage_class*: of its object. *wanted*: the class its rule or else [s3]
    names; None: any.
    """
    if decision.store == "s3":
        if state is State.COMMITTED and not queued:
            return Move(Step.UPLOAD, decision.reason)
        if wanted is None or storage_class is None or storage_class == wanted:
            return None
        why = f"its storage class is {storage_class}, not {wanted}"
        if state is State.ARCHIVED:
            return Move(Step.WAIT, f"{why}; it is archived: `recfs restore` it first")
        return Move(Step.STORE_ANEW, f"{why}; {decision.reason}") if state in _IN_S3 else None
    if state in _IN_S3:
        return Move(Step.BRING_HOME, decision.reason)
    if state is State.ARCHIVED:
        return Move(Step.WAIT, f"{decision.reason}; it is archived: `recfs restore` it first")
    if state is State.COMMITTED and (queued or has_object):
        return Move(Step.UNQUEUE, decision.reason)
    return None
