"""PUT: a file in one go. It is there whole when this is answered, or not at all."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from recfs.web.context import context_of
from recfs.web.files import names_of, recording_of, user_of
from recfs.web.limiters import in_thread
from recfs.web.problems import Problem
from recfs.web.uploads.admission import sha256_of
from recfs.web.uploads.answers import committed_fields, file_href
from recfs.web.uploads.common import body_of, kind_of, sending, tell, uploads_of
from recfs.web.uploads.fields import digest_field, digest_of, number, replaces_of
from recfs.web.uploads.making import Wanted, plan_of
from recfs.web.uploads.models import bytes_of
from recfs.web.uploads.plan import NOTHING, Plan
from recfs.web.uploads.staged import Folders
from recfs.web.who.principal import Principal, authenticate

router = APIRouter(tags=["recordings"])
Caller = Annotated[Principal, Depends(authenticate)]
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
"""What curl says of any bytes: no type of a file."""


@router.put(
    "/users/{user}/recordings/{recording}/{path:inside}", summary="Make a file", status_code=201, response_model=None,
    response_class=Response,
    openapi_extra=bytes_of(),
    responses={
        204: {"description": "it replaced the file of If-Match, or these bytes are there already"},
        412: {"description": "there is a file already, or it is another one than that of If-Match"},
        413: {"description": "it is larger than a file may be"},
        507: {"description": "the quota is used up, or there is no room"},
    },
)  # fmt: skip
async def put(request: Request, caller: Caller, user: str, recording: str, path: str) -> Response:
    """A file that is there is replaced only with If-Match: its ETag, or *. Repr-Digest (sha-256) has the bytes proven.

    One that failed leaves nothing, and may be made again: with a digest it is answered with success where the first one
    did succeed.
    """
    fields = request.headers
    if "Content-Range" in fields:  # RFC 9110, 14.5
        raise Problem("BadRequest", "a PUT has the whole file")
    mime = kind_of(request)
    names = names_of(path)
    wanted = Wanted(
        number(fields, "Content-Length"), user_of(user), recording_of(recording), "/".join(names),
        mime_type="" if mime in _FORMS else mime, sha256=digest_of(fields), replaces=replaces_of(fields),
    )  # fmt: skip
    plan = plan_of(wanted, caller)
    context = context_of(request)
    uploads = uploads_of(request)
    if plan.replaces == NOTHING and plan.sha256 is not None:
        there = await in_thread(context.limiters.waits, lambda: _sha256_there(context.tree.folder, plan))
        if there == plan.sha256:
            return Response(status_code=204, headers={"ETag": f'"{there}"', "Repr-Digest": digest_field(there)})
    with sending(request, plan.id.user):
        done = await uploads.put(plan, body_of(request))
    tell(request, done)
    if plan.replaces != NOTHING:
        return Response(status_code=204, headers=committed_fields(done))
    return Response(status_code=201, headers={"Location": file_href(plan), **committed_fields(done)})


def _sha256_there(folders: Folders, plan: Plan) -> str | None:
    """The checksum of what stands in the place of an upload; None where nothing does."""
    try:
        folder = folders(*plan.target[:-1])
    except FileNotFoundError:
        return None
    try:
        return sha256_of(folder, plan.target[-1])
    except OSError:
        return None  # it is decided when it is made
    finally:
        os.close(folder)


__all__ = ["router"]
