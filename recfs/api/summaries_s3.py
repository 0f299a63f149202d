"""What the catalogue says of the S3 tier: the queue, what lies there, and what the routes make of a path."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from recfs.api.paths import found_at, parts_of, text
from recfs.clock import SystemClock, boot_id
from recfs.core.layout import role_of
from recfs.core.life import recordings_since, unrecorded
from recfs.core.model import State
from recfs.core.naming import is_temporary_name
from recfs.core.retention import archive_of
from recfs.core.routing import age_of, explain, route
from recfs.core.tiering import move_for
from recfs.errors import IsADirectory, NotFound
from recfs.ports.rows import DELETE, JOURNAL_KINDS, UPLOAD
from recfs.tier.queue import sent
from recfs.tier.queue.reasons import LOOKED_AT

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from recfs.config import Config
    from recfs.core.retention import Archive
    from recfs.ports.reports import Entry, Snapshot
    from recfs.ports.rows import JournalRow, NodeRow

STAYS_NAMED = 5
LEFT_OVER_S = 3600.0
"""From this age on a file with a temporary name is taken for one that its program has left behind."""
STATES = ("running", "failed", "pending", "waiting")
_NS = 10**9


# --- the queue -----------------------------------------------------------------------------------------------------


def queue(
    snapshot: Snapshot, now_ns: int | None, running: Mapping[int, int], *, limit: int | None = None,
    only: Collection[int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The journal, work under way first, then what failed. *running*: bytes sent so far, by row id.

    *now_ns*: the daemon's `Clock.steady_ns`; None: what one that started now would have. *limit*: so many rows at
    most; the totals are those of all. *only*: as if there were no others.
    """
    if now_ns is None:
        now_ns = SystemClock(snapshot.meta(), boot_id()).steady_ns()
    queued = snapshot.journal() if only is None else [each for each in snapshot.journal() if each.row.id in only]
    states, kinds, unsent, gone_out = Counter[str](), Counter[str](), 0, 0
    order = {state: number for number, state in enumerate(STATES)}
    placed: list[tuple[int, int, JournalRow]] = []
    staying: list[tuple[int, int, JournalRow]] = []
    for row, name in queued:
        state = _state(row, now_ns, running)
        states[state] += 1
        kinds[row.kind] += 1
        placed.append((order[state], row.id, row))
        if row.kind == UPLOAD:
            if name is not None and is_temporary_name(name):
                staying.append((row.created_ns, row.id, row))
            if row.error != LOOKED_AT or row.id in running:
                unsent += row.size_bytes
                gone_out += _sent_bytes(row, running)
    chosen = sorted(placed) if limit is None else nsmallest(limit, placed)
    failed = min((each for each in placed if each[0] == order["failed"]), default=None) if states["failed"] else None
    if failed is not None and chosen and failed not in chosen:
        chosen[-1] = failed  # one of them says why
    shown = [_queued(row, now_ns, running) for _, _, row in chosen]
    # What is not uploaded as long as its name looks temporary: how much, since when, the oldest by name.
    oldest = [row for _, _, row in nsmallest(STAYS_NAMED, staying)]
    paths = snapshot.paths({row["ino"] for row in shown if row["ino"]} | {row.ino for row in oldest})
    for each in shown:
        _name(each, paths.get(each["ino"]))
    stays = {
        "files": len(staying),
        "bytes": sum(row.size_bytes for _, _, row in staying),
        "oldest_s": max(0.0, (now_ns - oldest[0].created_ns) / _NS) if oldest else None,
        "paths": [text(b"/".join(paths[row.ino])) for row in oldest if paths.get(row.ino)],
    }
    totals = {"rows": states.total()} | {state: states[state] for state in STATES}
    totals |= {f"{kind}s": kinds[kind] for kind in JOURNAL_KINDS} | {"unsent_bytes": unsent, "sent_bytes": gone_out}
    return {"rows": shown, "more": len(placed) - len(shown), "totals": totals, "stays": stays}


def _state(row: JournalRow, now_ns: int, running: Mapping[int, int]) -> str:
    if row.id in running:
        return "running"
    if row.attempts and row.error != LOOKED_AT:
        return "failed"
    return "pending" if row.next_try_ns <= now_ns else "waiting"


def _sent_bytes(row: JournalRow, running: Mapping[int, int]) -> int:
    if row.id in running:
        return running[row.id]
    return sum(part.size_bytes for part in sent.parts(row.parts)) if row.parts else 0


