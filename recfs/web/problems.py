"""What is wrong, for programs and people: every refusal is a problem document (RFC 9457), made from one table.

A row is named as the error is in docs/semantics.md, section 2. `Problem` is what handlers raise; errors of the system,
of the client library and of the daemon become one here. What nobody expected is 500 and says nothing of the inside.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from recfs.client.errors import DaemonRefused, DaemonUnreachable, InvalidName, NotAMount, NotCommitted, UploadRefused

TYPE: Final = "urn:recfs:problem:"
MEDIA_TYPE: Final = "application/problem+json"
RETRY_S: Final = 5
"""After so long a client may try again what failed because somebody was away or busy."""


class Row(NamedTuple):
    """How one kind of problem is answered."""

    status: int
    title: str
    retry_s: int | None = None


TABLE: Final[Mapping[str, Row]] = {
    # Of the request itself.
    "BadRequest": Row(400, "The request is malformed"),
    "InvalidPath": Row(400, "This is no path of the tree"),
    "InvalidArgument": Row(422, "A value is not what it should be"),
    "Unauthorized": Row(401, "A token or a session is needed"),
    "NotPermitted": Row(403, "This is not allowed"),
    "AccessDenied": Row(403, "Permission denied"),
    "NotFound": Row(404, "There is no such thing here"),
    "MethodNotAllowed": Row(405, "This method is not offered here"),
    "NotAcceptable": Row(406, "This cannot be had in such a form"),
    "RequestTimeout": Row(408, "The request did not come in time"),
    "PreconditionFailed": Row(412, "A precondition does not hold"),
    "PayloadTooLarge": Row(413, "The body is too large"),
    "UnsupportedMediaType": Row(415, "A body of this kind is not taken"),
    "RangeNotSatisfiable": Row(416, "There are no such bytes"),
    "HeaderTooLarge": Row(431, "The header of the request is too large"),
    "TooManyRequests": Row(429, "Too many requests", RETRY_S),
    "InternalError": Row(500, "Something went wrong here"),
    "NotImplemented": Row(501, "This is not offered"),
    # Of the file system: docs/semantics.md, section 2.
    "Exists": Row(412, "There is one already"),
    "NotEmpty": Row(409, "The directory is not empty"),
    "IsADirectory": Row(409, "This is a directory"),
    "NotADirectory": Row(404, "There is no such thing here"),
    "NameTooLong": Row(400, "A name is too long"),
    "ReadOnlyFile": Row(403, "This is read-only"),
    "QuotaExceeded": Row(507, "The quota is used up"),
    "MonthlyLimit": Row(429, "No more uploads this month"),
    "FileTooLarge": Row(413, "The file is too large"),
    "OutOfSpace": Row(507, "There is no room"),
    "NoAttribute": Row(404, "This is not known"),
    "NotSupported": Row(501, "This is not offered"),
    "TooBig": Row(413, "A value is too large"),
    "Stale": Row(404, "There is no such thing here"),
    "OtherDevice": Row(409, "This cannot be moved there"),
    "Busy": Row(409, "This is in use", RETRY_S),
    "TryAgain": Row(503, "This takes longer", RETRY_S),
    "Interrupted": Row(503, "This was interrupted", RETRY_S),
    "TooManyFiles": Row(503, "Too many files are open", RETRY_S),
    "IoFailure": Row(502, "The storage answered with an error"),
    "ObjectArchived": Row(409, "The bytes are in an archive, and have to be restored first"),
    "ObjectStoreError": Row(502, "The object store did not give the bytes", RETRY_S),
    "NotCommitted": Row(409, "The file is not committed"),
    "CursorLost": Row(410, "Nothing is kept any more after this cursor"),
    "UploadGone": Row(410, "This upload cannot go on"),
    "UploadBusy": Row(423, "This upload is in work", 1),
    "WrongOffset": Row(409, "This upload goes on elsewhere"),
    "WrongChecksum": Row(460, "These bytes are not those of their checksum"),
    "Incomplete": Row(409, "Bytes are missing"),
    "Scattered": Row(409, "What has come is in too many pieces"),
    "CutOff": Row(400, "The body ended before it was whole"),
    "TusVersion": Row(412, "This version of tus is not spoken here"),
    "UploadRefused": Row(422, "Such an upload is not taken"),
    "DaemonGone": Row(503, "The file system is away", RETRY_S),
}
"""Every type there is."""

_BY_ERRNO: Final[Mapping[int, str]] = {
    errno.ENOENT: "NotFound",
    errno.ENOTDIR: "NotFound",
    errno.ELOOP: "NotFound",
    errno.ESTALE: "NotFound",
    errno.ENXIO: "NotFound",
    errno.EEXIST: "Exists",
    errno.ENOTEMPTY: "NotEmpty",
    errno.EISDIR: "IsADirectory",
    errno.ENAMETOOLONG: "NameTooLong",
    errno.EINVAL: "InvalidPath",
    errno.EPERM: "NotPermitted",
    errno.EACCES: "AccessDenied",
    errno.EROFS: "ReadOnlyFile",
    errno.EDQUOT: "QuotaExceeded",
    errno.EFBIG: "FileTooLarge",
    errno.ENOSPC: "OutOfSpace",
    errno.ENODATA: "NoAttribute",
    errno.EOPNOTSUPP: "NotSupported",
    errno.E2BIG: "TooBig",
    errno.EBUSY: "Busy",
    errno.EAGAIN: "TryAgain",
    errno.EINTR: "Interrupted",
    errno.EMFILE: "TooManyFiles",
    errno.ENFILE: "TooManyFiles",
    errno.EIO: "IoFailure",
    errno.EXDEV: "OtherDevice",
    errno.ENOTCONN: "DaemonGone",
    errno.ECONNABORTED: "DaemonGone",
    errno.ECONNREFUSED: "DaemonGone",
    errno.ENODEV: "DaemonGone",
    errno.ETIMEDOUT: "TryAgain",
}


_HINTS: Final[Mapping[str, str]] = {
    "Exists": "what has this name stays; PUT with If-Match replaces a file",
    "AccessDenied": "the gateway's user may not do that in the file system: the operator's guide has what it needs",
}
"""What is to be done where the file system refused something, and the row's title does not say it."""


