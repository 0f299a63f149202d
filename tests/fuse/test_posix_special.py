"""What programs do with files beyond read and write: allocate, copy in the kernel, lock, map."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

from .clients import (
    pattern,
    python_client,
    sha256,
    state,
    xattr,
)
from .harness import Mount

MIB = 1 << 20


def test_posix_fallocate_extends_with_zeros(place: Path) -> None:
    fd = os.open(place / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, b"head")
    os.posix_fallocate(fd, 0, 50_000)
    assert os.fstat(fd).st_size == 50_000
    assert os.pread(fd, 60_000, 0) == b"head" + bytes(49_996)
    os.close(fd)


def test_copies_inside_the_kernel(place: Path) -> None:
    content = pattern(700_000)
    (place / "from").write_bytes(content)
    source = os.open(place / "from", os.O_RDONLY)
    for name, copy in (
        ("range", os.copy_file_range),
        ("sendfile", lambda i, o, n: os.sendfile(o, i, None, n)),
    ):
        os.lseek(source, 0, os.SEEK_SET)
        target = os.open(place / name, os.O_WRONLY | os.O_CREAT, 0o644)
        while copy(source, target, MIB):
            pass
        os.close(target)
        assert sha256((place / name).read_bytes()) == sha256(content), name
    os.close(source)


def test_locks_hold_between_processes(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"x")
    script = (
        "import fcntl, sys\n"
        "stream = open(sys.argv[1], 'r+b')\n"
        "for lock in fcntl.flock, fcntl.lockf:\n"
        "    try: lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n"
        "    except BlockingIOError: print('held')\n"
    )
    with file.open("r+b") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        fcntl.lockf(holder, fcntl.LOCK_EX)
        assert python_client(script, file).split() == ["held", "held"]
    assert python_client(script, file).split() == ["free", "free"]


def test_mmap_reads_and_shared_writes(place: Path) -> None:
    file = place / "file"
    file.write_bytes(pattern(3 * mmap.PAGESIZE + 100))
    script = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "view = mmap.mmap(fd, 0, mmap.MAP_SHARED)\n"
        "os.close(fd)\n"  # the mapping alone keeps the file open
        "old = bytes(view)\n"
        "view[5000:5006] = b'mapped'\n"
        "view.flush()\n"
        "print(open(sys.argv[1], 'rb').read()[5000:5006].decode())\n"
        "view[-4:] = b'tail'\n"
        "view.close()\n"
        "import hashlib; print(hashlib.sha256(old).hexdigest())\n"
    )
    seen, old = python_client(script, file).split()
    assert seen == "mapped"
    assert old == sha256(pattern(3 * mmap.PAGESIZE + 100))
    expected = bytearray(pattern(3 * mmap.PAGESIZE + 100))
    expected[5000:5006], expected[-4:] = b"mapped", b"tail"
    assert file.read_bytes() == bytes(expected)


def test_a_mapped_write_is_committed(mount: Mount, rec: Path) -> None:
    file = rec / "file"
    file.write_bytes(bytes(10_000))
    mount.drain()
    script = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "with mmap.mmap(fd, 0, mmap.MAP_SHARED) as view: os.close(fd); view[100:103] = b'abc'\n"
    )
    python_client(script, file)
    mount.drain()
    expected = bytes(100) + b"abc" + bytes(9_897)
    assert state(file) == "committed"
    assert file.read_bytes() == expected
    assert xattr(file, "sha256") == sha256(expected)
