"""`recfs doctor`: each finding is worst_first rightly and names its remedy; only failures change the exit code."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from recfs.cli.checks import Check, Level, disk, host, media, versions
from recfs.cli.checks.features import Server, worst_first
from recfs.cli.checks.passthrough import check_passthrough
from recfs.cli.common import where
from recfs.config import S3Section, config_for_root, plain
from recfs.errors import ControlError, MediaUnavailable
from recfs.media.programs import Program
from recfs.stores.s3.features.model import OFFERED, Feature, Finding, Outcome, Weight
from recfs.stores.s3.features.run import Result
from tests.helpers.chaos_faults import NoAnswer, Request
from tests.helpers.chaos_proxy import ChaosProxy
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server
from tests.helpers.silent_mount import silent_mount
from tests.system.fake_daemon import FakeDaemon, run

__all__ = ["moto_bucket", "moto_server"]

FINDINGS = {
    Level.OK: Check("kernel", Level.OK, "Linux 6.18"),
    Level.WARN: Check("ffmpeg", Level.WARN, "not on PATH", "install FFmpeg"),
    Level.FAIL: Check("/dev/fuse", Level.FAIL, "missing", "`modprobe fuse`"),
}


COUNTS = {
    Level.OK: "3 ok, 0 warnings, 0 failures\n",
    Level.WARN: "2 ok, 1 warning, 0 failures\n",
    Level.FAIL: "2 ok, 0 warnings, 1 failure\n",
}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the store's disk as the only thing that is really looked at."""
    monkeypatch.setattr("recfs.cli.checks.doctor.host_checks", lambda: [FINDINGS[Level.OK]])
    monkeypatch.setattr("recfs.cli.checks.doctor.version_checks", list)
    monkeypatch.setattr("recfs.cli.checks.doctor.media_checks", lambda user: [])
    monkeypatch.setattr("recfs.cli.checks.doctor.check_dead_mounts", lambda own: [])


@pytest.mark.parametrize(("level", "code"), [(Level.OK, 0), (Level.WARN, 0), (Level.FAIL, 1)])
@pytest.mark.usefixtures("healthy")
def test_remedies_are_shown_and_only_failures_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: Level, code: int
) -> None:
    found = FINDINGS[level]
    monkeypatch.setattr("recfs.cli.checks.doctor.version_checks", lambda: [found])
    monkeypatch.setattr("recfs.cli.checks.doctor.disk_checks", lambda root, min_free: [])
    plain = run("doctor", "--root", tmp_path)
    machine = run("doctor", "--root", tmp_path, "--json")
    assert (plain.exit_code, machine.exit_code) == (code, code)
    assert f"{level:<4}  {found.name}" in plain.stdout
    assert plain.stdout.endswith(COUNTS[level])
    assert found.remedy in plain.stdout
    document = json.loads(machine.stdout)
    assert document["ok"] is (code == 0)
    assert document["checks"][-1] == {
        "name": found.name,
        "status": level.value,
        "detail": found.detail,
        "remedy": found.remedy,
    }


