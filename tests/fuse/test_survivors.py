"""Writers whom the kernel serves by itself (passthrough), and who go on while the daemon dies and another starts."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.disks import disk
from tests.helpers.userns import has_sys_admin

from .clients import Peer, need_root, pattern, run, sha256, sha256_of, skip, state, wait_until, xattr
from .harness import Mount, errno_is, lazy_unmount

pytestmark = pytest.mark.modeless

MIB = 1 << 20
CONFIG = f'min_free = {8 * MIB}\npassthrough = "auto"\npassthrough_headroom = "4 MiB"\n'
CREATE = os.O_RDWR | os.O_CREAT
OLD = pattern(3 * MIB, seed=1)


@pytest.fixture(autouse=True)
def _privileged() -> None:
    """Everything here is about passthrough."""
    if not has_sys_admin():
        skip("needs CAP_SYS_ADMIN, for FUSE passthrough")


@pytest.fixture(params=["tmpfs", "ext4"])
def rec(request: pytest.FixtureRequest, store: Mount) -> Iterator[Path]:
    """A recording of user 1 on a running store, on a disk that cannot stop a writer, and on one that can."""
    need_root()
    with disk(request.param, store.root, 640 * MIB) as why_not:
        if why_not is not None:
            skip(f"needs a small {request.param}: {why_not}")
        store.expect_log(r"still open for writing since before this start|has let go|recovery:")
        path = store.start(config=CONFIG).recording()
        store.drain()
        yield path
        if store.process is not None:
            store.umount()
        lazy_unmount(store.root)


def restart(store: Mount) -> None:
    """Kill the daemon, and start another one."""
    store.kill()
    store.remount()


def survivors(store: Mount) -> list[str]:
    found: list[str] = store.status()["survivors"]
    return found


def used(store: Mount) -> int:
    return int(xattr(store.path / "users" / "1", "quota.used_bytes"))


def until_committed(store: Mount, file: Path) -> None:
    wait_until(lambda: not survivors(store), "the writer has let go")
    store.drain()
    assert state(file) == "committed"
    assert xattr(file, "sha256") == sha256_of(file)


def passes(store: Mount, file: Path) -> bool:
    return any(each["path"] == store.inner(file) and each["passthrough"] for each in store.status()["open_files"])


def test_a_recorder_goes_on_and_its_file_is_whole(store: Mount, rec: Path) -> None:
    with Peer() as recorder:
        recorder.open(rec / "file", CREATE)
        assert passes(store, rec / "file")
        recorder("os.write(fd, b'1' * 5000)")
        for round_ in (2, 3):  # the second daemon dies, too
            restart(store)
            assert survivors(store) == [store.inner(rec / "file")]
            assert state(rec / "file") == "writing"
            recorder(f"os.write(fd, b'{round_}' * 5000)")
            assert (rec / "file").stat().st_size == 5000 * round_
            assert (rec / "file").read_bytes()[-5000:] == b"%d" % round_ * 5000
            assert used(store) == 5000 * round_
        store.drain()
        assert state(rec / "file") == "writing"
        recorder("os.close(fd)")
    until_committed(store, rec / "file")
    assert (rec / "file").read_bytes() == b"1" * 5000 + b"2" * 5000 + b"3" * 5000
    store.assert_consistent()
    assert store.leftovers("staging") == store.leftovers("lost+found") == []


@pytest.mark.parametrize("fsynced", [False, True])
def test_an_overwrite_goes_on(store: Mount, rec: Path, *, fsynced: bool) -> None:
    (rec / "file").write_bytes(OLD)
    store.drain()
    with Peer() as writer:
        writer.open(rec / "file", os.O_RDWR | os.O_TRUNC)
        writer("os.write(fd, b'new' * 1000)")
        if fsynced:
            writer("os.fsync(fd)")
        restart(store)
        assert state(rec / "file") == "writing"
        assert (rec / "file").read_bytes() == b"new" * 1000
        assert used(store) == 3000
        writer("os.write(fd, b'new' * 1000)")
        writer("os.close(fd)")
    until_committed(store, rec / "file")
    assert (rec / "file").read_bytes() == b"new" * 2000
    store.assert_consistent()
    assert store.leftovers("staging") == store.leftovers("lost+found") == []


def test_one_that_dies_with_the_machine_gives_the_old_version_back(store: Mount, rec: Path) -> None:
    """The row says who holds which version all the while: when the writer is gone at a start, that is a crash."""
    (rec / "file").write_bytes(OLD)
    store.drain()
    with Peer() as writer:
        writer.open(rec / "file", os.O_RDWR | os.O_TRUNC)
        writer("os.write(fd, b'new')")
        restart(store)
        assert state(rec / "file") == "writing"
        store.kill()
    store.remount()
    assert (rec / "file").read_bytes() == OLD
    store.assert_consistent()


def test_what_is_written_beside_readers_goes_on_in_place(store: Mount, rec: Path) -> None:
    (rec / "file").write_bytes(OLD)
    store.drain()
    with Peer() as reader, Peer() as writer:
        reader.open(rec / "file", os.O_RDONLY)
        writer.open(rec / "file", os.O_RDWR)
        writer("os.pwrite(fd, b'changed', 0)")
        restart(store)
        assert state(rec / "file") == "writing"
        writer("os.pwrite(fd, b'changed', 100)")
        writer("os.close(fd)")
        reader("os.close(fd)")
    until_committed(store, rec / "file")
    assert sha256_of(rec / "file") == sha256(b"changed" + OLD[7:100] + b"changed" + OLD[107:])
    store.assert_consistent()
    assert store.leftovers("staging") == store.leftovers("lost+found") == []


def test_what_others_close_is_not_committed_while_it_can_be_changed(store: Mount, rec: Path) -> None:
    with Peer() as recorder:
        recorder.open(rec / "file", CREATE)
        recorder("os.write(fd, b'a' * 4096)")
        restart(store)
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY):  # each way to open it, now that another has it
            fd = os.open(rec / "file", flags)
            if flags != os.O_RDONLY:
                os.pwrite(fd, b"b", 0)
            os.close(fd)
        os.truncate(rec / "file", 8192)
        store.drain()
        assert state(rec / "file") == "writing"
        recorder("os.pwrite(fd, b'late', 0)")
        assert (rec / "file").read_bytes()[:8] == b"lateaaaa"
        recorder("os.close(fd)")
    until_committed(store, rec / "file")
    assert (rec / "file").read_bytes() == b"late" + b"a" * 4092 + bytes(4096)
    store.assert_consistent()


def test_what_is_mapped_is_not_committed(store: Mount, rec: Path) -> None:
    with Peer() as recorder:
        recorder.open(rec / "file", CREATE)
        recorder("os.write(fd, b'a' * 8192)")
        recorder("mapped = map_shared(fd, 8192)")
        recorder("os.close(fd)")
        restart(store)
        (rec / "other").write_bytes(b"closed later, and nobody has it mapped")
        wait_until(lambda: state(rec / "other") == "committed", "the other one is committed")
        assert state(rec / "file") in ("writing", "sealing")
        recorder("mapped[:4] = b'late'")
        recorder("unmap(mapped)")
    wait_until(lambda: state(rec / "file") == "committed", "it is committed")
    assert xattr(rec / "file", "sha256") == sha256_of(rec / "file")
    assert (rec / "file").read_bytes() == b"late" + b"a" * 8188
    store.assert_consistent()


def test_a_reader_is_none(store: Mount, rec: Path) -> None:
    (rec / "file").write_bytes(OLD)
    store.drain()
    with Peer() as reader:
        reader.open(rec / "file", os.O_RDONLY)
        restart(store)
        assert survivors(store) == []
        assert state(rec / "file") == "committed"
        (rec / "file").write_bytes(b"new")
        store.drain()
        assert reader("os.pread(fd, 4, 0)") == OLD[:4]
    assert (rec / "file").read_bytes() == b"new"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["unlink", "replace", "rename", "remove its directory"])
def test_its_name_goes(store: Mount, rec: Path, when: str, how: str) -> None:
    """… *when* the daemon died."""

    def act() -> None:
        if how == "unlink":
            (rec / "file").unlink()
        elif how == "rename":
            (rec / "file").rename(rec / "elsewhere")
        elif how == "remove its directory":
            shutil.rmtree(rec)
        else:
            (rec / "other").write_bytes(b"other")
            (rec / "other").replace(rec / "file")

    with Peer() as recorder:
        recorder.open(rec / "file", CREATE)
        recorder(f"os.write(fd, bytes({MIB}))")
        if when == "before":
            act()
        restart(store)
        if when == "after":
            act()
        store.drain()
        recorder("os.write(fd, b'more')")
        recorder("os.close(fd)")
    wait_until(lambda: not survivors(store), "the writer has let go")
    store.drain()
    names = {"unlink": [], "replace": ["file"], "rename": ["elsewhere"]}.get(how, [])
    assert (sorted(os.listdir(rec)) if rec.exists() else []) == names
    if how == "rename":
        assert (rec / "elsewhere").read_bytes() == bytes(MIB) + b"more"
        assert state(rec / "elsewhere") == "committed"
    if how == "replace":
        assert (rec / "file").read_bytes() == b"other"
    store.assert_consistent()
    assert store.leftovers("staging") == store.leftovers("lost+found") == []
    assert used(store) == sum((rec / name).stat().st_size for name in names)


def test_limits_hold_for_it(store: Mount, rec: Path) -> None:
    stops = "ext4" in run("stat", "-f", "-c", "%T", store.root).stdout.decode()
    store.expect_log(r"limit|quota")
    os.setxattr(store.path / "users" / "1", "user.recfs.quota.max_bytes", b"%d" % (32 * MIB))
    with Peer() as recorder:
        recorder.open(rec / "file", CREATE)
        assert passes(store, rec / "file")
        recorder(f"os.write(fd, bytes({MIB}))")
        restart(store)
        recorder(f"os.write(fd, bytes({40 * MIB}))")
        wait_until(lambda: used(store) > 32 * MIB, "the metadata knows of it")
        if stops:

            def refused() -> bool:
                with contextlib.suppress(PermissionError):
                    recorder("os.write(fd, b'x')")
                    return False
                return True

            wait_until(refused, "it is stopped")
            restart(store)  # the one that comes then does not set it free
            with errno_is(errno.EPERM):
                recorder("os.write(fd, b'x')")
        with contextlib.suppress(OSError):
            recorder("os.close(fd)")
    wait_until(lambda: not survivors(store), "the writer has let go")
    store.drain()
    assert state(rec / "file") == "incomplete"
    (rec / "file").unlink()
    store.drain()
    assert used(store) == 0
    store.assert_consistent()
    assert store.leftovers("staging") == store.leftovers("lost+found") == []


def test_it_may_outlive_an_orderly_stop(store: Mount, rec: Path) -> None:
    with Peer() as recorder:
        recorder.open(rec / "file", CREATE)
        recorder("os.write(fd, b'one')")
        restart(store)
        lazy_unmount(store.path)
        store.wait()
        recorder("os.write(fd, b'two')")
        store.remount()
        assert state(rec / "file") == "writing"
        recorder("os.write(fd, b'three')")
        recorder("os.close(fd)")
    until_committed(store, rec / "file")
    assert (rec / "file").read_bytes() == b"onetwothree"
    store.assert_consistent()
