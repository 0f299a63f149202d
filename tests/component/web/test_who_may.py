"""Every route and every role, by the application's own table of routes: one that is new has to be named here.

Of each it is said who may: `ROUTES`. What is asked of it then, with every kind of credentials and for own, foreign and
missing users, is the same for all; so are the paths that lead elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from fastapi.routing import iter_route_contexts

from .gateways import Gateway, answers_of_daemon, run

OPEN, ANYBODY, OWN, ADMIN = "open", "anybody", "own", "admin"
"""Who may: all the world; whoever is let in; whoever is let in for that user; admins."""


@dataclass(frozen=True)
class Row:
    """One route."""

    who: str
    body: dict[str, Any] | None = None
    """A good one; USER stands for the user that is asked for."""
    query: str = ""
    reads: bool = False
    """Whether it is for those who may read alone, whatever its method."""
    link: bool = False
    """Whether a link is good for it."""
    writes: bool = False
    """Whether even looking is for those alone who may write."""
    page: bool = False
    """Whether it is for people: who is not let in is led to the login, and refusals are pages."""
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    status: tuple[int, ...] = (200, 201, 202, 204)
    """What whoever may is answered here."""


USER: Final = "{user}"
_TUS: Final = {"Tus-Resumable": "1.0.0"}
_BYTES: Final = {"Content-Type": "application/offset+octet-stream"}
_FORM: Final = {"Content-Type": "multipart/form-data; boundary=b"}
_VIDEO: Final = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nabc\r\n--b--\r\n'
_BELOW: Final = f"users/{USER}/recordings/1/source.mp4"
_API: Final = "/api/v1"
_RECORDING: Final = "/api/v1/users/{user}/recordings/{recording}"
ROUTES: Final[dict[str, Row]] = {
    "GET /healthz": Row(OPEN),
    "HEAD /healthz": Row(OPEN),
    "GET /readyz": Row(OPEN),
    "HEAD /readyz": Row(OPEN),
    "GET /metrics": Row(OPEN, status=(404,)),
    "GET /api/v1/openapi.json": Row(OPEN),
    "HEAD /api/v1/openapi.json": Row(OPEN),
    "POST /api/v1/session": Row(OPEN, {"token": "nonsense"}, status=(403,)),
    "DELETE /api/v1/session": Row(OPEN, status=(403,)),
    "GET /api/v1/session": Row(ANYBODY, link=True),
    "POST /api/v1/links": Row(OWN, {"path": _BELOW}, reads=True),
    "GET /api/v1/tokens": Row(ADMIN),
    "POST /api/v1/tokens": Row(ADMIN, {"role": "readonly", "users": [USER]}),
    "DELETE /api/v1/tokens/{token_id}": Row(ADMIN, status=(404,)),
    "GET /api/v1/events": Row(OWN, query=f"user={USER}"),
    "GET /api/v1/stats": Row(OWN, query=f"user={USER}"),
    "GET /api/v1/stats/trend": Row(OWN, query=f"user={USER}"),
    "GET /api/v1/status": Row(ADMIN),
    "GET /api/v1/duplicates": Row(ADMIN, query=f"user={USER}"),
    "GET /api/v1/users": Row(ANYBODY),
    "GET /api/v1/users/{user}/quota": Row(OWN),
    "PUT /api/v1/users/{user}/quota": Row(ADMIN, {"max_files": 10}),
    "GET /api/v1/queue": Row(ADMIN),
    "POST /api/v1/queue/retry": Row(ADMIN, {"all": True}),
    "POST /api/v1/queue/drop": Row(ADMIN, {"ids": [1]}),
    "POST /api/v1/restore": Row(ADMIN, {"path": _BELOW}),
    "POST /api/v1/fetch": Row(ADMIN, {"path": _BELOW}),
    "GET /api/v1/expirations": Row(OWN, query=f"user={USER}"),
    "POST /api/v1/keep": Row(OWN, {"user": USER, "recording": "1"}),
    "POST /api/v1/expire": Row(ADMIN, {"user": USER, "recording": "1"}),
    "GET /api/v1/trash": Row(OWN, query=f"user={USER}"),
    "POST /api/v1/trash/restore": Row(OWN, {"user": USER, "ids": [7]}),
    "GET /api/v1/audit": Row(ADMIN),
    "GET /api/v1/users/{user}/recordings": Row(OWN),
    f"GET {_RECORDING}": Row(OWN, link=True),
    f"GET {_RECORDING}/": Row(OWN, link=True),
    f"DELETE {_RECORDING}": Row(OWN),
    f"GET {_RECORDING}/thumbnail": Row(OWN, link=True, status=(200, 404)),
    f"HEAD {_RECORDING}/thumbnail": Row(OWN, link=True, status=(200, 404)),
    f"GET {_RECORDING}/{{path}}": Row(OWN, link=True),
    f"HEAD {_RECORDING}/{{path}}": Row(OWN, link=True),
    f"DELETE {_RECORDING}/{{path}}": Row(OWN),
    f"PUT {_RECORDING}/{{path}}": Row(OWN, content=b"x", status=(412,)),
    "OPTIONS /api/v1/uploads": Row(OPEN),
    "OPTIONS /api/v1/uploads/{id}": Row(OPEN),
    "POST /api/v1/uploads": Row(
        OWN, {"user": USER, "recording": "1", "filename": "a.mp4", "path": "a.mp4", "length": 3}
    ),
    "GET /api/v1/uploads": Row(OWN, query=f"user={USER}", writes=True),
    "HEAD /api/v1/uploads/{id}": Row(OWN, headers=_TUS, writes=True),
    "PATCH /api/v1/uploads/{id}": Row(OWN, headers=_TUS | _BYTES | {"Upload-Offset": "0"}, content=b"ab"),
    "DELETE /api/v1/uploads/{id}": Row(OWN, headers=_TUS),
    "POST /api/v1/uploads/{id}": Row(OWN, headers=_TUS | {"X-HTTP-Method-Override": "DELETE"}),
    "POST /api/v1/uploads/{id}/chunks/{index}": Row(OWN, content=b"abc"),
    "GET /api/v1/uploads/{id}/progress": Row(OWN, writes=True),
    "POST /api/v1/uploads/{id}/complete": Row(OWN, status=(409,)),
    "POST /api/v1/projects/{project}/videos": Row(OWN, headers=_FORM, content=_VIDEO),
    "GET /api/v1/projects/{project}/videos/{asset}": Row(OWN),
    "DELETE /api/v1/projects/{project}/videos/{asset}": Row(OWN),
    "DELETE /api/v1/projects/{project}/storage": Row(OWN),
    "GET /api/v1/projects/{project}/storage/stats": Row(OWN),
    "GET /api/v1/storage/stats": Row(ADMIN),
    "GET /page/texts/{language}": Row(OPEN),
    "GET /page/{folder}/{name}": Row(OPEN),
    "GET /login": Row(OPEN, page=True),
    "POST /login": Row(OPEN, page=True, status=(403,)),
    "POST /logout": Row(OPEN, page=True, status=(403,)),
    "POST /language": Row(OPEN, page=True, status=(403,)),
    "GET /": Row(ANYBODY, page=True),
    "GET /uploads": Row(ANYBODY, page=True),
    "GET /recordings": Row(ANYBODY, page=True),
    "GET /recordings/{user}/{recording}": Row(OWN, page=True),
    "GET /expirations": Row(ANYBODY, page=True),
    "GET /queue": Row(ADMIN, page=True),
    "GET /costs": Row(ADMIN, page=True),
    "GET /admin": Row(ADMIN, page=True),
}
"""Every route there is."""

NAMING: Final = re.compile(r"{(?:user|project|id)}")
"""What says whose it is."""
_VALUES: Final = {
    "recording": "1", "asset": "1", "path": "source.mp4", "token_id": "0" * 12, "index": "0", "language": "de",
    "folder": "static", "name": "recfs.css",
}  # fmt: skip
NOBODY: Final = "01920000-0000-4000-8000-000000000000"
SECRET: Final = b"of user 6"
OUTSIDE: Final = b"from outside of the tree"
TRICKS: Final = (
    "..", ".", "%2e%2e", ".%2e", "%2E.", "..%2f..", "..%2F..%2F6", "%2e%2e%2f%2e%2e%2f6%2frecordings%2f1%2fsource.mp4",
    "../6", "../../6/recordings/1/source.mp4", "..%5c..%5c6", "%5c", "..;/6", "5/../6", "5%2f..%2f6", "%2f6", "//6",
    "%2fetc%2fpasswd", "%00", "6%00", "6%0a", "%0a6", "6%0d%0aX-Injected:%201", "6%20", "%206", "+6", "06", "-6", "6.0",
    "%d9%a6", "%ef%bc%96", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "%252e%252e", "%252e%252e%252f6", "%ff%fe",
    "%ed%a0%80", "6e0",
    "%u002e%u002e", "%", "%zz", "~", "*", "?", "%3f", "%23", "6?user=5", "6;user=5", "link.mp4", "link.mp4/..",
    "2", "2%2fsource.mp4", "source.mp4%2f..%2f..%2f..%2f6", "a" * 300, "9" * 5000, "%2e" * 4000, "..%2f" * 2000, "",
)  # fmt: skip
"""What a part of a path may be that means harm."""


def routes(gateway: Gateway) -> Iterator[tuple[str, str]]:
    """Methods and paths of the application's table."""
    for each in iter_route_contexts(gateway.app.routes):
        route = each.original_route
        path = re.sub(r":\w+}", "}", str(each.path if each.path is not None else getattr(route, "path", "")))
        for method in sorted(each.methods or getattr(route, "methods", None) or {"GET"}):
            yield method, path


