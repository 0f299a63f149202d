"""Finds recfs.conf, reads it, and makes a `Config` of it or a ConfigError."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from recfs.config.explain import mistakes
from recfs.config.model import Config
from recfs.core.naming import show_name
from recfs.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/recfs/recfs.conf")
"""Where `find_config` looks last."""
ENV_CONFIG = "RECFS_CONFIG"
"""Environment variable with the path of a config file."""

_MAX_CONFIG_BYTES = 1024 * 1024


def load_config(path: Path, *, root: Path | None = None) -> Config:
    """Read a config file; `root`, if given, replaces the file's own. Raises ConfigError."""
    shown = show_name(str(path))
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
    data = _toml(raw, shown)
    if root is not None:
        data["root"] = os.path.abspath(root)
    return build(data, shown)


def config_for_root(root: Path) -> Config:
    """Give the embedded default: no file, one root (from the working directory if relative), all defaults."""
    return build({"root": os.path.abspath(root)}, "--root")


def find_config(
    cli_config: Path | None,
    cli_root: Path | None,
    env: Mapping[str, str],
    *,
    system_config: Path = SYSTEM_CONFIG,
) -> Config:
    """Find a command's settings: --config (with --root replacing its root), --root, $RECFS_CONFIG, /etc.

    --root alone reads no file at all, whatever the environment says. Raises ConfigError, also when nothing
    names a store.
    """
    if cli_config is not None:
        return load_config(cli_config, root=cli_root)
    if cli_root is not None:
        return config_for_root(cli_root)
    if named := env.get(ENV_CONFIG):
        try:
            return load_config(Path(named))
        except ConfigError as error:
            raise ConfigError(f"{error} (named by ${ENV_CONFIG})") from None
    if os.path.lexists(system_config):
        return load_config(system_config)
    raise ConfigError(f"no store named, and no {system_config}; give --root DIR or --config FILE, or set ${ENV_CONFIG}")


def _toml(raw: bytes, shown: str) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown}: line {line} is not UTF-8; save the file as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f'{shown}: not TOML: {error}; write key = value, with texts in quotes: min_free = "1 GiB"'
        ) from None
    except RecursionError:
        raise ConfigError(f"{shown}: not a recfs.conf: values nested too deeply") from None


def build(data: dict[str, Any], source: str) -> Config:
    """Make a Config of what a file called *source* says. Raises ConfigError, which names every mistake."""
    try:
        return Config.model_validate(data)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in mistakes(error, data))) from None
