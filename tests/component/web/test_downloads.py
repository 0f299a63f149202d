"""Bytes by GET and HEAD: ranges, conditions, digests, and what a browser may do with them."""

from __future__ import annotations

import base64
import email
import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from recfs.web.recordings import body, opening
from recfs.web.who.tokens import Role
from tests.component.web.site import Site, problem

CONTENT = bytes(range(256)) * 10
SHA = hashlib.sha256(CONTENT).hexdigest()
SOURCE = "users/5/recordings/142/source.mp4"


@pytest.fixture
def source(site: Site) -> Path:
    return site.file(SOURCE, CONTENT)


@pytest.mark.usefixtures("source")
def test_a_file_comes_whole_with_its_checksum_as_etag_and_digest(site: Site) -> None:
    got = site.get(SOURCE)
    assert (got.status_code, got.content) == (200, CONTENT)
    assert got.headers["etag"] == f'"{SHA}"'
    assert got.headers["repr-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(SHA)).decode()}:"
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-length"] == str(len(CONTENT))
    assert got.headers["content-type"] == "video/mp4"
    assert got.headers["cache-control"] == "private, no-cache"
    head = site.ask("HEAD", SOURCE)
    assert (head.status_code, head.content) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k != "date"} == {
        k: v for k, v in got.headers.items() if k != "date"
    }


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=2550-", 2550, 2560),
        ("bytes=-5", 2555, 2560),
        ("bytes=-99999", 0, 2560),
        ("bytes=2559-99999", 2559, 2560),
        ("BYTES = 5-5", 5, 6),
        ("bytes=0-9,10-19", 0, 20),
        ("bytes=9000-,3-4", 3, 5),
    ],
)
def test_one_range_is_answered_with_its_bytes(site: Site, asked: str, start: int, end: int) -> None:
    got = site.get(SOURCE, {"Range": asked})
    assert (got.status_code, got.content) == (206, CONTENT[start:end])
    assert got.headers["content-range"] == f"bytes {start}-{end - 1}/2560"
    assert got.headers["content-length"] == str(end - start)
    assert got.headers["etag"] == f'"{SHA}"'


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    "asked", ["bits=0-5", "bytes", "bytes=", "bytes=a-b", "bytes=9-3", "bytes=1-2-3", "bytes=5", "bytes=--1"]
)
def test_what_is_no_range_is_ignored(site: Site, asked: str) -> None:
    got = site.get(SOURCE, {"Range": asked})
    assert (got.status_code, got.content) == (200, CONTENT)


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    "asked", ["bytes=2560-", "bytes=9999-10000", "bytes=-0", "bytes=" + ",".join(f"{n * 9}-{n * 9}" for n in range(9))]
)
def test_ranges_that_are_not_there_and_more_than_eight_are_refused(site: Site, asked: str) -> None:
    got = site.get(SOURCE, {"Range": asked})
    assert (got.status_code, problem(got)) == (416, "RangeNotSatisfiable")
    assert got.headers["content-range"] == "bytes */2560"


