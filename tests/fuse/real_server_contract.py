"""What a mount does in front of any real S3 server: what moto may take differently is proven once more.

A class that runs it gives `s3`, a new bucket there, and `server`, which can be killed and started.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar

import pytest

from tests.helpers.s3_servers import ScriptedServer

from .clients import pattern, sha256, sha256_of, state, wait_until
from .harness import Mount
from .rebuilds import damage, facts, rebuild
from .s3 import MIB, PART, S3, UPLOAD, evict, settle

LARGE = 2 * PART + 12_345


def write_files(rec: Path, count: int) -> dict[Path, bytes]:
    """Files of mixed sizes, the first of which goes up in parts."""
    made = {rec / f"datei {n} ü.bin": pattern((n * 7919) % 200_000 if n else LARGE, seed=n) for n in range(count)}
    for path, content in made.items():
        path.write_bytes(content)
    return made


class RealServerContract:
    """Every promise that depends on the server."""

    daemon: ClassVar[str]
    """Which of the server's daemons is killed."""

    @pytest.fixture
    def far(self, s3: S3, store: Mount) -> Mount:
        """A running mount with that bucket."""
        return store.start(config=s3.config(s3={"read_timeout": 10.0, "deadline": 20.0}))

    def test_killed_during_the_uploads_everything_is_in_s3(self, s3: S3, far: Mount) -> None:
        sent = iter(range(10_000))
        with s3.holding(lambda request: UPLOAD(request) and next(sent) >= 20) as gate:
            made = write_files(far.recording(), 60)
            wait_until(lambda: gate.waiting >= 4, "uploads are under way")
            wait_until(lambda: "writing" not in far.status()["states"], "all is closed")
            far.kill()
        far.remount()
        far.drain()
        assert s3.paths() == {far.inner(path) for path in made}
        for path, content in made.items():
            found, metadata = s3.object(far.inner(path))
            assert found == content
            assert metadata["checksum-sha256"] == sha256(content)
        assert s3.unfinished() == []
        evict(far)
        for path, content in made.items():
            assert sha256_of(path) == sha256(content)

    def test_names_follow_and_objects_go(self, s3: S3, far: Mount) -> None:
        rec = far.recording()
        made = write_files(rec, 12)
        settle(far)
        moved = rec.rename(rec.parent / "2")
        assert {path.name: (moved / path.name).read_bytes() for path in made} == {p.name: c for p, c in made.items()}
        far.drain()
        wait_until(lambda: s3.paths() == {far.inner(moved / path.name) for path in made}, "the objects have moved")
        first = moved / next(iter(made)).name
        settle(far)
        with first.open("ab") as file:
            file.write(b"tail")
        settle(far)
        assert s3.data(far.inner(first)) == pattern(LARGE) + b"tail" == first.read_bytes()
        for path in moved.iterdir():
            path.unlink()
        far.drain()
        assert s3.paths() == set()

    def test_an_object_replaced_behind_our_back(self, s3: S3, far: Mount) -> None:
        far.expect_log("replaced behind recfs's back")
        path = far.recording() / "file"
        path.write_bytes(pattern(9 * MIB, seed=1))
        settle(far)
        s3.put(far.inner(path), pattern(9 * MIB, seed=2))
        with pytest.raises(OSError, match="Input/output error"):
            path.read_bytes()

    def test_a_lost_catalogue_is_made_anew(self, s3: S3, far: Mount) -> None:
        rec = far.recording()
        made = write_files(rec, 12)
        settle(far)
        local = rec / "local, too"
        local.write_bytes(pattern(70_000, seed=99))
        far.drain()
        before, objects = facts(far), s3.paths()
        evict(far, *made)
        far.kill()
        damage(far)
        found = rebuild(far)
        assert (found["evicted"], found["stored"], found["claim_needed"]) == (12, 1, False)
        far.remount()
        assert facts(far) == before
        far.drain()
        assert s3.paths() == objects
        far.assert_consistent()

    def test_the_server_dies_and_comes_back(self, s3: S3, far: Mount, server: ScriptedServer) -> None:
        """The last one: for half a minute after that, Ceph makes no buckets."""
        rec = far.recording()
        old, new = rec / "old", rec / "new"
        old.write_bytes(pattern(9 * MIB, seed=1))
        settle(far)
        far.expect_log("s3://|object store is down")
        server.kill(self.daemon)
        try:
            with pytest.raises(OSError, match="Input/output error") as caught:
                old.read_bytes()
            assert caught.value.errno == errno.EIO
            new.write_bytes(pattern(6 * MIB, seed=2))
            assert new.read_bytes() == pattern(6 * MIB, seed=2)
        finally:
            server.up()
        far.drain()
        assert s3.data(far.inner(new)) == pattern(6 * MIB, seed=2)
        assert old.read_bytes() == pattern(9 * MIB, seed=1)
        assert state(new) == "stored"
