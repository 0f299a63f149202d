"""The gateway's own bars: downloads, uploads, refusals, and small requests beside large ones."""

import argparse
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from .gateway_servers import Server, gateway, nginx, tus_server
from .recfs_target import RecfsTarget

MIB = 1 << 20
PIECE = 5 * MIB
BLOCK = os.urandom(MIB)
FOLDER = "users/5/recordings/1"
FILE = f"{FOLDER}/source.bin"
API = "/api/v1/"
BESIDE = 8
SMALL_S = 4.0
STREAMS = 16


class Client:
    """One connection to a server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=300)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(MIB)

    def send_head(self, method: str, path: str, length: int | None = None, *fields: str) -> None:
        """Send a request's header; of a gateway's with its token, and below its API."""
        own = [f"Authorization: Bearer {self.server.token}"] if self.server.token else []
        own += [] if length is None else [f"Content-Length: {length}"]
        path = path if path.startswith("/") else (API if self.server.token else "/") + path
        lines = [f"{method} {path} HTTP/1.1", "Host: bench", *own, *fields, "", ""]
        self.sock.sendall("\r\n".join(lines).encode())

    def answer(self) -> tuple[int, dict[str, str], int]:
        """Read an answer: its status, its fields, and how many bytes came, which are thrown away."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.sock.recv(65536)
            if not piece:
                raise OSError("the connection ended")
            head += piece
        head, _, rest = head.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        got, size = len(rest), int(fields.get("content-length", 0))
        while got < size:
            count = self.sock.recv_into(self.buffer)
            if not count:
                raise OSError("the connection ended")
            got += count
        return int(first.split()[1]), fields, got

    def get(self, path: str) -> int:
        """Get something; how many bytes came."""
        self.send_head("GET", path)
        status, _, size = self.answer()
        if status != 200:
            raise OSError(f"GET {path}: {status}")
        return size

    def put(self, path: str, size: int) -> float:
        """Put something; seconds from the last byte to the answer."""
        self.send_head("PUT", path, size)
        for _ in range(size // MIB):
            self.sock.sendall(BLOCK)
        began = time.perf_counter()
        status, _, _ = self.answer()
        if status not in (201, 204):
            raise OSError(f"PUT {path}: {status}")
        return time.perf_counter() - began

    def tus(self, path: str, name: str, size: int) -> None:
        """Upload by tus in pieces of 5 MiB."""
        told = {"filename": "a.bin", "recording": "1", "path": name}
        metadata = ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in told.items())
        version = "Tus-Resumable: 1.0.0"
        self.send_head("POST", path, 0, version, f"Upload-Length: {size}", f"Upload-Metadata: {metadata}")
        status, fields, _ = self.answer()
        if status != 201:
            raise OSError(f"POST: {status}")
        place = fields["location"].partition("127.0.0.1")[2].partition("/")
        where = "/" + place[2] if place[1] else fields["location"]
        if "://" in where:
            where = "/" + where.split("/", 3)[3]
        for at in range(0, size, PIECE):
            kind = "Content-Type: application/offset+octet-stream"
            length = min(PIECE, size - at)
            self.send_head("PATCH", where, length, version, f"Upload-Offset: {at}", kind)
            for _ in range(length // MIB):
                self.sock.sendall(BLOCK)
            status, _, _ = self.answer()
            if status != 204:
                raise OSError(f"PATCH at {at}: {status}")


class Results:
    """Figures by row and server."""

    def __init__(self) -> None:
        self.all: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, row: str, name: str, value: float) -> None:
        """Take one measurement."""
        self.all[row][name].append(value)

    def print(self) -> None:
        """Print medians, and all of which they are."""
        for row, of in self.all.items():
            print(row)
            for name, values in of.items():
                each = " ".join(f"{value:.4g}" for value in values)
                print(f"  {name:18} {statistics.median(values):10.4g}   ({each})", flush=True)


