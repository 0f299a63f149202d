"""A store behind the chaos proxy, with one object in it; fixtures and helpers of the tests that let things go wrong."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recfs.ports.object_errors import ObjectStoreError
from recfs.ports.objects import ObjectMeta
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.s3_servers import Bucket

DATA = os.urandom(300_000)
META = ObjectMeta(sha256=hashlib.sha256(DATA).digest(), md5=hashlib.md5(DATA).digest())
KEY = "users/5/recordings/142/source.mp4"
GET, PUT, HEAD, LIST = (
    operation("GET", "source.mp4"),
    operation("PUT"),
    operation("HEAD"),
    operation("GET", "list-type"),
)


@pytest.fixture
def proxy(moto_server: str) -> Iterator[ChaosProxy]:
    with ChaosProxy(moto_server) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: ChaosProxy, moto_bucket: Bucket, file: int) -> Iterator[S3Store]:
    """A store behind the proxy, with DATA under KEY."""
    store = moto_bucket.store(endpoint=proxy.url, read_timeout=30.0)
    store.put_file(file, len(DATA), KEY, META)
    yield store
    store.close()


@pytest.fixture
def impatient(proxy: ChaosProxy, moto_bucket: Bucket, store: S3Store) -> Iterator[S3Store]:
    """Another store on the same objects, with a short read timeout."""
    impatient = moto_bucket.store(endpoint=proxy.url, read_timeout=0.3)
    yield impatient
    impatient.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a file with DATA."""
    path = tmp_path / "data"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def read(store: S3Store, start: int = 0, length: int = len(DATA), **more: object) -> bytes:
    buffer = bytearray(length)
    store.get_range(KEY, start, length, if_match=None, into=memoryview(buffer), **more)  # type: ignore[arg-type]
    return bytes(buffer)


def raised(kind: type[ObjectStoreError], call: Callable[[], object]) -> ObjectStoreError:
    """The error that *call* raises: exactly of this class, and with a message fit for a person."""
    with pytest.raises(ObjectStoreError) as caught:
        call()
    assert type(caught.value) is kind, caught.value
    message = str(caught.value)
    assert message.startswith("s3://")
    assert "; " in message, "no remedy"
    assert "\n" not in message
    assert len(message) < 500
    return caught.value
