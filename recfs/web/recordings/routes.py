"""Routes of recordings: who may, and what is done in which threads."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from recfs.web.answers import Json
from recfs.web.context import access_of, context_of
from recfs.web.files import names_of, recording_of, user_of
from recfs.web.limiters import in_thread
from recfs.web.problems import Problem
from recfs.web.recordings import removal
from recfs.web.recordings.body import FileBody
from recfs.web.recordings.conditions import FAILED, is_conditional, judged, must_hold_of_whole, range_holds
from recfs.web.recordings.headers import headers_of, validators_of
from recfs.web.recordings.listing import LIMIT, MOST, recording_page, recordings_page
from recfs.web.recordings.models import BYTES, BYTES_OR_PAGE, PROBLEMS, Page, Whole
from recfs.web.recordings.opening import Opened, open_recorded
from recfs.web.recordings.ranges import spans_of
from recfs.web.recordings.thumbnail import open_thumbnail
from recfs.web.who.principal import Principal, authenticate

router = APIRouter(tags=["recordings"])
Caller = Annotated[Principal, Depends(authenticate)]
Cursor = Annotated[str | None, Query(max_length=8192, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="entries of a page")]
_ONE: Final = "/users/{user}/recordings/{recording}"
_FILE: Final = _ONE + "/{path:inside}"


@router.get(
    "/users/{user}/recordings",
    summary="A user's recordings",
    response_model=None,
    responses={200: {"model": Page}, **PROBLEMS},
)
async def recordings(
    request: Request, caller: Caller, user: str, cursor: Cursor = None, limit: Limit = LIMIT,
    order: Annotated[str, Query(pattern="^(asc|desc)$", description="of their numbers")] = "asc",
    q: Annotated[str | None, Query(min_length=1, max_length=200, description="a part of number, name or title")] = None,
) -> Response:  # fmt: skip
    """List a user's recordings with what is known of their sources, by number."""
    who = may_read(caller, user)
    context = context_of(request)
    return Json(
        await context.limiters.of_whole(
            who, lambda: recordings_page(context, who, cursor, limit, descending=order == "desc", search=q)
        )
    )


@router.get(_ONE + "/", response_model=None, include_in_schema=False)  # as a link to all that is in it is given
@router.get(_ONE, summary="A recording", response_model=None, responses={200: {"model": Whole}, **PROBLEMS})
async def recording_(
    request: Request, caller: Caller, user: str, recording: str, cursor: Cursor = None, limit: Limit = LIMIT,
    deep: Annotated[bool, Query(description="all files at any depth, and no directories")] = False,
) -> Response:  # fmt: skip
    """Tell of a recording, and what is in it."""
    who, which = may_read(caller, user), recording_of(recording)
    return await _page(request, who, which, (), cursor, limit, deep)


async def _page(
    request: Request, user: str, recording: str, above: tuple[str, ...], cursor: str | None, limit: int, deep: bool
) -> Response:
    context = context_of(request)
    return Json(
        await context.limiters.of_whole(
            user, lambda: recording_page(context, user, recording, above, cursor, limit, deep=deep)
        )
    )


@router.delete(_ONE, summary="Remove a recording", status_code=204, response_model=None, responses=PROBLEMS)
async def remove_recording(request: Request, caller: Caller, user: str, recording: str) -> Response:
    """Remove a recording with all that is in it, to the trash where there is one."""
    who, which = may_write(caller, user), recording_of(recording)
    must_hold_of_whole(request.headers)
    context = context_of(request)
    count = await context.limiters.of_whole(who, lambda: removal.remove_recording(context, who, which))
    access_of(request).told["removed"] = count
    return Response(status_code=204)


@router.get(
    _ONE + "/thumbnail", summary="A recording's picture", response_model=None, response_class=Response,
    responses={**BYTES, **PROBLEMS},
)  # fmt: skip
@router.head(_ONE + "/thumbnail", response_model=None, include_in_schema=False)
async def thumbnail(request: Request, caller: Caller, user: str, recording: str) -> Response:
    """Give the picture of a recording: its own, the one derived from it, or the shared one."""
    who, which = may_read(caller, user), recording_of(recording)
    return answer(request, await open_thumbnail(context_of(request), who, which))


@router.get(
    _FILE, summary="A file's bytes", response_model=None, response_class=Response,
    responses={**BYTES_OR_PAGE, **PROBLEMS},
)  # fmt: skip
@router.head(_FILE, summary="What is known of a file's bytes", response_model=None, include_in_schema=False)
async def file(
    request: Request, caller: Caller, user: str, recording: str, path: str, cursor: Cursor = None, limit: Limit = LIMIT,
    download: Annotated[bool, Query(description="have browsers save it")] = False,
) -> Response:  # fmt: skip
    """Give the bytes of a file, in whole or in up to 8 ranges; of a directory, a page of what is in it."""
    who, which, names = may_read(caller, user), recording_of(recording), names_of(path.removesuffix("/"))
    try:
        if path.endswith("/"):
            return await _page(request, who, which, names, cursor, limit, deep=False)
        opened = await open_recorded(context_of(request), "users", who, "recordings", which, *names)
    except IsADirectoryError:
        return await _page(request, who, which, names, cursor, limit, deep=False)
    return answer(request, opened, attachment=download)


@router.delete(_FILE, summary="Remove a file", status_code=204, response_model=None, responses=PROBLEMS)
async def remove_file(request: Request, caller: Caller, user: str, recording: str, path: str) -> Response:
    """Remove a file, to the trash where there is one. If-Match has only those bytes removed that the client knows."""
    who, which, names = may_write(caller, user), recording_of(recording), names_of(path)
    context = context_of(request)
    while is_conditional(request.headers):
        opened = await open_recorded(context, "users", who, "recordings", which, *names)
        opened.close()
        if judged(request.headers, opened.etag, opened.changed, safe=False) is not None:
            raise Problem("PreconditionFailed", headers={"ETag": opened.etag})
        remove = partial(removal.remove_file, context, who, which, names, opened.identity)
        if await in_thread(context.limiters.writes, remove):
            return Response(status_code=204)
    await in_thread(context.limiters.writes, lambda: removal.remove_file(context, who, which, names))
    return Response(status_code=204)


def answer(request: Request, opened: Opened, *, attachment: bool = False) -> Response:
    """Answer GET or HEAD with an open file, by its conditions and ranges (RFC 9110, 13.2.2). Closes the file."""
    try:
        verdict = judged(request.headers, opened.etag, opened.changed, safe=True)
        if verdict == FAILED:
            raise Problem("PreconditionFailed", headers=validators_of(opened))
        if verdict is not None:
            opened.close()
            return Response(status_code=verdict, headers=validators_of(opened))
        spans = None
        asked = request.headers.get("range")
        if asked is not None and request.method == "GET" and range_holds(request.headers, opened.etag):
            access_of(request).range = asked[:200]
            spans = spans_of(asked, opened.size)
        context = context_of(request)
        still = partial(context.gate.still, request.state.principal)
        return FileBody(opened, context.limiters, headers_of(opened, attachment=attachment), spans, still)
    except BaseException:
        opened.close()
        raise


def may_read(caller: Principal, user: str) -> str:
    """Give a user's id if the caller may see that user. Raises Problem("NotFound"): a foreign id is none at all."""
    found = user_of(user)
    caller.must_see(found)
    return found


def may_write(caller: Principal, user: str) -> str:
    """Give a user's id if the caller may change what is that user's. Raises Problem."""
    found = user_of(user)
    caller.must_write(found)
    return found


__all__ = ["Caller", "answer", "may_read", "may_write", "router"]
