"""Extended attributes: what users set, and what recfs computes (user.recfs.*)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from recfs.client.uploads import attribute
from tests.helpers.userns import has_sys_admin

from .clients import errno_as_user, need_root, output, pattern, run, sha256, state, xattr
from .harness import Mount, errno_is

pytestmark = pytest.mark.modes("auto", "off")

UID = 12345


def make(place: Path, kind: str) -> Path:
    entry = place / kind
    if kind == "file":
        entry.write_bytes(b"x")
    else:
        entry.mkdir()
    return entry


@pytest.mark.parametrize("kind", ["file", "dir"])
def test_user_attributes_are_set_listed_and_removed(place: Path, kind: str) -> None:
    entry = make(place, kind)
    values = {
        "user.title": "Prüfung".encode(),
        "user.empty": b"",
        "user.binary": bytes(range(256)),
        "user." + "n" * 250: b"the longest name",
    }
    for name, value in values.items():
        os.setxattr(entry, name, value)
    assert sorted(os.listxattr(entry)) == sorted(values)
    for name, value in values.items():
        assert os.getxattr(entry, name) == value
    os.setxattr(entry, "user.title", b"changed")
    assert os.getxattr(entry, "user.title") == b"changed"
    os.removexattr(entry, "user.title")
    assert "user.title" not in os.listxattr(entry)
    for attempt in (os.getxattr, os.removexattr):
        with errno_is(errno.ENODATA):
            attempt(entry, "user.title")


def test_create_and_replace_flags(place: Path) -> None:
    entry = make(place, "file")
    with errno_is(errno.ENODATA):
        os.setxattr(entry, "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr(entry, "user.a", b"1", os.XATTR_CREATE)
    with errno_is(errno.EEXIST):
        os.setxattr(entry, "user.a", b"2", os.XATTR_CREATE)
    assert os.getxattr(entry, "user.a") == b"1"
    os.setxattr(entry, "user.a", b"2", os.XATTR_REPLACE)
    assert os.getxattr(entry, "user.a") == b"2"


def test_values_up_to_the_limit_of_the_kernel(rec: Path) -> None:  # ext4 takes less
    entry = make(rec, "file")
    value = pattern(65536)
    os.setxattr(entry, "user.large", value)
    assert os.getxattr(entry, "user.large") == value
    with errno_is(errno.E2BIG):
        os.setxattr(entry, "user.too_large", bytes(65537))
    with errno_is(errno.ERANGE):
        os.setxattr(entry, "user." + "n" * 251, b"x")
    assert os.listxattr(entry) == ["user.large"]


def test_attributes_go_with_the_file_through_rename_and_rewriting(place: Path) -> None:
    entry = make(place, "file")
    os.setxattr(entry, "user.note", b"kept")
    os.rename(entry, place / "renamed")
    (place / "renamed").write_bytes(b"new content")
    assert os.getxattr(place / "renamed", "user.note") == b"kept"
    fd = os.open(place / "renamed", os.O_RDONLY)
    os.setxattr(fd, "user.by_descriptor", b"1")
    (place / "renamed").unlink()
    assert os.getxattr(fd, "user.by_descriptor") == b"1"
    os.close(fd)
    (place / "renamed").write_bytes(b"another file")
    assert os.listxattr(place / "renamed") == []


def test_other_namespaces_are_not_offered(rec: Path) -> None:
    entry = make(rec, "file")
    names = ["system.posix_acl_access"]
    if os.geteuid() == 0:
        names += ["trusted.note", "security.note"]
    # user::rw-, group::r--, other::r--: an empty list would mean to remove the ACL
    entries = ((0x01, 6), (0x04, 4), (0x20, 4))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", tag, perm, -1) for tag, perm in entries)
    for name in names:
        # trusted.*: the kernel itself answers a caller without CAP_SYS_ADMIN, and does not ask recfs
        asked = not name.startswith("trusted.") or has_sys_admin()
        with errno_is(errno.EOPNOTSUPP if asked else errno.EPERM):
            os.setxattr(entry, name, acl)
    for name in names:
        with errno_is(errno.EOPNOTSUPP, errno.ENODATA):
            os.getxattr(entry, name)
    with errno_is(errno.EOPNOTSUPP):
        os.setxattr(entry, "note", b"x")
    os.setxattr(entry, "user.note", b"the refusals above must not end xattr support")
    assert os.listxattr(entry) == ["user.note"]


def test_attributes_survive_a_remount(store: Mount) -> None:
    rec = store.start().recording()
    values = {"file": bytes(range(256)) * 100, "dir": bytes(range(256)) * 10}
    for kind, value in values.items():
        os.setxattr(make(rec, kind), f"user.{kind}", value)
    digest = xattr(rec / "file", "sha256")
    store.remount()
    for kind, value in values.items():
        assert os.listxattr(rec / kind) == [f"user.{kind}"]
        assert os.getxattr(rec / kind, f"user.{kind}") == value
    assert xattr(rec / "file", "sha256") == digest == sha256(b"x")


def test_checksums_after_close(mount: Mount, rec: Path) -> None:
    file = rec / "file"
    for size in (0, 1, 5_000_000):
        content = pattern(size, seed=size)
        file.write_bytes(content)
        assert xattr(file, "sha256") == sha256(content), "asking waits for the checksum of a closed file"
        assert xattr(file, "md5") == hashlib.md5(content).hexdigest()
        mount.drain()
        assert state(file) == "committed"


def test_state_follows_the_writer(mount: Mount, rec: Path) -> None:
    file = rec / "file"
    with file.open("wb") as writer:
        writer.write(b"x")
        writer.flush()
        assert state(file) == "writing"
    assert state(file) in ("sealing", "committed")
    mount.drain()
    assert state(file) == "committed"
    with file.open("ab"):
        pass
    mount.drain()
    assert state(file) == "committed"
    assert xattr(file, "sha256") == sha256(b"x")


def test_a_file_being_written_has_no_checksum_yet(rec: Path) -> None:
    with (rec / "file").open("wb") as writer:
        writer.write(b"x")
        writer.flush()
        with errno_is(errno.ENODATA):
            os.getxattr(rec / "file", "user.recfs.sha256")


def test_the_checksum_follows_a_rewrite(mount: Mount, rec: Path) -> None:
    file = rec / "file"
    file.write_bytes(b"first")
    assert xattr(file, "sha256") == sha256(b"first")
    with file.open("r+b") as stream:
        stream.write(b"F")
    assert xattr(file, "sha256") == sha256(b"First")
    os.truncate(file, 2)
    assert xattr(file, "sha256") == sha256(b"Fi")
    mount.drain()
    assert sha256(mount.home(file).read_bytes()) == xattr(file, "sha256"), "the home tree holds these bytes"


@pytest.mark.needs("getfattr")
def test_computed_attributes_are_hidden_from_listings(mount: Mount, user: Path, rec: Path) -> None:
    file = make(rec, "file")
    mount.drain()
    for path in (file, rec, user, mount.path):
        assert os.listxattr(path) == [], f"cp -a would copy what recfs computes on {path}"
        assert xattr(path, "root") == str(mount.root), "how a command finds its store"
    shown = output("getfattr", "--only-values", "-n", "user.recfs.state", file)
    assert shown == "committed"


def test_computed_attributes_cannot_be_set(mount: Mount, rec: Path) -> None:
    file = make(rec, "file")
    digest = xattr(file, "sha256")
    for name in ("sha256", "md5", "state", "root"):
        with errno_is(errno.EPERM, errno.EINVAL):
            os.setxattr(file, f"user.recfs.{name}", b"0" * 64)
        with errno_is(errno.EPERM, errno.EINVAL):
            os.removexattr(file, f"user.recfs.{name}")
    with errno_is(errno.EPERM, errno.EINVAL):
        os.setxattr(rec, "user.recfs.rbytes", b"0")
    with errno_is(errno.ENODATA):
        os.getxattr(file, "user.recfs.no_such_attribute")
    with errno_is(errno.ENODATA):
        os.getxattr(rec, "user.recfs.sha256")
    assert xattr(file, "sha256") == digest


def facts(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(os.getxattr(path, "user.recfs.facts"))
    assert told["version"] == 1
    return told


def single(path: Path, name: str) -> str | None:
    value = attribute(path, f"user.recfs.{name}")
    return None if value is None else os.fsdecode(value)


def test_facts_tell_at_once_what_the_attributes_say_one_by_one(mount: Mount, rec: Path) -> None:
    file = rec / "source.mp4"
    file.write_bytes(b"no mp4")
    own = {"user.original_name": b"caf\xe9 \xf0\x9f\x8e\xac.mp4", "user.empty": b""}
    for name, value in own.items():
        os.setxattr(file, name, value)
    mount.drain()
    told = facts(file)
    assert {os.fsencode(name): os.fsencode(value) for name, value in told.pop("own").items()} == {
        name.encode(): value for name, value in own.items()
    }
    assert (told.pop("version"), told.pop("left_out")) == (1, [])
    assert told["sha256"] == hashlib.sha256(b"no mp4").hexdigest()
    names = ("state", "location", "sha256", "status", "media", "mime", "media_facts")
    singles = {name: single(file, name) for name in names}
    assert told == {name: value for name, value in singles.items() if value is not None}

    (rec / "assets").mkdir()
    told = facts(rec)
    assert told["names"] == sorted(os.listdir(rec)) == ["assets", "source.mp4"]
    for name in ("rbytes", "rfiles", "status", "expires_at", "keep"):
        assert told.get(name) == single(rec, name)
    assert (facts(rec / "assets")["names"], "status" in facts(rec / "assets")) == ([], False)
    for path in (file, rec):
        assert "user.recfs.facts" not in os.listxattr(path)
        with errno_is(errno.EPERM, errno.EINVAL):
            os.setxattr(path, "user.recfs.facts", b"{}")


def test_facts_of_a_file_that_is_being_written_wait_for_nothing(rec: Path) -> None:
    with open(rec / "file", "wb", buffering=0) as file:
        file.write(b"x")
        told = facts(rec / "file")
    assert (told["state"], "sha256" in told) == ("writing", False)


def test_facts_leave_out_what_is_long(mount: Mount, rec: Path) -> None:
    file = make(rec, "file")
    os.setxattr(file, "user.large", b"x" * 5000)
    told = facts(file)
    assert (told["left_out"], "own" in told) == (["own"], False)
    assert "names" in facts(rec)
    for number in range(64):
        (rec / f"more{number}").touch()
    told = facts(rec)
    assert (told["left_out"], "names" in told) == (["names"], False)
    mount.drain()
    assert facts(file)["state"] == "committed"


def test_facts_are_told_to_whom_the_single_ones_are(rec: Path) -> None:
    need_root()
    file = make(rec, "file")
    os.chmod(file, 0o600)
    for name in ("state", "facts"):
        code = f"import os; os.getxattr({str(file)!r}, 'user.recfs.{name}')"
        assert errno_as_user(UID, code) == errno.EACCES


def totals(path: Path) -> tuple[int, int]:
    return int(xattr(path, "rbytes")), int(xattr(path, "rfiles"))


def test_directory_totals_follow_every_change(mount: Mount, user: Path, rec: Path) -> None:
    other = user / "recordings" / "2"
    (rec / "a" / "b").mkdir(parents=True)
    other.mkdir()

    def expect(**wanted: tuple[int, int]) -> None:
        seen = {"user": totals(user), "rec": totals(rec), "a": totals(rec / "a"), "other": totals(other)}
        assert seen == wanted

    expect(user=(0, 0), rec=(0, 0), a=(0, 0), other=(0, 0))
    (rec / "a" / "b" / "file").write_bytes(bytes(1000))
    (rec / "a" / "two").write_bytes(bytes(50))
    expect(user=(1050, 2), rec=(1050, 2), a=(1050, 2), other=(0, 0))
    with (rec / "a" / "two").open("ab") as stream:
        stream.write(bytes(50))
    expect(user=(1100, 2), rec=(1100, 2), a=(1100, 2), other=(0, 0))
    os.truncate(rec / "a" / "b" / "file", 300)
    expect(user=(400, 2), rec=(400, 2), a=(400, 2), other=(0, 0))
    os.rename(rec / "a" / "b", other / "b")
    expect(user=(400, 2), rec=(100, 1), a=(100, 1), other=(300, 1))
    (other / "b" / "file").unlink()
    expect(user=(100, 1), rec=(100, 1), a=(100, 1), other=(0, 0))
    os.rename(rec / "a" / "two", other / "two")
    expect(user=(100, 1), rec=(0, 0), a=(0, 0), other=(100, 1))
    mount.drain()
    expect(user=(100, 1), rec=(0, 0), a=(0, 0), other=(100, 1))


def test_directory_totals_survive_a_remount(store: Mount) -> None:
    rec = store.start().recording()
    for n in range(10):
        (rec / f"d{n % 3}").mkdir(exist_ok=True)
        (rec / f"d{n % 3}" / str(n)).write_bytes(bytes(100))
    store.remount()
    assert totals(rec) == (1000, 10)
    assert totals(rec / "d0") == (400, 4)
    assert totals(store.path / "users") == (1000, 10)


@pytest.mark.parametrize("value", [b"", b"-1", b"abc", b"10 parsecs", b"1e9999", b"\xff\xfe", b"1 2", b"0x10"])
def test_nonsense_for_a_quota_is_refused(user: Path, value: bytes) -> None:
    os.setxattr(user, "user.recfs.quota.max_bytes", b"1000000")
    with errno_is(errno.EINVAL):
        os.setxattr(user, "user.recfs.quota.max_bytes", value)
    with errno_is(errno.EINVAL):
        os.setxattr(user, "user.recfs.quota.max_files", value)
    assert xattr(user, "quota.max_bytes") == "1000000", "a refused value changes nothing"


@pytest.mark.needs("setfattr")
def test_quotas_are_set_by_attribute(mount: Mount, user: Path, rec: Path) -> None:
    run("setfattr", "-n", "user.recfs.quota.max_bytes", "-v", "10 MiB", user)
    assert xattr(user, "quota.max_bytes") == str(10 << 20)
    assert mount.quota(user.name)["own_limits"]["max_bytes"] == 10 << 20
    run("setfattr", "-n", "user.recfs.quota.max_bytes", "-v", "unlimited", user)
    assert mount.quota(user.name)["limits"]["max_bytes"] is None
    for wrong in (rec, mount.path / "users", mount.path / "shared"):
        with errno_is(errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
            os.setxattr(wrong, "user.recfs.quota.max_bytes", b"1")
    with errno_is(errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
        os.setxattr(user, "user.recfs.quota.no_such_limit", b"1")


def test_only_the_operator_sets_quotas(user: Path) -> None:
    need_root()
    os.chown(user, UID, UID)
    attribute = f"{str(user)!r}, 'user.recfs.quota.max_bytes'"
    assert errno_as_user(UID, f"os.setxattr({attribute}, b'1000000000')") == errno.EPERM
    os.setxattr(user, "user.recfs.quota.max_bytes", b"5")
    assert errno_as_user(UID, f"os.setxattr({attribute}, b'unlimited')") == errno.EPERM
    assert errno_as_user(UID, f"os.removexattr({attribute})") == errno.EPERM
    assert errno_as_user(UID, f"os.setxattr({str(user)!r}, 'user.note', b'x')") == 0, "their own notes are theirs"
    assert xattr(user, "quota.max_bytes") == "5"
