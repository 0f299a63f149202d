"""Bytes of files: what write, truncate, append, unlink, rename, dup and mmap do, as on a native directory.

Every test that takes `place` runs twice, on a native directory and on the mount.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

from .clients import PYTHON, pattern, sha256, state, xattr
from .harness import Mount, errno_is

KIB = 1024
MIB = 1024 * KIB


@pytest.mark.smoke
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 128 * KIB, MIB, MIB + 1, 5_000_000])
def test_what_is_written_is_read(place: Path, size: int) -> None:
    content = pattern(size, seed=size)
    file = place / "file"
    assert file.write_bytes(content) == size
    assert file.read_bytes() == content
    assert file.stat().st_size == size


def test_append_goes_to_the_end_of_what_others_wrote(place: Path) -> None:
    file = place / "log"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    first, second = os.open(file, flags, 0o644), os.open(file, flags, 0o644)
    for turn in range(50):
        os.write(first, b"first %d\n" % turn)
        os.write(second, b"second %d\n" % turn)
    os.close(first)
    os.close(second)
    with file.open("ab") as again:
        again.write(b"end\n")
    assert file.read_bytes() == b"".join(b"first %d\nsecond %d\n" % (t, t) for t in range(50)) + b"end\n"


@pytest.mark.smoke
def test_random_rewrites_match_a_model(place: Path) -> None:
    dice = random.Random(2024)
    model = bytearray(pattern(300_000))
    file = place / "file"
    file.write_bytes(model)
    for _ in range(3):  # each round reopens the closed (on recfs: sealing or committed) file
        fd = os.open(file, os.O_RDWR)
        for _ in range(60):
            kind, at, length = dice.random(), dice.randrange(400_000), dice.randrange(1, 40_000)
            if kind < 0.7:
                chunk = dice.randbytes(length)
                assert os.pwrite(fd, chunk, at) == length
                model.extend(bytes(max(0, at + length - len(model))))
                model[at : at + length] = chunk
            elif kind < 0.85:
                os.ftruncate(fd, at)
                model = model[:at] + bytes(max(0, at - len(model)))
            else:
                assert os.pread(fd, length, at) == model[at : at + length]
        os.close(fd)
        assert file.stat().st_size == len(model)
        assert sha256(file.read_bytes()) == sha256(bytes(model))


@pytest.mark.parametrize("by_path", [False, True], ids=["ftruncate", "truncate"])
def test_truncate_cuts_and_fills_with_zeros(place: Path, by_path: bool) -> None:
    content = pattern(10_000)
    file = place / "file"
    file.write_bytes(content)
    fd = os.open(file, os.O_RDWR)
    for size in (4_000, 9_000, 9_000, 0, 5):
        os.truncate(file if by_path else fd, size)
        content = content[:size] + bytes(max(0, size - len(content)))
        assert os.fstat(fd).st_size == size == file.stat().st_size
        assert os.pread(fd, 20_000, 0) == content
    os.close(fd)
    assert file.read_bytes() == bytes(5)


def test_holes_read_as_zeros(place: Path) -> None:
    file = place / "sparse"
    fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, b"start", 0)
    os.pwrite(fd, b"end", 3 * MIB + 17)
    os.ftruncate(fd, 4 * MIB)
    expected = bytearray(4 * MIB)
    expected[:5] = b"start"
    expected[3 * MIB + 17 : 3 * MIB + 20] = b"end"
    assert sha256(os.pread(fd, 5 * MIB, 0)) == sha256(bytes(expected))
    os.close(fd)
    assert sha256(file.read_bytes()) == sha256(bytes(expected))


def test_reading_past_the_end_gives_nothing(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"12345")
    fd = os.open(file, os.O_RDONLY)
    assert os.pread(fd, 10, 3) == b"45"
    assert os.pread(fd, 10, 5) == b""
    assert os.pread(fd, 10, 1 << 40) == b""
    os.close(fd)


def test_two_writers_share_one_file(place: Path) -> None:
    file = place / "file"
    one = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    two = os.open(file, os.O_RDWR)
    for block in range(40):
        os.pwrite(one if block % 2 else two, pattern(5_000, seed=block), block * 5_000)
    os.close(one)  # the other one goes on
    os.pwrite(two, b"last", 200_000)
    assert os.pread(two, 5_000, 5_000) == pattern(5_000, seed=1)
    os.close(two)
    assert file.read_bytes() == b"".join(pattern(5_000, seed=b) for b in range(40)) + b"last"


def test_threads_write_disjoint_regions(place: Path) -> None:
    file = place / "file"
    fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: os.pwrite(fd, pattern(50_000, seed=n), n * 50_000), range(20)))
    os.close(fd)
    assert sha256(file.read_bytes()) == sha256(b"".join(pattern(50_000, seed=n) for n in range(20)))


def test_a_reader_sees_what_a_writer_wrote_so_far(place: Path) -> None:
    file = place / "file"
    writer = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    reader = os.open(file, os.O_RDONLY)
    seen = b""
    for turn in range(20):
        os.write(writer, b"block %06d\n" % turn)
        seen += os.read(reader, 1000)
        assert seen.endswith(b"block %06d\n" % turn)
        assert os.stat(file).st_size == len(seen)
    os.pwrite(writer, b"BLOCK", 0)
    assert os.pread(reader, 5, 0) == b"BLOCK"  # rewritten bytes, too: nothing stale is kept for the reader
    os.close(writer)
    os.close(reader)


def test_o_trunc_empties_the_file_for_everyone(place: Path) -> None:
    file = place / "file"
    file.write_bytes(pattern(50_000))
    reader = os.open(file, os.O_RDONLY)
    assert len(os.pread(reader, 60_000, 0)) == 50_000
    writer = os.open(file, os.O_WRONLY | os.O_TRUNC)
    assert file.stat().st_size == 0
    assert os.pread(reader, 10, 0) == b""
    os.write(writer, b"new")
    assert os.pread(reader, 10, 0) == b"new"
    os.close(writer)
    os.close(reader)
    assert file.read_bytes() == b"new"


def test_o_trunc_without_writing_leaves_an_empty_file(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"old")
    os.close(os.open(file, os.O_WRONLY | os.O_TRUNC))
    assert file.read_bytes() == b""


def test_o_excl_refuses_what_exists(place: Path) -> None:
    file = place / "file"
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    with errno_is(errno.EEXIST):
        os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    (place / "dangling").symlink_to("nowhere")
    with errno_is(errno.EEXIST):
        os.open(place / "dangling", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)


def test_the_mode_of_open_is_kept(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"x")
    reader = os.open(file, os.O_RDONLY)
    writer = os.open(file, os.O_WRONLY)
    with errno_is(errno.EBADF):
        os.write(reader, b"y")
    with errno_is(errno.EBADF):
        os.read(writer, 1)
    with errno_is(errno.EINVAL, errno.EBADF):
        os.ftruncate(reader, 0)
    with errno_is(errno.EISDIR):
        os.open(place, os.O_WRONLY)
    with errno_is(errno.ENOTDIR):
        os.open(file / "below", os.O_RDONLY)
    with errno_is(errno.ENOTDIR):
        os.open(file, os.O_RDONLY | os.O_DIRECTORY)
    with errno_is(errno.ENOENT):
        os.open(place / "missing", os.O_RDONLY)
    os.close(reader)
    os.close(writer)


@pytest.mark.smoke
def test_an_open_file_outlives_its_name(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"before")
    fd = os.open(file, os.O_RDWR)
    second = os.dup(fd)
    file.unlink()
    assert os.listdir(place) == []
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, pattern(200_000), 0)
    os.ftruncate(fd, 150_000)
    os.fsync(fd)
    os.close(fd)
    assert os.pread(second, 300_000, 0) == pattern(200_000)[:150_000]
    assert os.fstat(second).st_size == 150_000
    file.write_bytes(b"another file by the same name")
    assert os.pread(second, 3, 0) == pattern(3)
    os.close(second)
    assert file.read_bytes() == b"another file by the same name"


def test_an_unlinked_file_leaves_no_bytes(mount: Mount, rec: Path) -> None:
    fd = os.open(rec / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, pattern(100_000))
    (rec / "file").unlink()
    assert os.pread(fd, 5, 0) == pattern(5)
    os.close(fd)
    mount.drain()
    assert mount.leftovers("staging") == []
    assert list(mount.home(rec).iterdir()) == []


def test_the_last_close_of_dup_and_fork_seals(mount: Mount, rec: Path) -> None:
    file = rec / "file"
    fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, b"parent ")
    copy = os.dup(fd)
    os.close(fd)
    assert state(file) == "writing"
    child = subprocess.Popen(
        [*PYTHON, f"import os; input(); os.write({copy}, b'child'); os.close({copy})"],
        stdin=subprocess.PIPE,
        pass_fds=[copy],
    )
    os.close(copy)
    assert state(file) == "writing"
    child.communicate(b"\n", timeout=20)
    assert child.returncode == 0
    mount.drain()
    assert state(file) == "committed"
    assert file.read_bytes() == b"parent child"
    assert xattr(file, "sha256") == sha256(b"parent child")


@pytest.mark.smoke
def test_rename_over_an_open_file(place: Path) -> None:
    (place / "old").write_bytes(b"old bytes")
    (place / "new").write_bytes(b"new bytes, longer")
    reader = os.open(place / "old", os.O_RDWR)
    os.rename(place / "new", place / "old")
    assert os.read(reader, 100) == b"old bytes"
    os.pwrite(reader, b"OLD", 0)
    assert os.pread(reader, 100, 0) == b"OLD bytes"
    assert (place / "old").read_bytes() == b"new bytes, longer"
    os.close(reader)
    assert (place / "old").read_bytes() == b"new bytes, longer"
    assert os.listdir(place) == ["old"]


def test_a_writer_goes_on_after_its_file_is_renamed(place: Path) -> None:
    (place / "sub").mkdir()
    fd = os.open(place / "part", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, b"one ")
    os.rename(place / "part", place / "sub" / "whole")
    os.write(fd, b"two")
    assert (place / "sub" / "whole").read_bytes() == b"one two"
    os.close(fd)
    assert (place / "sub" / "whole").read_bytes() == b"one two"
    assert not (place / "part").exists()


def test_rename_noreplace(place: Path) -> None:
    (place / "a").write_bytes(b"a")
    (place / "b").write_bytes(b"b")
    with errno_is(errno.EEXIST):
        renameat2(place / "a", place / "b", RENAME_NOREPLACE)
    assert (place / "b").read_bytes() == b"b"
    renameat2(place / "a", place / "c", RENAME_NOREPLACE)
    assert sorted(os.listdir(place)) == ["b", "c"]


def test_rename_exchange(place: Path) -> None:
    (place / "a").write_bytes(b"content of a")
    (place / "d").mkdir()
    (place / "d" / "b").write_bytes(b"b")
    renameat2(place / "a", place / "d" / "b", RENAME_EXCHANGE)
    assert (place / "a").read_bytes() == b"b"
    assert (place / "d" / "b").read_bytes() == b"content of a"
    renameat2(place / "a", place / "d", RENAME_EXCHANGE)  # a file with a directory
    assert (place / "a" / "b").read_bytes() == b"content of a"
    assert (place / "d").read_bytes() == b"b"
    with errno_is(errno.ENOENT):
        renameat2(place / "a", place / "missing", RENAME_EXCHANGE)
    with errno_is(errno.EINVAL):
        renameat2(place / "a", place / "d", RENAME_EXCHANGE | RENAME_NOREPLACE)


def test_fsync_of_files_and_directories(place: Path) -> None:
    fd = os.open(place / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, b"x")
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    directory = os.open(place, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
