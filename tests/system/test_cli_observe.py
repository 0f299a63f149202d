"""`recfs events` and `recfs audit`: what they print, their exit codes, and what they make of odd names."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recfs.cli.common import store, where
from recfs.cli.common.exits import ExitCode
from recfs.cli.observe import events as command
from recfs.errors import CursorLost
from recfs.observing.audit.files import AuditFiles, AuditSettings
from recfs.observing.audit.reading import AuditReader
from tests.system.fake_daemon import FakeDaemon, run

RENAMED = {
    "cursor": "00ff00ff-2", "time": "2026-11-29T16:42:43.000001Z", "time_ns": 1, "event": "renamed",
    "path": "users/5/new\n\x1b[2J\udcff", "was": "users/5/old", "user": "5", "ino": 7,
}  # fmt: skip
COMMITTED = {
    "cursor": "00ff00ff-1", "time": "2026-11-29T16:42:42.000001Z", "time_ns": 0, "event": "committed",
    "path": "users/5/old", "user": "5", "ino": 7, "size_bytes": 2048, "sha256": "ab" * 32,
}  # fmt: skip


def page(*events: dict[str, Any], more: bool = False) -> dict[str, Any]:
    return {"events": list(events), "cursor": events[-1]["cursor"] if events else "00ff00ff-2", "more": more}


@pytest.fixture
def telling(root: Path) -> FakeDaemon:
    """A daemon with two pages of events, not yet running."""
    made = FakeDaemon(root)
    left = [page(COMMITTED, more=True), page(RENAMED)]
    made.answers |= {"events": lambda params: left.pop(0)}
    return made


def test_all_pages_are_told_one_line_an_event(telling: FakeDaemon, root: Path) -> None:
    with telling as daemon:
        result = run("events", "--user", "5", "--kind", "renamed", "--kind", "committed", "--root", root)
    assert (result.exit_code, result.output.splitlines()) == (
        0,
        [
            "2026-11-29T16:42:42Z  committed      users/5/old (2 KiB)",
            "2026-11-29T16:42:43Z  renamed        users/5/old -> users/5/new\\n\\x1b[2J\\xff",
        ],
    )
    asked = {"kinds": ["renamed", "committed"], "user": "5"}
    assert daemon.asked == [
        ("events", asked | {"since": "oldest"}), ("events", asked | {"since": "00ff00ff-1"}),
    ]  # fmt: skip


def test_with_json_each_line_is_an_event(telling: FakeDaemon, root: Path) -> None:
    with telling:
        result = run("--json", "events", "--root", root)
    assert [json.loads(line) for line in result.output.splitlines()] == [COMMITTED, RENAMED]
    assert result.output.isascii()


def test_a_lost_cursor_is_exit_code_7(telling: FakeDaemon, root: Path) -> None:
    def lost(params: dict[str, Any]) -> Any:
        raise CursorLost("the cursor is too old")

    telling.answers |= {"events": lost}
    with telling:
        result = run("events", "--since", "00ff00ff-1", "--root", root)
    assert result.exit_code == 7
    assert "recfs: the cursor is too old" in result.stderr


def test_follow_begins_with_what_comes_and_takes_a_daemon(
    telling: FakeDaemon, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_lost(params: dict[str, Any]) -> Any:
        if "wait_s" not in params:
            return page()
        if params["since"] == "00ff00ff-2":
            return page(COMMITTED)
        raise CursorLost("enough")

    telling.answers |= {"events": until_lost}
    with telling as daemon:
        result = run("events", "--follow", "--root", root)
    assert (result.exit_code, "committed" in result.stdout) == (7, True)
    assert [(params["since"], params.get("wait_s")) for _, params in daemon.asked] == [
        ("now", None), ("00ff00ff-2", command.WAIT_S), ("00ff00ff-1", command.WAIT_S),
    ]  # fmt: skip
    alone = run("events", "--follow", "--root", root)
    assert (alone.exit_code, "to follow what happens takes one" in alone.stderr) == (6, True)


def test_no_such_kind() -> None:
    assert run("events", "--kind", "exploded").exit_code == 2


# --- audit --------------------------------------------------------------------------------------------------------


@pytest.fixture
def audited(root: Path) -> Path:
    """A store with an audit log."""
    files = AuditFiles(AuditSettings(root / ".recfs" / "audit", 1 << 20, 1e9, 1e9, 1 << 30))
    who = {"uid": 1, "gid": 1, "result": "ok"}
    acts = [
        who | {"op": "unlink", "pid": 4711, "command": "rm\x1b[2J", "path": "users/5/\nx"},
        {"op": "chmod", "result": "EROFS", "uid": 2, "pid": 0, "command": "", "path": "shared/y", "mode": "0600"},
        who | {"op": "rename", "pid": 9, "command": "mv", "path": "users/5/a", "to": "temp/5/b"},
    ]
    for number, act in enumerate(acts):
        told = {"time": f"2026-11-29T16:42:4{number}.000001Z", "time_ns": number} | act
        files.write(json.dumps(told).encode() + b"\n", 1.0, 1.0)
    files.write(b"half a li\n", 1.0, 1.0)
    files.close()
    return root


def test_acts_are_told_with_who_did_them(audited: Path) -> None:
    result = run("audit", "--root", audited)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "2026-11-29T16:42:40Z  unlink       ok        uid 1  rm\\x1b[2J (4711)     users/5/\\nx",
        "2026-11-29T16:42:41Z  chmod        EROFS     uid 2  ? (0)                shared/y mode=0600",
        "2026-11-29T16:42:42Z  rename       ok        uid 1  mv (9)               users/5/a -> temp/5/b",
    ]
    assert result.stderr == "recfs: 1 lines are damaged, and left out\n"


def test_acts_are_sought(audited: Path) -> None:
    def ops(*args: object) -> list[str]:
        return [json.loads(line)["op"] for line in run("--json", "audit", "--root", audited, *args).stdout.splitlines()]

    assert ops("--path", "/users/5/") == ["unlink", "rename"]
    assert ops("--path", "temp/5") == ["rename"]
    assert ops("--uid", "2") == ["chmod"]
    assert ops("--refused") == ["chmod"]
    assert ops("--op", "unlink", "--op", "chmod") == ["unlink", "chmod"]
    assert ops("--since", "1h") == []
    assert len(ops("--until", "1h")) == 3
    assert run("audit", "--since", "yesterday", "--root", audited).exit_code == 2


def test_a_path_is_understood_as_everywhere_else(
    audited: Path, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a mount, on the disk, by detours, or of a chosen store; it may be gone. What is none of these is refused."""
    point = tmp_path / "mnt"
    (point / "users").mkdir(parents=True)
    (tmp_path / "link").symlink_to(point)
    monkeypatch.setattr(where, "mounts", lambda: [where.Mount(7, point, "", "fuse.recfs")])
    for module in (where, store):
        monkeypatch.setattr(module, "root_behind", lambda mount: root)
    monkeypatch.chdir(point / "users")

    def ops(path: object, *chosen: object) -> list[str]:
        result = run("--json", "audit", "--path", path, *chosen)
        assert result.exit_code == 0, (path, result.stderr)
        return [json.loads(line)["op"] for line in result.stdout.splitlines()]

    for path in (
        point / "users/5", f"{point}//users/./5/", point / "shared/../users/5", tmp_path / "link/users/5", "5", "./5",
        "../users/5", root / "users/5",
    ):  # fmt: skip
        assert ops(path) == ["unlink", "rename"], path
    for path in (point, f"{point}/", "..", tmp_path / "link", root):
        assert ops(path) == ["unlink", "chmod", "rename"], path
    assert ops(".") == ["unlink", "rename"]
    assert ops(point / "temp/5/b") == ["rename"]
    chosen = ("--root", root)
    for path in ("users/5", "/users/5", "users/./5/", "/users/5/../5", "temp/../users/5", point / "users/5"):
        assert ops(path, *chosen) == ["unlink", "rename"], path
    assert len(ops("/", *chosen)) == 3
    for path in (tmp_path, "/etc/passwd", root / ".recfs/audit"):
        refused = run("audit", "--path", path, *chosen)
        assert (refused.exit_code, refused.stdout) == (7, ""), path
        assert "no recfs mount" in refused.stderr or "recfs' own" in refused.stderr
    refused = run("audit", "--path", "users/../../x", *chosen)
    assert (refused.exit_code, "leads out of the store" in refused.stderr) == (7, True)


