"""The pages: what they show to whom, of answers that a real daemon gave, and what they show when it gives none."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from recfs.client.errors import DaemonRefused, DaemonUnreachable
from recfs.web.page.frame import within
from recfs.web.who.sessions import COOKIE
from tests.component.web.gateways import HOST, Answer, Gateway, run

ANSWERS: dict[str, Any] = json.loads(Path(__file__).with_name("daemon_answers.json").read_text())
FOR_ALL = ("/", "/uploads", "/recordings", "/recordings/5/1", "/expirations")
FOR_ADMINS = ("/queue", "/costs", "/admin")
_tag = re.compile(r"<[^>]+>")


def with_answers(folder: Path, story: Callable[[Gateway], Awaitable[None]]) -> None:
    """Run a story with a daemon that answers what a real one did."""

    async def told(gateway: Gateway) -> None:
        gateway.daemon.answers.update(ANSWERS)
        gateway.daemon.answers["quota_show"] = lambda asked: [
            each for each in ANSWERS["quota_show"] if asked.get("user") in (None, each["user"])
        ]
        gateway.daemon.answers["recording_list"] = lambda asked: [
            each for each in ANSWERS["recording_list"]
            if asked.get("user") in (None, each["user"])
            and ("due_s" not in asked or (each["due_s"] is not None and each["due_s"] <= asked["due_s"]))
        ]  # fmt: skip
        gateway.daemon.answers["trash_list"] = lambda asked: (
            ANSWERS["trash_list"]
            | {
                "entries": [
                    each for each in ANSWERS["trash_list"]["entries"] if asked.get("user") in (None, each["user"])
                ]
            }
        )
        await story(gateway)

    run(folder, told)


async def page(gateway: Gateway, target: str, name: str = "admin", **headers: str) -> str:
    """Ask for a page as a browser with a session does; it has to be there."""
    session = gateway.context.gate.sessions.begin(gateway.ids[name])
    answer = await gateway.ask("GET", target, session=session, headers=headers)
    assert answer.status == 200, answer
    return answer.body.decode()


def words(source: str) -> str:
    """What a page says."""
    return " ".join(html.unescape(_tag.sub(" ", source)).replace("\xa0", " ").split())


def form(**fields: str) -> dict[str, Any]:
    """A form that a page of the gateway's own sends."""
    body = urlencode(fields).encode()
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Origin": f"http://{HOST}",
        "Sec-Fetch-Site": "same-origin",
    }
    return {"body": body, "headers": headers}


# --- each page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "de", "ru"])
def test_every_page_is_shown_whole_to_an_admin(tmp_path: Path, language: str) -> None:
    async def story(gateway: Gateway) -> None:
        for target in (*FOR_ALL, *FOR_ADMINS):
            source = await page(gateway, target, **{"Accept-Language": language})
            assert f'<html lang="{language}">' in source
            assert '<div class="problem"' not in source, (target, words(source)[:600])
            assert source.rstrip().endswith("</html>")
            assert len(re.findall("<h1", source)) == 1

    with_answers(tmp_path, story)


