"""What tests of late answers have in common: calls that S3 takes without an answer, and carries out when told to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.core.model import State
from recfs.ports.object_errors import ObjectStoreError, Stalled
from recfs.ports.objects import ObjectInfo
from recfs.tier.queue.reasons import NOT_YET
from recfs.tier.queue.unsent import Why

from .build import Filesystem, until
from .far import OTHER, ticking
from .test_tier import FILE, evict, node, stored, tiered

if TYPE_CHECKING:
    import trio


@pytest.fixture(params=["fails", "is tried again"])
async def fs(
    request: pytest.FixtureRequest, nursery: trio.Nursery, place: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Filesystem]:
    """One whose call without an answer fails; or is made again at once, as with a real server, and succeeds."""
    made = tiered(nursery, place)
    fake = made.objects
    if request.param == "is tried again":
        made.objects = None
        monkeypatch.setattr("recfs.stores.s3.store.connect", lambda _: fake)
    async with ticking(made, times=10, stands=lambda: bool(watched(made))):
        made.objects = fake
        yield made


def watched(fs: Filesystem) -> list[int]:
    """The uploads that S3 has confirmed, and that a look has found there once."""
    journal = fs.tier.journal if fs.parts is not None else None
    return [each for each in journal.rows if journal.unsent.why_aside(each) is Why.WATCHED] if journal else []


class Late:
    """Takes calls of one kind without an answer, until told to carry them out."""

    def __init__(self, fs: Filesystem, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
        assert fs.objects is not None
        self._objects = fs.objects
        self._plain: Callable[..., Any] = getattr(fs.objects, operation)
        self._taken: list[tuple[bytes, tuple[Any, ...]]] = []
        self.takes = True
        monkeypatch.setattr(fs.objects, operation, getattr(self, operation))

    def put_file(self, fd: int, size: int, *args: Any, **more: Any) -> ObjectInfo:
        """Of a file's bytes as they are now."""
        if not self.takes:
            return self._plain(fd, size, *args, **more)  # type: ignore[no-any-return]
        self._taken.append((os.pread(fd, size, 0), args))
        raise Stalled("nothing came")

    def delete(self, keys: Iterable[str]) -> Sequence[tuple[str, ObjectStoreError]]:
        """Of objects."""
        keys = list(keys)
        if not self.takes:
            return self._plain(keys)  # type: ignore[no-any-return]
        self._taken.append((b"", (keys,)))
        raise Stalled("nothing came")

    def copy(self, *args: Any, **more: Any) -> ObjectInfo:
        """Of an object."""
        if not self.takes:
            return self._plain(*args, **more)  # type: ignore[no-any-return]
        self._taken.append((b"", args))
        raise Stalled("nothing came")

    async def taken(self) -> None:
        """Until there is such a call; the next ones are answered."""
        await until(lambda: bool(self._taken))
        self.takes = False

    def arrive(self, tmp_path: Path) -> None:
        """Carry them out."""
        for data, args in self._taken:
            if self._plain.__name__ == "put_file":
                (tmp_path / "late").write_bytes(data)
                with open(tmp_path / "late", "rb") as file:
                    self._plain(file.fileno(), len(data), *args)
            else:
                self._plain(*args)


async def stored_once(fs: Filesystem, key: str, data: bytes) -> None:
    """Until S3 has taken these bytes."""
    await until(lambda: stored(fs).get(key) == data)


async def not_replaced(fs: Filesystem, late: Late, tmp_path: Path) -> None:
    """FILE does not count as stored while something may come late, and has the new bytes when it has come."""
    assert (await node(fs, FILE)).state is not State.STORED
    late.arrive(tmp_path)
    await fs.drain()
    assert stored(fs) == {FILE: b"new"}


async def restarted(fs: Filesystem, how: str) -> None:
    """The next daemon."""
    await (fs.crash() if how == "killed" else fs.stop())
    await fs.reopen()


async def drained(fs: Filesystem) -> None:
    """Until S3 has everything, and a look has found it there."""
    await fs.drain()
    await until(lambda: watched(fs) == list(fs.tier.journal.rows))


async def stored_at_last(fs: Filesystem, path: str = FILE) -> None:
    """Until the file counts as stored."""
    found = await node(fs, path)
    await until(lambda: found.state is State.STORED)


async def waiting_move(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> Late:
    """Rename a file that only S3 has to a name whose upload was left unanswered, until that is seen."""
    await fs.write(OTHER, b"all there is")
    await fs.drain()
    await evict(fs, OTHER)
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.rename(OTHER, FILE)
    await until(lambda: NOT_YET in [row.error for row in fs.tier.journal.rows.values()])
    return late
