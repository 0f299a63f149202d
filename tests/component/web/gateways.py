"""A gateway without a network: its application on a plain directory, with a daemon that answers what it is told to."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from recfs.client.errors import DaemonRefused, DaemonUnreachable
from recfs.web.app import build, outside
from recfs.web.context import Context, context_for
from recfs.web.settings import Settings
from recfs.web.who.sessions import COOKIE, HEADER
from recfs.web.who.tokens import Role

if TYPE_CHECKING:
    from fastapi import FastAPI

T = TypeVar("T")
HOST = "media.example.org"
CLIENT = ("192.0.2.7", 40000)
BYTES = b"of user %s"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    ended: bool = True
    """Whether it came to its end; else a server cuts the connection off."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The type of the problem document; every refusal has one."""
        assert self.headers["content-type"] == "application/problem+json", self
        kind: str = self.json["type"]
        return kind.removeprefix("urn:recfs:problem:")


class FakeDaemon:
    """Answers by a table; what is not in it nobody offers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}
        self.known = True

    async def ask(self, method: str, /, *, patience_s: float = 30.0, **params: Any) -> Any:
        """Answer, as the daemon would on its socket."""
        given = {key: value for key, value in params.items() if value is not None}
        self.asked.append((method, given))
        answer = self.answers.get(method)
        if answer is None:
            raise DaemonRefused("NotPermitted", f"{method} is not offered on this socket; it answers status")
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(given)
        return await answer if isinstance(answer, Awaitable) else answer


def answers_of_daemon() -> dict[str, Any]:
    """Answers of a daemon that offers everything."""
    answers: dict[str, Any] = json.loads(Path(__file__).with_name("daemon_answers.json").read_text())
    for method in (
        "quota_set", "queue_retry", "queue_drop", "restore", "fetch", "recording_keep", "recording_expire",
        "trash_restore",
    ):  # fmt: skip
        answers[method] = {}
    quotas, trash = answers["quota_show"], answers["trash_list"]
    answers["quota_show"] = lambda params: [each for each in quotas if params.get("user", each["user"]) == each["user"]]
    answers["recording_list"] = []
    answers["trash_list"] = lambda params: {
        **trash, "entries": [trash["entries"][0] | {"number": 7, "user": params.get("user", "5")}],
    }  # fmt: skip
    answers["events"] = {"events": [], "cursor": "00c0ffee-1", "more": False}
    return answers


@dataclass
class Gateway:
    """One, with a tree of its own."""

    root: Path
    context: Context
    app: FastAPI
    daemon: FakeDaemon
    tokens: dict[str, str] = field(default_factory=dict)
    """By name."""

    def grant(self, name: str, role: str, *users: str, **more: Any) -> str:
        """Grant something; gives the token."""
        grant, token = self.context.gate.tokens.add(Role(role), users, name, **more)
        self.tokens[name] = token or ""
        self.ids[name] = grant.id
        return token or ""

    ids: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, target: str, *, token: str | None = None, headers: Mapping[str, str] | None = None,
        body: bytes | None = None, json_body: Any = None, client: tuple[str, int] | None = CLIENT,
        session: str | None = None, at_first: Callable[[], None] = lambda: None,
        pieces: Iterator[bytes] | None = None,
    ) -> Answer:  # fmt: skip
        """Ask as a client on the network would: *target* is sent as it is, percent-encoding and all.

        *at_first* is called when the first piece of the answer has come; *pieces* are a body that comes bit by bit.
        """
        sent = {"host": HOST}
        if token is not None:
            sent["authorization"] = f"Bearer {self.tokens.get(token, token)}"
        if session is not None:
            sent |= {"cookie": f"{COOKIE}={session}", HEADER.lower(): "1"}
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent["content-type"] = "application/json"
        if body is not None:
            sent["content-length"] = str(len(body))
        sent |= {key.lower(): value for key, value in (headers or {}).items()}
        fields = [(key.encode("latin-1"), value.encode("utf-8")) for key, value in sent.items()]
        sending = iter([body or b""]) if pieces is None else pieces
        return await self.ask_raw(method, target.encode("latin-1"), fields, sending, client, at_first)

    async def ask_raw(
        self, method: str, target: bytes, fields: list[tuple[bytes, bytes]], body: bytes | Iterator[bytes],
        client: tuple[str, int] | None, at_first: Callable[[], None] = lambda: None,
    ) -> Answer:  # fmt: skip
        """The same with fields that may be there twice."""
        raw, _, query = target.partition(b"?")
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": unquote(raw.decode("latin-1")), "raw_path": raw, "query_string": query,
            "root_path": "", "headers": fields, "client": client, "server": (HOST, 80),
        }  # fmt: skip
        coming: Iterator[bytes] | None = iter([body]) if isinstance(body, bytes) else body
        told: list[dict[str, Any]] = []
        ended = asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal coming
            if coming is not None:
                piece = next(coming, None)
                coming = None if piece is None else coming
                return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            told.append(message)
            if message["type"] == "http.response.body":
                if len(told) == 2:
                    at_first()
                endless = any(value.startswith(b"text/event-stream") for _, value in told[0]["headers"])
                if endless or not message.get("more_body"):
                    ended.set()  # whoever listens for ever leaves after the first piece

        await outside(self.app)(scope, receive, send)  # type: ignore[arg-type]
        start = told[0]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
        sent = b"".join(each.get("body", b"") for each in told[1:])
        if ended.is_set() and method != "HEAD" and "content-length" in headers:
            assert len(sent) == int(headers["content-length"]), "a server would cut it off"
        return Answer(start["status"], headers, sent, ended.is_set())


def gateway_at(folder: Path, **settings: Any) -> Gateway:
    """Make one; to be called in a running event loop."""
    root, own = folder / "tree", folder / "own"
    own.mkdir(mode=0o700, parents=True)
    context = context_for(Settings(root=root, directory=own, mounted=False, **settings))
    daemon = FakeDaemon()
    for holder in (context, context.feed, context.errands):
        name = "daemon" if holder is context else "_daemon"
        object.__setattr__(holder, name, daemon)
    gateway = Gateway(root, context, build(context), daemon)
    for user in ("5", "6"):
        recording = root / "users" / user / "recordings" / "1"
        (recording / "assets").mkdir(parents=True)
        (recording / "source.mp4").write_bytes(BYTES % user.encode())
        (recording / "assets" / "notes.txt").write_bytes(BYTES % user.encode())
    os.symlink(root / "users/6/recordings/1/source.mp4", root / "users/5/recordings/1/link.mp4")
    os.symlink("../../6/recordings/1", root / "users/5/recordings/2")
    return gateway


def run(folder: Path, story: Callable[[Gateway], Awaitable[T]], **settings: Any) -> T:
    """Run a story with a gateway that has tokens admin, user (5), readonly (5), other (6) and both (5 and 6)."""

    async def told() -> T:
        gateway = gateway_at(folder, **settings)
        gateway.grant("admin", "admin")
        gateway.grant("user", "user", "5")
        gateway.grant("readonly", "readonly", "5")
        gateway.grant("other", "user", "6")
        gateway.grant("both", "user", "5", "6")
        try:
            return await story(gateway)
        finally:
            gateway.context.close()
            gateway.context.trail.close()

    return asyncio.run(told())


__all__ = [
    "BYTES",
    "CLIENT",
    "HOST",
    "Answer",
    "DaemonUnreachable",
    "FakeDaemon",
    "Gateway",
    "answers_of_daemon",
    "gateway_at",
    "run",
]
