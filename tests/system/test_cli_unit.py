"""`recfs umount --unit`, which ExecStop= of the unit runs: around a daemon and a systemd that are played."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from recfs.cli.mounts import service
from recfs.errors import Busy, ControlError, NotSupported
from tests.system.fake_daemon import STATUS, FakeDaemon, run
from tests.system.test_cli_mount import LOCAL, PlayedMount, played, root  # noqa: F401  (fixtures)

UNIT = "recfs@main.service"


class Jobs:
    """What `systemctl list-jobs` says."""

    def __init__(self, tools: Path) -> None:
        self._tool = tools / "systemctl"
        self.are()

    def are(self, *lines: str, code: int = 0, kept: int = 2) -> None:
        """*kept*: so many descriptors it keeps for the unit."""
        text = "".join(f"echo '{line}'\n" for line in lines)
        shown = f'test "$1" = show && echo {kept} && exit\n'
        self._tool.write_text(f'#!/bin/sh\n{shown}test "$1" = list-jobs || exit 64\n{text}exit {code}\n')
        self._tool.chmod(0o755)


@pytest.fixture
def jobs(played: PlayedMount, tmp_path: Path) -> Jobs:  # noqa: F811
    return Jobs(tmp_path / "bin")


@pytest.fixture
def conf(tmp_path: Path, root: Path, played: PlayedMount) -> Path:  # noqa: F811
    path = tmp_path / "main.conf"
    path.write_text(f'root = "{root}"\nmountpoint = "{played.point}"\n')
    return path


def asked(daemon: FakeDaemon) -> list[str]:
    return [method for method, _params in daemon.asked]


def test_a_restart_leaves_the_mount(played: PlayedMount, root: Path, conf: Path, jobs: Jobs) -> None:  # noqa: F811
    jobs.are("  7 srv-recfs.mount        start   waiting", f" 12 {UNIT} restart running")
    answers = {"leave": played.die, "upgraded": {}, "status": LOCAL}
    with FakeDaemon(root, answers) as daemon:
        result = run("umount", "--config", conf, "--unit", UNIT)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{root}: the mount stays, for the daemon that is started next\n"
    assert asked(daemon) == ["upgraded", "leave"]
    assert not played.cleared.exists()
    assert played.process.wait(20) == -9


def test_a_daemon_that_has_left_its_mount_and_does_not_end_is_killed(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """Requests wait for the next one, and all that is to be kept is."""
    monkeypatch.setattr(service, "_END_S", 0.2)
    jobs.are(f"12 {UNIT} restart running")
    with FakeDaemon(root, {"leave": {}, "upgraded": {}, "status": LOCAL}):
        result = run("umount", "--config", conf, "--unit", UNIT)
    assert result.exit_code == 0
    assert "does not end: it is killed" in result.stdout
    assert played.process.wait(20) == -9


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (f"12 {UNIT} stop running",),
        ("12 recfs@other.service restart running",),
        (f"12 {UNIT} restart running", "13 srv-recfs.mount restart waiting"),
        (f"12 {UNIT} restart running", "13 srv-recfs.mount stop waiting"),
    ],
    ids=["no job", "a stop", "another unit", "a disk is restarted", "a disk goes"],
)
def test_what_is_no_restart_is_an_unmount(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs, lines: tuple[str, ...]  # noqa: F811
) -> None:  # fmt: skip
    jobs.are(*lines)
    with FakeDaemon(root, {"stop": played.stop, "status": LOCAL}) as daemon:
        assert run("umount", "--config", conf, "--unit", UNIT).exit_code == 0
    assert "leave" not in asked(daemon)
    assert "stop" in asked(daemon)


def test_a_mount_is_unmounted_where_the_next_daemon_would_refuse_the_catalogue(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs  # noqa: F811
) -> None:  # fmt: skip
    """An earlier recfs was put in place: it could not go on with the mount, which would end suddenly."""
    catalogue = root / ".recfs/catalogue.db"
    catalogue.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(catalogue)) as db, db:
        db.execute("create table _sqlite_migrations (migration_set, name)")
        db.execute("insert into _sqlite_migrations values ('recfs', '9999_later')")
    jobs.are(f"12 {UNIT} restart running")
    with FakeDaemon(root, {"stop": played.stop, "upgraded": {}, "status": LOCAL}) as daemon:
        result = run("umount", "--config", conf, "--unit", UNIT)
    assert result.exit_code == 0
    assert "it is unmounted, for this recfs could not go on with it" in result.output
    assert "was written by a newer recfs (step 9999_later)" in result.output
    assert "leave" not in asked(daemon)
    assert "stop" in asked(daemon)


def test_a_mount_that_systemd_does_not_have_is_unmounted(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs  # noqa: F811
) -> None:  # fmt: skip
    """Whatever the daemon believes: FileDescriptorStoreMax= may be another by now."""
    jobs.are(f"12 {UNIT} restart running", kept=0)
    with FakeDaemon(root, {"stop": played.stop, "status": LOCAL}) as daemon:
        assert run("umount", "--config", conf, "--unit", UNIT).exit_code == 0
    assert "leave" not in asked(daemon)


def test_without_an_answer_of_systemd_it_is_an_unmount(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs  # noqa: F811
) -> None:  # fmt: skip
    jobs.are(f"12 {UNIT} restart running", code=1)
    with FakeDaemon(root, {"stop": played.stop, "status": LOCAL}) as daemon:
        assert run("umount", "--config", conf, "--unit", UNIT).exit_code == 0
    assert "leave" not in asked(daemon)


@pytest.mark.parametrize("error", [NotSupported("min_free changed"), Busy("busy"), ControlError("no method 'leave'")])
def test_a_daemon_that_cannot_leave_its_mount_is_unmounted_and_says_why(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs, error: Exception  # noqa: F811
) -> None:  # fmt: skip
    """And has no file waited for: whoever has it open hears of nothing."""
    jobs.are(f"12 {UNIT} restart running")
    answers = {"leave": error, "upgraded": {}, "stop": played.stop, "status": STATUS | {"s3": None}}
    with FakeDaemon(root, answers) as daemon:
        result = run("umount", "--config", conf, "--unit", UNIT)
    assert result.exit_code == 0
    assert f"it is unmounted, and mounted again: {error}" in result.stdout
    assert "waiting" not in result.stdout
    assert ("stop", {"force": True, "uploads": True}) in daemon.asked


def test_a_stop_waits_for_open_files_and_ends_all_the_same(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs  # noqa: F811
) -> None:  # fmt: skip
    jobs.are(f"12 {UNIT} stop running")
    with FakeDaemon(root, {"stop": played.stop, "status": STATUS | {"s3": None}}) as daemon:
        result = run("umount", "--config", conf, "--unit", UNIT, "--timeout", "200ms")
    assert result.exit_code == 0
    assert "until 1 file is (users/5/recordings/143/source.mp4) closed" in result.stdout
    assert "it ends although 1 file is (users/5/recordings/143/source.mp4) open: what" in result.stdout
    assert asked(daemon).count("status") > 1
    assert ("stop", {"force": True, "uploads": True}) in daemon.asked


def test_files_that_are_closed_meanwhile_are_not_named(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs  # noqa: F811
) -> None:  # fmt: skip
    jobs.are(f"12 {UNIT} stop running")
    looks = iter([STATUS | {"s3": None}] * 2)
    answers = {"stop": played.stop, "status": lambda params: next(looks, LOCAL)}
    with FakeDaemon(root, answers):
        result = run("umount", "--config", conf, "--unit", UNIT, "--timeout", "1m")
    assert result.exit_code == 0
    assert "it ends although" not in result.stdout


def test_a_unit_without_a_store_is_refused() -> None:
    assert run("umount", "/mnt", "--unit", UNIT).exit_code == 2


def test_a_restart_waits_for_an_upgrade_that_is_under_way(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs  # noqa: F811
) -> None:  # fmt: skip
    """Whoever serves then leaves its mount; nobody's files are taken from them."""
    jobs.are(f"12 {UNIT} restart running")
    told = [{"under_way": True, "leaving": False}, {"under_way": True, "leaving": True}, {"under_way": False}]
    with FakeDaemon(root, {"leave": played.die, "upgraded": lambda _params: told.pop(0), "status": LOCAL}) as daemon:
        result = run("umount", "--config", conf, "--unit", UNIT)
    assert result.exit_code == 0
    assert "until `recfs upgrade` is over" in result.stdout
    assert asked(daemon) == ["upgraded", "upgraded", "upgraded", "leave"]


def test_a_restart_waits_for_the_daemon_that_an_upgrade_has_begun(
    played: PlayedMount, root: Path, conf: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """Between the two nobody listens, and the store is held."""
    jobs.are(f"12 {UNIT} restart running")
    daemon = FakeDaemon(root, {"leave": played.die, "upgraded": {}, "status": LOCAL})
    with contextlib.ExitStack() as running:

        def held(_root: Path) -> str:
            running.enter_context(daemon)
            return "7"

        monkeypatch.setattr(service, "holder", held)
        assert run("umount", "--config", conf, "--unit", UNIT).exit_code == 0
    assert asked(daemon) == ["upgraded", "leave"]
