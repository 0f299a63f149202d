"""Lists of recordings and of what is in them, pictures, and removal."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from recfs.web.recordings import listing, routes
from recfs.web.recordings.conditions import judged
from recfs.web.who.tokens import Role
from tests.component.web.site import Site, problem

USER = "users/5/recordings"


def pages(site: Site, path: str, key: str, **query: Any) -> list[list[dict[str, Any]]]:
    """All pages of a list."""
    found: list[list[dict[str, Any]]] = []
    cursor: str | None = None
    while True:
        asked = "&".join(
            f"{name}={value}" for name, value in {**query, **({"cursor": cursor} if cursor else {})}.items()
        )
        got = site.get(f"{path}?{asked}")
        assert got.status_code == 200, got.text
        found.append(got.json()[key])
        cursor = got.json()["next"]
        if cursor is None:
            return found


def test_recordings_come_in_the_order_of_their_numbers_page_by_page(site: Site) -> None:
    ids = ["2", "10", "9", "100", "018f0000-0000-4000-8000-000000000001"]
    for each in ids:
        site.file(f"{USER}/{each}/source.mp4", b"x" * int(each[:2]))
    site.file(f"{USER}/not-an-id/source.mp4")
    in_order = ["2", "9", "10", "100", ids[-1]]
    found = pages(site, USER, "items", limit=2)
    assert [[each["id"] for each in page] for page in found] == [in_order[:2], in_order[2:4], in_order[4:]]
    found = pages(site, USER, "items", limit=3, order="desc")
    assert [each["id"] for page in found for each in page] == in_order[::-1]


def test_what_stays_is_told_once_while_others_go_and_come(site: Site) -> None:
    for each in range(1, 10):
        site.file(f"{USER}/{each}/source.mp4")
    first = site.get(f"{USER}?limit=4").json()
    for each in ("4", "5"):
        site.ask("DELETE", f"{USER}/{each}")
    site.file(f"{USER}/0/source.mp4")
    second = site.get(f"{USER}?limit=9&cursor={first['next']}").json()
    assert [each["id"] for each in first["items"] + second["items"]] == list("12346789")


def test_a_recording_is_told_with_the_facts_of_its_source(site: Site) -> None:
    facts = '{"container": "mp4", "mime": "video/mp4", "duration_s": 61.5, "width": 1920, "tags": {"title": "Talk"}}'
    source = site.file(f"{USER}/142/source.mp4", b"12345", media_facts=facts, media="valid")
    for name, value in {
        "original_name": "Доклад.mp4",
        "upload_time": "2026-11-29T16:42:42+00:00",
        "mime_type": "video/mp4",
    }.items():
        os.setxattr(source, f"user.{name}", value.encode())
    folder = source.parent
    for name, value in {
        "rbytes": "5",
        "rfiles": "1",
        "status": "expired",
        "expires_at": "2026-12-01T00:00:00Z",
        "keep": "1",
    }.items():
        os.setxattr(folder, f"user.recfs.{name}", value.encode())
    (told,) = site.get(USER).json()["items"]
    assert told.items() >= {
        "id": "142", "user": "5", "href": "/api/v1/users/5/recordings/142", "size_bytes": 5, "files": 1,
        "status": "expired", "expires_at": "2026-12-01T00:00:00Z", "keep": True,
    }.items()  # fmt: skip
    assert told["source"].items() >= {
        "kind": "file", "name": "source.mp4", "size_bytes": 5, "state": "committed", "mime": "video/mp4",
        "verdict": "valid", "original_name": "Доклад.mp4", "uploaded_at": "2026-11-29T16:42:42+00:00",
        "tags": {"title": "Talk"},
    }.items()  # fmt: skip
    assert told["source"]["media"]["duration_s"] == 61.5
    assert site.get(told["source"]["href"]).content == b"12345"
    whole = site.get(told["href"]).json()
    assert whole["entries"] == [told["source"]]
    assert {key: value for key, value in whole.items() if key not in ("entries", "next")} == told


def test_a_checksum_that_would_have_to_be_waited_for_is_not_asked_for(site: Site) -> None:
    site.file(f"{USER}/142/source.mp4", b"12345", state="sealing")
    (told,) = site.get(USER).json()["items"]
    assert (told["source"]["state"], told["source"]["sha256"]) == ("sealing", None)


def test_the_video_stands_for_a_recording_without_a_source(site: Site) -> None:
    site.file(f"{USER}/1/video.mp4")
    site.file(f"{USER}/2/notes.txt")
    (site.root / USER / "3/source.mp4").mkdir(parents=True)
    told = site.get(USER).json()["items"]
    assert [each["source"] and each["source"]["name"] for each in told] == ["video.mp4", None, None]


def test_what_is_in_a_recording_comes_by_name_flat_or_deep(site: Site) -> None:
    names = [
        "a.txt",
        "assets/thumbnail.png",
        "assets/x/deep.json",
        "source.mp4",
        "transcription/subtitles.vtt",
        "z.txt",
    ]
    for name in names:
        site.file(f"{USER}/142/{name}", name.encode())
    (site.root / USER / "142/link").symlink_to("source.mp4")
    os.mkfifo(site.root / USER / "142/fifo")
    flat = [entry for page in pages(site, f"{USER}/142", "entries", limit=2) for entry in page]
    assert [(each["kind"], each["path"]) for each in flat] == [
        ("file", "a.txt"), ("directory", "assets"), ("file", "source.mp4"), ("directory", "transcription"),
        ("file", "z.txt"),
    ]  # fmt: skip
    for limit in (1, 2, 4, 100):
        deep = [entry for page in pages(site, f"{USER}/142", "entries", limit=limit, deep="true") for entry in page]
        assert [each["path"] for each in deep] == names
    inner = site.get(f"{USER}/142/assets").json()
    assert [each["path"] for each in inner["entries"]] == ["assets/thumbnail.png", "assets/x"]
    assert site.get(inner["entries"][0]["href"]).content == b"assets/thumbnail.png"
    found = pages(site, f"{USER}/142/assets", "entries", limit=1)
    assert [each["path"] for page in found for each in page] == ["assets/thumbnail.png", "assets/x"]


def test_a_search_finds_a_part_of_number_name_and_title_and_looks_at_so_many(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in range(1, 31):
        source = site.file(
            f"{USER}/{each}/source.mp4", media_facts='{"tags": {"title": "Über uns"}}' if each == 17 else "{}"
        )
        os.setxattr(source, "user.original_name", (f"Talk {each}" if each % 10 == 0 else "Else").encode())
    assert [each["id"] for each in site.get(f"{USER}?q=tALK").json()["items"]] == ["10", "20", "30"]
    assert [each["id"] for each in site.get(f"{USER}?q=%C3%BCBER").json()["items"]] == ["17"]
    assert [each["id"] for each in site.get(f"{USER}?q=2&limit=200").json()["items"]] == [
        "2",
        "12",
        *map(str, range(20, 30)),
    ]
    monkeypatch.setattr(listing, "_LOOKED_AT", 12)
    found = pages(site, USER, "items", q="Talk", limit=2)
    assert [[each["id"] for each in page] for page in found] == [["10"], ["20"], ["30"]]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "cursor=%F0", "cursor=!!", "order=up", "q=", "deep=x"]
)
def test_what_is_no_value_is_refused_by_name(site: Site, query: str) -> None:
    site.file(f"{USER}/142/source.mp4")
    path = f"{USER}/142?{query}" if query.startswith("deep") else f"{USER}?{query}"
    got = site.get(path)
    assert (got.status_code, problem(got)) == (422, "InvalidArgument")
    assert query.partition("=")[0] in got.json()["detail"]


def test_a_user_without_recordings_has_an_empty_list_and_one_that_is_not_there_none(site: Site) -> None:
    (site.root / USER).rmdir()
    assert site.get(USER).json() == {"items": [], "next": None}
    (site.root / "users/5").rmdir()
    assert site.get(USER).status_code == 404
    assert site.get(f"{USER}/142").status_code == 404


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_picture_is_the_recording_s_own_then_the_derived_then_the_user_s_then_the_shared_one(site: Site) -> None:
    site.file(f"{USER}/142/source.mp4")
    assert problem(site.get(f"{USER}/142/thumbnail")) == "NotFound"
    assert site.get(f"{USER}/141/thumbnail").status_code == 404
    (site.root / USER / "142/assets").symlink_to("../../../../shared/thumbnails")
    site.file("shared/thumbnails/thumbnail.png")
    assert site.get(USER).json()["items"][0]["has_thumbnail"] is False
    (site.root / USER / "142/assets").unlink()
    for path in (
        "shared/thumbnails/default.png", "users/5/thumbnails/default.jpg", "users/5/thumbnails/142.png",
        f"{USER}/142/assets/thumbnail.png", f"{USER}/142/thumbnail.jpg",
    ):  # fmt: skip
        site.file(path, path.encode())
        got = site.get(f"{USER}/142/thumbnail")
        assert (got.status_code, got.content) == (200, path.encode())
        assert got.headers["content-type"].startswith("image/")
        assert site.get(USER).json()["items"][0]["has_thumbnail"] is ("/recordings/" in path)
    assert site.ask("HEAD", f"{USER}/142/thumbnail").headers["content-length"] == str(len(path))
    assert site.get(f"{USER}/142/thumbnail", {"If-None-Match": got.headers["etag"]}).status_code == 304
    assert site.get(f"{USER}/141/thumbnail").status_code == 404, "the shared one of a recording that is not there"


# --- removal ---------------------------------------------------------------------------------------------------------


def test_a_file_goes_and_a_directory_does_not(site: Site) -> None:
    file = site.file(f"{USER}/142/assets/a.txt", b"x")
    got = site.ask("DELETE", f"{USER}/142/assets")
    assert (got.status_code, problem(got)) == (409, "IsADirectory")
    got = site.ask("DELETE", f"{USER}/142/assets/a.txt")
    assert (got.status_code, got.content) == (204, b"")
    assert not file.exists()
    assert problem(site.ask("DELETE", f"{USER}/142/assets/a.txt")) == "NotFound"


def test_only_the_bytes_that_the_client_knows_go_with_if_match(site: Site) -> None:
    file = site.file(f"{USER}/142/a.txt", b"x")
    got = site.ask("DELETE", f"{USER}/142/a.txt", headers={"If-Match": '"other"'})
    assert (got.status_code, problem(got)) == (412, "PreconditionFailed")
    assert file.exists()
    etag = got.headers["etag"]
    assert site.ask("DELETE", f"{USER}/142/a.txt", headers={"If-Match": etag}).status_code == 204
    assert not file.exists()


def test_a_removal_heeds_every_condition(site: Site) -> None:
    """RFC 9110, 13.1: nothing is done where one does not hold."""
    site.file("users/5/recordings/142/a.txt", b"a")
    etag = site.get(f"{USER}/142/a.txt").headers["etag"]
    for path, fields in (
        (f"{USER}/142/a.txt", {"If-None-Match": "*"}),
        (f"{USER}/142/a.txt", {"If-None-Match": f'"other", {etag}'}),
        (f"{USER}/142/a.txt", {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        (f"{USER}/142", {"If-Match": etag}),
        (f"{USER}/142", {"If-None-Match": "*"}),
        ("projects/5/videos/142", {"If-Match": '"x"'}),
        ("projects/5/videos/142", {"If-None-Match": "*"}),
    ):
        assert site.ask("DELETE", path, headers=fields).status_code == 412, (path, fields)
    assert site.ask("DELETE", f"{USER}/142/a.txt", headers={"If-None-Match": '"other"'}).status_code == 204
    assert site.ask("DELETE", f"{USER}/142", headers={"If-Match": "*", "If-None-Match": '"x"'}).status_code == 204


def test_what_comes_while_a_removal_is_decided_does_not_go(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    file = site.file(f"{USER}/142/a.txt", b"x")
    etag = site.get(f"{USER}/142/a.txt").headers["etag"]

    def replaced(*args: Any, **more: Any) -> Any:
        verdict = judged(*args, **more)
        if file.read_bytes() == b"x":
            site.file(f"{USER}/142/b.txt", b"newer").replace(file)
        return verdict

    monkeypatch.setattr(routes, "judged", replaced)
    assert site.ask("DELETE", f"{USER}/142/a.txt", headers={"If-Match": etag}).status_code == 412
    assert file.read_bytes() == b"newer"


def test_a_recording_goes_with_all_that_is_in_it_and_no_link_is_followed(site: Site) -> None:
    other = site.file("users/6/recordings/7/a.mp4", b"x")
    for name in ("source.mp4", "assets/x/y.json"):
        site.file(f"{USER}/142/{name}")
    (site.root / USER / "142/other").symlink_to("../../../6/recordings/7")
    (site.root / USER / "143").symlink_to("../../6/recordings/7")
    assert site.ask("DELETE", f"{USER}/142").status_code == 204
    assert not (site.root / USER / "142").exists()
    assert site.ask("DELETE", f"{USER}/142").status_code == 404
    assert site.ask("DELETE", f"{USER}/143").status_code == 404
    assert other.exists()


@pytest.mark.slow
def test_a_recording_goes_however_deep_it_is(site: Site) -> None:
    """Deeper than calls nest, than descriptors there are, and than a path may be long."""
    folder = os.open(site.root / USER, os.O_RDONLY)
    os.mkdir("142", dir_fd=folder)
    names = ["142", *["deep"] * 1050]
    for above, name in itertools.pairwise(names):
        below = os.open(above, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
        os.mkdir(name, dir_fd=folder)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
    os.close(folder)
    assert site.ask("DELETE", f"{USER}/142").status_code == 204
    assert os.listdir(site.root / USER) == []


def test_a_removal_does_not_go_where_a_directory_was_moved_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    other = site.file(f"{USER}/7/keep.txt", b"x")
    site.file(f"{USER}/142/a/b/file")
    real = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        real(name, dir_fd=dir_fd)
        (site.root / USER / "142/a/b").rename(site.root / USER / "7/b")

    monkeypatch.setattr("recfs.web.recordings.removal.os.unlink", unlink)
    assert site.ask("DELETE", f"{USER}/142").status_code == 404
    monkeypatch.undo()
    assert other.exists()
    assert site.ask("DELETE", f"{USER}/142").status_code == 204
    assert sorted(os.listdir(site.root / USER / "7")) == ["b", "keep.txt"]


def test_who_may_only_read_removes_nothing(site: Site) -> None:
    file = site.file(f"{USER}/142/source.mp4")
    reader = site.token_of(Role.READONLY, "5")
    for path in (f"{USER}/142/source.mp4", f"{USER}/142"):
        got = site.ask("DELETE", path, token=reader)
        assert (got.status_code, problem(got)) == (403, "NotPermitted")
    assert site.get(f"{USER}/142/source.mp4", token=reader).status_code == 200
    assert file.exists()
