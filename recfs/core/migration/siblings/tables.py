"""Tables that rules ask: which user a project is of, which recording an asset. CSV or JSON, pure, without I/O."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recfs.core.migration.escapes import escaped
from recfs.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KEYS = frozenset({"file", "tree_file", "rows", "key", "fields"})
_DELIMITERS = (",", ";", "\t", "|")
OUTER_KEY = "@key"
"""The column of a JSON object's names, where its values are the rows."""


@dataclass(frozen=True, slots=True)
class Table:
    """Where it is, by what it is asked, and what it tells."""

    name: str
    file: str
    in_tree: bool
    """Whether the file lies below the tree that is imported; else beside the rules."""
    rows_at: tuple[str, ...]
    """In JSON: the names that lead to the rows."""
    key: Mapping[str, str]
    """Field → column."""
    fields: Mapping[str, str] | None
    """Field → column; None: every column is a field of its own name."""

    def read(self, data: bytes) -> Rows:
        """The rows of the file's content. Raises InvalidArgument that says what is wrong with it."""
        try:
            text = data.decode("utf-8-sig")
            records = list(self._json(text) if self.file.lower().endswith(".json") else self._csv(text))
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"{self.file} of table {self.name} cannot be read: {error}") from None
        rows = Rows(self)
        for record in records:
            rows.add(record)
        return rows

    def _csv(self, text: str) -> Iterator[dict[str, Any]]:
        needed = [*self.key.values(), *(self.fields or {}).values()]
        delimiter = delimiter_of(text.split("\n", 1)[0], set(needed))
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = reader.fieldnames or ()
        for column in needed:
            if column not in columns:
                raise ValueError(f"there is no column {column!r}; there are {', '.join(columns) or 'none'}")
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"line {reader.line_num} has not as many fields as the first")
                yield {column: value for column, value in row.items() if value}
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None

    def _json(self, text: str) -> Iterator[dict[str, Any]]:
        found = json.loads(text)
        for name in self.rows_at:
            if not isinstance(found, dict) or name not in found:
                raise ValueError(f"there is no {'.'.join(self.rows_at)}")
            found = found[name]
        rows = [{OUTER_KEY: name} | _row(row) for name, row in found.items()] if isinstance(found, dict) else found
        if not isinstance(rows, list):
            raise ValueError("rows are a list of objects, or an object of objects")
        for row in rows:
            yield _row(row)


def delimiter_of(first: str, wanted: set[str]) -> str:
    """What parts the names of columns in the first line of a CSV: with what most of those that are wanted are found."""

    def found(delimiter: str) -> int:
        try:
            return len(wanted & {each.strip() for each in next(csv.reader([first], delimiter=delimiter), [])})
        except csv.Error:
            return 0

    return max(_DELIMITERS, key=found)


def _row(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"a row is to be an object, and not {str(row)[:40]!r}")
    return row


@dataclass(slots=True)
class Rows:
    """A table's rows by their keys."""

    table: Table
    _by_key: dict[tuple[bytes, ...], dict[str, bytes] | None] = field(default_factory=dict)
    """None: several rows have this key, and tell different things."""

    def add(self, record: Mapping[str, Any]) -> None:
        """One more row. One without a key, or part of it, is nobody's."""
        key = tuple(_plain(record.get(column)) for column in self.table.key.values())
        if None in key:
            return
        columns = self.table.fields if self.table.fields is not None else {name: name for name in record}
        told = {name: value for name, column in columns.items() if (value := _plain(record.get(column))) is not None}
        known = tuple(value for value in key if value is not None)
        before = self._by_key.setdefault(known, told)
        if before != told:
            self._by_key[known] = None

    def look_up(self, values: Mapping[str, bytes]) -> Mapping[str, bytes] | str | None:
        """What the table tells of a file by the fields that are known of it.

        None: several rows tell different things. A text: there is none, in words.
        """
        missing = [name for name in self.table.key if name not in values]
        if missing:
            return f"{self.table.name} is asked by {{{missing[0]}}}, of which nothing is known"
        key = tuple(values[name] for name in self.table.key)
        if key not in self._by_key:
            return f"{self.told(values)} has no row"
        return self._by_key[key]

    def told(self, values: Mapping[str, bytes]) -> str:
        """The table and the key, for people."""
        return f"{self.table.name} with " + ", ".join(
            f"{column} = {escaped(values[name])}" for name, column in self.table.key.items()
        )


def _plain(value: Any) -> bytes | None:
    """A value as bytes; None for what is neither a text nor a whole number, or empty."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value).encode("utf-8", "surrogateescape") or None


def table_of(name: str, read: Mapping[str, Any]) -> Table:
    """Understand what the file of rules says of a table. Raises InvalidArgument."""
    said = f"[tables.{name}]"
    for given in read:
        if given not in _KEYS:
            raise InvalidArgument(f"{said}: {given!r} is not known; there are {', '.join(sorted(_KEYS))}")
    file, tree_file, rows = read.get("file"), read.get("tree_file"), read.get("rows", "")
    where = tree_file if file is None else file
    if (file is None) == (tree_file is None) or not isinstance(where, str) or not where:
        raise InvalidArgument(f"{said} needs either `file`, beside the rules, or `tree_file`, below the source")
    if not isinstance(rows, str):
        raise InvalidArgument(f"{said}: rows is to be a string: names in the JSON, with dots between them")
    key, fields = _names(read.get("key")), _names(read.get("fields"))
    if not key or ("fields" in read and fields is None):
        raise InvalidArgument(
            f'{said}: `key` is a field, a list of them, or {{ field = "column" }}; so are `fields`, if given'
        )
    return Table(name, where, file is None, tuple(part for part in rows.split(".") if part), key, fields)


def _names(read: Any) -> dict[str, str] | None:
    """Field → column, as the file has it; None: it is something else."""
    if isinstance(read, str):
        return {read: read}
    if isinstance(read, list):
        read = dict(zip(read, read, strict=True)) if all(isinstance(each, str) for each in read) else None
    is_named = isinstance(read, dict) and all(isinstance(column, str) for column in read.values())
    return dict(read) if is_named else None


__all__ = ["OUTER_KEY", "Rows", "Table", "delimiter_of", "table_of"]
