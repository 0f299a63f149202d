"""recfs.conf (TOML) to a validated, frozen `Config`; the only place that knows the keys and their defaults.

Sizes arrive as int bytes and durations as float seconds. Every mistake becomes one ConfigError that names
the file, the dotted key, what was found and what to write instead; all mistakes of a file are reported
together. recfs.conf.example documents the keys, and a test keeps the two the same.
"""

import difflib
import os
import pwd
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import ErrorDetails, core_schema

from recfs.core.fallback import FallbackRule, check_rules
from recfs.core.quota import UNLIMITED, Limits
from recfs.core.units import format_duration, parse_duration, parse_size
from recfs.errors import ConfigError

SYSTEM_CONFIG = Path("/etc/recfs/recfs.conf")
"""Where `find_config` looks last."""
ENV_CONFIG = "RECFS_CONFIG"
"""Environment variable with the path of a config file."""
DEFAULT_FALLBACK = FallbackRule("users/*/thumbnails/*", "shared/thumbnails/*")

_MAX_CONFIG_BYTES = 1024 * 1024
_MAX_FOUND_CHARS = 60


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


def _allow_other(value: object) -> object:
    if isinstance(value, bool) or value == "auto":
        return value
    raise ValueError('not one of the choices; write "auto", true or false')


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class _Section(BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True)


class FallbackSection(_Section):
    """One [[fallback]] table, as written; `Config.fallback` holds the checked rules made from these."""

    pattern: str = Field(strict=True, description="where a name may be missing: <directory glob>/<name glob>")
    target: str = Field(strict=True, description="what is shown instead: shared/<directory>/<* or name>")


def _rule(value: object, handler: pydantic.ValidatorFunctionWrapHandler) -> FallbackRule:
    if isinstance(value, FallbackRule):
        return value
    section: FallbackSection = handler(value)
    return FallbackRule(section.pattern, section.target)


def _rules(rules: tuple[FallbackRule, ...]) -> tuple[FallbackRule, ...]:
    check_rules(rules)
    return rules


AbsolutePath = Annotated[Path, BeforeValidator(_absolute_path)]
Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
SizeLimit = Annotated[int | None, _limit(parse_size)]
CountLimit = Annotated[int | None, _limit(_count)]
Rule = Annotated[
    FallbackRule,
    pydantic.GetPydanticSchema(
        lambda _type, schema: core_schema.no_info_wrap_validator_function(_rule, schema(FallbackSection))
    ),
]


class LogSection(_Section):
    """[log]"""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="how much is logged"
    )
    file: AbsolutePath | None = Field(default=None, description="log file; none: standard error")


class CatalogueSection(_Section):
    """[catalogue]"""

    flush_interval: Duration = Field(
        default=0.1, gt=0.0, le=60.0, description="longest time a change is in memory only (seconds)"
    )
    cached_inodes: int = Field(
        default=200_000, strict=True, ge=1, le=100_000_000, description="files and directories kept in memory"
    )


class CommitSection(_Section):
    """[commit]"""

    hash_threads: int = Field(default=2, strict=True, ge=1, le=256, description="threads for checksums")
    max_pending: int = Field(
        default=10_000,
        strict=True,
        ge=1,
        le=10_000_000,
        description="closed files that may wait for their commit",
    )
    settle_max: Duration = Field(
        default=30.0, le=3600.0, description="longest wait for a busy file to settle (seconds)"
    )


class QuotaSection(_Section):
    """[quota]: the defaults for every user; None is no limit."""

    max_bytes: SizeLimit = Field(default=None, description="bytes a user may store, temp/<id> included")
    max_files: CountLimit = Field(default=None, description="files a user may store, temp/<id> included")
    max_file_size: SizeLimit = Field(default=None, description="bytes a single file of a user may have")
    max_monthly_uploads: CountLimit = Field(
        default=None, description="source.<ext> files a user may create per calendar month (UTC)"
    )

    def limits(self) -> Limits:
        """Give the defaults as the core's value."""
        return Limits(self.max_bytes, self.max_files, self.max_file_size, self.max_monthly_uploads)


class TempSection(_Section):
    """[temp]"""

    max_age: Duration = Field(default=86_400.0, gt=0.0, description="age at which a job is removed (seconds)")
    sweep_interval: Duration = Field(
        default=300.0, ge=0.1, le=86_400.0, description="time between two sweeps (seconds)"
    )


class TrashSection(_Section):
    """[trash]"""

    retention: Duration = Field(default=0.0, description="time deleted bytes are kept (seconds)")


