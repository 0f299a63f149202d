"""The order of a start's repair, and the rows it begins with."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.core.generation import AT, Age, Mark, age_of, count_of
from recfs.core.layout import Role
from recfs.core.model import Kind
from recfs.disk.diskio import thaw_path
from recfs.errors import IoFailure, StoreError
from recfs.fs.recovery.comparison import SAID, Comparison, sentences
from recfs.fs.recovery.finds import Finds, Report
from recfs.fs.recovery.reconciling import Reconciling
from recfs.fs.recovery.strays import Strays
from recfs.fs.recovery.whereabouts import Whereabouts
from recfs.fs.recovery.writers import Writers
from recfs.ports.rows import HOLDING_INO, Pending, Promise
from recfs.state.nodes import DirNode, FileNode, Garbage, Node
from recfs.state.tree import INO_RESERVE
from recfs.stores.local import MARK_XATTR
from recfs.stores.mounted import require_bare

if TYPE_CHECKING:
    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.home.path_resolver import PathResolver, Place
    from recfs.fs.names.namespace import Namespace
    from recfs.fs.survivors import Survivors
    from recfs.ports.rows import NodeRow
    from recfs.state.generations import Generations
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.recovery")

WRITTEN = "restored_written"
"""Fact of a catalogue that is put back: when the backup was written last, until all of it has been compared."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The catalogue was put back by `recfs restore-catalogue`."""

    forget: bool
    """Whether rows of files that are nowhere go."""
    done: Callable[[], None]
    """Called when all of it has been compared, and that is durable."""


