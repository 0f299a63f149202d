"""SHA256SUMS: the lines that sha256sum(1) of GNU coreutils writes and checks."""

from __future__ import annotations

import re

from recfs.errors import InvalidArgument

NAME = b"SHA256SUMS"
"""Of the file, beside the tree that it is about."""

_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_NAMED = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_BACK = {escape: char for char, escape in _NAMED.items()}
_TO_ESCAPE = re.compile(rb"[\\\n\r]")
_ESCAPE = re.compile(rb"\\(.?)", re.DOTALL)


def sum_line(sha256: str, path: bytes) -> bytes:
    r"""One line, with its newline. A name that holds a backslash, newline or carriage return is escaped.

    The line begins with a backslash then (coreutils, "md5sum invocation").
    """
    escaped = _TO_ESCAPE.sub(lambda match: _NAMED[match[0]], path)
    mark = b"\\" if escaped != path else b""
    return mark + sha256.encode("ascii") + b"  " + escaped + b"\n"


def parsed_sum(line: bytes) -> tuple[bytes, str]:
    """Give path and checksum (hex, lower case) of a line, without `./` in front. Raises InvalidArgument."""
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None:
        raise InvalidArgument(f"{line[:80]!r} is no line of sha256sum: a checksum, two spaces and a name")
    mark, digest, name = match.groups()
    if name.endswith(b"\r"):
        raise InvalidArgument("it ends in a carriage return: the file was saved with CRLF line ends, as on Windows")
    if mark:
        name = _ESCAPE.sub(_char, name)
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return name, digest.decode("ascii").lower()


def _char(match: re.Match[bytes]) -> bytes:
    if match[0] not in _BACK:
        raise InvalidArgument(f"{match[0]!r} is no escape of sha256sum")
    return _BACK[match[0]]


__all__ = ["NAME", "parsed_sum", "sum_line"]
