"""What S3 gave no answer to is remembered over restarts, and reckoned with in every way that a key comes into use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.core.model import State
from recfs.core.ownership import MARK_KEY
from recfs.fs.attributes import Changes
from recfs.ports.object_errors import ServerFault, Stalled, Unreachable
from recfs.ports.objects import ObjectInfo
from recfs.tier.queue.reasons import NOT_YET
from recfs.tier.queue.unanswered import KEPT_S
from recfs.tier.uploads.holders import ASIDE
from tests.fake_object_store import FakeObjectStore

from .build import OPERATOR, REC, Filesystem, pattern, until
from .far import Hold, ask
from .late import Late, drained, fs, restarted, stored_at_last, stored_once, waiting_move, watched
from .test_tier import FILE, MIB, evict, node, stored

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow

__all__ = ["fs"]
OTHER = f"{REC}/other"
ends = pytest.mark.parametrize("how", ["killed", "stopped"])
plain = pytest.mark.parametrize("fs", ["fails"], indirect=True)
tried_again = pytest.mark.parametrize("fs", ["is tried again"], indirect=True)
pytestmark = pytest.mark.may_log("nothing came|it went away|cannot now")


def rows(fs: Filesystem) -> list[JournalRow]:
    """The journal."""
    return list(fs.tier.journal.rows.values())


async def passes(fs: Filesystem) -> None:
    """The time in which such requests may come is over."""
    fs.clock.advance(KEPT_S + 1)
    fs.tier.journal.wake.set()


# --- over a restart ------------------------------------------------------------------------------------------------


@ends
@plain
async def test_a_move_that_waits_goes_on_waiting(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    late = await waiting_move(fs, monkeypatch)
    await restarted(fs, how)
    await until(lambda: NOT_YET in [row.error for row in rows(fs)])
    assert (await ask(fs, "drain", timeout_s=10))["watched"] == 1
    late.arrive(tmp_path)
    assert await fs.read(FILE) == b"all there is"
    await passes(fs)
    await until(lambda: stored(fs) == {FILE: b"all there is"})


@ends
@plain
@pytest.mark.parametrize("gone", ["removed", "renamed", "replaced"])
async def test_a_new_file_of_the_name_does_not_count_at_once(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, gone: str
) -> None:
    """Whatever became of the one whose upload was left unanswered."""
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    if gone == "removed":
        await fs.unlink(FILE)
    elif gone == "renamed":
        await fs.rename(FILE, OTHER)
    else:
        await fs.write(f"{REC}/.file.part", b"new")
        await fs.rename(f"{REC}/.file.part", FILE)
    await restarted(fs, how)
    if gone != "replaced":
        await fs.write(FILE, b"new")
    await stored_once(fs, FILE, b"new")
    assert (await node(fs)).state is not State.STORED
    await drained(fs)
    late.arrive(tmp_path)
    assert stored(fs)[FILE] == b"earlier"
    await passes(fs)
    await stored_at_last(fs)
    assert stored(fs)[FILE] == b"new"


@ends
@plain
async def test_what_is_over_is_not_remembered(fs: Filesystem, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.drain()
    assert fs.rows("select count(*) from unanswered") == [1]
    await passes(fs)
    await fs.drain()
    await until(lambda: fs.rows("select count(*) from unanswered") == [0])
    await restarted(fs, how)
    await fs.write(FILE, b"new")
    await stored_at_last(fs)


@ends
@plain
async def test_a_version_whose_upload_was_dropped_is_not_taken_for_the_one_before(fs: Filesystem, how: str) -> None:
    """S3 has the one that was dropped, though nobody was told, and the file is what it was before that."""
    assert fs.objects is not None
    await fs.write(FILE, b"before")
    await fs.drain()
    fs.objects.fail("put_file", Unreachable("it went away"), after=True)
    fs.objects.fail("*", Unreachable("it went away"), times=1000)
    await fs.write(FILE, b"between")
    await until(lambda: any(row.attempts for row in rows(fs)))
    await ask(fs, "queue_drop", ids=[row.id for row in rows(fs)])
    fs.objects.heal()
    assert stored(fs) == {FILE: b"between"}
    await restarted(fs, how)
    await passes(fs)
    await fs.write(FILE, b"before")
    await stored_at_last(fs)
    assert stored(fs) == {FILE: b"before"}
    await fs.drain()
    await evict(fs)
    assert await fs.read(FILE) == b"before"


# --- every way that a key comes into use ---------------------------------------------------------------------------


@tried_again
async def test_the_end_of_an_upload_in_parts_may_come_twice(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fs.objects is not None
    fs.objects.fail("finish_multipart", Stalled("nothing came"), times=1)
    await fs.write(FILE, pattern(9 * MIB))
    await stored_at_last(fs)
    await fs.write(FILE, b"new")
    await stored_once(fs, FILE, b"new")
    await drained(fs)
    assert (await node(fs)).state is not State.STORED
    await passes(fs)
    await stored_at_last(fs)


@tried_again
async def test_an_upload_in_parts_whose_beginning_had_no_answer_is_aborted_in_the_end(fs: Filesystem) -> None:
    assert fs.objects is not None
    fs.objects.fail("start_multipart", Stalled("nothing came"), after=True)
    await fs.write(FILE, pattern(9 * MIB))
    await stored_at_last(fs)
    await fs.drain()
    assert len(fs.objects.list_multiparts()) == 1
    await passes(fs)
    await until(lambda: not rows(fs))
    assert not list(fs.objects.list_multiparts())
    assert stored(fs) == {FILE: pattern(9 * MIB)}


@tried_again
async def test_what_comes_late_says_in_the_end_what_the_file_is(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same bytes, under the attributes of before."""
    assert fs.objects is not None
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"bytes")
    await late.taken()
    await stored_at_last(fs)
    await fs.vfs.setattr((await node(fs)).ino, Changes(mode=0o600), OPERATOR)

    def described() -> bool:
        info = fs.objects.head(FILE) if fs.objects is not None else None
        return info is not None and info.metadata["mode"] == "0600"

    await until(described)
    late.arrive(tmp_path)
    assert not described()
    await passes(fs)
    await until(described)