class Recovery:
    """One start's repair. Blocking disk calls are fine: nothing is mounted yet."""

    def __init__(
        self,
        tree: Tree,
        behind: WriteBehind,
        places: PathResolver,
        backing_files: BackingFiles,
        names: Namespace,
        store: LocalStore,
        survivors: Survivors,
        generations: Generations,
        restored: Restored | None = None,
        kept_open: frozenset[int] = frozenset(),
        *,
        rows_come_first: bool = False,
    ) -> None:
        """*restored*: the catalogue was put back on purpose, whatever the marks tell.

        *kept_open*: inode numbers of files that are open for writing on the mount which this daemon goes on with.
        *rows_come_first*: the last daemon of it answered nothing that was not in the catalogue.
        """
        self._generations = generations
        self._restored = restored
        self._kept_open = kept_open
        self._mark: Mark | None = None
        self._comparison: Comparison | None = None
        self._found = Finds(
            tree, behind, places, backing_files, names, store, survivors,
            kept_open=kept_open, rows_come_first=rows_come_first,
        )  # fmt: skip
        self._tree = tree
        self._behind = behind
        self._names = names
        self._store = store
        self._same_boot = True

    async def run(self) -> Report:
        """Find out what became of everything that rows tell of. What may have lost its name has it until `end`."""
        whereabouts, writers, strays = Whereabouts(self._found), Writers(self._found), Strays(self._found)
        facts = await self._tree.catalogue.meta()
        boot = self._store.boot_id()
        clean = facts.get("clean") == "1"
        same_boot = self._same_boot = facts.get("boot_id", boot) == boot or clean
        identity = self._store.identity()
        copied = facts.get("identity", identity) != identity
        self._mark = Mark.decode(self._store.tree_mark())
        age = self._found.report.age = age_of(facts, self._mark, boot)
        if age is Age.FOREIGN:
            raise StoreError(
                f"store {self._store.root}: its catalogue and its home tree belong to two stores. Put the catalogue"
                f" back that belongs to the tree. If they are to be one store all the same: setfattr -x {MARK_XATTR}"
                f" {self._store.root}/users"
            )
        written_ns = count_of(facts, AT)
        if self._restored is not None:
            age = self._found.report.age = Age.CATALOGUE_OLDER
            # What this restore writes itself is later; one that died goes on with the time of the backup.
            written_ns = self._found.report.written_ns = count_of(facts, WRITTEN) or written_ns
            self._behind.meta(WRITTEN, str(written_ns))
        if age is not Age.SAME or copied:
            require_bare(self._store.root)
            log.warning("%s: its files are taken for what they are and what their names say", SAID[age])
            self._comparison = Comparison(self._found, written_ns)
        if age is not Age.SAME and self._mark is not None:
            clean, same_boot = False, self._mark.boot == boot
            self._same_boot = same_boot
            self._tree.skip_inos(self._mark.next_ino + INO_RESERVE)
        if copied:
            await self._tree.catalogue.forget_home_inos()
        self._found.removed = dict.fromkeys(self._store.removals.left(boot))
        self._behind.meta("identity", identity)
        self._found.rescan()
        if not clean and not self._kept_open:  # else none was stopped for good
            for staging_id in self._found.staging:
                with self._found.aside(("thaw", staging_id), f"staging/{staging_id}"):
                    thaw_path(self._store.staging(staging_id))
        await self._tree.catalogue.forget_fetches()
        await self._load_garbage()
        if age is not Age.SAME and self._comparison is not None:
            self._comparison.forget_garbage()
            await self._comparison.forget_deletions()
        nodes = await self._load_unsettled()
        strays.take_back_fetched()
        whereabouts.share_no_staging(nodes)
        failed = whereabouts.locate_all(nodes)
        whereabouts.locate_garbage()
        for node in nodes:
            # In a catalogue of another time it is decided by what lies at home, when everything has its place.
            if isinstance(node, FileNode) and (age is Age.SAME or node.staging is not None):
                is_done = node.ino in failed
                if not is_done:
                    with self._found.aside(node.ino, node.path):
                        writers.recover(node, same_boot=same_boot)
                        is_done = True
                if not is_done or node.ino in failed:
                    writers.leave(node)
            if node.pending:
                self._found.report.unpublished.append(node.ino)
        writers.release_superfluous()
        await self._behind.flush()
        return self._found.report

    async def end(self) -> None:
        """Remove again what had been removed, adopt what no row knows, and record the facts of this start.

        The parts for S3 are in place by now: what is removed may have to go there, too.
        """
        boot = self._store.boot_id()
        report = self._found.report
        for ino in self._found.removed:
            with self._found.aside(("removed", ino), f"inode {ino}"):
                path = await self._names.removal.remove_again(ino)
                if path is not None:
                    report.removed.append(path)
            left = self._tree.nodes.get(ino)
            if isinstance(left, FileNode):
                Writers(self._found).leave(left)
        if self._comparison is not None:
            await self._compare(self._comparison)
        await Strays(self._found).adopt_all(same_boot=self._same_boot)
        with self._found.aside("trash", "the trash"):
            Whereabouts(self._found).forget_what_left_the_trash()
        if self._comparison is not None:
            report.said = list(sentences(report))
            if report.said or report.age is not Age.SAME:
                report.said.insert(0, SAID[report.age])
        report.resealed[:] = [ino for ino in report.resealed if ino in self._tree.nodes]
        self._behind.meta("boot_id", boot)
        self._behind.meta("clean", "0")
        if self._restored is not None:
            self._behind.meta(WRITTEN, "0")
        await self._behind.durable()
        await self._generations.begin(await self._tree.catalogue.meta(), self._mark, boot, self._tree.next_ino)
        if self._restored is not None:
            self._restored.done()
        self._store.removals.begin(boot)
        self._behind.removals = self._store.removals

    async def _compare(self, comparison: Comparison) -> None:
        if self._restored is None:
            await comparison.run()
            return
        reconciling = Reconciling(self._found, comparison)
        await reconciling.run()
        await comparison.run()
        await reconciling.end(forget=self._restored.forget)

    # --- loading -------------------------------------------------------------------------------------------------

    async def _load_garbage(self) -> None:
        rows = await self._tree.catalogue.garbage()
        for row in rows:
            self._tree.skip_gid(row.gid)  # those that cannot be understood keep their numbers
        entries = [(Garbage.from_row(row), row) for row in rows]
        for entry, row in entries:
            if entry.kind is Kind.DIR:
                # A stand-in for the removed directory, so that what still lies in it has a path.
                placeholder = DirNode(entry.ino, None, row.home_name or b"", 0, 0, 0, entry.deleted_ns, Role.INSIDE)
                placeholder.unlinked, placeholder.home_ino = True, entry.home_ino
                self._found.dirs[entry.ino] = placeholder
        for entry, row in entries:
            with self._found.aside(("garbage", row.gid), f"removed {os.fsdecode(row.path)}"):
                if row.home_name is not None and row.home_parent is not None:
                    entry.place = (await self._folder(row.home_parent), row.home_name)
                    if entry.kind is Kind.DIR and not entry.promised & Promise.TRACE:
                        self._put(self._found.dirs[entry.ino], entry.place)
                self._tree.know_garbage(entry)

    @staticmethod
    def _put(node: Node, place: Place) -> None:
        """Enter where a row says that it lies. Raises IoFailure if that is in itself: its path had no end."""
        folder, before = place[0], node.moved if node.moved is not place else None
        node.moved = place
        passed: set[Node] = {node}
        while folder is not None and folder not in passed:
            passed.add(folder)
            above = folder.moved[0] if folder.moved is not None else folder.parent
            if above is folder:
                return
            folder = above
        if folder is not None:
            node.moved = before
            raise IoFailure(f"the catalogue has {os.fsdecode(node.name)!r} lie inside itself")

    async def _folder(self, ino: int) -> DirNode | None:
        if ino == HOLDING_INO:
            return None
        return self._found.dirs.get(ino) or await self._tree.directory(ino)

    async def _load_unsettled(self) -> list[Node]:
        nodes: list[Node] = []
        rows: list[NodeRow] = list(await self._tree.catalogue.unsettled())
        for row in rows:
            with self._found.aside(row.ino, f"inode {row.ino}, {os.fsdecode(row.name)!r} in inode {row.parent}"):
                node = await self._tree.get(row.ino)
                here = row.placement
                if here.home_name is not None and here.home_parent is not None:
                    node.moved = (await self._folder(here.home_parent), here.home_name)
                nodes.append(node)
        # Only when all of them are known: directories may have changed places with those that they lay in.
        for node, place in [(node, node.moved) for node in nodes if node.moved is not None]:
            try:
                self._put(node, place)
            except IoFailure:  # rows of several moments of one batch: its number tells where it lies
                self._tree.locations.forget(node, place)
                node.moved = None
                node.pending |= 0 if node.pending & Pending.MAKE else Pending.MOVE
            else:
                self._tree.locations.record(node, place)
        # Directories first, parents before children: paths below them depend on where they really lie.
        return sorted(nodes, key=lambda node: (node.kind is not Kind.DIR, len(node.parts()), node.ino))
