"""Rules that map a sibling system's layout to this one: a file of TOML, pure, without I/O.

    [tables.projects]                     # who a project belongs to
    file = "projects.csv"                 # beside this file; tree_file: below the tree that is imported
    key = { project = "project_id" }      # field of the pattern = column
    fields = { user = "owner" }           # field of the target = column

    [[rule]]
    from = "uploads/project_{project:id}/{name}.{ext:ext}"
    tables = ["projects"]
    to = "users/{user}/recordings/{project}/{name}.{ext|lower}"

The first rule whose pattern takes a path decides it. What it needs and nobody says (no row, no default) leaves the
file `unmatched`, and so does a target that the layout refuses; two files that would be one are `ambiguous`, both.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from recfs.core.layout import role_of
from recfs.core.migration.escapes import escaped
from recfs.core.migration.plan import Action, Entry
from recfs.core.migration.siblings.patterns import PATH_FIELD, MissingField, Pattern, Template
from recfs.core.migration.siblings.tables import Table, table_of
from recfs.errors import FsError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from recfs.core.migration.claims import File
    from recfs.core.migration.siblings.tables import Rows

_RULE_KEYS = frozenset({"from", "to", "skip", "tables", "defaults", "same_target"})
_TOP_KEYS = frozenset({"tables", "defaults", "rule"})
_SAME_TARGET = ("ambiguous", "aside")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which paths it takes, and where they go."""

    number: int
    """In the file, from 1."""
    pattern: Pattern
    target: Template | None
    """None: what it takes is not imported …"""
    skip: str
    """… for this reason."""
    tables: tuple[str, ...]
    defaults: Mapping[str, bytes]
    keeps_aside: bool
    """Where another file has its target, it goes beside that instead of being ambiguous."""


class Placed(NamedTuple):
    """What the rules say of a path."""

    action: Action
    """COPY, SKIP, UNMATCHED or AMBIGUOUS."""
    target: bytes
    """Below the mount; empty unless it is to be copied."""
    reason: str
    rule: Rule | None


@dataclass(slots=True)
class Rules:
    """All of them, with the tables they ask."""

    rules: tuple[Rule, ...]
    tables: Mapping[str, Table]
    rows: dict[str, Rows] = field(default_factory=dict)
    """By table; who reads the files puts them here (`Table.read`)."""

    def _placed(self, file: File) -> Placed:
        return self.place(file.path) if file.left is None else Placed(file.left, b"", file.reason, None)

    def place(self, path: bytes) -> Placed:
        """Where a file goes, by the first rule that takes it."""
        for rule in self.rules:
            found = rule.pattern.match(path)
            if found is not None:
                return self._by(rule, path, found)
        return Placed(Action.UNMATCHED, b"", "no rule takes it", None)

    def _by(self, rule: Rule, path: bytes, found: dict[str, bytes]) -> Placed:
        said = f"rule {rule.number}"
        if rule.target is None:
            return Placed(Action.SKIP, b"", f"{said}: {rule.skip}", rule)
        values, missed = {PATH_FIELD: path} | found, []
        for name in rule.tables:
            row = self.rows[name].look_up(values)
            if isinstance(row, str):
                missed.append(row)
            elif row is None:
                return Placed(Action.AMBIGUOUS, b"", f"{said}: {self.rows[name].told(values)} has several rows", rule)
            else:
                missed += [f"{name}: {told} is no name" for told, value in row.items() if b"/" in value]
                values = {told: value for told, value in row.items() if b"/" not in value} | values
        values = dict(rule.defaults) | values
        try:
            target = rule.target.filled(values)
        except MissingField as error:
            why = "; ".join(missed) or "no table and no default tells it"
            return Placed(Action.UNMATCHED, b"", f"{said}: nothing is known of {{{error}}}: {why}", rule)
        try:
            role_of(tuple(target.split(b"/")), is_dir=False)
        except FsError as error:
            return Placed(Action.UNMATCHED, b"", f"{said}: {escaped(target)} cannot be: {error}", rule)
        return Placed(Action.COPY, target, said, rule)

    def entries(self, files: Iterable[File]) -> list[Entry]:
        """The plan's entries, one for each file, in their order: no two have one target, and none lies in another."""
        placed = [(each, self._placed(each)) for each in files]
        claims: defaultdict[bytes, list[int]] = defaultdict(list)
        for index, (_, where) in enumerate(placed):
            if where.action is Action.COPY:
                claims[where.target].append(index)
        folders = {parent for target in claims for parent in _parents(target)}
        entries = [Entry(where.action, each.size, where.target, each.path, where.reason) for each, where in placed]
        for target, indexes in claims.items():
            if target in folders:
                for index in indexes:
                    entries[index] = _left(entries[index], "a directory of other files would have its target")
            elif len(indexes) > 1:
                self._share(target, indexes, placed, entries, claims)
        return entries

    def _share(
        self,
        target: bytes,
        indexes: Sequence[int],
        placed: Sequence[tuple[File, Placed]],
        entries: list[Entry],
        claims: Mapping[bytes, Sequence[int]],
    ) -> None:
        """Several files have one target."""
        rules = [placed[index][1].rule for index in indexes]
        if all(rule is not None and rule.keeps_aside for rule in rules):
            # The rule that stands first knows best, and of two files of one rule the newer one is in use.
            order = sorted(indexes, key=lambda index: _rank(*placed[index]))
            number = 1
            for index in order[1:]:
                number += 1
                while (beside := _beside(target, number)) in claims:
                    number += 1
                first = escaped(placed[order[0]][0].path)
                entries[index] = Entry(
                    Action.ASIDE, entries[index].size, beside, entries[index].source,
                    f"{entries[index].reason}; {first} has its target",
                )  # fmt: skip
            return
        for index in indexes:
            others = [escaped(placed[other][0].path) for other in indexes if other != index]
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            entries[index] = _left(entries[index], f"{others[0]}{more} would have the same target")


