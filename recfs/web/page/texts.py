"""The page's texts in each language, which of them somebody is shown, and numbers as that language writes them.

A catalogue is one JSON object: a key has a text, or, where a number decides about the word, a text for each plural
category of the language (CLDR: `one`, `few`, `many`, `other`). Texts name what is put into them in braces.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final

LANGUAGES: Final = ("en", "de", "ru")
"""All there are; the first is shown to whoever wants none of them."""

PLURALS: Final = {"en": ("one", "other"), "de": ("one", "other"), "ru": ("one", "few", "many")}
"""The plural categories that whole numbers have (CLDR, Language Plural Rules)."""

FOR_SCRIPTS: Final = ("js.", "problem.", "state.", "unit.")
"""Keys that begin so are what the page's scripts say."""

_FOLDER: Final = Path(__file__).with_name("texts")
_KIB: Final = 1024
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"
_THOUSANDS: Final = {"en": ",", "de": ".", "ru": _NO_BREAK}
_DECIMAL: Final = {"en": ".", "de": ",", "ru": ","}
_SIZES: Final = ("b", "kib", "mib", "gib", "tib", "pib")
_TIMES: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_MAX_ACCEPTED_CHARS: Final = 500

Entry = str | dict[str, str]


def chosen(accept_language: str, wanted: str | None = None) -> str:
    """The language to show: the *wanted* one if there is such, else what the browser likes best (RFC 9110, 12.5.4)."""
    if wanted in LANGUAGES:
        return wanted
    accepted: list[tuple[float, int, str]] = []
    for position, item in enumerate(accept_language[:_MAX_ACCEPTED_CHARS].split(",")):
        tag, _, parameter = item.strip().partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            quality = float(value) if name.strip().lower() == "q" else 1.0
        except ValueError:
            continue
        language = tag.strip().lower().partition("-")[0]
        if language in LANGUAGES and 0 < quality <= 1:
            accepted.append((-quality, position, language))
    return min(accepted)[2] if accepted else LANGUAGES[0]


def plural(language: str, count: int) -> str:
    """The plural category of a whole number (CLDR): in Russian 1, 21 are `one`, 2 to 4, 22 `few`, all others `many`."""
    count = abs(count)
    if language != "ru":
        return "one" if count == 1 else "other"
    if count % 10 == 1 and count % 100 != 11:
        return "one"
    return "few" if 2 <= count % 10 <= 4 and not 12 <= count % 100 <= 14 else "many"


@cache
def catalogue(language: str) -> dict[str, Entry]:
    """All texts of a language."""
    found: dict[str, Entry] = json.loads((_FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return found


class Texts:
    """Texts and numbers in one language. A template calls it `t`: `t("queue.title")`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._entries = catalogue(language)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, with *values* in its braces. KeyError for a key or value that is missing."""
        entry = self._entries[key]
        if isinstance(entry, dict):
            raise KeyError(f"{key}: a number decides about this text; use `many`")
        return entry.format(**values)

    def many(self, key: str, count: int, **values: object) -> str:
        """The text of a key for so many: `{n}` in it is the number."""
        entry = self._entries[key]
        if isinstance(entry, str):
            raise KeyError(f"{key}: no number decides about this text")
        return entry[plural(self.language, count)].format(n=self.number(count), **values)

    def known(self, prefix: str, word: str) -> str:
        """The text of a word that the API uses, such as a state; one that no catalogue has is shown as it is."""
        entry = self._entries.get(f"{prefix}.{word}")
        return entry if isinstance(entry, str) else word

    def number(self, value: float, decimals: int = 0) -> str:
        """A number, grouped by thousands."""
        text = f"{value:,.{decimals}f}"
        marks = {",": _THOUSANDS[self.language], ".": _DECIMAL[self.language]}
        return "".join(marks.get(letter, letter) for letter in text)

    def size(self, size_bytes: float | None) -> str:
        """Bytes, as powers of 1024 with three digits or so; a dash for what is not known."""
        if size_bytes is None:
            return "–"
        value, unit = float(size_bytes), 0
        while abs(value) >= _KIB and unit < len(_SIZES) - 1:
            value, unit = value / _KIB, unit + 1
        decimals = 1 if unit and abs(value) < 100 else 0
        return f"{self.number(value, decimals)}{_NO_BREAK}{self(f'unit.{_SIZES[unit]}')}"

    def share(self, part: float, whole: float) -> str:
        """How much of the whole that is, in percent."""
        percent = 100 * part / whole if whole else 0.0
        if 0 < percent < 0.1:
            return f"<{_NO_BREAK}{self.number(0.1, 1)}{_NO_BREAK}%"
        decimals = 1 if 0 < percent < 10 else 0
        return f"{self.number(percent, decimals)}{_NO_BREAK}%"

    def money(self, amount: float | None, currency: str) -> str:
        """An amount with what `[prices]` calls its currency; a dash where no price is known."""
        if amount is None:
            return "–"
        decimals = 4 if 0 < abs(amount) < 1 else 2
        return f"{self.number(amount, decimals)}{_NO_BREAK}{currency}".rstrip()

    def span(self, seconds: float | None) -> str:
        """A duration in its two largest units, as "20 d 4 h"; a dash for what is not known."""
        if seconds is None:
            return "–"
        left, parts = max(int(seconds), 0), list[str]()
        for unit, length in _TIMES:
            if left >= length or (unit == "s" and not parts):
                parts.append(f"{self.number(left // length)}{_NO_BREAK}{self(f'unit.{unit}')}")
                left %= length
            elif parts:
                break
        return " ".join(parts[:2])

    @staticmethod
    def clock(seconds: float | None) -> str:
        """A place in a recording, as 1:02:03 or 2:03."""
        if seconds is None:
            return ""
        minutes, rest = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

    def for_scripts(self) -> dict[str, Entry]:
        """What the page's scripts say, and the units they say it in."""
        return {key: entry for key, entry in self._entries.items() if key.startswith(FOR_SCRIPTS)}


__all__ = ["FOR_SCRIPTS", "LANGUAGES", "PLURALS", "Entry", "Texts", "catalogue", "chosen", "plural"]
