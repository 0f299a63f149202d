"""A mount in front of a real S3 server that CI runs, SeaweedFS; and what is particular there."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from recfs.core.keys import key_for
from recfs.errors import RecfsError
from tests.helpers.chaos_faults import Request, Status
from tests.helpers.s3_servers import SeaweedFS, plain_client, seaweedfs

from .clients import pattern, state, wait_until
from .harness import Mount
from .real_server_contract import RealServerContract
from .s3 import PART, PREFIX, S3, UPLOAD, bucket, evict, settle

__all__ = ["seaweedfs"]

pytestmark = [pytest.mark.seaweedfs, pytest.mark.slow, pytest.mark.modeless, pytest.mark.timeout(120)]

LARGE = pattern(6 * PART + 1, seed=7)


@pytest.fixture
def s3(seaweedfs: SeaweedFS, tmp_path: Path) -> Iterator[S3]:
    """A new bucket on the server; its volumes are free again afterwards."""
    name = ""
    for made in bucket(seaweedfs.endpoint, tmp_path):
        name = made.name
        yield made
    with plain_client(seaweedfs.endpoint) as client:
        client.delete_bucket(Bucket=name)


@pytest.fixture
def far(s3: S3, store: Mount) -> Mount:
    """A running mount with that bucket."""
    return store.start(config=s3.config())


class TestSeaweedFS(RealServerContract):
    """Version 4, in one process."""

    daemon: ClassVar[str] = "server"

    @pytest.fixture
    def server(self, seaweedfs: SeaweedFS) -> SeaweedFS:
        """The one process."""
        return seaweedfs


# --- large uploads that are cut off --------------------------------------------------------------------------------


def number_of(request: Request) -> int:
    """Number of the part that is sent; 0: it is none."""
    return int(request.target.partition("partNumber=")[2].partition("&")[0] or 0)


def cut_off(s3: S3, far: Mount, end: str) -> Path:
    """A large file, three parts of which have been confirmed, and the others refused, when the daemon ends."""
    far.expect_log("next try in")
    path = far.recording() / "large"
    s3.proxy.add(Status(503, "ServiceUnavailable"), on=lambda request: number_of(request) > 3)
    path.write_bytes(LARGE)
    wait_until(lambda: far.status()["s3"]["queue"]["failed"], "it has failed")
    if end == "kill":
        far.kill()
    else:
        far.umount()
    s3.proxy.heal()
    return path


def sent(s3: S3) -> Counter[int]:
    """How often each part was taken."""
    return Counter(number for request in s3.asked(UPLOAD) if (number := number_of(request)))


@pytest.mark.parametrize("end", ["kill", "umount"])
def test_a_large_upload_goes_on_where_it_was(s3: S3, far: Mount, end: str) -> None:
    """Though the server lists the parts without the checksums that it wants to have repeated at the end."""
    path = cut_off(s3, far, end)
    far.remount().drain()
    assert s3.data(far.inner(path)) == LARGE
    assert s3.unfinished() == []
    assert {number: times for number, times in sent(s3).items() if number <= 3} == {1: 1, 2: 1, 3: 1}
    assert state(path) == "stored"
    evict(far)
    assert path.read_bytes() == LARGE


def test_a_large_upload_that_the_server_forgot(s3: S3, far: Mount) -> None:
    path = cut_off(s3, far, "kill")
    for upload in s3.client.list_multipart_uploads(Bucket=s3.name)["Uploads"]:
        s3.client.abort_multipart_upload(Bucket=s3.name, Key=upload["Key"], UploadId=upload["UploadId"])
    far.remount().drain()
    assert s3.data(far.inner(path)) == LARGE
    assert s3.unfinished() == []


# --- names ---------------------------------------------------------------------------------------------------------

NAMES = [
    b"back\\slash",
    b"slash\\",
    b"latin-1 \xfc",
    b"\x01\x1f\x7f line\nbreak",
    b"x" * 255,
    "ü".encode() * 127,
    b"\xff" * 85,
    b".versions/a",
    b"x.versions/a",
    b".uploads/a",
    b"plain.versions",
    b" ",
    b"+%2F%5C&?#;=",
]


def test_every_name_comes_back(s3: S3, far: Mount) -> None:
    """Also those that the server takes for others, or leaves out of its listings."""
    rec = os.fsencode(far.recording())
    made = {os.path.join(rec, name): pattern(5_000, seed=n) for n, name in enumerate(NAMES)}
    for path, content in made.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(content)
    settle(far)
    assert {path: Path(os.fsdecode(path)).read_bytes() for path in made} == made
    moved = far.recording(1, 2)
    moved.rmdir()
    os.rename(rec, moved)
    settle(far)
    keys = {key_for(os.fsencode(far.inner(moved)) + path.removeprefix(rec)) for path in made}
    for key in keys:
        assert s3.client.head_object(Bucket=s3.name, Key=f"{PREFIX}/{key}")
    assert [Path(os.fsdecode(path.replace(rec, os.fsencode(moved)))).read_bytes() for path in made] == [*made.values()]
    shutil.rmtree(moved)
    far.drain()
    assert s3.paths() == set()
    for key in keys:  # what no listing shows
        with pytest.raises(s3.client.exceptions.ClientError, match="404"):
            s3.client.head_object(Bucket=s3.name, Key=f"{PREFIX}/{key}")


def test_a_large_file_and_a_directory_take_each_others_name(s3: S3, far: Mount) -> None:
    """The server keeps its names as a file system does, and directories after their last file."""
    far.expect_log("next try in")
    name, content = far.recording() / "name", LARGE[: PART + 1]
    (name / "below").mkdir(parents=True)
    for path in (name / "one", name / "below" / "two"):
        path.write_bytes(b"small")
    settle(far)
    shutil.rmtree(name)
    name.write_bytes(content)
    settle(far)
    assert name.read_bytes() == content
    name.unlink()
    name.mkdir()
    (name / "three").write_bytes(content)
    settle(far)
    assert (name / "three").read_bytes() == content
    assert s3.paths() == {far.inner(name / "three")}


def test_a_name_that_the_server_does_not_take_is_told_as_that(s3: S3, far: Mount) -> None:
    far.expect_log("KeyTooLong")
    rec = far.recording()
    (rec / os.fsdecode(b"\xff" * 86)).write_bytes(b"x")
    (rec / "other").write_bytes(b"y")
    (row,) = wait_until(lambda: [row for row in far.call("queue")["rows"] if row["error"]], "it was refused")
    assert "the longest name in it 258" in row["error"]
    assert "on some servers 255 between two slashes" in row["error"]
    far.drain()
    assert s3.paths() == {far.inner(rec / "other")}


# --- what is told ----------------------------------------------------------------------------------------------------


def refused(s3: S3, store: Mount, **settings: str) -> str:
    """Why a file is not stored with these settings of [s3]."""
    store.expect_log("next try in|object store is down|cannot|is being used")
    store.start(config=s3.config(s3=settings))
    (store.recording() / "file").write_bytes(b"bytes")
    (row,) = wait_until(lambda: [row for row in store.call("queue")["rows"] if row["error"]], "the reason is known")
    return str(row["error"])


def test_a_mistyped_bucket_is_noticed_and_not_made(s3: S3, store: Mount) -> None:
    """Though the server makes one for the first object of an administrator."""
    mistyped = f"{s3.name}-mistyped"
    assert "NoSuchBucket" in refused(s3, store, bucket=mistyped)
    assert mistyped not in {bucket["Name"] for bucket in s3.client.list_buckets()["Buckets"]}


@pytest.mark.parametrize("which", ["filer_endpoint", "master_endpoint"])
def test_another_port_of_the_server_is_no_s3(s3: S3, store: Mount, seaweedfs: SeaweedFS, which: str) -> None:
    assert "host and port of [s3] endpoint" in refused(s3, store, endpoint=getattr(seaweedfs, which))


def test_a_server_without_a_key_cannot_encrypt(s3: S3, store: Mount) -> None:
    assert 'leave out sse = "AES256"' in refused(s3, store, sse="AES256")


def test_a_class_that_it_does_not_know(s3: S3, store: Mount) -> None:
    assert "classes that this server has" in refused(s3, store, storage_class="MISTYPED")


def test_an_archive_class_is_a_label_and_the_commands_say_so(s3: S3, store: Mount) -> None:
    rules = '[lifecycle]\ntransitions = [{after = "90d", storage_class = "GLACIER"}]'
    store.start(config=s3.config(s3={"storage_class": "GLACIER"}, more=rules))
    path = store.recording() / "file"
    path.write_bytes(b"bytes")
    settle(store)
    evict(store)
    assert path.read_bytes() == b"bytes"
    with pytest.raises(RecfsError, match="needs no restore: the server has none"):
        store.call("restore", path=store.inner(path))
    with pytest.raises(RecfsError, match=r"NotImplemented.*leave transitions out of \[lifecycle\]"):
        store.call("lifecycle_apply")
