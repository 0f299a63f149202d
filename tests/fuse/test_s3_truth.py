"""Objects that others changed behind recfs's back: an error that says so, never bytes of two versions."""

from __future__ import annotations

import errno
import os

import pytest

from .clients import pattern, state, wait_until, xattr
from .harness import Mount, errno_is
from .s3 import MIB, S3, evict, settle, standing
from .s3 import s3 as own_s3
from .s3 import shared_far as far
from .s3 import shared_s3 as s3

__all__ = ["far", "own_s3", "s3", "standing"]

pytestmark = [pytest.mark.modeless]

OLD, NEW = pattern(9 * MIB, seed=1), pattern(9 * MIB, seed=2)


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "large"])
def test_an_object_that_was_replaced(s3: S3, far: Mount, size: int) -> None:
    far.expect_log("replaced behind recfs's back")
    path = far.recording() / "file"
    path.write_bytes(OLD[:size])
    settle(far)
    s3.put(far.inner(path), NEW[:size])
    for _ in range(2):
        with errno_is(errno.EIO):
            path.read_bytes()
    assert "replaced behind recfs's back" in far.log()
    assert far.inner(path) in far.log()
    # Its owner puts it right.
    s3.put(far.inner(path), OLD[:size])
    if size == 1000:  # the etag of an object that came in parts does not come again
        assert path.read_bytes() == OLD[:size]


def test_an_object_that_was_replaced_is_overwritten_by_who_wants_to(s3: S3, far: Mount) -> None:
    """The way out: a new version, and recfs is master of the object again."""
    far.expect_log("replaced behind recfs's back")
    path = far.recording() / "file"
    path.write_bytes(OLD)
    settle(far)
    s3.put(far.inner(path), NEW)
    with errno_is(errno.EIO):
        path.read_bytes()
    path.write_bytes(b"mine")
    far.drain()
    assert s3.data(far.inner(path)) == b"mine"
    evict(far)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "large"])
def test_an_object_that_was_deleted(s3: S3, far: Mount, size: int) -> None:
    far.expect_log("deleted behind recfs's back")
    path = far.recording() / "file"
    path.write_bytes(OLD[:size])
    settle(far)
    s3.remove(far.inner(path))
    for _ in range(2):
        with errno_is(errno.EIO):
            path.read_bytes()
    assert "deleted behind recfs's back" in far.log()
    assert path.stat().st_size == size
    path.unlink()
    far.drain()
    assert s3.paths() == set()
    far.assert_consistent()


def test_a_local_copy_is_served_whatever_became_of_the_object(s3: S3, far: Mount) -> None:
    path = far.recording() / "file"
    path.write_bytes(OLD)
    far.drain()
    s3.put(far.inner(path), NEW)
    assert path.read_bytes() == OLD
    s3.remove(far.inner(path))
    assert path.read_bytes() == OLD


def test_no_reader_gets_two_versions(own_s3: S3, store: Mount) -> None:
    """The object is replaced between two reads of one descriptor."""
    s3, far = own_s3, store.start(config=own_s3.config(cache={"read_ahead_max": 2 * MIB}))
    far.expect_log("replaced behind recfs's back")
    old, new = pattern(40 * MIB, seed=1), pattern(40 * MIB, seed=2)
    path = far.recording() / "file"
    path.write_bytes(old)
    settle(far)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(fd, 100_000, 0) == old[:100_000]
        wait_until(lambda: xattr(path, "location") == "partial,s3", "it is being fetched")
        s3.put(far.inner(path), new)
        with errno_is(errno.EIO):
            os.pread(fd, 100_000, 30 * MIB)
        # From here on it is known: not even what is here is shown as if it were the file.
        with errno_is(errno.EIO):
            os.pread(fd, 100_000, 20 * MIB)
    finally:
        os.close(fd)
    with errno_is(errno.EIO):
        path.read_bytes()
    assert state(path) in ("evicted", "fetching")


def test_other_bytes_with_the_same_etag_are_never_served(s3: S3, far: Mount) -> None:
    """A store that lies: the checksum of the whole tells."""
    far.expect_log("other bytes")
    path = far.recording() / "file"
    path.write_bytes(b"right")
    settle(far)
    from tests.helpers.chaos_faults import Answer, Fault, Request

    class Lie(Fault):
        def change(self, request: Request, answer: Answer) -> Answer:
            return Answer(answer.status, answer.reason, answer.headers, b"wrong"[: len(answer.body)])

    s3.proxy.add(Lie(), on=lambda request: request.method == "GET")
    with errno_is(errno.EIO):
        path.read_bytes()
    s3.proxy.heal()
    assert path.read_bytes() == b"right"
