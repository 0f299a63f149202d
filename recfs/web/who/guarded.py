"""Routes with small bodies of JSON: who asks is known before anything of the body is read, and how much is bounded."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from recfs.web.problems import Problem
from recfs.web.who.principal import authenticate
from recfs.web.who.sessions import SAFE

if TYPE_CHECKING:
    from starlette.types import Message, Receive

MOST_BYTES: Final = 64 << 10
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Bounded(APIRoute):
    """A route that takes no more than 64 KiB."""

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            length = request.headers.get("content-length", "0")
            if length.isascii() and length.isdigit() and int(length[:20]) > MOST_BYTES:
                raise _too_large()
            if request.method in SAFE:
                return await handler(request)
            return await handler(Request(request.scope, _again(await _read(request.receive), request.receive)))

        return bounded


class Guarded(Bounded):
    """A route for those alone who are let in. FastAPI itself would read the body first, whoever sends it."""

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await authenticate(request)
            return await handler(request)

        return guarded


async def _read(receive: Receive) -> Message:
    """The whole body, or that the client has left. Raises Problem: within FastAPI's own reading it would be another."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return message
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return {"type": "http.request", "body": body, "more_body": False}


def _again(first: Message, receive: Receive) -> Receive:
    held: list[Message] = [first]

    async def again() -> Message:
        return held.pop() if held else await receive()

    return again


def _too_large() -> Problem:
    return Problem("PayloadTooLarge", f"at most {MOST_BYTES:,} bytes are taken here")


__all__ = ["Bounded", "Guarded"]
