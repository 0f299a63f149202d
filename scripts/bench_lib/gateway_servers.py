"""What the gateway is measured against, and itself: servers on this machine, each with its CPU time and its memory."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 20.0
_WORKERS = 2
_TICKS = os.sysconf("SC_CLK_TCK")
_TUS = """
const {Server} = require("@tus/server"), {FileStore} = require("@tus/file-store");
const server = new Server({path: "/files", datastore: new FileStore({directory: process.argv[2]})});
server.listen({host: "127.0.0.1", port: Number(process.argv[1])});
"""
_NGINX = """
daemon off; worker_processes {workers}; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 10000000; sendfile on; tcp_nopush on; client_max_body_size 0;
  client_body_temp_path {root}/users/5/recordings/1/body;
  proxy_temp_path {home}; fastcgi_temp_path {home}; uwsgi_temp_path {home}; scgi_temp_path {home};
  server {{ listen 127.0.0.1:{port}; root {root}; dav_methods PUT DELETE; create_full_put_path on; }}
}}
"""


class Server:
    """A server, and the processes whose CPU time counts as its."""

    def __init__(self, port: int, pids: list[int], token: str = "") -> None:
        self.port = port
        self.pids = pids
        self.token = token

    def cpu_s(self) -> float:
        """CPU seconds of its processes up to now."""
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in self.pids) / _TICKS

    def rss_mib(self) -> float:
        """Resident memory of its first process now, in MiB."""
        return int(_stat(self.pids[0])[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _until_it_listens(port: int) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)


@contextmanager
def _running(arguments: list[str | Path], **more: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(arguments, **more)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_S)


@contextmanager
def gateway(root: Path, own: Path, daemon: int | None = None, store: Path | None = None) -> Iterator[Server]:
    """`recfs serve` on a directory, or on the mount of a *daemon* whose store is *store*."""
    own.mkdir(mode=0o700)
    config = own / "recfs.conf"
    limits = "requests_per_second = 100000\nrequests_burst = 100000\n"
    config.write_text(f'root = "{store or root}"\n[serve]\ndirectory = "{own}"\n{limits}')
    recfs = [sys.executable, "-m", "recfs"]
    add = [*recfs, "token", "add", "--role", "user", "--user", "5", "--config", str(config), "--json"]
    made = json.loads(subprocess.run(add, check=True, capture_output=True).stdout)
    port = free_port()
    plain = [] if daemon else ["--plain"]
    serve = [*recfs, "serve", "--config", str(config), "--listen", f"127.0.0.1:{port}", *plain, str(root)]
    with (own / "log").open("ab") as log, _running(serve, stdout=log, stderr=log) as process:
        _until_it_listens(port)
        yield Server(port, [process.pid, *([daemon] if daemon else [])], made["token"])


@contextmanager
def nginx(root: Path, home: Path) -> Iterator[Server]:
    """nginx with sendfile and DAV's PUT on a directory."""
    home.mkdir()
    port = free_port()
    (home / "conf").write_text(f"user root;{_NGINX.format(home=home, root=root, port=port, workers=_WORKERS)}")
    with _running(["nginx", "-c", home / "conf", "-e", home / "error.log"]) as process:
        _until_it_listens(port)
        children, workers = Path(f"/proc/{process.pid}/task/{process.pid}/children"), [""]
        while len(workers) < _WORKERS:  # it listens before they run
            workers = children.read_text().split()
        yield Server(port, [process.pid, *map(int, workers)])


@contextmanager
def tus_server(modules: Path, root: Path) -> Iterator[Server]:
    """@tus/server of npm, in *modules*."""
    port = free_port()
    program = [shutil.which("node") or "node", "-e", _TUS, str(port), str(root)]
    with _running([*program], cwd=modules, stdout=subprocess.DEVNULL) as process:
        _until_it_listens(port)
        yield Server(port, [process.pid])
