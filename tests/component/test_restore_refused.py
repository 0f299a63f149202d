"""A restore of the catalogue that the disk, or a permission, refuses something: it says so, and goes on later."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pyrage
import pytest
import trio

from recfs.errors import InvalidArgument, OutOfSpace, RecfsError, StoreError
from recfs.rescue.restore import Restore
from recfs.stores import sealing
from recfs.stores.local import LocalStore
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, filesystem
from .faults import EFFECTS
from .test_restore_catalogue import KEEPS, NEW, OLD, aside, backed_up

OF_THE_CATALOGUE = ("apply", "sync", "sqlite-sync")


STRIDE = 8
"""Not every effect is refused, for time's sake; the two errors begin at different ones."""


class Count:
    """How many effects there were."""

    value = 0
    met = ""


@contextmanager
def refused(fs: Filesystem, step: int, number: int) -> Iterator[Count]:
    """The *step*-th effect on the store is refused, by the disk or by SQLite."""
    count, real = Count(), fs.faults.before

    def before(name: str, args: tuple[Any, ...]) -> None:
        if name in EFFECTS:
            count.value += 1
            if count.value == step:
                count.met = name
                if name in OF_THE_CATALOGUE:
                    raise OutOfSpace("catalogue: database or disk is full")
                raise OSError(number, os.strerror(number))
        real(name, args)

    with mock.patch.object(fs.faults, "before", before), fs.faults.installed():
        yield count


async def once(place: Path, step: int, number: int) -> tuple[str, str]:
    """A restore in which one effect is refused; which it was, and what was said."""
    async with filesystem(place, **KEEPS) as fs:
        fs.checked_at_end = False
        for name in ("same", "renamed", "changed"):
            await fs.write(f"{REC}/{name}", OLD)
        await backed_up(fs)
        await fs.rename(f"{REC}/renamed", f"{REC}/other-name")
        await fs.write(f"{REC}/changed", NEW)
        await fs.write(f"{REC}/new", NEW)
        await fs.drain()
        before = await fs.tree()
        await fs.stop()
        restore, said = Restore(fs.config, lambda line: None), ""
        with refused(fs, step, number) as count:
            try:
                await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
            except RecfsError as error:
                said = str(error)
        if said:
            await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
        assert aside(fs) == []
        await fs.reopen()
        await fs.drain()
        assert await fs.tree() == before
        await fs.assert_consistent(trash=len((await fs.answers()["trash_list"]({}))["entries"]))
        return count.met, said


@pytest.mark.usefixtures("any_log")
@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
async def test_whatever_is_refused_is_said_and_the_next_one_goes_on(place: Path, number: int) -> None:
    step, said = 1 if number == errno.ENOSPC else 3, set[str]()
    while True:
        try:
            met, words = await once(place / str(step), step, number)
        except BaseException as error:
            error.add_note(f"effect {step} was refused")
            raise
        if not met:
            break
        said.add(words)
        step += STRIDE
    assert step > 50, "it is not what was meant"
    assert any(os.strerror(number) in words for words in said), said


async def test_a_disk_that_is_full_leaves_the_catalogue_there_is(place: Path) -> None:
    """Where not even the copy of the backup has room."""
    async with filesystem(place / "store", **KEEPS) as fs:
        fs.checked_at_end = False
        await fs.write(f"{REC}/file", OLD)
        await backed_up(fs)
        await fs.write(f"{REC}/new", NEW)
        await fs.drain()
        await fs.stop()
        catalogue = fs.root / ".recfs/catalogue.db"
        before = catalogue.read_bytes()
        restore = Restore(fs.config, lambda line: None)
        with fs.faults.installed():
            fs.faults.fail("fsync", errno.ENOSPC, times=10_000)
            with pytest.raises((StoreError, OutOfSpace), match=r"No space left|room"):
                await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
        fs.faults.heal()
        assert catalogue.read_bytes() == before
        await fs.reopen()
        assert await fs.read(f"{REC}/new") == NEW
        await fs.drain()
        await fs.assert_consistent()


async def test_a_directory_that_may_not_be_written_to_is_named(place: Path) -> None:
    async with filesystem(place / "store", **KEEPS) as fs:
        fs.checked_at_end = False
        await fs.write(f"{REC}/file", OLD)
        await backed_up(fs)
        await fs.stop()
        restore = Restore(fs.config, lambda line: None)
        real = os.mkdir

        def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
            if ".recfs" in os.fsdecode(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            real(path, *args, **kwargs)

        with (
            mock.patch.object(os, "mkdir", mkdir),
            pytest.raises(StoreError, match="Permission denied"),
        ):
            await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
        assert sqlite3.connect(fs.root / ".recfs/catalogue.db").execute("pragma integrity_check").fetchone() == ("ok",)
        await fs.reopen()
        assert await fs.read(f"{REC}/file") == OLD
        await fs.assert_consistent()


@pytest.mark.usefixtures("any_log")
async def test_who_waits_for_the_key_keeps_nobody_from_the_store(place: Path, tmp_path: Path) -> None:
    """A FIFO that nobody has written to yet."""
    key, fifo = pyrage.x25519.Identity.generate(), tmp_path / "key"
    os.mkfifo(fifo)
    async with filesystem(place / "store", backup={"recipients": [str(key.to_public())]}, **KEEPS) as fs:
        await fs.write(f"{REC}/file", OLD)
        await backed_up(fs)
        await fs.stop()
        restore = Restore(fs.config, lambda line: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, lambda: restore.run(None, fifo, forget=False))
            with trio.fail_after(GUARD_S):
                fd = await trio.to_thread.run_sync(os.open, fifo, os.O_WRONLY)  # when somebody reads
            with os.fdopen(fd, "w") as writer:
                store = LocalStore(fs.config.root)
                store.open()
                store.close()
                writer.write(str(key))
        await fs.reopen()
        assert await fs.read(f"{REC}/file") == OLD


@pytest.mark.usefixtures("any_log")
async def test_a_catalogue_that_nobody_writes_into_a_pipe_is_waited_for_no_longer_than_told(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device is none at all: it may have no end. What somebody writes into a pipe is one."""
    os.mkfifo(tmp_path / "fifo")
    async with filesystem(place / "store", **KEEPS) as fs:
        await fs.write(f"{REC}/file", OLD)
        made = await backed_up(fs)
        await fs.stop()
        restore = Restore(fs.config, lambda line: None)

        def run(path: str) -> Any:
            return trio.to_thread.run_sync(lambda: restore.run(path, None, forget=False), abandon_on_cancel=True)

        with trio.fail_after(GUARD_S):
            with monkeypatch.context() as patch:
                patch.setattr(sealing, "WRITER_S", 0.01)
                with pytest.raises(InvalidArgument, match="nobody has written"):
                    await run(f"{tmp_path}/fifo")
            with pytest.raises(InvalidArgument, match="is neither a file nor a pipe"):
                await run("/dev/null")
            async with trio.open_nursery() as nursery:
                data = (Path(made.place) / made.header.name).read_bytes()
                nursery.start_soon(trio.to_thread.run_sync, lambda: (tmp_path / "fifo").write_bytes(data))
                await run(f"{tmp_path}/fifo")
        await fs.reopen()
        assert await fs.read(f"{REC}/file") == OLD
