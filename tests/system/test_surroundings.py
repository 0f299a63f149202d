"""What whoever starts recfs hands on: closed descriptors, a configuration in a pipe, a limit on file sizes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shlex
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from recfs import process
from recfs.catalogue.opening import open_catalogue
from recfs.cli.checks.owner import fact_at
from tests.system.fake_daemon import FILE, FakeDaemon, run
from tests.system.s3_samples import EXPLAINED, TOTALS


def _recfs(closing: str, *args: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own, which the shell starts without some of its standard descriptors."""
    command = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "recfs", *map(str, args)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("closing", [">&-", "<&- >&- 2>&-"])
def test_a_closed_standard_output_changes_no_exit_code(daemon: FakeDaemon, closing: str) -> None:
    assert _recfs(closing, "status", "--root", daemon.root).returncode == 0
    done = _recfs(closing, "info", "users/5", "--config", "/nowhere/recfs.conf")
    assert done.returncode == 3, "a mistake is one all the same"


@pytest.mark.slow
def test_a_full_disk_below_standard_output_is_told_as_such(daemon: FakeDaemon) -> None:
    for args in (["status", "--root", daemon.root], ["--json", "status", "--root", daemon.root], ["--help"]):
        done = _recfs(">/dev/full", *args)
        assert done.stderr == b"recfs: cannot write to stdout: No space left on device\n", args
        assert done.returncode == 1
    done = _recfs("</dev/null 1<&0", "--version")
    assert (done.returncode, done.stderr) == (1, b"recfs: cannot write to stdout: Bad file descriptor\n")


