"""Users who are told apart by uid: gives them their directories, and takes those away again.

The mapping is a part of the user's account (`core/owners.py`). It is on stable storage before anything in the tree
follows, and goes last: what a death of the daemon interrupts is done again by the same command.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.access.owners import DEFAULT_MODE, Owner, check_owner
from recfs.core.layout import is_id
from recfs.core.retention import Now, protected
from recfs.errors import (
    Busy,
    Exists,
    InvalidArgument,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    RecfsError,
    TryAgain,
)
from recfs.fs.attributes import Changes
from recfs.fs.caller import Caller
from recfs.state.nodes import DirNode
from recfs.stores.presence import is_exposed

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.ports.reports import Reports, Snapshot
    from recfs.state.accounts import Account

log = logging.getLogger("recfs.users")

TOPS = (b"users", b"temp")
"""Directories in which a user has one."""
KERNEL_FLUSH_S = 5.0
"""How long a command waits at most until the kernel knows: it may be busy with the very directory."""
CLOSED = 0o700
TRIES = 3
"""How often a directory is looked for that somebody makes or removes at the same time."""
_ROOT = Caller(0, 0, operator=True, by_place=True)


class Fate(Enum):
    """What becomes of the files of a user who is removed."""

    REFUSE = "refuse"
    """There are to be none."""
    DELETE = "delete"
    KEEP = "keep"
    """They stay where they are, and root alone gets at them."""


@dataclass(frozen=True, slots=True)
class Added:
    """What came of adding a user."""

    owner: Owner
    notes: list[str]
    """What the operator should know of it."""


class Users:
    """Adds and removes them, one at a time."""

    def __init__(
        self, vfs: Vfs, kernel: KernelCache, reports: Reports, operators: frozenset[int], root: Path,
        *, gives_owners: bool,
    ) -> None:  # fmt: skip
        """*gives_owners*: whether the daemon can give files to others (chown(2))."""
        self._root = root
        self._vfs = vfs
        self._tree = vfs.tree
        self._kernel = kernel
        self._reports = reports
        self._operators = operators
        self._gives_owners = gives_owners
        self._turn = trio.Lock()

    # --- adding --------------------------------------------------------------------------------------------------

    async def add(self, user: str, uid: int | None, gid: int | None, mode: int | None) -> Added:
        """Give a user a uid, and directories of that uid; of one who has some, change what is given.

        None: as it is, else as users/<id> is, else (gid) the same number as the uid, (mode) 0700. Raises
        InvalidArgument, Exists where the uid is another user's, NotPermitted where the daemon cannot give files away.
        """
        _require_id(user)
        if not self._gives_owners:
            raise NotPermitted("the daemon does not run as root: it cannot give files to other users")
        async with self._turn:
            account = await self._tree.accounts.load(user)
            there = await self._folder(b"users", user)
            owner = self._owner(user, account, there, uid, gid, mode)
            check_owner(owner, self._operators)
            notes = await self._others(user, owner)
            if there is not None and there.uid not in (owner.uid, *self._operators):
                notes.append(f"users/{user} was uid {there.uid}'s: what lies in it keeps its owners")
            elif there is not None and there.uid != owner.uid and there.rfiles:
                notes.append(
                    f"what lies in users/{user} keeps its owners; chown -R {owner.uid}:{owner.gid} gives it away"
                )
            if is_exposed(self._root):
                notes.append(f"users can enter {self._root} and work past the mount and its quotas: chmod 700 it")
            account.owner = owner
            self._vfs.behind.account(account)
            await self._vfs.behind.durable()
            await self._give(user, owner)
            await self._settled()
        log.info("user %s is uid %d, gid %d, with directories of mode %04o", user, *owner)
        return Added(owner, notes)

    def _owner(
        self, user: str, account: Account, there: DirNode | None, uid: int | None, gid: int | None, mode: int | None
    ) -> Owner:
        before = account.owner
        if before is None and uid is None and there is not None and there.uid not in self._operators:
            before = Owner(there.uid, there.gid)
        if uid is None and before is None:
            raise InvalidArgument(f"user {user}: give the uid of their processes (--uid)")
        if uid is None or (before is not None and uid == before.uid):
            assert before is not None
            return Owner(
                before.uid, before.gid if gid is None else gid, (account.owner or before).mode if mode is None else mode
            )
        kept = account.owner.mode if account.owner is not None else DEFAULT_MODE
        return Owner(uid, uid if gid is None else gid, kept if mode is None else mode)

    async def _others(self, user: str, owner: Owner) -> list[str]:
        """What there is to say of users who share something. Raises Exists where that is the uid."""
        await self._vfs.behind.flush()
        known = await self._reports.ask(lambda snapshot: snapshot.accounts())
        others = [(each.user, of) for each in known if each.user != user and (of := each.owner) is not None]
        for other, of in others:
            if of.uid == owner.uid:
                raise Exists(f"uid {owner.uid} is user {other}'s: one uid cannot be kept apart from itself")
        near = [other for other, of in others if of.gid == owner.gid and (of.lets_group_in or owner.lets_group_in)]
        if not near:
            return []
        some = ", ".join(near[:5]) + (f" and {len(near) - 5} more" if len(near) > 5 else "")
        return [f"group {owner.gid} is also that of user {some}: by the modes its members get at one another's files"]

    async def _give(self, user: str, owner: Owner) -> None:
        """Have the directories of a user, with that owner and mode."""
        for top in TOPS:
            above = await self._top(top)
            own = await self._have(above, user.encode("ascii"), owner)
            if top == b"users":
                for name in (b"recordings", b"thumbnails"):
                    await self._have(own, name, owner)

    async def _have(self, folder: DirNode, name: bytes, owner: Owner) -> DirNode:
        for _ in range(TRIES):
            child = await self._tree.child(folder, name)
            if child is None:
                try:
                    made = await self._vfs.mkdir(folder.ino, name, owner.mode, _ROOT)
                except Exists:
                    continue
                self._kernel.forget_entry(folder.ino, name, 0)
                self._kernel.forget_inode(folder.ino)
                return made
            if not isinstance(child, DirNode):
                raise NotADirectory(f"{child.path} is not a directory")
            if Owner(child.uid, child.gid, child.mode) != owner:
                await self._describe(child, owner)
            return child
        raise TryAgain(f"{folder.path}/{os.fsdecode(name)} comes and goes")

    async def _describe(self, folder: DirNode, owner: Owner) -> None:
        await self._vfs.setattr(folder.ino, Changes(mode=owner.mode, uid=owner.uid, gid=owner.gid), _ROOT)
        self._kernel.forget_inode(folder.ino)

    # --- removing ------------------------------------------------------------------------------------------------

    async def remove(self, user: str, fate: Fate) -> dict[str, Any]:
        """Take a user's uid away, and what they have. Raises NotFound where there is nothing, NotEmpty where there are
        files and *fate* says nothing of them, Busy where a recording is to stay.

        First the directories are closed to the user; then, but for Fate.KEEP, everything in them goes as with rm(1),
        into the trash where there is one. Limits, and what was uploaded this month, stay known.
        """
        _require_id(user)
        async with self._turn:
            account = await self._tree.accounts.load(user)
            own = [folder for top in TOPS if (folder := await self._folder(top, user)) is not None]
            if account.owner is None and not own:
                raise NotFound(f"user {user} has no uid and no directories")
            files, size = sum(folder.rfiles for folder in own), sum(folder.rbytes for folder in own)
            if files and fate is Fate.REFUSE:
                what = f"{'1 file' if files == 1 else f'{files:,} files'} of {size:,} bytes"
                raise NotEmpty(f"user {user} has {what}: --delete removes them, --keep-files leaves them to root")
            if fate is not Fate.KEEP:
                await self._refuse_kept(user)
            closed = Owner(*self._tree.owner, CLOSED)
            for folder in own:
                await self._describe(folder, closed)
            removed = await self._empty(own, account, fate)
            before, account.owner = account.owner, None
            self._vfs.behind.account(account)
            await self._settled()
            await self._vfs.behind.durable()
        left = [folder.path for folder in own if not folder.unlinked]
        log.info("user %s is no uid's any more: %d files removed, %s", user, removed, ", ".join(left) or "nothing left")
        return {
            "user": user, "uid": before.uid if before is not None else None, "removed_files": removed,
            "removed_bytes": size if not left else 0, "kept_files": files if left else 0, "left": left,
        }  # fmt: skip

    async def _empty(self, own: list[DirNode], account: Account, fate: Fate) -> int:
        """Remove what is to go; how many files went. Raises Busy, and all is open again, where a file has come that
        nobody said anything of: a process of the user's may be inside.
        """
        if fate is Fate.KEEP:
            return 0
        if fate is Fate.DELETE:
            return sum([await self._vfs.trees.remove(folder) for folder in own])
        try:
            return sum([await self._vfs.trees.remove(folder, keep=_has_files) for folder in own])
        except RecfsError:
            if account.owner is not None:
                await self._give(account.user, account.owner)
            raise

    async def _refuse_kept(self, user: str) -> None:
        await self._vfs.behind.flush()
        now = Now(self._tree.clock.steady_ns(), self._tree.clock.calendar_ns())

        def first(snapshot: Snapshot) -> str | None:
            for each in snapshot.recordings(user):
                if each.life is not None and (why := protected(each.life, now)):
                    return f"{os.fsdecode(b'/'.join(each.path))} {why}"
            return None

        held = await self._reports.ask(first)
        if held is not None:
            raise Busy(f"{held}: `recfs recording unkeep`, or set-expiry never, lets it go")

    # --- both ----------------------------------------------------------------------------------------------------

    async def _top(self, name: bytes) -> DirNode:
        found = await self._tree.child(self._tree.root, name)
        assert isinstance(found, DirNode)  # it exists from the start, and cannot be removed
        return found

    async def _folder(self, top: bytes, user: str) -> DirNode | None:
        found = await self._tree.child(await self._top(top), user.encode("ascii"))
        return found if isinstance(found, DirNode) else None

    async def _settled(self) -> None:
        """Wait until both the rows and the kernel have it."""
        await self._vfs.behind.durable()
        with trio.move_on_after(KERNEL_FLUSH_S):
            await self._kernel.flush()


def _has_files(folder: DirNode) -> bool:
    return folder.rfiles > 0


def _require_id(user: str) -> None:
    if not is_id(os.fsencode(user)):
        raise InvalidArgument(f"user {user!r}: an id is an integer or a UUID")


__all__ = ["Added", "Fate", "Users"]