@tried_again
async def test_nobody_waits_for_attributes_that_are_written_again_in_the_end(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are copied once before it, however long somebody drains, and at once when they change meanwhile."""
    assert fs.objects is not None
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"bytes")
    await late.taken()
    await stored_at_last(fs)
    copies = []
    plain = fs.objects.copy

    def copy(*args: Any, **more: Any) -> ObjectInfo:
        copies.append(args)
        return plain(*args, **more)

    monkeypatch.setattr(fs.objects, "copy", copy)
    for expected in (1, 2):
        await fs.vfs.setattr((await node(fs)).ino, Changes(mode=0o600 + expected), OPERATOR)
        await drained(fs)
        await fs.drain()
        assert len(copies) == expected
        info = fs.objects.head(FILE)
        assert info is not None
        assert info.metadata["mode"] == f"060{expected}"
        assert len(watched(fs)) == 1
    await passes(fs)
    await until(lambda: not rows(fs))
    assert len(copies) == 3


async def test_a_file_that_is_looked_at_takes_room_and_holds_nobody_up(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.write(FILE, pattern(MIB))
    await drained(fs)
    assert fs.tier.copies.used_bytes == MIB
    assert fs.tier.journal.unsent_bytes() == 0
    await passes(fs)
    await stored_at_last(fs)
    assert fs.tier.copies.used_bytes == MIB
    assert fs.tier.journal.unsent.watched_bytes == 0


@plain
async def test_a_file_that_cannot_be_sent_again_is_not_said_to_be_there(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert fs.objects is not None
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.write(FILE, b"new")
    await drained(fs)
    late.arrive(tmp_path)
    fs.objects.fail("put_file", ServerFault("cannot now"), times=1000)
    [row] = rows(fs)
    fs.tier.journal.retry(row.id)
    await until(lambda: "cannot now" in rows(fs)[0].error)
    assert not watched(fs)
    assert (await ask(fs, "drain", timeout_s=0.2))["pending"] == 1
    assert (await ask(fs, "status"))["s3"]["unsent_bytes"] == 3
    fs.objects.heal()
    await passes(fs)
    await stored_at_last(fs)
    assert stored(fs) == {FILE: b"new"}


@plain
async def test_a_file_that_is_overwritten_while_it_is_sent_without_an_answer_waits_once(fs: Filesystem) -> None:
    assert fs.objects is not None
    held = Hold(fs, "put_file")
    fs.objects.fail("put_file", Stalled("nothing came"))
    await fs.write(FILE, b"earlier")
    await held.entered()
    await fs.write(FILE, b"new")
    await until(lambda: len(rows(fs)) == 2)
    held.let_go()
    await until(lambda: len(rows(fs)) == 1)
    assert fs.tier.journal.unsent_bytes() == len(b"new")
    await drained(fs)
    assert (await ask(fs, "queue"))["totals"]["uploads"] == 1
    assert fs.parts.work.draining.pending_uploads() == 0
    await passes(fs)
    await stored_at_last(fs)
    assert stored(fs) == {FILE: b"new"}
    assert [each for each, _ in fs.objects.calls].count("put_file") == 2


async def test_an_object_that_waits_for_its_name_goes_aside_for_another_file(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Or what is written under its old name would wait as well, and hold all writers up in the end."""
    late = await waiting_move(fs, monkeypatch)
    await fs.write(OTHER, b"another")
    await stored_at_last(fs, OTHER)
    ino = (await node(fs)).ino
    await until(lambda: stored(fs).get(f"{ASIDE}{ino}") == b"all there is")
    late.arrive(tmp_path)
    assert await fs.read(FILE) == b"all there is"
    await passes(fs)
    await until(lambda: stored(fs) == {FILE: b"all there is", OTHER: b"another"})


@plain
async def test_what_waits_for_another_object_is_no_failure(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it failed before; `drain` names it."""
    assert fs.objects is not None
    await fs.write(OTHER, b"all there is")
    await fs.drain()
    await evict(fs, OTHER)
    fs.objects.fail("copy", ServerFault("cannot now"), times=1000)
    await fs.rename(OTHER, FILE)
    await fs.write(OTHER, b"another")
    ino = (await node(fs, OTHER)).ino
    await until(lambda: fs.tier.journal.upload_of(ino) is not None)
    row = fs.tier.journal.upload_of(ino)
    fs.tier.journal.update(row._replace(attempts=2, error="it failed before", next_try_ns=0))
    await until(lambda: any(row.error.startswith("waits for the move") for row in rows(fs)))
    told = (await ask(fs, "drain", timeout_s=0.2))["left"]["s3"]["rows"]
    [told] = [row for row in told if row["path"] == OTHER]
    assert told["state"] in ("pending", "waiting")
    assert told["why"] == f"waits for the move of {FILE}"
    assert OTHER not in (await ask(fs, "status"))["s3"]["problem"]
    fs.objects.heal()
    await stored_at_last(fs, OTHER)


async def test_one_users_requests_without_an_answer_do_not_keep_another_waiting(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users take turns, however many files one of them has waiting."""
    assert fs.objects is not None
    for number in range(40):
        await fs.write(f"{REC}/{number}", b"x")
    await fs.drain()
    sent: list[str] = []

    def put(asked: str, key: str | None) -> None:
        if asked == "put_file" and key is not None:
            sent.append(key)
            if key.startswith(REC):
                raise Stalled("nothing came")

    fs.objects.before = put
    for number in range(40):
        await fs.write(f"{REC}/{number}", b"changed")
    await fs.write("users/6/recordings/1/file", b"another's")
    await stored_at_last(fs, "users/6/recordings/1/file")
    assert sent.index("users/6/recordings/1/file") < 40
    fs.objects.before = lambda _asked, _key: None
    await passes(fs)
    for number in range(40):
        await stored_at_last(fs, f"{REC}/{number}")


@plain
async def test_a_mark_that_comes_late_is_this_stores_own(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try puts another one there."""
    fake: Any = fs.objects
    assert isinstance(fake, FakeObjectStore)
    put: Callable[..., bool] = fake.put_small
    marks: list[bytes] = []

    def lost(key: str, data: bytes, *, only_new: bool) -> bool:
        if not marks:
            marks.append(data)
            raise Stalled("nothing came")
        return put(key, data, only_new=only_new)

    monkeypatch.setattr(fake, "put_small", lost)
    await fs.write(FILE, b"bytes")
    await stored_at_last(fs)
    assert fake.get_small(MARK_KEY) != marks[0]
    put(MARK_KEY, marks[0], only_new=False)
    await fs.tier.ownership.doubt()
    await fs.write(OTHER, b"more")
    await stored_at_last(fs, OTHER)
    assert fs.tier.ownership.refusal is None


# --- an upload that is given up while it is tried again --------------------------------------------------------------


class SecondPut:
    """Holds the second attempt of an upload up: the first one has reached S3, and had no answer."""

    def __init__(self, fs: Filesystem) -> None:
        assert fs.objects is not None
        fs.objects.fail("put_file", Unreachable("it went away"), after=True)
        fs.objects.before = self._asked
        self._asks = 0
        self._gate = threading.Event()
        self.entered = threading.Event()

    def _asked(self, operation: str, key: str | None) -> None:
        if operation == "put_file":
            self._asks += 1
            if self._asks == 2:
                self.entered.set()
                assert self._gate.wait(10)

    def let_go(self) -> None:
        """Go on."""
        self._gate.set()


@tried_again
@pytest.mark.parametrize(
    "ends_as", ["removed", "renamed, then removed", "written to, then removed", "written to, then renamed into temp"]
)
async def test_what_an_upload_has_left_that_was_given_up_goes(fs: Filesystem, ends_as: str) -> None:
    put = SecondPut(fs)
    await fs.write(FILE, b"earlier")
    await until(put.entered.is_set)
    if ends_as == "removed":
        await fs.unlink(FILE)
    elif ends_as == "renamed, then removed":
        await fs.rename(FILE, OTHER)
        await fs.unlink(OTHER)
    else:
        number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
        await fs.vfs.files.write(number, 0, b"later")
    put.let_go()
    await until(lambda: not fs.tier.journal.running)
    if ends_as == "written to, then removed":
        await fs.unlink(FILE)
        await fs.close(number)
    elif ends_as == "written to, then renamed into temp":
        await fs.mkdirs("temp/5/1")
        await fs.rename(FILE, "temp/5/1/file")
        await fs.close(number)
    await fs.drain()
    for _ in range(8):  # what is deleted is deleted twice
        fs.clock.advance(KEPT_S + 1)
        fs.tier.journal.wake.set()
        await fs.drain()
    assert stored(fs) == {}
