"""tus 1.0.0 (https://tus.io/protocols/resumable-upload): core, creation, creation-with-upload, checksum, expiration,
termination.

All bytes are told of as having come only when the file is committed: an answer with Offset = Length is a success.
While it is being committed HEAD is 423, as tus has it for an upload in work; clients ask again. An upload whose bytes
had another digest is 410, and clients begin anew.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from recfs.web.answers import Json
from recfs.web.context import context_of
from recfs.web.problems import Problem
from recfs.web.uploads.answers import VERSION, location, progress_document, tus_fields
from recfs.web.uploads.body import Checksum
from recfs.web.uploads.common import body_of, id_for, kind_of, sending, tell, uploads_of
from recfs.web.uploads.fields import checksum_of, hex_of, metadata_of, needed, number
from recfs.web.uploads.making import Wanted, plan_of
from recfs.web.uploads.models import NewUpload, Progress, bytes_of, fields_of, made_of
from recfs.web.uploads.plan import CHUNK_BYTES, MAX_BYTES
from recfs.web.who.principal import Principal, authenticate

router = APIRouter(tags=["uploads"])
Caller = Annotated[Principal, Depends(authenticate)]
EXTENSIONS: Final = "creation,creation-with-upload,checksum,expiration,termination"
OFFSET_STREAM: Final = "application/offset+octet-stream"
_OVERRIDE: Final = "X-HTTP-Method-Override"
_ABOUT: Final = {
    "Tus-Resumable": VERSION,
    "Tus-Version": VERSION,
    "Tus-Extension": EXTENSIONS,
    "Tus-Max-Size": str(MAX_BYTES),
    "Tus-Checksum-Algorithm": ",".join(Checksum.ALGORITHMS),
}
_TUS: Final[dict[int | str, dict[str, Any]]] = {
    409: {"description": "the upload goes on at another offset"},
    410: {"description": "its bytes had another digest, or are gone: begin anew"},
    412: {"description": "Tus-Resumable is not 1.0.0, or there is a file already"},
    413: {"description": "more bytes than were announced, or than a file may have"},
    423: {"description": "it is being committed: ask again"},
    429: {"description": "no more uploads this month"},
    460: {"description": "the bytes are not those of Upload-Checksum"},
    507: {"description": "the quota is used up, or there is no room"},
}


def _check_version(request: Request) -> None:
    if request.headers.get("Tus-Resumable") != VERSION:
        raise Problem("TusVersion", f"Tus-Resumable: {VERSION} is missing", headers={"Tus-Version": VERSION})


def _max_age_s(request: Request) -> float:
    return context_of(request).settings.temp_max_age_s


@router.options("/uploads", summary="What is spoken here", include_in_schema=False)
@router.options("/uploads/{id}", include_in_schema=False)
async def about() -> Response:
    return Response(status_code=204, headers=_ABOUT)


@router.post(
    "/uploads", summary="Begin an upload", status_code=201, response_model=Progress, openapi_extra=made_of(NewUpload),
    responses=_TUS,
)  # fmt: skip
async def create(request: Request, caller: Caller) -> Response:
    """By tus, with Upload-Length and Upload-Metadata (user, recording, path, filename, filetype, sha256), or in JSON.

    Room for the whole length is kept from now on, or it is refused before any of its bytes is read.
    """
    uploads = uploads_of(request)
    kind = kind_of(request)
    if kind == "application/json":
        wanted = await NewUpload.read(request)
        found = await uploads.create(plan_of(wanted, caller))
        document = progress_document(found, "", _max_age_s(request))
        return Json(document, 201, headers={"Location": location(found.plan.id)})
    _check_version(request)
    if "Upload-Defer-Length" in request.headers:
        raise Problem("BadRequest", "Upload-Length has to be known: room is kept for all of it")
    if "Upload-Concat" in request.headers:  # of that each part would be taken for a whole file
        raise Problem(
            "NotImplemented", "files are not put together of several uploads: send this one in order, or in chunks"
        )
    length = needed(request.headers, "Upload-Length")
    if kind not in ("", OFFSET_STREAM):
        raise Problem("UnsupportedMediaType", f"bytes of an upload are {OFFSET_STREAM}")
    raw = request.headers.get("Upload-Metadata", "")
    told = metadata_of(raw)
    chunk_bytes = number(told, "chunk_bytes")
    wanted = Wanted(
        length, told.get("user", ""), told.get("recording", ""), told.get("path", ""),
        told.get("filename", "") or told.get("name", ""), told.get("filetype", "") or told.get("type", ""),
        hex_of(told.get("sha256")), CHUNK_BYTES if chunk_bytes is None else chunk_bytes, raw,
    )  # fmt: skip
    checksum = checksum_of(request.headers.get("Upload-Checksum"))
    plan = plan_of(wanted, caller)
    made = {"Location": location(plan.id)}
    if kind == OFFSET_STREAM and request.headers.get("Content-Length") != "0":
        with sending(request, plan.id.user):
            found = await uploads.begin_with(
                plan, body_of(request), checksum, number(request.headers, "Content-Length")
            )
    elif length == 0:
        found = await uploads.begin_with(plan, None)
    else:
        found = await uploads.create(plan)
    tell(request, found.committed)
    return Response(status_code=201, headers={**made, **tus_fields(found, _max_age_s(request))})


@router.head(
    "/uploads/{id}", summary="Where an upload goes on", response_model=None, response_class=Response, responses=_TUS,
    openapi_extra=fields_of(Tus_Resumable=VERSION),
)  # fmt: skip
async def offset(request: Request, caller: Caller, id: str) -> Response:
    """Upload-Offset says where. Whoever was sending is stopped; what came of it counts."""
    _check_version(request)
    found = await uploads_of(request).resume(id_for(id, caller))
    headers = tus_fields(found, _max_age_s(request))
    if found.plan.metadata:
        headers["Upload-Metadata"] = found.plan.metadata
    return Response(status_code=200, headers=headers)


@router.patch(
    "/uploads/{id}", summary="Go on with an upload", status_code=204, response_model=None, responses=_TUS,
    openapi_extra={**fields_of(Tus_Resumable=VERSION, Upload_Offset="5242880"), **bytes_of(OFFSET_STREAM)},
)  # fmt: skip
async def append(request: Request, caller: Caller, id: str) -> Response:
    """With Upload-Offset, and the bytes from there on. The last one has the file committed before this is answered."""
    _check_version(request)
    upload = id_for(id, caller)
    if kind_of(request) != OFFSET_STREAM:
        raise Problem("UnsupportedMediaType", f"bytes of an upload are {OFFSET_STREAM}")
    at = needed(request.headers, "Upload-Offset")
    checksum = checksum_of(request.headers.get("Upload-Checksum"))
    size = number(request.headers, "Content-Length")
    with sending(request, upload.user):
        found = await uploads_of(request).append(upload, at, body_of(request), checksum, size)
    tell(request, found.committed)
    return Response(status_code=204, headers=tus_fields(found, _max_age_s(request)))


@router.delete("/uploads/{id}", summary="End an upload", status_code=204, response_model=None, responses=_TUS)
async def terminate(request: Request, caller: Caller, id: str) -> Response:
    """Its bytes are removed, and the room they took is free. A file that it has become stays."""
    if "Tus-Resumable" in request.headers:
        _check_version(request)
    await uploads_of(request).remove(id_for(id, caller))
    return Response(status_code=204, headers={"Tus-Resumable": VERSION})


@router.post("/uploads/{id}", include_in_schema=False, response_model=None)
async def overridden(request: Request, caller: Caller, id: str) -> Response:
    """Another method, by X-HTTP-Method-Override, of clients in environments that know POST alone."""
    method = request.headers.get(_OVERRIDE, "").upper()
    if method == "PATCH":
        return await append(request, caller, id)
    if method == "DELETE":
        return await terminate(request, caller, id)
    if method == "HEAD":
        return await offset(request, caller, id)
    raise Problem("MethodNotAllowed", headers={"Allow": "OPTIONS, HEAD, PATCH, DELETE"})


__all__ = ["EXTENSIONS", "OFFSET_STREAM", "router"]