def test_the_overview_tells_use_growth_disk_and_problems(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        said = words(await page(gateway, "/"))
        trouble = ANSWERS["status"]["s3"]["trouble"]
        assert trouble in said
        assert "Problems 1" in said
        for user in ANSWERS["quota_show"]:
            assert user["user"] in said
        assert "9 203 % 6.1 MiB 3.0 MiB 5 2" in said
        assert "Sources" in said
        assert "a day." in said
        gateway.daemon.answers["status"] = {**ANSWERS["status"], "s3": None}
        assert "Nothing is wrong." in words(await page(gateway, "/"))

    with_answers(tmp_path, story)


def test_a_page_asks_as_whoever_looks_and_shows_a_user_nothing_of_others(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        for target in FOR_ALL:
            gateway.daemon.asked.clear()
            source = await page(gateway, target, "user")
            assert {given.get("user", "5") for _, given in gateway.daemon.asked} <= {"5"}
            assert not re.search(r"users/(6|9|12)\b|/recordings\?user=(6|9|12)\b|<option[^>]*>(6|9|12)<", source), (
                target
            )
            assert "/admin" not in source
        assert all(method != "status" for method, _ in gateway.daemon.asked)

    with_answers(tmp_path, story)


def test_what_is_for_admins_is_no_page_for_others(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        for name in ("user", "readonly", "both"):
            session = gateway.context.gate.sessions.begin(gateway.ids[name])
            for target in FOR_ADMINS:
                answer = await gateway.ask("GET", target, session=session)
                assert answer.status == 403, (name, target)
                assert "This is not allowed" in words(answer.body.decode())
                assert ANSWERS["status"]["s3"]["trouble"] not in words(answer.body.decode())

    with_answers(tmp_path, story)


def test_a_foreign_recording_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        session = gateway.context.gate.sessions.begin(gateway.ids["user"])
        foreign = await gateway.ask("GET", "/recordings/6/1", session=session)
        missing = await gateway.ask("GET", "/recordings/5/77", session=session)
        assert foreign.status == missing.status == 404
        assert foreign.body.replace(b"/recordings/6/1", b"") == missing.body.replace(b"/recordings/5/77", b"")
        for target in ("/recordings/5/..%2f..%2f6", "/recordings/5/1%00", "/recordings/%ff/1"):
            assert (await gateway.ask("GET", target, session=session)).status in (400, 404)

    with_answers(tmp_path, story)


def test_recordings_are_found_sorted_and_shown_page_by_page(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        folder = gateway.root / "users/5/recordings"
        for number in range(100, 160):
            (folder / str(number)).mkdir()
            (folder / str(number) / "source.mp4").write_bytes(b"x")
            os.setxattr(folder / str(number), "user.recfs.rbytes", str((number * 7) % 61).encode())

        def ids(source: str) -> list[int]:
            return [int(found) for found in re.findall(r'href="/recordings/5/(\d+)"', source)]

        newest = await page(gateway, "/recordings", "user")
        assert ids(newest) == list(range(159, 111, -1))
        (following,) = re.findall(r'href="([^"]+)" rel="next"', newest)
        rest = await page(gateway, html.unescape(following), "user")
        assert ids(rest)[:3] == [111, 110, 109]
        assert 'rel="prev"' in rest
        largest = await page(gateway, "/recordings?sort=largest", "user")
        sizes = [(number * 7) % 61 for number in ids(largest)]
        assert sizes == sorted(sizes, reverse=True)
        assert len(sizes) == 48
        (following,) = re.findall(r'href="([^"]+)" rel="next"', largest)
        assert len(ids(await page(gateway, html.unescape(following), "user"))) == 13
        assert ids(await page(gateway, "/recordings?search=142", "user")) == [142]
        assert "There are no such recordings." in words(await page(gateway, "/recordings?search=nowhere", "user"))
        for odd in ("?sort=%27", "?sort=largest&from=-1", "?sort=name&from=99999999999", "?user=6", "?user=%00"):
            assert len(ids(await page(gateway, f"/recordings{odd}", "user"))) > 0

    with_answers(tmp_path, story)


def test_the_player_has_what_is_best_to_play_subtitles_and_facts(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        folder = gateway.root / "users/5/recordings/1"
        (folder / "transcription").mkdir()
        (folder / "transcription/subtitles.de.vtt").write_text("WEBVTT\n")
        (folder / "video.mp4").write_bytes(b"v")
        (folder / "audio.mp3").write_bytes(b"a")
        source = await page(gateway, "/recordings/5/1", "user")
        assert '<video id="player"' in source
        assert 'src="/api/v1/users/5/recordings/1/video.mp4"' in source
        assert (
            'src="/api/v1/users/5/recordings/1/transcription/subtitles.de.vtt" srclang="de" label="subtitles.de"'
            in source
        )
        assert source.count('data-call="DELETE"') == 6
        readonly = await page(gateway, "/recordings/5/1", "readonly")
        assert 'data-call="DELETE"' not in readonly
        (folder / "video.mp4").unlink()
        (folder / "source.mp4").unlink()
        assert '<audio id="player"' in await page(gateway, "/recordings/5/1", "user")
        (folder / "audio.mp3").unlink()
        assert "Nothing of this recording can be played here." in words(await page(gateway, "/recordings/5/1", "user"))

    with_answers(tmp_path, story)


def test_uploads_that_are_not_done_are_shown_and_can_be_given_up(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        for user in ("5", "6"):
            (gateway.root / "temp" / user).mkdir(parents=True)
        wanted = {"length": 1000, "recording": "77", "filename": "<Talk>.mp4"}
        made = await gateway.ask("POST", "/api/v1/uploads", token="user", json_body=wanted)
        assert made.status == 201
        source = await page(gateway, "/uploads", "user")
        assert "&lt;Talk&gt;.mp4 77 Waiting" in html.escape(words(source), quote=False)
        assert f'data-call="DELETE" data-href="{made.json["upload_href"]}"' in source
        assert "1,000 B" in words(source)
        assert "Talk" not in await page(gateway, "/uploads", "other")
        assert "This token is for reading" in words(await page(gateway, "/uploads", "readonly"))

    with_answers(tmp_path, story)


def test_the_trash_has_a_row_for_a_recording_and_brings_all_of_it_back(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        source = await page(gateway, "/expirations")
        entries = ANSWERS["trash_list"]["entries"]
        whole = [each for each in entries if each["path"].startswith("users/5/recordings/152")]
        assert len(whole) > 2
        bodies = [json.loads(html.unescape(found)) for found in re.findall(r'data-body="([^"]*ids[^"]*)"', source)]
        assert {"user": "5", "ids": sorted(each["number"] for each in whole)} in bodies
        assert "Board asked for it" in words(source)
        keeps = [
            json.loads(html.unescape(found)) for found in re.findall(r'data-body="([^"]*"?recording[^"]*)"', source)
        ]
        assert {"user": "9", "recording": "7", "on": False} in keeps
        readonly = await page(gateway, "/expirations", "readonly")
        assert "data-call" not in readonly

    with_answers(tmp_path, story)


def test_the_queue_tells_the_trouble_once_and_a_store_without_s3_as_such(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        said = words(await page(gateway, "/queue"))
        assert said.count("cannot reach the bucket") == 1
        assert "users/5/recordings/142/source.mp4" in said
        gateway.daemon.answers["queue"] = DaemonRefused("NotSupported", "this store has no S3 tier")
        assert "This store has no S3." in words(await page(gateway, "/queue"))

    with_answers(tmp_path, story)


def test_the_admins_page_has_limits_to_edit_tokens_and_who_did_what(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        await page(gateway, "/recordings", "user")
        source = await page(gateway, "/admin")
        limits = [json.loads(html.unescape(found)) for found in re.findall(r'data-limits="([^"]+)"', source)]
        assert limits[0] == ANSWERS["quota_show"][0]["limits"]
        assert gateway.ids["readonly"] in source
        assert f"/api/v1/tokens/{gateway.ids['other']}" in source
        assert not any(token in source for token in gateway.tokens.values())
        gateway.context.trail.close()
        said = words(await page(gateway, "/admin"))
        assert "GET /api/v1/users/5/recordings 200" in said

    with_answers(tmp_path, story)


# --- what is not there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [DaemonUnreachable("gone"), DaemonRefused("IoFailure", "no")], ids=["away", "failing"]
)
def test_without_the_daemon_pages_say_so_and_show_the_rest(tmp_path: Path, error: Exception) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.daemon.answers.clear()
        for method in ANSWERS:
            gateway.daemon.answers[method] = error
        title = (
            "The file system is away" if isinstance(error, DaemonUnreachable) else "The storage answered with an error"
        )
        for target in ("/", "/expirations", "/costs", "/admin", "/recordings?user=5"):
            said = words(await page(gateway, target))
            assert title in said, target
            assert said.count(title) == 1
        session = gateway.context.gate.sessions.begin(gateway.ids["user"])
        assert (await gateway.ask("GET", "/recordings", session=session)).status == 200
        assert "/recordings/5/1" in await page(gateway, "/recordings", "user")

    run(tmp_path, story)


def test_a_method_that_the_operator_does_not_offer_is_named(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        del gateway.daemon.answers["trash_list"]
        assert "[gateway] methods in recfs.conf has to name it" in words(await page(gateway, "/expirations"))

    with_answers(tmp_path, story)


# --- nothing that others wrote becomes a part of the page ---------------------------------------------------------


def test_names_are_shown_and_never_run(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}'

    async def story(gateway: Gateway) -> None:
        folder = gateway.root / "users/5/recordings/1"
        os.setxattr(folder / "source.mp4", "user.original_name", evil.encode())
        (folder / "a<b>&'\".txt").write_bytes(b"")
        (folder / "transcription").mkdir()
        (folder / 'transcription/x" onload="alert(1).vtt').write_bytes(b"")
        os.mknod(os.fsencode(folder) + b"/\xff\xfe.txt")
        gateway.daemon.answers["recording_list"] = [
            {**each, "keep": True, "note": evil, "reason": evil} for each in ANSWERS["recording_list"]
        ]
        for target in (*FOR_ALL, f"/recordings?search={'%3Cscript%3E'}", f"/recordings?sort=name&search={'%22%3E'}"):
            source = await page(gateway, target, "user")
            assert "<script>" not in source
            assert "<img src=x" not in source
            assert 'onload="' not in source
            assert "49" not in re.findall(r"<h1>(.*?)</h1>", source)[0]
        shown = await page(gateway, "/recordings/5/1", "user")
        assert evil in html.unescape(shown)
        assert "/recordings/1/%FF%FE.txt" in shown

    with_answers(tmp_path, story)


def test_a_page_lets_a_browser_load_and_run_nothing_from_elsewhere(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        session = gateway.context.gate.sessions.begin(gateway.ids["admin"])
        for target in (*FOR_ALL, *FOR_ADMINS, "/login", "/recordings/5/none"):
            answer = await gateway.ask("GET", target, session=session)
            policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
            nothing = {policy.pop(name) for name in ("default-src", "base-uri", "frame-ancestors")}
            assert (nothing, set(policy.values())) == ({"'none'"}, {"'self'"})
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert re.findall(r'(?:src|href|action)="(?:[a-z]+:|//)', answer.body.decode()) == []

    with_answers(tmp_path, story)


# --- logging in, logging out, and the language --------------------------------------------------------------------


def test_who_is_not_known_logs_in_and_comes_to_where_they_wanted(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        first = await gateway.ask("GET", "/recordings?user=5&search=a%26b")
        assert first.status == 303
        login = await gateway.ask("GET", first.headers["location"])
        (back,) = re.findall(r'name="back" value="([^"]+)"', login.body.decode())[:1]
        wrong = await gateway.ask("POST", "/login", **form(token="recfs_no", back="/"))
        assert wrong.status == 403
        assert "This token is not good" in words(wrong.body.decode())
        assert "set-cookie" not in wrong.headers
        entered = await gateway.ask("POST", "/login", **form(token=gateway.tokens["user"], back=html.unescape(back)))
        assert (entered.status, entered.headers["location"]) == (303, "/recordings?user=5&search=a%26b")
        cookie = entered.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= {each.strip() for each in cookie.split(";")}
        headers = {"Cookie": cookie.partition(";")[0]}
        assert (await gateway.ask("GET", "/", headers=headers)).status == 200
        left = await gateway.ask("POST", "/logout", body=b"", headers={**form()["headers"], **headers})
        assert (left.status, left.headers["location"]) == (303, "/login")
        assert "Max-Age=0" in left.headers["set-cookie"]
        assert (await gateway.ask("GET", "/", headers=headers)).status == 303

    with_answers(tmp_path, story)


def test_forms_of_other_sites_are_refused(tmp_path: Path) -> None:
    elsewhere: tuple[dict[str, str], ...] = (
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}, {},
        {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": f"https://{HOST}.evil.example"},
    )  # fmt: skip

    async def story(gateway: Gateway) -> None:
        for target in ("/login", "/logout", "/language"):
            for headers in elsewhere:
                told = {"Content-Type": "application/x-www-form-urlencoded", **headers}
                body = f"token={gateway.tokens['user']}&language=de".encode()
                answer = await gateway.ask("POST", target, body=body, headers=told)
                assert answer.status == 403, (target, headers)
                assert "set-cookie" not in answer.headers

    with_answers(tmp_path, story)


def test_the_page_s_own_form_is_taken_where_its_browser_hides_the_origin(tmp_path: Path) -> None:
    """As it does where it is told to send no Referer, by an extension say; Sec-Fetch-Site still tells whose it is."""

    async def story(gateway: Gateway) -> None:
        kind = "application/x-www-form-urlencoded"
        headers = {"Content-Type": kind, "Origin": "null", "Sec-Fetch-Site": "same-origin"}
        body = f"token={gateway.tokens['user']}".encode()
        answer = await gateway.ask("POST", "/login", body=body, headers=headers)
        assert (answer.status, answer.headers["location"]) == (303, "/")

    with_answers(tmp_path, story)


def test_forms_are_small_and_are_forms(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        def refused(answer: Answer) -> int:
            assert "set-cookie" not in answer.headers
            return answer.status

        ours = form()["headers"]
        assert refused(await gateway.ask("POST", "/login", body=b"token=" + b"a" * 5000, headers=ours)) == 413
        assert refused(await gateway.ask("POST", "/login", body=b"&".join([b"a=b"] * 20), headers=ours)) == 400
        assert refused(await gateway.ask("POST", "/login", body=b"token=\xff", headers=ours)) == 400
        json_ = {**ours, "Content-Type": "application/json"}
        assert refused(await gateway.ask("POST", "/login", body=b"{}", headers=json_)) == 415

    with_answers(tmp_path, story)


def test_tokens_are_not_tried_without_end(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.context.gate._refused._now_s = lambda: 0.0  # however long the test takes
        answers = [(await gateway.ask("POST", "/login", **form(token="recfs_no"))).status for _ in range(130)]
        assert answers[0] == 403
        assert answers[-1] == 429

    with_answers(tmp_path, story)


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("/queue?x=1", "/queue?x=1"), ("//evil.example", "/"), ("https://evil.example", "/"), ("/\\evil.example", "/"),
        ("", "/"), ("javascript:alert(1)", "/"), ("/a\r\nSet-Cookie: x", "/"), ("/ü", "/"), ("/\t/evil", "/"),
    ],
)  # fmt: skip
def test_nobody_is_led_to_another_site(address: str, where: str) -> None:
    assert within(address) == where


def test_the_language_is_the_browsers_until_somebody_chooses(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        german = await gateway.ask("GET", "/login", headers={"Accept-Language": "de,en;q=0.5"})
        assert "Anmelden" in words(german.body.decode())
        chosen = await gateway.ask("POST", "/language", **form(language="ru", back="/admin"))
        assert (chosen.status, chosen.headers["location"]) == (303, "/admin")
        cookie = chosen.headers["set-cookie"].partition(";")[0]
        russian = await gateway.ask("GET", "/login", headers={"Accept-Language": "de", "Cookie": cookie})
        assert "Вход" in words(russian.body.decode())
        odd = await gateway.ask("POST", "/language", **form(language="<script>"))
        assert odd.status == 303
        assert "set-cookie" not in odd.headers

    with_answers(tmp_path, story)


def test_a_revoked_token_ends_its_sessions_pages(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        session = gateway.context.gate.sessions.begin(gateway.ids["user"])
        assert (await gateway.ask("GET", "/recordings", session=session)).status == 200
        gateway.context.gate.tokens.revoke(gateway.ids["user"])
        answer = await gateway.ask("GET", "/recordings", session=session)
        assert (answer.status, answer.headers["location"]) == (303, "/login?back=%2Frecordings")

    with_answers(tmp_path, story)
