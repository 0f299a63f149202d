"""What may go wrong below or beside files the kernel writes by itself: full disks, a dead daemon, no descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.disks import disk
from tests.helpers.userns import has_sys_admin

from .clients import Peer, need_root, pattern, run, sha256, sha256_of, skip, state, wait_until, xattr
from .crashes import assert_recovered
from .harness import BASE_CONFIG, REPOSITORY, Mount, errno_is, lazy_unmount

pytestmark = pytest.mark.modeless

MIB = 1 << 20
CONFIG = f'{BASE_CONFIG}passthrough = "auto"\n'
CREATE = os.O_RDWR | os.O_CREAT
DESCRIPTORS = 400


@pytest.fixture(autouse=True)
def _privileged() -> None:
    """Everything here is about passthrough."""
    if not has_sys_admin():
        skip("needs CAP_SYS_ADMIN, for FUSE passthrough")


def passing(store: Mount, file: Path) -> int:
    """How many opens of a file the kernel serves by itself."""
    (entry,) = (entry for entry in store.status()["open_files"] if entry["path"] == store.inner(file))
    return int(entry["passthrough"])


# --- the disk below fills up -----------------------------------------------------------------------------------------


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request: pytest.FixtureRequest, store: Mount) -> Iterator[Mount]:
    """A store on a disk of 640 MiB, 8 of them reserved: room for two writers nobody asks. Not started."""
    need_root()
    with disk(request.param, store.root, 640 * MIB) as why_not:
        if why_not is not None:
            skip(f"needs a small {request.param}: {why_not}")
        yield store
        if store.process is not None:
            store.umount()
        lazy_unmount(store.root)


def test_writers_fill_the_disk(small: Mount) -> None:
    """An error at a write, at once; the daemon lives, the metadata is right, and with room again all goes on."""
    small.expect_log(r"(?i)space|ENOSPC|disk|reserve")
    rec = small.start(config=f'min_free = {8 * MIB}\npassthrough = "auto"\n').recording()
    (rec / "before").write_bytes(pattern(MIB, seed=1))
    small.drain()
    fill = f"[os.write(fd, block) for _ in range({640 * MIB} // len(block))] and None"
    with Peer() as one, Peer() as two:
        for peer, name in ((one, "one"), (two, "two")):
            peer.open(rec / name, CREATE)
            peer(f"block = bytes({MIB} // 2)")
            assert passing(small, rec / name) == 1
        for peer in (one, two):
            peer.send(fill)
        for peer in (one, two):
            with errno_is(errno.ENOSPC, errno.EPERM):
                peer.answer()
            with contextlib.suppress(OSError):
                peer("os.close(fd)")
    assert sha256_of(rec / "before") == sha256(pattern(MIB, seed=1))
    sizes = {name: (rec / name).stat().st_size for name in ("one", "two")}
    assert sum(sizes.values()) > 500 * MIB
    (rec / "one").unlink()
    small.drain()
    assert state(rec / "two") in ("committed", "incomplete")
    assert sha256_of(rec / "two") == sha256(bytes(sizes["two"]))
    assert int(xattr(rec, "rbytes")) == sizes["two"] + MIB
    (rec / "after").write_bytes(pattern(MIB, seed=2))
    small.assert_consistent()
    (rec / "two").unlink()
    small.remount()
    assert sorted(os.listdir(rec)) == ["after", "before"]
    for name, seed in (("before", 1), ("after", 2)):
        assert sha256_of(rec / name) == sha256(pattern(MIB, seed=seed))
    small.assert_consistent()
    assert small.leftovers("staging") == []


# --- the daemon dies -------------------------------------------------------------------------------------------------


def test_every_byte_written_before_the_daemon_died_is_kept(store: Mount) -> None:
    rec = store.start(config=CONFIG).recording()
    store.drain()
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        assert passing(store, rec / "file") == 1
        for n in range(64):
            writer(f"os.write(fd, b'%06d' % {n} + bytes(32_762))")
        store.kill(unmount=False)
        content = b"".join(b"%06d" % n + bytes(32_762) for n in range(64))
        with contextlib.suppress(OSError):  # whether it still succeeds is the kernel's to say
            if writer("os.write(fd, b'late')"):
                content += b"late"
        with errno_is(errno.ENOTCONN, errno.ECONNABORTED):
            writer(f"os.open({str(rec / 'another')!r}, {CREATE})")
        with contextlib.suppress(OSError):
            writer("os.close(fd)")
    store.clear()
    store.remount()
    assert state(rec / "file") == "incomplete"
    assert (rec / "file").stat().st_size == len(content)
    assert sha256_of(rec / "file") == sha256(content)
    assert int(xattr(rec, "rbytes")) == len(content)
    assert_recovered(store)


def test_a_writer_of_a_dead_daemon_cannot_change_what_is_committed(store: Mount) -> None:
    """The kernel lets it write on to the file below, whoever serves that now."""
    rec = store.start(config=CONFIG).recording()
    store.drain()
    with Peer() as orphan:
        orphan.open(rec / "file", CREATE)
        orphan("os.write(fd, b'begun ')")
        store.kill()
        store.remount()
        assert (rec / "file").read_bytes() == b"begun "
        with (rec / "file").open("ab") as stream:
            stream.write(b"and finished")
        with contextlib.suppress(OSError):
            store.call("drain", timeout_s=1.0)
        with contextlib.suppress(OSError):
            orphan("os.pwrite(fd, b'BEGUN ', 0)")
    wait_until(lambda: state(rec / "file") == "committed", "the file is committed", 30)
    store.drain()
    assert xattr(rec / "file", "sha256") == sha256_of(rec / "file")
    assert_recovered(store)


def test_an_overwrite_beside_a_reader_is_taken_back(store: Mount) -> None:
    rec = store.start(config=CONFIG).recording()
    (rec / "file").write_bytes(pattern(200_000))
    store.drain()
    with Peer() as reader, Peer() as writer:
        reader.open(rec / "file", os.O_RDONLY)
        writer.open(rec / "file", os.O_WRONLY | os.O_TRUNC)
        writer("os.write(fd, b'half of the new bytes')")
        assert reader("os.pread(fd, 100, 0)") == b"half of the new bytes"
        assert passing(store, rec / "file") == 2
        store.kill()
    store.remount()
    store.drain()
    assert sha256_of(rec / "file") == sha256(pattern(200_000)) == xattr(rec / "file", "sha256")
    assert state(rec / "file") == "committed"
    assert int(xattr(rec, "rbytes")) == 200_000
    assert store.leftovers("staging") == []
    assert_recovered(store)


def test_a_writer_that_dies_with_its_bytes_is_committed(store: Mount) -> None:
    """kill -9 of the client is a close."""
    rec = store.start(config=CONFIG).recording()
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        writer(f"os.write(fd, bytes({MIB}))")
    store.drain()
    assert state(rec / "file") == "committed"
    assert xattr(rec / "file", "sha256") == sha256(bytes(MIB))


# --- no descriptors left ---------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(store: Mount) -> Iterator[tuple[Mount, Path, list[int]]]:
    """A store whose daemon may have few descriptors, with 100 files, and the test's own of what it opens there."""
    store.expect_log(r"(?i)too many open files")
    store.start(config=CONFIG, prefix=["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"])
    rec = store.recording()
    for n in range(100):
        (rec / f"old{n}").write_bytes(b"old")
    store.drain()
    held: list[int] = []
    yield store, rec, held
    for fd in held:
        with contextlib.suppress(OSError):
            os.close(fd)


