"""A feature of an S3 server, and what was found of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.stores.s3.features.room import Room
    from recfs.stores.s3.features.wants import Wants


class Outcome(StrEnum):
    """What became of the attempt."""

    OFFERED = "offered"
    ABSENT = "not offered"
    """Refused, or ignored."""
    WRONG = "wrong"
    """Taken, and something else was done than was asked for."""
    UNTRIED = "not tried"
    """Not permitted, no time left, or no answer: nothing is known."""


class Weight(StrEnum):
    """How much it matters to a store that something is not offered."""

    NOTHING = "nothing"
    NOTE = "note"
    """Worth knowing; recfs works around it, or it has no part in this configuration."""
    WARNING = "warning"
    FAILURE = "failure"
    """Files are not stored, or not found again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an attempt came to; *detail*: what the server did, where there is something to say."""

    outcome: Outcome
    detail: str = ""


OFFERED = Seen(Outcome.OFFERED)


def absent(detail: str) -> Seen:
    """It is not offered."""
    return Seen(Outcome.ABSENT, detail)


def wrong(detail: str) -> Seen:
    """Something else was done."""
    return Seen(Outcome.WRONG, detail)


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that recfs, or whoever runs it, may want of a server."""

    name: str
    """As people and the table of the S3 guide call it."""
    attempt: Callable[[Room, str], Seen]
    """Tries it, with keys that begin with the second argument. Raises ObjectStoreError where the server refuses."""
    without: str
    """What it means for a store that it is not offered, as a sentence without a full stop."""
    remedy: str
    weight: Weight = Weight.NOTE
    when_wrong: str = ""
    """What it means that it is wrong; empty: what *without* says."""
    weight_wrong: Weight | None = None
    wanted: Callable[[Wants], bool] | None = None
    """Whether a configuration makes use of it; it is then of *weight_wanted*."""
    weight_wanted: Weight = Weight.WARNING


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a feature."""

    feature: Feature
    outcome: Outcome
    detail: str
    weight: Weight
    """How much it matters to the configuration in question."""

    @property
    def meaning(self) -> str:
        """What it means for the store; empty where the feature is offered, or not tried."""
        if self.outcome is Outcome.WRONG:
            return self.feature.when_wrong or self.feature.without
        return self.feature.without if self.outcome is Outcome.ABSENT else ""

    @property
    def remedy(self) -> str:
        """What to do about it; empty where there is nothing to say."""
        if self.outcome is Outcome.UNTRIED:
            return "run it again when the server answers, with credentials that may do all that recfs does"
        return "" if self.weight is Weight.NOTHING and self.outcome is Outcome.OFFERED else self.feature.remedy


def found(feature: Feature, seen: Seen, wants: Wants) -> Finding:
    """Weigh what was seen of a feature for a configuration."""
    if seen.outcome is Outcome.OFFERED:
        weight = Weight.NOTE if seen.detail else Weight.NOTHING
    elif seen.outcome is Outcome.UNTRIED:
        weight = Weight.NOTE
    else:
        weight = feature.weight
        if feature.wanted is not None and feature.wanted(wants):
            weight = feature.weight_wanted
        elif seen.outcome is Outcome.WRONG and feature.weight_wrong is not None:
            weight = feature.weight_wrong
    return Finding(feature, seen.outcome, seen.detail, weight)
