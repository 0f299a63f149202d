"""What becomes of files that are removed, restored, expired, put aside or adopted: where each may be found.

Each has bytes and a size that nothing else in the store has, so it is known wherever it turns up. A change that was
begun may have happened or not; one that was told to be done has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tests.crash.model import pattern

FIRST_BYTES = 300_000
"""No other user of the tester writes files of such sizes in its recordings."""


class Fate(StrEnum):
    """Where a file is."""

    MOUNT = "in the mount"
    TRASH = "in the trash"
    LYING = "in the home tree, without a row"
    OBJECT = "in the bucket, without a row"
    LOST = "in lost+found"
    GONE = "nowhere"


@dataclass
class Thing:
    """A file, under whatever name."""

    serial: int
    path: str
    """The one it was made under, or was given last."""
    may_be: set[Fate]
    unfinished: bool = False
    """fsync has not returned: of its bytes some may be missing, or all."""

    @property
    def size(self) -> int:
        """In bytes."""
        return FIRST_BYTES + self.serial

    @property
    def content(self) -> bytes:
        """Its bytes."""
        return pattern(self.serial, self.size)

    @property
    def recording(self) -> str:
        """The directory of the recording it belongs to."""
        return "/".join(self.path.split("/")[:4])

    def is_certainly(self, fate: Fate) -> bool:
        """Whether it can be nowhere else."""
        return self.may_be == {fate}


@dataclass
class Recording:
    """What was said of a recording."""

    keep: set[bool] = field(default_factory=lambda: {False})
    expired: set[bool] = field(default_factory=lambda: {False})

    @property
    def may_go(self) -> bool:
        """Whether a look at what has expired may remove it: one that is kept is not touched."""
        return True in self.expired and False in self.keep


class Change:
    """One that is under way; what was refused of it has not happened."""

    def __init__(self, before: list[tuple[Thing, set[Fate]]], to: Mapping[Fate, Fate]) -> None:
        self._before, self._to = before, to
        self.refused: set[int] = set()
        """Serial numbers."""
        self.is_certain = True
        """Whether what was not refused was told to be done."""

    def begin(self) -> None:
        """From now on it may have happened."""
        for thing, before in self._before:
            thing.may_be = before | {self._to.get(fate, fate) for fate in before}

    def end(self) -> None:
        """It returned."""
        for thing, before in self._before:
            if thing.serial in self.refused:
                thing.may_be = before
            elif self.is_certain:
                thing.may_be = {self._to.get(fate, fate) for fate in before}


class Fates:
    """All of them."""

    def __init__(self, *, trash: bool) -> None:
        self.removed = Fate.TRASH if trash else Fate.GONE
        self.things: dict[int, Thing] = {}
        self.recordings: dict[str, Recording] = {}
        self._serial = 0

    def new(self, path: str, *may_be: Fate, unfinished: bool = False) -> Thing:
        """One more."""
        self._serial += 1
        thing = self.things[self._serial] = Thing(self._serial, path, set(may_be), unfinished)
        self.recordings.setdefault(thing.recording, Recording())
        return thing

    def certainly(self, fate: Fate) -> list[Thing]:
        """Those that can be nowhere else, and are whole."""
        return [each for each in self.things.values() if each.is_certainly(fate) and not each.unfinished]

    def inside(self, recording: str) -> list[Thing]:
        """Those of a recording that may be in the mount."""
        return [each for each in self.things.values() if each.recording == recording and Fate.MOUNT in each.may_be]

    @contextlib.contextmanager
    def change(self, things: Iterable[Thing], to: Mapping[Fate, Fate]) -> Iterator[Change]:
        """Within it, it may have happened to each; after it, it has, unless the block raises."""
        change = Change([(each, set(each.may_be)) for each in things], to)
        change.begin()
        yield change
        change.end()

    def removal(self, things: Iterable[Thing]) -> contextlib.AbstractContextManager[Change]:
        """They lose their names."""
        return self.change(things, {Fate.MOUNT: self.removed})

    def expire(self) -> None:
        """What has expired may go now, at a start by itself; what recfs does not know of there is not lost."""
        for each in self.things.values():
            if self.recordings[each.recording].may_go:
                to = {Fate.MOUNT: self.removed, Fate.LYING: Fate.LOST}
                each.may_be |= {to.get(fate, fate) for fate in each.may_be}

    # --- what is found -------------------------------------------------------------------------------------------

    def wrong(self, found: Mapping[int, Mapping[Fate, str]], broken: Iterable[int] = ()) -> list[str]:
        """What is wrong with where things are *found*: size → fate → where; *broken*: sizes whose bytes are others."""
        wrong, broken = [], set(broken)
        for each in self.things.values():
            at = found.get(each.size, {})
            places = " and ".join(f"{fate} ({where})" for fate, where in at.items()) or str(Fate.GONE)
            told = " or ".join(sorted(each.may_be))
            if len(at) > 1:
                wrong.append(f"{each.path}: it is in two places: {places}")
            elif not set(at or {Fate.GONE: ""}) <= each.may_be:
                wrong.append(f"{each.path}: it is {places}, and was told to be {told}")
            if each.size in broken and not each.unfinished:
                wrong.append(f"{each.path}: its bytes are others ({places})")
        return wrong

    def resolve(self, found: Mapping[int, Mapping[Fate, str]]) -> None:
        """What was found counts from now on."""
        for serial, each in list(self.things.items()):
            at = found.get(each.size, {})
            each.may_be = set(at) or {Fate.GONE}
            each.unfinished = False
            if Fate.MOUNT in at:
                each.path = at[Fate.MOUNT]
            if each.may_be <= {Fate.GONE, Fate.LOST}:
                self.things[serial].may_be = {Fate.GONE}
