"""Reading the audit log again: all its files, in order, while it is written and files come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from recfs.observing.audit.files import CURRENT, rotated


class Sought(NamedTuple):
    """Which acts somebody wants; None: whatever it is."""

    user: str | None = None
    """Whose files."""
    uid: int | None = None
    """Who did it."""
    path: str | None = None
    """What was done to it, or to anything below it."""
    ops: frozenset[str] | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    refused: bool = False
    """Only what was refused."""

    def has(self, act: dict[str, Any]) -> bool:
        """Whether an act is one of them."""
        at_ns = act["time_ns"]
        return (
            (self.since_ns is None or at_ns >= self.since_ns)
            and (self.until_ns is None or at_ns <= self.until_ns)
            and (self.ops is None or act.get("op") in self.ops)
            and (self.uid is None or act.get("uid") == self.uid)
            and (self.user is None or act.get("user") == self.user)
            and (self.path is None or any(_is_below(act.get(key), self.path) for key in ("path", "to")))
            and not (self.refused and act.get("result") == "ok")
        )


def _is_below(path: object, top: str) -> bool:
    return isinstance(path, str) and (path == top or not top or path.startswith(f"{top}/"))


class AuditReader:
    """Goes through the log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.damaged = 0
        """Lines that are none: of a machine that died while it wrote."""

    def acts(self, sought: Sought) -> Iterator[dict[str, Any]]:
        """All that is sought, oldest first. Raises OSError: FileNotFoundError where there is no log."""
        seen: set[tuple[int, int]] = set()
        for path in [*rotated(self._folder), self._folder / CURRENT, *rotated(self._folder)[-1:]]:
            # The one that was written may have got another name meanwhile: hence the last of those once more.
            try:
                with path.open("rb") as file:
                    info = path.stat()
                    if (info.st_dev, info.st_ino) in seen or _is_over(info.st_mtime_ns, sought):
                        continue
                    seen.add((info.st_dev, info.st_ino))
                    yield from self._of(file, sought)
            except FileNotFoundError:
                continue  # it was too old to be kept

    def _of(self, lines: Iterator[bytes], sought: Sought) -> Iterator[dict[str, Any]]:
        for line in lines:
            try:
                act = json.loads(line)
                is_sought = sought.has(act)
            except (ValueError, TypeError, KeyError):
                self.damaged += 1
                continue
            if is_sought:
                yield act


def _is_over(changed_ns: int, sought: Sought) -> bool:
    """Whether a file that was last written then has nothing that is sought."""
    return sought.since_ns is not None and changed_ns < sought.since_ns - 60 * 10**9


__all__ = ["AuditReader", "Sought"]
