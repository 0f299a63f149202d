"""A bucket for tests on a mount: moto's threaded server in a process of its own, and a proxy that counts and breaks.

Test modules import the fixtures they use. `s3` comes before `store` in a test's arguments, so that it outlives it.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from recfs.core.ownership import MARK_KEY
from tests.helpers.chaos_faults import Answer, Fault, Request, Status
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.s3_servers import credentials_file, plain_client

from .clients import wait_until
from .harness import Mount, remove_tree

MIB = 1 << 20
PREFIX = "studio/main"
PART = 5 * MIB
"""Size of a part of a multipart upload: the smallest S3 allows."""
Match = Callable[[Request], bool]

GET, PUT, LIST = operation("GET", "users/"), operation("PUT"), operation("GET", "list-type")
DELETE = operation("POST", r"\?delete")
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_numbers = count(1)


def COPY(request: Request) -> bool:
    """Copies on the server."""
    return "x-amz-copy-source" in request.headers


def UPLOAD(request: Request) -> bool:
    """Files and parts of files, sent from here."""
    return request.method == "PUT" and not COPY(request) and not request.target.endswith(MARK_KEY)


@functools.cache
def moto() -> str:
    """Endpoint of the one server of this run; it ends with this process."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())

    def stop() -> None:
        process.kill()
        process.communicate(timeout=20)

    atexit.register(stop)
    return f"http://127.0.0.1:{port}"


class Gate(Fault):
    """Holds requests back: *reaches* True, when the server has done what they ask; else before it hears of them."""

    def __init__(self, *, reaches: bool = True) -> None:
        self.asks_server = reaches
        self._changed = threading.Condition()
        self._waiting = 0
        self._round = 0
        self._opened = False

    @property
    def waiting(self) -> int:
        """How many are held."""
        with self._changed:
            return self._waiting

    def change(self, request: Request, answer: Answer) -> Answer:
        """Wait for `let_through` or `open`."""
        with self._changed:
            self._waiting += 1
            here = self._round
            self._changed.wait_for(lambda: self._opened or self._round > here)
            self._waiting -= 1
        return answer if self.asks_server else Status(503, "ServiceUnavailable").change(request, answer)

    def let_through(self) -> None:
        """Answer what is held now."""
        with self._changed:
            self._round += 1
            self._changed.notify_all()

    def open(self) -> None:
        """Answer everything from now on."""
        with self._changed:
            self._opened = True
            self._changed.notify_all()


class S3:
    """One bucket, seen out of band, and the way recfs sees it: `proxy`."""

    def __init__(self, server: str, name: str, client: Any, proxy: ChaosProxy, credentials: Path) -> None:
        self.server, self.name, self.client, self.proxy = server, name, client, proxy
        self.credentials = credentials
        self.seen = 0
        """Requests that were made before this test."""

    def config(self, *, more: str = "", top: str = "", **sections: dict[str, Any]) -> str:
        """recfs.conf without `root`. What fails is not tried for long; a server that is slow today is no failure."""
        s3 = {
            "bucket": self.name,
            "prefix": PREFIX,
            "endpoint": self.proxy.url,
            "credentials_file": str(self.credentials),
            "part_size": PART,
            "connect_timeout": 10.0,
            "read_timeout": 20.0,
            "deadline": 40.0,
            "max_attempts": 2,
        }
        wanted = {"s3": s3 | sections.pop("s3", {}), "upload": {"settle": 0.0, "retry_max": 1.0}}
        for name, keys in sections.items():
            wanted[name] = wanted.get(name, {}) | keys
        lines = ['min_free = "1 MiB"', top]
        for name, keys in wanted.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        return "\n".join((*lines, more, ""))

    # --- what lies in the bucket ---------------------------------------------------------------------------------

    def paths(self) -> set[str]:
        """All objects, by path in the mount; one outside the prefix fails the test."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        found = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        assert all(key.startswith(f"{PREFIX}/") for key in found), found
        return {key.removeprefix(f"{PREFIX}/") for key in found} - {MARK_KEY}

    def object(self, path: str) -> tuple[bytes, dict[str, str]]:
        """(bytes, metadata) of the object of a path."""
        answer = self.client.get_object(Bucket=self.name, Key=f"{PREFIX}/{path}")
        with answer["Body"] as body:
            return body.read(), answer["Metadata"]

    def data(self, path: str) -> bytes:
        """The bytes of the object of a path."""
        return self.object(path)[0]

    def checksum(self, path: str) -> str:
        """The sha256 that the object of a path says it has; also of one that cannot be read."""
        found: str = self.client.head_object(Bucket=self.name, Key=f"{PREFIX}/{path}")["Metadata"]["checksum-sha256"]
        return found

    def put(self, path: str, content: bytes) -> None:
        """Write an object out of band."""
        self.client.put_object(Bucket=self.name, Key=f"{PREFIX}/{path}", Body=content)

    def remove(self, path: str) -> None:
        """Delete an object out of band."""
        self.client.delete_object(Bucket=self.name, Key=f"{PREFIX}/{path}")

    def unfinished(self) -> list[str]:
        """Keys of multipart uploads that were begun, and neither finished nor aborted."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]

    # --- what recfs asked ----------------------------------------------------------------------------------------

    def asked(self, on: Match | None = None) -> list[Request]:
        """Requests that recfs made so far, since the test began."""
        return [request for request in self.proxy.requests[self.seen :] if on is None or on(request)]

    def uploads_of(self, path: str) -> int:
        """How often recfs has sent a file, or parts of it."""
        end = f"/{urllib.parse.quote(path, safe='/~')}"
        return len([each for each in self.asked(UPLOAD) if each.target.partition("?")[0].endswith(end)])

    @contextmanager
    def holding(self, on: Match, *, reaches: bool = True) -> Iterator[Gate]:
        """Hold these requests back; what is held at the end is let through."""
        gate = Gate(reaches=reaches)
        self.proxy.add(gate, on=on)
        try:
            yield gate
        finally:
            self.proxy.heal()
            gate.open()


