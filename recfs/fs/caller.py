"""Who asks for a change, and whether names may be changed at all where it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from recfs.core.layout import Role
from recfs.errors import NotFound, ReadOnlyFile

if TYPE_CHECKING:
    from recfs.state.nodes import DirNode

_SHARED = (Role.SHARED_TOP, Role.SHARED_DIR)


class Caller(NamedTuple):
    """Who asks: from the request's context (fuse_req_ctx), or the daemon itself."""

    uid: int
    gid: int
    umask: int = 0
    operator: bool = False
    pid: int = 0
    """Its thread; 0 where the kernel cannot say (another pid namespace)."""


def may_change(folder: DirNode, caller: Caller) -> None:
    """Raise when *caller* may not change names in *folder*.

    Permission bits are checked before: by the kernel, or in a session (`core/permissions.py`).
    """
    if folder.unlinked:
        raise NotFound(f"{folder.path} was removed")
    if folder.role in _SHARED and not caller.operator:
        raise ReadOnlyFile(f"{folder.path}: shared files are changed by the operator alone")


__all__ = ["Caller", "may_change"]
