"""S3 servers for tests, each started once and with a bucket per test: moto's threaded server, and Ceph's RGW.

Test modules import the fixtures they use. RGW's tests run where RECFS_TEST_RGW is set (tests/conftest.py).
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

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


# --- Ceph --------------------------------------------------------------------------------------------------------

SCRIPT = Path(__file__).parents[2] / "scripts/rgw"
_MON_PORTS = 21
"""The mon's port and those its osd chooses from."""


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


class Rgw:
    """A running one-node Ceph with S3 over http and https."""

    def __init__(self, directory: Path) -> None:
        base = free_ports(_MON_PORTS + 2)
        self._settings = {
            "RECFS_RGW_DIR": str(directory),
            "RECFS_RGW_MON_PORT": str(base),
            "RECFS_RGW_PORT": str(base + _MON_PORTS),
            "RECFS_RGW_TLS_PORT": str(base + _MON_PORTS + 1),
            "RECFS_RGW_ACCESS_KEY": ACCESS_KEY,
            "RECFS_RGW_SECRET_KEY": SECRET_KEY,
        }
        self._directory = directory
        self.endpoint = f"http://127.0.0.1:{base + _MON_PORTS}"
        self.tls_endpoint = f"https://127.0.0.1:{base + _MON_PORTS + 1}"
        self.certificate = directory / "tls.pem"

    def up(self) -> None:
        """Start what does not run."""
        self._run("up")

    def down(self) -> None:
        """Stop and remove everything."""
        self._run("down")

    def kill(self, name: str) -> None:
        """End client.rgw, osd.0 or mon.a as a crash would."""
        os.kill(int((self._directory / f"run/{name}.pid").read_text()), signal.SIGKILL)

    def _run(self, command: str) -> None:
        done = subprocess.run(
            [SCRIPT, command], env=os.environ | self._settings, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            pytest.fail(f"scripts/rgw {command}: {done.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def rgw() -> Iterator[Rgw]:
    """A cluster of its own; some seconds."""
    # Not pytest's temporary directory: the admin sockets' names have to stay below 108 bytes.
    with tempfile.TemporaryDirectory(prefix="recfs-rgw-") as parent:
        server = Rgw(Path(parent) / "rgw")
        try:
            server.up()
            yield server
        finally:
            server.down()


@pytest.fixture
def rgw_bucket(rgw: Rgw, tmp_path: Path) -> Iterator[Bucket]:
    """A new bucket on the Ceph cluster."""
    with plain_client(rgw.endpoint) as client:
        name = f"test-{os.getpid()}-{next(_names)}"
        client.create_bucket(Bucket=name)
        yield Bucket(rgw.endpoint, name, client, tmp_path)
