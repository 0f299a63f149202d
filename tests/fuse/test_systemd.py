"""The shipped unit, and units of a mount, under a real systemd: process 1 of namespaces of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.api.client import ControlClient
from recfs.errors import RecfsError
from tests.helpers.machine import excused, skip
from tests.helpers.systemd import Systemd

from .clients import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.modeless, pytest.mark.slow, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
VENV = Path(sys.executable).parents[1]
NEEDED = "needs a systemd that can be process 1 of a namespace"
NAME = "recfs@main.service"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    # Not in /dev/shm: what begins with /dev is a device to systemd, which it waits for.
    for name in ("root", "mnt", "etc", "systemd", "sbin"):
        (tmp_path / name).mkdir()
    (tmp_path / "root").chmod(0o700)
    return tmp_path


@pytest.fixture
def systemd(base: Path) -> Iterator[Systemd]:
    if excused(NEEDED):
        skip(NEEDED)
    manager = Systemd(base / "systemd")
    try:
        yield manager
    finally:
        manager.run("umount", "--lazy", str(base / "mnt"))
        manager.close()


def unit_of(base: Path) -> str:
    """The shipped unit, with the places of this test."""
    text = (REPOSITORY / "systemd/recfs@.service").read_text("utf-8")
    return text.replace("/opt/recfs/.venv", str(VENV)).replace("/etc/recfs/", f"{base}/etc/")


def status(base: Path) -> dict[str, object] | None:
    """What the daemon says; None: it says nothing just now."""
    try:
        told: dict[str, object] = ControlClient(base / "root/.recfs/control.sock", 10.0).call("status")
    except RecfsError:
        return None
    return told


def configure(base: Path, text: str = "") -> None:
    (base / "etc/main.conf").write_text(f'root = "{base}/root"\nmountpoint = "{base}/mnt"\n{text}')


def started(systemd: Systemd, base: Path) -> int:
    """Begin, with a store that is there; the number of the main process, of systemd's."""
    done = systemd.control("start", NAME)
    assert done.returncode == 0, done.stderr + systemd.control("status", NAME).stdout + _log(base)
    return int(systemd.show(NAME, "MainPID"))


def _log(base: Path) -> str:
    log = base / "daemon.log"
    return log.read_text("utf-8", "replace") if log.exists() else ""


@pytest.fixture
def unit(systemd: Systemd, base: Path) -> Systemd:
    """systemd with the shipped unit, and a watchdog that is quick; the store is there."""
    configure(base)
    (systemd.units / "recfs@.service").write_text(unit_of(base))
    folder = systemd.units / f"{NAME}.d"
    folder.mkdir()
    log = base / "daemon.log"
    (folder / "log.conf").write_text(f"[Service]\nStandardOutput=append:{log}\nStandardError=append:{log}\n")
    systemd.control("daemon-reload")
    refused = systemd.control("start", NAME)
    assert refused.returncode != 0, "the unit makes no store"
    assert "no recfs store" in _log(base)
    for command in ("mount", "umount"):
        made = [f"{VENV}/bin/recfs", command, "--config", f"{base}/etc/main.conf", *["-d"] * (command == "mount")]
        subprocess.run(made, check=True, capture_output=True, timeout=120)
    systemd.control("reset-failed", NAME)
    return systemd


