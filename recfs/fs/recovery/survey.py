"""What lies on the disk and what an older catalogue says of it: what came, what went, and what only has another name.

Reads, and changes nothing: the same survey tells what a restore would do (`--dry-run`) and is what it goes by. Only
what differs is kept in memory. A file that was renamed has kept inode number, size and mtime; a directory its inode
number, and by something in it that is known, or because it is older than the catalogue: inode numbers are given out
again.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from recfs.core.layout import Role, child_role
from recfs.core.model import Kind, State
from recfs.errors import FsError
from recfs.ports.rows import ROOT_INO

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from recfs.ports.catalogue import Catalogue
    from recfs.ports.rows import NodeRow
    from recfs.stores.local import LocalStore

_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}
PAGE = 1000
SECOND_NS = 1_000_000_000
"""More than the clock of files may be behind."""
OWN_DEPTH = 4
"""From here on users give directories their names: users/<id>/recordings/<id>."""
Path = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """An inode that has another name by now."""

    ino: int
    kind: Kind
    before: Path
    now: Path
    over: int | None = None
    """The inode that had this name when the catalogue was written: it was replaced."""
    after: int | None = None
    """The inode that had this name then, and has another one by now: its row has to follow first."""


@dataclass(frozen=True, slots=True)
class InTrash:
    """A file, or an earlier version of one, that has come to lie in the trash."""

    number: int
    row: NodeRow
    path: Path
    is_gone: bool
    """Whether the file is gone; else another version of it lies in its place."""


@dataclass(slots=True)
class Seen:
    """What a survey found."""

    moved: list[Moved] = field(default_factory=list)
    """Directories and files, those further up first."""
    trashed: list[InTrash] = field(default_factory=list)
    strangers: list[int] = field(default_factory=list)
    """Numbers in the trash of which nothing is known."""
    gone: list[tuple[NodeRow, Path]] = field(default_factory=list)
    """Rows whose file or directory is nowhere."""
    came: list[Path] = field(default_factory=list)
    """What no row knows."""
    linked: list[Path] = field(default_factory=list)
    """Of these, files that have several names (hard links)."""
    refused: list[Path] = field(default_factory=list)
    """What no row knows, and no row can: by its name, at this place, or as neither a file, a directory nor a symbolic
    link. What is below such a directory is not told.
    """
    changed: list[Path] = field(default_factory=list)
    """Files that are other than their rows say, by size, mtime or inode number."""


class Survey:
    """One survey. Blocking disk calls: nothing is mounted."""

    def __init__(self, catalogue: Catalogue, store: LocalStore, written_ns: int) -> None:
        """*written_ns*: when the catalogue was written last, as a backup; 0: not known."""
        self._catalogue = catalogue
        self._store = store
        self._seen = Seen()
        self._written_ns = written_ns
        self._gone: dict[int, tuple[NodeRow, Path]] = {}
        self._below: dict[int, list[int]] = {}
        """Of what is gone: what was in it."""
        self._came: dict[Path, os.stat_result] = {}
        self._others: dict[Path, tuple[NodeRow, os.stat_result]] = {}
        """Directories under the name of a row that had another number: not looked into yet."""
        self._had: dict[Path, NodeRow] = {}
        """Rows whose name something else has by now."""
        self._sought: set[int] = set()
        """Files of whom something else has the name, and which may be somewhere else."""
        self._vacated: set[Path] = set()
        """Those of them whose row was found somewhere else."""
        self._displaced: dict[int, tuple[NodeRow, Path]] = {}
        """By inode number on the disk: what stands under the name of a row that had another number."""

    async def run(self) -> Seen:
        """Look at everything."""
        for top in await self._rows(ROOT_INO):  # the store's own, which every start sees to
            info = self._store.stat(self._store.home((top.name,)))
            same = info is not None and top.placement.home_ino in (None, info.st_ino)
            await self._compare(top.ino, (top.name,), same=same)
        await self._find_folders()
        self._find_files()
        await self._look_into_trash()
        seen = self._seen
        elsewhere = {moved.ino for moved in seen.moved}
        seen.moved = [self._instead(moved, elsewhere) for moved in seen.moved]
        seen.moved.sort(key=lambda each: (len(each.now), each.kind is not Kind.DIR, each.now))
        gone = (each for each in self._gone.values() if each[0].state is not State.STORED)  # S3 has it, too
        seen.gone = sorted(gone, key=lambda each: each[1])
        left: set[Path] = set()
        for path, info in sorted(self._came.items(), key=lambda each: each[0]):
            if _can_be_taken(path, info):
                seen.came.append(path)
                if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
                    seen.linked.append(path)
                continue
            if path[:-1] not in left:
                seen.refused.append(path)
            left.add(path)
        return seen

    # --- rows and entries ----------------------------------------------------------------------------------------

    async def _rows(self, folder: int) -> list[NodeRow]:
        found: list[NodeRow] = []
        after = 0
        while page := await self._catalogue.children(folder, after, PAGE, placed=True):
            after = page[-1].ino
            found += page
        return found

    def _entries(self, path: Path) -> dict[bytes, os.stat_result]:
        return self._store.beneath.entries(self._store.home(path))

    async def _compare(self, top: int, path: Path, *, same: bool) -> None:
        """A directory with its row, and all below that stands under its name.

        *same*: it has the inode number that it had. In a copy of a tree none has, and numbers there tell nothing.
        """
        pending = [(top, path, same)]
        while pending:
            folder, path, same = pending.pop()
            there = self._entries(path)
            for row in await self._rows(folder):
                info, at = there.pop(row.name, None), (*path, row.name)
                if row.kind is Kind.DIR and info is not None and stat.S_ISDIR(info.st_mode):
                    is_its = row.placement.home_ino in (None, info.st_ino)
                    if is_its or not same or len(at) < OWN_DEPTH:
                        pending.append((row.ino, at, is_its))
                    else:
                        self._others[at] = (row, info)
                        self._had[at] = row
                elif info is None:
                    await self._miss(row, at)
                elif stat.S_IFMT(info.st_mode) != _FORMATS[row.kind] and row.placement.staging is None:
                    await self._miss(row, at)
                    self._came[at] = info
                    self._had[at] = row
                elif row.kind is Kind.FILE:
                    self._look_at(row, at, info, same=same)
            self._came.update(((*path, name), info) for name, info in there.items())

    def _look_at(self, row: NodeRow, at: Path, info: os.stat_result, *, same: bool) -> None:
        known = row.placement.home_ino
        facts = (row.size_bytes, row.mtime_ns) == (info.st_size, info.st_mtime_ns)
        if known not in (None, info.st_ino):
            self._displaced[info.st_ino] = (row, at)
            self._had[at] = row
            if same:
                self._sought.add(row.ino)
        if not facts or known not in (None, info.st_ino):
            self._seen.changed.append(at)

    async def _miss(self, row: NodeRow, at: Path) -> None:
        """A row without its entry, and all that was below it. What is in S3 alone is not missed here."""
        pending = [(row, at)]
        while pending:
            row, at = pending.pop()
            if row.state is not None and (row.state.is_remote or row.placement.staging is not None):
                continue
            self._gone[row.ino] = (row, at)
            self._below.setdefault(row.parent, []).append(row.ino)
            if row.kind is Kind.DIR:
                pending += [(each, (*at, each.name)) for each in await self._rows(row.ino)]

    def _found(self, ino: int) -> tuple[NodeRow, Path]:
        """What was gone is there; and so is what was in it, perhaps."""
        found = self._gone.pop(ino)
        pending = self._below.pop(ino, [])
        while pending:
            each = pending.pop()
            self._gone.pop(each, None)
            pending += self._below.pop(each, [])
        return found

    # --- other names ---------------------------------------------------------------------------------------------

    async def _find_folders(self) -> None:
        await self._look_among(list(self._came))
        while self._others:
            others, found = dict(self._others), await self._changed_places()
            left = {ino for ino, _ in found.values()}
            for path, (row, info) in others.items():
                del self._others[path]
                if path in found:
                    await self._move(*found[path], path)
                elif row.ino in left or path in self._vacated:
                    self._came[path] = info
                else:  # it was removed and made again, say
                    await self._compare(row.ino, path, same=False)
            await self._look_among(list(self._came))  # more is known to be missing

    async def _changed_places(self) -> dict[Path, tuple[int, Path]]:
        """Which of the other directories are which rows', whose own names are free or have such a one: and its name."""
        by_number = self._by_number(Kind.DIR)
        found: dict[Path, tuple[int, Path]] = {}
        for path, (_, info) in self._others.items():
            match = by_number.get(info.st_ino)
            if match is not None and await self._is_alike(match[0], path):
                found[path] = match
        while True:
            left = {ino for ino, _ in found.values()}
            kept = {
                path: match
                for path, match in found.items()
                if path in self._vacated or self._others[path][0].ino in left
            }
            if len(kept) == len(found):
                return found
            found = kept

    async def _look_among(self, paths: list[Path]) -> None:
        """Of what no row knows: which directories are rows' that had another name, and what is in the others."""
        by_number = self._by_number(Kind.DIR)
        pending = sorted((path for path in paths if self._is_folder(path)), reverse=True)
        while pending:
            path = pending.pop()
            info = self._came.get(path)
            if info is None:
                continue
            match = by_number.get(info.st_ino)
            if match is not None and await self._is_alike(match[0], path):
                self._came = {each: at for each, at in self._came.items() if each[: len(path)] != path}
                known = set(self._came)
                await self._move(*match, path)
                by_number = self._by_number(Kind.DIR)
                fresh = [each for each in self._came if each not in known]
            else:
                fresh = [(*path, name) for name in self._entries(path)]
                self._came.update(((*path, name), info) for name, info in self._entries(path).items())
            pending += sorted((each for each in fresh if self._is_folder(each)), reverse=True)

    def _is_folder(self, path: Path) -> bool:
        info = self._came.get(path)
        return info is not None and stat.S_ISDIR(info.st_mode)

    async def _move(self, ino: int, before: Path, now: Path) -> None:
        """A directory has another name, and what is in it is compared there."""
        if ino in self._gone:
            self._found(ino)
        else:
            self._vacated.add(before)
        self._seen.moved.append(Moved(ino, Kind.DIR, before, now))
        await self._compare(ino, now, same=True)

    def _by_number(self, kind: Kind) -> dict[int, tuple[int, Path]]:
        """Rows whose entry is not, or may not be, under their name: by its inode number on the disk."""
        rows = [*self._gone.values()]
        if kind is Kind.DIR:
            rows += [(row, path) for path, (row, _) in self._others.items() if path not in self._vacated]
        return {
            number: (row.ino, path)
            for row, path in rows
            if row.kind is kind and (number := row.placement.home_ino) is not None
        }

    async def _is_alike(self, ino: int, path: Path) -> bool:
        """Whether a directory of this inode number is the row's: something known is in it, or there was nothing; or it
        is as old as the row, for no two have one number at the same time. What S3 alone has is not in it.
        """
        rows = {row.name: row.placement.home_ino for row in await self._rows(ino)}
        entries = self._entries(path)
        if not rows:
            return not entries
        if any(rows.get(name) == info.st_ino for name, info in entries.items()):
            return True
        born_ns = self._store.beneath.born_ns(self._store.home(path))
        return born_ns is not None and born_ns < self._written_ns - SECOND_NS

    def _find_files(self) -> None:
        """Files under other names: which nothing had then, or another file, which may be under a third by now."""
        displaced = [each for each in self._displaced.values() if each[0].ino in self._sought]
        lost = {row.placement.home_ino: (row, path) for row, path in displaced}
        lost |= {row.placement.home_ino: (row, path) for row, path in self._gone.values() if row.kind is Kind.FILE}
        lost.pop(None, None)
        found: list[tuple[NodeRow, Path, Path]] = []
        for path, info in list(self._came.items()):
            if (match := self._match(lost, info)) is not None:
                found.append((*match, path))
                del self._came[path]
        for path in [path for _, path in self._displaced.values()]:
            there = self._store.stat(self._store.home(path))
            if there is not None and (match := self._match(lost, there)) is not None:
                found.append((*match, path))
        self._follow(found)

    @staticmethod
    def _match(lost: dict[int | None, tuple[NodeRow, Path]], info: os.stat_result) -> tuple[NodeRow, Path] | None:
        """The row whose file lies somewhere else, once."""
        match = lost.get(info.st_ino)
        if match is None or not _is_it(match[0], info):
            return None
        return lost.pop(info.st_ino)

    def _follow(self, found: list[tuple[NodeRow, Path, Path]]) -> None:
        """What was found to have another name, and what that means for those that had these names."""
        had = {path for _, path in self._displaced.values()}
        left = {row.ino for row, _, _ in found}
        taken = {now for _, _, now in found}
        for row, before, now in found:
            self._gone.pop(row.ino, None)
            self._seen.moved.append(Moved(row.ino, Kind.FILE, before, now))
            if now in had:
                self._seen.changed.remove(now)
            if before in had and before not in taken:  # a new file has the name that this one had
                self._seen.changed.remove(before)
                info = self._store.stat(self._store.home(before))
                if info is not None:
                    self._came[before] = info
        self._displaced = {number: each for number, each in self._displaced.items() if each[0].ino not in left}

    def _instead(self, moved: Moved, left: set[int]) -> Moved:
        """With what is to become of the row that had the name. *left*: rows that have another one."""
        row = self._had.get(moved.now)
        if row is None or row.ino == moved.ino:
            return moved
        if row.ino in left:
            return replace(moved, after=row.ino)
        return moved if row.kind is Kind.DIR else replace(moved, over=row.ino)

    # --- the trash -----------------------------------------------------------------------------------------------

    async def _look_into_trash(self) -> None:
        known = {row.gid for row in await self._catalogue.garbage()}
        missed = {ino: (row, path, True) for ino, (row, path) in self._gone.items()}
        missed |= {row.ino: (row, path, False) for row, path in self._displaced.values()}
        by_number = {row.placement.home_ino: ino for ino, (row, _, _) in missed.items() if row.kind is Kind.FILE}
        for number in sorted(self._store.trashed() - known):
            info = self._store.stat(self._store.trash(number))
            ino = by_number.get(info.st_ino) if info is not None else None
            if ino is not None and info is not None and _is_it(missed[ino][0], info):
                row, path, is_gone = missed[ino]
                self._seen.trashed.append(InTrash(number, row, path, is_gone))
                self._gone.pop(ino, None)
            else:
                self._seen.strangers.append(number)


