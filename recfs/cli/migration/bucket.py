"""`recfs import s3://…`: objects become files without being downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.progress import ProgressLine
from recfs.errors import DaemonNotRunning

if TYPE_CHECKING:
    import click

    from recfs.cli.common.options import Invocation
    from recfs.cli.common.store import Store

_POLL_S = 1.0
_LISTED = 20
"""So many of what was left are named, unless --json has all that the daemon names."""


def import_objects(
    ctx: click.Context, invocation: Invocation, store: Store, url: str, *, download: bool, dry_run: bool
) -> None:
    """Have it done, and tell. Leaves with PROBLEMS where objects were left, or the run failed."""
    asked = {"url": url, "download": download, "dry_run": dry_run}
    teller = _Teller(quiet=invocation.json)
    try:
        _follow(store, asked, teller)
    except KeyboardInterrupt:
        teller.end()
        ctx.exit(ExitCode.INTERRUPTED)
    teller.end()
    if teller.last.get("failed") or teller.last.get("kept_files"):
        ctx.exit(ExitCode.PROBLEMS)


def _follow(store: Store, asked: dict[str, Any], teller: _Teller) -> None:
    """By the daemon, or, where none runs, with the store opened for the time. KeyboardInterrupt ends it, too."""
    try:
        number = store.client().call("import_begin", **asked)["run"]
    except DaemonNotRunning:
        teller.heard(store.call_alone("import_objects", **asked, tell=teller.heard))
        return
    try:
        while not teller.last.get("ended"):
            teller.heard(store.client().call("import_wait", run=number, timeout_s=_POLL_S))
    except KeyboardInterrupt:
        teller.heard(store.client().call("import_stop", run=number))
        raise


class _Teller:
    """Says how far it is, and what came of it."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._line = ProgressLine()
        self.last: dict[str, Any] = {}

    def heard(self, told: dict[str, Any]) -> None:
        """An answer: how far it is."""
        self.last = told
        if not self._quiet and not told["ended"]:
            rate = told["objects"] / max(told["took_s"], 1e-3)
            self._line.show(f"{_counts(told)}, {rate:,.0f} objects/s, at {output.show_name(told['at'])}")

    def end(self) -> None:
        """Say what came of it."""
        self._line.clear()
        told = self.last
        if self._quiet:
            output.emit_json(told)
            return
        if not told:
            return
        for each in told["kept"][:_LISTED]:
            output.say(f"{output.show_name(each['path'])}: left: {output.show_name(each['reason'])}", style="yellow")
        if told["kept_files"] > _LISTED:
            output.say(f"and {told['kept_files'] - _LISTED:,} more", style="yellow")
        clean = not told["failed"] and not told["kept_files"]
        output.say(f"{_counts(told)} in {output.duration(told['took_s'])}", style="green" if clean else "")
        if told["failed"]:
            output.say(f"ended early: {output.show_name(told['failed'])}; run it again", style="bold red")
        elif told["interrupted"]:
            output.say("interrupted; the next run goes on from there", style="yellow")


def _counts(told: dict[str, Any]) -> str:
    verb = "would be imported" if told["dry_run"] else "imported"
    parts = [f"{output.number_of(told['files'], 'object')} {verb}, {output.size(told['bytes'])}"]
    if told["already"]:
        parts.append(f"{told['already']:,} were files already")
    if told["read_bytes"]:
        parts.append(f"{output.size(told['read_bytes'])} downloaded for their checksums")
    if told["kept_files"]:
        parts.append(f"{told['kept_files']:,} left")
    return ", ".join(parts)


__all__ = ["import_objects"]
