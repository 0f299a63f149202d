"""Fallback rules: a name missing in one directory shows a shared file of another.

A rule is a pair of texts, as in recfs.conf:

    pattern = "users/*/thumbnails/*"      <directory glob>/<name glob>: where names may be missing
    target  = "shared/thumbnails/*"       shared/<directory>/<* | fixed name>: what is shown there instead

Globs work per path component (fnmatch: * ? [abc] [!abc]); they respect case, and * also matches a leading
dot. With a target ending in * the file of the same name is shown; with a fixed name the pattern's name is
fixed too, since otherwise every name would exist. The first rule whose directory matches applies, and no
other.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from recfs.core.globs import Match, Path, compiled, is_glob
from recfs.core.layout import NAME_MAX_BYTES, is_id


@dataclass(frozen=True, slots=True)
class DirRule:
    """What a rule does to one directory: which names of `target_dir` are seen in it, and as what."""

    target_dir: Path
    _match: Match | None
    """Which names the pattern takes; None: all."""
    _only: bytes | None
    """The one name that shows `_fixed`; None with a target ending in *."""
    _fixed: bytes

    def resolve(self, name: bytes) -> bytes | None:
        """Give the name in `target_dir` that is shown under `name`, or None if the rule says nothing of it.

        Whether that file exists is for the caller to find out.
        """
        if self._only is not None:
            return self._fixed if name == self._only else None
        match = self._match
        return name if match is None or match(name) else None

    def shown(self, target_names: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Give (name, name in `target_dir`) for every one of `target_names` that the directory shows."""
        if self._only is not None:
            if self._fixed in target_names:
                yield self._only, self._fixed
            return
        for name in target_names:
            if self.resolve(name) is not None:
                yield name, name


@dataclass(frozen=True, slots=True)
class FallbackRule:
    """One validated rule; equal if the two texts are. Raises ValueError that says what to write instead."""

    pattern: str
    target: str
    dir_pattern: Path = field(init=False, repr=False, compare=False)
    dir_rule: DirRule = field(init=False, repr=False, compare=False)
    _dir_match: tuple[Match, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        *dir_pattern, name_glob = _components(self.pattern, "pattern")
        *target_dir, target_name = _components(self.target, "target")
        _check_pattern_dir(self.pattern, dir_pattern)
        _check_target(self.target, target_dir, target_name)
        if target_name != b"*" and is_glob(name_glob):
            raise ValueError(
                f"target {self.target!r} is one file, so pattern {self.pattern!r} must end in one name, "
                f"not in a glob (every name would exist); end the target in * or the pattern in a fixed name"
            )
        only = None if target_name == b"*" else name_glob
        match = None if name_glob == b"*" else compiled(name_glob)
        rule = DirRule(tuple(target_dir), match, only, target_name)
        object.__setattr__(self, "dir_pattern", tuple(dir_pattern))
        object.__setattr__(self, "dir_rule", rule)
        object.__setattr__(self, "_dir_match", tuple(compiled(part) for part in dir_pattern))

    def matches_dir(self, path: Path) -> bool:
        """Tell whether the rule applies to this directory."""
        return len(path) == len(self._dir_match) and self.matches_start(path)

    def matches_start(self, path: Path) -> bool:
        """Tell whether the rule applies to this directory or could apply to one below it."""
        matches = self._dir_match
        if len(path) > len(matches):
            return False
        # A loop, not all(): this runs for every directory that is loaded, mostly to say no at the first part.
        for match, part in zip(matches, path, strict=False):  # noqa: SIM110
            if not match(part):
                return False
        return True


def rule_of_dir(rules: Sequence[FallbackRule], path: Path) -> FallbackRule | None:
    """Give the rule that applies to the directory `path`: the first that matches."""
    return next((rule for rule in rules if rule.matches_dir(path)), None)


def rule_for_dir(rules: Sequence[FallbackRule], path: Path) -> DirRule | None:
    """Give what that rule does to the directory `path`, or None; one object per rule."""
    rule = rule_of_dir(rules, path)
    return rule.dir_rule if rule is not None else None


def deepest(rules: Sequence[FallbackRule]) -> int:
    """How many names the longest path of a directory has that any rule fits."""
    return max((len(rule.dir_pattern) for rule in rules), default=0)


def auto_dirs(rules: Sequence[FallbackRule], path: Path) -> list[bytes]:
    """Give the directories to create together with the directory `path`, so that rules below it have a place.

    users/5 -> [b"thumbnails"]. Only literal names, each once, in the order of the rules; none for the root
    and the fixed top directories: no user comes into being because a rule names one.
    """
    if len(path) < 2:
        return []
    names = (
        rule.dir_pattern[len(path)] for rule in rules if len(rule.dir_pattern) > len(path) and rule.matches_start(path)
    )
    return list(dict.fromkeys(name for name in names if not is_glob(name)))


def check_rules(rules: Sequence[FallbackRule]) -> None:
    """Refuse a list with a rule that can never apply, because an earlier one takes all of its directories.

    Raises ValueError. Overlaps that leave a later rule something to do are fine: the first match applies.
    """
    for index, later in enumerate(rules):
        for earlier in rules[:index]:
            if len(earlier.dir_pattern) == len(later.dir_pattern) and all(
                first in (b"*", second) or (not is_glob(second) and compiled(first)(second))
                for first, second in zip(earlier.dir_pattern, later.dir_pattern, strict=True)
            ):
                raise ValueError(
                    f"pattern {later.pattern!r} never applies: {earlier.pattern!r} comes first and takes "
                    f"the same directories, where only one rule applies; put the narrower first or drop one"
                )


def _components(text: str, what: str) -> list[bytes]:
    parts = os.fsencode(text).split(b"/")
    if len(parts) < 2 or any(part in (b"", b".", b"..") for part in parts):
        raise ValueError(
            f"{what} {text!r} is not <directory>/<name>; write it relative to the mount, without empty, . or .. parts"
        )
    for part in parts:
        if b"\0" in part or len(part) > NAME_MAX_BYTES:
            raise ValueError(f"{what} {text!r}: a part holds a NUL or is longer than {NAME_MAX_BYTES} bytes")
        if b"**" in part:
            raise ValueError(f"{what} {text!r}: ** is not known; a * stands for one directory level")
    return parts


def _check_pattern_dir(pattern: str, parts: list[bytes]) -> None:
    """Allow only directories that can hold files: users/<id>/{thumbnails,recordings/<id>}, a job, below."""

    def can_be_id(part: bytes) -> bool:
        return is_glob(part) or is_id(part)

    match parts:
        case [b"users", user, b"thumbnails", *_] if can_be_id(user):
            return
        case [b"users", user, b"recordings", recording, *_] if can_be_id(user) and can_be_id(recording):
            return
        case [b"temp", user, job, *_] if can_be_id(user) and can_be_id(job):
            return
    raise ValueError(
        f"pattern {pattern!r} names no directory that holds files; it begins with users/<id>/thumbnails/, "
        f"users/<id>/recordings/<id>/ or temp/<id>/<id>/, where <id> is an id or a glob such as *"
    )


def _check_target(target: str, directory: list[bytes], name: bytes) -> None:
    if directory[0] != b"shared":
        raise ValueError(f"target {target!r} is not below shared/")
    if any(is_glob(part) for part in directory) or (name != b"*" and is_glob(name)):
        raise ValueError(f"target {target!r}: only the last part may be a glob, and only a single *")