def bucket(server: str, directory: Path) -> Iterator[S3]:
    """A new bucket behind a proxy of its own."""
    with plain_client(server) as client, ChaosProxy(server) as proxy:
        name = f"mount-{os.getpid()}-{next(_numbers)}"
        client.create_bucket(Bucket=name)
        made = S3(server, name, client, proxy, credentials_file(directory))
        yield made
        for path in made.paths():
            made.remove(path)  # they would stay in the server's memory


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    """A new bucket on the moto server."""
    yield from bucket(moto(), tmp_path)


@pytest.fixture
def far(s3: S3, store: Mount) -> Mount:
    """A running mount with that bucket."""
    return store.start(config=s3.config())


@pytest.fixture(scope="module")
def standing(workspace: Path, tmp_path_factory: pytest.TempPathFactory, passthrough: str) -> Iterator[tuple[S3, Mount]]:
    """A bucket and a running mount for all tests of a module."""
    for behind in bucket(moto(), tmp_path_factory.mktemp("s3")):
        store = Mount(workspace / f"standing{next(_numbers)}")
        try:
            store.start(config=behind.config())
            yield behind, store
            store.check()
            store.drop_descriptors()
            store.assert_consistent()
            store.umount()
            store.check()
        finally:
            store.close()
            remove_tree(store.base)


@pytest.fixture
def shared_s3(standing: tuple[S3, Mount]) -> Iterator[S3]:
    """The module's bucket, empty."""
    behind, store = standing
    behind.seen = len(behind.proxy.requests)
    yield behind
    behind.proxy.heal()
    for path in (store.path / "users").iterdir():
        shutil.rmtree(path)
    store.drain()
    wait_until(lambda: not behind.paths(), "the bucket is empty again")


@pytest.fixture
def shared_far(s3: S3, standing: tuple[S3, Mount]) -> Mount:
    """The module's mount, with nothing in it; for modules that import `shared_s3` as `s3`."""
    return standing[1]


# --- what tests do with a mount ----------------------------------------------------------------------------------


def evict(store: Mount, *paths: Path, drained: bool = True) -> None:
    """Let the local copies of files, or of everything below directories, go; they are gone afterwards.

    *drained* False: without waiting for work on S3.
    """
    for path in paths or (store.path,):
        where = store.inner(path) if path != store.path else ""
        # The kernel tells of a close only after close(2) returned.
        answers: list[Any] = []

        def gone(where: str = where, answers: list[Any] = answers) -> bool:
            answers.append(store.call("evict", path=where, recursive=True))
            return not answers[-1]["kept"]

        wait_until(gone, f"the local copies of {where!r} may go: {answers[-1:]}")
    if drained:
        store.drain()


def settle(store: Mount, *paths: Path) -> None:
    """Write everything to S3 and let the local copies go."""
    store.drain()
    evict(store, *paths)
