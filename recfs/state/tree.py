"""The tree in memory: which inodes are loaded, how they are found, and what they add up to.

Invariants; `check_invariants` looks after T1, T2 and the first half of T4:
  T1  a loaded node's parent is loaded, and has it in `children` under its name (unless unlinked);
  T2  a complete directory's `rbytes`/`rfiles` are the totals of its children;
  T3  what is dirty, open, pending or physically elsewhere stays loaded;
  T4  `locations` holds the physical places that differ from the logical ones, and no others.
"""

from __future__ import annotations

import sys
from operator import attrgetter
from typing import TYPE_CHECKING

from recfs.core import fallback
from recfs.core.bounds import MAX_INT
from recfs.core.layout import TOP_DIRS, Role, child_role
from recfs.core.life import RECORDINGS_SINCE, Status, recordings_since, unrecorded
from recfs.core.model import Kind
from recfs.core.retention import CHANGED_EVERY_NS
from recfs.errors import InvalidPath, IoFailure, NameTooLong, NotADirectory, RecfsError, Stale
from recfs.ports.rows import ROOT_INO
from recfs.state.events import Events
from recfs.state.events.paths import KeptPaths
from recfs.state.locations import Locations
from recfs.state.memory import Memory
from recfs.state.nameless.orphans import Orphans
from recfs.state.nameless.removed import Removed
from recfs.state.nodes import DirNode, FileNode, Garbage, Node, from_row, is_gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from recfs.core.fallback import FallbackRule
    from recfs.ports.catalogue import Catalogue
    from recfs.ports.clock import Clock
    from recfs.ports.rows import NodeRow
    from recfs.state.accounts import Accounts
    from recfs.state.ledger import Ledger
    from recfs.state.writebehind import WriteBehind

INO_RESERVE = 100_000
"""Inode numbers reserved ahead in the catalogue, so that none is used twice even if the last batch is lost."""


_OWNED = (Role.USER, Role.TEMP_USER)
_by_ino = attrgetter("ino")


