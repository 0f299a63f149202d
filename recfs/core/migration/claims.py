"""To which recording a file of the old tree belongs, by what evidence; or why it belongs to none."""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.migration.lookup import Index, candidates
from recfs.core.migration.names import bytes_of, ids_in, parted, stem_key, text_of
from recfs.core.migration.oldtree import Kind, Place, Slot, is_fixed, is_media, place_of, user_of
from recfs.core.migration.plan import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from recfs.core.migration.rows import Row

_LISTED: Final = 5
"""So many of what a name may mean are told at most."""


@dataclass(frozen=True, slots=True)
class File:
    """A name that the walk of the old tree found, and that is no directory, or an empty one."""

    path: bytes
    """Below the old tree, or absolute where it lies elsewhere."""
    size: int
    """In bytes."""
    mtime_ns: int = 0
    inode: tuple[int, int] | None = None
    """Device and number, of files with several names (hard links)."""
    left: Action | None = None
    """What it becomes whatever the database says: of what is no regular file, or cannot be read."""
    reason: str = ""
    owner: int | None = None
    """The uid; None where nobody looked."""


class Evidence(enum.IntEnum):
    """By what a file is known to belong to a recording; more is stronger."""

    STEM = 1
    ID = 2
    DATABASE = 3


class Claim(NamedTuple):
    """A file that belongs to a recording."""

    file: File
    user: str
    recording: str
    slot: Slot
    inner: bytes
    """Its path in a transcription; empty otherwise."""
    evidence: Evidence
    reason: str

    @property
    def thing(self) -> tuple[str, str, Slot, bytes]:
        """What there is one of."""
        return (self.user, self.recording, self.slot, self.inner)


class Left(NamedTuple):
    """A file that is not brought anywhere."""

    file: File
    action: Action
    reason: str


class Missing(NamedTuple):
    """A path of the database with no file, or with several."""

    row: Row
    slot: Slot
    reason: str


@dataclass(slots=True)
class Named:
    """What the paths of the database name."""

    files: dict[bytes, list[tuple[Row, Slot, str]]] = field(default_factory=dict)
    """By path of a file: the rows and columns, and how their paths were understood."""
    folders: dict[bytes, list[tuple[Row, str]]] = field(default_factory=dict)
    """By directory of a transcription."""
    maybe: dict[bytes, Missing] = field(default_factory=dict)
    """Files that a path may mean among others."""
    elsewhere: list[File] = field(default_factory=list)
    """Those outside the old tree."""
    missing: list[Missing] = field(default_factory=list)


def named_by(
    rows: Iterable[Row],
    files: Index,
    folders: Index,
    bases: Sequence[bytes],
    elsewhere: Callable[[bytes], File | str | None] = lambda _path: None,
) -> Named:
    """Look up what *rows* name among the *files* and *folders* of the old tree, which lies at *bases*.

    *elsewhere* gives the file at an absolute path outside of it, or why it is not to be taken, or None without one.
    """
    named = Named()
    for row in rows:
        for slot, text in row.paths.items():
            _look_up(named, row, slot, text, files, folders, bases, elsewhere)
    return named


def _look_up(
    named: Named,
    row: Row,
    slot: Slot,
    text: str,
    files: Index,
    folders: Index,
    bases: Sequence[bytes],
    elsewhere: Callable[[bytes], File | str | None],
) -> None:
    reason = "no such file"
    if slot is Slot.TRANSCRIPTION:
        found = folders.find(candidates(text, row.user, bases))
        if found is not None and len(found.paths) == 1:
            if is_fixed(found.paths[0]):
                named.missing.append(Missing(row, slot, "a directory that many recordings have files in"))
            else:
                named.folders.setdefault(found.paths[0], []).append((row, found.how))
            return
        reason = "no such directory"
    else:
        found = None
    found = found or files.find(candidates(text, row.user, bases))
    if found is not None and len(found.paths) == 1:
        named.files.setdefault(found.paths[0], []).append((row, slot, found.how))
        return
    if found is not None:
        several = Missing(row, slot, f"any of {_listed(map(text_of, found.paths))}")
        named.missing.append(several)
        named.maybe.update(dict.fromkeys(found.paths, several))
        return
    if text.startswith("/"):
        there = elsewhere(bytes_of(text))
        if isinstance(there, File):
            if there.path not in named.files:
                named.elsewhere.append(there)
            named.files.setdefault(there.path, []).append((row, slot, "outside the old tree"))
            return
        reason = there or reason
    if text.startswith(f"{row.where.decode()}/"):
        return  # where `verify --update-db` has set it to: it is in the store
    named.missing.append(Missing(row, slot, reason))