@pytest.mark.usefixtures("source")
def test_several_ranges_come_in_parts_in_the_order_they_were_asked_for(site: Site) -> None:
    got = site.get(SOURCE, {"Range": "bytes=100-109, 0-4,105-120 ,-3"})
    assert got.status_code == 206
    assert got.headers["content-length"] == str(len(got.content))
    kind = got.headers["content-type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    parts = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + got.content).get_payload()
    assert isinstance(parts, list)
    told = [(part["Content-Range"], part["Content-Type"], part.get_payload(decode=True)) for part in parts]
    assert told == [
        ("bytes 100-120/2560", "video/mp4", CONTENT[100:121]),
        ("bytes 0-4/2560", "video/mp4", CONTENT[0:5]),
        ("bytes 2557-2559/2560", "video/mp4", CONTENT[-3:]),
    ]


@pytest.mark.usefixtures("source")
def test_eight_ranges_are_given(site: Site) -> None:
    got = site.get(SOURCE, {"Range": "bytes=" + ",".join(f"{n * 9}-{n * 9}" for n in range(8))})
    assert got.status_code == 206
    assert got.content.count(b"Content-Range: ") == 8


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": f'"{SHA}"'}, 304),
        ({"If-None-Match": f'W/"{SHA}"'}, 304),
        ({"If-None-Match": f'"a", "b,c" , "{SHA}"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": SHA}, 200),
        ({"If-Match": f'"{SHA}"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": f'W/"{SHA}"'}, 412),
        ({"If-Match": '"other"'}, 412),
        ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 304),
        ({"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT", "If-None-Match": '"other"'}, 200),
        ({"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 412),
        ({"If-Unmodified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 200),
        ({"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT", "If-Match": f'"{SHA}"'}, 200),
        ({"If-Match": f'"{SHA}"', "If-None-Match": f'"{SHA}"'}, 304),
        ({"If-Match": '"other"', "If-None-Match": f'"{SHA}"'}, 412),
    ],
)
def test_conditions_are_judged_in_the_order_of_the_standard(site: Site, headers: dict[str, str], status: int) -> None:
    for method in ("GET", "HEAD"):
        got = site.ask(method, SOURCE, headers=headers)
        assert got.status_code == status
        assert got.headers["etag"] == f'"{SHA}"'
        assert got.content == (CONTENT if (method, status) == ("GET", 200) else got.content if status == 412 else b"")


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    ("condition", "status"),
    [(f'"{SHA}"', 206), ('"other"', 200), (f'W/"{SHA}"', 200), ("Fri, 01 Jan 2100 00:00:00 GMT", 200)],
)
def test_a_range_of_other_bytes_than_the_client_knows_is_the_whole_file(
    site: Site, condition: str, status: int
) -> None:
    got = site.get(SOURCE, {"Range": "bytes=1-3", "If-Range": condition})
    assert (got.status_code, got.content) == (status, CONTENT[1:4] if status == 206 else CONTENT)


@pytest.mark.usefixtures("source")
def test_a_date_is_no_strong_validator_even_where_it_is_the_same(site: Site) -> None:
    changed = site.get(SOURCE).headers["last-modified"]
    assert site.get(SOURCE, {"Range": "bytes=1-3", "If-Range": changed}).status_code == 200


@pytest.mark.parametrize("state", ["writing", "sealing", "incomplete"])
def test_what_is_not_committed_has_a_weak_etag_and_no_digest(site: Site, state: str) -> None:
    site.file(SOURCE, CONTENT, state=state)
    got = site.get(SOURCE)
    assert (got.status_code, got.content) == (200, CONTENT)
    assert got.headers["etag"].startswith('W/"')
    assert "repr-digest" not in got.headers
    assert site.get(SOURCE, {"If-None-Match": got.headers["etag"]}).status_code == 304
    assert site.get(SOURCE, {"Range": "bytes=1-3", "If-Range": got.headers["etag"]}).status_code == 200


@pytest.mark.usefixtures("source")
def test_a_file_that_was_left_alone_is_looked_at_in_one_thread_and_another_where_one_may_wait(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = opening._checksum

    def checksum(opened: Any) -> str | None:
        limiters = site.context.limiters
        asked.append("waits" if limiters.waits.borrowed_tokens else "calls" if limiters.calls.borrowed_tokens else "")
        return real(opened)

    monkeypatch.setattr(opening, "_checksum", checksum)
    etags = [site.get(SOURCE).headers["etag"]]
    monkeypatch.setattr(opening, "_SETTLED_NS", 0)  # its times cannot be set back: it is the change time that counts
    etags.append(site.get(SOURCE).headers["etag"])
    assert (asked, etags) == (["waits", "calls"], [f'"{SHA}"'] * 2)


def test_a_file_without_bytes(site: Site) -> None:
    site.file(SOURCE)
    got = site.get(SOURCE)
    assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "0")
    assert site.get(SOURCE, {"Range": "bytes=0-"}).status_code == 416


def test_what_lies_in_an_archive_has_to_be_restored_first(site: Site) -> None:
    site.file(SOURCE, CONTENT, state="archived", location="s3")
    got = site.get(SOURCE)
    assert (got.status_code, problem(got)) == (409, "ObjectArchived")


def test_what_an_archive_keeps_from_being_opened_is_told_from_what_permissions_do(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a mount both are EACCES."""

    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("recfs.web.files.open_file", refused)
    site.file(SOURCE, CONTENT, state="archived", location="s3")
    assert problem(site.get(SOURCE)) == "ObjectArchived"
    site.file(SOURCE, CONTENT)
    assert problem(site.get(SOURCE)) == "AccessDenied"


@pytest.mark.parametrize(
    ("name", "kind", "disposition"),
    [
        ("a.mp4", "video/mp4", 'inline; filename="a.mp4"'),
        ("a.mp3", "audio/mpeg", 'inline; filename="a.mp3"'),
        ("a.vtt", "text/vtt; charset=utf-8", 'inline; filename="a.vtt"'),
        ("a.png", "image/png", 'inline; filename="a.png"'),
        ("a.svg", "application/octet-stream", 'attachment; filename="a.svg"'),
        ("a.html", "application/octet-stream", 'attachment; filename="a.html"'),
        ("a.json", "application/json", 'attachment; filename="a.json"'),
        ("a.txt", "text/plain", 'attachment; filename="a.txt"'),
        ('q"\r\nX: y.mp4', "video/mp4", "inline; filename=\"q___X_ y.mp4\"; filename*=UTF-8''q%22%0D%0AX%3A%20y.mp4"),
        (
            "Интервью.mp4",
            "video/mp4",
            "inline; filename=\"________.mp4\"; filename*=UTF-8''"
            + "%D0%98%D0%BD%D1%82%D0%B5%D1%80%D0%B2%D1%8C%D1%8E.mp4",
        ),
    ],
)
def test_media_are_shown_and_all_else_is_saved(site: Site, name: str, kind: str, disposition: str) -> None:
    from urllib.parse import quote

    site.file(f"users/5/recordings/142/{name}", b"<script>")
    got = site.get(f"users/5/recordings/142/{quote(name)}")
    assert got.headers["content-type"] == kind
    assert got.headers["content-disposition"] == disposition
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-security-policy"].endswith("; sandbox")


def test_what_the_registry_found_goes_before_the_name_and_what_an_uploader_said_counts_for_nothing(site: Site) -> None:
    place = site.file("users/5/recordings/142/a.bin", b"x", mime="audio/mpeg")
    os.setxattr(place, "user.mime_type", b"text/html")
    assert site.get("users/5/recordings/142/a.bin").headers["content-type"] == "audio/mpeg"
    place = site.file("users/5/recordings/142/b.bin", b"x")
    os.setxattr(place, "user.mime_type", b"text/html")
    assert site.get("users/5/recordings/142/b.bin").headers["content-type"] == "application/octet-stream"


@pytest.mark.usefixtures("source")
def test_a_download_is_saved_under_its_name(site: Site) -> None:
    assert site.get(f"{SOURCE}?download=true").headers["content-disposition"] == 'attachment; filename="source.mp4"'


def test_a_name_that_is_no_utf_8_is_told_and_got(site: Site) -> None:
    folder = site.root / "users/5/recordings/142"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9 %2f.mp4")).write_bytes(b"bytes")
    (entry,) = site.get("users/5/recordings/142").json()["entries"]
    assert os.fsencode(entry["name"]) == b"caf\xe9 %2f.mp4"
    got = site.get(entry["href"])
    assert (got.status_code, got.content) == (200, b"bytes")
    assert "filename*=UTF-8''caf%EF%BF%BD%20%252f.mp4" in got.headers["content-disposition"]


# --- nobody gets elsewhere -------------------------------------------------------------------------------------------

OUTSIDE = [
    "users/5/recordings/142/..%2f..%2f..%2f6/recordings/7/secret.mp4",
    "users/5/recordings/142/%2e%2e/%2e%2e/%2e%2e/6/recordings/7/secret.mp4",
    "users/5/recordings/142/..",
    "users/5/recordings/142/./source.mp4",
    "users/5/recordings/142//source.mp4",
    "users/5/recordings/142/%00",
    "users/5/recordings/142/a%00/../b",
    "users/5/recordings/142/link/secret.mp4",
    "users/5/recordings/142/link.mp4",
    "users/5/recordings/linked/secret.mp4",
    "users/5/recordings/999/secret.mp4",
    "users/5/recordings/..%2f..%2f6%2frecordings/7/secret.mp4",
    "users/5/recordings/%2e%2e/142/source.mp4",
    "users/6/recordings/7/secret.mp4",
    "users/5%2f..%2f6/recordings/7/secret.mp4",
    "users/%2e%2e/shared/x",
    "users/05/recordings/142/source.mp4",
    "users/5/recordings/0142/source.mp4",
    "users/+5/recordings/142/source.mp4",
    "users/5/recordings/142/fifo",
]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_no_path_leads_out_of_a_recording(site: Site, method: str, path: str) -> None:
    secret = site.file("users/6/recordings/7/secret.mp4", b"secret")
    site.file(SOURCE, CONTENT)
    folder = site.root / "users/5/recordings/142"
    (folder / "link").symlink_to("../../../6/recordings/7")
    (folder / "link.mp4").symlink_to("../../../6/recordings/7/secret.mp4")
    (folder.parent / "999").symlink_to("../../6/recordings/7")
    os.mkfifo(folder / "fifo")
    got = site.ask(method, path)
    removes = method == "DELETE" and path.endswith(("/link.mp4", "/fifo"))  # the link itself, not what it leads to
    assert got.status_code == (204 if removes else got.status_code)
    assert removes or got.status_code in {400, 404}
    assert b"secret" not in got.content
    assert secret.read_bytes() == b"secret"
    assert (folder / "source.mp4").exists()


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize(
    "path",
    ["users/6/recordings", "users/6/recordings/7", "users/6/recordings/7/a.mp4", "users/6/recordings/7/thumbnail"],
)
def test_what_is_another_user_s_is_not_there(site: Site, method: str, path: str) -> None:
    site.file("users/6/recordings/7/a.mp4", CONTENT)
    for token in (site.token, site.token_of(Role.READONLY, "5", "77")):
        got = site.ask(method, path, token=token)
        assert got.status_code in {404, 405}
        assert got.status_code == site.ask(method, path.replace("users/6", "users/77"), token=site.token).status_code
    assert site.ask(method, path, anonymous=True).status_code in {401, 405}
    if method == "GET" and not path.endswith("thumbnail"):
        assert site.get(path, token=site.token_of(Role.ADMIN)).status_code == 200


def test_a_small_file_is_read_when_it_is_opened_but_by_few_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer takes the threads of few short calls: what more would wait there waits elsewhere."""
    site.file(SOURCE, CONTENT)
    read: list[int] = []
    real = body._read

    def reading(opened: Any, at: int, size: int, last: bool) -> tuple[bytes, float]:
        read.append(size)
        return real(opened, at, size, last)

    monkeypatch.setattr(body, "_read", reading)
    assert (site.get(SOURCE).content, read) == (CONTENT, [])
    got = site.get(SOURCE, {"Range": "bytes=1-3,7-9"})
    assert (got.status_code, read) == (206, [])
    assert CONTENT[1:4] in got.content
    with opening._small_reads, opening._small_reads:
        assert (site.get(SOURCE).content, read) == (CONTENT, [len(CONTENT)])


# --- while it is sent ------------------------------------------------------------------------------------------------


@pytest.mark.expect_log("sent in part: it was written to")
def test_a_file_that_is_written_to_while_it_is_sent_does_not_come_to_its_end(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = body._read

    def read(opened: Any, at: int, size: int, last: bool) -> tuple[bytes, float]:
        if last:
            source.write_bytes(CONTENT + b"more")
        return real(opened, at, size, last)

    monkeypatch.setattr(opening, "FIRST_BYTES", 0)  # or it would be read in one piece when it is opened
    monkeypatch.setattr(body, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(body, "_read", read)
    got = site.get(SOURCE)
    assert (got.content, got.ended) == (CONTENT[:2000], False)


@pytest.mark.expect_log("sent in part: it was written to")
def test_a_file_that_becomes_shorter_while_it_is_sent_does_not_come_to_its_end(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = body._read

    def read(opened: Any, at: int, size: int, last: bool) -> tuple[bytes, float]:
        os.truncate(source, 1500)
        return real(opened, at, size, last)

    monkeypatch.setattr(opening, "FIRST_BYTES", 0)  # or it would be read in one piece when it is opened
    monkeypatch.setattr(body, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(body, "_read", read)
    got = site.get(SOURCE)
    assert (got.content, got.ended) == (CONTENT[:1500], False)


@pytest.mark.parametrize("after", [0, 1])
def test_bytes_that_cannot_be_read_are_a_refusal_at_first_and_no_end_later(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, after: int
) -> None:
    real, left = body._read, [after]

    def read(opened: Any, at: int, size: int, last: bool) -> tuple[bytes, float]:
        if not left[0]:
            raise OSError(errno.EIO, "secret", str(source))
        left[0] -= 1
        return real(opened, at, size, last)

    monkeypatch.setattr(opening, "FIRST_BYTES", 0)  # or it would be read in one piece when it is opened
    monkeypatch.setattr(body, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(body, "_read", read)
    with caplog.at_level("CRITICAL", "recfs.web.recordings.body"):
        got = site.get(SOURCE)
    if after:
        assert (got.status_code, got.content, got.ended) == (200, CONTENT[:1000], False)
    else:
        assert (got.status_code, problem(got)) == (502, "IoFailure")
        assert "secret" not in got.text


def test_a_small_file_that_is_written_to_while_it_is_read_is_to_be_asked_for_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "FIRST_BYTES", 0)
    place, real = site.file(SOURCE, b"small"), body._read

    def read(opened: Any, at: int, size: int, last: bool) -> tuple[bytes, float]:
        place.write_bytes(b"other bytes")
        return real(opened, at, size, last)

    monkeypatch.setattr(body, "_read", read)
    got = site.get(SOURCE)
    assert (got.status_code, problem(got)) == (503, "TryAgain")
    assert got.headers["retry-after"]


@pytest.mark.usefixtures("source")
def test_no_descriptor_is_left(site: Site) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    site.get(SOURCE)
    before = descriptors()
    for headers in ({}, {"Range": "bytes=1-2"}, {"Range": "bytes=9999-"}, {"If-None-Match": "*"}, {"If-Match": '"x"'}):
        for method in ("GET", "HEAD"):
            site.ask(method, SOURCE, headers=headers)
    site.get("users/5/recordings/142")
    site.get("users/5/recordings/142?deep=true")
    site.get("users/5/recordings/142/thumbnail")
    site.get("users/5/recordings/142/nothing/there")
    assert descriptors() == before
