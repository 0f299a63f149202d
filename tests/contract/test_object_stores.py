"""The ObjectStore port: S3 against moto, and the fake, against the one contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest

from recfs.ports.objects import ObjectStore
from tests.fake_object_store import FakeObjectStore
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

from .object_store_contract import ObjectStoreContract

__all__ = ["moto_bucket", "moto_server"]


class TestFake(ObjectStoreContract):
    """The fake."""

    keeps_checksums = True

    @pytest.fixture
    def store(self) -> FakeObjectStore:
        """Empty."""
        made = FakeObjectStore()
        made.keeps_checksums = True
        return made


@pytest.mark.slow
class TestMoto(ObjectStoreContract):
    """The real one against moto's server."""

    lacks: ClassVar[Mapping[str, str]] = {
        "control characters": "moto routes keys with line breaks to nowhere (404)",
    }

    @pytest.fixture
    def store(self, moto_bucket: Bucket) -> Iterator[ObjectStore]:
        """A bucket of its own."""
        store = moto_bucket.store(prefix="studio/main")
        yield store
        store.close()
