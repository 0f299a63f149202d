"""Names that a user chose to trick whoever reads of them: in the daemon's log, and in what every command prints."""

from __future__ import annotations

import errno
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .clients import run
from .harness import BASE_CONFIG, REPOSITORY, Mount, errno_is

pytestmark = pytest.mark.modeless

FORGED = "2026-11-29T00:00:00.000Z ERROR recfs.fs all is lost"
NAMES = [
    "\x1b]0;owned\x07", "\x1b[2J\x1b[1;1H", f"a\n{FORGED}", f"b\r{FORGED}", "c\x9b31m", "d\x7f\x08\x08",
    "e\u202egpm.exe", "f\u2028g", "h\x1bc", os.fsdecode(b"i\x9b\xff\x1b[m"),
]  # fmt: skip
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\udc80-\udcff]")
"""What no line of a log or a command's output has; newlines end lines."""
PROGRESS = b"\r\x1b[K"
"""With that a command begins its line of progress anew."""


def on_terminal(*args: str | Path) -> tuple[int, str]:
    """Run a command on a terminal that knows no colours; its exit code and what came there."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "500"}
    command = [sys.executable, "-m", "recfs", *map(str, args)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=REPOSITORY, env=environment) as process:
        os.close(theirs)
        got = b""
        while True:
            try:
                got += os.read(ours, 65536)
            except OSError:  # EIO: it has ended (pty(7))
                break
    os.close(ours)
    told = got.replace(b"\r\n", b"\n").replace(PROGRESS, b"")
    return process.returncode, told.decode("utf-8", "surrogateescape")


def assert_plain(text: str, what: str) -> None:
    found = CONTROL.search(text)
    assert found is None, f"{what}: {found!r} in {text[max(0, found.start() - 60) : found.end() + 60]!r}"
    assert not [line for line in text.splitlines() if line.startswith(FORGED)], f"{what}: a forged line"


@pytest.fixture
def tricked(store: Mount) -> Mount:
    """A store in which everything that can be is called so: files, directories, links and attributes."""
    config = f'{BASE_CONFIG}[trash]\nretention = "1h"\n[audit]\nenabled = true\n[log]\nlevel = "debug"\n'
    store.expect_log(re.escape(FORGED))  # as a part of a line
    store.start(config=config)
    rec = store.recording(5, 1)
    for number, name in enumerate(NAMES):
        (rec / name).mkdir()
        (rec / name / name).write_bytes(b"the same in all")
        (rec / name / "link").symlink_to(name)
        os.setxattr(rec / name / name, f"user.{name}".encode("utf-8", "surrogateescape")[:200], os.fsencode(name))
        (rec / name / "gone").write_bytes(b"%d" % number)
        (rec / name / "gone").rename(rec / name / f"{name} gone")
        (rec / name / f"{name} gone").unlink()
    store.drain()
    return store


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_command_shows_a_name_as_it_is(tricked: Mount) -> None:
    rec, root = tricked.path / "users/5/recordings/1", ("--root", tricked.root)
    name = NAMES[0]
    with (rec / name / name).open("rb"):
        for args in (
            ["status"], ["ls-files", "-r"], ["trash", "list"], ["audit"], ["events"], ["stats", "--duplicates"],
            ["verify", "--level", "hash"], ["recording", "list"], ["user", "list", "--all"], ["quota", "show"],
            ["sweep", "orphans", "--dry-run"], ["watch"], ["queue"],
            ["recording", "keep", "users/5/recordings/9\x1b[2J"],
            ["umount"], ["trash", "restore", "users/5/\x1b]0;owned\x07"],
            *(["info", f"users/5/recordings/1/{each}/{each}"] for each in (NAMES[2], NAMES[9])),
            *(["info", f"users/5/recordings/1/{each}/none of {each}"] for each in (NAMES[2], NAMES[9])),
            ["user", "add", "5\x1b[2J"], ["user", "add", "5", "--uid", "\x1b]0;owned\x07"],
            ["user", "remove", "\x1b[2J"], ["quota", "set", "5", "--max-bytes", "\x1b[2J"],
            ["recording", "set-expiry", "users/5/recordings/1", "\x1b[2J"],
        ):  # fmt: skip
            code, told = on_terminal(*args, *root)
            what = " ".join(map(ascii, args))
            assert code in (0, 1, 2, 5, 6, 7), f"{what}: {code}: {told}"
            assert told.strip(), what
            assert "Traceback" not in told, what
            assert_plain(told, what)


def test_no_line_of_the_log_is_a_name_s(tricked: Mount) -> None:
    """At the level that tells most, with requests that are refused for what they name."""
    rec = tricked.path / "users/5/recordings/1"
    for name in NAMES:
        with errno_is(errno.EINVAL):
            (tricked.path / "users" / name).mkdir()
        with errno_is(errno.ENOTEMPTY):
            (rec / name).rmdir()
        with errno_is(errno.EPERM):
            os.link(rec / name / name, rec / f"{name} hard")
        with errno_is(errno.EPERM):
            os.setxattr(rec / name / name, "user.recfs.state", os.fsencode(name))
    tricked.drain()
    assert_plain(tricked.log(), "the log")
    assert rf"a\n{FORGED}" in tricked.log()
    listed = run("ls", "-b", rec).stdout
    assert listed.count(b"\n") == len(NAMES)
