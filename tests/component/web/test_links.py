"""Signed links: what they are for, for how long, and for whom no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import pytest

from recfs.web.problems import Problem
from recfs.web.who.links import MOST_S, Claim, Links
from recfs.web.who.principal import Principal, Via
from recfs.web.who.tokens import Role, Tokens

from .gateways import Gateway, run

FILE = "users/5/recordings/1/source.mp4"
FOLDER = "users/5/recordings/1/"


async def link(gateway: Gateway, path: str = FILE, token: str = "user", **more: Any) -> str:
    answer = await gateway.ask("POST", "/api/v1/links", token=token, json_body={"path": path, **more})
    assert answer.status == 201, answer
    url: str = answer.json["url"]
    return url


def changed(url: str, **parts: str | None) -> str:
    path, _, query = url.partition("?")
    told = {key: values[0] for key, values in parse_qs(query).items()}
    told |= {key: value for key, value in parts.items() if value is not None}
    return f"{path}?{urlencode({key: value for key, value in told.items() if parts.get(key, '') is not None})}"


def test_anybody_reads_a_file_by_a_link_and_nothing_else(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        url = await link(gateway)
        got = await gateway.ask("GET", url)
        assert (got.status, got.body) == (200, b"of user 5")
        assert (await gateway.ask("HEAD", url)).status == 200
        part = await gateway.ask("GET", url, headers={"Range": "bytes=3-6"})
        assert (part.status, part.body) == (206, b"user")
        query = url.partition("?")[2]
        others = [
            ("GET", f"/api/v1/{FOLDER}assets/notes.txt"), ("GET", "/api/v1/users/6/recordings/1/source.mp4"),
            ("GET", "/api/v1/users/5/recordings/1"), ("GET", "/api/v1/users/5/recordings"),
            ("DELETE", f"/api/v1/{FILE}"), ("PUT", f"/api/v1/{FILE}"), ("POST", f"/api/v1/{FILE}"),
            ("PATCH", f"/api/v1/{FILE}"), ("GET", "/api/v1/session"),
            ("GET", "/api/v1/events"), ("GET", "/api/v1/stats"), ("GET", "/api/v1/users"), ("POST", "/api/v1/links"),
            ("GET", f"/api/v1/{FILE}/"), ("GET", f"/api/v1//{FILE}"), ("GET", f"/api/v1/{FOLDER}./source.mp4"),
            ("GET", f"/api/v1/{FOLDER}assets/../source.mp4"), ("GET", f"/api/v1/{FOLDER}assets/%2e%2e/source.mp4"),
            ("GET", f"/api/v1/{FILE}%00"), ("GET", f"/api/v1/{FILE}%2f"),
        ]  # fmt: skip
        for method, path in others:
            answer = await gateway.ask(method, f"{path}?{query}")
            assert answer.status in (403, 404, 405), (method, path, answer)
            assert b"of user" not in answer.body
        percent = await gateway.ask("GET", f"/api/v1/users/%35/recordings/1/source%2Emp4?{query}")
        assert percent.body == b"of user 5", "the same path in another spelling is the same path"
        assert (gateway.root / FILE).read_bytes() == b"of user 5"

    run(scratch, story)


def test_a_link_to_a_folder_is_for_all_below_and_for_nothing_beside(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        beside = gateway.root / "users/5/recordings/10"
        beside.mkdir()
        (beside / "source.mp4").write_bytes(b"of user 5, too")
        url = await link(gateway, FOLDER)
        query = url.partition("?")[2]

        async def get(path: str) -> int:
            answer = await gateway.ask("GET", f"/api/v1/users/{path}?{query}")
            assert b"user 6" not in answer.body
            return answer.status

        assert (await gateway.ask("GET", url)).status == 200, "as it is given"
        for path in (
            "5/recordings/1/source.mp4", "5/recordings/1/assets/notes.txt", "5/recordings/1", "5/recordings/1/assets/",
        ):  # fmt: skip
            assert await get(path) == 200, path
        for path in (
            "5/recordings/10/source.mp4", "5/recordings/10", "5/recordings", "6/recordings/1/source.mp4",
            "5/recordings/1/../10/source.mp4", "5/recordings/1/%2e%2e/10/source.mp4",
            "5/recordings/1%2f..%2f10/source.mp4", "5/recordings/1/../../../6/recordings/1/source.mp4",
            "5/recordings/1/link.mp4", "5/recordings/1//source.mp4", "5/recordings/1//", "5/recordings/10/",
            "5/recordings/2/source.mp4", "5/recordings/1%00/source.mp4",
        ):  # fmt: skip
            assert await get(path) in (400, 403, 404), path

    run(scratch, story)


@pytest.mark.parametrize(
    "parts",
    [
        {"signature": "0" * 64}, {"signature": ""}, {"signature": "é"}, {"expires": "9999999999"}, {"expires": "-1"},
        {"expires": "1e9"}, {"expires": "٣"}, {"expires": ""}, {"issuer": ""}, {"issuer": "0" * 12},
        {"prefix": f"/api/v1/{FOLDER}"}, {"prefix": "/"}, {"prefix": ""}, {"prefix": f"/api/v1/{FILE}"},
        {"expires": None}, {"issuer": None},
    ],
)  # fmt: skip
def test_a_link_with_anything_changed_is_good_for_nothing(scratch: Path, parts: dict[str, str | None]) -> None:
    async def story(gateway: Gateway) -> None:
        url = await link(gateway)
        answer = await gateway.ask("GET", changed(url, **parts))
        assert (answer.status, answer.problem) == (403, "NotPermitted")
        assert answer.json["detail"] == "this link is not good, or not for this", "which of it was wrong is not told"
        expires = parse_qs(url.partition("?")[2])["expires"][0]
        assert (await gateway.ask("GET", changed(url, expires=f"0{expires}"))).status == 403
        for twice in ("expires", "signature", "issuer"):
            doubled = f"{url}&{twice}={parse_qs(url.partition('?')[2])[twice][0]}"
            assert (await gateway.ask("GET", doubled)).status == 403

    run(scratch, story)


def test_a_link_made_for_one_gateway_is_none_for_another(scratch: Path) -> None:
    async def made(gateway: Gateway) -> str:
        return await link(gateway)

    url = run(scratch / "a", made)

    async def story(gateway: Gateway) -> None:
        assert (await gateway.ask("GET", changed(url, issuer=gateway.ids["user"]))).status == 403

    run(scratch / "b", story)


def test_a_link_ends(scratch: Path) -> None:
    now = [10.0**9]
    tokens = Tokens(scratch / "tokens.json", lambda: int(now[0] * 1e9))
    grant, _ = tokens.add(Role.USER, ["5"])
    links = Links(tokens, lambda: now[0])
    who = Principal(Role.USER, frozenset({"5"}), grant.id, Via.TOKEN)
    url, ends_s = links.issue(who, "GET", f"/api/v1/{FILE}", 60)
    assert ends_s == 10**9 + 60
    path, _, query = url.partition("?")

    def asked() -> Principal:
        return links.principal("GET", path, parse_qs(query))[0]

    now[0] += 59
    assert asked() == Principal(Role.READONLY, frozenset({"5"}), grant.id, Via.LINK)
    now[0] += 1
    with pytest.raises(Problem, match="this link has expired"):
        asked()


def test_a_link_is_worth_what_its_issuer_may_when_it_is_used(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        tokens = gateway.context.gate.tokens
        by_both, by_admin = await link(gateway, token="both"), await link(gateway, token="admin")
        to_put = await link(gateway, "users/5/recordings/1/new.mp4", method="PUT")
        assert (await gateway.ask("GET", by_both)).status == 200
        document = tokens.path.read_text()

        def edited(before: str, after: str) -> None:
            assert before in document
            tokens.path.write_text(document.replace(before, after))

        edited('"users": [\n    "5",\n    "6"\n   ]', '"users": [\n    "6"\n   ]')
        assert (await gateway.ask("GET", by_both)).status == 403, "the issuer lost that user"
        assert (await gateway.ask("GET", by_admin)).status == 200
        edited('"role": "user"', '"role": "readonly"')
        put = parse_qs(to_put.partition("?")[2])
        with pytest.raises(Problem):
            gateway.context.gate.links.principal("PUT", to_put.partition("?")[0], put)
        tokens.path.write_text(document)
        assert gateway.context.gate.links.principal("PUT", to_put.partition("?")[0], put)[0].role is Role.USER
        tokens.revoke(gateway.ids["admin"])
        assert (await gateway.ask("GET", by_admin)).status == 403, "links of a revoked issuer are dead"
        assert (await gateway.ask("GET", by_both)).status == 200

    run(scratch, story)


@pytest.mark.parametrize(
    ("token", "wanted", "status"),
    [
        ("user", {"path": FILE, "expires_s": MOST_S}, 201),
        ("user", {"path": f"/api/v1/{FILE}"}, 201),
        ("readonly", {"path": FILE}, 201),
        ("user", {"path": FILE, "expires_s": MOST_S + 1}, 422),
        ("user", {"path": FILE, "expires_s": 0}, 422),
        ("user", {"path": FILE, "expires_s": -5}, 422),
        ("user", {"path": FILE, "method": "DELETE"}, 422),
        ("user", {"path": FILE, "method": "HEAD"}, 422),
        ("user", {"path": FILE, "method": "get"}, 422),
        ("user", {"path": FOLDER, "method": "PUT"}, 422),
        ("user", {"path": "users/5/recordings/"}, 422),
        ("user", {"path": "users/5/recordings/1"}, 422),
        ("user", {"path": "users/5/"}, 422),
        ("user", {"path": "users/5/thumbnails/a.jpg"}, 422),
        ("user", {"path": "/"}, 422),
        ("user", {"path": ""}, 422),
        ("user", {"path": "tokens"}, 422),
        ("user", {"path": "users/5/recordings/1/../../../6/recordings/1/source.mp4"}, 422),
        ("user", {"path": "users/5/recordings/1/./source.mp4"}, 422),
        ("user", {"path": "users/5/recordings/1//"}, 422),
        ("user", {"path": "users/5/recordings/1/a\0b"}, 422),
        ("user", {"path": "users/5/recordings/x/source.mp4"}, 422),
        ("user", {"path": "users/5/recordings/1/\ud800"}, 422),
        ("user", {"path": "a" * 9000}, 422),
        ("user", {"path": FILE, "issuer": "x"}, 422),
        ("user", {"path": "users/6/recordings/1/source.mp4"}, 404),
        ("user", {"path": "users/99/recordings/1/source.mp4"}, 404),
        ("readonly", {"path": "users/6/recordings/1/source.mp4"}, 404),
        ("readonly", {"path": FILE, "method": "PUT"}, 403),
        ("admin", {"path": "users/6/recordings/1/source.mp4"}, 201),
    ],
)
def test_which_links_are_made_for_whom(scratch: Path, token: str, wanted: dict[str, Any], status: int) -> None:
    async def story(gateway: Gateway) -> None:
        answer = await gateway.ask("POST", "/api/v1/links", token=token, json_body=wanted)
        assert answer.status == status, answer
        if status == 201:
            assert (await gateway.ask("GET", answer.json["url"])).status == 200

    run(scratch, story)


@pytest.mark.parametrize(
    "name", ["a b+c&d=e?f#g.mp4", "über.mp4", "100%.mp4", "%2e%2e.mp4", "\udcff\udc80.mp4", "a\nb.mp4"]
)
def test_any_name_of_a_file_has_a_link(scratch: Path, name: str) -> None:
    async def story(gateway: Gateway) -> None:
        (gateway.root / FOLDER / name).write_bytes(b"that")
        for path in (f"{FOLDER}{name}", FOLDER):
            url = await link(gateway, path)
            query = url.partition("?")[2]
            target = f"/api/v1/{FOLDER}{quote(name, safe='', errors='surrogateescape')}?{query}"
            assert (await gateway.ask("GET", target)).body == b"that"

    run(scratch, story)


def test_a_signature_is_in_no_log(scratch: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    async def story(gateway: Gateway) -> str:
        url = await link(gateway)
        assert (await gateway.ask("GET", url)).status == 200
        assert (await gateway.ask("GET", changed(url, expires="1"))).status == 403
        gateway.context.trail.close()
        log = gateway.context.trail.path.read_text()
        assert gateway.ids["user"] in log
        return url + "\n" + log

    url, _, log = run(scratch, story).partition("\n")
    signature = parse_qs(url.partition("?")[2])["signature"][0]
    assert len(signature) == 64
    assert signature not in log
    assert signature not in caplog.text


def test_claims_that_differ_in_anything_differ_in_their_signature() -> None:
    claims = [
        Claim("GET", "/a/b", 10, "x"), Claim("PUT", "/a/b", 10, "x"), Claim("GET", "/a/b/", 10, "x"),
        Claim("GET", "/a/b", 101, "x"), Claim("GET", "/a/b", 10, "1x"), Claim("GET", "/a/\udcff", 10, "x"),
        Claim("GET", "/a/ÿ", 10, "x"), Claim("GET", "/a", 10, "/bx"),
    ]  # fmt: skip
    assert len({each.signed(b"k" * 32) for each in claims}) == len(claims)
    assert claims[0].signed(b"k" * 32) != claims[0].signed(b"l" * 32)
