"""What close and fsync promised of a version holds until as much is promised of a later one, whatever dies."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.disk import unsealing
from recfs.errors import IoFailure, OutOfSpace
from recfs.fs.attributes import Changes
from recfs.fs.handles import Mode
from recfs.state.nodes import FileNode
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem

FILE = f"{REC}/f"
TEMPORARY = f"{REC}/.f.part"


async def make(fs: Filesystem, path: str, kind: str, content: bytes) -> None:
    """A version of a file, which is left as *kind* says."""
    if kind == "in place":
        number = await fs.open(path, os.O_RDWR)
        await fs.vfs.files.write(number, 0, content[:1])
        return
    await fs.mkdirs(REC)
    number = await fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, content)
    if "synced" in kind:
        await fs.vfs.files.fsync(number)
    if "open" not in kind:
        await fs.close(number)
        assert await fs.state(path) == "sealing"
    if kind == "committed":
        await fs.drain()
        assert await fs.state(path) == "committed"


async def die(fs: Filesystem, death: str) -> None:
    """kill -9, or that and a power cut which spared all the bytes. Start again."""
    await fs.crash()
    if death == "power":
        fs.boot = "another"
    await fs.reopen()


LIVES = [
    # Versions, in order; which of them is there after the daemon's death, and after a power cut (None: nothing was
    # promised), and as what.
    (["committed", "open"], (0, "committed"), (0, "committed")),
    (["committed", "closed", "open"], (1, "committed"), (0, "committed")),
    (["committed", "closed", "closed", "open"], (2, "committed"), (0, "committed")),
    (["committed", "synced", "open"], (1, "committed"), (1, "incomplete")),
    (["committed", "synced", "closed", "open"], (2, "committed"), (1, "incomplete")),
    (["committed", "closed", "synced", "open"], (2, "committed"), (2, "incomplete")),
    (["committed", "synced open", "open"], (1, "incomplete"), (1, "incomplete")),
    (["committed", "synced open"], (1, "incomplete"), (1, "incomplete")),
    (["closed", "closed", "open"], (1, "committed"), (None, "incomplete")),
    (["synced", "closed", "open"], (1, "committed"), (0, "incomplete")),
    (["committed", "closed", "committed", "open"], (2, "committed"), (2, "committed")),
]


@pytest.mark.parametrize("written", [True, False], ids=["rows-written", "rows-lost"])
@pytest.mark.parametrize("death", ["kill", "power"])
@pytest.mark.parametrize(("kinds", "killed", "cut"), LIVES, ids=["+".join(kinds) for kinds, _, _ in LIVES])
@pytest.mark.table(6)
async def test_the_version_that_was_promised_is_there(
    fs: Filesystem,
    kinds: list[str],
    killed: tuple[int, str],
    cut: tuple[int | None, str],
    death: str,
    written: bool,
) -> None:
    fs.checked_at_end = False  # what was cut off is in lost+found
    contents = [b"version %d" % number * (number + 1) for number in range(len(kinds))]
    for kind, content in zip(kinds, contents, strict=True):
        await make(fs, FILE, kind, content)
    if written:
        await fs.parts.behind.flush()
    await die(fs, death)
    await fs.drain()
    number, state = killed if death == "kill" else cut
    content = await fs.read(FILE)
    assert number is None or content == contents[number]
    assert await fs.state(FILE) == state
    assert fs.account() == (len(content), 1)
    assert fs.rows("select count(*) from garbage where held_by is not null") == [0]
    lost = [path.read_bytes() for path in (fs.root / ".recfs/lost+found").iterdir()]
    assert set(lost) <= set(contents[contents.index(content) + 1 :])
    await fs.assert_consistent(lost=len(lost))


@pytest.mark.parametrize(("death", "content"), [("kill", b"Xlosed"), ("power", b"committed")])
async def test_bytes_changed_after_their_close_are_kept_as_incomplete(
    fs: Filesystem, death: str, content: bytes
) -> None:
    fs.checked_at_end = False
    await make(fs, FILE, "committed", b"committed")
    await make(fs, FILE, "closed", b"closed")
    await make(fs, FILE, "in place", b"X")
    await fs.parts.behind.flush()
    await die(fs, death)
    await fs.drain()
    assert await fs.read(FILE) == content
    assert await fs.state(FILE) == ("incomplete" if death == "kill" else "committed")


@pytest.mark.parametrize("written", [True, False], ids=["rows-written", "rows-lost"])
@pytest.mark.parametrize("how", ["truncated", "opened anew", "replaced"])
@pytest.mark.parametrize(
    "kinds", [["committed"], ["closed"], ["committed", "closed"], ["committed", "closed", "closed"]]
)
@pytest.mark.table(6)
async def test_bytes_changed_after_their_close_and_emptied_are_kept(
    fs: Filesystem, kinds: list[str], how: str, written: bool
) -> None:
    """What was promised last, with what was written to it since, is more than an older version, or nothing."""
    fs.checked_at_end = False
    for number, kind in enumerate(kinds):
        await make(fs, FILE, kind, b"version %d" % number)
    await make(fs, FILE, "in place", b"X")
    if written:
        await fs.parts.behind.flush()
    if how == "truncated":
        await truncate(fs, 0)
    elif how == "opened anew":
        number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
        await fs.vfs.files.write(number, 0, b"cut off")
    else:
        await make(fs, TEMPORARY, "open", b"cut off")
        await fs.rename(TEMPORARY, FILE)
    if written:
        await fs.parts.behind.flush()
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == b"Xersion %d" % (len(kinds) - 1)
    assert await fs.state(FILE) == "incomplete"
    assert fs.account() == (9, 1)
    lost = [path.read_bytes() for path in (fs.root / ".recfs/lost+found").iterdir()]
    assert set(lost) <= {b"cut off"}
    await fs.assert_consistent(lost=len(lost))


async def test_after_a_power_cut_what_was_synced_goes_before_what_was_changed_in_place(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await make(fs, FILE, "committed", b"committed")
    await make(fs, FILE, "closed", b"closed")
    await make(fs, FILE, "in place", b"X")
    await truncate(fs, 0)
    await fs.parts.behind.flush()
    await die(fs, "power")
    await fs.drain()
    assert await fs.read(FILE) == b"committed"
    assert await fs.state(FILE) == "committed"


@pytest.mark.parametrize("death", ["kill", "power"])
async def test_what_was_promised_holds_although_the_commit_failed(
    fs: Filesystem, expect_log: Callable[[str], None], death: str
) -> None:
    fs.checked_at_end = False
    await make(fs, FILE, "committed", b"committed")
    failed = trio.Event()

    async def failing() -> None:
        failed.set()
        raise OutOfSpace("the disk is full")

    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"synced")
    await fs.vfs.files.fsync(number)
    expect_log("commit: the disk is full")
    with mock.patch.object(fs.parts.behind, "durable", failing):
        await fs.close(number)
        await failed.wait()
        await fs.parts.committer.progress()
        assert await fs.state(FILE) == "sealing"
        await make(fs, FILE, "in place", b"X")
        await make(fs, FILE, "open", b"cut off")
    await fs.parts.behind.flush()
    await die(fs, death)
    await fs.drain()
    assert await fs.read(FILE) == b"Xynced"
    assert await fs.state(FILE) == "incomplete"


@pytest.mark.parametrize(("death", "left"), [("kill", b"closed"), ("power", b"committed")])
@pytest.mark.parametrize("how", ["over the open one", "the open one over"])
async def test_renames_keep_the_promises_of_the_name(fs: Filesystem, how: str, death: str, left: bytes) -> None:
    fs.checked_at_end = False
    await make(fs, FILE, "committed", b"committed")
    if how == "over the open one":
        await make(fs, TEMPORARY, "closed", b"closed")
        await fs.rename(TEMPORARY, FILE)
        await make(fs, FILE, "open", b"cut off")
    else:
        await make(fs, FILE, "closed", b"closed")
        await make(fs, TEMPORARY, "open", b"cut off")
        await fs.rename(TEMPORARY, FILE)
    await fs.parts.behind.flush()
    await die(fs, death)
    await fs.drain()
    assert await fs.read(FILE) == left
    assert await fs.state(FILE) == "committed"
    assert fs.account() == (len(left), 1)


async def test_a_version_that_is_back_has_its_attributes_at_home(fs: Filesystem) -> None:
    """They were due when it was overwritten."""
    fs.checked_at_end = False
    await make(fs, FILE, "committed", b"committed")
    await fs.crash()
    await fs.reopen(services=False)
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mtime_ns=981158400 * 10**9, mode=0o600), OPERATOR)
    await make(fs, FILE, "open", b"cut off")
    await fs.parts.behind.flush()
    await die(fs, "kill")
    await fs.drain()
    assert (await fs.node(FILE)).mtime_ns == 981158400 * 10**9
    await fs.assert_consistent(lost=1)


@pytest.mark.parametrize("written", [True, False], ids=["rows-written", "rows-lost"])
async def test_of_two_closed_overwrites_the_later_one_counts(fs: Filesystem, written: bool) -> None:
    await make(fs, FILE, "committed", b"committed")
    await make(fs, FILE, "closed", b"first")
    if written:
        await fs.parts.behind.flush()
    await make(fs, FILE, "closed", b"second")
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == b"second"
    assert await fs.state(FILE) == "committed"
    await fs.assert_consistent()


async def test_versions_that_nobody_needs_leave_the_disk(fs: Filesystem) -> None:
    await make(fs, FILE, "committed", b"committed")
    for number in range(5):
        await make(fs, FILE, "closed", b"version %d" % number)
        await fs.parts.behind.flush()
        held = fs.rows("select count(*) from garbage where held_by is not null")
        assert held == [1]  # the committed one: the others are no better than the one that is there
    await fs.drain()
    assert fs.leftovers("staging") == []
    assert fs.rows("select count(*) from garbage") == [0]


# --- open for writing, and not written to --------------------------------------------------------------------------


@pytest.fixture
async def passing(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """Where the kernel writes by itself, a file is made ready for that by its open, long before its first byte."""
    made = Filesystem(nursery, place)
    made.files = FakeKernelFiles()
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


async def truncate(fs: Filesystem, number: int) -> None:
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(size=0), OPERATOR)


async def open_truncating(fs: Filesystem, number: int) -> None:
    await fs.pass_open(FILE, os.O_WRONLY | os.O_TRUNC)


async def rename_unfinished_over(fs: Filesystem, number: int) -> None:
    await make(fs, TEMPORARY, "open", b"cut off")
    await fs.rename(TEMPORARY, FILE)


EMPTYING = [truncate, open_truncating, rename_unfinished_over]


@pytest.mark.parametrize("reader", [False, True], ids=["alone", "beside-a-reader"])
@pytest.mark.parametrize("emptied", EMPTYING, ids=lambda act: act.__name__)
@pytest.mark.parametrize("kinds", [["committed"], ["closed"], ["committed", "closed"]], ids="+".join)
@pytest.mark.table(3)
async def test_a_version_that_is_only_open_for_writing_is_kept(
    passing: Filesystem, kinds: list[str], emptied: Callable[[Filesystem, int], Awaitable[None]], reader: bool
) -> None:
    fs = passing
    contents = [b"version %d" % number * (number + 1) for number in range(len(kinds))]
    for kind, content in zip(kinds, contents, strict=True):
        await make(fs, FILE, kind, content)
    if reader:
        await fs.pass_open(FILE, os.O_RDONLY)
    number, mode = await fs.pass_open(FILE, os.O_RDWR)
    assert mode is Mode.PASS
    await emptied(fs, number)
    await fs.parts.behind.flush()
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == contents[-1]
    # Within the tick of the disk's clock nobody can tell that nothing was written.
    assert await fs.state(FILE) in ("committed", "incomplete")
    assert fs.account() == (len(contents[-1]), 1)


@pytest.mark.parametrize("emptied", EMPTYING, ids=lambda act: act.__name__)
@pytest.mark.parametrize("kinds", [["committed"], ["closed"], ["committed", "closed"]], ids="+".join)
async def test_a_version_that_was_written_to_where_it_lies_is_kept(
    passing: Filesystem, kinds: list[str], emptied: Callable[[Filesystem, int], Awaitable[None]]
) -> None:
    """The kernel writes a byte to it by itself, before the file is emptied or replaced."""
    fs = passing
    fs.checked_at_end = False
    for number, kind in enumerate(kinds):
        await make(fs, FILE, kind, b"version %d" % number)
    number, mode = await fs.pass_open(FILE, os.O_RDWR)
    assert mode is Mode.PASS
    fs.pass_write(number, b"X")
    await emptied(fs, number)
    await fs.parts.behind.flush()
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == b"Xersion %d" % (len(kinds) - 1)
    assert await fs.state(FILE) == "incomplete"
    assert fs.account() == (9, 1)


async def test_a_file_that_could_not_be_emptied_keeps_what_was_promised_of_it(passing: Filesystem) -> None:
    """The catalogue failed after the copy was made: who has the file open goes on with the bytes that are there."""
    fs = passing
    await make(fs, FILE, "closed", b"version 0")
    number, mode = await fs.pass_open(FILE, os.O_RDWR)
    assert mode is Mode.PASS
    with (
        mock.patch.object(fs.parts.behind, "durable", side_effect=IoFailure("the disk is broken")),
        pytest.raises(IoFailure),
    ):
        await truncate(fs, number)
    fs.pass_write(number, b"X")
    await fs.parts.behind.flush()
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == b"Xersion 0"
    assert await fs.state(FILE) == "incomplete"
    await fs.assert_consistent()


@pytest.mark.parametrize("noticed", ["before", "meanwhile"])
@pytest.mark.parametrize("changed", [True, False], ids=["changed", "whole"])
async def test_a_file_is_emptied_on_a_full_disk_if_it_is_whole_nowhere(
    passing: Filesystem, changed: bool, noticed: str
) -> None:
    """A version that nobody has written to is not given up for that; one that was is, and no older one is back."""
    fs = passing
    await make(fs, FILE, "committed", b"committed")
    await make(fs, FILE, "closed", b"closed")
    number, _ = await fs.pass_open(FILE, os.O_RDWR)
    if changed:
        fs.pass_write(number, b"X")
    full = (
        mock.patch.object(fs.vfs.files.space, "admit", side_effect=OutOfSpace("full"))
        if noticed == "before"
        else mock.patch.object(unsealing, "copy_bytes", side_effect=OSError(errno.ENOSPC, "full"))
    )
    with full, contextlib.nullcontext() if changed else pytest.raises((OSError, OutOfSpace), match="full"):
        await truncate(fs, number)
    await fs.parts.behind.flush()
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == (b"" if changed else b"closed")
    assert await fs.state(FILE) == "incomplete"
    await fs.assert_consistent()


async def test_a_copy_that_no_row_names_yet_is_not_kept(passing: Filesystem) -> None:
    fs = passing
    await make(fs, FILE, "committed", b"committed")
    await fs.pass_open(FILE, os.O_RDWR)
    await fs.parts.behind.flush()

    async def die_first() -> None:
        raise IoFailure("it dies before the row is written")

    with mock.patch.object(fs.parts.behind, "durable", die_first), pytest.raises(IoFailure):
        await truncate(fs, 0)
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == b"committed"
    assert fs.leftovers("lost+found") == []
    await fs.assert_consistent()


async def test_a_copy_has_its_own_size(passing: Filesystem) -> None:
    """Somebody writes on while the bytes that are kept are copied."""
    fs = passing
    number, mode = await fs.pass_open(FILE, os.O_RDWR | os.O_CREAT)
    assert mode is Mode.PASS
    node = await fs.node(FILE)
    assert isinstance(node, FileNode)
    assert node.body is not None
    os.pwrite(node.body.fd, b"synced", 0)
    await fs.vfs.files.fsync(number)
    copied = unsealing.copy_bytes

    def slow(source: int, target: int, *args: Any, **how: Any) -> Any:
        done = copied(source, target, *args, **how)
        os.pwrite(source, b"and more, and more", 6)
        return done

    with mock.patch.object(unsealing, "copy_bytes", slow):
        await fs.vfs.setattr(node.ino, Changes(size=0), OPERATOR)
    await fs.parts.behind.flush()
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == b"synced"
    assert fs.account() == (6, 1)


@pytest.mark.parametrize("flushed", ["rows-written", "rows-lost"])
@pytest.mark.parametrize("change", ["nothing", "append", "cut"])
@pytest.mark.parametrize("kinds", [["closed"], ["closed", "closed"], ["committed", "closed"]], ids="+".join)
@pytest.mark.table(3)
async def test_what_was_closed_and_taken_up_again_is_incomplete(
    fs: Filesystem, kinds: list[str], change: str, flushed: str
) -> None:
    """Neither an older version, nor sealed with half a change in it."""
    fs.checked_at_end = False
    contents = [b"version %d" % number * (number + 1) for number in range(len(kinds))]
    for kind, content in zip(kinds, contents, strict=True):
        await make(fs, FILE, kind, content)
    if flushed == "rows-written":
        await fs.parts.behind.flush()
    number = await fs.open(FILE, os.O_RDWR)
    expected = contents[-1]
    if change == "append":
        await fs.vfs.files.write(number, len(expected), b", half")
        expected += b", half"
    elif change == "cut":
        await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(size=4), OPERATOR)
        expected = expected[:4]
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == expected
    # In this mode the open itself changes nothing.
    assert await fs.state(FILE) == ("committed" if change == "nothing" else "incomplete")
    assert fs.leftovers("lost+found") == []


async def test_an_incomplete_file_has_the_bytes_that_a_power_cut_left_of_it(fs: Filesystem) -> None:
    """Its row may be of the time before somebody took it up again."""
    await make(fs, FILE, "open", b"cut off")
    await fs.parts.behind.flush()
    await die(fs, "kill")
    staging = fs.root / ".recfs/staging" / (await fs.node(FILE)).staging
    await fs.crash()
    with staging.open("ab") as stream:
        stream.write(b", and more")
    fs.boot = "another"
    await fs.reopen()
    assert await fs.read(FILE) == b"cut off, and more"
    assert await fs.state(FILE) == "incomplete"
    assert fs.account() == (17, 1)


@pytest.mark.parametrize("how", ["cut", "written", "closed"])
async def test_an_incomplete_file_that_is_taken_up_again_is_what_it_was_made(fs: Filesystem, how: str) -> None:
    """Its row says so before its bytes change: the start after a death leaves incomplete files as they are."""
    await make(fs, FILE, "open", b"cut off")
    await fs.parts.behind.flush()
    await die(fs, "kill")
    assert await fs.state(FILE) == "incomplete"
    if how == "cut":
        await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(size=20), OPERATOR)
        expected = b"cut off" + bytes(13)
    else:
        number = await fs.open(FILE, os.O_RDWR)
        await fs.vfs.files.write(number, 7, b", and gone on with")
        expected = b"cut off, and gone on with"
        if how == "closed":
            await fs.close(number)
    await die(fs, "kill")
    await fs.drain()
    assert await fs.read(FILE) == expected
    assert await fs.state(FILE) == ("incomplete" if how == "written" else "committed")
    assert fs.account() == (len(expected), 1)
    await fs.assert_consistent()
