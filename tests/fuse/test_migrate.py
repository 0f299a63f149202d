"""`recfs migrate` on a real mount: what the kernel, rsync, quotas and the end of a daemon do to a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import forkserver

from .clients import pattern, wait_until, xattr
from .harness import BASE_CONFIG, REPOSITORY, Mount
from .s3 import S3, evict, far, s3

__all__ = ["far", "s3"]
pytestmark = [pytest.mark.modes("auto"), pytest.mark.needs("rsync"), pytest.mark.slow]
CONFIG = f'{BASE_CONFIG}[watch]\nquiet = "300ms"\n'
BIG = 6 << 20
FILM = "users/4/recordings/7/source.mp4"


@dataclass
class Old:
    """An old tree beside a store, and its plan."""

    store: Mount

    def __post_init__(self) -> None:
        self.top = self.store.base / "media"
        self.plan = self.store.base / "plan"
        self.lines = ["# recfs migration plan 1", f"#: old = {self.top}"]

    def add(self, source: str, data: bytes, target: str, action: str = "copy") -> Path:
        """A file and its line."""
        path = self.top / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.lines.append(f"{action}\t{len(data)}\t{target}\t{source}\ta test")
        self.plan.write_text("\n".join(self.lines) + "\n")
        return path

    def call(self, *args: str, code: int | None = 0) -> dict[str, Any]:
        """One command on the plan; what it told."""
        where = ["--root", str(self.store.root)]
        done = forkserver.run(["--json", "migrate", args[0], str(self.plan), *where, *args[1:]], timeout_s=60)
        assert code is None or done.returncode == code, (done.stdout, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def begun(self, *args: str) -> subprocess.Popen[bytes]:
        """A run that goes on."""
        command = [sys.executable, "-m", "recfs", "migrate", "run", str(self.plan), "--root", str(self.store.root)]
        return subprocess.Popen([*command, *args], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def left(self) -> list[Path]:
        return [path for path in self.top.rglob("*") if path.is_file()]


@pytest.fixture
def old(store: Mount) -> Old:
    return Old(store)


def filled(old: Old) -> Old:
    old.add("user_4/video/Фильм.mp4", pattern(BIG), FILM)
    for number in range(20):
        old.add(f"user_5/{number}", pattern(500, number), f"users/5/recordings/{number}/transcription/master.json")
    old.add("user_5/again", pattern(500, 3), "users/5/recordings/3/transcription/master.json", "duplicate")
    return old


def test_a_run_that_is_killed_goes_on_and_every_file_is_accounted_for(store: Mount, old: Old) -> None:
    store.start(config=CONFIG)
    store.call("user_add", user="4", uid=10_004, gid=None, mode=None)
    filled(old).lines.append('#: recording users/4/recordings/7 = {"row": 7, "expires": "2031-01-01T00:00:00Z"}')
    old.add("templates/x.png", b"template", "shared/thumbnails/x.png")
    old.add("user_4/thumbnails/x.png", b"changed!", "users/4/thumbnails/x.png")
    target = store.path / FILM
    killed = old.begun("--bwlimit", "3M", "--jobs", "1")
    wait_until(lambda: target.exists() and target.stat().st_size > 0, "the beginning of the film")
    killed.kill()
    killed.communicate()
    found = old.call("run")
    assert found["after"] == {"files": 23, "bytes": BIG + 20 * 500 + 16}
    assert target.stat().st_uid == 10_004
    assert (store.path / "users/4/thumbnails/x.png").read_bytes() == b"changed!"
    assert old.call("verify")["duplicates_saved"] == {"files": 1, "bytes": 500}
    assert xattr(store.path / "users/4/recordings/7", "expires_at") == "2031-01-01T00:00:00Z"
    assert "--yes" in old.call("cleanup", code=2)["error"]["message"]  # nobody can be asked
    assert old.call("cleanup", "--yes")["deleted_files"] == 24
    assert old.left() == []
    assert target.read_bytes() == pattern(BIG)
    store.assert_consistent()


def test_a_user_who_swaps_directories_gets_no_byte_where_he_may_not_write(store: Mount, old: Old) -> None:
    """rsync walks to its targets by path: it does so with the rights of whoever has them."""
    store.start(config=CONFIG)
    store.call("user_add", user="4", uid=10_004, gid=None, mode=None)
    old.add("user_4/a.bin", pattern(BIG), "users/4/recordings/7/transcription/a.bin")
    for number in range(50):
        old.add(f"user_4/{number}", b"of user 4", f"users/4/recordings/7/transcription/z{number}")
    victim = store.base / "victim"
    victim.mkdir(0o700)
    folder = store.path / "users/4/recordings/7/transcription"
    run = old.begun("--bwlimit", "4M", "--jobs", "1")
    wait_until((folder / "a.bin").exists, "the first file comes")
    swap = ["sh", "-c", 'mv "$1" "$1"2 && ln -s "$2" "$1"', "swap", folder, victim]
    subprocess.run(swap, user=10_004, group=10_004, extra_groups=[], check=True, timeout=30)
    run.communicate(timeout=60)
    assert run.returncode == 1
    assert list(victim.iterdir()) == []
    folder.unlink()
    folder.with_name("transcription2").rename(folder)
    assert old.call("run")["after"]["files"] == 51
    assert {path.stat().st_uid for path in folder.iterdir()} == {10_004}
    assert old.call("verify")["clean"]
    store.assert_consistent()


def test_what_a_quota_has_no_room_for_is_left_out_and_the_next_run_brings_it(store: Mount, old: Old) -> None:
    store.start(config=CONFIG)
    store.call("quota_set", user="4", max_bytes=1 << 20)
    found = filled(old).call("run", code=1)
    assert (found["stopped"], found["after"]["files"]) == ([], 20)
    assert ["quota leaves 1 MiB" in each["reason"] for each in found["problems"]] == [True]
    assert not (store.path / FILM).exists()
    store.call("quota_set", user="4", max_bytes=1 << 30)
    assert old.call("run")["after"]["files"] == 21
    assert old.call("verify")["clean"]
    assert old.call("rollback", "--yes")["taken_back_files"] == 21
    assert os.listdir(store.path / "users") == []
    assert len(old.left()) == 22


def test_what_the_disk_has_no_room_for_is_left_out_and_the_next_run_brings_it(store: Mount, old: Old) -> None:
    """A sparse file takes nothing in the old tree, and would take all that is left here."""
    room = shutil.disk_usage(store.base).free
    store.start(config=f"{CONFIG.replace('1 MiB', str(room - (512 << 20)))}")
    os.truncate(old.add("user_4/film.mp4", pattern(BIG), FILM), 1 << 42)
    old.add("user_4/sound.mp3", b"sound", "users/4/recordings/7/audio.mp3")
    for code in (1, 1):
        found = old.call("run", code=code)
        assert (found["stopped"], found["after"]["files"]) == ([], 1)
        assert ["beside the reserve" in each["reason"] for each in found["problems"]] == [True]
    assert not (store.path / FILM).exists()
    store.umount()
    os.truncate(old.top / "user_4/film.mp4", BIG)
    store.start(config=CONFIG)
    assert old.call("run")["clean"]
    assert old.call("verify")["clean"]


@pytest.mark.parametrize("side", ["mount", "home"])
def test_the_store_mounted_in_the_old_tree_is_refused(store: Mount, old: Old, side: str) -> None:
    """A source would be its own target, and `cleanup` would delete the only copy."""
    store.start(config=CONFIG)
    target = store.path / "users/4/recordings/7/transcription/w.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"precious bytes")
    store.drain()
    point = old.top / "user_4/transcriptions/7"
    point.mkdir(parents=True)
    old.add("user_4/a.mp4", b"film", FILM)
    old.lines.append(f"copy\t14\t{target.relative_to(store.path)}\tuser_4/transcriptions/7/w.json\ta test")
    old.plan.write_text("\n".join(old.lines) + "\n")
    folder = (store.path if side == "mount" else store.root) / target.parent.relative_to(store.path)
    subprocess.run(["mount", "--bind", folder, point], check=True, timeout=30)
    try:
        for command in (["run"], ["verify"], ["cleanup", "--yes"]):
            assert f"in the old tree, at {point}" in old.call(*command, code=7)["error"]["message"]
    finally:
        subprocess.run(["umount", point], check=True, timeout=30)
    assert target.read_bytes() == b"precious bytes"
    (point / "w.json").write_bytes(b"precious bytes")
    assert old.call("run")["there_before"]["files"] == 1
    assert old.call("verify")["clean"]


def test_what_only_s3_has_is_verified_without_a_transfer(s3: S3, far: Mount, old: Old) -> None:
    target = far.path / "users/4/recordings/7/data.bin"
    old.add("data.bin", pattern(50_000), str(target.relative_to(far.path)))
    old.call("run")
    evict(far, target)
    before = len(s3.asked())
    assert old.call("verify")["clean"]
    assert [request for request in s3.asked()[before:] if request.method == "GET"] == []
    assert xattr(target, "location") == "s3"
    assert old.call("cleanup", "--yes")["deleted_files"] == 1
    assert target.read_bytes() == pattern(50_000)


def test_a_daemon_that_dies_in_the_middle_stops_the_run(store: Mount, old: Old) -> None:
    store.start(config=CONFIG)
    run = filled(old).begun("--bwlimit", "3M", "--jobs", "1")
    target = store.path / FILM
    wait_until(lambda: target.exists() and target.stat().st_size > 0, "the beginning of the film")
    store.kill()
    said = run.communicate(timeout=60)[0].decode()
    assert (run.returncode, "mount the store again" in said) == (1, True), said
    assert list(store.path.iterdir()) == []  # nothing lies below the mount
    store.remount()
    assert old.call("run")["clean"]
    assert old.call("verify")["clean"]
    assert (store.path / FILM).read_bytes() == pattern(BIG)


def test_a_daemon_that_is_replaced_in_the_middle_is_not_noticed(store: Mount, old: Old) -> None:
    store.start(config=CONFIG)
    run = filled(old).begun("--bwlimit", "3M", "--jobs", "1")
    target = store.path / FILM
    wait_until(lambda: target.exists() and target.stat().st_size > 0, "the beginning of the film")
    store.upgrade()
    said = run.communicate(timeout=60)[0].decode()
    assert run.returncode == 0, said
    assert old.call("verify")["clean"]


def test_an_old_tree_that_is_not_mounted_is_no_empty_one(store: Mount, old: Old) -> None:
    store.start(config=CONFIG)
    old.add("a", b"1", FILM)
    old.call("run")
    old.call("verify")
    old.top.rename(store.base / "unmounted")
    assert old.call("cleanup", "--yes", code=7)["error"]["kind"] == "NotFound"
    old.top.mkdir()
    assert "another directory" in old.call("cleanup", "--yes", code=7)["error"]["message"]
    old.top.rmdir()
    (store.base / "unmounted").rename(old.top)
    assert old.call("cleanup", "--yes")["deleted_files"] == 1


def test_into_the_home_tree_and_back_through_the_mount(store: Mount, old: Old) -> None:
    store.start(config=CONFIG)
    store.call("user_add", user="4", uid=10_004, gid=None, mode=None)
    assert filled(old).call("run", "--home", code=4)["error"]["kind"] == "RootBusy"
    store.umount()
    assert old.call("run", code=5)["error"]["kind"] == "MountError"
    store.root.chmod(0o755)
    assert "chmod 700" in old.call("run", "--home", code=7)["error"]["message"]
    store.root.chmod(0o700)
    assert old.call("run", "--home")["after"]["files"] == 21
    store.remount()
    assert old.call("verify")["clean"], "the daemon has taken all over before anything is judged"
    assert (store.path / FILM).stat().st_uid == 10_004
    store.drain()
    store.assert_consistent()
    assert old.call("rollback", "--yes")["taken_back_files"] == 21


def test_files_that_are_moved_into_the_home_tree_come_back(store: Mount, old: Old) -> None:
    store.start(config=CONFIG)
    store.umount()
    filled(old)
    inode = (old.top / "user_4/video/Фильм.mp4").stat().st_ino
    store.root.chmod(0o700)
    assert old.call("run", "--home", "--move")["clean"]
    assert [path.name for path in old.left()] == ["again"]
    store.remount()
    told = old.call("rollback", "--yes", code=1)
    assert (told["taken_back_files"], told["removed_directories"]) == (0, 0), "these go back with --home"
    assert old.call("verify")["clean"]
    assert (store.path / FILM).read_bytes() == pattern(BIG)
    store.umount()
    assert old.call("rollback", "--home", "--yes")["taken_back_files"] == 21
    assert (old.top / "user_4/video/Фильм.mp4").stat().st_ino == inode
    assert len(old.left()) == 22


def test_a_run_that_is_told_to_end_does_so_in_order(store: Mount, old: Old) -> None:
    store.start(config=CONFIG)
    run = filled(old).begun("--bwlimit", "1M", "--jobs", "1")
    target = store.path / FILM
    wait_until(lambda: target.exists() and target.stat().st_size > 0, "the beginning of the film")
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=60)[0].decode()
    assert (run.returncode, "interrupted" in said) == (130, True), said
    assert not list(store.base.glob("plan.state.farm*"))
    assert old.call("run")["clean"]
    assert old.call("verify")["clean"]
