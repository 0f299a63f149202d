"""Names: create, make, link, rename. Rows at once; the home tree follows through the publisher.

Every public coroutine first awaits what it needs loaded, then checks and changes in one stretch without an await.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recfs.core.access.owners import takes_mode
from recfs.core.access.sources import check_source
from recfs.core.fallback import auto_dirs, deepest, rule_for_dir
from recfs.core.layout import Role, check_target, child_role, is_upload
from recfs.core.life import Status
from recfs.core.permissions import mode_given
from recfs.errors import (
    Busy,
    Exists,
    InvalidArgument,
    InvalidPath,
    IsADirectory,
    NotADirectory,
    NotFound,
    Stale,
)
from recfs.fs.caller import may_add, may_change, may_grow, may_take, owner_of_new
from recfs.fs.names.births import begin_life, check_brought, recall_life, sources_brought, uploads_among
from recfs.ports.rows import Pending
from recfs.state.nodes import DirNode, FileNode, LinkNode, Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.access.owners import Owner
    from recfs.fs.caller import Caller
    from recfs.fs.names.removal import Removal
    from recfs.state.accounts import Account
    from recfs.state.tree import Tree

_MOVABLE = (Role.RECORDING, Role.JOB, Role.INSIDE, Role.SHARED_DIR)
_AUTOMATIC = (Role.USER_THUMBNAILS, Role.USER_RECORDINGS)


class Namespace:
    """The tree's names and what may be done with them."""

    def __init__(self, tree: Tree, removal: Removal) -> None:
        self._tree = tree
        self._behind = tree.behind
        self.removal = removal
        self.allowed_extensions: tuple[str, ...] = ()
        """Those of sources, whoever makes them by a name from now on; () for all."""

    # --- making --------------------------------------------------------------------------------------------------

    async def absent(self, folder: DirNode, name: bytes) -> None:
        """Raise Exists when *name* is taken in *folder* (by an own entry; shown ones may be covered)."""
        if await self._tree.child(folder, name) is not None:
            raise Exists(f"{folder.path}/{os.fsdecode(name)} exists")

    def admit_file(self, folder: DirNode, name: bytes) -> bool:
        """Check level and quota for one more file; tells whether it counts as an upload. Atomic."""
        child_role(folder.role, name, is_dir=False)
        check_source(folder.role, name, self.allowed_extensions)
        upload = is_upload(folder.role, name)
        if folder.account is not None:
            folder.account.check_add_file(self._tree.clock.calendar_ns(), upload=upload)
        return upload

    def add_file(self, folder: DirNode, name: bytes, mode: int, caller: Caller, *, upload: bool) -> FileNode:
        """Enter a new empty file; the name must be absent and admitted. Atomic."""
        tree = self._tree
        now = tree.clock.now_ns()
        uid, gid = owner_of_new(folder, caller)
        if folder.mode & 0o2000:  # setgid directory, as in mkdir(2)
            gid = folder.gid
        if caller.who is not None:
            mode = mode_given(mode, gid, caller.who)
        node = FileNode(tree.new_ino(), folder, name, mode & 0o7777, uid, gid, now)
        tree.add(node)
        tree.touch(folder, now)
        if upload and folder.account is not None:
            folder.account.count_uploads(tree.clock.calendar_ns())
        return node

    async def mkdir(self, folder: DirNode, name: bytes, mode: int, caller: Caller) -> DirNode:
        """Make a directory, and what fallback rules want below it."""
        account = await self._account_for(folder, name)
        await self.absent(folder, name)  # the last to be waited for: what is made meanwhile may leave memory again
        may_change(folder, caller)
        may_grow(folder)
        may_add(folder, caller)
        if name in folder.children:
            raise Exists(f"{folder.path}/{os.fsdecode(name)} exists")
        role = child_role(folder.role, name, is_dir=True)
        owner = account.owner if account is not None and caller.by_place else None
        made = self._add_dir(folder, name, mode, caller, role, owner)
        if account is not None:
            made.account = account
        self._fit(made)
        for automatic in auto_dirs(self._tree.rules, tuple(made.parts())):
            below = self._add_dir(made, automatic, mode, caller, child_role(role, automatic, is_dir=True), owner)
            self._fit(below)
        return made

    async def _arrival(self, node: Node | None, folder: DirNode, name: bytes) -> Account | None:
        """Have in memory what a directory needs where it is to come; the account that it will be."""
        if not isinstance(node, DirNode):
            return None
        if folder.role is Role.USER_RECORDINGS:
            await recall_life(self._tree, node)
        return await self._account_for(folder, name)

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

    def _add_dir(
        self, folder: DirNode, name: bytes, mode: int, caller: Caller, role: Role, owner: Owner | None
    ) -> DirNode:
        """*owner*: whose it is, whoever makes it; None: the caller's, or the user's whose tree it comes into."""
        tree = self._tree
        now = tree.clock.now_ns()
        (uid, gid), bits = owner_of_new(folder, caller), mode & 0o1777
        if owner is None and uid != caller.uid and takes_mode(role) and folder.account is not None:
            owner = folder.account.owner
        if owner is not None:
            uid, gid, bits = owner
        elif folder.mode & 0o2000:
            gid, bits = folder.gid, bits | 0o2000
        node = DirNode(tree.new_ino(), folder, name, bits, uid, gid, now, role)
        node.pending = Pending.MAKE
        tree.add(node)
        if role is Role.RECORDING:
            begin_life(tree, node)
        tree.touch(folder, now)
        tree.activity(node)
        self._behind.publish(node)
        return node

    async def symlink(self, folder: DirNode, name: bytes, target: bytes, caller: Caller) -> LinkNode:
        """Make a symbolic link. Raises what `check_target` does, too."""
        check_target(target)
        await self.absent(folder, name)
        may_change(folder, caller)
        may_grow(folder)
        may_add(folder, caller)
        if name in folder.children:
            raise Exists(f"{folder.path}/{os.fsdecode(name)} exists")
        self.admit_file(folder, name)
        tree = self._tree
        now = tree.clock.now_ns()
        uid, gid = owner_of_new(folder, caller)
        if folder.mode & 0o2000:
            gid = folder.gid
        node = LinkNode(tree.new_ino(), folder, name, target, uid, gid, now)
        node.pending = Pending.MAKE
        tree.add(node)
        tree.touch(folder, now)
        self._behind.publish(node)
        return node

    # --- renaming ------------------------------------------------------------------------------------------------

    async def rename(
        self, old: DirNode, old_name: bytes, new: DirNode, new_name: bytes, caller: Caller,
        *, noreplace: bool, only: Node | None = None, over: Callable[[Node], bool] | None = None,
        check: Callable[[Node], None] | None = None,
    ) -> tuple[Node, Node | None]:  # fmt: skip
        """rename(2) and RENAME_NOREPLACE. Returns (moved node, replaced node). Stale where it would not be *only*.

        *over*: what alone may be replaced; Exists where something else is there. *check*: raises what is against it.
        """
        while True:
            node = await self._tree.child(old, old_name)
            account = await self._arrival(node, new, new_name)
            target = await self._tree.child(new, new_name)
            if target is not None:
                await self.removal.prepare(target)
            automatic = await self.removal.automatic(target) if isinstance(target, DirNode) else None
            brought = await sources_brought(self._tree, node, new)  # the last to be waited for
            if old.children.get(old_name) is node and new.children.get(new_name) is target:
                break  # else one of them came, went or moved meanwhile
        may_change(old, caller)
        may_change(new, caller)
        may_grow(new)
        if only is not None and node is not only:
            raise Stale(f"{old.path}/{os.fsdecode(old_name)} is another one by now")
        if node is None or node.unlinked:
            raise NotFound(f"{old.path}/{os.fsdecode(old_name)} does not exist")
        if check is not None:
            check(node)
        may_take(old, node, caller, new)
        may_add(new, caller)
        if target is not None and target.unlinked:
            target = None
        if target is node:
            return node, None
        if target is not None and (noreplace or (over is not None and not over(target))):
            raise Exists(f"{target.path} exists")
        if target is not None:
            may_take(new, target, caller)
        uploads = self._check_move(node, new, new_name, account, brought, replaced=target)
        if isinstance(node, DirNode):
            if target is not None and not isinstance(target, DirNode):
                raise NotADirectory(f"{target.path} is not a directory")
        elif isinstance(target, DirNode):
            raise IsADirectory(f"{target.path} is a directory")
        if isinstance(target, DirNode):
            if target.role <= Role.TEMP_TOP:
                raise Busy(f"{target.path} is part of every store")
            self.removal.drop_empty(target, automatic)
        elif isinstance(target, (FileNode, LinkNode)):
            self.removal.discard(target, successor=node if isinstance(node, FileNode) else None)
        self._move(node, new, new_name, account, uploads)
        return node, target

    async def exchange(
        self, old: DirNode, old_name: bytes, new: DirNode, new_name: bytes, caller: Caller
    ) -> tuple[Node, Node]:
        """RENAME_EXCHANGE: both names stay, their inodes change places."""
        while True:
            one = await self._tree.child(old, old_name)
            two = await self._tree.child(new, new_name)
            one_account = await self._arrival(one, new, new_name)
            two_account = await self._arrival(two, old, old_name)
            one_brings = await sources_brought(self._tree, one, new)
            two_brings = await sources_brought(self._tree, two, old) if not one_brings else {}  # one of them at most
            if old.children.get(old_name) is one and new.children.get(new_name) is two:
                break
        may_change(old, caller)
        may_change(new, caller)
        may_grow(old)
        may_grow(new)
        if one is None or two is None or one.unlinked or two.unlinked:
            raise NotFound("both names must exist to be exchanged")
        if one is two:
            return one, two
        may_take(old, one, caller, new)
        may_take(new, two, caller, old)
        one_uploads = self._check_move(one, new, new_name, one_account, one_brings, replaced=two)
        two_uploads = self._check_move(two, old, old_name, two_account, two_brings, replaced=one)
        placeholder = b"\0"  # a name nobody can have, for the moment both nodes need the other's
        self._move(two, two.parent, placeholder, two_account)
        self._move(one, new, new_name, one_account, one_uploads)
        self._move(two, old, old_name, two_account, two_uploads)
        return one, two

    def _check_move(
        self, node: Node, new: DirNode, new_name: bytes, account: Account | None, brought: dict[bytes, bool],
        *, replaced: Node | None,
    ) -> int:  # fmt: skip
        """Raise what is against a move; the uploads that a directory brings. Atomic."""
        role = child_role(new.role, new_name, is_dir=isinstance(node, DirNode))
        if not isinstance(node, DirNode):
            check_source(new.role, new_name, self.allowed_extensions)
        else:
            if node.role != role and not (node.role in _MOVABLE and role in _MOVABLE):
                raise InvalidPath(f"{node.path}: this level of the tree keeps its place")
            if node.role in _AUTOMATIC and node.parent is not new:
                raise InvalidPath(f"{node.path}: this level of the tree keeps its place")
            if node.role <= Role.TEMP_TOP:
                raise Busy(f"{node.path} is part of every store")
            if node.role is Role.RECORDING and node.life is not None and node.life.status is Status.REMOVING:
                raise Busy(f"{node.path} is being removed")
            check_brought(node, brought, self.allowed_extensions)
            if role is not Role.RECORDING and node.role is Role.RECORDING:
                may_grow(node)  # as a directory of another recording it could be written to, and would not go
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
        uploads = uploads_among(brought)
        if isinstance(node, FileNode) and not is_upload(node.parent.role, node.name):
            uploads = int(is_upload(new.role, new_name))
        if goes_to is not None and uploads:
            goes_to.check_uploads(self._tree.clock.calendar_ns(), uploads)
        return uploads

    def _move(self, node: Node, new: DirNode, new_name: bytes, account: Account | None, uploads: int = 0) -> None:
        """*uploads*: so many come into being by that."""
        tree, behind = self._tree, self._behind
        old, old_name, now = node.parent, node.name, tree.clock.now_ns()
        at_home = not node.pending & Pending.MAKE and getattr(node, "staging", None) is None
        if isinstance(node, FileNode) and node.state.is_remote:
            at_home = False
        if at_home and node.moved is None:
            node.moved = (old, old_name)
            tree.locations.record(node, node.moved)
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
            tree.locations.forget(node, node.moved)
            node.moved = None
            node.pending &= ~Pending.MOVE
        elif at_home:
            node.pending |= Pending.MOVE
        if isinstance(node, DirNode):
            tree.paths.moved()
            node.role = child_role(new.role, new_name, is_dir=True) if new_name != b"\0" else node.role
            self._rebase(node, account)
        if uploads and new.account is not None:
            new.account.count_uploads(tree.clock.calendar_ns(), uploads)
            behind.account(new.account)
        node.ctime_ns = now
        tree.touch(old, now)
        tree.touch(new, now)
        if tree.ledger is not None:
            tree.ledger.changed(node.ino)
        if node.pending:
            behind.publish(node)
        else:
            behind.node(node)

    async def has_moved(self, node: Node, new: DirNode, new_name: bytes) -> None:
        """The entry has another name on the disk, and had not in the catalogue: the row follows.

        Raises Exists where that name is another's, and what a rename may.
        """
        account = await self._account_for(new, new_name) if isinstance(node, DirNode) else None
        await self.absent(new, new_name)
        child_role(new.role, new_name, is_dir=isinstance(node, DirNode))
        old, old_name = node.parent, node.name
        becomes_upload = isinstance(node, FileNode) and is_upload(new.role, new_name)
        self._move(node, new, new_name, account, int(becomes_upload and not is_upload(old.role, old_name)))
        if node.moved is not None:
            self._tree.locations.forget(node, node.moved)
            node.moved = None
        node.pending &= ~Pending.MOVE
        self._behind.node(node)
        self._tree.events.renamed(node, old, old_name)

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
            node.recording = node if node.role is Role.RECORDING else parent.recording
            if node.role is Role.RECORDING and node.life is None:
                begin_life(self._tree, node)
            whiteouts = node.whiteouts
            self._fit(node, depth)
            node.whiteouts = whiteouts
            for child in node.children.values():
                if isinstance(child, DirNode):
                    child.role = child_role(node.role, child.name, is_dir=True)
                    pairs.append((child, None, depth + 1))


def _weight(node: Node) -> tuple[int, int]:
    """(bytes, files) a node adds to the directory it is in."""
    if isinstance(node, DirNode):
        return node.rbytes, node.rfiles
    return (node.bytes if isinstance(node, FileNode) else 0), 1
