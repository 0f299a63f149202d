"""What an admin asks of the daemon by HTTP, and users of their own: how it is asked, and what it may not be asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from recfs.client.errors import DaemonRefused, DaemonUnreachable

from .gateways import Gateway, run

API = "/api/v1"


def asked(gateway: Gateway) -> list[tuple[str, dict[str, Any]]]:
    found = list(gateway.daemon.asked)
    gateway.daemon.asked.clear()
    return found


@pytest.mark.parametrize(
    ("method", "path", "body", "question"),
    [
        ("GET", "stats", None, ("stats", {})),
        ("GET", "stats?user=5&category=video&store=s3", None,
         ("stats", {"user": "5", "category": "video", "store": "s3"})),
        ("GET", "stats?user=5&recording=1", None, ("stats", {"user": "5", "recording": "1"})),
        ("GET", "stats/trend?days=7", None, ("stats_trend", {"days": 7})),
        ("GET", "status", None, ("status", {})),
        ("GET", "duplicates?min_bytes=10&limit=5&after=x", None,
         ("duplicates", {"min_bytes": 10, "limit": 5, "after": "x"})),
        ("PUT", "users/6/quota", {"max_bytes": "10GiB", "max_files": 5, "usage_warning": "default"},
         ("quota_set", {"user": "6", "max_bytes": "10GiB", "max_files": 5, "usage_warning": "default"})),
        ("GET", "queue?limit=5", None, ("queue", {"limit": 5})),
        ("POST", "queue/retry", {"all": True}, ("queue_retry", {"all": True})),
        ("POST", "queue/drop", {"ids": [3, 4]}, ("queue_drop", {"ids": [3, 4]})),
        ("GET", "expirations?due_s=60", None, ("recording_list", {"due_s": 60.0})),
        ("POST", "keep", {"user": "6", "recording": "1", "on": False, "note": "why"},
         ("recording_keep", {"path": "users/6/recordings/1", "on": False, "note": "why"})),
        ("POST", "expire", {"user": "6", "recording": "1"}, ("recording_expire", {"path": "users/6/recordings/1"})),
        ("GET", "trash?after=9", None, ("trash_list", {"after": 9})),
    ],
)  # fmt: skip
def test_an_admin_asks_the_daemon(
    scratch: Path, method: str, path: str, body: Any, question: tuple[str, dict[str, Any]]
) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.daemon.answers[question[0]] = [] if question[0] == "recording_list" else {"as": "told"}
        answer = await gateway.ask(method, f"{API}/{path}", token="admin", json_body=body)
        assert (answer.status, answer.json) == (200, gateway.daemon.answers[question[0]])
        assert asked(gateway) == [question]

    run(scratch, story)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "stats?store=elsewhere", None),
        ("GET", "stats/trend?days=0", None),
        ("GET", "stats/trend?days=9999", None),
        ("GET", "duplicates?limit=0", None),
        ("GET", "duplicates?min_bytes=-1", None),
        ("GET", "queue?limit=1001", None),
        ("GET", "expirations?due_s=-1", None),
        ("GET", "expirations?due_s=nan", None),
        ("GET", "trash?after=-1", None),
        ("GET", "trash?after=99999999999999999999", None),
        ("PUT", "users/6/quota", {"max_byte": 5}),
        ("PUT", "users/6/quota", [1]),
        ("PUT", "users/6/quota", {"max_bytes": {"a": 1}}),
        ("POST", "queue/retry", {}),
        ("POST", "queue/retry", {"all": True, "ids": [1]}),
        ("POST", "queue/retry", {"ids": [-1]}),
        ("POST", "queue/drop", {"ids": list(range(1001))}),
        ("POST", "restore", {"path": "a", "days": 0}),
        ("POST", "restore", {"path": "a", "tier": "Fast"}),
        ("POST", "keep", {"user": "6"}),
        ("POST", "keep", {"user": "6", "recording": "1", "path": "users/5/recordings/1"}),
        ("POST", "trash/restore", {"user": "6", "ids": []}),
        ("POST", "trash/restore", {"user": "6", "ids": [1], "to": "users/5/recordings/1/a"}),
        ("POST", "tokens", {"role": "root"}),
        ("POST", "tokens", {"role": "user"}),
        ("POST", "tokens", {"role": "admin", "users": ["5"]}),
        ("POST", "tokens", {"role": "user", "users": ["../5"]}),
        ("POST", "tokens", {"role": "admin", "expires_s": 0}),
        ("POST", "tokens", {"role": "admin", "name": "a\nb"}),
        ("POST", "tokens", {"role": "admin", "id": "x"}),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_daemon_is_asked(
    scratch: Path, method: str, path: str, body: Any
) -> None:
    async def story(gateway: Gateway) -> None:
        grants = len(gateway.context.gate.tokens.book().by_id)
        answer = await gateway.ask(method, f"{API}/{path}", token="admin", json_body=body)
        assert (answer.status, answer.problem) == (422, "InvalidArgument"), answer
        assert asked(gateway) == []
        assert len(gateway.context.gate.tokens.book().by_id) == grants

    run(scratch, story)


@pytest.mark.parametrize("route", ["fetch", "restore"])
@pytest.mark.parametrize("path", ["../etc", "users/5/../6", "", "/", "users//5", "users/5/.", "a\0b", "users/5/"])
def test_a_body_names_no_path_that_leads_elsewhere(scratch: Path, route: str, path: str) -> None:
    async def story(gateway: Gateway) -> None:
        answer = await gateway.ask("POST", f"{API}/{route}", token="admin", json_body={"path": path})
        assert (answer.status, answer.problem) == (400, "InvalidPath")
        await asyncio.sleep(0)
        assert asked(gateway) == []

    run(scratch, story)


def test_what_takes_long_is_answered_at_once_and_bounded(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        gate = asyncio.Event()

        async def fetched(params: dict[str, Any]) -> dict[str, Any]:
            await gate.wait()
            return params

        gateway.daemon.answers["fetch"] = fetched
        body = {"path": "/users/5/recordings/\udcff", "recursive": True}
        for _ in range(4):
            answer = await gateway.ask("POST", f"{API}/fetch", token="admin", json_body=body)
            assert (answer.status, answer.json["asked"]) == (202, "fetch")
        refused = await gateway.ask("POST", f"{API}/fetch", token="admin", json_body=body)
        assert (refused.status, refused.problem) == (429, "TooManyRequests")
        await asyncio.sleep(0)
        assert asked(gateway) == [("fetch", {"path": "users/5/recordings/\udcff", "recursive": True})] * 4
        gate.set()

    run(scratch, story)


def test_who_has_several_users_names_one(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        answers = gateway.daemon.answers
        answers |= {"stats": {}, "trash_list": {"entries": []}}
        answers["recording_list"] = lambda params: [{"user": params["user"]}]
        answers["quota_show"] = [{"user": "5", "used_bytes": 1}, {"user": "7", "used_bytes": 2}]
        assert (await gateway.ask("GET", f"{API}/stats", token="user")).status == 200
        assert asked(gateway) == [("stats", {"user": "5"})], "of the only one there is"
        for path in ("stats", "stats/trend", "trash"):
            answer = await gateway.ask("GET", f"{API}/{path}", token="both")
            assert (answer.status, answer.problem) == (422, "InvalidArgument")
        assert (await gateway.ask("GET", f"{API}/stats?user=6", token="both")).status == 200
        asked(gateway)
        both = await gateway.ask("GET", f"{API}/expirations", token="both")
        assert both.json == [{"user": "5"}, {"user": "6"}]
        users = await gateway.ask("GET", f"{API}/users", token="both")
        assert users.json == [{"user": "5", "used_bytes": 1}, {"user": "6"}], "and nobody else's"

    run(scratch, story)


def test_what_is_brought_back_is_the_users_wherever_in_the_trash_it_is(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        pages = {
            2: {"entries": [{"number": 3, "user": "5"}], "next": 10},
            10: {"entries": [{"number": 11, "user": "5"}, {"number": 12, "user": "6"}], "next": 20},
            20: {"entries": []},
        }
        answers = gateway.daemon.answers
        answers["trash_list"] = lambda params: pages[params["after"]]
        answers["trash_restore"] = {"restored": []}

        async def back(*ids: int, **more: Any) -> int:
            body = {"user": "5", "ids": ids, **more}
            return (await gateway.ask("POST", f"{API}/trash/restore", token="user", json_body=body)).status

        assert await back(3, 11, force=True) == 200
        assert asked(gateway)[-1] == ("trash_restore", {"ids": [3, 11], "force": True})
        for ids in ((3, 12), (3, 13)):
            assert await back(*ids) == 404
            assert "trash_restore" not in [method for method, _ in asked(gateway)]

    run(scratch, story)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (DaemonUnreachable("gone"), 503, "DaemonGone"),
        (DaemonRefused("NotFound", "no such user"), 404, "NotFound"),
        (DaemonRefused("NotSupported", "this store has no S3 tier"), 501, "NotSupported"),
        (DaemonRefused("NotPermitted", "not allowed for this caller"), 403, "NotPermitted"),
        (DaemonRefused("NotPermitted", "queue is not offered on this socket; it answers a, b"), 501, "NotSupported"),
    ],
)
def test_what_the_daemon_refuses_is_told_and_nothing_of_its_socket(
    scratch: Path, error: Exception, status: int, kind: str
) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.daemon.answers["queue"] = error
        answer = await gateway.ask("GET", f"{API}/queue", token="admin")
        assert (answer.status, answer.problem) == (status, kind)
        assert b"answers a, b" not in answer.body

    run(scratch, story)


def test_tokens_are_made_listed_and_revoked_by_admins(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        body = {"role": "user", "users": ["6"], "name": "new", "expires_s": 3600}
        made = await gateway.ask("POST", f"{API}/tokens", token="admin", json_body=body)
        assert made.status == 201
        assert made.headers["cache-control"] == "no-store"
        token, number = made.json["token"], made.json["id"]
        assert (await gateway.ask("GET", f"{API}/session", token=token)).json["users"] == ["6"]
        listed = (await gateway.ask("GET", f"{API}/tokens", token="admin")).body.decode()
        assert number in listed
        assert "sha256" not in listed
        assert token.split("_", 2)[2] not in listed
        gone = await gateway.ask("DELETE", f"{API}/tokens/{number}", token="admin")
        assert (gone.status, gone.json["revoked_ns"] > 0) == (200, True)
        assert (await gateway.ask("GET", f"{API}/session", token=token)).status == 401
        assert (await gateway.ask("DELETE", f"{API}/tokens/{number}", token="admin")).status == 200, "once more"
        person = {"role": "readonly", "users": ["6"], "subject": "alice"}
        assert (await gateway.ask("POST", f"{API}/tokens", token="admin", json_body=person)).json["token"] is None
        again = await gateway.ask("POST", f"{API}/tokens", token="admin", json_body=person)
        assert (again.status, again.problem) == (412, "Exists")
        own = gateway.ids["admin"]
        assert (await gateway.ask("DELETE", f"{API}/tokens/{own}", token="admin")).status == 200
        assert (await gateway.ask("GET", f"{API}/tokens", token="admin")).status == 401, "also one's own"

    run(scratch, story)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b"[]", b'"x"', b"{}" * 2, b"[" * 50_000, b"9" * 60_000])
def test_a_body_that_is_none_is_refused(scratch: Path, body: bytes) -> None:
    async def story(gateway: Gateway) -> None:
        for path in ("links", "tokens", "queue/retry", "keep"):
            headers = {"Content-Type": "application/json"}
            answer = await gateway.ask("POST", f"{API}/{path}", token="admin", body=body, headers=headers)
            assert answer.status in (400, 422), answer
            assert answer.problem

    run(scratch, story)


def test_a_body_that_is_too_long_is_not_read_and_none_is_of_whom_nobody_knows(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        read = 0

        def endless() -> Any:
            nonlocal read
            while True:
                read += 1 << 14
                yield bytes(1 << 14)

        answer = await gateway.ask("POST", f"{API}/links", token="user", pieces=endless())
        assert (answer.status, answer.problem) == (413, "PayloadTooLarge")
        assert read <= 6 << 14
        read = 0
        assert (await gateway.ask("POST", f"{API}/links", pieces=endless())).status == 401
        assert read == 0
        told = await gateway.ask("POST", f"{API}/links", token="user", headers={"Content-Length": "9" * 4000})
        assert told.status == 413

    run(scratch, story)