def row_of(method: str, path: str) -> Row:
    row = ROUTES.get(f"{method} {path}")
    assert row is not None, f"{method} {path} is new: say in ROUTES who may"
    return row


def tree_of(folder: Path) -> dict[str, str]:
    """All that is in a directory, links as they are."""
    found = {}
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at, name)
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = ""
    return found


async def upload_of(gateway: Gateway, user: str) -> str:
    """The id of an upload of a user; of one who is not there, an id that could be one."""
    token = {"5": "user", "6": "other"}.get(user)
    if token is None:
        return f"{user}.{NOBODY}"
    wanted = {"user": user, "recording": "1", "path": "b.mp4", "filename": "b.mp4", "length": 3}
    made = await gateway.ask("POST", "/api/v1/uploads", token=token, json_body=wanted)
    assert made.status == 201, made
    found: str = made.headers["location"].rpartition("/")[2]
    return found


def prepare(gateway: Gateway) -> None:
    """A daemon that offers everything, and what nobody may get at."""
    gateway.daemon.answers |= answers_of_daemon()
    outside = gateway.root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(OUTSIDE)
    recording = gateway.root / "users/5/recordings/1"
    (recording / "out").symlink_to(outside)
    (recording / "passwd").symlink_to("/etc/passwd")
    gateway.grant("revoked", "admin")
    gateway.context.gate.tokens.revoke(gateway.ids["revoked"])


