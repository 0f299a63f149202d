"""Routes: which files go to S3 and which stay on the local disk, and who says so.

A rule is a [[route]] table of recfs.conf:

    pattern = "users/*/recordings/**"   glob on the path inside the mount
    min_size, max_size                  bounds of the file's size, themselves included
    min_age, max_age                    bounds of the time since its last change (`age_of`), themselves included
    to = "s3" | "local"                 where such a file lives
    storage_class, keep_local, broken   for files that go to S3

`core/globs.py` says what a glob takes. The first rule that matches decides, and no other; without one a file stays
local. Decisions only: nothing moves here.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from recfs.core.globs import DEEP, Path, PathGlob, compiled
from recfs.core.layout import TOP_DIRS
from recfs.core.places import ANY, ID, meets
from recfs.core.units import format_duration, format_size, parse_size

Target = Literal["s3", "local"]

AWS_STORAGE_CLASSES = (
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
    "REDUCED_REDUNDANCY",
)
"""The classes of AWS a PUT may name (S3 API, PutObject, x-amz-storage-class). Other servers have their own."""

_NS = 1_000_000_000


def age_of(now_ns: int, mtime_ns: int, ctime_ns: int) -> float:
    """Seconds since a file was changed, by its mtime, which programs may set as they like.

    One that lies in the future says nothing: the ctime, which nobody can set, counts in its place. Never negative.
    """
    changed_ns = mtime_ns if mtime_ns <= now_ns else ctime_ns
    return max(0.0, (now_ns - changed_ns) / _NS)


# The places of files, level by level (core/layout.py).
_PLACES = (
    (b"shared", ANY),
    (b"users", ID, b"thumbnails", ANY),
    (b"users", ID, b"recordings", ID, ANY),
    (b"temp", ID, ID, ANY),
)
_PLACES_TOLD = "shared/, users/<id>/thumbnails/, users/<id>/recordings/<id>/ and temp/<id>/<id>/"
_match_class = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch


@dataclass(frozen=True, slots=True)
class RouteRule:
    """One validated rule; equal if its settings are. Raises ValueError that says what to write instead."""

    pattern: str
    to: Target
    min_size: int | None = None
    """Bytes; None in any bound: none."""
    max_size: int | None = None
    min_age_s: float | None = None
    max_age_s: float | None = None
    storage_class: str | None = None
    """None: the one of [s3], else the bucket's default."""
    keep_local_s: float = 0.0
    """How long the local copy stays at least, once S3 has the file."""
    broken: bool = False
    """Whether files whose media is broken go, too."""
    conditions: str = field(init=False, repr=False, compare=False)
    """Pattern and bounds, for people: 'users/**, min_size 8 MiB'."""
    _glob: PathGlob = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        glob = PathGlob(self.pattern)
        _check_places(glob)
        _check_bounds(self)
        _check_target(self)
        object.__setattr__(self, "_glob", glob)
        object.__setattr__(self, "conditions", ", ".join((self.pattern, *_bounds(self))))

    def matches(self, path: Path, size_bytes: int, age_s: float) -> bool:
        """Tell whether the rule applies to a file, taken by itself."""
        if self.min_size is not None and size_bytes < self.min_size:
            return False
        if self.max_size is not None and size_bytes > self.max_size:
            return False
        # A negative age (a future mtime) is that of a file just changed: no rule takes it for old.
        if self.min_age_s is not None and max(age_s, 0.0) < self.min_age_s:
            return False
        if self.max_age_s is not None and age_s > self.max_age_s:
            return False
        return self._glob.matches(path)

    def covers(self, other: "RouteRule") -> bool:
        """Tell whether every file that `other` matches is surely matched by this one. May say no in doubt."""
        return (
            (self.min_size or 0) <= (other.min_size or 0)
            and _upper(self.max_size) >= _upper(other.max_size)
            and (self.min_age_s or 0.0) <= (other.min_age_s or 0.0)
            and _upper(self.max_age_s) >= _upper(other.max_age_s)
            and self._glob.covers(other._glob)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a file belongs, and why; `rule_index` counts from 0, None: no rule matched."""

    store: Target
    storage_class: str | None
    keep_local_s: float
    rule_index: int | None
    reason: str
    """For people; counts rules from 1."""
    broken: bool = False
    """Whether it goes although its media is broken."""


class RuleVerdict(NamedTuple):
    """What one rule says of a file: whether it matches by itself, and why or why not. The first match decides."""

    rule: RouteRule
    matched: bool
    why: str


def route(rules: Sequence[RouteRule], path: Path, size_bytes: int, age_s: float) -> Decision:
    """Decide where the file at `path` (a file's path inside the mount, level by level) belongs.

    `age_s` is the time since the last change (mtime); negative counts as 0.
    """
    for index, rule in enumerate(rules):
        if rule.matches(path, size_bytes, age_s):
            reason = f"rule {index + 1} ({rule.conditions}): {_outcome(rule)}"
            return Decision(rule.to, rule.storage_class, rule.keep_local_s, index, reason, rule.broken)
    return Decision("local", None, 0.0, None, f"no rule {'matches' if rules else 'is set'}: stays local")


def explain(rules: Sequence[RouteRule], path: Path, size_bytes: int, age_s: float) -> list[RuleVerdict]:
    """Tell of every rule, in order, whether it matches the file and why; `route` decides by the first that does."""
    verdicts: list[RuleVerdict] = []
    decided: int | None = None
    for index, rule in enumerate(rules):
        if not rule.matches(path, size_bytes, age_s):
            verdicts.append(RuleVerdict(rule, False, "; ".join(_misses(rule, path, size_bytes, age_s))))
        elif decided is None:
            decided = index
            verdicts.append(RuleVerdict(rule, True, f"decides: {_outcome(rule)}"))
        else:
            verdicts.append(RuleVerdict(rule, True, f"matches too, but rule {decided + 1} comes first"))
    return verdicts


def check_routes(rules: Sequence[RouteRule]) -> None:
    """Refuse a list with a rule that can never decide, because an earlier one takes all of its files.

    Raises ValueError. Overlaps that leave a later rule something to do are fine: the first match decides.
    """
    for index, later in enumerate(rules):
        for number, earlier in enumerate(rules[:index], start=1):
            if earlier.covers(later):
                raise ValueError(
                    f"rule {index + 1} ({later.conditions}) never applies: rule {number} ({earlier.conditions}) "
                    f"comes first and takes the same files; put the narrower first or drop one"
                )


def check_storage_class(name: str) -> str:
    """Give the name back if it can be a storage class. Raises ValueError; a near miss of an AWS class is told."""
    likely = name.strip().upper().replace("-", "_").replace(" ", "_")
    if likely in AWS_STORAGE_CLASSES and name != likely:
        raise ValueError(f"storage class {name!r}: did you mean {likely}?")
    if not _match_class(name):
        raise ValueError(
            f"{name!r} is not a storage class; write one of {', '.join(AWS_STORAGE_CLASSES)}, or one of your server's"
        )
    return name


# --- validation ------------------------------------------------------------------------------------------------------


def _check_places(glob: PathGlob) -> None:
    """Refuse a pattern that no file's path can match."""
    top = glob.parts[0]
    if top != DEEP and not any(compiled(top)(name) for name in TOP_DIRS):
        raise ValueError(
            f"pattern {glob.text!r}: unknown top level {os.fsdecode(top)!r}; the mount has shared, users and temp"
        )
    if not _meets_a_place(glob.parts):
        below = f"{glob.text}/**"
        hint = f"; did you mean {below!r}?" if _meets_a_place((*glob.parts, DEEP, b"*")) else ""
        raise ValueError(f"pattern {glob.text!r} takes no file: files lie below {_PLACES_TOLD}{hint}")


def _meets_a_place(parts: Path) -> bool:
    return any(meets(parts, levels) for levels in _PLACES)


def _upper(bound: float | None) -> float:
    return math.inf if bound is None else bound


def _check_bounds(rule: RouteRule) -> None:
    bounds = (rule.min_size, rule.max_size, rule.min_age_s, rule.max_age_s, rule.keep_local_s)
    if any(bound is not None and not (0 <= bound < math.inf) for bound in bounds):
        raise ValueError("a size, an age or keep_local is a finite number and not negative")
    for least, most, names in (
        (rule.min_size, rule.max_size, ("min_size", "max_size")),
        (rule.min_age_s, rule.max_age_s, ("min_age", "max_age")),
    ):
        if least is not None and most is not None and least > most:
            raise ValueError(f"{names[0]} is larger than {names[1]}, so no file fits between; exchange them")


def _check_target(rule: RouteRule) -> None:
    if rule.to not in ("s3", "local"):
        raise ValueError(f'to = {rule.to!r}: files go to "s3" or "local"')
    if rule.storage_class is not None:
        check_storage_class(rule.storage_class)
    if rule.to == "local" and (rule.storage_class is not None or rule.keep_local_s or rule.broken):
        raise ValueError('storage_class, keep_local and broken are for files in S3; leave them out with to = "local"')


# --- words -----------------------------------------------------------------------------------------------------------


def _outcome(rule: RouteRule) -> str:
    if rule.to == "local":
        return "stays local"
    storage_class = f", storage class {rule.storage_class}" if rule.storage_class is not None else ""
    kept = f", local copy kept for {format_duration(rule.keep_local_s, exact=True)}" if rule.keep_local_s else ""
    broken = ", also if its media is broken" if rule.broken else ""
    return f"goes to S3{storage_class}{kept}{broken}"


def _bounds(rule: RouteRule) -> list[str]:
    told = [
        f"{name} {format_size(bound, exact=True)}"
        for name, bound in (("min_size", rule.min_size), ("max_size", rule.max_size))
        if bound is not None
    ]
    return told + [
        f"{name} {format_duration(bound, exact=True)}"
        for name, bound in (("min_age", rule.min_age_s), ("max_age", rule.max_age_s))
        if bound is not None
    ]


def _misses(rule: RouteRule, path: Path, size_bytes: int, age_s: float) -> list[str]:
    """Give everything that keeps the rule from matching; the path alone where it is the path."""
    if not rule._glob.matches(path):
        return [rule._glob.miss(path)]
    size = f"its size {_size(size_bytes)} is"
    age = f"its last change, {format_duration(abs(age_s))} {'ago' if age_s >= 0 else 'in the future'}, is"
    misses = []
    if rule.min_size is not None and size_bytes < rule.min_size:
        misses.append(f"{size} below min_size {_size(rule.min_size)}")
    if rule.max_size is not None and size_bytes > rule.max_size:
        misses.append(f"{size} above max_size {_size(rule.max_size)}")
    if rule.min_age_s is not None and max(age_s, 0.0) < rule.min_age_s:
        misses.append(f"{age} more recent than min_age {format_duration(rule.min_age_s, exact=True)}")
    if rule.max_age_s is not None and age_s > rule.max_age_s:
        misses.append(f"{age} longer ago than max_age {format_duration(rule.max_age_s, exact=True)}")
    return misses


def _size(size_bytes: int) -> str:
    """Write a size for a person, with the bytes beside it where rounding would hide them."""
    text = format_size(size_bytes)
    return text if parse_size(text) == size_bytes else f"{text} ({size_bytes} bytes)"


DEFAULT_ROUTES = (RouteRule("users/**", "s3"),)
"""The rules of a store with an S3 tier and without rules of its own: shared/ and temp/ stay local."""
