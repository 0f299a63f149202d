"""Routes of figures and limits: what is used, how it grows, who has how much."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from recfs.web.admin.asking import ASKS, Body, Who, act, ask, no_link, seen, whose
from recfs.web.answers import Json
from recfs.web.problems import Problem
from recfs.web.who.guarded import Guarded

router = APIRouter(tags=["figures"], route_class=Guarded, responses=ASKS)
User = Annotated[str | None, Query(max_length=40, description="only this user's; an admin may leave it out")]
Category = Annotated[str | None, Query(max_length=40, description="only files of this category")]
Store = Annotated[str | None, Query(pattern="^(local|s3)$", description="only files on the disk, or in S3")]
Limit = Annotated[int | str | None, Field(description="a number, `10GiB`, `unlimited`, or `default`")]


class Limits(Body):
    """Limits of a user; what is left out stays."""

    max_bytes: Limit = Field(None, examples=["500GiB"])
    max_files: Limit = Field(None, examples=[100000])
    max_file_size: Limit = Field(None, examples=["unlimited"])
    max_monthly_uploads: Limit = Field(None, examples=["default"])
    usage_warning: Limit = None


@router.get("/stats", summary="What is used", response_model=None)
async def stats(
    request: Request, who: Who, user: User = None, recording: Annotated[str | None, Query(max_length=40)] = None,
    category: Category = None, store: Store = None,
) -> Response:  # fmt: skip
    """Tell figures of the whole store (to an admin) or of a user, as `recfs stats` does."""
    only = _one(who, user)
    return Json(await ask(request, "stats", user=only, recording=recording, category=category, store=store))


@router.get("/stats/trend", summary="How it grows", response_model=None)
async def trend(
    request: Request, who: Who, user: User = None, category: Category = None,
    store: Store = None, days: Annotated[int, Query(ge=1, le=3660)] = 30,
) -> Response:  # fmt: skip
    """Tell how the store, or a user, grew from day to day, as `recfs stats --trend` does."""
    only = _one(who, user)
    return Json(await ask(request, "stats_trend", days=days, user=only, category=category, store=store))


@router.get("/status", summary="How the daemon is", response_model=None)
async def status(request: Request, who: Who) -> Response:
    """Tell what `recfs status` does: problems, disk, queue."""
    who.must_admin()
    return Json(await ask(request, "status"))


@router.get("/duplicates", summary="Files with the same bytes", response_model=None)
async def duplicates(
    request: Request, who: Who, user: User = None, after: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100, min_bytes: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
) -> Response:  # fmt: skip
    """List sets of files with the same bytes, the worst first, as `recfs duplicates` does."""
    who.must_admin()
    only = None if user is None else seen(who, user)
    return Json(await ask(request, "duplicates", user=only, limit=limit, min_bytes=min_bytes, after=after))


@router.get("/users", summary="Users, what they use and may use", response_model=None)
async def users(request: Request, who: Who) -> Response:
    """List users with usage and limits: all for an admin, else those whom the token is for."""
    no_link(who)
    found: list[dict[str, Any]] = await ask(request, "quota_show")
    told = [each for each in found if who.sees(each["user"])]
    known = {each["user"] for each in told}
    return Json(told + [{"user": user} for user in sorted(who.users - known)])


@router.get("/users/{user}/quota", summary="What a user uses and may use", response_model=None)
async def quota(request: Request, who: Who, user: str) -> Response:
    """Tell a user's usage and limits, as `recfs quota show` does."""
    only = seen(who, user)
    no_link(who)
    found: list[dict[str, Any]] = await ask(request, "quota_show", user=only)
    if not found:
        raise Problem("NotFound")
    return Json(found[0])


@router.put("/users/{user}/quota", summary="Set a user's limits", response_model=None)
async def set_quota(request: Request, who: Who, user: str, wanted: Limits) -> Response:
    """Set limits, as `recfs quota set` does. They hold for the next byte."""
    only = seen(who, user)
    who.must_admin()
    return Json(await act(request, "quota_set", user=only, **wanted.model_dump(exclude_none=True)))


def _one(who: Who, user: str | None) -> str | None:
    """Which user's figures are asked for; None: of all. Who has several users has to name one."""
    no_link(who)
    found = whose(who, user)
    if len(found) > 1:
        raise Problem("InvalidArgument", f"user: one of {', '.join(map(str, found[:20]))}")
    return found[0]


__all__ = ["router"]
