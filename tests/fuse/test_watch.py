"""Files that an admin puts into, changes in or removes from the home tree, and what programs on the mount see of it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from .clients import pattern, recfs, run, sha256, sha256_of, state, wait_until, xattr
from .harness import BASE_CONFIG, Mount, errno_is

pytestmark = pytest.mark.modes("auto")
CONFIG = f'{BASE_CONFIG}[watch]\nquiet = "300ms"\n'


@pytest.fixture
def watched(store: Mount) -> Mount:
    """A store whose watcher is quick."""
    store.start(config=CONFIG)
    return store


def committed(path: Path) -> bool:
    """Whether a file has come, and its bytes are hashed."""
    return path.exists() and state(path) == "committed"


def test_copies_are_adopted(watched: Mount, tmp_path: Path) -> None:
    rec = watched.recording()
    assert not (rec / "copy").exists()  # the kernel remembers that
    watched.drain()
    (tmp_path / "source").write_bytes(pattern(300_000))
    run("cp", "-p", tmp_path / "source", watched.home(rec) / "copy")
    wait_until(lambda: committed(rec / "copy"), "the copy on the mount")
    assert sha256_of(rec / "copy") == xattr(rec / "copy", "sha256") == sha256(pattern(300_000))
    assert "copy" in os.listdir(rec)
    assert (rec / "copy").stat().st_mtime_ns == (tmp_path / "source").stat().st_mtime_ns
    watched.assert_consistent()
    watched.remount()
    assert sha256_of(rec / "copy") == sha256(pattern(300_000))


@pytest.mark.needs("rsync")
def test_a_tree_by_rsync_its_moves_and_its_end(watched: Mount, tmp_path: Path) -> None:
    rec = watched.recording()
    watched.drain()
    source = tmp_path / "source"
    for number in range(30):
        path = source / f"folder{number % 3}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pattern(5_000, number))
    run("rsync", "-a", f"{source}/", watched.home(rec) / "tree")
    wait_until(lambda: committed(rec / "tree/folder2/file29"), "the tree on the mount")
    wait_until(lambda: watched.quota("1")["used_files"] == 30, "all of it")
    watched.drain()
    for number in range(30):
        assert (rec / f"tree/folder{number % 3}/file{number}").read_bytes() == pattern(5_000, number)
    number = (rec / "tree/folder1/file1").stat().st_ino
    run("mv", watched.home(rec) / "tree/folder1", watched.home(rec) / "moved")
    wait_until(lambda: (rec / "moved/file1").exists(), "the new name")
    assert (rec / "moved/file1").stat().st_ino == number
    assert sorted(os.listdir(rec / "tree")) == ["folder0", "folder2"]
    run("rm", "-r", watched.home(rec) / "moved")
    wait_until(lambda: not (rec / "moved").exists(), "the end of the directory")
    assert watched.quota("1")["used_files"] == 20
    watched.assert_consistent()


@pytest.mark.modes("auto", "off")
def test_changes_reach_whoever_has_read_the_file_before(watched: Mount) -> None:
    rec = watched.recording()
    (rec / "file").write_bytes(b"before")
    watched.drain()
    assert (rec / "file").read_bytes() == b"before"
    ino = (rec / "file").stat().st_ino
    with watched.home(rec / "file").open("r+b") as stream:
        stream.write(b"behind")  # as many bytes
    wait_until(lambda: xattr(rec / "file", "sha256") == sha256(b"behind"), "the other bytes")
    assert (rec / "file").read_bytes() == b"behind"
    assert (rec / "file").stat().st_ino == ino
    watched.assert_consistent()


@pytest.mark.modes("auto", "off")
def test_a_file_that_is_open_is_looked_at_when_it_is_closed(watched: Mount) -> None:
    rec = watched.recording()
    (rec / "file").write_bytes(b"before")
    watched.drain()
    fd = os.open(rec / "file", os.O_RDONLY)
    other = watched.home(rec / "other")
    other.write_bytes(b"another one")
    other.rename(watched.home(rec / "file"))
    (watched.home(rec) / "fence").write_bytes(b"fence")
    wait_until(lambda: committed(rec / "fence"), "what came later")
    assert os.read(fd, 100) == b"before"
    os.close(fd)
    wait_until(lambda: xattr(rec / "file", "sha256") == sha256(b"another one"), "the other file")
    assert (rec / "file").read_bytes() == b"another one"
    watched.assert_consistent()


def test_removed_files_go_and_missing_disks_do_not_empty_the_store(watched: Mount) -> None:
    watched.expect_log(r"gone from the disk at once|bytes are missing")
    rec = watched.recording()
    for number in range(60):
        (rec / f"file{number}").write_bytes(pattern(100, number))
    watched.drain()
    watched.home(rec / "file0").unlink()
    wait_until(lambda: not (rec / "file0").exists(), "the end of one file")
    shutil.move(watched.home(rec), watched.root / "elsewhere")
    wait_until(lambda: _held(watched), "the problem")
    assert len(os.listdir(rec)) == 59
    with errno_is(errno.EIO):
        os.open(rec / "file59", os.O_RDONLY)
    shutil.move(watched.root / "elsewhere", watched.home(rec))
    wait_until(lambda: not _held(watched), "the end of the problem")
    assert (rec / "file59").read_bytes() == pattern(100, 59)
    watched.assert_consistent()


def _held(store: Mount) -> bool:
    return any(problem["part"] == "watch" for problem in store.status()["set_aside"])


def test_a_daemon_that_is_killed_while_it_adopts(watched: Mount) -> None:
    rec = watched.recording()
    watched.drain()
    for round_ in range(3):
        home = watched.home(rec)
        for number in range(200):
            (home / f"file{round_}-{number}").write_bytes(pattern(20_000, number))
        wait_until(lambda: (rec / f"file{round_}-0").exists(), "the first")  # noqa: B023
        watched.kill()
        watched.remount()
        wait_until(lambda: len(os.listdir(rec)) == 200 * (round_ + 1), "all of them")  # noqa: B023
        watched.assert_consistent()
    for round_ in range(3):
        for number in range(200):
            path = rec / f"file{round_}-{number}"
            assert sha256_of(path) == xattr(path, "sha256") == sha256(pattern(20_000, number))
    assert not watched.leftovers("lost+found")


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_what_is_mounted_in_the_home_tree_is_no_part_of_it(watched: Mount, tmp_path: Path, kind: str) -> None:
    """It is told, nothing in it is taken over or served, and what it covers is as it was when it is unmounted."""
    watched.expect_log("another file system is mounted")
    rec = watched.recording()
    for name in ("file", "sub/file", "sub/deep/file"):
        (rec / name).parent.mkdir(exist_ok=True)
        (rec / name).write_bytes(pattern(1000))
    watched.drain()
    before = sorted(path for path in rec.rglob("*"))
    over = watched.home(rec) / "sub"
    (tmp_path / "other").mkdir()
    if kind == "bind":
        run("mount", "--bind", tmp_path / "other", over)
    else:
        run("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "recfs-test", over)
    try:
        (over / "file").write_bytes(b"foreign")
        (over / "stray").write_bytes(b"foreign")
        watched.call("watch_scan")
        wait_until(lambda: _held(watched), "the problem")
        (problem,) = [each for each in watched.status()["set_aside"] if each["part"] == "watch"]
        assert problem["path"] == "users/1/recordings/1/sub"
        assert f"umount {over}" in problem["reason"]
        assert watched.call("watch_status")["mounted"] == [problem["path"]]
        with errno_is(errno.EIO):
            (rec / "sub/file").read_bytes()
        assert (rec / "file").read_bytes() == pattern(1000)
        (watched.home(rec) / "marker").write_bytes(b"new")
        wait_until(lambda: committed(rec / "marker"), "what came beside it")
        (rec / "marker").unlink()
        assert sorted(path for path in rec.rglob("*")) == before
    finally:
        run("umount", over)
    assert (rec / "sub/file").read_bytes() == pattern(1000)
    wait_until(lambda: not _held(watched), "the end of the problem")
    for name in ("file", "sub/file", "sub/deep/file"):
        assert state(rec / name) == "committed"
        assert (rec / name).read_bytes() == pattern(1000)
    assert sorted(path for path in rec.rglob("*")) == before
    watched.assert_consistent()


@pytest.mark.parametrize("dies", [False, True])
def test_what_is_done_on_the_mount_to_what_is_covered_comes_about_afterwards(
    watched: Mount, tmp_path: Path, dies: bool
) -> None:
    """Users see no mount point in the home tree: they rename, remove and make; names and attributes are kept. So they
    are when the daemon dies meanwhile.
    """
    watched.expect_log("another file system is mounted|set aside, tried again later")
    rec = watched.recording()
    (rec / "sub").mkdir()
    for name in ("moved", "removed", "stays"):
        (rec / "sub" / name).write_bytes(pattern(1000))
        os.setxattr(rec / "sub" / name, "user.note", name.encode())
    watched.drain()
    over = watched.home(rec) / "sub"
    run("mount", "--bind", tmp_path, over)
    try:
        watched.call("watch_scan")
        wait_until(lambda: _held(watched), "the problem")
        (rec / "sub/new").write_bytes(pattern(2000))
        (rec / "sub/moved").rename(rec / "moved")
        (rec / "sub/removed").unlink()
        (rec / "sub").rename(rec / "other")
        wait_until(lambda: len(_problems(watched)) > 1, "what cannot be done now")
        if dies:
            watched.kill()
            watched.remount()
    finally:
        run("umount", over)
    wait_until(lambda: not _problems(watched), "the end of the problems")
    watched.drain()
    assert sorted(os.listdir(rec)) == ["moved", "other"]
    assert sorted(os.listdir(rec / "other")) == ["new", "stays"]
    for path in (rec / "moved", rec / "other/stays"):
        assert path.read_bytes() == pattern(1000)
        assert os.getxattr(path, "user.note") == path.name.encode()
    assert (rec / "other/new").read_bytes() == pattern(2000)
    assert not list(tmp_path.iterdir())
    watched.assert_consistent()


def _problems(store: Mount) -> list[object]:
    return list(store.status()["set_aside"])


def _covered(watched: Mount, tmp_path: Path, *files: Path) -> list[Path]:
    """Have something else mounted over each of the files in the home tree; gives what is mounted."""
    others = []
    for file in files:
        other = tmp_path / file.name
        other.write_bytes(b"foreign")
        run("mount", "--bind", other, watched.home(file))
        others.append(other)
    watched.call("watch_scan")
    wait_until(lambda: len(watched.call("watch_status")["mounted"]) == len(files), "they are known")
    return others


def _uncover(*points: Path) -> None:
    for point in points:
        run("umount", point)


def test_a_file_that_something_is_mounted_over_is_what_it_was_afterwards(watched: Mount, tmp_path: Path) -> None:
    """Beside it everything goes on; it is neither read, nor adopted, nor taken for gone, also by a start."""
    watched.expect_log("another file system is mounted|cross-device link")
    rec = watched.recording()
    for name in ("file", "beside"):
        (rec / name).write_bytes(pattern(1000))
    watched.drain()
    point = watched.home(rec) / "file"
    _covered(watched, tmp_path, rec / "file")
    try:
        with errno_is(errno.EIO):
            (rec / "file").read_bytes()
        assert recfs("verify", rec, check=False).returncode == 1
        assert state(rec / "file") == "committed"
        assert (rec / "beside").read_bytes() == pattern(1000)
        watched.kill()
        watched.remount()
        assert state(rec / "file") == "committed"
    finally:
        _uncover(point)
    wait_until(lambda: not _problems(watched), "the end of the problem")
    assert (rec / "file").read_bytes() == pattern(1000)
    watched.assert_consistent()


@pytest.mark.parametrize(("retention", "dies"), [("0s", False), ("0s", True), ("1h", False)])
def test_what_is_done_to_files_that_something_is_mounted_over_comes_about_afterwards(
    store: Mount, tmp_path: Path, retention: str, dies: bool
) -> None:
    """What is removed does not come back, what is replaced is in the trash, and a name of a directory above that is
    another by now, as the table of mounts tells nobody, has nothing taken for changed.
    """
    watched = store.start(config=f'{CONFIG}[trash]\nretention = "{retention}"\n')
    watched.expect_log("another file system is mounted|set aside, tried again later")
    rec = watched.recording()
    (rec / "sub").mkdir()
    files = {name: rec / name for name in ("moved", "removed", "replaced", "described", "sub/inside")}
    for path in files.values():
        path.write_bytes(pattern(1000))
    watched.drain()
    others = _covered(watched, tmp_path, *files.values())
    points = [watched.home(path) for path in files.values()]
    try:
        files["moved"].rename(rec / "new")
        files["removed"].unlink()
        (rec / "other").write_bytes(pattern(2000))
        (rec / "other").rename(files["replaced"])
        files["described"].chmod(0o600)
        (rec / "sub").rename(rec / "named")
        wait_until((watched.home(rec) / "named").exists, "the directory")
        points[-1] = watched.home(rec) / "named/inside"
        scans = watched.call("watch_status")["scans"]
        watched.call("watch_scan")
        wait_until(lambda: watched.call("watch_status")["scans"] > scans, "a look at everything")
        (watched.home(rec) / "named/later").write_bytes(b"new")
        wait_until(lambda: committed(rec / "named/later"), "what came later than the look")
        (rec / "named/later").unlink()
        wait_until(lambda: len(_problems(watched)) > len(points), "what cannot be done now")
        if dies:
            watched.kill()
            watched.remount()
    finally:
        _uncover(*points)
    wait_until(lambda: not _problems(watched), "the end of the problems")
    watched.drain()
    assert sorted(path.name for path in rec.rglob("*")) == ["described", "inside", "named", "new", "replaced"]
    for path in (rec / "new", rec / "named/inside", files["described"]):
        assert state(path) == "committed"
        assert path.read_bytes() == pattern(1000)
    assert files["replaced"].read_bytes() == pattern(2000)
    assert stat.S_IMODE(watched.home(files["described"]).stat().st_mode) == 0o600
    assert {each.read_bytes() for each in others} == {b"foreign"}
    trashed = watched.call("trash_list")["entries"]
    kept = ["later", "removed", "replaced"] if retention != "0s" else []
    assert sorted(each["path"].rpartition("/")[2] for each in trashed) == kept
    assert not watched.leftovers("lost+found")
    watched.assert_consistent()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_nothing_is_compared_with_a_home_tree_that_something_is_mounted_in(
    watched: Mount, tmp_path: Path, kind: str
) -> None:
    """A restore, a rebuild and a start of another time would take what is covered for gone: they say so and end."""
    rec = watched.recording()
    (rec / "sub").mkdir()
    (rec / "sub/file").write_bytes(pattern(1000))
    watched.drain()
    recfs("backup", "now", "--root", watched.root)
    watched.umount()
    point = watched.home(rec) / ("sub/file" if kind == "file" else "sub")
    over = tmp_path / "over"
    over.write_bytes(b"foreign") if kind == "file" else over.mkdir()
    run("mount", "--bind", over, point)
    try:
        for command in ("restore-catalogue", "rebuild"):
            done = recfs(command, "--root", watched.root, check=False)
            assert done.returncode
            assert f"umount {point}" in done.stderr.decode()
        users = watched.root / "users"
        mark = os.getxattr(users, "user.recfs.generation")
        os.removexattr(users, "user.recfs.generation")
        code, said = watched.try_start()
        assert code
        assert f"umount {point}" in said
        os.setxattr(users, "user.recfs.generation", mark)
    finally:
        _uncover(point)
    recfs("restore-catalogue", "--root", watched.root)
    watched.start(config=CONFIG)
    assert state(rec / "sub/file") == "committed"
    assert (rec / "sub/file").read_bytes() == pattern(1000)
