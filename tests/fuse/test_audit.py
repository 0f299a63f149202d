"""The audit log of a mount: who did what by programs, the command line and the daemon; on a full disk; forged names."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.disks import disk
from tests.helpers.machine import skip

from .clients import recfs, wait_until
from .harness import BASE_CONFIG, ROOT_USER, Mount, errno_is

pytestmark = pytest.mark.modes("auto")
CONFIG = f"{BASE_CONFIG}[audit]\nenabled = true\n"


@pytest.fixture
def audited(store: Mount) -> Mount:
    return store.start(config=CONFIG)


def read(store: Mount, *args: str) -> list[dict[str, Any]]:
    """What `recfs audit` tells."""
    done = recfs("--json", "audit", "--root", store.root, *args)
    return [json.loads(line) for line in done.stdout.splitlines()]


def settled(store: Mount) -> None:
    """Wait until all is written."""

    wait_until(lambda: not store.status()["audit"]["waiting"], "the audit log is written")


def short(acts: list[dict[str, Any]]) -> list[str]:
    return [" ".join(filter(None, (each["op"], each["result"], each.get("path"), each.get("to")))) for each in acts]


def as_user(uid: int, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.smoke
def test_what_programs_do_is_told_with_who_did_it(audited: Mount) -> None:
    rec = audited.recording(5, 1)
    (rec / "file").write_bytes(b"x")
    (rec / "file").chmod(0o600)
    os.utime(rec / "file", (1, 1))
    os.setxattr(rec / "file", "user.note", b"secret")
    os.removexattr(rec / "file", "user.note")
    with (rec / "file").open("r+b") as file:
        file.truncate(0)
    (rec / "file").read_bytes()
    (rec / "link").symlink_to("file")
    (rec / "sub").mkdir()
    (rec / "file").rename(rec / "sub/other")
    (rec / "sub/other").unlink()
    (rec / "link").unlink()
    (rec / "sub").rmdir()
    with errno_is(errno.EINVAL):
        (audited.path / "users/no-id").mkdir()
    settled(audited)
    top = audited.inner(rec)
    acts = read(audited, "--path", top)
    assert short(acts) == [
        f"mkdir ok {top}", f"create ok {top}/file", f"chmod ok {top}/file", f"setxattr ok {top}/file",
        f"removexattr ok {top}/file", f"overwrite ok {top}/file", f"truncate ok {top}/file", f"symlink ok {top}/link",
        f"mkdir ok {top}/sub", f"rename ok {top}/file {top}/sub/other", f"unlink ok {top}/sub/other",
        f"unlink ok {top}/link", f"rmdir ok {top}/sub",
    ]  # fmt: skip
    assert {(each["uid"], each["user"]) for each in acts} == {(os.getuid(), "5")}
    assert {each["command"] for each in acts} == {Path("/proc/self/comm").read_text().strip()}
    by_op = {each["op"]: each for each in acts}
    assert by_op["chmod"]["mode"] == "0600"
    assert by_op["setxattr"]["name"] == "user.note"
    assert "value" not in by_op["setxattr"]
    assert by_op["symlink"]["target"] == "file"
    assert short(read(audited, "--refused")) == ["mkdir EINVAL users/no-id"]
    assert read(audited, "--user", "6") == []
    assert short(read(audited, "--op", "rmdir")) == [f"rmdir ok {top}/sub"]
    assert read(audited, "--since", "1h", "--until", "30m") == []


@pytest.mark.needs("setpriv")
@pytest.mark.skipif(not ROOT_USER, reason="needs root, to be somebody else")
def test_other_users_and_what_they_are_refused(audited: Mount) -> None:
    rec = audited.recording(5, 1)
    rec.chmod(0o777)
    assert as_user(1234, "mkdir", str(rec / "theirs")).returncode == 0
    assert as_user(1234, "touch", str(audited.path / "shared/x")).returncode != 0
    os.chmod(audited.path / "shared", 0o777)
    assert as_user(1234, "mkdir", str(audited.path / "shared/x")).returncode != 0
    settled(audited)
    (made,) = read(audited, "--op", "mkdir", "--path", f"{audited.inner(rec)}/theirs")
    assert (made["uid"], made["gid"], made["command"]) == (1234, 1234, "mkdir")
    (refused,) = read(audited, "--uid", "1234", "--refused", "--op", "mkdir")
    assert (refused["path"], refused["result"]) == ("shared/x", "EROFS")


def test_limits_and_who_set_them(audited: Mount) -> None:
    rec = audited.recording(5, 1)
    audited.call("quota_set", user="5", max_bytes=10_000)
    with errno_is(errno.EDQUOT), (rec / "large").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 1000)
    settled(audited)
    (limit,) = read(audited, "--op", "quota_set")
    assert (limit["via"], limit["uid"], limit["pid"], limit["result"]) == ("control", os.getuid(), os.getpid(), "ok")
    assert json.loads(limit["params"]) == {"user": "5", "max_bytes": 10_000}
    refused = [each for each in read(audited, "--op", "write") if each["result"] == "EDQUOT"]
    assert [each["path"] for each in refused] == [f"{audited.inner(rec)}/large"]
    assert "status" not in {each["op"] for each in read(audited)}


def test_names_cannot_forge_a_line(audited: Mount) -> None:
    rec = audited.recording(5, 1)
    forged = os.fsdecode(b'x"}\n{"op":"unlink","uid":0,"result":"ok","path":"users"}\n\x1b[2J\xff')
    (rec / forged).write_bytes(b"")
    (rec / forged).unlink()
    settled(audited)
    acts = read(audited, "--path", f"{audited.inner(rec)}/{forged}")
    assert [each["op"] for each in acts] == ["create", "unlink"]
    assert bytes.fromhex(acts[0]["path_hex"]) == os.fsencode(f"{audited.inner(rec)}/{forged}")
    assert all(each["path"].startswith("users/") for each in read(audited))
    shown = recfs("audit", "--root", audited.root, "--op", "unlink").stdout
    assert shown.count(b"\n") == 1
    assert b"\x1b" not in shown


@pytest.mark.modes("auto", "off")
def test_reads_are_told_if_that_is_asked_for(store: Mount) -> None:
    store.start(config=f"{CONFIG}reads = true\n")
    rec = store.recording(5, 1)
    (rec / "file").write_bytes(b"x")
    (rec / "file").read_bytes()
    settled(store)
    assert short(read(store, "--op", "read")) == [f"read ok {store.inner(rec)}/file"]


def test_nothing_is_written_unless_that_is_turned_on(store: Mount) -> None:
    store.start()
    (store.recording(5, 1) / "file").write_bytes(b"x")
    assert store.status()["audit"] is None
    assert not (store.root / ".recfs/audit").exists()
    done = recfs("audit", "--root", store.root, check=False)
    assert (done.returncode, b"[audit] enabled is false" in done.stderr) == (7, True)


@pytest.fixture
def small(workspace: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = workspace / "audit-disk"
    folder.mkdir(exist_ok=True)
    with disk("tmpfs", folder, 256 << 10) as why_not:
        if why_not is not None:
            skip(f"needs a small disk: {why_not}")
        yield folder


def test_a_full_disk_below_the_audit_log_stops_nobody_and_says_what_is_missing(store: Mount, small: Path) -> None:
    store.expect_log("audit.jsonl cannot be written: .*No space left")
    store.start(config=f'{CONFIG}directory = "{small}"\n')
    rec = store.recording(5, 1)
    ballast = small / "ballast"
    ballast.write_bytes(b"x" * (200 << 10))
    for number in range(1500):
        (rec / f"file-{number}").write_bytes(b"")
    wait_until(lambda: store.status()["audit"]["dropped"] > 500, "acts are dropped")
    told = store.status()["audit"]
    assert "No space left" in told["problem"]
    for number in range(100):
        (rec / f"file-{number}").unlink()
    ballast.unlink()
    settled(store)
    (rec / "file-1000").unlink()
    settled(store)
    found = store.status()["audit"]
    assert found["problem"] is None
    acts = [json.loads(line) for line in (small / "audit.jsonl").read_text().splitlines()]
    missing = sum(each["count"] for each in acts if each["op"] == "dropped")
    assert missing == found["dropped"] > 500
    assert len([each for each in acts if each["op"] != "dropped"]) == found["written"]
    assert short(acts)[-1] == f"unlink ok {store.inner(rec)}/file-1000"
    shown = recfs("status", "--root", store.root).stdout.decode()
    assert f"{found['dropped']:,} acts are missing" in shown


def test_the_log_goes_on_after_the_daemon_was_killed(audited: Mount) -> None:
    rec = audited.recording(5, 1)
    (rec / "before").write_bytes(b"")
    settled(audited)
    audited.kill()
    audited.remount()
    (rec / "after").write_bytes(b"")
    audited.umount()
    assert short(read(audited, "--op", "create")) == [
        f"create ok {audited.inner(rec)}/before", f"create ok {audited.inner(rec)}/after",
    ]  # fmt: skip


def test_a_command_without_a_daemon_is_told_too(audited: Mount) -> None:
    audited.recording(5, 1)
    audited.umount()
    recfs("quota", "set", "5", "--max-files", "7", "--config", audited.base / "recfs.conf")
    (limit,) = read(audited, "--op", "quota_set")
    assert (limit["via"], limit["uid"], limit["result"]) == ("control", os.getuid(), "ok")