def test_start_reload_upgrade_and_stop(unit: Systemd, base: Path) -> None:
    pid = started(unit, base)
    assert unit.show(NAME, "StatusText") == f"serving {base}/mnt"
    found = unit.run("findmnt", "-n", "-o", "SOURCE,FSTYPE", f"{base}/mnt").stdout.split()
    assert found == [f"{base}/root", "fuse.recfs"]
    where = f"{base}/mnt/users/5/recordings/1"
    assert unit.run("sh", "-c", f"mkdir -p {where} && echo recorded >{where}/a && chown 1000 {where}/a").returncode == 0
    # What a reload cannot take up makes systemctl fail; the daemon goes on as it was.
    configure(base, '[quota]\nmax_files = "many"\n')
    assert unit.control("reload", NAME).returncode != 0
    assert unit.show(NAME, "ActiveState") == "active"
    configure(base, "[quota]\nmax_files = 3\n")
    reloaded = unit.control("reload", NAME)
    assert (reloaded.returncode, int(unit.show(NAME, "MainPID"))) == (0, pid)
    settings = ControlClient(base / "root/.recfs/control.sock").call("settings")["config"]
    assert settings["quota"]["max_files"] == 3
    # SIGHUP, as Type=notify-reload sends it since systemd 253.
    assert unit.control("kill", "--kill-whom=main", "--signal=HUP", NAME).returncode == 0
    wait_until(lambda: "SIGHUP received" in _log(base), "the daemon hears it")
    upgraded = unit.run(f"{VENV}/bin/recfs", "upgrade", "--config", f"{base}/etc/main.conf")
    assert upgraded.returncode == 0, upgraded.stderr
    wait_until(lambda: int(unit.show(NAME, "MainPID")) != pid, "the new process is the main one")
    assert unit.show(NAME, "ActiveState") == "active"
    assert unit.run("cat", f"{where}/a").stdout == "recorded\n"
    assert unit.control("stop", NAME).returncode == 0
    assert (unit.show(NAME, "ActiveState"), unit.show(NAME, "Result")) == ("inactive", "success")
    assert unit.run("findmnt", f"{base}/mnt").stdout == ""
    assert (base / "root/users/5/recordings/1/a").stat().st_uid == 1000, "the unit may keep owners"


def test_a_daemon_that_dies_or_hangs_is_replaced_and_its_mount_goes_on(unit: Systemd, base: Path) -> None:
    (unit.units / f"{NAME}.d/watchdog.conf").write_text("[Service]\nWatchdogSec=20\n")
    unit.control("daemon-reload")
    started(unit, base)
    mount_id = unit.run("findmnt", "-n", "-o", "ID", f"{base}/mnt").stdout
    where = f"{base}/mnt/users/5/recordings/1"
    assert unit.run("sh", "-c", f"mkdir -p {where}; echo one >{where}/a").returncode == 0
    for fault in (signal.SIGKILL, signal.SIGSTOP):
        before = int(unit.show(NAME, "NRestarts"))
        # By systemd: the numbers that the daemon knows are those of its namespace.
        assert unit.control("kill", "--kill-whom=main", f"--signal={fault.name}", NAME).returncode == 0
        # With SIGSTOP nothing is answered, so nothing is told: after 20 s it is ended. On a machine that has too much
        # to do that can befall one that works, too.
        wait_until(lambda before=before: int(unit.show(NAME, "NRestarts")) > before, "another one starts", 120.0)
        wait_until(lambda: unit.show(NAME, "ActiveState") == "active", "it serves", 120.0)
        assert unit.run("cat", f"{where}/a").stdout == "one\n"
        assert unit.run("findmnt", "-n", "-o", "ID", f"{base}/mnt").stdout == mount_id
    assert unit.control("stop", NAME).returncode == 0
    assert unit.run("findmnt", f"{base}/mnt").stdout == ""


WRITER = "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
WRITER += "while line := sys.stdin.readline(): os.write(fd, line.encode()); print(flush=True)\n"


