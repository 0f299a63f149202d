"""What an entry of the intent log holds: what was called of `Changes` between two answers, in the words of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from recfs.core.bounds import MAX_INT
from recfs.ports.intents import TOTALS
from recfs.ports.rows import RecordingRow

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from recfs.ports.intents import Entry
    from recfs.state.accounts import Account
    from recfs.state.nodes import DirNode, Node

_KEYS: Final = {"garbage": "gid", "objects": "ino", "journal": "id", "recordings": "ino"}
"""What tells one item from another, of fields in which a batch has an item once: the latest counts."""


class Unlogged:
    """What changed since the last entry."""

    __slots__ = ("accounts", "nodes", "rest", "totals")

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.totals: dict[int, DirNode] = {}
        """Where they changed; they did in everything above as well."""
        self.accounts: dict[str, Account] = {}
        self.rest: list[tuple[str, Any]] = []
        """(field of a batch, its item), in the order of the calls."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.rest or self.totals or self.accounts)

    def entry(self, dirty: Container[int], recordings: Container[int], once: Mapping[str, Container[Any]]) -> Entry:
        """The entry of it.

        *dirty*, *recordings*, *once*: what is to be written of nodes, recordings and by field; what went meanwhile is
        left out. Rows are as they are now, so that rows and the counters that count them are in one entry, as they are
        in one batch.
        """
        entry: Entry = {}
        nodes = self.nodes
        if nodes:
            entry["nodes"] = [node.row() for ino, node in nodes.items() if ino in dirty]
        if self.totals:
            totals: list[tuple[int, int, int]] = []
            seen: set[int] = set()
            for folder in self.totals.values():
                here = folder
                while here.ino not in seen:  # else all above it has been seen, too
                    seen.add(here.ino)
                    if here.ino not in nodes and here.ino in dirty:
                        totals.append((here.ino, min(here.rbytes, MAX_INT), here.rfiles))
                    here = here.parent
            entry[TOTALS] = totals
        if self.accounts:
            entry["accounts"] = [account.row() for account in self.accounts.values()]
        if self.rest:
            self._add_rest(entry, recordings, once)
        return entry

    def _add_rest(self, entry: Entry, recordings: Container[int], once: Mapping[str, Container[Any]]) -> None:
        latest: dict[tuple[str, Any], Any] = {}
        for name, item in self.rest:
            if name in _KEYS:
                latest[name, getattr(item, _KEYS[name])] = item
            elif name in entry:
                entry[name].append(item)
            else:
                entry[name] = [item]
        for (name, key), item in latest.items():
            if name == "recordings":
                if key in recordings and item.life is not None:
                    entry.setdefault(name, []).append(RecordingRow(key, item.life))
            elif key in once[name]:
                entry.setdefault(name, []).append(item.row() if name == "garbage" else item)


__all__ = ["Unlogged"]
