"""What is told of uploads: header fields of tus, documents, and problems."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from recfs.web.answers import href
from recfs.web.problems import Problem, monthly_limit
from recfs.web.uploads.errors import Changed, Incomplete, NoUpload, OverLimit, TooMuch, UploadError, WrongOffset
from recfs.web.uploads.fields import digest_field
from recfs.web.uploads.plan import Plan, UploadId
from recfs.web.uploads.staged import Committed, Found

VERSION: Final = "1.0.0"
_MOST_GAPS: Final = 1000
_OF_ERROR: Final = {NoUpload: "NotFound", TooMuch: "PayloadTooLarge", Changed: "PreconditionFailed"}
_OF_LIMIT: Final = {"max_file_size": "FileTooLarge"}


def problem(error: UploadError) -> Problem:
    """Give the problem of an upload's error: the row of its name, unless another one says the same."""
    told = str(error)
    if isinstance(error, OverLimit):
        if error.limit == "max_monthly_uploads":
            return monthly_limit(told)
        return Problem(_OF_LIMIT.get(error.limit, "QuotaExceeded"), told, limit=error.limit)
    if isinstance(error, WrongOffset):
        return Problem("WrongOffset", told, headers={"Upload-Offset": str(error.offset)}, offset=error.offset)
    if isinstance(error, Incomplete):
        return Problem("Incomplete", told, missing=[list(gap) for gap in error.missing[:_MOST_GAPS]])
    for kind, name in _OF_ERROR.items():
        if isinstance(error, kind):
            return Problem(name, told)
    name = type(error).__name__
    if name == "Superseded":  # 423, at which clients try again; at 400 they give up, and another tab would end this one
        return Problem("UploadBusy", told)
    return Problem(name, told)


async def refuse(_request: Request, error: Exception) -> Response:
    """Answer an UploadError; for the application's handlers."""
    assert isinstance(error, UploadError)
    return problem(error).response()


def location(id: UploadId) -> str:
    """Give an upload's path."""
    return href("uploads", str(id))


def file_href(plan: Plan) -> str:
    """Give the path of the file that an upload becomes."""
    return href(*plan.target)


def when(seconds: float) -> str:
    """Give a moment as HTTP has it."""
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC), usegmt=True)


def expires_s(found: Found, max_age_s: float) -> float:
    """Tell when temp/ is cleared of an upload that nobody goes on with."""
    return found.changed_ns / 1e9 + max_age_s


def tus_fields(found: Found, max_age_s: float) -> dict[str, str]:
    """Give what every answer about an upload has. All its bytes are told of only when it is committed."""
    plan = found.plan
    told = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
    if found.committed is not None:
        size = str(found.committed.size_bytes)
        return told | {"Upload-Offset": size, "Upload-Length": size} | committed_fields(found.committed)
    offset = found.received.prefix
    return told | {
        "Upload-Offset": str(offset),
        "Upload-Expires": when(expires_s(found, max_age_s)),
        **({} if plan.length is None else {"Upload-Length": str(plan.length)}),
    }


def committed_fields(done: Committed) -> dict[str, str]:
    """Give what an answer about a file has that has just been made."""
    told = {"Content-Location": file_href(done.plan)}
    if done.sha256 is not None:
        told |= {"ETag": f'"{done.sha256}"', "Repr-Digest": digest_field(done.sha256)}
    return told


def committed_document(done: Committed) -> dict[str, Any]:
    """Tell of the file that an upload has become."""
    return {
        "id": str(done.plan.id),
        "state": "committed",
        "user": done.plan.id.user,
        "recording": done.plan.recording,
        "path": "/".join(done.plan.path),
        "href": file_href(done.plan),
        "size_bytes": done.size_bytes,
        "sha256": done.sha256,
    }


def progress_document(found: Found, busy: str, max_age_s: float) -> dict[str, Any]:
    """Tell how far an upload is. *busy* is what goes on with it at the moment."""
    plan = found.plan
    about = {"upload_href": location(plan.id), "original_name": plan.original_name, "length": plan.length}
    if found.committed is not None:
        return committed_document(found.committed) | about
    length = plan.length or 0
    gaps = found.received.missing(length)
    return {
        "id": str(plan.id),
        "state": busy or "waiting",
        "user": plan.id.user,
        "recording": plan.recording,
        "path": "/".join(plan.path),
        "href": file_href(plan),
        **about,
        "offset": found.received.prefix,
        "received_bytes": found.received.count,
        "missing": [list(gap) for gap in gaps[:_MOST_GAPS]],
        "chunk_bytes": plan.chunk_bytes,
        "chunks": -(-length // plan.chunk_bytes),
        "created_at": datetime.fromtimestamp(plan.created_ns / 1e9, UTC).isoformat(timespec="seconds"),
        "expires_at": datetime.fromtimestamp(int(expires_s(found, max_age_s)), UTC).isoformat(timespec="seconds"),
    }


__all__ = [
    "VERSION",
    "committed_document",
    "committed_fields",
    "expires_s",
    "file_href",
    "location",
    "problem",
    "progress_document",
    "refuse",
    "tus_fields",
    "when",
]