def filled(value: Any, user: str) -> Any:
    if isinstance(value, str):
        return value.replace(USER, user)
    if isinstance(value, list):
        return [filled(each, user) for each in value]
    return {key: filled(each, user) for key, each in value.items()} if isinstance(value, dict) else value


def target_of(path: str, row: Row, user: str, /, **parts: str) -> str:
    values = {"user": user, "project": user, "id": f"{user}.{NOBODY}", **_VALUES, **parts}
    target = re.sub(r"{(\w+)}", lambda match: values.get(match[1], "1"), path)
    return target + (f"?{filled(row.query, user)}" if row.query else "")


async def ask(gateway: Gateway, method: str, path: str, user: str, **more: Any) -> Any:
    row = row_of(method, path)
    body = None if row.body is None else filled(row.body, user)
    parts = {"id": await upload_of(gateway, user)} if "{id}" in path else {}
    headers = row.headers | more.pop("headers", {})
    return await gateway.ask(
        method, target_of(path, row, user, **parts), json_body=body, body=row.content, headers=headers, **more
    )


def story_of(check: Any) -> Any:
    """Run a check of one route with a tree of its own for each that could change it."""

    async def story(gateway: Gateway) -> None:
        prepare(gateway)
        await check(gateway)
        await asyncio.sleep(0)

    return story


