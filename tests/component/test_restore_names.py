"""A restored catalogue, and files that have had each other's names since: what is known of each follows its bytes."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
import trio

from recfs.fs.attributes import Changes
from recfs.fs.recovery import comparison
from recfs.rescue.restore import Restore
from recfs.state.nodes import DirNode

from .build import OPERATOR, REC, Filesystem
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
    for before, after in reversed(list(itertools.pairwise(ring))):
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


OTHER_REC = "users/5/recordings/200"
SOME_NS = 10**18


async def expires(fs: Filesystem, path: str) -> int | None:
    """The date that was set for a recording."""
    node = await fs.node(path)
    assert isinstance(node, DirNode)
    assert node.life is not None
    return node.life.expires_ns


async def test_a_recording_whose_number_a_new_one_has_by_now(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its date to expire at, and the new one has none: else that would be removed in its place."""
    inos = await made(fs, monkeypatch, ["source.mp4", "sub/below"])
    folder = await fs.node(REC)
    await fs.xattrs.set(folder.ino, b"user.recfs.expires_at", b"2040-01-01T00:00:00Z", OPERATOR)
    await backed_up(fs)
    await fs.rename(REC, OTHER_REC)
    await fs.write(f"{REC}/source.mp4", b"another one")
    await fs.drain()
    found = await restored(fs)
    assert found["moved"] == [f"{REC} -> {OTHER_REC}"]
    assert found["taken"] == found["gone"] == found["lost"] == []
    assert (await fs.node(OTHER_REC)).ino == folder.ino
    assert await expires(fs, OTHER_REC) is not None
    assert await expires(fs, REC) is None
    assert await fs.read(f"{REC}/source.mp4") == b"another one"
    assert await attribute(fs, f"{OTHER_REC}/sub/below") == b"sub/below"
    assert (await fs.node(f"{OTHER_REC}/source.mp4")).ino == inos["source.mp4"]


