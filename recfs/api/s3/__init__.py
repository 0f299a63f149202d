"""What the daemon answers of the S3 tier: the control protocol's methods behind `recfs queue`, `recfs evict` and so on.

far       what they all need
queue     the journal: what is to be done, retry, drop
copies    local copies: evict, fetch, pin
tiering   bringing files to where the rules want them
bucket    restore, presigned URLs, lifecycle rules
claims    whose the prefix in the bucket is
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.api.s3.bucket import BucketAnswers
from recfs.api.s3.claims import ClaimAnswers
from recfs.api.s3.copies import CopyAnswers
from recfs.api.s3.far import Far
from recfs.api.s3.queue import QueueAnswers
from recfs.api.s3.tiering import TierAnswers

if TYPE_CHECKING:
    from recfs.api.control import Handler


class S3Answers:
    """All of them, over one `Far`. Without [s3] most answer NotSupported."""

    def __init__(self, far: Far) -> None:
        self.far = far
        self._queue = QueueAnswers(far)
        self._copies = CopyAnswers(far)
        self._tiering = TierAnswers(far)
        self._bucket = BucketAnswers(far)
        self._claims = ClaimAnswers(far)

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {
            "queue": self._queue.queue,
            "queue_retry": self._queue.retry,
            "queue_drop": self._queue.drop,
            "evict": self._copies.evict,
            "fetch": self._copies.fetch,
            "pin": self._copies.pin,
            "route_explain": self._tiering.explain,
            "tier_run": self._tiering.run,
            "bucket_owner": self._claims.owner,
            "bucket_claim": self._claims.claim,
            "restore": self._bucket.restore,
            "presign": self._bucket.presign,
            "lifecycle_show": self._bucket.lifecycle_show,
            "lifecycle_apply": self._bucket.lifecycle_apply,
        }

    async def status(self) -> dict[str, Any] | None:
        """The part of `status` about S3; None without [s3]."""
        answer = await self._queue.status()
        work = self.far.work
        return None if answer is None else answer | {"tier_run": work.tier_run.progress if work is not None else None}

    @property
    def is_there(self) -> bool:
        """Whether there is [s3]."""
        return self.far.found is not None

    @property
    def lost(self) -> str | None:
        """What is gone from the bucket, if that is known; None where nothing is."""
        tier = self.far.found
        return tier.ownership.lost if tier is not None else None

    async def refused(self) -> dict[str, Any] | None:
        """As `QueueAnswers.refused`."""
        return await self._queue.refused()

    async def stuck(self) -> list[dict[str, Any]]:
        """As `QueueAnswers.stuck`."""
        return await self._queue.stuck()

    async def watched(self) -> int:
        """As `QueueAnswers.watched`."""
        return await self._queue.watched()

    async def stays(self) -> dict[str, Any] | None:
        """What is not uploaded as long as its name looks temporary; None without [s3]."""
        return await self._queue.stays()

    async def left(self) -> dict[str, Any] | None:
        """What of the queue somebody who drains waits for; None without [s3]."""
        return await self._queue.left()


__all__ = ["Far", "S3Answers"]
