"""The ObjectStore port against a real server that CI runs: SeaweedFS, started by scripts/seaweedfs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from recfs.ports.objects import MIB, ObjectMeta, ObjectStore
from recfs.stores.s3.store import S3Store
from tests.helpers.s3_servers import Bucket, SeaweedFS, seaweedfs, seaweedfs_bucket

from .object_store_contract import PATH, ObjectStoreContract, data_of, meta_of, read_all

__all__ = ["seaweedfs", "seaweedfs_bucket"]

pytestmark = [pytest.mark.seaweedfs, pytest.mark.slow]


class TestSeaweedFS(ObjectStoreContract):
    """The real one against SeaweedFS 4."""

    keeps_checksums = True

    lacks: ClassVar[Mapping[str, str]] = {
        "lifecycle transitions": "NotImplemented: it moves nothing between storage classes",
    }

    @pytest.fixture
    def store(self, seaweedfs_bucket: Bucket) -> Iterator[ObjectStore]:
        """A bucket of its own."""
        store = seaweedfs_bucket.store(prefix="studio/main")
        yield store
        store.close()


def test_over_tls(seaweedfs: SeaweedFS, seaweedfs_bucket: Bucket, tmp_path: Path) -> None:
    """Where payloads are not signed, for the server repeats the checksums."""
    store, data = seaweedfs_bucket.store(endpoint=seaweedfs.tls_endpoint, ca_bundle=seaweedfs.certificate), data_of(MIB)
    (tmp_path / "file").write_bytes(data)
    with open(tmp_path / "file", "rb") as file:
        assert read_all(store, store.put_file(file.fileno(), len(data), PATH, meta_of(data))) == data
        upload_id = store.start_multipart("users/5/b", meta_of(data))
        part = store.upload_part("users/5/b", upload_id, 1, file.fileno(), 0, len(data))
    assert part.checksum
    assert read_all(store, store.finish_multipart("users/5/b", upload_id, [part], meta_of(data), len(data))) == data
    store.close()


def test_uploads_in_pages_are_all_listed(seaweedfs_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Store, "_uploads_in_page", 3)
    store = seaweedfs_bucket.store()
    begun = {(key, store.start_multipart(key, ObjectMeta())) for key in [f"users/{n % 3}/x" for n in range(10)]}
    store.start_multipart("temp/x", ObjectMeta())
    listed = [(each.key, each.upload_id) for each in store.list_multiparts("users/")]
    assert listed == sorted(begun)
    store.close()
