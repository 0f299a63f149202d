"""Whatever somebody put below the root: the store starts, and leaves alone what it does not understand."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.stores.local import LABEL_XATTR
from tests.helpers.machine import skip

from .build import REC, filesystem

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10
"""ioctl_iflags(2)."""


def set_immutable(path: Path, *, on: bool) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)))
        flags = flags | FS_IMMUTABLE_FL if on else flags & ~FS_IMMUTABLE_FL
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", flags))
    finally:
        os.close(fd)


@pytest.fixture
def immutable(place: Path) -> Iterator[list[Path]]:
    """Paths to be made immutable by the test, which are changeable again afterwards."""
    paths: list[Path] = []
    yield paths
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            set_immutable(path, on=False)


@pytest.mark.usefixtures("any_log")
async def test_a_start_with_foreign_things_everywhere(place: Path) -> None:
    async with filesystem(place) as fs:
        fs.checked_at_end = False
        for name in ("kept", "folder", "pipe"):
            await fs.write(f"{REC}/{name}", name.encode())
        await fs.write(f"{REC}/sub/file", b"file")
        await fs.drain()
        await fs.stop()
        staging, home = place / ".recfs/staging", place / REC
        for folder in (staging, home):
            os.mkfifo(folder / "fifo")
            (folder / "dir/deep").mkdir(parents=True)
            (folder / "link").symlink_to("/etc/passwd")
            (folder / "a\nb").write_bytes(b"1")
            Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"2")
            os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
        for number, label in enumerate((b"", b"garbage", b"\x00\xff", b"1 2 3", bytes(2000))):
            (staging / f"labelled{number}").write_bytes(b"bytes")
            os.setxattr(staging / f"labelled{number}", LABEL_XATTR, label)
        (place / ".recfs/trash").rmdir()
        (place / ".recfs/trash").write_bytes(b"foreign")
        (home / "folder").unlink()
        (home / "folder").mkdir()
        (home / "pipe").unlink()
        os.mkfifo(home / "pipe")
        (home / "sub").rename(home / "elsewhere")
        (home / "sub").write_bytes(b"a file now")
        await fs.reopen()
        assert await fs.read(f"{REC}/kept") == b"kept"
        await fs.write(f"{REC}/new", b"new")
        await fs.drain()
        assert (home / "new").read_bytes() == b"new"
        assert sorted(os.listdir(place / ".recfs/lost+found")) == [f"staging-labelled{number}" for number in range(5)]
        assert (staging / "fifo").is_fifo()
        assert (staging / "dir/deep").is_dir()


@pytest.mark.usefixtures("any_log")
async def test_a_start_with_what_cannot_be_changed(place: Path, immutable: list[Path]) -> None:
    """chattr +i: nothing of it can be renamed, removed or written."""
    async with filesystem(place) as fs:
        fs.checked_at_end = False
        await fs.write(f"{REC}/dir/file", b"file")
        await fs.write(f"{REC}/kept", b"kept")
        await fs.drain()
        fs.parts.behind.meta("clean", "1")  # after anything else a start thaws what it froze itself
        await fs.stop()
        staging, home = place / ".recfs/staging", place / REC
        (staging / "unlabelled").write_bytes(b"bytes")
        (staging / "empty").write_bytes(b"")
        (staging / "garbage").write_bytes(b"bytes")
        os.setxattr(staging / "garbage", LABEL_XATTR, b"garbage")
        for path in (staging / "unlabelled", staging / "empty", staging / "garbage", home / "dir/file", home / "dir"):
            try:
                set_immutable(path, on=True)
            except OSError as error:
                skip(f"needs a file system and a user that can make files immutable: {error}")
            immutable.append(path)
        for _ in range(2):
            await fs.reopen()
            assert await fs.read(f"{REC}/kept") == b"kept"
            assert await fs.read(f"{REC}/dir/file") == b"file"
            told = {each["path"] for each in fs.parts.problems.as_json()}
            assert {"staging/unlabelled", "staging/empty", "staging/garbage"} <= told
            await fs.write(f"{REC}/new", b"new")
            await fs.drain()
            fs.parts.behind.meta("clean", "1")
        for path in immutable:
            set_immutable(path, on=False)
        await fs.reopen()
        assert not fs.parts.problems.as_json()
        assert not (staging / "empty").exists()
