"""Archive classes: nothing is read before a restore, everybody is told so, and then it is read."""

from __future__ import annotations

import errno
import os

import pytest

from .clients import pattern, recfs, sha256, state, wait_until, xattr
from .harness import Mount, errno_is
from .s3 import GET, MIB, S3, evict, s3, settle

__all__ = ["s3"]

pytestmark = [pytest.mark.modeless]

ROUTES = """
[[route]]
pattern = "users/*/recordings/**/*.old"
to = "s3"
storage_class = "GLACIER"

[[route]]
pattern = "users/**"
to = "s3"
"""


@pytest.fixture
def archive(s3: S3, store: Mount) -> Mount:
    """A mount whose *.old files go to an archive class."""
    return store.start(config=s3.config(more=ROUTES))


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "large"])
def test_a_file_is_archived_restored_and_read(s3: S3, archive: Mount, size: int) -> None:
    archive.expect_log("restore")
    path, content = archive.recording() / "source.old", pattern(size, seed=1)
    path.write_bytes(content)
    archive.drain()
    assert xattr(path, "storage_class") == "GLACIER"
    assert path.read_bytes() == content, "as long as it is here, it is read here"
    evict(archive)
    for _ in range(2):
        with errno_is(errno.EACCES):
            path.read_bytes()
    wait_until(lambda: state(path) == "archived", "the state says so")
    assert xattr(path, "restore") == "archived"
    assert path.stat().st_size == size
    done = recfs("restore", path)
    assert b"restor" in done.stdout
    wait_until(lambda: readable(path), "the restore is done")
    assert path.read_bytes() == content
    archive.drain()
    assert s3.data(archive.inner(path)) == content


def readable(path: os.PathLike[str]) -> bool:
    """Whether it can be read."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return False
    return True


def test_who_has_an_archived_file_open_never_reads_what_is_not_there(s3: S3, archive: Mount) -> None:
    """Opened before anybody knew; every read fails, not just the first."""
    archive.expect_log("restore")
    path = archive.recording() / "source.old"
    path.write_bytes(pattern(9 * MIB, seed=1))
    settle(archive)
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in (0, 0, 4 * MIB, 8 * MIB):
            with errno_is(errno.EACCES, errno.EIO):
                os.pread(fd, 1000, offset)
    finally:
        os.close(fd)


def test_an_archived_file_is_overwritten_and_deleted_without_a_restore(s3: S3, archive: Mount) -> None:
    archive.expect_log("restore")
    rec = archive.recording()
    for name in "abc":
        (rec / f"{name}.old").write_bytes(pattern(2000, seed=ord(name)))
    settle(archive)
    with errno_is(errno.EACCES):
        (rec / "a.old").read_bytes()
    (rec / "a.old").write_bytes(b"new")
    (rec / "b.old").unlink()
    archive.drain()
    assert s3.checksum(archive.inner(rec / "a.old")) == sha256(b"new")
    assert s3.paths() == {archive.inner(rec / "a.old"), archive.inner(rec / "c.old")}
    assert s3.asked(GET)


def test_what_is_not_archived_needs_no_restore(s3: S3, archive: Mount) -> None:
    path = archive.recording() / "plain"
    path.write_bytes(b"x")
    settle(archive)
    with pytest.raises(OSError, match="No data available"):
        xattr(path, "restore")
    assert recfs("restore", path, check=False).returncode != 0
    assert path.read_bytes() == b"x"
