"""The unit and the snippets beside it, as systemd's own programs judge them."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/recfs@.service"
MOST_EXPOSED = 5.0


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """The unit of a store, with the programs of this checkout."""
    path = tmp_path / "recfs@main.service"
    path.write_text(UNIT.read_text("utf-8").replace("/opt/recfs/.venv", str(Path(sys.executable).parents[1])))
    return path


@pytest.mark.needs("systemd-analyze")
@pytest.mark.slow
def test_systemd_understands_every_line(instance: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", instance], capture_output=True, text=True, check=False)
    about = [line for line in done.stderr.splitlines() if "recfs" in line]
    assert (done.returncode, about) == (0, []), done.stderr


@pytest.mark.needs("systemd-analyze")
@pytest.mark.slow
def test_the_unit_is_not_exposed_more_than_it_has_to_be(instance: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={int(MOST_EXPOSED * 10)}", instance]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert (done.returncode, float(found[1]) <= MOST_EXPOSED) == (0, True), found[0]


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
    for user in (r"recfs:x:\d+:\d+:operator of recfs:", r"recfs-media:x:\d+:\d+:ffprobe and ffmpeg of recfs:"):
        assert re.search(rf"^{user}", users, re.MULTILINE)
    assert [oct((tmp_path / made).stat().st_mode & 0o777) for made in ("etc/recfs", "var/log/recfs")] == ["0o750"] * 2
