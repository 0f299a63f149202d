"""Who asks: what every route looks at before it does anything, and all that it has to look at."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from recfs.web.problems import Problem
from recfs.web.who.tokens import Role


class Via(enum.StrEnum):
    """How whoever asks was known."""

    TOKEN = "token"
    SESSION = "session"
    PROXY = "proxy"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what they may: good for one request, since it may be taken back before the next."""

    role: Role
    users: frozenset[str]
    """Ids of the users whose files these are; of an admin empty, for all are."""
    token_id: str
    """Of the grant; of a link its issuer's."""
    via: Via
    name: str = ""
    """What the grant is called."""

    @property
    def is_admin(self) -> bool:
        """Whether everything is allowed."""
        return self.role is Role.ADMIN

    def sees(self, user: str) -> bool:
        """Whether a user's files may be read, and are known to be there at all."""
        return self.role is Role.ADMIN or user in self.users

    def writes(self, user: str) -> bool:
        """Whether a user's files may be made, changed and removed."""
        return self.role is not Role.READONLY and self.sees(user)

    def must_see(self, user: str) -> None:
        """Raise Problem("NotFound") for a foreign user: whether there is one is not told."""
        if not self.sees(user):
            raise Problem("NotFound")

    def must_write(self, user: str) -> None:
        """Raise Problem("NotFound") for a foreign user, Problem("NotPermitted") where files may be read alone."""
        self.must_see(user)
        if not self.writes(user):
            raise Problem("NotPermitted", "this token is for reading")

    def must_admin(self) -> None:
        """Raise Problem("NotPermitted") for all but an admin."""
        if not self.is_admin:
            raise Problem("NotPermitted", "this takes the role admin")


class Authenticator(Protocol):
    """Who knows all tokens, sessions, proxies and links: `recfs.web.who.gate.Gate`."""

    def principal(self, request: Request) -> Principal:
        """Who asks. Raises Problem("Unauthorized"), Problem("NotPermitted"), Problem("TooManyRequests")."""


async def authenticate(request: Request) -> Principal:
    """Give who asks; for `Depends(authenticate)`. Raises Problem.

    It is found once for a request, by what the tokens' file says now, and noted for the audit log.
    """
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    gate: Authenticator = request.app.state.context.gate
    found = gate.principal(request)
    request.state.principal = found
    access = getattr(request.state, "access", None)
    if access is not None:
        access.token_id, access.via = found.token_id, found.via.value
    return found


__all__ = ["Authenticator", "Principal", "Role", "Via", "authenticate"]
