"""Signed links: by them anybody may read one file or below one folder, or put one file, until a time.

A link is a path with `issuer`, `expires`, perhaps `prefix`, and `signature` in its query. It grants no more than its
issuer may at the moment of its use, so it ends with the issuer's token. The signature never appears in a log: of the
query nothing is told anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

from recfs.core.layout import is_id
from recfs.web.problems import Problem
from recfs.web.who.principal import Principal, Via
from recfs.web.who.tokens import Grant, Role, Tokens

MOST_S: Final = 7 * 86_400
USUAL_S: Final = 3600
METHODS: Final = ("GET", "PUT")
"""A link to GET is one to HEAD as well."""
SIGNATURE: Final = "signature"
"""A request with this in its query asks by a link."""
_BASE: Final = "/api/v1/users/"
_VERSION: Final = 1
_PATH_BYTES: Final = 8192
_PARAMETERS: Final = frozenset({"issuer", "expires", "prefix", SIGNATURE})


@dataclass(frozen=True, slots=True)
class Claim:
    """What a link says."""

    method: str
    path: str
    """The path of the URL, percent-decoded (`os.fsdecode`); of a prefix the folder, with "/" at its end."""
    expires_s: int
    """Unix time."""
    issuer: str
    """The id of a grant."""

    @property
    def is_prefix(self) -> bool:
        """Whether it is for all below a folder."""
        return self.path.endswith("/")

    @property
    def user(self) -> str:
        """Whose files it is for."""
        return self.path.removeprefix(_BASE).partition("/")[0]

    def covers(self, method: str, path: str) -> bool:
        """Whether it is for a request; its path has to be one without any way around."""
        wanted = "GET" if method == "HEAD" else method
        if wanted != self.method or not _is_plain(path.removesuffix("/") if self.is_prefix else path):
            return False
        if self.is_prefix:
            return path.startswith(self.path) or path + "/" == self.path
        return path == self.path

    def signed(self, key: bytes) -> str:
        """The signature, in hexadecimal: HMAC-SHA256 over all that it says."""
        what = [_VERSION, self.method, os.fsencode(self.path).hex(), self.expires_s, self.issuer]
        return hmac.new(key, b"recfs-link:" + json.dumps(what).encode("ascii"), hashlib.sha256).hexdigest()


class Links:
    """Makes links, and knows whether one is good."""

    def __init__(self, tokens: Tokens, now_s: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._now_s = now_s

    def issue(self, who: Principal, method: str, path: str, expires_s: float) -> tuple[str, int]:
        """Make one for a path below /api/v1/users/<id>/recordings/<id>; with "/" at its end for all below that.

        Gives the URL (without scheme and host) and when it ends (Unix time). Raises Problem: for foreign files
        "NotFound", for what *who* may not do "NotPermitted", "InvalidArgument".
        """
        if who.via is Via.LINK:
            raise Problem("NotPermitted", "a link makes no links")
        if method not in METHODS:
            raise Problem("InvalidArgument", f"method: one of {', '.join(METHODS)}")
        if not 1 <= expires_s <= MOST_S:
            raise Problem("InvalidArgument", f"expires_s: from 1 s to {MOST_S} s, which is 7 days")
        ends_s = int(self._now_s() + expires_s)
        claim = Claim(method, path, ends_s, who.token_id)
        if not _is_linkable(claim):
            raise Problem("InvalidArgument", "path: of a file in a recording, or with / at its end of a folder there")
        (who.must_see if method == "GET" else who.must_write)(claim.user)
        told: dict[str, Any] = {"issuer": claim.issuer, "expires": ends_s}
        if claim.is_prefix:
            told["prefix"] = quote(path, safe="/", errors="surrogateescape")
        told[SIGNATURE] = claim.signed(self._tokens.key())
        return f"{quote(path, safe='/', errors='surrogateescape')}?{urlencode(told)}", ends_s

    def principal(self, method: str, path: str, query: Mapping[str, list[str]]) -> tuple[Principal, Grant]:
        """Who asks by a link, and its issuer's grant. Raises Problem("NotPermitted") for one that is not good here.

        *path* percent-decoded (`os.fsdecode`), *query* as `urllib.parse.parse_qs` has it. Nobody is told which of the
        things that could be wrong is, but that a link with a right signature has expired.
        """
        refused = Problem("NotPermitted", "this link is not good, or not for this")
        if any(len(values) != 1 for name, values in query.items() if name in _PARAMETERS):
            raise refused
        issuer, expires, signature = (query.get(name, [""])[0] for name in ("issuer", "expires", SIGNATURE))
        prefix = query.get("prefix", [None])[0]
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12 and signature.isascii()):
            raise refused
        if expires.startswith("0"):  # the same number, and another link
            raise refused
        target = path if prefix is None else unquote(prefix, errors="surrogateescape")
        claim = Claim("GET" if method == "HEAD" else method, target, int(expires), issuer)
        if claim.is_prefix != (prefix is not None) or len(target) > _PATH_BYTES:
            raise refused
        key = self._tokens.book().key
        if not key or not hmac.compare_digest(claim.signed(key), signature):
            raise refused
        if not claim.covers(method, path) or not _is_linkable(claim):
            raise refused
        if self._now_s() >= claim.expires_s:
            raise Problem("NotPermitted", "this link has expired")
        grant = self._tokens.of_id(issuer)
        if grant is None or not grant.lets(claim.user):
            raise refused
        if claim.method != "GET" and grant.role is Role.READONLY:
            raise refused
        role = Role.READONLY if claim.method == "GET" else Role.USER
        return Principal(role, frozenset({claim.user}), grant.id, Via.LINK, grant.name), grant


def _is_linkable(claim: Claim) -> bool:
    """Whether it leads into a recording: a link is never for all of a user's files, nor to what is not a file."""
    if claim.method not in METHODS or not claim.path.startswith(_BASE):
        return False
    if not _is_plain(claim.path.removesuffix("/")):
        return False
    parts = claim.path.removeprefix(_BASE).removesuffix("/").split("/")
    least = 3 if claim.is_prefix else 4
    if len(parts) < least or parts[1] != "recordings":
        return False
    if claim.is_prefix and claim.method != "GET":
        return False
    return all(is_id(part.encode("utf-8", "surrogateescape")) for part in (parts[0], parts[2]))


def _is_plain(path: str) -> bool:
    """Whether every name of a path is one, so that it leads where it seems to."""
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        return False
    names = raw.split(b"/")[1:]
    return raw.startswith(b"/") and b"\0" not in raw and not any(name in (b"", b".", b"..") for name in names)


__all__ = ["METHODS", "MOST_S", "SIGNATURE", "USUAL_S", "Claim", "Links"]
