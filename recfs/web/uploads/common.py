"""What all routes of uploads begin with."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any

from starlette.requests import Request

from recfs.client.errors import InvalidName
from recfs.web.context import access_of, context_of
from recfs.web.problems import Problem
from recfs.web.uploads.body import Body, Receive
from recfs.web.uploads.plan import UploadId
from recfs.web.uploads.service import Uploads
from recfs.web.uploads.staged import Committed
from recfs.web.who.principal import Principal


def uploads_of(request: Request) -> Uploads:
    """Give the uploads of the application that a request came to."""
    uploads: Uploads = request.app.state.uploads
    uploads.begin()
    return uploads


def id_for(text: str, caller: Principal) -> UploadId:
    """Give the id of an upload that the caller may go on with. Raises Problem("NotFound") for all others."""
    try:
        id = UploadId.parse(text)
    except InvalidName:
        raise Problem("NotFound") from None
    caller.must_write(id.user)
    return id


def sending(request: Request, user: str) -> AbstractContextManager[None]:
    """Have one of the places for requests that bring bytes for a user, for a block. Raises Problem 429."""
    return context_of(request).uploads.hold(user)


def kind_of(request: Request) -> str:
    """Give the media type of a request's body, without parameters; "" where none is told."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def received(request: Request) -> Receive:
    """What comes of a request's body: no more of it, as if the connection had ended, when its token is revoked.

    Raises Problem for bytes that are not those of the file: nobody here unpacks them.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Problem("UnsupportedMediaType", "bytes are taken as they are, without Content-Encoding")
    gate, who = context_of(request).gate, request.state.principal

    async def receive() -> MutableMapping[str, Any]:
        message = await request.receive()
        return message if gate.still(who) else {"type": "http.disconnect"}

    return receive


def body_of(request: Request) -> Body:
    """Give a request's body; nothing of it has been asked for until it is read."""
    return Body(received(request))


def tell(request: Request, done: Committed | None) -> None:
    """Have the audit log tell what was made."""
    if done is not None:
        access_of(request).told |= {
            "made": "/".join(done.plan.target), "bytes": done.size_bytes, "upload": str(done.plan.id)
        }  # fmt: skip


__all__ = ["body_of", "id_for", "kind_of", "received", "sending", "tell", "uploads_of"]
