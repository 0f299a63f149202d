"""Builds the S3 side from the configuration: the object store with its retries, and what serves it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from recfs.errors import NO_S3, NotSupported, StoreError
from recfs.state.problems import reason_of
from recfs.stores.breaker import CircuitBreaker
from recfs.stores.wrap import RetryingObjectStore, RetryPolicy
from recfs.tier.budget import UploadBudget
from recfs.tier.copies import Copies, TierSettings
from recfs.tier.downloads.fetchslots import FetchSlots
from recfs.tier.evictor import CacheEvictor
from recfs.tier.link import Link
from recfs.tier.ownership import STORE_FACT, Ownership
from recfs.tier.partials import Partials
from recfs.tier.queue.journal import Journal
from recfs.tier.reading import BytesInS3
from recfs.tier.tier import Tier
from recfs.tier.trashed import TrashedObjects
from recfs.tier.uploads.broken import BrokenFiles
from recfs.tier.uploads.uploader import Uploader

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.core.migration.places import Place
    from recfs.disk.commit.hashing import Hashing
    from recfs.disk.commit.md5s import Md5s
    from recfs.disk.committed import CommittedFiles
    from recfs.disk.staging import DiskReserve, StagingPool
    from recfs.disk.trash_index import TrashIndex
    from recfs.ports.catalogue import Catalogue
    from recfs.ports.objects import ObjectStore
    from recfs.state.media import MediaRows
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.stores.local import LocalStore
    from recfs.tier.queue.unanswered import Unanswered

log = logging.getLogger("recfs.s3")


@dataclass(frozen=True, slots=True)
class S3Services:
    """The parts that stand between the file system and S3."""

    tier: Tier
    uploader: Uploader
    broken: BrokenFiles

    def services(self) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What has to run, by the name of its part, besides the `downloads`. Its calls cannot be interrupted."""
        return [("local copies", self.tier.run), ("uploads", self.uploader.run)]

    def downloads(self) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What brings the bytes that somebody reads, which ends at once."""
        return [("downloads", self.tier.partials.run)]

    def close(self) -> None:
        """Let calls under way end soon, what they were to do stays in the journal. The services are cancelled next.

        Raises nothing: whatever the connections meet, the daemon stops.
        """
        self.tier.journal.stopping = True
        try:
            self.tier.objects.close()
        except Exception as error:
            log.error("while closing the connections to S3: %s", reason_of(error))


def connect(config: Config, unanswered: Unanswered) -> ObjectStore | None:
    """The configured object store, with its retries; None without [s3]. Asks nothing of the server.

    *unanswered* is told of what it may carry out twice.
    """
    if config.s3 is None:
        return None
    from recfs.stores.s3 import store as s3  # boto3 costs a third of the start, and nobody else needs it

    policy = RetryPolicy(max_attempts=config.s3.max_attempts, deadline_s=config.s3.deadline)
    breaker = CircuitBreaker(on_change=_changed)
    return RetryingObjectStore(
        s3.connect(config.s3), policy, breaker,
        on_retry=_tried_again, on_lost=unanswered.note, on_begun=unanswered.note_begun,
    )  # fmt: skip


def elsewhere(config: Config, place: Place) -> ObjectStore:
    """The objects of another place on the server of [s3], with the same credentials. Raises NotSupported without [s3].

    What of it is asked for has a circuit breaker of its own: it says nothing of the store's own bucket.
    """
    if config.s3 is None:
        raise NotSupported(NO_S3)
    from recfs.stores.s3 import store as s3

    section = config.s3.model_copy(update={"bucket": place.bucket, "prefix": place.prefix})
    policy = RetryPolicy(max_attempts=config.s3.max_attempts, deadline_s=config.s3.deadline)
    return RetryingObjectStore(s3.connect(section), policy, CircuitBreaker(), on_retry=_tried_again)


def _changed(error: Exception | None) -> None:
    if error is None:
        log.info("S3 answers again")
    else:
        log.warning("S3 is down: %s", error)


def _tried_again(operation: str, attempt: int, error: Exception) -> None:
    log.debug("%s, attempt %d: %s", operation, attempt, error)


def tier_settings(config: Config) -> TierSettings:
    """What the tier goes by."""
    return TierSettings(
        rules=config.route,
        max_bytes=config.cache.max_size,
        read_ahead_max=config.cache.read_ahead_max,
        settle_s=config.upload.settle,
        retention_s=config.trash.retention,
        copy_from_bytes=config.upload.copy_min_size if config.upload.copy_identical else None,
        policy=config.policy(),
    )


def reach(
    config: Config, objects: ObjectStore, tree: Tree, pool: StagingPool, space: DiskReserve, store: LocalStore,
    hashing: Hashing, unanswered: Unanswered, trash_index: TrashIndex,
) -> tuple[Tier, BytesInS3]:  # fmt: skip
    """What knows of bytes in S3, and what brings them. The tier's journal has yet to be loaded."""
    threads = _threads(config)
    settings = tier_settings(config)
    journal = Journal(tree.behind, tree.clock, unanswered)
    url = config.s3.url if config.s3 is not None else "the bucket"
    ownership = Ownership(objects, tree.catalogue, tree.behind, tree.clock, str(store.root), url)
    link = Link(objects, ownership, trio.CapacityLimiter(threads), FetchSlots(threads))
    copies = Copies(settings, journal, tree.behind)
    partials = Partials(copies, link, tree, pool, space, store, hashing)
    evictor = CacheEvictor(copies, link, partials, tree, space)
    tier = Tier(copies, partials, evictor, link, tree, TrashedObjects(tree, copies, link, trash_index))
    budget = UploadBudget(copies, tier.decide)
    return tier, BytesInS3(partials, evictor, link, budget, fetch_whole_below=config.cache.fetch_whole_below)


def build(
    config: Config, tier: Tier, tree: Tree, committed: CommittedFiles, md5s: Md5s, media: MediaRows
) -> S3Services:
    """The tier with who works for it."""
    broken = BrokenFiles(tier, tree, media)
    uploader = Uploader(
        tier, tree, tree.behind, committed, md5s, broken,
        threads=_threads(config), concurrency=config.upload.concurrency, part_threads=config.upload.part_threads,
        retry_max_s=config.upload.retry_max,
    )  # fmt: skip
    return S3Services(tier, uploader, broken)


def _threads(config: Config) -> int:
    return config.s3.threads if config.s3 is not None else 16


async def agree(config: Config, catalogue: Catalogue, behind: WriteBehind) -> None:
    """Give the store an id, and see that its objects are where the configuration says. Raises StoreError."""
    facts = await catalogue.meta()
    if STORE_FACT not in facts:
        behind.meta(STORE_FACT, str(uuid.uuid4()))
    before = facts.get("s3")
    now = config.s3.url if config.s3 is not None else None
    if before is not None and before != now and await catalogue.any_object():
        if now is not None:
            raise StoreError(
                f"the objects of {config.root} are in {before}, and the configuration says {now}; set [s3] bucket and"
                f" prefix back (endpoint and credentials may change)"
            )
        log.warning("files of %s are in %s; without [s3] in the configuration they cannot be read", config.root, before)
    elif now is not None and now != before:
        behind.meta("s3", now)
