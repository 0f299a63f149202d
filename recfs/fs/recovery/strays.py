"""Bytes in staging that no row knows: their row was lost with the last batch."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from recfs.core.generation import Age
from recfs.core.layout import child_role, is_upload
from recfs.core.model import State
from recfs.disk.staging import COPY_LABEL, ELSEWHERE, FETCH_LABEL, TRASH_LABEL, VERSION_LABEL, Label
from recfs.errors import FsError, NotFound
from recfs.fs.caller import Caller
from recfs.fs.recovery.finds import only_in_s3
from recfs.fs.recovery.overwrites import keep_overwrite, was_closed, when_labelled
from recfs.state.nodes import DirNode, FileNode

if TYPE_CHECKING:
    from recfs.fs.recovery.finds import Finds
    from recfs.stores.local import StagingFile

log = logging.getLogger("recfs.recovery")


def _trash_number(label: bytes) -> int:
    """The number in the trash that a label names; 0 for any other label."""
    number = label.removeprefix(TRASH_LABEL) if label.startswith(TRASH_LABEL) else b""
    return int(number) if number.isdigit() else 0


class Strays:
    """Finds their places, by their labels."""

    def __init__(self, found: Finds) -> None:
        self._found = found
        self._tree = found.tree
        self._behind = found.behind
        self._backing_files = found.backing_files
        self._names = found.names
        self._store = found.store
        self._adopted: dict[int, int] = {}
        """Inode numbers given to files whose rows were lost, by those that their labels name."""

    def take_back_fetched(self) -> None:
        """Whole copies from S3 that had not come home: S3 has them. Those that had are found there (`Whereabouts`).

        Where a mount goes on they stay, and come home now: the kernel may be reading them by itself.
        """
        if self._found.rows_come_first:
            return
        for node in list(self._tree.nodes.values()):
            if not isinstance(node, FileNode) or node.state is not State.STORED or node.object is None:
                continue
            found = self._found.staging.get(node.staging or "")
            if found is not None and (found.label or b"").startswith(FETCH_LABEL):
                only_in_s3(self._found, node)

    async def adopt_all(self, *, same_boot: bool) -> None:
        """Give every one of them a place: under its label's name, or in lost+found. Files that were removed go."""
        # What was fetched may have lost its name since, or be fetched to be changed.
        named = {entry.staging for entry in self._tree.garbage.values()}
        named |= {node.staging for node in self._tree.nodes.values() if isinstance(node, FileNode)}
        known = named | await self._tree.catalogue.staged()
        # Of several overwrites of one file the one counts that was closed last; what nobody closed changes nothing.
        for found in sorted(self._found.staging.values(), key=lambda found: when_labelled(found, same_boot=same_boot)):
            with self._found.aside(("staging", found.id), f"staging/{found.id}"):
                if found.id not in known and self._is_spare(found.label or b""):
                    self._store.drop_staging([found.id])
                elif found.label is not None and found.label.startswith(FETCH_LABEL):
                    if found.id not in named:
                        self._store.drop_staging([found.id])  # a partial copy of what S3 has
                elif found.id in known:
                    continue
                elif (number := _trash_number(found.label or b"")) in self._tree.garbage:
                    self._store.rename(self._store.staging(found.id), self._store.trash(number))
                elif self._inode_of(found) in self._found.removed:
                    self._store.drop_staging([found.id])
                elif not await self._adopt(found, same_boot=same_boot):
                    self._set_aside(found)

    def _is_spare(self, label: bytes) -> bool:
        """Whether it is a copy of what is still where it was: half of one, or one that no row names yet."""
        same = self._found.age is Age.SAME  # else a newer row may have named it
        return label.startswith(COPY_LABEL) or (same and label.startswith(VERSION_LABEL))

    @staticmethod
    def _inode_of(found: StagingFile) -> int | None:
        try:
            return Label.decode(found.label or b"").ino
        except ValueError:
            return None

    def _set_aside(self, found: StagingFile) -> None:
        if found.size_bytes == 0:
            self._store.drop_staging([found.id])
            return
        self._store.rename(self._store.staging(found.id), self._store.lost(f"staging-{found.id}"))
        self._found.report.lost.append(f"lost+found/staging-{found.id}")

    async def _adopt(self, found: StagingFile, *, same_boot: bool) -> bool:
        """Make a row for a staging file from its label. False if there is none, or its place is taken."""
        if found.label is None:
            return False
        closed = was_closed(found, same_boot=same_boot)
        is_open = self._inode_of(found) in self._found.kept_open
        if self._found.rows_come_first and not found.size_bytes and not is_open:
            self._store.drop_staging([found.id])  # nobody was told of it, and who asked asks again
            return True
        try:
            label = Label.decode(found.label)
            known = self._adopted.get(label.ino)
            if known is None and await self._tree.catalogue.node(label.ino) is not None:
                known = label.ino
            if known is not None:
                held = None if closed or not same_boot else self._found.written(self._store.staging(found.id))
                return await self._overwrite(known, found, closed=closed, held=held)
            parts = label.path.split(b"/")
            caller = Caller(label.uid, label.gid, operator=True)
            folder = await self._parent(label.parent, parts[:-1], caller)
            if await self._tree.child(folder, parts[-1]) is not None:
                return False
            child_role(folder.role, parts[-1], is_dir=False)
        except (ValueError, FsError) as error:
            log.warning("staging/%s cannot be adopted: %s", found.id, error)
            return False
        node = self._names.add_file(folder, parts[-1], label.mode, caller, upload=is_upload(folder.role, parts[-1]))
        self._adopted[label.ino] = node.ino
        node.staging, node.home_ino = found.id, None
        self._behind.node(node)
        held = None if closed or not same_boot else self._found.written(self._store.staging(found.id))
        if held is not None:
            self._found.survivors.adopt(node, held)
            return True
        state = State.SEALING if closed else State.INCOMPLETE
        node.enter(state)
        self._tree.resize(node, found.size_bytes)
        self._behind.node(node)
        if closed:
            self._found.report.resealed.append(node.ino)
        else:
            self._found.report.adopted.append(node.path)
        return True

    async def _overwrite(self, ino: int, found: StagingFile, *, closed: bool, held: int | None) -> bool:
        """An overwrite whose row was lost: closed, it counts; else what was closed before it stands.

        *held*: a descriptor of it, if a program has it open for writing still. Then it is not over.
        """
        node = await self._tree.get(ino)
        counts = closed or held is not None
        if not isinstance(node, FileNode) or not counts or not self._gives_way(node, found):
            if held is not None:
                os.close(held)
            keep_overwrite(self._found, found, ino, node.path)
            return True
        if node.path in self._found.report.gone:
            self._found.report.gone.remove(node.path)  # here it is, in a version that the catalogue does not know
        if not node.state.is_remote:
            self._backing_files.versions.set_aside(node, holder=node)
        node.enter(State.WRITING)
        node.sha256 = node.md5 = None
        if node.object is not None:
            node.object = node.object.here(local=0)
            self._behind.object(node.object)
        node.staging, node.promised = found.id, 0
        if held is not None:
            self._found.survivors.adopt(node, held)
            return True
        node.enter(State.SEALING)
        self._backing_files.versions.closed(node)
        self._tree.resize(node, found.size_bytes)
        self._behind.node(node)
        if node.ino not in self._found.report.resealed:
            self._found.report.resealed.append(node.ino)
        return True

    def _gives_way(self, node: FileNode, found: StagingFile) -> bool:
        """Whether what the row tells of is older than the closed bytes *found*."""
        if node.state is not State.SEALING:
            return node.state.is_whole or node.state.is_remote
        if node.staging is None:
            return True  # nothing of it was changed when it lay at home
        known = self._found.staging.get(node.staging)
        return known is not None and when_labelled(known, same_boot=True)[1] <= when_labelled(found, same_boot=True)[1]

    async def _parent(self, ino: int, parts: list[bytes], caller: Caller) -> DirNode:
        with contextlib.suppress(FsError):
            return await self._tree.directory(ino)
        if parts == [ELSEWHERE.rstrip(b"/")]:
            raise NotFound(f"its directory, inode {ino}, is not known, and its path was too long for the label")
        folder = self._tree.root
        for name in parts:
            child = await self._tree.child(folder, name)
            folder = child if isinstance(child, DirNode) else await self._names.mkdir(folder, name, 0o755, caller)
        return folder
