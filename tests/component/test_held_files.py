"""Files that somebody holds open while a transfer waits for them: it waits once, and says for whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recfs.migration.transfer import store
from recfs.migration.transfer.beneath import opened
from recfs.migration.transfer.holders import writers_of
from recfs.migration.transfer.items import Unusable, Why
from recfs.migration.transfer.store import HELD_S, SEALED_S, MountPlace

SHA256 = "ab" * 32


class _Clock:
    """Time that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(store, "time", made)
    return made


@contextmanager
def in_state(path: Path, state: str) -> Iterator[int]:
    """A descriptor of a file that says it is in that state."""
    path.write_bytes(b"")
    os.setxattr(path, "user.recfs.state", state.encode())
    if state == "committed":
        os.setxattr(path, "user.recfs.sha256", SHA256.encode())
    with opened(os.open(path, os.O_PATH)) as file:
        yield file


def test_files_that_are_held_open_are_waited_for_once_and_not_each(tmp_path: Path, clock: _Clock) -> None:
    place = MountPlace()
    for number in range(1000):
        with in_state(tmp_path / f"held{number % 3}", ("writing", "sealing")[number % 2]) as file:
            with pytest.raises(Unusable) as caught:
                place.sha256_of(file)
            assert caught.value.why is Why.WRITING
    assert HELD_S <= clock.now_s < HELD_S + 1
    with in_state(tmp_path / "right", "committed") as file:
        assert place.sha256_of(file) == SHA256
        place.prove(file, SHA256)


def test_what_was_just_written_has_a_moment_after_that_too(tmp_path: Path, clock: _Clock) -> None:
    place = MountPlace(held_s=0)
    with in_state(tmp_path / "held", "writing") as file, pytest.raises(Unusable) as caught:
        place.prove(file, SHA256)
    assert caught.value.why is Why.WRITING
    assert 0.4 < clock.now_s < 1
    began_s = clock.now_s

    def closed(seconds: float) -> None:
        clock.now_s += seconds
        if clock.now_s > began_s + 0.3:
            os.setxattr(tmp_path / "late", "user.recfs.state", b"committed")
            os.setxattr(tmp_path / "late", "user.recfs.sha256", SHA256.encode())

    clock.sleep = closed  # type: ignore[method-assign]
    with in_state(tmp_path / "late", "writing") as file:
        place.prove(file, SHA256)


def test_recfs_has_its_time_for_each_file_that_it_hashes(tmp_path: Path, clock: _Clock) -> None:
    place = MountPlace(held_s=0)
    for _ in range(2):
        began_s = clock.now_s
        with in_state(tmp_path / "large", "sealing") as file, pytest.raises(Unusable):
            place.prove(file, SHA256)
        assert SEALED_S <= clock.now_s - began_s < SEALED_S + 1


def test_what_somebody_else_has_removed_is_not_waited_for(tmp_path: Path, clock: _Clock) -> None:
    with in_state(tmp_path / "removed", "sealing") as file:
        (tmp_path / "removed").unlink()
        with pytest.raises(Unusable, match="somebody else writes there, too"):
            MountPlace().prove(file, SHA256)
    assert clock.now_s < 1


def test_what_is_waited_for_is_told_until_it_goes_on(tmp_path: Path, clock: _Clock) -> None:
    heard: list[str] = []
    place = MountPlace(held_s=3, heard=heard.append)
    with in_state(tmp_path / "held", "writing") as file, pytest.raises(Unusable):
        place.sha256_of(file)
    assert heard[-1] == ""
    assert 2 <= len(heard) - 1 <= 3
    assert heard[0].startswith(f"{tmp_path}/held, which is writing")


def test_whoever_has_a_file_open_for_writing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    code = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"
    with opened(os.open(path, os.O_PATH)) as file:
        assert writers_of(file) == ""
        for mode, named in (("rb", False), ("r+b", True)):
            argv = [sys.executable, "-c", code, str(path), mode]
            with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdout.readline()
                expected = f"process {process.pid} of uid {os.geteuid()}" if named else ""
                assert writers_of(file) == expected
                process.stdin.close()
