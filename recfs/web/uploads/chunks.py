"""Uploads in indexed chunks, in any order and several at once: for clients that do not speak tus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from recfs.web.answers import Json
from recfs.web.context import context_of
from recfs.web.limiters import in_thread
from recfs.web.problems import Problem
from recfs.web.uploads.admission import unfinished
from recfs.web.uploads.answers import committed_document, committed_fields, file_href, progress_document
from recfs.web.uploads.common import body_of, id_for, sending, tell, uploads_of
from recfs.web.uploads.errors import NoUpload, UploadGone
from recfs.web.uploads.fields import checksum_of
from recfs.web.uploads.making import user_for
from recfs.web.uploads.models import Done, Page, Progress, bytes_of
from recfs.web.who.principal import Principal, authenticate

router = APIRouter(tags=["uploads"])
Caller = Annotated[Principal, Depends(authenticate)]


@router.post("/uploads/{id}/chunks/{index}", summary="Send a chunk", response_model=Progress, openapi_extra=bytes_of())
async def chunk(request: Request, caller: Caller, id: str, index: Annotated[int, Path(ge=0)]) -> Response:
    """Chunk *index* begins at byte `index * chunk_bytes`. One that has come already is answered and not read again."""
    uploads = uploads_of(request)
    upload = id_for(id, caller)
    checksum = checksum_of(request.headers.get("Upload-Checksum"))
    try:
        with sending(request, upload.user):
            found = await uploads.chunk(upload, index, body_of(request), checksum)
    except ValueError as error:
        raise Problem("InvalidArgument", str(error)) from None
    return Json(progress_document(found, "", context_of(request).settings.temp_max_age_s))


@router.get("/uploads/{id}/progress", summary="How far an upload is", response_model=Progress)
async def progress(request: Request, caller: Caller, id: str) -> Response:
    """Nobody who sends is stopped by this."""
    uploads = uploads_of(request)
    upload = id_for(id, caller)
    found = await uploads.look(upload)
    return Json(progress_document(found, uploads.busy(upload), context_of(request).settings.temp_max_age_s))


@router.post("/uploads/{id}/complete", summary="Have an upload committed", status_code=201, response_model=Done)
async def complete(request: Request, caller: Caller, id: str) -> Response:
    """Answered when the file is there. Whoever asks again is answered the same."""
    done = await uploads_of(request).complete(id_for(id, caller))
    tell(request, done)
    headers = {"Location": file_href(done.plan), **committed_fields(done)}
    return Json(committed_document(done), 201, headers=headers)


@router.get("/uploads", summary="Uploads that are not done", response_model=Page)
async def pending(
    request: Request, caller: Caller, user: Annotated[str, Query(max_length=64)] = ""
) -> Response:  # fmt: skip
    """Those of a user; which one has to be said where the token is for several."""
    uploads, context = uploads_of(request), context_of(request)
    whose = user_for(user, caller)
    caller.must_write(whose)
    items = []
    for each in await in_thread(context.limiters.calls, lambda: unfinished(context.tree.folder, whose)):
        try:
            found = await uploads.look(each)
        except (NoUpload, UploadGone):
            continue
        if not found.plan.resumable:
            continue
        items.append(progress_document(found, uploads.busy(each), context.settings.temp_max_age_s))
    items.sort(key=lambda item: (str(item.get("created_at", "")), str(item["id"])))
    return Json({"items": items})


__all__ = ["router"]
