"""What a start finds, and how it is made whole: the reading side of the crash rules.

Rows were written before bytes moved, and carry `home_ino`, so each unsettled row has few possible truths, told apart by
looking. In order:
  1. rows with pending moves: where is the inode that `home_ino` names? the books follow;
  2. `sealing` rows: their writer had closed. Same boot: the bytes are whole, seal again. After a reboot nobody knows
     what reached the disk, whatever the size says, and they are judged like `writing` ones;
  3. `writing` rows: nobody closed. They stay, as `incomplete`. An overwrite of a committed file that was never
     fsynced goes back to the committed bytes, and the new ones are kept in lost+found;
  4. staging files no row knows, but with a label: their row was lost with the last batch. Adopted under the name on
     the label;
  5. garbage goes on its way; what was held for a file that is committed by now is released.
Nothing with bytes in it is deleted here: what fits nowhere goes to `.recfs/lost+found`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recfs.core.layout import Role, child_role, is_upload
from recfs.core.model import Kind, State, check_transition
from recfs.errors import FsError
from recfs.fs import garbage as garbage_module
from recfs.fs.diskio import thaw_path
from recfs.fs.namespace import Caller
from recfs.fs.nodes import DirNode, FileNode, Node
from recfs.fs.staging import FETCH_LABEL, Label
from recfs.ports import LIMBO_INO, Pending

if TYPE_CHECKING:
    from recfs.fs.bodies import Bodies
    from recfs.fs.garbage import Garbage
    from recfs.fs.namespace import Namespace
    from recfs.fs.places import Places
    from recfs.fs.tree import Tree
    from recfs.fs.writebehind import WriteBehind
    from recfs.ports import NodeRow, ObjectRow
    from recfs.stores.local import LocalStore, StagingFile

log = logging.getLogger("recfs.recovery")


@dataclass(slots=True)
class Report:
    """What the start did; for the log and `recfs status`."""

    resealed: list[int] = field(default_factory=list)
    unsettled: list[int] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    rolled_back: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Recovery:
    """One start's repair. Blocking disk calls are fine: nothing is mounted yet."""

    def __init__(
        self,
        tree: Tree,
        behind: WriteBehind,
        places: Places,
        bodies: Bodies,
        names: Namespace,
        store: LocalStore,
    ) -> None:
        self._tree = tree
        self._behind = behind
        self._places = places
        self._bodies = bodies
        self._names = names
        self._store = store
        self._dirs: dict[int, DirNode] = {}
        self._staging: dict[str, StagingFile] = {}
        self.report = Report()

    async def run(self) -> Report:
        """Repair, and leave the facts of this start in the catalogue."""
        facts = await self._tree.catalogue.meta()
        boot = self._store.boot_id()
        same_boot = facts.get("boot_id", boot) == boot or facts.get("clean") == "1"
        identity = self._store.identity()
        if facts.get("identity", identity) != identity:
            log.warning("the store was copied or restored: its files are taken for what their names say")
            await self._tree.catalogue.forget_home_inos()
        self._behind.meta("identity", identity)
        self._staging = self._store.scan_staging()
        if facts.get("clean") != "1":
            for staging_id in self._staging:
                thaw_path(self._store.staging(staging_id))
        await self._tree.catalogue.forget_fetches()
        await self._load_garbage()
        nodes = await self._load_unsettled()
        self._take_back_fetched()
        for node in nodes:
            self._locate(node)
        self._locate_garbage()
        for node in nodes:
            if isinstance(node, FileNode):
                self._judge(node, same_boot=same_boot)
            if node.pending:
                self.report.unsettled.append(node.ino)
        self._release_superfluous()
        await self._strays(same_boot=same_boot)
        self._behind.meta("boot_id", boot)
        self._behind.meta("clean", "0")
        await self._behind.durable()
        return self.report

    # --- loading -------------------------------------------------------------------------------------------------

    async def _load_garbage(self) -> None:
        rows = await self._tree.catalogue.garbage()
        entries = [(garbage_module.from_row(row), row) for row in rows]
        for entry, row in entries:
            if entry.kind is Kind.DIR:
                # A stand-in for the removed directory, so that what still lies in it has a path.
                ghost = DirNode(entry.ino, None, row.home_name or b"", 0, 0, 0, entry.deleted_ns, Role.INSIDE)
                ghost.unlinked = True
                self._dirs[entry.ino] = ghost
        for entry, row in entries:
            if row.home_name is not None and row.home_parent is not None:
                entry.place = (await self._folder(row.home_parent), row.home_name)
                if entry.kind is Kind.DIR:
                    self._dirs[entry.ino].moved = entry.place
            self._tree.know_garbage(entry)

    async def _folder(self, ino: int) -> DirNode | None:
        if ino == LIMBO_INO:
            return None
        return self._dirs.get(ino) or await self._tree.directory(ino)

    async def _load_unsettled(self) -> list[Node]:
        nodes: list[Node] = []
        rows: list[NodeRow] = list(await self._tree.catalogue.unsettled())
        for row in rows:
            node = await self._tree.get(row.ino)
            nodes.append(node)
            if row.home_name is not None and row.home_parent is not None:
                node.moved = (await self._folder(row.home_parent), row.home_name)
                self._tree.occupy(node, node.moved)
        # Directories first, parents before children: paths below them depend on where they really lie.
        return sorted(nodes, key=lambda node: (node.kind is not Kind.DIR, len(node.parts()), node.ino))

    # --- where things really lie ---------------------------------------------------------------------------------

    def _is_at(self, path: bytes, home_ino: int | None) -> bool:
        info = self._store.stat(path)
        return info is not None and (home_ino is None or info.st_ino == home_ino)

    def _locate(self, node: Node) -> None:
        """Correct the books where a step on disk happened but its record was lost."""
        if isinstance(node, FileNode) and node.staging is not None:
            if node.staging in self._staging:
                return
            node.staging = None
            if self._find_at_home(node) or self._search(node):
                return
            log.error("%s: its bytes are gone", node.path)
            self.report.lost.append(node.path)
            self._recreate(node)
            return
        if node.pending & Pending.MAKE:
            if node.moved is None or not self._is_at(self._places.home(node), None):
                self._tree.vacate(node, node.moved)
                node.moved = None
                self._find_made(node)
                return
            node.pending = (node.pending & ~Pending.MAKE) | Pending.MOVE
        if isinstance(node, FileNode) and not self._is_at(self._places.home(node), node.home_ino):
            found = next((one for one in self._staging.values() if one.st_ino == node.home_ino), None)
            if found is not None:  # taken to staging for a writer, and the row still says home
                self._tree.vacate(node, node.moved)
                node.moved = None
                node.staging = found.id
                self._behind.node(node)
                return
        if (node.pending & Pending.MOVE or node.moved is not None) and not self._find_at_home(node):
            self._search(node)

    def _find_made(self, node: Node) -> None:
        """Whether a directory or symlink was made, but the record of it lost. Else it still is to be made."""
        info = self._store.stat(self._places.home(node))
        if info is None or stat.S_IFMT(info.st_mode) != node.format or self._tree.occupant((node.parent, node.name)):
            return
        node.home_ino = info.st_ino
        node.pending = (node.pending & ~Pending.MAKE) | Pending.ATTRS
        self._behind.node(node)

    def _locate_garbage(self) -> None:
        """Correct the books where garbage was removed, or taken to the trash, but the record of it was lost."""
        for entry in list(self._tree.garbage.values()):
            if entry.in_trash or (entry.kind is Kind.DIR and self._tree.occupied.get(entry.ino)):
                continue
            path = self._store.staging(entry.staging) if entry.staging is not None else None
            if self._is_at(path or self._places.at(entry.place or (None, b"")), entry.home_ino):
                continue
            self._tree.vacate(entry, entry.place)
            if self._is_at(self._store.trash(entry.gid), entry.home_ino):
                entry.staging = entry.place = None
                self._behind.garbage(entry, discard=False)
            else:
                del self._tree.garbage[entry.gid]
                self._behind.purged(entry.gid)

    def _find_at_home(self, node: Node) -> bool:
        """Look for the node's inode at its old place, its new one, and in limbo."""
        old = node.moved
        limbo = (None, b"%d" % node.ino)
        for place in dict.fromkeys((old, None, limbo)):
            self._tree.vacate(node, node.moved)
            node.moved = place
            if self._is_at(self._places.home(node), node.home_ino):
                if place is None:
                    node.pending = (node.pending & ~Pending.MOVE) | Pending.ATTRS  # moved, but perhaps not dressed
                else:
                    self._tree.occupy(node, place)
                    node.pending |= Pending.MOVE
                self._behind.node(node)
                return True
        self._tree.vacate(node, node.moved)
        node.moved = old
        if old is not None:
            self._tree.occupy(node, old)
        return False

    def _search(self, node: Node) -> bool:
        """Look for the node's inode everywhere: it was renamed again while the last move was under way.

        Found, it goes to limbo, from where the settler brings it to its place. The walk is long, and rare.
        """
        found = self._store.find(node.home_ino) if node.home_ino is not None else None
        if found is None:
            if isinstance(node, DirNode):
                node.pending = Pending.MAKE
            return False
        self._tree.vacate(node, node.moved)
        node.moved = (None, b"%d" % node.ino)
        os.rename(found, self._places.home(node))
        self._tree.occupy(node, node.moved)
        node.pending |= Pending.MOVE
        self._behind.node(node)
        return True

    def _recreate(self, node: FileNode) -> None:
        """Its bytes are nowhere: an empty incomplete file says so better than an error at every open."""
        staging = self._bodies.pool.new_id()
        (fd,) = self._store.make_staging([staging])
        os.close(fd)
        self._tree.vacate(node, node.moved)
        node.moved, node.pending, node.staging = None, 0, staging
        node.home_ino = None
        self._staging[staging] = self._store.scan_staging()[staging]
        node.state, node.fsynced = State.WRITING, False  # whatever it was: neither closed nor kept
        self._tree.resize(node, 0)
        self._behind.node(node)

    # --- what became of writers ----------------------------------------------------------------------------------

    def _judge(self, node: FileNode, *, same_boot: bool) -> None:
        if node.state not in (State.WRITING, State.SEALING):
            return
        prior = next((entry for entry in self._tree.garbage.values() if entry.held_by == node.ino), None)
        if node.staging is None and not same_boot:
            # It had been taken to staging and written to, perhaps: the power cut undid the one, not all of the other.
            staging = self._bodies.pool.new_id()
            os.rename(self._places.home(node), self._store.staging(staging))
            self._tree.vacate(node, node.moved)
            node.moved, node.pending, node.staging = None, 0, staging
            self._staging = self._store.scan_staging()
        if node.staging is None:
            # Opened for writing, but not a byte changed before it was taken to staging: still whole, seal it again.
            if node.state is not State.SEALING:
                check_transition(node.state, State.SEALING)
                node.state = State.SEALING
            self._behind.node(node)
            self.report.resealed.append(node.ino)
            return
        size = self._staging[node.staging].size_bytes
        if prior is not None:
            node.prior = prior.gid
        closed = node.state is State.SEALING and same_boot
        if closed or self._closed(self._staging[node.staging], same_boot=same_boot):
            if node.state is not State.SEALING:
                check_transition(node.state, State.SEALING)
                node.state = State.SEALING
                self._behind.node(node)
            self._tree.resize(node, size)
            self.report.resealed.append(node.ino)
            return
        if prior is not None and not node.fsynced:
            self._roll_back(node, prior, same_boot=same_boot)
            return
        if node.object is not None and node.object.held and not node.fsynced:
            self._roll_back_to_object(node, node.object)
            return
        check_transition(node.state, State.INCOMPLETE)
        node.state = State.INCOMPLETE
        self._tree.resize(node, size)
        self._bodies.release_prior(node)
        self._behind.node(node)
        self.report.incomplete.append(node.path)

    def _roll_back_to_object(self, node: FileNode, held: ObjectRow) -> None:
        """An overwrite of a file whose bytes only S3 had: it has them still."""
        assert node.staging is not None
        self._keep_overwrite(self._staging.pop(node.staging), node.ino, node.path)
        check_transition(node.state, State.EVICTED)
        node.state, node.staging, node.pending, node.home_ino = State.EVICTED, None, 0, None
        node.sha256, node.md5, node.mtime_ns = held.sha256, held.md5, held.mtime_ns
        self._tree.resize(node, held.size_bytes)
        node.object = held._replace(held=0)
        self._behind.object(node.object)
        self._behind.node(node)
        self.report.rolled_back.append(node.path)

    @staticmethod
    def _closed(found: StagingFile, *, same_boot: bool) -> bool:
        """Whether the label says that these bytes were closed. After a reboot nobody vouches for what it says."""
        try:
            label = Label.decode(found.label or b"")
        except ValueError:
            return False
        return same_boot and label.closed_bytes == found.size_bytes

    def _release_superfluous(self) -> None:
        """Earlier versions whose successor is committed, or kept as incomplete, are not needed any more."""
        for entry in list(self._tree.garbage.values()):
            if entry.held_by is not None:
                node = self._tree.nodes.get(entry.held_by)
                if not isinstance(node, FileNode) or node.state is not State.SEALING:
                    entry.held_by = None
                    self._behind.garbage(entry)

    def _roll_back(self, node: FileNode, prior: Garbage, *, same_boot: bool) -> None:
        """Give the file its committed bytes back; keep what the unfinished overwrite had written."""
        assert node.staging is not None
        found = self._staging.pop(node.staging)
        self._keep_overwrite(found, node.ino, node.path)
        node.staging, node.moved = prior.staging, prior.place
        self._tree.vacate(prior, prior.place)
        if prior.in_trash:
            node.staging = self._bodies.pool.new_id()
            os.rename(self._store.trash(prior.gid), self._store.staging(node.staging))
        node.pending = 0
        if prior.sha256 is not None and (node.staging is not None or node.moved != (node.parent, node.name)):
            node.pending = Pending.MOVE
        if node.moved == (node.parent, node.name):
            node.moved = None
        if node.moved is not None:
            self._tree.occupy(node, node.moved)
        node.home_ino = prior.home_ino
        node.sha256, node.md5, node.prior = prior.sha256, prior.md5, None
        node.mtime_ns = prior.mtime_ns
        node.mode, node.uid, node.gid = prior.mode, prior.uid, prior.gid_owner
        # Not steps of the state table: the overwrite never happened, so neither did its state.
        if prior.sha256 is not None:
            node.state = State.COMMITTED
        elif same_boot:
            node.state = State.SEALING  # it had been closed, and not yet committed
            self.report.resealed.append(node.ino)
        else:
            node.state = State.INCOMPLETE
        self._tree.resize(node, prior.size_bytes)
        self._tree.garbage.pop(prior.gid, None)
        self._behind.purged(prior.gid)
        self._behind.node(node)
        self.report.rolled_back.append(node.path)

    # --- bytes without a row -------------------------------------------------------------------------------------

    def _take_back_fetched(self) -> None:
        """Whole copies from S3 that had not come home: nobody synced their bytes, and S3 has them."""
        for node in self._tree.nodes.values():
            if not isinstance(node, FileNode) or node.state is not State.STORED or node.object is None:
                continue
            found = self._staging.get(node.staging or "")
            if node.staging is None or (found is not None and not (found.label or b"").startswith(FETCH_LABEL)):
                continue
            check_transition(node.state, State.EVICTED)
            node.state, node.staging, node.pending, node.home_ino = State.EVICTED, None, 0, None
            node.object = node.object._replace(local=0)
            self._behind.object(node.object)
            self._behind.node(node)

    async def _strays(self, *, same_boot: bool) -> None:
        known = {entry.staging for entry in self._tree.garbage.values()} | await self._tree.catalogue.staged()
        of_files = {node.staging for node in self._tree.nodes.values() if isinstance(node, FileNode)}
        known |= of_files
        for found in self._staging.values():
            if found.label is not None and found.label.startswith(FETCH_LABEL):
                if found.id not in of_files:  # it may have been fetched to be changed
                    self._store.drop_staging([found.id])  # a partial copy of what S3 has
            elif found.id not in known and not await self._adopt(found, same_boot=same_boot):
                self._set_aside(found)

    def _set_aside(self, found: StagingFile) -> None:
        if found.size_bytes == 0:
            self._store.drop_staging([found.id])
            return
        os.rename(self._store.staging(found.id), self._store.lost(f"staging-{found.id}"))
        self.report.lost.append(f"lost+found/staging-{found.id}")

    async def _adopt(self, found: StagingFile, *, same_boot: bool) -> bool:
        """Make a row for a staging file from its label. False if there is none, or its place is taken."""
        if found.label is None:
            return False
        closed = self._closed(found, same_boot=same_boot)
        try:
            label = Label.decode(found.label)
            if await self._tree.catalogue.node(label.ino) is not None:
                return await self._overwrite(label.ino, found, closed=closed)
            parts = label.path.split(b"/")
            caller = Caller(label.uid, label.gid, operator=True)
            folder = await self._parent(label.parent, parts[:-1], caller)
            if await self._tree.child(folder, parts[-1]) is not None:
                return False
            child_role(folder.role, parts[-1], is_dir=False)
        except (ValueError, FsError) as error:
            log.warning("staging/%s cannot be adopted: %s", found.id, error)
            return False
        node = self._names.add_file(folder, parts[-1], label.mode, caller, upload=is_upload(folder.role, parts[-1]))
        node.staging, node.home_ino = found.id, None
        state = State.SEALING if closed else State.INCOMPLETE
        check_transition(node.state, state)
        node.state = state
        self._tree.resize(node, found.size_bytes)
        self._behind.node(node)
        if closed:
            self.report.resealed.append(node.ino)
        else:
            self.report.adopted.append(node.path)
        return True

    async def _overwrite(self, ino: int, found: StagingFile, *, closed: bool) -> bool:
        """An overwrite whose row was lost: closed, it counts; else the committed bytes stand."""
        node = await self._tree.get(ino)
        if not isinstance(node, FileNode) or not (node.state.is_whole or node.state.is_remote) or not closed:
            self._keep_overwrite(found, ino, node.path)
            return True
        entry = None if node.state.is_remote else self._bodies.set_aside(node, successor=None)
        check_transition(node.state, State.WRITING)
        node.state, node.sha256, node.md5 = State.WRITING, None, None
        if node.object is not None:
            node.object = node.object._replace(local=0)
            self._behind.object(node.object)
        if entry is not None:
            entry.held_by, node.prior = node.ino, entry.gid
        node.staging = found.id
        check_transition(node.state, State.SEALING)
        node.state = State.SEALING
        self._tree.resize(node, found.size_bytes)
        self._behind.node(node)
        self.report.resealed.append(node.ino)
        return True

    def _keep_overwrite(self, found: StagingFile, ino: int, path: str) -> None:
        """Put the bytes of an overwrite that nobody finished into lost+found."""
        if not found.size_bytes:
            self._store.drop_staging([found.id])
            return
        name = f"overwrite-{ino}-{found.id}"
        os.rename(self._store.staging(found.id), self._store.lost(name))
        self.report.lost.append(f"{path} (unfinished overwrite, in lost+found/{name})")

    async def _parent(self, ino: int, parts: list[bytes], caller: Caller) -> DirNode:
        with contextlib.suppress(FsError):
            return await self._tree.directory(ino)
        folder = self._tree.root
        for name in parts:
            child = await self._tree.child(folder, name)
            folder = child if isinstance(child, DirNode) else await self._names.mkdir(folder, name, 0o755, caller)
        return folder