def test_every_route_is_named_here_and_no_other(scratch: Path) -> None:
    async def check(gateway: Gateway) -> None:
        assert sorted(f"{method} {path}" for method, path in routes(gateway)) == sorted(ROUTES)

    run(scratch, story_of(check))


def test_who_has_nothing_good_is_let_in_nowhere(scratch: Path) -> None:
    async def check(gateway: Gateway) -> None:
        before = tree_of(gateway.root / "users")
        revoked = gateway.tokens["revoked"]
        credentials: list[dict[str, Any]] = [
            {}, {"token": revoked}, {"token": f"recfs_{'0' * 12}_{'a' * 43}"}, {"session": "a" * 43},
            {"headers": {"X-Forwarded-User": "root", "X-Forwarded-For": "127.0.0.1"}},
        ]  # fmt: skip
        for method, path in routes(gateway):
            if row_of(method, path).who == OPEN:
                continue
            for number, each in enumerate(credentials):
                address = (f"192.0.2.{number}", hash(path) % 60_000)
                answer = await ask(gateway, method, path, "5", **each, client=(f"{path}{address[0]}", 1))
                if row_of(method, path).page:
                    assert (answer.status, answer.headers["location"].partition("?")[0]) == (303, "/login")
                    continue
                assert answer.status == 401, (method, path, each, answer)
                if method != "HEAD":
                    assert answer.problem == "Unauthorized"
        assert tree_of(gateway.root / "users") == before
        assert gateway.daemon.asked == []

    run(scratch, story_of(check), requests_per_s=1e6, requests_burst=10**6)


@pytest.mark.parametrize("token", ["user", "readonly"])
def test_a_foreign_user_is_as_one_that_there_is_not(scratch: Path, token: str) -> None:
    async def check(gateway: Gateway) -> None:
        for method, path in routes(gateway):
            row = row_of(method, path)
            if row.who not in (OWN, ADMIN) or not NAMING.search(f"{path}{row.query}{row.body}"):
                continue
            before = tree_of(gateway.root)
            foreign, missing = [await ask(gateway, method, path, user, token=token) for user in ("6", "99")]
            expected = (404,) if row.who == OWN else (403, 404)
            assert foreign.status in expected, (method, path, foreign)
            said = foreign.body.replace(b"/6/", b"/99/"), missing.body  # a page has its own address
            assert said[0] == said[1], (method, path)
            if not row.page:
                assert (foreign.status, foreign.headers) == (missing.status, missing.headers)
            assert SECRET not in foreign.body
            made = {each for each in tree_of(gateway.root).keys() - before.keys() if "/temp/" not in f"{each}/"}
            assert not made
            assert tree_of(gateway.root).items() >= before.items()
        assert gateway.daemon.asked == [], "the daemon is not even asked"

    run(scratch, story_of(check), requests_per_s=1e6, requests_burst=10**6)


def test_what_is_for_admins_is_for_nobody_else(scratch: Path) -> None:
    async def check(gateway: Gateway) -> None:
        before = tree_of(gateway.root)
        for method, path in routes(gateway):
            if row_of(method, path).who != ADMIN:
                continue
            for token in ("user", "readonly", "both"):
                answer = await ask(gateway, method, path, "5", token=token)
                assert answer.status == 403, (method, path, token)
                if not row_of(method, path).page:
                    assert answer.problem == "NotPermitted"
        assert (tree_of(gateway.root), gateway.daemon.asked) == (before, [])
        grants = len(gateway.context.gate.tokens.book().by_id)
        assert grants == 6

    run(scratch, story_of(check))


def test_who_may_read_changes_nothing(scratch: Path) -> None:
    async def check(gateway: Gateway) -> None:
        before = tree_of(gateway.root / "users")
        for method, path in routes(gateway):
            row = row_of(method, path)
            if row.who != OWN:
                continue
            gateway.daemon.asked.clear()
            answer = await ask(gateway, method, path, "5", token="readonly")
            if (method in ("GET", "HEAD") or row.reads) and not row.writes:
                assert answer.status in row.status, (method, path, answer)
            else:
                assert answer.status == 403, (method, path, answer)
                assert method == "HEAD" or answer.problem == "NotPermitted"
                assert gateway.daemon.asked == []
        assert tree_of(gateway.root / "users") == before

    run(scratch, story_of(check))