@pytest.mark.slow
@pytest.mark.parametrize("where", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
def test_a_mistake_keeps_its_exit_code_where_nothing_can_be_written(where: str) -> None:
    assert _recfs(where, "--json", "info", "users/5", "--config", "/nowhere/recfs.conf").returncode == 3


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_a_command_silently(daemon: FakeDaemon) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        command = [sys.executable, "-m", "recfs", "status", "--root", str(daemon.root)]
        done = subprocess.run(command, stdout=ours, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(ours)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
def test_a_pipe_that_does_not_block_is_waited_for(daemon: FakeDaemon) -> None:
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-m", "recfs", "--json", "ls-files", "--root", str(daemon.root)]
    daemon.answers["ls_files"] = [FILE] * 100
    with subprocess.Popen(command, stdout=ours, stderr=subprocess.PIPE) as process, open(theirs, "rb") as reader:
        os.close(ours)
        assert len(json.load(reader)) == 100
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait(20)) == (b"", 0)


@pytest.mark.parametrize("by", ["option", "variable"])
def test_a_configuration_that_can_be_read_once_is_refused_with_detach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    theirs, ours = os.pipe()
    try:
        os.write(ours, f'root = "{tmp_path / "store"}"\n'.encode())
        os.close(ours)
        named = f"/proc/self/fd/{theirs}"
        if by == "option":
            result = run("mount", "-d", "--config", named, tmp_path / "m")
        else:
            monkeypatch.setenv("RECFS_CONFIG", named)
            result = run("mount", "-d", tmp_path / "m")
    finally:
        os.close(theirs)
    assert result.exit_code == 3, result.output
    assert "no regular file; write it into one, or leave out -d" in result.stderr
    assert not (tmp_path / "store").exists()


def test_a_file_behind_a_descriptor_is_refused_too(tmp_path: Path) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text(f'root = "{tmp_path / "store"}"\n')
    with conf.open() as opened:
        result = run("mount", "-d", "--config", f"/dev/fd/{opened.fileno()}", tmp_path / "m")
    assert (result.exit_code, "no regular file" in result.stderr) == (3, True), "the daemon has other descriptors"


def test_a_file_that_is_standard_input_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/stdin leads, by /proc, to a regular file; in the daemon it leads to /dev/null."""
    conf = tmp_path / "recfs.conf"
    conf.write_text(f'root = "{tmp_path / "store"}"\n')
    command = [sys.executable, "-m", "recfs", "mount", "-d", "--config", "/dev/stdin", str(tmp_path / "m")]
    with conf.open() as opened:
        result = subprocess.run(command, stdin=opened, capture_output=True, text=True, check=False)
    assert (result.returncode, "no regular file" in result.stderr) == (3, True), result.stderr


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs /dev/shm")
def test_a_configuration_in_memory_is_a_file_like_any() -> None:
    with tempfile.NamedTemporaryFile("w", dir="/dev/shm", suffix=".conf") as conf:
        conf.write('root = "relative"\n')
        conf.flush()
        result = run("mount", "-d", "--config", conf.name, "/nowhere")
    assert (result.exit_code, "no regular file" in result.stderr) == (3, False), "it is read, and found wrong"


def test_the_name_of_a_configuration_is_shown_on_one_line(tmp_path: Path) -> None:
    result = run("config", "check", tmp_path / "a\nb.conf")
    assert (
        result.stderr
        == f"recfs: {tmp_path}/a\\nb.conf: no such config file; check the path, or give --root DIR instead\n"
    )


def _limits(monkeypatch: pytest.MonkeyPatch, *, root: bool) -> list[tuple[int, int]]:
    limit, set_to = (1024, 4096), []

    def setrlimit(which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_FSIZE
        if limits[1] != limit[1] and not root:
            raise ValueError("not allowed to raise maximum limit")
        set_to.append(limits)

    monkeypatch.setattr(resource, "getrlimit", lambda which: limit)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    process._raise_size_limit()
    return set_to


def test_a_limit_on_file_sizes_is_not_the_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _limits(monkeypatch, root=True) == [(resource.RLIM_INFINITY, resource.RLIM_INFINITY)]


@pytest.mark.expect_log(r"no file can become larger than 4 KiB .*ulimit -f")
def test_a_limit_on_file_sizes_that_stays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _limits(monkeypatch, root=False) == [(4096, 4096)]


@pytest.mark.slow
@pytest.mark.parametrize("limit_kib", [4, 40, 100])
def test_a_first_mount_that_a_limit_on_file_sizes_ends_leaves_no_store(tmp_path: Path, limit_kib: int) -> None:
    """It names the limit, and what comes after it says that there is no store, not that there is a bug."""
    root = tmp_path / "store"
    (tmp_path / "m").mkdir()
    mount = shlex.join([sys.executable, "-m", "recfs", "mount", "--root", str(root), str(tmp_path / "m")])
    first = subprocess.run(
        _without_capabilities(f"ulimit -f {limit_kib * 2}; exec {mount}"),
        # Python leaves half of a compiled module where a file cannot become larger.
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (first.returncode, f"larger than {limit_kib} KiB" in first.stderr) == (4, True), first.stderr
    assert "ulimit -f unlimited" in first.stderr.splitlines()[-1]
    for command in (["status"], ["ls-files"], ["quota", "show"], ["quota", "check"], ["info", "users"]):
        result = run(*command, "--root", root)
        assert (result.exit_code, "no recfs store at" in result.stderr) == (4, True), result.stderr
    assert not list((root / ".recfs").glob("catalogue*"))


@pytest.mark.parametrize("made", ["nothing", "tables"])
def test_a_store_that_was_not_made_to_its_end_is_no_bug(tmp_path: Path, made: str) -> None:
    """Where recfs, or the machine, died in its first moment."""
    (tmp_path / ".recfs").mkdir()
    path = tmp_path / ".recfs/catalogue.db"
    if made == "tables":
        open_catalogue(path).close()
    else:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("pragma journal_mode = wal")
            db.execute("create table other (a)")
    for command in (["status"], ["ls-files"], ["quota", "show"], ["quota", "check"], ["info", "users"], ["queue"]):
        result = run(*command, "--root", tmp_path)
        assert (result.exit_code, "was not made to its end" in result.stderr) == (4, True), result.stderr
    assert fact_at(tmp_path, "store_id") is None, "as doctor asks"


def _without_capabilities(script: str) -> list[str]:
    """A shell that may not raise its limits, whoever runs it (capabilities(7): CAP_SYS_RESOURCE)."""
    shell = ["sh", "-c", script]
    return shell if os.geteuid() else ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", *shell]


# --- what is waited for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "told"), [("open", True), ("half-open", True), ("closed", False)])
def test_drain_says_that_s3_is_down(root: Path, state: str, told: bool) -> None:
    breaker = {"state": state, "error": "connection refused; check [s3] endpoint"}
    left: dict[str, Any] = {"s3": {"totals": TOTALS, "rows": [], "breaker": breaker}}
    with FakeDaemon(root, {"drain": {"pending": 2, "left": left}}):
        result = run("drain", "--root", root, "--timeout", "1s")
    assert ("S3 is down: connection refused; check [s3] endpoint" in result.stdout) is told


@pytest.mark.parametrize(("name", "told"), [(".video.part", True), ("video.mp4", False)])
def test_route_explain_says_that_a_temporary_name_waits(root: Path, name: str, told: bool) -> None:
    answer = EXPLAINED | {"path": f"users/5/recordings/1/{name}"}
    with FakeDaemon(root, {"route_explain": answer}):
        result = run("route", "explain", answer["path"], "--root", root)
    assert ("its name looks temporary: it waits until it is renamed" in result.stdout) is told
