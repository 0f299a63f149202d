"""A multipart form (RFC 7578) whose file goes to the disk as it comes; its small fields alone are held in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from recfs.web.problems import Problem
from recfs.web.uploads.body import Body, Receive

MOST_PARTS: Final = 64
MOST_FIELD_BYTES: Final = 64 << 10
"""Of all fields but the file, together."""
FIRST: Final = ("sha256", "recording")
"""Fields that say what becomes of the file, before it comes."""


def boundary_of(content_type: str) -> bytes:
    """Give a form's boundary. Raises Problem for what is no multipart form."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise Problem("UnsupportedMediaType", "a video comes as multipart/form-data")
    return boundary


class Form(Body):
    """A form with one file. `file` reads up to it; as a `Body` it gives the file's bytes; then it has all fields."""

    def __init__(self, receive: Receive, boundary: bytes) -> None:
        super().__init__(receive)
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.mime_type = ""
        self._messages = super().blocks()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        """The field whose value comes; None within the file."""
        self._text = b""
        self._bytes: list[bytes] = []
        """Of the file, parsed and not given yet."""
        self._parts = self._held = 0
        self._found = self._ended = False

    # What the parser calls.

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise Problem("PayloadTooLarge", f"a form has {MOST_PARTS} parts at most")
        self._headers, self._text = {}, b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _end_headers(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise Problem("BadRequest", "a part of a form has Content-Disposition: form-data with a name")
        if b"filename" not in options:
            self._field = _text(options[b"name"])
            if self._found and self._field in FIRST:
                raise Problem("BadRequest", f"the field {self._field} comes before the file")
            if self._field in self.fields:
                raise Problem("BadRequest", f"the field {self._field[:40]!a} comes twice")
            return
        if self._found:
            raise Problem("BadRequest", "one file is taken at a time")
        self._found, self._field = True, None
        self.filename = _text(options[b"filename"])
        mime, _ = parse_options_header(self._headers.get(b"content-type", b""))
        self.mime_type = mime.decode("latin-1")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._bytes.append(data[start:end])
            return
        self._held += end - start
        if self._held > MOST_FIELD_BYTES:
            raise Problem("PayloadTooLarge", f"the fields of a form have {MOST_FIELD_BYTES} bytes at most")
        self._text += data[start:end]

    def _end_part(self) -> None:
        if self._field is not None:
            self.fields[self._field] = _text(self._text)

    def _end(self) -> None:
        self._ended = True

    # Reading.

    async def file(self) -> None:
        """Read as far as the file's bytes. Raises Problem where there is none, CutOff."""
        async for block in self._messages:
            self._parse(block)
            if self._found:
                return
        raise Problem("BadRequest", "this form has no file")

    async def blocks(self) -> AsyncIterator[bytes]:
        """Give the bytes of the file, and read to the form's end. Raises Problem, CutOff, Superseded."""
        for ready in self._taken():
            yield ready
        async for block in self._messages:
            self._parse(block)
            for ready in self._taken():
                yield ready
        if not self._ended:
            raise Problem("BadRequest", "the form has no end")

    def _taken(self) -> list[bytes]:
        taken, self._bytes = self._bytes, []
        return taken

    def _parse(self, block: bytes) -> None:
        try:
            self._parser.write(block)
        except FormParserError:
            raise Problem("BadRequest", "this is no multipart form") from None


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem("BadRequest", "the fields of a form are UTF-8") from None


__all__ = ["MOST_FIELD_BYTES", "MOST_PARTS", "Form", "boundary_of"]
