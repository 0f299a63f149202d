"""Extended attributes: the user's own (kept in the catalogue) and `user.recfs.*` (computed).

Of these the operator sets quotas of a user and, of a recording, `expires_at` and `keep` (`fs/lives.py`).
Computed ones are not listed, so that `cp -a`, `rsync -X` and `tar --xattrs` do not copy them; `getfattr -n NAME`
reads them. Limits are those of xattr(7): 255 bytes a name, 64 KiB a value, 64 KiB for the list of names; and
`TOTAL_MAX_BYTES` for all of one file or directory, since they take room in the catalogue and in memory.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeGuard

from recfs.core.layout import Role
from recfs.core.model import State
from recfs.core.quota import UNLIMITED, Limits, month_of
from recfs.core.units import parse_size
from recfs.errors import InvalidArgument, NoAttribute, NotPermitted, NotSupported, OutOfSpace, TooBig
from recfs.fs import contents, lives, told
from recfs.fs.caller import may_change
from recfs.fs.fallback_entries import FallbackEntry
from recfs.state.accounts import LIMIT_NAMES
from recfs.state.nodes import DirNode, FileNode, Node
from recfs.state.waits import bounded, interruptible

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.fs.caller import Caller
    from recfs.fs.vfs import Vfs
    from recfs.ports.rows import ObjectRow
    from recfs.state.accounts import Account
    from recfs.state.tree import Tree

OWN = b"user."
COMPUTED = b"user.recfs."
_QUOTA = b"quota."
NAME_MAX_BYTES = 255
VALUE_MAX_BYTES = 65536
TOTAL_MAX_BYTES = 2 * VALUE_MAX_BYTES
FOLDER_MAX_BYTES = 4096
"""For all of one directory, as on ext4: directories are free, so nothing else bounds them."""
"""Names and values of one inode together: the longest value still fits beside a full list of names."""
LOADED_BYTES = 32 << 20
"""How much of all attributes is kept in memory; what was not used for longest is read again when it is asked for."""
_SIZES = ("max_bytes", "max_file_size")


def _size(own: dict[bytes, bytes]) -> int:
    """Bytes of names and values."""
    return sum(len(name) + len(value) for name, value in own.items())


def _of_user(attributes: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Those that a user has set: recfs keeps a few beside them (`services/reuse/numbering.py`), which nobody sees."""
    return {name: value for name, value in attributes.items() if name.startswith(OWN)}


class Loaded:
    """Which attributes are in memory, by their last use. By inode number: a node may be unloaded at any time."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._sizes: dict[int, int] = {}
        self._bytes = 0

    def used(self, node: Node) -> None:
        """The node's attributes were read or changed: those of others leave if there are too many. Atomic."""
        self._bytes -= self._sizes.pop(node.ino, 0)
        if not node.xattrs:
            return
        self._sizes[node.ino] = size = _size(node.xattrs)
        self._bytes += size
        if self._bytes > LOADED_BYTES:
            self._unload(node.ino)

    def _unload(self, kept: int) -> None:
        for ino in list(self._sizes):
            if self._bytes <= LOADED_BYTES:
                return
            node = self._tree.nodes.get(ino) or self._tree.orphans.get(ino)
            removed = node is not None and node.unlinked
            if ino == kept or (node is not None and not removed and self._tree.behind.is_dirty(ino)):
                continue  # the catalogue does not have all of them
            self._bytes -= self._sizes.pop(ino)
            if node is not None:
                node.xattrs = {} if removed else None  # nobody has those of a removed file any more


