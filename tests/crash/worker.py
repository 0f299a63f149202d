"""One user's process: `python -m tests.crash.worker MOUNT JOURNAL PLAN`, told by its standard input when to begin.

It notes every call in its journal and ends at the first that finds the daemon gone. Then it prints a line, and with
*keep* in its plan keeps its descriptors until its standard input ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.acts import Acts, Refused
from tests.crash.calls import DEAD, Calls
from tests.crash.journal import Journal
from tests.crash.model import World

REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN}
NOTED = {"read": len, "list": len}
"""Answers of which only so much is noted."""


@dataclass
class Plan:
    """What a worker is to do."""

    world: World
    tops: list[str]
    uid: int
    seed: int
    big: int = 0
    """Size of large files, 0 for none."""
    limits: tuple[str, ...] = ()
    """Users whose limits it changes (root)."""
    troubled: bool = False
    """S3 fails now and then: what only lies there cannot be read."""
    keep: bool = False


class Gone(Exception):
    """The daemon is dead, or so much was wrong that nothing more has to be said."""


ENOUGH = 20
"""So many things may be wrong in a life before a worker gives up."""


class Hand:
    """Makes calls and notes them."""

    def __init__(self, calls: Calls, journal: Journal, plan: Plan) -> None:
        self.world = plan.world
        self._calls, self._journal = calls, journal
        self._wrong = 0
        self._refusals = REFUSALS | ({errno.EIO} if plan.troubled else set())

    def call(self, what: str, **with_: Any) -> Any:
        """Make a call."""
        call = self._journal.intent(what, with_)
        try:
            result = self._calls.make(what, **with_)
        except OSError as error:
            if error.errno in DEAD:
                raise Gone from error
            self._journal.returned(call, error=error.errno)
            self.world.follow(call)
            if error.errno not in self._refusals:
                self.wrong(f"call {call.number}, {what} {with_}: {error!r}")
            raise Refused from error
        noted = NOTED[what](result) if what in NOTED else result
        self._journal.returned(call, result=noted)
        self.world.follow(call)
        return result

    def wrong(self, text: str) -> None:
        """Note what must not be."""
        self._journal.wrong(text)
        self._wrong += 1
        if self._wrong >= ENOUGH:
            raise Gone


def main() -> int:
    """Work until the daemon is gone."""
    mount, journal_path, plan_path = map(Path, sys.argv[1:])
    plan: Plan = pickle.loads(plan_path.read_bytes())
    journal = Journal(journal_path)
    os.setgroups([])
    os.setgid(plan.uid)
    os.setuid(plan.uid)
    print("ready", flush=True)
    sys.stdin.readline()
    calls = Calls(mount)
    hand = Hand(calls, journal, plan)
    chance = random.Random(plan.seed)
    acts = Acts(hand, chance, plan.tops, big=plan.big)
    try:
        while True:
            with contextlib.suppress(Refused):
                if plan.limits and chance.random() < 0.05:
                    value = str(chance.choice((50, 3, 1, 20)) << 20)
                    hand.call("limit", user=chance.choice(plan.limits), name="max_bytes", value=value)
                acts.one()
    except Gone:
        print("gone", flush=True)
    if plan.keep:
        sys.stdin.read()
        call = journal.intent("exit", {})
        calls.close_all()
        journal.returned(call)
    calls.close_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
