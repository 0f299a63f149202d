"""Something is brought into a store: its files, and then what was said of its users and recordings."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from recfs.core.life import Status
from recfs.core.migration.manifest import Life
from recfs.errors import NotFound, RecfsError
from recfs.migration.transfer.beneath import looked_at, open_below, opened
from recfs.migration.transfer.items import Ask, Outcome, Problem, Stopped, Unusable, Why
from recfs.migration.transfer.placing import Tree
from recfs.migration.transfer.store import MountPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recfs.core.migration.manifest import Manifest, User
    from recfs.migration.transfer.items import Source
    from recfs.migration.transfer.placing import Place

_AFTER = "max_monthly_uploads"
"""What comes in counts as uploaded this month, and would meet this limit."""


class Bringing:
    """One transfer into a mount."""

    def __init__(
        self, mount: int, ask: Ask, outcome: Outcome, *, replace: bool = False, say: bool = True, owners: bool = False,
        user_map: Mapping[str, str] | None = None, tell: Callable[[Outcome], None] | None = None,
        place: Place | None = None,
    ) -> None:  # fmt: skip
        """*mount*: a descriptor of its top; *ask*: its daemon. *say*: limits and lives are set, too; *owners*: uids are
        carried over, as only a store on the same machine can mean them. *tell* hears how far it is.
        """
        self._mount = mount
        self._ask = ask
        self._outcome = outcome
        self._replace = replace
        self._say = say
        self._owners = owners
        self._user_map = user_map or {}
        self._tell = tell
        self._place = place or MountPlace(heard=self._waits)

    def bring(self, source: Source) -> None:
        """Bring all of it. What does not come in is in the outcome. Raises nothing of a RecfsError."""
        tree = Tree(self._mount, self._place, self._outcome, replace=self._replace, owners=self._owners)
        with contextlib.closing(tree):
            try:
                self._bring(source, tree)
            except Stopped as error:
                self._outcome.stopped = str(error)
                tree.save()
        self._check_sums(source)
        if self._say and source.manifest is not None and not self._outcome.stopped:
            said = Saying(self._ask, self._outcome, source.manifest, self._user_map, replace=self._replace)
            said.after()
            said.lives()

    def _bring(self, source: Source, tree: Tree) -> None:
        begun = False
        for each in source.items():
            if not begun and self._say and source.manifest is not None:
                manifest, begun = source.manifest, True
                said = Saying(self._ask, self._outcome, manifest, self._user_map, replace=self._replace)
                said.before(uids=self._owners)
            if isinstance(each, Problem):
                self._outcome.problem(each.path, each.why, each.reason)
            else:
                tree.put(each)
            if self._tell is not None:
                self._tell(self._outcome)
        tree.finish()

    def _waits(self, what: str) -> None:
        self._outcome.waiting = what
        if self._tell is not None:
            self._tell(self._outcome)

    def _check_sums(self, source: Source) -> None:
        """Take away what a stream brought that its SHA256SUMS, which came last, does not have like that."""
        if not source.has_sums:
            return
        for path, sha256 in list(self._outcome.sums.items()):
            right = source.sum_of(path)
            if right == sha256:
                continue
            reason = "SHA256SUMS does not have it" if right is None else f"SHA256SUMS has another sha256: {right}"
            del self._outcome.sums[path]
            if path in self._outcome.arrived and (size := self._take_away(path, sha256)) is not None:
                self._outcome.files -= 1
                self._outcome.copied_bytes -= size
                reason += "; what came of it is removed again"
            self._outcome.problem(path, Why.DAMAGED, reason)

    def _take_away(self, path: bytes, sha256: str) -> int | None:
        """Remove a file, and give its size; None: it cannot be, or is another by now."""
        *above, name = path.split(b"/")
        try:
            with opened(open_below(self._mount, tuple(above))) as folder:
                with opened(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)) as file:
                    there, mine = looked_at(folder, name), os.fstat(file)
                    if there is None or there.st_ino != mine.st_ino or self._place.sha256_of(file) != sha256:
                        return None
                os.unlink(name, dir_fd=folder)
        except (OSError, Unusable):
            return None
        return mine.st_size


class Saying:
    """What a manifest says of users and recordings is said to a store. What it says otherwise already is left."""

    def __init__(
        self, ask: Ask, outcome: Outcome, manifest: Manifest, user_map: Mapping[str, str], *, replace: bool
    ) -> None:
        self._ask = ask
        self._outcome = outcome
        self._manifest = manifest
        self._user_map = user_map
        self._replace = replace

    def before(self, *, uids: bool) -> None:
        """What is to hold while files come in: uids, and limits of sizes and numbers."""
        for user, said in self._manifest.users.items():
            if uids and said.uid is not None:
                self._uid(self._user_map.get(user, user), said)
            self._limits(user, [name for name in said.limits if name != _AFTER])

    def after(self) -> None:
        """The limit that would have counted what came in."""
        for user, said in self._manifest.users.items():
            self._limits(user, [name for name in said.limits if name == _AFTER])

    def lives(self) -> None:
        """Dates, `keep`, notes, and that a recording is expired."""
        for path, life in self._manifest.recordings.items():
            if not life.says_nothing:
                _, user, rest = path.split("/", 2)
                self._life(f"users/{self._user_map.get(user, user)}/{rest}", life)

    def _limits(self, user: str, names: list[str]) -> None:
        user, limits = self._user_map.get(user, user), self._manifest.users[user].limits
        try:
            own = self._own_limits(user) if names else {}
            wanted = {}
            for name in names:
                if own.get(name) == limits[name]:
                    continue
                if own.get(name) is not None and not self._replace:
                    self._unsaid(f"users/{user}", f"{name} is {own[name]} here, not {limits[name]}; --replace sets it")
                else:
                    wanted[name] = limits[name]
            if wanted:
                self._ask("quota_set", user=user, **wanted)
        except RecfsError as error:
            self._unsaid(f"users/{user}", str(error))

    def _own_limits(self, user: str) -> dict[str, Any]:
        try:
            (quota,) = self._ask("quota_show", user=user)
        except NotFound:
            return {}
        found: dict[str, Any] = quota["own_limits"]
        return found

    def _uid(self, user: str, said: User) -> None:
        try:
            here = next((each for each in self._ask("user_list", everyone=False) if each["user"] == user), None)
            if here is None:
                self._ask("user_add", user=user, uid=said.uid, gid=said.gid, mode=said.mode)
            elif here["uid"] != said.uid:
                self._unsaid(f"users/{user}", f"the user has the uid {here['uid']} here, not {said.uid}")
        except RecfsError as error:
            self._unsaid(f"users/{user}", str(error))

    def _life(self, path: str, life: Life) -> None:
        try:
            here = self._ask("recording_show", path=path)
            other = self._otherwise(here, life)
            if other and not self._replace:
                self._unsaid(path, f"it has {other} here already; --replace sets it")
                return
            note: dict[str, str] = {"note": life.note} if life.note and here["note"] != life.note else {}
            if life.expires_at_ns is not None and here["expires_at_ns"] != life.expires_at_ns:
                here = self._ask("recording_set_expiry", path=path, date=str(life.expires_at_ns), **note)
                note = {}
            if life.keep != here["keep"] or note:
                here = self._ask("recording_keep", path=path, on=life.keep, **note)
            if life.status is not Status.ACTIVE and here["status"] == Status.ACTIVE.value and not here["keep"]:
                self._ask("recording_expire", path=path, note=None)
        except RecfsError as error:
            self._unsaid(path, str(error))

    @staticmethod
    def _otherwise(here: dict[str, Any], life: Life) -> str:
        """What of a recording was said here, and is not what the manifest says; "" for nothing."""
        if life.expires_at_ns is not None and here["expires_at_ns"] not in (None, life.expires_at_ns):
            return "another date"
        if life.note and here["note"] not in ("", life.note):
            return "another note"
        if here["keep"] and not life.keep:
            return "`keep`"
        return ""

    def _unsaid(self, path: str, reason: str) -> None:
        self._outcome.problem(os.fsencode(path), Why.UNSAID, reason)


__all__ = ["Bringing", "Saying"]
