"""The ObjectStore port against a real server: Ceph's RGW, started by scripts/rgw. With RECFS_TEST_RGW=1."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from recfs.ports.object_errors import NotOffered, Unreachable, Untrusted, WrongCredentials
from recfs.ports.objects import MIB, ObjectStore
from recfs.stores.s3.store import S3Store
from tests.helpers.s3_servers import Bucket, Rgw, credentials_file, rgw, rgw_bucket

from .object_store_contract import PATH, ObjectStoreContract, data_of, meta_of, read_all

__all__ = ["rgw", "rgw_bucket"]

pytestmark = [pytest.mark.rgw, pytest.mark.slow]


class TestRgw(ObjectStoreContract):
    """The real one against Ceph 16."""

    lacks: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def store(self, rgw_bucket: Bucket) -> Iterator[ObjectStore]:
        """A bucket of its own."""
        store = rgw_bucket.store(prefix="studio/main")
        yield store
        store.close()


class TestRgwTls(TestRgw):
    """The same over https, where payloads are not signed until the server turns out to ignore checksums."""

    @pytest.fixture
    def store(self, rgw: Rgw, rgw_bucket: Bucket) -> Iterator[ObjectStore]:
        """A bucket of its own, by TLS with the server's own certificate trusted."""
        store = rgw_bucket.store(endpoint=rgw.tls_endpoint, ca_bundle=rgw.certificate)
        yield store
        store.close()


def test_a_large_object_in_parallel_parts(rgw_bucket: Bucket, tmp_path: Path) -> None:
    store = rgw_bucket.store()
    data = data_of(64 * MIB + 5)
    (tmp_path / "large").write_bytes(data)
    with open(tmp_path / "large", "rb") as large, open(tmp_path / "back", "w+b") as back, ThreadPoolExecutor(8) as pool:
        step, fd = store.part_size(len(data)), large.fileno()
        ranges = [(offset, min(step, len(data) - offset)) for offset in range(0, len(data), step)]
        upload_id = store.start_multipart(PATH, meta_of(data))
        sent = pool.map(lambda n: store.upload_part(PATH, upload_id, n + 1, fd, *ranges[n]), range(len(ranges)))
        made = store.finish_multipart(PATH, upload_id, list(sent), meta_of(data), len(data))
        into = back.fileno()
        for _ in pool.map(lambda each: store.get_range(PATH, *each, if_match=made.etag, into=into), ranges):
            pass
        assert hashlib.sha256(back.read()).digest() == made.sha256
    copied = store.copy(PATH, "users/5/copied", len(data), if_match=made.etag)
    assert copied.sha256 == made.sha256
    store.close()


def test_a_copy_in_parts(rgw_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Store, "_copy_limit", 6 * MIB)
    monkeypatch.setattr(S3Store, "_copy_part", 5 * MIB)
    store, data = rgw_bucket.store(), data_of(11 * MIB)
    rgw_bucket.client.put_object(Bucket=rgw_bucket.name, Key="a", Body=data, Metadata={"mode": "0600"}, Tagging="k=v")
    made = store.copy("a", "b", len(data))
    assert made.etag.endswith("-3")
    assert made.metadata == {"mode": "0600"}
    assert store.get_tags("b") == {"k": "v"}
    assert read_all(store, made) == data
    store.close()


def test_wrong_credentials_of_both_kinds(rgw_bucket: Bucket, tmp_path: Path) -> None:
    for wrong in ({"access_key": "nobody"}, {"secret_key": "wrong"}):
        store = rgw_bucket.store(credentials_file=credentials_file(tmp_path, **wrong))
        with pytest.raises(WrongCredentials):
            store.check()
        with pytest.raises(WrongCredentials):
            store.head(PATH)
        with pytest.raises(WrongCredentials):
            store.get_range(PATH, 0, 1, if_match=None, into=memoryview(bytearray(1)))
        store.close()


def test_tls_is_verified(rgw: Rgw, rgw_bucket: Bucket) -> None:
    store = rgw_bucket.store(endpoint=rgw.tls_endpoint)
    with pytest.raises(Untrusted, match="ca_bundle"):
        store.check()
    store.close()
    store = rgw_bucket.store(endpoint=rgw.tls_endpoint, verify=False)
    assert "verify = false" in store.check().warnings[0]
    store.close()


def test_presigned_urls(rgw_bucket: Bucket) -> None:
    store = rgw_bucket.store(prefix="p")
    put = urllib.request.Request(store.presign("users/5/ü x", "PUT", 60), data=b"from outside", method="PUT")
    with urllib.request.urlopen(put) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(store.presign("users/5/ü x", "GET", 60)) as answer:
        assert answer.read() == b"from outside"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(store.presign("users/5/ü x", "GET", 60).replace("X-Amz-Expires=60", "X-Amz-Expires=61"))
    store.close()


def test_what_it_does_not_offer_is_said(rgw_bucket: Bucket) -> None:
    store = rgw_bucket.store()
    rgw_bucket.client.put_object(Bucket=rgw_bucket.name, Key="cold", Body=b"x", StorageClass="GLACIER")
    with pytest.raises(NotOffered, match="does not offer"):
        store.restore("cold", 1)
    store.close()


def test_a_server_that_dies_and_comes_back(rgw: Rgw, rgw_bucket: Bucket, tmp_path: Path) -> None:
    store = rgw_bucket.store()
    rgw_bucket.client.put_object(Bucket=rgw_bucket.name, Key="k", Body=b"bytes")
    info = store.head("k")
    assert info is not None
    rgw.kill("client.rgw")
    with pytest.raises(Unreachable):
        store.head("k")
    rgw.up()
    assert read_all(store, info) == b"bytes"
    store.close()
