"""Extended attributes: the user's own (kept in the catalogue) and `user.recfs.*` (computed).

Computed ones are not listed, so that `cp -a`, `rsync -X` and `tar --xattrs` do not copy them; `getfattr -n NAME`
reads them. Limits are those of xattr(7): 255 bytes a name, 64 KiB a value, 64 KiB for the list of names.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recfs.core.layout import Role
from recfs.core.model import State
from recfs.core.quota import UNLIMITED, Limits, month_of
from recfs.core.units import parse_size
from recfs.errors import InvalidArgument, NoAttribute, NotPermitted, NotSupported, TooBig
from recfs.fs.accounts import LIMIT_NAMES
from recfs.fs.nodes import DirNode, FileNode, Node
from recfs.fs.views import View

if TYPE_CHECKING:
    from recfs.fs.accounts import Account
    from recfs.fs.namespace import Caller
    from recfs.fs.vfs import Vfs

OWN = b"user."
COMPUTED = b"user.recfs."
_QUOTA = b"quota."
NAME_MAX_BYTES = 255
VALUE_MAX_BYTES = 65536
_SIZES = ("max_bytes", "max_file_size")


class Xattrs:
    """getxattr, setxattr, listxattr, removexattr."""

    def __init__(self, vfs: Vfs, root: str) -> None:
        self._vfs = vfs
        self._root = os.fsencode(root)

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
        return list(await self._own(await self._vfs.node(ino)))

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
        if name not in own and sum(len(known) + 1 for known in own) + len(name) + 1 > VALUE_MAX_BYTES:
            raise TooBig(f"{node.path}: the list of attribute names is full")
        own[name] = value
        self._changed(node, name, value)

    async def remove(self, ino: int, name: bytes, caller: Caller) -> None:
        """removexattr(2). Removing a quota attribute brings the default back."""
        if not name.startswith(OWN):
            raise NotSupported(f"{os.fsdecode(name)}: only user.* attributes are kept")
        seen = await self._vfs.node(ino)
        if name.startswith(COMPUTED):
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

    async def _own(self, seen: Node | View) -> dict[bytes, bytes]:
        node = seen.shared if isinstance(seen, View) else seen
        if node.xattrs is None:
            loaded = await self._vfs.tree.catalogue.xattrs(node.ino)
            if node.xattrs is None:
                node.xattrs = loaded
        return node.xattrs

    async def _changeable(self, seen: Node | View, caller: Caller) -> Node:
        if isinstance(seen, View):
            return await self._vfs.own(seen, caller, empty=False)
        folder = seen if isinstance(seen, DirNode) else seen.parent
        if folder.parent is not folder and not seen.unlinked:
            self._vfs.names.may_change(folder, caller)
        return seen

    def _changed(self, node: Node, name: bytes, value: bytes | None) -> None:
        behind, now = self._vfs.behind, self._vfs.tree.clock.now_ns()
        node.ctime_ns = now
        if not node.unlinked:
            behind.xattr(node.ino, name, value)
            behind.node(node)
            self._vfs.tree.activity(node.parent, now)

    # --- computed ------------------------------------------------------------------------------------------------

    async def _computed(self, seen: Node | View, name: bytes) -> bytes:
        if name == b"root":
            return self._root
        if isinstance(seen, View):
            if name == b"shown":
                return b"/".join(seen.shared.parts())
            seen = seen.shared
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
            return b"staging" if node.staging is not None else b"local"
        if name in (b"sha256", b"md5"):
            await self._vfs.wait_sealed(node)
            digest = node.sha256 if name == b"sha256" else node.md5
            if digest is not None and node.state in (State.COMMITTED, State.CORRUPT):
                return digest.hex().encode("ascii")
        raise NoAttribute("")

    def _of_directory(self, node: DirNode, name: bytes) -> bytes:
        if name == b"rbytes":
            return b"%d" % node.rbytes
        if name == b"rfiles":
            return b"%d" % node.rfiles
        account = self._quota_account(node)
        if account is not None and name.startswith(_QUOTA):
            what = name[len(_QUOTA) :].decode("ascii", "replace")
            if what in LIMIT_NAMES:
                limit: int | None = getattr(account.limits, what)
                return b"unlimited" if limit is None else b"%d" % limit
            if what == "month_uploads":
                return b"%d" % account.uploads_in(max(account.month, month_of(self._vfs.tree.clock.now_ns())))
            if what in ("used_bytes", "used_files"):
                return b"%d" % getattr(account, what)
        raise NoAttribute("")

    @staticmethod
    def _quota_account(seen: Node | View) -> Account | None:
        if isinstance(seen, DirNode) and seen.role is Role.USER:
            return seen.account
        return None

    def _set_computed(self, seen: Node | View, name: bytes, value: bytes, caller: Caller) -> None:
        account = self._quota_account(seen)
        what = name[len(_QUOTA) :].decode("ascii", "replace")
        if account is None or not name.startswith(_QUOTA) or what not in LIMIT_NAMES:
            raise NotPermitted(f"user.recfs.{os.fsdecode(name)} is computed")
        self._set_limit(account, what, parse_limit(what, value.decode("utf-8", "replace")), caller)

    def _set_limit(self, account: Account, what: str, limit: int | None, caller: Caller) -> None:
        if not caller.operator:
            raise NotPermitted("quotas are set by the operator")
        set_limits(self._vfs, account, {what: limit})


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


def set_limits(vfs: Vfs, account: Account, wanted: dict[str, int | None]) -> None:
    """Change some of a user's own limits. Atomic."""
    vfs.files.modes.measure()  # what is written already is judged by the limits it was written under
    own = account.own
    values = {what: wanted.get(what, getattr(own, what)) for what in LIMIT_NAMES}
    vfs.tree.accounts.set_limits(account, Limits(**values))
    vfs.behind.account(account)
