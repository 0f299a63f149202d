"""A plan by rules: the rules and their tables are read, a foreign tree is walked, and each file gets its place."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, BinaryIO, Final

from recfs.core.migration.escapes import escaped
from recfs.core.migration.plan import Plan
from recfs.core.migration.rows import moment
from recfs.core.migration.siblings.rules import parsed_rules
from recfs.errors import InvalidArgument, IoFailure, NotFound
from recfs.migration.planning import Made
from recfs.migration.regular import opened, opened_below
from recfs.migration.walking import Walk, top_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

    from recfs.core.migration.claims import File
    from recfs.core.migration.plan import Entry
    from recfs.core.migration.siblings.rules import Rules
    from recfs.errors import RecfsError
    from recfs.migration.planning import Tell

MOST_BYTES: Final = 256 << 20
"""Of a file of rules or a table; a larger one is none."""
_TOLD_EVERY: Final = 1000


def read_rules(path: Path, tree: Callable[[str], bytes]) -> Rules:
    """Read a file of rules, and the tables that it names; *tree* gives the bytes of one that lies in the foreign tree.

    Raises NotFound, IoFailure, and InvalidArgument that names the file.
    """
    try:
        rules = parsed_rules(_bytes_of(os.fspath(path)).decode("utf-8-sig"))
        for table in rules.tables.values():
            data = tree(table.file) if table.in_tree else _beside(path, table.file)
            rules.rows[table.name] = table.read(data)
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path} is no UTF-8, and so no TOML") from None
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from None
    return rules


def make_by_rules(old: Path, rules_file: Path, now: datetime, tell: Tell = lambda _what, _done: None) -> Made:
    """Walk the tree *old*, and give each file its place. Raises as `read_rules` and `Walk.files`."""
    top = top_of(os.fsencode(old))
    rules = read_rules(rules_file, lambda name: _in_tree(top, name))
    walk = Walk(top)
    files: list[File] = []
    for file in walk.files():
        files.append(file)
        if len(files) % _TOLD_EVERY == 0:
            tell("files found", len(files))
    files.sort(key=lambda each: each.path)
    made_of = {
        "made": moment(now),
        "old": escaped(top),
        "rules": escaped(os.fsencode(os.path.abspath(rules_file))),
    }
    plan = Plan(made_of, rules.entries(files))
    return Made(plan, None, 0, 0, 0, walk.mounts, walk.vanished)


def place_objects(objects: Iterable[File], rules_file: Path) -> list[Entry]:
    """Give each object of a bucket its place; their paths are the keys. Raises as `read_rules`.

    A table in the tree would be an object, which nobody here can read.
    """
    return read_rules(rules_file, _in_bucket).entries(objects)


def _in_bucket(name: str) -> bytes:
    raise InvalidArgument(f"tree_file {name!r} is not read from a bucket: download it, and say `file`")


def _in_tree(top: bytes, name: str) -> bytes:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidArgument(f"tree_file {name!r} is no path below the source")
    try:
        with open(opened_below(top, os.fsencode(name)), "rb") as file:
            return _bounded(file, name)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise InvalidArgument(f"tree_file {name!r} leads through a symbolic link, or no directory") from None
        raise _failed(name, error) from None
    except ValueError as error:  # a NUL in it
        raise InvalidArgument(f"tree_file {name!r}: {error}") from None


def _beside(rules: Path, name: str) -> bytes:
    """A table that the rules name: a pipe, which whoever names the rules knows nothing of, would be waited for."""
    path = os.path.join(rules.parent, name)
    try:
        with open(opened(path), "rb") as file:
            return _bounded(file, path)
    except OSError as error:
        raise _failed(path, error) from None
    except ValueError as error:
        raise IoFailure(f"{path} cannot be read: {error}") from None


def _bytes_of(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return _bounded(file, path)
    except OSError as error:
        raise _failed(path, error) from None
    except ValueError as error:
        raise IoFailure(f"{path} cannot be read: {error}") from None


def _bounded(file: BinaryIO, path: str) -> bytes:
    data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise InvalidArgument(f"{path} has more than {MOST_BYTES:,} bytes")
    return data


def _failed(path: str, error: OSError) -> RecfsError:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{path}: there is no such file")
    return IoFailure(f"{path} cannot be read: {error.strerror}")


__all__ = ["make_by_rules", "place_objects", "read_rules"]
