"""Patterns with named fields on paths of a foreign layout, and templates that put the fields into paths of this one.

    uploads/{account}/{year:number}/{month:number}/{day:number}/{recording:uuid}-{name}.{ext:ext}

A field stands for some of one name, at least one byte, of its kind; without a kind for anything. `*` stands for any
text within a name, none too, `?` for one byte, `**/` for any number of directories, and `**` at the end for all below.
Braces themselves are written twice. Where a name can be taken apart in several ways, the fields to the left are as
short as they can be. Text has to stand between two fields, and what does not fit is known after a bounded number of
steps: at most tokens x bytes positions are tried, each once.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.core.layout import is_id
from recfs.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MOST_TOKENS = 64
"""Of one pattern: fields, wildcards and the texts between them."""
PATH_FIELD = "path"
"""Always known: the whole path of the file, as it is in the foreign layout."""
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_EXTENSION = re.compile(rb"[0-9A-Za-z_]+").fullmatch
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*").fullmatch
_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|\*\*/|\*\*|\*|\?|[{}]|[^{}*?]+")


def _anything(value: bytes) -> object:
    return True


def _whole_levels(value: bytes) -> object:
    return not value.startswith(b"/") and not value.endswith(b"/")


KINDS: Mapping[str, Callable[[bytes], object]] = {
    "text": _anything,
    "id": is_id,
    "uuid": _UUID,
    "number": bytes.isdigit,
    "ext": _EXTENSION,
    "path": _whole_levels,
}
"""What a field of a kind takes: any text, an id of the layout (an integer or a UUID), a UUID, digits, an extension
(letters, digits, _), and any number of levels, at least one."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A part of a pattern that stands for more than itself."""

    name: str | None
    """None: nobody asks what it stood for."""
    takes: Callable[[bytes], object]
    least: int = 1
    most: int | None = None
    """Bytes; None: as many as there are."""
    crosses: bool = False
    """Over slashes."""


_LEVELS = _Token(None, _anything, least=0, crosses=True)
"""`**/`: any number of directories, each with the slash behind it."""


