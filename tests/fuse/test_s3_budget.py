"""The budget of local copies: kept, by what can go; and what happens to writers when nothing can."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .clients import PYTHON, pattern, sha256, sha256_of, state, wait_until, xattr
from .harness import Mount, errno_is, sizes_below
from .s3 import GET, MIB, S3, evict, s3, settle

__all__ = ["s3"]

pytestmark = [pytest.mark.modeless, pytest.mark.timeout(90)]

BUDGET = 8 * MIB


@pytest.fixture
def hasty(outside: Path) -> dict[str, str]:
    """Environment for a daemon that has less patience with writers, and looks at the disk more often, than others."""
    # sitecustomize is imported by every Python that has it on its path
    settings = (
        "import recfs.tier.budget, recfs.tier.evictor",
        "recfs.tier.budget.PATIENCE_S = 3.0",
        "recfs.tier.evictor.LOOK_S = 0.5",
    )
    (outside / "sitecustomize.py").write_text("\n".join(settings))
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(outside), os.environ.get("PYTHONPATH"))))}


@pytest.fixture
def small(s3: S3, store: Mount, hasty: dict[str, str]) -> Mount:
    """A mount with room for 8 MiB."""
    cache = {"max_size": BUDGET, "fetch_whole_below": MIB, "read_ahead_max": 2 * MIB}
    return store.start(config=s3.config(cache=cache), env=hasty)


def write(rec: Path, numbers: range, size: int = MIB) -> dict[Path, bytes]:
    """Write files; path → bytes."""
    made = {rec / f"file{number}": pattern(size, seed=number) for number in numbers}
    for path, content in made.items():
        path.write_bytes(content)
    return made


def at_home(store: Mount) -> int:
    """Bytes in the home tree, and of partial copies."""
    home = sum(size for _, size in sizes_below(store.root / "users"))
    partial = 0
    for path in store.leftovers("staging"):
        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
            partial += path.stat().st_blocks * 512
    return home + partial


def s3_of(store: Mount) -> dict[str, Any]:
    """What `recfs status` says of S3."""
    told: dict[str, Any] = store.status()["s3"]
    return told


def test_copies_leave_and_come_back(s3: S3, small: Mount) -> None:
    rec = small.recording()
    made = write(rec, range(24))
    small.drain()
    wait_until(lambda: s3_of(small)["local_bytes"] <= BUDGET, "the budget holds")
    small.drain()
    assert at_home(small) <= BUDGET
    places = {xattr(path, "location") for path in made}
    assert places == {"s3", "local,s3"}, "some are to stay"
    for path, content in made.items():
        assert path.read_bytes() == content
    small.drain()
    wait_until(lambda: at_home(small) <= BUDGET, "the budget holds again")
    assert {path: s3.data(small.inner(path)) for path in made} == made
    small.assert_consistent()


def test_the_least_recently_used_leave_first_and_pinned_ones_never(s3: S3, small: Mount) -> None:
    rec = small.recording()
    first = write(rec, range(3))
    small.drain()
    small.call("pin", path=small.inner(rec / "file0"))
    for number in range(3, 14):
        write(rec, range(number, number + 1))
        small.drain()  # several uploads at once end in any order, and what is not sent yet takes the others' room
    wait_until(lambda: s3_of(small)["local_bytes"] <= BUDGET, "the budget holds")
    assert state(rec / "file0") == "stored"
    assert {state(path) for path in list(first)[1:]} == {"evicted"}
    assert state(rec / "file13") == "stored"


def test_nothing_is_evicted_that_s3_does_not_have(s3: S3, small: Mount) -> None:
    rec = small.recording()
    made = write(rec, range(4))
    small.drain()
    with s3.proxy.refusing():
        new = write(rec, range(10, 18))
        wait_until(lambda: {state(path) for path in made} == {"evicted"}, "those that may go are gone")
        for path, content in new.items():
            assert path.read_bytes() == content
            assert small.call("evict", path=small.inner(path))["kept"], "it is refused, and says why"
            wait_until(small.home(path).exists, "it has come home")
            assert small.home(path).read_bytes() == content
    small.drain()
    assert {path: s3.data(small.inner(path)) for path in made | new} == made | new
    wait_until(lambda: at_home(small) <= BUDGET, "the budget holds")


_WRITER = """
import errno, os, sys
for number in range(int(sys.argv[2])):
    path = f"{sys.argv[1]}/many{number}"
    fd = -1
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, b"%d" % number + bytes(1 << 20))
    except OSError as error:  # at creation, or at the write after it
        if fd >= 0:
            os.unlink(path)
        print("refused", number, errno.errorcode[error.errno], flush=True)
        break
    os.close(fd)
    print("wrote", number, flush=True)
