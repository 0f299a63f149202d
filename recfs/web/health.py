"""/healthz, /readyz and /metrics: whether the gateway runs, whether it can serve, and its figures for Prometheus."""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import suppress
from typing import Final

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from recfs.client.errors import ClientError, DaemonRefused
from recfs.web.accesses import Access
from recfs.web.answers import Json
from recfs.web.context import Context
from recfs.web.limiters import in_thread
from recfs.web.problems import Problem

_READY_S: Final = 5.0
_BUCKETS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0)
_FORWARDED: Final = ("x-forwarded-for", "forwarded", "x-real-ip")

router = APIRouter(tags=["health"])


class Figures:
    """The gateway's figures; `told` is a listener of accesses."""

    def __init__(self, context: Context) -> None:
        self.registry = CollectorRegistry()
        self._context = context
        labels = ("method", "route", "status")
        self._requests = Counter("recfs_serve_requests", "Requests that were answered", labels, registry=self.registry)
        self._broken = Counter("recfs_serve_broken", "Answers that did not come to their end", registry=self.registry)
        self._sent = Counter("recfs_serve_sent_bytes", "Bytes of bodies that were sent", registry=self.registry)
        self._received = Counter("recfs_serve_received_bytes", "Bytes of bodies that came", registry=self.registry)
        self._seconds = Histogram(
            "recfs_serve_request_seconds", "Time from a request's header to the end of its answer",
            buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        kind = ("kind",)
        self._running = Gauge("recfs_serve_threads_running", "Calls that run in threads", kind, registry=self.registry)
        self._most = Gauge("recfs_serve_threads", "Calls that may run in threads", kind, registry=self.registry)
        self._waiting = Gauge("recfs_serve_threads_waiting", "Calls that wait for one", kind, registry=self.registry)

    def told(self, access: Access) -> None:
        """Count one access."""
        method = access.method if access.method in _METHODS else "other"
        self._requests.labels(method, access.route, str(access.status)).inc()
        self._sent.inc(access.sent_bytes)
        self._received.inc(access.received_bytes)
        self._seconds.observe(access.duration_s)
        if access.outcome == "broken":
            self._broken.inc()

    def text(self) -> bytes:
        """Give all as Prometheus reads it."""
        for name, (running, most, waiting) in self._context.limiters.figures().items():
            self._running.labels(name).set(running)
            self._most.labels(name).set(most)
            self._waiting.labels(name).set(waiting)
        return generate_latest(self.registry)


class Looks:
    """Looks whether mount and daemon answer: one at a time, however many ask, for it may hang as they do."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._task: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Wait for the look that is under way, or a new one. Raises what it raises; who gives up ends nothing."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())
            self._task.add_done_callback(_heard)
        await asyncio.shield(self._task)

    async def _look(self) -> None:
        context = self._context
        await in_thread(context.limiters.waits, context.tree.check)
        if context.daemon.known:
            with suppress(DaemonRefused):  # where `[gateway] methods` has no status: it answers, that is what counts
                await context.daemon.ask("status")


def _heard(task: asyncio.Task[None]) -> None:
    """Nobody may be there any more to hear how it ended."""
    if not task.cancelled():
        task.exception()


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@router.head("/healthz", response_model=None, include_in_schema=False)
@router.get("/healthz", summary="Whether the gateway runs", response_model=None)
async def healthz() -> Response:
    """Answer as long as the process does anything; asks nobody."""
    return Json({"status": "ok"})


@router.head("/readyz", response_model=None, include_in_schema=False)
@router.get("/readyz", summary="Whether the gateway can serve", response_model=None)
async def readyz(request: Request) -> Response:
    """Look whether the mount is there and, where a socket is configured, its daemon answers. 503 if not."""
    looks: Looks = request.app.state.looks
    try:
        async with asyncio.timeout(_READY_S):
            await looks.look()
    except (OSError, ClientError, TimeoutError) as error:
        raise Problem("DaemonGone", type(error).__name__) from error
    return Json({"status": "ok"})


@router.get(
    "/metrics",
    summary="Figures for Prometheus, on the loopback alone",
    response_class=PlainTextResponse,
    response_model=None,
)
async def metrics(request: Request) -> Response:
    """Tell the figures to whoever asks from this machine, and not through a proxy; 404 for all others."""
    if not _is_local(request):
        raise Problem("NotFound")
    figures: Figures = request.app.state.figures
    return Response(figures.text(), media_type=CONTENT_TYPE_LATEST)


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


__all__ = ["Figures", "Looks", "router"]
