"""The extension that does system calls on many files, and what stands for it in other tests, do the same."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recfs.disk.commit.digests import Source
from recfs.disk.commit.small import digest_files
from recfs.stores import many
from recfs.stores.local import LocalStore
from recfs.stores.steps import Attrs, Outcome, Step, StepKind
from tests.helpers import one_by_one

REAL = many.extension
"""As it was built; without it nothing here is proved, so that is no reason to leave the tests out."""


@pytest.fixture(params=["the extension", "what stands for it"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    assert REAL is not None
    chosen = REAL if request.param == "the extension" else one_by_one
    monkeypatch.setattr(many, "extension", chosen)
    return chosen


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def error_of(found: tuple[int, ...]) -> int:
    return found[0]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_files_stand_in_the_buffer_one_after_another(calls: Any, root: int, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, content in (("a", b"first"), ("sub/b", b""), ("sub/c", b"third")):
        (tmp_path / name).write_bytes(content)
    os.chmod(tmp_path / "a", 0o4751)
    os.utime(tmp_path / "a", ns=(5, -7))
    buffer = memoryview(bytearray(100))
    found = calls.read(root, (b"a", b"sub/b", b"missing", b"sub/c"), bytes(4), buffer)
    info = os.stat(tmp_path / "a")
    assert found[0][:-2] == (0, 0, 5, info.st_ino, info.st_mode, info.st_uid, info.st_gid, -7)
    assert [each[:3] for each in found] == [(0, 0, 5), (0, 5, 0), (errno.ENOENT, 0, 0), (0, 5, 5)]
    assert bytes(buffer[:10]) == b"firstthird"


def test_they_are_hashed(calls: Any, root: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 5000)
    (tmp_path / "b").write_bytes(b"")
    found = calls.read(root, (b"a", b"b"), bytes([many.MD5, 0]), memoryview(bytearray(6000)))
    md5 = hashlib.md5(b"x" * 5000, usedforsecurity=False).digest()
    assert found[0][-2:] == (hashlib.sha256(b"x" * 5000).digest(), md5)
    assert found[1][-2:] == (hashlib.sha256(b"").digest(), None)


def test_what_does_not_fit_any_more_is_left_for_the_next_call(calls: Any, root: int, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"x" * 30)
    assert [each[:3] for each in calls.read(root, (b"a", b"b", b"c"), bytes(3), memoryview(bytearray(61)))] == [
        (0, 0, 30), (0, 30, 30),
    ]  # fmt: skip
    assert calls.read(root, (b"a",), bytes(1), memoryview(bytearray(30)))[0][0] == errno.EFBIG


@pytest.mark.parametrize("how", [many.SYNC_DATA, many.SYNC_WHOLE, many.SYNC_WHOLE | many.LEASE])
def test_files_can_be_brought_to_stable_storage_first(calls: Any, root: int, tmp_path: Path, how: int) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    assert calls.read(root, (b"a",), bytes([how]), memoryview(bytearray(9)))[0][:3] == (0, 0, 5)


def test_a_file_that_can_still_be_written_to_is_not_read_where_that_counts(
    calls: Any, root: int, tmp_path: Path
) -> None:
    with (tmp_path / "a").open("wb") as file:
        buffer = memoryview(bytearray(9))
        assert error_of(calls.read(root, (b"a",), bytes([many.LEASE]), buffer)[0]) == errno.ETXTBSY
        assert error_of(calls.read(root, (b"a",), bytes([0]), buffer)[0]) == 0
        assert fcntl.fcntl(file.fileno(), fcntl.F_GETLEASE) == fcntl.F_UNLCK
    assert error_of(calls.read(root, (b"a",), bytes([many.LEASE]), buffer)[0]) == 0


def test_links_directories_and_pipes_are_no_files(calls: Any, root: int, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"bytes")
    (tmp_path / "way").symlink_to("real")
    (tmp_path / "link").symlink_to("real/file")
    os.mkfifo(tmp_path / "pipe")
    found = calls.read(root, (b"way/file", b"link", b"real", b"pipe"), bytes(4), memoryview(bytearray(9)))
    assert [error_of(each) for each in found] == [errno.ELOOP, errno.ELOOP, errno.EINVAL, errno.EINVAL]


def test_paths_that_no_call_takes(calls: Any, root: int) -> None:
    (found,) = calls.read(root, (b"x/" * 2100 + b"x",), bytes(1), memoryview(bytearray(9)))
    assert error_of(found) == errno.ENAMETOOLONG
    with pytest.raises(ValueError, match="path"):
        calls.read(root, (b"a", b"b"), bytes(1), memoryview(bytearray(9)))


# --- moving ----------------------------------------------------------------------------------------------------------


def plain(root: int, name: bytes, to: bytes, st_ino: int = -1, size: int = -1) -> tuple[Any, ...]:
    return (root, name, root, to, st_ino, size, False, 0, 0, 0, 0, 0)


def test_files_are_moved_with_their_attributes(calls: Any, root: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    st_ino = os.stat(tmp_path / "a").st_ino
    steps = ((root, b"a", root, b"b", st_ino, 5, True, 0o4640, 12, 34, -5, 1_700_000_000_000_000_007),)
    assert calls.move(steps, True) == [(st_ino, 0)]
    info = os.stat(tmp_path / "b")
    assert (info.st_ino, info.st_mode & 0o7777, info.st_uid, info.st_gid) == (st_ino, 0o4640, 12, 34)
    assert (info.st_atime_ns, info.st_mtime_ns) == (-5, 1_700_000_000_000_000_007)
    assert not (tmp_path / "a").exists()


def test_a_move_that_fails_is_the_last(calls: Any, root: int, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"")
    st_ino = os.stat(tmp_path / "a").st_ino
    assert calls.move((plain(root, b"a", b"no/a"), plain(root, b"b", b"c")), True) == [(st_ino, errno.ENOENT)]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_owners_stay_where_they_cannot_be_given(calls: Any, root: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    calls.move(((root, b"a", root, b"b", -1, -1, True, 0o600, 12, 34, 0, 0),), False)
    assert os.stat(tmp_path / "b").st_uid == os.geteuid()


@pytest.mark.parametrize("why", ["gone", "taken", "another", "longer", "directory", "link", "owner"])
def test_nothing_is_done_from_the_first_that_is_unusual(calls: Any, root: int, tmp_path: Path, why: str) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"bytes")
    st_ino, size, described = -1, -1, (False, 0, 0, 0, 0, 0)
    match why:
        case "gone":
            (tmp_path / "b").unlink()
        case "taken":
            (tmp_path / "b2").write_bytes(b"somebody's")
        case "another":
            st_ino = os.stat(tmp_path / "b").st_ino + 1
        case "longer":
            size = 4
        case "directory":
            (tmp_path / "b").unlink()
            (tmp_path / "b").mkdir()
        case "link":
            (tmp_path / "b").unlink()
            (tmp_path / "b").symlink_to("c")
        case "owner":
            described = (True, 0o600, 1 << 32, 0, 0, 0)
    middle = (root, b"b", root, b"b2", st_ino, size, *described)
    before = {path.name for path in tmp_path.iterdir()}
    done = calls.move((plain(root, b"a", b"a2"), middle, plain(root, b"c", b"c2")), True)
    assert [error for _, error in done] == [0]
    assert {path.name for path in tmp_path.iterdir()} == before - {"a"} | {"a2"}


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1])
def test_numbers_beyond_64_bits_are_refused_before_anything_is_done(
    calls: Any, root: int, tmp_path: Path, number: int
) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OverflowError):
        calls.move((plain(root, b"a", b"b"), (root, b"a", root, b"b", -1, -1, True, 0, 0, 0, 0, number)), True)
    assert (tmp_path / "a").exists()


# --- behind what uses it ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    made = LocalStore(tmp_path / "store")
    made.open()
    yield made
    made.close()


@pytest.fixture(params=["the extension", "what stands for it", "neither"])
def any_calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REAL is not None
    which = {"the extension": REAL, "what stands for it": one_by_one, "neither": None}
    monkeypatch.setattr(many, "extension", which[request.param])


@pytest.mark.usefixtures("any_calls")
@pytest.mark.parametrize("count", [3, 12])
def test_digests_are_the_same_with_and_without_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(many, "BUFFER_BYTES", 4000)
    contents = [b"%d" % n * (n * 700) for n in range(count)]  # one of them more than the buffer takes
    for n, content in enumerate(contents):
        with open(store.staging(f"a-{n}"), "wb") as file:
            file.write(content)
    sources = [Source(store.staging(f"a-{n}"), md5=bool(n % 2)) for n in range(count)]
    found = digest_files([*sources, Source(store.staging("gone"))], store)
    assert isinstance(found.pop().error, FileNotFoundError)
    for n, (digest, content) in enumerate(zip(found, contents, strict=True)):
        assert digest.sha256 == hashlib.sha256(content).digest()
        assert digest.md5 == (hashlib.md5(content, usedforsecurity=False).digest() if n % 2 else None)
        assert (digest.size_bytes, digest.attributes) == (len(content), None)
        assert digest.st_ino == os.stat(store.staging(f"a-{n}")).st_ino


def test_python_hashes_where_the_extension_does_not(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python with a libcrypto of its own inside: there is none to be found."""
    with open(store.staging("a"), "wb") as file:
        file.write(b"bytes")
    unhashed = [(*found[:-2], None, None) for found in one_by_one.read(
        store.beneath.fd, (store.staging("a")[len(store.beneath.root) + 1 :],), bytes(1), memoryview(bytearray(9))
    )]  # fmt: skip

    def read(_root: int, _paths: object, _how: bytes, buffer: memoryview) -> object:
        buffer[:5] = b"bytes"
        return unhashed

    monkeypatch.setattr(many, "extension", type("Unhashed", (), {"read": staticmethod(read)}))
    (digest,) = digest_files([Source(store.staging("a"))], store)
    assert digest.sha256 == hashlib.sha256(b"bytes").digest()
    assert digest.md5 == hashlib.md5(b"bytes", usedforsecurity=False).digest()