async def test_recordings_that_have_changed_places(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps its own date, and what is in it."""
    inos = await made(fs, monkeypatch, ["source.mp4"])
    await fs.write(f"{OTHER_REC}/source.mp4", b"other")
    await fs.xattrs.set((await fs.node(REC)).ino, b"user.recfs.expires_at", b"2040-01-01T00:00:00Z", OPERATOR)
    numbers = [(await fs.node(path)).ino for path in (REC, OTHER_REC)]
    await backed_up(fs)
    await fs.rename(REC, "users/5/recordings/999")
    await fs.rename(OTHER_REC, REC)
    await fs.rename("users/5/recordings/999", OTHER_REC)
    await fs.drain()
    found = await restored(fs)
    assert found["taken"] == found["gone"] == found["lost"] == found["found"] == []
    assert [(await fs.node(path)).ino for path in (OTHER_REC, REC)] == numbers
    assert await expires(fs, OTHER_REC) is not None
    assert await expires(fs, REC) is None
    assert (await fs.node(f"{OTHER_REC}/source.mp4")).ino == inos["source.mp4"]


async def test_a_file_that_gave_its_name_to_the_directory_that_it_is_in_now(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either's row would have to follow before the other's: one goes aside for a moment."""
    inos = await made(fs, monkeypatch, ["x", "folder/below"])
    folder = (await fs.node(f"{REC}/folder")).ino
    await fs.rename(f"{REC}/x", f"{REC}/held")
    await fs.rename(f"{REC}/folder", f"{REC}/x")
    await fs.rename(f"{REC}/held", f"{REC}/x/x")
    await fs.drain()
    found = await restored(fs)
    assert found["taken"] == found["gone"] == found["found"] == found["lost"] == []
    assert (await fs.node(f"{REC}/x")).ino == folder
    await is_what_was(fs, inos, **{"x/x": "x", "x/below": "folder/below"})


async def test_directories_that_were_rotated_with_others_in_them(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in the one is in another by now, whose name a third has."""
    names = ["a/in", "b/in", "b/deep/in", "c/in"]
    inos = await made(fs, monkeypatch, names)
    folders = {name: (await fs.node(f"{REC}/{name}")).ino for name in ("a", "b", "b/deep", "c")}
    await fs.rename(f"{REC}/c", f"{REC}/d")
    await fs.rename(f"{REC}/b", f"{REC}/c")
    await fs.rename(f"{REC}/a", f"{REC}/b")
    await fs.mkdirs(f"{REC}/a")
    await fs.rename(f"{REC}/c/deep", f"{REC}/b/deep")
    await fs.write(f"{REC}/a/in", b"new")
    await fs.drain()
    found = await restored(fs)
    assert found["taken"] == found["gone"] == found["lost"] == []
    now = {"d": "c", "c": "b", "b": "a", "b/deep": "b/deep"}
    assert {name: (await fs.node(f"{REC}/{name}")).ino for name in now} == {n: folders[was] for n, was in now.items()}
    await is_what_was(fs, inos, **{"d/in": "c/in", "c/in": "b/in", "b/in": "a/in", "b/deep/in": "b/deep/in"})
    assert await fs.read(f"{REC}/a/in") == b"new"


async def test_a_directory_that_was_removed_and_made_again(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else has what it was: it is the one of that name."""
    inos = await made(fs, monkeypatch, ["folder/in", "keeps"])
    folder = (await fs.node(f"{REC}/folder")).ino
    await fs.rename(f"{REC}/folder/in", f"{REC}/in")
    await fs.rmdir(f"{REC}/folder")
    await fs.mkdirs(f"{REC}/folder")
    await fs.rename(f"{REC}/in", f"{REC}/folder/in")
    await fs.drain()
    found = await restored(fs)
    assert found["gone"] == found["lost"] == []
    assert (await fs.node(f"{REC}/folder")).ino == folder
    await is_what_was(fs, inos, **{"folder/in": "folder/in", "keeps": "keeps"})


async def test_in_a_copy_of_a_directory_inode_numbers_tell_nothing(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of one size and time get each other's numbers there by chance: they have not changed places."""
    names = ("a", "b")
    inos = await made(fs, monkeypatch, names)
    for name in names:
        await fs.vfs.setattr(inos[name], Changes(mtime_ns=SOME_NS), OPERATOR)
    await backed_up(fs)
    home = fs.root / REC
    before = home.rename(home.with_name("before"))
    home.mkdir()
    for name, other in zip(names, reversed(names), strict=True):
        (before / other).rename(home / name)
        (home / name).write_bytes(b"of " + name.encode())
        os.utime(home / name, ns=(SOME_NS, SOME_NS))
    before.rmdir()
    found = await restored(fs)
    assert found["moved"] == found["gone"] == found["lost"] == []
    await is_what_was(fs, inos, a="a", b="b")


async def test_hard_links_are_taken_and_told(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not left out for that, but whoever writes to the one changes the other."""
    await made(fs, monkeypatch, ["a"])
    home = fs.root / REC
    (home / "one").write_bytes(b"data")
    (home / "other").hardlink_to(home / "one")
    await fs.stop()
    finds = await trio.to_thread.run_sync(lambda: Restore(fs.config, lambda _: None).dry_run(None, None)["finds"])
    assert {each["path"] for each in finds if each["what"] == "linked"} == {f"{REC}/one", f"{REC}/other"}
    await fs.reopen()
    found = await restored(fs)
    assert sorted(found["linked"]) == [f"{REC}/one", f"{REC}/other"]
    assert sorted(found["found"]) == [f"{REC}/one", f"{REC}/other"]


@pytest.mark.parametrize("forget", [False, True])
async def test_directories_that_went_are_named(fs: Filesystem, monkeypatch: pytest.MonkeyPatch, forget: bool) -> None:
    """An empty one, and a link, come back: somebody has removed them, and is to know. Or they are not to."""
    await made(fs, monkeypatch, ["stays"])
    await fs.mkdirs(f"{REC}/folder/below")
    await fs.mkdirs(f"{REC}/with-a-link")
    await fs.vfs.symlink((await fs.node(f"{REC}/with-a-link")).ino, b"link", b"target", OPERATOR)
    await backed_up(fs)
    for folder in ("folder/below", "folder"):
        await fs.rmdir(f"{REC}/{folder}")
    await fs.unlink(f"{REC}/with-a-link/link")
    await fs.rmdir(f"{REC}/with-a-link")
    await fs.drain()
    found = await restored(fs, forget=forget)
    went = [f"{REC}/{name}" for name in ("folder", "folder/below", "with-a-link", "with-a-link/link")]
    assert sorted(found["forgotten" if forget else "remade"]) == went
    assert found["remade" if forget else "forgotten"] == found["gone"] == found["set_aside"] == []
    assert await fs.names(REC) == (["stays"] if forget else ["folder", "stays", "with-a-link"])
    await fs.assert_consistent()
