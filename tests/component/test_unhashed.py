"""What `recfs rebuild --checksums later` leaves unread: hashed in the background, and right to use meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import trio

from recfs.catalogue.rows import UNHASHED
from recfs.core.model import State
from recfs.core.upkeep.rebuilding import Checksums
from recfs.disk.commit import unhashed
from recfs.disk.commit.committer import Committer
from recfs.disk.commit.unhashed import Unhashed
from recfs.ports.rows import Promise

from .build import REC, Filesystem, filesystem, pattern, until
from .test_rebuild import lose, rebuild

FILES = [f"{REC}/{number}" for number in range(40)]
SHA256 = b"user.recfs.sha256"


def content(path: str) -> bytes:
    """Bytes that differ from file to file."""
    return pattern(3000 + len(path), seed=int(path.rsplit("/", 1)[1]))


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """A store whose catalogue was made anew, and which nobody has mounted since."""
    async with filesystem(place / "root") as made:
        for path in FILES:
            await made.write(path, content(path))
        await made.drain()
        await made.stop()
        lose(made)
        found = await rebuild(made, checksums=Checksums.LATER)
        assert (found.unsealed, found.hashed_files) == (len(FILES), 0)
        yield made


@contextmanager
def nobody_hashes() -> Iterator[None]:
    """The background waits for ever."""

    async def sleep(self: Unhashed) -> None:
        await trio.sleep_forever()

    with mock.patch.object(Unhashed, "run", sleep):
        yield


def left(fs: Filesystem) -> list[int]:
    """Rows that are still to be hashed in the background."""
    query = "select ino from node join placement using (ino) where state = 'sealing' and promised & ?"
    return fs.rows(query, Promise.UNHASHED)


async def assert_committed(fs: Filesystem, path: str, data: bytes) -> None:
    """It has these bytes, and their checksum."""
    node = await fs.node(path)
    assert (node.state, node.sha256) == (State.COMMITTED, hashlib.sha256(data).digest())
    assert await fs.read(path) == data


async def test_a_start_loads_none_of_them(fs: Filesystem) -> None:
    await fs.start(services=False)
    assert not fs.parts.recovered.resealed
    assert fs.parts.committer.depth == 0
    assert len(fs.parts.tree.nodes) < len(FILES)
    assert len(left(fs)) == len(FILES)


async def test_a_page_of_them_is_read_and_no_more(fs: Filesystem) -> None:
    await fs.start(services=False)
    plan = str(fs.rows(f"explain query plan select node.ino {UNHASHED} and node.ino > 0 order by node.ino limit 5"))
    assert "node_unsettled (ino>?)" in plan
    assert "SCAN" not in plan
    assert "TEMP" not in plan


async def test_they_are_all_committed_in_the_background(fs: Filesystem) -> None:
    await fs.start()
    await until(lambda: fs.parts.unhashed.over)
    assert not left(fs)
    for path in FILES:
        await assert_committed(fs, path, content(path))
    await fs.drain()
    await fs.assert_consistent()


async def test_few_of_them_are_under_way_at_a_time(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unhashed, "PAGE", 4)
    depths: list[int] = []
    want = Committer.want

    def noting(self: Committer, ino: int) -> None:
        want(self, ino)
        depths.append(self.depth)

    with mock.patch.object(Committer, "want", noting):
        await fs.start()
        await until(lambda: fs.parts.unhashed.over)
    assert len(depths) == len(FILES)
    assert max(depths) == 4


async def test_a_window_ends_with_the_bytes_it_may_have(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unhashed, "WINDOW_BYTES", 1)
    depths: list[int] = []
    want = Committer.want

    def noting(self: Committer, ino: int) -> None:
        want(self, ino)
        depths.append(self.depth)

    with mock.patch.object(Committer, "want", noting):
        await fs.start()
        await until(lambda: fs.parts.unhashed.over)
    assert (len(depths), max(depths)) == (len(FILES), 1)


async def test_what_happens_to_them_meanwhile_is_right(fs: Filesystem) -> None:
    with nobody_hashes():
        await fs.start()
        assert await fs.read(FILES[0]) == content(FILES[0])
        assert await fs.state(FILES[0]) == State.SEALING
        await fs.rename(FILES[1], f"{REC}/renamed")
        await fs.unlink(FILES[2])
        await fs.write(FILES[3], b"other bytes")
        await fs.write(FILES[4], b"and more", append=True)
        await fs.rename(FILES[5], FILES[6])
        number = await fs.open(FILES[7], os.O_RDWR)  # and nothing is written
        await fs.close(number)
        await until(lambda: not fs.parts.committer.depth and not fs.parts.publisher.depth)
        assert await fs.read(f"{REC}/renamed") == content(FILES[1])
        await assert_committed(fs, FILES[3], b"other bytes")
        await assert_committed(fs, FILES[4], content(FILES[4]) + b"and more")
        assert await fs.state(FILES[7]) == State.SEALING
    await fs.crash()
    fs.boot = "after a power cut"
    await fs.reopen()
    assert not fs.parts.recovered.incomplete
    await fs.drain()
    await assert_committed(fs, f"{REC}/renamed", content(FILES[1]))
    await assert_committed(fs, FILES[6], content(FILES[5]))
    assert not await fs.exists(FILES[2])
    for path in FILES[7:]:
        await assert_committed(fs, path, content(path))
    await fs.assert_consistent()


async def test_who_asks_for_a_checksum_has_that_file_hashed_at_once(fs: Filesystem) -> None:
    with nobody_hashes():
        await fs.start()
        node = await fs.node(FILES[9])
        expected = hashlib.sha256(content(FILES[9])).hexdigest().encode()
        assert await fs.xattrs.get(node.ino, SHA256) == expected
        assert len(left(fs)) == len(FILES) - 1
        assert await fs.state(FILES[10]) == State.SEALING


async def test_a_power_cut_makes_none_of_them_incomplete(fs: Filesystem) -> None:
    with nobody_hashes():
        await fs.start()
        await fs.rename(FILES[0], f"{REC}/renamed")
        await fs.crash()
        fs.boot = "after a power cut"
        await fs.reopen()
        assert not fs.parts.recovered.incomplete
        assert await fs.state(FILES[1]) == State.SEALING
        assert await fs.state(f"{REC}/renamed") == State.SEALING
        assert fs.leftovers("staging") == []
    await fs.reopen()
    await fs.drain()
    for path in FILES[1:]:
        await assert_committed(fs, path, content(path))
    await fs.assert_consistent()


@pytest.mark.may_log("No such file|is gone|not there")
async def test_one_that_cannot_be_read_holds_up_nothing(fs: Filesystem) -> None:
    (fs.root / FILES[20]).unlink()
    await fs.start()
    await until(lambda: fs.parts.unhashed.over)
    assert len(left(fs)) == 1
    assert fs.parts.unhashed.as_json() is not None
    assert any(FILES[20] in str(each["path"]) for each in fs.parts.problems.as_json())
    await fs.write(f"{REC}/new", b"new")
    await until(lambda: fs.parts.committer.depth == fs.parts.committer.failing)
    await assert_committed(fs, f"{REC}/new", b"new")
    (fs.root / FILES[20]).write_bytes(content(FILES[20]))
    await until(lambda: not left(fs))
    await assert_committed(fs, FILES[20], content(FILES[20]))


async def test_they_yield_while_somebody_writes(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unhashed, "PAGE", 4)
    monkeypatch.setattr(unhashed, "YIELD_SHARE", 1e9)
    monkeypatch.setattr(unhashed, "MOST_YIELD_S", 1000.0)
    with nobody_hashes():
        await fs.start()
        number = await fs.open(f"{REC}/written", os.O_CREAT | os.O_WRONLY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.parts.unhashed.run)
        await until(lambda: (fs.parts.unhashed.as_json() or {}).get("doing") == "yields to others")
        assert len(left(fs)) == len(FILES) - 4
        await fs.close(number)
        await fs.drain()  # who waits is not kept waiting by that
        assert not left(fs)
        nursery.cancel_scope.cancel()


async def test_status_tells_how_many_are_left(fs: Filesystem) -> None:
    with nobody_hashes():
        await fs.start()
        reports = fs.parts.reports
        size = sum(len(content(path)) for path in FILES)
        assert await reports.ask(lambda snapshot: snapshot.unhashed()) == (len(FILES), size)
    await fs.reopen()
    await fs.drain()
    assert await fs.parts.reports.ask(lambda snapshot: snapshot.unhashed()) == (0, 0)
    assert fs.parts.unhashed.as_json() is None


async def test_memory_does_not_grow_with_their_number(fs: Filesystem) -> None:
    with nobody_hashes():
        await fs.start()
        memory = fs.parts.tree.memory
        for path in FILES:
            await fs.node(path)
        memory.cached_inodes = 10
        for node in fs.parts.tree.nodes.values():
            node.kernel_refs = 0
        del node
        memory.shrink()
        assert len(fs.parts.tree.nodes) < len(FILES)
