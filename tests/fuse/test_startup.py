"""Start and stop: what is refused and how it says so, what a start clears, what a stop waits for."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recfs.fuse.mounting import Detached, OwnMount

from .clients import need_root, output, pattern, recfs, run, sha256, sha256_of, skip, state, wait_until, xattr
from .harness import BASE_CONFIG, REPOSITORY, Mount, lazy_unmount, mounted

pytestmark = pytest.mark.modeless

CONFIG_ERROR, STORE_ERROR, MOUNT_ERROR, CONTROL_ERROR = 3, 4, 5, 6

HOLDER = """
import ctypes, sys
from tests.helpers.userns import leave_fuse_mounts
leave_fuse_mounts(ctypes.CDLL(None), but=sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""
"""A process in a mount namespace of its own, with a copy of one mount."""


@pytest.mark.smoke
def test_a_second_daemon_on_the_same_root_is_refused(store: Mount, second_mount_point: Path) -> None:
    rec = store.start().recording()
    (rec / "file").write_bytes(b"x")
    code, said = store.try_start(path=second_mount_point)
    assert code == STORE_ERROR, said
    assert str(store.root) in said, "the message names the root"
    assert not mounted(second_mount_point)
    assert (rec / "file").read_bytes() == b"x"
    store.drain()
    assert state(rec / "file") == "committed"


def test_an_operator_who_is_a_user_is_refused(store: Mount) -> None:
    need_root()
    store.start()
    recfs("user", "add", "5", "--uid", "10005", "--root", store.root)
    store.umount()
    code, said = store.try_start(config=f"operator = 10005\n{BASE_CONFIG}")
    assert code == CONFIG_ERROR, said
    assert "operator = 10005: that is the uid of user 5" in said
    assert not mounted(store.path)


@pytest.mark.parametrize("how", ["--existing", "existing = true"])
def test_a_store_that_is_not_there_is_not_made(store: Mount, how: str) -> None:
    """Where its disk did not come up; when it is there, it is mounted."""
    option = ("--existing",) if how == "--existing" else ()
    config = BASE_CONFIG if option else f"{how}\n{BASE_CONFIG}"
    code, said = store.try_start(*option, config=config)
    assert code == STORE_ERROR, said
    assert "is its disk mounted?" in said
    assert os.listdir(store.root) == []
    store.start()
    (store.recording() / "file").write_bytes(b"x")
    store.umount()
    store.start(*option, config=config)
    assert (store.recording() / "file").read_bytes() == b"x"
    store.umount()
    done = recfs("quota", "set", "--root", store.base / "other", "5", "--max-files", "1", check=False)
    assert done.returncode == STORE_ERROR, done.stderr
    assert not (store.base / "other").exists()


def test_the_root_is_free_again_after_kill(store: Mount, second_mount_point: Path) -> None:
    store.start()
    store.kill()
    store.path = second_mount_point
    store.start()
    assert sorted(os.listdir(second_mount_point)) == ["shared", "temp", "users"]


def test_a_dead_mount_is_cleared_at_start(store: Mount) -> None:
    rec = store.start().recording()
    (rec / "file").write_bytes(b"x")
    store.kill(unmount=False)
    assert mounted(store.path), "a dead mount stays, so that nobody fills the directory below it"
    with pytest.raises(OSError, match="not connected"):
        os.listdir(store.path)
    store.remount()
    assert (rec / "file").read_bytes() == b"x"
    store.umount()
    assert not mounted(store.path), "one mount, not a pile of them"


@pytest.mark.parametrize("renamed", [False, True], ids=["where it was", "renamed"])
def test_a_dead_mount_is_cleared_by_the_root_of_its_store(store: Mount, tmp_path: Path, renamed: bool) -> None:
    """Nobody can ask a dead mount whose it is: its daemon wrote it down. Another store's is no fault of this one."""
    above, moved = store.base / "above", store.base / "moved"
    (above / "mnt").mkdir(parents=True)
    store.path = above / "mnt"
    store.start()
    if renamed and json.loads((store.root / ".recfs/mounted").read_text())["unique"] is None:
        skip("needs mount ids that are used once (Linux 6.8)")
    store.kill(unmount=False)
    if renamed:
        above.rename(moved)
        store.path = moved / "mnt"
    try:
        own = recfs("doctor", "--root", store.root, check=False).stdout.decode()
        assert f"{store.path} is a dead mount, of this store" in own
        assert f"{store.path}, a dead mount" in recfs("status", "--root", store.root).stdout.decode()
        other = recfs("doctor", "--root", tmp_path / "other", check=False).stdout.decode()
        assert f"warn  mount         {store.path} is a dead mount, of another store" in other
        said = recfs("umount", "--root", store.root).stdout.decode()
        assert said == f"{store.path}: was a dead mount: its daemon had ended without unmounting; cleared\n"
        assert not mounted(store.path)
        again = recfs("umount", "--root", store.root, check=False)
        assert (again.returncode, b"no mount of it is left here" in again.stderr) == (CONTROL_ERROR, True)
    finally:
        lazy_unmount(store.path)


@pytest.mark.parametrize("how", ["internal error", "SIGABRT"])
def test_after_an_internal_error_the_mount_stays_dead(store: Mount, how: str) -> None:
    """Promise 2.2: recorders get errors instead of filling an empty directory. The next start clears it."""
    trigger = store.base / "fail now"
    rec = store.start(env={"RECFS_TEST_INTERNAL_ERROR": str(trigger)}).recording()
    (rec / "file").write_bytes(b"x")
    assert store.process is not None
    if how == "internal error":
        trigger.touch()
    else:
        store.process.send_signal(signal.SIGABRT)
    assert store.ended() != 0, "systemd's Restart=on-failure starts it again"
    assert mounted(store.path)
    for attempt in (lambda: (rec / "lost").write_bytes(b"x"), lambda: os.listdir(store.path)):
        with pytest.raises(OSError, match="not connected"):
            attempt()
    trigger.unlink(missing_ok=True)
    store.remount()
    assert (rec / "file").read_bytes() == b"x"
    store.umount()
    assert not mounted(store.path)


@pytest.mark.parametrize("how", ["SIGTERM", "umount", "recfs umount"])
def test_a_stop_commits_what_was_closed(store: Mount, how: str) -> None:
    rec = store.start().recording()
    contents = [pattern(3_000_000, seed=n) for n in range(8)]
    for n, content in enumerate(contents):
        (rec / f"file{n}").write_bytes(content)
    assert store.process is not None
    if how == "SIGTERM":
        assert store.terminate() == 0
    elif how == "umount":
        store.umount()
    else:
        recfs("umount", store.path)
        assert not mounted(store.path)
        for n, content in enumerate(contents):  # the command waits, not only the daemon
            assert sha256_of(store.home(rec / f"file{n}")) == sha256(content)
        store.wait()
    assert store.leftovers("staging") == []
    assert not (store.root / ".recfs" / "control.sock").exists()
    for n, content in enumerate(contents):
        assert sha256_of(store.home(rec / f"file{n}")) == sha256(content)
    store.remount()
    for n, content in enumerate(contents):
        assert state(rec / f"file{n}") == "committed"
        assert xattr(rec / f"file{n}", "sha256") == sha256(content)
    store.assert_consistent()


@pytest.mark.parametrize("how", ["SIGTERM", "recfs umount", "recfs umount --root"])
def test_a_stop_after_a_directory_above_the_mount_point_was_renamed(store: Mount, how: str) -> None:
    above, moved = store.base / "above", store.base / "moved"
    (above / "mnt").mkdir(parents=True)
    store.path = above / "mnt"
    (store.start().recording() / "file").write_bytes(b"x")
    above.rename(moved)
    store.path = moved / "mnt"
    try:
        assert store.status()["mountpoint"] == str(store.path)
        if how == "SIGTERM":
            assert store.terminate() == 0
        else:
            said = recfs("umount", *(["--root", store.root] if "root" in how else [store.path])).stdout.decode()
            assert said == f"{store.path}: unmounted\n"
            assert store.wait() == 0
        assert not mounted(store.path)
        assert f"stopped; {store.path} is unmounted" in store.log()
    finally:
        lazy_unmount(store.path)


def test_a_store_that_is_mounted_already_stays_so(store: Mount, tmp_path: Path) -> None:
    """With -d, and on the same mount point; anything else is in the way of the daemon that is there."""
    store.start()
    assert store.process is not None
    (store.path / "users/5").mkdir()
    again = recfs("mount", "--root", store.root, "-d", store.path)
    assert f"is mounted already on {store.path} (pid {store.process.pid}".encode() in again.stdout
    told = json.loads(recfs("--json", "mount", "--root", store.root, "-d", store.path).stdout)
    assert (told["pid"], told["mountpoint"]) == (store.process.pid, str(store.path))
    (tmp_path / "elsewhere").mkdir()
    for arguments, code in (
        ((store.root, "-d", tmp_path / "elsewhere"), 4),
        ((store.root, store.path), 5),
        ((tmp_path / "other", "-d", store.path), 5),
    ):
        assert recfs("mount", "--root", *arguments, check=False).returncode == code
    assert os.listdir(store.path / "users") == ["5"]


def test_a_stop_leaves_what_is_mounted_over_it_and_says_so(store: Mount) -> None:
    need_root()
    store.start()
    store.expect_log("a tmpfs file system is mounted over it")
    assert store.process is not None
    subprocess.run(["mount", "-t", "tmpfs", "over", store.path], check=True)
    try:
        refused = recfs("umount", "--root", store.root, check=False)
        assert refused.returncode == 5
        assert b"lies under a mount of tmpfs" in refused.stderr
        store.process.send_signal(signal.SIGTERM)
        assert store.ended() != 0
        assert mounted(store.path)
        assert "could not be unmounted" in store.log()
    finally:
        lazy_unmount(store.path)


def test_a_mount_that_got_the_numbers_of_one_that_is_gone_is_left_alone(store: Mount) -> None:
    """The kernel gives mount ids and device numbers out again at once."""
    need_root()
    gone, stranger = OwnMount(store.path), OwnMount(store.path)
    store.start()
    gone.identify()
    assert gone.is_there()
    store.umount()
    assert not gone.is_there()
    store.remount()
    stranger.identify()
    gone._known = stranger._known
    if gone._unique is None:
        skip("needs mount ids that are used once (Linux 6.8)")
    assert not gone.is_there()
    assert gone.detach() is Detached.ABSENT
    assert stranger.is_there()
    (store.recording() / "file").write_bytes(b"goes on")


@pytest.mark.parametrize("lazily", [False, True], ids=["at-once", "lazily"])
def test_what_was_closed_before_the_mount_went_is_whole(store: Mount, lazily: bool) -> None:
    """The kernel tells of a close a moment later, and drops what it had not told of. A mount goes when nothing in it
    is open any more.
    """
    need_root()
    libc = ctypes.CDLL(None, use_errno=True)
    store.start()
    for number in range(6):
        rec = store.recording(1, number)
        (rec / "old").write_bytes(b"old")
        store.drain()
        overwritten = os.open(rec / "old", os.O_WRONLY | os.O_TRUNC)
        made = os.open(rec / "new", os.O_WRONLY | os.O_CREAT)
        if lazily:
            subprocess.run(["umount", "--lazy", store.path], check=True)
        for fd in (overwritten, made):
            os.write(fd, b"whole")
            os.close(fd)
        if not lazily:
            assert libc.umount2(os.fsencode(store.path), 0) == 0
        assert store.ended() == 0
        store.remount()
        store.drain()
        for name in ("old", "new"):
            assert (rec / name).read_bytes() == b"whole"
            assert state(rec / name) == "committed"


@pytest.mark.parametrize("how", ["--root", "lazily"])
def test_a_daemon_whose_mount_is_held_elsewhere_is_ended_by_its_root(
    store: Mount, second_mount_point: Path, how: str
) -> None:
    """umount(8) takes the mount away here; a container has a copy, or somebody has a file open in it."""
    need_root()
    rec = store.start().recording()
    with (rec / "file").open("wb") as stream, contextlib.ExitStack() as held:
        stream.write(b"x")
        if how == "lazily":
            subprocess.run(["umount", "--lazy", store.path], check=True)
        else:
            stream.close()
            other = subprocess.Popen(
                [sys.executable, "-c", HOLDER, store.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=REPOSITORY,
            )
            held.callback(other.communicate)
            assert other.stdout is not None
            assert other.stdout.readline() == b"ready\n"
            subprocess.run(["umount", store.path], check=True)
        assert not mounted(store.path)
        assert f"no longer on {store.path}" in recfs("status", "--root", store.root).stdout.decode()
        _, said = store.try_start(path=second_mount_point)
        assert f"`recfs umount --root {store.root}`" in said
        if how == "lazily":
            refused = recfs("umount", "--root", store.root, check=False)
            assert (refused.returncode, b"users/1/recordings/1/file" in refused.stderr) == (MOUNT_ERROR, True)
            stream.close()
        else:
            said = recfs("umount", "--root", store.root).stdout.decode()
            assert said == f"the daemon of {store.root} has stopped; its mount was gone from here\n"
        assert store.wait() == 0
    store.start()
    assert (rec / "file").read_bytes() == b"x"


def test_sigterm_with_files_open(store: Mount) -> None:
    rec = store.start().recording()
    fd = os.open(rec / "file", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, pattern(100_000))
    assert store.process is not None
    store.process.send_signal(signal.SIGTERM)
    store.process.wait(30)
    with contextlib.suppress(OSError):  # the mount went away below it
        os.close(fd)
    store.kill()  # nothing runs any more: forget it, and clear the mount point
    store.remount()
    assert (rec / "file").read_bytes() == pattern(100_000), "the bytes written so far are kept"
    assert state(rec / "file") in ("incomplete", "committed")
    store.assert_consistent()


def test_umount_names_the_files_that_are_open(store: Mount) -> None:
    rec = store.start().recording()
    with (rec / "busy file").open("wb") as stream:
        stream.write(b"x")
        stream.flush()
        refused = recfs("umount", store.path, check=False)
        said = (refused.stdout + refused.stderr).decode()
        assert refused.returncode != 0
        assert "busy file" in said
        assert "Traceback" not in said
        assert mounted(store.path)
        stream.write(b"y")
    recfs("umount", store.path)
    store.wait()
    assert "a stop was asked for on the control socket" in store.log()


def test_a_mount_that_is_taken_away_is_told(store: Mount) -> None:
    store.start()
    lazy_unmount(store.path)
    store.wait()
    assert f"{store.path} was taken away: somebody has unmounted it past recfs" in store.log()


def test_mount_in_the_background(store: Mount) -> None:
    argv = [sys.executable, "-m", "recfs", "mount", "-d", "--root", str(store.root), str(store.path)]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, timeout=30, check=False)
    pid = 0
    try:
        assert done.returncode == 0, done.stderr.decode()
        assert sorted(os.listdir(store.path)) == ["shared", "temp", "users"], "it answers"
        pid = store.status()["pid"]
        rec = store.recording()
        (rec / "file").write_bytes(pattern(1_000_000))
        assert (store.root / ".recfs" / "log").is_file()
        recfs("umount", store.path)
        assert store.home(rec / "file").read_bytes() == pattern(1_000_000)
        wait_until(lambda: not Path("/proc", str(pid)).exists(), "the daemon is gone")
    finally:
        if pid and Path("/proc", str(pid)).exists():
            os.kill(pid, signal.SIGKILL)
        lazy_unmount(store.path)


def test_mount_in_the_background_reports_failure(store: Mount) -> None:
    (store.path / "file").touch()
    done = recfs("mount", "-d", "--root", store.root, store.path, check=False)
    assert done.returncode == MOUNT_ERROR
    assert b"not empty" in done.stderr


@pytest.mark.parametrize("damage", ["header", "middle", "empty", "text"])
def test_a_corrupt_catalogue_is_refused_and_kept(store: Mount, damage: str) -> None:
    rec = store.start().recording()
    for n in range(300):
        (rec / f"file{n:03d}").write_bytes(b"x")
    store.umount()
    catalogue = store.root / ".recfs" / "catalogue.db"
    whole = catalogue.read_bytes()
    damaged = {
        "header": bytes(100) + whole[100:],
        "middle": whole[:4096] + pattern(len(whole) - 8192) + whole[-4096:],
        "empty": b"",
        "text": b"this is no database\n" * 1000,
    }[damage]
    catalogue.write_bytes(damaged)
    code, said = store.try_start()
    assert code == STORE_ERROR, said
    assert "catalogue" in said
    assert "restor" in said.lower(), f"it says how to restore: {said}"
    assert catalogue.read_bytes() == damaged, "the file is kept as it was found"
    assert store.home(rec / "file000").read_bytes() == b"x"
    assert not mounted(store.path)
    catalogue.write_bytes(whole)
    store.remount()
    assert (rec / "file299").read_bytes() == b"x"


def test_a_root_that_cannot_be_written_is_refused(store: Mount) -> None:
    need_root()
    run("mount", "-t", "tmpfs", "-o", "ro,size=1m", "recfs-test", store.root)
    try:
        code, said = store.try_start()
        assert code == STORE_ERROR, said
        assert str(store.root) in said
    finally:
        lazy_unmount(store.root)


def test_a_root_that_is_missing_or_a_file_is_refused(store: Mount) -> None:
    store.root.rmdir()
    store.root.write_text("a file")
    code, said = store.try_start()
    assert code in (CONFIG_ERROR, STORE_ERROR), said
    assert str(store.root) in said
    assert store.root.read_text() == "a file"


def test_a_mount_point_that_is_not_empty_is_refused(store: Mount) -> None:
    (store.path / "file").write_bytes(b"someone's")
    code, said = store.try_start()
    assert code == MOUNT_ERROR, said
    assert str(store.path) in said
    assert (store.path / "file").read_bytes() == b"someone's"


def test_a_mount_point_that_is_a_file_is_refused(store: Mount) -> None:
    (store.base / "file").touch()
    code, said = store.try_start(path=store.base / "file")
    assert code == MOUNT_ERROR, said


def test_a_mount_point_in_use_is_refused(store: Mount, mount: Mount) -> None:
    code, said = store.try_start(path=mount.path)
    assert code == MOUNT_ERROR, said
    assert str(mount.path) in said
    assert sorted(os.listdir(mount.path)) == ["shared", "temp", "users"], "the mount there goes on"


def test_a_mount_point_inside_the_store_is_refused(store: Mount) -> None:
    inside = store.root / "users"
    inside.mkdir(parents=True, exist_ok=True)
    code, said = store.try_start(path=inside)
    assert code in (CONFIG_ERROR, STORE_ERROR, MOUNT_ERROR), said


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ('min_fre = "1 GiB"\n', ["min_fre", "min_free"]),
        ('min_free = "1 parsec"\n', ["min_free", "parsec"]),
        ("[quota]\nmax_bytes = -1\n", ["max_bytes"]),
        ("[commit\n", ["recfs.conf"]),
        ('[temp]\nmax_age = "soon"\n', ["max_age", "soon"]),
    ],
)
def test_a_wrong_config_is_refused(store: Mount, config: str, names: list[str]) -> None:
    code, said = store.try_start(config=config)
    assert code == CONFIG_ERROR, said
    for name in [*names, "recfs.conf"]:
        assert name in said, f"the message names {name}: {said}"


def test_an_old_store_without_its_runtime_files_starts(store: Mount) -> None:
    rec = store.start(config=BASE_CONFIG).recording()
    (rec / "file").write_bytes(b"x")
    store.umount()
    (store.root / ".recfs" / "lock").unlink(missing_ok=True)
    (store.root / ".recfs" / "control.sock").write_text("left behind by something")
    store.remount()
    assert (rec / "file").read_bytes() == b"x"
    assert store.status()["root"] == str(store.root)
    assert store.status()["mountpoint"] == str(store.path)


def test_the_home_tree_is_an_ordinary_tree(store: Mount) -> None:
    rec = store.start().recording(5, 142)
    (rec / "assets").mkdir()
    (rec / "assets" / "metadata.json").write_text("{}")
    (rec / "link").symlink_to("assets")
    (rec / "assets").chmod(0o750)
    store.umount()
    assert output("find", ".", "-type", "f", "-path", "./users/*", cwd=store.root).split() == [
        "./users/5/recordings/142/assets/metadata.json"
    ]
    assert os.readlink(store.home(rec / "link")) == "assets"
    assert store.home(rec / "assets").stat().st_mode & 0o7777 == 0o750
