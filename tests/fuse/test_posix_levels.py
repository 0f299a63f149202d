"""The fixed levels of the tree, and who may do what: ids, refused names, permissions of other users."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from .clients import as_user, errno_as_user, need_root, output
from .harness import Mount, errno_is

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
CREATE = os.O_WRONLY | os.O_CREAT
UID = 12345
OTHER_UID = 23456

REFUSED_DIRECTORIES = [
    *("foo", "lost+found", "user", "Users"),
    *("users/abc", "users/-1", "users/+5", "users/01", "users/5 ", "users/5.0", "users/" + "1" * 21),
    *("users/{0f8fad5b-d9cb-469f-a165-70867728950e}", "users/0f8fad5bd9cb469fa16570867728950e"),
    *("users/7/foo", "users/7/recording", "users/7/.cache"),
    *("users/7/recordings/abc", "users/7/recordings/1x", "users/7/recordings/.git"),
    *("temp/abc", "temp/7/abc"),
]
REFUSED_FILES = [
    "file",
    "users/file",
    "users/9",
    "users/7/file",
    "users/7/recordings/9",
    "temp/9",
    "temp/7/9",
]


@pytest.fixture(scope="module")
def top(mount: Mount) -> Path:
    for directory in ("users/7/recordings/1", "temp/7/1"):
        (mount.path / directory).mkdir(parents=True)
    return mount.path


def test_the_top_levels_exist_from_the_start(top: Path) -> None:
    assert sorted(os.listdir(top)) == ["shared", "temp", "users"]
    assert os.path.ismount(top)


@pytest.mark.parametrize("name", ["0", "5", "00000000"[:1], "9" * 20, UUID, UUID.upper()])
def test_ids_are_integers_or_uuids(top: Path, name: str) -> None:
    for level in ("users", "users/7/recordings", "temp", "temp/7"):
        path = top / level / name
        path.mkdir()
        assert path.is_dir()
        for inner in path.iterdir():
            inner.rmdir()
        path.rmdir()
        assert not path.exists()


@pytest.mark.parametrize("name", REFUSED_DIRECTORIES)
def test_other_directories_are_refused_there(top: Path, name: str) -> None:
    with errno_is(errno.EINVAL):
        (top / name).mkdir()
    assert not (top / name).exists()


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_files_are_refused_there(top: Path, name: str) -> None:
    with errno_is(errno.EINVAL):
        os.open(top / name, CREATE, 0o644)
    with errno_is(errno.EINVAL):
        os.mknod(top / name, stat.S_IFREG | 0o644)
    with errno_is(errno.EINVAL):
        (top / name).symlink_to("users")
    assert not os.path.lexists(top / name)


def test_renames_into_the_fixed_levels_are_refused(top: Path) -> None:
    rec = top / "users/7/recordings/1"
    (rec / "file").write_bytes(b"x")
    (rec / "dir").mkdir()
    for target in ("users/7/file", "users/7/recordings/2", "users/8", "temp/7/2", "file"):
        with errno_is(errno.EINVAL):
            os.rename(rec / "file", top / target)
    for target in ("users/abc", "users/7/foo", "users/7/recordings/abc", "dir", "temp/abc"):
        with errno_is(errno.EINVAL):
            os.rename(rec / "dir", top / target)
    assert sorted(os.listdir(rec)) == ["dir", "file"]


@pytest.mark.parametrize("name", ["users", "shared", "temp"])
def test_the_top_levels_stay(top: Path, name: str) -> None:
    refused = (errno.EINVAL, errno.EPERM, errno.EBUSY, errno.ENOTEMPTY)
    with errno_is(*refused):
        (top / name).rmdir()
    with errno_is(*refused):
        os.rename(top / name, top / "renamed")
    with errno_is(*refused):
        os.rename(top / name, top / "users/7/recordings/1/moved")
    assert (top / name).is_dir()


def test_a_recording_can_be_renamed_and_moved(top: Path) -> None:
    source = top / "users/7/recordings/20"
    source.mkdir()
    (source / "file").write_bytes(b"moving")
    os.rename(source, top / "users/7/recordings/21")
    (top / "users/8/recordings").mkdir(parents=True)
    os.rename(top / "users/7/recordings/21", top / f"users/8/recordings/{UUID}")
    assert (top / f"users/8/recordings/{UUID}/file").read_bytes() == b"moving"


def test_inside_a_recording_and_a_job_any_name_goes(top: Path) -> None:
    for inside in (top / "users/7/recordings/1", top / "temp/7/1", top / "shared"):
        path = inside / "transcription" / "abc" / ".hidden"
        path.mkdir(parents=True)
        (path / "topics_v1.json").write_text("{}")
        (inside / "any file").write_text("x")
        assert (path / "topics_v1.json").read_text() == "{}"


def test_other_users_are_held_to_modes_and_owners(mount: Mount, rec: Path) -> None:
    need_root()
    (rec / "private").write_bytes(b"secret")
    (rec / "private").chmod(0o600)
    (rec / "public").write_bytes(b"hello")
    (rec / "public").chmod(0o644)
    assert as_user(UID, ["cat", rec / "public"]).stdout == b"hello"
    denied = {
        f"os.open({str(rec / 'private')!r}, os.O_RDONLY)": errno.EACCES,
        f"os.open({str(rec / 'public')!r}, os.O_WRONLY)": errno.EACCES,
        f"os.open({str(rec / 'new')!r}, os.O_WRONLY | os.O_CREAT)": errno.EACCES,
        f"os.mkdir({str(rec / 'new')!r})": errno.EACCES,
        f"os.unlink({str(rec / 'public')!r})": errno.EACCES,
        f"os.rename({str(rec / 'public')!r}, {str(rec / 'mine')!r})": errno.EACCES,
        f"os.chmod({str(rec / 'public')!r}, 0o777)": errno.EPERM,
        f"os.chown({str(rec / 'public')!r}, {UID}, {UID})": errno.EPERM,
        f"os.truncate({str(rec / 'public')!r}, 0)": errno.EACCES,
        f"os.utime({str(rec / 'public')!r}, (1, 1))": errno.EPERM,
        f"os.setxattr({str(rec / 'public')!r}, 'user.note', b'x')": errno.EACCES,
        f"os.getxattr({str(rec / 'private')!r}, 'user.note')": errno.EACCES,
    }
    for code, wanted in denied.items():
        got = errno_as_user(UID, code)
        assert got == wanted, f"{code}: {errno.errorcode.get(got, got)} instead of {errno.errorcode[wanted]}"
    rec.chmod(0o700)
    assert errno_as_user(UID, f"os.listdir({str(rec)!r})") == errno.EACCES
    assert errno_as_user(UID, f"os.stat({str(rec / 'public')!r})") == errno.EACCES


def test_owners_work_in_their_own_directories(mount: Mount, rec: Path) -> None:
    need_root()
    os.chown(rec, UID, UID)
    rec.chmod(0o755)
    as_user(UID, ["sh", "-c", f"umask 022; echo mine > {rec}/file && mkdir {rec}/dir && ln -s file {rec}/link"])
    for name in ("file", "dir", "link"):
        status = (rec / name).lstat()
        assert (status.st_uid, status.st_gid) == (UID, UID), name
    assert output("stat", "-c", "%a %U", rec / "file").split()[0] == "644"
    assert as_user(UID, ["cat", rec / "link"]).stdout == b"mine\n"
    as_user(UID, ["chmod", "600", rec / "file"])
    assert as_user(OTHER_UID, ["cat", rec / "file"], check=False).returncode != 0
    mount.drain()
    home = mount.home(rec / "file").stat()
    assert (home.st_uid, home.st_gid, stat.S_IMODE(home.st_mode)) == (UID, UID, 0o600), "the home tree differs"
    as_user(UID, ["rm", "-r", rec / "dir", rec / "file"])
    assert os.listdir(rec) == ["link"]


def test_the_sticky_bit_protects_other_peoples_files(rec: Path) -> None:
    need_root()
    rec.chmod(0o1777)
    as_user(UID, ["touch", rec / "file"])
    assert errno_as_user(OTHER_UID, f"os.unlink({str(rec / 'file')!r})") == errno.EPERM
    assert errno_as_user(OTHER_UID, f"os.rename({str(rec / 'file')!r}, {str(rec / 'x')!r})") == errno.EPERM
    as_user(UID, ["rm", rec / "file"])


def test_new_files_take_the_group_of_a_setgid_directory(rec: Path) -> None:
    need_root()
    os.chown(rec, UID, OTHER_UID)
    rec.chmod(0o2775)
    as_user(UID, ["sh", "-c", f"touch {rec}/file && mkdir {rec}/dir && ln -s x {rec}/link"])
    assert (rec / "file").stat().st_gid == OTHER_UID
    assert (rec / "link").lstat().st_gid == OTHER_UID
    assert (rec / "dir").stat().st_gid == OTHER_UID
    assert (rec / "dir").stat().st_mode & stat.S_ISGID


def test_writing_by_another_user_clears_setuid(rec: Path) -> None:
    need_root()
    (rec / "tool").write_bytes(b"#!/bin/sh\n")
    os.chown(rec / "tool", 0, 0)
    (rec / "tool").chmod(0o6777)
    as_user(UID, ["sh", "-c", f"echo evil >> {rec}/tool"])
    assert (rec / "tool").stat().st_mode & (stat.S_ISUID | stat.S_ISGID) == 0


def test_access_answers_like_open(rec: Path) -> None:
    need_root()
    (rec / "file").write_bytes(b"x")
    (rec / "file").chmod(0o640)
    assert os.access(rec / "file", os.R_OK | os.W_OK)
    assert not os.access(rec / "file", os.X_OK)
    assert as_user(UID, ["test", "-r", rec / "file"], check=False).returncode == 1
    assert as_user(UID, ["test", "-e", rec / "file"], check=False).returncode == 0