def test_the_real_thing_runs_and_every_finding_has_a_remedy(tmp_path: Path) -> None:
    result = run("doctor", "--root", tmp_path, "--json")
    document = json.loads(result.stdout)
    names = {check["name"] for check in document["checks"]}
    expected = {"kernel", "/dev/fuse", "fusermount3", "allow_other", "capabilities", "root", "user xattrs"}
    expected |= {
        "file system",
        "free space",
        "passthrough",
        "python",
        "pyfuse3",
        "libfuse",
        "sqlite",
        "ffmpeg",
        "ffprobe",
    }
    assert expected <= names
    for check in document["checks"]:
        assert (check["status"] == "ok") == (check["remedy"] == ""), check
    assert result.exit_code == (0 if document["ok"] else 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("healthy")
def test_without_a_store_the_machine_is_checked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recfs.cli.checks.doctor.in_effect", _no_store)
    result = run("doctor")
    assert result.exit_code == 0
    assert "--root DIR" in result.stdout


def _no_store(invocation: object) -> None:
    from recfs.errors import ConfigError

    raise ConfigError("no store named")


@pytest.mark.usefixtures("healthy")
def test_a_wrong_config_is_an_error_not_a_finding(tmp_path: Path) -> None:
    assert run("doctor", "--config", tmp_path / "absent.conf").exit_code == 3


@pytest.mark.usefixtures("healthy")
def test_a_daemon_tells_doctor_its_own_settings_and_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell has, and what --root alone says, is not what the daemon was given."""
    asked: list[str] = []
    config = config_for_root(root).model_copy(update={"s3": S3Section(bucket="media")})
    monkeypatch.setattr(
        "recfs.cli.checks.doctor.bucket_checks", lambda section, store_id: asked.append(section.url) or []
    )
    with FakeDaemon(root, {"settings": {"config": plain(config), "max_descriptors": 300}}):
        result = run("doctor", "--root", root)
    assert asked == ["s3://media/"]
    assert "300 at most: opens fail with EMFILE (the daemon that runs)" in result.stdout


@pytest.mark.usefixtures("healthy")
def test_a_daemon_that_does_not_tell_is_a_finding(root: Path) -> None:
    with FakeDaemon(root, {"settings": ControlError("no")}):
        result = run("doctor", "--root", root)
    assert result.exit_code == 0
    assert "its own settings, and its bucket, are not looked at" in result.stdout


# --- the machine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "level"),
    [
        ("6.18.44-fc", Level.OK),
        ("5.4.0", Level.OK),
        ("5.3.18", Level.FAIL),
        ("4.19", Level.FAIL),
        ("x", Level.WARN),
    ],
)
def test_kernel(release: str, level: Level) -> None:
    assert host.check_kernel(release).level is level


WHOLE_CAGE = {"landlock", "seccomp", "mntns", "netns", "user"}


@pytest.mark.parametrize(
    ("missing", "is_root", "levels", "says"),
    [
        (set(), True, [Level.OK], "Landlock, seccomp, a mount namespace, a network namespace, an ordinary user"),
        ({"mntns"}, True, [Level.NOTE], "whether a name is there"),
        ({"mntns", "netns", "user"}, False, [Level.OK], "held by Landlock, seccomp"),
        ({"netns"}, True, [Level.NOTE], "seccomp refuses ffprobe and ffmpeg every socket"),
        ({"landlock"}, True, [Level.WARN], "can open what everybody may read"),
        ({"landlock"}, False, [Level.WARN], "can open what this user may read"),
        ({"seccomp"}, True, [Level.WARN], "can reach other processes"),
        ({"seccomp", "netns"}, True, [Level.WARN], "can reach the network and other processes"),
        ({"landlock", "seccomp", "netns"}, True, [Level.WARN, Level.WARN], "can open what everybody may read"),
    ],
)
def test_what_is_missing_of_the_cage_is_a_finding(
    missing: set[str], is_root: bool, levels: list[Level], says: str
) -> None:
    found = media.check_cage(WHOLE_CAGE - missing, is_root=is_root)
    assert [each.level for each in found] == levels
    assert says in found[0].detail


def test_programs_that_read_media_are_better_a_user_of_their_own() -> None:
    shared, absent, own = media.check_user("nobody", 65_534), media.check_user("gone", None), media.check_user("a", 998)
    assert [each.level for each in (shared, absent, own)] == [Level.NOTE, Level.WARN, Level.OK]
    assert "run as nobody" in absent.detail
    assert 'user = "recfs-media"' in shared.remedy


def test_that_there_is_no_user_for_programs_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    async def caged(name: str, user: str) -> Program:
        return Program(name, f"/usr/bin/{name}", "7.1", True, frozenset(WHOLE_CAGE - {"user"} | {"alone"}))

    monkeypatch.setattr(media, "_caged", caged)
    monkeypatch.setattr(media.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(media.os, "geteuid", lambda: 0)
    cage, user = media.media_checks("nobody")
    assert (cage.level, user.level) == (Level.OK, Level.NOTE)
    assert "no other user in this user namespace" in user.detail
    assert "/etc/subuid" in user.remedy


def test_a_user_who_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon would take nobody instead, and say nothing."""
    monkeypatch.setattr(media.os, "geteuid", lambda: 0)
    monkeypatch.setattr(media.shutil, "which", lambda name: f"/usr/bin/{name}")
    program = SimpleNamespace(caged_by=frozenset(WHOLE_CAGE))
    monkeypatch.setattr(media.trio, "run", lambda function, name, user: program)
    for user in ("root", "no-such-user"):
        assert [each.level for each in media.media_checks(user)] == [Level.OK, Level.WARN]
    monkeypatch.setattr(media.shutil, "which", lambda name: None)
    assert media.media_checks("root") == []


@pytest.mark.needs("ffprobe")
def test_the_cage_of_this_machine_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [each.name for each in media.media_checks("nobody")]
    assert names[0] == "confinement"
    assert ("media user" in names) is (os.geteuid() == 0)

    async def fails(name: str, user: str) -> None:
        raise MediaUnavailable("ffprobe cannot be confined: no")

    monkeypatch.setattr(media, "_caged", fails)
    assert [each.detail for each in media.media_checks("nobody")] == ["ffprobe cannot be confined: no"]


def test_fuse_device(tmp_path: Path) -> None:
    absent = host.check_device(tmp_path / "fuse")
    assert absent.level is Level.FAIL
    assert "modprobe fuse" in absent.remedy
    assert "--device /dev/fuse" in absent.remedy
    (tmp_path / "fuse").touch()
    assert "is no device" in host.check_device(tmp_path / "fuse").detail
    assert host.check_device(Path("/dev/null")).level is Level.OK


def test_fusermount(tmp_path: Path) -> None:
    assert host.check_fusermount(None, is_root=True).level is Level.WARN
    assert host.check_fusermount(None, is_root=False).level is Level.FAIL
    tool = tmp_path / "fusermount3"
    tool.touch(0o755)
    assert host.check_fusermount(str(tool), is_root=True).level is Level.OK
    assert f"chmod u+s {tool}" in host.check_fusermount(str(tool), is_root=False).remedy
    tool.chmod(0o755 | stat.S_ISUID)
    assert host.check_fusermount(str(tool), is_root=False).level is Level.OK


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("user_allow_other\n", Level.OK),
        ("  user_allow_other # yes\n", Level.OK),
        ("#user_allow_other\n", Level.WARN),
        ("", Level.WARN),
        (None, Level.WARN),
    ],
)
def test_allow_other(tmp_path: Path, text: str | None, level: Level) -> None:
    conf = tmp_path / "fuse.conf"
    if text is not None:
        conf.write_text(text)
    check = host.check_allow_other(conf, is_root=False)
    assert check.level is level
    assert (str(conf) in check.remedy) == (level is Level.WARN)
    assert host.check_allow_other(conf, is_root=True).level is Level.OK


