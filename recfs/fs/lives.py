"""What is kept of recordings, and how it changes: by the operator, and as the policy says (`core/retention.py`).

All of it is atomic, and in memory at once; the row follows with the next batch. Whoever promises more waits for that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recfs.core.dates import date_text, parse_date
from recfs.core.layout import Role
from recfs.core.life import Cause, Life, Status
from recfs.core.observing.kinds import EventKind
from recfs.core.retention import Action, Now, Policy, Use, cause_of, judge
from recfs.errors import Busy, InvalidArgument, NotPermitted
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from recfs.core.retention import Verdict
    from recfs.fs.files import OpenFiles
    from recfs.state.tree import Tree

NOTE_MAX_CHARS = 1000


_WORDS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False, "": False}
"""What may be written for keep."""


class Lives:
    """Looks at recordings, and changes what is kept of them."""

    def __init__(self, tree: Tree, files: OpenFiles, policy: Policy) -> None:
        self._tree = tree
        self._files = files
        self.policy = policy

    # --- looking -------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Now:
        """The time, by the clocks that count here."""
        return Now(self._tree.clock.steady_ns(), self._tree.clock.calendar_ns())

    def uses(self) -> dict[int, Use]:
        """How many files are open in each recording of which any is, by its inode number."""
        return self._files.recordings_in_use()

    def judge(self, folder: DirNode, holds: str = "") -> Verdict:
        """What is to be done about a recording now. *holds*: what in it is not to go with it (`held_up`)."""
        use = self.uses().get(folder.ino, Use())._replace(holds=holds)
        return judge(self.policy, tuple(folder.parts()), life_of(folder), self.now, use)

    def expires_ns(self, folder: DirNode) -> int | None:
        """When a recording expires, or did, by the calendar: the date that is set, else as its rule has it."""
        life, now = life_of(folder), self.now
        if life.status is not Status.ACTIVE:
            return now.calendar_ns - (now.steady_ns - life.expired_ns)
        if life.keep:
            return None
        if life.expires_ns is not None:
            return life.expires_ns
        due_ns = self.judge(folder).due_ns
        return None if due_ns is None else max(0, now.calendar_ns + due_ns - now.steady_ns)

    # --- the operator's ------------------------------------------------------------------------------------------

    def keep(self, folder: DirNode, *, on: bool, by: str, note: str | None = None) -> None:
        """Have no rule and no date make the recording expire, or again. Kept, it is active at once."""
        life = _changeable(folder)
        if on and life.status is Status.EXPIRED:
            life = _active(life)
        self._set(folder, life._replace(keep=int(on), set_by=by), note)

    def set_date(self, folder: DirNode, date_ns: int | None, *, by: str, note: str | None = None) -> None:
        """Have the recording expire at a date, or (None) as the rules say. One that is expired is judged anew."""
        life, now = _changeable(folder), self.now
        if life.status is Status.EXPIRED:
            life = _active(life)
        ahead_ns = max(0, date_ns - now.calendar_ns) if date_ns is not None else 0
        life = life._replace(
            expires_ns=date_ns, dated_ns=now.steady_ns if date_ns is not None else 0, ahead_ns=ahead_ns, set_by=by
        )
        self._set(folder, life, note)

    def expire(self, folder: DirNode, *, by: str, note: str | None = None, holds: str = "") -> None:
        """Have the recording be expired from now on. Raises Busy for one that is kept, or written to.

        *holds*: what in it is not to go with it; that is Busy, too.
        """
        life = _changeable(folder)
        if life.keep:
            raise Busy(f"{folder.path} is kept; `recfs recording unkeep` it first")
        if holds:
            raise Busy(f"{folder.path}: {holds}")
        writers = self.uses().get(folder.ino, Use()).writers
        if writers:
            raise Busy(f"{folder.path}: {'1 file is' if writers == 1 else f'{writers:,} files are'} open for writing")
        expired_ns = life.expired_ns if life.status is Status.EXPIRED else self.now.steady_ns
        self._set(
            folder,
            life._replace(status=Status.EXPIRED, expired_ns=expired_ns, expired_by=Cause.OPERATOR, set_by=by),
            note,
        )

    def _set(self, folder: DirNode, life: Life, note: str | None) -> None:
        if note is not None:
            if len(note) > NOTE_MAX_CHARS:
                raise InvalidArgument(f"a note of {len(note):,} characters; at most {NOTE_MAX_CHARS:,} are kept")
            life = life._replace(note=note)
        before = folder.life
        folder.life = life
        self._tree.behind.recording(folder)
        if before is not None and before.status is not life.status and life.status is not Status.REMOVING:
            kind = EventKind.EXPIRED if life.status is Status.EXPIRED else EventKind.REVIVED
            self._tree.events.noted(kind, folder, life.expired_by.value)

    # --- as the policy says --------------------------------------------------------------------------------------

    def carry_out(self, folder: DirNode, holds: str) -> Verdict:
        """Judge a recording, and do at once what changes its row alone; what is to be removed is marked so."""
        verdict = self.judge(folder, holds)
        life = life_of(folder)
        if verdict.action is Action.EXPIRE:
            cause = cause_of(self.policy, tuple(folder.parts()), life, self.now)
            life = life._replace(status=Status.EXPIRED, expired_ns=self.now.steady_ns, expired_by=cause)
        elif verdict.action is Action.REVIVE:
            life = _active(life)
        elif verdict.action is Action.REMOVE:
            life = life._replace(status=Status.REMOVING)
        if life != folder.life:
            self._set(folder, life, None)
        return verdict


def life_of(folder: DirNode) -> Life:
    """What is kept of a recording. Raises InvalidArgument where the directory is none."""
    if folder.role is not Role.RECORDING or folder.life is None:
        raise InvalidArgument(f"{folder.path or '/'} is no recording; these are users/<id>/recordings/<id>")
    return folder.life


def _changeable(folder: DirNode) -> Life:
    life = life_of(folder)
    if folder.unlinked or life.status is Status.REMOVING:
        raise Busy(f"{folder.path} is being removed")
    return life


def _active(life: Life) -> Life:
    return life._replace(status=Status.ACTIVE, expired_ns=0, expired_by=Cause.NOBODY)


# --- as extended attributes ------------------------------------------------------------------------------------------

STATUS, EXPIRES_AT, KEEP = b"status", b"expires_at", b"keep"
ATTRIBUTES = (STATUS, EXPIRES_AT, KEEP)


def attribute(lives: Lives, folder: DirNode, name: bytes) -> bytes | None:
    """The value of one of ATTRIBUTES of a recording; None where it has none."""
    life = life_of(folder)
    if name == STATUS:
        return life.status.encode("ascii")
    if name == KEEP:
        return b"%d" % life.keep
    expires_ns = lives.expires_ns(folder)
    return None if expires_ns is None else date_text(expires_ns).encode("ascii")


def set_attribute(lives: Lives, folder: DirNode, name: bytes, value: bytes, *, by: str) -> None:
    """Change expires_at or keep of a recording. Raises NotPermitted for what is computed, InvalidArgument, Busy."""
    text = os.fsdecode(value)
    if name == EXPIRES_AT:
        try:
            lives.set_date(folder, parse_date(text), by=by)
        except ValueError as error:
            raise InvalidArgument(f"expires_at: {error}") from error
    elif name == KEEP:
        word = text.strip().rstrip("\0").lower()
        if word not in _WORDS:
            raise InvalidArgument(f"keep: {text[:40]!r} is neither 1 nor 0")
        lives.keep(folder, on=_WORDS[word], by=by)
    else:
        raise NotPermitted(f"user.recfs.{os.fsdecode(name)} is computed")


__all__ = ["ATTRIBUTES", "EXPIRES_AT", "KEEP", "STATUS", "Lives", "attribute", "life_of", "set_attribute"]
