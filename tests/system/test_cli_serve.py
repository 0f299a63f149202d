"""`recfs serve` and `recfs token` before there is anything to serve: what they refuse, and what they make."""

import builtins
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from recfs.cli.web import serve
from recfs.cli.web.serve import settings_of
from recfs.config import load_config
from tests.system.fake_daemon import run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose gateway keeps its own things in a directory that is not there yet."""
    path = tmp_path / "recfs.conf"
    path.write_text(f'root = "{tmp_path}/store"\n[serve]\ndirectory = "{tmp_path}/own"\n')
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


def test_without_the_extra_it_says_what_to_install(config: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("fastapi"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **more)

    for module in [each for each in sys.modules if each.startswith("recfs.web.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", missing)
    result = run("serve", "--plain", "--config", config, tree)
    assert (result.exit_code, "there is no fastapi" in result.output) == (3, True)
    assert "scripts/setup --web" in result.output
    assert "pip install 'FILE[web]'" in result.output


def test_where_nothing_is_mounted_nothing_is_served(config: Path, tree: Path) -> None:
    result = run("serve", "--config", config, tree)
    assert (result.exit_code, "nothing is mounted there" in result.output) == (5, True)
    result = run("serve", "--config", config)
    assert (result.exit_code, "no mount point is named" in result.output) == (5, True)
    result = run("serve", "--plain", "--config", config, tree / "missing")
    assert (result.exit_code, "there is no such directory" in result.output) == (5, True)


def test_a_service_waits_for_the_mount(
    config: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers 503 meanwhile, as when the mount goes away later on."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tree / "nobody"))
    assert serve._mount(load_config(config), tree, plain=False) == tree
    assert "all answers are 503" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["8080", "localhost:8080", "127.0.0.1:65536", "127.0.0.1", "::1:80", ""])
def test_an_address_that_is_none_is_refused(config: Path, tree: Path, address: str) -> None:
    result = run("serve", "--plain", "--listen", address, "--config", config, tree)
    assert (result.exit_code, "an IP address and a port" in result.output) == (3, True)


def test_an_address_that_is_taken_is_told(config: Path, tree: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--plain", "--listen", f"127.0.0.1:{port}", "--config", config, tree)
    assert (result.exit_code, f"cannot listen at 127.0.0.1, port {port}: Address already in use" in result.output) == (
        7,
        True,
    )


def test_its_own_directory_is_made_and_is_its_user_s_alone(config: Path, tmp_path: Path) -> None:
    result = run("token", "add", "--role", "admin", "--config", config)
    assert result.exit_code == 0, result.output
    own = tmp_path / "own"
    assert [oct(path.stat().st_mode & 0o777) for path in (own, own / "tokens.json")] == ["0o700", "0o600"]
    config.write_text(f'root = "{tmp_path}/store"\n[serve]\ndirectory = "{tmp_path}/a/b"\n')
    for command in (("token", "add", "--role", "admin"), ("serve", "--plain", tmp_path)):
        result = run(*command, "--config", config)
        assert (result.exit_code, "make it, mode 0700" in result.output) == (3, True)


def test_without_any_configuration_tokens_are_those_of_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfs.config.SYSTEM_CONFIG", tmp_path / "none.conf")
    monkeypatch.delenv("RECFS_CONFIG", raising=False)
    monkeypatch.setenv("RECFS_SERVE__DIRECTORY", str(tmp_path / "own"))
    result = run("token", "add", "--role", "user", "--user", "5")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "own/tokens.json").exists()


def test_all_settings_go_over(tmp_path: Path) -> None:
    config = tmp_path / "recfs.conf"
    config.write_text(
        f"""
        root = "{tmp_path}/store"
        [gateway]
        socket = "/run/recfs/gateway.sock"
        [serve]
        listen = "[::1]:9000"
        url = "https://media.example.org"
        directory = "/var/lib/x"
        proxies = ["127.0.0.1", "10.0.0.0/8"]
        subject_header = "X-User"
        header_timeout = "5s"
        body_timeout = "6s"
        body_rate = "2 KiB"
        send_timeout = "7s"
        max_connections = 8
        max_connections_per_address = 9
        uploads_per_user = 14
        requests_per_second = 10
        requests_burst = 11
        read_threads = 12
        slow_read_threads = 13
        """
    )
    found = settings_of(load_config(config), tmp_path, mounted=True)
    told = {name: getattr(found, name) for name in found.__slots__}
    assert told.items() >= {
        "root": tmp_path, "host": "::1", "port": 9000, "url": "https://media.example.org",
        "directory": Path("/var/lib/x"),
        "socket": Path("/run/recfs/gateway.sock"), "subject_header": "X-User", "header_timeout_s": 5.0,
        "body_timeout_s": 6.0, "body_rate": 2048, "send_timeout_s": 7.0, "max_connections": 8,
        "max_connections_per_address": 9, "uploads_per_user": 14, "requests_per_s": 10.0, "requests_burst": 11,
        "reads": 12, "slow_reads": 13, "temp_max_age_s": 86_400.0,
    }.items()  # fmt: skip
    assert [str(each) for each in found.proxies] == ["127.0.0.1/32", "10.0.0.0/8"]
    assert os.fspath(found.directory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('listen = "8080"', "an IP address and a port"),
        ('url = "https://a.example/path"', "without a path"),
        ('url = "media.example.org"', "without a path"),
        ('proxies = ["localhost"]', "is no address and no network"),
        ('subject_header = "X User"', "the name of a header field"),
        ('header_timeout = "0s"', "write at least 1s"),
        ("read_threads = 0", "write at least 1"),
        ('directory = "/s/own"', "it lies in the store or its mount"),
        ('directory = "/m/own"', "it lies in the store or its mount"),
        ('password = "x"', "unknown key"),
    ],
)
def test_what_the_gateway_cannot_be_told(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "recfs.conf"
    config.write_text(f'root = "/s"\nmountpoint = "/m"\n[serve]\n{text}\n')
    result = run("config", "check", config)
    assert (result.exit_code, message in result.output) == (3, True), result.output
