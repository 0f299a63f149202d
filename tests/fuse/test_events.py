"""`recfs events` on a mount: followed across kill -9, read without a daemon, and by readers that do not read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import recfs
from .crashes import crash
from .harness import REPOSITORY, Mount

pytestmark = pytest.mark.modes("auto")


def following(store: Mount) -> list[str]:
    """A command that tells of every event, and of those to come."""
    arguments = ("--json", "events", "--follow", "--since", "oldest", "--root", str(store.root))
    return [sys.executable, "-m", "recfs", *arguments]


def read(store: Mount, since: str = "oldest", *args: str) -> list[dict[str, Any]]:
    """All events, by the command."""
    done = recfs("--json", "events", "--since", since, *args, "--root", store.root)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def follower(store: Mount) -> Iterator[subprocess.Popen[str]]:
    """One that tells of every event."""
    process = subprocess.Popen(
        following(store), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY, bufsize=1
    )
    yield process
    process.kill()
    process.communicate()


def next_event(follower: subprocess.Popen[str]) -> dict[str, Any]:
    assert follower.stdout is not None
    line = follower.stdout.readline()
    assert line.startswith('{"'), f"the follower ended: {line}{follower.stdout.read()}"
    event: dict[str, Any] = json.loads(line)
    return event


def test_a_follower_hears_of_every_commit_once_across_kills(
    store: Mount, own_rec: Path, follower: subprocess.Popen[str]
) -> None:
    """It reacts to what is committed: each is so when it hears of it, and stays so; none is missed."""
    told: list[str] = []
    for life in range(3):
        for number in range(20):
            (own_rec / f"{life}-{number}").write_bytes(b"%d" % number)
        while True:
            event = next_event(follower)
            if event["event"] == "committed":
                told.append(event["path"])
                assert store.info(store.path / event["path"])["state"] == "committed"
                if len(told) >= 20 * life + 10:
                    break
        crash(store)
        rows = store.call("ls_files", path="", recursive=True, state="committed")
        committed = {row["path"] for row in rows if row["kind"] == "file"}
        assert set(told) <= committed, "told of a commit that is not"
    store.drain()
    paths = {store.inner(each) for each in own_rec.iterdir()}
    assert len(paths) == 60
    while set(told) != paths:
        event = next_event(follower)
        if event["event"] == "committed":
            told.append(event["path"])
    assert len(told) == len(set(told)), "told twice of one commit"
    assert [each["path"] for each in read(store) if each["event"] == "committed"] == told
    # Who begins again from any cursor misses nothing.
    middle = read(store)[7]["cursor"]
    assert read(store, middle) == read(store)[8:]


@pytest.mark.smoke
def test_events_are_read_without_a_daemon(store: Mount, own_rec: Path) -> None:
    odd = own_rec / os.fsdecode(b"a\nb\xff")
    odd.write_bytes(b"x")
    store.drain()
    odd.rename(own_rec / "plain")
    store.umount()
    events = read(store)
    assert [(each["event"], each["path"]) for each in events] == [
        ("committed", os.fsdecode(os.fsencode(store.inner(own_rec)) + b"/a\nb\xff")),
        ("renamed", f"{store.inner(own_rec)}/plain"),
    ]
    assert bytes.fromhex(events[1]["was_hex"]) == os.fsencode(store.inner(own_rec)) + b"/a\nb\xff"
    assert read(store, events[0]["cursor"]) == events[1:]
    assert read(store, "oldest", "--kind", "removed") == []
    done = recfs("events", "--follow", "--root", store.root, check=False)
    assert (done.returncode, b"to follow what happens takes one" in done.stderr) == (6, True)


def test_readers_that_stop_reading_hold_nobody_up(store: Mount, own_rec: Path) -> None:
    """Their pipes are full, or they are stopped: the daemon goes on, and they go on where they were."""
    stuck = [subprocess.Popen(following(store), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) for _ in range(3)]
    try:
        began = time.monotonic()
        for number in range(2000):
            (own_rec / f"a-long-name-that-fills-a-pipe-{number}").write_bytes(b"")
            if number == 500:
                stuck[0].send_signal(signal.SIGSTOP)
        store.drain()
        assert time.monotonic() - began < 60
        assert store.status()["mounted"]
        stuck[0].send_signal(signal.SIGCONT)
        for process in stuck:
            assert process.stdout is not None
            told = [json.loads(process.stdout.readline())["path"] for _ in range(2000)]
            assert len(set(told)) == 2000
    finally:
        for process in stuck:
            process.kill()
            process.communicate()


def test_a_follower_that_is_killed_leaves_no_place_taken(store: Mount, own_rec: Path) -> None:
    """No more than 16 may wait at once; forty of them, one after the other, do."""
    import socket

    (own_rec / "one").write_bytes(b"x")
    store.drain()
    request = {"method": "events", "params": {"since": "now", "wait_s": 60}}
    for _ in range(40):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(store.root / ".recfs" / "control.sock"))
            client.sendall(json.dumps(request).encode() + b"\n")
    assert store.call("events", since="now", wait_s=0.5)["events"] == []


def test_a_cursor_from_before_a_restore_is_refused(store: Mount, own_rec: Path) -> None:
    (own_rec / "one").write_bytes(b"x")
    store.drain()
    backup = store.call("backup_now")
    (own_rec / "two").write_bytes(b"y")
    store.drain()
    cursor = read(store)[-1]["cursor"]
    store.umount()
    done = recfs("restore-catalogue", "--root", store.root, check=False)
    assert done.returncode == 0, (done.stderr, backup)
    store.expect_log("older than the home tree|differ from|were not in the")
    store.remount()
    done = recfs("--json", "events", "--since", cursor, "--root", store.root, check=False)
    assert done.returncode == 7
    assert b"another history" in done.stderr
