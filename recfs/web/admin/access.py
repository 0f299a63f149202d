"""Routes of who may: sessions of browsers, signed links, and the tokens themselves."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from recfs.errors import Exists, InvalidArgument, NotFound
from recfs.web.admin import asking
from recfs.web.admin.asking import REFUSALS, Who
from recfs.web.answers import Json
from recfs.web.context import context_of
from recfs.web.limiters import in_thread
from recfs.web.problems import Problem
from recfs.web.who.guarded import Bounded, Guarded
from recfs.web.who.links import MOST_S, USUAL_S
from recfs.web.who.principal import Principal, Role, Via
from recfs.web.who.sessions import COOKIE, cookie_of, secret_of
from recfs.web.who.texts import TreePath

router = APIRouter(tags=["access"], route_class=Guarded, responses=REFUSALS)
login = APIRouter(tags=["access"], route_class=Bounded, responses=REFUSALS)
_NS = 10**9


class Login(asking.Body):
    """What a browser is let in by."""

    token: str = Field(max_length=200, examples=["recfs_4f1d…_…"])


class WantedLink(asking.Body):
    """What a link is to be good for."""

    path: TreePath = Field(
        examples=["users/5/recordings/142/video.mp4", "users/5/recordings/142/"],
        description="Below /api/v1, not percent-encoded: a file, or with / at its end all in a recording or a folder",
    )  # fmt: skip
    method: str = Field("GET", examples=["GET", "PUT"], description="GET is for HEAD as well; PUT for one file")
    expires_s: int = Field(USUAL_S, ge=1, le=MOST_S, description="How long it is good, in seconds")


class WantedToken(asking.Body):
    """A grant to be made."""

    role: Role = Field(strict=False)
    users: list[str] = Field(default_factory=list, max_length=1000, examples=[["5"]])
    name: str = Field("", max_length=100, examples=["the encoder"])
    expires_s: float | None = Field(None, gt=0, le=1e9, description="In seconds from now; null: never")
    subject: str | None = Field(None, max_length=100, description="Instead of a token: whom the trusted proxy names so")


class Link(BaseModel):
    """A signed link."""

    url: str = Field(
        examples=["/api/v1/users/5/recordings/142/video.mp4?issuer=9c1f0e5a7b32&expires=1796060562&signature=…"],
        description="with scheme and host where `[serve] url` is set; keep it from logs: whoever has it is let in",
    )  # fmt: skip
    method: str
    expires: str = Field(examples=["2026-11-30T18:02:42Z"])


class Known(BaseModel):
    """Who is let in."""

    role: Role
    users: list[str] = Field(description="whose files it is for; of an admin none, for all are")
    token: str = Field(examples=["9c1f0e5a7b32"], description="the id of the grant")
    via: Via
    name: str


class Granted(BaseModel):
    """A grant."""

    id: str = Field(examples=["9c1f0e5a7b32"])
    role: Role
    users: list[str]
    name: str
    subject: str | None
    created_ns: int
    expires_ns: int | None
    revoked_ns: int | None


class Listed(Granted):
    """A grant, in the list of all."""

    good: bool = Field(description="neither revoked nor expired")


class Made(Granted):
    """A grant that was made."""

    token: str | None = Field(description="told this once; none of a subject", examples=["recfs_9c1f0e5a7b32_qh0T…"])


@login.post("/session", status_code=204, summary="Log in by a token", response_model=None)
async def begin(request: Request, wanted: Annotated[Login, Body()]) -> Response:
    """Begin a session: the answer sets a cookie that scripts cannot read. It is good for 12 hours, and no longer than
    the token is.
    """
    context = context_of(request)
    context.gate.check_same_origin(request)
    grant_id = context.gate.login(request, wanted.token)
    secret = await in_thread(context.limiters.calls, lambda: context.gate.sessions.begin(grant_id))
    return Response(None, 204, {"Set-Cookie": cookie_of(secret), "Cache-Control": "no-store"})


@router.get("/session", summary="Who is let in, and for what", response_model=None, responses={200: {"model": Known}})
async def session(who: Who) -> Response:
    """Tell whoever asks who they are to the gateway."""
    return Json(
        {
            "role": who.role.value,
            "users": sorted(who.users),
            "token": who.token_id,
            "via": who.via.value,
            "name": who.name,
        }
    )


@login.delete("/session", status_code=204, summary="Log out", response_model=None)
async def end(request: Request) -> Response:
    """End the session: its cookie is good for nothing from now on. Nobody needs to have one."""
    context = context_of(request)
    context.gate.check_same_origin(request)
    secret = secret_of(request.headers.getlist("cookie"))
    if secret is not None:
        known = secret
        await in_thread(context.limiters.calls, lambda: context.gate.sessions.end(known))
    return Response(None, 204, {"Set-Cookie": cookie_of("", 0), "Cache-Control": "no-store"})


@router.post(
    "/links", status_code=201, summary="Make a signed link", response_model=None, responses={201: {"model": Link}}
)
async def link(request: Request, who: Who, wanted: Annotated[WantedLink, Body()]) -> Response:
    """Make an URL by which anybody reads one file or all below a folder, or puts one file, until a time.

    It grants no more than the token that it was made with may when it is used, and is dead as soon as that is revoked.
    """
    context = context_of(request)
    gate = context.gate
    path = f"/api/v1/{wanted.path.removeprefix('/api/v1').lstrip('/')}"
    url, ends_s = gate.links.issue(who, wanted.method, path, wanted.expires_s)
    _tell(request, link={"method": wanted.method, "path": path, "expires_s": ends_s})
    expires = datetime.fromtimestamp(ends_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Json({"url": (context.settings.url or "") + url, "method": wanted.method, "expires": expires}, 201)


@router.get("/tokens", summary="List all tokens", response_model=None, responses={200: {"model": list[Listed]}})
async def tokens(request: Request, who: Who) -> Response:
    """List what was granted, also what was revoked or has expired; the tokens themselves nobody knows."""
    _must_manage(who)
    now_ns = time.time_ns()
    book = context_of(request).gate.tokens.book()
    return Json([each.as_json() | {"good": each.holds(now_ns)} for each in book.by_id.values()])


@router.post("/tokens", status_code=201, summary="Make a token", response_model=None, responses={201: {"model": Made}})
async def add(request: Request, who: Who, wanted: Annotated[WantedToken, Body()]) -> Response:
    """Grant something. The answer has the token, which is told this once."""
    _must_manage(who)
    context = context_of(request)
    expires_ns = None if wanted.expires_s is None else time.time_ns() + round(wanted.expires_s * _NS)
    granted = lambda: context.gate.tokens.add(wanted.role, wanted.users, wanted.name, expires_ns, wanted.subject)  # noqa: E731
    try:
        grant, token = await in_thread(context.limiters.calls, granted)
    except Exists as error:
        raise Problem("Exists", str(error)) from error
    except InvalidArgument as error:
        raise Problem("InvalidArgument", str(error)) from error
    _tell(request, granted=grant.as_json())
    return Json(grant.as_json() | {"token": token}, 201)


@router.delete("/tokens/{token_id}", summary="Revoke a token", response_model=None, responses={200: {"model": Granted}})
async def revoke(request: Request, who: Who, token_id: str) -> Response:
    """Take a token back, with its sessions and links: the next request by any of them is refused."""
    _must_manage(who)
    context = context_of(request)
    try:
        grant = await in_thread(context.limiters.calls, lambda: context.gate.tokens.revoke(token_id))
    except NotFound as error:
        raise Problem("NotFound") from error
    _tell(request, revoked=grant.id)
    return Json(grant.as_json())


def _must_manage(who: Principal) -> None:
    who.must_admin()
    if who.via is Via.LINK:  # links are never an admin's, whoever has made them
        raise Problem("NotPermitted")


def _tell(request: Request, **told: Any) -> None:
    """Have it in the audit log."""
    access = getattr(request.state, "access", None)
    if access is not None:
        access.told.update(told)


__all__ = ["COOKIE", "login", "router"]
