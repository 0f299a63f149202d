"""Names: create, make, link, remove, rename. Rows at once; the home tree follows through the settler.

Every public coroutine first awaits what it needs loaded, then checks and changes in one stretch without an await.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.fallback import auto_dirs, deepest, rule_for_dir
from recfs.core.layout import Role, child_role, is_upload
from recfs.errors import (
    Busy,
    Exists,
    InvalidArgument,
    InvalidPath,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    ReadOnlyFile,
    Stale,
)
from recfs.ports.rows import Pending
from recfs.state.nodes import DirNode, FileNode, Garbage, LinkNode, Node

if TYPE_CHECKING:
    from recfs.disk.backing_files import BackingFiles
    from recfs.state.accounts import Account
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind

_MOVABLE = (Role.RECORDING, Role.JOB, Role.INSIDE, Role.SHARED_DIR)
_SHARED = (Role.SHARED_TOP, Role.SHARED_DIR)
_AUTOMATIC = (Role.USER_THUMBNAILS, Role.USER_RECORDINGS)


class Caller(NamedTuple):
    """Who asks: from the request's context (fuse_req_ctx), or the daemon itself."""

    uid: int
    gid: int
    umask: int = 0
    operator: bool = False
    pid: int = 0
    """Its thread; 0 where the kernel cannot say (another pid namespace)."""