def _is_it(row: NodeRow, info: os.stat_result) -> bool:
    """Whether a file of the inode number that a row has is that row's, too."""
    return stat.S_ISREG(info.st_mode) and (row.size_bytes, row.mtime_ns) == (info.st_size, info.st_mtime_ns)


def _can_be_taken(path: Path, info: os.stat_result) -> bool:
    """Whether an entry can have a row."""
    role = Role.ROOT
    try:
        for name in path[:-1]:
            role = child_role(role, name, is_dir=True)
        child_role(role, path[-1], is_dir=stat.S_ISDIR(info.st_mode))
    except FsError:
        return False
    return stat.S_IFMT(info.st_mode) in _FORMATS.values()


def told(seen: Seen) -> Iterator[tuple[str, str]]:
    """Each find in words: what became of it, and the path."""
    for moved in seen.moved:
        yield "moved", f"{_text(moved.before)} -> {_text(moved.now)}"
    for each in seen.trashed:
        yield "in trash", f"{_text(each.path)} (number {each.number})"
    for number in seen.strangers:
        yield "to lost+found", f"trash/{number}"
    for path in seen.changed:
        yield "changed", _text(path)
    for path in seen.came:
        yield "came", _text(path)
    for path in seen.linked:
        yield "linked", _text(path)
    for path in seen.refused:
        yield "refused", _text(path)
    for _, path in seen.gone:
        yield "gone", _text(path)


def _text(path: Path) -> str:
    return b"/".join(path).decode("utf-8", "surrogateescape")


__all__ = ["InTrash", "Moved", "Seen", "Survey", "told"]
