"""Every refusal is a problem document, made from one table; and nothing of the inside is told."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import openapi_spec_validator
import pytest

from recfs import errors
from recfs.client.errors import DaemonRefused, DaemonUnreachable, InvalidName, NotAMount, NotCommitted, UploadRefused
from recfs.web.problems import TABLE, Problem, monthly_limit, problem_of
from recfs.web.recordings import listing
from tests.component.web.site import Site, problem

SEMANTICS = Path(__file__).parents[3] / "docs/semantics.md"


def test_every_error_of_the_file_system_has_its_row() -> None:
    """docs/semantics.md, section 2, is the list; NoAttribute and the like included."""
    section = SEMANTICS.read_text("utf-8").partition("## 2. Errors")[2].partition("## 3.")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)
    assert len(rows) > 20
    internal = {"RowRefused"}  # what it is about is the catalogue: to others it is an I/O error
    assert {name for name, _ in rows} - internal <= TABLE.keys()
    for name, code in rows:
        found = problem_of(OSError(getattr(errno, code), "at /srv/secret/path"))
        assert found.type != "InternalError", name
        assert "/srv" not in (found.detail or "")
        assert 400 <= found.status < 600


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (OSError(errno.EDQUOT, ""), "QuotaExceeded", 507),
        (OSError(errno.ENOSPC, ""), "OutOfSpace", 507),
        (OSError(errno.EFBIG, ""), "FileTooLarge", 413),
        (OSError(errno.EEXIST, ""), "Exists", 412),
        (OSError(errno.EROFS, ""), "ReadOnlyFile", 403),
        (OSError(errno.ENOTCONN, ""), "DaemonGone", 503),
        (OSError(errno.ENOENT, ""), "NotFound", 404),
        (OSError(errno.EIO, ""), "IoFailure", 502),
        (DaemonUnreachable("at /run/secret.sock"), "DaemonGone", 503),
        (NotAMount("/srv"), "DaemonGone", 503),
        (DaemonRefused("ObjectArchived", "restore it first"), "ObjectArchived", 409),
        (DaemonRefused("QuotaExceeded", "10 GiB are used"), "QuotaExceeded", 507),
        (InvalidName("no name"), "InvalidPath", 400),
        (UploadRefused("no such kind"), "UploadRefused", 422),
        (NotCommitted("it is incomplete"), "NotCommitted", 409),
        (monthly_limit(), "MonthlyLimit", 429),
    ],
)
def test_errors_have_their_status(error: Exception, kind: str, status: int) -> None:
    found = problem_of(error)
    assert (found.type, found.status) == (kind, status)
    told = json.loads(bytes(found.response().body))
    assert told["type"] == f"urn:recfs:problem:{kind}"
    assert (told["status"], told["title"]) == (status, TABLE[kind].title)
    assert "secret" not in json.dumps(told)


@pytest.mark.parametrize(
    "error", [ValueError("secret"), DaemonRefused("Zero", "secret"), OSError("secret"), OSError(9999, "secret")]
)
def test_what_nobody_expected_tells_nothing(error: Exception) -> None:
    found = problem_of(error)
    assert (found.status, found.document().keys()) == (500, {"type", "title", "status"})


def test_the_monthly_limit_ends_with_the_month() -> None:
    at = datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC)
    assert monthly_limit(now=at).headers == {"Retry-After": "31"}
    assert monthly_limit(now=datetime(2026, 2, 1, tzinfo=UTC)).headers == {"Retry-After": str(28 * 86_400 + 1)}


def test_the_kinds_of_errors_are_those_there_are() -> None:
    """What the daemon calls its errors is a class of recfs.errors, so a row for each that clients may meet."""
    of_files = {name for name in TABLE if hasattr(errors, name)}
    assert len(of_files) > 15


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nothing", 404, "NotFound"),
        ("GET", "users/5/nothing", 404, "NotFound"),
        ("PROPFIND", "users/5/recordings", 405, "MethodNotAllowed"),
        ("POST", "/healthz", 405, "MethodNotAllowed"),
        ("GET", "users/5/recordings?limit=no", 422, "InvalidArgument"),
    ],
)
def test_a_refusal_of_the_framework_is_one_too(site: Site, method: str, path: str, status: int, kind: str) -> None:
    got = site.ask(method, path)
    assert (got.status_code, problem(got)) == (status, kind)


@pytest.mark.expect_log("failed")
def test_a_fault_of_the_gateway_is_logged_and_tells_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("recfs.web.recordings.routes.recordings_page", fault)
    got = site.get("users/5/recordings")
    assert (got.status_code, problem(got), got.ended) == (500, "InternalError", True)
    assert "secret" not in got.text


def test_a_mount_that_is_away_is_503_and_what_lies_below_it_is_not_served(tmp_path: Path) -> None:
    site = Site(tmp_path, mounted=True)
    site.file("users/5/recordings/142/source.mp4", b"below")
    for path in ("users/5/recordings", "users/5/recordings/142", "users/5/recordings/142/source.mp4", "/readyz"):
        got = site.get(path)
        assert (got.status_code, problem(got)) == (503, "DaemonGone")
        assert int(got.headers["retry-after"]) > 0
    assert site.ask("DELETE", "users/5/recordings/142").status_code == 503
    assert (site.root / "users/5/recordings/142/source.mp4").exists()
    assert site.get("/healthz").status_code == 200


def test_it_is_ready_where_the_daemon_answers_and_not_where_nobody_does(tmp_path: Path) -> None:
    assert Site(tmp_path).get("/readyz").status_code == 200
    other = tmp_path / "other"
    other.mkdir()
    got = Site(other, socket=tmp_path / "nobody.sock").get("/readyz")
    assert (got.status_code, problem(got)) == (503, "DaemonGone")


def test_a_daemon_that_refuses_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` need not be among the methods that its socket offers."""
    site = Site(tmp_path, socket=tmp_path / "nobody.sock")

    async def refused(*_: object, **__: object) -> None:
        raise DaemonRefused("NotPermitted", "'status' is not offered here")

    monkeypatch.setattr(type(site.context.daemon), "ask", refused)
    assert site.get("/readyz").status_code == 200


