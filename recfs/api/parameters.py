"""What may be asked with each method of the control protocol: its parameters, and what they are.

Looked at before a method hears of them, for whoever asks: a program of somebody else's may send anything, and what is
misspelt must not be left out in silence (`dryrun` would do what `dry_run` tells of).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from recfs.errors import InvalidArgument
from recfs.state.accounts import LIMIT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recfs.api.control import Handler

MOST: Final = 2**63 - 1
"""The largest whole number: what the catalogue can keep."""
MOST_S: Final = 1e9
"""The longest time, in seconds: some 30 years."""
MOST_CHARS: Final = 1 << 16
"""The longest text; a path in a deep tree is longer than PATH_MAX."""
WORD_CHARS: Final = 1024
"""The longest text that is no path."""
NAMED_CHARS: Final = 40
"""So much of what was sent is told."""


class Kind(NamedTuple):
    """What a parameter is."""

    says: str
    """It is …"""
    fits: Callable[[Any], bool]
    needed: bool = False
    """Whether nothing can be done without it."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_CHARS


def _is_word(value: Any) -> bool:
    """Also fit for the catalogue, whose text is UTF-8; paths are bytes there."""
    return (
        isinstance(value, str) and len(value) <= WORD_CHARS and not any("\ud800" <= char <= "\udfff" for char in value)
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _is_number(value: Any, most: float) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most and math.isfinite(value)
    )


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, value))


PATH: Final = Kind(f"a text of at most {MOST_CHARS:,} characters", _is_text)
WORD: Final = Kind(f"a text in UTF-8 of at most {WORD_CHARS:,} characters", _is_word)
FLAG: Final = Kind("true or false", lambda value: isinstance(value, bool))
WHOLE: Final = Kind(f"a whole number from 0 to {MOST}", _is_whole)
SECONDS: Final = Kind(f"a number of seconds from 0 to {MOST_S:g}", lambda value: _is_number(value, MOST_S))
BYTES: Final = Kind(f"a number from 0 to {MOST}", lambda value: _is_number(value, MOST))
WHOLES: Final = Kind(f"a list of whole numbers from 0 to {MOST}", lambda value: _is_list(value, _is_whole))
WORDS: Final = Kind(f"a list of texts of at most {WORD_CHARS:,} characters", lambda value: _is_list(value, _is_word))
LIMIT: Final = Kind(
    f"a whole number from 0 to {MOST}, or a text such as `10GiB`, `unlimited` or `default`",
    lambda value: _is_whole(value) or _is_word(value),
)
ANY: Final = Kind("any JSON", lambda value: True)
TEXT: Final = Kind("a text", lambda value: isinstance(value, str))
"""As long as a request may be."""
NEEDED_WORD: Final = WORD._replace(needed=True)
NEEDED_WHOLE: Final = WHOLE._replace(needed=True)

_BELOW: Final = {"path": PATH, "recursive": FLAG}
_VERIFIED: Final = {"path": PATH, "level": WORD, "since_s": SECONDS, "rate": BYTES}
_IMPORTED: Final = {"url": PATH, "download": FLAG, "dry_run": FLAG}
_TRASHED: Final = {"path": PATH, "user": WORD, "since_s": SECONDS, "older_s": SECONDS}
_ROWS: Final = {"ids": WHOLES, "all": FLAG}
_RECORDING: Final = {"path": PATH, "note": PATH}
_VERSIONS: Final = {"path": PATH, "pattern": PATH, "recursive": FLAG}
_CACHED: Final = {"path": PATH, "sha256": WORD, "kind": WORD, "options": ANY}
_DRY: Final = {"dry_run": FLAG}
_CHUNKS: Final = {"path": PATH, "length_s": SECONDS, "overlap_s": SECONDS, "silences": FLAG, "format": WORD}

