"""A full disk: ENOSPC for the writer, everything else goes on, and all is well once there is room again."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.disks import disk

from .clients import need_root, pattern, run, sha256, sha256_of, skip, state
from .harness import Mount, errno_is, lazy_unmount

pytestmark = pytest.mark.modes("auto", "off")

MIB = 1 << 20
DISK = 48 * MIB
RESERVE = 8 * MIB


@pytest.fixture
def small(store: Mount) -> Iterator[Mount]:
    """A store on a disk of 48 MiB, 8 of them reserved (min_free); not started."""
    need_root()
    run("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "recfs-test", store.root)
    yield store
    if store.process is not None:
        store.umount()
    lazy_unmount(store.root)


def fill(file: Path) -> int:
    """Write until ENOSPC; return how many bytes were taken."""
    taken = 0
    fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    with errno_is(errno.ENOSPC):
        while taken < 2 * DISK:
            taken += os.write(fd, pattern(MIB))
    os.close(fd)
    return taken


def free(path: Path) -> int:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def test_the_reserve_is_kept(small: Mount) -> None:
    small.expect_log(r"(?i)space|ENOSPC")
    rec = small.start(config=f"min_free = {RESERVE}\n").recording()
    (rec / "before").write_bytes(pattern(5 * MIB, seed=1))
    (rec / "dir").mkdir()
    small.drain()
    taken = fill(rec / "big")
    assert DISK - RESERVE - 12 * MIB < taken < DISK - RESERVE
    assert free(small.root) >= RESERVE - MIB, "the reserve was eaten into"
    assert free(small.path) <= MIB, "df on the mount shows what writers may still use"
    assert (rec / "big").stat().st_size == taken
    # everything else goes on
    assert sha256_of(rec / "before") == sha256(pattern(5 * MIB, seed=1))
    os.rename(rec / "before", rec / "dir" / "after")
    os.setxattr(rec / "big", "user.note", b"full")
    with errno_is(errno.ENOSPC):
        (rec / "small").write_bytes(pattern(2 * MIB))
    small.drain()
    assert state(rec / "big") == "committed", "what was taken is committed"
    small.assert_consistent()
    (rec / "big").unlink()
    small.drain()
    (rec / "small").write_bytes(pattern(2 * MIB))
    small.drain()
    assert sha256_of(rec / "small") == sha256(pattern(2 * MIB))
    small.assert_consistent()
    small.remount()
    assert sha256_of(rec / "dir" / "after") == sha256(pattern(5 * MIB, seed=1))


def test_rewriting_and_truncating_work_on_a_full_disk(small: Mount) -> None:
    small.expect_log(r"(?i)space|ENOSPC")
    rec = small.start(config=f"min_free = {RESERVE}\n").recording()
    taken = fill(rec / "big")
    small.drain()
    with (rec / "big").open("r+b") as stream:
        stream.write(b"rewritten")
    os.truncate(rec / "big", taken // 2)
    small.drain()
    content = b"rewritten" + pattern(MIB)[9:]
    assert (rec / "big").read_bytes()[:MIB] == content
    (rec / "more").write_bytes(pattern(4 * MIB))
    small.drain()
    small.assert_consistent()


@pytest.mark.timeout(90)
def test_a_disk_filled_by_someone_else(small: Mount) -> None:
    small.expect_log(r"(?i)space|ENOSPC|disk")
    rec = small.start(config="min_free = 0\n").recording()
    (rec / "before").write_bytes(pattern(MIB, seed=1))
    small.drain()
    writer = os.open(rec / "during", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(writer, pattern(MIB, seed=2))
    with (small.root / "filler").open("wb", buffering=0) as filler, errno_is(errno.ENOSPC):
        for _ in range(DISK // 4096):
            filler.write(bytes(4096))
    with errno_is(errno.ENOSPC):
        for _ in range(64):
            os.write(writer, pattern(MIB))
    size = os.fstat(writer).st_size
    os.close(writer)
    assert sha256_of(rec / "before") == sha256(pattern(MIB, seed=1))
    assert os.listdir(rec) != []
    (small.root / "filler").unlink()
    small.drain()
    assert state(rec / "during") == "committed"
    content = (rec / "during").read_bytes()
    assert len(content) == size
    assert content[:MIB] == pattern(MIB, seed=2)
    (rec / "after").write_bytes(pattern(MIB, seed=3))
    small.drain()
    small.assert_consistent()
    small.remount()
    for name, seed in (("before", 1), ("after", 3)):
        assert sha256_of(rec / name) == sha256(pattern(MIB, seed=seed))
    assert (rec / "during").stat().st_size == size


@pytest.mark.timeout(90)
def test_a_kill_on_a_full_disk(small: Mount) -> None:
    small.expect_log(r"(?i)space|ENOSPC|disk")
    rec = small.start(config=f"min_free = {RESERVE}\n").recording()
    (rec / "committed").write_bytes(pattern(MIB, seed=1))
    small.drain()
    fd = os.open(rec / "writing", os.O_WRONLY | os.O_CREAT, 0o644)
    with errno_is(errno.ENOSPC):
        for _ in range(DISK // MIB):
            os.write(fd, pattern(MIB, seed=2))
    small.kill()
    with contextlib.suppress(OSError):
        os.close(fd)
    small.remount()
    assert sha256_of(rec / "committed") == sha256(pattern(MIB, seed=1))
    assert (rec / "writing").read_bytes()[:MIB] == pattern(MIB, seed=2)
    assert state(rec / "writing") == "incomplete"
    (rec / "writing").unlink()
    small.drain()
    (rec / "again").write_bytes(pattern(10 * MIB))
    small.drain()
    assert state(rec / "again") == "committed"
    small.assert_consistent()


def test_clients_report_a_full_disk(small: Mount) -> None:
    small.expect_log(r"(?i)space|ENOSPC")
    rec = small.start(config=f"min_free = {RESERVE}\n").recording()
    done = run("dd", "if=/dev/zero", f"of={rec / 'zeros'}", "bs=1M", "count=100", check=False)
    assert done.returncode != 0
    assert b"No space left on device" in done.stderr
    (rec / "zeros").unlink()


@pytest.fixture(params=["tmpfs", "ext4"])
def tiny(request: pytest.FixtureRequest, store: Mount) -> Iterator[Mount]:
    """A store on a disk of 96 MiB of its own, nothing reserved; not started."""
    need_root()
    with disk(request.param, store.root, 96 * MIB) as why_not:
        if why_not is not None:
            skip(f"needs a small {request.param}: {why_not}")
        yield store
        if store.process is not None:
            store.umount()
        lazy_unmount(store.root)


def take_all(root: Path) -> Path:
    """Fill a disk out of band, to the last byte. Of what is written ext4 sets more aside than it takes in the end."""
    filler = root / "filler"
    with filler.open("wb", buffering=0) as stream:
        before = -1
        while stream.tell() > before:
            before = stream.tell()
            for size in (MIB, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while stream.write(bytes(size)):
                        pass
            os.fsync(stream.fileno())
    return filler


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_names_go_on_when_others_took_the_last_byte(tiny: Mount) -> None:
    """Renames and removals are promised on a full disk: they, the commands, the stop and the next start work there."""
    tiny.expect_log(r"(?i)space|ENOSPC|disk")
    rec = tiny.start(config="min_free = 0\n").recording()
    for number in range(600):
        (rec / f"file{number}").write_bytes(pattern(100, seed=number))
    tiny.drain()
    take_all(tiny.root)
    for make in ((rec / "new").touch, (rec / "dir").mkdir, lambda: (rec / "link").symlink_to("x")):
        with errno_is(errno.ENOSPC):
            make()
    for number in range(200):
        os.rename(rec / f"file{number}", rec / f"moved{number}")
    for number in range(200, 400):
        (rec / f"file{number}").unlink()
    # Until the removed bytes are really gone, the disk is full; nothing else is wrong. A longer name may need a block
    # that its directory at home cannot have before the removals behind it are done: such a rename waits there.
    full = re.compile(r"the disk is down to min_free|users/1/recordings/1/moved\d+: .*No space left on device")
    assert [told for told in tiny.status()["problems"] if not full.match(told)] == []
    tiny.drain()
    assert [told for told in tiny.status()["problems"] if "No space left" in told] == []
    kept = {f"moved{number}" for number in range(200)} | {f"file{number}" for number in range(400, 600)}
    assert set(os.listdir(rec)) == kept
    tiny.remount()
    assert set(os.listdir(rec)) == kept
    assert (rec / "moved7").read_bytes() == pattern(100, seed=7)
    for name in kept - {"moved7"}:
        (rec / name).unlink()
    tiny.drain()
    (tiny.root / "filler").unlink()
    (rec / "after").write_bytes(b"there is room again")
    tiny.drain()
    assert sorted(os.listdir(rec)) == ["after", "moved7"]
    tiny.assert_consistent()
