"""Scripts, lock files and the unit file: cheap checks of what only runs on a new machine or in production."""

import configparser
import os
import re
import shutil
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p for p in [*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"] if p.is_file())
LOCKS = sorted(ROOT.glob("*.lock"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def pins(lock: Path) -> dict[str, str]:
    lines = lock.read_text().splitlines()
    found = (re.match(r"([a-z0-9.-]+)==(\S+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def canonical_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", text)[0].lower().replace("_", "-") for text in requirements}


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_scripts_are_executable_and_parse(script: Path) -> None:
    assert os.access(script, os.X_OK)
    interpreter = script.read_text().splitlines()[0]
    assert interpreter.startswith("#!")
    if interpreter.endswith("bash"):
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("lock", LOCKS, ids=name_of)
def test_locks_pin_by_hash_and_name_no_place(lock: Path) -> None:
    text = lock.read_text()
    logical_lines = re.sub(r"\\\n", " ", text).splitlines()
    requirements = [line for line in logical_lines if line.strip() and not line.lstrip().startswith("#")]
    assert requirements
    for line in requirements:
        assert re.match(r"[a-z0-9.-]+==\S+( ;.*?)?( +--hash=sha256:[0-9a-f]{64})+ *$", line), line
    assert "://" not in text
    assert not re.search(r"(^|\s)(/|--(extra-)?index|--find-links)", text)


@pytest.mark.parametrize(
    ("lock", "extra"), [("requirements.lock", None), ("requirements-web.lock", "web"), ("requirements-dev.lock", "dev")]
)
def test_locks_hold_every_dependency(lock: str, extra: str | None) -> None:
    metadata = project()["project"]
    assert isinstance(metadata, dict)
    wanted = canonical_names(metadata["dependencies"])
    if extra:
        wanted |= canonical_names(metadata["optional-dependencies"][extra])
    assert wanted - pins(ROOT / lock).keys() == set()


def test_the_development_lock_holds_all_of_the_other() -> None:
    first, web, dev = (pins(ROOT / f"requirements{of}.lock").items() for of in ("", "-web", "-dev"))
    assert first <= web <= dev


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with a shell's basics and a user who is not root, but no FFmpeg, no FUSE and no Python."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for program in ("bash", "dirname", "sed", "cat", "env"):
        found = shutil.which(program)
        assert found
        (directory / program).symlink_to(found)
    for name, script in {"id": "echo 1000", "apt-get": "exit 99"}.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return directory


def run_setup(tmp_path: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    checkout = tmp_path / "checkout" / "scripts"
    checkout.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/setup", checkout)
    command = [path / "bash", checkout / "setup", *arguments]
    environment = {"PATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_setup_tells_an_ordinary_user_what_to_install(tmp_path: Path, bare_path: Path) -> None:
    result = run_setup(tmp_path, bare_path)
    assert result.returncode == 1
    assert result.stderr == ("setup: missing packages; run as root: apt-get install fuse3 ffmpeg attr python3\n")


def test_setup_for_development_wants_the_real_clients_too(tmp_path: Path, bare_path: Path) -> None:
    result = run_setup(tmp_path, bare_path, "--dev")
    assert "fio git rsync sqlite3 stress-ng" in result.stderr


def test_setup_without_apt_names_what_is_missing(tmp_path: Path, bare_path: Path) -> None:
    (bare_path / "apt-get").unlink()
    result = run_setup(tmp_path, bare_path)
    assert result.returncode == 1
    assert "no apt-get to install them: fuse3 ffmpeg" in result.stderr


def test_setup_refuses_what_it_does_not_know(tmp_path: Path, bare_path: Path) -> None:
    result = run_setup(tmp_path, bare_path, "--everything")
    assert (result.returncode, result.stderr) == (2, "usage: scripts/setup [--dev | --web]\n")


def test_setup_explains_itself(tmp_path: Path, bare_path: Path) -> None:
    result = run_setup(tmp_path, bare_path, "--help")
    assert result.returncode == 0
    assert "scripts/setup --dev" in result.stdout
    assert "set -euo" not in result.stdout


def test_the_unit_runs_one_store_per_instance() -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.read(ROOT / "systemd/recfs@.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert "mount --config /etc/recfs/%i.conf" in service["ExecStart"]
    assert "recfs umount" in service["ExecStop"]
    assert "recfs reload --config /etc/recfs/%i.conf" in service["ExecReload"]
    assert service["Environment"] == f"FDSTORE={service['FileDescriptorStoreMax']}"
    assert "fusermount3 -uz" in service["ExecStopPost"]


@pytest.mark.parametrize("server", ["seaweedfs", "rgw"])
def test_a_test_server_leaves_other_directories_alone(tmp_path: Path, server: str) -> None:
    (tmp_path / "precious").touch()
    for command, words in (("up", "holds something else"), ("down", "was not made by this script")):
        done = subprocess.run(
            [ROOT / "scripts" / server, command],
            env=os.environ | {f"RECFS_{server.upper()}_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert words in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_server_that_did_not_start_takes_nothing_from_another_one_on_its_ports(tmp_path: Path) -> None:
    """SeaweedFS makes sockets in /tmp that are named by port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        theirs = Path(f"/tmp/seaweedfs-volume-grpc-{port}.sock")
        theirs.touch()
        settings = {"DIR": tmp_path / "server", "PORT": port, "BASE_PORT": port, "WEED": "/bin/true"}
        env = os.environ | {f"RECFS_SEAWEEDFS_{name}": str(value) for name, value in settings.items()}
        run = [ROOT / "scripts/seaweedfs"]
        try:
            up = subprocess.run([*run, "up"], env=env, capture_output=True, text=True, check=False)
            assert f"port {port} is taken by another program" in up.stderr
            subprocess.run([*run, "down"], env=env, check=True)
            assert theirs.exists()
        finally:
            theirs.unlink()
    assert not (tmp_path / "server").exists()
