"""What the rules want of a path, and bringing files to where they want them (`services/far/tier_run.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.api.summaries_s3 import route_explain
from recfs.errors import InvalidArgument

if TYPE_CHECKING:
    from recfs.api.s3.far import Far


class TierAnswers:
    """route_explain, tier_run."""

    def __init__(self, far: Far) -> None:
        self._far = far

    async def explain(self, params: dict[str, Any]) -> dict[str, Any]:
        """What each rule says of a path, which need not exist, and which one decides. Also without [s3]."""
        size_bytes, age_s = params.get("size_bytes"), params.get("age_s")
        if not all(each is None or (isinstance(each, (int, float)) and each >= 0) for each in (size_bytes, age_s)):
            raise InvalidArgument("size and age are numbers of at least 0")
        far, path = self._far, str(params.get("path") or "")
        clock = far.vfs.tree.clock
        return await far.read(
            route_explain,
            far.config,
            clock.now_ns(),
            path,
            None if size_bytes is None else int(size_bytes),
            age_s,
            clock.steady_ns(),
        )

    async def run(self, params: dict[str, Any]) -> dict[str, Any]:
        """As `TierRun.run`; `dry_run`: only tell."""
        return await self._far.services.tier_run.run(dry_run=bool(params.get("dry_run")))
