"""What is believed of the old catalogue: what can be read of it, and agrees with what is there.

It may be damaged anywhere, so each question is one by itself: what meets damage is answered as if nothing were known.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

from recfs.core.life import Life
from recfs.core.model import Kind
from recfs.errors import IoFailure
from recfs.ports.rows import AccountRow, NodeRow, ObjectRow

log = logging.getLogger("recfs.rebuild")

Answer = TypeVar("Answer")


class OldCatalogue(Protocol):
    """What is asked of it, as of the Catalogue port."""

    async def child(self, parent: int, name: bytes) -> NodeRow | None:
        """The row called *name* in *parent*."""

    async def children(self, parent: int, after_ino: int, limit: int, *, placed: bool = False) -> Sequence[NodeRow]:
        """A page of *parent*'s rows in inode order."""

    async def lying_at(self, home_ino: int) -> Sequence[NodeRow]:
        """What had this inode number on the disk."""

    async def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """The user's extended attributes of *ino*."""

    async def whiteouts(self, parent: int) -> set[bytes]:
        """Names hidden in *parent*."""

    async def recording(self, ino: int) -> Life | None:
        """What was kept of the recording whose directory was *ino*."""

    async def object(self, ino: int) -> ObjectRow | None:
        """What S3 held of *ino*."""

    async def views(self) -> Sequence[tuple[int, int]]:
        """All (view id, shared inode) pairs."""

    async def accounts(self) -> Sequence[AccountRow]:
        """All users' counters and limits."""


class OldRows:
    """The old catalogue; without one it knows nothing."""

    def __init__(self, catalogue: OldCatalogue | None = None) -> None:
        self._catalogue = catalogue
        self.unreadable = 0
        """Questions that met damage."""

    async def _ask(self, question: Awaitable[Answer], otherwise: Answer) -> Answer:
        try:
            return await question
        except (IoFailure, ValueError, TypeError, KeyError) as error:
            self.unreadable += 1
            log.debug("the old catalogue: %s", error)
            return otherwise

    async def child(self, folder: int | None, name: bytes) -> NodeRow | None:
        """The row called *name* in the directory that had the number *folder*."""
        if self._catalogue is None or folder is None:
            return None
        row = await self._ask(self._catalogue.child(folder, name), None)
        return row if row is not None and (row.parent, row.name) == (folder, name) else None

    async def children(self, row: NodeRow, after_ino: int, limit: int) -> Sequence[NodeRow]:
        """A page of what was in a directory, in inode order."""
        if self._catalogue is None or row.kind is not Kind.DIR:
            return []
        return await self._ask(self._catalogue.children(row.ino, after_ino, limit, placed=True), [])

    async def lying_at(self, home_ino: int) -> Sequence[NodeRow]:
        """What had this inode number on the disk."""
        if self._catalogue is None:
            return []
        return await self._ask(self._catalogue.lying_at(home_ino), [])

    async def xattrs(self, row: NodeRow) -> dict[bytes, bytes]:
        """The user's extended attributes of an inode."""
        if self._catalogue is None or not row.has_xattrs:
            return {}
        return await self._ask(self._catalogue.xattrs(row.ino), {})

    async def whiteouts(self, row: NodeRow) -> set[bytes]:
        """What is hidden in a directory."""
        if self._catalogue is None or row.kind is not Kind.DIR:
            return set()
        return await self._ask(self._catalogue.whiteouts(row.ino), set())

    async def life(self, row: NodeRow) -> Life | None:
        """What was kept of a recording: its dates, and that it is to be kept."""
        if self._catalogue is None or row.kind is not Kind.DIR:
            return None
        return await self._ask(self._catalogue.recording(row.ino), None)

    async def pinned(self, row: NodeRow | None) -> int:
        """1: the local copy of this file is to stay."""
        if self._catalogue is None or row is None or not row.has_object:
            return 0
        known = await self._ask(self._catalogue.object(row.ino), None)
        return known.copy.pinned if known is not None else 0

    async def accounts(self) -> list[AccountRow]:
        """Users' own limits, and how often they uploaded this month."""
        if self._catalogue is None:
            return []
        return list(await self._ask(self._catalogue.accounts(), []))

    async def views(self) -> list[tuple[int, int]]:
        """Numbers of shared files that were shown elsewhere."""
        if self._catalogue is None:
            return []
        return list(await self._ask(self._catalogue.views(), []))
