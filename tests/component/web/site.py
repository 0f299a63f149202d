"""A gateway for tests: its tree is a directory, its daemon is what the attributes of the files say."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.datastructures import Headers

from recfs.web.app import attach, build, outside
from recfs.web.context import Context, context_for
from recfs.web.settings import Settings
from recfs.web.who.tokens import Role

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Scope

API = "/api/v1"


@dataclass(slots=True)
class Answer:
    """What came back."""

    status_code: int = 0
    headers: Headers = field(default_factory=Headers)
    content: bytes = b""
    ended: bool = False
    """Whether it came to its end; else a server cuts the connection off."""

    @property
    def text(self) -> str:
        """The body."""
        return self.content.decode()

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.content)


async def _asked(served: ASGIApp, scope: Scope, content: bytes) -> Answer:
    answer = Answer()
    over, asked = asyncio.Event(), False

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": content, "more_body": False}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status_code, answer.headers = message["status"], Headers(raw=list(message["headers"]))
        else:
            answer.content += message.get("body", b"")
            answer.ended = not message.get("more_body", False)
            if answer.ended:
                over.set()

    await served(scope, receive, send)
    if answer.ended and scope["method"] != "HEAD" and "content-length" in answer.headers:
        assert len(answer.content) == int(answer.headers["content-length"])
    return answer


_made: list[FastAPI] = []


def _application(context: Context) -> FastAPI:
    """The application of this process, with another context: its routes are made once, which takes some 40 ms."""
    if _made:
        attach(_made[0], context)
    else:
        _made.append(build(context))
    return _made[0]


class Site:
    """A tree of users 5 and 6, a token of user 5, and requests by it; one at a time in a process."""

    def __init__(self, place: Path, **settings: Any) -> None:
        self.root = place / "tree"
        (place / "state").mkdir(mode=0o700)
        for user in ("5", "6"):
            (self.root / "users" / user / "recordings").mkdir(parents=True)
        made = Settings(
            root=self.root, directory=place / "state", mounted=False, requests_per_s=1e6, requests_burst=10**6
        )
        self.settings = replace(made, **settings)
        self.context: Context = context_for(self.settings)
        self.context.trail.begin()
        self.app = _application(self.context)
        self.served = outside(self.app)
        self.token = self.token_of(Role.USER, "5")

    def token_of(self, role: Role, *users: str) -> str:
        """Make a token."""
        token = self.context.gate.tokens.add(role, users)[1]
        assert token is not None
        return token

    def file(self, path: str, content: bytes = b"", **attributes: str) -> Path:
        """Put a file into the tree: committed, with its checksum, unless *attributes* (user.recfs.*) say otherwise."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        told = {"state": "committed", "sha256": hashlib.sha256(content).hexdigest(), "location": "local", **attributes}
        for name, value in told.items():
            if value:
                os.setxattr(place, f"user.recfs.{name}", value.encode())
        return place

    def ask(
        self, method: str, path: str, *, token: str | None = None, headers: Mapping[str, str] | None = None,
        content: bytes = b"", anonymous: bool = False, client: str = "127.0.0.1",
    ) -> Answer:  # fmt: skip
        """Send one request; *path* goes as it is, below /api/v1 unless it begins with a slash."""
        told = {} if anonymous else {"Authorization": f"Bearer {token or self.token}"}
        told |= {"Content-Length": str(len(content))} if content else {}
        raw, _, query = (path if path.startswith("/") else f"{API}/{path}").partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": unquote(raw), "raw_path": raw.encode("ascii"), "root_path": "",
            "query_string": query.encode("ascii"), "client": (client, 1), "server": ("gateway", 80), "state": {},
            "headers": [(b"host", b"gateway")] + [
                (name.lower().encode(), value.encode("latin-1")) for name, value in {**told, **(headers or {})}.items()
            ],
        }  # fmt: skip
        return asyncio.run(_asked(self.served, scope, content))

    def get(self, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        """GET."""
        return self.ask("GET", path, headers=headers, **more)


def problem(response: Answer) -> str:
    """The type of a refusal, which has to be a problem document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    told = response.json()
    assert told["status"] == response.status_code
    kind: str = told["type"]
    return kind.removeprefix("urn:recfs:problem:")
