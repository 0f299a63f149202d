"""Compares entries of the home tree with their rows, and keeps those that differ until they are to be believed."""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING

import trio

from recfs.core.candidates import MOST
from recfs.core.foreign import Finding, Known, Seen, judge, quiet_for_s
from recfs.core.model import Kind, State
from recfs.disk.watching import looks
from recfs.errors import IoFailure
from recfs.fs.foreign.links import Links
from recfs.ports.rows import NodeRow
from recfs.state.nodes import DirNode, FileNode, Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.candidates import Candidate, Candidates, Key
    from recfs.disk.home.inuse import InUse
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.disk.watching.inotify import Marks
    from recfs.fs.foreign.again import Again
    from recfs.fs.foreign.covered import Covered
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.watch")

PART = "watch"
MOST_TOLD = 1000
"""So many entries that are left alone are told one by one."""


class Judging:
    """Judges. All of it atomic."""

    def __init__(
        self, tree: Tree, in_use: InUse, places: PathResolver, store: LocalStore, candidates: Candidates, marks: Marks,
        again: Again, covered: Covered, *, quiet_s: float,
    ) -> None:  # fmt: skip
        self._covered = covered
        self._tree = tree
        self._in_use = in_use
        self._problems = tree.behind.problems
        self._places = places
        self._store = store
        self._candidates = candidates
        self._marks = marks
        self.again = again
        self.quiet_s = quiet_s
        self.scanning = False
        """Whether everything is being looked at."""
        self.is_blind = False
        """Whether not all directories are watched: what leaves one of them may be in another that nobody looks at."""
        self.looked_s = -math.inf
        """When the last look at everything began that has come to its end."""
        self.hollow: dict[int, int] = {}
        """Directories that are gone, and whose entries go before them; how often each was found with nothing to go."""
        self.links = Links(marks)
        self.nowhere: set[Key] = set()
        """Files that are known to have no bytes, as far as there is room for them: their names stay."""
        self.is_accepted: Callable[[], bool] = lambda: False
        """Whether the operator has said that what is missing was removed on purpose."""
        self._told: dict[int, set[bytes]] = {}
        self._open: set[int] = set()
        """Files that were found foreign while they were open."""

    def is_ready(self, folder: DirNode, name: bytes, entry: Node | NodeRow | None, seen: Seen | None) -> bool:
        """Compare an entry with its row; whether it is to be acted on now."""
        key = (folder.ino, name)
        if self._covered.has(folder, name):
            self._ours(key)
            return False
        occupant = self._tree.locations.occupant((folder, name))
        if occupant is not None or folder is self._tree.root:
            if occupant is None or (seen is not None and occupant.home_ino in (None, seen.st_ino)):
                self._ours(key)  # a physical entry; and the store sees to its own directories
            elif self._candidates.is_ready(key, Finding.BUSY, seen, trio.current_time(), self.quiet_s):
                self._candidates.put_off(key, trio.current_time() + self.quiet_s)
            return False
        known = self.known(entry)
        finding = judge(known, seen)
        if finding is Finding.NOWHERE:
            if not self.is_accepted():
                self._keep(folder, name)
                return False
            finding = Finding.GONE
        if known is not None and known.home_ino is not None and (seen is None or seen.st_ino != known.home_ino):
            self.links.gone(known.home_ino)
        if finding is Finding.NEW and seen is not None and self._has_links_still(key, seen):
            return False
        if finding is Finding.OURS or finding is Finding.BLOCKED:
            if known is not None and known.kind is Kind.DIR and key in self._candidates:
                assert entry is not None
                self.hollow.pop(entry.ino, None)
                self.again.found(entry.ino)  # it is back, and so is what was missed in it
            if isinstance(entry, FileNode) and entry.home_ino is None and entry.staging is None and seen is not None:
                entry.home_ino = seen.st_ino  # it was nowhere, and is back
                self._tree.behind.node(entry)
            self._ours(key)
            return False
        now_s = trio.current_time()
        if finding is Finding.BUSY:
            self._busy(key, entry, seen, now_s)
            return False
        is_dir, files = False, 0
        if isinstance(entry, (DirNode, NodeRow)) and entry.kind is Kind.DIR:
            is_dir, files = True, 0 if self.is_missed(folder) else entry.rfiles
        is_stored = known is not None and known.state is State.STORED
        quiet_s = 0.0 if folder.ino in self.hollow else quiet_for_s(name, finding, seen, self.quiet_s)
        return self._candidates.is_ready(
            key, finding, seen, now_s, quiet_s,
            row=known, files=files,
            counts=not is_dir and not is_stored, scanned=self.scanning,
        )  # fmt: skip

    def _busy(self, key: Key, entry: Node | NodeRow | None, seen: Seen | None, now_s: float) -> None:
        if isinstance(entry, FileNode) and entry.body is not None:
            self._open.add(entry.ino)
            self._candidates.drop(key)
        elif self._candidates.is_ready(key, Finding.BUSY, seen, now_s, self.quiet_s):
            self._candidates.put_off(key, now_s + self.quiet_s)

    def _keep(self, folder: DirNode, name: bytes) -> None:
        """Tell of a file that is nowhere."""
        key = (folder.ino, name)
        self._candidates.drop(key)
        if len(self.nowhere) < MOST:
            self.nowhere.add(key)
        why = (
            "its bytes were nowhere when catalogue and home tree were compared: its name stays until they are back, it"
            " is removed, or `recfs watch accept` says so"
        )
        self.failed(folder, name, IoFailure(why))

    def _has_links_still(self, key: Key, seen: Seen) -> bool:
        """Whether a file was left alone because of its links, and there is no reason yet to look at it again."""
        return (
            seen.links > 1
            and self.links.knows(key, seen.st_ino)
            and key not in self._candidates
            and self._candidates.gone_from(seen.st_ino) is None
        )

    def is_unsure(self, folder: DirNode, candidate: Candidate) -> bool:
        """Whether what is missed may have come up where nobody has looked since it was missed first."""
        if not self.is_blind or candidate.scanned or folder.ino in self.hollow:
            return False
        return candidate.finding in (Finding.GONE, Finding.RENUMBERED) and candidate.since_s > self.looked_s

    def is_missed(self, folder: DirNode) -> bool:
        """Whether a directory is gone itself."""
        candidate = self._candidates.get((folder.parent.ino, folder.name))
        return candidate is not None and candidate.finding is Finding.GONE

    def _ours(self, key: Key) -> None:
        self._candidates.drop(key)
        self.solved(key)

    def failed(self, folder: DirNode, name: bytes, error: Exception) -> None:
        """An entry cannot be taken over."""
        key, path = (folder.ino, name), f"{folder.path}/{os.fsdecode(name)}"
        log.debug("%s: %s", path, error)
        if self._problems.has(PART, key) or self._problems.count(PART) < MOST_TOLD:
            self._problems.note(PART, key, error, path)
            self._told.setdefault(folder.ino, set()).add(name)

    def solved(self, key: Key) -> None:
        """Nothing is to be told of an entry any more."""
        self._problems.solved(PART, key)
        self.links.drop(key)
        self.nowhere.discard(key)
        told = self._told.get(key[0])
        if told is not None:
            told.discard(key[1])
            if not told:
                del self._told[key[0]]

    def told(self, ino: int) -> frozenset[bytes]:
        """Names in a directory that something is told of."""
        return frozenset(self._told.get(ino, ()))

    def misplaced(self, folder: DirNode, name: bytes) -> None:
        """What was expected there is not: to be looked at, with all that was in it if it is a directory."""
        self._marks.entry(folder.ino, name)
        node = folder.children.get(name)
        if isinstance(node, DirNode):
            self._marks.whole(node.ino)

    def released(self, node: FileNode) -> None:
        """Nobody has the file open any more: what was put off for that is looked at again."""
        if node.ino in self._open:
            self._open.discard(node.ino)
            self._marks.entry(node.parent.ino, node.name)

    def known(self, entry: Node | NodeRow | None) -> Known | None:
        """What the row of an entry says."""
        if entry is None:
            return None
        attributes = (entry.mode & 0o7777, entry.uid, entry.gid) if self._store.shows_attributes else None
        if isinstance(entry, NodeRow):
            here = entry.placement
            busy = bool(here.pending) or here.home_name is not None
            return Known(
                entry.kind, here.home_ino, entry.size_bytes, entry.mtime_ns, entry.state, busy,
                here.staging is not None, attributes,
            )  # fmt: skip
        busy = bool(entry.pending or entry.publishing) or entry.moved is not None
        if not isinstance(entry, FileNode):
            return Known(entry.kind, entry.home_ino, 0, entry.mtime_ns, None, busy, False, attributes)
        busy = busy or entry.body is not None or self._in_use.has(entry) or bool(entry.priors)
        return Known(
            entry.kind, entry.home_ino, entry.bytes, entry.mtime_ns, entry.state, busy, entry.staging is not None,
            attributes,
        )  # fmt: skip

    def seen(self, folder: DirNode, name: bytes) -> Seen | None:
        """What lies there at this moment. Raises OSError."""
        info = self._store.stat(self._places.at((folder, name)))
        return looks.seen(info) if info is not None else None


__all__ = ["PART", "Judging"]
