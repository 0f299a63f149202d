"""[recordings] allowed_extensions: which names a source may be given, and that those which are there stay."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from recfs.config import Settings
from recfs.errors import InvalidPath
from recfs.fuse.guard import errno_of
from recfs.reloading import Current, Reloading

from .build import OPERATOR, REC, Filesystem, filesystem

ALLOWED = (".mp4", ".mov")


def allow(fs: Filesystem, *extensions: str) -> None:
    fs.parts.vfs.names.allowed_extensions = extensions


async def test_other_kinds_of_sources_are_refused_whatever_makes_them(fs: Filesystem) -> None:
    await fs.write(f"{REC}/upload.bin", b"MZ")
    await fs.write(f"{REC}/source.mp4", b"video")
    allow(fs, *ALLOWED)
    for name in ("source.exe", "source.mp4.exe", "source.", "source.m4a", "source.html", "source.mp4 ", "source.\xff"):
        path = f"{REC}/{name}"
        with pytest.raises(InvalidPath, match=r"are refused; .* allowed_extensions has \.mp4, \.mov") as refused:
            await fs.write(path, b"MZ")
        assert errno_of(refused.value) == errno.EINVAL
        await fs.write(f"temp/5/1/{name}", b"MZ")
        for old in (f"{REC}/upload.bin", f"{REC}/source.mp4", f"temp/5/1/{name}"):
            with pytest.raises(InvalidPath):
                await fs.rename(old, path)
        with pytest.raises(InvalidPath):
            await fs.parts.vfs.symlink(*await fs.folder(path), b"/etc/passwd", OPERATOR)
    assert await fs.names(REC) == ["source.mp4", "upload.bin"]
    assert await fs.read(f"{REC}/upload.bin") == b"MZ"
    assert await fs.read(f"{REC}/source.mp4") == b"video"


async def test_all_other_names_are_as_ever(fs: Filesystem) -> None:
    allow(fs, *ALLOWED)
    for path in (
        f"{REC}/source.mp4", f"{REC}/source.MOV", f"{REC}/source.x.mov", f"{REC}/source", f"{REC}/resource.exe",
        f"{REC}/source.mp4.part", f"{REC}/source.exe.tmp", f"{REC}/.source.exe.Ab12Cd", f"{REC}/assets/source.exe",
        "users/5/thumbnails/source.exe", "temp/5/1/source.exe", "shared/source.exe",
    ):  # fmt: skip
        await fs.write(path, b"x")
        assert await fs.read(path) == b"x"


async def test_a_temporary_name_is_looked_at_when_it_is_renamed(fs: Filesystem) -> None:
    allow(fs, *ALLOWED)
    await fs.write(f"{REC}/source.exe.part", b"x")
    with pytest.raises(InvalidPath):
        await fs.rename(f"{REC}/source.exe.part", f"{REC}/source.exe")
    await fs.rename(f"{REC}/source.exe.part", f"{REC}/source.mp4")
    await fs.mkdirs(f"{REC}/source.exe")


async def test_what_is_there_stays_readable_writable_and_movable(fs: Filesystem) -> None:
    await fs.write(f"{REC}/source.exe", b"old")
    await fs.drain()
    allow(fs, *ALLOWED)
    assert await fs.read(f"{REC}/source.exe") == b"old"
    await fs.write(f"{REC}/source.exe", b"new!")
    await fs.write("temp/5/1/x", b"MZ")
    with pytest.raises(InvalidPath):
        await fs.rename(f"{REC}/source.exe", "temp/5/1/x", exchange=True)
    await fs.rename(REC, "users/5/recordings/143")
    assert await fs.read("users/5/recordings/143/source.exe") == b"new!"
    await fs.rename("users/5/recordings/143/source.exe", "users/5/recordings/143/old.bin")
    with pytest.raises(InvalidPath):
        await fs.rename("users/5/recordings/143/old.bin", "users/5/recordings/143/source.exe")


async def test_what_is_restored_from_the_trash_is_not_asked(place: Path) -> None:
    async with filesystem(place / "root", trash={"retention": 3600.0}) as fs:
        await fs.write(f"{REC}/source.exe", b"old")
        await fs.drain()
        await fs.unlink(f"{REC}/source.exe")
        allow(fs, *ALLOWED)
        await fs.answers()["trash_restore"]({"path": f"{REC}/source.exe"})
        assert await fs.read(f"{REC}/source.exe") == b"old"
        await fs.drain()
        await fs.assert_consistent()


async def test_it_holds_from_the_configuration_and_after_a_start_files_are_there(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        await fs.write(f"{REC}/source.exe", b"old")
        await fs.drain()
    async with filesystem(place / "root", recordings={"allowed_extensions": [".MP4", ".mov", ".mov"]}) as fs:
        assert fs.config.recordings.allowed_extensions == ALLOWED
        assert await fs.read(f"{REC}/source.exe") == b"old"
        with pytest.raises(InvalidPath):
            await fs.write(f"{REC}/source.avi", b"x")
        await fs.assert_consistent()


async def test_a_reload_changes_it(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        await fs.write(f"{REC}/source.avi", b"x")
        wanted = fs.config.model_copy(
            update={"recordings": fs.config.recordings.model_copy(update={"allowed_extensions": ALLOWED})}
        )

        def again() -> Settings:
            return Settings(wanted, {}, again)

        reloads = Reloading(fs.parts, Current(Settings(fs.config, {}, again)), fs._answers(), lambda _: None)
        found = await reloads.reload()
        assert list(found.changed) == ["recordings.allowed_extensions"]
        with pytest.raises(InvalidPath):
            await fs.write("users/5/recordings/9/source.avi", b"x")
        await fs.write("users/5/recordings/9/source.mp4", b"x")


@pytest.mark.parametrize("above", [f"{REC}/x", "temp/5/7", "users/5/thumbnails/x"])
async def test_a_directory_with_other_kinds_of_sources_becomes_no_recording(fs: Filesystem, above: str) -> None:
    """As a file does not get such a name: renaming the directory above it would get round that."""
    await fs.write(f"{REC}/source.mp4", b"video")
    await fs.write(f"{above}/source.exe", b"MZ")
    await fs.write(f"{above}/source.mp4.part", b"temporary")
    await fs.drain()
    allow(fs, *ALLOWED)
    for exchange in (False, True):
        if exchange:
            await fs.mkdirs("users/5/recordings/9")
        with pytest.raises(InvalidPath, match=r"'source\.exe': .* are refused"):
            await fs.rename(above, "users/5/recordings/9", **({"exchange": True} if exchange else {}))
    await fs.unlink(f"{above}/source.exe")
    await fs.vfs.symlink(*await fs.folder(f"{above}/source.sh"), b"/bin/sh", OPERATOR)
    with pytest.raises(InvalidPath):
        await fs.rename(above, "users/5/recordings/9")
    await fs.unlink(f"{above}/source.sh")
    await fs.mkdirs(f"{above}/source.dir")
    await fs.rename(above, "users/5/recordings/9")
    await fs.assert_consistent()


async def test_what_is_not_in_memory_is_looked_at_too(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        await fs.write(f"{REC}/x/source.exe", b"MZ")
        await fs.write(f"{REC}/x/a", b"")
        await fs.write(f"{REC}/x/source", b"")
        await fs.drain()
        await fs.reopen()
        allow(fs, *ALLOWED)
        with pytest.raises(InvalidPath, match=r"source\.exe"):
            await fs.rename(f"{REC}/x", "users/5/recordings/9")
        await fs.unlink(f"{REC}/x/source.exe")  # its row is there yet, and says nothing any more
        await fs.rename(f"{REC}/x", "users/5/recordings/9")
        await fs.assert_consistent()
