"""Objects become files many at a time, within the limits of those who are charged for them.

One by one each would wait for a batch of the catalogue to be written, to know that nobody has its key. Here everything
is written once, then looked at, and it counts if no batch was written meanwhile: whatever came up since is in memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.access.sources import check_source
from recfs.core.keys import path_for
from recfs.core.layout import child_role
from recfs.core.layout import owner_of as user_of
from recfs.errors import FsError, RecfsError
from recfs.fs.caller import Caller, may_change, may_grow
from recfs.fs.leftovers.adoption import owner_of
from recfs.state.nodes import DirNode
from recfs.state.problems import reason_of
from recfs.stores.s3.meta import OWNER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.core.migration.adopting import Digests
    from recfs.fs.leftovers.adoption import Adoption
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.ports.objects import ObjectInfo
    from recfs.state.accounts import Account
    from recfs.tier.leftovers import BucketLeftovers

KNOWN: Final = "known"
"""Fate of an object that is somebody's already."""
_TAKEN: Final = "another file has its name"
TRIES = 5
"""So often a batch is looked at while others write all the time; then its objects are, one by one."""
_OPERATOR = Caller(0, 0, operator=True)


class Wanted(NamedTuple):
    """An object that is to be a file."""

    info: ObjectInfo
    digests: Digests


class Imports:
    """Makes the files."""

    def __init__(self, vfs: Vfs, kernel: KernelCache, adoption: Adoption, far: BucketLeftovers) -> None:
        self._vfs = vfs
        self._tree = vfs.tree
        self._behind = vfs.behind
        self._kernel = kernel
        self._adoption = adoption
        self._far = far

    async def take(self, wanted: Sequence[Wanted]) -> list[str | None]:
        """Make files of objects; what became of each: None, it is a file; KNOWN; or why it was left, in words.

        Raises IoFailure or OutOfSpace: the catalogue cannot be written.
        """
        for _ in range(TRIES):
            await self._behind.flush()
            written = self._behind.written
            folders: dict[bytes, DirNode | str] = {}
            places = [await self._place(each.info.key, each.info, folders) for each in wanted]
            free = await self._far.are_nobodys([each.info.key for each in wanted])
            is_whole = all(isinstance(each, str) or self._tree.nodes.get(each.ino) is each for each in places)
            if is_whole and written == self._behind.written and not self._behind.is_writing:
                return self._enter_all(wanted, places, free)
        return [await self._alone(each) for each in wanted]

    async def refusal(self, key: str, info: ObjectInfo) -> str | None:
        """Why an object could not be a file under *key*, in words; None: it could just now. Its directory is made."""
        place = await self._place(key, info, {})
        if isinstance(place, str):
            return place
        name = path_for(key).rpartition(b"/")[2]
        if name in place.children:
            return _TAKEN
        try:
            self._admit(place, name, info.size_bytes)
        except FsError as error:
            return reason_of(error)
        return None

    # --- many ----------------------------------------------------------------------------------------------------

    async def _place(self, key: str, info: ObjectInfo, folders: dict[bytes, DirNode | str]) -> DirNode | str:
        """The directory that it is to lie in, with whether its name is taken known; or why it cannot be there."""
        path = path_for(key)
        above, _, name = path.rpartition(b"/")
        folder = folders.get(above)
        if folder is None:
            try:
                parts = tuple(above.split(b"/"))
                user = user_of(parts)
                account = await self._tree.accounts.load(user) if user is not None else None
                folder = await self._adoption.folder(parts, self._owner(info, account))
                if folder.fallback is not None:
                    await self._vfs.views.hidden(folder)
            except RecfsError as error:
                folder = reason_of(error)
            folders[above] = folder
        if isinstance(folder, DirNode):
            await self._tree.child(folder, name)  # from now on it is in memory, if it is there
        return folder

    def _enter_all(
        self, wanted: Sequence[Wanted], places: Sequence[DirNode | str], free: frozenset[str]
    ) -> list[str | None]:
        """Atomic."""
        fates: list[str | None] = []
        changed: set[int] = set()
        paths: dict[int, bytes] = {}
        for each, place in zip(wanted, places, strict=True):
            if isinstance(place, str):
                fates.append(place)
                continue
            if place.ino not in paths:
                paths[place.ino] = b"" if place.unlinked else b"/".join(place.parts())
            fate = self._enter(each, place, paths[place.ino], is_free=each.info.key in free)
            fates.append(fate)
            if fate is None:
                changed.add(place.ino)
        for ino in changed:
            self._kernel.forget_inode(ino)
        return fates

    def _enter(self, each: Wanted, folder: DirNode, at: bytes, *, is_free: bool) -> str | None:
        if not is_free:
            return KNOWN
        above, _, name = path_for(each.info.key).rpartition(b"/")
        if at != above:
            return "its directory was renamed or removed meanwhile"
        if name in folder.children:
            return _TAKEN
        try:
            self._admit(folder, name, each.info.size_bytes)
        except FsError as error:
            return reason_of(error)
        self._adoption.enter(folder, name, each.info, self._owner(each.info, folder.account), each.digests)
        return None

    def _admit(self, folder: DirNode, name: bytes, size_bytes: int) -> None:
        """Look whether the layout, the recording and the user's limits take one more file. Atomic. Raises FsError.

        It is no upload: `max_monthly_uploads` counts what users bring, and not what was there.
        """
        child_role(folder.role, name, is_dir=False)
        check_source(folder.role, name, self._vfs.names.allowed_extensions)
        may_change(folder, _OPERATOR)
        may_grow(folder)
        if folder.account is not None:
            folder.account.check_add_file(self._tree.clock.calendar_ns(), upload=False)
            folder.account.demand(0, size_bytes)

    def _owner(self, info: ObjectInfo, account: Account | None) -> Caller:
        """Whose the file is: the user's in whose tree it lies, if users are told apart; else as its metadata says."""
        known = info.metadata.get(OWNER)
        if known is None or (account is not None and account.owner is not None):
            return Caller(os.geteuid(), os.getegid(), operator=True, by_place=True)
        return owner_of(known)

    # --- one -----------------------------------------------------------------------------------------------------

    async def _alone(self, each: Wanted) -> str | None:
        place = await self._place(each.info.key, each.info, {})
        if isinstance(place, str):
            return place
        is_free = await self._far.is_nobodys(each.info)
        if not is_free:
            return KNOWN
        if place.unlinked or await self._tree.child(place, path_for(each.info.key).rpartition(b"/")[2]) is not None:
            return "another file has its name, or its directory was removed meanwhile"
        return self._enter_all([each], [place], frozenset((each.info.key,)))[0]


__all__ = ["KNOWN", "Imports", "Wanted"]
