"""How a transfer is told: how far it is, what could not be done, and what came of it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.progress import ProgressLine

if TYPE_CHECKING:
    from recfs.migration.transfer.items import Outcome

EXITS = {ExitCode.PROBLEMS: "something was not transferred; each says why"}
_LOOK_S = 0.2


class Teller:
    """Tells of one transfer. *apart*: standard output has something else, and all is told on standard error."""

    def __init__(self, verb: str, *, json: bool, apart: bool = False) -> None:
        self._verb = verb
        self._json = json
        self._apart = apart
        self._line = ProgressLine()
        self._began_s = self._told_s = time.monotonic()

    def __call__(self, outcome: Outcome) -> None:
        """How far it is."""
        now_s = time.monotonic()
        if self._json or now_s - self._told_s < _LOOK_S:
            return
        self._told_s = now_s
        took_s = max(now_s - self._began_s, 1e-3)
        rate = output.size(int(outcome.copied_bytes / took_s))
        waits = f"; waiting for {output.show_name(outcome.waiting)}" if outcome.waiting else ""
        self._line.show(f"{self._counts(outcome)}, {rate}/s{waits}")

    def end(self, ctx: click.Context, outcome: Outcome) -> None:
        """What came of it; leaves with an exit code unless all is clean."""
        self._line.clear()
        if self._json:
            output.emit_json(outcome.as_json())
        else:
            for each in outcome.problems:
                self._say(f"{os.fsdecode(each.path)}: {each.why.value}: {each.reason}", "yellow")
            if outcome.unnamed:
                self._say(f"and {outcome.unnamed:,} more", "yellow")
            for path in outcome.left:
                self._say(f"{os.fsdecode(path)}: left there, and no longer in the store")
            if outcome.more_left:
                self._say(f"and {outcome.more_left:,} more that are no longer in the store")
            self._say(self._counts(outcome), "green" if outcome.clean else "")
            if outcome.stopped:
                self._say(f"stopped: {outcome.stopped}; the next run leaves what is done", "bold red")
        if not outcome.clean:
            ctx.exit(ExitCode.PROBLEMS)

    def _counts(self, outcome: Outcome) -> str:
        parts = [f"{output.number_of(outcome.files, 'file')} {self._verb}, {output.size(outcome.copied_bytes)}"]
        counts = (
            (outcome.links, "links"),
            (outcome.equal, "were there already"),
            (outcome.replaced, "replaced"),
            (outcome.fetched, "fetched from S3"),
            (outcome.removed, "removed where they were"),
            (outcome.deleted, "removed at the destination"),
            (len(outcome.left) + outcome.more_left, "left there that the store has no more"),
            (len(outcome.problems) + outcome.unnamed, "not transferred"),
        )
        return ", ".join(parts + [f"{number:,} {word}" for number, word in counts if number])

    def _say(self, line: str, style: str = "") -> None:
        if self._apart:
            click.echo(f"recfs: {output.show_name(line)}", err=True)
        else:
            output.say(line, style=style)


__all__ = ["EXITS", "Teller"]