def test_an_audit_log_that_cannot_be_read_is_told_with_the_reason(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "audit.jsonl").mkdir(parents=True)
    (tmp_path / "circle").symlink_to("circle")
    conf = tmp_path / "recfs.conf"
    for name, told in (("file", "is no directory"), ("file/below", "is no directory"), ("folder", "Is a directory"),
                       ("circle", "Too many levels of symbolic links")):  # fmt: skip
        conf.write_text(f'root = "{root}"\n[audit]\ndirectory = "{tmp_path / name}"')
        result = run("audit", "--config", conf)
        assert (result.exit_code, result.stderr.count("\n")) == (7, 1), (name, result.stderr)
        assert told in result.stderr

    def closed(self: object, sought: object) -> Iterator[Any]:
        raise PermissionError(errno.EACCES, "Permission denied")
        yield

    monkeypatch.setattr(AuditReader, "acts", closed)
    result = run("audit", "--root", root)
    assert (result.exit_code, "run this as its owner or root" in result.stderr) == (9, True)


def test_an_act_that_there_is_not_is_refused(audited: Path) -> None:
    result = run("audit", "--op", "unlink", "--op", "nonsense", "--root", audited)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no act 'nonsense'" in result.stderr
    for known in ("unlink", "expired-removed", "quota_set", "trash_restore", "backup_now", "upgraded"):
        assert known in result.stderr
    assert run("audit", "--op", "quota_set", "--root", audited).exit_code == 0


def test_a_store_without_an_audit_log(root: Path) -> None:
    result = run("audit", "--root", root)
    assert (result.exit_code, "[audit] enabled is false" in result.stderr) == (7, True)


def test_who_stops_reading_is_no_audit_log_that_cannot_be_read(audited: Path) -> None:
    """`recfs audit | head`."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "recfs", "audit", "--root", str(audited)]
    try:
        result = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    finally:
        os.close(writes)
    assert result.stderr in ("", "recfs: 1 lines are damaged, and left out\n")
    assert result.returncode == ExitCode.BROKEN_PIPE
