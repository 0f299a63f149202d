"""Mistakes in recfs.conf as people need them told: "key = found: what is wrong; what to write instead"."""

import difflib
import re
from collections.abc import Callable
from typing import Any

import pydantic
from pydantic_core import ErrorDetails

from recfs.config.lifecycle import TransitionSection
from recfs.config.lines import Location
from recfs.config.model import LISTS, SECTIONS, Config
from recfs.core.units import format_duration, format_size

_TRANSITIONS = '[{ prefix = "users/", after = "90d", storage_class = "GLACIER" }]'
_MAX_FOUND_CHARS = 60
_SECRET = re.compile("access_?key|secret|token|password|credentials$", re.IGNORECASE)
_USERINFO = re.compile(r"//[^/\s]*@")
NO_SECRETS = (
    "recfs.conf holds no credentials; write them into a file of their own and name it with credentials_file, "
    "or name a profile of ~/.aws/credentials, or leave both out for $AWS_ACCESS_KEY_ID and the machine's role"
)


def mistakes(
    error: pydantic.ValidationError, data: dict[str, Any], where: Callable[[Location], str] = lambda _location: ""
) -> list[str]:
    """Give one line per mistake, each once, in the order of the settings; `data` is what was said.

    *where* has what the line begins with: where the setting was read.
    """
    # A default that follows from other settings cannot be had after a mistake, and is none of its own.
    details = (each for each in error.errors(include_url=False) if each["type"] != "default_factory_not_called")
    told = ((detail["loc"], _explain(detail, data)) for detail in details)
    return list(dict.fromkeys(where(location or _first_named(mistake)) + mistake for location, mistake in told))


def _first_named(mistake: str) -> Location:
    """The setting that a sentence about several begins with."""
    named = re.match(r"[\w.\[\]]+", mistake)
    parts = re.findall(r"\w+", named[0]) if named is not None else []
    return tuple(int(part) - 1 if part.isdecimal() else part for part in parts)


def _explain(detail: ErrorDetails, data: dict[str, Any]) -> str:
    """Turn one pydantic error into "key = found: what is wrong; what to write instead"."""
    loc = detail["loc"]
    # Counted from 1, as a person counts the [[fallback]] tables.
    key = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    match detail["type"]:
        case "missing":
            return f"{key} is missing; add {_form(loc)}" + "; or give --root DIR" * (key == "root")
        case "extra_forbidden":
            return f"{key}: unknown key; {_nearest(loc)}"
    if not key:
        return _wrong(detail, None)
    value = _value(data, loc)
    return f"{key}{_found(value)}: {_wrong(detail, value)}"


def _wrong(detail: ErrorDetails, value: object) -> str:
    """Say what is wrong with `value`, as the file has it, and what to write instead."""
    table = str(detail["loc"][0]) if detail["loc"] else ""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"too small; write at least {_bound(context['ge'], value)}"
        case "greater_than":
            return f"too small; write more than {_bound(context['gt'], value)}"
        case "less_than_equal":
            return f"too large; write at most {_bound(context['le'], value)}"
        case "literal_error":
            return f"not one of the choices; write {context['expected']}".replace("'", '"')
        case "int_type":
            return "wrong type; write a whole number without quotes"
        case "string_type":
            return "wrong type; write a text in quotes"
        case "string_too_short":
            return "empty; write a text, or leave the key out"
        case "bool_type":
            return "wrong type; write true or false, without quotes"
        case "dict_type":
            return 'wrong type; write { name = "text" }, with as many pairs as there are'
        case "tuple_type" if detail["loc"] == ("backup", "recipients"):
            return 'wrong type; write a list of texts: ["age1..."]'
        case "tuple_type" if detail["loc"] == ("notify", "events"):
            return 'wrong type; write a list of texts: ["corrupt", "quota_reached"]'
        case "tuple_type" if len(detail["loc"]) > 1:
            return f"wrong type; write a list of tables: {_TRANSITIONS}"
        case "model_type" if len(detail["loc"]) > 2:
            return f"wrong type; write {_TRANSITIONS}"
        case "tuple_type":
            homes = _homes(table)
            meant = f"; the key {table} belongs below {homes}" if homes else ""
            return f"wrong type; write [[{table}]], once per rule, or {table} = [] for none{meant}"
        case "model_type" if table in LISTS:
            keys = " and ".join(_form((table, key)) for key in _required(table))
            return f"wrong type; write [[{table}]] and below it {keys}"
        case "model_type":
            return f"wrong type; this is a section: write [{table}] and its keys below it"
    return detail["msg"]


def _form(location: Location) -> str:
    """How a setting is written; of a table in a list, too."""
    keys = [part for part in location if isinstance(part, str)]
    table: type[pydantic.BaseModel] = Config if len(keys) == 1 else SECTIONS[keys[0]]
    if keys[:2] == ["lifecycle", "transitions"]:
        table = TransitionSection
    field = table.model_fields.get(keys[-1])
    kind = field.annotation if field is not None else None
    return f"{keys[-1]} = N, a whole number without quotes" if kind is int else f'{keys[-1]} = "..."'


def _required(table: str) -> list[str]:
    return [name for name, field in SECTIONS[table].model_fields.items() if field.is_required()]


def _bound(bound: object, value: object) -> str:
    if isinstance(bound, float):
        return format_duration(bound, exact=True)
    # A size, if it was written as one; plain numbers are answered with plain numbers.
    return format_size(bound, exact=True) if isinstance(bound, int) and isinstance(value, str) else str(bound)


def is_secret(name: str) -> bool:
    """Whether a key of this name would be one for a password or an access key."""
    return _SECRET.search(name) is not None


def _nearest(loc: tuple[int | str, ...]) -> str:
    """Suggest a key: one of that name elsewhere, else the nearest in the same table, else list the table."""
    name = str(loc[-1])
    if is_secret(name):
        return NO_SECRETS
    table: type[pydantic.BaseModel] = SECTIONS[str(loc[0])] if len(loc) > 1 else Config
    if loc[:2] == ("lifecycle", "transitions"):
        table = TransitionSection
    if name in Config.model_fields and name not in SECTIONS:
        return f"{name} belongs above the first [section]"
    if homes := _homes(name):
        return f"{name} belongs below {homes}"
    if near := difflib.get_close_matches(name, table.model_fields, n=1):
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(table.model_fields)}"


def _homes(name: str) -> str:
    """The tables that have a key of this name; empty: none has."""
    return " or ".join(_header(section) for section, model in SECTIONS.items() if name in model.model_fields)


def _header(table: str) -> str:
    return f"[[{table}]]" if table in LISTS else f"[{table}]"


def _value(data: Any, loc: tuple[int | str, ...]) -> Any:
    for part in loc:
        data = data[part]
    return data


def _found(value: Any) -> str:
    """Give " = <value>" as the file has it; nothing for tables and lists, which would not fit a line."""
    if isinstance(value, list | dict):
        return ""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    if text.upper().startswith('"AGE-SECRET-KEY-'):
        return ""
    # https://key:secret@host: what is shown ends up in logs.
    text = _USERINFO.sub("//***@", text)
    return " = " + (text if len(text) <= _MAX_FOUND_CHARS else text[: _MAX_FOUND_CHARS - 3] + "...")
