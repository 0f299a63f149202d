"""Every request from outside: its path made one string without loss, its end told, its faults answered.

An ASGI layer around the whole application. When an answer has ended it tells the listeners (audit log, metrics) what
was asked and what became of it; the query, where signatures are, is never told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect

from recfs.web.copying import COPIED
from recfs.web.problems import problem_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Access:
    """One request, and what became of it. Handlers find it as `request.state.access` and add what they know."""

    method: str
    path: str
    """Percent-decoded; bytes that are not UTF-8 as `os.fsdecode` has them."""
    address: str
    began_ns: int
    """Wall clock."""
    status: int = 0
    """What was answered; 0: nothing was."""
    sent_bytes: int = 0
    """Of the body."""
    received_bytes: int = 0
    duration_s: float = 0.0
    outcome: str = "ok"
    """"ok", "refused" (4xx), "failed" (5xx, or cut off by a fault here), or "broken" (the client left)."""
    route: str = ""
    """The route's template, for metrics; "" where there is none."""
    token_id: str | None = None
    """Whose token it was; set by authentication."""
    via: str = ""
    """How whoever asks was known: "token", "session", "proxy", "link"; "" for nobody."""
    range: str | None = None
    """The Range that was asked for, if bytes were."""
    told: dict[str, Any] = field(default_factory=dict)
    """What else is to be told of it."""


Listener = Callable[[Access], None]
"""Is told of each access when it has ended; returns at once and raises nothing."""


class Accesses:
    """The ASGI layer."""

    def __init__(self, app: ASGIApp, listeners: list[Listener]) -> None:
        self._app = app
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw = scope.get("raw_path")
        if raw is not None:  # servers decode it with loss
            scope["path"] = unquote(raw.partition(b"?")[0].decode("latin-1"), errors="surrogateescape")
        client = scope.get("client")
        access = Access(scope["method"], scope["path"], client[0] if client else "", time.time_ns())
        scope.setdefault("state", {})["access"] = access
        began_s = time.monotonic()
        flow = _Flow(access, receive, send)
        try:
            await self._app(scope, flow.receive, flow.send)
            access.outcome = _outcome(access, flow)
        except ClientDisconnect:
            access.outcome = "broken"  # there is nobody to answer
        except Exception as error:
            problem = problem_of(error)
            if problem.type == "InternalError":
                logger.exception("%s %s failed", access.method, ascii(access.path[:200]))
            access.outcome = "broken" if flow.gone else "failed"
            if not access.status:
                await problem.response()(scope, receive, flow.send)
            # Else the server finds half an answer and cuts the connection off: nobody takes it for a whole one.
        except BaseException:
            access.outcome = "broken"
            raise
        finally:
            access.duration_s = time.monotonic() - began_s
            route = scope.get("route")
            access.route = getattr(route, "path", "") or ""
            for listener in self._listeners:
                listener(access)


class _Flow:
    """What goes to and fro."""

    def __init__(self, access: Access, receive: Receive, send: Send) -> None:
        self._access = access
        self._receive = receive
        self._send = send
        self.gone = False
        self.ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._access.received_bytes += len(message.get("body", b""))
        elif message["type"] == "http.disconnect" and not self.ended:
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        try:
            await self._send(message)
        finally:
            if message["type"] == COPIED:
                self._access.sent_bytes += message["copy"].sent
        if message["type"] == "http.response.start":
            self._access.status = message["status"]
        elif message["type"] == "http.response.body":
            self._access.sent_bytes += len(message.get("body", b""))
            self.ended = not message.get("more_body", False)


def _outcome(access: Access, flow: _Flow) -> str:
    if not flow.ended:
        return "broken"
    if access.status >= 500:
        return "failed"
    return "refused" if access.status >= 400 else "ok"


__all__ = ["Access", "Accesses", "Listener"]
