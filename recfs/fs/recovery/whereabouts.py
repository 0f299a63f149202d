"""Where things really lie: a step on disk may have happened, and its record been lost."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

from recfs.core.generation import Age
from recfs.core.model import Kind, State
from recfs.disk.staging import Label
from recfs.fs.recovery.finds import only_in_s3
from recfs.ports.rows import Pending, Promise
from recfs.state.nodes import FileNode, Node

if TYPE_CHECKING:
    from recfs.fs.recovery.finds import Finds
    from recfs.state.nodes import Garbage

log = logging.getLogger("recfs.recovery")


class Whereabouts:
    """Makes the metadata follow the disk."""

    def __init__(self, found: Finds) -> None:
        self._found = found
        self._tree = found.tree
        self._behind = found.behind
        self._places = found.places
        self._backing_files = found.backing_files
        self._store = found.store

    def _is_at(self, path: bytes, home_ino: int | None) -> bool:
        info = self._store.stat(path)
        return info is not None and (home_ino is None or info.st_ino == home_ino)

    def share_no_staging(self, nodes: list[Node]) -> None:
        """A staging file that several rows name belongs to the one its label names; the others lost theirs."""
        claims: dict[str, list[FileNode]] = {}
        for node in nodes:
            if isinstance(node, FileNode) and node.staging is not None:
                claims.setdefault(node.staging, []).append(node)
        for staging_id, rivals in claims.items():
            if len(rivals) == 1:
                continue
            owner = min(rivals, key=lambda node: (node.ino != self._labelled(staging_id), node.ino))
            for node in rivals:
                if node is not owner:
                    log.error("%s: staging/%s is %s's", node.path, staging_id, owner.path)
                    node.staging = f"{staging_id}-not-its-own"

    def _labelled(self, staging_id: str) -> int | None:
        found = self._found.staging.get(staging_id)
        try:
            return Label.decode(found.label or b"").ino if found is not None else None
        except ValueError:
            return None

    def locate(self, node: Node) -> None:
        """Correct the metadata where a step on disk happened but its record was lost."""
        if isinstance(node, FileNode) and node.staging is not None:
            if node.staging in self._found.staging:
                return
            node.staging = None
            if self._find_at_home(node) or self._search(node):
                return
            same = self._found.age is Age.SAME  # else they may lie at home by now, under another number
            if node.state is State.STORED and node.object is not None:
                if same:
                    only_in_s3(self._found, node)
                return
            if same:
                log.error("%s: its bytes are gone", node.path)
                self._found.report.lost.append(node.path)
            self._recreate(node)
            return
        if node.moved is not None and self._store.beneath.is_mount_point(self._places.home(node)):
            return  # something is mounted over it: there it is when that is unmounted
        if node.pending & Pending.MAKE:
            if node.moved is None or not self._is_at(self._places.home(node), None):
                self._tree.locations.forget(node, node.moved)
                node.moved = None
                self._find_made(node)
                return
            node.pending = (node.pending & ~Pending.MAKE) | Pending.MOVE
        if isinstance(node, FileNode) and not self._is_at(self._places.home(node), node.home_ino):
            found = next((one for one in self._found.staging.values() if one.st_ino == node.home_ino), None)
            if found is not None:  # taken to staging for a writer, and the row still says home
                self._tree.locations.forget(node, node.moved)
                node.moved = None
                node.staging = found.id
                if not node.state.is_whole:
                    node.pending = 0  # as when it was taken there: only its commit has it carried home
                self._behind.node(node)
                return
        if (node.pending & Pending.MOVE or node.moved is not None) and not self._find_at_home(node):
            self._search(node)

    def _find_made(self, node: Node) -> None:
        """Whether a directory or symlink was made, but the record of it lost. Else it still is to be made."""
        if node.parent.pending & Pending.MAKE:
            return  # what lies there is in an earlier directory of that name
        info = self._store.stat(self._places.home(node))
        if (
            info is None
            or stat.S_IFMT(info.st_mode) != node.format
            or self._tree.locations.occupant((node.parent, node.name))
        ):
            return
        node.home_ino = info.st_ino
        node.pending = (node.pending & ~Pending.MAKE) | Pending.ATTRS
        self._behind.node(node)

    def locate_garbage(self) -> None:
        """Correct the metadata where garbage was removed, or taken to the trash, but the record of it was lost."""
        traces = [entry for entry in self._tree.garbage.values() if entry.promised & Promise.TRACE]
        for trace in sorted(traces, key=lambda entry: -entry.gid):  # directories before what was removed from them
            with self._found.aside(("garbage", trace.gid), f"removed {os.fsdecode(trace.path)}"):
                self._follow(trace)
        for entry in list(self._tree.garbage.values()):
            with self._found.aside(("garbage", entry.gid), f"removed {os.fsdecode(entry.path)}"):
                self._locate_removed(entry)

    def _follow(self, trace: Garbage) -> None:
        """What lost its name while it was being moved may not have been moved any more."""
        places, place = self._places, trace.place
        self._tree.locations.forget(trace, place)
        self._forget_removed(trace)
        for entry in self._tree.garbage.values():
            if (entry.ino, entry.home_ino) != (trace.ino, trace.home_ino) or entry.place is None or place is None:
                continue
            if self._is_at(places.at(entry.place), entry.home_ino) or not self._is_at(places.at(place), entry.home_ino):
                continue
            self._tree.locations.forget(entry, entry.place)
            entry.place = place
            self._tree.locations.record(entry, place)
            if entry.kind is Kind.DIR:
                self._found.dirs[entry.ino].moved = place
            self._behind.garbage(entry, discard=False)
            return

    def forget_what_left_the_trash(self) -> None:
        """Drop the records of what is not in the trash any more: it came back as a file, whose label told so."""
        trashed = self._store.trashed()
        for entry in list(self._tree.garbage.values()):
            if entry.in_trash and entry.held_by is None and entry.gid not in trashed:
                self._forget_removed(entry)

    def _locate_removed(self, entry: Garbage) -> None:
        if entry.place is not None and self._store.beneath.is_mount_point(self._places.at(entry.place)):
            return
        if (
            entry.in_trash
            or entry.is_to_be_emptied
            or (entry.kind is Kind.DIR and self._tree.locations.entries.get(entry.ino))
        ):
            return
        path = self._store.staging(entry.staging) if entry.staging is not None else None
        if self._is_at(path or self._places.at(entry.place or (None, b"")), entry.home_ino):
            return
        self._tree.locations.forget(entry, entry.place)
        if entry.with_content or self._is_at(self._store.trash(entry.gid), entry.home_ino):
            # Of a directory that is nowhere the rows of what was in it are left to be removed.
            entry.staging = entry.place = None
            self._behind.garbage(entry, discard=False)
        elif (staging := self._left_in_staging(entry)) is not None:
            entry.staging, entry.place = staging, None
            self._behind.garbage(entry, discard=False)
        else:
            self._forget_removed(entry)

    def _forget_removed(self, entry: Garbage) -> None:
        del self._tree.garbage[entry.gid]
        self._behind.purged(entry.gid)

    def _left_in_staging(self, entry: Garbage) -> str | None:
        """The staging file that was to come home when the file lost its name: it may not have left yet.

        An inode number is given out again, so the label has to say so, too.
        """
        for found in self._found.staging.values():
            if entry.home_ino is not None and found.st_ino == entry.home_ino:
                return found.id if self._labelled(found.id) == entry.ino else None
        return None

    def _find_at_home(self, node: Node) -> bool:
        """Look for the node's inode at its old place, its new one, and in the holding area."""
        old = node.moved
        holding = (None, b"%d" % node.ino)
        for place in dict.fromkeys((old, None, holding)):
            self._tree.locations.forget(node, node.moved)
            node.moved = place
            if self._is_at(self._places.home(node), node.home_ino):
                if place is None:
                    node.pending = (
                        node.pending & ~Pending.MOVE
                    ) | Pending.ATTRS  # moved, but perhaps without its attributes
                else:
                    self._tree.locations.record(node, place)
                    node.pending |= Pending.MOVE
                self._behind.node(node)
                return True
        self._tree.locations.forget(node, node.moved)
        node.moved = old
        if old is not None:
            self._tree.locations.record(node, old)
        return False

    def _search(self, node: Node) -> bool:
        """Look for the node's inode everywhere: it was renamed again while the last move was under way.

        Found, it goes to the holding area, from where the publisher brings it to its place. The walk is long, and rare.
        """
        # The number may be another file's by now, if the row is of another time than the tree.
        known = node.home_ino if self._found.age is Age.SAME else None
        found = self._store.find(known) if known is not None else None
        if found is None:
            if not isinstance(node, FileNode):
                self._tree.locations.forget(node, node.moved)
                node.moved, node.home_ino, node.pending = None, None, Pending.MAKE
                self._behind.node(node)
            return False
        self._tree.locations.forget(node, node.moved)
        node.moved = (None, b"%d" % node.ino)
        self._store.rename(found, self._places.home(node))
        self._tree.locations.record(node, node.moved)
        node.pending |= Pending.MOVE
        self._behind.node(node)
        return True

    def _recreate(self, node: FileNode) -> None:
        """Its bytes are nowhere: an empty incomplete file says so better than an error at every open."""
        staging = self._backing_files.pool.new_id()
        (fd,) = self._store.make_staging([staging])
        os.close(fd)
        self._tree.locations.forget(node, node.moved)
        node.moved, node.pending, node.staging = None, 0, staging
        node.home_ino = None
        self._found.staging[staging] = self._store.scan_staging()[staging]
        self._found.recreated.add(node.ino)
        node.never_left(State.WRITING)  # whatever it was: neither closed nor kept
        node.promised = 0
        self._tree.resize(node, 0)
        self._behind.node(node)
