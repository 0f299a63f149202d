"""Objects of versions in the trash that lie elsewhere than their files did at the end, or were changed meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recfs.fs.attributes import Changes
from recfs.ports.object_errors import RequestRefused, ServerFault, Unreachable
from recfs.tier.trashed import TRASH
from recfs.tier.uploads.holders import ASIDE

from .build import OPERATOR, REC, Filesystem, pattern
from .far import Hold, ask, bucket, down, tick, until
from .test_tier import evict, stored, tiered

if TYPE_CHECKING:
    import trio

    from recfs.state.nodes import Node

HOUR = 3600.0
FILE, OTHER, MOVED = (f"{REC}/{name}" for name in ("file", "other", "moved"))
OLD, NEW = pattern(7000), pattern(5000, 1)


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One whose trash keeps everything for an hour, with two files that S3 has."""
    made = tiered(nursery, place, trash={"retention": HOUR})
    await made.start()
    await made.write(FILE, OLD)
    await made.write(OTHER, NEW)
    await made.drain()
    yield made
    await made.stop()


async def purge(fs: Filesystem) -> None:
    await ask(fs, "trash_purge", all=True)
    await fs.drain()


@pytest.mark.may_log("no route|next try in")
@pytest.mark.parametrize("restarts", [False, True], ids=["runs", "restarts"])
async def test_what_had_not_followed_its_file_leaves_the_bucket_with_the_purge(fs: Filesystem, restarts: bool) -> None:
    """It was renamed and removed before S3 could be told."""
    down(fs)
    await fs.rename(FILE, MOVED)
    await fs.unlink(MOVED)
    bucket(fs).heal()
    await fs.drain()
    assert stored(fs) == {FILE: OLD, OTHER: NEW}
    if restarts:
        await fs.reopen()
    await purge(fs)
    await until(lambda: stored(fs) == {OTHER: NEW})


@pytest.mark.may_log("next try in")
async def test_what_went_aside_leaves_the_bucket_with_the_purge(fs: Filesystem) -> None:
    """Two files change places, and S3 refuses to put the one where it belongs."""
    await evict(fs)
    await fs.read(FILE)
    ino = (await fs.node(FILE)).ino
    copy = bucket(fs).copy

    def refuses(src: str, dst: str, *args: object, **more: object) -> object:
        if src.startswith(ASIDE) or dst == FILE:
            raise RequestRefused("not there")
        return copy(src, dst, *args, **more)  # type: ignore[arg-type]

    bucket(fs).copy = refuses  # type: ignore[method-assign, assignment]
    await fs.rename(FILE, OTHER, exchange=True)
    await until(lambda: any(key.startswith(ASIDE) for key in stored(fs)))
    await fs.drain()
    aside = next(key for key in stored(fs) if key.startswith(ASIDE))
    gone = OTHER if aside == f"{ASIDE}{ino}" else FILE
    await fs.unlink(gone)
    await fs.drain()
    assert aside in stored(fs)
    bucket(fs).copy = copy  # type: ignore[method-assign]
    await purge(fs)
    await until(lambda: aside not in stored(fs))


async def test_what_was_restored_and_goes_to_s3_anew_leaves_no_earlier_object(fs: Filesystem) -> None:
    """Its bytes lay here; under its old name S3 has what it was, for nobody."""
    await fs.unlink(FILE)
    await fs.drain()
    await ask(fs, "trash_restore", path=FILE, to=MOVED)
    await fs.drain()
    await until(lambda: stored(fs) == {MOVED: OLD, OTHER: NEW})
    await fs.unlink(MOVED)
    await purge(fs)
    await until(lambda: stored(fs) == {OTHER: NEW})


async def test_the_object_of_a_file_that_is_empty_now_leaves_the_bucket_with_the_purge(fs: Filesystem) -> None:
    """Its last version has no bytes, and the one before was not confirmed to be replaced yet."""
    bucket(fs).fail("put_file", ServerFault("not now"), times=1000)
    await fs.write(FILE, b"")
    await fs.unlink(FILE)
    bucket(fs).heal()
    await fs.drain()
    assert FILE in stored(fs)
    await purge(fs)
    await until(lambda: stored(fs) == {OTHER: NEW})


async def test_a_version_keeps_the_object_that_its_successor_has_too(fs: Filesystem) -> None:
    """A file was renamed over one that only S3 has, and away, before its own bytes were there."""
    await evict(fs)
    bucket(fs).fail("put_file", ServerFault("not now"), times=1000)
    await fs.write(f"{REC}/.part", b"new")
    await fs.rename(f"{REC}/.part", FILE)
    await fs.rename(FILE, MOVED)
    await until(lambda: MOVED in stored(fs))
    bucket(fs).heal()
    await ask(fs, "queue_retry", all=True)
    await fs.drain()
    assert stored(fs)[MOVED] == b"new"
    result = await ask(fs, "trash_restore", path=FILE)
    assert result["kept"] == []
    assert await fs.read(FILE) == OLD


