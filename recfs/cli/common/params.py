"""Types of option values shared by several commands."""

import math
from pathlib import Path
from typing import Any

import click

ANY_PATH = click.Path(path_type=Path, readable=False)
"""Any path: whether the user may read what is there is asked elsewhere, and told with a reason."""


SIZE_UNIT = "bytes, or with a unit: 500MB (powers of 1000), 10GiB (powers of 1024)"


class Duration(click.ParamType[float]):
    """A duration as in recfs.conf ("5m", "90s", plain seconds); becomes seconds, from *least_s* to *most_s*."""

    name = "duration"
    unit = "seconds, or with units: 250ms, 90s, 5m, 1h 30m, 7d, 2w"

    def __init__(self, least_s: float = 0.0, most_s: float = math.inf) -> None:
        self._least_s, self._most_s = least_s, most_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from recfs.core.units import parse_duration

        try:
            found = value if isinstance(value, float) else parse_duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if not self._least_s <= found <= self._most_s:
            self.fail(f"{value}: it is from {self._least_s:g} s to {self._most_s:g} s", param, ctx)
        return found


class Size(click.ParamType[int]):
    """A size as in recfs.conf ("8 MiB", plain bytes); becomes bytes."""

    name = "size"
    unit = SIZE_UNIT

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from recfs.core.units import parse_size

        try:
            return parse_size(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
