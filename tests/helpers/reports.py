"""Asking a store's catalogue past its daemon, as commands do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

from recfs.catalogue.reports import SqliteReports
from recfs.ports.reports import Checked, Snapshot

Answer = TypeVar("Answer")
Args = TypeVarTuple("Args")


def answer_of(catalogue: Path, question: Callable[[Snapshot, Unpack[Args]], Answer], *args: *Args) -> Answer:
    """What *question* says of the catalogue as it is now."""
    with SqliteReports(catalogue).reading() as snapshot:
        return question(snapshot, *args)


def check(catalogue: Path) -> Checked:
    """Prove its counters."""
    return answer_of(catalogue, lambda snapshot: snapshot.check())
