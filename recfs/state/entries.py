"""What an entry of the intent log holds: what was called of `Changes` between two answers, in the words of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from recfs.core.bounds import MAX_INT
from recfs.ports.intents import TOTALS
from recfs.ports.rows import RecordingRow

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from recfs.ports.intents import Entry
    from recfs.state.nodes import DirNode, Node

_KEYS: Final = {"accounts": "user", "garbage": "gid", "objects": "ino", "journal": "id", "recordings": "ino"}
"""What tells one item from another, of fields in which a batch has an item once: the latest counts."""


def entry_of(
    called: Iterable[tuple[str, Any]], nodes: Container[int], recordings: Container[int],
    once: Mapping[str, Container[Any]],
) -> Entry:  # fmt: skip
    """The entry of *called*: field of a batch, or TOTALS, and node, row or key, in the order of the calls.

    *nodes*, *recordings*, *once*: what is dirty now. What went meanwhile is left out. Rows are as they are now, so that
    rows and the counters that count them are in one entry, as they are in one batch.
    """
    changed: dict[int, Node] = {}
    totals: dict[int, DirNode] = {}
    latest: dict[tuple[str, Any], Any] = {}
    entry: Entry = {}
    for name, item in called:
        if name == "nodes":
            changed[item.ino] = item
        elif name == TOTALS:
            folder = item
            while folder.parent is not folder:
                totals[folder.ino] = folder
                folder = folder.parent
            totals[folder.ino] = folder
        elif name in _KEYS:
            latest[name, getattr(item, _KEYS[name])] = item
        else:
            entry.setdefault(name, []).append(item)
    if changed:
        entry["nodes"] = [node.row() for ino, node in changed.items() if ino in nodes]
    if totals:
        entry[TOTALS] = [
            (ino, min(folder.rbytes, MAX_INT), folder.rfiles)
            for ino, folder in totals.items()
            if ino not in changed and ino in nodes
        ]
    for (name, key), item in latest.items():
        if name == "accounts":
            entry.setdefault(name, []).append(item.row())
        elif name == "recordings":
            if key in recordings and item.life is not None:
                entry.setdefault(name, []).append(RecordingRow(key, item.life))
        elif key in once[name]:
            entry.setdefault(name, []).append(item.row() if name == "garbage" else item)
    return entry


__all__ = ["entry_of"]
