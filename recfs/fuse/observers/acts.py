"""What the kernel's requests are to the audit log: which of them are acts, on which path, by whom.

Told after a request was carried out or refused, and before its answer is sent: whoever asked for it still waits, so its
process can be named. What the kernel refuses by itself (mode bits) never comes here.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from recfs.fs.fallback_entries import shown_path
from recfs.fuse.observers.watched import Watched
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from recfs.fs.vfs import Vfs
    from recfs.observing.audit.trail import AuditTrail

OWN = b"user.recfs."
VALUE_BYTES = 200
"""So much of the value of an attribute of recfs's own is told."""
_WRITES = os.O_ACCMODE | os.O_TRUNC


class Acts:
    """Tells the audit log of requests. Atomic."""

    def __init__(self, vfs: Vfs, trail: AuditTrail) -> None:
        self._tree = vfs.tree
        self._nodes = vfs.tree.nodes
        self._paths = vfs.tree.paths
        self._handles = vfs.files.handles
        self._trail = trail
        self._refused_writes: dict[int, int] = {}
        """By handle: the last errno that a write met."""

    def observe(self, operations: Watched) -> None:
        """Be told of the requests that *operations* handle from now on."""
        for op in ("mknod", "mkdir", "unlink", "rmdir", "create"):
            operations.watch(op, self._named)
        for op in ("write", "fallocate"):
            operations.watch(op, self._by_handle)
        operations.watch("symlink", self._symlink)
        operations.watch("rename", self._rename)
        operations.watch("link", self._link)
        operations.watch("setattr", self._setattr)
        operations.watch("setxattr", self._setxattr)
        operations.watch("removexattr", self._removexattr)
        operations.watch("open", self._open)
        operations.watch("copy_file_range", self._copy)
        operations.watch("release", self._release)

    # --- by name -------------------------------------------------------------------------------------------------

    def _record(self, op: str, path: bytes, ctx: Any, error: int, detail: dict[str, Any] | None = None) -> None:
        if error != errno.ESTALE:  # the kernel walks the path once more, and asks again
            self._trail.record(op, path, ctx.uid, ctx.gid, ctx.pid, error, detail)

    def _entry(self, parent: int, name: bytes) -> bytes:
        node = self._nodes.get(parent)
        if isinstance(node, DirNode):
            return self._paths.below(node, name)
        folder = self._path(parent)
        return b"%b/%b" % (folder, name) if folder else name

    def _path(self, ino: int) -> bytes:
        node = self._tree.nodes.get(ino) or self._tree.orphans.get(ino)
        if node is not None:
            return self._paths.of(node)
        return shown_path(self._tree, ino) or b"inode %d" % ino

    def _named(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        folder, ctx = self._nodes.get(args[1]), args[-1]
        if error != errno.ESTALE and isinstance(folder, DirNode):  # nearly always, and of each file of very many
            self._trail.record(op, self._paths.below(folder, args[2]), ctx.uid, ctx.gid, ctx.pid, error)
        else:
            self._record(op, self._entry(args[1], args[2]), ctx, error)

    def _symlink(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        _, parent, name, target, ctx = args
        self._record(op, self._entry(parent, name), ctx, error, {"target": target})

    def _rename(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        _, old, old_name, new, new_name, flags, ctx = args
        op = "exchange" if flags & 2 else op  # RENAME_EXCHANGE of renameat2(2)
        self._record(op, self._entry(old, old_name), ctx, error, {"to": self._entry(new, new_name)})

    def _link(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        _, ino, parent, name, ctx = args
        self._record(op, self._path(ino), ctx, error, {"to": self._entry(parent, name)})

    # --- by inode ------------------------------------------------------------------------------------------------

    def _setattr(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        _, ino, attr, fields, _, ctx = args
        detail: dict[str, Any] = {}
        if fields.update_size:
            op, detail["size_bytes"] = "truncate", attr.st_size
        if fields.update_uid or fields.update_gid:
            uid, gid = attr.st_uid if fields.update_uid else -1, attr.st_gid if fields.update_gid else -1
            op, detail["owner"] = "chown", f"{uid}:{gid}"
        if fields.update_mode:
            detail["mode"] = f"{attr.st_mode & 0o7777:04o}"
            op = "chmod" if len(detail) == 1 else op
        if detail:  # else only times, which cp -p and rsync set of every file
            self._record(op, self._path(ino), ctx, error, detail)

    def _setxattr(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        _, ino, name, value, ctx = args
        detail: dict[str, Any] = {"name": name}
        if name.startswith(OWN):
            detail["value"] = value[:VALUE_BYTES]
        self._record(op, self._path(ino), ctx, error, detail)

    def _removexattr(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        _, ino, name, ctx = args
        self._record(op, self._path(ino), ctx, error, {"name": name})

    def _open(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        _, ino, flags, ctx = args
        if flags & _WRITES:
            truncated = {"truncated": True} if flags & os.O_TRUNC else None
            self._record("overwrite", self._path(ino), ctx, error, truncated)
        elif self._trail.reads:
            self._record("read", self._path(ino), ctx, error)

    # --- by handle: nobody says whose request it is (fuse_req_ctx has it, pyfuse3 does not hand it on) -------------

    def _by_handle(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        if error == 0 and op == "write":
            return
        number = args[1]
        if op == "write" and self._refused_writes.get(number) == error:
            return
        if op == "write":
            self._refused_writes[number] = error
        self._of_handle(op, number, error)

    def _copy(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        self._of_handle("copy", args[3], error)

    def _of_handle(self, op: str, number: int, error: int) -> None:
        handle = self._handles.get(number)
        if handle is not None:
            self._trail.record(op, self._paths.of(handle.node), handle.uid, -1, 0, error)

    def _release(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        if self._refused_writes:
            self._refused_writes.pop(args[1], None)


__all__ = ["Acts"]
