"""A catalogue and a home tree that are not of one time: what lies in the tree is what the files are now.

Happens when the catalogue was restored from a backup, or lost its log, or when the tree was restored or copied. Then
rows tell of bytes that are not there, with checksums that are not theirs. Every entry is compared with its row, by
size, mtime and inode number. What differs is a new version: it is sealed, so that its checksums are made anew before
anybody can take it for committed. What no row knows gets one; what rows know and the tree has not is named, and its row
is kept.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

from recfs.core.bounds import MAX_INT
from recfs.core.generation import Age
from recfs.core.layout import child_role, is_upload
from recfs.core.model import Kind, State
from recfs.errors import FsError, Stale
from recfs.fs.caller import Caller
from recfs.fs.recovery.finds import only_in_s3
from recfs.ports.rows import ROOT_INO, NodeRow, Pending
from recfs.state.nodes import DirNode, FileNode, LinkNode, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.fs.recovery.finds import Finds, Report
    from recfs.state.nodes import Garbage

log = logging.getLogger("recfs.recovery")

_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}
PAGE = 1000
TICK_NS = 1_000_000_000
"""More than the clock of files (st_ctime) may be behind."""
SAID = {
    Age.CATALOGUE_OLDER: (
        "the catalogue is older than the home tree: it was restored from a backup, or its log (-wal) is gone"
    ),
    Age.TREE_OLDER: "the home tree is older than the catalogue: it was restored from a backup",
    Age.UNKNOWN: "nothing tells whether catalogue and home tree are of one time: it was copied without its attributes",
    Age.SAME: "the store was copied or restored",
}
"""What a start says of it."""


class Comparison:
    """One start's comparison. Blocking disk calls are fine: nothing is mounted yet."""

    def __init__(self, found: Finds, written_ns: int) -> None:
        """*written_ns*: when the catalogue was written last, if that is known (else 0)."""
        self._found = found
        self._tree = found.tree
        self._behind = found.behind
        self._places = found.places
        self._backing_files = found.backing_files
        self._names = found.names
        self._store = found.store
        self._adopts = found.age in (Age.CATALOGUE_OLDER, Age.UNKNOWN)
        """Whether what no row knows may be recfs's own."""
        later = found.age is Age.CATALOGUE_OLDER and written_ns
        self._changed_ns = written_ns - TICK_NS if later else MAX_INT
        """From here on, whatever a program set as its mtime, a file was changed when the catalogue did not know."""

    # --- before anything is repaired -----------------------------------------------------------------------------

    def forget_garbage(self) -> None:
        """Rows of removals count only for what is certainly still the same: numbers and names may be others' by now."""
        self._tree.skip_gid(max(self._store.trashed(), default=0))
        for entry in list(self._tree.garbage.values()):
            with self._found.aside(("garbage", entry.gid), f"removed {os.fsdecode(entry.path)}"):
                if entry.with_content:
                    # What is in the trash's place under its inode number goes; what lies at home is looked at anew.
                    self._tree.locations.forget(entry, entry.place)
                    entry.place = None
                    self._behind.garbage(entry, discard=False)
                elif self._is_anothers(entry):
                    del self._tree.garbage[entry.gid]
                    self._behind.purged(entry.gid)
                elif entry.place is not None and not self._is_still(entry):
                    self._tree.locations.forget(entry, entry.place)
                    del self._tree.garbage[entry.gid]
                    self._behind.purged(entry.gid)

    def _is_anothers(self, entry: Garbage) -> bool:
        """Whether what lies in the trash under the entry's number is something else: numbers were given out anew."""
        info = self._store.stat(self._store.trash(entry.gid)) if entry.in_trash else None
        if info is None:
            return False
        return info.st_size != entry.size_bytes or entry.home_ino not in (None, info.st_ino)

    def _is_still(self, entry: Garbage) -> bool:
        assert entry.place is not None
        info = self._store.stat(self._places.at(entry.place)) if entry.kind is Kind.FILE else None
        return info is not None and (info.st_ino, info.st_size, info.st_mtime_ns) == (
            entry.home_ino, entry.size_bytes, entry.mtime_ns,
        )  # fmt: skip

    async def forget_deletions(self) -> None:
        """What was to be deleted in S3: other files' objects may be under those keys by now. Rather one too many."""
        for row in await self._tree.catalogue.journal():
            if row.kind == "delete":
                self._behind.journal_done(row.id)
                self._found.report.kept.append(row.key)

    # --- when rows and places are known --------------------------------------------------------------------------

    async def run(self) -> None:
        """Compare everything."""
        pending = [ROOT_INO]
        while pending:
            ino = pending.pop()
            with self._found.aside(("compare", ino), f"directory {ino}"):
                pending += await self._compare(await self._tree.directory(ino))
            self._tree.memory.shrink()

    async def _compare(self, folder: DirNode) -> list[int]:
        """Compare one directory; gives those in it."""
        there = self._store.beneath.entries(self._places.home(folder))
        below: list[int] = []
        known: set[bytes] = set()
        after = 0
        while page := await self._tree.page(folder, after, PAGE, placed=True):
            after = page[-1].ino
            for row in page:
                known.add(row.name)
                entry = there.get(row.name)
                if self._adopts and entry is not None and self._is_of_another_kind(row, entry):
                    with self._found.aside(row.ino, f"inode {row.ino}"):
                        below += await self._replace(folder, await self._tree.get(row.ino), entry)
                    continue
                if row.kind is Kind.DIR:
                    below.append(row.ino)
                if self._is_odd(row, there.get(row.name)):
                    with self._found.aside(row.ino, f"inode {row.ino}"):
                        self._correct(await self._tree.get(row.ino), there.get(row.name))
        if self._adopts and folder.ino != ROOT_INO:
            for name in sorted(there.keys() - known):
                if self._tree.locations.occupant((folder, name)) is None:
                    path = f"{folder.path}/{os.fsdecode(name)}"
                    with self._found.aside(("unknown", path), path):
                        below += await self.adopt(folder, name, there[name])
        return below

    @staticmethod
    def _is_of_another_kind(row: Node | NodeRow, info: os.stat_result) -> bool:
        """Whether a file has become a directory since, or a directory a link, or the like."""
        if isinstance(row, NodeRow):
            is_elsewhere = row.placement.staging is not None or row.placement.home_name is not None
        else:
            is_elsewhere = row.moved is not None or getattr(row, "staging", None) is not None
        if is_elsewhere:
            return False
        return stat.S_IFMT(info.st_mode) != _FORMATS[row.kind]

    async def _replace(self, folder: DirNode, node: Node, info: os.stat_result) -> list[int]:
        """What stands under the name of *node* now is another kind of thing, and takes the name over.

        But where S3 alone has something of the row: what lies there goes to lost+found then. Returns the directories
        that are to be looked into.
        """
        name = node.name
        if await self._is_in_s3_alone(node):
            lost = self._store.lost(f"{node.ino}-{os.fsdecode(name)}")
            self._store.rename(self._store.home((*folder.parts(), name)), lost)
            self._found.report.lost.append(f"lost+found/{os.path.basename(os.fsdecode(lost))} (stood at {node.path})")
            self._correct(node, None)
            return [node.ino] if isinstance(node, DirNode) else []
        await self._forget(node)
        return await self.adopt(folder, name, info)

    async def _below(self, top: Node) -> list[Node]:
        """A row, and all rows below it, those further down last."""
        found = [top]
        for node in found:
            after = 0
            while isinstance(node, DirNode) and (page := await self._tree.page(node, after, PAGE)):
                after = page[-1].ino
                found += [await self._tree.get(row.ino) for row in page]
        return found

    async def _is_in_s3_alone(self, top: Node) -> bool:
        return any(isinstance(node, FileNode) and node.state.is_remote for node in await self._below(top))

    async def _forget(self, top: Node) -> None:
        """Nothing of it is on the disk: the rows go."""
        for node in reversed(await self._below(top)):
            if isinstance(node, FileNode):
                self._tree.events.removed(node, None)
                self._found.report.forgotten.append(node.path)
            self._tree.locations.forget(node, node.moved)
            self._tree.remove(node)

    def _is_odd(self, row: Node | NodeRow, info: os.stat_result | None) -> bool:
        """Whether a row and what stands at its name may not go together."""
        state = row.state if isinstance(row, (FileNode, NodeRow)) else None
        if state is not None and state.is_remote:
            return info is not None
        if info is None or (self._adopts and row.mode != stat.S_IMODE(info.st_mode) and row.kind is not Kind.SYMLINK):
            return True
        if state is not None:
            assert isinstance(row, (FileNode, NodeRow))
            return not state.is_whole or _home_ino(row) is None or self._differs(row, info)
        return (stat.S_IFMT(info.st_mode) == stat.S_IFDIR) != (row.kind is Kind.DIR) or _home_ino(row) != info.st_ino

    def _differs(self, node: FileNode | NodeRow, info: os.stat_result) -> bool:
        """Whether what stands at a file's place is other than its row says, or may be."""
        size = node.bytes if isinstance(node, FileNode) else node.size_bytes
        other = _home_ino(node) not in (None, info.st_ino)
        facts = (size, node.mtime_ns) != (info.st_size, info.st_mtime_ns)
        return other or facts or not stat.S_ISREG(info.st_mode) or info.st_ctime_ns >= self._changed_ns

    def _correct(self, node: Node, info: os.stat_result | None) -> None:
        """Have the row say what is there."""
        if isinstance(node, FileNode):
            self._correct_file(node, info)
        elif node.parent is self._tree.root:
            return  # the store sees to these
        elif info is None or stat.S_IFMT(info.st_mode) != node.format:
            if not node.pending:
                self._found.report.remade.append(node.path)
            self._tree.locations.forget(node, node.moved)
            node.moved, node.home_ino, node.pending = None, None, Pending.MAKE
            self._behind.publish(node)
            self._found.report.unpublished.append(node.ino)
        else:
            self._take_attributes(node, info)

    def _take_attributes(self, node: Node, info: os.stat_result) -> None:
        node.home_ino = info.st_ino
        if self._adopts and not isinstance(node, LinkNode):
            node.mode = stat.S_IMODE(info.st_mode)
            if self._store.gives_owners:
                node.uid, node.gid = info.st_uid, info.st_gid
        self._behind.node(node)

    def _correct_file(self, node: FileNode, info: os.stat_result | None) -> None:
        if node.moved is not None or self._lies_in_staging(node):
            return  # found where it is under way to, or being written
        regular = info is not None and stat.S_ISREG(info.st_mode)
        if node.state.is_remote and not regular:
            return  # S3 has it
        if not regular or info is None:
            self._mark_gone(node)
        elif self._differs(node, info):
            self._take(node, info)
            self._found.report.taken.append(node.path)
        elif node.state.is_whole or node.state is State.CORRUPT or self._found.age is Age.SAME:
            self._take_attributes(node, info)
        else:
            self._take(node, info)

    def _lies_in_staging(self, node: FileNode) -> bool:
        if node.staging is None:
            return False
        if node.ino in self._found.recreated:
            self._store.drop_staging([node.staging])  # empty, made in the place of bytes that lie at home by now
        elif node.staging in self._found.staging:
            return True
        node.staging = None
        return False

    def _mark_gone(self, node: FileNode) -> None:
        if node.state is State.STORED:
            self._tree.events.modified(node)
            only_in_s3(self._found, node)
            return
        self._found.report.gone.append(node.path)
        if node.state in (State.WRITING, State.SEALING):
            node.enter(State.INCOMPLETE)
        node.pending, node.home_ino = 0, None
        self._behind.node(node)

    def _take(self, node: FileNode, info: os.stat_result) -> None:
        """What stands at a file's place is a new version of it, to be sealed."""
        if node.state.is_remote:
            self._tree.events.superseded(node)
        self._tree.events.modified(node)
        for state in (State.WRITING, State.SEALING):
            if node.state is not state:
                node.enter(state)
        node.sha256 = node.md5 = None
        node.pending, node.unmarked = 0, False
        node.mtime_ns = info.st_mtime_ns
        self._backing_files.versions.closed(node)
        self._tree.resize(node, info.st_size)
        self._take_attributes(node, info)
        self._found.report.resealed.append(node.ino)

    # --- what no row knows ---------------------------------------------------------------------------------------

    async def adopt(self, folder: DirNode, name: bytes, info: os.stat_result) -> list[int]:
        """Make a row for an entry of the home tree; gives a directory, to be looked into."""
        kind = stat.S_IFMT(info.st_mode)
        caller = Caller(info.st_uid, info.st_gid, operator=True)
        try:
            child_role(folder.role, name, is_dir=kind == stat.S_IFDIR)
            if kind == stat.S_IFDIR:
                made: Node = await self._names.mkdir(folder, name, stat.S_IMODE(info.st_mode), caller)
            elif kind == stat.S_IFREG:
                made = self._names.add_file(
                    folder, name, stat.S_IMODE(info.st_mode), caller, upload=is_upload(folder.role, name)
                )
                self._take(made, info)
            elif kind == stat.S_IFLNK:
                made = await self._link(folder, name, caller)
            else:
                return []
        except (FsError, Stale) as error:
            log.warning("%s/%s is left alone: %s", folder.path, os.fsdecode(name), error)
            return []
        made.mtime_ns = info.st_mtime_ns
        if kind != stat.S_IFREG:
            made.pending = 0
        self._take_attributes(made, info)
        self._found.report.found.append(made.path)
        if kind == stat.S_IFREG and info.st_nlink > 1:
            self._found.report.linked.append(made.path)
        return [made.ino] if kind == stat.S_IFDIR else []

    async def _link(self, folder: DirNode, name: bytes, caller: Caller) -> LinkNode:
        with self._store.beneath.folder(self._places.at((folder, name))) as (fd, last):
            target = os.readlink(last, dir_fd=fd)
        return await self._names.symlink(folder, name, target, caller)