class Xattrs:
    """getxattr, setxattr, listxattr, removexattr."""

    def __init__(self, vfs: Vfs, root: str) -> None:
        self._vfs = vfs
        self._root = os.fsencode(root)
        self._loaded = Loaded(vfs.tree)

    async def get(self, ino: int, name: bytes) -> bytes:
        """getxattr(2). A checksum of a sealing file is waited for."""
        if not name.startswith(OWN):
            # `security.*` is asked at every write and exec: a quick "there is none". ACLs and the rest are not
            # offered, and saying so keeps ls from asking for every file again.
            raise NoAttribute("") if name.startswith(b"security.capability") else NotSupported("")
        seen = await self._vfs.node(ino)
        if name.startswith(COMPUTED):
            self._vfs.files.modes.measure()
            return await self._computed(seen, name[len(COMPUTED) :])
        own = await self._own(seen)
        if name not in own:
            raise NoAttribute("")
        return own[name]

    async def list(self, ino: int) -> list[bytes]:
        """listxattr(2): the user's own names only."""
        return [name for name in await self._own(await self._vfs.node(ino)) if name.startswith(OWN)]

    async def set(self, ino: int, name: bytes, value: bytes, caller: Caller) -> None:
        """setxattr(2)."""
        if not name.startswith(OWN) or name == OWN:
            raise NotSupported(f"{os.fsdecode(name)}: only user.* attributes are kept")
        seen = await self._vfs.node(ino)
        if name.startswith(COMPUTED):
            self._set_computed(seen, name[len(COMPUTED) :], value, caller)
            return
        if len(name) > NAME_MAX_BYTES or len(value) > VALUE_MAX_BYTES:
            raise TooBig(f"attribute {os.fsdecode(name)}")
        node = await self._changeable(seen, caller)
        own = await self._own(node)
        if name not in own and sum(len(known) + 1 for known in _of_user(own)) + len(name) + 1 > VALUE_MAX_BYTES:
            raise TooBig(f"{node.path}: the list of attribute names is full")
        added = len(value) - len(own[name]) if name in own else len(name) + len(value)
        if added > 0:
            most = FOLDER_MAX_BYTES if isinstance(node, DirNode) else TOTAL_MAX_BYTES
            if _size(_of_user(own)) + added > most:
                raise OutOfSpace(f"{node.path}: its attributes would take more than {most} bytes")
            self._vfs.files.space.admit(added)
        own[name] = value
        self._changed(node, name, value)
        self._loaded.used(node)

    async def remove(self, ino: int, name: bytes, caller: Caller) -> None:
        """removexattr(2). Removing a quota attribute brings the default back."""
        if not name.startswith(OWN):
            raise NotSupported(f"{os.fsdecode(name)}: only user.* attributes are kept")
        seen = await self._vfs.node(ino)
        if name.startswith(COMPUTED):
            what = name[len(COMPUTED) :]
            if what in lives.ATTRIBUTES and _is_recording(seen):
                return self._set_life(seen, what, b"", caller)
            account = self._quota_account(seen)
            limit = name[len(COMPUTED) + len(_QUOTA) :].decode("ascii", "replace")
            if account is None or not name.startswith(COMPUTED + _QUOTA) or limit not in LIMIT_NAMES:
                raise NotPermitted(f"{os.fsdecode(name)} is computed")
            self._set_limit(account, limit, None, caller)
            return
        if name not in await self._own(seen):
            raise NoAttribute("")
        node = await self._changeable(seen, caller)
        own = await self._own(node)
        own.pop(name, None)
        self._changed(node, name, None)

    # --- the user's own ------------------------------------------------------------------------------------------

    async def _own(self, seen: Node | FallbackEntry) -> dict[bytes, bytes]:
        node = seen.shared if isinstance(seen, FallbackEntry) else seen
        own = await self._vfs.tree.xattrs(node)
        self._loaded.used(node)
        return own

    async def _changeable(self, seen: Node | FallbackEntry, caller: Caller) -> Node:
        if isinstance(seen, FallbackEntry):
            return await self._vfs.copies_up.own(seen, caller, empty=False)
        folder = seen if isinstance(seen, DirNode) else seen.parent
        if folder.parent is not folder and not seen.unlinked:
            may_change(folder, caller)
        return seen

    def _changed(self, node: Node, name: bytes, value: bytes | None) -> None:
        behind, now = self._vfs.behind, self._vfs.tree.clock.now_ns()
        node.ctime_ns = now
        if not node.unlinked:
            behind.xattr(node.ino, name, value)
            behind.node(node)
            self._vfs.tree.activity(node.parent)

    # --- computed ------------------------------------------------------------------------------------------------

    async def _computed(self, seen: Node | FallbackEntry, name: bytes) -> bytes:
        if name == b"root":
            return self._root
        if isinstance(seen, FallbackEntry):
            if name == b"shown":
                return b"/".join(seen.shared.parts())
            seen = seen.shared
        if name == told.ATTRIBUTE:
            own = _of_user(await self._own(seen))
            if isinstance(seen, FileNode):
                return await told.of_file(self._vfs.contents, seen, own, _location)
            if isinstance(seen, DirNode):
                return await told.of_directory(self._vfs.tree, self._vfs.lives, seen, own)
        if name == b"ino":
            return b"%d" % seen.ino
        if isinstance(seen, FileNode):
            return await self._of_file(seen, name)
        if isinstance(seen, DirNode):
            return self._of_directory(seen, name)
        raise NoAttribute("")

    async def _of_file(self, node: FileNode, name: bytes) -> bytes:
        if name == b"state":
            return node.state.encode("ascii")
        if name == b"location":
            return _location(node)
        if name in _OF_OBJECT and node.object is not None:
            return _OF_OBJECT[name](node.object)
        if name in contents.ATTRIBUTES:
            if (value := await self._vfs.contents.attribute(node, name)) is not None:
                return value
            raise NoAttribute("")
        if name == b"restore":
            return await self._restore(node)
        if name in (b"sha256", b"md5"):
            await self._vfs.wait_sealed(node)
            if name == b"md5" and node.md5 is None and node.state.is_whole:
                with bounded(f"the md5 of {node.path}"):
                    await self._vfs.md5s.of(node)
            if (digest := told.checksum_of(node, md5=name == b"md5")) is not None:
                return digest.hex().encode("ascii")
        raise NoAttribute("")

    async def _restore(self, node: FileNode) -> bytes:
        """How an object of an archive class stands. S3 is asked where there may be one; ENODATA where there is none."""
        with interruptible(f"what S3 says of {node.path}"):
            found = await self._vfs.backing_files.remote.restore_state(node)
        if found is None:
            raise NoAttribute("")
        return found.encode("ascii")

    def _of_directory(self, node: DirNode, name: bytes) -> bytes:
        if name == b"rbytes":
            return b"%d" % node.rbytes
        if name == b"rfiles":
            return b"%d" % node.rfiles
        if name in lives.ATTRIBUTES and _is_recording(node):
            found = lives.attribute(self._vfs.lives, node, name)
            if found is not None:
                return found
        account = self._quota_account(node)
        if account is not None and name.startswith(_QUOTA):
            what = name[len(_QUOTA) :].decode("ascii", "replace")
            if what in LIMIT_NAMES:
                limit: int | None = getattr(account.limits, what)
                return b"unlimited" if limit is None else b"%d" % limit
            if what == "month_uploads":
                return b"%d" % account.uploads_in(month_of(self._vfs.tree.clock.calendar_ns()))
            if what in ("used_bytes", "used_files"):
                return b"%d" % getattr(account, what)
        raise NoAttribute("")

    @staticmethod
    def _quota_account(seen: Node | FallbackEntry) -> Account | None:
        if isinstance(seen, DirNode) and seen.role is Role.USER:
            return seen.account
        return None

    def _set_life(self, seen: DirNode, name: bytes, value: bytes, caller: Caller) -> None:
        if not caller.operator:
            raise NotPermitted("how long recordings live is the operator's to say")
        lives.set_attribute(self._vfs.lives, seen, name, value, by=f"uid {caller.uid} by setfattr")

    def _set_computed(self, seen: Node | FallbackEntry, name: bytes, value: bytes, caller: Caller) -> None:
        if name in lives.ATTRIBUTES and _is_recording(seen):
            self._set_life(seen, name, value, caller)
            return
        account = self._quota_account(seen)
        what = name[len(_QUOTA) :].decode("ascii", "replace")
        if account is None or not name.startswith(_QUOTA) or what not in LIMIT_NAMES:
            raise NotPermitted(f"user.recfs.{os.fsdecode(name)} is computed")
        self._set_limit(account, what, parse_limit(what, value.decode("utf-8", "replace")), caller)

    def _set_limit(self, account: Account, what: str, limit: int | None, caller: Caller) -> None:
        if not caller.operator:
            raise NotPermitted("quotas are set by the operator")
        set_limits(self._vfs, account, {what: limit})


