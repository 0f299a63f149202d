"""The disk under the root: what the mount tests cannot provoke as root."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from recfs.errors import RootBusy
from recfs.fs.digests import SIDE_BY_SIDE_BYTES, Source, digest_files
from recfs.stores import local
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
