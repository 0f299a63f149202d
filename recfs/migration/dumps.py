r"""A table of recordings as CSV: what PostgreSQL's `\copy recordings TO 'file' WITH (FORMAT csv, HEADER)` writes.

Also what spreadsheets make of it: a byte order mark, semicolons or tabs, another encoding. An empty field and `\N` are
NULL.
"""

from __future__ import annotations

import codecs
import csv
import os
from typing import TYPE_CHECKING, Final

from recfs.core.migration.siblings.tables import delimiter_of
from recfs.errors import InvalidArgument, IoFailure, NotFound
from recfs.migration.regular import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import TextIO

    from recfs.core.migration.rows import Value
    from recfs.migration.mapping import Names

_NULLS: Final = ("", "\\N")
_END: Final = "\\."
"""A line of its own that ends what `COPY` writes (https://www.postgresql.org/docs/16/sql-copy.html, "Text Format")."""
_FIELD_MAX: Final = 16 << 20
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def rows_in(path: Path, names: Names, encoding: str | None = None) -> Iterator[Mapping[str, Value]]:
    """The rows of the file *path*, by the names of `core.migration.rows`.

    *encoding*: without one that which a byte order mark tells, else UTF-8. Raises NotFound where there is no file,
    InvalidArgument that names the line where it is no such table, IoFailure where the disk says no.
    """
    csv.field_size_limit(_FIELD_MAX)
    try:
        encoding = encoding or _encoding(path)
        with open(opened(os.fspath(path)), encoding=encoding, newline="") as file:
            delimiter = _delimiter(path, file.readline(_FIELD_MAX), names)
            file.seek(0)
            reader = csv.reader(_lines(file), delimiter=delimiter, strict=True)
            try:
                yield from _rows(path, reader, names)
            except csv.Error as error:
                raise InvalidArgument(f"{path}: line {reader.line_num}: {error}") from None
            except UnicodeError as error:
                raise InvalidArgument(
                    f"{path}: after line {reader.line_num}: this is no {encoding} ({error}); --encoding says what it is"
                ) from None
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file") from None
    except UnicodeError as error:
        raise InvalidArgument(f"{path}: line 1: this is no {encoding} ({error}); --encoding says what it is") from None
    except OSError as error:
        raise IoFailure(f"{path} cannot be read: {error.strerror}") from None


def _lines(file: TextIO) -> Iterator[str]:
    """The lines, none longer than a field may be: one without an end would be held whole. Raises csv.Error."""
    while line := file.readline(_FIELD_MAX + 1):
        if len(line) > _FIELD_MAX:
            raise csv.Error(f"it has more than {_FIELD_MAX:,} characters")
        yield line


def _rows(path: Path, reader: Iterator[list[str]], names: Names) -> Iterator[Mapping[str, Value]]:
    header = [each.strip() for each in next(reader, [])]
    places: dict[str, int] = {}
    for key, name in names.columns.items():
        if header.count(name) != 1:
            told = f"{name!r}" + (f" (for {key})" if key != name else "")
            there = ", ".join(header)
            why = f"no column {told}; there are: {there}" if name not in header else f"several columns {told}"
            raise InvalidArgument(
                f'{path}: line 1 has {why}. A file that --columns names says what it is called, or "" for none'
            )
        places[key] = header.index(name)
    for fields in reader:
        if not fields:
            continue
        if fields == [_END]:
            return
        if len(fields) != len(header):
            line = reader.line_num  # type: ignore[attr-defined]  # of csv.reader
            raise InvalidArgument(f"{path}: line {line} has {len(fields)} fields, and line 1 has {len(header)}")
        yield {key: None if fields[at] in _NULLS else fields[at] for key, at in places.items()}


def _encoding(path: Path) -> str:
    with open(opened(os.fspath(path)), "rb") as file:
        begin = file.read(4)
    return next((encoding for mark, encoding in _MARKS if begin.startswith(mark)), "utf-8")


def _delimiter(path: Path, first: str, names: Names) -> str:
    if not first.strip():
        raise InvalidArgument(f"{path}: line 1: there are no names of columns; write it WITH (FORMAT csv, HEADER)")
    return delimiter_of(first, set(names.columns.values()))


__all__ = ["rows_in"]
