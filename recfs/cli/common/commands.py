"""Commands that are loaded when they are asked for: to load all takes longer than most of them work."""

from collections.abc import Iterator, MutableMapping
from importlib import import_module

import click


class Commands(MutableMapping[str, click.Command]):
    """The commands of a group by name; `where` says of each `module:variable`. Whoever only lists names loads none."""

    def __init__(self, where: dict[str, str]) -> None:
        self._found: dict[str, click.Command | str] = dict(where)

    def __getitem__(self, name: str) -> click.Command:
        found = self._found[name]
        if isinstance(found, str):
            module, _, variable = found.partition(":")
            found = getattr(import_module(module), variable)
            if not isinstance(found, click.Command):
                raise TypeError(f"{module}:{variable} is no command")
            self._found[name] = found
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