def _put(results: Results, name: str, server: Server, path: str, size: int) -> None:
    row, client = f"PUT {size // MIB} MiB", Client(server)
    cpu, began = server.cpu_s(), time.perf_counter()
    tail_s = client.put(path, size)
    took = time.perf_counter() - began
    results.add(f"{row}, until the last byte is sent, MB/s", name, size / (took - tail_s) / 1e6)
    results.add(f"{row}, until it is answered, MB/s", name, size / took / 1e6)
    results.add(f"{row}, CPU s/GB", name, (server.cpu_s() - cpu) / size * 1e9)


def _timed(results: Results, row: str, name: str, server: Server, size: int, work: object) -> None:
    cpu, began = server.cpu_s(), time.perf_counter()
    work()  # type: ignore[operator]
    took = time.perf_counter() - began
    results.add(f"{row}, MB/s", name, size / took / 1e6)
    results.add(f"{row}, CPU s/GB", name, (server.cpu_s() - cpu) / size * 1e9)


def _p99_ms(server: Server, path: str, large: str) -> float:
    """p99 of a small request beside 8 downloads, in ms."""
    fork = multiprocessing.get_context("fork")  # so that they take nothing of this one's interpreter
    downloads = [fork.Process(target=_download, args=(server, large), daemon=True) for _ in range(BESIDE)]
    for each in downloads:
        each.start()
    client, took = Client(server), []
    until = time.monotonic() + SMALL_S
    while time.monotonic() < until:
        began = time.perf_counter()
        client.get(path)
        took.append(time.perf_counter() - began)
        time.sleep(0.002)
    for each in downloads:
        each.terminate()
        each.join()
    return statistics.quantiles(took, n=100)[98] * 1000


def _download(server: Server, path: str) -> None:
    client = Client(server)
    while True:
        client.get(path)


def _rss_mib(server: Server, large: str) -> float:
    """The most memory a gateway takes with 16 uploads and 16 downloads."""
    threads = [threading.Thread(target=lambda: Client(server).get(large), daemon=True) for _ in range(STREAMS)]
    threads += [
        threading.Thread(target=lambda n=n: Client(server).put(f"{FOLDER}/up-{n}.bin", 64 * MIB), daemon=True)
        for n in range(STREAMS)
    ]
    most = 0.0
    for each in threads:
        each.start()
    while any(each.is_alive() for each in threads):
        most = max(most, server.rss_mib())
        time.sleep(0.01)
    return most