@pytest.mark.parametrize("url", ["https://media.example.org", None])
def test_a_link_has_scheme_and_host_where_they_are_configured(tmp_path: Path, url: str | None) -> None:
    site = Site(tmp_path, url=url)
    site.file("users/5/recordings/142/source.mp4", b"bytes")
    wanted = json.dumps({"path": "users/5/recordings/142/source.mp4"}).encode()
    got = site.ask("POST", "/api/v1/links", content=wanted, headers={"content-type": "application/json"})
    made = got.json()
    assert made.keys() == {"url", "method", "expires"}
    assert made["url"].startswith(f"{url or ''}/api/v1/users/5/recordings/142/source.mp4?")


def test_a_mount_that_hangs_is_looked_at_by_one_however_many_ask(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, entered, answer = [0], threading.Event(), threading.Event()

    def hang() -> None:
        looks[0] += 1
        entered.set()
        assert answer.wait(30)

    async def ask() -> None:
        asked = [asyncio.create_task(site.app.state.looks.look()) for _ in range(5)]
        assert await asyncio.to_thread(entered.wait, 30)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.gather(*asked)
        assert looks == [1]
        answer.set()
        await site.app.state.looks.look()

    monkeypatch.setattr(site.context.tree.__class__, "check", lambda tree: hang())
    asyncio.run(ask())
    assert looks[0] <= 2


# --- figures, and what is told of each request -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("192.0.2.7", {}, 404),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 404),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7"}, 404),
        ("", {}, 404),
    ],
)
def test_figures_are_for_this_machine_alone(site: Site, client: str, headers: dict[str, str], status: int) -> None:
    assert site.ask("GET", "/metrics", client=client, headers=headers, anonymous=True).status_code == status


def test_figures_tell_routes_and_no_paths(site: Site) -> None:
    site.file("users/5/recordings/142/source.mp4", b"12345")
    site.get("users/5/recordings/142/source.mp4")
    site.get("users/5/recordings/142/nothing.mp4")
    text = site.get("/metrics").text
    assert 'route="/users/{user}/recordings/{recording}/{path:inside}",status="200"} 1.0' in text
    assert 'status="404"} 1.0' in text
    assert "recfs_serve_sent_bytes_total" in text
    assert 'recfs_serve_threads{kind="slow_reads"} 16.0' in text
    assert "mp4" not in text


def test_each_request_is_told_when_it_has_ended_and_never_its_query(site: Site) -> None:
    told = []
    site.context.listeners.append(told.append)
    site.file("users/5/recordings/142/source.mp4", b"12345")
    site.get("users/5/recordings/142/source.mp4?x=secret", {"Range": "bytes=1-3"})
    site.get("users/6/recordings")
    site.ask("GET", "users/5/recordings", anonymous=True)
    grant = site.token.split("_")[1]
    assert [(each.path, each.status, each.outcome, each.sent_bytes, each.range, each.token_id) for each in told] == [
        ("/api/v1/users/5/recordings/142/source.mp4", 206, "ok", 3, "bytes=1-3", grant),
        ("/api/v1/users/6/recordings", 404, "refused", told[1].sent_bytes, None, grant),
        ("/api/v1/users/5/recordings", 401, "refused", told[2].sent_bytes, None, None),
    ]
    assert all("secret" not in repr(each) for each in told)


@pytest.mark.slow
def test_the_description_is_openapi_3_1_and_knows_every_route(site: Site) -> None:
    told = site.get("openapi.json").json()
    assert told["openapi"].startswith("3.1")
    assert told["paths"].keys() >= {
        "/api/v1/users/{user}/recordings", "/api/v1/users/{user}/recordings/{recording}",
        "/api/v1/users/{user}/recordings/{recording}/{path}", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    openapi_spec_validator.validate(told)
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            refusals = {code: each for code, each in operation["responses"].items() if code[0] not in "23"}
            assert "default" in refusals, (method, path)
            # tus has refusals of its own, in plain text
            assert all("HTTPValidationError" not in json.dumps(each) for each in refusals.values()), (method, path)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("users/5/recordings/142", "GET, DELETE"),
        ("users/5/recordings/142/source.mp4", "GET, HEAD, PUT, DELETE"),
        ("users/5/recordings/142/thumbnail", "GET, HEAD, PUT, DELETE"),
        ("users/5/recordings", "GET"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_what_is_offered_at_a_path_is_told_with_405(site: Site, path: str, allowed: str) -> None:
    got = site.ask("TRACE", path)
    assert (got.status_code, problem(got), got.headers["allow"]) == (405, "MethodNotAllowed", allowed)


def test_pages_are_bounded(site: Site) -> None:
    assert listing.LIMIT <= listing.MOST == 200
    assert os.path.isdir(site.root)
    with pytest.raises(Problem):
        listing.place_of("%")
