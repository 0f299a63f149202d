"""What is known of a file is asked for by one call, and one by one where the daemon does not tell all at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recfs.web.recordings.attributes import Attributes
from tests.component.web.site import Site

FACTS = "user.recfs.facts"
USER = "users/5/recordings"
TOLD: dict[str, Any] = {
    "version": 1, "left_out": [], "state": "stored", "location": "local,s3", "sha256": "ab" * 32, "mime": "video/mp4",
    "own": {"user.original_name": "caf\udce9.mp4", "user.upload_time": "2026-11-29T16:42:42+00:00"},
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the attributes that are asked for, in their order."""
    names: list[str] = []
    real = os.getxattr

    def getxattr(path: Any, name: str, **more: Any) -> bytes:
        names.append(name)
        return real(path, name, **more)

    monkeypatch.setattr(os, "getxattr", getxattr)
    return names


def tell(place: Path, told: dict[str, Any]) -> None:
    os.setxattr(place, FACTS, json.dumps(told).encode("ascii"))


def test_one_call_tells_all(tmp_path: Path, asked: list[str]) -> None:
    place = tmp_path / "file"
    place.touch()
    tell(place, TOLD)
    known = Attributes(str(place))
    upload = known.upload()
    assert (known.text("state"), known.text("sha256"), known.text("media")) == ("stored", "ab" * 32, None)
    assert known.at_once
    assert upload is not None
    assert upload.original_name == "caf\udce9.mp4"
    assert asked == [FACTS]


def test_what_was_left_out_is_asked_for_by_its_name(tmp_path: Path, asked: list[str]) -> None:
    place = tmp_path / "folder"
    place.mkdir()
    (place / "a").touch()
    tell(place, {"version": 1, "left_out": ["own", "names", "media_facts"], "rbytes": "7"})
    for name, value in (("recfs.media_facts", b"{}"), ("original_name", b"x")):
        os.setxattr(place, f"user.{name}", value)
    known = Attributes(str(place))
    upload = known.upload()
    assert (known.number("rbytes"), known.text("media_facts"), known.names()) == (7, "{}", ["a"])
    assert upload is not None
    assert upload.original_name == "x"
    assert {"user.recfs.media_facts", "user.original_name"} < set(asked)
    assert "user.recfs.rbytes" not in asked


@pytest.mark.parametrize("told", [None, b"{", b"[]", b'{"version": 2, "state": "x"}'])
def test_of_another_version_and_an_older_daemon_each_is_asked_for_by_its_name(
    tmp_path: Path, told: bytes | None
) -> None:
    place = tmp_path / "file"
    place.touch()
    os.setxattr(place, "user.recfs.state", b"sealing")
    if told is not None:
        os.setxattr(place, FACTS, told)
    known = Attributes(str(place))
    assert (known.text("state"), known.text("sha256"), known.upload(), known.at_once) == ("sealing", None, None, False)


def test_a_page_asks_once_for_each_recording_and_once_for_its_source(site: Site, asked: list[str]) -> None:
    for number in range(5):
        source = site.file(f"{USER}/{number}/source.mp4", b"12345")
        tell(source, TOLD)
        folder = {"version": 1, "left_out": [], "rbytes": "5", "rfiles": "1", "names": ["source.mp4"], "own": {}}
        tell(source.parent, folder)
    items = site.get(USER).json()["items"]
    assert [(each["size_bytes"], each["source"]["state"]) for each in items] == [(5, "stored")] * 5
    assert asked == [FACTS] * 10


def test_a_small_file_is_sent_with_one_question_and_its_etag_is_that_of_its_bytes(site: Site, asked: list[str]) -> None:
    source = site.file(f"{USER}/142/source.mp4", b"12345")
    tell(source, TOLD)
    got = site.get(f"{USER}/142/source.mp4")
    assert (got.content, got.headers["etag"], asked) == (b"12345", f'"{"ab" * 32}"', [FACTS])
    tell(source, {**TOLD, "state": "writing", "sha256": "cd" * 32})
    assert site.get(f"{USER}/142/source.mp4").headers["etag"].startswith("W/")