class Namespace:
    """The tree's names and what may be done with them."""

    def __init__(self, tree: Tree, behind: WriteBehind, backing_files: BackingFiles) -> None:
        self._tree = tree
        self._behind = behind
        self._backing_files = backing_files

    # --- making --------------------------------------------------------------------------------------------------

    async def absent(self, folder: DirNode, name: bytes) -> None:
        """Raise Exists when *name* is taken in *folder* (by an own entry; shown ones may be covered)."""
        if await self._tree.child(folder, name) is not None:
            raise Exists(f"{folder.path}/{os.fsdecode(name)} exists")

    def may_change(self, folder: DirNode, caller: Caller) -> None:
        """Raise when *caller* may not change names in *folder*. Permission bits are checked by the kernel."""
        if folder.unlinked:
            raise NotFound(f"{folder.path} was removed")
        if folder.role in _SHARED and not caller.operator:
            raise ReadOnlyFile(f"{folder.path}: shared files are changed by the operator alone")

    def admit_file(self, folder: DirNode, name: bytes) -> bool:
        """Check level and quota for one more file; tells whether it counts as an upload. Atomic."""
        child_role(folder.role, name, is_dir=False)
        upload = is_upload(folder.role, name)
        if folder.account is not None:
            folder.account.check_add_file(self._tree.clock.calendar_ns(), upload=upload)
        return upload

    def add_file(self, folder: DirNode, name: bytes, mode: int, caller: Caller, *, upload: bool) -> FileNode:
        """Enter a new empty file; the name must be absent and admitted. Atomic."""
        tree = self._tree
        now = tree.clock.now_ns()
        gid = folder.gid if folder.mode & 0o2000 else caller.gid  # setgid directory, as in mkdir(2)
        node = FileNode(tree.new_ino(), folder, name, mode & 0o7777, caller.uid, gid, now)
        tree.add(node)
        tree.touch(folder, now)
        if upload and folder.account is not None:
            folder.account.count_upload(tree.clock.calendar_ns())
        return node

    async def mkdir(self, folder: DirNode, name: bytes, mode: int, caller: Caller) -> DirNode:
        """Make a directory, and what fallback rules want below it."""
        await self.absent(folder, name)
        account = await self._account_for(folder, name)
        self.may_change(folder, caller)
        if name in folder.children:
            raise Exists(f"{folder.path}/{os.fsdecode(name)} exists")
        role = child_role(folder.role, name, is_dir=True)
        made = self._add_dir(folder, name, mode, caller, role)
        if account is not None:
            made.account = account
        self._fit(made)
        for automatic in auto_dirs(self._tree.rules, tuple(made.parts())):
            below = self._add_dir(made, automatic, mode, caller, child_role(role, automatic, is_dir=True))
            self._fit(below)
        return made

    async def _account_for(self, folder: DirNode, name: bytes) -> Account | None:
        if folder.role in (Role.USERS_TOP, Role.TEMP_TOP):
            child_role(folder.role, name, is_dir=True)
            return await self._tree.accounts.load(name.decode("ascii"))
        return None

    def _fit(self, folder: DirNode, depth: int | None = None) -> None:
        """Give a directory its fallback rule. *depth*, if known, saves the path of one too deep for any rule."""
        rules = self._tree.rules
        matters = bool(rules) and (depth is None or depth <= deepest(rules))
        folder.fallback = rule_for_dir(rules, tuple(folder.parts())) if matters else None
        folder.whiteouts = set()

    def _add_dir(self, folder: DirNode, name: bytes, mode: int, caller: Caller, role: Role) -> DirNode:
        tree = self._tree
        now = tree.clock.now_ns()
        gid, bits = caller.gid, mode & 0o1777
        if folder.mode & 0o2000:
            gid, bits = folder.gid, bits | 0o2000
        node = DirNode(tree.new_ino(), folder, name, bits, caller.uid, gid, now, role)
        node.pending = Pending.MAKE
        tree.add(node)
        tree.touch(folder, now)
        tree.activity(node)
        self._behind.settle(node)
        return node

    async def symlink(self, folder: DirNode, name: bytes, target: bytes, caller: Caller) -> LinkNode:
        """Make a symbolic link."""
        await self.absent(folder, name)
        self.may_change(folder, caller)
        if name in folder.children:
            raise Exists(f"{folder.path}/{os.fsdecode(name)} exists")
        self.admit_file(folder, name)
        tree = self._tree
        now = tree.clock.now_ns()
        gid = folder.gid if folder.mode & 0o2000 else caller.gid
        node = LinkNode(tree.new_ino(), folder, name, target, caller.uid, gid, now)
        node.pending = Pending.MAKE
        tree.add(node)
        tree.touch(folder, now)
        self._behind.settle(node)
        return node

    # --- removing ------------------------------------------------------------------------------------------------

    async def unlink(self, folder: DirNode, name: bytes, caller: Caller) -> Node | None:
        """Remove a file or symlink; None when only a shown one can be meant."""
        node = await self._tree.child(folder, name)
        self.may_change(folder, caller)
        if node is None or node.unlinked:
            return None
        if isinstance(node, DirNode):
            raise IsADirectory(f"{node.path} is a directory")
        assert isinstance(node, (FileNode, LinkNode))
        self.discard(node, successor=None)
        self._behind.returned(node)
        return node

    def discard(self, node: FileNode | LinkNode, *, successor: FileNode | None) -> None:
        """Take the name away; the bytes become garbage. *successor*: the file that takes over the name. Atomic."""
        tree = self._tree
        folder, now = node.parent, tree.clock.now_ns()
        if isinstance(node, FileNode):
            if not node.state.is_remote:
                node.remains = self._backing_files.versions.replace(node, successor)
            tree.events.removed(node, successor)
        elif not node.pending & Pending.MAKE:
            self._entry_garbage(node)
        tree.remove(node)
        node.ctime_ns = now
        tree.touch(folder, now)

    def _entry_garbage(self, node: Node) -> None:
        entry = Garbage(
            self._tree.new_gid(), node.ino, node.kind, b"/".join(node.parts()), self._tree.clock.steady_ns()
        )
        entry.home_ino = node.home_ino
        self._backing_files.versions.hand_over(node, entry)
        self._tree.know_garbage(entry)
        self._behind.garbage(entry)

    async def rmdir(self, folder: DirNode, name: bytes, caller: Caller) -> DirNode:
        """Remove a directory that has no entry of its own; what is shown in it is not in it."""
        while True:
            node = await self._tree.child(folder, name)
            if node is None:
                raise NotFound(f"{folder.path}/{os.fsdecode(name)} does not exist")
            if not isinstance(node, DirNode):
                raise NotADirectory(f"{node.path} is not a directory")
            automatic = await self._automatic(node)
            if folder.children.get(name) is node:
                break  # else it was removed or renamed meanwhile
        self.may_change(folder, caller)
        if node.unlinked:
            raise NotFound(f"{node.path} was removed")
        if node.role <= Role.TEMP_TOP:
            raise Busy(f"{node.path} is part of every store")
        self._drop_empty(node, automatic)
        self._behind.returned(node)
        return node

    async def _automatic(self, node: DirNode) -> list[DirNode] | None:
        """The directories that came with *node* and were never used, if nothing else is in it; None if something is.

        What comes into it from now on is loaded, and found by `_drop_empty`.
        """
        while True:
            if await self._tree.is_empty(node):
                return []
            if node.role is not Role.USER:
                return None
            found = [await self._tree.child(node, name) for name in auto_dirs(self._tree.rules, tuple(node.parts()))]
            below = [child for child in found if isinstance(child, DirNode)]
            if len(below) != len([child for child in found if child is not None]):
                return None
            for child in below:
                if not await self._tree.is_empty(child):
                    return None
            names = {child.name for child in below}
            if not await self._only(node, names) or not node.children.keys() <= names:
                return None
            if all(node.children.get(child.name) is child for child in below):
                return below
            # One of them was unloaded, removed or renamed while the catalogue was asked: what is in it now?

    def _drop_empty(self, node: DirNode, automatic: list[DirNode] | None) -> None:
        """Remove a directory, and those that came with it. Raises NotEmpty if anything else is in it by now. Atomic."""
        if (
            automatic is None
            or any(child not in automatic for child in node.children.values())
            or any(child.children for child in automatic)
        ):
            raise NotEmpty(f"{node.path} is not empty")
        for child in automatic:
            if node.children.get(child.name) is child:
                self._drop_dir(child)
        self._drop_dir(node)

    async def remove_again(self, ino: int) -> str | None:
        """Remove what was removed before the daemon died, if its row is still there; the path it had. Atomic after the
        load. A directory in which something is goes nowhere.
        """
        try:
            node = await self._tree.get(ino)
        except Stale:
            return None
        path = node.path
        if isinstance(node, (FileNode, LinkNode)):
            self.discard(node, successor=None)
            return path
        if isinstance(node, DirNode) and node.role > Role.TEMP_TOP:
            automatic = await self._automatic(node)
            if automatic is not None and not node.unlinked:
                self._drop_empty(node, automatic)
                return path
        return None

    async def _only(self, node: DirNode, names: set[bytes]) -> bool:
        if node.complete:
            return True
        page = await self._tree.page(node, 0, len(names) + 1)
        return {entry.name for entry in page} == names

    def _drop_dir(self, node: DirNode) -> None:
        tree = self._tree
        now = tree.clock.now_ns()
        place = node.moved if node.moved is not None else (node.parent, node.name)
        if not node.pending & Pending.MAKE:
            self._entry_garbage(node)
            # Garbage below it still finds its way through this object.
            node.moved = place
        tree.remove(node)
        tree.touch(node.parent, now)

    # --- renaming ------------------------------------------------------------------------------------------------

    async def rename(
        self, old: DirNode, old_name: bytes, new: DirNode, new_name: bytes, caller: Caller, *, noreplace: bool
    ) -> tuple[Node, Node | None]:
        """rename(2) and RENAME_NOREPLACE. Returns (moved node, replaced node)."""
        while True:
            node = await self._tree.child(old, old_name)
            target = await self._tree.child(new, new_name)
            account = await self._account_for(new, new_name) if isinstance(node, DirNode) else None
            automatic = await self._automatic(target) if isinstance(target, DirNode) else None
            if old.children.get(old_name) is node and new.children.get(new_name) is target:
                break  # else one of them came, went or moved meanwhile
        self.may_change(old, caller)
        self.may_change(new, caller)
        if node is None or node.unlinked:
            raise NotFound(f"{old.path}/{os.fsdecode(old_name)} does not exist")
        if target is not None and target.unlinked:
            target = None
        if target is node:
            return node, None
        if target is not None and noreplace:
            raise Exists(f"{target.path} exists")
        self._check_move(node, new, new_name, account, replaced=target)
        if isinstance(node, DirNode):
            if target is not None and not isinstance(target, DirNode):
                raise NotADirectory(f"{target.path} is not a directory")
        elif isinstance(target, DirNode):
            raise IsADirectory(f"{target.path} is a directory")
        if isinstance(target, DirNode):
            if target.role <= Role.TEMP_TOP:
                raise Busy(f"{target.path} is part of every store")
            self._drop_empty(target, automatic)
        elif isinstance(target, (FileNode, LinkNode)):
            self.discard(target, successor=node if isinstance(node, FileNode) else None)
        self._move(node, new, new_name, account)
        return node, target

    async def exchange(
        self, old: DirNode, old_name: bytes, new: DirNode, new_name: bytes, caller: Caller
    ) -> tuple[Node, Node]:
        """RENAME_EXCHANGE: both names stay, their inodes change places."""
        while True:
            one = await self._tree.child(old, old_name)
            two = await self._tree.child(new, new_name)
            one_account = await self._account_for(new, new_name) if isinstance(one, DirNode) else None
            two_account = await self._account_for(old, old_name) if isinstance(two, DirNode) else None
            if old.children.get(old_name) is one and new.children.get(new_name) is two:
                break
        self.may_change(old, caller)
        self.may_change(new, caller)
        if one is None or two is None or one.unlinked or two.unlinked:
            raise NotFound("both names must exist to be exchanged")
        if one is two:
            return one, two
        self._check_move(one, new, new_name, one_account, replaced=two)
        self._check_move(two, old, old_name, two_account, replaced=one)
        placeholder = b"\0"  # a name nobody can have, for the moment both nodes need the other's
        self._move(two, two.parent, placeholder, two_account)
        self._move(one, new, new_name, one_account)
        self._move(two, old, old_name, two_account)
        return one, two

    def _check_move(
        self, node: Node, new: DirNode, new_name: bytes, account: Account | None, *, replaced: Node | None
    ) -> None:
        role = child_role(new.role, new_name, is_dir=isinstance(node, DirNode))
        if isinstance(node, DirNode):
            if node.role != role and not (node.role in _MOVABLE and role in _MOVABLE):
                raise InvalidPath(f"{node.path}: this level of the tree keeps its place")
            if node.role in _AUTOMATIC and node.parent is not new:
                raise InvalidPath(f"{node.path}: this level of the tree keeps its place")
            if node.role <= Role.TEMP_TOP:
                raise Busy(f"{node.path} is part of every store")
            step: DirNode = new
            while step.parent is not step:
                if step is node:
                    raise InvalidArgument(f"{node.path} cannot be moved into itself")
                step = step.parent
        goes_to = account if account is not None else new.account
        comes_from = node.account if isinstance(node, DirNode) else node.parent.account
        if goes_to is not None and goes_to is not comes_from:
            weight, freed = _weight(node), _weight(replaced) if replaced is not None else (0, 0)
            goes_to.check_room(weight[0] - freed[0], weight[1] - freed[1])
        becomes_upload = isinstance(node, FileNode) and is_upload(new.role, new_name)
        if goes_to is not None and becomes_upload and not is_upload(node.parent.role, node.name):
            goes_to.check_upload(self._tree.clock.calendar_ns())

    def _move(self, node: Node, new: DirNode, new_name: bytes, account: Account | None) -> None:
        tree, behind = self._tree, self._behind
        old, old_name, now = node.parent, node.name, tree.clock.now_ns()
        was_upload = isinstance(node, FileNode) and is_upload(old.role, old_name)
        at_home = not node.pending & Pending.MAKE and getattr(node, "staging", None) is None
        if isinstance(node, FileNode) and node.state.is_remote:
            at_home = False
        if at_home and node.moved is None:
            node.moved = (old, old_name)
            tree.record_location(node, node.moved)
        del old.children[old_name]
        weight = _weight(node)
        if isinstance(node, DirNode) and node.role in (Role.USER, Role.TEMP_USER):
            # The directory itself carries the account: the totals above change, the charge moves explicitly.
            self._recharge(node, account, weight)
        if old is not new:
            tree.charge(old, -weight[0], -weight[1])
        node.parent, node.name = new, new_name
        new.children[new_name] = node
        if old is not new:
            tree.charge(new, *weight)
        if at_home and node.moved == (new, new_name):
            tree.forget_location(node, node.moved)
            node.moved = None
            node.pending &= ~Pending.MOVE
        elif at_home:
            node.pending |= Pending.MOVE
        if isinstance(node, DirNode):
            node.role = child_role(new.role, new_name, is_dir=True) if new_name != b"\0" else node.role
            self._rebase(node, account)
        elif not was_upload and new.account is not None and is_upload(new.role, new_name):
            new.account.count_upload(tree.clock.calendar_ns())
            behind.account(new.account)
        node.ctime_ns = now
        tree.touch(old, now)
        tree.touch(new, now)
        if node.pending:
            behind.settle(node)
        else:
            behind.node(node)

    def _recharge(self, node: DirNode, account: Account | None, weight: tuple[int, int]) -> None:
        before = node.account
        if account is None or before is account or before is None:
            return
        before.used_bytes -= weight[0]
        before.used_files -= weight[1]
        account.used_bytes += weight[0]
        account.used_files += weight[1]
        self._behind.account(before)
        self._behind.account(account)

    def _rebase(self, folder: DirNode, account: Account | None) -> None:
        """Give a moved directory, and every loaded one below it, what its new path implies."""
        pairs: list[tuple[DirNode, Account | None, int]] = [(folder, account, len(folder.parts()))]
        while pairs:
            node, own, depth = pairs.pop()
            parent = node.parent
            node.account = own if own is not None else parent.account
            node.job = node if node.role is Role.JOB else parent.job
            if node.role is Role.JOB:
                node.activity_ns = max(node.activity_ns, self._tree.clock.steady_ns())
            else:
                node.activity_ns = 0
            whiteouts = node.whiteouts
            self._fit(node, depth)
            node.whiteouts = whiteouts if node.fallback is not None else set()
            for child in node.children.values():
                if isinstance(child, DirNode):
                    child.role = child_role(node.role, child.name, is_dir=True)
                    pairs.append((child, None, depth + 1))


def _weight(node: Node) -> tuple[int, int]:
    """(bytes, files) a node adds to the directory it is in."""
    if isinstance(node, DirNode):
        return node.rbytes, node.rfiles
    return (node.bytes if isinstance(node, FileNode) else 0), 1
