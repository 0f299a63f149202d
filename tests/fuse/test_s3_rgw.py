"""A mount in front of a real S3 server, Ceph's RGW. With RECFS_TEST_RGW=1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.helpers.s3_servers import Rgw, rgw

from .real_server_contract import RealServerContract
from .s3 import S3, bucket

__all__ = ["rgw"]

pytestmark = [pytest.mark.rgw, pytest.mark.slow, pytest.mark.modeless, pytest.mark.timeout(120)]


class TestRgw(RealServerContract):
    """Ceph 16."""

    daemon: ClassVar[str] = "client.rgw"

    @pytest.fixture
    def server(self, rgw: Rgw) -> Rgw:
        """The cluster."""
        return rgw

    @pytest.fixture
    def s3(self, rgw: Rgw, tmp_path: Path) -> Iterator[S3]:
        """A new bucket on the cluster."""
        yield from bucket(rgw.endpoint, tmp_path)
