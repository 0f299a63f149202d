"""Numbered versions of a file: `topics_v1.json`, `topics_v2.json` …, each whole, and never two of one number."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from recfs.client.errors import InvalidName
from recfs.client.tree import NAME_MAX_BYTES, name_of
from recfs.client.writing import AsyncFile, Draft, Verify, WritingBlock

_DIGITS = 18
_TRIES = 1000


class next_version(WritingBlock["next_version", "next_version"]):
    """Write the next version of a file: `with next_version(folder, "topics", "json") as version`, or `async with`.

    The block writes to `version.file`; at its end that is `{stem}_v{N}.{extension}`, with N one more than the highest
    there is, in one step: several writers at once, on one machine, get a number each, and nobody sees half a version.
    `version.path` and `version.number` are known then. An error leaves nothing, and takes no number. Gaps are not
    filled. Unlike `recfs next-version`, which asks the daemon, it cannot know of a highest one that was removed.

    The directory has to be there. Raises InvalidName, OSError, and what *verify* does (`atomic_write`).

    >>> for _ in range(2):
    ...     with next_version(folder, "topics", "json") as version:
    ...         written = version.file.write(b"[]")
    >>> version.path.name, version.number
    ('topics_v2.json', 2)
    """

    def __init__(
        self, folder: str | os.PathLike[str], stem: str, extension: str = "json", *, verify: Verify | None = None
    ) -> None:
        self._folder = Path(folder)
        end = extension.removeprefix(".")
        self._before, self._after = f"{stem}_v", f".{end}" if end else ""
        if not stem:
            raise InvalidName("a version has a name before its number, such as topics")
        name_of(self._name(1))
        if len(self._name(10**_DIGITS - 1).encode("utf-8")) > NAME_MAX_BYTES:
            raise InvalidName(f"a name has {NAME_MAX_BYTES} bytes at most, the number of the version included")
        self._verify = verify
        self.file: BinaryIO
        self.path: Path
        self.number: int

    def _name(self, number: int) -> str:
        return f"{self._before}{number}{self._after}"

    def _begin(self) -> next_version:
        self.file = self._open(self._folder, self._name(0))
        return self

    def _for_async(self, begun: next_version) -> next_version:
        return begun

    def _finish(self, draft: Draft) -> None:
        draft.prove(self._verify)
        least = 0
        for _ in range(_TRIES):
            self.number = max(highest(draft.names(), self._before, self._after), least) + 1
            try:
                self.path = draft.publish(self._name(self.number), replace=False)
                return
            except FileExistsError:
                least = self.number  # somebody was first
        raise FileExistsError(f"{self._folder}: others have taken each number of {self._name(0)} first")

    async def write(self, data: bytes) -> int:
        """Write from a coroutine."""
        return await AsyncFile(self.file).write(data)


def highest(names: Iterable[str], begin: str, end: str) -> int:
    """Give the highest number of a series among *names*, 0 if there is none of it. Leading zeros do not count."""
    match = re.compile(rf"{re.escape(begin)}([0-9]{{1,{_DIGITS}}}){re.escape(end)}").fullmatch
    return max((int(found[1]) for found in map(match, names) if found), default=0)


__all__ = ["highest", "next_version"]
