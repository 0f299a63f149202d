"""Which files in S3 have a copy here (`services/far/local_copies.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recfs.api.s3.far import Far


class CopyAnswers:
    """evict, fetch, pin: of the file `path`, or with `recursive` of all files below it."""

    def __init__(self, far: Far) -> None:
        self._far = far

    async def evict(self, params: dict[str, Any]) -> dict[str, Any]:
        """As `LocalCopies.evict`."""
        return await self._far.services.copies.evict(await self._far.at(params))

    async def fetch(self, params: dict[str, Any]) -> dict[str, Any]:
        """As `LocalCopies.fetch`."""
        return await self._far.services.copies.fetch(await self._far.at(params))

    async def pin(self, params: dict[str, Any]) -> dict[str, Any]:
        """As `LocalCopies.pin`; `pinned` false: no longer."""
        copies = self._far.services.copies
        return await copies.pin(await self._far.at(params), pinned=bool(params.get("pinned", True)))
