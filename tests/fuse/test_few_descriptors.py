"""A low `ulimit -n`: ordinary work goes on, and whoever asks is told what the limit is."""

from __future__ import annotations

import os

import pytest

from .clients import recfs
from .harness import Mount

pytestmark = pytest.mark.modes("auto", "off")


@pytest.mark.fuse
@pytest.mark.parametrize("limit", [64, 256])
def test_ordinary_work_goes_on(store: Mount, limit: int) -> None:
    rec = store.start(prefix=["prlimit", f"--nofile={limit}:{limit}"]).recording()
    for n in range(40):
        (rec / f"f{n}").write_bytes(b"x" * n)
    assert [len((rec / f"f{n}").read_bytes()) for n in range(40)] == list(range(40))
    assert len(os.listdir(rec)) == 40
    store.drain()
    (problem,) = store.status()["problems"]
    assert f"{limit} descriptors" in problem
    assert "LimitNOFILE" in problem
    assert f"{limit} descriptors" in store.log()
    assert recfs("status", rec).returncode == 0
    store.assert_consistent()
    store.umount()
