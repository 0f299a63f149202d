"""Quotas on the mount: exact to the byte, for files, uploads and sizes, given back and carried along."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .clients import output, pattern, recfs, run, xattr
from .harness import Mount, errno_is

pytestmark = pytest.mark.modes("auto", "off")

CREATE = os.O_WRONLY | os.O_CREAT


@pytest.fixture(autouse=True)
def _counters_stay_right(mount: Mount) -> Iterator[None]:
    """After every test, `recfs quota check` finds nothing to repair."""
    yield
    mount.assert_consistent()


def limit(user: Path, **limits: int) -> None:
    for name, value in limits.items():
        os.setxattr(user, f"user.recfs.quota.{name}", b"%d" % value)


def used(user: Path) -> int:
    return int(xattr(user, "quota.used_bytes"))


def files(user: Path) -> int:
    return int(xattr(user, "quota.used_files"))


def write_until(fd: int, error: int, chunk: int = 100_000) -> int:
    """Write until it fails with `error`; return how many bytes were taken."""
    taken = 0
    with errno_is(error):
        while taken < 50_000_000:
            taken += os.write(fd, bytes(chunk))
    return taken


@pytest.fixture
def other(mount: Mount, user: Path) -> Path:
    """Another user with one recording."""
    path = mount.path / "users" / f"{user.name}0"
    (path / "recordings" / "1").mkdir(parents=True)
    return path


@pytest.mark.parametrize("chunk", [999, 65_536, 300_000, 3_000_000])
def test_edquot_comes_exactly_at_the_byte(user: Path, rec: Path, chunk: int) -> None:
    limit(user, max_bytes=1_000_001)
    fd = os.open(rec / "file", CREATE, 0o644)
    assert write_until(fd, errno.EDQUOT, chunk) == 1_000_001
    with errno_is(errno.EDQUOT):
        os.write(fd, b"x")
    assert os.pwrite(fd, b"rewriting what is there is free", 0) == 31
    os.close(fd)
    assert (rec / "file").stat().st_size == 1_000_001 == used(user)


@pytest.mark.smoke
def test_the_limit_is_shared_by_all_files_of_a_user(user: Path, rec: Path, other: Path) -> None:
    limit(user, max_bytes=10_000)
    (rec / "first").write_bytes(bytes(6_000))
    fd = os.open(rec / "second", CREATE, 0o644)
    assert os.write(fd, bytes(6_000)) == 4_000, "the part that fits is written"
    with errno_is(errno.EDQUOT):
        os.write(fd, bytes(2_000))
    os.close(fd)
    (other / "recordings" / "1" / "file").write_bytes(bytes(20_000))  # another user is not concerned
    assert used(user) == 10_000


@pytest.mark.smoke
def test_usage_is_live(user: Path, rec: Path) -> None:
    fd = os.open(rec / "file", CREATE, 0o644)
    for turn in range(1, 5):
        os.write(fd, bytes(1000))
        assert used(user) == 1000 * turn, "seen while the file is still being written"
    assert files(user) == 1
    os.ftruncate(fd, 500)
    assert used(user) == 500
    os.close(fd)
    assert (used(user), files(user)) == (500, 1)


def test_truncating_up_and_holes_are_charged(user: Path, rec: Path) -> None:
    limit(user, max_bytes=50_000)
    fd = os.open(rec / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, 40_000)
    assert used(user) == 40_000
    with errno_is(errno.EDQUOT):
        os.ftruncate(fd, 50_001)
    assert os.fstat(fd).st_size == 40_000, "a refused truncate changes nothing"
    with errno_is(errno.EDQUOT):
        os.pwrite(fd, b"x", 60_000)
    assert os.fstat(fd).st_size == 40_000
    os.ftruncate(fd, 50_000)
    os.close(fd)
    with errno_is(errno.EDQUOT):
        os.truncate(rec / "file", 50_001)
    assert used(user) == 50_000


def test_deleting_and_truncating_give_back(user: Path, rec: Path) -> None:
    limit(user, max_bytes=10_000)
    (rec / "file").write_bytes(bytes(10_000))
    os.truncate(rec / "file", 4_000)
    (rec / "more").write_bytes(bytes(6_000))
    with errno_is(errno.EDQUOT):
        (rec / "third").write_bytes(b"x")
    (rec / "file").unlink()
    (rec / "third").write_bytes(bytes(4_000))
    with (rec / "third").open("wb") as stream:  # O_TRUNC: the old bytes no longer count
        stream.write(bytes(3_999))
    os.rename(rec / "third", rec / "more")  # the replaced file is given back
    assert (used(user), files(user)) == (3_999, 1)
    run("rm", "-rf", rec)
    assert (used(user), files(user)) == (0, 0)


def test_a_deleted_file_is_given_back_at_its_last_close_at_the_latest(user: Path, rec: Path) -> None:
    limit(user, max_bytes=10_000)
    fd = os.open(rec / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, bytes(8_000))
    (rec / "file").unlink()
    assert os.pread(fd, 10, 0) == bytes(10)
    os.close(fd)
    (rec / "again").write_bytes(bytes(10_000))
    assert used(user) == 10_000


def test_efbig_for_a_file_beyond_max_file_size(user: Path, rec: Path) -> None:
    limit(user, max_file_size=100_000)
    fd = os.open(rec / "file", CREATE, 0o644)
    assert write_until(fd, errno.EFBIG, 64_000) == 100_000
    with errno_is(errno.EFBIG):
        os.ftruncate(fd, 100_001)
    os.close(fd)
    (rec / "second").write_bytes(bytes(100_000))
    assert used(user) == 200_000


def test_max_files(user: Path, rec: Path) -> None:
    limit(user, max_files=3)
    for n in range(3):
        (rec / str(n)).touch()
    with errno_is(errno.EDQUOT):
        os.open(rec / "3", CREATE, 0o644)
    assert not (rec / "3").exists()
    (rec / "0").write_bytes(b"existing files can still be written")
    os.rename(rec / "0", rec / "1")
    (rec / "3").touch()
    assert files(user) == 3


def test_max_monthly_uploads(user: Path) -> None:
    limit(user, max_monthly_uploads=2)
    for n in (1, 2, 3):
        (user / "recordings" / str(n)).mkdir(parents=True)
    for n in (1, 2):
        (user / "recordings" / str(n) / "source.mp4").write_bytes(b"x")
        (user / "recordings" / str(n) / "video.mp4").write_bytes(b"only sources count as uploads")
    with errno_is(errno.EDQUOT):
        os.open(user / "recordings" / "3" / "source.mkv", CREATE, 0o644)
    (user / "recordings" / "3" / "audio.mp3").write_bytes(b"x")
    (user / "recordings" / "1" / "source.mp4").write_bytes(b"an overwrite is no upload")
    assert int(xattr(user, "quota.month_uploads")) == 2


def test_temp_is_charged_to_the_same_user(mount: Mount, user: Path, rec: Path) -> None:
    limit(user, max_bytes=10_000)
    job = mount.path / "temp" / user.name / "1"
    job.mkdir(parents=True)
    (job / "file").write_bytes(bytes(7_000))
    assert (used(user), files(user)) == (7_000, 1)
    with errno_is(errno.EDQUOT):
        (rec / "file").write_bytes(bytes(3_001))
    assert (rec / "file").stat().st_size == 3_000
    os.rename(job / "file", rec / "result")  # from temp to a recording of the same user: same charge
    assert (used(user), files(user)) == (10_000, 2)


def test_temp_is_charged_to_a_user_without_recordings(mount: Mount, user: Path) -> None:
    user_id = f"{user.name}77"
    job = mount.path / "temp" / user_id / "1"
    job.mkdir(parents=True)
    (job / "file").write_bytes(bytes(1_234))
    assert mount.quota(user_id)["used_bytes"] == 1_234


def test_shared_is_free(mount: Mount, user: Path) -> None:
    before = {u["user"]: u["used_bytes"] for u in mount.status()["users"]}
    directory = mount.path / "shared" / "intros"
    directory.mkdir(exist_ok=True)
    (directory / "big.mp4").write_bytes(bytes(5_000_000))
    assert {u["user"]: u["used_bytes"] for u in mount.status()["users"]} == before
    (directory / "big.mp4").unlink()


def test_a_rename_between_users_moves_the_charge(mount: Mount, user: Path, rec: Path, other: Path) -> None:
    (rec / "sub").mkdir()
    (rec / "sub" / "file").write_bytes(bytes(3_000))
    (rec / "single").write_bytes(bytes(500))
    os.rename(rec / "single", other / "recordings" / "1" / "single")
    assert (used(user), files(user), used(other), files(other)) == (3_000, 1, 500, 1)
    os.rename(rec, other / "recordings" / "2")
    assert (used(user), files(user), used(other), files(other)) == (0, 0, 3_500, 2)
    shared = mount.path / "shared" / "outros"
    shared.mkdir(exist_ok=True)
    os.rename(other / "recordings" / "2" / "sub" / "file", shared / user.name)
    assert (used(other), files(other)) == (500, 1), "what goes to shared/ is free"
    os.rename(shared / user.name, other / "recordings" / "2" / "back")
    assert (used(other), files(other)) == (3_500, 2)


def test_a_rename_needs_room_at_the_new_owner(user: Path, rec: Path, other: Path) -> None:
    (rec / "dir").mkdir()
    for name in ("dir/one", "dir/two", "file"):
        (rec / name).write_bytes(bytes(1_000))
    target = other / "recordings" / "1"
    limit(other, max_bytes=1_999)
    with errno_is(errno.EDQUOT):
        os.rename(rec / "dir", target / "dir")
    assert sorted(os.listdir(rec / "dir")) == ["one", "two"]
    os.rename(rec / "file", target / "file")
    with errno_is(errno.EDQUOT):
        os.rename(rec / "dir" / "one", target / "one")
    os.rename(rec / "dir" / "one", target / "file")  # replacing gives back first
    limit(other, max_bytes=1_000_000, max_files=1)
    with errno_is(errno.EDQUOT):
        os.rename(rec / "dir", target / "dir")
    assert os.listdir(rec / "dir") == ["two"]
    assert (used(other), files(other)) == (1_000, 1)


def test_lowering_a_limit_below_the_usage_only_stops_growth(user: Path, rec: Path) -> None:
    (rec / "file").write_bytes(pattern(10_000))
    limit(user, max_bytes=4_000)
    assert (rec / "file").read_bytes() == pattern(10_000)
    with (rec / "file").open("r+b") as stream:
        stream.write(b"rewritten")
    with errno_is(errno.EDQUOT):
        os.truncate(rec / "file", 10_001)
    os.truncate(rec / "file", 5_000)
    with errno_is(errno.EDQUOT):
        (rec / "new").write_bytes(b"x")
    os.truncate(rec / "file", 3_999)
    with (rec / "file").open("ab") as stream:
        stream.write(b"x")
    assert used(user) == 4_000


def test_clients_report_a_full_quota(user: Path, rec: Path, outside: Path) -> None:
    limit(user, max_bytes=1_000_000)
    (outside / "big").write_bytes(pattern(2_000_000))
    for argv in (
        ["cp", outside / "big", rec / "copy"],
        ["dd", f"if={outside / 'big'}", f"of={rec / 'dd'}", "bs=64k"],
        ["sh", "-c", f"cat {outside / 'big'} > {rec / 'cat'}"],
    ):
        done = run(*argv, check=False)
        assert done.returncode != 0
        assert b"quota exceeded" in done.stderr.lower(), done.stderr
        run("sh", "-c", f"rm {rec}/*")
    assert (used(user), files(user)) == (0, 0)


def test_the_command_line_sets_and_shows_quotas(mount: Mount, user: Path, rec: Path) -> None:
    mount.call("quota_set", user=user.name, max_bytes=5_000, max_files="unlimited")
    assert xattr(user, "quota.max_bytes") == "5000"
    assert xattr(user, "quota.max_files") == "unlimited"
    with errno_is(errno.EDQUOT):
        (rec / "file").write_bytes(bytes(5_001))
    assert mount.quota(user.name)["used_bytes"] == 5_000
    recfs("quota", "check", "--root", mount.root)
    mount.call("quota_set", user=user.name, max_bytes="default")
    assert mount.quota(user.name)["own_limits"]["max_bytes"] is None
    assert "user.recfs" not in output("getfattr", "-d", "-m-", rec / "file")


def test_default_limits_come_from_the_config(store: Mount) -> None:
    rec = store.start(config="[quota]\nmax_bytes = 10_000\nmax_files = 2\n").recording()
    with errno_is(errno.EDQUOT):
        (rec / "file").write_bytes(bytes(10_001))
    store.call("quota_set", user="1", max_bytes=20_000)
    (rec / "file").write_bytes(bytes(20_000))
    (rec / "second").touch()
    with errno_is(errno.EDQUOT):
        (rec / "third").touch()
    store.remount()
    assert store.quota("1")["limits"]["max_bytes"] == 20_000, "an own limit survives a restart"
    store.assert_consistent()