"""


def writer(rec: Path, count: int) -> subprocess.Popen[str]:
    """A program that writes files of 1 MiB, and tells of each."""
    argv = [*PYTHON, _WRITER, str(rec), str(count)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_writers_are_held_back_then_refused_while_nothing_can_be_uploaded(s3: S3, small: Mount) -> None:
    rec = small.recording()
    with s3.proxy.refusing():
        with writer(rec, 40) as program:
            assert program.stdout is not None
            told = program.stdout.read().split("\n")
        assert told[-2].startswith("refused"), told
        assert told[-2].endswith("ENOSPC")
        written = len(told) - 2
        assert 8 <= written < 40
        # Who has a file open may finish it, and everything else goes on.
        assert (rec / "many3").read_bytes() == b"3" + bytes(MIB)
        assert len(list(rec.iterdir())) == written
        (rec / "many0").unlink()
        assert "max_size" in small.log() or "wait to be uploaded" in small.log()
    small.drain()
    assert s3.paths() == {small.inner(rec / f"many{number}") for number in range(1, written)}
    assert s3.data(small.inner(rec / "many5")) == b"5" + bytes(MIB)
    (rec / "new").write_bytes(b"there is room again")
    settle(small)
    assert (rec / "new").read_bytes() == b"there is room again"


def test_a_writer_that_is_held_back_goes_on_when_there_is_room(s3: S3, small: Mount) -> None:
    rec = small.recording()
    gate_of = s3.holding(lambda request: request.method == "PUT")
    with gate_of as gate, writer(rec, 14) as program:
        assert program.stdout is not None
        told = [program.stdout.readline()]
        while len(list(rec.iterdir())) < 9:
            told.append(program.stdout.readline())
        wait_until(lambda: gate.waiting, "uploads are under way")
        gate.open()
        told += program.stdout.read().splitlines(keepends=True)
    assert told == [f"wrote {number}\n" for number in range(14)]
    small.drain()
    assert len(s3.paths()) == 14


def test_a_file_larger_than_the_budget(s3: S3, small: Mount) -> None:
    """It goes up, leaves, and can be read: in order, in parts, and by several."""
    content = pattern(3 * BUDGET + 5, seed=1)
    path = small.recording() / "large"
    path.write_bytes(content)
    small.drain()
    wait_until(lambda: state(path) == "evicted", "it has left")
    assert sha256_of(path) == sha256(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in (0, 20 * MIB, 3 * MIB, len(content) - 7):
            assert os.pread(fd, 100_000, offset) == content[offset : offset + 100_000]
    finally:
        os.close(fd)
    wait_until(lambda: at_home(small) <= BUDGET, "what was read has left again", timeout_s=30)
    with path.open("ab") as file:
        file.write(b"tail")
    small.drain()
    assert s3.data(small.inner(path)) == content + b"tail"


def test_reading_stays_within_the_budget(s3: S3, small: Mount) -> None:
    """Not just at the end: while a large file is read through it."""
    content = pattern(4 * BUDGET, seed=1)
    path = small.recording() / "large"
    path.write_bytes(content)
    settle(small)
    most = 0
    with path.open("rb", buffering=0) as file:
        position = 0
        while block := file.read(MIB):
            assert block == content[position : position + len(block)]
            position += len(block)
            most = max(most, at_home(small))
    assert position == len(content)
    assert most <= BUDGET + 2 * MIB, most
    assert len(s3.asked(GET)) < 200


def test_the_disks_reserve_makes_copies_leave(s3: S3, store: Mount, hasty: dict[str, str]) -> None:
    store.start(config=s3.config())
    rec = store.recording()
    write(rec, range(5))
    store.drain()
    disk = os.statvfs(store.root)
    store.umount()
    reserve = disk.f_blocks * disk.f_frsize  # more than is free, whatever others on this disk remove
    store.start(config=s3.config().replace('min_free = "1 MiB"', f"min_free = {reserve}"), env=hasty)
    wait_until(lambda: {state(path) for path in rec.iterdir()} == {"evicted"}, "all have left", timeout_s=30)
    with errno_is(errno.ENOSPC):
        (rec / "new").write_bytes(b"x")


def test_evicting_says_what_it_does(s3: S3, small: Mount) -> None:
    rec = small.recording()
    write(rec, range(3))
    small.drain()
    told = small.call("evict", path=small.inner(rec), recursive=True)
    assert (told["files"], told["bytes"]) == (3, 3 * MIB)
    evict(small)
    assert small.call("fetch", path=small.inner(rec), recursive=True)["files"] == 3
    assert {state(path) for path in rec.iterdir()} == {"stored"}
