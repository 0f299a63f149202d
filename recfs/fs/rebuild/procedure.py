"""The order of a rebuild, and the facts that make its result a store's catalogue."""

from __future__ import annotations

import socket
import uuid
from typing import TYPE_CHECKING, NamedTuple

from recfs.core import generation
from recfs.core.access.owners import one_uid_each
from recfs.core.generation import Mark, count_of
from recfs.core.life import RECORDINGS_SINCE
from recfs.core.ownership import MARK_KEY, read_mark
from recfs.core.upkeep.rebuilding import Identity, identity_of
from recfs.fs.rebuild import leftovers
from recfs.fs.rebuild.bucket import BucketPass
from recfs.fs.rebuild.home import HomePass
from recfs.fs.rebuild.site import NEXT_INO, Options, Site
from recfs.ports.batch import Batch
from recfs.ports.rows import AccountRow
from recfs.state.tree import INO_RESERVE
from recfs.tier.ownership import STORE_FACT, TOKENS_FACT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recfs.fs.rebuild.findings import Findings

FIRST_INO = "rebuild_first_ino"
BEGUN = "rebuild"
"""Fact of a new catalogue that is being made: of what, and how. With another one, what was done does not count."""


class Known(NamedTuple):
    """What is known besides rows."""

    old_facts: Mapping[str, str]
    """Of the old catalogue, as far as they can be read. Believed: its id, and that numbers below its next are used."""
    mark: Mark | None
    """Beside the home tree."""
    boot: str
    url: str | None
    """Of the bucket."""


class Rebuild:
    """One run."""

    def __init__(self, site: Site, known: Known) -> None:
        self._site = site
        self._known = known

    async def run(self) -> Findings:
        """Make the catalogue. It is complete unless `unseen` has something that may not be left out.

        Raises StoreError, OutOfSpace, IoFailure, ObjectStoreError: run again, it goes on where it was.
        """
        site, mark, boot = self._site, self._known.mark, self._known.boot
        same_boot = mark is not None and mark.boot == boot
        highest = leftovers.put_by(site, same_boot=same_boot)
        await self._number(highest)
        identity = self._identity()
        if site.objects is not None:
            await BucketPass(site, site.objects).run()
        await HomePass(site).run()
        if site.findings.unseen.count and not site.options.leave_out:
            return site.findings
        site.tell("counters", 0, None)
        if site.findings.unsealed:
            site.store.sync_all()  # their rows promise that
        await self._end(identity, mark.boot if mark is not None else "")
        await site.catalogue.recount()
        await self._count()
        return site.findings

    async def _number(self, highest: int) -> None:
        """Find out from where on inode numbers were never used."""
        site, mark = self._site, self._known.mark
        facts = await site.catalogue.meta()
        used = max(count_of(self._known.old_facts, NEXT_INO), highest + 1, 2)
        if mark is not None:
            used = max(used, mark.next_ino + INO_RESERVE)
        site.first_ino = count_of(facts, FIRST_INO) or used
        site.next_ino = max(used, count_of(facts, NEXT_INO))
        site.batch.meta[FIRST_INO] = str(site.first_ino)
        await site.write()

    def _identity(self) -> Identity:
        site, old = self._site, self._known.old_facts
        found = site.objects.get_small(MARK_KEY) if site.objects is not None else None
        mark = read_mark(found) if found is not None else None
        identity = identity_of(
            old.get(STORE_FACT), old.get(TOKENS_FACT, ""), mark, str(site.store.root), socket.gethostname()
        )
        site.findings.claim_needed = identity.claim_needed
        return identity

    async def _end(self, identity: Identity, boot: str) -> None:
        """Write the facts of the store, what is known of users, and of shared files that were shown elsewhere."""
        site, mark = self._site, self._known.mark
        site.findings.store_id = identity.store or (await site.catalogue.meta()).get(STORE_FACT) or str(uuid.uuid4())
        facts = {
            STORE_FACT: site.findings.store_id, "boot_id": boot, "clean": "0", "identity": site.store.identity(),
        }  # fmt: skip
        if identity.tokens:
            facts[TOKENS_FACT] = identity.tokens
        if self._known.url is not None:
            facts["s3"] = self._known.url
        if mark is not None:
            count = str(mark.count)
            facts |= {generation.ID: mark.store, generation.COUNT: count, generation.MARKED: count}
        if site.options.salvage and RECORDINGS_SINCE in self._known.old_facts:
            facts[RECORDINGS_SINCE] = self._known.old_facts[RECORDINGS_SINCE]
        views = [(view, ino) for view, ino in await site.old.views() if await self._is_old(ino)]
        accounts = {row.user: row._replace(used_bytes=0, used_files=0) for row in await site.old.accounts()}
        # What the old catalogue knows of a user, it knows better than the directory: also that they have no uid.
        told = {user: owner for user, owner in one_uid_each(site.owners).items() if user not in accounts}
        taken = {row.owner_uid for row in accounts.values()}
        told = {user: owner for user, owner in told.items() if owner.uid not in taken}
        accounts |= {user: AccountRow(user, 0, 0, "", 0, None, None, None, None, *told[user]) for user in told}
        site.findings.owners = len(told)
        await site.catalogue.apply(Batch(meta=facts, views=views, accounts=list(accounts.values())))

    async def _is_old(self, ino: int) -> bool:
        return ino < self._site.first_ino and await self._site.catalogue.node(ino) is not None

    async def _count(self) -> None:
        """Tell how many files S3 alone has: the walk may have found some that the bucket's listing has, too."""
        counts = await self._site.catalogue.states()
        self._site.findings.evicted = counts.get("evicted", 0) + counts.get("archived", 0)
        self._site.findings.archived = counts.get("archived", 0)


__all__ = ["BEGUN", "Known", "Options", "Rebuild"]
