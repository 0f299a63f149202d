"""users/*/thumbnails/* falls back to shared/thumbnails/*: shown, read, copied up, hidden, shown again."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .clients import PYTHON, as_user, errno_as_user, need_root, output, pattern, run, sha256, xattr
from .harness import Mount, errno_is

pytestmark = pytest.mark.modes("auto", "off")

UID = 12345
ONE, TWO = pattern(30_000, seed=1), pattern(50_000, seed=2)


@pytest.fixture
def shared(mount: Mount) -> Iterator[Path]:
    """shared/thumbnails with two files, and nothing of other tests."""
    path = mount.path / "shared" / "thumbnails"
    path.mkdir(exist_ok=True)
    (path / "one.png").write_bytes(ONE)
    (path / "two.png").write_bytes(TWO)
    yield path
    run("rm", "-rf", path)


@pytest.fixture
def thumbs(shared: Path, user: Path) -> Path:
    """The thumbnails of a user, who has none of their own."""
    return user / "thumbnails"


def charge(user: Path) -> tuple[int, int]:
    return int(xattr(user, "quota.used_bytes")), int(xattr(user, "quota.used_files"))


def assert_shown(thumbs: Path) -> None:
    """Both shared files are there, free of charge."""
    assert sorted(os.listdir(thumbs)) == ["one.png", "two.png"]
    assert (thumbs / "one.png").read_bytes() == ONE
    assert charge(thumbs.parent) == (0, 0)


@pytest.mark.smoke
def test_shared_files_are_shown_listed_and_free(user: Path, thumbs: Path, shared: Path) -> None:
    assert_shown(thumbs)
    seen = (thumbs / "one.png").stat()
    assert (seen.st_size, seen.st_blocks) == (len(ONE), 0)
    assert seen.st_mtime_ns == (shared / "one.png").stat().st_mtime_ns
    assert seen.st_ino != (shared / "one.png").stat().st_ino, "tar and rsync -H would take it for a hard link"
    with os.scandir(thumbs) as entries:
        assert {e.name: e.inode() for e in entries} == {n: (thumbs / n).stat().st_ino for n in os.listdir(thumbs)}
    assert output("du", "-B1", thumbs / "one.png").split()[0] == "0"
    assert int(output("du", "-B1", shared / "one.png").split()[0]) >= len(ONE)
    assert (int(xattr(user, "rbytes")), int(xattr(user, "rfiles"))) == (0, 0)
    assert xattr(thumbs / "one.png", "sha256") == sha256(ONE)
    with errno_is(errno.ENOENT):
        (thumbs / "missing.png").stat()


@pytest.mark.smoke
def test_own_files_stand_over_shared_ones(thumbs: Path, shared: Path) -> None:
    (thumbs / "mine.png").write_bytes(b"mine")
    (thumbs / "one.png").write_bytes(b"my own one")
    assert sorted(os.listdir(thumbs)) == ["mine.png", "one.png", "two.png"]
    assert (thumbs / "one.png").read_bytes() == b"my own one"
    assert (shared / "one.png").read_bytes() == ONE
    assert not (shared / "mine.png").exists()
    assert charge(thumbs.parent) == (len(b"mine") + len(b"my own one"), 2)


def test_opening_for_writing_copies_up(mount: Mount, thumbs: Path, shared: Path) -> None:
    with (thumbs / "one.png").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"CHANGED")
    changed = ONE[:100] + b"CHANGED" + ONE[107:]
    assert (thumbs / "one.png").read_bytes() == changed
    assert (shared / "one.png").read_bytes() == ONE
    assert (thumbs / "one.png").stat().st_blocks > 0
    assert charge(thumbs.parent) == (len(ONE), 1)
    mount.drain()
    assert mount.home(thumbs / "one.png").read_bytes() == changed


def test_appending_and_truncating_copy_up(thumbs: Path, shared: Path) -> None:
    with (thumbs / "one.png").open("ab") as stream:
        stream.write(b"more")
    assert (thumbs / "one.png").read_bytes() == ONE + b"more"
    os.truncate(thumbs / "two.png", 10)
    assert (thumbs / "two.png").read_bytes() == TWO[:10]
    assert (shared / "one.png").read_bytes() == ONE
    assert (shared / "two.png").read_bytes() == TWO
    assert charge(thumbs.parent) == (len(ONE) + 4 + 10, 2)


def test_changing_attributes_leaves_the_shared_file_alone(thumbs: Path, shared: Path) -> None:
    before = (shared / "one.png").stat()
    (thumbs / "one.png").chmod(0o600)
    os.utime(thumbs / "one.png", ns=(1, 1))
    os.setxattr(thumbs / "two.png", "user.note", b"mine")
    assert (thumbs / "one.png").stat().st_mode & 0o777 == 0o600
    assert (thumbs / "one.png").read_bytes() == ONE
    after = (shared / "one.png").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert os.listxattr(shared / "two.png") == []
    assert os.getxattr(thumbs / "two.png", "user.note") == b"mine"


def test_a_copy_up_needs_quota_but_truncating_does_not_copy(thumbs: Path, shared: Path) -> None:
    os.setxattr(thumbs.parent, "user.recfs.quota.max_bytes", b"1000")
    with errno_is(errno.EDQUOT):
        (thumbs / "one.png").open("r+b")
    assert_shown(thumbs)
    (thumbs / "one.png").write_bytes(bytes(1000))  # O_TRUNC: no byte of the shared file is copied
    assert charge(thumbs.parent) == (1000, 1)


def test_reading_leaves_everything_as_it_is(thumbs: Path, outside: Path) -> None:
    fd = os.open(thumbs / "one.png", os.O_RDONLY)
    with errno_is(errno.EBADF):
        os.write(fd, b"x")
    assert os.pread(fd, len(ONE), 0) == ONE
    os.close(fd)
    run("cp", "-a", thumbs, outside / "copy")
    assert (outside / "copy" / "two.png").read_bytes() == TWO
    assert_shown(thumbs)


def test_deleting_the_own_copy_shows_the_shared_one_again(thumbs: Path) -> None:
    (thumbs / "one.png").write_bytes(b"mine")
    (thumbs / "one.png").unlink()
    assert_shown(thumbs)


def test_deleting_a_shown_file_hides_it_for_this_user_only(mount: Mount, thumbs: Path, shared: Path) -> None:
    neighbour = mount.path / "users" / f"{thumbs.parent.name}1"
    neighbour.mkdir()
    (thumbs / "one.png").unlink()
    assert os.listdir(thumbs) == ["two.png"]
    with errno_is(errno.ENOENT):
        (thumbs / "one.png").stat()
    assert (shared / "one.png").read_bytes() == ONE
    assert_shown(neighbour / "thumbnails")
    (thumbs / "one.png").write_bytes(b"my own")
    assert (thumbs / "one.png").read_bytes() == b"my own"
    assert sorted(os.listdir(thumbs)) == ["one.png", "two.png"]


def test_renaming_a_shown_file_moves_a_copy(thumbs: Path, rec: Path, shared: Path) -> None:
    os.rename(thumbs / "one.png", rec / "thumb.png")
    assert (rec / "thumb.png").read_bytes() == ONE
    assert os.listdir(thumbs) == ["two.png"], "what was renamed away is no longer there"
    assert (shared / "one.png").read_bytes() == ONE
    assert charge(thumbs.parent) == (len(ONE), 1)
    (rec / "new.png").write_bytes(b"new")
    os.rename(rec / "new.png", thumbs / "two.png")
    assert (thumbs / "two.png").read_bytes() == b"new"
    assert (shared / "two.png").read_bytes() == TWO


def test_removing_a_whole_user(mount: Mount, thumbs: Path, rec: Path, shared: Path) -> None:
    user = thumbs.parent
    (thumbs / "one.png").write_bytes(pattern(40_000))
    (thumbs / "own.png").write_bytes(pattern(40_000))
    (rec / "source.mp4").write_bytes(pattern(100_000))
    mount.drain()
    run("rm", "-r", user)
    assert not user.exists()
    assert user.name not in os.listdir(user.parent)
    mount.drain()
    assert not mount.home(user).exists()
    assert mount.leftovers("staging") == mount.leftovers("trash") == []
    assert mount.quota(user.name)["used_bytes"] == 0
    mount.assert_consistent()
    assert (shared / "one.png").read_bytes() == ONE
    user.mkdir()
    assert_shown(user / "thumbnails")  # a new user by this id knows nothing of what the old one hid


def test_replacing_a_shared_file_shows_through_at_once(thumbs: Path, shared: Path) -> None:
    script = (
        "import hashlib, os, sys\n"
        "for line in sys.stdin:\n"
        "    path = line.rstrip('\\n')\n"
        "    size = os.stat(path).st_size\n"
        "    data = open(path, 'rb').read()\n"
        "    print(size, hashlib.sha256(data).hexdigest(), flush=True)\n"
    )
    reader = subprocess.Popen([*PYTHON, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with reader:
        assert reader.stdin is not None
        assert reader.stdout is not None

        def read_by_the_other_process() -> list[str]:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write(f"{thumbs / 'one.png'}\n")
            reader.stdin.flush()
            return reader.stdout.readline().split()

        def wanted(content: bytes) -> list[str]:
            return [str(len(content)), sha256(content)]

        assert read_by_the_other_process() == wanted(ONE)
        same_size = pattern(len(ONE), seed=9)
        (shared / "one.png").write_bytes(same_size)  # rewritten in place
        assert read_by_the_other_process() == wanted(same_size)
        longer = pattern(100_000, seed=10)
        (shared / "new").write_bytes(longer)
        os.rename(shared / "new", shared / "one.png")  # replaced by a rename
        assert read_by_the_other_process() == wanted(longer)
        with (shared / "one.png").open("ab") as stream:
            stream.write(b"appended")
        assert read_by_the_other_process() == wanted(longer + b"appended")
        os.truncate(shared / "one.png", 7)
        assert read_by_the_other_process() == wanted(longer[:7])
        reader.stdin.close()


def test_shared_files_that_come_and_go_are_seen_at_once(thumbs: Path, shared: Path) -> None:
    with errno_is(errno.ENOENT):
        (thumbs / "three.png").stat()
    (shared / "three.png").write_bytes(b"three")
    assert (thumbs / "three.png").read_bytes() == b"three"
    os.rename(shared / "three.png", shared / "four.png")
    with errno_is(errno.ENOENT):
        (thumbs / "three.png").stat()
    assert (thumbs / "four.png").read_bytes() == b"three"
    (shared / "four.png").unlink()
    with errno_is(errno.ENOENT):
        (thumbs / "four.png").stat()
    assert_shown(thumbs)


def test_hidden_and_own_files_survive_a_remount(store: Mount) -> None:
    store.start()
    shared = store.path / "shared" / "thumbnails"
    shared.mkdir(exist_ok=True)
    for name in ("one.png", "two.png", "three.png"):
        (shared / name).write_bytes(ONE)
    thumbs = store.path / "users" / "5" / "thumbnails"
    thumbs.parent.mkdir()
    (thumbs / "one.png").unlink()
    (thumbs / "two.png").write_bytes(b"own")
    inode = (thumbs / "three.png").stat().st_ino
    store.remount()
    assert sorted(os.listdir(thumbs)) == ["three.png", "two.png"]
    assert (thumbs / "two.png").read_bytes() == b"own"
    assert (thumbs / "three.png").read_bytes() == ONE
    assert (thumbs / "three.png").stat().st_ino == inode


def test_without_rules_nothing_is_shown(store: Mount) -> None:
    store.start(config="fallback = []\n")
    shared = store.path / "shared" / "thumbnails"
    shared.mkdir(exist_ok=True)
    (shared / "one.png").write_bytes(ONE)
    thumbs = store.path / "users" / "5" / "thumbnails"
    thumbs.mkdir(parents=True)
    assert os.listdir(thumbs) == []


def test_shared_is_for_the_operator_alone(shared: Path, mount: Mount) -> None:
    need_root()
    shared.chmod(0o777)
    (shared / "one.png").chmod(0o666)  # even where the modes would allow it
    refused = (errno.EACCES, errno.EROFS, errno.EPERM)
    for code in (
        f"os.open({str(shared / 'one.png')!r}, os.O_WRONLY)",
        f"os.open({str(shared / 'new.png')!r}, os.O_WRONLY | os.O_CREAT)",
        f"os.mkdir({str(shared / 'dir')!r})",
        f"os.unlink({str(shared / 'one.png')!r})",
        f"os.rename({str(shared / 'one.png')!r}, {str(shared / 'moved.png')!r})",
        f"os.symlink('x', {str(shared / 'link')!r})",
        f"os.truncate({str(shared / 'one.png')!r}, 0)",
        f"os.setxattr({str(shared / 'one.png')!r}, 'user.note', b'x')",
    ):
        got = errno_as_user(UID, code)
        assert got in refused, f"{code} by a user gave {errno.errorcode.get(got, got)}"
    assert (shared / "one.png").read_bytes() == ONE
    assert as_user(UID, ["cat", shared / "one.png"]).stdout == ONE


def test_a_user_without_privileges_works_with_thumbnails(thumbs: Path) -> None:
    need_root()
    for path in (thumbs.parent, thumbs):
        os.chown(path, UID, UID)
    assert as_user(UID, ["cat", thumbs / "one.png"]).stdout == ONE
    as_user(UID, ["rm", "-f", thumbs / "one.png"])
    assert os.listdir(thumbs) == ["two.png"]
    as_user(UID, ["sh", "-c", f"echo own > {thumbs}/own.png"])
    assert (thumbs / "own.png").stat().st_uid == UID


LARGE = pattern(9 << 20, seed=3)
"""More than is copied up while the kernel holds the directory."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("printf more >> {0}", LARGE + b"more"),
        ("printf new > {0}", b"new"),
        ("printf CHANGED | dd of={0} conv=notrunc status=none", b"CHANGED" + LARGE[7:]),
        ("printf copied > {1} && cp {1} {0}", b"copied"),
        ("printf aside > {1} && mv {1} {0}", b"aside"),
        ("mv {0} {1} && mv {1} {0}", LARGE),
        ("truncate -s 5 {0}", LARGE[:5]),
        ("exec 3<>{0} && printf both >&3", b"both" + LARGE[4:]),
    ],
    ids=["append", "overwrite", "in-place", "cp", "replace", "rename", "truncate", "read-write"],
)
@pytest.mark.parametrize("known", ["cold", "believed-absent"])
def test_a_large_shown_file_is_changed_by_name(
    thumbs: Path, shared: Path, command: str, wanted: bytes, known: str
) -> None:
    """Whatever the kernel knows of the name: as on a local file system."""
    name = thumbs / "large.png"
    thumbs.mkdir(exist_ok=True)
    if known == "believed-absent":
        assert not name.exists()
    (shared / "large.png").write_bytes(LARGE)
    run("sh", "-c", command.format(name, thumbs / "other.png"))
    assert name.read_bytes() == wanted
    assert (shared / "large.png").read_bytes() == LARGE


