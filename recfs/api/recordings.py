"""Answers about recordings that come from the catalogue: the daemon's, and the CLI's when none runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.api.paths import parts_of, text
from recfs.clock import SystemClock, boot_id
from recfs.core.life import recordings_since, unrecorded
from recfs.core.retention import UNUSED, Now, held_up, judge
from recfs.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recfs.core.retention import Policy, Use
    from recfs.ports.reports import Recorded, Snapshot

_NS = 10**9
_DEPTH = 4
"""Levels of a recording's path."""


class Asked:
    """One question about recordings. *now* and *uses* are a daemon's; None and nothing: none runs."""

    def __init__(self, snapshot: Snapshot, policy: Policy, now: Now | None, uses: Mapping[int, Use]) -> None:
        self._snapshot, self._policy, self._uses = snapshot, policy, uses
        facts = snapshot.meta()
        if now is None:
            clock = SystemClock(facts, boot_id())
            now = Now(clock.steady_ns(), clock.calendar_ns())
        self._now = now
        since_ns = recordings_since(facts)
        self._held = held_up(snapshot.inside(), now)
        self._unknown = unrecorded(min(since_ns if since_ns is not None else now.steady_ns, now.steady_ns))

    def list(self, user: str | None, status: str | None, due_s: float | None) -> list[dict[str, Any]]:
        """Those of a user, of a status, and of which something becomes within a time, in seconds; None: any."""
        found = [self._as_json(each) for each in self._snapshot.recordings(user)]
        return [
            each
            for each in found
            if (status is None or each["status"] == status)
            and (due_s is None or (each["due_s"] is not None and each["due_s"] <= due_s))
        ]

    def show(self, path: str) -> dict[str, Any]:
        """The recording at a mount path, or around it. Raises NotFound."""
        parts = tuple(parts_of(path))[:_DEPTH]
        if len(parts) == _DEPTH and (parts[0], parts[2]) == (b"users", b"recordings"):
            for each in self._snapshot.recordings(text(parts[1])):
                if each.path == parts:
                    return self._as_json(each)
        raise NotFound(f"{path}: there is no recording; these are users/<id>/recordings/<id>")

    def _as_json(self, recorded: Recorded) -> dict[str, Any]:
        row, now = recorded.row, self._now
        life, use = recorded.life or self._unknown, self._uses.get(row.ino, UNUSED)
        use = use._replace(holds=self._held.get(row.ino, ""))
        verdict = judge(self._policy, recorded.path, life, now, use)
        left_ns = None if verdict.due_ns is None else verdict.due_ns - now.steady_ns
        return {
            "path": "/".join(map(text, recorded.path)),
            "user": text(recorded.path[1]),
            "ino": row.ino,
            "status": life.status.value,
            "created_ns": life.created_ns or None,
            "age_s": max(0, now.steady_ns - life.born_ns) / _NS,
            "unchanged_s": max(0, now.steady_ns - life.changed_ns) / _NS,
            "rbytes": row.size_bytes,
            "rfiles": row.rfiles,
            "expires_at_ns": life.expires_ns,
            "keep": bool(life.keep),
            "note": life.note,
            "set_by": life.set_by or None,
            "rule": verdict.rule,
            "action": verdict.action.value,
            "reason": verdict.reason,
            "due_s": None if left_ns is None else max(0, left_ns) / _NS,
            "due_ns": None if left_ns is None else now.calendar_ns + left_ns,
            "storage_class": verdict.storage_class,
            "open_files": use.files,
        }


__all__ = ["Asked"]
