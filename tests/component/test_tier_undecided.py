"""Uploads and copies that S3 has carried out while the answer was lost or the daemon died: whatever their files have
become meanwhile, the rows are put right, and nothing is said to have been done behind recfs's back.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.fs.attributes import Changes
from recfs.ports.object_errors import Unreachable
from recfs.ports.objects import ObjectInfo
from recfs.tier.queue.unanswered import KEPT_S

from .build import OPERATOR, REC, Filesystem, pattern
from .far import ask, bucket, until
from .test_tier import FILE, MIB, evict, stored, tiered

MOVED, OTHER = f"{REC}/moved", f"{REC}/other"
OLD, NEW = b"old", b"new bytes"
pytestmark = pytest.mark.may_log("the answer was lost|next try in|what lies under .* is not its object")


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One file that S3 has, on a server where each copy has an etag of its own."""
    made = tiered(nursery, place)
    made.checked_at_end = False
    await made.start()
    await made.write(FILE, OLD)
    await made.drain()
    _own_etags(made)
    yield made
    await made.stop()


def _own_etags(fs: Filesystem) -> None:
    objects, copy = bucket(fs), bucket(fs).copy

    @functools.wraps(copy)
    def copied(src: str, dst: str, *args: Any, **more: Any) -> ObjectInfo:
        before = objects._objects.get(dst)
        try:
            info = copy(src, dst, *args, **more)
        finally:
            if (made := objects._objects.get(dst)) is not None and made is not before:
                made.etag = f"{made.modified_ns:032x}"
        return replace(info, etag=objects._objects[dst].etag)

    objects.copy = copied  # type: ignore[method-assign]


class Last:
    """S3 carries the next request of a kind out, and nobody is there any more when it answers."""

    def __init__(self, fs: Filesystem, operation: str) -> None:
        self._fs, self._operation = fs, operation
        self._plain = getattr(bucket(fs), operation)
        self._done, self._answer = threading.Event(), threading.Event()
        setattr(bucket(fs), operation, self._call)

    def _call(self, *args: Any, **more: Any) -> Any:
        setattr(bucket(self._fs), self._operation, self._plain)
        answer = self._plain(*args, **more)
        self._done.set()
        assert self._answer.wait(20)
        return answer

    async def carried_out(self) -> None:
        """Until S3 has done it."""
        await until(self._done.is_set)

    def answer(self) -> None:
        """It is heard after all."""
        self._answer.set()

    async def die(self) -> None:
        """What is in the catalogue by now is all that is left; the next daemon starts."""
        await self.carried_out()
        self._fs.faults.die()
        self._answer.set()
        await self._fs.crash()
        await self._fs.reopen()


async def settled(fs: Filesystem) -> None:
    """Nothing is to be done any more, as soon as nothing can come late."""
    with trio.fail_after(60):
        while fs.rows("select count(*) from journal") != [0]:
            await ask(fs, "queue_retry", all=True)
            fs.clock.advance(KEPT_S + 1)
            fs.tier.journal.wake.set()
            await fs.parts.behind.flush()
            await trio.sleep(0.1)


async def row_and_object(fs: Filesystem) -> None:
    """What rows say of objects is so, and there are no others."""
    await settled(fs)
    await fs.parts.behind.flush()
    rows = {key: (etag, size) for key, etag, size in fs.rows("select key, etag, size_bytes from object")}
    assert rows == {key: (bucket(fs)._objects[key].etag, len(data)) for key, data in stored(fs).items()}


Act = Callable[[Filesystem], Awaitable[None]]


async def cut_off(fs: Filesystem, path: str = FILE) -> None:
    """It is opened again and written to; nobody closes it."""
    number = await fs.open(path, os.O_WRONLY)
    await fs.vfs.files.write(number, 0, b"cut")
    await fs.parts.behind.durable()


async def rename(fs: Filesystem) -> None:
    await fs.rename(FILE, MOVED)


async def rename_cut_off(fs: Filesystem) -> None:
    await rename(fs)
    await cut_off(fs, MOVED)


async def remove(fs: Filesystem) -> None:
    await fs.unlink(FILE)


async def nothing(fs: Filesystem) -> None:
    pass


ACTS: list[Act] = [cut_off, rename_cut_off, rename, remove, nothing]
acts = pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)


@pytest.mark.parametrize("size", [9, 9 * MIB], ids=["one-put", "parts"])
@acts
async def test_an_upload_that_was_under_way_at_a_death(fs: Filesystem, act: Act, size: int) -> None:
    """Of a file that became another meanwhile, and is no whole one any more after the start, perhaps."""
    last = Last(fs, "put_file" if size < MIB else "finish_multipart")
    await fs.write(FILE, pattern(size))
    await last.carried_out()
    await act(fs)
    await fs.parts.behind.durable()
    assert stored(fs) == {FILE: pattern(size)}
    await last.die()
    await row_and_object(fs)


@acts
@pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
async def test_an_upload_without_an_answer(fs: Filesystem, act: Act, dies: bool) -> None:
    bucket(fs).fail("put_file", Unreachable("the answer was lost"), times=1000, after=True)
    await fs.write(FILE, NEW)
    await until(lambda: any(row.attempts for row in fs.tier.journal.rows.values()))
    await act(fs)
    await fs.parts.behind.durable()
    if dies:
        await fs.crash()
    bucket(fs).heal()
    if dies:
        await fs.reopen()
    else:
        for number in list(fs.vfs.files.handles):
            await fs.close(number)
    await row_and_object(fs)


@pytest.mark.parametrize("again", [False, True], ids=["", "changed again"])
@pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
async def test_the_copy_of_its_attributes_without_an_answer(fs: Filesystem, dies: bool, again: bool) -> None:
    """S3 alone has the file's bytes, under an etag that nobody was told."""
    found = await evict(fs)
    last = Last(fs, "copy") if dies else None
    if not dies:
        bucket(fs).fail("copy", Unreachable("the answer was lost"), after=True)
    await fs.vfs.setattr(found.ino, Changes(mode=0o600), OPERATOR)
    await fs.parts.behind.durable()
    [row] = fs.tier.journal.rows
    before = bucket(fs)._objects[FILE].etag
    fs.tier.journal.retry(row)
    if last is not None:
        await last.die()
    await until(lambda: bucket(fs)._objects[FILE].etag != before)
    if again:
        await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mode=0o640), OPERATOR)
    assert await fs.read(FILE) == OLD
    await row_and_object(fs)
    info = bucket(fs).head(FILE)
    assert info is not None
    assert info.metadata["mode"] == ("0640" if again else "0600")


async def test_a_reader_knows_an_object_again_whose_row_nobody_put_right(fs: Filesystem) -> None:
    """There is no work left that would tell of it: the checksum does that recfs put there."""
    found = await evict(fs)
    bucket(fs)._objects[FILE].etag = "another"
    assert await fs.read(FILE) == OLD
    assert found.object is not None
    assert found.object.etag == "another"
    assert found.state in (State.STORED, State.FETCHING)


async def test_what_was_stored_too_late_goes_when_a_death_cuts_the_next_version_off(fs: Filesystem) -> None:
    """It was to be replaced; now nothing comes that would."""
    last = Last(fs, "put_file")
    await fs.write(FILE, NEW)
    await last.carried_out()
    await cut_off(fs)
    last.answer()
    await until(lambda: fs.rows("select count(*) from journal where kind = 'delete'") == [1])
    await fs.crash()
    await fs.reopen()
    assert await fs.state(FILE) == "incomplete"
    await until(lambda: stored(fs) == {})
    await row_and_object(fs)
