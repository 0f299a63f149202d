"""The page's texts: three catalogues that say the same, and every text that anybody is shown comes from them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recfs.core.figures.categories import Category
from recfs.core.model import State
from recfs.core.observing.kinds import KINDS
from recfs.web.page.recordings import SORTS
from recfs.web.page.texts import FOR_SCRIPTS, LANGUAGES, PLURALS, Texts, catalogue, chosen, plural
from recfs.web.problems import TABLE
from recfs.web.who.tokens import Role

PAGE = Path(__file__).parents[3] / "recfs/web/page"
TEMPLATES = sorted((PAGE / "templates").glob("*.html"))
SCRIPTS = sorted((PAGE / "static").glob("*.js"))
WORDS = {
    "problem": TABLE, "state": State, "category": Category, "js.event": KINDS, "role": Role, "recordings.sort": SORTS,
    "queue.kind": ("upload", "delete", "move", "abort"), "outcome": ("ok", "refused", "failed", "broken"),
    "class": ("local",), "location": ("local", "s3", "local,s3"),
}  # fmt: skip
"""Words of the API by the keys that they are shown by."""
_asks_for = re.compile(r"""\bt(?:\.many)?\(\s*["']([a-z0-9_.]+)["'](?!\s*~)|\bmany\(\s*["']([a-z0-9_.]+)["']""")
_quoted = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_braces = re.compile(r"\{(\w*)\}")


def test_all_catalogues_have_the_same_keys() -> None:
    keys = {language: list(catalogue(language)) for language in LANGUAGES}
    assert len(keys["en"]) > 200
    assert keys["de"] == keys["en"]
    assert keys["ru"] == keys["en"]
    assert keys["en"] == sorted(keys["en"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_takes_the_same_values_in_each_language_and_has_all_its_plurals(language: str) -> None:
    for key, entry in catalogue(language).items():
        english = catalogue("en")[key]
        assert isinstance(entry, dict) == isinstance(english, dict), key
        if isinstance(entry, str) and isinstance(english, str):
            assert entry.strip(), key
            assert sorted(_braces.findall(entry)) == sorted(_braces.findall(english)), key
        elif isinstance(entry, dict) and isinstance(english, dict):
            assert tuple(entry) == PLURALS[language], key
            for text in entry.values():
                assert sorted(_braces.findall(text)) == sorted(_braces.findall(english["other"])), key


def test_german_and_russian_are_translated() -> None:
    """What is the same in two languages is a name or a sign, and few of them are."""
    for language in ("de", "ru"):
        same = [key for key, entry in catalogue(language).items() if entry == catalogue("en")[key]]
        words = [
            key for key in same if re.search(r"[a-z]{4}", str(catalogue("en")[key])) and not key.startswith("unit.")
        ]
        assert len(words) < 25, words
    letters = [key for key, entry in catalogue("ru").items() if re.search(r"[a-z]{5}", str(entry).replace("{", " {"))]
    names = re.compile(r"\{\w+\}|recfs\.conf|JavaScript|curl|'\w+'")
    assert [key for key in letters if re.search(r"[a-z]{5}", names.sub("", str(catalogue("ru")[key])))] == []


def _used() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in (*TEMPLATES, *SCRIPTS, *PAGE.glob("*.py")):
        for match in _asks_for.finditer(path.read_text()):
            found.setdefault(match[1] or match[2], set()).add(path.name)
    return found


def test_every_text_that_is_asked_for_is_there_and_every_one_that_is_there_is_asked_for() -> None:
    used = _used()
    assert len(used) > 150
    known = set(catalogue("en"))
    assert {key: where for key, where in used.items() if key not in known} == {}
    by_words = tuple(f"{prefix}." for prefix in (*WORDS, "queue.total", "unit"))
    titles = {
        f"{name}.title" for name in ("overview", "uploads", "recordings", "expirations", "queue", "costs", "admin")
    }
    texts = "".join(path.read_text() for path in (*SCRIPTS, *PAGE.glob("*.py")))
    unused = {key for key in known - set(used) - titles if not key.startswith(by_words) and f'"{key}"' not in texts}
    assert unused == set()


@pytest.mark.parametrize("prefix", WORDS)
def test_every_word_of_the_api_has_a_text(prefix: str) -> None:
    words: Any = WORDS[prefix]
    assert [word for word in words if f"{prefix}.{word}" not in catalogue("en")] == []


def test_scripts_are_given_all_that_they_say() -> None:
    for path in SCRIPTS:
        for match in _asks_for.finditer(path.read_text()):
            assert (match[1] or match[2]).startswith(FOR_SCRIPTS), path.name
    assert all(key.startswith(FOR_SCRIPTS) for key in Texts("de").for_scripts())


# --- nothing that is shown comes from elsewhere -----------------------------------------------------------------------

SHOWN = ("alt", "aria-label", "label", "placeholder", "title", "content")
NAMES = {"recfs", "x · recfs", "recfs token add", "utf-8", "width=device-width, initial-scale=1", "light dark"}
"""What is the same in all languages."""


class _Shown(HTMLParser):
    """Collects what a browser would show of a template."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name in SHOWN:
                self.texts.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _parsed(path: Path) -> _Shown:
    bare = re.sub(r"\{#.*?#\}|\{%.*?%\}", " ", path.read_text(), flags=re.DOTALL)
    shown = _Shown()
    shown.feed(re.sub(r"\{\{.*?\}\}", "x", bare, flags=re.DOTALL))
    return shown


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_a_text_of_its_own(path: Path) -> None:
    texts = {" ".join(text.split()) for text in _parsed(path).texts}
    assert {text for text in texts - NAMES if re.search(r"[^\W\d_]{2}", re.sub(r"\bx+\b", "", text))} == set()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_a_script_a_style_or_an_address_of_elsewhere(path: Path) -> None:
    for tag, name, value in _parsed(path).attributes:
        assert name != "style", (tag, value)
        assert not name.startswith("on"), (tag, name)
        assert not re.match(r"[a-z]+:|//", value), (tag, name, value)
    source = path.read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", source) == []
    assert "<style" not in source
    assert "| safe" not in source


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_says_anything_that_no_catalogue_has(path: Path) -> None:
    """Whatever is put into the page is a text of a catalogue: no literal reads like words for people."""
    code = re.sub(r"^\s*(//|/\*\*|\*).*$", "", path.read_text(), flags=re.MULTILINE)
    said = [text for text in _quoted.findall(code) if re.search(r"[A-Za-z]{2,} [a-z]{2,}", text)]
    assert [text for text in said if not re.fullmatch(r"chip \w+|12px system-ui, sans-serif", text)] == []
    assert "innerHTML" not in code
    assert "eval(" not in code


# --- which language, and how it writes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "wanted", "language"),
    [
        ("", None, "en"), ("de-DE,de;q=0.9,en;q=0.8", None, "de"), ("en;q=0.2, ru;q=0.7", None, "ru"),
        ("fr,it", None, "en"), ("fr, de;q=0.1", None, "de"), ("de;q=0", None, "en"), ("de;q=x, ru", None, "ru"),
        ("DE", None, "de"), ("*", None, "en"), ("de", "ru", "ru"), ("de", "xx", "de"), ("ru;q=nan,de", None, "de"),
        ("ru;q=2,de;q=0.1", None, "de"), (";q=1,,,", None, "en"), ("de" + "," * 10_000, None, "de"),
    ],
)  # fmt: skip
def test_the_language_is_what_was_chosen_else_what_the_browser_accepts(
    accepted: str, wanted: str | None, language: str
) -> None:
    assert chosen(accepted, wanted) == language


@pytest.mark.parametrize(
    ("language", "counts", "category"),
    [
        ("en", (1,), "one"), ("en", (0, 2, 21, 101), "other"), ("de", (1,), "one"), ("de", (0, 2), "other"),
        ("ru", (1, 21, 101, 1001), "one"), ("ru", (2, 3, 4, 22, 104), "few"),
        ("ru", (0, 5, 11, 12, 13, 14, 20, 111, 112, 25), "many"),
    ],
)  # fmt: skip
def test_plurals_are_those_of_the_language(language: str, counts: tuple[int, ...], category: str) -> None:
    assert {plural(language, count) for count in counts} == {category}


def test_numbers_are_written_as_the_language_does() -> None:
    english, german, russian = map(Texts, LANGUAGES)
    assert english.number(1234567) == "1,234,567"
    assert german.number(1234567.891, 2) == "1.234.567,89"
    assert russian.number(1234567) == "1\xa0234\xa0567"
    assert english.size(1536) == "1.5\xa0KiB"
    assert german.size(1536) == "1,5\xa0KiB"
    assert russian.size(3 << 30) == "3,0\xa0ГиБ"
    assert english.size(0) == "0\xa0B"
    assert english.size(None) == "–"
    assert english.size(1 << 60) == "1,024\xa0PiB"
    assert english.span(90_061) == "1\xa0d 1\xa0h"
    assert english.span(86_400) == "1\xa0d"
    assert russian.span(59.9) == "59\xa0с"
    assert english.span(-1) == "0\xa0s"
    assert english.clock(3723.9) == "1:02:03"
    assert english.clock(62) == "1:02"
    assert german.share(1, 3) == "33\xa0%"
    assert english.share(1, 10_000) == "<\xa00.1\xa0%"
    assert english.share(1, 0) == "0\xa0%"
    assert german.money(0.0123, "EUR") == "0,0123\xa0EUR"
    assert english.money(None, "EUR") == "–"
    assert russian.many("overview.n_files", 22) == "22 файла"


def test_a_text_that_is_missing_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(KeyError):
        Texts("en")("no.such")
    with pytest.raises(KeyError):
        Texts("en")("player.back")
    with pytest.raises(KeyError):
        Texts("en")("overview.n_files")
    with pytest.raises(KeyError):
        Texts("en").many("nav.skip", 1)