def test_capabilities() -> None:
    everything = host.effective_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n")
    assert [check.level for check in host.check_capabilities(everything, is_root=True)] == [Level.OK]
    [no_mount] = host.check_capabilities(everything & ~(1 << 21), is_root=True)
    assert no_mount.level is Level.FAIL
    assert "--cap-add SYS_ADMIN" in no_mount.remedy
    [no_owners] = host.check_capabilities(everything & ~1 & ~(1 << 3), is_root=True)
    assert no_owners.level is Level.WARN
    assert "--cap-add CHOWN --cap-add FOWNER" in no_owners.remedy
    assert [check.level for check in host.check_capabilities(0, is_root=False)] == [Level.WARN]


def test_dead_mounts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("40 21 0:50 / /mnt/dead rw - fuse.recfs recfs rw\n41 21 0:51 / /mnt/x rw - fuse.sshfs h rw\n")
    monkeypatch.setattr("recfs.cli.common.where.MOUNTINFO", table)

    answer = "import os; os.write(1, b'!107')"  # ENOTCONN
    monkeypatch.setattr("recfs.cli.common.where._ASK", answer)
    assert host.check_dead_mounts(Path("/mnt/dead")) == [
        Check("mount", Level.FAIL, "/mnt/dead is a dead mount, of this store", "recfs umount /mnt/dead")
    ]
    (other,) = host.check_dead_mounts(None)
    assert (other.level, "of another store" in other.detail) == (Level.WARN, True), "no fault of this one"


