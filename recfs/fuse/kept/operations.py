"""Requests on a mount whose descriptor is kept while a daemon dies and another starts (state/ledger/table.py).

Two things are added to what `Operations` does. What a request changes is in the catalogue before its answer leaves, in
the page cache at least: that outlives the process. And a request that the kernel sends again, since nobody has
answered it, may have been carried out: then it is answered as it would have been.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recfs.errors import NoAttribute, NotFound, Stale
from recfs.fuse.guard import guarded
from recfs.fuse.operations import Operations
from recfs.state.ledger import RESENT
from recfs.state.nodes import DirNode, Node
from recfs.state.waits import ticket

if TYPE_CHECKING:
    from recfs.fs.handover.kept_files import KeptNameless
    from recfs.state.ledger import Ledger

NOT_YET: Final = object()
"""A request has not been carried out."""
Again = Callable[..., Awaitable[Any]]
_asked: contextvars.ContextVar[tuple[int, bytes, int]] = contextvars.ContextVar("recfs_asked", default=(0, b"", 0))
"""The last GETXATTR that the running task has served: inode, name, number of the request."""


@functools.cache
def _planted() -> Path | None:
    named = os.environ.get("RECFS_TEST_DIE_BEFORE_ANSWER")
    return Path(named) if named else None


def die_if_planted(what: str) -> None:
    """End with a request done and not answered, when a test asks for it.

    RECFS_TEST_DIE_BEFORE_ANSWER names a file that has the request's name in it; it goes with the process.
    """
    planted = _planted()
    if planted is not None:
        with contextlib.suppress(OSError):
            if planted.read_text("ascii") == what:
                planted.unlink()
                os.kill(os.getpid(), signal.SIGKILL)


def _kept(handler: Any, again: Again | None = None, *, records: bool = True) -> Any:
    """*handler* of Operations with both; *again* answers what has been carried out, or returns NOT_YET."""
    plain = handler.__wrapped__

    @guarded
    @functools.wraps(plain)
    async def kept(self: KeptOperations, *args: Any) -> Any:
        if again is not None and ticket.get() & RESENT:
            answer = await again(self, self.done(), *args)
            if answer is not NOT_YET:
                return answer
        answer = await plain(self, *args)
        if records:
            await self.recorded()
        die_if_planted(plain.__name__)
        return answer

    return kept


class KeptOperations(Operations):
    """Operations for a mount that has a ledger."""

    nameless: KeptNameless | None = None
    """Who keeps the bytes of removed files."""

    async def _enter(self, ledger: Ledger, number: int, asked: int, backing: int) -> None:
        if _planted() is not None:
            await self.recorded()
            die_if_planted("backing")
        await super()._enter(ledger, number, asked, backing)
        node = self._vfs.files.handles[number].node
        if node.unlinked and self.nameless is not None:
            self.nameless.keep(node)  # for writing it may have got other bytes, a copy

    def done(self) -> set[int]:
        """Inode numbers that the present request has made, moved or removed before, by an earlier daemon's hand."""
        return self._ledger.changed_by(ticket.get()) if self._ledger is not None else set()

    async def recorded(self) -> None:
        """What was changed is in the catalogue; where that cannot be, as on a full disk, it is written later."""
        await self._vfs.record()

    async def _child(self, parent: int, name: bytes) -> Node | None:
        with contextlib.suppress(Stale, NotFound):
            folder = await self._vfs.tree.get(parent)
            if isinstance(folder, DirNode):
                return await self._vfs.tree.child(folder, name)
        return None

    async def _made(self, done: set[int], parent: int, name: bytes, *_: Any) -> Any:
        node = await self._child(parent, name)
        if node is None or node.ino not in done:
            return NOT_YET
        node.kernel_refs += 1
        return self._entries.of(node)

    async def _created(self, done: set[int], parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        node = await self._child(parent, name)
        if node is None or node.ino not in done:
            return NOT_YET
        number = await self._vfs.open(node.ino, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC), self._caller(ctx))
        info = await self._opened(number, node.ino)
        node.kernel_refs += 1
        return info, self._entries.of(node)

    async def _removed(self, done: set[int], parent: int, name: bytes, *_: Any) -> Any:
        return None if done and await self._child(parent, name) is None else NOT_YET

    async def _moved(self, done: set[int], old: int, old_name: bytes, new: int, new_name: bytes, *_: Any) -> Any:
        node = await self._child(new, new_name)
        return None if node is not None and node.ino in done else NOT_YET

    mkdir = _kept(Operations.mkdir, _made)
    mknod = _kept(Operations.mknod, _made)
    symlink = _kept(Operations.symlink, _made)
    unlink = _kept(Operations.unlink, _removed)
    rmdir = _kept(Operations.rmdir, _removed)
    rename = _kept(Operations.rename, _moved, records=False)  # it does by itself
    setattr = _kept(Operations.setattr)

    _create = Operations.create.__wrapped__  # type: ignore[attr-defined]

    @guarded
    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        """CREATE. The row is written, and the handle entered, by `_opened`: nothing may be awaited after that."""
        if ticket.get() & RESENT:
            answer = await self._created(self.done(), parent, name, mode, flags, ctx)
            if answer is not NOT_YET:
                return answer
        answer = await self._create(parent, name, mode, flags, ctx)
        die_if_planted("create")
        return answer

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        """GETXATTR; and SETXATTR with XATTR_CREATE, of which pyfuse3 asks this first."""
        _asked.set((inode, name, ticket.get()))
        if ticket.get() & RESENT and inode in self.done():
            raise NoAttribute(f"inode {inode} had no {name!r} when this was asked for the first time")
        return await self._xattrs.get(inode, name)

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        """SETXATTR. That there was none is known to the next daemon, before there is one."""
        *what, number = _asked.get()
        if what == [inode, name]:
            ticket.set(number)  # the kernel may have sent others since pyfuse3 asked
        try:
            await self._xattrs.get(inode, name)
        except NoAttribute:
            if self._ledger is not None:
                self._ledger.changed(inode)
        await self._xattrs.set(inode, name, value, self._caller(ctx))
        await self.recorded()
        die_if_planted("setxattr")

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        """REMOVEXATTR. An earlier daemon may have removed it for the same request."""
        again = ticket.get() & RESENT
        try:
            await self._xattrs.remove(inode, name, self._caller(ctx))
        except NoAttribute:
            if not again:
                raise
        await self.recorded()
        die_if_planted("removexattr")

    @guarded
    async def release(self, fh: int) -> None:
        """RELEASE. Should the daemon die before the row says what became of the file, the next one does it again."""
        if fh not in self._vfs.files.handles:
            return  # released for an earlier daemon, which did not live to say so; or lost with it
        if self._ledger is not None:
            self._ledger.release_settled(self._vfs.behind.is_dirty)  # not of this one: its row is yet to change
            self._ledger.left(fh)
        die_if_planted("left")
        await self._vfs.files.release(fh)
        die_if_planted("release")


__all__ = ["KeptOperations"]
