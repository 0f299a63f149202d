"""What is to be done to the home tree, and the next batch of it: steps in an order in which each finds its place free.

Everything here is atomic: no await. A batch is planned in turns (`HomePlan.extend`), and others have theirs in between:
to them, what is planned is under way already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recfs.core.layout import is_temporary
from recfs.core.model import Kind
from recfs.ports.rows import Pending, Promise
from recfs.state.nodes import DirNode, FileNode, Garbage, LinkNode, Node
from recfs.state.work.turns import Turn
from recfs.stores.steps import Attrs, Step, StepKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.disk.home.inuse import InUse
    from recfs.disk.home.path_resolver import PathResolver, Place
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore

BATCH_ITEMS = 256
PLAN_S = 0.02
"""How long a batch may be planned, all turns together: what is planned keeps those waiting who need just that."""


@dataclass(slots=True)
class Job:
    """One planned step, and how to take its bookkeeping back."""

    step: Step
    item: Node | Garbage
    staging: str | None = None
    place: Place | None = None
    pending: int = 0
    purges: bool = False


@dataclass(slots=True)
class Plan:
    """A batch, as far as it is planned."""

    nodes_left: int
    """How many of the entries that there were when planning began have yet to be looked at, of those with a row …"""
    garbage_left: int
    """… and of garbage."""
    spent_s: float = 0.0
    """How long it was planned."""
    jobs: list[Job] = field(default_factory=list)
    moving: set[int] = field(default_factory=set)
    planning: set[int] = field(default_factory=set)
    discarding: set[int] = field(default_factory=set)
    folder: tuple[DirNode, bytes] | None = None
    """The directory that a file was planned to come home to last in this turn, and where it lies."""
    waits_for: int = 0
    """Inode number of the file in use that kept the item planned last from being planned; 0: none did."""

    def is_whole(self, turn: Turn) -> bool:
        """Whether nothing more belongs to it, with what was planned in *turn*, which is under way."""
        left = self.nodes_left > 0 or self.garbage_left > 0
        full = len(self.jobs) >= BATCH_ITEMS or (bool(self.jobs) and self.spent_s + turn.spent_s >= PLAN_S)
        return full or not left


_Planning = Generator[Any, Any, bool]
"""Planning one item: yields the planning of what has to be planned before it, and gets its result: False when it has to
wait, and then so has what builds on it."""


def _drive(planning: _Planning) -> bool:
    """Carry planning out. What comes before what may be as deep as the tree, so no call is made inside a call."""
    stack, result = [planning], None
    while stack:
        try:
            stack.append(stack[-1].send(result))
            result = None  # a generator that begins is sent nothing
        except StopIteration as end:
            stack.pop()
            result = end.value
    return bool(result)


class HomePlan:
    """Entries that are not where their rows want them."""

    def __init__(
        self, tree: Tree, places: PathResolver, store: LocalStore, in_use: InUse,
        set_aside: Callable[[Node | Garbage, Exception], None], *, retention_s: float,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._places = places
        self._store = store
        self._in_use = in_use
        self._set_aside = set_aside
        self.retention_s = retention_s
        # The first of many is found and taken out at once, which it would not be in a dict.
        self.nodes: OrderedDict[int, None] = OrderedDict()
        self.garbage: OrderedDict[int, Garbage] = OrderedDict()
        self.expired: set[int] = set()
        """Garbage whose retention is over."""
        self._parked: dict[int, dict[tuple[str, int], None]] = {}
        """What waits for a file in use, by its inode number: the file itself, and what needs its place."""
        self._above_used: dict[int, set[int]] = {}
        """Directories that cannot go before files in use do, which lie in them or deeper; by inode numbers."""

    @property
    def waiting(self) -> int:
        """How many entries wait for files in use."""
        return sum(map(len, self._parked.values()))

    def take_up(self, ino: int) -> bool:
        """The file is in use no more: what waited for it is planned with the next batch. Tells whether anything did."""
        if ino not in self._parked:
            return False
        keys = self._parked.pop(ino)
        for what, number in keys:
            if what == "node":
                self.nodes[number] = None
            elif number in self._tree.garbage:
                self.garbage[number] = self._tree.garbage[number]
        if keys:
            above = {folder: used - {ino} for folder, used in self._above_used.items()}
            self._above_used = {folder: used for folder, used in above.items() if used}
        return bool(keys)

    def _park(self, plan: Plan, item: Node | Garbage, ino: int = 0) -> bool:
        """Leave *item* alone until the file *ino*, or the one met last, is in use no more. False: it is not planned."""
        if ino:
            plan.waits_for = ino
            folder = item.place[0] if isinstance(item, Garbage) and item.place is not None else None
            if isinstance(item, Node):
                folder = item.moved[0] if item.moved is not None else None
            while folder is not None and folder.parent is not folder:
                self._above_used.setdefault(folder.ino, set()).add(ino)
                folder = folder.moved[0] if folder.moved is not None else folder.parent
        parked = self._parked.setdefault(plan.waits_for, {})
        if isinstance(item, Garbage):
            self.garbage.pop(item.gid, None)
            parked["garbage", item.gid] = None
        else:
            self.nodes.pop(item.ino, None)
            plan.planning.discard(item.ino)
            parked["node", item.ino] = None
        return False

    def begin(self) -> Plan:
        """The next batch, of what there is now; nothing is planned yet."""
        return Plan(len(self.nodes), len(self.garbage))

    def extend(self, plan: Plan) -> bool:
        """Plan for a turn: the metadata says then where what is planned will lie. Tells whether there is more."""
        turn = Turn()
        plan.folder = None  # others had theirs, and may have moved it
        while not plan.is_whole(turn):
            if plan.nodes_left > 0:
                plan.nodes_left -= 1
                self._plan_first_node(plan)
            else:
                plan.garbage_left -= 1
                self._plan_first_garbage(plan)
            if turn.is_over:
                break
        plan.spent_s += turn.spent_s
        turn.begin()
        return not plan.is_whole(turn)

    def _plan_first_node(self, plan: Plan) -> None:
        if not self.nodes:
            return
        ino, _ = self.nodes.popitem(last=False)
        node = self._tree.nodes.get(ino)
        if node is not None:
            try:
                if not isinstance(node, FileNode) or not self._bring_home(plan, node):
                    plan.folder = None
                    _drive(self._plan_node(plan, node))
            except Exception as error:  # whatever it is, it is this entry's
                plan.planning.discard(ino)
                self._set_aside(node, error)

    def _bring_home(self, plan: Plan, node: FileNode) -> bool:
        """Plan what nearly all files need: bytes that are whole go from staging to a place that is free, in a directory
        that is where it is to be. False: nothing is planned, and there is more to be looked at (`_plan_node`).
        """
        folder, pending = node.parent, node.pending
        if node.staging is None or node.moved is not None or not pending & Pending.MOVE or pending & Pending.MAKE:
            return False
        if node.unlinked or not node.state.is_whole or self._in_use.has(node):
            return False
        if (
            folder.ino in self._tree.locations.entries
            and self._tree.locations.occupant((folder, node.name)) is not None
        ):
            return False
        if plan.folder is None or plan.folder[0] is not folder:
            if any(each.pending & (Pending.MAKE | Pending.MOVE) for each in self._above(node)):
                return False
            plan.folder = folder, self._places.home(folder)
        attrs = Attrs(node.mode, node.uid, node.gid, node.atime_ns, node.mtime_ns)
        source, home = self._store.staging(node.staging), plan.folder[1] + b"/" + node.name
        step = Step(StepKind.MOVE, source, home, attrs, node.home_ino, None, False)
        plan.jobs.append(Job(step, node, node.staging, None, pending))
        self._move_books(plan, node)
        return True

    def _plan_first_garbage(self, plan: Plan) -> None:
        if not self.garbage:
            return
        gid, entry = next(iter(self.garbage.items()))
        plan.folder = None
        try:
            is_planned = _drive(self._plan_garbage(plan, entry))
        except Exception as error:
            self.garbage.pop(gid, None)
            plan.discarding.discard(gid)
            self._set_aside(entry, error)
            return
        if is_planned:
            self.garbage.pop(gid, None)
        elif gid in self.garbage:
            self.garbage.move_to_end(gid)  # it waits: the others first

    def _plan_node(self, plan: Plan, node: Node) -> _Planning:
        if node.unlinked or not node.pending or node.ino in plan.planning:
            return True
        if isinstance(node, FileNode) and self._in_use.has(node):
            return self._park(plan, node, node.ino)
        above = self._above(node)
        if node.moved is not None and any(folder.ino in plan.planning for folder in above):
            # It has to make room for one of these, and cannot go into it before; nor is what is between made before.
            self._hold(plan, node)
            return True
        plan.planning.add(node.ino)
        for folder in reversed(above):
            if folder.pending & (Pending.MAKE | Pending.MOVE) and not (yield self._plan_node(plan, folder)):
                return self._park(plan, node)
        places = self._places
        attrs: Attrs | None = Attrs(node.mode, node.uid, node.gid, node.atime_ns, node.mtime_ns)
        target: Place = (node.parent, node.name)
        if isinstance(node, FileNode) and node.staging is not None and not node.state.is_whole:
            node.pending = 0  # it comes home when it is committed
        elif node.pending & Pending.MAKE:
            if not (yield self._clear(plan, node, target)):
                return self._park(plan, node)
            path = places.home(node)
            kind = StepKind.MKDIR if isinstance(node, DirNode) else StepKind.SYMLINK
            link = node.target if isinstance(node, LinkNode) else b""
            plan.jobs.append(Job(Step(kind, path, attrs=attrs, symlink_target=link), node, pending=node.pending))
            self._move_books(plan, node)
        elif node.pending & Pending.MOVE and (node.moved is not None or getattr(node, "staging", None) is not None):
            if not (yield self._clear(plan, node, target)):
                return self._park(plan, node)
            source, home = places.local(node), places.at(target)
            is_dir = isinstance(node, DirNode)
            if node.moved is not None and not node.pending & Pending.ATTRS:
                attrs = None  # it has them; and if somebody has changed it, they tell
            step = Step(StepKind.MOVE, source, home, attrs, node.home_ino, is_dir=is_dir)
            plan.jobs.append(Job(step, node, getattr(node, "staging", None), node.moved, node.pending))
            self._move_books(plan, node)
        else:
            path = places.home(node)
            step = Step(StepKind.ATTRS, path, attrs=attrs, home_ino=node.home_ino, is_dir=isinstance(node, DirNode))
            plan.jobs.append(Job(step, node, pending=node.pending))
            node.publishing, node.pending = node.pending, 0
        plan.planning.discard(node.ino)
        return True

    @staticmethod
    def _above(node: Node) -> list[DirNode]:
        """The directories above *node*, nearest first."""
        above: list[DirNode] = []
        while node.parent is not node:
            node = node.parent
            above.append(node)
        return above

    def _move_books(self, plan: Plan, node: Node) -> None:
        """From now on the metadata says that *node* lies at its logical place."""
        plan.moving.add(node.ino)
        self._tree.locations.forget(node, node.moved)
        if node.moved is not None:
            self._tree.locations.leaves(node.ino, node.moved)
        node.moved = None
        node.publishing, node.pending = node.pending, 0
        if isinstance(node, FileNode):
            node.staging = None

    def _clear(self, plan: Plan, node: Node, target: Place) -> _Planning:
        """Make sure nothing of ours physically lies at *target*."""
        occupant = self._tree.locations.occupant(target)
        if occupant is None or occupant is node:
            return True
        if isinstance(occupant, Garbage):
            if not (yield self._plan_garbage(plan, occupant, force=True)):
                return False
            self.garbage.pop(occupant.gid, None)
        elif occupant.ino in plan.planning:
            self._hold(plan, occupant)  # two names that change places
        elif not (yield self._plan_node(plan, occupant)):
            return False
        return True

    def _hold(self, plan: Plan, node: Node) -> None:
        places = self._places
        source, before = places.home(node), node.moved
        self._tree.locations.forget(node, node.moved)
        self._tree.locations.leaves(node.ino, before if before is not None else (node.parent, node.name))
        node.moved = (None, b"%d" % node.ino)
        self._tree.locations.record(node, node.moved)
        plan.moving.add(node.ino)
        step = Step(StepKind.MOVE, source, places.home(node), home_ino=node.home_ino, is_dir=isinstance(node, DirNode))
        plan.jobs.append(Job(step, node, None, before, node.pending))
        self.nodes[node.ino] = None

    def _make_way(self, plan: Plan, node: Node) -> bool:
        """Have *node* leave the directory that it still lies in, which goes: not for its place, since what is planned
        before that may need the place of the directory, or be in it, too.
        """
        if isinstance(node, FileNode) and self._in_use.has(node):
            return self._park(plan, node, node.ino)
        self._hold(plan, node)
        return True

    def _plan_garbage(self, plan: Plan, entry: Garbage, *, force: bool = False) -> _Planning:
        """Plan the entry's way out; False when it has to wait."""
        if entry.gid not in self._tree.garbage or entry.gid in plan.discarding:
            return True
        if entry.held_by is not None and not force:
            return True
        if self._in_use.has_remains(entry) and not self.stays(entry):
            return self._park(plan, entry, entry.ino)
        places = self._places
        if entry.kind is Kind.DIR:
            inside = self._tree.locations.entries.get(entry.ino)
            if inside and not force:
                used = self._above_used.get(entry.ino)
                if used:
                    plan.waits_for = min(used)
                    self._park(plan, entry)
                return False
            plan.discarding.add(entry.gid)
            for occupant in list((inside or {}).values()):
                if isinstance(occupant, Node):
                    planned = self._make_way(plan, occupant)
                else:
                    planned = yield self._plan_garbage(plan, occupant, force=True)
                if not planned:
                    plan.discarding.discard(entry.gid)
                    return self._park(plan, entry)
                if isinstance(occupant, Garbage):
                    self.garbage.pop(occupant.gid, None)
            assert entry.place is not None
            path = places.at(entry.place)
            if entry.with_content:  # it leaves its name at once, however much is in it (`emptying.py`)
                to = self._store.trash(entry.gid)
                step = Step(StepKind.MOVE, path, to, home_ino=entry.home_ino, is_dir=True)
                plan.jobs.append(Job(step, entry, None, entry.place))
            else:
                step = Step(StepKind.RMDIR, path, home_ino=entry.home_ino)
                plan.jobs.append(Job(step, entry, None, entry.place, purges=True))
            self._tree.locations.forget(entry, entry.place)
            return True
        plan.discarding.add(entry.gid)
        if entry.staging is not None:
            path = self._store.staging(entry.staging)
        elif entry.place is not None:
            path = places.at(entry.place)
        else:
            path = self._store.trash(entry.gid)
        # What stands in the home tree may be somebody else's, who was given the inode number.
        size = None  # known of committed bytes alone; 0 stands for those of which another copy is kept
        if entry.place is not None and entry.sha256 is not None:
            size = entry.size_bytes or None
        if self._is_kept(entry) and entry.promised & Promise.DAMAGED:
            size = None  # it may have another one than was committed, and nothing is lost by keeping it
        if self._is_kept(entry):
            if entry.in_trash:
                return True
            step = Step(
                StepKind.MOVE,
                path,
                self._store.trash(entry.gid),
                home_ino=entry.home_ino,
                size_bytes=size,
                is_dir=False,
            )
            plan.jobs.append(Job(step, entry, entry.staging, entry.place))
            self._tree.locations.forget(entry, entry.place)
        else:
            step = Step(StepKind.REMOVE, path, home_ino=entry.home_ino, size_bytes=size, is_dir=False)
            plan.jobs.append(Job(step, entry, entry.staging, entry.place, purges=True))
            self._tree.locations.forget(entry, entry.place)
        return True

    def _is_kept(self, entry: Garbage) -> bool:
        """Whether its place is the trash."""
        if entry.held_by is not None:
            return True
        retained = self.retention_s > 0 and entry.kind is Kind.FILE and entry.size_bytes > 0
        return retained and entry.gid not in self.expired and not is_temporary(entry.path)

    def stays(self, entry: Garbage) -> bool:
        """Whether it lies in the trash, and is to lie there."""
        return entry.in_trash and self._is_kept(entry)
