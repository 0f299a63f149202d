"""Objects of another place on the same server are copied to where files of this store have theirs, and become files.

The server copies; nothing is downloaded. While an object is copied nobody else puts, moves or deletes anything under
its new key. What lies there already stays: it is another's, or what an earlier attempt has copied, which its checksum
tells, so that an import that was broken off is run again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from recfs.core.migration.adopting import Digests
from recfs.core.upkeep.rebuilding import place_of
from recfs.errors import InvalidArgument
from recfs.fs.leftovers.imports import KNOWN, Wanted
from recfs.ports.object_errors import ObjectStoreError
from recfs.ports.objects import ObjectInfo, ObjectMeta
from recfs.services.importing.looking import Looked, hashed, look
from recfs.state.problems import reason_of
from recfs.state.work.outcome import Outcome, side_by_side
from recfs.stores.s3.meta import from_metadata
from recfs.tier.leftovers import next_page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.core.migration.places import Place
    from recfs.fs.leftovers.imports import Imports
    from recfs.ports.objects import ObjectStore
    from recfs.state.tree import Tree
    from recfs.tier.leftovers import BucketLeftovers
    from recfs.tier.tier import Tier

Result = TypeVar("Result")

MOST_PLACES = 8
"""Connections are kept to so many."""
MOST_AT_ONCE = 200
"""Objects of one request."""


class Copying:
    """Copies, and has files made of the copies."""

    def __init__(
        self, tier: Tier, tree: Tree, imports: Imports, far: BucketLeftovers, reach: Callable[[Place], ObjectStore],
        *, threads: int,
    ) -> None:  # fmt: skip
        """*reach* gives the objects of another place, with the store's own credentials."""
        self._tier = tier
        self._tree = tree
        self._imports = imports
        self._far = far
        self._reach = reach
        self._limiter = trio.CapacityLimiter(threads)
        self._places: dict[Place, ObjectStore] = {}

    def _at(self, place: Place) -> ObjectStore:
        if place not in self._places:
            self._places[place] = self._reach(place)
            if len(self._places) > MOST_PLACES:
                self._places.pop(next(iter(self._places))).close()  # what is under way there goes on
        return self._places[place]

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(call, limiter=self._limiter)

    async def listed(self, place: Place, after: str) -> dict[str, Any]:
        """A page of what lies there, with keys > *after*: key, size and time of the last change, each.

        Raises ObjectStoreError.
        """
        objects = self._at(place)
        page = await self._in_thread(lambda: next_page(iter(objects.list("", after))))
        return {"objects": [[each.key, each.size_bytes, each.last_modified_ns] for each in page]}

    async def copy(self, place: Place, pairs: Sequence[tuple[str, str]], *, download: bool) -> dict[str, Any]:
        """Make files of objects of *place*: of the first key of a pair under the second. Raises ObjectStoreError."""
        if len(pairs) > MOST_AT_ONCE:
            raise InvalidArgument(f"{len(pairs)} objects; at most {MOST_AT_ONCE} are copied for one request")
        await self._tier.ownership.ensure()
        outcome = Outcome()
        async with side_by_side() as nursery:
            for source, target in pairs:
                nursery.start_soon(partial(self._one, place, source, target, outcome, download=download))
        await self._tree.behind.durable()  # what was counted is there after a power cut
        return outcome.as_json()

    async def _one(self, place: Place, source: str, target: str, outcome: Outcome, *, download: bool) -> None:
        if place_of(target) is None:
            outcome.keep(source, f"{target}: the layout refuses it")
            return
        if not self._tier.holds.take(target):
            outcome.keep(source, f"{target}: the S3 queue is at work there; run the import again")
            return
        try:
            await self._held(place, source, target, outcome, download=download)
        except ObjectStoreError as error:
            if error.outage:
                raise
            outcome.keep(source, reason_of(error))
        finally:
            self._tier.holds.give_back(target)

    async def _held(self, place: Place, source: str, target: str, outcome: Outcome, *, download: bool) -> None:
        """Nobody else changes what lies under *target* meanwhile."""
        objects = self._at(place)
        looked = await self._in_thread(partial(look, objects, ObjectInfo(source, 0, "")))
        if isinstance(looked.found, str) and download:
            looked = await self._in_thread(partial(hashed, objects, looked.info, _unheard, self._is_stopping))
        if not isinstance(looked.found, Digests):
            outcome.keep(source, looked.found or "it is gone")
            return
        if not await self._far.is_nobodys(ObjectInfo(target, 0, "")):
            if await self._tree.catalogue.object_at(target, 0) is not None:
                outcome.already += 1
            else:
                outcome.keep(source, f"{target}: the S3 queue has work there; run the import again")
            return
        refusal = await self._imports.refusal(target, looked.info)
        if refusal is not None:
            outcome.keep(source, f"{target}: {refusal}")
            return
        made = await self._made(place, looked, target)
        if made is None:
            outcome.keep(source, f"{target}: another object lies there")
            return
        fate = (await self._imports.take([Wanted(made, looked.found)]))[0]
        if fate is None:
            outcome.did(made.size_bytes)
        else:
            outcome.keep(source, f"{target}: {'it became somebody else' if fate == KNOWN else fate}")

    async def _made(self, place: Place, looked: Looked, target: str) -> ObjectInfo | None:
        """The copy; None: something else lies there."""
        found, info = looked.found, looked.info
        assert isinstance(found, Digests)
        there = await self._in_thread(partial(self._tier.objects.head, target))
        if there is not None:
            return there if (there.sha256, there.size_bytes) == (found.sha256, info.size_bytes) else None
        known = from_metadata(info.metadata)
        meta = ObjectMeta(
            sha256=found.sha256, md5=found.md5, original_filename=place_name(target), mode=known.mode,
            owner=known.owner, mtime_ns=info.last_modified_ns if known.mtime_ns is None else known.mtime_ns,
            uploaded_ns=self._tree.clock.now_ns(),
        )  # fmt: skip
        copy = partial(
            self._tier.objects.copy, info.key, target, info.size_bytes,
            meta=meta, if_match=info.etag, fresh=True, origin=place, cancel=self._is_stopping,
        )  # fmt: skip
        await self._in_thread(copy)
        return await self._in_thread(partial(self._tier.objects.head, target))

    def _is_stopping(self) -> bool:
        return self._tier.journal.stopping


def place_name(key: str) -> bytes | None:
    """The name of the file whose object lies under *key*."""
    parts = place_of(key)
    return parts[-1] if parts is not None else None


def _unheard(_size_bytes: int) -> None:
    """Nobody wants to know."""


__all__ = ["MOST_AT_ONCE", "Copying"]
