"""Tokens: who may use the gateway, as what, and for which users. Kept hashed, in a file of the gateway's own."""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from recfs.core.layout import is_id
from recfs.errors import Exists, InvalidArgument, NotFound
from recfs.web.who.private import PrivateFile

TOKENS: Final = "tokens.json"
"""The name of the file, in the gateway's own directory."""
SECRET_BYTES: Final = 32
ID_CHARS: Final = 12
MOST: Final = 10_000
"""So many tokens are kept, with those that were revoked."""
MOST_USERS: Final = 1000
NAME_CHARS: Final = 100
_VERSION: Final = 1
_match_token = re.compile(r"recfs_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII).fullmatch
_match_id = re.compile(r"[0-9a-f]{12}", re.ASCII).fullmatch
_match_hash = re.compile(r"[0-9a-f]{64}", re.ASCII).fullmatch
_NOBODY: Final = hashlib.sha256(b"").hexdigest()


class Role(enum.StrEnum):
    """What a token is good for."""

    ADMIN = "admin"
    """Everything, of all users."""
    USER = "user"
    """Reading and writing the files of its users."""
    READONLY = "readonly"
    """Reading them."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What was granted: to whoever has a token, or whom the trusted proxy names."""

    id: str
    role: Role
    users: frozenset[str]
    """Ids of users (users/<id>); empty for an admin, whose all are."""
    name: str
    """What it is for, in its giver's words."""
    created_ns: int
    """Wall clock, like all times here."""
    expires_ns: int | None
    revoked_ns: int | None
    sha256: str | None
    """Of the secret, in hexadecimal. A slow hash would add nothing: nobody guesses 256 random bits."""
    subject: str | None
    """Instead of a secret: what the trusted proxy calls this person."""

    def holds(self, now_ns: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_ns is None and (self.expires_ns is None or now_ns < self.expires_ns)

    def lets(self, user: str) -> bool:
        """Whether it is for the files of a user."""
        return self.role is Role.ADMIN or user in self.users

    def as_json(self) -> dict[str, Any]:
        """What may be told of it, which is all but the hash."""
        return {
            "id": self.id,
            "role": self.role.value,
            "users": sorted(self.users),
            "name": self.name,
            "subject": self.subject,
            "created_ns": self.created_ns,
            "expires_ns": self.expires_ns,
            "revoked_ns": self.revoked_ns,
        }


@dataclass(frozen=True, slots=True)
class Book:
    """All grants, at one moment."""

    by_id: Mapping[str, Grant]
    by_subject: Mapping[str, Grant]
    key: bytes
    """By which links and sessions are signed; empty as long as there is no grant."""


class Tokens:
    """The file of all grants. Each question is answered by what it says now, whoever changed it."""

    def __init__(self, path: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._file = PrivateFile(path, _parsed)
        self._now_ns = now_ns

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._file.path

    def book(self) -> Book:
        """All of it. Raises ConfigError, NotAllowed where the file must not be trusted or cannot be read."""
        return self._file.value()

    def of_token(self, token: str) -> Grant | None:
        """The grant of a token that is good now; None for any other. Raises as `book`.

        The time it takes tells nothing of the secret: only hashes are compared, and by `hmac.compare_digest`, also
        for an id that there is not.
        """
        found = _match_token(token)
        if found is None:
            return None
        grant = self.book().by_id.get(found[1])
        known = _NOBODY if grant is None or grant.sha256 is None else grant.sha256
        same = hmac.compare_digest(hash_of(found[2]), known)
        return grant if same and grant is not None and grant.holds(self._now_ns()) else None

    def of_subject(self, subject: str) -> Grant | None:
        """The grant of whom the trusted proxy calls so, if it is good now. Raises as `book`."""
        grant = self.book().by_subject.get(subject)
        return grant if grant is not None and grant.holds(self._now_ns()) else None

    def of_id(self, grant_id: str) -> Grant | None:
        """The grant of that id, if it is good now. Raises as `book`."""
        grant = self.book().by_id.get(grant_id)
        return grant if grant is not None and grant.holds(self._now_ns()) else None

    def key(self) -> bytes:
        """By which links and sessions are signed. Raises as `book`, NotFound while nothing was granted."""
        key = self.book().key
        if not key:
            raise NotFound(f"{self.path}: nothing is granted yet; `recfs token add` does that")
        return key

    def add(
        self,
        role: Role,
        users: Iterable[str],
        name: str = "",
        expires_ns: int | None = None,
        subject: str | None = None,
    ) -> tuple[Grant, str | None]:
        """Grant something; gives the token, which nobody is told again, or None for a *subject*.

        Raises InvalidArgument, Exists (a subject who has a grant), OSError, and as `book`.
        """
        asked = frozenset(users)
        _check(role, asked, name, subject)
        secret = None if subject is not None else secrets.token_urlsafe(SECRET_BYTES)

        def edit(book: Book) -> tuple[dict[str, Any], Grant]:
            now_ns = self._now_ns()
            if len(book.by_id) >= MOST:
                raise InvalidArgument(f"{self.path} has {MOST:,} tokens already")
            if expires_ns is not None and expires_ns <= now_ns:
                raise InvalidArgument("a token that has expired already is good for nothing")
            before = book.by_subject.get(subject) if subject is not None else None
            if before is not None and before.holds(now_ns):
                raise Exists(f"{subject!r} has the grant {before.id} already: revoke that first")
            grant_id = next(each for each in iter(_new_id, "") if each not in book.by_id)
            hashed = None if secret is None else hash_of(secret)
            grant = Grant(grant_id, role, asked, name, now_ns, expires_ns, None, hashed, subject)
            return _document([*book.by_id.values(), grant], book.key or secrets.token_bytes(32)), grant

        grant = self._file.change(edit)
        return grant, None if secret is None else f"recfs_{grant.id}_{secret}"

    def revoke(self, grant_id: str) -> Grant:
        """Take a grant back, for good. Raises NotFound, OSError, and as `book`."""

        def edit(book: Book) -> tuple[dict[str, Any], Grant]:
            grant = book.by_id.get(grant_id)
            if grant is None:
                raise NotFound(f"{self.path} has no token {grant_id[:40]!r}")
            if grant.revoked_ns is None:
                grant = replace(grant, revoked_ns=self._now_ns())
            return _document({**book.by_id, grant_id: grant}.values(), book.key), grant

        return self._file.change(edit)


def hash_of(secret: str) -> str:
    """SHA-256 of a secret, in hexadecimal."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _new_id() -> str:
    return secrets.token_hex(ID_CHARS // 2)


def _check(role: Role, users: frozenset[str], name: str, subject: str | None) -> None:
    for user in sorted(users):
        if not is_id(user.encode("utf-8", "surrogateescape")):
            raise InvalidArgument(f"user {user[:40]!r}: an id is an integer or a UUID")
    if role is Role.ADMIN and users:
        raise InvalidArgument("an admin is so for all users; leave them out")
    if role is not Role.ADMIN and not users:
        raise InvalidArgument(f"role {role.value}: name the users whose files it is for")
    if len(users) > MOST_USERS:
        raise InvalidArgument(f"{len(users):,} users; at most {MOST_USERS:,} are taken")
    for what, text in (("name", name), ("subject", subject or "")):
        if len(text) > NAME_CHARS or not text.isprintable():
            raise InvalidArgument(f"a {what} is a text of at most {NAME_CHARS} characters that can be shown")
    if subject is not None and not subject.strip():
        raise InvalidArgument("a subject is what the proxy calls somebody; it is not empty")


def _parsed(document: dict[str, Any]) -> Book:
    """Raises ValueError, KeyError, TypeError for what nobody here has written."""
    if not document:
        return Book({}, {}, b"")
    if document["version"] != _VERSION:
        raise ValueError("of another version")
    by_id = {each.id: each for each in map(_grant, document["tokens"])}
    # Of several grants of one subject all but the last are revoked, or expired.
    by_subject = {each.subject: each for each in by_id.values() if each.subject is not None}
    return Book(by_id, by_subject, bytes.fromhex(document["key"]))


def _grant(told: dict[str, Any]) -> Grant:
    grant = Grant(
        told["id"], Role(told["role"]), frozenset(told["users"]), told["name"], told["created_ns"],
        told["expires_ns"], told["revoked_ns"], told["sha256"], told["subject"],
    )  # fmt: skip
    times = (grant.created_ns, grant.expires_ns or 0, grant.revoked_ns or 0)
    if not all(isinstance(each, int) for each in times) or not _match_id(grant.id):
        raise ValueError("no grant")
    if (grant.sha256 is None) == (grant.subject is None) or not _match_hash(grant.sha256 or _NOBODY):
        raise ValueError("no grant")
    try:
        _check(grant.role, grant.users, grant.name, grant.subject)
    except InvalidArgument as error:
        raise ValueError(str(error)) from None
    return grant


def _document(grants: Iterable[Grant], key: bytes) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "key": key.hex(),
        "tokens": [each.as_json() | {"sha256": each.sha256} for each in grants],
    }


__all__ = ["TOKENS", "Book", "Grant", "Role", "Tokens"]
