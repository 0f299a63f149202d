"""`recfs reload` and SIGHUP on a mount: what changes does so for the next byte, and no signal ends a daemon."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from .clients import recfs, wait_until
from .harness import BASE_CONFIG, Mount

pytestmark = [pytest.mark.modes("auto"), pytest.mark.timeout(240)]


CHECKED = f'passthrough = "off"\n{BASE_CONFIG}'
"""Every write is checked: a file that the kernel writes by itself is stopped a moment later (semantics.md, 16)."""


def reconfigured(store: Mount, text: str) -> None:
    """Replace the configuration at once: a daemon may be reading it."""
    fresh = store.base / "recfs.conf.new"
    fresh.write_text(f'root = "{store.root}"\n{CHECKED}\n{text}')
    fresh.replace(store.base / "recfs.conf")


def reload(store: Mount, *options: str) -> subprocess.CompletedProcess[bytes]:
    return recfs("reload", *options, "--config", store.base / "recfs.conf", check=False)


def may_hold(path: Path, size: int) -> bool:
    """Whether a file may become that large."""
    with path.open("wb", buffering=0) as file:
        try:
            return file.write(bytes(size)) == size
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return False


def test_a_reload_changes_what_can_change_and_a_fault_changes_nothing(store: Mount) -> None:
    store.start(config=CHECKED)
    rec = store.recording()
    assert may_hold(rec / "a", 5000)
    with (rec / "open").open("wb", buffering=0) as opened:
        reconfigured(store, "[quota]\nmax_file_size = 4096\n")
        done = reload(store)
        assert (done.returncode, done.stdout) == (0, b"quota.max_file_size: 4096 (was null)\n")
        assert not may_hold(rec / "b", 5000)
        with pytest.raises(OSError, match="File too large"):
            os.pwrite(opened.fileno(), b"x", 5000)
        assert (rec / "a").stat().st_size == 5000
    pid = store.call("status")["pid"]
    # A fault: the file, the line, and nothing of it holds.
    reconfigured(store, '[quota]\nmax_file_size = 8192\n[temp]\nmax_age = "x"\n')
    lines = (store.base / "recfs.conf").read_text().count("\n")
    faulty = reload(store)
    assert (faulty.returncode, f'recfs.conf: line {lines}: temp.max_age = "x"'.encode() in faulty.stderr) == (3, True)
    store.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the configuration stays as it was" in store.log(), "the daemon says so")
    assert re.search(rf"stays as it was: \S+recfs.conf: line {lines}: temp.max_age", store.log())
    store.expect_log("the configuration stays as it was")
    assert store.call("settings")["config"]["quota"]["max_file_size"] == 4096
    assert not may_hold(rec / "b", 5000)
    # What takes more is named, and the rest is taken up.
    reconfigured(store, "[quota]\nmax_file_size = 8192\n[commit]\nhash_threads = 3\n")
    store.expect_log("commit.hash_threads has changed in the configuration")
    some = reload(store, "--json")
    assert some.returncode == 1
    told = json.loads(some.stdout)
    assert told["changed"] == {"quota.max_file_size": [4096, 8192]}
    assert told["left"] == {"commit.hash_threads": "`recfs upgrade`"}
    assert told["why"] == {"commit.hash_threads": "threads and workers are made at the start, and are at work"}
    assert may_hold(rec / "b", 5000)
    assert store.call("settings")["config"]["commit"]["hash_threads"] != 3
    assert store.call("status")["pid"] == pid


def rule(target: str) -> str:
    return f'[[fallback]]\npattern = "users/*/thumbnails/*"\ntarget = "shared/{target}"\n'


def test_other_shared_files_are_shown_at_once_and_what_is_open_stays_so(store: Mount) -> None:
    """Names that were looked for in vain are there, those that were there are gone, listings are new."""
    store.start(config=CHECKED)
    reconfigured(store, "fallback = []\n")
    assert reload(store).returncode == 0
    own = store.recording().parent.parent / "thumbnails"
    own.mkdir(exist_ok=True)
    (own / "own.png").write_bytes(b"own")
    for folder in ("one", "two"):
        (store.path / "shared" / folder).mkdir()
        (store.path / "shared" / folder / "a.png").write_bytes(folder.encode())
    (store.path / "shared" / "two" / "b.png").write_bytes(b"b")
    (store.path / "shared" / "two" / "own.png").write_bytes(b"shared")

    def seen() -> dict[str, bytes]:
        assert not (own / "c.png").exists()
        by_name = {name: (own / name).read_bytes() for name in ("a.png", "b.png", "own.png") if (own / name).exists()}
        assert sorted(os.listdir(own)) == sorted(by_name)
        return by_name

    here = os.open(own, os.O_RDONLY)
    assert seen() == {"own.png": b"own"}  # the kernel knows of the others that they are not there
    reconfigured(store, rule("one/*"))
    assert reload(store).returncode == 0
    assert seen() == {"a.png": b"one", "own.png": b"own"}
    with (own / "a.png").open("rb", buffering=0) as opened:
        assert opened.read(1) == b"o"
        reconfigured(store, rule("two/*"))
        assert reload(store).returncode == 0
        assert seen() == {"a.png": b"two", "b.png": b"b", "own.png": b"own"}
        assert opened.read() == b"ne"
        (own / "b.png").unlink()
        reconfigured(store, "fallback = []\n")
        store.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not (own / "a.png").exists(), "nothing is shown any more")
        assert seen() == {"own.png": b"own"}
        assert os.pread(opened.fileno(), 3, 0) == b"one"
        assert os.fstat(opened.fileno()).st_size == 3
    assert sorted(os.listdir(here)) == ["own.png"]
    os.close(here)
    reconfigured(store, rule("two/*"))
    assert reload(store).returncode == 0
    assert seen() == {"a.png": b"two", "own.png": b"own"}, "what the user has hidden stays hidden"
    (own / "own.png").unlink()
    assert seen() == {"a.png": b"two", "own.png": b"shared"}


def test_a_reload_is_told_to_the_service_manager(store: Mount) -> None:
    store.start(config=CHECKED)
    address = store.base / "notify"
    address.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(60.0)
        reconfigured(store, '[log]\nlevel = "debug"\n')
        before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        store.process.send_signal(signal.SIGHUP)
        begun = told(manager, b"RELOADING=1")
        found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)\n?", begun)
        assert found is not None, begun
        assert before_us <= int(found[1]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert b"READY=1" in told(manager, b"READY=1")
    wait_until(lambda: "log.level is debug now (was info)" in store.log(), "it is logged")


def told(manager: socket.socket, begins: bytes) -> bytes:
    """The next message that begins so."""
    while not (message := manager.recv(4096)).startswith(begins):
        pass
    return message


@pytest.mark.slow
def test_signals_during_a_hand_over_end_no_daemon(store: Mount) -> None:
    store.start(config=CHECKED)
    rec = store.recording()
    stop = threading.Event()
    sent: list[int] = []

    def hang_up() -> None:
        while not stop.wait(0.005):
            try:
                pid = int((store.root / ".recfs/lock").read_text("ascii"))
                os.kill(pid, signal.SIGHUP)
            except (OSError, ValueError):
                continue
            sent.append(pid)

    sender = threading.Thread(target=hang_up)
    sender.start()
    try:
        pids = {store.call("status")["pid"]}
        for number in range(3):
            assert "goes on" in store.upgrade()
            (rec / f"file{number}").write_bytes(b"recorded")
            pids.add(store.call("status")["pid"])
    finally:
        stop.set()
        sender.join()
    assert len(pids) == 4
    assert len(set(sent) & pids) >= 2, "signals came to more than one of them"
    assert sorted(each.name for each in rec.iterdir()) == ["file0", "file1", "file2"]
    reconfigured(store, "[quota]\nmax_files = 77\n")
    assert reload(store).returncode == 0
    assert store.call("settings")["config"]["quota"]["max_files"] == 77, "by a signal that was on its way, or by that"