def _refused_ms(server: Server) -> tuple[float, int]:
    """How long a refusal of an upload takes whose client asks first (Expect: 100-continue), and its status."""
    client = Client(server)
    began = time.perf_counter()
    client.send_head("PUT", f"{FOLDER}/too-much.bin", 1 << 40, "Expect: 100-continue")
    status = client.answer()[0]
    return (time.perf_counter() - began) * 1000, status


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench-gateway", description=__doc__)
    parser.add_argument("--dir", type=Path, help="where it works; as it comes: the directory for temporary files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024, help="size of the large file")
    parser.add_argument(
        "--tus", type=Path, metavar="DIR", help="where `npm install @tus/server @tus/file-store` was done"
    )
    parser.add_argument("--only", default="down,put,tus,commit,p99,rss,refusal")
    told = parser.parse_args()
    if shutil.which("nginx") is None:
        parser.error("nginx is missing")
    rows, results, size = told.only.split(","), Results(), told.mib * MIB
    with tempfile.TemporaryDirectory(prefix="recfs-gateway-", dir=told.dir) as made, ExitStack() as stack:
        home = Path(made)
        native = home / "native"
        for name in ("users/5/recordings", "temp", "shared"):
            (native / name).mkdir(parents=True)
        target = RecfsTarget(home)
        RecfsTarget.command = Path(__file__).resolve().parents[2] / ".venv/bin/recfs"
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # nothing is left mounted
        stack.callback(results.print)
        target.start()
        stack.callback(target.stop)
        mount = target.tree
        for tree in (native, mount):
            (tree / FOLDER).mkdir(parents=True)
            with (tree / FILE).open("wb") as file:
                for _ in range(told.mib):
                    file.write(BLOCK)
            (tree / FOLDER / "small.bin").write_bytes(BLOCK[:4096])
        target.settle()
        daemon = target.pids()[0]
        servers = {
            "nginx": stack.enter_context(nginx(native, home / "nginx")),
            "gateway": stack.enter_context(gateway(native, home / "own")),
            "nginx on mount": stack.enter_context(nginx(mount, home / "nginx-mount")),
            "gateway on mount": stack.enter_context(gateway(mount, home / "own-mount", daemon, target.root)),
        }
        trees = {"nginx": native, "gateway": native, "nginx on mount": mount, "gateway on mount": mount}
        for number in range(told.rounds):
            for name, server in servers.items():
                if "down" in rows:
                    client = Client(server)
                    client.get(FILE)
                    _timed(results, "download", name, server, size, lambda: client.get(FILE))  # noqa: B023
                if "put" in rows:
                    target.settle()
                    _put(results, name, server, f"{FOLDER}/put.bin", 512 * MIB)
                    (trees[name] / FOLDER / "put.bin").unlink()
                if "p99" in rows:
                    results.add("p99 beside 8 downloads, ms", name, _p99_ms(server, f"{FOLDER}/small.bin", FILE))
                if "rss" in rows and name.startswith("gateway"):
                    results.add("RSS, 16 up and 16 down, MiB", name, _rss_mib(server, FILE))
                    for each in range(STREAMS):
                        (trees[name] / FOLDER / f"up-{each}.bin").unlink()
            if "tus" in rows:
                _tus(results, told.tus, servers, {"gateway": native, "gateway on mount": mount}, home, number)
            if "commit" in rows:
                _commit(results, servers["gateway on mount"], target, size, told.mib)
        if "refusal" in rows:
            target.call("quota_set", user="5", max_bytes=100 << 30)
            for _ in range(20):
                took, status = _refused_ms(servers["gateway on mount"])
                results.add(f"refusal over quota ({status}), ms", "gateway on mount", took)


def _tus(
    results: Results, modules: Path | None, servers: dict[str, Server], trees: dict[str, Path], home: Path, number: int
) -> None:
    row, size = "tus in PATCHes of 5 MiB, 500 MiB", 500 * MIB
    if modules is not None:
        for name, place in (
            ("@tus/server", home / "tus"),
            ("@tus on mount", trees["gateway on mount"] / FOLDER / "tus"),
        ):
            place.mkdir(exist_ok=True)
            with tus_server(modules, place) as server:
                client = Client(server)
                _timed(results, row, name, server, size, lambda: client.tus("/files", "", size))  # noqa: B023
            shutil.rmtree(place)
    for name, tree in trees.items():
        client = Client(servers[name])
        _timed(
            results, row, name, servers[name], size,
            lambda: client.tus("uploads", f"tus-{number}.bin", size),  # noqa: B023
        )  # fmt: skip
        (tree / FOLDER / f"tus-{number}.bin").unlink()


def _commit(results: Results, server: Server, target: RecfsTarget, size: int, mib: int) -> None:
    """The last byte → 201, and what `recfs drain` takes for the same bytes that were written on the mount."""
    row, path = "last byte → committed, s", target.tree / FOLDER / "commit.bin"
    results.add(row, "PUT → 201", Client(server).put(f"{FOLDER}/commit.bin", size))
    path.unlink()
    with path.open("wb", buffering=0) as file:
        for _ in range(mib):
            file.write(BLOCK)
        began = time.perf_counter()
    target.settle()
    results.add(row, "write → drained", time.perf_counter() - began)
    path.unlink()
