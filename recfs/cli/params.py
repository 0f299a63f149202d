"""Types of option values shared by several commands."""

from typing import Any

import click


class Duration(click.ParamType[float]):
    """A duration as in recfs.conf ("5m", "90s", plain seconds); becomes seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from recfs.core.units import parse_duration

        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Size(click.ParamType[int]):
    """A size as in recfs.conf ("8 MiB", plain bytes); becomes bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from recfs.core.units import parse_size

        try:
            return parse_size(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
