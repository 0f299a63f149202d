"""Routes of the platform: the same work as elsewhere, by its paths and in its JSON."""

from __future__ import annotations

import os
import time
import uuid
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from recfs.web.answers import Json, href
from recfs.web.context import context_of
from recfs.web.files import recording_of, user_of
from recfs.web.limiters import in_thread
from recfs.web.platform.forms import MOST_FIELD_BYTES, Form, boundary_of
from recfs.web.platform.models import Removed, Stats, Video
from recfs.web.platform.videos import METADATA, checked_metadata, recordings_of, video
from recfs.web.recordings import removal
from recfs.web.recordings.conditions import must_hold_of_whole
from recfs.web.uploads.common import received, sending, tell, uploads_of
from recfs.web.uploads.fields import hex_of, number
from recfs.web.uploads.making import Wanted, plan_of
from recfs.web.uploads.plan import Plan, UploadId
from recfs.web.who.principal import Principal, authenticate

router = APIRouter(tags=["platform"])
Caller = Annotated[Principal, Depends(authenticate)]
_MEGABYTE: Final = 1 << 20
_FORM: Final = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "metadata": {"type": "string", "description": "a JSON object"},
        "sha256": {"type": "string", "description": "of the file, in hex; before the file"},
        "recording": {"type": "string", "description": "none: a new one; before the file"},
    },
}


@router.post(
    "/projects/{project}/videos", summary="Upload a video", status_code=201, response_model=Video,
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)  # fmt: skip
async def upload(request: Request, caller: Caller, project: str) -> Response:
    """One file of a form, and fields. It goes to the disk as it comes, and is there whole when this is answered."""
    user = user_of(project)
    caller.must_write(user)
    form = Form(received(request), boundary_of(request.headers.get("Content-Type", "")))
    uploads, context = uploads_of(request), context_of(request)
    size = number(request.headers, "Content-Length")
    if size is not None:
        # What is no field is the file: whatever its name turns out to be, so much has no room, or has.
        least = max(1, size - 2 * MOST_FIELD_BYTES)
        await uploads.admit(
            Plan(UploadId.new(user), str(uuid.uuid4()), ("source.mp4",), least, created_ns=time.time_ns())
        )
    await form.file()
    fields = form.fields
    plan = plan_of(
        Wanted(
            None, user, fields.get("recording", ""), "", form.filename, form.mime_type, hex_of(fields.get("sha256"))
        ),
        caller,
    )  # fmt: skip

    def keep(data: int) -> None:
        raw = checked_metadata(form.fields.get("metadata", ""))
        if raw:
            os.setxattr(data, METADATA, raw)

    with sending(request, user):
        done = await uploads.put(plan, form, keep)
    tell(request, done)
    told = await in_thread(context.limiters.calls, lambda: video(context, user, plan.recording))
    return Json(told, 201, headers={"Location": href("projects", user, "videos", plan.recording)})


@router.get("/projects/{project}/videos/{asset}", summary="A video", response_model=Video)
async def show(request: Request, caller: Caller, project: str, asset: str) -> Response:
    """What is known of it."""
    user, recording = user_of(project), recording_of(asset)
    caller.must_see(user)
    context = context_of(request)
    return Json(await in_thread(context.limiters.waits, lambda: video(context, user, recording)))


@router.delete("/projects/{project}/videos/{asset}", summary="Remove a video", status_code=204, response_model=None)
async def remove(request: Request, caller: Caller, project: str, asset: str) -> Response:
    """The recording with all that is in it, to the trash where there is one."""
    user, recording = user_of(project), recording_of(asset)
    caller.must_write(user)
    must_hold_of_whole(request.headers)
    context = context_of(request)
    await context.limiters.of_whole(user, lambda: removal.remove_recording(context, user, recording))
    return Response(status_code=204)


@router.delete("/projects/{project}/storage", summary="Remove all recordings of a project", response_model=Removed)
async def clear(request: Request, caller: Caller, project: str) -> Response:
    """Recording by recording, to the trash where there is one. Asked for again it goes on where it ended."""
    user = user_of(project)
    caller.must_write(user)
    context = context_of(request)
    recordings = files = 0
    for each in await context.limiters.of_whole(user, lambda: recordings_of(context, user)):
        try:
            files += await context.limiters.of_whole(user, partial(removal.remove_recording, context, user, each))
        except FileNotFoundError:
            continue  # somebody else removed it
        recordings += 1
    return Json({"project_id": user, "recordings": recordings, "files": files})


@router.get("/storage/stats", summary="What the store holds", response_model=Stats)
async def stats(request: Request, caller: Caller) -> Response:
    """By category; for admins."""
    caller.must_admin()
    context = context_of(request)
    return Json(_told(await context.daemon.ask("stats"), str(context.settings.root)))


@router.get("/projects/{project}/storage/stats", summary="What a project holds", response_model=Stats)
async def project_stats(request: Request, caller: Caller, project: str) -> Response:
    """By category."""
    user = user_of(project)
    caller.must_see(user)
    context = context_of(request)
    return Json(_told(await context.daemon.ask("stats", user=user), f"users/{user}"))


def _told(figures: dict[str, Any], root: str) -> dict[str, Any]:
    return {
        "root": root,
        "categories": {name: _count(each) for name, each in figures["categories"].items()},
        "total": _count(figures),
    }


def _count(each: dict[str, Any]) -> dict[str, Any]:
    size = int(each["bytes"])
    return {"bytes": size, "megabytes": round(size / _MEGABYTE, 2), "file_count": int(each["files"])}


__all__ = ["router"]
