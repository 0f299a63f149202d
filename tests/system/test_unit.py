"""The unit and the snippets beside it, as systemd's own programs judge them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recfs.media.runner import SANDBOX

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/recfs@.service"
GATEWAY = ROOT / "systemd/recfs-serve@.service"
MOST_EXPOSED = {UNIT: 5.4, GATEWAY: 2.0}


@pytest.fixture(params=list(MOST_EXPOSED), ids=lambda unit: unit.name.partition("@")[0])
def unit(request: pytest.FixtureRequest) -> Path:
    """A unit as it is shipped."""
    found: Path = request.param
    return found


@pytest.fixture
def instance(tmp_path: Path, unit: Path) -> Path:
    """The unit of a store, with the programs of this checkout."""
    path = tmp_path / unit.name.replace("@", "@main")
    path.write_text(unit.read_text("utf-8").replace("/opt/recfs/.venv", str(Path(sys.executable).parents[1])))
    return path


@pytest.mark.needs("systemd-analyze")
@pytest.mark.slow
def test_systemd_understands_every_line(instance: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", instance], capture_output=True, text=True, check=False)
    about = [line for line in done.stderr.splitlines() if "recfs" in line]
    assert (done.returncode, about) == (0, []), done.stderr


@pytest.mark.needs("systemd-analyze")
@pytest.mark.slow
def test_the_unit_is_not_exposed_more_than_it_has_to_be(instance: Path, unit: Path) -> None:
    most = MOST_EXPOSED[unit]
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={int(most * 10)}", instance]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert (done.returncode, float(found[1]) <= most) == (0, True), found[0]


CAGED = """
import subprocess, sys
settings = "uid=65534 gid=65534 cpu=10 alarm=10 memory=1000000000 file=0 descriptors=20 processes=20 reopen=0".split()
command = [sys.executable, "-I", "-S", "-B", sys.argv[1], *settings, "workspace=-1", "--", sys.argv[2], "30"]
with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
    print(process.stderr.readline().decode().strip())
    process.kill()
    print(process.wait(20))
"""


@pytest.mark.needs("setpriv", "sleep")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to leave out")
def test_what_looks_into_media_can_be_confined_and_ended_with_the_capabilities_of_the_unit() -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.read(UNIT)
    kept = {name.removeprefix("CAP_").lower() for name in unit["Service"]["CapabilityBoundingSet"].split()}
    known = subprocess.run(["setpriv", "--list-caps"], capture_output=True, text=True, check=True).stdout.split()
    less = ",".join(f"-{name}" for name in known if name not in kept)
    sleep = shutil.which("sleep")
    assert sleep is not None
    command = ["setpriv", "--bounding-set", less, "--inh-caps", less, sys.executable, "-c", CAGED, str(SANDBOX), sleep]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "user" in done.stdout.partition("\n")[0].split(), done.stdout + done.stderr
    assert done.stdout.endswith("\n-9\n"), done.stdout + done.stderr


def test_nothing_hides_the_mount_from_everybody_else() -> None:
    """Each of these gives the service a mount namespace (systemd.exec(5)), and what is mounted there is its own."""
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.read(UNIT)
    hiding = re.compile(
        r"protect(system|home|proc|kernel.*|controlgroups)|private(tmp|devices|mounts|ipc)|.*paths|"
        r"rootdirectory|rootimage|temporaryfilesystem|bind(readonly)?paths|(runtime|state|cache|logs)directory|procsubset"
    )
    assert [key for key in unit["Service"] if hiding.fullmatch(key)] == []
    assert {"watchdogsec", "capabilityboundingset", "systemcallfilter", "nonewprivileges"} <= set(unit["Service"])


@pytest.mark.needs("systemd-tmpfiles", "systemd-sysusers")
def test_the_snippets_make_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nadm:x:4:\n")
    for program, snippet in (("sysusers", "recfs.sysusers.conf"), ("tmpfiles", "recfs.tmpfiles.conf")):
        extra = ["--create"] if program == "tmpfiles" else []
        command = [f"systemd-{program}", *extra, f"--root={tmp_path}", ROOT / "systemd" / snippet]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    users = (tmp_path / "etc/passwd").read_text()
    for user in (
        r"recfs:x:\d+:\d+:operator of recfs:",
        r"recfs-media:x:\d+:\d+:ffprobe and ffmpeg of recfs:",
        r"recfs-serve:x:\d+:\d+:gateway of recfs:",
    ):
        assert re.search(rf"^{user}", users, re.MULTILINE)
    modes = {"etc/recfs": "0o750", "run/recfs": "0o755", "var/log/recfs": "0o750"}
    assert {made: oct((tmp_path / made).stat().st_mode & 0o777) for made in modes} == modes


def test_the_gateway_is_no_part_of_the_mount() -> None:
    """It may end, and be away, as it likes: nothing of the store waits for it, and it has no rights of its own."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(GATEWAY)
    assert {"requires", "bindsto", "requisite", "partof"}.isdisjoint(unit["Unit"])
    assert "recfs-serve" not in UNIT.read_text("utf-8")
    assert (unit["Service"]["user"], unit["Service"]["capabilityboundingset"]) == ("recfs-serve", "")
