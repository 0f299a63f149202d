"""Whether a plan, and the store after a run of it, are what the truth about a made-up tree says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from recfs.core.migration.escapes import escaped
from recfs.core.migration.plan import MOVED, Action, Entry, Plan

from .truth import File, Truth

_BOOKS = frozenset({b"data.db"})
"""What lies in the tree and is no file of a user."""


def plan_differences(truth: Truth, plan: Plan) -> list[str]:
    """What a plan says of files that is not so, one line each; none if every file is accounted for."""
    entries: dict[bytes, Entry] = {}
    found = []
    for entry in plan.entries:
        if entry.source in entries:
            found.append(f"{escaped(entry.source)} is in the plan twice")
        entries[entry.source] = entry
    known = {file.source: file for file in truth.files}
    found += [
        f"{escaped(source)} is in the plan and not in the tree" for source in entries.keys() - known.keys() - _BOOKS
    ]
    for source, file in known.items():
        planned = entries.get(source)
        if planned is None:
            found.append(f"{escaped(source)} ({file.kind}) is not in the plan")
        else:
            found += [f"{escaped(source)} ({file.kind}): {each}" for each in _differences(file, planned)]
    return found


def _differences(file: File, planned: Entry) -> Iterator[str]:
    if planned.action is not file.becomes:
        yield f"{planned.action} ({planned.reason}), not {file.becomes}"
    elif file.becomes is Action.ASIDE:
        if not planned.target.startswith(file.target):
            yield f"goes to {escaped(planned.target)}, not into {escaped(file.target)}"
    elif file.becomes in (Action.COPY, Action.DUPLICATE) and planned.target != file.target:
        yield f"goes to {escaped(planned.target)}, not to {escaped(file.target)}"
    if file.sha256 and planned.size != file.size:
        yield f"has {planned.size} bytes, not {file.size}"


def store_differences(truth: Truth, plan: Plan, top: Path) -> list[str]:
    """What the store at *top*, a mount or a home tree, has otherwise than it should after a run of *plan*.

    All of `users` and `shared` has to be what was copied, with its bytes and its time of modification.
    """
    known = {file.source: file for file in truth.files}
    wanted = {entry.target: known[entry.source] for entry in plan.entries if entry.action in MOVED}
    there = {path for folder in (b"users", b"shared") for path in _files_below(os.fsencode(top), folder)}
    # on a mount, a user without a thumbnail is shown the shared one
    shown = {path for path in there - wanted.keys() if _is_shown(os.fsencode(top), path)}
    found = [f"{escaped(path)} is in the store, and nobody wanted it" for path in sorted(there - wanted.keys() - shown)]
    for target, file in wanted.items():
        if target not in there:
            found.append(f"{escaped(target)} ({file.kind}) is not in the store")
            continue
        path = os.path.join(os.fsencode(top), target)
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != file.sha256:
            found.append(f"{escaped(target)} ({file.kind}) has other bytes")
        if os.stat(path).st_mtime_ns != file.mtime_ns:
            found.append(f"{escaped(target)} ({file.kind}) has another time")
    return found


def _files_below(top: bytes, folder: bytes) -> Iterator[bytes]:
    for where, _, names in os.walk(os.path.join(top, folder)):
        for name in names:
            yield os.path.relpath(os.path.join(where, name), top)


def _is_shown(top: bytes, path: bytes) -> bool:
    try:
        os.getxattr(os.path.join(top, path), "user.recfs.shown")
    except OSError:  # its own file, or no mount
        return False
    return True


__all__ = ["plan_differences", "store_differences"]
