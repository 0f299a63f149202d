"""S3 servers for tests, each started once and with a bucket per test: moto's threaded one, SeaweedFS, and Ceph's RGW.

Test modules import the fixtures they use. SeaweedFS's tests have the marker `seaweedfs` and share one worker, so that
there is one server; RGW's run where RECFS_TEST_RGW is set (tests/conftest.py).
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import boto3
import botocore.loaders
import botocore.session
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from recfs.config import S3Section
from recfs.stores.s3.store import S3Store

ACCESS_KEY, SECRET_KEY = "recfs-test-access", "recfs-test-secret-0123456789abcdef"
_names = count(1)
Server = TypeVar("Server", bound="ScriptedServer")


@functools.cache
def _loader() -> Any:
    return botocore.loaders.create_loader()


@contextmanager
def plain_client(endpoint: str, *, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Iterator[Any]:
    """A bare boto3 client, for looking at what recfs did from outside."""
    core = botocore.session.Session()
    core.register_component("data_loader", _loader())
    client = boto3.session.Session(botocore_session=core).client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        ),
    )
    yield client
    client.close()


def credentials_file(directory: Path, *, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Path:
    """A credentials file as the AWS tools write it."""
    path = directory / "credentials"
    path.write_text(f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n")
    return path


class Bucket:
    """One bucket on some server; `store` gives recfs's view of it, `client` boto3's."""

    def __init__(self, endpoint: str, name: str, client: Any, directory: Path) -> None:
        self.endpoint, self.name, self.client = endpoint, name, client
        self._credentials = credentials_file(directory)

    def section(self, **settings: Any) -> S3Section:
        """[s3] for this bucket, with *settings* replacing the defaults."""
        return S3Section(
            **{"bucket": self.name, "endpoint": self.endpoint, "credentials_file": self._credentials, **settings}
        )

    def store(self, **settings: Any) -> S3Store:
        """A store. The caller closes it."""
        return S3Store(self.section(**settings))


@functools.cache
def _moto_endpoint() -> str:
    """One server for all modules, however many import the fixture; its daemon thread ends with the process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@pytest.fixture
def moto_server() -> str:
    """Endpoint of a moto server on a free port."""
    return _moto_endpoint()


@pytest.fixture
def moto_bucket(moto_server: str, tmp_path: Path) -> Iterator[Bucket]:
    """A new bucket on the moto server."""
    with plain_client(moto_server) as client:
        name = f"test-{os.getpid()}-{next(_names)}"
        client.create_bucket(Bucket=name)
        yield Bucket(moto_server, name, client, tmp_path)


# --- servers that a script starts --------------------------------------------------------------------------------

SCRIPTS = Path(__file__).parents[2] / "scripts"


def free_ports(count: int) -> int:
    """The first of *count* free ports in a row."""
    for base in range(20_000 + os.getpid() % 10_000, 60_000, count):
        with ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return base
    raise RuntimeError("no free ports")


