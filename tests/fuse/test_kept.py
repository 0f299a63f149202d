"""A daemon that is killed (SIGKILL) while a service manager keeps its mount: the next one goes on, and nobody notices.

`tests/helpers/descriptor_store.py` plays systemd.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recfs.errors import RecfsError
from tests.helpers.descriptor_store import DescriptorStore

from .clients import Peer, pattern, sha256_of, state, wait_until, xattr
from .harness import BASE_CONFIG, Mount, lazy_unmount, mounted
from .s3 import GET, PUT, S3, s3
from .test_handover import CREATE, MIB, Looks, recorders

__all__ = ["s3"]

pytestmark = [pytest.mark.modes("auto", "off"), pytest.mark.timeout(240)]


@pytest.fixture
def kept(store: Mount) -> Iterator[Mount]:
    """A running store whose mount is kept should its daemon die."""
    keeper = DescriptorStore(store.base)
    try:
        store.start(config=BASE_CONFIG, keeper=keeper)
        wait_until(lambda: len(keeper.kept) == 2, "the mount is kept")
        yield store
        if store.process is not None:
            store.umount()
            wait_until(lambda: not keeper.kept, "an orderly end leaves nothing to keep")
    finally:
        keeper.close()


def killed(store: Mount) -> None:
    """Kill the daemon, and have the next one go on."""
    store.kill(unmount=False)
    assert mounted(store.path)
    store.remount()


def assert_recorded(kept: Mount, rec: Path, told: list[dict[str, float | str]]) -> None:
    """All that recorders wrote is committed as they tell it, and nothing is left beside."""
    kept.drain()
    for number, each in enumerate(told):
        file = rec / f"rec{number}.ts"
        assert state(file) == "committed"
        assert xattr(file, "sha256") == each["sha256"] == sha256_of(file)
        assert file.stat().st_size == each["bytes"]
    kept.assert_consistent()
    assert kept.leftovers("staging") == kept.leftovers("lost+found") == []


@pytest.mark.slow
def test_recorders_and_everybody_else_go_on(kept: Mount, outside: Path) -> None:
    rec = kept.recording()
    with recorders(rec, outside / "end", 4) as told, Looks(kept.recording(2, 1)) as looks:
        for _ in range(3):
            rounds = looks.rounds
            wait_until(lambda rounds=rounds: looks.rounds > rounds + 2, "programs go on")
            killed(kept)
    assert looks.failed == []
    assert_recorded(kept, rec, told)


def test_what_is_open_stays_what_it_is(kept: Mount) -> None:
    rec = kept.recording()
    whole = pattern(3 * MIB, seed=1)
    (rec / "whole").write_bytes(whole)
    (rec / "other").write_bytes(b"other")
    kept.drain()
    with Peer() as peer:
        peer.open(rec / "whole", os.O_RDONLY, "reader")
        peer.open(rec / "new", CREATE, "writer")
        peer("os.write(writer, b'before ')")
        peer.open(rec / "other", os.O_RDWR, "changer")
        peer("os.pwrite(changer, b'O', 0)")
        peer.open(rec / "old", CREATE, "closed")
        peer("os.write(closed, b'closed'); os.close(closed)")
        peer.open(rec / "gone", CREATE, "nameless")
        peer("os.write(nameless, b'still here')")
        peer("os.fchmod(nameless, 0o640)")
        peer(f"os.unlink({str(rec / 'gone')!r})")
        killed(kept)
        assert peer("os.pread(nameless, 100, 0)") == b"still here"
        assert peer("os.fstat(nameless).st_mode & 0o7777") == 0o640
        peer("os.fchmod(nameless, 0o755); os.fchown(nameless, 1234, 4321)")
        peer("os.fchmod(nameless, 0o751)")
        peer("os.write(nameless, b', and more')")
        assert peer("os.pread(nameless, 100, 0)") == b"still here, and more"
        assert peer("os.fstat(nameless).st_nlink") == 0
        assert peer("os.pread(reader, 5, 3)") == whole[3:8]
        peer("os.write(writer, b'after')")
        assert peer("os.fstat(writer).st_size") == len(b"before after")
        peer("os.pwrite(changer, b'R', 4)")
        assert state(rec / "new") == state(rec / "other") == "writing"
        assert (rec / "new").read_bytes() == b"before after"
        killed(kept)
        assert peer("os.fstat(nameless).st_mode & 0o7777") == 0o751
        assert [peer(f"os.fstat(nameless).{each}") for each in ("st_uid", "st_gid")] == [1234, 4321]
        peer("os.ftruncate(writer, 6)")
        peer("os.fsync(writer)")
        peer("os.ftruncate(nameless, 5)")
        assert peer("os.pread(nameless, 100, 0)") == b"still"
        for each in ("reader", "writer", "changer", "nameless"):
            peer(f"os.close({each})")
    kept.drain()
    assert (rec / "new").read_bytes() == b"before"
    assert (rec / "other").read_bytes() == b"OtheR"
    assert (rec / "old").read_bytes() == b"closed"
    for file in (rec / "new", rec / "other", rec / "whole", rec / "old"):
        assert state(file) == "committed"
        assert xattr(file, "sha256") == sha256_of(file)
    assert kept.status()["open_files"] == []
    kept.assert_consistent()


def left(store: Mount) -> None:
    """Have the daemon end as for `systemctl restart`, and the next one go on."""
    assert store.process is not None
    store.call("leave")
    assert store.process.wait(60) == 0
    store.forsake()
    assert mounted(store.path)
    store.remount()


@pytest.mark.slow
def test_a_daemon_that_is_restarted_leaves_its_mount_to_the_next(kept: Mount, outside: Path) -> None:
    rec = kept.recording()
    with recorders(rec, outside / "end", 4) as told, Looks(kept.recording(2, 1)) as looks, Peer() as peer:
        peer.open(rec / "gone", CREATE, "nameless")
        peer("os.write(nameless, b'still here')")
        peer(f"os.unlink({str(rec / 'gone')!r})")
        for number in range(3):
            rounds = looks.rounds
            wait_until(lambda rounds=rounds: looks.rounds > rounds + 2, "programs go on")
            left(kept)
            assert peer("os.pread(nameless, 100, 0)") == b"still here"
            assert kept.log().count("the mount of the daemon before this one goes on") == number + 1
        killed(kept)
        assert kept.log().count("the daemon before this one died") == 1, "who had left before had not died"
        kept.expect_log("the daemon before this one died")
    assert looks.failed == []
    assert_recorded(kept, rec, told)


@pytest.mark.slow
@pytest.mark.modeless
def test_a_restart_does_not_wait_for_s3_for_long(s3: S3, store: Mount) -> None:
    """What is being fetched and sent is broken off after some seconds; who reads it waits, and is told nothing."""
    keeper = DescriptorStore(store.base)
    content = pattern(MIB, seed=2)
    got: list[bytes] = []
    try:
        rec = store.start(config=s3.config(), keeper=keeper).recording()
        (rec / "far").write_bytes(content)
        store.drain()
        store.call("evict", path=store.inner(rec / "far"))
        store.expect_log("S3 leaves requests|requests hanging|the daemon before this one died|broken off")
        with s3.holding(GET) as reads, s3.holding(PUT) as writes:
            reader = threading.Thread(target=lambda: got.append((rec / "far").read_bytes()))
            reader.start()
            wait_until(lambda: reads.waiting > 0, "S3 is asked for the bytes")
            (rec / "new").write_bytes(b"new")
            wait_until(lambda: writes.waiting > 0, "S3 is sent others")
            left(store)
            assert (rec / "new").read_bytes() == b"new"
            reads.open()
            writes.open()
            reader.join(60)
        assert got == [content]
        store.drain()
        assert state(rec / "new") == "stored"
        store.assert_consistent()
        store.umount()
    finally:
        keeper.close()


@pytest.mark.modeless
def test_a_daemon_leaves_nothing_where_the_next_one_could_not_go_on(kept: Mount, store: Mount) -> None:
    conf = kept.base / "recfs.conf"
    before = conf.read_text() if conf.exists() else ""
    for text, said in (('passthrough = "off"\n', "passthrough"), ('[quota]\nmax_files = "many"\n', "max_files")):
        conf.write_text(before + text)
        with pytest.raises(RecfsError, match=said):
            kept.call("leave")
        assert kept.recording().is_dir()
    conf.write_text(before)


@pytest.mark.modeless
def test_a_mount_that_was_taken_away_is_left_to_nobody(kept: Mount) -> None:
    """The next daemon could not go on with it; this one still ends it in order."""
    rec = kept.recording()
    with Peer() as peer:
        peer.open(rec / "file", CREATE)
        lazy_unmount(kept.path)
        with pytest.raises(RecfsError, match="taken away"):
            kept.call("leave")
        assert peer("os.write(fd, b'still served')") == 12
    assert kept.wait() == 0


@pytest.mark.modeless
def test_a_daemon_leaves_nothing_where_nobody_keeps_it(store: Mount) -> None:
    store.start(config=BASE_CONFIG)
    with pytest.raises(RecfsError, match="no service manager keeps it"):
        store.call("leave")
    assert store.recording().is_dir()


def _make_exclusively(rec: Path) -> None:
    fd = os.open(rec / "new", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        os.write(fd, b"x")
        assert os.pread(fd, 10, 0) == b"x"
    finally:
        os.close(fd)


ONCE: dict[str, tuple[Callable[[Path], object], Callable[[Path], bool]]] = {
    "mkdir": (lambda rec: (rec / "new").mkdir(), lambda rec: (rec / "new").is_dir()),
    "mknod": (lambda rec: os.mknod(rec / "new", 0o100644), lambda rec: (rec / "new").read_bytes() == b""),
    "symlink": (lambda rec: (rec / "new").symlink_to("file"), lambda rec: (rec / "new").read_bytes() == b"file"),
    "create": (_make_exclusively, lambda rec: (rec / "new").read_bytes() == b"x"),
    "unlink": (lambda rec: (rec / "file").unlink(), lambda rec: "file" not in os.listdir(rec)),
    "rmdir": (lambda rec: (rec / "folder").rmdir(), lambda rec: "folder" not in os.listdir(rec)),
    "rename": (lambda rec: (rec / "file").rename(rec / "new"), lambda rec: (rec / "new").read_bytes() == b"file"),
    "setattr": (lambda rec: (rec / "file").chmod(0o600), lambda rec: (rec / "file").stat().st_mode & 0o777 == 0o600),
    "setxattr": (
        lambda rec: os.setxattr(rec / "file", "user.new", b"1", os.XATTR_CREATE),
        lambda rec: os.getxattr(rec / "file", "user.new") == b"1",
    ),
    "removexattr": (
        lambda rec: os.removexattr(rec / "file", "user.note"),
        lambda rec: "user.note" not in os.listxattr(rec / "file"),
    ),
    "release": (lambda rec: (rec / "new").write_bytes(b"new"), lambda rec: (rec / "new").read_bytes() == b"new"),
    "left": (lambda rec: (rec / "new").write_bytes(b"new"), lambda rec: (rec / "new").read_bytes() == b"new"),
    "backing": (_make_exclusively, lambda rec: (rec / "new").read_bytes() == b"x"),
}
"""Requests, and steps of requests, by name: what makes the kernel send one, and what has to be true afterwards."""


@pytest.mark.modeless
@pytest.mark.parametrize("name", ONCE)
def test_what_was_done_and_not_answered_is_done_once(store: Mount, name: str) -> None:
    """The daemon dies with the request carried out, and before its answer leaves: the kernel sends it once more."""
    keeper = DescriptorStore(store.base)
    planted = store.base / "planted"
    act, is_done = ONCE[name]
    failed: list[Exception] = []
    try:
        env = {"RECFS_TEST_DIE_BEFORE_ANSWER": str(planted)}
        rec = store.start(config=BASE_CONFIG, env=env, keeper=keeper).recording()
        (rec / "file").write_bytes(b"file")
        os.setxattr(rec / "file", "user.note", b"1")
        (rec / "folder").mkdir()
        store.drain()
        planted.write_text(name)

        def run() -> None:
            try:
                act(rec)
            except OSError as error:
                failed.append(error)

        acting = threading.Thread(target=run)
        acting.start()
        assert store.ended() == -9
        store.remount()
        acting.join(60)
        assert not acting.is_alive()
        assert failed == []
        assert is_done(rec)
        store.drain()
        assert store.status()["open_files"] == []
        for path in store.home(rec).iterdir():
            assert path.is_dir() or path.is_symlink() or not is_written(path), "the kernel has let go of it"
        store.assert_consistent()
        store.umount()
    finally:
        keeper.close()


def is_written(path: Path) -> bool:
    """Whether anybody, the kernel itself too, has a file open for writing (F_SETLEASE, fcntl(2))."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@pytest.mark.modeless