@pytest.mark.parametrize("token", ["user", "admin"])
def test_who_may_is_let(scratch: Path, token: str) -> None:
    """The others would prove nothing if what they ask for were refused to everybody."""

    async def check(gateway: Gateway) -> None:
        recording = gateway.root / "users/5/recordings/1"
        for method, path in sorted(routes(gateway), key=lambda each: each[0] == "DELETE"):
            recording.mkdir(exist_ok=True)
            (recording / "source.mp4").write_bytes(b"of user 5")
            row = row_of(method, path)
            if row.who == ADMIN and token != "admin":
                continue
            answer = await ask(gateway, method, path, "5", token=token)
            assert answer.status in row.status, (method, path, answer)
            if method == "GET" and path == f"{_RECORDING}/{{path}}":
                assert answer.body == b"of user 5"
        assert not recording.exists()
        assert (gateway.root / "users/6/recordings/1/source.mp4").read_bytes() == SECRET
        assert (gateway.root.parent / "outside/secret").read_bytes() == OUTSIDE, "removal follows no link"

    run(scratch, story_of(check))


@pytest.mark.parametrize("token", ["admin", "user"])
def test_a_link_opens_what_it_is_for_and_no_other_route(scratch: Path, token: str) -> None:
    async def check(gateway: Gateway) -> None:
        before = tree_of(gateway.root)
        made = await gateway.ask("POST", "/api/v1/links", token=token, json_body={"path": "users/5/recordings/1/"})
        signed = made.json["url"].partition("?")[2]
        for method, path in routes(gateway):
            row = row_of(method, path)
            if row.who == OPEN:
                continue
            target = target_of(path, row, "5")
            body = None if row.body is None else filled(row.body, "5")
            query = f"{'&' if '?' in target else '?'}{signed}"
            answer = await gateway.ask(
                method, f"{target}{query}", json_body=body, body=row.content, headers=row.headers
            )
            if row.link and path.startswith(_RECORDING):
                assert answer.status in row.status, (method, path, answer)
            else:
                assert answer.status == 403, (method, path, answer)
        assert tree_of(gateway.root) == before

    run(scratch, story_of(check))


@pytest.mark.parametrize("token", ["user", "admin"])
def test_no_path_leads_elsewhere(scratch: Path, token: str) -> None:
    """Each part of each path in turn is everything that means harm. An admin sees user 6, and nothing outside."""

    async def check(gateway: Gateway) -> None:
        (gateway.root / "users/6/recordings/1/assets/notes.txt").write_bytes(SECRET)
        before, outside = tree_of(gateway.root), tree_of(gateway.root.parent / "outside")
        asked = 0
        for method, path in routes(gateway):
            row = row_of(method, path)
            for part in re.findall(r"{(\w+)}", path):
                if token == "admin" and (part != "path" or method == "DELETE"):
                    continue  # ids are read as a user's are, and an admin may remove what is named in any spelling
                for trick in TRICKS:
                    asked += 1
                    answer = await gateway.ask(
                        method, target_of(path, row, "5", **{part: trick}), token=token, body=row.content,
                        json_body=None if row.body is None else filled(row.body, "5"), headers=row.headers,
                    )  # fmt: skip
                    said = (method, path, part, trick[:60], answer.status, answer.body[:200])
                    assert answer.status < 500 or answer.status == 501, said
                    assert OUTSIDE not in answer.body, said
                    assert b"root:" not in answer.body, said
                    if token == "user":
                        assert SECRET not in answer.body, said
                    assert "x-injected" not in answer.headers, said
                    if answer.status >= 400 and method != "HEAD" and not row.page:
                        assert answer.problem, said
        assert asked >= (3 if token == "admin" else 10) * len(TRICKS)
        assert tree_of(gateway.root.parent / "outside") == outside
        changed = {key for key, value in tree_of(gateway.root).items() if before.get(key) != value}
        gone = before.keys() - tree_of(gateway.root).keys()
        own = (str(gateway.root / "users/5/recordings/"), str(gateway.root / "temp"))
        assert [each for each in changed | gone if not each.startswith(own)] == []
        if token == "user":
            assert [each for each in changed if each.startswith(str(gateway.root / "temp/6"))] == []

    run(scratch, story_of(check), requests_per_s=1e6, requests_burst=10**6)


