"""A low `ulimit -n`: ordinary work goes on, and whoever asks is told what the limit is."""

from __future__ import annotations

import os

import pytest

from .clients import Peer, need_root, recfs, wait_until
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


@pytest.mark.fuse
@pytest.mark.slow
def test_one_user_cannot_take_all_descriptors(store: Mount) -> None:
    need_root()
    store.expect_log("uid 20001 has files open")
    rec = store.start(prefix=["prlimit", "--nofile=1200:1200"]).recording()
    rec.chmod(0o777)
    (rec / "old").write_bytes(b"old")
    with Peer(20001) as greedy, Peer(20002) as other:
        greedy(f"rec, held = {str(rec)!r}, []")
        with pytest.raises(OSError, match=r"\[Errno 24\]"):
            greedy("while True: held.append(os.open(f'{rec}/{len(held)}', os.O_RDWR | os.O_CREAT))")
        assert 400 < greedy("len(held)") < 600
        with pytest.raises(OSError, match=r"\[Errno 24\]"):
            greedy("os.open(f'{rec}/old', os.O_RDONLY)")
        other(f"rec = {str(rec)!r}")
        for n in range(50):
            other(f"held{n} = os.open(f'{{rec}}/other{n}', os.O_RDWR | os.O_CREAT)")
            other("os.close(os.open(f'{rec}/old', os.O_RDONLY))")
        (problem,) = store.status()["problems"]
        assert problem.startswith("uid 20001 has files open that keep ")
        greedy("for fd in held[:60]: os.close(fd)")
        wait_until(lambda: not store.status()["problems"], "the daemon has closed them, too")
        greedy("os.open(f'{rec}/old', os.O_RDONLY)")
    store.drain()
    assert store.status()["problems"] == []
    store.assert_consistent()
    store.umount()
