"""Holes, preallocation and copies in the kernel, as programs use them, and what they cost."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .clients import PYTHON, need_root, pattern, run, sha256, sha256_of, skip, state, wait_until, xattr
from .harness import Mount, errno_is, lazy_unmount

KIB = 1 << 10
MIB = 1 << 20
PREALLOCATED = 256 * MIB
RW = os.O_RDWR | os.O_CREAT
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE, UNSHARE_RANGE = 1, 2, 8, 0x10, 0x20, 0x40

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    if _libc.fallocate(fd, mode, offset, length):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def limit(user: Path, **limits: int) -> None:
    for name, value in limits.items():
        os.setxattr(user, f"user.recfs.quota.{name}", b"%d" % value)


def used(user: Path) -> int:
    return int(xattr(user, "quota.used_bytes"))


def extents(path: Path) -> list[tuple[int, int]]:
    """(offset, length) of what is not a hole."""
    found = []
    with path.open("rb") as stream:
        end = 0
        while (start := seek(stream.fileno(), end, os.SEEK_DATA)) is not None:
            end = os.lseek(stream.fileno(), start, os.SEEK_HOLE)
            found.append((start, end - start))
    return found


def seek(fd: int, offset: int, whence: int) -> int | None:
    """lseek(2); None for ENXIO."""
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


@pytest.fixture
def allocated(mount: Mount) -> Callable[[Path], int]:
    """`allocated(path)`: bytes that a file takes on disk, wherever recfs keeps it."""

    def look(path: Path) -> int:
        while True:
            with contextlib.suppress(FileNotFoundError):  # it went home since it was asked
                return os.stat(mount.root / str(mount.info(path)["local_path"])).st_blocks * 512

    return look


def about(size: int) -> range:
    """Some file systems count the blocks that say where the others are."""
    return range(size, size + 32 * KIB)


Allocated = Callable[[Path], int]


# --- holes -----------------------------------------------------------------------------------------------------------


def test_data_and_holes_are_where_a_native_file_has_them(place: Path) -> None:
    fd = os.open(place / "file", RW)
    os.pwrite(fd, b"x" * 8192, MIB)
    os.ftruncate(fd, 3 * MIB)
    for _ in range(2):
        assert extents(place / "file") == [(MIB, 8192)]
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        assert os.lseek(fd, MIB + 5, os.SEEK_DATA) == MIB + 5
        assert os.lseek(fd, MIB + 8192, os.SEEK_HOLE) == MIB + 8192
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            for offset in (3 * MIB, 4 * MIB):
                assert seek(fd, offset, whence) is None
        assert os.lseek(fd, 0, os.SEEK_END) == 3 * MIB
    os.close(fd)


def test_holes_survive_the_commit(mount: Mount, rec: Path, allocated: Allocated) -> None:
    with (rec / "file").open("wb") as stream:
        stream.seek(16 * MIB)
        stream.write(b"end")
    mount.drain()
    assert state(rec / "file") == "committed"
    assert extents(rec / "file") == [(16 * MIB, 3)]
    assert allocated(rec / "file") in about(4096)


@pytest.mark.parametrize("options", [["--sparse=always"], ["--sparse=auto", "--reflink=auto"], ["-a"]], ids=str)
def test_cp_keeps_files_sparse(rec: Path, outside: Path, allocated: Allocated, options: list[str]) -> None:
    with (outside / "sparse").open("wb") as stream:
        stream.write(pattern(64 * KIB))
        stream.seek(20 * MIB)
        stream.write(pattern(64 * KIB))
        stream.truncate(40 * MIB)
    run("cp", *options, outside / "sparse", rec / "in")
    run("cp", *options, rec / "in", rec / "again")
    run("cp", *options, rec / "again", outside / "out")
    for name in ("in", "again"):
        assert extents(rec / name) == [(0, 64 * KIB), (20 * MIB, 64 * KIB)], name
        assert allocated(rec / name) in about(128 * KIB), name
        assert sha256_of(rec / name) == sha256_of(outside / "sparse")
    assert sha256_of(outside / "out") == sha256_of(outside / "sparse")


# --- allocation ------------------------------------------------------------------------------------------------------


def test_preallocating_writes_nothing(mount: Mount, user: Path, rec: Path, allocated: Allocated) -> None:
    """The blocks are there, and neither a program nor the daemon wrote a byte into them."""
    before = of_daemon(mount, "wchar")
    fd = os.open(rec / "file", RW, 0o644)
    os.write(fd, b"head")
    os.posix_fallocate(fd, 0, PREALLOCATED)
    assert os.fstat(fd).st_size == PREALLOCATED == used(user)
    assert allocated(rec / "file") in about(PREALLOCATED)
    assert of_daemon(mount, "wchar") - before < MIB
    assert os.pread(fd, 100, 0) == b"head" + bytes(96)
    assert os.pread(fd, 100, PREALLOCATED - 50) == bytes(50)
    os.pwrite(fd, b"tail", PREALLOCATED - 4)
    os.ftruncate(fd, 100)
    assert used(user) == 100
    os.close(fd)
    mount.drain()
    assert xattr(rec / "file", "sha256") == sha256(b"head" + bytes(96))


def of_daemon(mount: Mount, counter: str) -> int:
    """What the daemon wrote so far: "wchar" bytes, in "syscw" calls (proc_pid_io(5))."""
    assert mount.process is not None
    lines = Path(f"/proc/{mount.process.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{counter}:"))


def modes_of(directory: Path) -> set[int]:
    """The modes of fallocate(2) that work in a directory."""
    works = set()
    with (directory / "probe").open("wb") as stream:
        for mode in (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE):
            try:
                fallocate(stream.fileno(), mode, 0, 4096)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
            else:
                works.add(mode)
    os.unlink(directory / "probe")
    return works


def test_the_same_modes_as_below(rec: Path, mount: Mount, outside: Path) -> None:
    """Whatever was refused before: a refusal is not remembered."""
    fd = os.open(rec / "file", RW)
    for mode in (COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE, PUNCH_HOLE | KEEP_SIZE | ZERO_RANGE, 0x80):
        with errno_is(errno.EOPNOTSUPP):
            fallocate(fd, mode, 0, 4096)
    for offset, length in ((0, 0), (0, -1), (-1, 1)):
        with errno_is(errno.EINVAL):
            fallocate(fd, 0, offset, length)
    with errno_is(errno.EFBIG):
        fallocate(fd, 0, (1 << 63) - 2, 2)
    os.close(fd)
    fd = os.open(rec / "file", os.O_RDONLY)
    with errno_is(errno.EBADF):
        fallocate(fd, 0, 0, 4096)
    os.close(fd)
    assert modes_of(rec) == modes_of(outside)
    assert (rec / "file").stat().st_size == 0


@pytest.mark.parametrize(
    ("options", "mode", "size", "taken"),
    [
        (["-l", "1M"], 0, MIB, MIB),
        (["-o", "512K", "-l", "1M"], 0, MIB + 512 * KIB, MIB + 512 * KIB),
        (["-n", "-l", "1M"], KEEP_SIZE, 512 * KIB, MIB),
        (["-p", "-o", "4K", "-l", "1M"], PUNCH_HOLE | KEEP_SIZE, 512 * KIB, 4 * KIB),
        (["-z", "-o", "4K", "-l", "1M"], ZERO_RANGE, MIB + 4 * KIB, MIB + 4 * KIB),
        (["-z", "-n", "-o", "4K", "-l", "1M"], ZERO_RANGE | KEEP_SIZE, 512 * KIB, MIB + 4 * KIB),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_fallocate_the_program(
    mount: Mount, user: Path, rec: Path, outside: Path, allocated: Allocated,
    options: list[str], mode: int, size: int, taken: int,
) -> None:  # fmt: skip
    if mode not in modes_of(outside):
        skip(f"needs a file system with mode {mode:#x} of fallocate(2); RECFS_TEST_DIR chooses another")
    content = pattern(512 * KIB)
    for directory in (rec, outside):
        (directory / "file").write_bytes(content)
        run("fallocate", *options, directory / "file")
    assert allocated(rec / "file") in about(taken)
    assert sha256_of(rec / "file") == sha256_of(outside / "file")
    assert (rec / "file").stat().st_size == used(user) == size
    mount.drain()
    assert xattr(rec / "file", "sha256") == sha256_of(outside / "file")


def test_a_committed_file_is_hashed_again(mount: Mount, rec: Path) -> None:
    content = pattern(64 * KIB)
    (rec / "file").write_bytes(content)
    mount.drain()
    before = (rec / "file").stat()
    fd = os.open(rec / "file", os.O_RDWR)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 4096, 4096)
    assert os.fstat(fd).st_mtime_ns > before.st_mtime_ns
    assert os.pread(fd, 64 * KIB, 0) == content[:4096] + bytes(4096) + content[8192:]
    os.close(fd)
    mount.drain()
    assert state(rec / "file") == "committed"
    assert xattr(rec / "file", "sha256") == sha256(content[:4096] + bytes(4096) + content[8192:])


def test_a_reader_sees_the_hole_at_once(rec: Path) -> None:
    """Pages of another open file must not go on being read."""
    (rec / "file").write_bytes(b"x" * 64 * KIB)
    reader = os.open(rec / "file", os.O_RDONLY)
    assert os.pread(reader, 4096, 8192) == b"x" * 4096
    writer = os.open(rec / "file", os.O_RDWR)
    fallocate(writer, PUNCH_HOLE | KEEP_SIZE, 8192, 4096)
    assert os.pread(reader, 4096, 8192) == bytes(4096)
    (rec / "new").write_bytes(b"y" * 4096)
    source = os.open(rec / "new", os.O_RDONLY)
    assert os.copy_file_range(source, writer, 4096, 0, 8192) == 4096
    assert os.pread(reader, 4096, 8192) == b"y" * 4096
    for fd in (reader, writer, source):
        os.close(fd)


# --- copies ----------------------------------------------------------------------------------------------------------


def test_a_large_file_copied_by_cp(mount: Mount, rec: Path, outside: Path) -> None:
    """The daemon has the kernel copy below."""
    with (outside / "large").open("wb") as stream:
        for seed in range(150):
            stream.write(pattern(MIB, seed))
    run("cp", outside / "large", rec / "large")
    before = of_daemon(mount, "syscw")
    run("cp", "--reflink=auto", rec / "large", rec / "copy")
    # The books are written meanwhile, the more the longer it takes.
    assert of_daemon(mount, "syscw") - before < 250, "150 WRITE requests would take 300"
    assert (rec / "copy").stat().st_size == 150 * MIB
    mount.drain()
    assert xattr(rec / "copy", "sha256") == xattr(rec / "large", "sha256") == sha256_of(outside / "large")
    refused = run("cp", "--reflink=always", rec / "large", rec / "clone", check=False)  # FUSE has no FICLONE
    assert b"Operation not supported" in refused.stderr


def test_copies_across_files_and_within_one(mount: Mount, rec: Path, outside: Path) -> None:
    """The same calls on a native file give the same bytes and the same answers."""
    content = pattern(300_000)
    calls = [  # (from, to, at, to offset, length)
        ("a", "b", 0, 0, 1 << 30),
        ("a", "b", 299_999, 10, 100),
        ("a", "b", 300_000, 0, 100),
        ("a", "b", 0, 500_000, 1000),
        ("a", "a", 0, 300_000, 300_000),
        ("a", "a", 599_990, 0, 100),
        ("b", "a", 400_000, 7, 50_000),
        ("b", "b", 0, 501_000, 0),
    ]
    answers = []
    for directory in (rec, outside):
        (directory / "a").write_bytes(content)
        (directory / "b").write_bytes(b"start")
        files = {name: os.open(directory / name, os.O_RDWR) for name in "ab"}
        answers.append([os.copy_file_range(files[i], files[o], n, at, to) for i, o, at, to, n in calls])
        with errno_is(errno.EINVAL):
            os.copy_file_range(files["a"], files["a"], 1000, 0, 500)
        for fd in files.values():
            os.close(fd)
    assert answers[0] == answers[1]
    mount.drain()
    for name in "ab":
        assert (rec / name).read_bytes() == (outside / name).read_bytes()
        assert xattr(rec / name, "sha256") == sha256_of(outside / name)


def test_what_may_not_be_copied(rec: Path) -> None:
    (rec / "from").write_bytes(b"data")
    reader, writer = os.open(rec / "from", os.O_RDONLY), os.open(rec / "to", os.O_WRONLY | os.O_CREAT)
    appender = os.open(rec / "to", os.O_WRONLY | os.O_APPEND)
    for source, target in ((writer, writer), (reader, reader), (reader, appender)):
        with errno_is(errno.EBADF):
            os.copy_file_range(source, target, 4, 0, 0)
    folder = os.open(rec, os.O_RDONLY)
    with errno_is(errno.EISDIR):
        os.copy_file_range(folder, writer, 4)
    for fd in (reader, writer, appender, folder):
        os.close(fd)


def test_shared_files_are_copied_from(mount: Mount, user: Path, rec: Path) -> None:
    """Through the view that a user sees of them."""
    content = pattern(200_000)
    shared = mount.path / "shared" / "thumbnails"
    shared.mkdir(parents=True, exist_ok=True)
    (shared / f"{user.name}.png").write_bytes(content)
    shown = user / "thumbnails" / f"{user.name}.png"
    source, target = os.open(shown, os.O_RDONLY), os.open(rec / "copy", RW)
    assert os.lseek(source, 0, os.SEEK_HOLE) == 200_000
    assert os.copy_file_range(source, target, MIB, 0, 0) == 200_000
    os.close(source)
    os.close(target)
    assert (rec / "copy").read_bytes() == content
    assert used(user) == 200_000
    (shared / f"{user.name}.png").unlink()


def test_a_file_without_a_name(rec: Path, user: Path) -> None:
    source, target = os.open(rec / "from", RW), os.open(rec / "to", RW)
    os.write(source, pattern(100_000))
    for name in ("from", "to"):
        (rec / name).unlink()
    assert os.copy_file_range(source, target, 100_000, 0, 0) == 100_000
    fallocate(target, 0, 100_000, 100_000)
    assert os.pread(target, MIB, 0) == pattern(100_000) + bytes(100_000)
    assert used(user) == 0
    os.close(source)
    os.close(target)


# --- limits ----------------------------------------------------------------------------------------------------------


def test_edquot_comes_exactly_at_the_byte(mount: Mount, user: Path, rec: Path) -> None:
    (rec / "from").write_bytes(pattern(300_000))
    limit(user, max_bytes=1_000_001)
    source, target = os.open(rec / "from", os.O_RDONLY), os.open(rec / "to", RW)
    taken = 0
    with errno_is(errno.EDQUOT):
        while taken < 10 * MIB:
            taken += os.copy_file_range(source, target, 300_000, 0, taken)
    assert taken == 700_001
    assert used(user) == 1_000_001
    assert os.copy_file_range(source, target, 1000, 0, 0) == 1000, "rewriting is free"
    for mode, offset, length in ((0, 0, 700_002), (0, 700_001, 1), (0, 10 * MIB, 1)):
        with errno_is(errno.EDQUOT):
            fallocate(target, mode, offset, length)
    fallocate(target, 0, 0, 700_001)
    fallocate(target, KEEP_SIZE, 0, MIB)
    limit(user, max_file_size=700_001, max_bytes=10 * MIB)
    with errno_is(errno.EFBIG):
        os.copy_file_range(source, target, 1, 0, 700_001)
    with errno_is(errno.EFBIG):
        fallocate(target, 0, 700_001, 1)
    assert used(user) == 1_000_001
    os.close(source)
    os.close(target)
    assert (rec / "to").stat().st_size == 700_001
    mount.assert_consistent()


def test_a_full_disk(store: Mount) -> None:
    need_root()
    store.expect_log(r"(?i)space|ENOSPC|disk")
    run("mount", "-t", "tmpfs", "-o", f"size={48 * MIB},mode=755", "recfs-test", store.root)
    try:
        rec = store.start(config=f"min_free = {8 * MIB}\n").recording()
        (rec / "from").write_bytes(pattern(10 * MIB))
        source, target = os.open(rec / "from", os.O_RDONLY), os.open(rec / "to", RW)
        for mode in (0, KEEP_SIZE):
            with errno_is(errno.ENOSPC):
                fallocate(target, mode, 0, 44 * MIB)
        assert os.fstat(target).st_size == 0
        taken = 0
        with errno_is(errno.ENOSPC):
            while taken < 100 * MIB:
                taken += os.copy_file_range(source, target, 10 * MIB, 0, taken)
        assert taken >= 10 * MIB
        os.close(target)
        os.close(source)
        assert (rec / "to").stat().st_size == taken
        store.drain()
        store.assert_consistent()
        store.umount()
    finally:
        store.close()
        lazy_unmount(store.root)


def test_a_client_killed_while_it_copies(store: Mount, background: list[subprocess.Popen[bytes]]) -> None:
    """The daemon finishes that one request, and all is consistent."""
    rec = store.start(config='min_free = "1 MiB"\n').recording()
    with (rec / "from").open("wb") as stream:
        for seed in range(64):
            stream.write(pattern(MIB, seed))
    script = (
        "import os, sys\n"
        "source, target = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)\n"
        "for number in range(10**6):\n"
        "    os.copy_file_range(source, target, 64 << 20, 0, 0)\n"
    )
    client = subprocess.Popen([*PYTHON, script, rec / "from", rec / "to"])
    background.append(client)
    wait_until(lambda: (rec / "to").exists() and (rec / "to").stat().st_size == 64 * MIB, "it has copied once")
    client.kill()
    client.wait(20)
    store.drain()
    assert xattr(rec / "to", "sha256") == xattr(rec / "from", "sha256")
    store.assert_consistent()
