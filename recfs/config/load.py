"""Finds recfs.conf, reads it and the environment, and makes a `Config` of them or a ConfigError."""

import codecs
import os
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pydantic

from recfs.config.environment import ENV_CONFIG, name_of, settings_in
from recfs.config.explain import mistakes
from recfs.config.lines import Location, line_at, lines_of
from recfs.config.model import Config
from recfs.config.settings import NOTHING_SAID, Options, Settings, dotted, leaves
from recfs.core.naming import show_name
from recfs.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/recfs/recfs.conf")
"""Where `find_config` looks last."""
ROOT = "root"

_MAX_CONFIG_BYTES = 1024 * 1024


def load_config(path: Path, *, root: Path | None = None) -> Config:
    """Read a config file; `root`, if given, replaces the file's own. Raises ConfigError."""
    return _settings(path, Options().root(root), {}).config


def config_for_root(root: Path, env: Mapping[str, str] | None = None) -> Config:
    """Give the embedded default: no file, one root (from the working directory if relative), all defaults.

    *env*: the environment, where its settings are to count. Raises ConfigError.
    """
    return _settings(None, Options().root(root), env or {}).config


def find_config(
    cli_config: Path | None,
    cli_root: Path | None,
    env: Mapping[str, str],
    *,
    system_config: Path = SYSTEM_CONFIG,
) -> Config:
    """Find a command's settings, as `find_settings` does."""
    return find_settings(cli_config, cli_root, env, system_config=system_config).config


def find_settings(
    cli_config: Path | None,
    cli_root: Path | None,
    env: Mapping[str, str],
    *,
    options: Options = NOTHING_SAID,
    system_config: Path = SYSTEM_CONFIG,
) -> Settings:
    """Find a command's settings: --config (with --root replacing its root), --root, $RECFS_CONFIG, /etc.

    *options* go before the environment, that before the file, and that before the defaults. --root alone reads no file
    at all, whatever the environment names. Raises ConfigError, also when nothing names a store.
    """
    said = options.root(cli_root)
    named = env.get(ENV_CONFIG)
    if cli_config is not None:
        return _settings(cli_config, said, env)
    if cli_root is not None:
        path: Path | None = None
    elif named:
        path = Path(named)
    elif os.path.lexists(system_config):
        path = system_config
    elif (ROOT,) in settings_in(env) or (ROOT,) in said.said:
        path = None
    else:
        raise ConfigError(
            f"no store named, and no {system_config}; give --root DIR or --config FILE, or set ${ENV_CONFIG} or"
            f" ${name_of((ROOT,))}"
        )
    try:
        return _settings(path, said, env)
    except ConfigError as error:
        if not named or path is None:
            raise
        raise ConfigError(f"{error} (named by ${ENV_CONFIG})") from None


def check_file(path: Path, root: Path | None, env: Mapping[str, str]) -> Settings:
    """What `recfs mount --config` would have here. Raises ConfigError, also for what the environment hides."""
    text, said = _read(path, show_name(str(path))), NOTHING_SAID.root(root)
    _settings(path, said, env, text=text, file_first=True)
    return _settings(path, said, env, text=text)


def _settings(
    path: Path | None, options: Options, env: Mapping[str, str], *, text: str | None = None, file_first: bool = False
) -> Settings:
    """Put together what the command line, the environment and a file say. Raises ConfigError.

    *text*: what the file says, where it is read already. *file_first*: the environment counts only where that says
    nothing.
    """
    data: dict[str, Any] = {}
    lines: dict[Location, int] = {}
    shown = show_name(str(path)) if path is not None else ""
    if path is not None:
        text = _read(path, shown) if text is None else text
        data = _toml(text, shown)
        lines = lines_of(text)
    names: dict[Location, str] = {}
    of_env = settings_in(env)
    if file_first:
        of_env = {location: said for location, said in of_env.items() if not _has(data, location)}
    for said in (of_env, options.said):
        for location, (name, value) in said.items():
            _put(data, location, value)
            names[location] = name

    def name_at(location: Location) -> str | None:
        return next((names[location[:size]] for size in range(len(location), 0, -1) if location[:size] in names), None)

    def where(location: Location) -> str:
        name = name_at(location) or (shown or next(iter(names.values()), ""))
        line = line_at(lines, location) if name == shown else None
        return f"{name}: line {line}: " if line is not None else f"{name}: " if name else ""

    try:
        config = Config.model_validate(data)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(mistakes(error, data, where))) from None
    origins = {
        dotted(location): name_at(location) or f"{shown}, line {line_at(lines, location)}" for location in leaves(data)
    }
    file = Path(os.path.abspath(path)) if path is not None else None  # a daemon leaves its working directory
    return Settings(config, origins, partial(_settings, file, options, env))


def _has(data: dict[str, Any], location: Location) -> bool:
    value: Any = data
    for part in location:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _put(data: dict[str, Any], location: Location, value: Any) -> None:
    """Have a setting be *value*, whatever the file says."""
    table = data
    for part in location[:-1]:
        inner = table.setdefault(str(part), {})
        if not isinstance(inner, dict):
            return  # the file has a mistake in its place, which is told
        table = inner
    table[str(location[-1])] = value


def _read(path: Path, shown: str) -> str:
    """Give the text of a config file. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such config file; check the path, or give --root DIR instead") from None
    except IsADirectoryError:
        raise ConfigError(f"{shown}: is a directory; name the config file itself (--root takes a store)") from None
    except PermissionError:
        raise ConfigError(
            f"{shown}: uid {os.geteuid()} may not read it; allow that user to, or run recfs as another"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"{shown}: larger than 1 MiB, so not a recfs.conf; check the path")
    try:
        return raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")  # as editors of Windows save it
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown}: line {line} is not UTF-8; save the file as UTF-8") from None


def _toml(text: str, shown: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        twice = "twice" in str(error) or "overwrite" in str(error)
        remedy = (
            "a section or key may be there once: put them together"
            if twice
            else ('write key = value, with texts in quotes: min_free = "1 GiB"')
        )
        raise ConfigError(f"{shown}: not TOML: {error}; {remedy}") from None
    except RecursionError:
        raise ConfigError(f"{shown}: not a recfs.conf: values nested too deeply") from None


def build(data: dict[str, Any], source: str) -> Config:
    """Make a Config of what a file called *source* says. Raises ConfigError, which names every mistake."""
    try:
        return Config.model_validate(data)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in mistakes(error, data))) from None
