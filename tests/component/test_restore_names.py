"""A restored catalogue, and files that have had each other's names since: what is known of each follows its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recfs.fs.recovery import comparison

from .build import REC, Filesystem
from .test_restore_catalogue import attribute, backed_up, fs, note, restored

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["fs"]

pytestmark = pytest.mark.usefixtures("any_log")


async def made(fs: Filesystem, monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> dict[str, int]:
    """Files that are told apart by what is in them and by an attribute, in a backup; their inode numbers."""
    monkeypatch.setattr(comparison, "TICK_NS", 0)  # what was written in the second before the backup is as it was
    for name in names:
        await fs.write(f"{REC}/{name}", b"of " + name.encode())
        await note(fs, f"{REC}/{name}", name.encode())
    inos = {name: (await fs.node(f"{REC}/{name}")).ino for name in names}
    await backed_up(fs)
    return inos


async def is_what_was(fs: Filesystem, inos: dict[str, int], **now: str) -> None:
    """Each file, by the name that it has now, is the one that had that other name, with all that is known of it."""
    for name, was in now.items():
        path = f"{REC}/{name}"
        assert await fs.read(path) == b"of " + was.encode()
        assert (await fs.node(path)).ino == inos[was], name
        assert await attribute(fs, path) == was.encode()


async def test_a_name_that_a_new_file_has_by_now(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original is put aside, and something made from it takes its name."""
    inos = await made(fs, monkeypatch, ["video"])
    await fs.rename(f"{REC}/video", f"{REC}/original")
    await fs.write(f"{REC}/video", b"made from it")
    await fs.drain()
    found = await restored(fs)
    assert found["moved"] == [f"{REC}/video -> {REC}/original"]
    assert found["found"] == [f"{REC}/video"]
    assert found["taken"] == found["gone"] == found["lost"] == []
    await is_what_was(fs, inos, original="video")
    assert await fs.read(f"{REC}/video") == b"made from it"
    assert (await fs.node(f"{REC}/video")).ino not in inos.values()


async def test_files_that_were_rotated(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """As logs are: each takes the name of the one before it, and the first is new."""
    inos = await made(fs, monkeypatch, ["a", "b", "c"])
    for before, after in (("b", "c"), ("a", "b")):
        await fs.rename(f"{REC}/{before}", f"{REC}/{after}")
    await fs.write(f"{REC}/a", b"new")
    await fs.drain()
    found = await restored(fs)
    assert sorted(found["moved"]) == [f"{REC}/a -> {REC}/b", f"{REC}/b -> {REC}/c"]
    assert found["taken"] == found["gone"] == found["lost"] == []
    assert found["trashed"] == [f"{REC}/c"]
    await is_what_was(fs, inos, b="a", c="b")
    assert await fs.read(f"{REC}/a") == b"new"


@pytest.mark.parametrize("ring", ["ab", "abc"])
async def test_files_that_have_changed_places(fs: Filesystem, monkeypatch: pytest.MonkeyPatch, ring: str) -> None:
    """Two by an exchange, three by way of a fourth name."""
    inos = await made(fs, monkeypatch, list(ring))
    await fs.rename(f"{REC}/{ring[-1]}", f"{REC}/held")
    for before, after in reversed(list(zip(ring[:-1], ring[1:], strict=True))):
        await fs.rename(f"{REC}/{before}", f"{REC}/{after}")
    await fs.rename(f"{REC}/held", f"{REC}/{ring[0]}")
    await fs.drain()
    found = await restored(fs)
    assert len(found["moved"]) == len(ring)
    assert found["taken"] == found["gone"] == found["found"] == found["lost"] == []
    await is_what_was(fs, inos, **{ring[n]: ring[n - 1] for n in range(len(ring))})
    assert sorted(await fs.names(REC)) == sorted(ring)


async def test_a_chain_that_ends_in_another_directory(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the files left for a directory that is new, too, and another came in its place from below."""
    await fs.mkdirs(f"{REC}/below")
    inos = await made(fs, monkeypatch, ["a", "below/b"])
    await fs.mkdirs(f"{REC}/new")
    await fs.rename(f"{REC}/a", f"{REC}/new/a")
    await fs.rename(f"{REC}/below/b", f"{REC}/a")
    await fs.drain()
    found = await restored(fs)
    assert found["taken"] == found["gone"] == found["lost"] == []
    await is_what_was(fs, inos, **{"new/a": "a", "a": "below/b"})
