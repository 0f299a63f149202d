"""What programs do with files the kernel reads and writes by itself: ways to move bytes, to share a file, to run it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .clients import Peer, pattern, python_client, run, sha256, sha256_of, skip, state, wait_until, xattr
from .harness import Mount, errno_is

MIB = 1 << 20
PAGE = mmap.PAGESIZE
CREATE = os.O_RDWR | os.O_CREAT


# --- sharing a file --------------------------------------------------------------------------------------------------


def test_two_processes_append_at_once(place: Path) -> None:
    """O_APPEND: every line is there, and none is torn or written over."""
    file = place / "log"
    with Peer() as one, Peer() as two:
        for peer, name in ((one, "one"), (two, "two")):
            peer.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            peer(f"line = lambda n: b'{name} %06d ' % n + b'x' * (n % 300) + b'\\n'")
        for peer in (one, two):
            peer.send("sum(os.write(fd, line(n)) for n in range(1500))")
        taken = one.answer() + two.answer()
    lines = file.read_bytes().splitlines()
    expected = {b"%s %06d " % (name, n) + b"x" * (n % 300) for n in range(1500) for name in (b"one", b"two")}
    assert file.stat().st_size == taken
    assert len(lines) == len(expected)
    assert set(lines) == expected
    for name in (b"one", b"two"):
        mine = [text for text in lines if text.startswith(name)]
        assert mine == sorted(mine), "one process's lines are in order"


def test_a_descriptor_shared_by_fork(place: Path) -> None:
    """One offset for both; the file is open until both have closed it."""
    file = place / "file"
    python_client(
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)\n"
        "os.write(fd, b'parent ')\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.write(fd, b'child ')\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "os.write(fd, b'parent again ')\n"
        "pid = os.fork()\n"
        "if pid:\n"
        "    os.close(fd)\n"
        "    sys.exit(os.waitpid(pid, 0)[1])\n"
        "os.write(fd, b'and the child last')\n",
        file,
    )
    assert file.read_bytes() == b"parent child parent again and the child last"


def test_a_writer_whose_name_is_replaced(place: Path) -> None:
    with Peer() as writer:
        writer.open(place / "file", CREATE)
        writer("os.write(fd, b'old ')")
        (place / "new").write_bytes(b"new")
        os.rename(place / "new", place / "file")
        writer("os.write(fd, b'goes on')")
        assert writer("os.pread(fd, 100, 0)") == b"old goes on"
        assert writer("os.fstat(fd).st_nlink") == 0
        assert (place / "file").read_bytes() == b"new"
    assert os.listdir(place) == ["file"]


# --- ways to move bytes ----------------------------------------------------------------------------------------------


def test_direct_io(place: Path) -> None:
    """O_DIRECT: aligned reads and writes past the page cache, beside others through it."""
    file = place / "file"
    content = pattern(16 * PAGE)
    with mmap.mmap(-1, len(content)) as memory:
        memory[:] = content
        fd = os.open(file, CREATE | os.O_DIRECT, 0o644)
        assert os.pwritev(fd, [memory], 0) == len(content)
        assert os.pwritev(fd, [memory], len(content)) == len(content)
        memory[:] = bytes(len(content))
        assert os.preadv(fd, [memory], len(content)) == len(content)
        assert memory[:] == content
        assert file.read_bytes() == content * 2
        with file.open("r+b", buffering=0) as buffered:
            os.pwrite(buffered.fileno(), b"cached", 3 * PAGE)
            assert os.preadv(fd, [memory], 0) == len(content)
            assert memory[3 * PAGE : 3 * PAGE + 6] == b"cached"
        assert os.preadv(fd, [memory], 31 * PAGE) == PAGE, "short at the end"
        os.close(fd)


def test_vectors_with_flags(place: Path) -> None:
    """preadv2(2), pwritev2(2)."""
    file = place / "file"
    fd = os.open(file, CREATE, 0o644)
    assert os.pwritev(fd, [b"one ", b"two "], 0, os.RWF_DSYNC) == 8
    assert os.pwritev(fd, [b"three"], 8, os.RWF_SYNC) == 5
    assert os.pwritev(fd, [b" four"], 0, os.RWF_APPEND) == 5
    parts = [bytearray(4), bytearray(100)]
    assert os.preadv(fd, parts, 0) == 18
    assert parts[0] + parts[1][:14] == b"one two three four"
    assert os.preadv(fd, parts, 4, os.RWF_HIPRI) == 14
    with contextlib.suppress(OSError):  # not in memory, or not known to this file system
        assert os.preadv(fd, parts, 0, os.RWF_NOWAIT) == 18
    os.close(fd)
    assert file.read_bytes() == b"one two three four"


def test_sendfile_and_splice(place: Path, outside: Path) -> None:
    content = pattern(3 * MIB)
    (outside / "in").write_bytes(content)
    source = os.open(outside / "in", os.O_RDONLY)
    target = os.open(place / "file", CREATE, 0o644)
    while os.sendfile(target, source, None, MIB):
        pass
    os.close(source)
    assert sha256_of(place / "file") == sha256(content)
    back = os.open(outside / "back", CREATE, 0o644)
    os.lseek(target, 0, os.SEEK_SET)
    while os.sendfile(back, target, None, MIB):
        pass
    assert sha256_of(outside / "back") == sha256(content)
    # file → pipe → file, both on the mount
    second = os.open(place / "second", CREATE, 0o644)
    read_end, write_end = os.pipe()
    at = 0
    while got := os.splice(target, write_end, 65_536, offset_src=at):
        done = 0
        while done < got:
            done += os.splice(read_end, second, got - done, offset_dst=at + done)
        at += got
    for fd in (target, back, second, read_end, write_end):
        os.close(fd)
    assert sha256_of(place / "second") == sha256(content)


def test_copy_file_range_and_cp(place: Path, outside: Path) -> None:
    content = pattern(MIB + 17)
    (place / "one").write_bytes(content)
    with (place / "one").open("rb") as source, (place / "two").open("w+b") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 1000, 17, 5) == 1000
        assert os.pread(target.fileno(), 5000, 0) == bytes(5) + content[17:1017]
    for source_file, copy in (
        (place / "one", place / "three"),
        (place / "one", outside / "out"),
        (outside / "out", place / "in"),
    ):
        for sparse in ("auto", "always", "never"):
            run("cp", f"--sparse={sparse}", source_file, copy)
            assert sha256_of(copy) == sha256(content), f"{copy.name}, {sparse}"


@pytest.mark.parametrize("engine", ["io_uring", "libaio"])
@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])
@pytest.mark.needs("fio")
def test_asynchronous_io(mount: Mount, rec: Path, engine: str, direct: bool) -> None:
    """What fio writes with many requests under way is what it reads, and what is committed."""
    if engine not in run("fio", "--enghelp").stdout.decode():
        skip(f"needs fio with the engine {engine}")
    if engine == "io_uring" and not io_uring_is_permitted():
        skip("needs io_uring: sysctl kernel.io_uring_disabled=0")
    job = ["--name=verify", "--filename=file", "--size=8M", "--bsrange=4k-64k", "--rw=randrw", "--iodepth=16"]
    check = ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--end_fsync=1", "--randseed=7"]
    run("fio", *job, *check, f"--ioengine={engine}", f"--direct={int(direct)}", "--output-format=terse", cwd=rec)
    mount.drain()
    assert state(rec / "file") == "committed"
    assert xattr(rec / "file", "sha256") == sha256_of(rec / "file")


def io_uring_is_permitted() -> bool:
    """Whether io_uring_setup(2) answers anything but "not here" (seccomp, sysctl)."""
    script = "import ctypes; c = ctypes.CDLL(None, use_errno=True); c.syscall(425, 0, None); print(ctypes.get_errno())"
    return int(python_client(script)) not in (errno.EPERM, errno.ENOSYS)


def test_sparse_files_stay_sparse(mount: Mount, rec: Path) -> None:
    file = rec / "file"
    with Peer() as writer:
        writer.open(file, CREATE)
        writer(f"os.pwrite(fd, b'middle', {40 * MIB})")
        writer(f"os.ftruncate(fd, {64 * MIB})")
        assert file.stat().st_size == 64 * MIB
    expected = bytes(40 * MIB) + b"middle" + bytes(24 * MIB - 6)
    with file.open("rb") as stream:
        assert os.pread(stream.fileno(), 12, 40 * MIB - 3) == b"\0\0\0middle\0\0\0"
        mount.drain()
        assert xattr(file, "sha256") == sha256(expected) == sha256_of(file)
    wait_until(mount.home(file).exists, "it comes home when its last reader is gone")
    assert mount.home(file).stat().st_blocks * 512 < MIB, "the holes take no room on the disk"
    with file.open("r+b", buffering=0) as stream:
        os.pwrite(stream.fileno(), b"start", 0)
    mount.drain()
    assert xattr(file, "sha256") == sha256(b"start" + expected[5:])
    assert mount.home(file).stat().st_blocks * 512 < MIB


# --- running programs ------------------------------------------------------------------------------------------------


def test_programs_run_from_here(place: Path) -> None:
    shutil.copy(shutil.which("echo") or "/bin/echo", place / "program")
    (place / "script").write_text('#!/bin/sh\nexec "$(dirname "$0")/program" "$@"\n')
    (place / "script").chmod(0o755)
    for name in ("program", "script"):
        assert run(place / name, "hello").stdout == b"hello\n"
    (place / "script").write_text("#!/bin/sh\necho changed\n")
    assert run(place / "script").stdout == b"changed\n", "the next run sees the new bytes"
    running = subprocess.Popen([place / "program"], stdout=subprocess.PIPE)
    (place / "program").unlink()  # while it may still be mapped
    assert running.communicate(timeout=20)[0] == b"\n"
    assert running.returncode == 0


def test_a_program_that_is_being_written_cannot_be_run(rec: Path, outside: Path) -> None:
    """ETXTBSY, where the kernel has it: Linux 6.11 and 6.12 had not."""
    got = []
    for place in (outside, rec):
        shutil.copy(shutil.which("echo") or "/bin/echo", place / "program")
        with (place / "program").open("r+b"):
            try:
                got.append(subprocess.run([place / "program"], capture_output=True, timeout=20).returncode)
            except OSError as error:
                got.append(error.errno or 0)
        assert run(place / "program", "done").stdout == b"done\n"
    assert got[0] == got[1]


def test_a_running_program_cannot_be_written(rec: Path, outside: Path) -> None:
    got = []
    for place in (outside, rec):
        shutil.copy(shutil.which("sleep") or "/bin/sleep", place / "program")
        with subprocess.Popen([place / "program", "60"]) as running:
            try:
                with (place / "program").open("r+b"):
                    got.append(0)
            except OSError as error:
                got.append(error.errno or 0)
            running.kill()
        with (place / "program").open("r+b"):
            pass
    assert got[0] == got[1]


def test_modes_of_descriptors_hold(place: Path) -> None:
    """A descriptor for reading cannot write, whoever does the writing, and the other way round."""
    file = place / "file"
    file.write_bytes(bytes(PAGE))
    reader, writer = os.open(file, os.O_RDONLY), os.open(file, os.O_WRONLY)
    with errno_is(errno.EBADF):
        os.pwrite(reader, b"x", 0)
    with errno_is(errno.EBADF):
        os.pread(writer, 1, 0)
    with errno_is(errno.EACCES):
        mmap.mmap(reader, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with errno_is(errno.EACCES):
        mmap.mmap(writer, PAGE, mmap.MAP_SHARED, mmap.PROT_WRITE)
    os.close(reader)
    os.close(writer)
