"""Sessions of browsers: a cookie that scripts cannot read, for a grant that is looked at again with each request."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from recfs.web.who.private import PrivateFile
from recfs.web.who.tokens import hash_of

COOKIE: Final = "__Host-recfs"
"""The prefix has browsers take it from this host by TLS alone, for all paths (RFC 6265bis, section 4.1.3.2)."""
HEADER: Final = "X-Recfs-Request"
"""No other site can have a browser send it without being asked first, which is never allowed (CORS)."""
LIFE_S: Final = 12 * 3600
MOST: Final = 10_000
MOST_EACH: Final = 100
"""So many sessions of one grant; the oldest of them ends for another one."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
_VERSION: Final = 1
_match_secret = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII).fullmatch
_match_hash = re.compile(r"[0-9a-f]{64}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class Session:
    """That a browser has shown a token."""

    sha256: str
    """Of what its cookie says."""
    grant_id: str
    created_ns: int
    expires_ns: int


class Sessions:
    """The file of all sessions: they outlive a restart, and end where they are ended."""

    def __init__(self, path: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._file = PrivateFile(path, _parsed)
        self._now_ns = now_ns

    def grant_id(self, secret: str) -> str | None:
        """Whose a cookie is; None for one that is unknown or over. Raises as `PrivateFile.value`."""
        if not _match_secret(secret):
            return None
        # Looked up by the hash: how long that takes tells nothing of the cookies there are.
        session = self._file.value().get(hash_of(secret))
        return session.grant_id if session is not None and self._now_ns() < session.expires_ns else None

    def begin(self, grant_id: str) -> str:
        """Begin one; gives what the cookie has to say. Raises as `PrivateFile.change`. Takes as long as the disk."""
        secret = secrets.token_urlsafe(32)

        def edit(known: Mapping[str, Session]) -> tuple[dict[str, Any], None]:
            now_ns = self._now_ns()
            kept = sorted(
                (each for each in known.values() if now_ns < each.expires_ns), key=lambda each: each.created_ns
            )
            own = [each for each in kept if each.grant_id == grant_id]
            gone = set(own[: max(0, len(own) - MOST_EACH + 1)])
            kept = [each for each in kept if each not in gone][-(MOST - 1) :]
            new = Session(hash_of(secret), grant_id, now_ns, now_ns + LIFE_S * 10**9)
            return _document([*kept, new]), None

        self._file.change(edit)
        return secret

    def end(self, secret: str) -> None:
        """End one, if there is such a one. Raises as `PrivateFile.change`."""
        if not _match_secret(secret) or hash_of(secret) not in self._file.value():
            return
        gone = hash_of(secret)
        self._file.change(lambda known: (_document(each for each in known.values() if each.sha256 != gone), None))


def cookie_of(secret: str, life_s: int = LIFE_S) -> str:
    """The value of Set-Cookie; *life_s* 0 has the browser forget it."""
    return f"{COOKIE}={secret}; Path=/; Max-Age={life_s}; Secure; HttpOnly; SameSite=Strict"


def secret_of(cookies: Iterable[str]) -> str | None:
    """What the cookie says, of all Cookie headers; None where there is none, or more than one."""
    found = [
        value.strip()
        for line in cookies
        for name, equals, value in (each.partition("=") for each in line.split(";"))
        if equals and name.strip() == COOKIE
    ]
    return found[0] if len(found) == 1 else None


def foreign(method: str, headers: Mapping[str, str], origin: str) -> str | None:
    """Why a request with rights that a browser adds by itself is not the page's own; None: it is.

    *headers* by names of any case, *origin* the gateway's own (scheme://host). By Sec-Fetch-Site, which no script can
    set (Fetch Metadata, section 2.4), by Origin where a browser does not send that, and for all that changes something
    by a header of our own. A program that is no browser sends neither of the first two.
    """
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        navigated = method in SAFE and headers.get("sec-fetch-mode") == "navigate"
        if not navigated:
            return f"another site sent it (Sec-Fetch-Site: {site[:20]})"
    if method in SAFE:
        return None
    told = headers.get("origin")
    # Where a browser is told or set to send no Referer, it hides the Origin of its own forms, too (Fetch, 3.1).
    is_hidden = told == "null" and site == "same-origin"
    if told is not None and told.lower() != origin.lower() and not is_hidden:
        return "another site sent it (Origin)"
    if headers.get(HEADER) is None:
        return f"it lacks the header {HEADER}"
    return None


def _parsed(document: dict[str, Any]) -> Mapping[str, Session]:
    if not document:
        return {}
    if document["version"] != _VERSION:
        raise ValueError("of another version")
    found = [
        Session(each["sha256"], each["grant_id"], each["created_ns"], each["expires_ns"])
        for each in document["sessions"]
    ]
    for each in found:
        times: tuple[object, object] = (each.created_ns, each.expires_ns)
        if not _match_hash(each.sha256) or not all(isinstance(time_ns, int) for time_ns in times):
            raise ValueError("no session")
    return {each.sha256: each for each in found}


def _document(sessions: Iterable[Session]) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "sessions": [
            {
                "sha256": each.sha256,
                "grant_id": each.grant_id,
                "created_ns": each.created_ns,
                "expires_ns": each.expires_ns,
            }
            for each in sessions
        ],
    }


__all__ = ["COOKIE", "HEADER", "LIFE_S", "SAFE", "Session", "Sessions", "cookie_of", "foreign", "secret_of"]