def test_a_request_of_between_the_daemons_is_answered_by_the_next(kept: Mount) -> None:
    rec = kept.recording()
    kept.kill(unmount=False)
    made = threading.Thread(target=(rec / "made").mkdir)
    made.start()
    made.join(0.2)
    assert made.is_alive()
    kept.remount()
    made.join(60)
    assert (rec / "made").is_dir()


@pytest.mark.modeless
def test_after_a_handover_the_mount_is_kept_as_before(kept: Mount) -> None:
    rec = kept.recording()
    with Peer() as peer:
        peer.open(rec / "file", CREATE)
        peer("os.write(fd, b'one ')")
        said = kept.upgrade()
        assert "goes on" in said, said
        peer("os.write(fd, b'two ')")
        killed(kept)
        peer("os.write(fd, b'three'); os.close(fd)")
    kept.drain()
    assert (rec / "file").read_bytes() == b"one two three"
    assert state(rec / "file") == "committed"


@pytest.mark.modeless
def test_a_mount_that_cannot_go_on_is_dead_as_ever(kept: Mount) -> None:
    rec = kept.recording()
    kept.drain()
    kept.kill(unmount=False)
    before = kept.started
    other = before._replace(config=f'{BASE_CONFIG}passthrough = "off"\n')
    process = kept.spawn(other, kept.base / "notify", debug=False)
    assert process.wait(60) == 5
    kept.expect_log("passthrough")
    with pytest.raises(OSError):
        os.statvfs(rec)
    kept.start(config=BASE_CONFIG, keeper=before.keeper)
    assert rec.is_dir()
