"""`recfs top`: lines, JSON, and a page on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .fake_daemon import FakeDaemon, run

EVIL = "users/5/\x1b]0;owned\x07\x1b[2Jx\r\n.mp4"


def look(number: int) -> dict[str, Any]:
    """The answer at the n-th look: each second the same goes on."""
    doing = {"requests": 100 * number, "read_bytes": 0, "written_bytes": number << 20, "kernel_bytes": number << 21}
    return {
        "at_s": float(number),
        "requests": {"write": {"count": 100 * number, "failed": 2 * number, "seconds": 0.01 * number}},
        "users": [{"user": "5"} | doing],
        "files": [{"ino": 7, "path": EVIL} | doing],
        "open": {"handles": 12, "writers": 3, "kernel": 3},
        "pipeline": {
            "sealing": 4,
            "hashing_bytes": 0,
            "settling": 2,
            "dirty": 31,
            "files": [{"path": EVIL, "done_bytes": 1 << 20, "total_bytes": 3 << 20, "eta_s": None}],
        },
        "problems": ["S3 is \x1b[31mdown"],
    }


@pytest.fixture
def daemon(root: Path) -> Iterator[FakeDaemon]:
    numbers = count(1)
    with FakeDaemon(root, {"top": lambda params: look(next(numbers))}) as made:
        yield made


def test_one_interval_is_told_in_lines(daemon: FakeDaemon) -> None:
    told = run("top", "--once", "--interval", "100ms", "--root", daemon.root)
    assert told.exit_code == 0, told.output
    assert "1.0 s: 100 requests/s, 2 failed; 12 open (3 write, 3 by the kernel); 4 to commit" in told.stdout
    for each in ("write", "100 us", "1 MiB", "2 MiB", "problem: S3 is", "Done"):
        assert each in told.stdout
    assert "\x1b" not in told.stdout
    assert "\r" not in told.stdout
    assert "\x07" not in told.stdout


def test_rates_are_told_as_json(daemon: FakeDaemon) -> None:
    told = run("top", "--once", "--interval", "100ms", "--json", "--root", daemon.root)
    (line,) = told.stdout.splitlines()
    found = json.loads(line)
    assert found["requests"]["write"] == {"per_s": 100.0, "failed": 2, "mean_s": pytest.approx(0.0001)}
    assert found["users"][0]["kernel_bytes"] == 2 << 20
    assert found["files"][0]["path"] == EVIL


def test_counters_that_begin_anew_are_no_negative_rates(root: Path) -> None:
    looks = iter([look(9), look(1) | {"at_s": 10.0}])
    with FakeDaemon(root, {"top": lambda params: next(looks)}) as daemon:
        told = run("top", "--once", "--interval", "100ms", "--json", "--root", daemon.root)
    found = json.loads(told.stdout)
    assert found["requests"]["write"]["per_s"] == 100.0
    assert found["users"] == []


def test_without_a_daemon_nothing_goes_on(root: Path) -> None:
    told = run("top", "--once", "--root", root)
    assert told.exit_code != 0
    assert "nothing goes on" in told.output


class Terminal:
    """`recfs top` on a pseudoterminal."""

    def __init__(self, root: Path, **env: str | None) -> None:
        """*env*: other than usual; None: not set."""
        self.fd, theirs = pty.openpty()
        whole = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"} | env
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recfs", "top", "--interval", "100ms", "--root", str(root)],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={name: value for name, value in whole.items() if value is not None},
        )  # fmt: skip
        os.close(theirs)
        self.shown = b""

    def until(self, is_there: Callable[[bytes], bool], seconds: float = 60.0) -> None:
        """Read until that is shown. Raises TimeoutError."""
        end_s = time.monotonic() + seconds
        while not is_there(self.shown):
            if time.monotonic() > end_s or not select.select([self.fd], [], [], max(0.0, end_s - time.monotonic()))[0]:
                raise TimeoutError(self.shown[-2000:])
            try:
                self.shown += os.read(self.fd, 65536)
            except OSError:  # the other end is closed
                raise TimeoutError(self.shown[-2000:]) from None

    def ended(self) -> int:
        """Read what is left, and give the exit status."""
        end_s = time.monotonic() + 60.0
        while self.process.poll() is None and time.monotonic() < end_s:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.fd, 65536)
                except OSError:
                    break
        return self.process.wait(10.0)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.fd)


@pytest.fixture
def terminal(daemon: FakeDaemon) -> Iterator[Terminal]:
    made = Terminal(daemon.root)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["q", "ctrl-c"])
def test_a_page_is_drawn_until_somebody_leaves(terminal: Terminal, leave: str) -> None:
    terminal.until(lambda shown: shown.count(b"requests/s") >= 2)
    if leave == "q":
        os.write(terminal.fd, b"q")
    else:
        os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.ended() == 0
    shown = terminal.shown
    assert b"\x1b[?1049h" in shown
    assert shown.rindex(b"\x1b[?1049l") > shown.index(b"\x1b[?1049h"), "the screen is as it was"
    assert b"By the kernel/s" in shown


@pytest.mark.slow
def test_no_name_gets_at_the_terminal(terminal: Terminal) -> None:
    terminal.until(lambda shown: shown.count(b"requests/s") >= 2)
    for attack in (b"\x1b]0;", b"\x07", b"\x1b[2Jx", b"\x1b[31mdown"):
        assert attack not in terminal.shown
    assert b"owned" in terminal.shown, "the name is shown, harmless"


@pytest.mark.slow
@pytest.mark.parametrize("term", ["dumb", None])
def test_a_terminal_that_cannot_be_drawn_on_has_lines(daemon: FakeDaemon, term: str | None) -> None:
    terminal = Terminal(daemon.root, TERM=term)
    try:
        terminal.until(lambda shown: shown.count(b"requests/s") >= 2 and shown.count(b"By the kernel/s") >= 2)
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.ended() == 130
        assert b"\x1b" not in terminal.shown
        assert terminal.shown.isascii() or "─".encode() in terminal.shown
    finally:
        terminal.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [{"COLUMNS": "20"}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["narrow", "ASCII"],
)
def test_a_narrow_terminal_and_one_of_ascii_have_the_page(daemon: FakeDaemon, env: dict[str, str]) -> None:
    terminal = Terminal(daemon.root, **env)
    try:
        terminal.until(lambda shown: shown.count(b"requests/s") >= 2 and b"User" in shown and b"Hashed" in shown)
        os.write(terminal.fd, b"q")
        assert terminal.ended() == 0
        assert "PYTHONUTF8" not in env or terminal.shown.isascii()
    finally:
        terminal.close()
