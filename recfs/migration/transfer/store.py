"""A store, as something is read from it and put into it: on its mount, or with nobody there in its home tree."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from recfs.client.file_facts import WHOLE
from recfs.core.life import Status
from recfs.core.migration.arrivals import is_part
from recfs.core.migration.manifest import Life, Manifest, User, is_own_attribute
from recfs.errors import NotFound
from recfs.migration.transfer.beneath import by_descriptor
from recfs.migration.transfer.holders import writers_of
from recfs.migration.transfer.items import Ask, Item, Kind, Problem, Unusable, Why
from recfs.migration.transfer.walking import Walk, own_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEALED_S = 600.0
"""So long is waited until a file is committed that was written whole."""
HELD_S = 120.0
"""So long is waited in one transfer, for all files together, while somebody holds them open for writing."""
_RELEASE_S = 0.5
"""A daemon hears late that a file was closed: so long may each of one's own be in writing after that."""
_TELL_S = 1.0
_PAUSE_S = 0.01
_USER_DEPTH = 2
_STATE, _SHA256, _SHOWN = "user.recfs.state", "user.recfs.sha256", "user.recfs.shown"
_REASONS = {
    "writing": (Why.WRITING, "it is being written"),
    "sealing": (Why.WRITING, "it was just written, and is not committed yet"),
    "incomplete": (Why.DAMAGED, "it is incomplete: its writer was cut off"),
    "corrupt": (Why.DAMAGED, "it is corrupt: `recfs verify` tells why"),
    "archived": (Why.AWAY, "it is archived in S3: `recfs restore` has it brought back"),
}
_AWAY = frozenset({"evicted", "fetching"})
_UNSEALED = ("writing", "sealing")


def unfit(path: bytes, state: str) -> Problem | None:
    """Why a file in a state is not to be read; None: it is."""
    found = _REASONS.get(state)
    return None if found is None else Problem(path, *found)


def told(descriptor: int, name: str) -> str | None:
    """A computed attribute of an open file (O_PATH); None: it has none. Raises OSError."""
    try:
        return os.fsdecode(os.getxattr(by_descriptor(descriptor), name))
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


class MountSource:
    """Part of a store that is mounted."""

    has_sums = False

    def __init__(self, mount: int, top: tuple[bytes, ...], manifest: Manifest) -> None:
        """*mount*: a descriptor of its top; *top*: the path of a user or recording."""
        self._mount = mount
        self._top = top
        self.manifest: Manifest | None = manifest

    def items(self) -> Iterator[Item | Problem]:
        """All below the top."""
        return Walk(self._mount, self._judged).below(self._top)

    def sum_of(self, path: bytes) -> str | None:
        """The checksum is in the items."""
        return None

    @staticmethod
    def _judged(item: Item, descriptor: int) -> Item | Problem | None:
        if item.kind is Kind.LINK:
            return item
        if told(descriptor, _SHOWN) is not None:
            return None  # what is shown of shared/ is nobody's own
        if item.kind is Kind.FILE:
            if is_part(item.parts[-1]):
                return None  # a killed transfer was writing it
            if told(descriptor, _STATE) == "sealing":
                with contextlib.suppress(BlockingIOError):
                    told(descriptor, _SHA256)  # it is waited for
            state = told(descriptor, _STATE) or "writing"
            if (why := unfit(item.path, state)) is not None:
                return why
            item.sha256 = told(descriptor, _SHA256)
            item.was_away = state in _AWAY
            item.chunks = partial(_read, item, descriptor, item.chunks)
        item.attributes = own_attributes(item, descriptor)
        return item


