"""GET /events: server-sent events for whoever listens, for as long as they may."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from recfs.client.errors import CursorLost
from recfs.core.observing.kinds import KINDS
from recfs.web.admin.asking import ASKS, Who, no_link, seen
from recfs.web.answers import until_gone
from recfs.web.context import Context, context_of
from recfs.web.events import Told, encoded, user_of
from recfs.web.problems import Problem
from recfs.web.who.guarded import Guarded
from recfs.web.who.limits import Places
from recfs.web.who.principal import Principal

router = APIRouter(tags=["events"], route_class=Guarded, responses=ASKS)
_RETRY: Final = b"retry: 3000\n\n"
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would keep them until it has a buffer full
}


class Stream(Response):
    """An answer that goes on until whoever listens leaves, or may not listen any more."""

    def __init__(self, told: AsyncGenerator[Told, None], places: Places, key: str) -> None:
        """*told* has not begun yet: then there is nothing that would have to be ended."""
        super().__init__(None, 200, _HEADERS)
        # Starlette takes None for an empty body, and a server then refuses to send more than that.
        self.raw_headers = [each for each in self.raw_headers if each[0] != b"content-length"]
        self._told = told
        self._places = places
        self._key = key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send until the end. Raises Problem and ClientError before anything is sent."""
        with self._places.hold(self._key):
            async with aclosing(self._told) as told:
                first = await anext(told)  # what the daemon refuses is an answer of its own, not half a stream
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async with anyio.create_task_group() as group:
                    group.start_soon(_until_left, receive, group.cancel_scope)
                    await _send(send, _RETRY + encoded(first))
                    async for each in told:
                        await _send(send, encoded(each))
                    group.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Any, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _until_left(receive: Any, scope: anyio.CancelScope) -> None:
    await until_gone(receive)
    scope.cancel()


@router.get(
    "/events", summary="What happens, as it happens", response_model=None,
    responses={200: {"content": {"text/event-stream": {"example": "id: 00c0ffee-17\nevent: committed\ndata: {}\n\n"}}}},
)  # fmt: skip
async def events(
    request: Request, who: Who,
    since: Annotated[
        str | None, Query(max_length=64, description="a cursor, a date, `2h`, `oldest`; left out: from now on")
    ] = None,
    kind: Annotated[list[str] | None, Query(max_length=40, description="only events of these kinds")] = None,
    user: Annotated[str | None, Query(max_length=40, description="only of this user's files")] = None,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:  # fmt: skip
    """Tell what becomes of the files of whom the token is for, and to an admin also how the daemon is (`status`).

    The id of an event is its cursor: who comes again with it (browsers do so by Last-Event-ID) misses none. `lost` says
    that events after a cursor are not kept any more.
    """
    no_link(who)
    context = context_of(request)
    if kind and (unknown := sorted(set(kind) - KINDS)):
        raise Problem("InvalidArgument", f"kind: {', '.join(unknown)[:100]}; there are {', '.join(sorted(KINDS))}")
    kinds = frozenset(kind) if kind else KINDS
    only = None if user is None else seen(who, user)

    def wanted(event: dict[str, Any]) -> bool:
        of = (user_of(event.get("path")), user_of(event.get("was")))
        return event["event"] in kinds and (only is None or only in of)

    return Stream(_told(context, who, since, last_event_id, wanted), context.streams, who.token_id)


async def _told(
    context: Context, who: Principal, since: str | None, last: str | None, wanted: Callable[[dict[str, Any]], bool]
) -> AsyncGenerator[Told, None]:
    def follow(since: str | None) -> AsyncGenerator[Told, None]:
        return context.feed.follow(who, since, wanted, lambda: context.gate.still(who))

    try:
        async with aclosing(follow(last or since)) as found:
            async for each in found:
                yield each
            return
    except CursorLost:
        if last is None:
            raise
    # A browser that was told of a refusal would not come again by itself.
    yield Told("lost", {}, None)
    async with aclosing(follow(None)) as found:
        async for each in found:
            yield each


__all__ = ["Stream", "router"]
