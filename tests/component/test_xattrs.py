"""Extended attributes take room: bounded for each file, held back by the reserve, and not all kept in memory."""

from __future__ import annotations

import pytest

from recfs.errors import OutOfSpace
from recfs.fs import xattrs
from recfs.fs.xattrs import FOLDER_MAX_BYTES, TOTAL_MAX_BYTES, Xattrs

from .build import OPERATOR, REC, Filesystem


@pytest.fixture
async def kept(fs: Filesystem) -> Xattrs:
    for number in range(8):
        await fs.write(f"{REC}/{number}", b"bytes")
    await fs.drain()
    return Xattrs(fs.vfs, str(fs.root))


async def ino_of(fs: Filesystem, number: int) -> int:
    return (await fs.node(f"{REC}/{number}")).ino


async def test_all_attributes_of_a_file_have_a_bound(fs: Filesystem, kept: Xattrs) -> None:
    ino = await ino_of(fs, 0)
    await kept.set(ino, b"user.a", bytes(65536), OPERATOR)
    await kept.set(ino, b"user.b", bytes(65536 - 12), OPERATOR)
    with pytest.raises(OutOfSpace, match=str(TOTAL_MAX_BYTES)):
        await kept.set(ino, b"user.c", b"", OPERATOR)
    with pytest.raises(OutOfSpace):
        await kept.set(ino, b"user.b", bytes(65536 - 11), OPERATOR)
    assert await kept.list(ino) == [b"user.a", b"user.b"]
    await kept.set(ino, b"user.b", b"short", OPERATOR)
    await kept.set(ino, b"user.c", b"fits now", OPERATOR)
    await kept.set(await ino_of(fs, 1), b"user.a", bytes(65536), OPERATOR)  # another file has its own


async def test_those_of_a_directory_take_what_they_take_on_ext4(fs: Filesystem, kept: Xattrs) -> None:
    """Directories count in no limit."""
    ino = (await fs.vfs.at(REC)).ino
    await kept.set(ino, b"user.a", bytes(FOLDER_MAX_BYTES - 6), OPERATOR)
    with pytest.raises(OutOfSpace, match=str(FOLDER_MAX_BYTES)):
        await kept.set(ino, b"user.b", b"", OPERATOR)


async def test_attributes_do_not_use_up_the_reserve(fs: Filesystem, kept: Xattrs) -> None:
    ino = await ino_of(fs, 0)
    await kept.set(ino, b"user.a", b"1234", OPERATOR)
    fs.vfs.files.space.min_free = 1 << 62
    fs.vfs.files.space.forget()
    with pytest.raises(OutOfSpace, match="min_free"):
        await kept.set(ino, b"user.b", b"", OPERATOR)
    await kept.set(ino, b"user.a", b"123", OPERATOR)
    await kept.remove(ino, b"user.a", OPERATOR)
    assert await kept.list(ino) == []


async def test_attributes_leave_memory_and_come_back(
    fs: Filesystem, kept: Xattrs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xattrs, "LOADED_BYTES", 3000)
    for number in range(8):
        await kept.set(await ino_of(fs, number), b"user.a", bytes([number]) * 1000, OPERATOR)
        # Those that the catalogue does not have yet stay.
        assert (await fs.node(f"{REC}/{number}")).xattrs is not None
    await fs.parts.behind.flush()
    for number in (0, 1, 2, 3, 4, 5, 6, 7, 0, 1):
        assert await kept.get(await ino_of(fs, number), b"user.a") == bytes([number]) * 1000
        in_memory = [(await fs.node(f"{REC}/{each}")).xattrs for each in range(8)]
        assert sum(bool(each) for each in in_memory) <= 2
    await kept.set(await ino_of(fs, 0), b"user.b", b"2", OPERATOR)
    await fs.reopen()
    again = Xattrs(fs.vfs, str(fs.root))
    assert await again.list(await ino_of(fs, 0)) == [b"user.a", b"user.b"]
    assert await again.get(await ino_of(fs, 7), b"user.a") == b"\x07" * 1000


async def test_attributes_of_removed_files_do_not_fill_the_memory(
    fs: Filesystem, kept: Xattrs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel knows a removed file as long as somebody has so much as a path to it (O_PATH)."""
    monkeypatch.setattr(xattrs, "LOADED_BYTES", 3000)
    known = []
    for number in range(8):
        ino = await ino_of(fs, number)
        await kept.set(ino, b"user.a", b"x" * 1000, OPERATOR)
        node = await fs.node(f"{REC}/{number}")
        node.kernel_refs = 1
        known.append(node)
        await fs.unlink(f"{REC}/{number}")
    assert sum(bool(node.xattrs) for node in known) <= 3
    assert known[-1].xattrs == {b"user.a": b"x" * 1000}