PARAMS: Final[Mapping[str, Mapping[str, Kind]]] = {
    **{key: {} for key in ("status", "settings", "top", "reload", "upgrade", "upgraded", "backup_now")},
    **{key: {} for key in ("watch_status", "watch_scan", "watch_accept", "verify_status", "sweep_list")},
    **{key: {} for key in ("sweep_archive", "sweep_multiparts", "sweep_versions", "bucket_owner", "lifecycle_show")},
    "stats": {
        "user": WORD, "recording": WORD, "category": WORD, "store": WORD, "duplicates": FLAG, "exact": FLAG,
    },
    "stats_trend": {"days": WHOLE, "user": WORD, "category": WORD, "store": WORD},
    "events": {"since": WORD, "kinds": WORDS, "user": WORD, "limit": WHOLE, "wait_s": SECONDS},
    "info": {"path": PATH},
    "ls_files": {"path": PATH, "recursive": FLAG, "state": WORD, "media": FLAG},
    "probe": {"path": PATH},
    "quota_show": {"user": WORD},
    "quota_set": {"user": WORD, **dict.fromkeys(LIMIT_NAMES, LIMIT)},
    "quota_check": {"repair": FLAG},
    "user_list": {"everyone": FLAG},
    "user_add": {"user": WORD, "uid": WHOLE, "gid": WHOLE, "mode": WHOLE},
    "user_remove": {"user": WORD, "files": WORD},
    "drain": {"timeout_s": SECONDS, "retries": FLAG, "since_s": SECONDS},
    "stop": {"force": FLAG, "uploads": FLAG},
    "leave": {},
    "recording_list": {"user": WORD, "status": WORD, "due_s": SECONDS},
    "recording_show": {"path": PATH},
    "recording_expire": _RECORDING,
    "recording_keep": _RECORDING | {"on": FLAG},
    "recording_set_expiry": _RECORDING | {"date": WORD},
    "sweep_expired": _DRY,
    "sweep_temp": _DRY,
    "sweep_history": {"name": WORD, "limit": WHOLE},
    "sweep_run": {"name": NEEDED_WORD},
    "sweep_wait": {"name": NEEDED_WORD, "run": NEEDED_WHOLE, "timeout_s": SECONDS},
    "sweep_stop": {"name": NEEDED_WORD},
    "sweep_orphans": {"mode": WORD},
    "trash_list": _TRASHED | {"after": WHOLE},
    "trash_restore": _TRASHED | {"ids": WHOLES, "to": PATH, "force": FLAG},
    "trash_purge": _TRASHED | _ROWS,
    "verify": _VERIFIED,
    "verify_begin": _VERIFIED,
    "verify_wait": {"run": NEEDED_WHOLE, "timeout_s": SECONDS},
    "verify_stop": {"run": NEEDED_WHOLE},
    "import_objects": _IMPORTED,
    "import_begin": _IMPORTED,
    "import_wait": {"run": NEEDED_WHOLE, "timeout_s": SECONDS},
    "import_stop": {"run": NEEDED_WHOLE},
    "import_list": {"url": NEEDED_WORD, "after": WORD},
    "import_copies": {
        "url": NEEDED_WORD, "keys": WORDS._replace(needed=True), "targets": WORDS._replace(needed=True),
        "download": FLAG,
    },
    "queue": {"limit": WHOLE},
    "queue_retry": _ROWS,
    "queue_drop": _ROWS,
    "evict": _BELOW,
    "fetch": _BELOW,
    "pin": _BELOW | {"pinned": FLAG},
    "route_explain": {"path": PATH, "size_bytes": BYTES, "age_s": SECONDS},
    "tier_run": _DRY,
    "bucket_claim": {"force": FLAG},
    "restore": {"path": PATH, "days": WHOLE, "tier": WORD},
    "presign": {"path": PATH, "expires_s": SECONDS, "put": FLAG},
    "lifecycle_apply": _DRY,
    "derive": {"path": PATH, "all": FLAG, "only": WORDS, "dry_run": FLAG},
    "derive_wait": {"products": WORDS, "timeout_s": SECONDS},
    "chunks": _CHUNKS,
    "chunks_extract": _CHUNKS,
    "chunks_wait": {"ino": NEEDED_WHOLE, "timeout_s": SECONDS},
    "next_version": {"path": PATH, "name": PATH, "extension": PATH},
    "versions_list": _VERSIONS,
    "cache_get": _CACHED | {"claim_s": SECONDS, "packed": FLAG},
    "cache_put": _CACHED | {"result": ANY, "packed": TEXT, "made_of": WORD},
    "cache_wait": _CACHED | {"wait_s": SECONDS, "timeout_s": SECONDS},
    "cache_release": _CACHED | {"claim": WHOLE, "made_of": WORD},
    "cache_stats": {},
    "duplicates": {
        "user": WORD, "min_bytes": WHOLE, "limit": WHOLE, "named": WHOLE, "after": WORD, "sha256": WORD,
    },
    "dedupe": {"user": WORD, "min_bytes": WHOLE, "after": WORD, "seconds": SECONDS, "timeout_s": SECONDS},
    "cache_purge": {"path": PATH, "sha256": WORD, "kind": WORD, "older_than_s": SECONDS, "all": FLAG},
    "versions_prune": _VERSIONS | {"keep": WHOLE, "min_age_s": SECONDS, "dry_run": FLAG},
}  # fmt: skip
"""Of each method, its parameters by name. What is null is not given."""


def given(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that are given. Raises InvalidArgument for one that there is not, or that is something else."""
    known = PARAMS.get(method)
    if known is None:
        return dict(params)  # a method that looks at them itself
    for name, value in params.items():
        if name not in known:
            what = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidArgument(f"{method} has no parameter {_shown(name)}; {what}")
        if value is not None and not known[name].fits(value):
            raise InvalidArgument(f"{name} of {method} is {known[name].says}, not {_shown(value)}")
    found = {name: value for name, value in params.items() if value is not None}
    for name, kind in known.items():
        if kind.needed and name not in found:
            raise InvalidArgument(f"{method} needs {name}: {kind.says}")
    return found


def _shown(value: object) -> str:
    """What was sent, fit for a message: of a list or a table what it is."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a table"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MOST:
        return "so large a number"
    text = {None: "null", True: "true", False: "false"}[value] if isinstance(value, bool | None) else ascii(value)
    return text if len(text) <= NAMED_CHARS else f"{text[:NAMED_CHARS]}..."


def checked(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """The same methods, each asked with what it may be asked with alone."""
    return {method: _checked(method, handler) for method, handler in handlers.items()}


def _checked(method: str, handler: Handler) -> Handler:
    async def asked(params: dict[str, Any]) -> Any:
        return await handler(given(method, params))

    return asked


__all__ = ["PARAMS", "Kind", "checked", "given"]
