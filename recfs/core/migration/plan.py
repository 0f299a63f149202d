r"""The plan of a migration: one line per file, to be read and edited by people before anything is copied.

    # recfs migration plan 1
    #: made = 2026-11-30T09:00:00Z
    #: old = /srv/media
    copy       48211034  users/142/recordings/7/video.mp4  user_142/video/processed/Перевод_2.mp4  database: …
    duplicate  1201      users/142/recordings/7/audio.mp3  user_142/processed_audio/a.mp3          same bytes as …
    unmatched  77        -                                 user_142/video/unprocessed/x.mp4      no row names it

Fields stand in the order action, size, target, source, reason, and tabs part them. `source` is below the old tree,
`target` below the mount, `-` where there is none (a file of that name is `\x2d`). Lines that begin with `#` are
comments, but for those with `#:`, which tell what the plan was made of.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recfs.core.migration.escapes import escaped, unescaped
from recfs.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FIRST_LINE = "# recfs migration plan 1"
_HEADER = "#: "
_NONE = "-"
_FIELDS = 5


class Action(enum.StrEnum):
    """What becomes of a file of the old tree."""

    COPY = "copy"
    """It is copied to its target."""
    ASIDE = "aside"
    """It is copied to a target beside the one that it would have, which another file was given."""
    DUPLICATE = "duplicate"
    """Its bytes are those of the file that goes to `target`: not copied, and deleted with that one's source."""
    SKIP = "skip"
    """It is not to be migrated, for a reason that is nobody's fault: temporary, expired, a template's copy."""
    UNMATCHED = "unmatched"
    """Nothing says to which recording it belongs: left alone."""
    AMBIGUOUS = "ambiguous"
    """It may belong to several, and is left alone."""
    UNREADABLE = "unreadable"
    """It cannot be read, or is no regular file: left alone."""


MOVED = frozenset({Action.COPY, Action.ASIDE})
"""What a run brings to its target."""
LEFT = frozenset({Action.UNMATCHED, Action.AMBIGUOUS, Action.UNREADABLE})
"""What needs a person: a migration with any of these is not clean."""
_WITH_TARGET = MOVED | {Action.DUPLICATE}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the old tree."""

    action: Action
    size: int
    """In bytes, as it was when the plan was made."""
    target: bytes
    """Path below the mount, without a slash in front; empty where the action has none."""
    source: bytes
    """Path below the old tree, or absolute where the database names a file elsewhere."""
    reason: str
    """Why, in a few words for people."""

    def line(self) -> str:
        """As the plan has it, without the newline."""
        target = _NONE if not self.target else "\\x2d" if self.target == b"-" else escaped(self.target)
        reason = escaped(self.reason.encode("utf-8", "surrogateescape"))
        return "\t".join((self.action, str(self.size), target, escaped(self.source), reason))


@dataclass(slots=True)
class Plan:
    """What is to be done, and what it was made of."""

    made_of: dict[str, str] = field(default_factory=dict)
    """`#:` lines by key: `old`, `made`, `db`, …; values are one line each, escaped where they are paths."""
    entries: list[Entry] = field(default_factory=list)

    def counts(self) -> Mapping[Action, tuple[int, int]]:
        """Files and bytes by action; those that do not occur are missing."""
        files: Counter[Action] = Counter()
        sizes: Counter[Action] = Counter()
        for entry in self.entries:
            files[entry.action] += 1
            sizes[entry.action] += entry.size
        return {action: (files[action], sizes[action]) for action in Action if files[action]}

    def lines(self) -> Iterator[str]:
        """The plan's lines, without newlines."""
        yield FIRST_LINE
        for key, value in self.made_of.items():
            yield f"{_HEADER}{key} = {value}"
        for entry in self.entries:
            yield entry.line()


def parsed(lines: Iterable[str]) -> Plan:
    """Read a plan. Raises InvalidArgument that names the line: of another format, or where an editor broke it.

    What is refused: an unknown action, a size that is none, a target that is missing, absolute or leads upwards, two
    files that would be copied to one target, and one below another.
    """
    plan = Plan()
    targets: dict[bytes, int] = {}
    number = 0
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        if number == 1:
            if line != FIRST_LINE:
                raise InvalidArgument(f"line 1: this is no plan of a migration: it does not begin with {FIRST_LINE!r}")
        elif line.startswith(_HEADER):
            key, equals, value = line[len(_HEADER) :].partition(" = ")
            if not equals:
                raise InvalidArgument(f"line {number}: {line!r} is not of the form `#: key = value`")
            plan.made_of[key] = value
        elif line.strip() and not line.startswith("#"):
            try:
                entry = _entry(line)
            except InvalidArgument as error:
                raise InvalidArgument(f"line {number}: {error}") from None
            if entry.action in MOVED:
                earlier = targets.setdefault(entry.target, number)
                if earlier != number:
                    raise InvalidArgument(
                        f"line {number}: {escaped(entry.target)} is the target of line {earlier} already"
                    )
            plan.entries.append(entry)
    if number == 0:
        raise InvalidArgument("line 1: the file is empty")
    _refuse_nested(targets)
    return plan


def _refuse_nested(targets: dict[bytes, int]) -> None:
    """Raise InvalidArgument where a target lies below another one, which is a file. *targets*: lines by target."""
    for target, number in targets.items():
        end = target.find(b"/")
        while end >= 0:
            above = targets.get(target[:end])
            if above is not None:
                raise InvalidArgument(
                    f"line {number}: {escaped(target)} lies below {escaped(target[:end])}, the target of line {above}"
                )
            end = target.find(b"/", end + 1)


def _entry(line: str) -> Entry:
    fields = line.split("\t")
    if len(fields) != _FIELDS:
        raise InvalidArgument(
            f"there are {len(fields)} fields, not {_FIELDS}: action, size, target, source and reason, parted by tabs"
        )
    action, size, target, source, reason = (each.strip(" ") for each in fields)
    if action not in frozenset(Action):
        raise InvalidArgument(f"{action!r} is no action; there are {', '.join(Action)}")
    if not (size.isascii() and size.isdigit()):
        raise InvalidArgument(f"{size!r} is no size in bytes")
    entry = Entry(
        Action(action),
        int(size),
        b"" if target in ("", _NONE) else unescaped(target),
        unescaped(source),
        unescaped(reason).decode("utf-8", "surrogateescape"),
    )
    if not entry.source:
        raise InvalidArgument("the source is missing")
    if entry.action in _WITH_TARGET and not entry.target:
        raise InvalidArgument(f"{action} needs a target")
    if entry.target and not _is_below(entry.target):
        raise InvalidArgument(f"the target {target} is no path below the mount")
    if not entry.source.startswith(b"/") and not _is_below(entry.source):
        raise InvalidArgument(f"the source {source} is no path below the old tree")
    return entry


def _is_below(path: bytes) -> bool:
    return b"\0" not in path and all(part not in (b"", b".", b"..") for part in path.split(b"/"))


__all__ = ["FIRST_LINE", "LEFT", "MOVED", "Action", "Entry", "Plan", "parsed"]
