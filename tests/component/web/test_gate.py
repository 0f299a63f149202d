"""Who is let in, and by what; what browsers and proxies send, and what anybody could send instead of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recfs.web.who import sessions
from recfs.web.who.sessions import COOKIE, HEADER, Sessions

from .gateways import CLIENT, HOST, Answer, Gateway, run

PROXY = ("10.0.0.2", 50000)
BEHIND: dict[str, Any] = {
    "proxies": (ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("2001:db8::/32")),
    "subject_header": "X-Forwarded-User",
}
FILE = "/api/v1/users/5/recordings/1/source.mp4"
ME = "/api/v1/session"


async def login(gateway: Gateway, token: str = "user", **headers: str) -> Answer:
    sent = {HEADER: "1", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return await gateway.ask("POST", ME, json_body={"token": gateway.tokens.get(token, token)}, headers=sent)


def cookie(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0].partition("=")[2]


def test_a_token_lets_in_and_says_for_what(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        told = await gateway.ask("GET", ME, token="user")
        assert told.json == {
            "role": "user", "users": ["5"], "token": gateway.ids["user"], "via": "token", "name": "user",
        }  # fmt: skip
        assert (await gateway.ask("GET", FILE, token="user")).body == b"of user 5"
        for scheme in ("bearer", "BEARER", "Bearer "):
            assert (
                await gateway.ask("GET", ME, headers={"Authorization": f"{scheme} {gateway.tokens['user']}"})
            ).status == 200

    run(scratch, story)


def test_whoever_has_nothing_good_is_told_how_to_come_in_and_nothing_else(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        token = gateway.tokens["user"]
        fields: list[dict[str, str]] = [
            {}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {token}"},
            {"Authorization": token}, {"Authorization": f"Bearer {token}x"},
            {"Authorization": f"Bearer {token} {token}"}, {"Authorization": f"Bearer {token[:-1]}é"},
            {"Authorization": "Bearer " + "a" * 10_000},
            {"Cookie": f"{COOKIE}=x"}, {"Cookie": f"{COOKIE}={'a' * 43}"}, {"Cookie": f"{COOKIE}={token}"},
            {"X-Forwarded-User": "alice"}, {"X-Token": token}, {"Cookie": f"token={token}"},
        ]  # fmt: skip
        for each in fields:
            answer = await gateway.ask("GET", FILE, headers=each)
            assert (answer.status, answer.problem) == (401, "Unauthorized"), each
            assert answer.headers["www-authenticate"].startswith('Bearer realm="recfs"')
            assert b"of user" not in answer.body
        twice = [(b"authorization", f"Bearer {token}".encode())] * 2
        assert (await gateway.ask_raw("GET", FILE.encode(), twice, b"", CLIENT)).status == 401
        in_query = await gateway.ask("GET", f"{FILE}?access_token={token}&token={token}&authorization=Bearer%20{token}")
        assert in_query.status == 401, "a token in an URL would be in logs"

    run(scratch, story)


def test_what_is_wrong_is_refused_and_not_tried_in_another_way(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        secret = cookie(await login(gateway))
        assert (await gateway.ask("GET", ME, session=secret)).status == 200
        bad = await gateway.ask("GET", ME, session=secret, headers={"Authorization": "Bearer nonsense"})
        assert bad.status == 401
        signed = await gateway.ask("GET", f"{FILE}?signature=00&expires=9&issuer=x", token="user")
        assert (signed.status, signed.problem) == (403, "NotPermitted")

    run(scratch, story)


def test_revoking_a_token_ends_everything_that_came_of_it_with_the_next_request(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        secret = cookie(await login(gateway))
        made = await gateway.ask(
            "POST", "/api/v1/links", token="user", json_body={"path": "users/5/recordings/1/source.mp4"}
        )
        url = made.json["url"]
        asked = [{"token": "user", "target": FILE}, {"session": secret, "target": FILE}, {"target": url}]
        for each in asked:
            assert (await gateway.ask("GET", **each)).status == 200
        # As another process does: `recfs token revoke`.
        type(gateway.context.gate.tokens)(gateway.context.gate.tokens.path).revoke(gateway.ids["user"])
        assert [(await gateway.ask("GET", **each)).status for each in asked] == [401, 401, 403]
        assert (await login(gateway)).status == 401

    run(scratch, story)


@pytest.mark.expect_log("sent in part: whoever gets it may not have it any more")
@pytest.mark.parametrize("by", ["token", "link"])
def test_a_download_under_way_ends_with_its_token(scratch: Path, by: str) -> None:
    async def story(gateway: Gateway) -> None:
        (gateway.root / "users/5/recordings/1/long.mp4").write_bytes(bytes(8 << 20))
        target = FILE.replace("source", "long")
        if by == "link":
            wanted = {"path": target.removeprefix("/api/v1/")}
            target = (await gateway.ask("POST", "/api/v1/links", token="user", json_body=wanted)).json["url"]

        def revoke() -> None:
            gateway.context.gate.tokens.revoke(gateway.ids["user"])

        token = "user" if by == "token" else None
        whole = await gateway.ask("GET", target, token=token)
        assert len(whole.body) == 8 << 20
        cut = await gateway.ask("GET", target, token=token, at_first=revoke)
        assert (cut.status, cut.headers["content-length"], cut.ended) == (200, str(8 << 20), False)
        assert len(cut.body) == 1 << 20

    run(scratch, story)


def test_an_upload_under_way_ends_with_its_token(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        wanted = {"user": "5", "recording": "1", "path": "b.mp4", "length": 6}
        made = await gateway.ask("POST", "/api/v1/uploads", token="user", json_body=wanted)
        put = "/api/v1/users/5/recordings/1/c.mp4"
        tus = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}

        def pieces() -> Iterator[bytes]:
            yield b"abc"
            gateway.context.gate.tokens.revoke(gateway.ids["user"])
            yield b"def"

        target = made.headers["location"].partition(HOST)[2] or made.headers["location"]
        cut = await gateway.ask("PATCH", target, token="user", headers=tus, pieces=pieces())
        assert cut.status == 400, cut
        told = await gateway.ask("GET", f"{target}/progress", token="admin")
        assert told.json["offset"] == 3, "what came before counts"
        gateway.grant("user", "user", "5")
        cut = await gateway.ask("PUT", put, token="user", headers={"Content-Length": "6"}, pieces=pieces())
        assert cut.status == 400, cut
        assert not (gateway.root / "users/5/recordings/1/c.mp4").exists()
        assert not (gateway.root / "users/5/recordings/1/b.mp4").exists()

    run(scratch, story)


def test_an_untrusted_tokens_file_lets_nobody_in_and_tells_nobody_why(scratch: Path, expect_log: Any) -> None:
    expect_log("nobody is let in: .*tokens.json has mode 0644")

    async def story(gateway: Gateway) -> None:
        secret = cookie(await login(gateway))
        gateway.context.gate.tokens.path.chmod(0o644)
        for each in ({"token": "admin"}, {"session": secret}, {}):
            answer = await gateway.ask("GET", ME, **each)  # type: ignore[arg-type]
            assert answer.status in (401, 500), each
            assert b"tokens" not in answer.body
        assert (await gateway.ask("GET", ME, token="admin")).problem == "InternalError"
        gateway.context.gate.tokens.path.chmod(0o600)
        assert (await gateway.ask("GET", ME, token="admin")).status == 200

    run(scratch, story)


def test_a_session_is_a_cookie_that_no_script_reads_and_no_other_site_sends(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        answer = await login(gateway)
        assert (answer.status, answer.body) == (204, b"")
        told = answer.headers["set-cookie"]
        assert told.startswith("__Host-recfs=")
        assert told.split("; ")[1:] == ["Path=/", "Max-Age=43200", "Secure", "HttpOnly", "SameSite=Strict"]
        assert answer.headers["cache-control"] == "no-store"
        secret = cookie(answer)
        file = gateway.context.settings.directory / "sessions.json"
        assert secret not in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
        found = await gateway.ask("GET", ME, session=secret)
        assert (found.json["via"], found.json["users"]) == ("session", ["5"])
        restarted = type(gateway.context.gate)(gateway.context.settings)
        assert restarted.sessions.grant_id(secret) == gateway.ids["user"], "it outlives the gateway"

    run(scratch, story)


def test_a_logout_ends_the_session_for_whoever_has_kept_the_cookie(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        one, other = cookie(await login(gateway)), cookie(await login(gateway))
        gone = await gateway.ask("DELETE", ME, session=one)
        assert gone.status == 204
        assert gone.headers["set-cookie"].startswith("__Host-recfs=; Path=/; Max-Age=0; Secure")
        assert (await gateway.ask("GET", ME, session=one)).status == 401
        assert (await gateway.ask("GET", ME, session=other)).status == 200
        assert (await gateway.ask("DELETE", ME, session=one)).status == 204, "once more is no fault"

    run(scratch, story)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({HEADER: "1"}, 201),
        ({HEADER: "1", "Sec-Fetch-Site": "same-origin", "Origin": f"http://{HOST}"}, 201),
        ({HEADER: "1", "Origin": f"http://{HOST}".upper()}, 201),
        ({}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": f"http://{HOST}"}, 403),
        ({HEADER: "1", "Sec-Fetch-Site": "cross-site"}, 403),
        ({HEADER: "1", "Sec-Fetch-Site": "same-site"}, 403),
        ({HEADER: "1", "Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, 403),
        ({HEADER: "1", "Origin": "null"}, 403),
        ({HEADER: "1", "Sec-Fetch-Site": "same-origin", "Origin": "null"}, 201),
        ({HEADER: "1", "Sec-Fetch-Site": "cross-site", "Origin": "null"}, 403),
        ({HEADER: "1", "Sec-Fetch-Site": "none", "Origin": "null"}, 403),
        ({HEADER: "1", "Origin": f"https://{HOST}"}, 403),
        ({HEADER: "1", "Origin": f"http://{HOST}.evil.example"}, 403),
        ({HEADER: "1", "Origin": f"http://{HOST}:8080"}, 403),
        ({HEADER: "1", "Origin": ""}, 403),
        ({HEADER: "1", "X-Forwarded-Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({HEADER: "1", "X-Forwarded-Proto": "https", "Origin": f"https://{HOST}"}, 403),
    ],
)
def test_what_another_site_has_a_browser_send_changes_nothing(
    scratch: Path, headers: dict[str, str], status: int
) -> None:
    async def story(gateway: Gateway) -> None:
        secret = cookie(await login(gateway, "admin"))
        sent = {"Cookie": f"{COOKIE}={secret}", **headers}
        body = {"role": "admin"}
        before = len(gateway.context.gate.tokens.book().by_id)
        answer = await gateway.ask("POST", "/api/v1/tokens", json_body=body, headers=sent)
        assert answer.status == status
        assert len(gateway.context.gate.tokens.book().by_id) == before + (status == 201)
        # A token is sent by no browser on its own: none of this is asked of it.
        others = {key: value for key, value in headers.items() if key != HEADER}
        assert (
            await gateway.ask("POST", "/api/v1/tokens", token="admin", json_body=body, headers=others)
        ).status == 201

    run(scratch, story)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
    ],
)
def test_another_site_embeds_nothing_of_a_session(scratch: Path, headers: dict[str, str], status: int) -> None:
    async def story(gateway: Gateway) -> None:
        secret = cookie(await login(gateway))
        assert (await gateway.ask("GET", FILE, headers={"Cookie": f"{COOKIE}={secret}", **headers})).status == status

    run(scratch, story)


def test_nobody_is_logged_in_by_another_site(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        body = {"token": gateway.tokens["user"]}
        assert (await gateway.ask("POST", ME, json_body=body)).status == 403
        assert (await login(gateway, Origin="http://evil.example")).status == 403
        assert (await login(gateway, "nonsense")).status == 401
        assert (await gateway.ask("POST", ME, json_body={}, headers={HEADER: "1"})).status == 422
        assert (await gateway.ask("POST", ME, body=b"{" * 70_000, headers={HEADER: "1"})).status == 413

    run(scratch, story)


def test_two_cookies_are_none(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        secret = cookie(await login(gateway))
        planted = await gateway.ask("GET", ME, headers={"Cookie": f"{COOKIE}={'a' * 43}; {COOKIE}={secret}"})
        assert planted.status == 401
        beside = await gateway.ask("GET", ME, headers={"Cookie": f"a=b; {COOKIE}={secret};c"})
        assert beside.status == 200

    run(scratch, story)


def test_sessions_end_and_are_no_more_than_so_many(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10**18]
    book = Sessions(scratch / "sessions.json", lambda: now[0])
    monkeypatch.setattr(sessions, "MOST_EACH", 3)
    monkeypatch.setattr(sessions, "MOST", 4)

    def begun(grant: str) -> str:
        now[0] += 1
        return book.begin(grant)

    first, *rest = (begun("a") for _ in range(4))
    assert book.grant_id(first) is None, "the oldest of a grant makes room"
    assert [book.grant_id(each) for each in rest] == ["a"] * 3
    others = [begun("b"), begun("b")]
    assert [book.grant_id(each) for each in (*rest, *others)] == [None, "a", "a", "b", "b"]
    now[0] += sessions.LIFE_S * 10**9
    assert [book.grant_id(each) for each in (*rest, *others)] == [None] * 5
    begun("c")
    assert (scratch / "sessions.json").read_text().count("grant_id") == 1, "what is over is not kept"


def test_who_has_logged_in_at_a_trusted_proxy_is_believed_from_there_alone(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.grant("alice", "readonly", "5", subject="alice@example.org")
        sent = {"X-Forwarded-User": "alice@example.org"}
        found = await gateway.ask("GET", ME, headers=sent, client=PROXY)
        assert (found.json["via"], found.json["users"], found.json["role"]) == ("proxy", ["5"], "readonly")
        for client in (CLIENT, ("10.0.1.2", 1), ("::1", 1), ("2001:db9::1", 1), None, ("", 0), ("10.0.0.2.evil", 1)):
            assert (await gateway.ask("GET", ME, headers=sent, client=client)).status == 401, client
        spoofed = sent | {"X-Forwarded-For": PROXY[0]}
        assert (await gateway.ask("GET", ME, headers=spoofed, client=CLIENT)).status == 401
        mapped = await gateway.ask("GET", ME, headers=sent, client=("::ffff:10.0.0.2", 1))
        assert mapped.status == 200
        unknown = await gateway.ask("GET", ME, headers={"X-Forwarded-User": "bob"}, client=PROXY)
        assert (unknown.status, unknown.problem) == (403, "NotPermitted")
        twice = [(b"x-forwarded-user", b"bob"), (b"x-forwarded-user", b"alice@example.org")]
        assert (await gateway.ask_raw("GET", ME.encode(), twice, b"", PROXY)).status == 401, (
            "one of them is the client's"
        )
        assert (await gateway.ask("GET", ME, headers={"X-Forwarded-User": ""}, client=PROXY)).status == 401
        gateway.context.gate.tokens.revoke(gateway.ids["alice"])
        assert (await gateway.ask("GET", ME, headers=sent, client=PROXY)).status == 403

    run(scratch, story, **BEHIND)


def test_a_browser_behind_a_proxy_is_asked_the_same_as_one_with_a_session(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.grant("root", "admin", subject="root")
        sent = {"X-Forwarded-User": "root", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "files.example.org"}
        body = {"role": "admin"}

        async def ask(**more: str) -> int:
            headers = sent | {key.replace("_", "-"): value for key, value in more.items()}
            return (await gateway.ask("POST", "/api/v1/tokens", json_body=body, headers=headers, client=PROXY)).status

        assert await ask() == 403
        assert await ask(X_Recfs_Request="1", Origin="https://files.example.org") == 201
        assert await ask(X_Recfs_Request="1", Origin="http://files.example.org") == 403
        assert await ask(X_Recfs_Request="1", Sec_Fetch_Site="cross-site") == 403

    run(scratch, story, **BEHIND)


def test_nobody_is_believed_where_no_header_is_configured(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.grant("alice", "user", "5", subject="alice")
        for name in ("X-Forwarded-User", "Remote-User", "X-Remote-User", ""):
            answer = await gateway.ask_raw("GET", ME.encode(), [(name.lower().encode(), b"alice")], b"", PROXY)
            assert answer.status == 401, name

    run(scratch, story, proxies=BEHIND["proxies"])


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        (CLIENT, "203.0.113.9", CLIENT[0]),
        (PROXY, None, PROXY[0]),
        (PROXY, "203.0.113.9", "203.0.113.9"),
        (PROXY, "1.2.3.4, 203.0.113.9", "203.0.113.9"),
        (PROXY, "203.0.113.9, 10.0.0.77", "203.0.113.9"),
        (PROXY, "evil\r\n, 203.0.113.9", "203.0.113.9"),
        (PROXY, "203.0.113.9, nonsense", PROXY[0]),
        (PROXY, "203.0.113.9, nonsense, 10.0.0.5", "10.0.0.5"),
        (PROXY, "2001:db8::7, 10.0.0.5", "2001:db8::7"),
        (PROXY, "::ffff:203.0.113.9", "203.0.113.9"),
        (PROXY, ",".join(["10.0.0.3"] * 5000), "10.0.0.3"),
    ],
)
def test_an_address_is_what_the_last_proxy_that_is_trusted_says(
    scratch: Path, client: tuple[str, int], forwarded: str | None, address: str
) -> None:
    async def story(gateway: Gateway) -> None:
        told: list[Any] = []
        gateway.context.listeners.append(told.append)
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        await gateway.ask("GET", ME, headers=headers, client=client)
        assert [each.address for each in told] == [address]

    run(scratch, story, **BEHIND)


def test_a_token_has_so_many_requests_and_another_has_its_own(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        found = [(await gateway.ask("GET", ME, token="user")).status for _ in range(4)]
        assert found == [200, 200, 200, 429]
        refused = await gateway.ask("GET", ME, token="user")
        assert (refused.problem, refused.headers["retry-after"]) == ("TooManyRequests", "1000")
        assert (await gateway.ask("GET", ME, token="other")).status == 200

    run(scratch, story, requests_per_s=0.001, requests_burst=3)


def test_a_token_logs_in_no_more_often_than_it_may_ask(scratch: Path) -> None:
    """Each session is synced to the disk."""

    async def story(gateway: Gateway) -> None:
        told = {"token": gateway.tokens["user"]}
        answers = [
            await gateway.ask("POST", "/api/v1/session", json_body=told, headers={HEADER: "1"}) for _ in range(4)
        ]
        assert [each.status for each in answers] == [204, 204, 204, 429]
        assert answers[-1].headers["retry-after"] == "1000"
        assert (await gateway.ask("GET", ME, token="user")).status == 200, "whoever has a session goes on"

    run(scratch, story, requests_per_s=0.001, requests_burst=3)


def test_who_is_refused_again_and_again_is_told_to_wait_and_others_are_not(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        found = [(await gateway.ask("GET", ME, token="nonsense")).status for _ in range(150)]
        assert found[:100] == [401] * 100
        assert 429 in found[100:]
        assert (await gateway.ask("GET", ME, token="user")).status == 200, "a good token is never held up by bad ones"
        assert (await gateway.ask("GET", ME, token="nonsense", client=("192.0.2.8", 1))).status == 401

    run(scratch, story)