def _queued(row: JournalRow, now_ns: int, running: Mapping[int, int]) -> dict[str, Any]:
    is_running = row.id in running
    return {
        "id": row.id,
        "kind": row.kind,
        "ino": row.ino if row.kind != DELETE else 0,
        "path": None,
        "key": row.key or None,
        "state": _state(row, now_ns, running),
        "why": "" if is_running else row.error,
        "size_bytes": row.size_bytes,
        "sent_bytes": _sent_bytes(row, running),
        "attempts": row.attempts,
        "error": row.error if row.attempts and row.error != LOOKED_AT else "",
        "next_try_s": None if is_running else max(0.0, (row.next_try_ns - now_ns) / _NS),
        "created_ns": row.created_ns,
    }


def _name(row: dict[str, Any], parts: Sequence[bytes] | None) -> None:
    """Add the path, and what a waiting row waits for."""
    if parts:
        row["path"] = text(b"/".join(parts))
    if row["state"] != "waiting":
        return
    if row["kind"] == "delete":
        row["why"] = row["why"] or "kept for the trash's retention"
    elif parts and is_temporary_name(parts[-1]):
        row["why"] = "its name looks temporary"
    else:
        row["why"] = row["why"] or "settling"


def problem(found: Mapping[str, Any]) -> str | None:
    """The trouble with the queue, in one line; None if there is none."""
    failed, stays = found["totals"]["failed"], found["stays"]
    if not failed and stays["files"] and stays["oldest_s"] >= LEFT_OVER_S:
        count = "1 file stays" if stays["files"] == 1 else f"{stays['files']} files stay"
        names = ", ".join(stays["paths"]) + ("" if stays["files"] <= STAYS_NAMED else ", …")
        return f"{count} here by temporary names: {names}; rename to the final name, or remove"
    if not failed:
        return None
    row = next((row for row in found["rows"] if row["state"] == "failed"), None)
    what = f": {row['kind']} of {row['path'] or row['key']}: {row['error']}" if row is not None else ""
    count = "1 entry of the S3 queue fails" if failed == 1 else f"{failed} entries of the S3 queue fail"
    return f"{count} and will be tried again{what}"


def without_tier(snapshot: Snapshot, config: Config) -> str | None:
    """What is wrong where a store has files in S3 and its configuration no [s3]; None where nothing is."""
    url = snapshot.meta().get("s3") if config.s3 is None else None
    if url is None:
        return None
    held, queued, remote = snapshot.in_s3()
    if not held and not queued:
        return None
    unread = f": {remote:,} of them cannot be read" if remote else ""
    return (
        f"{held:,} {'file' if held == 1 else 'files'} of this store in {url}, and there is no [s3] in its configuration"
        f"{unread}, and nothing is uploaded; unmount, and mount with the store's own configuration (--config FILE)"
    )


# --- what lies in S3 -----------------------------------------------------------------------------------------------


def status(snapshot: Snapshot, config: Config) -> dict[str, Any] | None:
    """The part of `status` about S3 where no daemon runs; None without [s3]."""
    if config.s3 is None:
        return None
    found = queue(snapshot, None, {}, limit=10)
    return {
        "url": config.s3.url,
        "queue": found["totals"],
        "unsent_bytes": found["totals"]["unsent_bytes"],
        "local_bytes": snapshot.local_bytes() + found["totals"]["unsent_bytes"] - found["stays"]["bytes"],
        "stays": found["stays"],
        "budget_bytes": config.cache.max_size,
        "breaker": None,
        "trouble": None,
        "failed_reads": [],
        "unread": None,
        "problem": problem(found),
        "tier_run": None,
    }


def held(entry: Entry) -> dict[str, Any] | None:
    """What S3 holds of a file, for `info`; None if nothing."""
    found = entry.held
    if found is None:
        return None
    return {
        "key": found.key,
        "etag": found.etag,
        "storage_class": found.storage_class,
        "size_bytes": found.size_bytes,
        "uploaded_ns": found.uploaded_ns,
        "used_ns": found.copy.used_ns,
        "keep_until_ns": found.copy.keep_until_ns or None,
        "pinned": bool(found.copy.pinned),
        "current": found.sha256 == entry.row.sha256,
    }