@pytest.mark.usefixtures("any_calls")
def test_an_error_of_a_file_is_not_asked_for_twice(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of bytes that did not reach the disk once: who asks again hears that all is well (fsync(2))."""
    with open(store.staging("a"), "wb") as file:
        file.write(b"bytes")
    told = [OSError(errno.EIO, "the disk")]

    def sync(_fd: int) -> None:
        if told:
            raise told.pop()

    monkeypatch.setattr(os, "fdatasync", sync)
    if many.extension is REAL:
        failing = [(errno.EIO, 0, 0, 0, 0, 0, 0, 0, None, None)]
        monkeypatch.setattr(many, "extension", type("Failing", (), {"read": staticmethod(lambda *_: failing)}))
    (digest,) = digest_files([Source(store.staging("a"))], store)
    assert digest.error is not None
    assert digest.error.errno == errno.EIO


@pytest.mark.usefixtures("any_calls")
def test_steps_have_the_same_outcomes_with_and_without_it(store: LocalStore) -> None:
    home = store.home([b"users"])
    attrs = Attrs(0o640, os.geteuid(), os.getegid(), 5, 7)
    numbers = []
    for n in range(6):
        with open(store.staging(f"a-{n}"), "wb") as file:
            file.write(b"%d" % n)
            numbers.append(os.fstat(file.fileno()).st_ino)
    with open(home + b"/taken", "wb") as file:
        file.write(b"somebody's")

    def moves(n: int, to: bytes, st_ino: int) -> Step:
        return Step(StepKind.MOVE, store.staging(f"a-{n}"), home + b"/" + to, attrs, st_ino, is_dir=False)

    outcomes = store.apply([
        moves(0, b"a", numbers[0]),
        Step(StepKind.MKDIR, home + b"/sub", attrs=attrs),
        moves(1, b"sub/b", numbers[1]),
        moves(2, b"taken", numbers[2]),
        moves(3, b"d", numbers[3] + 100),
        moves(4, b"d", numbers[4]),
        moves(5, b"e", numbers[5]),
    ])  # fmt: skip
    assert outcomes[0] == Outcome(numbers[0])
    assert [outcome.error for outcome in outcomes] == [0, 0, 0, 0, errno.ENOENT, errno.ECANCELED, 0]
    assert "taken: somebody's file stood here" in outcomes[3].warning
    assert {entry.name: entry.read_bytes() for entry in Path(os.fsdecode(home)).iterdir() if entry.is_file()} == {
        "a": b"0", "taken": b"2", "e": b"5",
    }  # fmt: skip
    info = os.stat(home + b"/sub/b")
    assert (info.st_mode & 0o777, info.st_atime_ns, info.st_mtime_ns) == (0o640, 5, 7)


@pytest.mark.usefixtures("any_calls")
def test_a_move_whose_attributes_fail_has_failed_and_what_builds_on_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = store.home([b"users"])
    for name in ("a", "b"):
        with open(store.staging(name), "wb"):
            pass
    steps = [
        Step(StepKind.MOVE, store.staging("a"), home + b"/a", Attrs(0o600, 0, 0, 0, 0), is_dir=False),
        Step(StepKind.MOVE, home + b"/a", home + b"/c", is_dir=False),
        Step(StepKind.MOVE, store.staging("b"), home + b"/b", is_dir=False),
    ]
    monkeypatch.setattr(os, "utime", lambda *_args, **_more: (_ for _ in ()).throw(OSError(errno.EIO, "")))
    if many.extension is REAL:
        assert REAL is not None
        move = REAL.move
        monkeypatch.setattr(
            many, "extension",
            type("Failing", (), {"move": staticmethod(lambda steps, may: [(move(steps[:1], may)[0][0], errno.EIO)])}),
        )  # fmt: skip
    outcomes = store.apply(steps, durable=False)
    assert [outcome.error for outcome in outcomes] == [errno.EIO, errno.ECANCELED, 0]
