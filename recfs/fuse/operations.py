"""pyfuse3 adapter: inode numbers and bytes in, FUSEErrors out. Decides nothing.

Only FUSEError may leave a handler, and nothing at all may leave `forget`: pyfuse3 would send no reply, the caller
would hang and the daemon would die. `guarded` sees to that for every handler.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import TYPE_CHECKING, Any

import pyfuse3

from recfs import errors
from recfs.core.layout import NAME_MAX_BYTES
from recfs.disk.staging import inode_reserve
from recfs.fs.attributes import Changes
from recfs.fs.caller import Caller
from recfs.fs.fallback_entries import VIEW_BIT, FallbackEntry
from recfs.fs.handles import Mode
from recfs.fuse.acceleration import (
    FOPEN_CACHE_DIR,
    FOPEN_DIRECT_IO,
    FOPEN_KEEP_CACHE,
    FOPEN_NOFLUSH,
    FOPEN_PASSTHROUGH,
)
from recfs.fuse.directories import Directories
from recfs.fuse.entries import CACHE_S, Entries
from recfs.fuse.from_memory import Memory
from recfs.fuse.guard import ERRNO, errno_of, guarded, guarded_apart
from recfs.fuse.observers.watched import Watched
from recfs.ports.rows import NodeRow
from recfs.state.ledger import RESENT, Opened, flags_of
from recfs.state.nodes import DirNode, FileNode, LinkNode
from recfs.state.waits import interruptible, ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.fs.vfs import Vfs
    from recfs.fs.xattrs import Xattrs
    from recfs.fuse.passthrough import FuseSession
    from recfs.state.ledger import Ledger
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.fuse")

ABSENT_S = 60
"""How long the kernel may believe that a name does not exist."""


class Operations(pyfuse3.Operations, Watched):
    """One method per request of the kernel (fuse_lowlevel.h)."""

    supports_dot_lookup = True  # FUSE_EXPORT_SUPPORT: file handles outlive what the kernel has cached
    enable_writeback_cache = False

    def __init__(
        self, vfs: Vfs, xattrs: Xattrs, store: LocalStore, operators: frozenset[int], session: FuseSession
    ) -> None:
        super().__init__()
        Watched.__init__(self)
        self._session = session
        self._entries = Entries(vfs.tree)
        self._directories = Directories(vfs.listings, self._entries)
        self._modes = vfs.files.modes
        self._vfs = vfs
        self._nodes = vfs.tree.nodes
        self._xattrs = xattrs
        self._store = store
        self._operators = operators
        self._ledger = vfs.tree.ledger

    # --- translation ---------------------------------------------------------------------------------------------

    def _caller(self, ctx: pyfuse3.RequestContext) -> Caller:
        return Caller(ctx.uid, ctx.gid, ctx.umask, ctx.uid in self._operators, ctx.pid, by_place=True)

    def memory(self) -> Memory | None:
        """What `lookup` and `getattr` look into when they need not wait; None in a subclass that has its own."""
        kind = type(self)
        if (kind.lookup, kind.getattr, kind.forget) != (Operations.lookup, Operations.getattr, Operations.forget):
            return None
        return Memory(self._nodes, self.watching, self.forget, DirNode, FileNode, LinkNode, NodeRow, CACHE_S, ABSENT_S)

    # --- names ---------------------------------------------------------------------------------------------------

    @guarded
    async def lookup(self, parent: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """LOOKUP. An absent name is answered with inode 0, which the kernel remembers."""
        if len(name) > NAME_MAX_BYTES:
            raise errors.NameTooLong(f"{os.fsdecode(name[:40])}…")
        seen = await self._vfs.lookup(parent, name)
        if seen is not None:
            if not isinstance(seen, FallbackEntry):
                seen.kernel_refs += 1
            return self._entries.of(seen)
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = 0
        folder = self._nodes.get(parent)
        entry.entry_timeout = ABSENT_S if isinstance(folder, DirNode) and folder.fallback is None else 0
        return entry

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:  # type: ignore[override]  # called, not awaited
        """FORGET: the kernel dropped references. Raises nothing."""
        try:
            tree = self._vfs.tree
            for ino, count in inode_list:
                if not tree.memory.forget(ino, count):
                    tree.orphans.forget(ino, count)
        except Exception:
            log.exception("forget failed")

    @guarded
    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """MKNOD: regular files only; devices, FIFOs and sockets are EPERM."""
        if not stat.S_ISREG(mode):
            raise errors.NotPermitted("only regular files, directories and symbolic links exist in recfs")
        node = await self._vfs.mknod(parent, name, mode, self._caller(ctx))
        node.kernel_refs += 1
        return self._entries.of(node)

    @guarded
    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """MKDIR."""
        node = await self._vfs.mkdir(parent, name, mode, self._caller(ctx))
        node.kernel_refs += 1
        return self._entries.of(node)

    @guarded
    async def symlink(self, parent: int, name: bytes, target: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """SYMLINK."""
        node = await self._vfs.symlink(parent, name, target, self._caller(ctx))
        node.kernel_refs += 1
        return self._entries.of(node)

    @guarded
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        """READLINK."""
        return await self._vfs.readlink(inode)

    @guarded
    async def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        """UNLINK."""
        await self._vfs.unlink(parent, name, self._caller(ctx))

    @guarded
    async def rmdir(self, parent: int, name: bytes, ctx: Any) -> None:
        """RMDIR."""
        await self._vfs.rmdir(parent, name, self._caller(ctx))

    @guarded
    async def rename(self, old: int, old_name: bytes, new: int, new_name: bytes, flags: int, ctx: Any) -> None:
        """RENAME, RENAME2. RENAME_WHITEOUT is for overlay upper layers: EINVAL."""
        if flags & ~(pyfuse3.RENAME_NOREPLACE | pyfuse3.RENAME_EXCHANGE):
            raise errors.InvalidArgument(f"rename flags {flags:#x}")
        await self._vfs.rename(
            old, old_name, new, new_name, self._caller(ctx),
            noreplace=bool(flags & pyfuse3.RENAME_NOREPLACE), exchange=bool(flags & pyfuse3.RENAME_EXCHANGE),
        )  # fmt: skip

    @guarded
    async def link(self, inode: int, new_parent: int, new_name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """LINK: EPERM."""
        self._vfs.link()
        raise AssertionError

    # --- attributes ----------------------------------------------------------------------------------------------

    @guarded
    async def getattr(self, inode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """GETATTR."""
        seen = self._nodes.get(inode) or await self._vfs.node(inode)
        return self._entries.of(seen, inode)

    @guarded
    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: Any) -> pyfuse3.EntryAttributes:
        """SETATTR."""
        changes = Changes(
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        ino = inode
        if fh is not None and inode >= VIEW_BIT:  # the number may stand for another file by now
            ino = self._vfs.files.handles[fh].node.ino
        return self._entries.of(await self._vfs.setattr(ino, changes, self._caller(ctx)), inode)

    @guarded
    async def access(self, inode: int, mode: int, ctx: Any) -> bool:
        """ACCESS: permission bits are checked by the kernel (default_permissions)."""
        await self._vfs.node(inode)
        return True

    @guarded
    async def statfs(self, ctx: Any) -> pyfuse3.StatvfsData:
        """STATFS: the disk's own figures, less the reserves."""
        info = self._store.space()
        answer = pyfuse3.StatvfsData()
        reserve = min(info.f_bavail, self._vfs.files.space.min_free // info.f_frsize)
        answer.f_bsize, answer.f_frsize = info.f_bsize, info.f_frsize
        answer.f_blocks, answer.f_bfree, answer.f_bavail = (
            info.f_blocks,
            info.f_bfree - reserve,
            info.f_bavail - reserve,
        )
        kept = min(info.f_favail, inode_reserve(info))
        answer.f_files, answer.f_ffree, answer.f_favail = info.f_files, info.f_ffree - kept, info.f_favail - kept
        answer.f_namemax = NAME_MAX_BYTES
        return answer

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        """GETXATTR."""
        return await self._xattrs.get(inode, name)

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        """SETXATTR."""
        await self._xattrs.set(inode, name, value, self._caller(ctx))

    @guarded
    async def listxattr(self, inode: int, ctx: Any) -> Sequence[bytes]:
        """LISTXATTR."""
        return await self._xattrs.list(inode)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        """REMOVEXATTR."""
        await self._xattrs.remove(inode, name, self._caller(ctx))

    # --- directories ---------------------------------------------------------------------------------------------

    @guarded
    async def opendir(self, inode: int, ctx: Any) -> int:
        """OPENDIR. The kernel keeps what it has read, until a name changes; not where shared files may come and go."""
        number = await self._vfs.listings.open(inode)
        if self._vfs.listings.open_dirs[number].folder.fallback is None:
            self._session.stage(number, FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE)
        return number

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """READDIRPLUS; READDIR, where the extension hands it on."""
        await self._directories.read(fh, start_id, token, plain=self._directories.names_alone())

    @guarded
    async def releasedir(self, fh: int) -> None:
        """RELEASEDIR."""
        self._vfs.listings.release(fh)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """FSYNCDIR: the names are on stable storage."""
        with interruptible("the catalogue's log"):
            await self._vfs.behind.durable()

    # --- files ---------------------------------------------------------------------------------------------------

    @guarded
    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """CREATE."""
        number, node = await self._vfs.create(parent, name, mode, flags, self._caller(ctx))
        info = await self._opened(number, node.ino)
        node.kernel_refs += 1
        return info, self._entries.of(node)

    async def _opened(self, number: int, asked: int) -> pyfuse3.FileInfo:
        """Settle who moves the bytes of an open, and have the answer say so; nothing may be awaited after it.

        *asked*: the inode number that the kernel knows the file by: its own, or a view's.
        """
        own = asked < VIEW_BIT
        files = self._vfs.files
        handle = files.handles[number]
        mode, backing, past_cache = Mode.CACHED, 0, 0
        if not own and self._vfs.is_own_copy(handle):
            past_cache = FOPEN_DIRECT_IO  # its pages would be apart from those of the file's own number
            handle.direct = handle.writes
        if own:
            try:
                mode, backing = await self._modes.choose(handle)
            except BaseException:
                await files.release(number)
                raise
        if self._ledger is not None:
            await self._enter(self._ledger, number, asked, backing)
        # What a close would tell is known already, but for a limit that was passed unseen.
        flags = 0 if mode is Mode.PASS and self._modes.needs_flush(handle) else FOPEN_NOFLUSH
        keep = False
        if mode is Mode.CACHED:
            # Pages of a view may be another file's by now.
            keep = own and (self._modes.keeps_pages or handle.body.is_being_read)
            flags |= past_cache | (FOPEN_KEEP_CACHE if keep else 0)
        else:
            flags |= FOPEN_PASSTHROUGH if mode is Mode.PASS else FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO
        self._session.stage(number, flags, backing)
        return pyfuse3.FileInfo(fh=number, keep_cache=keep)

    @guarded
    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        """OPEN."""
        number = await self._vfs.open(inode, flags, self._caller(ctx))
        return await self._opened(number, inode)

    async def _enter(self, ledger: Ledger, number: int, asked: int, backing: int) -> None:
        """Have the next daemon know of an open before the kernel does. Nothing is awaited after it was entered."""
        files, request = self._vfs.files, ticket.get()
        handle = files.handles[number]
        before = ledger.answered_with(request) if request & RESENT else None
        if before in files.handles and before is not None:
            await files.release(before)  # made for the same request, and never answered
            ledger.released(before)
        if self._vfs.behind.is_dirty(handle.node.ino):
            await self._vfs.record()
        ledger.release_settled(self._vfs.behind.is_dirty)
        mode = handle.mode.value if handle.mode is not None else None
        flags = flags_of(writes=handle.writes, direct=handle.direct, counted=handle.account is not None, mode=mode)
        ledger.opened(Opened(number, handle.node.ino, asked, handle.uid, backing, flags, request))

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]  # any buffer will do
        """READ."""
        return await self._vfs.files.read(fh, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """WRITE."""
        return await self._vfs.files.write(fh, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """FLUSH: sent at each close(2), also of a dup(2) or a child's copy: it proves nothing. RELEASE is the last."""
        self._vfs.files.flush(fh)

    @guarded
    async def release(self, fh: int) -> None:
        """RELEASE."""
        await self._vfs.files.release(fh)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        """FSYNC."""
        await self._vfs.files.fsync(fh)

    # --- what pyfuse3 does not know (fuse/extra_requests.py) -------------------------------------------------------

    @guarded_apart
    async def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        """FALLOCATE."""
        await self._vfs.ranges.allocate(fh, mode, offset, length)

    @guarded_apart
    async def lseek(self, fh: int, offset: int, whence: int) -> int:
        """LSEEK: SEEK_DATA and SEEK_HOLE; the kernel knows the others by itself."""
        found = await self._vfs.ranges.seek(fh, offset, whence)
        if found is None:
            raise pyfuse3.FUSEError(errno.ENXIO)
        return found

    @guarded_apart
    async def copy_file_range(
        self, source_fh: int, source_offset: int, fh: int, offset: int, length: int, flags: int
    ) -> int:
        """COPY_FILE_RANGE."""
        if flags:
            raise errors.InvalidArgument(f"copy_file_range flags {flags:#x}")
        return await self._vfs.ranges.copy(source_fh, source_offset, fh, offset, length)


__all__ = ["ERRNO", "Operations", "errno_of", "guarded"]