def _read(item: Item, descriptor: int, chunks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """The bytes of a file. What keeps them from being read may be known only when somebody tries."""
    try:
        yield from chunks()
    except OSError as error:
        state = told(descriptor, _STATE) or ""
        if item.was_away and error.errno == errno.EACCES:
            state = "archived"  # whoever may look at a file may read it, but for that
        if (why := unfit(item.path, state)) is not None:
            raise Unusable(why.why, why.reason) from error
        raise


class HomeSource:
    """Part of a store that no daemon runs on: its home tree, with what the catalogue says."""

    has_sums = False

    def __init__(self, root: int, top: tuple[bytes, ...], manifest: Manifest, ask: Ask) -> None:
        """*root*: a descriptor of the store's root. Raises RecfsError."""
        self._root = root
        self._top = top
        self._ask = ask
        self.manifest: Manifest | None = manifest
        listed = ask("ls_files", path=os.fsdecode(b"/".join(top)), recursive=True, state=None, media=False)
        self._missing = {os.fsencode(each["path"]): each for each in listed}

    def items(self) -> Iterator[Item | Problem]:
        """All that the catalogue has: what is not in the home tree is told."""
        yield from Walk(self._root, self._judged).below(self._top)
        for path, row in self._missing.items():
            if row["kind"] == "file" and is_part(path.rsplit(b"/", 1)[-1]):
                continue
            yield unfit(path, row["state"] or "") or Problem(path, Why.AWAY, _NOT_HERE)

    def sum_of(self, path: bytes) -> str | None:
        """The checksum is in the items."""
        return None

    def _judged(self, item: Item, descriptor: int) -> Item | Problem | None:
        row = self._missing.pop(item.path, None)
        if row is None and item.parts != self._top:
            return None  # it is on the disk alone: recfs knows nothing of it
        if item.kind is Kind.FILE and row is not None:
            if is_part(item.parts[-1]):
                return None
            if (why := unfit(item.path, row["state"])) is not None:
                return why
            if row["state"] in _AWAY:
                return Problem(item.path, Why.AWAY, _NOT_HERE)
            item.sha256 = row["sha256"]
        if item.kind is not Kind.LINK:
            own = self._ask("info", path=os.fsdecode(item.path))["xattrs"]
            encoded = {os.fsencode(name): os.fsencode(value) for name, value in own.items()}
            item.attributes = {name: value for name, value in encoded.items() if is_own_attribute(name)}
        return item


_NOT_HERE = "its bytes are not on this disk, and no daemon runs that could fetch them: `recfs mount`"


class MountPlace:
    """A mount, where recfs hashes for itself what is written."""

    keeps_attributes = True
    gives_owners = True

    def __init__(
        self, wait_s: float = SEALED_S, held_s: float = HELD_S, *, heard: Callable[[str], None] | None = None
    ) -> None:
        """*heard* is told what is waited for, and who holds it; and "" when it goes on."""
        self._wait_s = wait_s
        self._left_s = held_s
        self._heard = heard

    def sha256_of(self, descriptor: int) -> str:
        """As recfs has it; nothing is read."""
        sha256, state = self._sealed(descriptor, own=False)
        if state in _UNSEALED:
            raise Unusable(Why.WRITING, f"what is there already is being written{_by(descriptor)}")
        if sha256 is None or state not in WHOLE:
            raise Unusable(Why.DIFFERS, f"what is there already is {state}")
        return sha256

    def prove(self, descriptor: int, sha256: str) -> None:
        """Wait until it is committed: then all of it is on stable storage, with the checksum of what lies there."""
        found, state = self._sealed(descriptor, own=True)
        if state in _UNSEALED:
            raise Unusable(Why.WRITING, f"somebody else writes to it{_by(descriptor)}")
        if state not in WHOLE:
            raise Unusable(Why.DAMAGED, f"recfs did not take it: it is {state}")
        if found != sha256:
            raise Unusable(Why.DAMAGED, f"recfs has it with another sha256 than was written: {found}")

    def _sealed(self, descriptor: int, *, own: bool) -> tuple[str | None, str]:
        """Checksum and state of a file, when it is committed or will not be. *own*: it was written just now.

        Only recfs itself keeps a file of one's own sealing. For all else there is one time to wait, which whoever
        holds files open can use up only once.
        """
        began_s = before_s = time.monotonic()
        told_s = None
        try:
            while True:
                sha256 = None
                with contextlib.suppress(BlockingIOError):  # it was waited for, and takes longer
                    sha256 = told(descriptor, _SHA256)
                state = told(descriptor, _STATE) or "writing"
                if (sha256 is not None and state in WHOLE) or state not in (*_UNSEALED, *WHOLE):
                    return sha256, state
                if own and not os.fstat(descriptor).st_nlink:  # recfs is done with it, and says nothing any more
                    raise Unusable(Why.WRITING, "somebody else writes there, too")
                now_s = time.monotonic()
                waited_s = now_s - began_s
                if own and state != "writing":
                    if waited_s >= self._wait_s:
                        return sha256, state
                elif not own or waited_s >= _RELEASE_S:
                    self._left_s -= now_s - before_s
                    if self._left_s <= 0:
                        return sha256, state
                if self._heard is not None and waited_s >= _TELL_S and now_s - (told_s or 0) >= _TELL_S:
                    told_s = now_s
                    self._heard(f"{os.readlink(by_descriptor(descriptor))}, which is {state}{_by(descriptor)}")
                before_s = now_s
                time.sleep(_PAUSE_S)
        finally:
            if told_s is not None and self._heard is not None:
                self._heard("")


def _by(descriptor: int) -> str:
    found = writers_of(descriptor)
    return f" by {found}" if found else ""


def described(ask: Ask, top: tuple[bytes, ...], version: str, now_ns: int) -> Manifest:
    """What there is to be said of a user, or of one recording. Raises RecfsError.

    *now_ns*: since the epoch, for people.
    """
    user = top[1].decode("ascii")
    found = Manifest(version, now_ns)
    path = os.fsdecode(b"/".join(top))
    for each in ask("recording_list", user=user, status=None, due_s=None):
        if each["path"] == path or each["path"].startswith(f"{path}/"):
            found.recordings[each["path"]] = _life(each)
    if len(top) == _USER_DEPTH:
        found.users[user] = _user(ask, user)
    return found


def _life(row: dict[str, Any]) -> Life:
    return Life(
        Status(row["status"]), row["created_ns"], row["expires_at_ns"], row["keep"], row["note"], row["set_by"] or ""
    )


def _user(ask: Ask, user: str) -> User:
    try:
        (quota,) = ask("quota_show", user=user)
        limits = {name: limit for name, limit in quota["own_limits"].items() if limit is not None}
    except NotFound:
        limits = {}
    row: dict[str, Any] = next((each for each in ask("user_list", everyone=False) if each["user"] == user), {})
    mode = row.get("mode")
    return User(limits, row.get("uid"), row.get("gid"), None if mode is None else int(mode, 8))


__all__ = ["HomeSource", "MountPlace", "MountSource", "described", "told", "unfit"]
