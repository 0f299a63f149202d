"""Routes of what is to be done with files: the S3 queue, archives, expiry, the trash."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from recfs.web.admin.asking import ASKS, Body, Who, act, ask, id_of, no_link, note_act, path_of, seen, whose
from recfs.web.answers import Json
from recfs.web.context import context_of
from recfs.web.problems import Problem
from recfs.web.who.guarded import Guarded
from recfs.web.who.texts import TreePath

router = APIRouter(tags=["work"], route_class=Guarded, responses=ASKS)
User = Annotated[str | None, Query(max_length=40, description="only this user's; left out: of all that may be seen")]
Ids = Annotated[list[Annotated[int, Field(ge=0, le=2**63 - 1)]], Field(max_length=1000)]
_PAGES: Final = 10_000


class Rows(Body):
    """Rows of the queue."""

    ids: Ids = Field(default_factory=list, examples=[[17, 18]])
    all: bool = Field(False, description="instead of ids: every row")


class Below(Body):
    """A file, or all below a directory."""

    path: TreePath = Field(examples=["users/5/recordings/142/video.mp4"])
    recursive: bool = False


class Archived(Body):
    """A file in an archive class."""

    path: TreePath = Field(examples=["users/5/recordings/142/source.mov"])
    days: int = Field(7, ge=1, le=36_500, description="so long the copy stays")
    tier: str = Field("Standard", pattern="^(Standard|Bulk|Expedited)$")


class Recording(Body):
    """A recording, and why."""

    user: str = Field(max_length=40, examples=["5"])
    recording: str = Field(max_length=40, examples=["142"])
    note: str | None = Field(None, max_length=1000)


class Kept(Recording):
    """A recording that is to be kept, or not any more."""

    on: bool = True


class Trashed(Body):
    """What is to come back out of the trash."""

    user: str = Field(max_length=40, examples=["5"])
    ids: Ids = Field(min_length=1, examples=[[211]])
    force: bool = Field(False, description="also where there is a file of that name again, which goes to the trash")


@router.get("/queue", summary="What waits for S3", response_model=None)
async def queue(request: Request, who: Who, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """List the S3 queue, work under way first, as `recfs queue` does."""
    who.must_admin()
    return Json(await ask(request, "queue", limit=limit))


@router.post("/queue/retry", summary="Try rows of the queue again", response_model=None)
async def retry(request: Request, who: Who, wanted: Rows) -> Response:
    """Have rows tried again at once."""
    who.must_admin()
    return Json(await act(request, "queue_retry", **_rows(wanted)))


@router.post("/queue/drop", summary="Give rows of the queue up", response_model=None)
async def drop(request: Request, who: Who, wanted: Rows) -> Response:
    """Have rows given up: what they were for is not done."""
    who.must_admin()
    return Json(await act(request, "queue_drop", **_rows(wanted)))


@router.post("/restore", status_code=202, summary="Ask a file back from an archive", response_model=None)
async def restore(request: Request, who: Who, wanted: Archived) -> Response:
    """Ask S3 for a readable copy of an archived file: that takes minutes to days, and is told as event `restored`."""
    who.must_admin()
    path = path_of(wanted.path)
    return _errand(request, "restore", path=path, days=wanted.days, tier=wanted.tier)


@router.post("/fetch", status_code=202, summary="Bring files back from S3", response_model=None)
async def fetch(request: Request, who: Who, wanted: Below) -> Response:
    """Bring local copies back; each is told as event `fetched`."""
    who.must_admin()
    return _errand(request, "fetch", path=path_of(wanted.path), recursive=wanted.recursive)


@router.get("/expirations", summary="What expires, and when", response_model=None)
async def expirations(
    request: Request, who: Who, user: User = None, due_s: Annotated[float | None, Query(ge=0, le=1e9)] = None
) -> Response:
    """List recordings with what becomes of them by which rule, as `recfs recording list` does."""
    no_link(who)
    found: list[dict[str, Any]] = []
    for each in whose(who, user):
        found += await ask(request, "recording_list", user=each, due_s=due_s)
    return Json(found)


@router.post("/keep", summary="Keep a recording", response_model=None)
async def keep(request: Request, who: Who, wanted: Kept) -> Response:
    """Have a recording kept whatever its rules say, or not any more."""
    return Json(await act(request, "recording_keep", path=_own(who, wanted), on=wanted.on, note=wanted.note))


@router.post("/expire", summary="Have a recording expire", response_model=None)
async def expire(request: Request, who: Who, wanted: Recording) -> Response:
    """Have a recording be expired from now on: it takes nothing new, and goes when its grace is over."""
    path = _own(who, wanted)
    who.must_admin()
    return Json(await act(request, "recording_expire", path=path, note=wanted.note))


@router.get("/trash", summary="What was removed and can come back", response_model=None)
async def trash(
    request: Request, who: Who, user: User = None, after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0
) -> Response:
    """List a page of the trash, the oldest first; `next` is the `after` of the page that follows."""
    no_link(who)
    only = whose(who, user)
    if len(only) > 1:
        raise Problem("InvalidArgument", f"user: one of {', '.join(map(str, only[:20]))}")
    return Json(await ask(request, "trash_list", user=only[0], after=after))


@router.post("/trash/restore", summary="Bring removed files back", response_model=None)
async def untrash(request: Request, who: Who, wanted: Trashed) -> Response:
    """Bring versions back out of the trash by their numbers, to where they were. All have to be the user's."""
    no_link(who)
    user = seen(who, wanted.user)
    who.must_write(user)
    missing, after = set(wanted.ids), max(0, min(wanted.ids) - 1)
    for _ in range(_PAGES):
        page = await ask(request, "trash_list", user=user, after=after)
        missing -= {each["number"] for each in page["entries"] if each["user"] == user}
        if not missing or page.get("next") is None:
            break
        after = page["next"]
    if missing:
        raise Problem("NotFound", f"the trash has no {', '.join(map(str, sorted(missing)[:10]))} of user {user}")
    return Json(await act(request, "trash_restore", ids=wanted.ids, force=wanted.force))


def _rows(wanted: Rows) -> dict[str, Any]:
    if wanted.all == bool(wanted.ids):
        raise Problem("InvalidArgument", "ids: name some rows, or say all")
    return {"all": True} if wanted.all else {"ids": wanted.ids}


def _own(who: Who, wanted: Recording) -> str:
    """The path of a recording that *who* may change."""
    no_link(who)
    user = seen(who, wanted.user)
    who.must_write(user)
    return f"users/{user}/recordings/{id_of(wanted.recording)}"


def _errand(request: Request, method: str, **params: Any) -> Response:
    """Have the daemon do something that takes long; how it ends is told to admins as event `done` or `failed`."""
    context_of(request).errands.begin(method, params)
    note_act(request, method, params)
    return Json({"asked": method, "params": params}, 202)


__all__ = ["router"]