@pytest.mark.may_log("the answer was lost|next try in")
@pytest.mark.parametrize("lost", [False, True], ids=["late", "lost"])
async def test_a_version_whose_object_got_another_etag_is_kept_all_the_same(
    fs: Filesystem, nursery: trio.Nursery, lost: bool
) -> None:
    """Its attributes were copied to the object, and it was removed before the answer came, or without one."""
    nursery.start_soon(tick, fs)
    await evict(fs)
    copy, etags = bucket(fs).copy, iter("abcdefgh")

    def copied(src: str, dst: str, *args: object, **more: object) -> object:
        copy(src, dst, *args, **more)  # type: ignore[arg-type]
        bucket(fs)._objects[dst].etag = next(etags)
        if lost and src == dst:
            raise Unreachable("the answer was lost")
        info = bucket(fs).head(dst)
        assert info is not None
        return info

    bucket(fs).copy = copied  # type: ignore[method-assign, assignment]
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mode=0o600), OPERATOR)
    before = bucket(fs)._objects[FILE].etag
    await until(lambda: bucket(fs)._objects[FILE].etag != before)
    await fs.unlink(FILE)
    await fs.write(FILE, NEW)
    await fs.drain()
    assert stored(fs)[FILE] == NEW
    (aside,) = [key for key in stored(fs) if key.startswith(TRASH)]
    assert fs.tier.journal.is_deleted(aside), "it goes with its time, whatever becomes of the daemon"
    assert (await ask(fs, "trash_restore", path=FILE, to=MOVED))["kept"] == []
    assert await fs.read(MOVED) == OLD


async def copied_aside_unheard(fs: Filesystem) -> None:
    """A version in the trash, to make room for another file's upload, which has not come so far."""
    await evict(fs)
    await fs.unlink(FILE)
    bucket(fs).fail("copy", Unreachable("the answer was lost"), times=1000, after=True)
    await fs.write(FILE, NEW)
    await until(lambda: any(row.attempts for row in fs.tier.journal.rows.values()))
    assert any(key.startswith(TRASH) for key in stored(fs))


@pytest.mark.may_log("the answer was lost|next try in")
async def test_a_copy_aside_of_which_nobody_heard_leaves_the_bucket_with_the_purge(fs: Filesystem) -> None:
    await copied_aside_unheard(fs)
    await ask(fs, "trash_purge", all=True)
    await until(lambda: not any(key.startswith(TRASH) for key in stored(fs)))


@pytest.mark.may_log("the answer was lost|next try in")
async def test_a_copy_aside_of_which_nobody_heard_leaves_the_bucket_when_its_version_comes_back(fs: Filesystem) -> None:
    await copied_aside_unheard(fs)
    assert (await ask(fs, "trash_restore", path=FILE, to=MOVED))["kept"] == []
    await until(lambda: not any(key.startswith(TRASH) for key in stored(fs)))
    assert await fs.read(MOVED) == OLD


async def test_the_object_of_an_empty_file_goes_with_it(fs: Filesystem) -> None:
    """The trash has nothing of it that a purge could find."""
    await fs.write(MOVED, b"")
    await fs.drain()
    await evict(fs, MOVED)
    await fs.unlink(MOVED)
    await fs.drain()
    await until(lambda: stored(fs) == {FILE: OLD, OTHER: NEW})


@pytest.mark.parametrize("way", ["restored", "purged"])
async def test_a_copy_aside_that_is_under_way_goes_with_its_version(fs: Filesystem, way: str) -> None:
    """The version was brought back, or given up, while S3 was at it: nobody has the copy that comes about then."""
    await evict(fs)
    await fs.unlink(FILE)
    hold = Hold(fs, "copy")
    await fs.write(FILE, NEW)
    await hold.entered()
    if way == "restored":
        assert (await ask(fs, "trash_restore", path=FILE, to=MOVED))["kept"] == []
    else:
        assert (await ask(fs, "trash_purge", path=FILE))["kept"] == []
    rows, now_ns = fs.tier.journal.rows, fs.tier.journal.now_ns()
    await until(lambda: not any(row.key.startswith(TRASH) and row.next_try_ns <= now_ns for row in rows.values()))
    hold.let_go()
    await fs.drain()
    await until(lambda: not any(key.startswith(TRASH) for key in stored(fs)))
    assert await fs.read(FILE) == NEW
    assert not any(row.key.startswith(TRASH) for row in rows.values())
    if way == "restored":
        assert await fs.read(MOVED) == OLD


async def test_a_version_whose_object_goes_aside_while_it_comes_back_in_place_of_another(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its object was looked at under its old name, and lies elsewhere before what is in its place has made room."""
    await evict(fs)
    await fs.unlink(FILE)
    hold = Hold(fs, "copy")
    await fs.write(FILE, NEW)
    await hold.entered()
    prepare = fs.vfs.removal.prepare

    async def slowly(node: Node) -> bool:
        hold.let_go()
        await until(lambda: stored(fs).get(FILE) == NEW)
        return bool(await prepare(node))

    monkeypatch.setattr(fs.vfs.removal, "prepare", slowly)
    assert (await ask(fs, "trash_restore", path=FILE, force=True))["kept"] == []
    await fs.drain()
    assert await fs.read(FILE) == OLD
    await until(lambda: stored(fs).get(FILE) == OLD)
