"""A plain tree with the structure of a store, as it comes in: checked entry by entry."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from recfs.core.migration.arrivals import arrival, check_link, is_part
from recfs.errors import FsError
from recfs.migration.transfer.beside import NAMES, read_manifest, read_sums
from recfs.migration.transfer.items import Item, Kind, Problem, Why
from recfs.migration.transfer.walking import Walk, own_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recfs.core.migration.manifest import Manifest

_UNSUMMED = "SHA256SUMS does not have it"
_MISSING = "SHA256SUMS has it, and it is not there"


class TreeSource:
    """A directory, such as `recfs export` makes."""

    def __init__(self, top: int, user_map: Mapping[str, str]) -> None:
        """*top*: a descriptor of it. Raises InvalidArgument for a SHA256SUMS or manifest that is none, OSError."""
        self._top = top
        self._user_map = user_map
        self.manifest: Manifest | None = read_manifest(top)
        told = read_sums(top)
        self.has_sums = told is not None
        self._sums = told or {}
        self._missing = set(self._sums)
        self._placed: dict[bytes, str] = {}

    def items(self) -> Iterator[Item | Problem]:
        """All of it; what may not come in, and what should be there and is not, is told."""
        yield from Walk(self._top, self._judged).below(())
        for path in sorted(self._missing):
            yield Problem(path, Why.UNREADABLE, _MISSING)

    def sum_of(self, path: bytes) -> str | None:
        """By the path in the store."""
        return self._placed.get(path)

    def _judged(self, item: Item, descriptor: int) -> Item | Problem | None:
        path = item.path
        if path in NAMES or is_part(item.parts[-1]):
            return None
        self._missing.discard(path)
        try:
            parts = arrival(path, is_dir=item.kind is Kind.DIRECTORY, user_map=self._user_map)
            if item.kind is Kind.LINK:
                check_link(parts, item.target)
        except FsError as error:
            return Problem(path, Why.REFUSED, str(error))
        if item.kind is Kind.FILE and self.has_sums:
            item.sha256 = self._sums.get(path)
            if item.sha256 is None:
                return Problem(path, Why.REFUSED, _UNSUMMED)
        item.attributes = self._attributes(item, descriptor)
        item.parts = parts
        if item.sha256 is not None:
            self._placed[item.path] = item.sha256
        return item

    def _attributes(self, item: Item, descriptor: int) -> Mapping[bytes, bytes]:
        if self.manifest is not None:
            return self.manifest.attributes.get(item.path, {})
        try:
            return own_attributes(item, descriptor)
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.EACCES, errno.ENODATA):
                return {}
            raise


def open_tree(path: str | os.PathLike[str]) -> int:
    """Open a directory that was named by a person: links on the way to it are followed. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


__all__ = ["TreeSource", "open_tree"]
