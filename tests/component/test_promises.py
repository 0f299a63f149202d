"""What holds after which call that has returned, and which death: the cells of the table in docs/semantics.md."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from recfs.errors import IoFailure, OutOfSpace
from recfs.ports.object_errors import ObjectStoreError, Unreachable
from tests.fake_object_store import FakeObjectStore

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .powercut import Disk
from .test_tier import S3, evict, stored

OLD, NEW = pattern(9000, seed=1), pattern(14_000, seed=2)
FILE, OTHER = f"{REC}/file", f"{REC}/other"
NEVER = 1 << 30
FLUSHED_S = 0.5
"""More than `[catalogue].flush_interval`."""


class Seen(NamedTuple):
    """What a name leads to after the death."""

    content: bytes | None
    """None: to nothing."""
    state: str | None = None


async def seen(fs: Filesystem, path: str) -> Seen:
    """Look at a name."""
    if not await fs.exists(path):
        return Seen(None)
    return Seen(await fs.read(path), await fs.state(path))


# --- the calls -----------------------------------------------------------------------------------------------------


async def write(fs: Filesystem) -> None:
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, NEW)


async def fsync(fs: Filesystem) -> None:
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, NEW)
    await fs.vfs.files.fsync(number)


async def close(fs: Filesystem) -> None:
    await fs.write(FILE, NEW)


async def rename(fs: Filesystem) -> None:
    await fs.rename(OTHER, f"{REC}/renamed")


async def unlink(fs: Filesystem) -> None:
    await fs.unlink(OTHER)


async def setxattr(fs: Filesystem) -> None:
    await fs.xattrs.set((await fs.node(OTHER)).ino, b"user.a", b"1", OPERATOR)


async def quota(fs: Filesystem) -> None:
    await fs.answers()["quota_set"]({"user": "5", "max_files": "77"})


CALLS: dict[str, Callable[[Filesystem], Awaitable[None]]] = {
    "write": write, "fsync": fsync, "close": close, "rename": rename, "unlink": unlink, "setxattr": setxattr,
    "quota set": quota,
}  # fmt: skip
calls = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.replace(" ", "-"))


async def prepared(fs: Filesystem) -> None:
    """A committed file, and nothing on its way."""
    await fs.write(OTHER, OLD)
    await fs.drain()
    await fs.vfs.behind.durable()


async def holds(fs: Filesystem, call: str) -> None:
    """Everything that the call promised, where the daemon's work was what ended."""
    await fs.drain()
    match call:
        case "write" | "fsync":
            assert await seen(fs, FILE) == Seen(NEW, "incomplete")
        case "close":
            assert await seen(fs, FILE) == Seen(NEW, "committed")
        case "rename":
            assert (await seen(fs, OTHER), await seen(fs, f"{REC}/renamed")) == (Seen(None), Seen(OLD, "committed"))
        case "unlink":
            assert await seen(fs, OTHER) == Seen(None)
        case "setxattr":
            assert await fs.xattrs.get((await fs.node(OTHER)).ino, b"user.a") == b"1"
            assert await fs.parts.catalogue.xattrs((await fs.node(OTHER)).ino) == {b"user.a": b"1"}
        case "quota set":
            assert fs.rows("select max_files from account where user = '5'") == [77]
    await fs.assert_consistent(lost=len(fs.leftovers("lost+found")))


# --- the deaths ----------------------------------------------------------------------------------------------------


@calls
async def test_when_the_daemon_dies(fs: Filesystem, call: str) -> None:
    """At once; what may be lost of attributes is what the flush interval covers (7.4)."""
    fs.checked_at_end = False
    await prepared(fs)
    await CALLS[call](fs)
    if call == "setxattr":
        await trio.sleep(FLUSHED_S)
    await fs.crash()
    await fs.reopen()
    await holds(fs, call)


@pytest.mark.slow
@pytest.mark.parametrize("synced", [False, True], ids=["at-once", "after-fsync-of-the-directory"])
@calls
async def test_when_power_is_lost(place: Path, call: str, *, synced: bool) -> None:
    """The old or the new, never a mixture that is called committed; what was synced, the new."""
    for step, kept in enumerate(("none", "some", "all")):
        here = place / kept
        async with filesystem(here / "store", start=False) as fs:
            fs.faults.books_watched = True
            await fs.start()
            await prepared(fs)
            disk = Disk(fs.root, here / "disk")
            disk.attach(fs.faults)
            await CALLS[call](fs)
            if synced:
                await fs.vfs.behind.durable()
            disk.detach(fs.faults)
            await fs.crash()
            disk.cut(torn=step == 1, kept=kept, seed=step)  # type: ignore[arg-type]
            fs.boot = "after the power cut"
            await fs.reopen()
            await fs.drain()
            assert (await seen(fs, FILE)).state in (None, "incomplete")
            if call in ("fsync", "quota set") or (synced and call not in ("write", "close")):
                await holds(fs, call)
            else:
                found = [each for each in (await seen(fs, OTHER), await seen(fs, f"{REC}/renamed")) if each.content]
                assert found == [Seen(OLD, "committed")] or (call == "unlink" and not found)
                await fs.assert_consistent(lost=len(fs.leftovers("lost+found")))


@pytest.mark.usefixtures("any_log")
@calls
async def test_when_the_disk_is_full(fs: Filesystem, call: str) -> None:
    """From the return of the call on, to the last byte; the daemon dies so, and starts when there is room again."""
    fs.checked_at_end = False
    await prepared(fs)
    await CALLS[call](fs)
    if call == "setxattr":
        await trio.sleep(FLUSHED_S)
    fs.faults.fail("apply", OutOfSpace("the disk is full"), times=NEVER)
    for effect in ("pwrite", "create", "mkdir", "symlink", "setxattr"):
        fs.faults.fail(effect, errno.ENOSPC, times=NEVER)
    await trio.sleep(FLUSHED_S)
    with pytest.raises((OSError, OutOfSpace)):
        await fs.write(f"{REC}/more", NEW)
    await fs.crash()
    fs.faults.heal()
    await fs.reopen()
    if await fs.exists(f"{REC}/more"):
        await fs.unlink(f"{REC}/more")
    await holds(fs, call)


