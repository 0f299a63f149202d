"""The page in a real browser, on a real mount: uploads that go on, players that seek, what is deleted and comes back.

Everywhere: no message of the browser's console, no request to elsewhere, nothing that axe-core finds wrong. With
RECFS_TEST_WRITE_SCREENSHOTS=1 the pictures in docs/page are made anew.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.client import facts, wait_committed
from recfs.client.uploads import Upload, note_upload
from recfs.web.who.tokens import Role, Tokens
from tests.helpers.gateway_process import GatewayProcess

from .clients import recfs
from .harness import BASE_CONFIG, REPOSITORY, Mount

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = [
    pytest.mark.modeless, pytest.mark.slow, pytest.mark.needs("chromium", "ffmpeg"), pytest.mark.timeout(300),
]  # fmt: skip

PICTURES = REPOSITORY / "docs/page"
WRITES = bool(os.environ.get("RECFS_TEST_WRITE_SCREENSHOTS"))
PICTURED = ("overview", "overview-dark", "uploads", "recordings", "player", "expirations", "queue")
"""Those that docs/gateway.md has."""
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""Without the last four the browser itself asks its maker for things."""
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
LARGE = 200 << 20
PATIENCE_MS = 60_000
SECONDS = 12
VIEWS = {
    "overview": "/", "uploads": "/uploads", "recordings": "/recordings?user=5", "player": "/recordings/5/142",
    "expirations": "/expirations", "queue": "/queue", "costs": "/costs", "access": "/admin",
}  # fmt: skip
SOURCES = {
    "5/142": ("Interview Dr. Weiss.mp4", "testsrc2"), "5/143": ("Keynote.mp4", "yuvtestsrc"),
    "5/151": ("Панельная дискуссия.mp4", "smptebars"), "9/7": ("Lecture 07.mp4", "smptehdbars"),
    "9/8": ("Lecture 08.mp4", "rgbtestsrc"),
}  # fmt: skip
SAID = (
    "Good morning, and thank you for coming.", "We begin with the numbers of this year.",
    "Uploads doubled between spring and autumn.", "Most recordings are shorter than an hour.",
    "Nobody has lost a single file.", "Questions, please.",
)  # fmt: skip
CONFIG = f"""{BASE_CONFIG}
[trash]
retention = "14d"
[quota]
max_bytes = "2 GiB"
[prices]
currency = "EUR"
per_gib_month = {{ local = 12.0, STANDARD = 23.0 }}
[[retention]]
pattern = "users/9/recordings/*"
retention = "2d"
[[retention]]
pattern = "users/5/recordings/15*"
retention = "21d"
[s3]
bucket = "media-archive"
endpoint = "http://127.0.0.1:9"
[[route]]
pattern = "users/9/recordings/*/source.*"
to = "s3"
"""
KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}


def subtitles() -> str:
    """What is said, two seconds each."""
    cues = [f"00:{2 * at:02}.000 --> 00:{2 * at + 2:02}.000\n{text}\n" for at, text in enumerate(SAID)]
    return "WEBVTT\n\n" + "\n".join(cues)


