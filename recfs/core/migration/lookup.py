"""Which file of the old tree a path of the database means, whatever its base directory, Unicode form or encoding."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from recfs.core.migration.names import bytes_of, decodings, form_of, other_readings, text_of
from recfs.core.migration.oldtree import user_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_FILE_URL: Final = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
_DRIVE: Final = re.compile(r"[A-Za-z]:(?=[\\/])")
_NO_UTF8: Final = re.compile("[\udc80-\udcff]")
_LEAST_PARTS: Final = 2
_MOST_PARTS: Final = 256
"""A path whose base directory is another one is known by so many of its last components at least, and at most."""


class Found(NamedTuple):
    """What a path of the database means."""

    paths: tuple[bytes, ...]
    """One if it is known; several if it may be any of these."""
    how: str = ""
    """What had to be understood; "" where it stands there as it is."""


class Candidate(NamedTuple):
    """A path below the old tree that a text may mean."""

    path: str
    how: str


def candidates(text: str, user: str, bases: Sequence[bytes]) -> Iterator[Candidate]:
    """What a path of the database may be below the old tree, which lies at *bases*; the likeliest first.

    As it stands; below the user's directory; and, as the base directory may be another one, its last components, the
    more the likelier. None of those that leave out the directory of a user that is named.
    """
    seen: set[str] = set()
    for spelled, how in _spellings(text):
        for each in _below(spelled, user, bases):
            if each.path and each.path not in seen:
                seen.add(each.path)
                yield Candidate(each.path, ", ".join(filter(None, (how, each.how))))


def _spellings(text: str) -> Iterator[tuple[str, str]]:
    yield text, ""
    if match := _FILE_URL.match(text):
        text = unquote(text[match.end() :], errors="surrogateescape")
        yield text, "a URL"
    if text != (stripped := text.strip()):
        yield stripped, "without blanks"
    plain = stripped
    if "\\" in plain:
        plain = _DRIVE.sub("", plain, count=1).replace("\\", "/")
        yield plain, "with backslashes"
    if "%" in plain:
        yield unquote(plain, errors="surrogateescape"), "URL-quoted"


def _below(text: str, user: str, bases: Sequence[bytes]) -> Iterator[Candidate]:
    parts = _parts(text)
    if text.startswith("/"):
        for base in bases:
            above = _parts(text_of(base))
            if parts[: len(above)] == above:
                yield Candidate("/".join(parts[len(above) :]), "")
    else:
        yield Candidate("/".join(parts), "")
        yield Candidate("/".join([f"user_{user}", *parts]), "below the user's directory")
    for begin in range(max(len(parts) - _MOST_PARTS, 0), len(parts) - _LEAST_PARTS + 1):
        if begin and user_of(bytes_of(parts[begin - 1])) is not None:
            return
        yield Candidate("/".join(parts[begin:]), "another base directory")


def _parts(text: str) -> list[str]:
    """The components of a path without `.`, and without those that `..` takes back."""
    found: list[str] = []
    for part in text.split("/"):
        if part == "..":
            del found[-1:]
        elif part not in ("", "."):
            found.append(part)
    return found


class Index:
    """Paths of the old tree, to be found by what a database says."""

    def __init__(self, paths: Iterable[bytes]) -> None:
        self._paths = frozenset(paths)
        self._forms: dict[str, list[bytes]] | None = None
        self._skeletons: set[str] = set()

    def __contains__(self, path: bytes) -> bool:
        return path in self._paths

    def find(self, meant: Iterable[Candidate]) -> Found | None:
        """The paths that candidates mean: those that are there as they stand first, then by form, then by encoding."""
        known: list[Candidate] = []
        for each in meant:
            path = bytes_of(each.path)
            if path in self._paths:
                return Found((path,), each.how)
            known.append(each)
        return self._by(known, lambda text: (form_of(text),), "another Unicode form") or self._by(
            known, self._other_readings, "another encoding"
        )

    def _by(self, known: list[Candidate], forms: Callable[[str], Iterable[str]], why: str) -> Found | None:
        by_form = self._by_form()
        for each in known:
            found = {path for form in forms(each.path) for path in by_form.get(form, ())}
            if found:
                return Found(tuple(sorted(found)), ", ".join(filter(None, (each.how, why))))
        return None

    def _other_readings(self, text: str) -> Iterable[str]:
        """None where no file can have any: reading in a wrong encoding leaves ASCII as it was."""
        if self._skeletons.isdisjoint(_skeletons(text)):
            return ()
        return other_readings(text)

    def _by_form(self) -> dict[str, list[bytes]]:
        if self._forms is None:
            self._forms = {}
            for path in self._paths:
                text = text_of(path)
                readings = {form_of(text)}
                if not text.isascii():
                    self._skeletons.update(_skeletons(text))
                    if _NO_UTF8.search(text):
                        readings.update(decodings(path))
                if "%" in text:
                    readings.add(form_of(unquote(text, errors="surrogateescape")))
                for each in readings:
                    self._forms.setdefault(each, []).append(path)
        return self._forms


def _skeletons(text: str) -> set[str]:
    """What of a text is ASCII, in either Unicode form."""
    forms = (unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))
    return {form.encode("ascii", "ignore").decode("ascii") for form in forms}


__all__ = ["Candidate", "Found", "Index", "candidates"]
