"""The gateway's socket beside a mount: real groups, commands of who does not get at the store, an upgrade."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recfs.api.client import ControlClient
from recfs.errors import NotPermitted

from .clients import need_root, recfs, wait_until
from .harness import BASE_CONFIG, REPOSITORY, Mount

pytestmark = [pytest.mark.modeless, pytest.mark.needs("setpriv")]

UID, GATEWAYS = 41100, 41900
ASK = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
sock.sendall(json.dumps({"method": sys.argv[2], "params": json.loads(sys.argv[3])}).encode() + b"\\n")
print(sock.makefile().readline())
"""


def ask(socket: Path, method: str, groups: int = GATEWAYS, **params: object) -> subprocess.CompletedProcess[str]:
    """Ask as a user with one more group."""
    who = ["setpriv", f"--reuid={UID}", f"--regid={UID}", f"--groups={groups}", "--inh-caps=-all"]
    python = ["/usr/bin/env", "python3", "-S", "-E", "-c", ASK, str(socket), method, json.dumps(params)]
    return subprocess.run([*who, *python], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def socket(outside: Path) -> Path:
    outside.chmod(0o755)
    return outside / "gateway.sock"


def config(socket: Path) -> str:
    return f'{BASE_CONFIG}[audit]\nenabled = true\n[gateway]\nsocket = "{socket}"\ngroup = {GATEWAYS}\n'


def test_the_group_asks_and_nobody_else(store: Mount, socket: Path) -> None:
    need_root()
    store.start(config=config(socket))
    rec = store.recording(5, 1)
    (rec / "file").write_bytes(b"data")
    asked = json.loads(ask(socket, "quota_show", user="5").stdout)
    assert (asked["ok"], asked["result"][0]["used_bytes"]) == (True, 4)
    assert ask(socket, "quota_show", groups=UID).returncode == errno.EACCES
    for method in ("quota_set", "stop", "user_add", "trash_purge", "upgrade"):
        refused = json.loads(ask(socket, method, user="5", max_files=1, uid=UID).stdout)
        assert (refused["ok"], refused["error"]["kind"]) == (False, "NotPermitted")
    wait_until(lambda: not store.status()["audit"]["waiting"], "the audit log is written")
    audited = recfs("--json", "audit", "--refused", "--uid", str(UID), "--root", store.root)
    acts = [json.loads(line) for line in audited.stdout.splitlines()]
    assert [each["op"] for each in acts] == ["quota_set", "stop", "user_add", "trash_purge", "upgrade"]
    assert {(each["uid"], each["via"], each["result"]) for each in acts} == {(UID, "gateway", "NotPermitted")}


def test_commands_ask_there_where_the_store_is_closed(store: Mount, socket: Path) -> None:
    """`recfs` of a member of the group, with the configuration; root's asks on the store's own socket as ever."""
    need_root()
    store.start(config=config(socket))
    store.root.chmod(0o700)
    (store.recording(5, 1) / "file").write_bytes(b"data")
    settings = socket.with_name("recfs.conf")
    settings.write_text(f'root = "{store.root}"\n{config(socket)}')

    def command(*args: str) -> subprocess.CompletedProcess[str]:
        # As far as imports go, this is the user who runs the tests; capabilities and uid are another's.
        code = (
            "import os; from recfs.cli import main; import recfs.cli.common.store, recfs.config, recfs.api.control;"
            f"os.setgroups([{GATEWAYS}]); os.setgid({UID}); os.setuid({UID}); main.main()"
        )
        return subprocess.run(
            [sys.executable, "-c", code, "--config", str(settings), *args],
            capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False,
        )  # fmt: skip

    shown = command("--json", "quota", "show", "5")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)[0]["used_bytes"] == 4
    refused = command("quota", "set", "5", "--max-files", "1")
    assert (refused.returncode, "'quota_set' is not offered on this socket" in refused.stderr) == (7, True)
    assert store.quota("5")["own_limits"]["max_files"] is None
    store.umount()
    alone = command("quota", "show", "5")
    assert (alone.returncode, "no recfs daemon listens" in alone.stderr) == (6, True), alone.stderr


def test_a_socket_that_cannot_be_made_is_a_problem_and_comes_later(store: Mount, outside: Path) -> None:
    folder = outside / "run"
    store.expect_log("gateway: .*No such file or directory")
    store.start(config=f'{BASE_CONFIG}[gateway]\nsocket = "{folder}/gateway.sock"\n')

    def told() -> list[str]:
        return [each["reason"] for each in store.status()["set_aside"] if each["part"] == "gateway"]

    assert "No such file" in wait_until(told, "the problem is told")[0]
    (store.recording(5, 1) / "file").write_bytes(b"data")
    folder.mkdir(mode=0o755)
    wait_until((folder / "gateway.sock").exists, "the socket is there")
    assert ControlClient(folder / "gateway.sock").call("status")["mounted"] is True


def test_the_socket_goes_over_to_the_next_process(store: Mount, socket: Path) -> None:
    store.start(config=config(socket))
    before = ControlClient(socket).call("status")["pid"]
    store.upgrade()

    def after() -> int:
        try:
            pid: int = ControlClient(socket).call("status")["pid"]
        except Exception:
            return 0  # not there yet
        return pid

    assert wait_until(after, "somebody answers") == store.status()["pid"] != before
    with pytest.raises(NotPermitted):
        ControlClient(socket).call("stop")
    store.umount()
    assert not socket.exists()
    assert os.listdir(socket.parent) == []
