"""What pages load: files of the package, read once, with sums for what others have written."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from recfs.web.page.routes import loaded
from tests.component.web.gateways import Gateway, run

PAGE = Path(__file__).parents[3] / "recfs/web/page"
VENDOR = PAGE / "vendor"
MOST_BYTES = 100 * 1024


def test_what_others_have_written_is_as_their_packages_have_it_with_their_licences() -> None:
    sums = dict(line.split(maxsplit=1)[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    files = {path.name: path.read_bytes() for path in VENDOR.iterdir()}
    assert set(files) - {"SHA256SUMS", "README.md"} == set(sums)
    assert {name: hashlib.sha256(files[name]).hexdigest() for name in sums} == sums
    told = files["README.md"].decode()
    for name in sums:
        assert len(files[name]) < MOST_BYTES, name
        if name.endswith(".LICENSE"):
            assert b"Permission is hereby granted" in files[name]
            assert name in told
        else:
            row = re.search(
                rf"^\| {re.escape(name)} \| \S+ \| \d+\.\d+\.\d+ \| \S+ \| \w+, (\S+) \|$", told, re.MULTILINE
            )
            assert row is not None, name
            assert row[1] in sums


def test_every_part_that_a_template_or_script_names_is_served() -> None:
    named = set()
    for path in PAGE.glob("templates/*.html"):
        named |= set(re.findall(r'"/page/((?:static|vendor)/[^"#{]+)', path.read_text()))
    for path in PAGE.glob("static/*.js"):
        named |= {f"static/{name}" for name in re.findall(r'from "\./([\w.]+)"', path.read_text())}
    assert len(named) > 10
    assert named - set(loaded()) == set()
    assert set(loaded()) - named == set()


def test_every_icon_that_a_template_names_is_there() -> None:
    icons = set(re.findall(r'<symbol id="(\w+)"', (PAGE / "static/icons.svg").read_text()))
    texts = "".join(path.read_text() for path in PAGE.glob("templates/*.html"))
    used = set(re.findall(r"icons\.svg#(\w+)", texts)) | set(re.findall(r'icon\("(\w+)"\)', texts))
    assert used | {"overview", "uploads", "recordings", "expirations", "queue", "costs", "admin"} == icons


def test_parts_are_for_everybody_and_kept_until_they_change(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        first = await gateway.ask("GET", "/page/static/page.js")
        assert first.status == 200
        assert first.headers["content-type"] == "text/javascript; charset=utf-8"
        assert first.headers["x-content-type-options"] == "nosniff"
        assert first.body == (PAGE / "static/page.js").read_bytes()
        again = await gateway.ask("GET", "/page/static/page.js", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        texts = await gateway.ask("GET", "/page/texts/ru")
        assert texts.json["state.sealing"] == "Запечатывается"

    run(tmp_path, story)


def test_nothing_else_of_the_package_is_served(tmp_path: Path) -> None:
    targets = (
        "/page/static/..%2froutes.py", "/page/static/../routes.py", "/page/templates/base.html", "/page/static/none.js",
        "/page/vendor/README.md", "/page/texts/..%2f..%2fetc", "/page/texts/xx", "/page/static/page.js%00",
    )  # fmt: skip

    async def story(gateway: Gateway) -> None:
        for target in targets:
            answer = await gateway.ask("GET", target)
            assert (answer.status, answer.problem) == (404, "NotFound"), target

    run(tmp_path, story)
