"""What backups ask of the catalogue's own room, which alone knows what its file is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from recfs.core.upkeep.backups import Contents

Stopped = Callable[[], bool]
"""Whether it is not wanted any more. Asked from the thread that does it, every few MiB."""


class CatalogueCopies(Protocol):
    """Copies of a catalogue's file. Blocking."""

    def room_for(self, catalogue: Path) -> int:
        """Bytes that a copy takes at most. Raises OSError."""

    def copy(self, catalogue: Path, to: Path, stopped: Stopped) -> Contents:
        """Copy a catalogue that is in use into a file, as it is at one instant, and check it; what it holds.

        Raises Interrupted, OutOfSpace, BackupDamaged when the copy is another than what was read, StoreError.
        """

    def check(self, file: Path, stopped: Stopped) -> Contents:
        """Look through all of a copy; what it holds. Changes nothing. Raises BackupDamaged, Interrupted."""

    def contents(self, catalogue: Path) -> Contents | None:
        """What a catalogue holds, in use or not; None where that cannot be read."""
