"""File handles (open_by_handle_at(2), as NFS servers use them) lead to their file whatever the kernel has forgotten."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path

import pytest

from .clients import need_root
from .harness import Mount, errno_is

_libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


class FileHandle(ctypes.Structure):
    """struct file_handle."""

    _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * 128))


def handle_of(path: Path) -> FileHandle:
    """name_to_handle_at(2)."""
    handle = FileHandle(size=128)
    mount_id = ctypes.c_int()
    if _libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0):
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return handle


def open_handle(mount: Mount, handle: FileHandle, flags: int = os.O_RDONLY) -> int:
    """open_by_handle_at(2)."""
    top = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = int(_libc.open_by_handle_at(top, ctypes.byref(handle), flags))
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return fd
    finally:
        os.close(top)


def drop_caches() -> None:
    """Have the kernel forget names and inodes."""
    need_root()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2")
    except OSError as error:
        pytest.skip(f"drop_caches: {error}")


def test_handles_outlive_the_kernels_caches(mount: Mount, rec: Path) -> None:
    (rec / "folder" / "below").mkdir(parents=True)
    file = rec / "folder" / "below" / "file"
    file.write_bytes(b"bytes")
    handles = [handle_of(file), handle_of(file.parent)]
    drop_caches()
    fd = open_handle(mount, handles[0])
    assert os.read(fd, 10) == b"bytes"
    os.close(fd)
    drop_caches()
    fd = open_handle(mount, handles[1], os.O_RDONLY | os.O_DIRECTORY)
    assert os.listdir(fd) == ["file"]
    assert os.readlink(f"/proc/self/fd/{fd}") == str(file.parent)
    os.close(fd)


def test_a_handle_of_what_was_removed_is_stale(mount: Mount, rec: Path) -> None:
    (rec / "file").write_bytes(b"bytes")
    (rec / "folder").mkdir()
    handles = [handle_of(rec / "file"), handle_of(rec / "folder")]
    (rec / "file").unlink()
    (rec / "folder").rmdir()
    drop_caches()
    for handle in handles:
        with errno_is(errno.ESTALE):
            os.close(open_handle(mount, handle))


def test_a_handle_follows_a_rename_and_a_new_mount(store: Mount) -> None:
    store.start()
    rec = store.recording()
    (rec / "file").write_bytes(b"bytes")
    handle = handle_of(rec / "file")
    (rec / "file").rename(rec / "renamed")
    store.remount()
    drop_caches()
    fd = open_handle(store, handle)
    assert os.read(fd, 10) == b"bytes"
    os.close(fd)


def test_find_sees_every_directory_although_their_links_are_not_counted(rec: Path) -> None:
    """A link count of 1 says so (find(1), -noleaf)."""
    for name in ("a/b/c", "a/d", "e"):
        (rec / name).mkdir(parents=True)
    found = subprocess.run(["find", rec, "-mindepth", "1", "-type", "d"], capture_output=True, text=True, check=True)
    assert len(found.stdout.splitlines()) == 5
    assert rec.stat().st_nlink == 1
