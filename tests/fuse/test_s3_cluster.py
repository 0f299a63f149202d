"""SeaweedFS in five processes, of which one dies or stands still in mid-write and mid-read. Two copies of everything.

Nothing is lost, nothing sticks, nothing wrong is read, nothing is left over; what the server cannot do at that moment
waits in the queue, with the reason. With RECFS_TEST_CLUSTER=1 also what CI has no time for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers.s3_servers import ManySeaweedFS

from .clients import pattern, sha256, sha256_of, wait_until
from .harness import Mount, remove_tree
from .s3 import MIB, PART, S3, bucket, evict, settle

pytestmark = [pytest.mark.seaweedfs("many"), pytest.mark.slow, pytest.mark.modeless, pytest.mark.timeout(120)]

LARGE = 3 * PART + 12_345
COLD = 6 * MIB
PIECE = 256 << 10
SMALL = 40
ALL = ("s3", "filer", "v1", "v2", "master")
KILL, STOP = signal.SIGKILL, signal.SIGSTOP


class Fault(NamedTuple):
    """What befalls which processes."""

    who: tuple[str, ...]
    how: int
    reason: str
    """What the queue says of an upload."""
    reads: bool = False
    """Whether S3 can be read meanwhile."""
    changes: bool = False
    """Whether files are replaced, renamed and removed while they are being sent."""
    recfs_dies: bool = False
    """Whether recfs is killed as well, and started before the server is whole again."""


KEPT_S = 40.0
"""How long this daemon fears that a request without an answer is carried out: the cluster gives them up before."""
FAILS = "InternalError|ServiceUnavailable|nothing came for|takes no more bytes"
"""The gateway tries for a while by itself to have something stored: what is met depends on the timing."""
FAULTS = {
    "volume-server-killed": Fault(("v1",), KILL, FAILS, reads=True),
    "volume-server-stopped": Fault(("v1",), STOP, FAILS),
    "filer-killed": Fault(("filer",), KILL, FAILS),
    "filer-stopped": Fault(("filer",), STOP, FAILS),
    "gateway-killed": Fault(("s3",), KILL, "connection refused"),
    "gateway-stopped": Fault(("s3",), STOP, FAILS),
    "master-killed": Fault(("master",), KILL, FAILS, reads=True),
    "master-stopped": Fault(("master",), STOP, FAILS, reads=True),
    "all-restarted": Fault(ALL, KILL, "connection refused"),
}
IN_CI = {
    **FAULTS,
    "filer-stopped": FAULTS["filer-stopped"]._replace(recfs_dies=True),
}
ROWS = (
    {
        f"{name}{'-changes' * changes}{'-recfs-killed' * dies}": fault._replace(changes=changes, recfs_dies=dies)
        for name, fault in FAULTS.items()
        for changes in (False, True)
        for dies in (False, True)
    }
    if os.environ.get("RECFS_TEST_CLUSTER")
    else IN_CI
)


@dataclass
class Place:
    """A mount in front of the five."""

    s3: S3
    store: Mount
    server: ManySeaweedFS
    files: dict[str, bytes] = field(default_factory=dict)
    """What is to be in S3, by path in the mount."""
    gone: set[str] = field(default_factory=set)
    """What was there under a name that it has no more."""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def write(self, path: Path, content: bytes) -> None:
        """A file that is to be kept."""
        path.write_bytes(content)
        self.files[self.store.inner(path)] = content

    def rename(self, path: Path, to: Path) -> None:
        """The same under another name."""
        path.rename(to)
        self.gone.add(self.store.inner(path))
        self.files[self.store.inner(to)] = self.files.pop(self.store.inner(path))

    def unlink(self, path: Path) -> None:
        """A file that is not to be kept."""
        path.unlink()
        self.gone.add(self.store.inner(path))
        del self.files[self.store.inner(path)]

    def befall(self, fault: Fault) -> None:
        """Do it."""
        for name in fault.who:
            self.server.signal(name, fault.how)

    def heal(self, fault: Fault) -> None:
        """The server is whole again."""
        if fault.how == STOP:
            for name in fault.who:
                self.server.signal(name, signal.SIGCONT)
        elif len(fault.who) > 1:
            self.server.up()
        else:
            self.server.start(fault.who[0])

    def reasons(self) -> list[str]:
        """Why uploads are not done."""
        rows = self.store.call("queue")["rows"]
        return [row["error"] for row in rows if row["error"]]


@pytest.fixture(scope="module")
def server() -> Iterator[ManySeaweedFS]:
    """Few small volumes, so that they can be filled."""
    with tempfile.TemporaryDirectory(prefix="recfs-s3-") as directory:
        server = ManySeaweedFS(Path(directory) / "server", VOLUME_MB=8, VOLUMES=120)
        try:
            server.up()
            yield server
        finally:
            server.down()


@pytest.fixture(scope="module")
def place(
    server: ManySeaweedFS, workspace: Path, tmp_path_factory: pytest.TempPathFactory, passthrough: str
) -> Iterator[Place]:
    """One mount for all: each trouble has to end. No proxy: connections break as they do."""
    quick = {"read_timeout": 2.0, "connect_timeout": 2.0, "deadline": 5.0, "max_attempts": 2}
    for made in bucket(server.endpoint, tmp_path_factory.mktemp("s3")):
        store = Mount(workspace / "cluster")
        store.expect_log(r"s3://|: the object store is down|bytes .* came for")
        # sitecustomize is imported by every Python that has it on its path
        outside = tmp_path_factory.mktemp("outside")
        (outside / "sitecustomize.py").write_text(f"import recfs.tier.queue.unanswered as it\nit.KEPT_S = {KEPT_S}\n")
        try:
            store.start(
                config=made.config(
                    s3=quick | {"endpoint": server.endpoint},
                    cache={"fetch_whole_below": 65536, "read_ahead_max": 1 << 20},
                    upload={"copy_identical": False},  # each trouble meets files that are sent, with the same bytes
                ),
                env={"PYTHONPATH": os.pathsep.join(filter(None, (str(outside), os.environ.get("PYTHONPATH"))))},
            )
            yield Place(made, store, server)
            store.check()
            store.assert_consistent()
            store.umount()
            store.check()
        finally:
            store.close()
            remove_tree(store.base)


class Reader(threading.Thread):
    """Reads a file piece by piece, again where it fails, until it has had every byte or the mount is dead."""

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(daemon=True)
        self._path, self._content = path, content
        self.begun, self.ended = threading.Event(), threading.Event()
        self.got = 0
        self.errors: set[int] = set()
        self.wrong: list[tuple[int, int]] = []

    def run(self) -> None:
        """Until then."""
        fd = os.open(self._path, os.O_RDONLY)
        try:
            while self.got < len(self._content) and not self.wrong and not self.ended.is_set():
                self._piece(fd)
        finally:
            os.close(fd)
            self.ended.set()

    def _piece(self, fd: int) -> None:
        try:
            found = os.pread(fd, PIECE, self.got)
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                self.ended.set()
                return
            self.errors.add(error.errno or 0)
            self.ended.wait(0.05)
            return
        if found != self._content[self.got : self.got + PIECE]:
            self.wrong.append((self.got, len(found)))
        self.got += len(found)
        self.begun.set()

    def verdict(self, *, whole: bool) -> None:
        """It read nothing but what is in the file, and errors."""
        assert self.wrong == []
        assert self.errors <= {errno.EIO}, self.errors
        assert not whole or self.got == len(self._content)


class Writer(threading.Thread):
    """Writes small files."""

    def __init__(self, place: Place, rec: Path) -> None:
        super().__init__(daemon=True)
        self._place, self._rec = place, rec
        self.written = 0
        self.failed: Exception | None = None

    def run(self) -> None:
        """All of them."""
        try:
            for number in range(SMALL):
                size = (number * 7919) % (90_000 if number % 3 else 9_000)
                self._place.write(self._rec / f"small {number}", pattern(size, seed=number))
                self.written += 1
        except Exception as error:
            self.failed = error


def others_go_on(place: Place, rec: Path, name: str) -> None:
    """What needs no S3 is done, at once, by anybody: were it not, the test would hang here."""
    for number in range(3):
        path = rec / f"{name} {number}"
        place.write(path, pattern(3000 + number, seed=number))
        assert path.read_bytes() == pattern(3000 + number, seed=number)
        assert path.name in os.listdir(rec)
    assert (rec / "cold").stat().st_size == COLD


def change(place: Place, rec: Path) -> None:
    """What may be under way to S3 is not what the files are any more."""
    for number in range(SMALL // 4, SMALL, 3):
        place.rename(rec / f"small {number}", rec / f"renamed {number}")
        place.write(rec / f"small {number + 1}", b"other bytes")
        place.unlink(rec / f"small {number + 2}")
    place.write(rec / "large", pattern(LARGE, seed=6))


def read_on(place: Place, rec: Path) -> Reader:
    """Somebody who reads what only S3 has."""
    reader = Reader(rec / "cold", pattern(COLD, seed=3))
    reader.start()
    assert reader.begun.wait(60) or reader.errors
    return reader


def test_full_volumes_hold_nobody_up(place: Place) -> None:
    """What is there is read; what comes waits, with the reason, and goes when there is room again."""
    store, s3, server = place.store, place.s3, place.server
    rec = store.recording(user=next(place.numbers))
    place.write(rec / "cold", pattern(COLD, seed=3))
    settle(store, rec)
    said = len(store.log())

    def ask(path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{server.master_endpoint}{path}", timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def is_full() -> bool:
        try:
            return "error" in ask(f"/dir/assign?collection={s3.name}&replication=001")
        except urllib.error.HTTPError:
            return True

    ask(f"/vol/grow?collection=others&replication=001&count={ask('/dir/status')['Topology']['Free'] // 2}")
    try:
        number = count()
        while not is_full():
            place.write(rec / f"large {next(number)}", pattern(LARGE, seed=7))
            wait_until(lambda: is_full() or not store.call("queue")["rows"], "it is stored, or there is no room")
        reader = read_on(place, rec)
        others_go_on(place, rec, "while there is no room")
        wait_until(lambda: "no room left" in "\n".join(place.reasons()), "the queue says so", 60)
        assert reader.ended.wait(60)
        reader.verdict(whole=True)
    finally:
        with contextlib.suppress(urllib.error.URLError, ValueError):
            ask("/col/delete?collection=others")
    store.drain()
    assert "S3 is down" not in store.log()[said:]
    assert {path: sha256(s3.data(path)) for path in s3.paths() if path.startswith(f"{store.inner(rec)}/")} == {
        path: sha256(content) for path, content in place.files.items() if path.startswith(f"{store.inner(rec)}/")
    }
    assert s3.unfinished() == []


@pytest.mark.parametrize("name", ROWS)
def test_nothing_is_lost_and_nothing_sticks(place: Place, name: str) -> None:
    fault, store, s3 = ROWS[name], place.store, place.s3
    rec = store.recording(user=next(place.numbers))
    place.write(rec / "cold", pattern(COLD, seed=3))
    place.write(rec / "tiny", pattern(20_000, seed=4))
    settle(store, rec)
    said = len(store.log())

    writer = Writer(place, rec)
    writer.start()
    place.write(rec / "large", pattern(LARGE, seed=5))
    wait_until(s3.unfinished, "the large file is being sent")
    wait_until(lambda: writer.written > SMALL // 4, "small ones are being sent")
    reader = read_on(place, rec)
    place.befall(fault)
    try:
        writer.join(60)
        assert writer.written == SMALL, writer.failed
        if fault.recfs_dies:
            wait_until(lambda: "writing" not in store.status()["states"], "all is closed")
            store.call("queue")  # writes what memory has
            store.kill()
            assert reader.ended.wait(60)
            reader.verdict(whole=False)
            store.remount()
            reader = Reader(rec / "cold", pattern(COLD, seed=3))
            reader.start()
        with subprocess.Popen(["cat", rec / "tiny"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as impatient:
            impatient.kill()
            impatient.wait(30)
        others_go_on(place, rec, "before it is noticed")
        wait_until(lambda: re.search(fault.reason, "\n".join(place.reasons())), f"the queue says {fault.reason}", 40)
        if fault.changes:
            change(place, rec)
        others_go_on(place, rec, "after it is noticed")
        if fault.reads:
            assert reader.ended.wait(60), "what can be read is read"
    finally:
        place.heal(fault)
    assert reader.ended.wait(60)
    reader.verdict(whole=True)
    store.drain()
    # On a busy machine the others' requests, too, may go without an answer while the server is away.
    wait_until(lambda: not store.call("drain")["watched"], "no earlier request can come any more", 2 * KEPT_S)
    log = store.log()[said:]
    for life in log.split(" is mounted on "):  # of each daemon
        assert life.count("S3 is down") <= (0 if fault.reads else 1), log
    assert store.status()["s3"]["problem"] is None
    assert place.reasons() == []

    mine = {path: content for path, content in place.files.items() if path.startswith(f"{store.inner(rec)}/")}
    for path, content in mine.items():
        found, metadata = s3.object(path)
        assert found == content, f"{path}: {len(found)} bytes in S3 are not the {len(content)} that were written"
        assert metadata["checksum-sha256"] == sha256(content)
    # What is carried out late may be there for a while under names that are gone, until it is deleted once more.
    assert {row["key"] for row in store.call("queue")["rows"]} <= place.gone
    assert set(place.files) <= s3.paths() <= set(place.files) | place.gone
    assert s3.unfinished() == []
    evict(store, rec)
    for path, content in mine.items():
        assert sha256_of(store.path / path) == sha256(content), path