def _rank(found: File, placed: Placed) -> tuple[int, int, bytes]:
    assert placed.rule is not None
    return placed.rule.number, -found.mtime_ns, found.path


def _left(entry: Entry, why: str) -> Entry:
    return Entry(Action.AMBIGUOUS, entry.size, b"", entry.source, f"{entry.reason} → {escaped(entry.target)}: {why}")


def _beside(target: bytes, number: int) -> bytes:
    """A name for another file beside *target*: `source.2.mp4`."""
    folder, slash, name = target.rpartition(b"/")
    stem, dot, extension = name.rpartition(b".")
    if not stem:
        stem, dot, extension = name, b"", b""
    return folder + slash + stem + b"." + str(number).encode() + dot + extension


def _parents(target: bytes) -> Iterable[bytes]:
    while b"/" in target:
        target = target.rpartition(b"/")[0]
        yield target


# --- reading the file ------------------------------------------------------------------------------------------------


def parsed_rules(text: str) -> Rules:
    """Read a file of rules. Raises InvalidArgument that names the rule or the table, and what is wrong with it."""
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"the rules are no TOML: {error}") from None
    _only(read, _TOP_KEYS, "the file of rules")
    tables = {name: table_of(name, _table(value, f"[tables.{name}]")) for name, value in _dict(read, "tables").items()}
    defaults = _values(_dict(read, "defaults"), "[defaults]")
    listed = read.get("rule", [])
    if not isinstance(listed, list) or not listed:
        raise InvalidArgument("there is no [[rule]] in the file of rules")
    rules = tuple(_rule(number, each, tables, defaults) for number, each in enumerate(listed, 1))
    return Rules(rules, tables)


def _rule(number: int, read: Any, tables: Mapping[str, Table], defaults: Mapping[str, bytes]) -> Rule:
    said = f"rule {number}"
    read = _table(read, said)
    _only(read, _RULE_KEYS, said)
    pattern, target, skip = (_text(read, key, said) for key in ("from", "to", "skip"))
    if pattern is None or (target is None) == (skip is None):
        raise InvalidArgument(f"{said} needs `from`, and either `to`, a target, or `skip`, a reason")
    asked = read.get("tables", [])
    if not isinstance(asked, list) or not all(name in tables for name in asked):
        raise InvalidArgument(
            f"{said}: `tables` is a list of names of [tables.…]; there are {', '.join(tables) or 'none'}"
        )
    same = _text(read, "same_target", said) or "ambiguous"
    if same not in _SAME_TARGET:
        raise InvalidArgument(f"{said}: same_target is one of {', '.join(_SAME_TARGET)}")
    try:
        compiled, template = Pattern(pattern), None if target is None else Template(target)
    except InvalidArgument as error:
        raise InvalidArgument(f"{said}: {error}") from None
    known = dict(defaults) | _values(_dict(read, "defaults"), f"{said}: defaults")
    _check_fields(said, compiled, template, [tables[name] for name in asked], known)
    return Rule(number, compiled, template, skip or "", tuple(asked), known, same == "aside")


def _check_fields(
    said: str, pattern: Pattern, template: Template | None, asked: Sequence[Table], defaults: Mapping[str, bytes]
) -> None:
    """What a rule asks for has to come from somewhere; a mistyped field is found before any file is."""
    known = {PATH_FIELD, *pattern.fields}
    tells_all = False
    for table in asked:
        unknown = [name for name in table.key if name not in known and not tells_all]
        if unknown:
            raise InvalidArgument(f"{said}: table {table.name} is asked by {{{unknown[0]}}}, which no pattern gives")
        known |= set(table.fields or ())
        tells_all = tells_all or table.fields is None  # every column is a field: nobody knows yet which there are
    missing = sorted(template.fields - known - set(defaults)) if template is not None and not tells_all else []
    if missing:
        raise InvalidArgument(f"{said}: nothing tells {{{missing[0]}}}: no field of `from`, no table, no default")


def _only(read: Mapping[str, Any], known: frozenset[str], said: str) -> None:
    for key in read:
        if key not in known:
            raise InvalidArgument(f"{said}: {key!r} is not known; there are {', '.join(sorted(known))}")


def _dict(read: Mapping[str, Any], key: str) -> dict[str, Any]:
    return _table(read.get(key, {}), key)


def _table(read: Any, said: str) -> dict[str, Any]:
    if not isinstance(read, dict):
        raise InvalidArgument(f"{said} is to be a table of TOML")
    return read


def _text(read: Mapping[str, Any], key: str, said: str) -> str | None:
    value = read.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"{said}: {key} is to be a string")
    return value


def _values(read: Mapping[str, Any], said: str) -> dict[str, bytes]:
    for key, value in read.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise InvalidArgument(f"{said}: {key} is to be a string or a number")
    return {key: str(value).encode() for key, value in read.items()}


__all__ = ["Placed", "Rule", "Rules", "parsed_rules"]
