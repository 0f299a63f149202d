"""`recfs serve` on a real mount: the command itself, as an ordinary user, with a player's requests, and its death."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import need_root, recfs
from .harness import BASE_CONFIG, REPOSITORY, Mount

pytestmark = [pytest.mark.modeless]

UID = 41200
CONTENT = os.urandom(3 << 20)


class Gateway:
    """A process of `recfs serve`."""

    def __init__(self, store: Mount, outside: Path, *, uid: int = 0) -> None:
        state = outside / "serve"
        state.mkdir(mode=0o700, exist_ok=True)
        os.chown(state, uid, uid)
        config = outside / "recfs.conf"
        socket = f'[gateway]\nsocket = "{outside}/gateway.sock"\ngroup = {uid}\n'
        config.write_text(f'root = "{store.root}"\n{BASE_CONFIG}{socket}[serve]\ndirectory = "{state}"\n')
        config.chmod(0o644)
        # As far as imports go, this is the user who runs the tests; capabilities and uid are another's.
        code = (
            "import os, sys; import recfs.web.app, recfs.web.serving, recfs.config, recfs.api.client, sdnotify;"
            "from recfs.cli import main; import recfs.cli.common.store, recfs.cli.web.serve;"
            + (f"os.setgroups([]); os.setgid({uid}); os.setuid({uid});" if uid else "")
            + "main.main()"
        )
        arguments = ["--json", "--config", str(config), "serve", "--listen", "127.0.0.1:0", str(store.path)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        self.token = self._token(state, uid)
        assert self.process.stdout is not None
        told = ""
        while not told.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, "it ended before it listened"
            told += line
        self.port = int(json.loads(told)["port"])

    @staticmethod
    def _token(state: Path, uid: int) -> str:
        from recfs.web.who.tokens import Role, Tokens

        token = Tokens(state / "tokens.json").add(Role.USER, ["5"])[1]
        os.chown(state / "tokens.json", uid, uid)
        assert token is not None
        return token

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, Any, bytes]:
        """One request below /api/v1/users/5/recordings, or with a slash somewhere else."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            told = {
                "Authorization": f"Bearer {self.token}",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            }
            connection.request(
                method, path if path.startswith("/") else f"/api/v1/users/5/recordings/{path}", headers=told
            )
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def end(self) -> int:
        """End it in order."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(store: Mount, outside: Path, *, uid: int = 0) -> Iterator[Gateway]:
    """A gateway for a block."""
    gateway = Gateway(store, outside, uid=uid)
    try:
        yield gateway
    finally:
        gateway.process.kill()
        gateway.process.wait(60)
        assert gateway.process.stdout is not None
        gateway.process.stdout.close()


def test_a_recording_is_listed_played_in_ranges_and_removed(store: Mount, outside: Path) -> None:
    store.start(config=f'{BASE_CONFIG}[trash]\nretention = "1d"\n')
    source = store.recording(5, 142) / "source.mp4"
    source.write_bytes(CONTENT)
    sha256 = os.getxattr(source, "user.recfs.sha256").decode()
    with serving(store, outside) as gateway:
        (told,) = json.loads(gateway.ask("GET", "/api/v1/users/5/recordings")[2])["items"]
        assert (told["id"], told["size_bytes"], told["files"], told["status"]) == ("142", len(CONTENT), 1, "active")
        assert (told["source"]["sha256"], told["source"]["state"]) == (sha256, "committed")
        status, headers, content = gateway.ask("GET", "142/source.mp4")
        assert (status, content, headers["ETag"]) == (200, CONTENT, f'"{sha256}"')
        status, headers, content = gateway.ask(
            "GET", "142/source.mp4", Range="bytes=1048570-1048585", If_Range=headers["ETag"]
        )
        assert (status, content) == (206, CONTENT[1048570:1048586])
        with open(source, "r+b", buffering=0) as file:
            file.write(b"changed")
            status, headers, content = gateway.ask("GET", "142/source.mp4")
            assert (status, content[:9], headers["ETag"][:2]) == (200, b"changed" + CONTENT[7:9], "W/")
        assert os.getxattr(source, "user.recfs.sha256").decode() != sha256
        assert gateway.ask("GET", "142/source.mp4", If_None_Match=f'"{sha256}"')[0] == 200
        assert gateway.ask("DELETE", "142")[0] == 204
        assert gateway.ask("GET", "142")[0] == 404
        (trashed,) = json.loads(recfs("--json", "trash", "list", "--root", store.root).stdout)["entries"][:1]
        assert trashed["path"].startswith("users/5/recordings/142")
        assert gateway.end() == 0


def test_it_runs_as_an_ordinary_user(store: Mount, outside: Path) -> None:
    need_root()
    outside.chmod(0o755)
    store.start(config=f'{BASE_CONFIG}[gateway]\nsocket = "{outside}/gateway.sock"\ngroup = {UID}\n')
    readable, closed = store.recording(5, 1), store.recording(5, 2)
    for folder in (readable, closed):
        (folder / "source.mp4").write_bytes(b"bytes")
    for folder in (store.path / "users/5", store.path / "users/5/recordings", readable):
        folder.chmod(0o755)
    closed.chmod(0o700)
    with serving(store, outside, uid=UID) as gateway:
        assert gateway.ask("GET", "/readyz")[0] == 200
        assert gateway.ask("GET", "1/source.mp4")[::2] == (200, b"bytes")
        for method, path in (("GET", "2/source.mp4"), ("DELETE", "1/source.mp4"), ("DELETE", "1")):
            status, _, content = gateway.ask(method, path)
            assert (status, json.loads(content)["type"]) == (403, "urn:recfs:problem:AccessDenied")
        assert [each["id"] for each in json.loads(gateway.ask("GET", "/api/v1/users/5/recordings")[2])["items"]] == [
            "1"
        ]
        assert gateway.end() == 0


def test_a_daemon_that_is_gone_is_503_and_the_next_one_is_served(store: Mount, outside: Path) -> None:
    store.start()
    (store.recording(5, 1) / "source.mp4").write_bytes(b"bytes")
    with serving(store, outside) as gateway:
        assert gateway.ask("GET", "1/source.mp4")[0] == 200
        store.umount()
        below = store.path / "users/5/recordings/1"
        below.mkdir(parents=True)
        (below / "source.mp4").write_bytes(b"below the mount")
        for path in ("1/source.mp4", "1", "/api/v1/users/5/recordings", "/readyz"):
            status, headers, content = gateway.ask("GET", path)
            assert (status, json.loads(content)["type"]) == (503, "urn:recfs:problem:DaemonGone")
            assert headers["Retry-After"]
        assert gateway.ask("GET", "/healthz")[0] == 200
        for path in (below / "source.mp4", below, *list(below.parents)[:3]):
            path.unlink() if path.is_file() else path.rmdir()
        store.start()
        assert gateway.ask("GET", "1/source.mp4")[::2] == (200, b"bytes")
        store.kill(unmount=False)
        status, _, content = gateway.ask("GET", "1/source.mp4")
        assert (status, json.loads(content)["type"]) == (503, "urn:recfs:problem:DaemonGone")
        store.start()
        assert gateway.ask("GET", "1/source.mp4")[::2] == (200, b"bytes")


def test_a_gateway_that_is_killed_leaves_the_mount_as_it_is(store: Mount, outside: Path) -> None:
    store.start()
    source = store.recording(5, 1) / "source.mp4"
    source.write_bytes(CONTENT)
    with serving(store, outside) as gateway:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
        connection.request(
            "GET", "/api/v1/users/5/recordings/1/source.mp4", headers={"Authorization": f"Bearer {gateway.token}"}
        )
        assert connection.getresponse().read(10) == CONTENT[:10]
        gateway.process.kill()
        gateway.process.wait(60)
        connection.close()
    assert source.read_bytes() == CONTENT
    store.umount()  # nothing of it is left open
