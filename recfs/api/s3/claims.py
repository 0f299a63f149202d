"""Whose the bucket's prefix is, and taking it over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.core.ownership import Verdict

if TYPE_CHECKING:
    from recfs.api.s3.far import Far
    from recfs.core.ownership import Mark

_MAY_USE = (Verdict.OURS, Verdict.FREE, Verdict.RETURNED)


class ClaimAnswers:
    """bucket_owner, bucket_claim. Both also without a daemon."""

    def __init__(self, far: Far) -> None:
        self._far = far

    async def owner(self, params: dict[str, Any]) -> dict[str, Any]:
        """Whose the prefix is. Changes nothing."""
        async with self._far.answered():
            verdict, mark = await self._far.tier.ownership.verdict()
            if verdict is Verdict.LOST and self._far.tier.partials.serving.is_set():
                await self._far.tier.ownership.doubt()  # what somebody was told, `status` tells as well
        return self._as_json(verdict, mark) | {"claimed": False}

    async def claim(self, params: dict[str, Any]) -> dict[str, Any]:
        """Take the prefix into use; another's only with `force`. Tells whose it was."""
        tier = self._far.tier
        async with self._far.answered():
            verdict, mark = await tier.ownership.verdict()
        claimed = verdict in _MAY_USE or verdict is Verdict.LOST or bool(params.get("force"))
        if claimed:
            await self._far.services.claiming.claim(verdict)
        return self._as_json(verdict, mark) | {"claimed": claimed}

    def _as_json(self, verdict: Verdict, mark: Mark | None) -> dict[str, Any]:
        config = self._far.config
        return {
            "url": config.s3.url if config.s3 is not None else "",
            "verdict": verdict.value,
            "usable": verdict in _MAY_USE,
            "owner": None if mark is None else {
                "store": mark.store, "host": mark.host, "root": mark.root, "since": mark.since,
            },
        }  # fmt: skip
