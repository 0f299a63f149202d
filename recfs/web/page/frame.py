"""What every page has: who looks, in which language, what a browser may load, and a page for what was refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from recfs.web.accesses import Accesses
from recfs.web.context import context_of
from recfs.web.page.inside import Api, Refused
from recfs.web.page.texts import LANGUAGES, Texts, chosen
from recfs.web.problems import Problem
from recfs.web.who.principal import Principal, authenticate

LANGUAGE: Final = "recfs-language"
"""The cookie that keeps which language somebody chose."""
NAMES: Final = {"en": "English", "de": "Deutsch", "ru": "Русский"}
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every page: nothing runs and nothing is loaded but what the gateway itself serves."""
_NAV: Final = (
    ("overview", "/", False), ("uploads", "/uploads", False), ("recordings", "/recordings", False),
    ("expirations", "/expirations", False), ("queue", "/queue", True), ("costs", "/costs", True),
    ("admin", "/admin", True),
)  # fmt: skip
"""Name, address, and whether it is for admins alone."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something of a page is not there, in the reader's language as far as it is known."""

    title: str
    detail: str = ""
    kind: str = ""


class Look:
    """Somebody looking at a page."""

    def __init__(self, request: Request, who: Principal) -> None:
        self.request = request
        self.who = who
        self.t = Texts(language_of(request))
        app = request.app
        self.api = Api(request, Accesses(app, context_of(request).listeners))
        self.failures: list[Failure] = []
        """What could not be had: told at the top of the page, which has the rest."""

    async def had(self, *path: str, **query: object) -> Any:
        """Ask the API; None where it refuses, which the page tells. Raises Refused for who is not let in any more."""
        try:
            return await self.api.get(*path, **query)
        except Refused as refused:
            if refused.status == 401:
                raise
            failure = failure_of(self.t, refused)
            if failure not in self.failures:
                self.failures.append(failure)
            return None

    def asked(self, name: str, known: Mapping[str, Any] | tuple[str, ...], usual: str) -> str:
        """Give what the address says of that name, if it is one of the *known*."""
        value = self.request.query_params.get(name, usual)
        return value if value in known else usual


Build = Callable[[Look], Awaitable[dict[str, Any]]]


def language_of(request: Request) -> str:
    """The language somebody wants."""
    return chosen(request.headers.get("accept-language", ""), request.cookies.get(LANGUAGE))


def failure_of(t: Texts, refused: Refused | Problem) -> Failure:
    """Say in the reader's language what was refused; details come as the gateway tells them."""
    kind = refused.kind if isinstance(refused, Refused) else refused.type
    key = t.known("problem", kind)
    return Failure(key if key != kind else refused.title or t("failed.unknown"), refused.detail or "", kind)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip


def rendered(
    request: Request, template: str, values: Mapping[str, Any], *, status: int = 200, who: Principal | None = None
) -> Response:
    """Make a page. Names that are no UTF-8 have question marks in place of what cannot be shown."""
    t = Texts(language_of(request))
    here = template.removesuffix(".html")
    shown = [(name, href) for name, href, for_admins in _NAV if not for_admins or (who is not None and who.is_admin)]
    told = {
        "t": t, "viewer": None if who is None else viewer(t, who), "here": here, "languages": LANGUAGES, "names": NAMES,
        "back": address_of(request), "failures": (),
        "nav": [(name, href, f"{name}.title") for name, href in shown],
        **values,
    }  # fmt: skip
    html = _templates().get_template(template).render(told)
    return Response(html.encode("utf-8", "replace"), status, HEADERS, "text/html; charset=utf-8")


def viewer(t: Texts, who: Principal) -> dict[str, str]:
    """Who looks, for the page's edge."""
    return {"name": who.name or t("nav.nameless"), "role": who.role.value}


def address_of(request: Request) -> str:
    """The address somebody looks at, within this site."""
    query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "back"])
    path = request.url.path if request.method == "GET" and request.url.path != "/login" else "/"
    return f"{path}?{query}" if query and path != "/" else path


def within(address: str) -> str:
    """Give an address of this site, or the overview for any other: a link may not lead people elsewhere."""
    plain = address.startswith("/") and address.isascii() and address.isprintable()
    return address if plain and not address.startswith("//") and "\\" not in address else "/"


async def shown(request: Request, template: str, build: Build) -> Response:
    """Answer with a page, to whoever may see it; others are asked for a token."""
    try:
        who = await authenticate(request)
    except Problem as problem:
        return refused(request, problem)
    look = Look(request, who)
    try:
        values = await build(look)
    except Refused as problem:
        return refused(request, problem, who)
    except Problem as problem:
        return refused(request, problem, who)
    return rendered(request, template, {"failures": look.failures, **values}, who=who)


def refused(request: Request, problem: Problem | Refused, who: Principal | None = None) -> Response:
    """Have whoever is not known log in, and tell others why there is no page."""
    if problem.status == 401:
        back = address_of(request)
        query = f"?{urlencode({'back': back})}" if back != "/" else ""
        return RedirectResponse(f"/login{query}", 303, {"Cache-Control": "no-store"})
    failure = failure_of(Texts(language_of(request)), problem)
    return rendered(request, "failed.html", {"title": failure.title, "told": failure}, status=problem.status, who=who)


async def form_of(request: Request, most_bytes: int = 4096) -> dict[str, str]:
    """Give the fields of a small form. Raises Problem("PayloadTooLarge"), Problem("UnsupportedMediaType")."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Problem("UnsupportedMediaType")
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > most_bytes:
            raise Problem("PayloadTooLarge")
    try:
        return dict(parse_qsl(body.decode("ascii"), max_num_fields=16))
    except ValueError:
        raise Problem("BadRequest") from None


__all__ = [
    "HEADERS", "LANGUAGE", "Build", "Failure", "Look", "address_of", "failure_of", "form_of", "language_of", "refused",
    "rendered", "shown", "viewer", "within",
]  # fmt: skip
