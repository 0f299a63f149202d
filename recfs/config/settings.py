"""`Settings`: a configuration put together of command line, environment, file and defaults, and whence each is.

What is named first goes before what follows. A file is read anew by `again`, as `recfs reload` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recfs.config.lines import Location

if TYPE_CHECKING:
    from recfs.config.model import Config


@dataclass(frozen=True, slots=True)
class Options:
    """What a command line says of settings: the option and the value for each setting."""

    said: Mapping[Location, tuple[str, Any]] = field(default_factory=dict)

    def root(self, root: Path | None) -> Options:
        """These, and --root, which is taken from the working directory if relative."""
        if root is None:
            return self
        return Options({**self.said, ("root",): ("--root", os.path.abspath(root))})


NOTHING_SAID = Options()


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration and where its settings are from."""

    config: Config
    origins: Mapping[str, str]
    """By dotted key (`fallback[1].pattern`): "FILE, line 12", "$RECFS_ROOT" or the option of the command line.

    What is not there is a default.
    """
    again: Callable[[], Settings] | None = None
    """Reads the file and the environment once more. Raises ConfigError."""

    def origin(self, key: str) -> str:
        """Give where a setting is from, by its dotted key."""
        return self.origins.get(key, "default")


def dotted(location: Location) -> str:
    """Give a location as people write it, tables counted from 1."""
    return "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def leaves(value: Any, location: Location = ()) -> Iterator[Location]:
    """Give the settings of a TOML document: what is no table and holds none, and what is empty."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from leaves(each, (*location, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, each in enumerate(value):
            yield from leaves(each, (*location, number))
    elif location:
        yield location


__all__ = ["NOTHING_SAID", "Options", "Settings", "dotted", "leaves"]