def test_a_mount_that_does_not_answer_is_a_warning_and_keeps_no_command_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    with silent_mount(point):
        monkeypatch.setattr(where, "OTHERS_S", 1.0)
        monkeypatch.setattr(where, "ANSWER_S", 1.0)
        [check] = [check for check in host.check_dead_mounts(None) if str(point) in check.detail]
        assert (check.level, check.detail) == (
            Level.WARN,
            f"{point} does not answer: the process behind this mount is stopped or hangs",
        )
        mount = where.mount_on(point)
        assert mount is not None
        with pytest.raises(where.SilentMount):
            where.root_behind(mount)


def test_doctor_ends_by_itself_beside_a_mount_that_does_not_answer(tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    with silent_mount(point):
        command = [sys.executable, "-m", "recfs", "doctor"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert f"{point} does not answer" in ended.stdout


# --- the disk -----------------------------------------------------------------------------------------------


def test_a_root_that_is_not_there_yet_is_checked_where_it_will_be(tmp_path: Path) -> None:
    found = disk.disk_checks(tmp_path / "a" / "b", 0)
    assert "does not exist yet" in found[0].detail
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert [check.level for check in disk.disk_checks(tmp_path / "file", 0)] == [Level.FAIL]


def test_a_root_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("recfs.cli.checks.disk.tempfile.NamedTemporaryFile", refuse)
    [check] = disk.check_writable(tmp_path, tmp_path)
    assert check.level is Level.FAIL
    assert "Permission denied" in check.detail
    assert f"uid {os.geteuid()}" in check.remedy


def test_a_file_system_without_user_xattrs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("recfs.cli.checks.disk.os.setxattr", unsupported)
    root, xattrs = disk.check_writable(tmp_path, tmp_path)
    assert (root.level, xattrs.level) == (Level.OK, Level.FAIL)
    assert "ext4, xfs or btrfs" in xattrs.remedy


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("ext4", Level.OK),
        ("xfs", Level.OK),
        ("overlay", Level.WARN),
        ("nfs4", Level.WARN),
        ("tmpfs", Level.WARN),
        ("fuse.sshfs", Level.WARN),
    ],
)
def test_kind_of_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, level: Level) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        f"21 1 8:1 / / rw - squashfs x rw\n22 21 8:2 / {tmp_path} rw - vfat x rw\n"
        f"23 22 8:3 / {tmp_path} rw shared:1 - {kind} x rw\n"
    )
    monkeypatch.setattr("recfs.cli.common.where.MOUNTINFO", table)
    assert disk.check_file_system(tmp_path / "deeper").level is level


@pytest.mark.parametrize(
    ("free_mib", "level"), [(3000, Level.OK), (2000, Level.WARN), (1024, Level.FAIL), (0, Level.FAIL)]
)
def test_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, level: Level) -> None:
    values = SimpleNamespace(f_bavail=free_mib, f_frsize=1 << 20, f_files=100, f_favail=10)
    monkeypatch.setattr("recfs.cli.checks.disk.os.statvfs", lambda path: values)
    assert disk.check_free_space(tmp_path, 1 << 30).level is level


# --- versions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("3.11.7", Level.OK),
        ("3.12.0rc1", Level.OK),
        ("3.10.99", Level.FAIL),
        ("2", Level.FAIL),
        ("", Level.FAIL),
    ],
)
def test_minimum_versions(version: str, level: Level) -> None:
    assert versions.check_minimum("python", version, (3, 11), "install it").level is level