class Tree:
    """Loaded inodes over the catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        behind: WriteBehind,
        accounts: Accounts,
        clock: Clock,
        *,
        rules: Sequence[FallbackRule] = (),
        cached_inodes: int = 200_000,
        owner: tuple[int, int] = (0, 0),
        operator: int | None = None,
    ) -> None:
        # dependencies
        self.catalogue = catalogue
        self.behind = behind
        self.accounts = accounts
        self.clock = clock
        self.events = Events()
        """Told of what becomes of files."""
        # constant
        self.rules = tuple(rules)
        self.owner = owner  # uid and gid of what is nobody else's
        self._operator = operator
        # mutable
        self.nodes: dict[int, Node] = {}
        self.memory = Memory(self.nodes, behind, cached_inodes)
        self.orphans = Orphans()
        self.garbage = Removed(accounts)
        self.locations = Locations()
        self.paths = KeptPaths()
        self.ledger: Ledger | None = None
        """What the next daemon is told, if this one may die at any moment and leave the mount to it."""
        self.shown_ids: dict[int, int] = {}
        self.shown_inos: dict[int, int] = {}
        self._recordings_since_ns = 0
        self._next_ino = ROOT_INO + 1
        self._ino_ceiling = 0
        self._next_gid = 1

    # --- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the root and the fixed levels, or make them in a new store."""
        facts = await self.catalogue.meta()
        # Whatever became of that fact: a number of something that is there is not given out.
        told = facts.get("next_ino", "")
        self._next_ino = max(int(told) if told.isdecimal() else 0, await self.catalogue.highest_ino() + 1, ROOT_INO + 1)
        self._ino_ceiling = self._next_ino
        self._reserve()
        for view_id, ino in await self.catalogue.views():
            self.shown_ids[ino], self.shown_inos[view_id] = view_id, ino
        since = recordings_since(facts)
        if since is None:
            since = self.clock.steady_ns()
            self.behind.meta(RECORDINGS_SINCE, str(since))
        self._recordings_since_ns = min(since, self.clock.steady_ns())
        now = self.clock.now_ns()
        row = await self.catalogue.node(ROOT_INO)
        if row is None:
            self.root = DirNode(ROOT_INO, None, b"", 0o755, *self.owner, now, Role.ROOT)
            self.nodes[ROOT_INO] = self.root
            self.behind.node(self.root)
            uid, gid = self.owner
            for name, role in TOP_DIRS.items():
                owner = self._operator if role is Role.SHARED_TOP and self._operator is not None else uid
                self.add(DirNode(self.new_ino(), self.root, name, 0o755, owner, gid, now, role))
        else:
            root = from_row(row, None, Role.ROOT)
            assert isinstance(root, DirNode)
            root.rbytes = await self._bytes_of(row)
            self.root = self.nodes[ROOT_INO] = root

    async def _bytes_of(self, row: NodeRow) -> int:
        """Size of a file, total of a directory: added up anew where it is beyond what the row can say."""
        if row.size_bytes < MAX_INT or row.kind is not Kind.DIR:
            return row.size_bytes
        return await self.catalogue.bytes_below(row.ino)

    def new_ino(self) -> int:
        """An inode number that was never used."""
        ino = self._next_ino
        self._next_ino = ino + 1
        if ino + INO_RESERVE // 2 > self._ino_ceiling:
            self._reserve()
        return ino

    @property
    def next_ino(self) -> int:
        """Inode numbers below were given out, or are reserved."""
        return self._ino_ceiling

    def skip_inos(self, below: int) -> None:
        """Give out no inode number *below* this one."""
        if below > self._next_ino:
            self._next_ino = below
            self._reserve()

    def _reserve(self) -> None:
        self._ino_ceiling = self._next_ino + INO_RESERVE
        self.behind.meta("next_ino", str(self._ino_ceiling))

    def new_gid(self) -> int:
        """The number of a new garbage entry; above all that are known."""
        gid = self._next_gid
        self._next_gid = gid + 1
        return gid

    def skip_gid(self, gid: int) -> None:
        """Give out no number up to this one."""
        self._next_gid = max(self._next_gid, gid + 1)

    def know_garbage(self, entry: Garbage) -> None:
        """Keep track of *entry* until it is purged."""
        self.garbage[entry.gid] = entry
        if entry.gid >= self._next_gid:
            self.skip_gid(entry.gid)
        if entry.place is not None:
            self.locations.record(entry, entry.place)

    # --- finding -------------------------------------------------------------------------------------------------

    async def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """The user's extended attributes of *node*, loaded if need be. Raises IoFailure."""
        while node.xattrs is None:
            written = self.behind.written
            loaded = await self.catalogue.xattrs(node.ino)
            if written == self.behind.written and node.xattrs is None:
                node.xattrs = loaded  # else they may have been changed meanwhile, written, and have left memory
        return node.xattrs

    async def get(self, ino: int) -> Node:
        """The node of *ino*, loaded if need be. Raises Stale when there is none."""
        node = self.nodes.get(ino)
        return node if node is not None else await self._load(ino)

    async def _load(self, ino: int) -> Node:
        # A file handle says what whoever made it likes (open_by_handle_at(2)), also what no inode number is.
        node = await self._find(lambda: self.catalogue.node(ino)) if 0 < ino <= MAX_INT else None
        if node is None:
            raise Stale(f"inode {ino} is gone")
        return node

    async def _load_folder(self, ino: int) -> Node:
        """Load a directory and those above it, from the top down: they may be more than calls can be nested."""
        above: dict[int, None] = {}
        each = ino
        while each not in self.nodes:
            if each in above:
                raise IoFailure(f"the catalogue has directory {each} inside itself")
            above[each] = None
            row = await self.catalogue.node(each)
            if row is None:
                raise Stale(f"inode {each} is gone")
            each = row.parent
        node: Node | None = self.nodes[each]
        for each in reversed(above):
            node = await self._find(lambda ino=each: self.catalogue.node(ino))  # type: ignore[misc]
        if node is None:
            raise Stale(f"inode {ino} is gone")
        return node

    async def _find(self, read: Callable[[], Awaitable[NodeRow | None]]) -> Node | None:
        """The node of the row that *read* finds; None when there is none, or none any more."""
        while True:
            written = self.behind.written
            row = await read()
            if row is None:
                if written == self.behind.written:
                    return None
                continue  # it may have been made meanwhile, and have left memory
            try:
                parent = self.nodes.get(row.parent) or await self._load_folder(row.parent)
            except Stale:
                if written == self.behind.written:
                    raise
                continue  # both are gone
            if not isinstance(parent, DirNode):
                raise Stale(f"inode {row.ino} lies in inode {row.parent}, which is no directory")
            role = _role(row, parent)
            account = await self.accounts.load(row.name.decode("ascii")) if role in _OWNED else None
            in_s3 = await self.catalogue.object(row.ino) if row.has_object else None
            life = await self.catalogue.recording(row.ino) if role is Role.RECORDING else None
            size = await self._bytes_of(row) if row.size_bytes >= MAX_INT else row.size_bytes
            if written == self.behind.written:
                break  # else what was read may be outdated, and nothing would tell
        # Memory knows better than the row: renamed or unlinked since the last batch.
        known = self.nodes.get(row.ino)
        if known is not None or self.behind.is_dirty(row.ino):
            return known
        node = from_row(row, parent, role)
        if isinstance(node, FileNode):
            node.object = in_s3
        elif isinstance(node, DirNode):
            node.rbytes = size
            if account is not None:
                node.account = account
            if role is Role.RECORDING:
                node.life = life or unrecorded(self._recordings_since_ns)
            node.fallback = fallback.rule_for_dir(self.rules, tuple(node.parts())) if self.rules else None
        self.nodes[row.ino] = node
        parent.children[row.name] = node
        return node

    def entered(self, folder: DirNode, entry: Node | NodeRow, written: int) -> Node | None:
        """The node of an entry that `page` gave, loaded as its row says; None: `child` has to be asked. Atomic.

        *written*: `WriteBehind.written` when the page was there. Of a row that may be outdated nothing is believed.
        """
        known = folder.children.get(entry.name)
        if known is not None or isinstance(entry, Node):
            return known
        if written != self.behind.written or folder.unlinked or entry.kind is Kind.DIR or entry.has_object:
            return None
        if entry.ino in self.nodes or self.behind.is_dirty(entry.ino):
            return None  # renamed or removed since
        node = from_row(entry, folder, _role(entry, folder))
        self.nodes[entry.ino] = folder.children[entry.name] = node
        return node

    async def directory(self, ino: int) -> DirNode:
        """The directory *ino*, a removed one that the kernel still knows included. Raises Stale or NotADirectory."""
        node = self.nodes.get(ino) or self.orphans.get(ino) or await self._load(ino)
        if not isinstance(node, DirNode):
            raise NotADirectory(f"{node.path} is not a directory")
        return node

    async def child(self, folder: DirNode, name: bytes) -> Node | None:
        """The entry called *name*, or None."""
        node = folder.children.get(name)
        if node is not None or folder.complete:
            return node
        await self._find(lambda: self.catalogue.child(folder.ino, name))
        return folder.children.get(name)

    async def walk(self, parts: Sequence[bytes]) -> Node | None:
        """The node at a mount path, or None."""
        node: Node | None = self.root
        for name in parts:
            if not isinstance(node, DirNode):
                return None
            node = await self.child(node, name)
        return node

    def snapshot(self, folder: DirNode) -> list[Node]:
        """All entries of a complete directory, in order of ino."""
        return sorted(folder.children.values(), key=_by_ino)

    async def page(self, folder: DirNode, after_ino: int, limit: int, *, placed: bool = False) -> list[Node | NodeRow]:
        """Entries of an incomplete directory with ino > *after_ino*, by ino: nodes where loaded, rows otherwise.

        Rows as of `Catalogue.children`. A large directory is not loaded into memory just because somebody lists it.
        None of a directory that lost its name: what rows there still are below it belong to the publisher.
        """
        if folder.unlinked:
            return []
        is_written = True
        try:
            await self.behind.flush()
        except RecfsError:
            # The catalogue cannot be written now (a full disk, say): what is listed must not depend on that.
            is_written = False
        while True:
            written = self.behind.written
            rows = await self.catalogue.children(folder.ino, after_ino, limit, placed=placed)
            if is_gone(folder):
                return []
            if written != self.behind.written:
                continue
            page = self._merged(folder, rows) if is_written else self._with_dirty(folder, after_ino, rows, limit)
            if page or len(rows) < limit:
                return page
            after_ino = rows[-1].ino  # all of these are gone, or elsewhere

    def _merged(self, folder: DirNode, rows: Sequence[NodeRow]) -> list[Node | NodeRow]:
        page: list[Node | NodeRow] = []
        for row in rows:
            node = self.nodes.get(row.ino)
            if node is None and not self.behind.is_dirty(row.ino):
                page.append(row)
            elif node is not None and node.parent is folder:
                page.append(node)
        return page

    def _with_dirty(self, folder: DirNode, after_ino: int, rows: Sequence[NodeRow], limit: int) -> list[Node | NodeRow]:
        """The same with what has no row yet."""
        merged = {row.ino: row for row in rows if row.ino not in self.nodes and not self.behind.is_dirty(row.ino)}
        last = rows[-1].ino if len(rows) == limit else sys.maxsize
        own = (node for node in folder.children.values() if after_ino < node.ino <= last)
        return sorted([*merged.values(), *own], key=_by_ino)

    async def is_empty(self, folder: DirNode) -> bool:
        """Whether *folder* has no entry of its own."""
        if folder.children:
            return False
        return folder.complete or not await self.page(folder, 0, 1)

    # --- changing (atomic: no await) -----------------------------------------------------------------------------

    def add(self, node: Node) -> None:
        """Enter a new node under its parent and count it."""
        parent = node.parent
        self.nodes[node.ino] = node
        parent.children[node.name] = node
        if not isinstance(node, DirNode):
            self.charge(parent, node.bytes if isinstance(node, FileNode) else 0, 1)
        self.behind.node(node)
        if self.ledger is not None:
            self.ledger.changed(node.ino)

    def remove(self, node: Node) -> None:
        """Take the name and the row away, and give back what it was charged for."""
        parent = node.parent
        del parent.children[node.name]
        self.nodes.pop(node.ino, None)
        node.unlinked = True
        self.orphans.add(node)
        if not isinstance(node, DirNode):
            self.charge(parent, -node.bytes if isinstance(node, FileNode) else 0, -1)
        self.behind.removed(node)
        if self.ledger is not None:
            self.ledger.changed(node.ino)
        self.shown_inos.pop(self.shown_ids.pop(node.ino, 0), None)

    def remove_with_content(self, folder: DirNode) -> None:
        """Take the name of a directory away, and with it those of all files in it. None of them is loaded.

        Its own row goes at once; those of the files are left to who removes their bytes (`WriteBehind.emptied`).
        """
        assert not folder.children, f"{folder.path}: what is loaded would have a name still"
        self.charge(folder, -folder.rbytes, -folder.rfiles)
        folder.complete = True
        self.remove(folder)

    def charge(self, folder: DirNode, added_bytes: int, added_files: int) -> None:
        """Add to the owner's counters and to the totals of *folder* and everything above it."""
        behind = self.behind
        account = folder.account
        if account is not None:
            account.used_bytes += added_bytes
            account.used_files += added_files
            behind.account(account)
        behind.totals(folder, added_bytes, added_files)

    def resize(self, node: FileNode, size: int) -> None:
        """Set the logical size and charge the difference; an unlinked file is nobody's.

        The row is marked with the counters: a batch with one of them only would leave them wrong after a death.
        """
        added = size - node.bytes
        node.bytes = size
        if added and not node.unlinked:
            self.behind.node(node)
            self.charge(node.parent, added, 0)

    def touch(self, folder: DirNode, now_ns: int) -> None:
        """The entries of *folder* changed."""
        folder.mtime_ns = folder.ctime_ns = now_ns
        self.behind.node(folder)
        self.activity(folder)

    def activity(self, folder: DirNode) -> None:
        """Something inside a temp job or a recording changed. While a recording is expired, nothing counts."""
        job = folder.job
        if job is not None and (now_ns := self.clock.steady_ns()) > job.activity_ns:
            job.activity_ns = now_ns
            self.behind.node(job)
        top = folder.recording
        if top is not None and top.life is not None and top.life.status is Status.ACTIVE:
            now_ns = self.clock.steady_ns()
            if now_ns > top.life.changed_ns:
                top.life = top.life._replace(changed_ns=now_ns + CHANGED_EVERY_NS)
                self.behind.recording(top)

    # --- truth ---------------------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Raise AssertionError when memory contradicts itself. For tests; walks everything loaded."""
        nodes = self.nodes
        for ino, node in nodes.items():
            parent = node.parent
            assert node.ino == ino, f"inode {ino}: loaded as {node.ino}"
            assert not node.unlinked, f"inode {ino}: unlinked but loaded"
            assert parent.ino in nodes, f"T1: {node.path}: parent not loaded"
            assert parent is node or parent.children.get(node.name) is node, f"T1: {node.path}"
            if isinstance(node, DirNode) and node.complete:
                rbytes = rfiles = 0
                for child in node.children.values():
                    if isinstance(child, DirNode):
                        if not child.complete:
                            break
                        rbytes, rfiles = rbytes + child.rbytes, rfiles + child.rfiles
                    else:
                        rbytes += child.bytes if isinstance(child, FileNode) else 0
                        rfiles += 1
                else:
                    assert (rbytes, rfiles) == (node.rbytes, node.rfiles), f"T2: {node.path}"
            if node.moved is not None:
                assert self.locations.occupant(node.moved) is node, f"T4: {node.path}"


def _role(row: NodeRow, parent: DirNode) -> Role:
    try:
        return child_role(parent.role, row.name, is_dir=row.kind == "dir")
    except (InvalidPath, NameTooLong):
        return Role.INSIDE
