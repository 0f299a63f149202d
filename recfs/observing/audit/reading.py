"""Reading the audit log again: all its files, in order, while it is written and files come and go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from recfs.observing.audit.files import CURRENT, rotated


class Sought(NamedTuple):
    """Which acts somebody wants; None: whatever it is."""

    user: str | None = None
    """Whose files."""
    uid: int | None = None
    """Who did it."""
    path: str | None = None
    """What was done to it, or to anything below it, or to a directory that was removed with it."""
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
            and (self.path is None or _concerns(act, self.path))
            and not (self.refused and act.get("result") == "ok")
        )


def _concerns(act: dict[str, Any], path: str) -> bool:
    """Whether it was done to *path*, to something below it, or to a directory that went as a whole with it."""
    if any(_is_below(act.get(key), path) for key in ("path", "to")):
        return True
    return "files" in act and isinstance(act.get("path"), str) and _is_below(path, act["path"])


def _is_below(path: object, top: str) -> bool:
    return isinstance(path, str) and (path == top or not top or path.startswith(f"{top}/"))


class AuditReader:
    """Goes through the log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.damaged = 0
        """Lines that are none: of a machine that died while it wrote."""

    def acts(self, sought: Sought) -> Iterator[dict[str, Any]]:
        """All that is sought, oldest first, each once. Raises OSError: FileNotFoundError where there is no log."""
        seen: set[tuple[str, int, int]] = set()
        read: BinaryIO | None = None
        current: BinaryIO | None = None
        try:
            while True:
                current, aside = self._look()
                count = len(seen)
                for path in aside:
                    yield from self._put_aside(path, sought, seen, read)
                if read is not None:
                    read.close()
                    read = None
                if current is None:
                    if len(seen) == count:
                        return
                    continue  # the next one may have been begun while those were read
                _skip_if_over(current, sought)
                yield from self._of(current, sought, is_whole=False)
                is_there = self._is_current(current)
                # More may have come until it got another name; nothing comes after that.
                yield from self._of(current, sought, is_whole=True)
                if is_there:
                    return
                # It stays open until it is found under its other name, so that its inode is no other file's.
                read, current = current, None
        finally:
            for file in (read, current):
                if file is not None:
                    file.close()

    def _look(self) -> tuple[BinaryIO | None, list[Path]]:
        """The file that is written, open, or None; and all that were put aside before it, oldest first."""
        while True:
            try:
                current = (self._folder / CURRENT).open("rb")
            except FileNotFoundError:
                current = None
            try:
                aside = rotated(self._folder)
                is_same = self._is_current(current)
            except BaseException:
                if current is not None:
                    current.close()
                raise
            if is_same:
                return current, aside
            # It was put aside meanwhile. A listing may have or lack a name that comes during it, and so lack an older
            # file and have a younger one.
            if current is not None:
                current.close()

    def _is_current(self, file: BinaryIO | None) -> bool:
        """Whether *file* is the one that is written; of None: whether there is none."""
        try:
            return _identity((self._folder / CURRENT).stat()) == (file and _identity(os.fstat(file.fileno())))
        except FileNotFoundError:
            return file is None

    def _put_aside(
        self, path: Path, sought: Sought, seen: set[tuple[str, int, int]], read: BinaryIO | None
    ) -> Iterator[dict[str, Any]]:
        """What is sought in a file that is not written any more, unless it was read before: as *read*, or as *seen*."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return  # it was too old to be kept
        with file:
            identity = _identity(os.fstat(file.fileno()))
            # Inodes, and names of one second, are given again once a file is removed; hardly both of them.
            if (path.name, *identity) in seen:
                return
            seen.add((path.name, *identity))
            if read is not None and identity == _identity(os.fstat(read.fileno())):
                return
            _skip_if_over(file, sought)
            yield from self._of(file, sought, is_whole=True)

    def _of(self, file: BinaryIO, sought: Sought, *, is_whole: bool) -> Iterator[dict[str, Any]]:
        """What is sought from here to the end; half a line there is left for the next call unless *is_whole*."""
        for line in file:
            if not is_whole and not line.endswith(b"\n"):
                file.seek(-len(line), os.SEEK_CUR)
                return
            try:
                act = json.loads(line)
                is_sought = sought.has(act)
            except (ValueError, TypeError, KeyError, RecursionError):
                self.damaged += 1
                continue
            if is_sought:
                yield act


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _skip_if_over(file: BinaryIO, sought: Sought) -> None:
    """Go to the end of a file that has nothing that is sought; what is written from then on is looked at."""
    if _is_over(os.fstat(file.fileno()).st_mtime_ns, sought):
        file.seek(0, os.SEEK_END)


def _is_over(changed_ns: int, sought: Sought) -> bool:
    """Whether a file that was last written then has nothing that is sought."""
    return sought.since_ns is not None and changed_ns < sought.since_ns - 60 * 10**9


__all__ = ["AuditReader", "Sought"]
