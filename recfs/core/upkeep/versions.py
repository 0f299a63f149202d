"""Which of a file's numbered versions go: `topics_v1`, `topics_v2` … lie beside each other, and the last are kept.

A [[versions]] table of recfs.conf is a rule: a glob on paths whose last part has {N} once, for a whole number. What
differs in the number alone is a series. Decisions only, each with its reason; `services/clearing/versions.py` carries
them out.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from recfs.core.globs import DEEP, Path, PathGlob, compiled
from recfs.core.units import format_duration
from recfs.core.upkeep.leftovers import Now

PLACEHOLDER = "{N}"
ANYWHERE = f"*_v{PLACEHOLDER}*"
"""The names of versions where nobody says which: topics_v1.json, cut_v07."""
MAX_DIGITS = 18
"""Longer numbers are names, as of hashes."""


class VersionRule:
    """One rule. Raises ValueError that says what to write instead."""

    __slots__ = ("_name", "_parent", "keep", "min_age_s", "pattern")

    def __init__(self, pattern: str, keep: int, *, min_age_s: float = 0.0) -> None:
        parent, _, last = pattern.rpartition("/")
        told = f"pattern {pattern!r}"
        if last.count(PLACEHOLDER) != 1 or PLACEHOLDER in parent:
            raise ValueError(f"{told}: write {PLACEHOLDER} once, in the last part, where the version's number stands")
        if not parent:
            raise ValueError(f"{told}: write the path from the mount on, such as 'users/*/recordings/*/{last}'")
        PathGlob(f"{parent}/{last.replace(PLACEHOLDER, '0')}")  # raises what is wrong with it as a glob
        self.pattern, self.keep, self.min_age_s = pattern, keep, min_age_s
        self._parent = PathGlob(parent) if parent != DEEP.decode() else None
        before, after = (_regex(each) for each in last.split(PLACEHOLDER))
        self._name = re.compile(rb"(%b)(?<![0-9])([0-9]{1,%d})(?![0-9])(%b)" % (before, MAX_DIGITS, after), re.DOTALL)

    def __eq__(self, other: object) -> bool:
        """Rules are what they say."""
        return isinstance(other, VersionRule) and self._said() == other._said()

    def __hash__(self) -> int:
        """As they are equal."""
        return hash(self._said())

    def _said(self) -> tuple[str, int, float]:
        return self.pattern, self.keep, self.min_age_s

    def takes_folder(self, path: Path) -> bool:
        """Whether versions by this rule may lie in that directory."""
        return self._parent is None or self._parent.matches(path)

    def may_lead_on(self, path: Path) -> bool:
        """Whether a directory that it takes may lie below that one."""
        if self._parent is None or DEEP in self._parent.parts[: len(path) + 1]:
            return True
        parts = self._parent.parts
        return len(path) < len(parts) and all(compiled(part)(name) for part, name in zip(parts, path, strict=False))

    def split(self, name: bytes) -> tuple[bytes, int] | None:
        """(series, number) of a name; None for one that the rule does not take."""
        found = self._name.fullmatch(name)
        return (found[1] + b"\0" + found[3], int(found[2])) if found is not None else None


def _regex(glob: str) -> bytes:
    text = fnmatch.translate(os.fsencode(glob).decode("latin-1")).encode("latin-1")
    found = re.fullmatch(rb"\(\?s:(.*)\)\\[Zz]", text, re.DOTALL)
    assert found is not None
    return found[1]


class Version(NamedTuple):
    """A file, or a directory with all that is in it."""

    name: bytes
    ino: int
    series: bytes
    number: int
    size_bytes: int
    changed_ns: int
    """Of a directory: of the last change of anything in it (wall clock)."""
    open_files: int
    is_whole: bool
    """Whether all of it is committed: else somebody is still making it, or was cut off."""
    holds: str = ""
    """What in it is not to go with it, and why; empty: nothing."""


class Choice(NamedTuple):
    """What becomes of one, and why."""

    version: Version
    removes: bool
    reason: str


def choose(rule: VersionRule, versions: Iterable[Version], now: Now) -> list[Choice]:
    """Decide about the versions in one directory, by series, the newest first.

    The highest `keep` numbers stay; those that are not whole are not counted, and stay. Neither are those without bytes
    counted, such as the directory of a job that died: they take no place of one that has something in it. 07 and 7 are
    one number.
    """
    chosen: list[Choice] = []
    ordered = sorted(versions, key=lambda each: (each.series, -each.number, each.name))
    series: bytes | None = None
    newer: set[int] = set()
    for each in ordered:
        if each.series != series:
            series, newer = each.series, set()
        if not each.is_whole:
            chosen.append(Choice(each, False, "it is not committed"))
            continue
        if each.size_bytes:
            newer.add(each.number)
        elif len(newer) < rule.keep:
            chosen.append(Choice(each, False, "it is empty, and does not count"))
            continue
        chosen.append(_choice(rule, each, len(newer | {each.number}), now))
    return chosen


def _choice(rule: VersionRule, version: Version, place: int, now: Now) -> Choice:
    if place <= rule.keep:
        return Choice(version, False, f"number {place} of the newest {rule.keep}")
    why = f"{place - 1} newer, {rule.keep} are kept"
    if version.open_files:
        files = "a file of it is" if version.open_files == 1 else f"{version.open_files} files of it are"
        return Choice(version, False, f"{why}; {files} open")
    if version.holds:
        return Choice(version, False, f"{why}; {version.holds}")
    age_s = now.age_s(version.changed_ns)
    if age_s < rule.min_age_s:
        return Choice(
            version, False, f"{why}; changed {format_duration(age_s)} ago, min_age {format_duration(rule.min_age_s)}"
        )
    return Choice(version, True, why)


def check_versions(rules: Sequence[VersionRule]) -> None:
    """Raise ValueError for two rules of one pattern: which of them counts would be anybody's guess."""
    seen: set[str] = set()
    for rule in rules:
        if rule.pattern in seen:
            raise ValueError(f"two [[versions]] rules have the pattern {rule.pattern!r}; leave one of them out")
        seen.add(rule.pattern)


__all__ = ["ANYWHERE", "Choice", "Version", "VersionRule", "check_versions", "choose"]
