"""The disk under the root: what the mount tests cannot provoke as root."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

from recfs.disk.commit.digests import SIDE_BY_SIDE_BYTES, Source
from recfs.disk.commit.small import digest_files
from recfs.errors import RootBusy
from recfs.stores import local
from recfs.stores.beneath import Folders
from recfs.stores.local import LocalStore
from recfs.stores.steps import Attrs, Step, StepKind


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


def attrs(mode: int) -> Attrs:
    return Attrs(mode, os.geteuid(), os.getegid(), 1_000_000_001, 2_000_000_002)


@pytest.mark.parametrize(("capabilities", "file_mode", "dir_mode"), [((1 << 40) - 1, 0o040, 0o050), (0, 0o640, 0o750)])
def test_a_daemon_that_cannot_override_modes_keeps_its_own_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: int, file_mode: int, dir_mode: int
) -> None:
    monkeypatch.setattr(local, "effective_capabilities", lambda: capabilities)
    store = LocalStore(tmp_path / "root")
    store.open()
    folder, file = store.home([b"users", b"5"]), store.home([b"users", b"5", b"f"])
    (fd,) = store.make_staging(["a-1"])
    os.close(fd)
    steps = [
        Step(StepKind.MKDIR, folder, attrs=attrs(0o750)),
        Step(StepKind.MOVE, store.staging("a-1"), file, attrs(0o040)),
        Step(StepKind.ATTRS, folder, attrs=attrs(0o050)),
    ]
    assert [outcome.error for outcome in store.apply(steps)] == [0, 0, 0]
    assert (os.stat(file).st_mode & 0o7777, os.stat(folder).st_mode & 0o7777) == (file_mode, dir_mode)
    assert os.stat(file).st_mtime_ns == 2_000_000_002
    store.close()


def test_no_symlink_is_followed(store: LocalStore, tmp_path: Path) -> None:
    store.open()
    (tmp_path / "secret").write_bytes(b"secret")
    os.symlink(tmp_path, store.home([b"users", b"5"]))
    os.symlink(tmp_path / "secret", store.home([b"users", b"6"]))
    for path in ([b"users", b"5", b"secret"], [b"users", b"6"]):
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            store.open_file(store.home(path), os.O_RDONLY)
    store.close()


def test_a_step_that_finds_another_file_leaves_it_alone(store: LocalStore) -> None:
    store.open()
    path = store.home([b"users", b"stranger"])
    Path(os.fsdecode(path)).write_bytes(b"not ours")
    wrong = os.stat(path).st_ino + 1
    moved = store.apply([Step(StepKind.MOVE, path, store.home([b"users", b"x"]), home_ino=wrong)])
    assert moved[0].error != 0
    store.apply([Step(StepKind.REMOVE, path, home_ino=wrong)])
    assert Path(os.fsdecode(path)).read_bytes() == b"not ours"
    store.close()


def test_a_stranger_at_the_target_is_kept(store: LocalStore) -> None:
    store.open()
    (fd,) = store.make_staging(["a-1"])
    os.write(fd, b"ours")
    os.close(fd)
    target = Path(os.fsdecode(store.home([b"users", b"file"])))
    target.write_bytes(b"not ours")
    outcome = store.apply([Step(StepKind.MOVE, store.staging("a-1"), os.fsencode(target))])
    assert outcome[0].error == 0
    assert target.read_bytes() == b"ours"
    kept = list((store.private / "lost+found").iterdir())
    assert [path.read_bytes() for path in kept] == [b"not ours"]
    store.close()


def test_a_batch_follows_the_directories_that_it_moves_and_removes(store: LocalStore) -> None:
    """A path means another directory after each of these steps, and each is meant as it is then."""
    store.open()
    top = [b"users", b"5"]
    home = store.home
    fds = store.make_staging([f"{number}-1" for number in range(4)])
    for fd in fds:
        os.close(fd)
    put = [Step(StepKind.MOVE, store.staging(f"{number}-1"), home([*top, b"a", b"%d" % number])) for number in range(4)]
    steps = [
        Step(StepKind.MKDIR, home(top), attrs=attrs(0o755)),
        Step(StepKind.MKDIR, home([*top, b"a"]), attrs=attrs(0o755)),
        put[0],
        Step(StepKind.MOVE, home([*top, b"a"]), home([*top, b"b"])),
        Step(StepKind.MKDIR, home([*top, b"a"]), attrs=attrs(0o755)),
        put[1],
        Step(StepKind.MOVE, home([*top, b"a"]), home([*top, b"c"])),
        Step(StepKind.MKDIR, home([*top, b"a"]), attrs=attrs(0o755)),
        put[2],
        Step(StepKind.REMOVE, home([*top, b"a", b"2"])),
        Step(StepKind.RMDIR, home([*top, b"a"])),
        Step(StepKind.MKDIR, home([*top, b"a"]), attrs=attrs(0o755)),
        put[3],
    ]
    open_before = set(os.listdir("/proc/self/fd"))
    assert [outcome.error for outcome in store.apply(steps)] == [0] * len(steps)
    assert set(os.listdir("/proc/self/fd")) == open_before
    found = {name: os.listdir(home([*top, name])) for name in os.listdir(home(top))}
    assert found == {b"a": [b"3"], b"b": [b"0"], b"c": [b"1"]}
    store.close()


def test_a_batch_goes_on_where_its_directory_was_replaced_past_recfs(store: LocalStore) -> None:
    store.open()
    top = store.home([b"users", b"5"])
    os.mkdir(top)
    for fd in store.make_staging(["0-1", "1-1"]):
        os.close(fd)
    open_before = set(os.listdir("/proc/self/fd"))
    steps = [
        Step(StepKind.MOVE, store.staging("0-1"), top + b"/0"),
        Step(StepKind.REMOVE, top + b"/0"),
        Step(StepKind.RMDIR, top),
        Step(StepKind.MOVE, store.staging("1-1"), top + b"/1"),
        Step(StepKind.MKDIR, top, attrs=attrs(0o755)),
    ]
    assert [outcome.error for outcome in store.apply(steps)] == [0, 0, 0, errno.ENOENT, 0]
    assert set(os.listdir("/proc/self/fd")) == open_before
    store.close()


def test_a_batch_in_many_directories_keeps_few_of_them_open(store: LocalStore) -> None:
    store.open()
    top = store.home([b"users", b"5"])
    os.mkdir(top)
    steps = []
    for number in range(3 * Folders.LIMIT):
        steps.append(Step(StepKind.MKDIR, top + b"/%d" % number, attrs=attrs(0o755)))
        steps.append(Step(StepKind.SYMLINK, top + b"/%d/link" % number, symlink_target=b"x", attrs=attrs(0o777)))
    most, opened = 0, Folders.of

    def counted(folders: Folders, path: bytes) -> tuple[int, bytes]:
        nonlocal most
        found = opened(folders, path)
        most = max(most, len(os.listdir("/proc/self/fd")))
        return found

    before = len(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folders, "of", counted)
        assert {outcome.error for outcome in store.apply(steps)} == {0}
    assert Folders.LIMIT <= most - before <= Folders.LIMIT + 2
    assert len(os.listdir("/proc/self/fd")) == before
    store.close()


def test_an_open_that_fails_gives_the_lock_back(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refused)
        with pytest.raises(OSError, match="No space left"):
            store.open()
    store.open()
    store.close()


def test_one_daemon_per_root(store: LocalStore) -> None:
    store.open()
    with pytest.raises(RootBusy, match=str(os.getpid())):
        LocalStore(store.root).open()
    store.close()
    again = LocalStore(store.root)
    again.open()
    again.close()


@pytest.mark.parametrize(
    "size", [0, 1, 64 << 10, (64 << 10) + 1, (1 << 20) + 5, SIDE_BY_SIDE_BYTES, SIDE_BY_SIDE_BYTES + 7]
)
@pytest.mark.table(4)
def test_digests_of_every_size(store: LocalStore, size: int) -> None:
    store.open()
    content = hashlib.shake_128(b"recfs").digest(1 << 16) * (size // (1 << 16) + 1)
    content = content[:size]
    path = store.home([b"users", b"file"])
    Path(os.fsdecode(path)).write_bytes(content)
    for paths in ([path], [path] * 9):
        for digest in digest_files([Source(path) for path in paths], store):
            assert digest.error is None
            assert (digest.size_bytes, digest.st_ino) == (size, os.stat(path).st_ino)
            assert digest.sha256 == hashlib.sha256(content).digest()
            assert digest.md5 == hashlib.md5(content).digest()
    missing = digest_files([Source(path + b"x")], store)
    assert isinstance(missing[0].error, FileNotFoundError)
    store.close()


def test_the_largest_file_of_the_disk_is_known(store: LocalStore, tmp_path: Path) -> None:
    store.open()
    path = store.root / "probe"
    path.touch()
    os.truncate(path, store.max_file_bytes)
    assert path.stat().st_size == store.max_file_bytes
    if store.max_file_bytes < 2**63 - 1:
        with pytest.raises(OSError, match="File too large"):
            os.truncate(path, store.max_file_bytes + 1)
    store.close()


@pytest.mark.parametrize("more", [b"", b"12345678\n"], ids=["", "over a longer number"])
def test_the_lock_of_a_daemon_that_is_gone_is_waited_for(tmp_path: Path, more: bytes) -> None:
    """A child that it was just starting has it for a moment more."""
    store = LocalStore(tmp_path / "root")
    store.open()
    store.close()
    with subprocess.Popen(["true"]) as gone:
        pass
    with open(tmp_path / "root/.recfs/lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"%d\n%b" % (gone.pid, more))
        lock.truncate()
        lock.flush()
        letting_go = threading.Timer(0.1, fcntl.flock, (lock, fcntl.LOCK_UN))
        letting_go.start()
        store.open()
        letting_go.join()
    store.close()
