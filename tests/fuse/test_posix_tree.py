"""Names and directories: links, times, modes, odd names, listing, and the fixed levels of the tree."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from .clients import DirStream, pattern
from .harness import Mount, errno_is

pytestmark = pytest.mark.modes("auto")

OLD_NS = 1_600_000_000_123_456_789
NEW_NS = 1_700_000_000_987_654_321


def test_symbolic_links(place: Path) -> None:
    (place / "target").write_bytes(b"content")
    for name, points_to in (("relative", "target"), ("dangling", "no/such"), ("long", "x" * 4000)):
        (place / name).symlink_to(points_to)
        assert os.readlink(place / name) == points_to
        assert (place / name).lstat().st_size == len(points_to)
        assert stat.S_ISLNK((place / name).lstat().st_mode)
    assert (place / "relative").read_bytes() == b"content"
    (place / "relative").write_bytes(b"through the link")
    assert (place / "target").read_bytes() == b"through the link"
    with errno_is(errno.ENOENT):
        (place / "dangling").read_bytes()
    with errno_is(errno.EEXIST):
        (place / "relative").symlink_to("elsewhere")
    with errno_is(errno.EINVAL):
        os.readlink(place / "target")
    with errno_is(errno.ELOOP):
        os.open(place / "relative", os.O_RDONLY | os.O_NOFOLLOW)
    os.rename(place / "relative", place / "moved")
    (place / "moved").unlink()
    assert (place / "target").read_bytes() == b"through the link"


@pytest.mark.modes("auto", "off")
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_times_are_kept_to_the_nanosecond(place: Path, kind: str) -> None:
    entry = place / kind
    if kind == "file":
        entry.write_bytes(b"x")
    elif kind == "directory":
        entry.mkdir()
    else:
        entry.symlink_to("nowhere")
    os.utime(entry, ns=(OLD_NS, NEW_NS), follow_symlinks=False)
    assert entry.lstat().st_mtime_ns == NEW_NS
    assert entry.lstat().st_atime_ns == OLD_NS
    before_the_epoch = -1_500_000_001
    os.utime(entry, ns=(before_the_epoch, before_the_epoch), follow_symlinks=False)
    assert entry.lstat().st_mtime_ns == before_the_epoch


@pytest.mark.modes("auto", "off")
def test_a_commit_does_not_touch_the_times(mount: Mount, rec: Path) -> None:
    early, late = rec / "early", rec / "late"
    with early.open("wb") as stream:  # rsync sets the time before it closes, cp -p after
        stream.write(b"x")
        stream.flush()
        os.utime(stream.fileno(), ns=(OLD_NS, NEW_NS))
    late.write_bytes(b"x")
    os.utime(late, ns=(OLD_NS, NEW_NS))
    mount.drain()
    for file in (early, late):
        assert file.stat().st_mtime_ns == NEW_NS, f"{file.name} lost its mtime in the commit"
        assert mount.home(file).stat().st_mtime_ns == NEW_NS, "the home tree has another mtime"


@pytest.mark.modes("auto", "off")
def test_what_changes_which_time(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"x")
    for path in (file, place):
        os.utime(path, ns=(OLD_NS, OLD_NS))
    changed = file.stat().st_ctime_ns
    file.chmod(0o600)
    assert file.stat().st_mtime_ns == OLD_NS
    assert file.stat().st_ctime_ns > changed
    with file.open("ab") as stream:
        stream.write(b"y")
        stream.flush()
        assert file.stat().st_mtime_ns > OLD_NS
    assert place.stat().st_mtime_ns == OLD_NS
    changes: list[Callable[[], object]] = [
        (place / "new").touch,
        (place / "new").unlink,
        (place / "dir").mkdir,
    ]
    for change in changes:
        os.utime(place, ns=(OLD_NS, OLD_NS))
        change()
        assert place.stat().st_mtime_ns > OLD_NS
    os.utime(file)
    assert file.stat().st_mtime_ns > OLD_NS


def test_modes_and_umask(place: Path) -> None:
    old = os.umask(0o027)
    try:
        os.close(os.open(place / "file", os.O_WRONLY | os.O_CREAT, 0o666))
        (place / "dir").mkdir(0o777)
    finally:
        os.umask(old)
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((place / "dir").stat().st_mode) == 0o750
    for path, mode in ((place / "file", 0o4711), (place / "file", 0o000), (place / "dir", 0o3775)):
        path.chmod(mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_rename_rules_of_files_and_directories(place: Path) -> None:
    for name in ("full/inner", "empty", "moved"):
        (place / name).mkdir(parents=True)
    (place / "full" / "inner" / "file").write_bytes(b"deep")
    (place / "file").write_bytes(b"x")
    with errno_is(errno.EINVAL):
        os.rename(place / "full", place / "full" / "inner" / "below")
    with errno_is(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(place / "empty", place / "full")
    with errno_is(errno.EISDIR):
        os.rename(place / "file", place / "empty")
    with errno_is(errno.ENOTDIR):
        os.rename(place / "empty", place / "file")
    with errno_is(errno.ENOENT):
        os.rename(place / "missing", place / "file")
    os.rename(place / "file", place / "file")
    os.rename(place / "full", place / "empty")  # an empty directory gives way
    os.rename(place / "empty", place / "moved" / "away")
    assert (place / "moved" / "away" / "inner" / "file").read_bytes() == b"deep"
    assert sorted(os.listdir(place)) == ["file", "moved"]


def test_directories_refuse_what_they_must(place: Path) -> None:
    (place / "dir").mkdir()
    (place / "dir" / "file").write_bytes(b"x")
    with errno_is(errno.ENOTEMPTY):
        (place / "dir").rmdir()
    with errno_is(errno.EEXIST):
        (place / "dir").mkdir()
    with errno_is(errno.EISDIR, errno.EPERM):
        os.unlink(place / "dir")
    with errno_is(errno.ENOTDIR):
        (place / "dir" / "file").rmdir()
    with errno_is(errno.ENOENT):
        (place / "missing").rmdir()
    with errno_is(errno.ENOENT):
        (place / "missing" / "dir").mkdir()
    with errno_is(errno.ENOTDIR):
        (place / "dir" / "file" / "below").mkdir()
    (place / "dir" / "file").unlink()
    (place / "dir").rmdir()
    assert os.listdir(place) == []


def test_names_have_255_bytes(place: Path) -> None:
    for name in (b"n" * 255, "é".encode() * 127 + b"x"):
        path = os.path.join(os.fsencode(place), name)
        with open(path, "wb") as stream:
            stream.write(b"long")
        assert name in os.listdir(os.fsencode(place))
        os.rename(path, path[:-1])
        os.rename(path[:-1], path)
    too_long = place / ("n" * 256)
    for attempt in (too_long.touch, too_long.mkdir, too_long.stat, too_long.unlink):
        with errno_is(errno.ENAMETOOLONG):
            attempt()
    with errno_is(errno.ENAMETOOLONG):
        too_long.symlink_to("x")
    with errno_is(errno.ENAMETOOLONG):
        os.rename(place / ("n" * 255), too_long)


ODD_NAMES = [
    *(
        b"line\nbreak",
        b"\xff\xfe not utf-8",
        b"-rf",
        b"tab\there",
        b"quo\"te'`$(x)",
        b" ",
        b"...",
        b"%2F\\",
        b"\x01\x7f",
    ),
    "cafe\u0301".encode(),  # the same to a person, two names to a file system
    "caf\u00e9".encode(),
]


def test_odd_names_are_kept_byte_for_byte(place: Path) -> None:
    here = os.fsencode(place)
    for number, name in enumerate(ODD_NAMES):
        with open(os.path.join(here, name), "wb") as stream:
            stream.write(b"%d" % number)
    assert sorted(os.listdir(here)) == sorted(ODD_NAMES)
    for number, name in enumerate(ODD_NAMES):
        with open(os.path.join(here, name), "rb") as stream:
            assert stream.read() == b"%d" % number
    for name in ODD_NAMES:
        os.unlink(os.path.join(here, name))
    assert os.listdir(here) == []


def test_odd_names_survive_a_remount(store: Mount) -> None:
    here = os.fsencode(store.start().recording())
    for name in ODD_NAMES:
        os.mkdir(os.path.join(here, name))
        with open(os.path.join(here, name, name), "wb") as stream:
            stream.write(name)
    store.remount()
    assert sorted(os.listdir(here)) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        with open(os.path.join(here, name, name), "rb") as stream:
            assert stream.read() == name


def test_hard_links_and_special_files_are_refused(rec: Path) -> None:
    (rec / "file").write_bytes(b"x")
    with errno_is(errno.EPERM):
        os.link(rec / "file", rec / "hard")
    with errno_is(errno.EPERM):
        os.mkfifo(rec / "fifo")
    with socket.socket(socket.AF_UNIX) as unix, errno_is(errno.EPERM):
        unix.bind(str(rec / "socket"))
    if os.geteuid() == 0:  # for others the kernel itself says EPERM
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            with errno_is(errno.EPERM):
                os.mknod(rec / "device", kind | 0o600, os.makedev(1, 3))
    os.mknod(rec / "regular", stat.S_IFREG | 0o640)
    assert stat.S_IMODE((rec / "regular").stat().st_mode) == 0o640
    assert sorted(os.listdir(rec)) == ["file", "regular"]


def test_statvfs_is_that_of_the_disk(mount: Mount) -> None:
    seen, disk = os.statvfs(mount.path), os.statvfs(mount.root)
    assert seen.f_namemax == 255
    assert seen.f_blocks * seen.f_frsize == disk.f_blocks * disk.f_frsize
    assert 0 < seen.f_bavail <= seen.f_bfree <= seen.f_blocks


def test_every_entry_is_listed_once_while_all_are_deleted(place: Path) -> None:
    names = {f"file{n:04d}" for n in range(3000)}
    for name in names:
        os.close(os.open(place / name, os.O_WRONLY | os.O_CREAT, 0o644))
    seen = []
    with os.scandir(place) as entries:
        for entry in entries:
            os.unlink(entry.path)
            seen.append(entry.name)
    assert len(seen) == len(set(seen)), "an entry came twice"
    assert set(seen) == names, f"{len(names - set(seen))} entries were never listed"
    assert os.listdir(place) == []
    place.joinpath("again").mkdir()
    place.joinpath("again").rmdir()


def test_a_listing_is_steady_while_others_create(place: Path) -> None:
    before = {f"old{n}" for n in range(500)}
    for name in before:
        (place / name).touch()
    seen = []
    with os.scandir(place) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number < 300:
                (place / f"new{number}").touch()
                os.rename(place / f"new{number}", place / f"newer{number}")
    assert before <= set(seen), "what was there all the time must be listed"
    assert len(seen) == len(set(seen)), "an entry came twice"


def test_telldir_and_seekdir(place: Path) -> None:
    names = {b"file%03d" % n for n in range(300)}
    for name in names:
        (place / os.fsdecode(name)).touch()
    (place / "dir").mkdir()
    stream = DirStream(place)
    order: list[tuple[int, bytes, int]] = []
    while True:
        position = stream.tell()
        entry = stream.read()
        if entry is None:
            break
        order.append((position, entry[0], entry[2]))
    dots = {b".", b".."}  # POSIX leaves open whether they are listed
    assert sorted({name for _, name, _ in order} - dots) == sorted([*names, b"dir"])
    assert len(order) == len({name for _, name, _ in order}), "an entry came twice"
    types = {name: kind for _, name, kind in order}
    assert types[b"dir"] == 4, "d_type of a directory is DT_DIR"
    assert types[b"file000"] == 8, "d_type of a file is DT_REG"
    for position, name, _ in reversed(order[::7]):
        stream.seek(position)
        found = stream.read()
        assert found is not None
        assert found[0] == name, "seekdir to a position of telldir gives the same entry again"
    (place / "later").touch()
    stream.rewind()
    again = set()
    while (entry := stream.read()) is not None:
        again.add(entry[0])
    assert again - dots == {*names, b"dir", b"later"}
    stream.close()


def test_listed_inode_numbers_are_those_of_stat(place: Path) -> None:
    for n in range(20):
        (place / str(n)).write_bytes(b"x")
    with os.scandir(place) as entries:
        for entry in entries:
            assert entry.inode() == os.lstat(entry.path).st_ino


def test_directory_descriptors_follow_a_rename(place: Path) -> None:
    (place / "dir").mkdir()
    fd = os.open(place / "dir", os.O_RDONLY | os.O_DIRECTORY)
    os.rename(place / "dir", place / "renamed")
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
    assert os.listdir(fd) == ["file"]
    os.rename("file", "other", src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)
    assert os.listdir(place / "renamed") == ["other"]


def test_inode_numbers_are_stable_and_never_reused(store: Mount) -> None:
    rec = store.start().recording()
    for n in range(50):
        (rec / f"file{n}").write_bytes(b"x")
        (rec / f"dir{n}").mkdir()
    before = {p.name: p.stat().st_ino for p in rec.iterdir()}
    assert len(set(before.values())) == 100
    store.remount()
    assert {p.name: p.stat().st_ino for p in rec.iterdir()} == before
    for path in list(rec.iterdir()):
        path.unlink() if path.is_file() else path.rmdir()
    (rec / "first").touch()
    store.remount()
    for n in range(100):
        (rec / f"second{n}").touch()
    after = {p.stat().st_ino for p in rec.iterdir()}
    assert after.isdisjoint(before.values()), "an inode number was used again"


def test_deep_trees(place: Path) -> None:
    deep = place
    for level in range(60):
        deep = deep / f"level{level}"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(pattern(1000))
    os.rename(place / "level0", place / "renamed")
    moved = place / "renamed" / deep.relative_to(place / "level0")
    assert (moved / "file").read_bytes() == pattern(1000)