@pytest.mark.slow
def test_a_large_file_that_comes_to_be_shown_while_it_is_opened(thumbs: Path, shared: Path) -> None:
    """CREATE was decided on before: every open gets the user's own copy, of the shared bytes or of none."""
    for number in range(30):
        name, source = thumbs / f"large{number}.png", shared / "source"
        source.write_bytes(LARGE)
        opener = subprocess.Popen(
            [*PYTHON, "import os,sys\nos.close(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR))", name]
        )
        source.rename(shared / name.name)
        assert opener.wait(60) == 0
        assert name.stat().st_size in (0, len(LARGE))


def test_a_file_opened_while_it_was_shown_is_one_file_for_all(thumbs: Path) -> None:
    """Whoever opened it first, and made it the user's own, writes; others see each byte, and the size, at once."""
    path = thumbs / "one.png"
    writer = os.open(path, os.O_RDWR)
    readers = [os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR)]
    try:
        assert {os.fstat(fd).st_ino for fd in (writer, *readers)} == {path.stat().st_ino}
        for turn in range(5):
            assert [os.pread(fd, 4, 0) for fd in readers] == [ONE[:4] if not turn else b"%04d" % (turn - 1)] * 2
            os.pwrite(writer, b"%04d" % turn, 0)
            os.pwrite(writer, b"grown", len(ONE) + turn * 1000)
            assert [os.pread(fd, 4, 0) for fd in (writer, *readers)] == [b"%04d" % turn] * 3
            assert {os.fstat(fd).st_size for fd in (writer, *readers)} == {len(ONE) + turn * 1000 + 5}
            os.pwrite(readers[1], b"back", 5000)
            assert os.pread(writer, 4, 5000) == b"back"
    finally:
        for fd in (writer, *readers):
            os.close(fd)


@pytest.mark.parametrize("empty", [0, os.O_TRUNC])
def test_a_shown_file_that_is_held_is_opened_for_writing_past_its_name(thumbs: Path, empty: int) -> None:
    """By /proc/self/fd: the kernel cannot look for its name again, and knows the copy by another inode number."""
    path = thumbs / "one.png"
    held = os.open(path, os.O_PATH)
    writer = os.open(f"/proc/self/fd/{held}", os.O_RDWR | empty)
    reader = os.open(path, os.O_RDWR)
    try:
        os.pwrite(writer, b"new", 0)
        assert os.pread(writer, 3, 0) == b"new"
        end = time.monotonic() + 20
        while os.pread(reader, 3, 0) != b"new":
            assert time.monotonic() < end
            time.sleep(0.01)
        os.pwrite(reader, b"old", 0)
        assert os.pread(writer, 3, 0) == b"old"
    finally:
        for fd in (held, writer, reader):
            os.close(fd)
    assert path.stat().st_size == (3 if empty else len(ONE))
