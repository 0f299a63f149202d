"""A user's own copy of a shown shared file, made when that is opened for writing (copy-up)."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.disk.diskio import COPY_CHUNK_BYTES, extent_at
from recfs.errors import Exists, Stale
from recfs.state.nodes import FileNode
from recfs.state.waits import interruptible

if TYPE_CHECKING:
    from recfs.disk.backing_files import BackingFiles
    from recfs.fs.caller import Caller
    from recfs.fs.fallback_entries import FallbackEntries, FallbackEntry
    from recfs.fs.files import OpenFiles
    from recfs.fs.names.namespace import Namespace
    from recfs.state.tree import Tree


class CopyUp:
    """Makes them. Half a copy is not opened (`OpenFiles.copying`), and dropped by the next start."""

    def __init__(
        self, files: OpenFiles, backing_files: BackingFiles, names: Namespace, tree: Tree, views: FallbackEntries
    ) -> None:
        self._files = files
        self._backing_files = backing_files
        self._names = names
        self._tree = tree
        self._views = views

    async def own(self, view: FallbackEntry, caller: Caller, *, empty: bool) -> FileNode:
        """Copy a shown file up: the user's own from now on."""
        try:
            node = await self.copy(view, caller, empty=empty)
        except Exists:
            own = await self._tree.child(view.folder, view.name)
            if not isinstance(own, FileNode):
                raise Stale(f"{view.folder.path}/{os.fsdecode(view.name)} is another file by now") from None
            return own  # somebody else was faster
        if view.folder.children.get(view.name) is node:
            self._views.unhide(view.folder, view.name)
        return node

    async def copy(self, view: FallbackEntry, caller: Caller, *, empty: bool) -> FileNode:
        """Give the user an own copy of a shown shared file (without its bytes if *empty*), not open."""
        files, folder, shared = self._files, view.folder, view.shared
        if folder.account is not None and not empty:
            folder.account.demand(0, shared.bytes)
        mode = shared.mode & 0o777 | 0o600
        number, node = await files.create(folder, view.name, mode, caller, copying=not empty)
        body = files.handles[number].body
        # The copy belongs to whom the directory belongs: the view showed that owner too.
        node.uid, node.gid = folder.uid, folder.gid
        done = files.copying[node.ino] = trio.Event()
        try:
            if not empty and shared.bytes:
                with interruptible(f"a copy of {shared.path}"):
                    await self._bytes(shared, number)
            body.copying = False
            self._backing_files.pool.label(node)  # all of it is there: the next start keeps it
        except BaseException:
            if not node.unlinked:
                self._names.removal.discard(node, successor=None)  # half a copy is no copy
            raise
        finally:
            del files.copying[node.ino]
            done.set()
            with trio.CancelScope(shield=True):
                await files.release(number)
        return node

    async def _bytes(self, source: FileNode, number: int) -> None:
        files = self._files
        body = await self._backing_files.acquire(source, write=False)
        try:
            await files.fetch(body, 0, source.bytes)
            offset = 0
            while offset < source.bytes:
                find = partial(_data_from, body.fd, offset, source.bytes)
                if body.backing:
                    offset, chunk = await self._backing_files.contended.run(source, find)
                else:
                    offset, chunk = await trio.to_thread.run_sync(find, limiter=self._backing_files.pool.limiter)
                if not chunk:
                    break
                offset += await files.write_now(number, offset, chunk)
            node = files.handles[number].node
            if node.bytes < source.bytes <= offset:
                await files.sizes.resize(node, source.bytes)  # it ends with a hole
        finally:
            await files.let_go(source, body, writes=False)


def _data_from(fd: int, offset: int, end: int) -> tuple[int, bytes]:
    """Where the next bytes that are no hole are, from *offset* on, and some of them. Blocking."""
    is_data, until = extent_at(fd, offset, end)
    if not is_data and until < end:
        offset, until = until, extent_at(fd, until, end)[1]
        is_data = True
    if not is_data:
        return end, b""
    return offset, os.pread(fd, min(COPY_CHUNK_BYTES, until - offset), offset)
