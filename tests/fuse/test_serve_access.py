"""Who may, and what is told, on a real mount with its daemon: `recfs token` beside a gateway, events, limits, trash."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import recfs
from .harness import BASE_CONFIG, Mount
from .test_serve import Gateway, serving

pytestmark = [pytest.mark.modeless]
OFFERED = [
    "status", "stats", "events", "quota_show", "quota_set", "trash_list", "trash_restore", "recording_list",
    "recording_keep", "recording_show", "fetch",
]  # fmt: skip


@contextlib.contextmanager
def listening(gateway: Gateway, token: str, query: str = "") -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        connection.request("GET", f"/api/v1/events{query}", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        yield answer
    finally:
        connection.close()


def next_event(stream: http.client.HTTPResponse, kind: str) -> dict[str, Any]:
    told: dict[str, str] = {}
    while True:
        line = stream.readline()
        assert line, "the stream has ended"
        name, _, value = line.decode().rstrip("\n").partition(": ")
        told[name] = value
        if line == b"\n":
            if told.get("event") == kind:
                found: dict[str, Any] = json.loads(told["data"])
                return found | {"id": told.get("id")}
            told = {}


def ask(gateway: Gateway, token: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, json.loads(raw) if raw else None
    finally:
        connection.close()


def test_tokens_events_limits_trash_and_audit_of_a_gateway_beside_its_daemon(store: Mount, outside: Path) -> None:
    outside.chmod(0o755)
    methods = json.dumps([each for each in OFFERED if each != "recording_keep"])
    store.start(
        config=f'{BASE_CONFIG}[trash]\nretention = "1d"\n[gateway]\nsocket = "{outside}/gateway.sock"\n'
        f"methods = {methods}\n"
    )
    with serving(store, outside) as gateway:
        where = ("--directory", outside / "serve")
        admin = recfs("token", "add", "--role", "admin", *where).stdout.decode().strip()
        granted = json.loads(recfs("--json", "token", "add", "--role", "user", "--user", "5", *where).stdout)
        user = granted["token"]
        with listening(gateway, user) as mine, listening(gateway, admin) as all_of_it:
            assert next_event(all_of_it, "status")["daemon"] == "here"
            (store.recording(6, 1) / "source.mp4").write_bytes(b"of another")
            (store.recording(5, 1) / "source.mp4").write_bytes(b"bytes")
            told = next_event(mine, "committed")
            assert (told["path"], told["user"], told["size_bytes"]) == ("users/5/recordings/1/source.mp4", "5", 5)
            assert [next_event(all_of_it, "committed")["user"] for _ in range(2)] == ["6", "5"]
            cursor = told["id"]

            assert ask(gateway, admin, "PUT", "users/5/quota", {"max_files": 2})[0] == 200
            assert ask(gateway, user, "GET", "users/5/quota")[1]["limits"]["max_files"] == 2
            assert ask(gateway, user, "PUT", "users/5/quota", {"max_files": 9})[0] == 403
            (store.recording(5, 1) / "b").write_bytes(b"")
            with pytest.raises(OSError, match="quota") as refused:
                (store.recording(5, 1) / "c").write_bytes(b"")
            assert refused.value.errno == errno.EDQUOT
            assert ask(gateway, admin, "PUT", "users/5/quota", {"max_files": "many"})[0] == 422

            assert ask(gateway, user, "DELETE", "users/5/recordings/1/source.mp4")[0] == 204
            (entry,) = ask(gateway, user, "GET", "trash?user=5")[1]["entries"]
            assert ask(gateway, user, "GET", "trash?user=6")[0] == 404
            other = ask(gateway, admin, "DELETE", "users/6/recordings/1/source.mp4")
            assert other[0] == 204
            (foreign,) = ask(gateway, admin, "GET", "trash?user=6")[1]["entries"]
            wanted = {"user": "5", "ids": [foreign["number"]]}
            assert ask(gateway, user, "POST", "trash/restore", wanted)[0] == 404, "by its number alone it is nobody's"
            assert ask(gateway, user, "POST", "trash/restore", {"user": "5", "ids": [entry["number"]]})[0] == 200
            assert (store.recording(5, 1) / "source.mp4").read_bytes() == b"bytes"
            assert not (store.recording(6, 1) / "source.mp4").exists()

            status, problem = ask(gateway, user, "POST", "keep", {"user": "5", "recording": "1"})
            assert (status, problem["type"]) == (501, "urn:recfs:problem:NotSupported")
            assert "recording_keep" in problem["detail"]
            assert ask(gateway, admin, "POST", "fetch", {"path": "users/5/recordings/1"})[0] == 202
            assert next_event(all_of_it, "failed")["problem"]["type"] == "urn:recfs:problem:NotSupported"

            with listening(gateway, user, f"?since={cursor}&kind=restored") as later:
                assert next_event(later, "restored")["path"] == "users/5/recordings/1/source.mp4"

            began_s = time.monotonic()
            recfs("token", "revoke", granted["id"], *where)
            assert ask(gateway, user, "GET", "session")[0] == 401
            mine.read()
            assert time.monotonic() - began_s < 20, "its stream has ended, too"
            entries = ask(gateway, admin, "GET", f"audit?token={granted['id']}&limit=100")[1]["entries"]
            assert {(each["method"], each["status"]) for each in entries} >= {
                ("PUT", 403),
                ("DELETE", 204),
                ("POST", 200),
            }
            assert gateway.end() == 0, "an end sends listeners away"
            all_of_it.read()