def _home_ino(row: Node | NodeRow) -> int | None:
    return row.placement.home_ino if isinstance(row, NodeRow) else row.home_ino


NAMED = 20
"""So many paths are told; the log has all of them, at level debug."""
_TOLD = (
    ("have another name by now, and keep what the catalogue knows of them", "moved"),
    ("lie in the trash by now, or an earlier version of them does", "trashed"),
    ("were nowhere; their rows are removed", "forgotten"),
    (
        "differ from what the catalogue says, or were changed since; they are taken as they are and hashed anew",
        "taken",
    ),
    ("were not in the catalogue, and are now", "found"),
    (
        "have several names (hard links), and what is written to one of them changes the others: put a copy in its"
        " place",
        "linked",
    ),
    (
        "were not on the disk; they are made again, since the catalogue has them",
        "remade",
    ),
    ("are in the catalogue and not on the disk; reading them fails until they are removed or written anew", "gone"),
    ("were to be deleted in S3; their objects stay, for they may be others' by now", "kept"),
)
_THINGS = {"remade": "directories or symbolic links"}


def sentences(report: Report) -> Iterator[str]:
    """What is to be said of the comparison, in sentences: in the log, and as problems of `recfs status`."""
    for what, name in _TOLD:
        paths: list[str] = getattr(report, name)
        for path in paths:
            log.debug("%s: %s", name, path)
        if paths:
            things, more = _THINGS.get(name, "files"), ", …" if len(paths) > NAMED else ""
            yield f"{len(paths)} {things} {what}: {', '.join(paths[:NAMED])}{more}"
