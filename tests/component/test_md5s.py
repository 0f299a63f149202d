"""A md5 that nobody has made yet is made when somebody needs it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recfs.core.model import State
from recfs.disk.commit import digests
from recfs.disk.commit.digests import Pass, Source
from recfs.disk.commit.small import digest_files
from recfs.errors import IoFailure, TryAgain
from recfs.state import waits
from recfs.stores.local import LocalStore

from .build import REC, Filesystem, pattern, until
from .test_rebuild import lose, rebuild
from .test_tier import tiered
from .test_verify import flip

if TYPE_CHECKING:
    import trio

FILE, LARGE = f"{REC}/file", f"{REC}/large"
MD5 = b"user.recfs.md5"
CONTENT = {FILE: pattern(70_000), LARGE: pattern(3 << 20, seed=1)}


def md5_of(path: str) -> bytes:
    return hashlib.md5(CONTENT[path], usedforsecurity=False).digest()


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A store whose catalogue was made anew: the files have a sha256. No rule wants them in S3."""
    made = tiered(nursery, place / "root", route=[])
    await made.start()
    await made.mkdirs(REC)
    for path, content in CONTENT.items():
        await made.write(path, content)
    await made.drain()
    await made.stop()
    lose(made)
    assert (await rebuild(made)).hashed_files == len(CONTENT)
    yield made
    await made.stop()


async def test_a_rebuild_makes_none(fs: Filesystem) -> None:
    await fs.start()
    for path, content in CONTENT.items():
        node = await fs.node(path)
        assert (node.state, node.md5) == (State.COMMITTED, None)
        assert node.sha256 == hashlib.sha256(content).digest()


@pytest.mark.parametrize("path", CONTENT)
async def test_who_asks_has_it_made_and_kept(fs: Filesystem, path: str) -> None:
    await fs.start()
    node = await fs.node(path)
    assert await fs.xattrs.get(node.ino, MD5) == md5_of(path).hex().encode()
    await fs.reopen()
    assert (await fs.node(path)).md5 == md5_of(path)
    await fs.assert_consistent()


@pytest.mark.may_log("told to try again")
async def test_a_reader_that_gave_up_finds_it_made(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    await fs.start()
    node = await fs.node(LARGE)
    monkeypatch.setattr(waits, "LIMIT_S", 0.0)
    with pytest.raises(TryAgain):
        await fs.xattrs.get(node.ino, MD5)
    await until(lambda: node.md5 == md5_of(LARGE))


@pytest.mark.parametrize("path", CONTENT)
async def test_of_bytes_that_went_bad_there_is_none(fs: Filesystem, path: str) -> None:
    flip(fs.root / path)
    await fs.start()
    node = await fs.node(path)
    with pytest.raises(IoFailure, match="not those that were committed"):
        await fs.xattrs.get(node.ino, MD5)
    assert node.md5 is None


async def test_what_goes_to_s3_has_it(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place / "root")
    await fs.start()
    await fs.mkdirs(REC)
    await fs.drain()
    await fs.stop()
    lose(fs)
    assert fs.objects is not None
    for path, content in CONTENT.items():
        (fs.root / path).write_bytes(content)
    assert (await rebuild(fs)).queued == len(CONTENT)
    await fs.start()
    await fs.drain()
    for path in CONTENT:
        node = await fs.node(path)
        assert (node.state, node.md5) == (State.STORED, md5_of(path))
        info = fs.objects.head(path)
        assert info is not None
        assert info.md5 == md5_of(path)
    await fs.assert_consistent()
    await fs.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    made = LocalStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    made.open()
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 10, 3 << 20, 9 << 20])
def test_a_pass_without_it(store: LocalStore, size: int) -> None:
    content = pattern(size)
    (store.root / "file").write_bytes(content)
    source = Source(os.fsencode(store.root / "file"), md5=False)
    expected = hashlib.sha256(content).digest()
    found = Pass(source, size).run(store, 10.0, lambda: False)
    assert found is not None
    (small,) = digest_files([source], store)
    for each in (found, small):
        assert (each.sha256, each.md5, each.size_bytes, each.error) == (expected, None, size, None)


def test_zeros_known_without_it_are_no_help_to_who_wants_it(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "ZEROS_STEP_BYTES", 2 << 20)
    monkeypatch.setattr(digests, "_zeros", {})
    monkeypatch.setattr(digests, "_zeros_without", {})
    with (store.root / "holes").open("wb") as file:
        file.truncate(9 << 20)
    path = os.fsencode(store.root / "holes")
    for wanted in (False, True, False):
        found = Pass(Source(path, md5=wanted), 9 << 20).run(store, 10.0, lambda: False)
        assert found is not None
        assert found.sha256 == hashlib.sha256(bytes(9 << 20)).digest()
        assert found.md5 == (hashlib.md5(bytes(9 << 20), usedforsecurity=False).digest() if wanted else None)
