"""The application: all routes together, every refusal a problem document."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp

from recfs import __version__
from recfs.client.errors import ClientError
from recfs.errors import RecfsError
from recfs.web import health, listening
from recfs.web.accesses import Accesses
from recfs.web.admin import access, figures, looking, work
from recfs.web.context import Context
from recfs.web.description import describe
from recfs.web.page import routes as page
from recfs.web.platform import routes as platform
from recfs.web.problems import Problem, problem_of
from recfs.web.recordings import routes as recordings
from recfs.web.uploads import chunks, put, tus
from recfs.web.uploads.answers import refuse as refuse_upload
from recfs.web.uploads.errors import UploadError
from recfs.web.uploads.service import Uploads

API: Final = "/api/v1"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OF_STATUS: Final = {
    400: "BadRequest", 401: "Unauthorized", 403: "NotPermitted", 404: "NotFound", 405: "MethodNotAllowed",
    406: "NotAcceptable", 413: "PayloadTooLarge", 415: "UnsupportedMediaType", 429: "TooManyRequests",
}  # fmt: skip


def build(context: Context) -> FastAPI:
    """Make the application of a gateway. What it serves to the outside is `outside(application)`."""
    app = FastAPI(
        title="recfs", version=__version__, summary="Recordings by HTTP", openapi_url=f"{API}/openapi.json",
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    attach(app, context)
    describe(app)
    app.add_exception_handler(Exception, _refuse)
    app.add_exception_handler(Problem, _refuse)
    app.add_exception_handler(UploadError, refuse_upload)
    app.add_exception_handler(OSError, _refuse)
    app.add_exception_handler(ClientError, _refuse)
    app.add_exception_handler(RecfsError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(RequestValidationError, _refuse_values)
    app.include_router(health.router)
    app.include_router(recordings.router, prefix=API)
    for router in (
        access.login, access.router, listening.router, figures.router, work.router, looking.router,
    ):  # fmt: skip
        app.include_router(router, prefix=API)
    for router in (tus.router, chunks.router, put.router, platform.router):
        app.include_router(router, prefix=API)
    app.include_router(page.router)
    return app


def attach(app: FastAPI, context: Context) -> None:
    """Have an application answer from a context, with figures of its own."""
    app.state.context = context
    app.state.figures = health.Figures(context)
    app.state.looks = health.Looks(context)
    context.listeners.append(app.state.figures.told)
    uploads = Uploads(context.tree.folder, calls=context.limiters.calls, writes=context.limiters.writes)
    app.state.uploads = uploads
    context.endings.append(uploads.end)


def outside(app: FastAPI) -> ASGIApp:
    """The application with what is around it: what a server is given, and tests of the whole are."""
    context: Context = app.state.context
    return Accesses(app, context.listeners)


async def _refuse(_request: Request, error: Exception) -> Response:
    return problem_of(error).response()


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))  # the framework names those of one of the routes alone
    kind = _OF_STATUS.get(error.status_code, "InternalError" if error.status_code >= 500 else "BadRequest")
    return Problem(kind, status=error.status_code, headers=headers).response()


def _allowed(request: Request) -> list[str]:
    """The methods that are offered at a path (RFC 9110, 10.2.1)."""
    routes: list[BaseRoute] = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


async def _refuse_values(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"in": ".".join(map(str, each["loc"][:-1])), "name": str(each["loc"][-1]), "why": each["msg"]}
        for each in error.errors()
    ]
    told = "; ".join(f"{each['name']}: {each['why']}" for each in errors)
    return Problem("InvalidArgument", told, errors=errors).response()


__all__ = ["API", "attach", "build", "outside"]
