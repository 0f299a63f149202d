"""Settings from the environment: RECFS_ROOT, RECFS_QUOTA__MAX_FILE_SIZE. Section and key are joined by two underscores.

A text is written as it is, without quotes; numbers, true and false, lists and tables as in TOML. An empty variable
counts as one that is not there.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import pydantic
from pydantic import BaseModel

from recfs.config.explain import NO_SECRETS, is_secret
from recfs.config.lines import Location
from recfs.config.model import LISTS, SECTIONS, Config
from recfs.config.settings import dotted
from recfs.errors import ConfigError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PREFIX: Final = "RECFS_"
ENV_CONFIG: Final = "RECFS_CONFIG"
"""Environment variable with the path of a config file."""
TAKE_OVER: Final = "RECFS_TAKE_OVER"
"""Descriptor by which a daemon leaves its mount to the process that it starts."""
_OTHERS: Final = frozenset({ENV_CONFIG, TAKE_OVER})
_FAMILIES: Final = tuple(
    f"{PREFIX}{each}_" for each in ("TEST", "FUZZ", "CRASH", "BENCH", "SEAWEEDFS", "RGW")
)  # fmt: skip
"""Beginnings of what scripts and tests are told: no section is called so."""


def settings_in(env: Mapping[str, str]) -> dict[Location, tuple[str, Any]]:
    """Give "$NAME" of the variable and the value for each setting that *env* has.

    Raises ConfigError, with a line for each variable that begins with RECFS_ and means nothing: it would be a setting
    that is believed to hold and does not.
    """
    found: dict[Location, tuple[str, Any]] = {}
    wrong: list[str] = []
    settings = known()
    # Of those that begin otherwise, only what is a setting but for its case: the rest is somebody else's.
    for name in sorted(each for each in env if each.startswith(PREFIX) or each.upper() in (*settings, ENV_CONFIG)):
        if name in _OTHERS or name.startswith(_FAMILIES) or not env[name]:
            continue
        location = settings.get(name)
        if location is None:
            wrong.append(f"${name} in the environment: {_remedy(name)}")
        else:
            found[location] = f"${name}", value_of(location, env[name])
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def known() -> dict[str, Location]:
    """Give each variable that is a setting, with that setting."""
    tops = [(name,) for name in Config.model_fields if name not in SECTIONS or name in LISTS]
    keys = [(name, key) for name, section in SECTIONS.items() if name not in LISTS for key in section.model_fields]
    return {name_of(location): location for location in (*tops, *keys)}


def name_of(location: Location) -> str:
    """Give the name of a setting's variable."""
    return PREFIX + "__".join(str(part).upper() for part in location)


def value_of(location: Location, text: str) -> Any:
    """Give what *text* means for a setting: a number, a list … of TOML where the setting takes one, else the text."""
    field = _field(location)
    try:
        value = tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    if isinstance(value, bool | int | float | list | dict) and (_takes(field, value) or not _takes(field, text)):
        return value
    return text


def assignment(text: str) -> tuple[Location, Any]:
    """Give the setting and the value of "quota.max_bytes=5GiB". Raises ConfigError."""
    key, equals, value = text.partition("=")
    location: Location = tuple(key.strip().split("."))
    if not equals or location not in known().values():
        keys = sorted(dotted(each) for each in known().values())
        near = difflib.get_close_matches(key.strip(), keys, n=1)
        told = f"did you mean {near[0]}?" if near else "`recfs config show` has all settings"
        raise ConfigError(f"--set {key}: {f'no setting; {told}' if equals else 'write KEY=VALUE'}")
    return location, value_of(location, value.strip())


def _field(location: Location) -> FieldInfo:
    table: type[BaseModel] = Config
    for part in location[:-1]:
        table = SECTIONS[str(part)]
    return table.model_fields[str(location[-1])]


def _takes(field: FieldInfo, value: object) -> bool:
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


def _remedy(name: str) -> str:
    if is_secret(name):
        return NO_SECRETS
    if name.upper() in (*known(), ENV_CONFIG):
        return f"no setting as it is written; did you mean ${name.upper()}?"
    section = name.removeprefix(PREFIX).partition("__")[0].lower()
    if name == f"{PREFIX}{section.upper()}" and section in SECTIONS:
        key = next(iter(SECTIONS[section].model_fields))
        return f"a section and no setting; name one of its keys, such as {name_of((section, key))}"
    if section in LISTS:
        return f"[[{section}]] tables have no variables; write all as a list into {PREFIX}{section.upper()}"
    names = list(known())
    if section in SECTIONS:
        # Names that differ in the section alone are no better a guess than those of the same one.
        names = [each for each in names if each.startswith(f"{PREFIX}{section.upper()}__")]
    near = difflib.get_close_matches(name, names, n=1)
    told = f"did you mean ${near[0]}?" if near else "`recfs config show` has all settings; join section and key by __"
    return f"no setting; {told}"


__all__ = ["ENV_CONFIG", "TAKE_OVER", "assignment", "known", "name_of", "settings_in", "value_of"]
