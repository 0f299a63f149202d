"""Limits of users and of the disk, for writers that are not asked at each write.

Far from a limit the kernel writes by itself and the meter counts behind it; near one every write is checked. A writer
that crosses a limit all the same is stopped where the file system can freeze a file, and told at its close. How far it
came is in the record of the run (`overrun_bytes`, and `pytest -s`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.bench_lib.report import file_system
from tests.helpers.disks import FREEZING, disk
from tests.helpers.userns import has_sys_admin

from .clients import Peer, need_root, pattern, sha256, sha256_of, skip, state, wait_until, xattr
from .harness import BASE_CONFIG, Mount, errno_is, lazy_unmount, remove_tree

pytestmark = pytest.mark.modeless

MIB = 1 << 20
CREATE = os.O_RDWR | os.O_CREAT
CONFIG = f'{BASE_CONFIG}passthrough = "auto"\npassthrough_headroom = "8 MiB"\n'
OVERRUN_BYTES = 1 << 30
"""More than one writer comes past a limit: half a second at 2 GiB/s, where the meter looks every 50 ms."""


@pytest.fixture(autouse=True)
def _privileged() -> None:
    """Everything here is about passthrough."""
    if not has_sys_admin():
        skip("needs CAP_SYS_ADMIN, for FUSE passthrough")


@pytest.fixture
def rec(store: Mount) -> Path:
    """A recording of user 1, on a running store with a headroom of 8 MiB."""
    return store.start(config=CONFIG).recording()


@pytest.fixture(params=["freezes", "does not freeze"])
def place_to_run(request: pytest.FixtureRequest, workspace: Path) -> Iterator[tuple[Mount, bool]]:
    """A store, not started, on a disk that can stop a writer (ext4 ...), and on one that cannot (tmpfs)."""
    freezes = request.param == "freezes"
    with contextlib.ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="recfs-quota-", dir=workspace))
        stack.callback(remove_tree, base)
        near = [base, Path(tempfile.gettempdir())]
        fitting = [path for path in near if (file_system(path) in FREEZING) is freezes]
        if fitting and fitting[0] is not base:
            other = Path(tempfile.mkdtemp(prefix=base.name, dir=fitting[0]))
            stack.callback(remove_tree, other)
            store = Mount(other / "store")
        else:
            store = Mount(base / "store")
            if not fitting:
                kind = "ext4" if freezes else "tmpfs"
                why_not = stack.enter_context(disk(kind, store.root, 6144 * MIB))
                if why_not is not None:
                    skip(f"needs a small {kind}: {why_not}")
        stack.callback(store.close)
        assert (file_system(store.root) in FREEZING) is freezes
        yield store, freezes
        store.check()
        if store.process is not None:
            store.umount()


def passing(store: Mount, file: Path) -> int:
    """How many opens of a file the kernel serves by itself."""
    (entry,) = (entry for entry in store.status()["open_files"] if entry["path"] == store.inner(file))
    return int(entry["passthrough"])


def used(store: Mount) -> int:
    return int(xattr(store.path / "users" / "1", "quota.used_bytes"))


def limit(store: Mount, **limits: int) -> None:
    for name, value in limits.items():
        os.setxattr(store.path / "users" / "1", f"user.recfs.quota.{name}", b"%d" % value)


def runaway(peer: Peer, mib: int) -> None:
    """Have it write as fast as it can."""
    peer(f"block = bytes({MIB})")
    peer.send(f"[os.write(fd, block) for _ in range({mib})] and None")


# --- counting --------------------------------------------------------------------------------------------------------


def recorded(store: Mount) -> int:
    """What the catalogue on disk says user 1 has used: no question to the daemon, which would make it look."""
    path = f"file:{store.root}/.recfs/catalogue.db?mode=ro"
    with contextlib.closing(sqlite3.connect(path, uri=True)) as catalogue:
        rows = catalogue.execute("select used_bytes from account where user = '1'").fetchall()
    return int(rows[0][0]) if rows else 0


def test_usage_follows_a_writer(store: Mount, rec: Path, record_property: Callable[[str, object], None]) -> None:
    """Within the meter's period and the catalogue's, with nobody asking."""
    took = []
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        assert passing(store, rec / "file") == 1
        for turn in range(1, 6):
            writer(f"os.write(fd, bytes({MIB}))")
            start = time.monotonic()
            wait_until(lambda turn=turn: recorded(store) == turn * MIB, f"{turn} MiB are recorded", 5.0)
            took.append(time.monotonic() - start)
        writer(f"os.ftruncate(fd, {MIB})")
        assert used(store) == MIB
    record_property("recorded_after_s", max(took))
    print(f"recorded after {max(took):.3f} s at most")
    store.assert_consistent()


def test_what_is_asked_for_is_right_at_once(store: Mount, rec: Path) -> None:
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        for turn in range(1, 20):
            writer("os.write(fd, bytes(10_000))")
            assert used(store) == turn * 10_000 == store.quota("1")["used_bytes"]
            assert int(xattr(rec, "rbytes")) == turn * 10_000
    store.assert_consistent()


# --- near a limit ----------------------------------------------------------------------------------------------------


def test_near_the_limit_it_is_exact(store: Mount, rec: Path) -> None:
    limit(store, max_bytes=20 * MIB + 1)
    with Peer() as writer:
        writer.open(rec / "far", CREATE)
        assert passing(store, rec / "far") == 1
        writer(f"os.write(fd, bytes({13 * MIB}))")
    with Peer() as writer:
        writer.open(rec / "near", CREATE)
        assert passing(store, rec / "near") == 0, "7 MiB are left, which is less than the headroom"
        writer("taken = 0")
        with errno_is(errno.EDQUOT):
            writer("while True: taken += os.write(fd, bytes(100_000))")
        assert writer("taken") == 7 * MIB + 1
        with errno_is(errno.EDQUOT):
            writer("os.write(fd, b'x')")
        assert writer("os.pwrite(fd, b'rewritten', 0)") == 9
        writer("os.close(fd)")
    assert used(store) == 20 * MIB + 1
    store.drain()
    assert state(rec / "near") == state(rec / "far") == "committed"
    store.assert_consistent()


def test_writers_share_the_headroom(store: Mount, rec: Path) -> None:
    """8 MiB for each that writes at the moment."""
    limit(store, max_bytes=20 * MIB)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(Peer()) for _ in range(3)]
        for n, writer in enumerate(writers):
            writer.open(rec / str(n), CREATE)
        assert [passing(store, rec / str(n)) for n in range(3)] == [1, 1, 0]
        writers[0]("os.close(fd)")
        wait_until(lambda: state(rec / "0") != "writing", "the first is closed")
        writers[0].open(rec / "another", CREATE)
        assert passing(store, rec / "another") == 1
        assert passing(store, rec / "2") == 0, "for as long as it is open"


@pytest.mark.parametrize("what", ["max_bytes", "max_file_size"])
def test_a_limit_lowered_while_a_file_is_written(store: Mount, rec: Path, what: str) -> None:
    """It holds for the next byte: an error at the close at the latest."""
    store.expect_log("is passed")
    limit(store, **{what: 100 * MIB})
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        writer(f"os.write(fd, bytes({2 * MIB}))")
        limit(store, **{what: MIB})
        assert used(store) == 2 * MIB
        writer("os.pwrite(fd, b'what is there may be rewritten', 0)")
        writer("os.fsync(fd)")
        with contextlib.suppress(PermissionError):
            writer(f"os.write(fd, bytes({MIB}))")
        with errno_is(errno.EDQUOT if what == "max_bytes" else errno.EFBIG):
            writer("os.close(fd)")
    store.drain()
    assert state(rec / "file") == "incomplete"
    store.assert_consistent()


def test_looking_at_a_file_does_not_hide_that_it_grew(store: Mount, rec: Path) -> None:
    """A stat(2) between the last write and the close takes the size over; the limit is judged all the same."""
    store.expect_log("is passed")
    limit(store, max_bytes=16 * MIB)
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        writer(f"os.write(fd, bytes({17 * MIB})), os.fstat(fd).st_size, os.stat({str(rec / 'file')!r}).st_size")
        with errno_is(errno.EDQUOT):
            writer("os.close(fd)")
    store.drain()
    assert state(rec / "file") == "incomplete"


# --- runaways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writers", [1, 4])
@pytest.mark.parametrize("what", ["max_bytes", "max_file_size"])
def test_a_runaway_is_stopped_and_told(
    place_to_run: tuple[Mount, bool], what: str, writers: int, record_property: Callable[[str, object], None]
) -> None:
    """It crosses a limit between two looks at full speed. The file is kept, and can be removed."""
    need_root()
    store, freezes = place_to_run
    store.expect_log("is passed")
    rec = store.start(config=CONFIG).recording()
    limit(store, **{what: 64 * MIB})
    names = [f"file{n}" for n in range(writers)]
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer()) for _ in names]
        for name, peer in zip(names, peers, strict=True):
            peer.open(rec / name, CREATE)
            assert passing(store, rec / name) == 1
        for peer in peers:
            runaway(peer, 1200 if freezes else 100)
        stopped = []
        for peer in peers:
            if freezes:
                with errno_is(errno.EPERM):
                    peer.answer()
            else:
                peer.answer()
            try:
                peer("os.close(fd)")
            except OSError as error:
                stopped.append(error.errno)
    expected = errno.EDQUOT if what == "max_bytes" else errno.EFBIG
    assert stopped == [expected] * writers, "the close tells every one of them"
    sizes = [(rec / name).stat().st_size for name in names]
    overrun = sum(sizes) - 64 * MIB if what == "max_bytes" else max(sizes) - 64 * MIB
    record_property("overrun_bytes", overrun)
    print(f"{file_system(store.root)}, {what}, writers: {writers}: {overrun / MIB:.0f} MiB past the limit")
    assert 0 < overrun < writers * OVERRUN_BYTES
    assert f"its writer {'is stopped' if freezes else 'cannot be stopped on this file system'}" in store.log()
    store.drain()
    assert {state(rec / name) for name in names} == {"incomplete"}
    assert used(store) == sum(sizes)
    store.assert_consistent()
    for name in names:
        (rec / name).unlink()
    (rec / "after").write_bytes(b"room again")
    store.assert_consistent()
    assert used(store) == 10
    assert state(rec / "after") == "committed"
    assert store.leftovers("staging") == []


def test_a_stopped_file_can_be_cut_and_written_on(place_to_run: tuple[Mount, bool]) -> None:
    need_root()
    store, freezes = place_to_run
    store.expect_log("is passed")
    rec = store.start(config=CONFIG).recording()
    limit(store, max_bytes=16 * MIB)
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        runaway(writer, 1000 if freezes else 32)
        with contextlib.suppress(PermissionError):
            writer.answer()
        with errno_is(errno.EDQUOT):
            writer("os.fsync(fd)")
        if freezes:
            with errno_is(errno.EPERM):
                writer("os.pwrite(fd, b'x', 0)")
        os.truncate(rec / "file", MIB)
        writer("os.pwrite(fd, b'goes on', 0)")
        writer("os.close(fd)")
    store.drain()
    assert state(rec / "file") == "committed"
    assert xattr(rec / "file", "sha256") == sha256(b"goes on" + bytes(MIB - 7))
    assert used(store) == MIB
    store.assert_consistent()


def test_a_stopped_file_outlives_the_daemon(place_to_run: tuple[Mount, bool]) -> None:
    """kill -9 after the stop: nothing stays frozen."""
    need_root()
    store, freezes = place_to_run
    store.expect_log("is passed")
    rec = store.start(config=CONFIG).recording()
    limit(store, max_bytes=16 * MIB)
    store.drain()
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        runaway(writer, 1000 if freezes else 32)
        with contextlib.suppress(PermissionError):
            writer.answer()
        wait_until(lambda: "is passed" in store.log(), "it is stopped")
        store.kill()
    store.remount()
    assert state(rec / "file") == "incomplete"
    os.truncate(rec / "file", 100)
    with (rec / "file").open("ab") as stream:
        stream.write(b"written on")
    store.drain()
    assert sha256_of(rec / "file") == sha256(bytes(100) + b"written on")
    (rec / "file").unlink()
    store.assert_consistent()
    assert store.leftovers("staging") == []


def test_the_reserve_of_the_disk_stops_writers(
    store: Mount, workspace: Path, record_property: Callable[[str, object], None]
) -> None:
    """min_free, on a disk that can freeze: the writer has no limit of its own."""
    need_root()
    with disk("ext4", store.root, 1024 * MIB) as why_not:
        if why_not is not None:
            skip(f"needs a small ext4: {why_not}")
        store.expect_log(r"reserve|(?i:space)|ENOSPC")
        reserve = 400 * MIB
        rec = store.start(config=f'min_free = {reserve}\npassthrough = "auto"\n').recording()
        (rec / "before").write_bytes(pattern(MIB))
        with Peer() as writer:
            writer.open(rec / "file", CREATE)
            assert passing(store, rec / "file") == 1
            runaway(writer, 1024)
            with errno_is(errno.EPERM):
                writer.answer()
            with errno_is(errno.ENOSPC):
                writer("os.fsync(fd)")
            info = os.statvfs(store.root)
            overrun = reserve - info.f_bavail * info.f_frsize
            record_property("overrun_bytes", overrun)
            print(f"{overrun / MIB:.0f} MiB of the reserve used up")
            with errno_is(errno.ENOSPC):  # for all others, too; the daemon looks once a second
                (rec / "another").write_bytes(bytes(100 * MIB))
            assert info.f_bavail > 0, "the catalogue needs the rest"
        assert sha256_of(rec / "before") == sha256(pattern(MIB))
        store.drain()
        assert state(rec / "file") == "incomplete"
        store.assert_consistent()
        (rec / "file").unlink()
        store.drain()
        (rec / "after").write_bytes(pattern(MIB))
        store.assert_consistent()
        store.umount()
        lazy_unmount(store.root)