def film(path: Path, picture: str) -> None:
    """Make a recording that browsers play, with a key frame each second."""
    separator = ":" if "=" in picture else "="
    command = [
        "ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", f"{picture}{separator}size=480x270:rate=10",
        "-f", "lavfi", "-i", "sine=frequency=330:sample_rate=16000", "-t", str(SECONDS), "-pix_fmt", "yuv420p",
        "-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-c:a", "aac", "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)


def enlarged(source: Path, path: Path, size: int) -> Path:
    """Copy a recording, with a box of nothing at its end so that it is as large as that (ISO/IEC 14496-12, 8.1.2)."""
    shutil.copyfile(source, path)
    with path.open("r+b") as file:
        at = file.seek(0, os.SEEK_END)
        file.write((size - at).to_bytes(4, "big") + b"free")
        file.truncate(size)
    return path


@pytest.fixture(scope="module")
def site(workspace: Path) -> Iterator[Site]:
    """A store with recordings of two users, as an operator would find it, and a gateway before it."""
    own = workspace / "page"
    own.mkdir()
    store = Mount(own / "store")
    store.start(config=CONFIG, env=KEYS)
    try:
        made = Site(store, own)
        try:
            yield made
        finally:
            made.gateway.stop()
            assert "Traceback" not in made.gateway.log()
        store.check()
    finally:
        store.close()


class Site:
    """The store, its gateway, and who may."""

    def __init__(self, store: Mount, own: Path) -> None:
        self.store = store
        self.film = own / "film.mp4"
        for place, (name, picture) in SOURCES.items():
            user, recording = place.split("/")
            folder = store.path / "users" / user / "recordings" / recording
            (folder / "transcription").mkdir(parents=True)
            film(self.film, picture)
            still = ["-ss", "4", "-i", str(self.film), "-frames:v", "1", "-vf", "scale=320:180", str(own / "still.jpg")]
            subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *still], check=True, timeout=60)
            shutil.copyfile(self.film, folder / "source.mp4")
            shutil.copyfile(own / "still.jpg", folder / "thumbnail.jpg")
            note_upload(folder / "source.mp4", Upload(name, "video/mp4"))
            (folder / "transcription/subtitles.en.vtt").write_text(subtitles())
            wait_committed(folder / "source.mp4", timeout_s=60)
        recordings = store.path / "users/9/recordings"
        shutil.copyfile(recordings / "8/source.mp4", recordings / "7/copy.mp4")
        recfs("recording", "keep", str(recordings / "7"), "--note", "The board asked for it")
        recfs("quota", "set", "9", "--max-bytes", "6MiB", "--root", str(store.root))
        (store.path / "users/5/recordings/143/transcription/subtitles.en.vtt").unlink()
        folder = own / "gateway"
        folder.mkdir()
        self.gateway = GatewayProcess(store.path, folder, plain=False, store=store.root)
        tokens = Tokens(folder / "tokens.json")
        self.tokens = {
            "admin": str(tokens.add(Role.ADMIN, (), "Operations")[1]),
            "user": str(tokens.add(Role.USER, ("5",), "Studio 5")[1]),
            "other": str(tokens.add(Role.USER, ("9",), "Lectures")[1]),
        }
        self.gateway.start()
        # A name: addresses of numbers are not trusted with cookies that are for TLS alone.
        self.url = f"http://localhost:{self.gateway.port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        yield chromium
        chromium.close()


class Visit:
    """Somebody in a browser of their own; what they should never see is noted."""

    def __init__(self, browser: Browser, site: Site, **options: Any) -> None:
        told = {
            "viewport": {"width": 1200, "height": 800},
            "locale": "en-GB",
            "timezone_id": "Europe/Berlin",
            **options,
        }
        self.site = site
        self.context: BrowserContext = browser.new_context(**told)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.answers: list[tuple[str, int, str, str]] = []
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.context.on("request", lambda asked: self._request(asked.url))
        self.page.on("response", lambda answer: self.answers.append(
            (answer.request.method, answer.status, answer.url, answer.request.headers.get("range", ""))
        ))  # fmt: skip

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self.site.url}/", "blob:", "data:")):
            self.wrong.append(f"a request to {url}")

    def go(self, target: str) -> Page:
        self.page.goto(self.site.url + target)
        return self.page

    def log_in(self, who: str, target: str = "/") -> Page:
        """By keyboard, as the page is made for."""
        self.go(target)
        self.page.keyboard.type(self.site.tokens[who])
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(self.site.url + target)
        return self.page

    def look(self) -> None:
        """Have axe-core look at the page as it is."""
        self.page.evaluate(axe())
        found = self.page.evaluate("rules => axe.run(document, {runOnly: rules})", list(RULES))
        told = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]]
        assert told == [], self.page.url

    def picture(self, name: str) -> None:
        """Keep how it looks, if that is asked for."""
        if WRITES and name in PICTURED:
            PICTURES.mkdir(exist_ok=True)
            self.page.screenshot(path=PICTURES / f"{name}.png")

    def end(self) -> None:
        self.context.close()
        assert self.wrong == []


