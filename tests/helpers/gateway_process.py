"""`recfs serve` in a process of its own, for tests that kill it or ask it by a real connection."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from recfs.web.who.tokens import Role, Tokens

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
API = "/api/v1"
_AS_ANOTHER = (
    "import os, recfs.web.app, recfs.web.serving, recfs.config, recfs.api.client, recfs.cli.common.store, sdnotify;"
    "import recfs.cli.web.serve, encodings.ascii, encodings.idna, encodings.latin_1; from recfs.cli import main;"
    "os.setgroups([]); os.setgid({uid}); os.setuid({uid}); os.umask(0o007); main.main()"
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By their names in small letters."""
    body: bytes

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The type of a problem document."""
        kind: str = self.json()["type"]
        return kind.removeprefix("urn:recfs:problem:")


class GatewayProcess:
    """A gateway on a tree, with a token of user 5 and one of user 7."""

    def __init__(self, root: Path, own: Path, *, plain: bool, store: Path | None = None, uid: int = 0) -> None:
        """*root* is what it serves, *own* an empty directory for its own files, *store* a mount's root on the disk."""
        self.root = root
        self._own = own
        self._plain = plain
        own.chmod(0o700)
        self._config = own / "recfs.conf"
        self._config.write_text(
            f'root = "{store or root}"\n[serve]\ndirectory = "{own}"\nrequests_per_second = 100000\n'
            "requests_burst = 100000\n"
        )
        tokens = Tokens(own / "tokens.json")
        self.tokens = {user: str(tokens.add(Role.USER, [user])[1]) for user in ("5", "7")}
        self.tokens["readonly"] = str(tokens.add(Role.READONLY, ["5"])[1])
        self._uid = uid
        if uid:
            for each in (own, own / "tokens.json"):
                os.chown(each, uid, uid)
        self.process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self) -> GatewayProcess:
        """Start it, and return when it listens."""
        arguments = ["serve", "--config", str(self._config), "--json", "--listen", "127.0.0.1:0"]
        with (self._own / "log").open("ab") as log:
            self.process = self._spawn(arguments, log)
        try:
            told = self._told()
            assert "port" in told, told
            self.port = told["port"]
        except BaseException:
            self.kill()
            raise
        return self

    def _spawn(self, arguments: list[str], log: IO[bytes]) -> subprocess.Popen[str]:
        program = ["-m", "recfs"]
        if self._uid:
            # As far as imports go, this is the user who runs the tests; capabilities and uid are another's.
            program = ["-c", _AS_ANOTHER.format(uid=self._uid)]
        return subprocess.Popen(
            [sys.executable, *program, *arguments, *(["--plain"] if self._plain else []), str(self.root)],
            stdout=subprocess.PIPE, stderr=log, cwd=REPOSITORY, text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NOTIFY_SOCKET": ""},
        )  # fmt: skip

    def _told(self) -> dict[str, Any]:
        """What it says when it listens: a document of several lines."""
        assert self.process is not None
        assert self.process.stdout is not None
        text, deadline_s = "", time.monotonic() + START_TIMEOUT_S
        while not text.endswith("}\n"):
            assert select.select([self.process.stdout], [], [], max(0, deadline_s - time.monotonic()))[0], self.log()
            block = os.read(self.process.stdout.fileno(), 4096).decode()
            assert block, self.log()
            text += block
        told: dict[str, Any] = json.loads(text)
        return told

    def log(self) -> str:
        """What it logged."""
        return (self._own / "log").read_text()

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order, if it runs."""
        if self.process is not None:
            self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def connect(self, timeout_s: float = 60.0) -> http.client.HTTPConnection:
        """A connection of one's own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def headers(self, headers: Mapping[str, str] | None = None, user: str = "5") -> dict[str, str]:
        """The header of a request, with a token."""
        return {"Authorization": f"Bearer {self.tokens[user]}", **(headers or {})}

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None,
        *, user: str = "5", timeout_s: float = 60.0,
    ) -> Reply:  # fmt: skip
        """Send one request on a connection of its own. Raises OSError, http.client.HTTPException."""
        connection = self.connect(timeout_s)
        try:
            where = path if path.startswith("/") else f"{API}/{path}"
            connection.request(method, where, body, self.headers(headers, user))
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, told, answer.read())
        finally:
            connection.close()
