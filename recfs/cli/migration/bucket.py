"""`recfs import s3://…`: objects become files without being downloaded."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.progress import ProgressLine
from recfs.core.keys import key_for
from recfs.core.migration.claims import File
from recfs.core.migration.plan import LEFT, MOVED
from recfs.errors import DaemonNotRunning, RecfsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import click

    from recfs.cli.common.options import Invocation
    from recfs.cli.common.store import Store

_POLL_S = 1.0
_COPIED_AT_ONCE = 100
"""So many are asked for in one request …"""
_OWN = ".recfs/"
"""What recfs keeps below a prefix besides files."""
MOST_NAMED = 1000
"""… and so many of what was left are kept in mind."""
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


def import_by_rules(
    ctx: click.Context, invocation: Invocation, store: Store, url: str, rules: Path, *, download: bool, dry_run: bool
) -> None:
    """Have the server copy what rules take to where files have their objects. Leaves with PROBLEMS as the other."""
    from recfs.migration.ruled import place_objects

    listed, teller = _Listed(store, url), _Teller(quiet=invocation.json)
    began_s = time.monotonic()
    entries = place_objects(listed, rules)
    moved = [each for each in entries if each.action in MOVED]
    kept = [{"path": os.fsdecode(each.source), "reason": each.reason} for each in entries if each.action in LEFT]
    told: dict[str, Any] = {
        "objects": len(entries), "skipped": len(entries) - len(moved) - len(kept), "files": 0, "bytes": 0, "already": 0,
        "kept": kept[:MOST_NAMED], "kept_files": len(kept), "read_bytes": 0, "dry_run": dry_run, "at": "",
        "ended": False, "interrupted": False, "failed": None,
    }  # fmt: skip
    try:
        for start in range(0, len(moved), _COPIED_AT_ONCE):
            some = moved[start : start + _COPIED_AT_ONCE]
            teller.heard({**told, "at": os.fsdecode(some[0].source), "took_s": time.monotonic() - began_s})
            if dry_run:
                size = sum(each.size for each in some)
                answer: dict[str, Any] = {"files": len(some), "bytes": size, "already": 0, "kept": []}
            else:
                keys, targets = [each.source.decode() for each in some], [key_for(each.target) for each in some]
                answer = store.call("import_copies", url=url, keys=keys, targets=targets, download=download)
            for name in ("files", "bytes", "already"):
                told[name] += answer[name]
            told["kept"] = (told["kept"] + answer["kept"])[:MOST_NAMED]
            told["kept_files"] += len(answer["kept"])
    except KeyboardInterrupt:
        told["interrupted"] = True
    except RecfsError as error:
        told["failed"] = str(error)
    teller.heard({**told, "ended": True, "took_s": time.monotonic() - began_s})
    teller.end()
    if told["interrupted"]:
        ctx.exit(ExitCode.INTERRUPTED)
    if told["failed"] or told["kept_files"]:
        ctx.exit(ExitCode.PROBLEMS)


class _Listed:
    """What lies at a place, as files of a tree: asked for page by page."""

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url

    def __iter__(self) -> Iterator[File]:
        after = ""
        while page := self._store.call("import_list", url=self._url, after=after)["objects"]:
            for key, size, mtime_ns in page:
                if not key.startswith(_OWN):
                    yield File(key.encode(), size, mtime_ns)
            after = page[-1][0]


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


__all__ = ["import_by_rules", "import_objects"]
