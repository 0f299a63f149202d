"""Lists, page by page: a cursor is where the page before ended, so nothing is kept, and what stays is told once."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from typing import Any, Final

from recfs.client.errors import InvalidName
from recfs.client.tree import id_of
from recfs.web.context import Context
from recfs.web.problems import Problem
from recfs.web.recordings.facts import entry_of, recording_facts

LIMIT: Final = 50
MOST: Final = 200
"""Entries of one page."""
_LOOKED_AT: Final = 2000
"""A search looks at so many recordings for one page; the page may have fewer entries than asked for then."""
_DEEPEST: Final = 32
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def cursor_of(place: str) -> str:
    """Make a cursor of the last thing of a page."""
    return base64.urlsafe_b64encode(os.fsencode(place)).decode("ascii").rstrip("=")


def place_of(cursor: str | None) -> str | None:
    """Give what a cursor was made of. Raises Problem("InvalidArgument")."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Problem("InvalidArgument", "cursor: that is none") from None
    return os.fsdecode(raw)


def _order(recording: str) -> tuple[bool, int, str]:
    """Numbers in their order, then UUIDs."""
    return ("-" in recording, len(recording), recording)


def _is_id(name: str) -> bool:
    try:
        id_of("recording", name)
    except InvalidName:
        return False
    return True


def recordings_page(
    context: Context, user: str, cursor: str | None, limit: int, *, descending: bool, search: str | None
) -> dict[str, Any]:
    """Give a page of a user's recordings, by number. Raises OSError, Problem."""
    last = place_of(cursor)
    try:
        folder = context.tree.folder("users", user, "recordings")
    except FileNotFoundError:
        with context.tree.inside("users", user):
            return {"items": [], "next": None}
    try:
        ids = sorted(filter(_is_id, os.listdir(folder)), key=_order, reverse=descending)
        if last is not None:
            ids = [each for each in ids if (_order(each) < _order(last) if descending else _order(each) > _order(last))]
        found: list[dict[str, Any]] = []
        at: str | None = None
        for number, recording in enumerate(ids):
            if len(found) == limit or number == _LOOKED_AT:
                return {"items": found, "next": None if at is None else cursor_of(at)}
            at = recording
            facts = recording_facts(folder, recording, user)
            if facts is not None and (search is None or _is_meant(facts, search)):
                found.append(facts)
        return {"items": found, "next": None}
    finally:
        os.close(folder)


def _is_meant(facts: dict[str, Any], search: str) -> bool:
    source = facts["source"] or {}
    texts = [facts["id"], source.get("name"), source.get("original_name"), *source.get("tags", {}).values()]
    return any(search.casefold() in text.casefold() for text in texts if text)


def recording_page(
    context: Context, user: str, recording: str, above: tuple[str, ...], cursor: str | None, limit: int, *, deep: bool
) -> dict[str, Any]:
    """Give a recording, and a page of what is in it or in a directory of it; *deep*: of all files below."""
    last = place_of(cursor)
    context.tree.require("users", user, "recordings", recording)  # says what it is that keeps from it
    with context.tree.inside("users", user, "recordings") as recordings:
        facts = recording_facts(recordings, recording, user)
    if facts is None:
        raise Problem("NotFound")
    after = None if last is None else tuple(last.split("/"))
    found: list[dict[str, Any]] = []
    following: str | None = None
    with context.tree.inside("users", user, "recordings", recording, *above) as folder:
        for entry in _entries(folder, user, recording, above, (), after, deep=deep):
            if len(found) == limit:
                following = cursor_of("/".join(found[-1]["path"].split("/")[len(above) :]))
                break
            found.append(entry)
    return {**facts, "entries": found, "next": following}


def _entries(
    folder: int, user: str, recording: str, above: tuple[str, ...], below: tuple[str, ...],
    after: tuple[str, ...] | None, *, deep: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """What is in a directory, by name, after a place in it."""
    for name in sorted(os.listdir(folder)):
        place = (*below, name)
        if after is not None and place <= after and after[: len(place)] != place:
            continue
        told = after is not None and place == after
        entry = None if told else entry_of(folder, name, user, recording, (*above, *below))
        is_folder = entry is not None and entry["kind"] == "directory"
        if not deep or not is_folder:
            if entry is not None:
                yield entry
            continue
        if len(place) >= _DEEPEST:
            continue
        try:
            inner = os.open(name, _FOLDER, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        try:
            yield from _entries(inner, user, recording, above, place, after, deep=True)
        finally:
            os.close(inner)


__all__ = ["LIMIT", "MOST", "cursor_of", "place_of", "recording_page", "recordings_page"]