def test_sqlite_has_to_be_as_new_as_the_schema_says(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = (Path(versions.__file__).parents[2] / "catalogue/schema.sql").read_text()
    needed = re.search(r"SQLite ≥ (\d+)\.(\d+)", schema)
    assert needed is not None
    assert (int(needed[1]), int(needed[2])) == versions.MIN_SQLITE
    monkeypatch.setattr("sqlite3.sqlite_version", "3.36.0")  # knows no STRICT tables
    assert versions.check_sqlite().level is Level.FAIL


def test_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions.check_tool("ffmpeg").detail == "not on PATH"
    tool = tmp_path / "ffmpeg"
    tool.write_text("#!/bin/sh\necho ffmpeg version 7.1-custom Copyright\n")
    tool.chmod(0o755)
    assert versions.check_tool("ffmpeg") == Check("ffmpeg", Level.OK, f"7.1-custom ({tool})")
    tool.write_text("#!/bin/sh\nexit 127\n")
    assert versions.check_tool("ffmpeg").level is Level.WARN

    def hang(*args: object, **kwargs: object) -> None:
        raise subprocess.TimeoutExpired("ffmpeg", 10)

    monkeypatch.setattr("recfs.cli.checks.versions.subprocess.run", hang)
    assert "does not run" in versions.check_tool("ffmpeg").detail


def test_libfuse_is_found_under_each_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions.check_libfuse().level is Level.OK
    monkeypatch.setattr("recfs.cli.checks.versions._LIBFUSES", ("libfuse3.so.99", *reversed(versions._LIBFUSES)))
    assert versions.check_libfuse().level is Level.OK
    monkeypatch.setattr("recfs.cli.checks.versions._LIBFUSES", ("libfuse3.so.99", "libfuse3.so.98"))
    check = versions.check_libfuse()
    assert (check.level, check.detail) == (Level.FAIL, "neither libfuse3.so.99 nor libfuse3.so.98 is found")
    assert "apt-get install fuse3" in check.remedy


def test_pyfuse3_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing_library(name: str) -> None:
        raise ImportError("libfuse3.so.3: cannot open shared object file")

    monkeypatch.setattr("recfs.cli.checks.versions.importlib.import_module", missing_library)
    check = versions.check_pyfuse3()
    assert check.level is Level.FAIL
    assert "libfuse3.so.3" in check.detail
    assert "pip install" in check.remedy


@pytest.mark.parametrize(
    ("release", "capabilities", "file_system", "extension", "says"),
    [
        ("6.9.0", 1 << 21, "ext4", True, ""),
        ("7.0-rc1", 1 << 21, None, True, ""),
        ("6.8.12", 1 << 21, "ext4", True, "Linux 6.8.12"),
        ("odd", 1 << 21, "ext4", True, "Linux odd"),
        ("6.18.0", 1 << 21, "ext4", False, "C extension"),
        ("6.18.0", ~(1 << 21), "ext4", True, "CAP_SYS_ADMIN"),
        ("6.18.0", 1 << 21, "overlay", True, "overlay"),
        ("6.18.0", 1 << 21, "fuse.other", True, "fuse.other"),
    ],
)
def test_passthrough(release: str, capabilities: int, file_system: str | None, extension: bool, says: str) -> None:
    """What is missing for it is named; it is never more than a warning."""
    found = check_passthrough(release, capabilities, file_system, extension=extension)
    assert found.level is (Level.WARN if says else Level.OK)
    assert says in found.detail


# --- the S3 server --------------------------------------------------------------------------------------------


_FEATURE = Feature("restore", lambda room, at: OFFERED, "it is not restored", "name no archive class")
_FINDINGS = (
    Finding(replace(_FEATURE, name="copy"), Outcome.OFFERED, "", Weight.NOTHING),
    Finding(_FEATURE, Outcome.ABSENT, "refused: MethodNotAllowed", Weight.NOTE),
    Finding(replace(_FEATURE, name="tags"), Outcome.WRONG, "others come back", Weight.FAILURE),
    Finding(replace(_FEATURE, name="sse"), Outcome.ABSENT, "", Weight.NOTHING),
    Finding(replace(_FEATURE, name="versioning"), Outcome.OFFERED, "old ones are kept", Weight.NOTE),
    Finding(replace(_FEATURE, name="ranges"), Outcome.UNTRIED, "no time", Weight.NOTE),
)


def test_what_matters_of_a_server_is_told_worst_first() -> None:
    checks = worst_first(Result(_FINDINGS, ("objects below x",), 0))
    assert [(check.level, check.detail) for check in checks] == [
        (Level.OK, "offers 2 of 6 features; --s3-features names them"),
        (Level.FAIL, "tags: wrong (others come back): it is not restored"),
        (Level.NOTE, "restore: not offered (refused: MethodNotAllowed): it is not restored"),
        (Level.NOTE, "versioning: old ones are kept"),
        (Level.NOTE, "not tried: ranges (no time)"),
        (Level.WARN, "could not remove what was made: objects below x"),
    ]
    assert all((check.remedy == "") == (check.level is Level.OK) for check in checks)


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A configuration with a bucket that is reached."""
    conf = tmp_path / "recfs.conf"
    conf.write_text(f'root = "{tmp_path}/store"\n[s3]\nbucket = "media"\n')
    monkeypatch.setattr(
        "recfs.cli.checks.doctor.bucket_checks", lambda section, store_id: [Check("s3", Level.OK, "there")]
    )
    monkeypatch.setattr(
        "recfs.cli.checks.doctor.server_checks",
        lambda config: Server([Check("s3 server", Level.NOTE, "restore", "none")], _FINDINGS),
    )
    return conf


@pytest.mark.usefixtures("healthy")
def test_doctor_lists_the_features_of_the_server_when_asked(reached: Path) -> None:
    plain_text = run("doctor", "--config", reached)
    assert "note  s3 server  " in plain_text.stdout
    assert "0 failures, 1 note\n" in plain_text.stdout
    assert plain_text.exit_code == 0
    assert "others come back" not in plain_text.stdout
    listed = run("doctor", "--config", reached, "--s3-features").stdout
    assert re.search(r"^tags +wrong +others come back$", listed, re.MULTILINE)
    assert "s3_features" not in json.loads(run("doctor", "--config", reached, "--json").stdout)
    document = json.loads(run("doctor", "--config", reached, "--s3-features", "--json").stdout)
    assert [each["outcome"] for each in document["s3_features"]] == [each.outcome.value for each in _FINDINGS]
    assert document["s3_features"][1] == {
        "name": "restore",
        "outcome": "not offered",
        "detail": "refused: MethodNotAllowed",
        "meaning": "it is not restored",
        "remedy": "name no archive class",
    }


@pytest.mark.usefixtures("healthy")
def test_a_server_that_is_not_reached_is_not_tried(reached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for findings in ([Check("s3", Level.WARN, "away", "wait")], [Check("s3", Level.OK, "there"), FINDINGS[Level.FAIL]]):
        monkeypatch.setattr("recfs.cli.checks.doctor.bucket_checks", lambda section, store_id, told=findings: told)
        assert "were not tried" in run("doctor", "--config", reached, "--s3-features").stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_doctor_that_is_ended_leaves_nothing_in_the_bucket(
    moto_server: str, moto_bucket: Bucket, tmp_path: Path, number: signal.Signals
) -> None:
    arrived = threading.Event()
    with ChaosProxy(moto_server) as proxy:

        def arrives(request: Request) -> bool:
            found = request.method == "PUT" and "special-characters" in request.target
            if found:
                arrived.set()
            return found

        proxy.add(NoAnswer("stall"), times=1, on=arrives)
        section = moto_bucket.section(endpoint=proxy.url)
        conf = tmp_path / "recfs.conf"
        conf.write_text(
            f'root = "{tmp_path}/store"\n[s3]\nbucket = "{section.bucket}"\nendpoint = "{section.endpoint}"\n'
            f'credentials_file = "{section.credentials_file}"\nread_timeout = "2s"\n'
        )
        command = [sys.executable, "-m", "recfs", "doctor", "--config", str(conf)]
        doctor = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert arrived.wait(60)
        doctor.send_signal(number)
        told = doctor.communicate(timeout=60)[1]
    assert "removing what was made" in told
    assert doctor.returncode != 0
    left = moto_bucket.client.list_objects_v2(Bucket=moto_bucket.name).get("Contents", ())
    assert [each["Key"] for each in left] == []
    assert "Uploads" not in moto_bucket.client.list_multipart_uploads(Bucket=moto_bucket.name)


def test_what_is_mounted_in_the_home_tree_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no part of the store. What is mounted elsewhere, in the store's own directory, too, is nobody's concern."""
    table = tmp_path / "mountinfo"
    points = ("users/5", "shared/with\\040space", ".recfs/x", "other")
    table.write_text("".join(f"1 2 0:1 / {tmp_path}/{point} rw - ext4 /dev/x rw\n" for point in points))
    monkeypatch.setattr("recfs.stores.mounted.TABLE", table)
    checks = disk.check_mounts(tmp_path)
    assert [check.level for check in checks] == [Level.FAIL, Level.FAIL]
    assert [check.remedy for check in checks] == [
        f"umount '{tmp_path}/shared/with space'",
        f"umount {tmp_path}/users/5",
    ]
