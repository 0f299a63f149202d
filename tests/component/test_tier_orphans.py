"""Objects whose upload reached S3, and whose answer did not reach recfs: none is left when its file goes elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from recfs.ports.object_errors import AccessRefused, NotOffered, RequestRefused, Unreachable
from recfs.state.nodes import FileNode
from recfs.tier.queue.unanswered import KEPT_S

from .build import REC, Filesystem, pattern
from .far import ask, bucket, fs, until
from .test_tier import FILE, MIB, stored

__all__ = ["fs"]

Act = Callable[[Filesystem, str], Awaitable[object]]


async def remove(fs: Filesystem, path: str) -> None:
    await fs.unlink(path)


async def rename(fs: Filesystem, path: str) -> None:
    await fs.rename(path, f"{REC}/renamed")


async def rename_directory(fs: Filesystem, path: str) -> None:
    await fs.rename(REC, "users/5/recordings/777")


async def replace(fs: Filesystem, path: str) -> None:
    await fs.write(f"{REC}/new", b"another")
    await fs.rename(f"{REC}/new", path)


async def overwrite(fs: Filesystem, path: str) -> None:
    await fs.write(path, b"newer")


async def rename_and_make_anew(fs: Filesystem, path: str) -> None:
    """The old key is another file's now: what is there is not to go."""
    await fs.rename(path, f"{REC}/renamed")
    await fs.write(path, b"made anew")


async def rename_twice(fs: Filesystem, path: str) -> None:
    await fs.rename(path, f"{REC}/away")
    await fs.rename(f"{REC}/away", path)


async def rename_and_remove(fs: Filesystem, path: str) -> None:
    await fs.rename(path, f"{REC}/renamed")
    await fs.unlink(f"{REC}/renamed")


ACTS: list[Act] = [
    remove, rename, rename_directory, replace, overwrite, rename_and_make_anew, rename_twice, rename_and_remove
]  # fmt: skip


async def assert_no_orphans(fs: Filesystem) -> None:
    """The bucket has the files that belong there, and nothing else."""
    # The clock of the file system stands still: what waits for it is hurried.
    while fs.rows("select count(*) from journal") != [0] or fs.parts.committer.depth:
        for found in [found for found in fs.parts.tree.nodes.values() if isinstance(found, FileNode)]:
            fs.parts.committer.hurry(found.ino)
        await ask(fs, "queue_retry", all=True)
        fs.clock.advance(KEPT_S)  # what was not answered may be carried out for so long
        await fs.parts.behind.flush()
        await trio.sleep(0.1)
    await fs.drain()
    files = {path: content for path, content in (await fs.tree("users")).items() if content is not None}
    assert stored(fs) == files
    fs.parts.tree.check_invariants()


