"""`mount -t recfs` and /etc/fstab: mount(8) runs mount.recfs, which is in the /sbin of a namespace of these tests."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.api.client import ControlClient
from recfs.errors import ControlError
from tests.helpers.machine import skip
from tests.helpers.private_sbin import PrivateSbin
from tests.helpers.userns import has_sys_admin

pytestmark = [pytest.mark.fuse, pytest.mark.modeless, pytest.mark.slow, pytest.mark.timeout(300)]

HELPER = Path(sys.executable).parent / "mount.recfs"


@pytest.fixture
def base(workspace: Path, tmp_path: Path) -> Path:
    made = workspace / tmp_path.name
    for name in ("root", "mnt", "sbin"):
        (made / name).mkdir(parents=True)
    (made / "root").chmod(0o700)
    return made


@pytest.fixture
def machine(base: Path) -> Iterator[PrivateSbin]:
    """Has mount.recfs in /sbin; in the end nothing of it is mounted."""
    if os.geteuid() != 0 or not has_sys_admin():
        skip("needs CAP_SYS_ADMIN")
    private = PrivateSbin(base / "sbin", {"mount.recfs": HELPER, "mount.fuse.recfs": HELPER})
    try:
        yield private
        assert private.run("findmnt", str(base / "mnt")).stdout == "", "a test unmounts what it mounts"
    finally:
        private.run("umount", "-l", str(base / "mnt"))
        private.close()


def status(base: Path) -> dict[str, object]:
    told: dict[str, object] = ControlClient(base / "root/.recfs/control.sock").call("status")
    return told


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What a command said on standard error, but that a start takes a while on a busy machine."""
    return [line for line in done.stderr.splitlines() if "the daemon is not ready yet" not in line]


def gone(machine: PrivateSbin, base: Path) -> None:
    """Unmount as an administrator does, and wait for the daemon."""
    pid = int(str(status(base)["pid"]))
    pidfd = os.pidfd_open(pid)
    done = machine.run("umount", str(base / "mnt"))
    assert (done.returncode, done.stderr) == (0, "")
    assert select.select([pidfd], [], [], 60.0)[0], "the daemon ends when its mount does"
    os.close(pidfd)
    with pytest.raises(ControlError):
        status(base)


def test_mount_umount_and_what_findmnt_tells(machine: PrivateSbin, base: Path) -> None:
    root, point = str(base / "root"), str(base / "mnt")
    refused = machine.run("mount", "-t", "recfs", root, point)
    assert refused.returncode == 32, "a store is made only where that is asked for"
    assert "mount.recfs: the option `create` makes a new store there" in refused.stderr
    options = "create,allow_other,_netdev,nofail,x-systemd.device-timeout=5,quota.max_files=7,passthrough=off"
    done = machine.run("mount", "-t", "recfs", root, point, "-o", options)
    assert (done.returncode, done.stdout, said(done)) == (0, "", [])
    (line,) = json.loads(machine.run("findmnt", "--json", point).stdout)["filesystems"]
    assert (line["source"], line["fstype"]) == (root, "fuse.recfs")
    assert {"rw", "nosuid", "nodev", "allow_other", "default_permissions"} <= set(line["options"].split(","))
    settings = ControlClient(base / "root/.recfs/control.sock").call("settings")
    assert (settings["config"]["quota"]["max_files"], settings["config"]["passthrough"]) == (7, "off")
    assert settings["origins"]["quota.max_files"] == "--set"
    pid = int(str(status(base)["pid"]))
    assert os.getsid(pid) == pid, "the daemon is in nobody's session"
    again = machine.run("mount", "-t", "recfs", root, point)
    assert (again.returncode, again.stderr) == (32, f"mount.recfs: {point}: recfs is mounted there already\n")
    gone(machine, base)


def test_a_line_of_fstab(machine: PrivateSbin, base: Path) -> None:
    conf, fstab, root, point = base / "recfs.conf", base / "fstab", str(base / "root"), str(base / "mnt")
    conf.write_text('root = "/nowhere"\nmin_free = "1 MiB"\n')
    options = f"create,config={conf},noauto,ro,noexec,_netdev,nofail,x-systemd.automount"
    fstab.write_text(f"{root} {point} recfs {options} 0 0\n")
    checked = machine.run("findmnt", "--verify", "--tab-file", str(fstab))
    assert (checked.returncode, "0 parse errors, 0 errors" in checked.stderr) == (0, True), checked
    done = machine.run("mount", "--fstab", str(fstab), point)
    assert (done.returncode, said(done)) == (0, [])
    told = machine.run("findmnt", "-n", "-o", "SOURCE,FSTYPE,VFS-OPTIONS", point).stdout.split()
    assert told[:2] == [root, "fuse.recfs"]
    assert {"ro", "noexec", "nosuid", "nodev"} <= set(told[2].split(","))
    assert "Read-only file system" in machine.run("touch", f"{point}/users/x").stderr
    assert ControlClient(base / "root/.recfs/control.sock").call("settings")["config"]["min_free"] == 1 << 20
    fstab.write_text(fstab.read_text().replace("noauto,", ""))
    everything = machine.run("mount", "--fstab", str(fstab), "-a")
    assert (everything.returncode, everything.stderr) == (0, ""), "it is known to be mounted"
    pid = status(base)["pid"]
    for command in (("mount", "--fstab", str(fstab), "-o", "remount", point), ("mount", "-o", "remount,rw", point)):
        refused = machine.run(*command)
        assert (refused.returncode, "cannot be changed by remounting it" in refused.stderr) == (1, True), refused.stderr
    assert status(base)["pid"] == pid
    gone(machine, base)


def test_a_daemon_that_does_not_start_is_a_mount_that_fails(machine: PrivateSbin, base: Path) -> None:
    (base / "mnt/file").touch()
    full = machine.run("mount", "-t", "recfs", str(base / "root"), str(base / "mnt"), "-o", "create")
    assert (full.returncode, "is not empty" in full.stderr) == (32, True)
    conf = base / "wrong.conf"
    conf.write_text("min_fre = 5\n")
    wrong = machine.run("mount", "-t", "recfs", str(base / "root"), str(base / "mnt"), "-o", f"config={conf}")
    assert (wrong.returncode, f"{conf}: line 1: min_fre: unknown key" in wrong.stderr) == (1, True)
