"""The gate: whoever asks comes through here, by a token, a session, a link, or a trusted proxy's word."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from recfs.errors import RecfsError
from recfs.web.problems import Problem
from recfs.web.settings import Settings
from recfs.web.who.limits import Rate, too_many
from recfs.web.who.links import SIGNATURE, Links
from recfs.web.who.principal import Principal, Via
from recfs.web.who.proxy import Peer, Proxies
from recfs.web.who.sessions import Sessions, foreign, secret_of
from recfs.web.who.tokens import TOKENS, Grant, Role, Tokens

if TYPE_CHECKING:
    from starlette.requests import Request

logger = logging.getLogger(__name__)

SESSIONS: Final = "sessions.json"
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="recfs"'}
_REFUSED_PER_S: Final = 10.0
_REFUSED_BURST: Final = 100
_MOST_FIELDS: Final = 64
_TOKEN_CHARS: Final = 200
_REFUSED: Final = "too many of your requests were refused"


class Gate:
    """Knows all that lets somebody in, and asks their files with each request: what was taken back is so at once.

    That is one stat(2) of a small file of the gateway's own disk, and no call that the mount could hold up, so it is
    made in the event loop.
    """

    def __init__(self, settings: Settings, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self.tokens = Tokens(settings.directory / TOKENS, now_ns)
        self.sessions = Sessions(settings.directory / SESSIONS, now_ns)
        self.links = Links(self.tokens, lambda: now_ns() / 1e9)
        self.proxies = Proxies(settings.proxies, settings.subject_header)
        self._url = settings.url
        self._asked = Rate(settings.requests_per_s, settings.requests_burst)
        self._refused = Rate(_REFUSED_PER_S, _REFUSED_BURST)

    def principal(self, request: Request) -> Principal:
        """Who asks. Raises Problem("Unauthorized"), Problem("NotPermitted"), Problem("TooManyRequests")."""
        address = self.noted_address(request)
        try:
            found = self._found(request)
        except RecfsError as error:
            raise self._unusable(error) from error
        except Problem:
            wait_s = self._refused.take(address)
            if wait_s:
                raise too_many(_REFUSED, wait_s) from None
            raise
        self._asked.check(f"{found.via.value} {found.token_id}")
        return found

    def login(self, request: Request, token: str) -> str:
        """The id of the grant of a token that somebody logs in with. Raises Problem, as `principal`."""
        address = self.noted_address(request)
        try:
            grant = self.tokens.of_token(token.strip())
        except RecfsError as error:
            raise self._unusable(error) from error
        if grant is None:
            wait_s = self._refused.take(address)
            raise too_many(_REFUSED, wait_s) if wait_s else Problem("Unauthorized", "this token is not good")
        self._asked.check(f"login {grant.id}")  # each session is synced to the disk
        return grant.id

    def still(self, principal: Principal) -> bool:
        """Whether it would be let in now: what is answered for a long time asks again and again."""
        try:
            grant = self.tokens.of_id(principal.token_id)
        except RecfsError:
            return False
        if grant is None or (principal.is_admin and grant.role is not Role.ADMIN):
            return False
        return all(map(grant.lets, principal.users))

    def noted_address(self, request: Request) -> str:
        """Where a request came from, as trusted proxies say; noted for the audit log."""
        address = self.proxies.peer(request.scope).address
        access = getattr(request.state, "access", None)
        if access is not None:
            access.address = address
        return address

    def origin(self, peer: Peer) -> str:
        """The gateway's own, as browsers tell it: scheme://host."""
        return self._url or f"{peer.scheme}://{peer.host}"

    def check_same_origin(self, request: Request) -> None:
        """Raise Problem("NotPermitted") for a request that another site had the browser send."""
        why = foreign(request.method, request.headers, self.origin(self.proxies.peer(request.scope)))
        if why is not None:
            raise Problem("NotPermitted", why)

    def _found(self, request: Request) -> Principal:
        """By the first of these that is there: what is wrong is refused, and never tried in another way."""
        if SIGNATURE in request.query_params:
            raw = request.scope["query_string"].decode("latin-1")
            try:
                query = parse_qs(raw, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
            except ValueError as error:
                raise Problem("BadRequest", "the query has too many fields") from error
            return self.links.principal(request.method, request.scope["path"], query)[0]
        told = request.headers.getlist("authorization")
        if told:
            return self._of_token(told)
        secret = secret_of(request.headers.getlist("cookie"))
        if secret is not None:
            found = self._of_session(secret)
            if found is not None:
                self.check_same_origin(request)
                return found
        subject = self.proxies.subject(request.scope)
        if subject is not None:
            grant = self.tokens.of_subject(subject)
            if grant is None:
                raise Problem("NotPermitted", "nothing is granted to this person")
            self.check_same_origin(request)
            return _principal(grant, Via.PROXY)
        raise Problem("Unauthorized", headers=_CHALLENGE)

    def _unusable(self, error: RecfsError) -> Problem:
        """Nobody is let in by a file that must not be trusted; the reason is for the log alone."""
        logger.error("nobody is let in: %s", error)
        return Problem("InternalError")

    def _of_token(self, told: list[str]) -> Principal:
        scheme, _, token = told[0].strip().partition(" ")
        token = token.strip()
        grant = None
        if len(told) == 1 and scheme.lower() == "bearer" and len(token) <= _TOKEN_CHARS and token.isascii():
            grant = self.tokens.of_token(token)
        if grant is None:
            challenge = {"WWW-Authenticate": 'Bearer realm="recfs", error="invalid_token"'}  # RFC 6750, section 3.1
            raise Problem("Unauthorized", "this token is not good", headers=challenge)
        return _principal(grant, Via.TOKEN)

    def _of_session(self, secret: str) -> Principal | None:
        grant_id = self.sessions.grant_id(secret)
        grant = None if grant_id is None else self.tokens.of_id(grant_id)
        return None if grant is None else _principal(grant, Via.SESSION)


def _principal(grant: Grant, via: Via) -> Principal:
    return Principal(grant.role, grant.users, grant.id, via, grant.name)


__all__ = ["SESSIONS", "Gate"]
