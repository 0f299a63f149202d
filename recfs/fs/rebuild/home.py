"""The walk over the home tree: what lies there is what the files are.

Depth first, with one directory's entries streamed, so that memory grows with the depth and with the subdirectories that
wait, not with files. What an interrupted rebuild had done is recognised by inode number, size and mtime, and not read
again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.access.owners import owner_by
from recfs.core.layout import TOP_DIRS, Role, child_role
from recfs.core.model import Kind, State
from recfs.core.upkeep.rebuilding import Checksums, Content, believes
from recfs.errors import FsError
from recfs.fs.rebuild.files import Files, evicted
from recfs.fs.rebuild.hashing import Hasher, Unhashed
from recfs.fs.rebuild.site import PAGE, Site
from recfs.ports.rows import ROOT_INO, NodeRow, Placement, Promise

if TYPE_CHECKING:
    from recfs.disk.commit.digests import Digest

_WHOLE = (State.COMMITTED, State.STORED)
_KINDS = {stat.S_IFDIR: Kind.DIR, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK}
_ALONE = (State.EVICTED, State.ARCHIVED)


class _Folder(NamedTuple):
    """A directory to be looked into."""

    ino: int
    path: bytes
    role: Role
    fresh: bool
    """Nothing of it is in the new catalogue yet."""
    old: int | None
    """Its inode number in the old catalogue, if that is believed."""


class _Entry(NamedTuple):
    """What stands in a directory at home."""

    name: bytes
    info: os.stat_result
    target: bytes | None


class HomePass:
    """Takes the home tree in."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._files = Files(site)
        self._hasher = Hasher(site.store, site.hash_threads)
        self._seen = 0

    async def run(self) -> None:
        """Take it in. Raises StoreError, OutOfSpace, IoFailure."""
        try:
            await self._walk()
            for done in self._hasher.finished(everything=True):
                await self._settle(done)
            await self._site.write()
        finally:
            self._hasher.close()

    async def _walk(self) -> None:
        site = self._site
        pending: list[_Folder] = []
        info = os.stat(site.store.root)
        now = site.clock.now_ns()
        if await site.catalogue.node(ROOT_INO) is None:
            site.put(
                NodeRow(
                    ROOT_INO, ROOT_INO, b"", Kind.DIR, 0o755, info.st_uid, info.st_gid, 0, 0, now, now, now, None, None,
                    None, None, 0, 0, 0, Placement(),
                )
            )  # fmt: skip
        for name, role in TOP_DIRS.items():
            there = site.store.stat(site.local(name))
            assert there is not None, "the store has made it"
            before = await site.catalogue.child(ROOT_INO, name)
            top = _Folder(ROOT_INO, b"", Role.ROOT, False, ROOT_INO)
            old = await site.old.child(ROOT_INO, name)
            pending.append(await self._directory(top, _Entry(name, there, None), role, before, old))
        while pending:
            folder = pending.pop()
            await self._look_into(folder, pending)

    # --- one directory -------------------------------------------------------------------------------------------

    async def _look_into(self, folder: _Folder, pending: list[_Folder]) -> None:
        site = self._site
        found: set[int] = set()
        try:
            fd = site.store.open_file(site.local(folder.path), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            site.findings.unseen.add(folder.path, error.strerror or str(error))
            return
        try:
            with os.scandir(fd) as entries:
                while page := list(islice(self._entries(fd, entries, folder), PAGE)):
                    for entry in page:
                        before = None if folder.fresh else await site.catalogue.child(folder.ino, entry.name)
                        ino = await self._take(folder, entry, before, pending)
                        if not folder.fresh:
                            found.add(ino)
                    await self._write()
        except OSError as error:
            site.findings.unseen.add(folder.path, error.strerror or str(error))
            return
        finally:
            os.close(fd)
        if not folder.fresh:
            await self._forget_gone(folder, found)

    def _entries(self, fd: int, entries: Iterator[os.DirEntry[str]], folder: _Folder) -> Iterator[_Entry]:
        for entry in entries:
            name = os.fsencode(entry.name)
            try:
                info = entry.stat(follow_symlinks=False)
                target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(info.st_mode) else None
            except FileNotFoundError:
                continue
            except OSError as error:
                self._site.findings.unreadable.add(_join(folder.path, name), error.strerror or str(error))
                continue
            yield _Entry(name, info, target)

    async def _forget_gone(self, folder: _Folder, found: set[int]) -> None:
        """Rows of an earlier run whose files were there then, and are not now."""
        site, after = self._site, 0
        while page := await site.catalogue.children(folder.ino, after, PAGE, placed=True):
            after = page[-1].ino
            for row in page:
                if row.ino in found or row.state in _ALONE or (row.kind is Kind.DIR and row.placement.home_ino is None):
                    continue
                far = await site.catalogue.object(row.ino) if row.has_object else None
                if far is not None:
                    site.put(evicted(row, far), far.here(local=0))
                else:
                    await self._remove(row)
        await site.write()

    async def _remove(self, row: NodeRow) -> None:
        """Take a row away, with all below it."""
        site, pending = self._site, [row]
        while pending:
            each = pending.pop()
            site.batch.removed.append(each.ino)
            site.batch.journal_done.append(each.ino)
            after = 0
            while each.kind is Kind.DIR and (page := await site.catalogue.children(each.ino, after, PAGE)):
                after = page[-1].ino
                pending += page
            if len(site.batch.removed) >= PAGE:
                await site.write()

    async def _take(self, folder: _Folder, entry: _Entry, before: NodeRow | None, pending: list[_Folder]) -> int:
        """One entry: a row, whose inode number it gives, or a place in lost+found; 0 for that."""
        site, path = self._site, _join(folder.path, entry.name)
        kind = stat.S_IFMT(entry.info.st_mode)
        try:
            role = child_role(folder.role, entry.name, is_dir=kind == stat.S_IFDIR)
        except FsError as error:
            site.set_aside(path, str(error))
            return 0
        if kind not in _KINDS:
            site.set_aside(path, "neither a file nor a directory nor a symbolic link")
            return 0
        if before is not None and before.kind is not _KINDS[kind]:
            if before.kind is Kind.DIR:
                site.set_aside(path, "the bucket has files below a directory of this name")
                return before.ino
            site.findings.unplaced.add(path, "at home something else has its name")
            await self._remove(before)
            await site.write()
            before = None
        old = await site.lineage.of(folder.old, path, entry.info)
        self._seen += 1
        if kind == stat.S_IFDIR:
            pending.append(await self._directory(folder, entry, role, before, old))
            return pending[-1].ino
        row = await self._row(folder, entry, _KINDS[kind], before, old)
        if kind == stat.S_IFLNK:
            site.findings.links += 1
            site.put(row)
        else:
            if entry.info.st_nlink > 1:
                why = "what is written to one of its names changes the others: put a copy in its place"
                site.findings.linked.add(path, why)
            await self._file(path, row, before, old)
        return row.ino

    async def _row(
        self, folder: _Folder, entry: _Entry, kind: Kind, before: NodeRow | None, old: NodeRow | None
    ) -> NodeRow:
        """The row of an entry, with the number and the attributes that are known of it."""
        if before is not None:
            return _row(before.ino, folder.ino, entry, kind)._replace(has_xattrs=before.has_xattrs)
        ino = await self._site.number(old, kind)
        row = _row(ino, folder.ino, entry, kind)
        return row if old is None else await self._site.take_over(row, old)

    async def _directory(
        self, folder: _Folder, entry: _Entry, role: Role, before: NodeRow | None, old: NodeRow | None
    ) -> _Folder:
        site = self._site
        active = site.clock.steady_ns() if role is Role.JOB else 0
        row = (await self._row(folder, entry, Kind.DIR, before, old))._replace(activity_ns=active)
        if before is not None:
            row = row._replace(size_bytes=before.size_bytes, rfiles=before.rfiles)
        site.put(row)
        site.findings.directories += 1
        site.findings.users += role is Role.USER
        if role in (Role.USER, Role.TEMP_USER):
            owner = owner_by(row.uid, row.gid, row.mode, site.operators)
            if owner is not None and (role is Role.USER or os.fsdecode(entry.name) not in site.owners):
                site.owners[os.fsdecode(entry.name)] = owner
        old_ino = old.ino if old is not None and old.kind is Kind.DIR else None
        return _Folder(row.ino, _join(folder.path, entry.name), role, before is None, old_ino)

    # --- files ---------------------------------------------------------------------------------------------------

    async def _file(self, path: bytes, row: NodeRow, before: NodeRow | None, old: NodeRow | None) -> None:
        site, findings = self._site, self._site.findings
        findings.files += 1
        far = await site.catalogue.object(before.ino) if before is not None and before.has_object else None
        if before is not None and before.state in _WHOLE and _is_same(before, row):
            findings.kept += 1
            findings.stored += before.state is State.STORED
            site.put(
                row._replace(state=before.state, sha256=before.sha256, md5=before.md5, has_object=before.has_object)
            )
            return
        local = Content(row.size_bytes, row.mtime_ns, None)
        told = Content(far.size_bytes, far.mtime_ns, far.sha256) if far is not None else None
        trusts = site.options.checksums is not Checksums.VERIFY
        known = _content_of(old) if old is not None and old.state in _WHOLE else None
        if before is not None and before.placement.home_ino is None:
            row = self._files.described(row, before)
        if far is not None and trusts and believes(local, told):
            findings.trusted += 1
            self._files.stored(row, far)
        elif trusts and old is not None and believes(local, known):
            findings.trusted += 1
            self._files.judge(row._replace(sha256=old.sha256, md5=old.md5), path, far)
        elif site.options.checksums is Checksums.LATER:
            findings.unsealed += 1
            here = row.placement._replace(promised=Promise.FOUND)
            site.put(row._replace(state=State.SEALING, has_object=int(far is not None), placement=here))
        else:
            self._hasher.add(Unhashed(row, path, far, known))

    async def _write(self) -> None:
        """Write a page, with what was hashed meanwhile."""
        site = self._site
        for done in self._hasher.finished():
            await self._settle(done)
        if site.full():
            await site.write()
        site.tell("files", self._seen, None)

    async def _settle(self, done: tuple[Unhashed, Digest] | None) -> None:
        site = self._site
        if done is None:
            site.tell("bytes hashed", self._hasher.done_bytes, None)
            return
        file, digest = done
        if digest.error is not None:
            self._files.unreadable(file.row, file.path, file.far, digest.error.strerror or str(digest.error))
        elif not self._is_other(file, digest):
            site.findings.hashed_files += 1
            site.findings.hashed_bytes += digest.size_bytes
            row = file.row._replace(sha256=digest.sha256, md5=digest.md5)
            self._files.judge(row, file.path, file.far, file.told)
        if site.full():
            await site.write()

    def _is_other(self, file: Unhashed, digest: Digest) -> bool:
        """Whether somebody wrote to it meanwhile, past recfs. It is read once more then, and no more than that."""
        row, info = file.row, self._site.store.stat(self._site.local(file.path))
        if info is None:
            return True
        facts = (info.st_ino, info.st_size, info.st_mtime_ns)
        if facts == (row.placement.home_ino, row.size_bytes, row.mtime_ns) and digest.size_bytes == row.size_bytes:
            return False
        if file.again or not stat.S_ISREG(info.st_mode):
            why = "somebody writes to it: end that, and run it again"
            self._files.unreadable(row, file.path, file.far, why, stays=True)
            return True
        new = row._replace(size_bytes=info.st_size, mtime_ns=info.st_mtime_ns, ctime_ns=info.st_ctime_ns)
        new = new._replace(placement=Placement(home_ino=info.st_ino))
        self._hasher.add(file._replace(row=new, again=1))
        return True


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _row(ino: int, parent: int, entry: _Entry, kind: Kind) -> NodeRow:
    """A row of what lies at home; a file's state and checksums are still to be found out."""
    info = entry.info
    is_link = kind is Kind.SYMLINK
    return NodeRow(
        ino, parent, entry.name, kind, 0o777 if is_link else stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid,
        info.st_size if kind is Kind.FILE else 0, 0, info.st_atime_ns, info.st_mtime_ns, info.st_ctime_ns,
        State.SEALING if kind is Kind.FILE else None, None, None, entry.target, 0, 0, 0,
        Placement(home_ino=info.st_ino),
    )  # fmt: skip


def _content_of(row: NodeRow) -> Content:
    return Content(row.size_bytes, row.mtime_ns, row.sha256)


def _is_same(before: NodeRow, row: NodeRow) -> bool:
    return (before.size_bytes, before.mtime_ns, before.placement.home_ino) == (
        row.size_bytes, row.mtime_ns, row.placement.home_ino,
    )  # fmt: skip


__all__ = ["HomePass"]