# --- with S3 -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def far(place: Path) -> AsyncIterator[Filesystem]:
    """A running file system with a fake S3."""
    async with filesystem(place / "far", start=False, **S3) as made:
        made.objects = FakeObjectStore()
        await made.start()
        yield made


def gone(fs: Filesystem) -> None:
    """S3 answers nothing any more."""
    assert fs.objects is not None
    for operation in ("head", "get_range", "put_file", "copy", "delete", "list", "get_small", "put_small"):
        fs.objects.fail(operation, Unreachable("nobody answers"), times=NEVER)


@pytest.mark.usefixtures("any_log")
@calls
async def test_when_s3_fails(far: Filesystem, call: str) -> None:
    """Nothing of it is asked of S3: it holds as it does without."""
    await far.write(OTHER, OLD)
    await far.drain()
    assert stored(far) == {OTHER: OLD}
    gone(far)
    await CALLS[call](far)
    if call == "setxattr":
        await trio.sleep(FLUSHED_S)
    await far.crash()
    await far.reopen()
    await far.parts.work.draining.drain(uploads=False)
    if call in ("write", "fsync", "close"):
        assert await seen(far, FILE) == Seen(NEW, "committed" if call == "close" else "incomplete")
    elif call in ("rename", "unlink"):
        assert await seen(far, OTHER) == Seen(None)
        assert (await seen(far, f"{REC}/renamed")).content == (OLD if call == "rename" else None)
    elif call == "setxattr":
        assert await far.parts.catalogue.xattrs((await far.node(OTHER)).ino) == {b"user.a": b"1"}
    else:
        assert far.rows("select max_files from account where user = '5'") == [77]
    assert far.objects is not None
    far.objects.heal()
    far.clock.advance(2 * 3600)
    far.tier.journal.wake.set()
    await far.drain()
    whole = {"close": {FILE: NEW, OTHER: OLD}, "rename": {f"{REC}/renamed": OLD}, "unlink": {}}
    assert stored(far) == whole.get(call, {OTHER: OLD})


async def uploaded(fs: Filesystem) -> None:
    """`stored`: S3 has confirmed it."""
    await fs.write(OTHER, OLD)
    await fs.drain()
    assert await fs.state(OTHER) == "stored"


async def evicted(fs: Filesystem) -> None:
    """… and what was here has left."""
    await uploaded(fs)
    await evict(fs, OTHER)


FAR_CALLS = {"upload": uploaded, "evict": evicted}
far_calls = pytest.mark.parametrize("call", FAR_CALLS)


@far_calls
async def test_stored_and_evicted_when_the_daemon_dies(far: Filesystem, call: str) -> None:
    await FAR_CALLS[call](far)
    await far.crash()
    await far.reopen()
    await far.drain()
    assert await far.state(OTHER) == ("stored" if call == "upload" else "evicted")
    assert await far.read(OTHER) == OLD
    assert stored(far) == {OTHER: OLD}


@pytest.mark.slow
@far_calls
@pytest.mark.parametrize("kept", ["none", "some", "all"])
async def test_stored_and_evicted_when_power_is_lost(place: Path, call: str, kept: str) -> None:
    async with filesystem(place / "store", start=False, **S3) as fs:
        fs.objects = FakeObjectStore()
        fs.faults.books_watched = True
        await fs.start()
        await fs.mkdirs(REC)
        await fs.drain()
        disk = Disk(fs.root, place / "disk")
        disk.attach(fs.faults)
        await FAR_CALLS[call](fs)
        disk.detach(fs.faults)
        await fs.crash()
        disk.cut(torn=kept == "some", kept=kept, seed=1)  # type: ignore[arg-type]
        fs.boot = "after the power cut"
        await fs.reopen()
        await fs.drain()
        assert await fs.state(OTHER) in ("stored", "evicted")
        assert await fs.read(OTHER) == OLD
        await fs.drain()
        assert stored(fs) == {OTHER: OLD}


@pytest.mark.usefixtures("any_log")
@far_calls
async def test_stored_and_evicted_when_the_disk_is_full(far: Filesystem, call: str) -> None:
    """What is here is read; what has to be brought needs room, and comes when there is some."""
    await FAR_CALLS[call](far)
    plans = [far.faults.fail(effect, errno.ENOSPC, times=NEVER) for effect in ("pwrite", "create")]
    if call == "upload":
        assert await far.read(OTHER) == OLD
    else:
        far.parts.backing_files.pool.close()
        with pytest.raises((OSError, OutOfSpace, IoFailure)):
            await far.read(OTHER)
    assert any(plan.hits for plan in plans) is (call == "evict")
    far.faults.heal()
    assert await far.read(OTHER) == OLD
    await far.drain()
    assert await far.state(OTHER) == "stored"


@pytest.mark.usefixtures("any_log")
@far_calls
async def test_stored_and_evicted_when_s3_fails(far: Filesystem, call: str) -> None:
    """A copy that is here is served whatever becomes of the object; what only S3 has is EIO until it answers."""
    await FAR_CALLS[call](far)
    gone(far)
    if call == "upload":
        assert await far.read(OTHER) == OLD
    else:
        with pytest.raises((IoFailure, ObjectStoreError)):
            await far.read(OTHER)
    assert far.objects is not None
    far.objects.heal()
    assert await far.read(OTHER) == OLD