class Pattern:
    """A pattern of whole paths, compiled. Raises InvalidArgument that says what to write instead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = _tokens(text)
        named = [token.name for token in self._tokens if isinstance(token, _Token) and token.name is not None]
        if len(set(named)) < len(named):
            raise InvalidArgument(f"pattern {text!r} has a field twice; give each a name of its own")
        self.fields = frozenset(named)
        """Names of what it takes out of a path."""

    def match(self, path: bytes) -> dict[str, bytes] | None:
        """What the fields stand for in *path*; None where the pattern does not take it."""
        ends = _Matching(self._tokens, path).ends(0, 0)
        if ends is None:
            return None
        found, at = {}, 0
        for token, end in zip(self._tokens, ends, strict=True):
            if isinstance(token, _Token) and token.name is not None:
                found[token.name] = path[at:end]
            at = end
        return found


class _Matching:
    """One path held against a pattern; what has failed once is not tried again."""

    def __init__(self, tokens: tuple[bytes | _Token, ...], path: bytes) -> None:
        self._tokens = tokens
        self._path = path
        self._failed: set[tuple[int, int]] = set()

    def ends(self, index: int, at: int) -> tuple[int, ...] | None:
        """Where each token from *index* on ends, if they take all of the path from *at* on."""
        if index == len(self._tokens):
            return () if at == len(self._path) else None
        if (index, at) in self._failed:
            return None
        token = self._tokens[index]
        if isinstance(token, bytes):
            tried = iter((at + len(token),) if self._path.startswith(token, at) else ())
        elif token is _LEVELS:
            tried = self._levels(at)
        else:
            tried = self._candidates(token, index, at)
        for end in tried:
            rest = self.ends(index + 1, end)
            if rest is not None:
                return end, *rest
        self._failed.add((index, at))
        return None

    def _levels(self, at: int) -> Iterator[int]:
        yield at
        while (slash := self._path.find(b"/", at)) >= 0:
            at = slash + 1
            yield at

    def _candidates(self, token: _Token, index: int, at: int) -> Iterator[int]:
        path = self._path
        slash = -1 if token.crosses else path.find(b"/", at)
        last = len(path) if slash < 0 else slash
        if token.most is not None:
            last = min(last, at + token.most)
        following = self._tokens[index + 1] if index + 1 < len(self._tokens) else b""
        assert isinstance(following, bytes)  # `_tokens` sees to it
        if not following:
            if at + token.least <= last == len(path) and token.takes(path[at:last]):
                yield last
            return
        end = path.find(following, at + token.least, last + len(following))
        while 0 <= end <= last:
            if token.takes(path[at:end]):
                yield end
            end = path.find(following, end + 1, last + len(following))


def _tokens(text: str) -> tuple[bytes | _Token, ...]:
    """What a pattern is made of; two texts never stand side by side, nor do two fields."""
    if not text or text.startswith("/") or text.endswith("/") or "//" in text:
        raise InvalidArgument(f"pattern {text!r}: write a path below the source, without / at its ends or twice")
    found: list[bytes | _Token] = []
    for match in _PIECE.finditer(text):
        piece, at = match[0], match.end()
        token = _token(piece, text)
        if piece.startswith("**") and not _is_alone(text, match.start(), at, piece):
            raise InvalidArgument(f"pattern {text!r}: ** stands alone between slashes")
        if isinstance(token, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += token
        else:
            if isinstance(token, _Token) and found and isinstance(found[-1], _Token) and found[-1] is not _LEVELS:
                raise InvalidArgument(f"pattern {text!r}: two fields touch; some text has to part them")
            found.append(token)
    if len(found) > MOST_TOKENS:
        raise InvalidArgument(f"pattern {text!r} has more than {MOST_TOKENS} parts")
    if any(one is _LEVELS and other is _LEVELS for one, other in itertools.pairwise(found)):
        raise InvalidArgument(f"pattern {text!r}: one ** stands for any number of directories")
    return tuple(found)


def _is_alone(text: str, begin: int, end: int, piece: str) -> bool:
    """Whether a ** fills its level: a slash before it, if anything is, and behind it."""
    return (not begin or text[begin - 1] == "/") and (piece == "**/" or end == len(text))


def _token(piece: str, text: str) -> bytes | _Token:
    if piece in ("{{", "}}"):
        return piece[:1].encode()
    if piece == "**/":
        return _LEVELS
    if piece == "**":
        return _Token(None, _anything, crosses=True)
    if piece == "*":
        return _Token(None, _anything, least=0)
    if piece == "?":
        return _Token(None, _anything, most=1)
    if piece in ("{", "}"):
        raise InvalidArgument(f"pattern {text!r}: a {piece} alone; write {piece * 2} for the character itself")
    if not piece.startswith("{"):
        return os.fsencode(piece)
    name, colon, kind = piece[1:-1].partition(":")
    if not _FIELD_NAME(name):
        raise InvalidArgument(f"pattern {text!r}: {piece} is no field; a name is of a-z, 0-9 and _")
    if name == PATH_FIELD:
        raise InvalidArgument(f"pattern {text!r}: {{{PATH_FIELD}}} is the whole path always; take another name")
    if colon and kind not in KINDS:
        raise InvalidArgument(f"pattern {text!r}: {piece}: a kind is one of {', '.join(KINDS)}")
    return _Token(name, KINDS[kind or "text"], crosses=kind == "path")


class MissingField(Exception):
    """A template asks for a field that has no value."""


class Template:
    """A path with fields in it: `users/{user}/recordings/{recording}/source.{ext|lower}`. Raises InvalidArgument.

    `|lower` makes ASCII letters small.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[tuple[bytes, str, bool]] = []
        """Text, and the field behind it ("": none), and whether that is made small."""
        literal = ""
        for match in _PIECE.finditer(text):
            piece = match[0]
            if piece in ("{{", "}}"):
                literal += piece[0]
            elif piece in ("{", "}"):
                raise InvalidArgument(f"target {text!r}: a {piece} alone; write {piece * 2} for the character itself")
            elif piece.startswith("{"):
                name, bar, how = piece[1:-1].partition("|")
                if not _FIELD_NAME(name) or (bar and how != "lower"):
                    raise InvalidArgument(f"target {text!r}: {piece} is neither {{field}} nor {{field|lower}}")
                self._parts.append((os.fsencode(literal), name, bool(bar)))
                literal = ""
            else:
                literal += piece
        self._parts.append((os.fsencode(literal), "", False))
        self.fields = frozenset(name for _, name, _ in self._parts if name)

    def filled(self, values: Mapping[str, bytes]) -> bytes:
        """The path. Raises MissingField, which names the first field that has no value."""
        parts: list[bytes] = []
        for literal, name, small in self._parts:
            parts.append(literal)
            if name:
                if name not in values:
                    raise MissingField(name)
                parts.append(values[name].lower() if small else values[name])
        return b"".join(parts)


__all__ = ["KINDS", "PATH_FIELD", "MissingField", "Pattern", "Template"]
