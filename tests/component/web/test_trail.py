"""The gateway's audit log: every access in one line that nobody can forge, whatever the disk does; how it is read."""

from __future__ import annotations

import functools
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from recfs.errors import ConfigError
from recfs.web.accesses import Access
from recfs.web.problems import Problem
from recfs.web.who import trail
from recfs.web.who.trail import Trail, line_for, read

from .gateways import Gateway, run
from .test_slow_clients import until

FILE = "/api/v1/users/5/recordings/1/source.mp4"


def access(path: str = "/a", **more: Any) -> Access:
    return Access("GET", path, "192.0.2.7", 10**18, **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def everything(_: dict[str, Any]) -> bool:
    return True


def test_every_access_is_told_with_token_address_range_bytes_and_outcome(scratch: Path) -> None:
    async def story(gateway: Gateway) -> list[dict[str, Any]]:
        await gateway.ask("GET", FILE, token="user", headers={"Range": "bytes=3-6"})
        await gateway.ask("GET", FILE.replace("users/5", "users/6"), token="user")
        await gateway.ask("DELETE", FILE)
        await gateway.ask("POST", "/api/v1/links", token="user", json_body={"path": "users/5/recordings/1/"})
        await gateway.ask("DELETE", f"/api/v1/tokens/{gateway.ids['other']}", token="admin")
        keep = {"user": "5", "recording": "1", "note": "why"}
        await gateway.ask("POST", "/api/v1/keep", token="user", json_body=keep)
        await gateway.ask("GET", "/nothing/here?secret=1")
        await gateway.ask("GET", "/healthz")
        gateway.context.trail.close()
        told = lines(gateway.context.trail.path)
        names = {number: name for name, number in gateway.ids.items()}
        by = [names.get(each["token"]) for each in told]
        assert by == ["user", "user", None, "user", "admin", "user", None, None]
        return told

    read_, foreign, nobody, link, revoked, kept, missing, health = run(scratch, story)
    assert read_["path"] == FILE
    assert {key: read_[key] for key in ("address", "via", "method", "status", "outcome", "range", "sent_bytes")} == {
        "address": "192.0.2.7", "via": "token", "method": "GET", "status": 206, "outcome": "ok", "range": "bytes=3-6",
        "sent_bytes": 4,
    }  # fmt: skip
    assert read_["time"].endswith("Z")
    assert read_["duration_s"] >= 0
    assert (foreign["status"], foreign["outcome"]) == (404, "refused")
    assert (nobody["status"], nobody["via"], nobody["method"]) == (401, None, "DELETE")
    assert link["link"]["path"] == "/api/v1/users/5/recordings/1/"
    assert link["received_bytes"] > 0
    assert revoked["revoked"] == revoked["path"].rpartition("/")[2]
    assert kept["asked"]["method"] == "recording_keep"
    assert json.loads(kept["asked"]["params"]) == {"path": "users/5/recordings/1", "on": True, "note": "why"}
    assert kept["status"] == 501, "also what the daemon refused"
    assert (missing["status"], missing["path"]) == (404, "/nothing/here")
    assert health["path"] == "/healthz"


def test_nothing_that_a_client_chooses_makes_another_line_or_field(scratch: Path) -> None:
    paths = ['/a"}\n{"outcome":"ok', "/\r\n", "/\x00\x1b[2J", "/\u2028\u2029\x85", "/\udcff\udc80", "/" + "x" * 100_000]
    for path in paths:
        told = line_for(access(path, range='bytes=0-"\n'))
        assert len(told.splitlines()) == 1
        assert told.isascii()
        assert len(told) < 30_000
        found = json.loads(told)
        assert found["outcome"] == "ok"
        assert found["path"] == path[: trail.TEXT_CHARS]
    assert json.loads(line_for(access("/\udcff")))["path_hex"] == "2fff"


def test_the_file_is_its_owners_alone_and_no_link_is_followed(scratch: Path, request: pytest.FixtureRequest) -> None:
    log = Trail(scratch)
    request.addfinalizer(functools.partial(os.umask, os.umask(0)))
    log.told(access())
    log.close()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    other = scratch / "elsewhere"
    log.path.rename(other)
    log.path.symlink_to(other)
    before = other.read_bytes()
    again = Trail(scratch)
    with pytest.raises(ConfigError, match="cannot be written"):
        again.begin()
    again.told(access())
    again.close()
    assert other.read_bytes() == before
    assert again.dropped == 1


@pytest.mark.parametrize("away", ["removed", "moved", "replaced"])
def test_a_file_that_somebody_takes_away_is_begun_anew(scratch: Path, away: str) -> None:
    log = Trail(scratch)
    log.begin()
    log.told(access("/first"))
    until(lambda: (scratch / "audit.jsonl").stat().st_size > 0)
    if away == "removed":
        (scratch / "audit.jsonl").unlink()
    else:
        (scratch / "audit.jsonl").rename(scratch / "kept")
    if away == "replaced":
        (scratch / "audit.jsonl").touch(0o600)
    log.told(access("/second"))
    log.close()
    assert [each["path"] for each in lines(scratch / "audit.jsonl")] == ["/second"]
    assert log.dropped == 0


def test_a_file_that_is_shortened_while_it_is_read_ends_nothing(scratch: Path) -> None:
    """As by logrotate's copytruncate: what is mapped would be SIGBUS."""
    log = Trail(scratch)
    for number in range(5000):
        log.told(access(f"/{number}"))
    log.close()
    path = scratch / "audit.jsonl"
    page = read(log.files(), everything, 10, None)
    assert [each["path"] for each in page.entries] == [f"/{number}" for number in range(4999, 4989, -1)]

    def shortened(entry: dict[str, Any]) -> bool:
        os.truncate(path, 100)
        return False

    assert read(log.files(), shortened, 10, None).entries == []


def test_lines_of_any_length_are_read(scratch: Path) -> None:
    long = "x" * 200_000
    (scratch / "audit.jsonl").write_text(
        f'{{"path": "/1"}}\n{{"path": "{long}"}}\n{"y" * 3_000_000}\n{{"path": "/2"}}\n'
    )
    found = read(Trail(scratch).files(), everything, 10, None).entries
    assert [each["path"] for each in found] == ["/2", long, "/1"]


def test_a_signature_is_in_no_path_either(scratch: Path) -> None:
    """Chat programs and mail filters encode the "?" of a link at times."""
    log = Trail(scratch)
    log.told(access("/api/v1/users/5/recordings/1/a.mp4?issuer=1&expires=2&signature=0123abc&x=1"))
    log.close()
    text = (scratch / "audit.jsonl").read_text()
    assert "0123abc" not in text
    assert "issuer=1" in text


def test_files_are_put_aside_and_the_oldest_goes(scratch: Path) -> None:
    log = Trail(scratch, file_bytes=2000, kept=2)
    for number in range(60):
        log.told(access(f"/{number}"))
    log.close()
    assert sorted(os.listdir(scratch)) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    for name in os.listdir(scratch):
        path = scratch / name
        assert path.stat().st_size <= 2000
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = [each["path"] for path in reversed(log.files()) for each in lines(path)]
    assert told == [f"/{number}" for number in range(60 - len(told), 60)]
    assert read(log.files(), everything, 1000, None).entries == [
        each for path in log.files() for each in reversed(lines(path))
    ]


def test_a_disk_that_takes_nothing_costs_lines_that_are_counted_and_no_request(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Any
) -> None:
    expect_log("the audit log lacks 2 lines")
    log = Trail(scratch)
    log.told(access("/0"))
    written = log._file.handle
    full = threading.Event()
    full.set()

    def handle(record: Any) -> bool:
        if full.is_set() and "/0" not in record.msg:
            log._fail()
            return True
        return bool(written(record))

    monkeypatch.setattr(log._file, "handle", handle)
    log.told(access("/1"))
    log.told(access("/2"))
    while log.dropped < 2:
        pass
    full.clear()
    log.told(access("/3"))
    log.close()
    told = lines(log.path)
    assert [each.get("path") for each in told] == ["/0", None, "/3"]
    assert told[1] == {"outcome": "dropped", "count": 2}


@pytest.mark.usefixtures("any_log")
def test_memory_for_lines_of_a_slow_disk_is_bounded(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Trail(scratch, waiting=10)
    begun, go_on = threading.Event(), threading.Event()
    written = log._file.handle

    def handle(record: Any) -> bool:
        begun.set()
        assert go_on.wait(10)
        return bool(written(record))

    monkeypatch.setattr(log._file, "handle", handle)
    log.told(access("/first"))
    assert begun.wait(10)
    for number in range(50):
        log.told(access(f"/{number}"))
    assert log.dropped == 40
    go_on.set()
    log.close()
    told = lines(log.path)
    assert [each["path"] for each in told if "path" in each] == ["/first", *(f"/{number}" for number in range(10))]
    assert [each["count"] for each in told if each["outcome"] == "dropped"] == [40]


def test_half_a_line_spoils_no_other(scratch: Path) -> None:
    (scratch / "audit.jsonl").write_text('{"time":"2026')
    log = Trail(scratch)
    log.told(access("/a"))
    log.close()
    assert [each["path"] for each in read(log.files(), everything, 10, None).entries] == ["/a"]


def test_pages_go_on_where_they_ended_also_when_files_are_put_aside_meanwhile(scratch: Path) -> None:
    log = Trail(scratch, file_bytes=2000, kept=5)
    for number in range(30):
        log.told(access(f"/{number}"))
    log.close()
    first = read(log.files(), everything, 7, None)
    assert [each["path"] for each in first.entries] == [f"/{number}" for number in range(29, 22, -1)]
    for number in range(30, 40):
        log.told(access(f"/{number}"))
    log.close()
    found, cursor = list(first.entries), first.following
    while cursor is not None:
        page = read(log.files(), everything, 7, cursor)
        found += page.entries
        cursor = page.following
    assert [each["path"] for each in found] == [f"/{number}" for number in range(29, -1, -1)]
    (scratch / "audit.jsonl").unlink()
    with pytest.raises(Problem, match="CursorLost"):
        read(log.files(), everything, 7, "1-5")
    for nonsense in ("x", "1", "-1", "1-", "1-x", "٣-٣", "9" * 50 + "-1"):
        with pytest.raises(Problem, match="InvalidArgument"):
            read(log.files(), everything, 7, nonsense)


def test_one_question_looks_at_so_many_lines(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "_LOOKED_AT", 5)
    log = Trail(scratch)
    for number in range(12):
        log.told(access(f"/{number}"))
    log.close()
    asked, found, cursor = 0, [], None
    while asked == 0 or cursor is not None:
        page = read(log.files(), lambda each: each["path"] == "/1", 10, cursor)
        asked, cursor = asked + 1, page.following
        found += page.entries
    assert (asked, len(found)) == (3, 1)


def test_an_admin_asks_for_what_was_done_and_by_whom(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        await gateway.ask("GET", FILE, token="user")
        await gateway.ask("GET", FILE, token="other")
        await gateway.ask("GET", FILE.replace("users/5", "users/6"), token="other", client=("192.0.2.9", 1))
        gateway.context.trail.close()

        async def found(query: str) -> list[tuple[str, int]]:
            answer = await gateway.ask("GET", f"/api/v1/audit?{query}", token="admin")
            assert answer.status == 200, answer
            gateway.context.trail.close()
            told = answer.json["entries"]
            return [(each["token"], each["status"]) for each in told if each["path"] != "/api/v1/audit"]

        user, other = gateway.ids["user"], gateway.ids["other"]
        assert await found("") == [(other, 200), (other, 404), (user, 200)]
        assert await found(f"token={other}") == [(other, 200), (other, 404)]
        assert await found("user=6") == [(other, 200)]
        assert await found("outcome=refused") == [(other, 404)]
        assert await found("address=192.0.2.9") == [(other, 200)]
        assert await found("since=1h") == [(other, 200), (other, 404), (user, 200)]
        assert await found("since=2100-01-01T00:00:00Z") == []
        page = await gateway.ask("GET", "/api/v1/audit?limit=2", token="admin")
        assert len(page.json["entries"]) == 2
        assert page.json["dropped"] == 0
        assert page.json["next"]
        for query in ("since=soon", "limit=0", "limit=1001", "cursor=x", "limit=x"):
            assert (await gateway.ask("GET", f"/api/v1/audit?{query}", token="admin")).status == 422, query
        assert (await gateway.ask("GET", "/api/v1/audit?cursor=1-5", token="admin")).status == 410

    run(scratch, story)
