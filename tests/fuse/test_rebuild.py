"""A catalogue that is destroyed under a store in use, made anew by the command: everything is there, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .clients import as_user, pattern, state, wait_until
from .harness import BASE_CONFIG, REPOSITORY, ROOT_USER, Mount
from .rebuilds import command, damage, facts, rebuild
from .s3 import S3, evict, far, s3

__all__ = ["far", "s3"]

pytestmark = [pytest.mark.modeless, pytest.mark.slow]


def fill(store: Mount) -> Path:
    """Files of several users, with attributes and odd names; a tree as programs make them."""
    rec = store.recording()
    shutil.copytree(REPOSITORY / "docs", rec / "docs", symlinks=True)
    for number in range(5):
        (rec / f"part {number}").write_bytes(pattern(300_000 * number, seed=number))
    (rec / os.fsdecode(b"latin-1 \xfc\n")).write_bytes(b"odd")
    (rec / "link").symlink_to("docs/s3.md")
    (rec / "part 1").chmod(0o640)
    os.utime(rec / "part 2", ns=(1_000_000_000_123_456_789, 1_000_000_000_123_456_789))
    job = store.path / "temp/1/7"
    job.mkdir(parents=True)
    (job / "part").write_bytes(b"part")
    (store.path / "shared/logo.png").write_bytes(b"png")
    if ROOT_USER:
        for path in (rec / "docs").iterdir():
            os.chown(path, 1001, 1002)
    store.drain()
    return rec


def cut_off(store: Mount) -> None:
    """Begin, and be killed."""
    log = store.root / ".recfs/catalogue.db.rebuild-wal"
    argv = [sys.executable, "-m", "recfs", *command(store)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=REPOSITORY) as begun:
        wait_until(lambda: log.exists() or begun.poll() is not None, "it has begun")
        begun.kill()


def test_a_local_store_after_kill_9(store: Mount) -> None:
    """Of the daemon, and of the command, wherever it is then."""
    store.start(config=BASE_CONFIG)
    fill(store)
    before, usage = facts(store), store.call("quota_show", user="1")
    store.kill()
    damage(store)
    code, said = store.try_start(config=BASE_CONFIG)
    assert (code, "recfs rebuild" in said) == (4, True)
    for _ in range(2):
        cut_off(store)
    found = rebuild(store)
    assert found["aside"]["count"] == 0
    store.start(config=BASE_CONFIG)
    assert facts(store) == before
    after = store.call("quota_show", user="1")
    assert [after[0][key] for key in ("used_bytes", "used_files")] == [
        usage[0][key] for key in ("used_bytes", "used_files")
    ]
    store.assert_consistent()
    assert len(list((store.root / ".recfs").glob("catalogue.db.before-rebuild-*"))) >= 1


def test_a_store_with_s3_after_kill_9(s3: S3, far: Mount) -> None:
    """Of the files some are here and there, some there alone, one was changed here since, and one is on its way."""
    rec = fill(far)
    evict(far, rec / "docs", rec / "part 3")
    before, objects = facts(far), s3.paths()
    evict(far, rec / "docs", rec / "part 3")  # they were read
    far.kill()
    damage(far)
    found = rebuild(far)
    assert found["evicted"] >= 2
    assert found["stored"] >= 4
    assert (found["queued"], found["claim_needed"]) == (0, False)
    far.remount()
    assert state(rec / "part 3") == "evicted"
    assert facts(far) == before
    far.drain()
    assert s3.paths() == objects
    (rec / "part 1").write_bytes(b"written to afterwards")
    far.drain()
    assert s3.data(far.inner(rec / "part 1")) == b"written to afterwards"
    far.assert_consistent()


@pytest.mark.skipif(not ROOT_USER, reason="needs users")
def test_whoever_owned_a_file_may_write_it_again(store: Mount) -> None:
    store.start(config=BASE_CONFIG + "allow_other = true\n")
    rec = store.recording()
    os.chown(rec, 1001, 1001)
    as_user(1001, ["sh", "-c", 'umask 077; echo mine > "$0"', rec / "mine"])
    store.drain()
    store.kill()
    damage(store)
    rebuild(store)
    store.remount()
    as_user(1001, ["sh", "-c", 'echo more >> "$0"', rec / "mine"])
    assert as_user(1002, ["cat", rec / "mine"], check=False).returncode
    assert (rec / "mine").read_text() == "mine\nmore\n"