class Config(_Section):
    """All settings of one store. Frozen; make another with `load_config` or `config_for_root`."""

    root: AbsolutePath = Field(description="directory that holds the store")
    mountpoint: AbsolutePath | None = Field(default=None, description="default mount point of `recfs mount`")
    min_free: Size = Field(default=1024**3, description="bytes of the disk that recfs leaves free")
    operator: Annotated[int, BeforeValidator(_uid)] | None = Field(
        default=None, description="uid that may write shared/ and set quotas; none: the daemon's"
    )
    allow_other: Annotated[Literal["auto"] | bool, BeforeValidator(_allow_other)] = Field(
        default="auto", description="whether users other than the daemon's may enter the mount"
    )
    passthrough: Annotated[Literal["auto", "read", "off"], BeforeValidator(_lower)] = Field(
        default="auto", description="whether the kernel reads and writes files by itself"
    )
    passthrough_headroom: Size | None = Field(
        default=None, description="bytes of quota left for each writer the kernel serves; none: 10 GiB or 10 %"
    )
    log: LogSection = Field(default=LogSection(), description="the log")
    catalogue: CatalogueSection = Field(default=CatalogueSection(), description="the catalogue of files")
    commit: CommitSection = Field(default=CommitSection(), description="the commit pipeline")
    quota: QuotaSection = Field(default=QuotaSection(), description="limits of every user without own ones")
    fallback: Annotated[tuple[Rule, ...], AfterValidator(_rules)] = Field(
        default=(DEFAULT_FALLBACK,), description="shared files shown where a user's own are missing"
    )
    temp: TempSection = Field(default=TempSection(), description="temporary jobs")
    trash: TrashSection = Field(default=TrashSection(), description="deleted and overwritten bytes")

    @pydantic.model_validator(mode="after")
    def _keep_root_and_mount_apart(self) -> Self:
        # A mount over its own store would make the daemon wait for itself.
        mount = self.mountpoint
        if mount is not None and (mount.is_relative_to(self.root) or self.root.is_relative_to(mount)):
            raise ValueError(
                f'mountpoint = "{mount}": it and root = "{self.root}" lie inside one another; keep them apart'
            )
        return self


SECTIONS: dict[str, type[BaseModel]] = {
    "log": LogSection,
    "catalogue": CatalogueSection,
    "commit": CommitSection,
    "quota": QuotaSection,
    "fallback": FallbackSection,
    "temp": TempSection,
    "trash": TrashSection,
}
"""The tables of recfs.conf; the other fields of `Config` are keys above them."""


def load_config(path: Path, *, root: Path | None = None) -> Config:
    """Read a config file; `root`, if given, replaces the file's own. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file; check the path, or give --root DIR instead") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory; name the config file itself (--root takes a store)") from None
    except PermissionError:
        raise ConfigError(
            f"{path}: uid {os.geteuid()} may not read it; allow that user to, or run recfs as another"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB, so not a recfs.conf; check the path")
    data = _toml(raw, path)
    if root is not None:
        data["root"] = os.path.abspath(root)
    return _build(data, str(path))


def config_for_root(root: Path) -> Config:
    """Give the embedded default: no file, one root (from the working directory if relative), all defaults."""
    return _build({"root": os.path.abspath(root)}, "--root")


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


def _toml(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f'{path}: not TOML: {error}; write key = value, with texts in quotes: min_free = "1 GiB"'
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: not a recfs.conf: values nested too deeply") from None


def _build(data: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(data)
    except pydantic.ValidationError as error:
        messages = (f"{source}: {_explain(detail, data)}" for detail in error.errors(include_url=False))
        raise ConfigError("\n".join(dict.fromkeys(messages))) from None


def _explain(detail: ErrorDetails, data: dict[str, Any]) -> str:
    """Turn one pydantic error into "key = found: what is wrong; what to write instead"."""
    loc = detail["loc"]
    # Counted from 1, as a person counts the [[fallback]] tables.
    key = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    match detail["type"]:
        case "missing":
            return f'{key} is missing; add {loc[-1]} = "..."' + "; or give --root DIR" * (key == "root")
        case "extra_forbidden":
            return f"{key}: unknown key; {_nearest(loc)}"
    return f"{key}{_found(data, loc)}: {_wrong(detail)}" if key else _wrong(detail)


def _wrong(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"too small; write at least {_bound(context['ge'])}"
        case "greater_than":
            return f"too small; write more than {_bound(context['gt'])}"
        case "less_than_equal":
            return f"too large; write at most {_bound(context['le'])}"
        case "literal_error":
            return f"not one of the choices; write {context['expected']}".replace("'", '"')
        case "int_type":
            return "wrong type; write a whole number without quotes"
        case "string_type":
            return "wrong type; write a text in quotes"
        case "tuple_type":
            return "wrong type; write [[fallback]], once per rule, or fallback = [] for none"
        case "model_type" if detail["loc"][0] == "fallback":
            return 'wrong type; write [[fallback]] and below it pattern = "..." and target = "..."'
        case "model_type":
            return f"wrong type; this is a section: write [{detail['loc'][0]}] and its keys below it"
    return detail["msg"]


def _bound(value: object) -> str:
    return format_duration(value, exact=True) if isinstance(value, float) else str(value)


def _nearest(loc: tuple[int | str, ...]) -> str:
    """Suggest a key: the nearest in the same table, else one of that name elsewhere, else list the table."""
    name = str(loc[-1])
    table = SECTIONS[str(loc[0])] if len(loc) > 1 else Config
    if name in Config.model_fields:
        return f"{name} belongs above the first [section]"
    if near := difflib.get_close_matches(name, table.model_fields, n=1):
        return f"did you mean {near[0]}?"
    homes = [section for section, model in SECTIONS.items() if name in model.model_fields]
    if homes:
        return f"{name} belongs below [{homes[0]}]"
    return f"known here: {', '.join(table.model_fields)}"


def _found(data: Any, loc: tuple[int | str, ...]) -> str:
    """Give " = <value>" as the file has it; nothing for tables and lists, which would not fit a line."""
    value = data
    for part in loc:
        value = value[part]
    if isinstance(value, list | dict):
        return ""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return " = " + (text if len(text) <= _MAX_FOUND_CHARS else text[: _MAX_FOUND_CHARS - 3] + "...")
