"""Where things physically lie in the home tree while that differs from their logical place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.ports.rows import HOLDING_INO

if TYPE_CHECKING:
    from recfs.state.nodes import DirNode, Garbage, Node


class Locations:
    """Physical entries. Atomic. A place is a directory, None for the holding area, and a name."""

    def __init__(self) -> None:
        self.entries: dict[int, dict[bytes, Node | Garbage]] = {}
        """What physically lies in a directory (by inode number, then name) without logically being there."""
        self.earlier: dict[int, list[tuple[DirNode | None, bytes]]] = {}
        """Of what is being moved, by inode number: where it may still lie."""
        self.traces: dict[int, list[int]] = {}
        """… and the rows that tell of it (`Promise.TRACE`), by gid, of what lost its name meanwhile."""

    def leaves(self, ino: int, place: tuple[DirNode | None, bytes]) -> None:
        """The publisher is about to move it away from there."""
        self.earlier.setdefault(ino, []).append(place)

    def arrived(self, ino: int) -> list[int]:
        """Where it lies is known again, whether it was moved or not; the rows that go."""
        self.earlier.pop(ino, None)
        return self.traces.pop(ino, [])

    def record(self, item: Node | Garbage, place: tuple[DirNode | None, bytes]) -> None:
        """*item* physically lies at *place*, which is not (or no longer) its logical one."""
        folder, name = place
        self.entries.setdefault(folder.ino if folder else HOLDING_INO, {})[name] = item

    def occupant(self, place: tuple[DirNode | None, bytes]) -> Node | Garbage | None:
        """What physically lies at *place* without logically being there."""
        folder, name = place
        return self.entries.get(folder.ino if folder else HOLDING_INO, {}).get(name)

    def forget(self, item: Node | Garbage, place: tuple[DirNode | None, bytes] | None) -> None:
        """*item* no longer lies at *place*."""
        if place is not None:
            folder, name = place
            ino = folder.ino if folder else HOLDING_INO
            inside = self.entries.get(ino, {})
            if inside.get(name) is item:
                del inside[name]
                if not inside:
                    del self.entries[ino]