def location(row: NodeRow) -> str:
    """Where a file's bytes are, as in the attribute `user.recfs.location`."""
    state = row.state
    assert state is not None
    if state.is_remote:
        return "partial,s3" if state is State.FETCHING else "s3"
    here = "staging" if row.placement.staging else "local"
    return f"{here},s3" if state is State.STORED else here


# --- routes --------------------------------------------------------------------------------------------------------


def route_explain(
    snapshot: Snapshot, config: Config, now_ns: int, path: str, size_bytes: int | None, age_s: float | None,
    steady_ns: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What each rule says of a file, which one decides, and where the file is now. *steady_ns*: the
    daemon's `Clock.steady_ns`; None: what one that started now would have.

    The file need not exist; what is not given (size, age) is the file's own, or else 0. Raises InvalidPath where no
    file can be, IsADirectory.
    """
    parts = tuple(parts_of(path))
    assumed = []
    now: dict[str, Any] | None = None
    try:
        entry = found_at(snapshot, path)
    except NotFound:
        role_of(parts, is_dir=False)
    else:
        row = entry.row
        if row.state is None:
            raise IsADirectory(f"{path or 'the top'} is a {row.kind.value}; give a file's path, which need not exist")
        now = {"state": row.state.value, "size_bytes": row.size_bytes, "location": location(row)}
        now |= {"s3": held(entry), "queued": entry.is_queued}
        if size_bytes is None:
            size_bytes = row.size_bytes
        if age_s is None:
            age_s = age_of(now_ns, row.mtime_ns, row.ctime_ns)
    if size_bytes is None:
        assumed.append("size")
    if age_s is None:
        assumed.append("age")
    size_bytes, age_s = size_bytes or 0, max(age_s or 0.0, 0.0)
    decision = route(config.route, parts, size_bytes, age_s)
    has_class = now["s3"]["storage_class"] if now is not None and now["s3"] is not None else None
    archive = _archive(snapshot, config, parts, steady_ns, has_class) if decision.store == "s3" else None
    if archive is not None:
        why = f"{decision.reason}; {archive.why}"
        decision = replace(decision, storage_class=archive.storage_class, reason=why)
    wanted = wanted_class(config, decision.storage_class) if decision.store == "s3" else None
    move = None
    if now is not None:
        move = move_for(
            decision, State(now["state"]), queued=now["queued"], has_object=now["s3"] is not None,
            storage_class=has_class, wanted=wanted,
        )  # fmt: skip
    verdicts = enumerate(explain(config.route, parts, size_bytes, age_s))
    return {
        "path": os.fsdecode(b"/".join(parts)),
        "exists": now is not None,
        "size_bytes": size_bytes,
        "age_s": age_s,
        "assumed": assumed,
        "s3": config.s3.url if config.s3 is not None else None,
        "rules": [
            {
                "rule": index + 1,
                "conditions": verdict.rule.conditions,
                "to": verdict.rule.to,
                "matched": verdict.matched,
                "decides": index == decision.rule_index,
                "why": verdict.why,
            }
            for index, verdict in verdicts
        ],
        "decision": {
            "store": decision.store,
            "storage_class": wanted,
            "keep_local_s": decision.keep_local_s,
            "rule": None if decision.rule_index is None else decision.rule_index + 1,
            "reason": decision.reason,
        },
        "now": now,
        "move": None if move is None else {"step": move.step.value, "reason": move.reason},
    }


def _archive(
    snapshot: Snapshot, config: Config, parts: tuple[bytes, ...], steady_ns: int | None, current: str | None
) -> Archive | None:
    """What the retention of a file's recording says of its object."""
    if len(parts) < 5 or all(rule.archive_storage_class is None for rule in config.retention):
        return None
    facts = snapshot.meta()
    if steady_ns is None:
        steady_ns = SystemClock(facts, boot_id()).steady_ns()
    since_ns = recordings_since(facts)
    for each in snapshot.recordings(text(parts[1])):
        if each.path == parts[:4]:
            life = each.life or unrecorded(steady_ns if since_ns is None else min(since_ns, steady_ns))
            return archive_of(config.policy(), each.path, life, steady_ns, current)
    return None


def wanted_class(config: Config, of_rule: str | None) -> str | None:
    """The storage class of a file that goes to S3; None: the bucket's default."""
    return of_rule or (config.s3.storage_class if config.s3 is not None else None)
