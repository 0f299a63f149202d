"""Types of settings: what is checked and turned into a plain value while recfs.conf is read.

Sizes become int bytes and durations float seconds. A type's ValueError says what to write instead; key and file are
added by `explain`.
"""

import grp
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import BaseModel, BeforeValidator, Field

from recfs.core.quota import UNLIMITED
from recfs.core.units import parse_duration, parse_size


class Section(BaseModel):
    """Base of all tables of recfs.conf: frozen, and an unknown key is a mistake."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _absolute_path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError('a path is a text in quotes, such as "/srv/recfs"')
    if "\0" in str(value):
        raise ValueError("a path cannot hold a NUL character")
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("a relative path depends on where recfs is started; write it in full, from /")
    return path


def _uid(value: object) -> int:
    """Turn a user name or uid into a uid known to be usable; names are looked up on this machine."""
    if isinstance(value, str) and not value.isdecimal():
        try:
            return pwd.getpwnam(value).pw_uid
        except (KeyError, ValueError):
            raise ValueError(
                "no user of this name on this machine; write an existing one (see `getent passwd`) or a uid"
            ) from None
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ValueError('a user is a name in quotes, such as "root", or a uid such as 1000')
    # 2**32 - 1 is (uid_t) -1, which chown(2) reads as "leave unchanged".
    if len(str(value)[:20]) > 10 or not 0 <= int(value) < 2**32 - 1:
        raise ValueError("a uid lies between 0 and 4294967294")
    return int(value)


def _gid(value: object) -> int:
    """Turn the name of a group, or a gid, into a gid; names are looked up on this machine."""
    if isinstance(value, str) and not value.isdecimal():
        try:
            return grp.getgrnam(value).gr_gid
        except (KeyError, ValueError):
            raise ValueError(
                "no group of this name on this machine; write an existing one (see `getent group`) or a gid"
            ) from None
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise ValueError('a group is a name in quotes, such as "media", or a gid such as 1000')
    if len(str(value)[:20]) > 10 or not 0 <= int(value) < 2**32 - 1:
        raise ValueError("a gid lies between 0 and 4294967294")
    return int(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < UNLIMITED:
        raise ValueError("a whole number of at least 0, without quotes")
    return value


def _limit(parse: Callable[[object], int]) -> BeforeValidator:
    def limit(value: object) -> int | None:
        if value is None or value == "unlimited":
            return None
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f'{error}; "unlimited" for no limit') from None

    return BeforeValidator(limit)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


AbsolutePath = Annotated[Path, BeforeValidator(_absolute_path)]
Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
SizeLimit = Annotated[int | None, _limit(parse_size)]
CountLimit = Annotated[int | None, _limit(_count)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Uid = Annotated[int, BeforeValidator(_uid)]
Gid = Annotated[int, BeforeValidator(_gid)]
AnyCase = BeforeValidator(_lower)
"""Beside a Literal of lower-case words: "Debug" is "debug"."""
