"""PUT, indexed chunks and the platform's routes, on a directory that stands for the mount."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from recfs.client.errors import DaemonUnreachable
from recfs.web.platform.forms import MOST_FIELD_BYTES, MOST_PARTS
from recfs.web.who.tokens import Role
from tests.component.web.site import Answer, Site, problem

DATA = bytes(range(256)) * 500
SHA256 = hashlib.sha256(DATA).hexdigest()
WHERE = "users/5/recordings/142/source.mp4"
BOUNDARY = "----form"


def digest(data: bytes) -> dict[str, str]:
    return {"Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"}


def left(site: Site) -> dict[str, bytes]:
    return {str(each.relative_to(site.root)): each.read_bytes() for each in site.root.rglob("*") if each.is_file()}


# -- PUT ---


def test_put_makes_a_file_and_says_what_it_is(site: Site) -> None:
    made = site.ask("PUT", WHERE, content=DATA, headers={**digest(DATA), "Content-Type": "video/mp4"})
    assert (made.status_code, made.headers["location"]) == (201, f"/api/v1/{WHERE}")
    assert made.headers["etag"] == f'"{SHA256}"'
    assert made.headers["repr-digest"] == digest(DATA)["Repr-Digest"]
    assert left(site) == {WHERE: DATA}


def test_put_replaces_only_what_it_names(site: Site) -> None:
    site.file(WHERE, b"before")
    tag = f'"{hashlib.sha256(b"before").hexdigest()}"'
    for headers in (
        {},
        {"If-None-Match": "*"},
        {"If-Match": '"x"'},
        {"If-Match": f"W/{tag}"},
        {"If-Match": f'"{SHA256}"'},
    ):
        refused = site.ask("PUT", WHERE, content=DATA, headers=headers)
        assert refused.status_code == 412, headers
        assert left(site) == {WHERE: b"before"}
    assert site.ask("PUT", WHERE, content=DATA, headers={"If-Match": tag}).status_code == 204
    assert left(site) == {WHERE: DATA}
    assert site.ask("PUT", WHERE, content=b"any", headers={"If-Match": "*"}).status_code == 204
    assert left(site) == {WHERE: b"any"}
    none = site.ask("PUT", "users/5/recordings/9/source.mp4", content=b"any", headers={"If-Match": "*"})
    assert (none.status_code, problem(none)) == (412, "PreconditionFailed")


def test_put_that_was_answered_to_nobody_is_answered_again(site: Site) -> None:
    site.file(WHERE, DATA)
    again = site.ask("PUT", WHERE, content=DATA, headers=digest(DATA))
    assert (again.status_code, again.headers["etag"]) == (204, f'"{SHA256}"')
    assert problem(site.ask("PUT", WHERE, content=b"other", headers=digest(b"other"))) == "Exists"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (WHERE, {"Content-Range": "bytes 0-1/2"}, 400),
        (WHERE, {"Content-Encoding": "gzip"}, 415),
        (WHERE, {"Repr-Digest": "sha-256=:YQ==:"}, 400),
        (WHERE, {"Repr-Digest": "sha-256=nonsense"}, 400),
        (WHERE, {"If-Match": "*", "If-None-Match": "*"}, 400),
        (WHERE, {"If-None-Match": '"x"'}, 400),
        (WHERE, digest(b"other"), 410),
        ("users/5/recordings/142/source.exe", {}, 422),
        ("users/5/recordings/142/%2e%2e/143/source.mp4", {}, 400),
        ("users/5/recordings/142/..%2f143%2fsource.mp4", {}, 400),
        ("users/5/recordings/142/a%00b", {}, 400),
        ("users/5/recordings/142/a%0ab", {}, 400),
        ("users/5/recordings/142/%ff.mp4", {}, 400),
        ("users/5/recordings/142/.hidden", {}, 400),
        ("users/5/recordings/x/source.mp4", {}, 404),
        ("users/6/recordings/142/source.mp4", {}, 404),
        ("users/9/recordings/142/source.mp4", {}, 404),
        ("users/%2e%2e/recordings/142/source.mp4", {}, 404),
    ],
)
def test_put_that_is_refused_leaves_nothing(site: Site, path: str, headers: dict[str, str], status: int) -> None:
    refused = site.ask("PUT", path, content=DATA, headers=headers)
    assert refused.status_code == status, refused.text
    problem(refused)
    assert left(site) == {}


def test_who_may_only_read_or_is_nobody_makes_nothing(site: Site) -> None:
    reader = site.token_of(Role.READONLY, "5")
    for method, path in (
        ("PUT", WHERE), ("POST", "projects/5/videos"), ("DELETE", "projects/5/storage"),
        ("DELETE", "projects/5/videos/1"),
        ("GET", "uploads"), ("POST", "uploads/5.01234567-89ab-cdef-0123-456789abcdef/complete"),
        ("POST", "uploads/5.01234567-89ab-cdef-0123-456789abcdef/chunks/0"),
    ):  # fmt: skip
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        assert site.ask(method, path, content=DATA, headers=headers, token=reader).status_code == 403, path
        assert site.ask(method, path, content=DATA, headers=headers, anonymous=True).status_code == 401, path
    assert left(site) == {}


def test_a_foreign_upload_is_none(site: Site) -> None:
    made = _begun(site, length=10, recording="1", filename="a.mp4")
    id, other = made["id"], site.token_of(Role.USER, "6")
    for method, path in (
        ("HEAD", f"uploads/{id}"), ("PATCH", f"uploads/{id}"), ("DELETE", f"uploads/{id}"),
        ("GET", f"uploads/{id}/progress"),
        ("POST", f"uploads/{id}/complete"), ("POST", f"uploads/{id}/chunks/0"), ("GET", "uploads?user=5"),
    ):  # fmt: skip
        headers = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        assert site.ask(method, path, headers=headers, token=other).status_code == 404, path
    assert site.get(f"uploads/{id}/progress").json()["received_bytes"] == 0


# -- indexed chunks ---


def _begun(site: Site, **told: Any) -> Any:
    made = site.ask("POST", "uploads", content=json.dumps(told).encode(), headers={"Content-Type": "application/json"})
    assert made.status_code == 201, made.text
    return made.json()


def test_chunks_are_told_of_and_completed_once_all_are_there(site: Site) -> None:
    made = _begun(site, length=len(DATA), recording="142", filename="Vortrag.mp4", chunk_bytes=50_000, sha256=SHA256)
    assert (made["state"], made["chunks"], made["path"]) == ("waiting", 3, "source.mp4")
    where = made["upload_href"]
    for index in (2, 0):
        told = site.ask("POST", f"{where}/chunks/{index}", content=DATA[index * 50_000 : (index + 1) * 50_000])
        assert told.status_code == 200
    listed = site.get("uploads").json()["items"]
    assert [(each["id"], each["missing"]) for each in listed] == [(made["id"], [[50_000, 100_000]])]
    refused = site.ask("POST", f"{where}/complete")
    assert (problem(refused), refused.json()["missing"]) == ("Incomplete", [[50_000, 100_000]])
    site.ask("POST", f"{where}/chunks/1", content=DATA[50_000:100_000])
    done = site.ask("POST", f"{where}/complete")
    assert (done.status_code, done.json()["sha256"], done.headers["location"]) == (201, SHA256, f"/api/v1/{WHERE}")
    assert site.ask("POST", f"{where}/complete").json() == done.json()
    assert site.get(f"{where}/progress").json()["state"] == "committed"
    assert site.get("uploads").json()["items"] == []
    assert left(site) == {WHERE: DATA}


@pytest.mark.parametrize(
    ("index", "data", "kind"),
    [
        ("0", b"x" * 10, "Incomplete"), ("0", b"x" * 50_001, "PayloadTooLarge"), ("3", b"x", "InvalidArgument"),
        ("-1", b"x", "InvalidArgument"), ("x", b"x", "InvalidArgument"), ("9" * 30, b"x", "InvalidArgument"),
    ],
)  # fmt: skip
def test_chunks_that_are_none(site: Site, index: str, data: bytes, kind: str) -> None:
    made = _begun(site, length=len(DATA), recording="142", filename="a.mp4", chunk_bytes=50_000)
    assert problem(site.ask("POST", f"{made['upload_href']}/chunks/{index}", content=data)) == kind
    assert site.get(f"{made['upload_href']}/progress").json()["received_bytes"] == 0


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"{", b'{"length": "10"}', b'{"length": -1}', b'{"length": 10, "nonsense": 1}', b'{"length": true}',
        b'{"length": 10, "sha256": "x", "filename": "a.mp4"}', b'{"length": 1e3, "filename": "a.mp4"}', b"\xff",
        b'{"length": 10, "chunk_bytes": 0, "filename": "a.mp4"}', b'{"length": 10}', b'{"length":10,"path":"a\\ud800"}',
    ],
)  # fmt: skip
def test_documents_that_begin_nothing(site: Site, document: bytes) -> None:
    refused = site.ask("POST", "uploads", content=document, headers={"Content-Type": "application/json"})
    assert refused.status_code in (400, 422), refused.text
    problem(refused)
    assert left(site) == {}


# -- the platform ---


def form(*parts: tuple[str, str | None, bytes], end: bool = True) -> bytes:
    raw = b""
    for name, filename, data in parts:
        about = f'Content-Disposition: form-data; name="{name}"' + (
            f'; filename="{filename}"' if filename is not None else ""
        )
        raw += f"--{BOUNDARY}\r\n{about}\r\n\r\n".encode() + data + b"\r\n"
    return raw + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def post(site: Site, content: bytes, **more: Any) -> Answer:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return site.ask("POST", "projects/5/videos", content=content, headers=headers, **more)


def test_a_video_comes_as_a_form_and_is_told_of(site: Site) -> None:
    made = post(
        site, form(("sha256", None, SHA256.encode()), ("file", "Лекция.mp4", DATA), ("metadata", None, b'{"a": [1]}'))
    )
    assert made.status_code == 201, made.text
    told = made.json()
    assert {name: told[name] for name in ("project_id", "status", "filename", "file_size", "thumbnail_path")} == {
        "project_id": "5", "status": "completed", "filename": "Лекция.mp4", "file_size": len(DATA),
        "thumbnail_path": None,
    }  # fmt: skip
    assert told["metadata"]["a"] == [1]
    assert set(told) >= {"id", "created_at", "updated_at", "file_path", "sha256", "mime_type"}
    assert left(site) == {told["file_path"]: DATA}
    where = made.headers["location"]
    assert site.get(where).json() == told
    site.file(f"users/5/recordings/{told['id']}/thumbnail.jpg", b"jpg")
    assert site.get(where).json()["thumbnail_path"] == f"users/5/recordings/{told['id']}/thumbnail.jpg"
    assert site.ask("DELETE", where).status_code == 204
    assert site.get(where).status_code == 404
    assert left(site) == {}


def test_bytes_that_look_like_a_boundary_are_the_file_s(site: Site) -> None:
    tricky = (
        b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n\r\n-----" + DATA + b"\r\n--" + BOUNDARY.encode()[:-2] + b"x\r\n"
    )
    made = post(site, form(("file", "a.mp4", tricky)))
    assert made.status_code == 201
    assert left(site) == {made.json()["file_path"]: tricky}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (form(("metadata", None, b"{}")), 400),
        (form(("file", "a.mp4", DATA), end=False), 400),
        (form(("file", "a.mp4", DATA), ("file", "b.mp4", DATA)), 400),
        (form(("a", None, b"1"), ("a", None, b"2"), ("file", "a.mp4", DATA)), 400),
        (form(("file", "a.exe", DATA)), 422),
        (form(("file", "", DATA)), 422),
        (form(("file", "a.mp4", b"")), 422),
        (form(("recording", None, b"../6"), ("file", "a.mp4", DATA)), 400),
        (form(("sha256", None, b"0" * 64), ("file", "a.mp4", DATA)), 410),
        (form(("file", "a.mp4", DATA), ("metadata", None, b"[1]")), 422),
        (form(("file", "a.mp4", DATA), ("metadata", None, b"{nonsense")), 422),
        (form(("file", "a.mp4", DATA), ("metadata", None, b'{"a":' * 5000)), 422),
        (form(("file", "a.mp4", DATA), ("note", None, b"\xff")), 400),
        (form(("file", "a.mp4", b"1"), ("sha256", None, hashlib.sha256(b"1").hexdigest().encode())), 400),
        (form(("file", "a.mp4", DATA * 20), ("sha256", None, b"0" * 64)), 400),
        (form(("file", "a.mp4", b"1"), ("recording", None, b"142")), 400),
        (form(("note", None, b"x" * (MOST_FIELD_BYTES + 1)), ("file", "a.mp4", DATA)), 413),
        (form(*((str(n), None, b"") for n in range(MOST_PARTS)), ("file", "a.mp4", DATA)), 413),
        (b"nonsense", 400),
        (b"", 400),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\nabc\r\n--{BOUNDARY}--\r\n".encode(), 400),
    ],
)
def test_forms_that_are_refused_leave_nothing(site: Site, content: bytes, status: int) -> None:
    refused = post(site, content)
    assert refused.status_code == status, refused.text
    problem(refused)
    assert left(site) == {}


def test_what_is_no_form(site: Site) -> None:
    for kind in (
        "application/json",
        "multipart/form-data",
        f"multipart/form-data; boundary={'x' * 71}",
        "multipart/mixed",
    ):
        refused = site.ask("POST", "projects/5/videos", content=DATA, headers={"Content-Type": kind})
        assert (refused.status_code, problem(refused)) == (415, "UnsupportedMediaType")


def test_all_recordings_of_a_project_go_at_once(site: Site) -> None:
    for path in (
        "users/5/recordings/1/source.mp4",
        "users/5/recordings/2/assets/a.txt",
        "users/6/recordings/1/source.mp4",
    ):
        site.file(path, b"x")
    told = site.ask("DELETE", "projects/5/storage").json()
    assert (told["project_id"], told["recordings"]) == ("5", 2)
    assert site.ask("DELETE", "projects/6/storage").status_code == 404
    assert left(site) == {"users/6/recordings/1/source.mp4": b"x"}


def test_figures_are_those_of_the_daemon(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    async def ask(_daemon: object, method: str, **params: Any) -> dict[str, Any]:
        assert method == "stats"
        asked.append(params)
        return {"files": 3, "bytes": 3 << 20, "categories": {"source": {"files": 2, "bytes": 1_572_864}}, "ages": []}

    monkeypatch.setattr(type(site.context.daemon), "ask", ask)
    count = {"bytes": 3 << 20, "megabytes": 3.0, "file_count": 3}
    source = {"bytes": 1_572_864, "megabytes": 1.5, "file_count": 2}
    told = site.get("projects/5/storage/stats").json()
    assert told == {"root": "users/5", "categories": {"source": source}, "total": count}
    assert site.get("projects/6/storage/stats").status_code == 404
    assert site.get("storage/stats").status_code == 403
    admin = site.token_of(Role.ADMIN)
    assert site.get("storage/stats", token=admin).json()["root"] == str(site.root)
    assert asked == [{"user": "5"}, {}]


def test_without_a_daemon_there_are_no_figures(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_daemon: object, _method: str, **_params: Any) -> None:
        raise DaemonUnreachable("nobody listens")

    monkeypatch.setattr(type(site.context.daemon), "ask", away)
    assert problem(site.get("projects/5/storage/stats")) == "DaemonGone"


def test_the_audit_log_is_told_what_was_made(site: Site) -> None:
    told: list[Any] = []
    site.context.listeners.append(told.append)
    site.ask("PUT", WHERE, content=DATA)
    assert told[0].told["made"] == WHERE
    assert (told[0].told["bytes"], told[0].received_bytes) == (len(DATA), len(DATA))


def test_staged_bytes_are_nobody_s_download(site: Site) -> None:
    _begun(site, length=10, recording="1", filename="a.mp4")
    (job,) = Path(site.root, "temp/5").iterdir()
    for path in (f"/temp/5/{job.name}/data", f"users/5/recordings/..%2f..%2f..%2ftemp/5/{job.name}/data"):
        assert site.get(path).status_code in (400, 404)


@pytest.mark.parametrize("concat", ["partial", "final;/api/v1/uploads/a /api/v1/uploads/b"])
def test_parts_of_a_file_are_not_taken_for_files(site: Site, concat: str) -> None:
    """As tus-js-client sends them with `parallelUploads`."""
    sent = {"Tus-Resumable": "1.0.0", "Upload-Length": "5", "Upload-Concat": concat}
    got = site.ask("POST", "uploads", headers=sent)
    assert (got.status_code, problem(got)) == (501, "NotImplemented")
    assert left(site) == {}
