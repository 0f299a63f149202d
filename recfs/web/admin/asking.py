"""Questions to the daemon in the name of whoever asks the gateway: whose they may be, and what is told of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Depends
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from recfs.client.errors import DaemonRefused
from recfs.core.layout import is_id
from recfs.core.observing.lines import line_of
from recfs.web.context import context_of
from recfs.web.description import problem
from recfs.web.problems import Problem, problem_of
from recfs.web.who.principal import Principal, Via, authenticate

Who = Annotated[Principal, Depends(authenticate)]
REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: problem("a token or a session is needed"),
    403: problem("this token, or a link, is not for that"),
    404: problem("there is no such thing, or it is somebody else's"),
    413: problem("the body is too large"),
    422: problem("a value is not what it should be"),
    429: problem("too many requests"),
}
"""Of every route."""
ASKS: Final[dict[int | str, dict[str, Any]]] = {
    **REFUSALS,
    501: problem("the daemon does not offer that to the gateway, or at all"),
    503: problem("the daemon is away"),
}
"""Of every route that asks the daemon."""
_TOLD_CHARS: Final = 1000
_NOT_OFFERED: Final = "is not offered on this socket"


class Body(BaseModel):
    """A body of JSON in which nothing is misspelt: 0 is no `false` there."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


async def ask(request: Request, method: str, **params: Any) -> Any:
    """Ask the daemon. Raises Problem; what the operator has not offered to the gateway is "NotSupported"."""
    try:
        return await context_of(request).daemon.ask(method, **params)
    except DaemonRefused as error:
        if error.kind == "NotPermitted" and _NOT_OFFERED in str(error):
            detail = (
                f"the daemon does not offer {method} to the gateway: [gateway] methods in recfs.conf has to name it"
            )
            raise Problem("NotSupported", detail) from error
        raise problem_of(error) from error


async def act(request: Request, method: str, **params: Any) -> Any:
    """The same of what changes something: it is in the audit log with what it was asked with."""
    note_act(request, method, params)
    return await ask(request, method, **params)


def note_act(request: Request, method: str, params: Mapping[str, Any]) -> None:
    """Have the audit log tell what was asked for."""
    access = getattr(request.state, "access", None)
    if access is not None:
        named = {key: value for key, value in params.items() if value is not None}
        access.told["asked"] = {"method": method, "params": line_of(named)[:_TOLD_CHARS]}


def no_link(who: Principal) -> None:
    """Raise Problem("NotPermitted") for whoever asks by a link: it is for files alone."""
    if who.via is Via.LINK:
        raise Problem("NotPermitted", "a link is for files alone")


def id_of(text: str) -> str:
    """Give an id. Raises Problem("NotFound") for what can be none."""
    if not is_id(text.encode("utf-8", "surrogateescape")):
        raise Problem("NotFound")
    return text


def seen(who: Principal, user: str) -> str:
    """Give a user's id if *who* sees that user. Raises Problem("NotFound")."""
    found = id_of(user)
    who.must_see(found)
    return found


def whose(who: Principal, user: str | None) -> list[str | None]:
    """Of which users a question is: of the one that is named, else of all ([None]) for an admin, else of *who*'s own.

    Raises Problem("NotFound") for a foreign one.
    """
    if user is not None:
        return [seen(who, user)]
    return [None] if who.is_admin else [*sorted(who.users)]


def path_of(text: str) -> str:
    """Give a path in the tree that a body names. Raises Problem("InvalidPath") for what leads elsewhere."""
    path = text.removeprefix("/")
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raise Problem("InvalidPath") from None
    if b"\0" in raw or any(name in (b"", b".", b"..") for name in raw.split(b"/")):
        raise Problem("InvalidPath")
    return path


__all__ = ["ASKS", "REFUSALS", "Body", "Who", "act", "ask", "id_of", "no_link", "note_act", "path_of", "seen", "whose"]
