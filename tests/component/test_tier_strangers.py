"""Objects that were deleted or replaced out of band while their files were renamed: nobody waits for their moves."""

from __future__ import annotations

import pytest
import trio

from recfs.core.model import State
from recfs.errors import RecfsError
from recfs.ports.object_errors import ObjectArchived
from recfs.tier.queue.unanswered import KEPT_S
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, until
from .far import ask
from .test_tier import node, stored
from .test_tier_keys import away, fs, objects

__all__ = ["fs"]
P, P2, Q = (f"{REC}/{name}" for name in ("p", "p2", "q"))
lost = pytest.mark.expect_log("next try in|out of band|gone from S3|was lost|ObjectChanged|etag")


async def ends(fs: Filesystem) -> dict[str, object]:
    """Drain, which ends."""
    with trio.fail_after(GUARD_S):
        told: dict[str, object] = await ask(fs, "drain", timeout_s=60)
    return told


def spoil(fs: Filesystem, key: str, replaced: bool) -> None:
    """Somebody else deletes or replaces an object."""
    if replaced:
        objects(fs).tamper(key, b"somebody else's")
    else:
        objects(fs).vanish(key)


@lost
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_new_file_does_not_wait_for_an_object_that_is_lost(fs: Filesystem, replaced: bool, crash: bool) -> None:
    """It is uploaded; the renamed file cannot be read, before and after, and its removal takes nothing along."""
    await away(fs, p=b"old")
    spoil(fs, P, replaced)
    await fs.rename(P, P2)
    await fs.write(P, b"new")
    told = await ends(fs)
    assert told["pending"] == 0
    assert [row["path"] for row in told["refused"]["first"]] == [P2]  # type: ignore[index]
    assert stored(fs) == {P: b"new"}
    if crash:
        await fs.crash()
        await fs.reopen()
        await ends(fs)
    with pytest.raises(RecfsError):
        await fs.read(P2)
    await fs.unlink(P2)
    await ends(fs)
    assert stored(fs) == {P: b"new"}
    assert crash or fs.rows("select count(*) from journal") == [0]
    fs.clock.advance(KEPT_S)  # what the last run had under way may still come: what it puts is deleted then
    await until(lambda: fs.rows("select count(*) from journal") == [0])
    assert stored(fs) == {P: b"new"}


@lost
@pytest.mark.parametrize("replaced", [False, True])
async def test_removing_the_new_file_takes_its_object_away(fs: Filesystem, replaced: bool) -> None:
    """Although the renamed one had that key once."""
    await away(fs, p=b"old")
    spoil(fs, P, replaced)
    await fs.rename(P, P2)
    await fs.write(P, b"new")
    await ends(fs)
    await fs.unlink(P)
    await ends(fs)
    assert stored(fs) == {}


@lost
async def test_an_object_that_is_brought_back_follows_its_file(fs: Filesystem) -> None:
    """Under the key that the log names, since another file has taken the old one."""
    await away(fs, p=b"old")
    before = objects(fs)._objects[P]
    objects(fs).vanish(P)
    await fs.rename(P, P2)
    await fs.write(P, b"new")
    await ends(fs)
    found = (await node(fs, P2)).object
    assert found is not None
    [row] = (await ask(fs, "queue"))["rows"]
    assert (row["path"], found.key in row["error"]) == (P2, True)
    objects(fs)._objects[found.key] = before
    await ask(fs, "queue_retry", all=True)
    await ends(fs)
    assert stored(fs) == {P: b"new", P2: b"old"}
    assert await fs.read(P2) == b"old"


@lost
@pytest.mark.parametrize("replaced", [False, True])
async def test_of_two_that_change_places_one_is_lost(fs: Filesystem, replaced: bool) -> None:
    await away(fs, p=b"old", q=b"other")
    spoil(fs, P, replaced)
    await fs.rename(P, Q, exchange=True)
    assert (await ends(fs))["pending"] == 0
    assert stored(fs) == {P: b"other"}
    assert await fs.read(P) == b"other"


@lost
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_renamed_file_that_is_overwritten(fs: Filesystem, replaced: bool) -> None:
    await away(fs, p=b"old")
    spoil(fs, P, replaced)
    await fs.rename(P, P2)
    await ends(fs)
    await fs.write(P, b"new")
    await fs.write(P2, b"newer")
    assert (await ends(fs))["pending"] == 0
    assert stored(fs) == {P: b"new", P2: b"newer"}
    assert fs.rows("select count(*) from journal") == [0]


@lost
@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_with_a_local_copy_is_uploaded_anew(fs: Filesystem, replaced: bool, taken: bool) -> None:
    """What S3 has lost is here still."""
    await fs.write(P, b"here")
    await fs.drain()
    spoil(fs, P, replaced)
    await fs.rename(P, P2)
    if taken:
        await fs.write(P, b"new")
    assert (await ends(fs))["pending"] == 0
    assert stored(fs) == {P2: b"here"} | ({P: b"new"} if taken else {})
    assert (await node(fs, P2)).state is State.STORED
    assert fs.rows("select count(*) from journal") == [0]


async def test_an_object_with_another_etag_follows_all_the_same(fs: Filesystem) -> None:
    """recfs gave it that etag, and the answer was lost: these are the file's only bytes."""
    await away(fs, p=b"old")
    objects(fs)._objects[P].etag = "another"
    await fs.rename(P, P2)
    await fs.write(P, b"new")
    assert (await ends(fs))["pending"] == 0
    assert stored(fs) == {P: b"new", P2: b"old"}
    assert await fs.read(P2) == b"old"


@pytest.mark.expect_log("next try in")
async def test_what_waits_for_a_move_that_is_refused_says_so(fs: Filesystem) -> None:
    """The bytes are there, and cannot be moved: the move is not tried at every look, and drain ends with the name."""
    await away(fs, p=b"old")
    objects(fs).fail("copy", ObjectArchived("archived"), times=1000)
    await fs.rename(P, P2)
    await fs.write(P, b"new")
    told = await ends(fs)
    [stuck] = told["stuck"]["first"]  # type: ignore[index]
    assert (stuck["path"], stuck["reason"]) == (P, f"waits for the move of {P2}")
    journal = fs.tier.journal
    tries = sum(asked == "copy" for asked, _ in objects(fs).calls)
    later_ns = fs.clock.steady_ns() + 60 * 10**9
    await until(lambda: fs.clock.steady_ns() > later_ns)
    assert sum(asked == "copy" for asked, _ in objects(fs).calls) == tries
    rows = {row["path"]: row for row in (await ask(fs, "queue"))["rows"]}
    assert rows[P2]["why"].endswith(f"; {P} waits for it")
    assert stored(fs) == {P: b"old"}
    answer = await ask(fs, "queue_drop", ids=[rows[P2]["id"]])
    assert "put right" in answer["kept"][0]["reason"]
    objects(fs).heal()
    for row_id in list(journal.rows):
        journal.retry(row_id)
    await ends(fs)
    assert stored(fs) == {P: b"new", P2: b"old"}
