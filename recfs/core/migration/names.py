"""What names say, and what programs and transports have made of them: Unicode forms, mojibake, quoting, ids."""

from __future__ import annotations

import codecs
import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from recfs.core.layout import is_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ENCODINGS: Final = ("cp1251", "latin-1", "cp1252", "cp866", "cp437", "koi8-r", "mac-cyrillic")
"""In which UTF-8 is read by mistake, and names of archives and of Windows were written."""
_TWICE: Final = ("cp1251", "latin-1", "cp1252")
"""In which it is read twice in a row."""
_SEPARATORS: Final = re.compile(r"[\W_]+")
_PROCESSED: Final = "_processed"
_BARE_UUID: Final = re.compile(r"[0-9a-fA-F]{32}")


def text_of(name: bytes) -> str:
    """A name as text; bytes that are no UTF-8 become lone surrogates (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The name that `text_of` gave; surrogates of other origin, which no name has, become `?`."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def form_of(text: str) -> str:
    """The text in the one Unicode form by which names are compared (NFC, Unicode Standard Annex 15)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def decodings(name: bytes) -> Iterator[str]:
    """What a name that is no UTF-8 says in other encodings."""
    for encoding in _ENCODINGS:
        yield form_of(_read(name, encoding))


def other_readings(text: str) -> Iterator[str]:
    """What a name was, or has become, if somebody read it in a wrong encoding; each in `form_of`, none twice.

    UTF-8 that was read as a single-byte encoding, once or twice, and back; one such encoding read as another; and the
    quoting of URLs (RFC 3986, section 2.1).
    """
    seen = {form_of(text)}
    for each in _readings(text):
        form = form_of(each)
        if form not in seen:
            seen.add(form)
            yield form


def _readings(text: str) -> Iterator[str]:
    if "%" in text:
        yield unquote(text, errors="surrogateescape")
    if text.isascii():
        return
    for once in _unmangled(text):
        yield once
        yield from _unmangled(once)
    # As it is, too: some characters have another one as their normal form, and their bytes were read.
    for form in dict.fromkeys((text, *(unicodedata.normalize(each, text) for each in ("NFC", "NFD")))):
        for once in _mangled(form):
            yield once
            yield from _mangled(once, _TWICE)
    for written in _ENCODINGS:
        raw = _encoded(text, written)
        if raw is not None:
            for read in _ENCODINGS:
                if read != written:
                    yield _read(raw, read)


def _unmangled(text: str) -> Iterator[str]:
    for encoding in _ENCODINGS:
        raw = _encoded(text, encoding)
        if raw is not None:
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError:
                continue


def _mangled(text: str, encodings: Sequence[str] = _ENCODINGS) -> Iterator[str]:
    raw = bytes_of(text)
    for encoding in encodings:
        yield _read(raw, encoding)


def _read(raw: bytes, encoding: str) -> str:
    return codecs.charmap_decode(raw, "strict", _decoding(encoding))[0]


@cache
def _decoding(encoding: str) -> str:
    """Characters by byte. Where the encoding has none, programs show the control character of that number."""
    found = []
    for byte in range(256):
        try:
            found.append(bytes([byte]).decode(encoding))
        except UnicodeDecodeError:
            found.append(chr(byte))
    return "".join(found)


@cache
def _encoding(encoding: str) -> Any:
    return codecs.charmap_build(_decoding(encoding))


def _encoded(text: str, encoding: str) -> bytes | None:
    try:
        return codecs.charmap_encode(text, "strict", _encoding(encoding))[0]
    except UnicodeEncodeError:
        return None


def parted(name: bytes) -> tuple[bytes, bytes]:
    """The stem of a name and its extension in lower case, without the dot; b"" where it has none.

    An extension is one to eight letters and digits of ASCII.
    """
    stem, dot, extension = name.rpartition(b".")
    if not dot or not stem or not 1 <= len(extension) <= 8 or not extension.isalnum():
        return name, b""
    return stem, extension.lower()


def stem_key(stem: str) -> str:
    """By what stems of names and titles are compared: without `_processed`, and whatever parts words is one `_`."""
    return _SEPARATORS.sub("_", form_of(stem)).strip("_").removesuffix(_PROCESSED)


def ids_in(stem: bytes) -> list[str]:
    """The ids in a name: what `_` parts and is an integer or a UUID (`layout.is_id`), in order, none twice."""
    return list(dict.fromkeys(part.decode("ascii") for part in stem.split(b"_") if is_id(part)))


def id_of(text: str) -> str | None:
    """The id that a database has as *text*: a UUID without hyphens gets them; None where it is no id."""
    text = text.strip()
    if _BARE_UUID.fullmatch(text) and not (text.isdigit() and is_id(text.encode())):
        text = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])).lower()
    return text if text.isascii() and is_id(text.encode()) else None


__all__ = [
    "bytes_of",
    "decodings",
    "form_of",
    "id_of",
    "ids_in",
    "other_readings",
    "parted",
    "stem_key",
    "text_of",
]
