"""Types of option values shared by several commands."""

import grp
import math
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from recfs.cli.common import cwd
from recfs.core.naming import show_name

ANY_PATH = click.Path(path_type=Path, readable=False)
"""Any path: whether the user may read what is there is asked elsewhere, and told with a reason."""


class LocalPath(click.Path):
    """A path of this machine, never of a store. Raises MountError if it is relative and no working directory is."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        cwd.absolute(Path(value))
        return super().convert(value, param, ctx)


class LocalFile(click.File):
    """A file of this machine to be read, or `-`. Raises MountError as LocalPath does."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value != "-":
            cwd.absolute(Path(value))
        return super().convert(value, param, ctx)


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


class UserId(click.ParamType[str]):
    """A user's id: an integer or a UUID."""

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from recfs.core.layout import is_id

        text = str(value)
        # surrogateescape: an argument need not be UTF-8
        if not is_id(text.encode("utf-8", "surrogateescape")):
            self.fail(f"{show_name(text)!r} is no user id; it is an integer or a UUID", param, ctx)
        return text


class Id(click.ParamType[int]):
    """A uid or gid: a number, or a name of this machine (passwd(5), group(5))."""

    def __init__(self, name: str, unit: str, look_up: Callable[[str], int]) -> None:
        self.name, self.unit, self._look_up = name, unit, look_up

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from recfs.core.access.owners import ID_MAX

        text = str(value)
        try:
            found = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else self._look_up(text)
        except (KeyError, ValueError):
            self.fail(f"{show_name(text)!r} is neither a number nor a name that this machine knows", param, ctx)
        if found > ID_MAX:
            self.fail(f"{found}: it lies between 0 and {ID_MAX}", param, ctx)
        return found


UID = Id("uid", "a number, or the name of a user of this machine", lambda name: pwd.getpwnam(name).pw_uid)
GID = Id("gid", "a number, or the name of a group of this machine", lambda name: grp.getgrnam(name).gr_gid)


class Mode(click.ParamType[int]):
    """Permission bits in octal, as chmod(1) takes them."""

    name = "mode"
    unit = "permission bits in octal, such as 0700 or 2770"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).removeprefix("0o")
        if not text or len(text) > 5 or not set(text) <= set("01234567"):
            self.fail(f"{show_name(text)!r}: {self.unit}", param, ctx)
        return int(text, 8)


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