@pytest.mark.parametrize(
    "name", ["out/secret", "out", "passwd", "link.mp4", "out%2fsecret", "./out/secret", "assets/../out/secret"]
)
def test_no_link_of_the_tree_is_followed(scratch: Path, name: str) -> None:
    async def check(gateway: Gateway) -> None:
        for token in ("user", "admin"):
            for method in ("GET", "HEAD"):
                answer = await gateway.ask(method, f"/api/v1/users/5/recordings/1/{name}", token=token)
                assert answer.status in (400, 404), answer
                assert b"root:" not in answer.body
                assert OUTSIDE not in answer.body
            assert (await gateway.ask("GET", "/api/v1/users/5/recordings/2", token=token)).status == 404
            assert (await gateway.ask("GET", "/api/v1/users/5/recordings/2/source.mp4", token=token)).status == 404
            assert (await gateway.ask("DELETE", "/api/v1/users/5/recordings/2", token=token)).status == 404
        assert (gateway.root / "users/6/recordings/1/source.mp4").exists()

    run(scratch, story_of(check))


def test_a_method_is_the_one_that_was_sent(scratch: Path) -> None:
    async def check(gateway: Gateway) -> None:
        before = tree_of(gateway.root)
        file = "/api/v1/users/5/recordings/1/source.mp4"
        for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            for wanted in ("DELETE", "PUT", "PATCH"):
                got = await gateway.ask("GET", file, token="user", headers={name: wanted})
                assert got.body == b"of user 5"
                posted = await gateway.ask("POST", file, token="user", headers={name: wanted}, body=b"x")
                assert posted.status in (404, 405), posted
        assert (await gateway.ask("GET", f"{file}?_method=DELETE", token="user")).body == b"of user 5"
        posted = await gateway.ask("POST", f"{file}?_method=DELETE", token="user", body=b"_method=DELETE")
        assert posted.status in (404, 405)
        to = {"Destination": "/api/v1/users/5/recordings/1/b"}
        for method in (
            "delete",
            "Delete",
            "DELETE ",
            "TRACE",
            "CONNECT",
            "PROPFIND",
            "MKCOL",
            "MOVE",
            "COPY",
            "X" * 500,
        ):
            answer = await gateway.ask(method, file, token="user", headers=to)
            assert answer.status in (400, 404, 405, 501), (method, answer)
        assert tree_of(gateway.root) == before

    run(scratch, story_of(check))


def test_head_is_let_where_get_is_and_says_nothing_more(scratch: Path) -> None:
    async def check(gateway: Gateway) -> None:
        for method, path in routes(gateway):
            row = row_of(method, path)
            if method != "HEAD" or row.who == OPEN or f"GET {path}" not in ROUTES:
                continue
            for token, user in (("user", "5"), ("user", "6"), ("user", "99"), ("readonly", "5"), ("nonsense", "5")):
                head = await ask(gateway, "HEAD", path, user, token=token)
                get = await ask(gateway, "GET", path, user, token=token)
                assert head.status == get.status, (path, token, user)
                if head.status >= 400:
                    assert {**head.headers, "content-length": ""} == {**get.headers, "content-length": ""}

    run(scratch, story_of(check))


def test_a_recording_of_another_user_is_not_told_from_one_that_there_is_not(scratch: Path) -> None:
    async def check(gateway: Gateway) -> None:
        for user, recording, path in (("6", "1", "source.mp4"), ("6", "77", "source.mp4"), ("99", "1", "none")):
            target = f"/api/v1/users/{user}/recordings/{recording}/{quote(path)}"
            answer = await gateway.ask("GET", target, token="user", headers={"Range": "bytes=0-", "If-None-Match": "*"})
            assert (answer.status, answer.problem) == (404, "NotFound")
            assert set(answer.json) == {"type", "title", "status"}

    run(scratch, story_of(check))