def _listed(words: Iterable[str]) -> str:
    found = list(words)
    more = len(found) - _LISTED
    return ", ".join(found[:_LISTED]) + (f" and {more} more" if more > 0 else "")


class Evidences:
    """Decides of each file by itself; what several files are of one recording is `contenders`' to decide.

    *rows*: None without a database, where ids in names are all there is.
    """

    def __init__(self, rows: Sequence[Row] | None, named: Named) -> None:
        self._rows = rows
        self._named = named
        self._by_id: dict[str, list[Row]] = defaultdict(list)
        for row in rows or ():
            self._by_id[row.id].append(row)
        self._by_stem: dict[tuple[str, str], list[Row]] | None = None

    def of(self, file: File) -> Claim | Left | Place:
        """What the file is; a Place where nothing is known of it but that."""
        if file.left is not None:
            return Left(file, file.left, file.reason)
        named = self._named.files.get(file.path)
        if named is not None:
            return self._by_database(file, named)
        place = place_of(file.path)
        if place.kind is Kind.TEMPORARY:
            return Left(file, Action.SKIP, "temporary: left by processing")
        several = self._named.maybe.get(file.path)
        if several is not None:
            told = f"{several.slot.value} of recording {several.row.id} may mean {several.reason}"
            return Left(file, Action.AMBIGUOUS, told)
        within = self._in_a_folder(file)
        if within is not None:
            return within
        if place.kind is Kind.OF_RECORDING:
            return self._by_id_of(file, place)
        return place

    def _by_database(self, file: File, named: list[tuple[Row, Slot, str]]) -> Claim | Left:
        rows = list({row.where: row for row, _, _ in named}.values())
        if len(rows) > 1:
            told = _listed(f"{row.id} (user {row.user})" for row in rows)
            return Left(file, Action.AMBIGUOUS, f"the database names it for several recordings: {told}")
        row, slot, how = min(named, key=lambda each: _ORDER[each[1]])
        if (of_other := self._other_user(file, row)) is not None:
            return of_other
        if place_of(file.path).kind is Kind.TEMPORARY:
            told = f"{slot.value} of recording {row.id} names it, but it is temporary"
            return Left(file, Action.AMBIGUOUS, told)
        inner = file.path.rpartition(b"/")[2] if slot is Slot.TRANSCRIPTION else b""
        reason = f"database: {slot.value} of recording {row.id}" + (f" ({how})" if how else "")
        return Claim(file, row.user, row.id, slot, inner, Evidence.DATABASE, reason)

    def _other_user(self, file: File, row: Row) -> Left | None:
        user = user_of(file.path)
        if user is None or user == row.user:
            return None
        return Left(file, Action.AMBIGUOUS, f"recording {row.id} is user {row.user}'s, and this lies with user {user}")

    def _in_a_folder(self, file: File) -> Claim | Left | None:
        """A file in the directory of a transcription; of several that lie in each other the innermost."""
        if not self._named.folders:
            return None
        folder = file.path
        while folder:
            folder = folder.rpartition(b"/")[0]
            named = self._named.folders.get(folder)
            if named is None:
                continue
            if len(named) > 1:
                told = _listed(f"{row.id} (user {row.user})" for row, _ in named)
                return Left(file, Action.AMBIGUOUS, f"the database names its directory for several recordings: {told}")
            ((row, how),) = named
            if (of_other := self._other_user(file, row)) is not None:
                return of_other
            reason = f"database: {Slot.TRANSCRIPTION.value} of recording {row.id}" + (f" ({how})" if how else "")
            inner = file.path[len(folder) + 1 :]
            return Claim(file, row.user, row.id, Slot.TRANSCRIPTION, inner, Evidence.DATABASE, reason)
        return None

    def _by_id_of(self, file: File, place: Place) -> Claim | Left | Place:
        slot = place.slot
        assert slot is not None
        if slot is Slot.TRANSCRIPTION:
            if place.recording is None:
                return place
            ids, where = [place.recording], "the name of its directory"
            inner = place.inner
        else:
            name = file.path.rpartition(b"/")[2]
            if not is_media(name):
                return Left(file, Action.UNMATCHED, "by its ending it is neither audio nor video")
            ids, where, inner = ids_in(parted(name)[0]), "its name", b""
        if self._rows is None:
            return self._by_id_alone(file, place, slot, ids, inner)
        rows = [row for each in ids for row in self._by_id.get(each, ()) if place.user in (None, row.user)]
        if not rows:
            if slot is not Slot.TRANSCRIPTION:
                return place
            others = self._by_id.get(ids[0])
            if others:
                told = f"recording {ids[0]} is user {others[0].user}'s, and this lies with user {place.user}"
                return Left(file, Action.AMBIGUOUS, told)
            return Left(file, Action.UNMATCHED, f"the database has no recording {ids[0]}")
        if len(rows) > 1:
            told = _listed(row.id for row in rows)
            return Left(file, Action.AMBIGUOUS, f"ids of several recordings are in {where}: {told}")
        row = rows[0]
        if slot is not Slot.TRANSCRIPTION:
            others = [each for each in self.rows_of_stem(file, row.user) if each is not row]
            if others:
                told = f"its name has the id {row.id}, and the name of recording {_listed(each.id for each in others)}"
                return Left(file, Action.AMBIGUOUS, told)
        reason = f"{row.id} is {where}" if inner else f"id {row.id} in {where}"
        return Claim(file, row.user, row.id, slot, inner, Evidence.ID, reason)

    def _by_id_alone(self, file: File, place: Place, slot: Slot, ids: list[str], inner: bytes) -> Claim | Left:
        if place.user is None:
            return Left(file, Action.UNMATCHED, "without the database nothing says whose it is")
        if not ids:
            return Left(file, Action.UNMATCHED, "no id of a recording is in its name")
        if len(ids) > 1:
            return Left(file, Action.AMBIGUOUS, f"several ids are in its name: {_listed(ids)}")
        reason = f"{ids[0]} is the name of its directory" if inner else f"id {ids[0]} in its name"
        return Claim(file, place.user, ids[0], slot, inner, Evidence.ID, reason)

    def rows_of_stem(self, file: File, user: str) -> Sequence[Row]:
        """The user's recordings whose title, or names of files, have the file's stem."""
        if self._by_stem is None:
            self._by_stem = _stems(self._rows or (), self._named)
        return self._by_stem.get((user, stem_of(file)), ())


_ORDER: Final = {slot: number for number, slot in enumerate(Slot)}


def stem_of(file: File) -> str:
    """By what names of files are compared."""
    return _stem_of(file.path)


def _stem_of(path: bytes) -> str:
    return stem_key(text_of(parted(path.rpartition(b"/")[2])[0]))


def _stems(rows: Iterable[Row], named: Named) -> dict[tuple[str, str], list[Row]]:
    """Rows by user and what their files are called: as titles and paths say, and as those are called that are there."""
    there: dict[bytes, set[str]] = defaultdict(set)
    for path, named_for in named.files.items():
        for row, slot, _ in named_for:
            if slot is not Slot.TRANSCRIPTION:
                there[row.where].add(_stem_of(path))
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        stems = {stem_key(row.name)} | there[row.where]
        for slot, told in row.paths.items():
            if slot is not Slot.TRANSCRIPTION:
                stems.add(_stem_of(bytes_of(told.replace("\\", "/"))))
        for stem in stems:
            if stem:
                found[row.user, stem].append(row)
    return found


__all__ = [
    "Claim",
    "Evidence",
    "Evidences",
    "File",
    "Left",
    "Missing",
    "Named",
    "named_by",
    "stem_of",
]
