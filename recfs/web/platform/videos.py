"""A recording as the platform knows it: an asset of a project. Blocking calls, for threads."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any, Final

from recfs.client.uploads import attribute
from recfs.web.context import Context
from recfs.web.files import open_file
from recfs.web.problems import Problem
from recfs.web.recordings.facts import recording_facts
from recfs.web.recordings.thumbnail import places

METADATA: Final = "user.metadata"
"""On the source: what the platform keeps with it, as JSON."""
MOST_METADATA: Final = 32 << 10


def checked_metadata(text: str) -> bytes:
    """Give a form's `metadata` as it is kept. Raises Problem for what is no JSON object."""
    if not text:
        return b""
    try:
        told = json.loads(text)
        raw = json.dumps(told, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, RecursionError):
        raise Problem("InvalidArgument", "metadata is a JSON object") from None
    if not isinstance(told, dict) or len(raw) > MOST_METADATA:
        raise Problem("InvalidArgument", f"metadata is a JSON object of {MOST_METADATA} bytes at most")
    return raw


def video(context: Context, user: str, recording: str) -> dict[str, Any]:
    """Tell of an asset. Raises Problem("NotFound") where there is none."""
    with context.tree.inside("users", user, "recordings") as folder:
        facts = recording_facts(folder, recording, user)
    if facts is None or facts["source"] is None:
        raise Problem("NotFound")
    source = facts["source"]
    kept = _metadata(context, user, recording, str(source["name"]))
    changed_ns = max(int(facts["modified_ns"]), int(source["modified_ns"]))
    return {
        "id": recording,
        "project_id": user,
        "status": source["status"] or ("completed" if source["state"] == "committed" else "processing"),
        "filename": source["original_name"] or source["name"],
        "file_path": "/".join(("users", user, "recordings", recording, str(source["name"]))),
        "file_size": source["size_bytes"],
        "mime_type": source["mime"],
        "sha256": source["sha256"],
        "href": source["href"],
        "thumbnail_path": _thumbnail(context, user, recording),
        "metadata": {**source["media"], **kept},
        "created_at": source["uploaded_at"] or _moment(int(source["modified_ns"])),
        "updated_at": _moment(changed_ns),
    }


def _metadata(context: Context, user: str, recording: str, name: str) -> dict[str, Any]:
    """What came with it; nothing where somebody else wrote there what is no JSON object."""
    try:
        with context.tree.inside("users", user, "recordings", recording) as folder:
            file = open_file(folder, name)
    except OSError:
        return {}
    try:
        raw = attribute(file, METADATA)
    finally:
        os.close(file)
    try:
        told = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _thumbnail(context: Context, user: str, recording: str) -> str | None:
    """The path in the tree of the picture that a recording has; None where it has none."""
    for place in places(user, recording):
        try:
            with context.tree.inside(*place[:-1]) as folder:
                os.close(open_file(folder, place[-1]))
        except OSError:
            continue
        return "/".join(place)
    return None


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="seconds")


def recordings_of(context: Context, user: str) -> list[str]:
    """Give the ids of a user's recordings, in order. Raises OSError."""
    with context.tree.inside("users", user, "recordings") as folder:
        return sorted(os.listdir(folder))


__all__ = ["METADATA", "MOST_METADATA", "checked_metadata", "recordings_of", "video"]
