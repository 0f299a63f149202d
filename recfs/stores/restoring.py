"""Puts another catalogue in the place of a store's own, so that at any moment there is the one or the other. Blocking.

The steps, for whoever has the store's lock; each may be the last one before a death, and whoever comes next goes on:
  1. the new one is made under a name of its own, checked, and made durable (`NEXT`);
  2. a note says what is being put back, and under which name the present one is kept (`NOTE`): it is decided;
  3. the present file gets a second name, and so does its log; then the log goes, for it would be read into whatever
     file has the catalogue's name (sqlite.org/wal.html);
  4. the new one takes the name over (rename(2));
  5. when what the store has been compared with it, the note goes; at once, if there is nothing to compare.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from recfs.errors import StoreError

NEXT, NOTE, CATALOGUE = "catalogue.db.restoring", "restore.json", "catalogue.db"
ASIDE = "catalogue.db.before-restore-"
_NOTE_PART = f"{NOTE}.part"
_MODE = 0o600
"""Of both, the new one and the one that is kept: names and notes of users are in them."""
_LOGS = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Restoration:
    """One that is not at its end."""

    backup: str
    """Name of what is put back."""
    aside: str
    """Name under which the catalogue before it is kept."""
    forget: bool = False
    """Whether rows of files that are nowhere are to go."""
    settled: bool = False
    """Whether it was made of what lies on the disk and in the bucket: nothing is to be compared."""
    compared: bool = False
    """Whether what lies on the disk has been compared; what is left is the bucket."""


def under_way(private: Path) -> Restoration | None:
    """The one that is not at its end, if there is one. Raises StoreError where the note says nothing."""
    try:
        data = (private / NOTE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Restoration(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{private / NOTE}, which tells of a restore under way, cannot be read: move it away, and restore again"
        ) from error


def place(private: Path, restoration: Restoration) -> None:
    """Step 2, and those after it: what lies under NEXT, whole and durable, becomes the catalogue. Raises OSError."""
    note(private, restoration)
    finish(private)


def note(private: Path, restoration: Restoration) -> None:
    """Write the note down, durably. Raises OSError."""
    beside = private / _NOTE_PART
    with open(beside, "wb") as file:
        file.write(json.dumps(asdict(restoration)).encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, private / NOTE)
    _sync(private)


def finish(private: Path) -> Restoration | None:
    """Steps 3 and 4, whatever of them is done; the restoration that is under way, if one is then. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(private / _NOTE_PART)
    restoration = under_way(private)
    if restoration is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(private / NEXT)  # whoever made it did not come as far as step 2
        return None
    if (private / NEXT).exists():
        for end in ("", _LOGS[0]):
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.link(private / f"{CATALOGUE}{end}", private / f"{restoration.aside}{end}")
            with contextlib.suppress(FileNotFoundError):
                os.chmod(private / f"{restoration.aside}{end}", _MODE)
        _sync(private)
        for end in _LOGS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(private / f"{CATALOGUE}{end}")
        os.rename(private / NEXT, private / CATALOGUE)
        _sync(private)
    if restoration.settled:
        compared(private, at_its_end=True)
        return None
    return restoration


def compared(private: Path, *, at_its_end: bool) -> None:
    """What lies on the disk has been compared; *at_its_end*: and there is nothing else to be. Raises OSError."""
    restoration = under_way(private)
    if restoration is None:
        return
    if at_its_end:
        os.unlink(private / NOTE)
        _sync(private)
    elif not restoration.compared:
        note(private, replace(restoration, compared=True))


def _sync(private: Path) -> None:
    fd = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


__all__ = ["ASIDE", "NEXT", "Restoration", "compared", "finish", "place", "under_way"]