@functools.cache
def axe() -> str:
    """The source of axe-core, of a package that has it for tests."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


def test_an_upload_goes_on_after_a_reload_and_is_played_shared_deleted_and_brought_back(
    site: Site, browser: Browser, outside: Path
) -> None:
    from playwright.sync_api import expect

    large = enlarged(site.film, outside / "Large talk.mp4", LARGE)
    visit = Visit(browser, site)
    page = visit.log_in("user", "/uploads")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Recording", exact=True).fill("900")
    page.set_input_files("#files", large)
    figures = page.locator(".upload .figures")
    expect(figures).to_contain_text(re.compile(r"\b[2-7]\d(\s|\xa0)%"))
    page.reload()
    expect(page.locator(".upload .chip")).to_have_text("Unfinished")
    visit.look()
    visit.answers.clear()
    page.get_by_label("Recording", exact=True).fill("")
    page.set_input_files("#files", large)
    expect(page.locator(".upload .chip")).to_have_text("Done")
    patches = [each for each in visit.answers if each[0] == "PATCH"]
    assert {each[1] for each in patches} == {204}
    assert 1 <= len(patches) < LARGE / (32 << 20)  # the first pieces were not sent again
    assert not [each for each in visit.answers if each[0] == "POST"]
    visit.picture("uploads")

    folder = site.store.path / "users/5/recordings/900"
    known = facts(folder / "source.mp4")
    assert (known.size_bytes, known.state, known.original_name) == (LARGE, "committed", "Large talk.mp4")
    (folder / "transcription").mkdir()
    (folder / "transcription/subtitles.en.vtt").write_text(subtitles())
    page.get_by_role("link", name="Open").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Large talk.mp4")
    expect(page.locator("#sha256")).to_have_text(known.sha256 or "")
    cues = page.locator("#cues button")
    expect(cues).to_have_count(len(SAID))
    play_and_seek(page)
    assert any(each[1] == 206 and each[3] for each in visit.answers if each[2].endswith("source.mp4"))
    cues.nth(1).click()
    expect(cues.nth(1)).to_have_attribute("aria-current", "true")
    page.get_by_label("Find in the transcript").fill("AUTUMN")
    expect(page.locator("#cues li:visible")).to_have_count(1)
    page.get_by_role("button", name="Make a link").click()
    expect(page.locator("#shared-link")).to_have_value(re.compile("signature="))
    link = page.locator("#shared-link").input_value()
    stranger = browser.new_context()
    shared = stranger.request.get(link, headers={"Range": "bytes=4-7"})
    assert (shared.status, shared.body()) == (206, b"ftyp")
    stranger.close()

    page.get_by_role("button", name="Delete all files").click()
    visit.look()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("status").filter(has_text="The recording was deleted.")).to_be_visible()
    expect(page.get_by_role("link", name="Large talk.mp4")).to_have_count(0)
    assert not folder.exists()
    page.get_by_role("link", name="Expirations").click()
    page.get_by_role("button", name="Restore users/5/recordings/900", exact=True).click()
    expect(page.get_by_text("users/5/recordings/900 is back.")).to_be_visible()
    assert facts(folder / "source.mp4").sha256 == known.sha256
    assert (folder / "transcription/subtitles.en.vtt").read_text() == subtitles()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{site.url}/login")
    visit.end()


def test_an_upload_is_left_alone_by_other_tabs_and_by_others_who_log_in(
    site: Site, browser: Browser, outside: Path
) -> None:
    """A tab that looked at what was begun stopped what another one sent; what was somebody else's was forgotten."""
    from playwright.sync_api import expect

    large = enlarged(site.film, outside / "Two tabs.mp4", LARGE)
    visit = Visit(browser, site)
    page = visit.log_in("user", "/uploads")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Recording", exact=True).fill("901")
    page.set_input_files("#files", large)
    expect(page.locator(".upload .figures")).to_contain_text(re.compile(r"\b[1-9]\d?(\s|\xa0)%"))
    other = visit.context.new_page()
    other.goto(f"{site.url}/uploads")
    expect(other.locator(".upload .chip")).to_have_text("Unfinished")
    expect(page.locator(".upload .chip")).to_have_text("Done")
    assert {each[1] for each in visit.answers if each[0] == "PATCH"} == {204}
    other.close()

    page.get_by_label("Recording", exact=True).fill("902")
    page.set_input_files("#files", large)
    figures = page.locator(".upload .figures").first
    expect(figures).to_contain_text(re.compile(r"\b[1-7]\d(\s|\xa0)%"))
    page.reload()
    expect(page.locator(".upload .chip")).to_have_text("Unfinished")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{site.url}/login")
    visit.log_in("other", "/uploads")
    expect(page.locator("#no-uploads")).to_be_visible()
    assert page.locator(".upload").count() == 0
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{site.url}/login")
    visit.log_in("user", "/uploads")
    expect(page.locator(".upload .chip")).to_have_text("Unfinished")
    page.locator(".upload").get_by_role("button", name="Give up").click()
    expect(page.locator(".upload .chip")).to_have_text("Given up")
    visit.end()


