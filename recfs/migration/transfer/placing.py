"""Entries are put into a tree: each file whole or not at all, proven before anybody sees it under its name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from recfs.core.migration.arrivals import part_name
from recfs.migration.transfer.beneath import Branch, by_descriptor, looked_at, opened
from recfs.migration.transfer.blocks import read_blocks, sum_of, write_all
from recfs.migration.transfer.items import BLOCK_BYTES, Item, Kind, Outcome, Stopped, Unusable, Why
from recfs.migration.transfer.unproven import give, made

if TYPE_CHECKING:
    from collections.abc import Callable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
_WHOLE_FILES = 32
_WHOLE_BYTES = 64 << 20
_PERMISSIONS = 0o777
_OF_OTHERS = 0o022
"""setuid, setgid and sticky bits are not carried over: whoever places files owns them."""


class Place(Protocol):
    """What is different between a plain directory and a mount."""

    keeps_attributes: bool
    gives_owners: bool
    """Whether what is made there belongs to the user in whose tree it is."""

    def sha256_of(self, descriptor: int) -> str:
        """The checksum (hex) of a file that is there. Raises OSError, Unusable."""

    def prove(self, descriptor: int, sha256: str) -> None:
        """See to it that what was written survives a power cut, and is what it should be. Raises OSError, Unusable."""


class PlainPlace:
    """A directory of any file system."""

    keeps_attributes = False
    gives_owners = False

    def sha256_of(self, descriptor: int) -> str:
        """Read it."""
        found, size = hashlib.sha256(), 0
        with opened(os.open(by_descriptor(descriptor), os.O_RDONLY | os.O_CLOEXEC)) as file:
            most = os.fstat(file).st_size
            while block := os.read(file, BLOCK_BYTES):
                size += len(block)
                if size > most:
                    raise Unusable(Why.WRITING, "what is there already is being written")
                found.update(block)
        return found.hexdigest()

    def prove(self, descriptor: int, sha256: str) -> None:
        """fsync(2)."""
        with opened(os.open(by_descriptor(descriptor), os.O_RDONLY | os.O_CLOEXEC)) as file:
            os.fsync(file)


@dataclass(slots=True)
class _Written:
    """A file that is written, and not yet under its name."""

    item: Item
    folder: int
    """Descriptors, which are its own: of its directory …"""
    file: int
    """… and of itself (O_PATH)."""
    name: bytes
    sha256: str
    owner: tuple[int, int]
    """The uid and gid that it is to have."""
    replaces: bool

    def close(self) -> None:
        os.close(self.folder)
        os.close(self.file)


class Tree:
    """Where entries are put. `finish` or `close` ends it."""

    def __init__(
        self, top: int, place: Place, outcome: Outcome, *, replace: bool, owners: bool = False, all_modes: bool = False,
        placed: Callable[[Item, str], None] | None = None,
    ) -> None:  # fmt: skip
        """*top*: a descriptor. *owners*: uid and gid are carried over, too. *all_modes*: those of directories that
        were there already as well. *placed* is told of each file that is right, with its sha256.
        """
        self._top = top
        self._place = place
        self._outcome = outcome
        self._replace = replace
        self._owners = owners
        self._all_modes = all_modes
        self._placed = placed
        self._branch = Branch(top)
        self._waiting: list[_Written] = []
        self._waiting_bytes = 0
        self._folders: list[Item] = []
        self._made: set[tuple[bytes, ...]] = set()

    def put(self, item: Item) -> None:
        """Place an entry. Raises Stopped; what is wrong with the entry alone is noted."""
        try:
            if item.kind is Kind.DIRECTORY:
                self._put_folder(item)
            elif item.kind is Kind.LINK:
                self._put_link(item)
            else:
                self._put_file(item)
        except Unusable as error:
            self._outcome.problem(item.path, error.why, str(error))
        except OSError as error:
            self._failed(item, error)

    def save(self) -> None:
        """Show what is written whole, after `put` has raised Stopped: nothing comes after it."""
        with contextlib.suppress(Stopped):
            self._settle()

    def finish(self) -> None:
        """Show all that is written, then give directories their modes and times. Raises Stopped."""
        self._settle()
        for item in reversed(self._folders):
            try:
                folder = self._branch.folder(item.parts)
                os.fchmod(folder, self._folder_mode(item))
                os.utime(folder, ns=(item.mtime_ns, item.mtime_ns))
            except OSError as error:
                self._failed(item, error)
        with contextlib.suppress(OSError):
            os.fsync(self._top)
        self.close()

    def close(self) -> None:
        """Leave nothing half done."""
        for each in self._waiting:
            self._forget(each)
        self._waiting.clear()
        self._branch.close()

    # --- directories and links ----------------------------------------------------------------------------------

    def _put_folder(self, item: Item) -> None:
        above = self._folder_of(item)
        if above is None:
            return
        made = False
        try:
            os.mkdir(item.parts[-1], 0o700, dir_fd=above)
            made = True
        except FileExistsError:
            pass
        folder = self._branch.folder(item.parts)
        if made:
            self._outcome.directories += 1
            self._own(item, folder)
            self._keep_attributes(item, folder)
        if made or self._all_modes:
            os.fchmod(folder, self._folder_mode(item) | 0o700)  # what it is to hold comes in yet
        if made:
            os.fsync(above)
        self._note_attributes(item)
        made = made or item.parts[:-1] in self._made  # recfs makes the directories of a new user
        if made:
            self._made.add(item.parts)
        if made or self._all_modes:
            self._folders.append(item)

    def _folder_mode(self, item: Item) -> int:
        """What was its owner's alone to give away is not open to all where another owns it: root's is no drop box."""
        mode = item.mode & _PERMISSIONS
        return mode if self._owners or self._place.gives_owners else mode & ~_OF_OTHERS

    def _folder_of(self, item: Item) -> int | None:
        """The directory in which an entry is to be; those that nobody named are made. None: it cannot be there."""
        above = item.parts[:-1]
        try:
            return self._branch.folder(above)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            self._outcome.problem(item.path, Why.DIFFERS, "what should be a directory on the way is none")
            return None
        for depth in range(1, len(above) + 1):
            folder = self._branch.folder(above[: depth - 1])
            with contextlib.suppress(FileExistsError):
                os.mkdir(above[depth - 1], 0o755, dir_fd=folder)
                self._outcome.directories += 1
        return self._branch.folder(above)

    def _put_link(self, item: Item) -> None:
        folder, name = self._folder_of(item), item.parts[-1]
        if folder is None:
            return
        there = looked_at(folder, name)
        if there is not None:
            if stat.S_ISLNK(there.st_mode) and os.readlink(name, dir_fd=folder) == item.target:
                self._outcome.equal += 1
                return
            if stat.S_ISDIR(there.st_mode) or not self._replace:
                self._outcome.problem(item.path, Why.DIFFERS, _other(there))
                return
            self._outcome.replaced += 1
        part = part_name(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
        os.symlink(item.target, part, dir_fd=folder)
        try:
            if self._owners:
                os.chown(part, item.uid, item.gid, dir_fd=folder, follow_symlinks=False)
            os.utime(part, ns=(item.mtime_ns, item.mtime_ns), dir_fd=folder, follow_symlinks=False)
            os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            _unlink(folder, part)
            raise
        self._outcome.links += 1

    # --- files ---------------------------------------------------------------------------------------------------

    def _put_file(self, item: Item) -> None:
        folder, name = self._folder_of(item), item.parts[-1]
        if folder is None:
            return
        there = looked_at(folder, name)
        if there is None:
            self._write(item, folder, replaces=False)
            return
        if not stat.S_ISREG(there.st_mode):
            self._outcome.problem(item.path, Why.DIFFERS, _other(there))
            return
        if there.st_size == item.size:
            known = item.sha256 or (sum_of(item) if item.again or not self._replace else None)
            if known is not None and self._is_there(item, folder, known):
                return
        if not self._replace:
            self._outcome.problem(item.path, Why.DIFFERS, "another file is there already; --replace replaces it")
            return
        self._write(item, folder, replaces=True)

    def _is_there(self, item: Item, folder: int, sha256: str) -> bool:
        """Whether a file is there already. It is one file that is looked at and changed, whatever has its name."""
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        with opened(os.open(item.parts[-1], flags, dir_fd=folder)) as there:
            try:
                if not stat.S_ISREG(os.fstat(there).st_mode) or self._place.sha256_of(there) != sha256:
                    return False
            except Unusable as error:
                if error.why is Why.WRITING and not self._replace:
                    raise
                return False
            if self._all_modes:
                path = by_descriptor(there)
                os.chmod(path, item.mode & _PERMISSIONS)
                os.utime(path, ns=(item.mtime_ns, item.mtime_ns))
        self._outcome.equal += 1
        self._outcome.equal_bytes += item.size
        self._is_right(item, sha256)
        return True

    def _is_right(self, item: Item, sha256: str) -> None:
        self._outcome.sums[item.path] = sha256
        self._note_attributes(item)
        if item.was_away:
            self._outcome.fetched += 1
        if self._placed is not None:
            self._placed(item, sha256)

    def _write(self, item: Item, folder: int, *, replaces: bool) -> None:
        part = part_name(item.parts[-1])
        descriptor, owner = made(folder, part)
        try:
            with opened(descriptor) as file:
                sha256 = self._fill(item, file)
                self._keep_attributes(item, file)
                os.utime(file, ns=(item.mtime_ns, item.mtime_ns))
                kept = os.open(by_descriptor(file), os.O_PATH | os.O_CLOEXEC)
        except BaseException:
            _unlink(folder, part)
            raise
        owner = (item.uid, item.gid) if self._owners else owner
        self._waiting.append(_Written(item, os.dup(folder), kept, item.parts[-1], sha256, owner, replaces))
        self._waiting_bytes += item.size
        if len(self._waiting) >= _WHOLE_FILES or self._waiting_bytes >= _WHOLE_BYTES:
            self._settle()

    def _fill(self, item: Item, file: int) -> str:
        """Write a file's bytes; their sha256 (hex). Raises Unusable, OSError."""
        found, size = hashlib.sha256(), 0
        for block in read_blocks(item):
            size += len(block)
            if size > item.size:
                raise Unusable(Why.WRITING, f"it has more than the {item.size:,} bytes that it should")
            found.update(block)
            write_all(file, block)
        if size != item.size:
            raise Unusable(Why.WRITING, f"it has {size:,} bytes, not the {item.size:,} that it should")
        sha256 = found.hexdigest()
        if item.sha256 is not None and sha256 != item.sha256:
            raise Unusable(Why.DAMAGED, f"its bytes have another sha256 than was recorded: {sha256}")
        return sha256

    def _own(self, item: Item, descriptor: int) -> None:
        if self._owners:
            there = os.fstat(descriptor)
            if (there.st_uid, there.st_gid) != (item.uid, item.gid):
                os.fchown(descriptor, item.uid, item.gid)

    def _note_attributes(self, item: Item) -> None:
        if item.attributes and not self._place.keeps_attributes:
            self._outcome.attributes[item.path] = item.attributes

    def _keep_attributes(self, item: Item, descriptor: int) -> None:
        if self._place.keeps_attributes:
            for name, value in item.attributes.items():
                os.setxattr(descriptor, name, value)

    def _settle(self) -> None:
        """Have all that is written proven, and show it under its name. Raises Stopped."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        folders: dict[tuple[bytes, ...], int] = {}
        try:
            while waiting:
                written = waiting[0]
                self._show(written)
                folders.setdefault(written.item.parts[:-1], os.dup(written.folder))
                waiting.pop(0).close()
        finally:
            for each in waiting:
                self._forget(each)
            for folder in folders.values():
                with opened(folder), contextlib.suppress(OSError):
                    os.fsync(folder)

    def _show(self, written: _Written) -> None:
        item, part = written.item, part_name(written.name)
        try:
            self._place.prove(written.file, written.sha256)
            there, mine = looked_at(written.folder, part), os.fstat(written.file)
            if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
                raise Unusable(Why.WRITING, "somebody else writes there, too")
            give(written.file, written.owner, item.mode & _PERMISSIONS)
            os.rename(part, written.name, src_dir_fd=written.folder, dst_dir_fd=written.folder)
        except Unusable as error:
            _unlink(written.folder, part)
            self._outcome.problem(item.path, error.why, str(error))
            return
        except OSError as error:
            _unlink(written.folder, part)
            self._failed(item, error)
            return
        self._outcome.files += 1
        self._outcome.copied_bytes += item.size
        self._outcome.replaced += written.replaces
        if not written.replaces:
            self._outcome.arrived.add(item.path)
        self._is_right(item, written.sha256)

    @staticmethod
    def _forget(written: _Written) -> None:
        _unlink(written.folder, part_name(written.name))
        written.close()

    def _failed(self, item: Item, error: OSError) -> None:
        if error.errno in _FULL:
            raise Stopped(f"{os.fsdecode(item.path)}: {error.strerror}") from error
        self._outcome.problem(item.path, Why.REFUSED, error.strerror or str(error))


def _other(there: os.stat_result) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link", stat.S_IFREG: "a file"}
    return f"{kinds.get(stat.S_IFMT(there.st_mode), 'something else')} is there already"


def _unlink(folder: int, name: bytes) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


__all__ = ["Place", "PlainPlace", "Tree"]