def _is_recording(seen: Node | FallbackEntry) -> TypeGuard[DirNode]:
    return isinstance(seen, DirNode) and seen.role is Role.RECORDING


def parse_limit(what: str, text: str) -> int | None:
    """A limit as people write it: "10GiB", "5000", "unlimited", or "default" (None). Raises InvalidArgument."""
    word = text.strip().rstrip("\0").lower()
    if word == "default":
        return None
    if word == "unlimited":
        return UNLIMITED
    try:
        limit = parse_size(word) if what in _SIZES else _count(word)
    except ValueError as error:
        raise InvalidArgument(f"{what}: {error}") from error
    if not 0 <= limit < UNLIMITED:
        raise InvalidArgument(f"{what}: {text!r} is not a number of at least 0, `unlimited` or `default`")
    return limit


def _count(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise ValueError(f"{word!r} is not a whole number")
    return int(word)


def _location(node: FileNode) -> bytes:
    """Where the bytes are: `local` (home tree), `staging`, `s3`, `local,s3` (both), `partial,s3`."""
    if node.state is State.FETCHING:
        return b"partial,s3"
    if node.state.is_remote:
        return b"s3"
    here = b"staging" if node.staging is not None else b"local"
    return here + b",s3" if node.state is State.STORED else here


_OF_OBJECT: dict[bytes, Callable[[ObjectRow], bytes]] = {
    b"object_key": lambda in_s3: in_s3.key.encode(),
    b"etag": lambda in_s3: in_s3.etag.encode(),
    b"storage_class": lambda in_s3: in_s3.storage_class.encode(),
    b"uploaded_at": lambda in_s3: datetime.fromtimestamp(in_s3.uploaded_ns // 10**9, UTC).isoformat().encode(),
    b"pinned": lambda in_s3: b"%d" % in_s3.copy.pinned,
}


def set_limits(vfs: Vfs, account: Account, wanted: dict[str, int | None]) -> None:
    """Change some of a user's own limits. Atomic."""
    vfs.files.modes.measure()  # what is written already is judged by the limits it was written under
    own = account.own
    values = {what: wanted.get(what, getattr(own, what)) for what in LIMIT_NAMES}
    vfs.tree.accounts.set_limits(account, Limits(**values))
    vfs.behind.account(account)