@pytest.mark.may_log("the answer was lost")
@pytest.mark.parametrize("dies", [True, False], ids=["dies", "lives"])
@pytest.mark.parametrize("size", [1000, pytest.param(9 * MIB, marks=pytest.mark.slow)], ids=["one-put", "parts"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@pytest.mark.table(2)
async def test_no_object_is_left(fs: Filesystem, act: Act, size: int, dies: bool) -> None:
    last = "put_file" if size < MIB else "finish_multipart"
    bucket(fs).fail(last, Unreachable("the answer was lost"), times=1_000, after=True)
    await fs.write(FILE, pattern(size))
    await until(lambda: FILE in stored(fs))
    if not dies:
        await until(lambda: fs.rows("select count(*) from journal where attempts > 0") == [1])
    await act(fs, FILE)
    await fs.parts.behind.flush()
    if dies:
        await fs.crash()
    bucket(fs).heal()
    if dies:
        await fs.reopen()
    await ask(fs, "queue_retry", all=True)
    await assert_no_orphans(fs)


@pytest.mark.may_log("the answer was lost")
@pytest.mark.parametrize("dies", [True, False], ids=["dies", "lives"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@pytest.mark.slow
async def test_no_upload_in_parts_is_left(fs: Filesystem, act: Act, dies: bool) -> None:
    """It was begun, and nobody heard of it; what the file is now goes in one piece, or elsewhere, or nowhere."""
    bucket(fs).fail("start_multipart", Unreachable("the answer was lost"), times=1, after=True)
    bucket(fs).fail("start_multipart", Unreachable("the answer was lost"), times=1_000)
    await fs.write(FILE, pattern(9 * MIB))
    await until(lambda: bucket(fs).list_multiparts())
    if not dies:
        await until(lambda: fs.rows("select count(*) from journal where attempts > 0") == [1])
    await act(fs, FILE)
    await fs.parts.behind.flush()
    if dies:
        await fs.crash()
    bucket(fs).heal()
    if dies:
        await fs.reopen()
    await ask(fs, "queue_retry", all=True)
    await assert_no_orphans(fs)
    assert bucket(fs).list_multiparts() == []


@pytest.mark.expect_log("stays, until a rule of the bucket aborts it")
@pytest.mark.may_log("the answer was lost")
@pytest.mark.parametrize("refused", [AccessRefused, NotOffered, RequestRefused])
async def test_a_server_that_does_not_list_uploads_in_parts_stores_files_all_the_same(
    fs: Filesystem, refused: type[Exception]
) -> None:
    bucket(fs).fail("put_file", Unreachable("the answer was lost"), times=1_000)
    await fs.write(FILE, b"data")
    await until(lambda: fs.rows("select count(*) from journal where key <> ''") == [1])
    await fs.crash()
    bucket(fs).heal()
    bucket(fs).fail("list_multiparts", refused("not to you"), times=1_000)
    await fs.reopen()
    await ask(fs, "queue_retry", all=True)
    await until(lambda: stored(fs) == {FILE: b"data"})


MOVED = f"{REC}/moved"


async def rename_back(fs: Filesystem, path: str) -> None:
    await fs.rename(path, FILE)


async def change_places(fs: Filesystem, path: str) -> None:
    await fs.write(f"{REC}/other", b"other")
    await fs.rename(f"{REC}/other", path, exchange=True)


MOVES: list[Act] = [*ACTS, rename_back, change_places]


@pytest.mark.may_log("the answer was lost")
@pytest.mark.parametrize("dies", [True, False], ids=["dies", "lives"])
@pytest.mark.parametrize("act", MOVES, ids=lambda act: act.__name__)
@pytest.mark.table(4)
async def test_no_copy_is_left_where_an_object_was_moved_to(fs: Filesystem, act: Act, dies: bool) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    bucket(fs).fail("copy", Unreachable("the answer was lost"), times=1_000, after=True)
    await fs.rename(FILE, MOVED)
    await until(lambda: MOVED in stored(fs))
    if not dies:
        await until(lambda: fs.rows("select count(*) from journal where attempts > 0") == [1])
    await act(fs, MOVED)
    await fs.parts.behind.flush()
    if dies:
        await fs.crash()
    bucket(fs).heal()
    if dies:
        await fs.reopen()
    await ask(fs, "queue_retry", all=True)
    await assert_no_orphans(fs)


@pytest.mark.may_log("the answer was lost")
@pytest.mark.parametrize("dies", [True, False], ids=["dies", "lives"])
async def test_no_copy_is_left_of_a_file_that_belongs_here_by_now(fs: Filesystem, dies: bool) -> None:
    """Its object followed it to where nothing is uploaded, and then it was overwritten."""
    here = "temp/5/1/moved"
    await fs.write(FILE, b"data")
    await fs.mkdirs("temp/5/1")
    await fs.drain()
    bucket(fs).fail("copy", Unreachable("the answer was lost"), times=1_000, after=True)
    await fs.rename(FILE, here)
    await until(lambda: here in stored(fs))
    if not dies:
        await until(lambda: fs.rows("select count(*) from journal where attempts > 0") == [1])
    await fs.write(here, b"newer")
    await fs.parts.behind.flush()
    if dies:
        await fs.crash()
    bucket(fs).heal()
    if dies:
        await fs.reopen()
    await ask(fs, "queue_retry", all=True)
    await assert_no_orphans(fs)
    assert await fs.read(here) == b"newer"