class ScriptedServer:
    """A real server with S3 over http and https, which a script of ours starts in a directory of its own."""

    script: ClassVar[str]

    def __init__(self, directory: Path, port: int, tls_port: int, **settings: object) -> None:
        shared = {"DIR": directory, "PORT": port, "TLS_PORT": tls_port}
        shared |= {"ACCESS_KEY": ACCESS_KEY, "SECRET_KEY": SECRET_KEY}
        self._settings = {f"RECFS_{self.script.upper()}_{key}": str(v) for key, v in (shared | settings).items()}
        self.directory = directory
        self.endpoint = f"http://127.0.0.1:{port}"
        self.tls_endpoint = f"https://127.0.0.1:{tls_port}"
        self.certificate = directory / "tls.pem"

    def up(self) -> None:
        """Start what does not run."""
        self.run("up")

    def down(self) -> None:
        """Stop and remove everything."""
        self.run("down")

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one of its daemons."""
        os.kill(int((self.directory / f"run/{name}.pid").read_text()), number)

    def kill(self, name: str) -> None:
        """End one of its daemons as a crash would."""
        self.signal(name, signal.SIGKILL)

    def run(self, *arguments: str) -> None:
        """Run the script; the test fails with what it says."""
        done = subprocess.run(
            [SCRIPTS / self.script, *arguments],
            env=os.environ | self._settings,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"scripts/{self.script} {' '.join(arguments)}: {done.stderr}", pytrace=False)


_started: dict[type[ScriptedServer], ScriptedServer | BaseException] = {}


def _of_this_run(kind: type[Server], session: pytest.Session) -> Server:
    """The one server of its kind, however many modules import the fixture. Some seconds; it goes at the end."""
    if kind not in _started:
        # Not pytest's temporary directory: the servers' sockets have to have names below 108 bytes.
        parent = tempfile.TemporaryDirectory(prefix="recfs-s3-")
        server = kind(Path(parent.name) / "server")

        def end() -> None:
            del _started[kind]
            server.down()
            parent.cleanup()

        session.addfinalizer(end)
        _started[kind] = server
        try:
            server.up()
        except BaseException as error:
            _started[kind] = error  # the next test would wait as long for nothing
    found = _started[kind]
    if isinstance(found, BaseException):
        raise found
    assert isinstance(found, kind)
    return found


@contextmanager
def _bucket(server: ScriptedServer, directory: Path) -> Generator[Bucket]:
    with plain_client(server.endpoint) as client:
        name = f"test-{os.getpid()}-{next(_names)}"
        client.create_bucket(Bucket=name)
        yield Bucket(server.endpoint, name, client, directory)


# --- SeaweedFS ---------------------------------------------------------------------------------------------------


class SeaweedFS(ScriptedServer):
    """One process: its name is "server"."""

    script = "seaweedfs"
    _PORTS = 9

    def __init__(self, directory: Path, **settings: object) -> None:
        base = free_ports(self._PORTS + 2)
        self.filer_endpoint, self.master_endpoint = f"http://127.0.0.1:{base + 2}", f"http://127.0.0.1:{base}"
        super().__init__(directory, base + self._PORTS, base + self._PORTS + 1, BASE_PORT=base, **settings)

    def start(self, name: str) -> None:
        """Start one of the daemons that does not run; it may take a second until it answers."""
        self.run("start", name)


class ManySeaweedFS(SeaweedFS):
    """Five processes: "master", two volume servers "v1" and "v2" with a copy of everything each, "filer" and "s3"."""

    def up(self) -> None:
        """Start all; what stands half is begun afresh."""
        self.run("many")


@pytest.fixture(scope="session")
def seaweedfs(request: pytest.FixtureRequest) -> SeaweedFS:
    """SeaweedFS in one process."""
    return _of_this_run(SeaweedFS, request.session)


@pytest.fixture(scope="session")
def many_seaweedfs(request: pytest.FixtureRequest) -> ManySeaweedFS:
    """SeaweedFS in five processes; for tests marked `seaweedfs("many")`."""
    return _of_this_run(ManySeaweedFS, request.session)


@pytest.fixture
def seaweedfs_bucket(seaweedfs: SeaweedFS, tmp_path: Path) -> Iterator[Bucket]:
    """A new bucket on SeaweedFS; its volumes are free again afterwards."""
    with _bucket(seaweedfs, tmp_path) as bucket:
        yield bucket
        bucket.client.delete_bucket(Bucket=bucket.name)


# --- Ceph --------------------------------------------------------------------------------------------------------


class Rgw(ScriptedServer):
    """A one-node Ceph: "client.rgw", "osd.0" and "mon.a"."""

    script = "rgw"
    _MON_PORTS = 21
    """The mon's port and those its osd chooses from."""

    def __init__(self, directory: Path) -> None:
        base = free_ports(self._MON_PORTS + 2)
        super().__init__(directory, base + self._MON_PORTS, base + self._MON_PORTS + 1, MON_PORT=base)


@pytest.fixture(scope="session")
def rgw(request: pytest.FixtureRequest) -> Rgw:
    """A cluster of its own."""
    return _of_this_run(Rgw, request.session)


@pytest.fixture
def rgw_bucket(rgw: Rgw, tmp_path: Path) -> Iterator[Bucket]:
    """A new bucket on the Ceph cluster."""
    with _bucket(rgw, tmp_path) as bucket:
        yield bucket
