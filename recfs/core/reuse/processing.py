"""What a result of processing is kept under: the bytes it was made of, what was made of them, and how.

Two requests are the same where the sha256 of the file, the kind ("transcription") and the hash of the options agree.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

KIND: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
OPTIONS_MAX_BYTES: Final = 64 << 10
EVERYBODY: Final = -1
"""In the place of a uid: a result that is given to all who may read such a file."""

USERS_PART: Final = 10
"""Results that are given to one user alone have at most one part in so many of the room for all."""
USERS_VALUES: Final = 200_000
"""So many values such a result has at most: some four hours of speech, word by word."""


class Key(NamedTuple):
    """What makes two requests the same."""

    sha256: bytes
    kind: str
    options: bytes
    """The sha256 of the options, as `options_hash` makes it."""


def options_hash(options: object) -> bytes:
    """The sha256 of JSON in one form: keys in order, no white space, ASCII alone, as Python's `json.dumps` has it.

    None are `{}`. 1 and 1.0 are two numbers. Raises ValueError for what is no JSON, or too long.
    """
    try:
        text = json.dumps(
            {} if options is None else options, sort_keys=True, separators=(",", ":"), allow_nan=False
        ).encode("ascii")
    except (TypeError, RecursionError) as error:
        raise ValueError(f"options: {error}") from error
    if len(text) > OPTIONS_MAX_BYTES:
        raise ValueError(f"options of {len(text)} bytes; at most {OPTIONS_MAX_BYTES} are allowed")
    return hashlib.sha256(text).digest()


def check_kind(kind: str) -> str:
    """The kind of a result, as it may be called. Raises ValueError."""
    if not KIND.fullmatch(kind):
        raise ValueError(
            f"{kind[:80]!r} is no kind of result: lower-case letters, digits, `_`, `.` and `-`, up to 64, from a letter"
            f' on, such as "transcription"'
        )
    return kind


class Lifetimes(NamedTuple):
    """How long results are kept after they were made, in seconds; 0: until there is no room for them."""

    usual_s: float
    by_kind: Mapping[str, float]

    def of(self, kind: str) -> float:
        """That of one kind."""
        return self.by_kind.get(kind, self.usual_s)

    def is_over(self, kind: str, age_s: float) -> bool:
        """Whether a result of that age is not to be given out any more."""
        return 0 < self.of(kind) <= age_s


__all__ = ["EVERYBODY", "KIND", "USERS_PART", "USERS_VALUES", "Key", "Lifetimes", "check_kind", "options_hash"]
