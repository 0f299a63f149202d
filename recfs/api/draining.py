"""What is waited for by somebody who drains (`services/draining.py`), and what stays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.ownership import LOST_REMEDY

if TYPE_CHECKING:
    from recfs.api.s3 import S3Answers
    from recfs.disk.commit.committer import Committer
    from recfs.disk.home.publisher import HomePublisher
    from recfs.services.draining import Draining
    from recfs.state.writebehind import WriteBehind

STUCK_NAMED = 10
"""So many that will not get done by waiting are named one by one."""
_REMEDIES = {
    "catalogue": "unmount and mount again: the start takes it up from what is on the disk",
    "commit": "put that right on the disk of the store: it is tried again every minute at least",
    "home tree": "put that right on the disk of the store: it is tried again every minute at least",
}


class DrainAnswers:
    """drain."""

    def __init__(
        self, draining: Draining, committer: Committer, publisher: HomePublisher, behind: WriteBehind, s3: S3Answers
    ) -> None:
        self._draining = draining
        self._committer = committer
        self._publisher = publisher
        self._behind = behind
        self._s3 = s3

    async def _stuck(self) -> dict[str, Any]:
        """What somebody has to do something about: how much, and the first few, each with its remedy."""
        told = [
            problem.as_json() | {"remedy": _REMEDIES[problem.part]} for problem in self._behind.problems.waited_for()
        ]
        if (lost := self._s3.lost) is not None:
            told.append(
                {"part": "s3", "path": "", "reason": lost, "tries": 0, "next_try_s": None, "remedy": LOST_REMEDY}
            )
        for row in await self._s3.stuck():
            drop = "" if row["kind"] == "move" else f", or `recfs queue drop {row['id']}`"
            told.append(
                {
                    "part": row["kind"], "path": row["path"] or row["key"], "reason": row["why"],
                    "tries": row["attempts"], "next_try_s": row["next_try_s"],
                    "remedy": f"put that right, then `recfs queue retry {row['id']}`{drop}",
                }
            )  # fmt: skip
        return {"items": len(told), "first": told[:STUCK_NAMED]}

    async def drain(self, params: dict[str, Any]) -> dict[str, Any]:
        """Wait until everything closed is committed, at home and in S3, or the time is up: tells what is left.

        It ends, too, when nothing moves any more and what is left will not get done by waiting: `stuck` names that.

        `retries` False: what S3 refused, and anything while it is down, is not waited for, nor is hashing that a stop
        would not wait for. `s3`: whether there is one; `stays` and `refused`: what it does not get, whoever waits.

        What was refused is tried once more at the beginning, for it may have been put right. Who drains piece by piece
        gives `since_s`, of the answer to the first call, with the next ones: these only wait.
        """
        timeout_s, retries = float(params.get("timeout_s", 60.0)), bool(params.get("retries", True))
        since_s = float(params["since_s"]) if params.get("since_s") is not None else None
        began_s = time.monotonic() if since_s is None else since_s
        with trio.move_on_after(timeout_s):
            await self._draining.drain(retries=retries, long=retries, mapped=retries, stuck=False, since_s=since_s)
            stuck = await self._stuck() if retries else {"items": 0, "first": []}
            far: dict[str, Any] = {"stays": await self._s3.stays(), "refused": await self._s3.refused(), "stuck": stuck}
            far |= {"watched": await self._s3.watched(), "lost": self._s3.lost}
            return {"pending": stuck["items"], "s3": self._s3.is_there} | far
        uploads = await self._draining.uploads(retries=retries)
        return {
            "pending": self._draining.pending + uploads + self._draining.unhashed.files,
            "since_s": began_s,
            "left": {
                "sealing": self._committer.depth,
                "unhashed": self._draining.unhashed.as_json(),
                "settling": self._publisher.depth,
                "dirty": self._behind.depth,
                "hashing": self._committer.outlook.as_json()["files"],
                "s3": await self._s3.left(),
                "problem": self._behind.problem,
                "set_aside": [each.as_json() for each in self._behind.problems.waited_for()[:STUCK_NAMED]],
            },
        }