def play_and_seek(page: Page) -> None:
    """Play until time goes on, then jump, by the field and by a key."""
    player = page.locator("#player")
    player.evaluate("""player => new Promise((done, failed) => {
        player.muted = true;
        player.addEventListener("timeupdate", () => player.currentTime > 0.3 && done(), false);
        player.addEventListener("error", () => failed(new Error(player.error.message)));
        player.play().catch(failed);
    })""")
    assert player.evaluate("player => player.textTracks[0].cues.length") == len(SAID)
    player.evaluate("player => player.pause()")
    seeked = (
        "player => new Promise(done => player.addEventListener('seeked', () => done(player.currentTime), {once: true}))"
    )
    for act, at in (("fill", 9.0), ("key", SECONDS - 10 + 1.0)):
        handle = player.evaluate_handle(f"player => ({{ ended: ({seeked})(player) }})")
        if act == "fill":
            page.get_by_label("Jump to").fill("0:09")
            page.keyboard.press("Enter")
            assert handle.evaluate("each => each.ended") == at
        else:
            player.focus()
            page.keyboard.press("l")
            assert handle.evaluate("each => each.ended") > at
    assert player.evaluate("player => player.videoWidth") == 480


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(site: Site, browser: Browser, scheme: str) -> None:
    from playwright.sync_api import expect

    visit = Visit(browser, site, color_scheme=scheme)
    page = visit.go("/login")
    visit.look()
    visit.log_in("admin")
    for name, target in VIEWS.items():
        visit.go(target)
        if name == "player":
            expect(page.locator("#cues button")).to_have_count(len(SAID))
        if name == "overview":
            expect(page.locator("#feed-state")).to_have_class("chip live")
        visit.look()
        visit.picture(name if scheme == "light" else f"{name}-{scheme}")
    visit.end()


def test_every_page_fits_a_screen_of_320_pixels(site: Site, browser: Browser) -> None:
    """WCAG 2.2, 1.4.10, in the two languages of long words. One of them is looked at there by axe, too."""
    for language in ("de", "ru"):
        visit = Visit(browser, site, locale=language, viewport={"width": 320, "height": 640})
        page = visit.log_in("admin")
        for name, target in VIEWS.items():
            visit.go(target)
            assert page.evaluate("document.documentElement.lang") == language
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, (name, language)
        visit.look()
        visit.end()


def test_an_operator_keeps_a_recording_sets_a_limit_and_gives_a_token(site: Site, browser: Browser) -> None:
    from playwright.sync_api import expect

    visit = Visit(browser, site)
    page = visit.log_in("admin", "/expirations")
    page.get_by_role("button", name="Keep recording 9 / 8").click()
    expect(page.get_by_text("9 / 8 is kept now.")).to_be_visible()
    page.get_by_role("button", name="Keep recording 9 / 8 no more").click()
    expect(page.get_by_role("button", name="Keep recording 9 / 8", exact=True)).to_be_visible()
    visit.go("/admin")
    page.get_by_role("button", name="Edit the quota of user 9").click()
    visit.look()
    page.get_by_label("All files together (GiB)").fill("1.5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    (told,) = [each for each in site.store.call("quota_show") if each["user"] == "9"]
    assert told["limits"]["max_bytes"] == 3 << 29
    page.get_by_label("What for").fill("the encoder")
    page.get_by_label("Users", exact=True).fill("5, 9")
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("#granted-token")).to_have_value(re.compile("^recfs_"))
    token = page.locator("#granted-token").input_value()
    other = Visit(browser, site)
    site.tokens["encoder"] = token
    other.log_in("encoder")
    expect(other.page.get_by_text("the encoder")).to_be_visible()
    other.page.goto("about:blank")  # a page that is open then says on its console that it is let in no more
    page.reload()
    row = page.get_by_role("row").filter(has_text="the encoder").first
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_text("The token is revoked.")).to_be_visible()
    other.page.goto(f"{site.url}/recordings")
    expect(other.page.get_by_label("Token")).to_be_visible()
    other.end()
    visit.end()


def test_the_queue_says_what_is_wrong_and_is_tried_again(site: Site, browser: Browser) -> None:
    from playwright.sync_api import expect

    visit = Visit(browser, site)
    page = visit.log_in("admin", "/queue")
    expect(page.get_by_role("rowheader").filter(has_text="users/9/recordings/8/source.mp4")).to_be_visible()
    page.get_by_role("button", name="Retry all").click()
    expect(page.get_by_text("It is tried again now.")).to_be_visible()
    visit.end()


def test_without_scripts_everything_can_be_looked_at(site: Site, browser: Browser) -> None:
    visit = Visit(browser, site, java_script_enabled=False)
    page = visit.go("/recordings?user=5")
    page.get_by_label("Token").fill(site.tokens["user"])
    page.get_by_role("button", name="Log in").click()
    assert page.get_by_role("link", name="Interview Dr. Weiss.mp4").is_visible()
    page.get_by_role("link", name="Interview Dr. Weiss.mp4").click()
    assert page.locator("#player").is_visible()
    assert page.get_by_role("button", name="Delete").count() == 0
    for name, target in VIEWS.items():
        if name not in ("queue", "costs", "access"):
            visit.go(target)
            assert page.locator(".noscript").is_visible()
            assert page.locator("button:visible").count() >= 4  # logging out and three languages
    page.get_by_role("button", name="Deutsch").click()
    assert page.get_by_role("button", name="Abmelden").is_visible()
    page.get_by_role("button", name="Abmelden").click()
    assert page.url == f"{site.url}/login"
    visit.end()