class Problem(Exception):
    """A refusal. `Problem("QuotaExceeded", "of 10 GiB 10 GiB are used")`.

    *type* is a row of the table, *detail* one sentence for people, *headers* what goes with the answer, and further
    members of the document come by name.
    """

    def __init__(
        self, type: str, detail: str | None = None, *, headers: Mapping[str, str] | None = None,
        status: int | None = None, **members: Any,
    ) -> None:  # fmt: skip
        super().__init__(f"{type}: {detail}" if detail else type)
        row = TABLE[type]
        self.type = type
        self.title = row.title
        self.status = row.status if status is None else status
        self.detail = detail
        self.members = members
        retry = {} if row.retry_s is None else {"Retry-After": str(row.retry_s)}
        self.headers: dict[str, str] = {**retry, **(headers or {})}

    def document(self) -> dict[str, Any]:
        """Give the members of the problem document."""
        told: dict[str, Any] = {"type": TYPE + self.type, "title": self.title, "status": self.status}
        if self.detail is not None:
            told["detail"] = self.detail
        return told | self.members

    def response(self) -> Response:
        """Give the answer. Bytes of names that are not UTF-8 are escaped, as everywhere in recfs's JSON."""
        body = json.dumps(self.document(), ensure_ascii=True).encode("ascii")
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **self.headers}
        return Response(body, self.status, headers, MEDIA_TYPE)


def problem_of(error: BaseException) -> Problem:
    """Make a problem of an error. What nobody expected is InternalError, and tells nothing."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, DaemonRefused):
        known = error.kind in TABLE
        return Problem(error.kind, str(error).partition(": ")[2]) if known else Problem("InternalError")
    if isinstance(error, DaemonUnreachable | NotAMount):
        return Problem("DaemonGone")
    if isinstance(error, InvalidName):
        return Problem("InvalidPath", str(error))
    if isinstance(error, UploadRefused):
        return Problem("UploadRefused", str(error))
    if isinstance(error, NotCommitted):
        return Problem("NotCommitted")
    if isinstance(error, OSError) and error.errno is not None:
        # Its text may name paths of the machine: the row's own says what a client has to know.
        row = _BY_ERRNO.get(error.errno, "InternalError")
        return Problem(row, _HINTS.get(row))
    return Problem("InternalError")


def monthly_limit(detail: str | None = None, *, now: datetime | None = None) -> Problem:
    """No more uploads before the next month (UTC), which Retry-After says in seconds."""
    at = datetime.now(UTC) if now is None else now
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    wait_s = int((datetime(year, month, 1, tzinfo=UTC) - at).total_seconds()) + 1
    return Problem("MonthlyLimit", detail, headers={"Retry-After": str(wait_s)})


__all__ = ["MEDIA_TYPE", "TABLE", "TYPE", "Problem", "Row", "monthly_limit", "problem_of"]
