"""Which picture a recording has: its own, one that was derived from it, or one that all users share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from recfs.client.errors import DaemonRefused
from recfs.web.context import Context
from recfs.web.limiters import in_thread
from recfs.web.problems import Problem
from recfs.web.recordings.opening import Opened, open_recorded

PICTURES: Final = ("thumbnail.jpg", "thumbnail.png", "thumbnail.webp")
IN_ASSETS: Final = ("thumbnail.png", "thumbnail.jpg", "thumbnail.webp")
"""The first is what a [[derive]] rule makes (docs/semantics.md, 31.1)."""
_SHARED: Final = "default"


def places(user: str, recording: str) -> Iterator[tuple[str, ...]]:
    """Give the paths at which a picture is looked for, the best first.

    That of `thumbnails` is shown from shared/ where the user has none (docs/semantics.md, section 10).
    """
    inside = ("users", user, "recordings", recording)
    for name in PICTURES:
        yield (*inside, name)
    for name in IN_ASSETS:
        yield (*inside, "assets", name)
    for stem in (recording, _SHARED):
        for extension in (".jpg", ".png", ".webp"):
            yield ("users", user, "thumbnails", stem + extension)
    for extension in (".jpg", ".png", ".webp"):
        yield ("shared", "thumbnails", _SHARED + extension)


async def open_thumbnail(context: Context, user: str, recording: str) -> Opened:
    """Open the picture of a recording. Raises Problem("NotFound") where there is none, or no such recording."""
    await in_thread(context.limiters.calls, lambda: context.tree.require("users", user, "recordings", recording))
    for place in places(user, recording):
        try:
            return await open_recorded(context, *place)
        except (FileNotFoundError, IsADirectoryError, DaemonRefused):
            continue
    raise Problem("NotFound", "there is no picture of this recording")


__all__ = ["IN_ASSETS", "PICTURES", "open_thumbnail", "places"]
