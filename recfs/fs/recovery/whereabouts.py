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
from recfs.state.nodes import FileNode, Garbage, LinkNode, Node

if TYPE_CHECKING:
    from recfs.disk.home.path_resolver import Place
    from recfs.fs.recovery.finds import Finds
    from recfs.state.nodes import DirNode

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
        self._open: set[int] = set()
        """Of which it is not decided yet where they lie; inode numbers."""
        self._taken: set[int] = set()
        """Numbers that entries of the home tree are known to have."""
        self._former: dict[int, Garbage] = {}
        """What was removed and may still be there, by such numbers …"""
        self._unnumbered: set[Place] = set()
        """… and the places of what had none when it was removed."""

    def _is_at(self, path: bytes, home_ino: int | None) -> bool:
        """Whether it lies there; of what has no number yet: whether anything does that is not known to be another's."""
        info = self._store.stat(path)
        if info is None or home_ino is not None:
            return info is not None and info.st_ino == home_ino
        return info.st_ino not in self._taken and info.st_ino not in self._former

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

    def locate_all(self, nodes: list[Node]) -> set[int]:
        """Correct the metadata where steps on disk happened but their record was lost. Returns which inodes failed.

        Where one lies is looked for in directories whose own place is known, so those come first; which they are is
        not known before, since a batch may have had directories change places with those above them.
        """
        failed: set[int] = set()
        all_nodes = nodes
        self._open = {node.ino for node in nodes}
        self._taken = {node.home_ino for node in nodes if node.home_ino is not None}
        removed = [entry for entry in self._tree.garbage.values() if not entry.promised & Promise.TRACE]
        self._former = {entry.home_ino: entry for entry in removed if entry.home_ino is not None}
        self._unnumbered = {entry.place for entry in removed if entry.home_ino is None and entry.place is not None}
        is_last = False
        while nodes:
            waiting: list[Node] = []
            for node in nodes:
                is_decided = True
                failed.add(node.ino)
                with self._found.aside(node.ino, node.path):
                    is_decided = self._locate(node, is_last=is_last)
                    failed.discard(node.ino)
                if is_decided:
                    self._open.discard(node.ino)
                else:
                    waiting.append(node)
            is_last = len(waiting) == len(nodes)
            nodes = waiting
        # Two rows may have told of one place: what lay there, and what was under way to it.
        for node in all_nodes:
            if node.moved is not None:
                self._tree.locations.record(node, node.moved)
        return failed

    def _locate(self, node: Node, *, is_last: bool) -> bool:
        """Correct the metadata of one; False if that has to wait for others, which it does not have to if *is_last*."""
        if isinstance(node, FileNode) and node.staging is not None:
            if node.staging in self._found.staging:
                return True
            if not is_last and not self._is_known(node.parent):
                return False
            node.staging = None
            if not self._find_at_home(node) and not self._search(node):
                self._miss(node)
            return True
        if node.moved is not None and self._store.beneath.is_mount_point(self._places.home(node)):
            return True  # something is mounted over it: there it is when that is unmounted
        if node.pending & Pending.MAKE and node.moved is not None:
            if not is_last and not self._is_known(node.moved[0]):
                return False
            if self._made_at(node) is not None:
                node.pending = (node.pending & ~Pending.MAKE) | Pending.MOVE | Pending.ATTRS  # perhaps without them
            else:
                self._vacate(node)
        if node.pending & Pending.MAKE:
            if not is_last and not self._is_known(node.parent):
                return False
            self._find_made(node)
            return True
        if isinstance(node, FileNode) and not self._is_at(self._places.home(node), node.home_ino):
            found = next((one for one in self._found.staging.values() if one.st_ino == node.home_ino), None)
            if found is not None:  # taken to staging for a writer, and the row still says home
                self._tree.locations.forget(node, node.moved)
                node.moved = None
                node.staging = found.id
                if not node.state.is_whole:
                    node.pending = 0  # as when it was taken there: only its commit has it carried home
                self._behind.node(node)
                return True
        if (node.pending & Pending.MOVE or node.moved is not None) and not self._find_at_home(node):
            if not is_last:
                return False
            self._search(node)
        return True

    def _vacate(self, node: Node) -> None:
        """It was not made where it was to be, so nothing can lie in it there: whatever was to follow has to be found,
        and has the place that its name says until then. None can lie in itself by that.
        """
        locations, void, inside = self._tree.locations, [node], [node.ino]
        seen: set[Node | Garbage] = {node}
        for ino in inside:  # which grows; what was removed may have some in it, too
            for other in locations.entries.get(ino, {}).values():
                if other not in seen:
                    seen.add(other)
                    inside.append(other.ino)
                    if isinstance(other, Node):
                        void.append(other)
        for item in void:
            locations.forget(item, item.moved)
            item.moved = None
            self._behind.node(item)  # else the row would say so after another batch, too

    def _is_known(self, folder: DirNode | None) -> bool:
        """Whether *folder*, None for the holding area, is where the metadata has it."""
        if folder is None:
            return True
        if folder.pending & Pending.MAKE:
            return folder.ino not in self._open
        return folder.home_ino is None or self._is_at(self._places.home(folder), folder.home_ino)

    def _miss(self, node: FileNode) -> None:
        """Its bytes are not on this disk any more."""
        same = self._found.age is Age.SAME  # else they may lie at home by now, under another number
        if node.state is State.STORED and node.object is not None:
            if same:
                only_in_s3(self._found, node)
            return
        if same:
            log.error("%s: its bytes are gone", node.path)
            self._found.report.lost.append(node.path)
        self._recreate(node)

    def _find_made(self, node: Node) -> None:
        """Whether a directory or symlink was made, but the record of it lost. Else it still is to be made."""
        if node.parent.pending & Pending.MAKE:
            return  # what lies there is in an earlier directory of that name
        info = self._made_at(node)
        if info is None:
            return
        place = (node.parent, node.name)
        occupant = self._tree.locations.occupant(place)
        if place in self._unnumbered or (occupant is not None and occupant.home_ino is None):
            return  # that was made in the batch of which no record is left, and no batch came after it
        former = self._former.get(info.st_ino)
        if former is not None and former.kind is node.kind:
            # It never left, or has, and its number was given out again: with nothing in it, it is as good as another.
            if former.with_content or self._tree.locations.entries.get(former.ino):
                return
            self._tree.locations.forget(former, former.place)
            self._forget_removed(former)
        node.home_ino = info.st_ino
        self._taken.add(info.st_ino)
        node.pending = (node.pending & ~Pending.MAKE) | Pending.ATTRS
        self._behind.node(node)

    def _made_at(self, node: Node) -> os.stat_result | None:
        """What lies where *node*, which has no number yet, was to be made; None unless it may be just that."""
        path = self._places.home(node)
        info = self._store.stat(path)
        if info is None or stat.S_IFMT(info.st_mode) != node.format or info.st_ino in self._taken:
            return None
        return None if isinstance(node, LinkNode) and self._target(path) != node.target else info

    def _target(self, path: bytes) -> bytes:
        with self._store.beneath.folder(path) as (fd, last):
            return os.readlink(last, dir_fd=fd)

    def locate_garbage(self) -> None:
        """Correct the metadata where garbage was removed, or taken to the trash, but the record of it was lost."""
        traces = [entry for entry in self._tree.garbage.values() if entry.promised & Promise.TRACE]
        for trace in sorted(traces, key=lambda entry: -entry.gid):  # directories before what was removed from them
            with self._found.aside(("garbage", trace.gid), f"removed {os.fsdecode(trace.path)}"):
                self._follow(trace)
        for entry in list(self._tree.garbage.values()):
            with self._found.aside(("garbage", entry.gid), f"removed {os.fsdecode(entry.path)}"):
                self._locate_removed(entry)
        for entry in self._tree.garbage.values():
            if entry.place is not None and self._tree.locations.occupant(entry.place) is None:
                self._tree.locations.record(entry, entry.place)

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
        here = path or self._places.at(entry.place or (None, b""))
        if self._is_at(here, entry.home_ino):
            info = self._store.stat(here) if entry.home_ino is None else None
            if info is None or stat.S_ISDIR(info.st_mode) == (entry.kind is Kind.DIR):
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
            folder = node.parent if place is None else place[0]
            if not self._is_known(folder) or (folder is not None and node.ino in self._places.way(folder)):
                continue  # a directory that lies in it is not what it lies in
            self._tree.locations.forget(node, node.moved)
            node.moved = place
            path = self._places.home(node)
            if self._is_at(path, node.home_ino):
                if node.home_ino is None and (info := self._store.stat(path)) is not None:
                    node.home_ino = info.st_ino
                    self._taken.add(info.st_ino)
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