def exhaust(rec: Path, held: list[int]) -> None:
    """Open files, for writing and for reading, until it is refused."""
    for flags, name in ((CREATE, "new"), (os.O_RDONLY, "old")):
        with errno_is(errno.EMFILE, errno.ENFILE):
            held.extend(os.open(rec / f"{name}{n}", flags, 0o644) for n in range(2 * DESCRIPTORS))


def test_opens_are_refused_when_descriptors_run_out(narrow: tuple[Mount, Path, list[int]]) -> None:
    store, rec, held = narrow
    exhaust(rec, held)
    assert len(held) > DESCRIPTORS // 2
    writers = [fd for fd in held if os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2].startswith("new")]
    for fd in writers:
        assert os.write(fd, b"what is open goes on") == 20
    assert len(os.listdir(rec)) == 100 + len(writers)
    (rec / "directory").mkdir()
    os.rename(rec / "old0", rec / "directory" / "moved")
    (rec / "old1").unlink()
    for fd in held:
        os.close(fd)
    held.clear()
    assert store.process is not None
    descriptors = Path(f"/proc/{store.process.pid}/fd")
    wait_until(lambda: len(os.listdir(descriptors)) < DESCRIPTORS // 2 + 100, "the daemon has closed them, too")
    store.drain()
    (rec / "after").write_bytes(b"works again")
    store.drain()
    assert {state(rec / name) for name in ("after", "new0", f"new{len(writers) - 1}")} == {"committed"}
    assert (rec / f"new{len(writers) - 1}").read_bytes() == b"what is open goes on"
    assert re.search(r"(?i)too many open files", store.log())
    assert "Traceback" not in store.log()
    store.assert_consistent()


def test_status_answers_when_descriptors_ran_out(narrow: tuple[Mount, Path, list[int]]) -> None:
    """That is when an operator asks for it."""
    store, rec, held = narrow
    exhaust(rec, held)
    status = [sys.executable, "-m", "recfs", "status", "--root", str(store.root)]
    done = run("timeout", "10", *status, cwd=REPOSITORY, check=False)
    for fd in held:
        os.close(fd)
    held.clear()
    assert done.returncode == 0, done.stderr.decode()
    assert "Traceback" not in store.log()


# --- less than this machine could ------------------------------------------------------------------------------------


def use(store: Mount, rec: Path) -> None:
    """Write, read, map, truncate, overwrite."""
    content = pattern(300_000)
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        writer("os.ftruncate(fd, 300_000)")
        assert passing(store, rec / "file") == 0
        for at in range(0, 300_000, 50_000):
            writer(f"os.pwrite(fd, {content[at : at + 50_000]!r}, {at})")
        assert int(xattr(rec, "rbytes")) == 300_000 == (rec / "file").stat().st_size
        with (rec / "file").open("rb") as reader:
            assert reader.read() == content
        writer("view = mmap.mmap(fd, 0)")
        writer("view[0:6] = b'mapped'")
        writer("view.close(), os.close(fd)")
    store.drain()
    assert xattr(rec / "file", "sha256") == sha256(b"mapped" + content[6:]) == sha256_of(rec / "file")
    (rec / "file").write_bytes(b"short")
    (rec / "file").chmod(0o4755)
    with Peer(12345) as stranger:
        (rec / "file").chmod(0o4777)
        stranger.open(rec / "file", os.O_WRONLY | os.O_APPEND)
        stranger("os.write(fd, b' and evil')")
    assert (rec / "file").stat().st_mode & 0o7777 == 0o777
    store.drain()
    assert xattr(rec / "file", "sha256") == sha256(b"short and evil")
    store.assert_consistent()


@pytest.mark.parametrize(
    ("without", "why"),
    [
        ("passthrough", "does not offer FUSE passthrough; it takes Linux 6.9 or newer"),
        ("reply", "the extension recfs.fuse._fuse_reply is not there"),
        ("killpriv", None),
        ("passthrough,killpriv,reply", "the extension recfs.fuse._fuse_reply is not there"),
    ],
)
def test_it_works_without(store: Mount, without: str, why: str | None) -> None:
    """An old kernel, or no compiler at the installation; and it is said, in status and log."""
    store.expect_log(r"kernel passthrough: off")
    rec = store.start(config=CONFIG, env={"RECFS_TEST_WITHOUT": without}).recording()
    told = store.status()["passthrough"]
    assert told["killpriv"] is ("killpriv" not in without)
    assert told["open_flags"] is ("reply" not in without)
    if why is None:
        assert (told["reads"], told["writes"], told["why_not"]) == (True, True, None)
        return
    assert (told["reads"], told["writes"]) == (False, False)
    assert why in told["why_not"]
    assert f"WARNING recfs.daemon kernel passthrough: off: {told['why_not']}" in store.log()
    use(store, rec)


def test_a_store_on_overlayfs(store: Mount, workspace: Path) -> None:
    """A container's own layer: the kernel takes no backing files from there."""
    store.expect_log(r"kernel passthrough: off")
    layers = [workspace / f"overlay-{store.base.name}-{name}" for name in ("lower", "upper", "work")]
    for layer in layers:
        layer.mkdir()
    options = "lowerdir={},upperdir={},workdir={}".format(*layers)
    made = run("mount", "-t", "overlay", "-o", options, "recfs-test", store.root, check=False)
    if made.returncode:
        skip(f"needs overlayfs: {made.stderr.decode().strip()}")
    rec = store.start(config=CONFIG).recording()
    told = store.status()["passthrough"]
    assert (told["reads"], told["writes"]) == (False, False)
    assert "the store lies on a stacked file system (overlayfs" in told["why_not"]
    assert told["why_not"] in store.log()
    use(store, rec)
    store.umount()
    lazy_unmount(store.root)
