"""Where the audit log of a store lies."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Section(Protocol):
    """As much of [audit] as it takes."""

    @property
    def directory(self) -> Path | None:
        """Where it is to lie; None: in the store."""


def folder_of(root: Path, section: Section) -> Path:
    """The directory of the audit log."""
    return section.directory if section.directory is not None else root / ".recfs" / "audit"


__all__ = ["folder_of"]
