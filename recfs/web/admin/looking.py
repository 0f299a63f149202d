"""GET /audit: what the gateway was asked for, by whom, and what became of it."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from recfs.core.observing.cursors import parse_time
from recfs.web.admin.asking import REFUSALS, Who
from recfs.web.answers import Json
from recfs.web.context import context_of
from recfs.web.limiters import in_thread
from recfs.web.problems import Problem
from recfs.web.who.guarded import Guarded
from recfs.web.who.trail import read

router = APIRouter(tags=["audit"], route_class=Guarded, responses=REFUSALS)
Text = Annotated[str | None, Query(max_length=200)]


@router.get("/audit", summary="Who asked for what", response_model=None)
async def audit(
    request: Request, who: Who, token: Text = None, user: Text = None, outcome: Text = None, address: Text = None,
    since: Annotated[str | None, Query(max_length=64, description="a date, or how long ago: 2h, 7d")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100, cursor: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:  # fmt: skip
    """Tell the newest accesses first; `next`, where there is one, is the cursor of older ones."""
    who.must_admin()
    try:
        from_ns = 0 if since is None else parse_time(since, time.time_ns())
    except ValueError as error:
        raise Problem("InvalidArgument", f"since: {error}") from error
    exactly = {"token": token, "outcome": outcome, "address": address}
    below = None if user is None else f"/users/{user}/"

    def wanted(entry: dict[str, Any]) -> bool:
        if any(value is not None and entry.get(key) != value for key, value in exactly.items()):
            return False
        if below is not None and below not in f"{entry.get('path', '')}/":
            return False
        return int(entry.get("time_ns", from_ns)) >= from_ns

    context = context_of(request)
    page = await in_thread(context.limiters.calls, lambda: read(context.trail.files(), wanted, limit, cursor))
    told: dict[str, Any] = {"entries": page.entries, "dropped": context.trail.dropped}
    return Json(told if page.following is None else told | {"next": page.following})


__all__ = ["router"]
