"""`recfs upgrade`: another daemon goes on with a mount on which programs have files open, and nobody notices."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from .clients import Peer, pattern, sha256_of, state, wait_until, xattr
from .harness import BASE_CONFIG, Mount, errno_is
from .s3 import GET, PUT, S3, s3

__all__ = ["s3"]

pytestmark = [pytest.mark.modes("auto", "off"), pytest.mark.timeout(240)]

MIB = 1 << 20
CREATE = os.O_RDWR | os.O_CREAT
PAUSE_S = 2.0
"""Longest that a write or a look may take; on a machine that others keep busy, ten times as long."""

_RECORDER = """
import hashlib, json, os, sys, time
path, end = sys.argv[1:]
fd, total, digest, worst, number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), 0, hashlib.sha256(), 0.0, 0
while not os.path.exists(end):
    number += 1
    block = hashlib.sha256(b"%d" % number).digest() * 1024
    began = time.monotonic()
    assert os.write(fd, block) == len(block)
    worst = max(worst, time.monotonic() - began)
    digest.update(block)
    total += len(block)
    time.sleep(0.002)
os.close(fd)
print(json.dumps({"bytes": total, "sha256": digest.hexdigest(), "worst_s": worst}))
"""


def handed_over(store: Mount) -> None:
    """Have another process go on with the mount."""
    before = store.process
    assert before is not None
    said = store.upgrade()
    assert "goes on" in said, said
    assert store.process is not None
    assert store.process.pid != before.pid


@contextmanager
def recorders(folder: Path, end: Path, count: int) -> Iterator[list[dict[str, float | str]]]:
    """So many programs that write without a break until the end of the block; then what each of them wrote."""
    told: list[dict[str, float | str]] = []
    running = [
        subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _RECORDER, str(folder / f"rec{number}.ts"), str(end)],
            stdout=subprocess.PIPE,
        )
        for number in range(count)
    ]
    try:
        wait_until(lambda: len(list(folder.glob("rec*.ts"))) == count, "all record")
        yield told
        end.touch()
        for each in running:
            line, _ = each.communicate(timeout=60)
            assert each.returncode == 0
            told.append(json.loads(line))
    finally:
        for each in running:
            each.kill()
            each.communicate(timeout=20)


class Looks:
    """Stats, lists, makes, reads and removes without a break; keeps the longest round and every error."""

    def __init__(self, folder: Path) -> None:
        self.worst_s = 0.0
        self.rounds = 0
        self.failed: list[str] = []
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self._round()
            except (OSError, AssertionError) as error:
                self.failed.append(repr(error))
            self.worst_s = max(self.worst_s, time.monotonic() - began)
            self.rounds += 1

    def _round(self) -> None:
        os.statvfs(self._folder)
        content = b"%d" % self.rounds
        file = self._folder / f"look{self.rounds}"
        with file.open("xb") as made:
            made.write(content)
        assert file.name in os.listdir(self._folder)
        assert file.read_bytes() == content
        other = file.with_name("other")
        file.rename(other)
        assert not file.exists()
        other.unlink()

    def __enter__(self) -> Looks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)


@pytest.mark.slow
def test_recorders_go_on_and_their_files_are_whole(store: Mount, outside: Path) -> None:
    rec = store.start(config=BASE_CONFIG).recording()
    with recorders(rec, outside / "end", 4) as told, Looks(store.recording(2, 1)) as looks:
        handed_over(store)
        handed_over(store)
        rounds = looks.rounds
        wait_until(lambda: looks.rounds > rounds + 2, "programs go on")
    assert looks.failed == []
    store.drain()
    for number, each in enumerate(told):
        file = rec / f"rec{number}.ts"
        assert state(file) == "committed"
        assert xattr(file, "sha256") == each["sha256"] == sha256_of(file)
        assert file.stat().st_size == each["bytes"]
    patience_s = PAUSE_S * (10 if "PYTEST_XDIST_WORKER" in os.environ else 1)
    assert max(looks.worst_s, *(float(each["worst_s"]) for each in told)) < patience_s
    store.assert_consistent()


def test_what_is_open_stays_what_it_is(store: Mount) -> None:
    rec = store.start(config=BASE_CONFIG).recording()
    whole = pattern(3 * MIB, seed=1)
    (rec / "whole").write_bytes(whole)
    (rec / "other").write_bytes(b"other")
    for number in range(300):
        (rec / f"n{number:03}").touch()
    store.drain()
    with Peer() as peer:
        peer.open(rec / "whole", os.O_RDONLY, "reader")
        assert peer("os.read(reader, 5)") == whole[:5]
        peer.open(rec / "new", CREATE, "writer")
        peer("os.write(writer, b'before ')")
        peer.open(rec / "other", os.O_RDWR, "changer")
        peer("os.pwrite(changer, b'O', 0)")
        peer.open(rec / "gone", CREATE, "nameless")
        peer("os.write(nameless, b'still here')")
        peer(f"os.setxattr({str(rec / 'gone')!r}, 'user.note', b'kept')")
        peer(f"os.unlink({str(rec / 'gone')!r})")
        peer(f"os.mkdir({str(rec / 'folder')!r}); os.chdir({str(rec / 'folder')!r}); os.rmdir({str(rec / 'folder')!r})")
        peer(f"entries = os.scandir({str(rec)!r}); seen = [next(entries).name for _ in range(50)]")
        handed_over(store)
        assert peer("os.pread(reader, 5, 3)") == whole[3:8]
        peer("os.write(writer, b'after')")
        assert peer("os.fstat(writer).st_size") == len(b"before after")
        peer("os.pwrite(changer, b'R', 4)")
        assert peer("os.pread(nameless, 100, 0)") == b"still here"
        assert peer("os.fstat(nameless).st_nlink") == 0
        assert peer("os.getxattr(nameless, 'user.note')") == b"kept"
        peer("os.write(nameless, b', and more')")
        assert peer("os.pread(nameless, 100, 0)") == b"still here, and more"
        peer("seen += [entry.name for entry in entries]")
        assert peer("len(seen), len(set(seen))") == (303, 303)
        assert peer("os.stat('.').st_nlink") == 0
        opened = {each["path"]: each for each in store.status()["open_files"]}
        assert opened[store.inner(rec / "new")]["writers"] == 1
        assert state(rec / "new") == "writing"
        assert opened[store.inner(rec / "whole")]["readers"] == 1
        passthrough = store.status()["passthrough"]["writes"]
        assert bool(opened[store.inner(rec / "new")]["passthrough"]) is passthrough
        with (rec / "new").open("rb") as file:
            assert file.read() == b"before after"
        for each in ("reader", "writer", "changer", "nameless"):
            peer(f"os.close({each})")
    store.drain()
    assert (rec / "new").read_bytes() == b"before after"
    assert (rec / "other").read_bytes() == b"OtheR"
    for file in (rec / "new", rec / "other", rec / "whole"):
        assert state(file) == "committed"
        assert xattr(file, "sha256") == sha256_of(file)
    assert store.status()["open_files"] == []
    store.assert_consistent()
    assert store.leftovers("staging") == store.leftovers("lost+found") == []


def test_a_limit_still_stops_a_writer(store: Mount) -> None:
    rec = store.start(config=f"{BASE_CONFIG}passthrough_headroom = '1 MiB'\n").recording()
    with Peer() as peer:
        peer.open(rec / "file", CREATE)
        peer("os.write(fd, b'x' * 65536)")
        handed_over(store)
        store.expect_log("its writer")
        store.call("quota_set", user="1", max_bytes=128 << 10)
        with errno_is(errno.EDQUOT):
            for _ in range(100):
                peer("os.write(fd, b'x' * 65536); os.fsync(fd)")
        peer("os.close(fd)")
    store.assert_consistent()


def test_the_next_daemon_is_asked_for_what_waits(s3: S3, store: Mount) -> None:
    rec = store.start(config=s3.config()).recording()
    content = pattern(MIB, seed=2)
    (rec / "far").write_bytes(content)
    store.drain()
    store.call("evict", path=store.inner(rec / "far"))
    got: list[bytes] = []
    with s3.holding(GET) as gate:
        reader = threading.Thread(target=lambda: got.append((rec / "far").read_bytes()))
        reader.start()
        wait_until(lambda: gate.waiting > 0, "S3 is asked for the bytes")
        upgraded = threading.Thread(target=handed_over, args=(store,))
        upgraded.start()
        gate.open()
        upgraded.join(120)
        reader.join(60)
    assert got == [content]


@pytest.mark.modeless
def test_what_is_in_s3_is_read_while_a_handover_waits_for_s3(s3: S3, store: Mount) -> None:
    """An upload is waited for, which takes a while; who reads meanwhile is told nothing of it."""
    rec = store.start(config=s3.config()).recording()
    contents = {name: pattern(MIB, seed=seed) for seed, name in enumerate(("before", "meanwhile"))}
    for name, content in contents.items():
        (rec / name).write_bytes(content)
    store.drain()
    for name in contents:
        store.call("evict", path=store.inner(rec / name))
    got: dict[str, bytes] = {}

    def read(name: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: got.update({name: (rec / name).read_bytes()}))
        thread.start()
        return thread

    with s3.holding(PUT) as writes, s3.holding(GET) as reads:
        (rec / "new").write_bytes(b"new")
        wait_until(lambda: writes.waiting > 0, "S3 is sent something")
        readers = [read("before")]
        wait_until(lambda: reads.waiting > 0, "S3 is asked for the bytes")
        upgraded = threading.Thread(target=handed_over, args=(store,))
        upgraded.start()
        wait_until(lambda: "is prepared to go on" in store.log(), "the handover waits for S3")
        readers.append(read("meanwhile"))
        wait_until(lambda: reads.waiting > 1, "S3 is asked for the others")
        reads.open()
        for each in readers:
            each.join(60)
        assert got == contents, "the old daemon serves them"
        writes.open()
        upgraded.join(120)
    store.drain()
    assert state(rec / "new") == "stored"
    store.assert_consistent()


@pytest.mark.modeless
def test_a_successor_that_cannot_begin_leaves_everything_as_it_was(store: Mount) -> None:
    rec = store.start(config=BASE_CONFIG).recording()
    assert store.process is not None
    pid = store.process.pid
    conf = store.base / "recfs.conf"
    right = conf.read_text()
    with Peer() as peer:
        peer.open(rec / "file", CREATE)
        peer("os.write(fd, b'one ')")
        conf.write_text("nonsense = [")
        store.expect_log(r"Traceback \(most recent call last\)|passthrough = 'auto'|this daemon goes on")
        assert "exit code 3" in store.upgrade()
        peer("os.write(fd, b'two ')")
        # It finds out only when it has everything: the old daemon takes it back.
        conf.write_text(right + 'passthrough = "off"\n' if "passthrough" not in right else right)
        assert "still serves" in store.upgrade()
        assert store.call("upgraded")["pid"] == pid
        peer("os.write(fd, b'three')")
        assert state(rec / "file") == "writing"
        conf.write_text(right)
        handed_over(store)
        peer("os.write(fd, b' four')")
        peer("os.close(fd)")
    store.drain()
    assert (rec / "file").read_bytes() == b"one two three four"
    assert state(rec / "file") == "committed"
    assert xattr(rec / "file", "sha256") == hashlib.sha256(b"one two three four").hexdigest()


@pytest.mark.modeless
def test_a_successor_that_would_change_the_schema_of_the_catalogue_does_not_begin(store: Mount) -> None:
    """The old daemon, of an earlier version, could not take the store back."""
    rec = store.start(config=BASE_CONFIG).recording()
    assert store.process is not None
    pid = store.process.pid

    def on_catalogue(statement: str, *values: str) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(store.root / ".recfs/catalogue.db", timeout=30)) as db, db:
            return db.execute(statement, values).fetchall()

    [(step, applied)] = on_catalogue("select max(name), applied_at from _sqlite_migrations")
    with Peer() as peer:
        peer.open(rec / "file", CREATE)
        peer("os.write(fd, b'one ')")
        on_catalogue("delete from _sqlite_migrations where name = ?", step)
        store.expect_log(r"Traceback \(most recent call last\)|changes the schema of its catalogue")
        assert "exit code 4" in store.upgrade()
        assert store.call("upgraded")["pid"] == pid
        on_catalogue(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('recfs', ?, ?)", step, applied
        )
        peer("os.write(fd, b'two')")
        handed_over(store)
        peer("os.close(fd)")
    store.drain()
    assert (rec / "file").read_bytes() == b"one two"
    assert not list((store.root / ".recfs").glob("*before-upgrade*"))


@pytest.mark.modeless
def test_a_stop_reaches_the_next_daemon(store: Mount) -> None:
    rec = store.start(config=BASE_CONFIG).recording()
    (rec / "file").write_bytes(b"x")
    handed_over(store)
    assert store.process is not None
    store.process.send_signal(signal.SIGTERM)
    store.wait()
    store.remount()
    assert (rec / "file").read_bytes() == b"x"


@pytest.mark.modeless
def test_a_command_for_events_that_asks_the_mount_is_killed_and_run_again_by_the_next_daemon(store: Mount) -> None:
    """It asks without a break while the mount is handed over, three times; its event is given to it each time."""
    begun, going, ended = (store.base / each for each in ("begun", "going", "ended"))
    going.touch()
    # The shell itself asks, and no child of it that it could leave; it ends with this test, however that does.
    asking = f"while [ -e {going} ] && kill -0 {os.getpid()}; do i=$((i+1)); [ -e {store.path}/users/absent$i ]; done"
    command = f"echo >>{begun}; {asking}; echo >>{ended}"
    notify = f"[notify]\ncommand = \"{command}\"\nevents = ['committed']\ntimeout = '1h'\n"
    rec = store.start(config=f"{BASE_CONFIG}{notify}").recording()
    store.expect_log("a command was killed and has not ended")
    wait_until(lambda: store.status()["notify"]["cursor"] != "now", "it listens")
    (rec / "file").write_bytes(b"x")
    wait_until(begun.exists, "the command runs")
    for times in range(1, 4):
        wait_until(lambda times=times: begun.read_bytes() == b"\n" * times, "the command runs")  # type: ignore[misc]
        handed_over(store)
    assert (rec / "file").read_bytes() == b"x"
    wait_until(lambda: begun.read_bytes() == b"\n" * 4, "the command runs")
    going.unlink()
    wait_until(ended.exists, "the command is done")
