"""Who asks for a change, and whether names may be changed where it is asked for: by recfs's rules, and by mode bits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.layout import Role
from recfs.core.life import Status
from recfs.core.permissions import SEARCH, WRITE, allows, is_sticky_for
from recfs.errors import AccessDenied, NotFound, NotPermitted, ReadOnlyFile
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from recfs.core.permissions import Identity
    from recfs.fs.fallback_entries import FallbackEntry
    from recfs.state.nodes import Node

_SHARED = (Role.SHARED_TOP, Role.SHARED_DIR)


class Caller(NamedTuple):
    """Who asks: from the request's context (fuse_req_ctx), or the daemon itself."""

    uid: int
    gid: int
    umask: int = 0
    operator: bool = False
    pid: int = 0
    """Its thread; 0 where the kernel cannot say (another pid namespace)."""
    who: Identity | None = None
    """Whose mode bits count where names are changed; None: the kernel has looked, or it is the daemon itself."""
    by_place: bool = False
    """Whether what root makes in the tree of a user who is told apart by uid belongs to that user; not where the
    daemon enters what has an owner already.
    """


def owner_of_new(folder: DirNode, caller: Caller) -> tuple[int, int]:
    """Whose a new entry of *folder* is, uid and gid, but for what a setgid directory makes of that. Atomic."""
    account = folder.account
    if account is not None and account.owner is not None and caller.by_place and not caller.uid:
        return account.owner.uid, account.owner.gid
    return caller.uid, caller.gid


def may_describe(node: Node, caller: Caller) -> None:
    """Raise NotPermitted where mode and owner are not *caller*'s to change: they keep users apart. Atomic."""
    if caller.operator or not isinstance(node, DirNode) or node.role not in (Role.USER, Role.TEMP_USER):
        return
    if node.account is not None and node.account.owner is not None:
        raise NotPermitted(f"{node.path}: its owner and mode are the operator's to change, by `recfs user add`")


def may_change(folder: DirNode, caller: Caller) -> None:
    """Raise when *caller* may not change names in *folder* by the rules of recfs."""
    if folder.unlinked:
        raise NotFound(f"{folder.path} was removed")
    if folder.role in _SHARED and not caller.operator:
        raise ReadOnlyFile(f"{folder.path}: shared files are changed by the operator alone")


def may_grow(folder: DirNode) -> None:
    """Raise ReadOnlyFile where nothing new comes and nothing is written: in a recording that has expired. Atomic."""
    top = folder.recording
    if top is not None and top.life is not None and top.life.status is not Status.ACTIVE:
        raise ReadOnlyFile(f"{top.path} is {top.life.status}: it takes nothing new; see `recfs recording show`")


def may_read(folder: DirNode) -> None:
    """Raise NotFound for what lies in a recording whose removal has begun. Atomic."""
    top = folder.recording
    if top is not None and top.life is not None and top.life.status is Status.REMOVING:
        raise NotFound(f"{top.path} has expired, and is being removed")


def may_add(folder: DirNode, caller: Caller) -> None:
    """Raise AccessDenied when the mode bits of *folder* keep a session from changing names there. Atomic."""
    who = caller.who
    if who is not None and not allows(folder, who, WRITE | SEARCH, is_dir=True):
        raise AccessDenied(f"{folder.path or '/'}: not for user {who.uid}")


def may_take(folder: DirNode, entry: Node | FallbackEntry, caller: Caller, to: DirNode | None = None) -> None:
    """Raise when mode bits keep a session from removing *entry*, or from moving it to another directory. Atomic.

    Raises AccessDenied, or NotPermitted where *folder* is sticky.
    """
    may_add(folder, caller)
    who = caller.who
    if who is None:
        return
    path = f"{folder.path}/{os.fsdecode(entry.name)}".strip("/")
    if is_sticky_for(folder, entry, who):
        raise NotPermitted(f"{path}: in this directory (sticky) only its owner may remove it")
    moves = to is not None and to is not folder and isinstance(entry, DirNode)
    if moves and not allows(entry, who, WRITE, is_dir=True):  # its `..` is to be another one
        raise AccessDenied(f"{path}: not for user {who.uid}")


__all__ = ["Caller", "may_add", "may_change", "may_describe", "may_grow", "may_read", "may_take", "owner_of_new"]
