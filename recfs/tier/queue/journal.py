"""Work on S3 that is still to be done: in memory for those who do it, in the catalogue so that it survives.

Every change is written in the batch of the rows it belongs to. Nothing is put under a key as long as another file's
object is there (`leaving`), and a new object takes the deletion of its predecessor back (`keep_new_object`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from recfs.core.naming import is_temporary_name
from recfs.ports.rows import ABORT, DELETE, MOVE, UPLOAD, JournalRow
from recfs.tier.queue import sent
from recfs.tier.queue.doomed import Doomed
from recfs.tier.queue.due import Due
from recfs.tier.queue.reasons import DESCRIBED_AGAIN, UNKNOWN_ID
from recfs.tier.queue.tally import Tally
from recfs.tier.queue.unanswered import KEPT_S
from recfs.tier.queue.unsent import Unsent, Why
from recfs.tier.queue.waits import Waits

if TYPE_CHECKING:
    from recfs.ports.catalogue import Catalogue
    from recfs.ports.clock import Clock
    from recfs.state.nodes import FileNode
    from recfs.state.writebehind import WriteBehind
    from recfs.tier.queue.running import Running
    from recfs.tier.queue.unanswered import Unanswered

_NS = 1_000_000_000


class Journal:
    """All rows that are not done."""

    def __init__(self, behind: WriteBehind, clock: Clock, unanswered: Unanswered) -> None:
        self._behind = behind
        self._clock = clock
        self._next = 1
        self.rows: dict[int, JournalRow] = {}
        """By id, the oldest first."""
        self.tally = Tally(self.rows)
        self.running: dict[int, Running] = {}
        self.tried_before: set[int] = set()
        """Rows of an earlier run, and what took the place of one that was tried: not all they began may be recorded."""
        self.leaving: dict[str, int] = {}
        """Keys whose object is to move away, and the inode it belongs to."""
        self._left_key: dict[int, str] = {}
        self._of_ino: dict[tuple[str, int], int] = {}
        self._doomed = Doomed()
        self._dropped_after_try: set[int] = set()
        """Inodes whose uploads were dropped after a try: S3 may have something of them that no row knows of."""
        self.unsent = Unsent()
        self.unanswered = unanswered
        self.lasting: set[int] = set()
        """Rows whose last try met what waiting does not change: S3, or the owner of the prefix, refuses."""
        self.waits = Waits()
        """Rows that wait for another file's object to leave."""
        self.is_short = False
        """What is settling has to make room: the uploader hurries it."""
        self.in_one: set[int] = set()
        """Uploads in parts that S3 did not finish in several tries: next time they go in one request, if they can."""
        self.uploads_ended = 0
        """Counts the uploads that are done, or not wanted any more."""
        self.due = Due(clock, self.rows, self.running, self.unsent, self.update)
        self.wake = trio.Event()
        """Set when there is something new to look at."""
        self._progress = trio.Event()
        self.stopping = False
        """Set when the daemon stops: transfers end, and what they were to do stays here. Read by their threads, too."""

    async def load(self, catalogue: Catalogue) -> None:
        """Take up what the last run left."""
        now = self._clock.steady_ns()
        for request in await catalogue.unanswered():
            self.unanswered.remember(request)
        known = {row_id: (name, user) for row_id, name, user in await catalogue.upload_names()}
        for row in await catalogue.journal():
            # What failed may have done so for what was put right before the start: the clock, credentials, the network.
            # What was put off while its file was written may be of one that is not written any more.
            name, user = known.get(row.id, (b"", None))
            at_once = row.attempts or row.kind == MOVE
            self._put(row._replace(next_try_ns=min(row.next_try_ns, now)) if at_once else row, user)
            if is_temporary_name(name):
                self.unsent.set_aside(row.id, Why.NAME)
            self._next = max(self._next, row.id + 1)
            if row.kind in (UPLOAD, MOVE):
                self._of_ino[row.kind, row.ino] = row.id
            in_s3 = await catalogue.object(row.ino) if row.kind == MOVE else None
            if in_s3 is not None:
                self.leaves(row.ino, in_s3.key)
            self.unanswered.doubt(row, in_s3, now)
        self.tried_before.update(self.rows)
        self.remember()

    def remember(self) -> None:
        """Have what S3 gave no answer to in the catalogue, with what came of it. Atomic."""
        if not self.unanswered.is_fresh:
            return
        rows, begun = self.unanswered.fresh()
        for row in rows:
            self._behind.unanswered(row)
        for key in begun:
            self.update(self._add(ABORT, 0, key, 0, KEPT_S)._replace(error=UNKNOWN_ID))

    def forget_answered(self) -> None:
        """What S3 cannot carry out any more is not remembered. Atomic."""
        for key in self.unanswered.expired():
            self._behind.answered(key)

    # --- adding (atomic) -----------------------------------------------------------------------------------------

    def upload(self, node: FileNode, delay_s: float) -> None:
        """The file's bytes are to go to S3. Replaces what was to be uploaded of it before."""
        before = self._of_ino.get((UPLOAD, node.ino))
        tried = node.ino in self._dropped_after_try or (before is not None and self.was_tried(before))
        replaced = self.rows.get(before) if before is not None else None
        if before is not None and before not in self.running:
            self.cancel(before)
        self._dropped_after_try.discard(node.ino)
        key = replaced.key if replaced is not None and (tried or before in self.running) else ""
        # Other bytes than those that will be sent may come to lie there.
        parts = sent.record(None, others=True) if key else ""
        row = self._add(UPLOAD, node.ino, key, node.bytes, delay_s, _owner(node), parts)
        if tried:
            self.tried_before.add(row.id)
        if is_temporary_name(node.name):
            self.unsent.set_aside(row.id, Why.NAME)

    def was_tried(self, row_id: int) -> bool:
        """Whether an upload has begun something on S3, perhaps, that no row knows of. Atomic."""
        row = self.rows.get(row_id)
        return row is not None and (row.attempts > 0 or row_id in self.tried_before)

    def may_have_put(self, ino: int) -> bool:
        """Whether an upload of this inode, not confirmed, may have replaced the object that its row tells of."""
        row = self.upload_of(ino)
        is_tried = row is not None and (row.id in self.running or self.was_tried(row.id))
        return is_tried or ino in self._dropped_after_try

    def knows(self, ino: int) -> bool:
        """Whether anything is to be done of this inode, or an upload of it was dropped that may have arrived."""
        return self.upload_of(ino) is not None or self.move_of(ino) is not None or ino in self._dropped_after_try

    def move(self, ino: int, key: str | None) -> None:
        """The object under *key* is to follow its file's new name; None: those of everything below a directory."""
        self._want_move(ino, 0.0)
        if key is not None:
            self.leaves(ino, key)

    def describe(self, ino: int, key: str, delay_s: float) -> None:
        """The object under *key* is to follow its file's attributes: at most one copy for all of *delay_s*."""
        row = self.move_of(ino)
        if row is None:
            self._want_move(ino, delay_s)
            self.leaves(ino, key)
        elif self._is_watched(row):
            self._due_in(row, delay_s)

    def describe_again(self, ino: int, key: str, at_ns: int, why: str = DESCRIBED_AGAIN) -> None:
        """What lies under *key* may be replaced until then by what was true of its file before: it is looked at then.

        Nobody waits for it. Ignored if a move is to be done anyway, which sees to it.
        """
        if (MOVE, ino) in self._of_ino:
            return
        row = self._add(MOVE, ino, "", 0, 0.0)
        self.leaves(ino, key)
        self.watch(row._replace(next_try_ns=at_ns, error=why))

    def watch(self, row: JournalRow) -> None:
        """The row waits for a time that nobody waits for with it."""
        self.unsent.set_aside(row.id, Why.WATCHED)
        self.waiting(row)

    def resume_move(self, ino: int) -> None:
        """The file is not being written any more: what was put off until then is to be done."""
        if (MOVE, ino) in self._of_ino:
            self._want_move(ino, 0.0)

    def _want_move(self, ino: int, delay_s: float) -> None:
        """Have the object moved or described anew after *delay_s*, or sooner where that is due already."""
        before = self.rows.get(self._of_ino.get((MOVE, ino), 0))
        if before is None:
            self._add(MOVE, ino, "", 0, delay_s)
        elif self.is_refused(before):
            self.retry(before.id)  # the name that S3 refuses may be another one now
        elif self._is_watched(before):
            self._due_in(before, delay_s)
        elif not before.attempts and before.next_try_ns > (now := self._clock.steady_ns()):
            self.update(before._replace(next_try_ns=now))

    def _due_in(self, row: JournalRow, delay_s: float) -> None:
        """There is a reason not to wait so long any more, and it is waited for."""
        self.unsent.count_again(row.id)
        due = self._clock.steady_ns() + round(delay_s * _NS)
        self.update(row._replace(next_try_ns=min(row.next_try_ns, due), error=""))

    def move_of(self, ino: int) -> JournalRow | None:
        """What is to be done so that the object follows its file's name and attributes."""
        return self.rows.get(self._of_ino.get((MOVE, ino), 0))

    def delete(self, key: str, delay_s: float = 0.0, why: str = "", *, ino: int = 0) -> int:
        """The object is to go; the row's id. *why*: what the delay is for, if not for the trash's retention.

        *ino*: the file that had it, whose bytes may be given up before.
        """
        row = self._add(DELETE, ino, key, 0, delay_s)
        if why:
            self.update(row._replace(error=why))
        return row.id

    def abort(self, key: str, upload_id: str) -> None:
        """A multipart upload that was begun is to be dropped."""
        row = self._add(ABORT, 0, key, 0, 0)
        self.update(row._replace(upload_id=upload_id))

    def forget(self, node: FileNode, key: str) -> None:
        """The file, whose object belongs under *key*, is gone: nothing of it is to be uploaded or moved any more.

        One that may have put something elsewhere stays, until that is looked for.
        """
        for kind in (UPLOAD, MOVE):
            row_id = self._of_ino.get((kind, node.ino))
            if row_id is None or row_id in self.running:
                continue
            put = self.rows[row_id].key
            if not put or (put == key and not self.was_tried(row_id)):
                self.cancel(row_id)
            else:
                self.retry(row_id)
        self._dropped_after_try.discard(node.ino)

    def is_deleted(self, key: str) -> bool:
        """Whether the object under *key* is to go."""
        return bool(self._doomed.at(key))

    def deletions_of(self, key: str) -> set[int]:
        """The rows that are to delete the object under *key*."""
        return self._doomed.at(key)

    def deletions_of_file(self, ino: int) -> set[int]:
        """The rows that are to delete objects that a file had, under whatever key."""
        return self._doomed.of(ino)

    def keep_new_object(self, key: str) -> None:
        """There is a new object under *key*: what was to delete its predecessor would delete this one."""
        for row_id in self._doomed.at(key) - self.running.keys():
            self.done(row_id)

    def leaves(self, ino: int, key: str) -> None:
        """The object of a file that is to move lies under *key* now; ignored if none is to."""
        if (MOVE, ino) in self._of_ino:
            self._left(ino)
            self.leaving[key] = ino
            self._left_key[ino] = key

    def _left(self, ino: int) -> None:
        key = self._left_key.pop(ino, None)
        if key is not None and self.leaving.get(key) == ino:
            del self.leaving[key]

    def _add(
        self, kind: str, ino: int, key: str, size: int, delay_s: float, owner: str | None = None, parts: str = ""
    ) -> JournalRow:
        now = self._clock.steady_ns()
        row = JournalRow(self._next, kind, ino, key, "", parts, size, 0, now + round(delay_s * _NS), 0, "", now)
        self._next += 1
        if kind in (UPLOAD, MOVE):
            self._of_ino[kind, ino] = row.id
        self._put(row, owner)
        self._behind.journal(row)
        self.wake.set()
        return row

    def _put(self, row: JournalRow, owner: str | None) -> None:
        before = self.rows.get(row.id)
        if row.kind == UPLOAD:
            self.unsent.put(row, owner)
        elif row.kind == DELETE:
            self._doomed.add(row)
        self.rows[row.id] = row
        self.tally.put(before, row)
        if before is None or before.next_try_ns != row.next_try_ns:
            self.due.at(row)

    # --- working it off (atomic) ---------------------------------------------------------------------------------

    def ended(self, row_id: int) -> None:
        """The row is not being worked on any more, whether it is done or not."""
        self.remember()
        self.running.pop(row_id, None)
        row = self.rows.get(row_id)
        if row is not None:
            self.due.at(row)
        self.wake.set()
        self.signal()

    def now_ns(self) -> int:
        """The time that `JournalRow.next_try_ns` is of."""
        return self._clock.steady_ns()

    def update(self, row: JournalRow) -> None:
        """The row changed; ignored when it was dropped meanwhile."""
        self.remember()
        if row.id in self.rows:
            self._put(row, self.unsent.owner_of(row.id))
            self._behind.journal(row)
            self.wake.set()

    def again(self, row: JournalRow) -> None:
        """What the row was begun with is not so any more: it is to be done, from its beginning, at once."""
        self.update(row._replace(next_try_ns=self._clock.steady_ns()))

    def waiting(self, row: JournalRow) -> None:
        """The row waits for something else, which its `error` names: that is no failure of its own."""
        if row.attempts:
            self.tried_before.add(row.id)
        self.update(row._replace(attempts=0))

    def done(self, row_id: int) -> None:
        """The work is done, or not wanted any more."""
        self.remember()
        row = self.rows.pop(row_id, None)
        if row is None:
            return
        self.tally.drop(row)
        if self._of_ino.get((row.kind, row.ino)) == row_id:
            del self._of_ino[row.kind, row.ino]
            if row.kind == MOVE:
                self._left(row.ino)
        self.unsent.drop(row_id)
        self.unblock(row_id)
        self.in_one.discard(row_id)
        if row.kind == UPLOAD:
            self.uploads_ended += 1
        elif row.kind == DELETE:
            self._doomed.drop(row)
        self._behind.journal_done(row_id)
        self.go_on(row_id)
        self.wake.set()
        self.signal()

    def go_on(self, other: int) -> None:
        """What has waited for this row, or for `READERS`, is looked at again at once."""
        for row_id in self.waits.behind(other):
            self.waits.end(row_id)
            self.update(self.rows[row_id]._replace(next_try_ns=self._clock.steady_ns()))

    def unblock(self, row_id: int) -> None:
        """Nothing is in the row's way, nor was its last try refused, as far as is known."""
        self.lasting.discard(row_id)
        self.waits.end(row_id)

    def cancel(self, row_id: int) -> None:
        """Drop the row, and have a multipart upload that it began aborted."""
        row = self.rows.get(row_id)
        if row is not None and row.kind == UPLOAD and row.key and row_id in self.tried_before:
            self.unanswered.note(row.key, None)  # what it asked for before the start may not have been answered
        if row is not None and row.kind == UPLOAD and not row.upload_id and self.was_tried(row_id):
            self._dropped_after_try.add(row.ino)
        self.done(row_id)
        if row is not None and row.upload_id and row.kind == UPLOAD:
            self.abort(row.key, row.upload_id)

    def retry(self, row_id: int) -> bool:
        """Try again at once. False when there is no such row."""
        row = self.rows.get(row_id)
        if row is None:
            return False
        if self.unsent.why_aside(row_id) in (Why.REFUSED, Why.WATCHED):
            self.unsent.count_again(row_id)
        self.lasting.discard(row_id)
        self.update(row._replace(next_try_ns=self._clock.steady_ns()))
        return True

    def _is_watched(self, row: JournalRow) -> bool:
        return self.unsent.why_aside(row.id) is Why.WATCHED

    def is_refused(self, row: JournalRow) -> bool:
        """Whether S3 refuses it for its own sake: somebody has to do something about it."""
        return self.unsent.why_aside(row.id) is Why.REFUSED

    def renamed(self, node: FileNode, delay_s: float) -> None:
        """The file's upload may have waited for a name that stays: it waits for *delay_s* now, no longer."""
        row, due = self.upload_of(node.ino), self._clock.steady_ns() + round(delay_s * _NS)
        if row is None:
            return
        self.unsent.put(row, _owner(node))
        if is_temporary_name(node.name):
            self.unsent.set_aside(row.id, Why.NAME)
        elif self.unsent.why_aside(row.id) in (Why.REFUSED, Why.WATCHED):
            self.retry(row.id)
        elif self.unsent.why_aside(row.id) is not None:
            self.unsent.count_again(row.id)
            self.wake.set()
        if not row.attempts and row.next_try_ns > due:
            self.update(row._replace(next_try_ns=due))

    def owned(self, node: FileNode) -> None:
        """The file may be another user's now: so is what waits of it."""
        row = self.upload_of(node.ino)
        if row is not None:
            self.unsent.put(row, _owner(node))

    async def uploads_of_others(self, owner: str | None) -> list[int]:
        """The inode numbers of files to be uploaded that count as those of others than *owner*."""
        found: list[int] = []

        def visit(row: JournalRow) -> None:
            if row.kind == UPLOAD and self.unsent.owner_of(row.id) != owner:
                found.append(row.ino)

        await self.tally.look_at_all(visit)
        return found

    def upload_of(self, ino: int) -> JournalRow | None:
        """The upload that is to be done of this inode."""
        return self.rows.get(self._of_ino.get((UPLOAD, ino), 0))

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest row was made, by `now_ns`; None: there is none."""
        return next((row.created_ns for row in self.rows.values()), None)

    def unsent_bytes(self) -> int:
        """Bytes of files that wait for S3 and can get there."""
        return self.unsent.total_bytes

    def signal(self) -> None:
        """Something was finished with."""
        self._progress.set()
        self._progress = trio.Event()

    async def progress(self) -> None:
        """Wait until something is finished with."""
        await self._progress.wait()


def _owner(node: FileNode) -> str | None:
    return node.parent.user
