"""What is kept of a recording besides its files: where it is in its life, its dates, what the operator says of it."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Status(StrEnum):
    """Where a recording is in its life."""

    ACTIVE = "active"
    EXPIRED = "expired"
    """Nothing new may come, and nothing be written; it can be read until its grace is over."""
    REMOVING = "removing"
    """Its removal has begun, and cannot be taken back: nothing of it is opened any more."""


class Cause(StrEnum):
    """What made a recording expire."""

    NOBODY = ""
    OPERATOR = "operator"
    DATE = "date"
    RULE = "rule"


class Life(NamedTuple):
    """What is kept of a recording besides its files. As it is made, it says nothing."""

    status: Status = Status.ACTIVE
    created_ns: int = 0
    """When it was made, for people (wall clock); 0: before recfs recorded that."""
    born_ns: int = 0
    """The same by `Clock.steady_ns`; of one that was there before, when recfs began to record it."""
    changed_ns: int = 0
    """Not before the last change inside it, and at most `CHANGED_EVERY_NS` after it (`Clock.steady_ns`)."""
    expires_ns: int | None = None
    """The date that was set for it to expire (nanoseconds since the epoch); None: the rules decide."""
    dated_ns: int = 0
    """When that was set (`Clock.steady_ns`) …"""
    ahead_ns: int = 0
    """… and how far ahead of the calendar it lay then."""
    expired_ns: int = 0
    """Since when it is expired (`Clock.steady_ns`)."""
    expired_by: Cause = Cause.NOBODY
    keep: int = 0
    """1: no rule and no date makes it expire."""
    note: str = ""
    """What the operator has to say of it."""
    set_by: str = ""
    """Who set date, keep or status last; empty: nobody has."""


def packed_life(life: Life) -> str:
    """As one text, for a recording in the trash."""
    return json.dumps(life)


def restored_life(text: str, now_ns: int) -> Life | None:
    """What is kept of a recording that comes back from the trash; None where *text* does not tell.

    Its ages count anew (*now_ns*, `Clock.steady_ns`): the rule that made it go would have it go again at once. A date
    that has been the reason does not count any more.
    """
    try:
        status, *rest = json.loads(text)
        life = Life(Status(status), *rest)
        life = life._replace(expired_by=Cause(life.expired_by))
    except (ValueError, TypeError):
        return None
    if life.status is not Status.ACTIVE:
        life = life._replace(expires_ns=None, dated_ns=0, ahead_ns=0)
    return life._replace(status=Status.ACTIVE, born_ns=now_ns, changed_ns=now_ns, expired_ns=0, expired_by=Cause.NOBODY)


RECORDINGS_SINCE = "recordings_since"
"""Store-wide fact: when this store began to keep what is to be kept of recordings (`Clock.steady_ns`)."""


def recordings_since(facts: Mapping[str, str]) -> int | None:
    """The fact; None where there is none, or none that can be understood."""
    told = facts.get(RECORDINGS_SINCE, "")
    return int(told) if told.isdecimal() and len(told) < 20 else None


def unrecorded(since_ns: int) -> Life:
    """What is known of a recording that was there before anything was kept of any: its ages count from then on."""
    return Life(born_ns=since_ns, changed_ns=since_ns)
