"""The gateway's own API, asked from inside with the rights of whoever looks at a page.

A page knows nothing that its reader could not ask for: each question is a request of its own, let in by the same gate,
bounded by the same limits and told in the same audit log as one that came over the network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Scope

API: Final = "/api/v1"
MOST_BYTES: Final = 32 << 20
"""A longer answer is not read: no page could show it."""
_NOT_ASKED: Final = frozenset({
    b"accept", b"accept-encoding", b"connection", b"content-length", b"content-type", b"expect", b"if-match",
    b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"range", b"te", b"transfer-encoding",
    b"upgrade",
})  # fmt: skip
"""Fields that were meant for the page, and not for what is asked for it."""


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """What the API said instead of an answer."""

    status: int
    kind: str
    """The problem's type, without its URN: a row of `recfs.web.problems.TABLE`."""
    title: str
    detail: str


class Api:
    """Asks the application that a request came to."""

    def __init__(self, request: Request, app: ASGIApp) -> None:
        """*app* is what the outside sees: the application with its accesses told."""
        self._app = app
        self._scope = request.scope
        self._headers = [(name, value) for name, value in request.scope["headers"] if name not in _NOT_ASKED]

    async def get(self, *path: str, **query: object) -> Any:
        """Give the answer to a GET; each part of *path* is one segment, and what is None in *query* is left out.

        Raises Refused.
        """
        target = "".join(f"/{quote(part, safe='', errors='surrogateescape')}" for part in path)
        told = {name: value for name, value in query.items() if value is not None}
        answer = _Answer()
        await self._app(self._made(API + target, urlencode(told)), _nothing, answer.send)
        return answer.document()

    def _made(self, raw_path: str, query: str) -> Scope:
        # The layer around the application makes `path` of this.
        return {
            "type": "http", "asgi": self._scope.get("asgi", {"version": "3.0"}), "http_version": "1.1", "method": "GET",
            "scheme": self._scope.get("scheme", "http"), "path": raw_path, "raw_path": raw_path.encode("ascii"),
            "query_string": query.encode("ascii"), "root_path": "", "client": self._scope.get("client"),
            "server": self._scope.get("server"), "headers": [*self._headers, (b"accept", b"application/json")],
        }  # fmt: skip


class _Answer:
    """What was answered."""

    def __init__(self) -> None:
        self._status = 0
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body" and len(self._body) <= MOST_BYTES:
            self._body += message.get("body", b"")

    def document(self) -> Any:
        try:
            if len(self._body) > MOST_BYTES:
                raise ValueError("too long")
            found = json.loads(self._body)
        except ValueError:
            raise Refused(self._status, "InternalError", "", "") from None
        if self._status < 400:
            return found
        told = found if isinstance(found, dict) else {}
        kind = str(told.get("type", "")).rpartition(":")[2] or "InternalError"
        raise Refused(self._status, kind, str(told.get("title", "")), str(told.get("detail") or ""))


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


__all__ = ["API", "MOST_BYTES", "Api", "Refused"]