@pytest.fixture
def writer(unit: Systemd, base: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that keeps a file of the mount open, and writes each line that it is given; the unit is started."""
    started(unit, base)
    assert unit.run("mkdir", "-p", f"{base}/mnt/users/5/recordings/1").returncode == 0
    command = unit.entering(sys.executable, "-c", WRITER, f"{base}/mnt/users/5/recordings/1/open")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        write(process, "one")
        yield process
        assert process.stdin is not None
        process.stdin.close()


def write(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "\n", "it was not written"


def test_a_restart_leaves_the_mount_to_the_next_daemon(
    unit: Systemd, base: Path, writer: subprocess.Popen[str]
) -> None:
    mount_id = unit.run("findmnt", "-n", "-o", "ID", f"{base}/mnt").stdout
    for verb in ("restart", "try-restart", "reload-or-restart", "restart"):
        pid = unit.show(NAME, "MainPID")
        done = unit.control(verb, NAME)
        assert done.returncode == 0, done.stderr + _log(base)
        assert (unit.show(NAME, "MainPID") == pid) == (verb == "reload-or-restart")
        assert (unit.show(NAME, "ActiveState"), unit.show(NAME, "NRestarts")) == ("active", "0")
        assert unit.run("findmnt", "-n", "-o", "ID", f"{base}/mnt").stdout == mount_id
        write(writer, "more")
    assert _log(base).count("the mount of the daemon before this one goes on") == 3
    assert "died" not in _log(base)
    # What changes the mount itself is taken up: it is made anew.
    configure(base, 'passthrough = "off"\n')
    assert unit.control("restart", NAME).returncode == 0, _log(base)
    assert unit.run("findmnt", "-n", "-o", "ID", f"{base}/mnt").stdout not in ("", mount_id)
    assert "passthrough changed" in _log(base)
    # A fault in the configuration ends the mount as a stop does: nobody is left with a dead one.
    configure(base, "min_free = 5 q\n")
    assert unit.control("restart", NAME).returncode != 0
    assert unit.run("findmnt", f"{base}/mnt").stdout == ""
    configure(base)
    unit.control("reset-failed", NAME)
    started(unit, base)


def test_a_restart_that_is_given_up_leaves_no_dead_mount(unit: Systemd, base: Path) -> None:
    folder = unit.units / f"{NAME}.d"
    gate = base / "gate"
    # Between the end of the daemon and ExecStopPost= of the unit, somebody has the unit stopped.
    (folder / "gate.conf").write_text(f"[Service]\nExecStop=-/bin/sh -c 'until test -e {gate}; do sleep 0.1; done'\n")
    unit.control("daemon-reload")
    started(unit, base)
    assert unit.control("restart", "--no-block", NAME).returncode == 0
    wait_until(lambda: "is left to the next daemon" in _log(base), "the daemon has left its mount", 60.0)
    stopped = subprocess.Popen(unit.entering("systemctl", "stop", NAME))

    def jobs() -> str:
        return " ".join(unit.control("list-jobs").stdout.split())

    wait_until(lambda: f"{NAME} stop" in jobs(), "it is to be stopped", 60.0)
    gate.touch()
    assert stopped.wait(60) == 0
    assert (unit.show(NAME, "ActiveState"), unit.show(NAME, "Result")) == ("inactive", "success")
    assert unit.run("findmnt", f"{base}/mnt").stdout == ""
    started(unit, base)
    assert unit.control("stop", NAME).returncode == 0


def test_a_stop_with_a_file_open_is_no_failure(unit: Systemd, base: Path, writer: subprocess.Popen[str]) -> None:
    (unit.units / f"{NAME}.d/stop.conf").write_text(
        f"[Service]\nExecStop=\n"
        f"ExecStop=-{VENV}/bin/recfs umount --config {base}/etc/main.conf --unit %n --timeout 1s\n"
    )
    unit.control("daemon-reload")
    assert unit.control("stop", NAME).returncode == 0
    assert (unit.show(NAME, "ActiveState"), unit.show(NAME, "Result")) == ("inactive", "success")
    assert "it ends although 1 file is (users/5/recordings/1/open) open" in _log(base)
    assert unit.run("findmnt", f"{base}/mnt").stdout == ""
    started(unit, base)
    where = f"{base}/mnt/users/5/recordings/1/open"
    assert unit.run("cat", where).stdout == "one\n"
    assert unit.control("stop", NAME).returncode == 0


def test_a_stop_that_takes_too_long_leaves_no_dead_mount(unit: Systemd, base: Path) -> None:
    (unit.units / f"{NAME}.d/stop.conf").write_text("[Service]\nExecStop=\nKillSignal=SIGWINCH\nTimeoutStopSec=1\n")
    unit.control("daemon-reload")
    started(unit, base)
    unit.control("stop", NAME)
    assert unit.show(NAME, "Result") == "timeout"
    assert unit.run("findmnt", f"{base}/mnt").stdout == ""


@pytest.mark.needs("ffmpeg", "ffprobe")
def test_recordings_are_looked_into(unit: Systemd, base: Path) -> None:
    """By a program that gives up root, is confined, and can be ended."""
    started(unit, base)
    where = base / "mnt/users/5/recordings/1"
    made = f"mkdir -p {where} && ffmpeg -loglevel error -f lavfi -i sine=duration=1 -f wav {where}/source.wav"
    done = unit.run("sh", "-c", made)
    assert done.returncode == 0, done.stderr

    def media() -> dict[str, object]:
        found = (status(base) or {}).get("media")
        return found if isinstance(found, dict) else {}

    wait_until(lambda: bool(media().get("looks")) or bool(media().get("missing")), "it is looked into", 60.0)
    assert (media()["missing"], media()["looks"]) == (None, {"whole": 1})
    assert unit.control("stop", NAME).returncode == 0


@pytest.mark.needs("curl")
def test_the_gateway_has_its_configuration_as_a_credential(unit: Systemd, base: Path) -> None:
    """`/etc/recfs` is root's: it reads a copy that systemd hands over, and serves what the other unit has mounted."""
    configure(base, f'[serve]\nlisten = "127.0.0.1:0"\ndirectory = "{base}/own"\n')
    (base / "etc").chmod(0o700)
    (base / "own").mkdir(0o700)
    text = (REPOSITORY / "systemd/recfs-serve@.service").read_text("utf-8")
    text = text.replace("/opt/recfs/.venv", str(VENV)).replace("/etc/recfs/", f"{base}/etc/")
    (unit.units / "recfs-serve@.service").write_text(text)
    name, log = "recfs-serve@main.service", base / "gateway.log"
    (unit.units / f"{name}.d").mkdir()
    # root without capabilities, for this machine may have Python where others do not get at it.
    (unit.units / f"{name}.d/test.conf").write_text(
        f"[Service]\nUser=root\nGroup=root\nStateDirectory=\nPrivateTmp=no\nReadWritePaths={base}\n"
        f"StandardOutput=append:{log}\nStandardError=append:{log}\n"
    )
    unit.control("daemon-reload")
    done = unit.control("start", name)
    said = log.read_text("utf-8")
    assert done.returncode == 0, done.stderr + said
    found = re.search(r"http://(127\.0\.0\.1:\d+) serves (\S+)", said)
    assert found is not None, said
    assert found[2] == f"{base}/mnt"
    assert unit.show(NAME, "ActiveState") == "active", "the mount comes with it"
    ready = unit.run("curl", "--silent", "--show-error", "--max-time", "60", f"http://{found[1]}/readyz")
    assert '"ok"' in ready.stdout or '"ready"' in ready.stdout, ready.stdout + ready.stderr
    # A restart of the daemon below is nothing to it.
    assert unit.control("restart", NAME).returncode == 0
    again = unit.run("curl", "--silent", "--show-error", "--max-time", "60", f"http://{found[1]}/readyz")
    assert again.stdout == ready.stdout
    assert unit.control("stop", name, NAME).returncode == 0
    assert unit.show(name, "Result") == "success"


AUTOMOUNT = "[Unit]\nDefaultDependencies=no\n[Automount]\nWhere={where}\n"
MOUNT = "[Unit]\nDefaultDependencies=no\n[Mount]\nWhat={what}\nWhere={where}\nType=recfs\nOptions={options}\n"


def test_a_mount_that_is_made_when_somebody_comes(systemd: Systemd, base: Path) -> None:
    """What systemd makes of a line of /etc/fstab with x-systemd.automount."""
    script = (
        "mount -t tmpfs tmpfs {0} && mkdir {0}/upper {0}/work && "
        "mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir={0}/upper,workdir={0}/work /usr/sbin && "
        "ln -s {1}/bin/mount.recfs /usr/sbin/mount.recfs"
    ).format(base / "sbin", VENV)
    assert systemd.run("sh", "-c", script).returncode == 0
    point = str(base / "mnt")
    name = systemd.run("systemd-escape", "--path", point).stdout.strip()
    (systemd.units / f"{name}.automount").write_text(AUTOMOUNT.format(where=point))
    options = "create,_netdev,nofail,rw"
    (systemd.units / f"{name}.mount").write_text(MOUNT.format(what=base / "root", where=point, options=options))
    systemd.control("daemon-reload")
    assert systemd.control("start", f"{name}.automount").returncode == 0
    assert systemd.run("findmnt", "-n", "-o", "FSTYPE", point).stdout.split() == ["autofs"]
    assert status(base) is None
    listed = systemd.run("ls", point)
    assert listed.stdout.split() == ["shared", "temp", "users"], (
        listed.stderr + systemd.control("status", f"{name}.mount").stdout
    )
    assert systemd.run("findmnt", "-n", "-o", "FSTYPE", point).stdout.split() == ["autofs", "fuse.recfs"]
    assert status(base) is not None
    assert systemd.control("stop", f"{name}.mount").returncode == 0
    wait_until(lambda: status(base) is None, "the daemon ends with its mount", 60.0)
    assert systemd.run("findmnt", "-n", "-o", "FSTYPE", point).stdout.split() == ["autofs"]
