"""The addresses of pages, and of what they load."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from recfs.errors import RecfsError
from recfs.web.answers import Json
from recfs.web.context import context_of
from recfs.web.limiters import in_thread
from recfs.web.page import operating, overview, recordings
from recfs.web.page.frame import LANGUAGE, Build, form_of, language_of, refused, rendered, shown, within
from recfs.web.page.texts import LANGUAGES, Texts
from recfs.web.problems import Problem
from recfs.web.who.sessions import HEADER, cookie_of, foreign, secret_of

logger = logging.getLogger(__name__)
router: Final = APIRouter(include_in_schema=False)
_HERE: Final = Path(__file__).parent
_FOLDERS: Final = ("static", "vendor")
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_YEAR_S: Final = 365 * 86_400


@dataclass(frozen=True, slots=True)
class _Loaded:
    body: bytes
    etag: str
    kind: str


@cache
def loaded() -> dict[str, _Loaded]:
    """What pages load, by its address: read once, so no request opens a file by a name of its own."""
    found = {}
    for folder in _FOLDERS:
        for path in sorted((_HERE / folder).iterdir()):
            if path.suffix in _TYPES:
                body = path.read_bytes()
                found[f"{folder}/{path.name}"] = _Loaded(
                    body, f'"{hashlib.sha256(body).hexdigest()}"', _TYPES[path.suffix]
                )
    return found


@router.get("/page/texts/{language}")
async def texts(language: str) -> Response:
    """What scripts say, in a language."""
    if language not in LANGUAGES:
        raise Problem("NotFound")
    return Json(Texts(language).for_scripts())


@router.get("/page/{folder}/{name}")
async def part(request: Request, folder: str, name: str) -> Response:
    """A part of all pages: a style sheet, a script, an icon. These are the same for everybody."""
    found = loaded().get(f"{folder}/{name}")
    if found is None:
        raise Problem("NotFound")
    headers = {
        "ETag": found.etag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": "default-src 'none'",
    }  # fmt: skip
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type=found.kind)


@router.get("/login")
async def login(request: Request) -> Response:
    """Where a token is asked for."""
    return _login(request, within(request.query_params.get("back", "/")))


@router.post("/login")
async def enter(request: Request) -> Response:
    """Begin a session for whoever has a token."""
    try:
        _own(request)
        form = await form_of(request)
    except Problem as problem:
        return refused(request, problem)
    back, t = within(form.get("back", "/")), Texts(language_of(request))
    context = context_of(request)
    try:
        grant_id = context.gate.login(request, form.get("token", ""))
        secret = await in_thread(context.limiters.calls, lambda: context.gate.sessions.begin(grant_id))
    except Problem as problem:
        if problem.type != "Unauthorized":
            return refused(request, problem)
        return _login(request, back, t("login.refused"), 403)
    except (RecfsError, OSError):
        logger.exception("a session could not be begun")
        return refused(request, Problem("InternalError"))
    return RedirectResponse(back, 303, {"Set-Cookie": cookie_of(secret), "Cache-Control": "no-store"})


@router.post("/logout")
async def leave(request: Request) -> Response:
    """End the session."""
    try:
        _own(request)
    except Problem as problem:
        return refused(request, problem)
    context = context_of(request)
    secret = secret_of(request.headers.getlist("cookie"))
    if secret is not None:
        ended = secret
        try:
            await in_thread(context.limiters.calls, lambda: context.gate.sessions.end(ended))
        except (RecfsError, OSError):
            logger.exception("a session could not be ended")
            return refused(request, Problem("InternalError"))
    return RedirectResponse("/login", 303, {"Set-Cookie": cookie_of("", 0), "Cache-Control": "no-store"})


@router.post("/language")
async def language(request: Request) -> Response:
    """Keep which language somebody wants."""
    try:
        _own(request)
        form = await form_of(request)
    except Problem as problem:
        return refused(request, problem)
    wanted = form.get("language", "")
    answer = RedirectResponse(within(form.get("back", "/")), 303, {"Cache-Control": "no-store"})
    if wanted in LANGUAGES:
        answer.set_cookie(LANGUAGE, wanted, max_age=_YEAR_S, path="/", httponly=True, samesite="lax")
    return answer


def _own(request: Request) -> None:
    """Raise Problem("NotPermitted") for a form of another site. Forms lack the header that scripts send."""
    gate = context_of(request).gate
    told = dict(request.headers.items())
    why = foreign(request.method, {**told, HEADER: "form"}, gate.origin(gate.proxies.peer(request.scope)))
    if why is None and "origin" not in told and "sec-fetch-site" not in told:
        why = "a form comes with Origin"
    if why is not None:
        raise Problem("NotPermitted", why)


def _login(request: Request, back: str, told: str = "", status: int = 200) -> Response:
    t = Texts(language_of(request))
    return rendered(request, "login.html", {"title": t("login.title"), "back": back, "refused": told}, status=status)


def _page(address: str, template: str, build: Build) -> None:
    async def page(request: Request) -> Response:
        return await shown(request, template, build)

    router.add_api_route(address, page, methods=["GET"], name=template)


_page("/", "overview.html", overview.overview)
_page("/uploads", "uploads.html", recordings.uploads)
_page("/recordings", "recordings.html", recordings.recordings)
_page("/recordings/{user}/{recording}", "player.html", recordings.player)
_page("/expirations", "expirations.html", operating.expirations)
_page("/queue", "queue.html", operating.queue)
_page("/costs", "costs.html", operating.costs)
_page("/admin", "admin.html", operating.admin)

__all__ = ["loaded", "router"]
