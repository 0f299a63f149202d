"""What the platform calls its table and columns: a small file, in TOML.

table = "media_items"
expired = ["EXPIRED", "PURGED"]

[columns]
id = "item_id"
display_name = ""                    # there is none
local_video_size = "video_file_size" # looked for only where it is named
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from recfs.core.migration.rows import COLUMNS, EXPIRED_STATUS, ID, KNOWN, PATHS, USER
from recfs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KEYS: Final = ("table", "expired", "columns")
_TABLE: Final = "recordings"
_NEEDED: Final = (ID, USER)
_LARGEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Names:
    """What is looked for in a database."""

    table: str = _TABLE
    columns: Mapping[str, str] = field(default_factory=lambda: {column: column for column in COLUMNS})
    """Names in the database by names of `core.migration.rows`; without those that there are not."""
    expired: frozenset[str] = frozenset(EXPIRED_STATUS)
    """`status` of recordings that have expired, casefolded."""

    def told(self) -> dict[str, object]:
        """As the plan has it."""
        return {"table": self.table, "columns": dict(self.columns)}


def names_in(path: Path) -> Names:
    """Read the file *path*. Raises ConfigError that names the file and the key, or the line of what is no TOML."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ConfigError(f"{path}: more than {_LARGEST:,} bytes is no file of names")
        document = tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start + 1} is no UTF-8, which TOML is written in") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    _no_others(document, _KEYS, f"{path}: ")
    table = document.get("table", _TABLE)
    columns = document.get("columns", {})
    expired = document.get("expired", list(EXPIRED_STATUS))
    if not isinstance(table, str) or not table:
        raise ConfigError(f'{path}: table is a name, such as "recordings"')
    if not isinstance(columns, dict):
        raise ConfigError(f'{path}: columns is a table: [columns], and below it lines such as id = "item_id"')
    if not isinstance(expired, list) or not all(isinstance(each, str) for each in expired):
        raise ConfigError(f'{path}: expired is a list of words, such as ["EXPIRED"]')
    _no_others(columns, KNOWN, f"{path}: columns.")
    for key, name in columns.items():
        if not isinstance(name, str):
            raise ConfigError(f'{path}: columns.{key} is the name of a column, or "" where there is none')
        if key in _NEEDED and not name:
            raise ConfigError(f"{path}: columns.{key} is needed: without it nothing says whose a file is")
    found = {column: column for column in COLUMNS} | columns
    found = {key: found[key] for key in KNOWN if found.get(key)}
    if not set(found) & set(PATHS):
        raise ConfigError(f"{path}: none of the columns {', '.join(PATHS)} is left")
    return Names(table, found, frozenset(each.strip().casefold() for each in expired))


def _no_others(found: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in known:
            raise ConfigError(f"{where}{key}: there is no such key; there are {', '.join(known)}")


__all__ = ["Names", "names_in"]
