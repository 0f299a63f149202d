"""What goes wrong between recfs and S3, as programs see it: one errno, a daemon that lives on, and no wrong byte."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.chaos_faults import XHTML, Cut, Fault, Header, Longer, NoAnswer, Page, PageInstead, Status, Trickle

from .clients import pattern, recfs, state, wait_until, xattr
from .harness import Mount, errno_is, remove_tree
from .s3 import GET, MIB, S3, UPLOAD, bucket, moto, s3, settle

__all__ = ["s3"]

pytestmark = [pytest.mark.modeless, pytest.mark.timeout(60)]

SMALL, LARGE = pattern(20_000, seed=1), pattern(700_000, seed=2)
"""Fetched whole at the open; fetched as it is read."""


@dataclass
class Place:
    """A mount in front of an S3 that goes wrong."""

    s3: S3
    store: Mount
    rec: Path
    number: int = 0

    def file(self, content: bytes) -> Path:
        """A new file that only S3 has the bytes of."""
        self.number += 1
        path = self.rec / f"file{self.number}"
        path.write_bytes(content)
        settle(self.store, path)
        return path


@pytest.fixture(scope="module")
def shared(workspace: Path, tmp_path_factory: pytest.TempPathFactory, passthrough: str) -> Iterator[Place]:
    """One mount for all: each trouble has to end."""
    for behind in bucket(moto(), tmp_path_factory.mktemp("s3")):
        store = Mount(workspace / "faults")
        store.expect_log(r"s3://|: the object store is down|bytes .* came for")
        quick = {"read_timeout": 1.5, "connect_timeout": 1.5, "deadline": 6.0, "max_attempts": 1}
        store.start(config=behind.config(s3=quick, cache={"fetch_whole_below": 65536, "read_ahead_max": 1 << 20}))
        yield Place(behind, store, store.recording())
        store.check()
        store.umount()
        store.check()
        remove_tree(store.base)


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    yield shared
    shared.s3.proxy.heal()


FAULTS: dict[str, tuple[Fault, str]] = {
    "403": (Status(403, "AccessDenied"), "bucket policy"),
    "404": (Status(404, "NoSuchKey"), "deleted"),
    "412": (Status(412, "PreconditionFailed"), "replaced"),
    "429": (Status(429, "TooManyRequests"), "threads"),
    "500": (Status(500, "InternalError"), "server's log"),
    "503": (Status(503, "SlowDown"), "threads"),
    "502-of-a-proxy": (Status(502), "server's log"),
    "reset": (NoAnswer("reset"), "endpoint"),
    "closed": (NoAnswer("close"), "endpoint"),
    "stall": (NoAnswer("stall"), "read_timeout"),
    "stall-in-the-body": (Cut(5000, "stall"), "read_timeout"),
    "reset-in-the-body": (Cut(5000, "reset"), "endpoint"),
    "trickle": (Trickle(), "network"),
    "truncated": (Cut(5000, "close"), "tries again"),
    "over-long": (Longer(100), "tries again"),
    "over-long-chunked": (Longer(100, chunked=True), "tries again"),
    "page-with-200": (Page(), "answers in the server's place"),
    "page-with-206": (Page(XHTML, keep_headers=True), "tries again"),
    "other-version": (Header("ETag", '"0123456789abcdef0123456789abcdef"'), "replaced"),
    "clock": (Status(403, "RequestTimeTooSkewed"), "NTP"),
    "credentials": (Status(403, "InvalidAccessKeyId"), "credentials_file"),
    "signature": (Status(403, "SignatureDoesNotMatch"), "credentials_file"),
    "bucket": (Status(404, "NoSuchBucket"), "create the bucket"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_read_fails_once_and_works_again_afterwards(place: Place, name: str, content: bytes) -> None:
    fault, remedy = FAULTS[name]
    path = place.file(content)
    said = len(place.store.log())
    place.s3.proxy.add(fault, on=GET)
    with errno_is(errno.EIO):
        path.read_bytes()
    assert path.stat().st_size == len(content)
    assert remedy in place.store.log()[said:]
    assert str(path.relative_to(place.store.path)) in place.store.log()[said:]
    place.s3.proxy.heal()
    assert path.read_bytes() == content
    wait_until(lambda: state(path) == "stored", "all of it is here, and verified")


def test_a_reader_who_has_it_open_goes_on_when_the_trouble_ends(place: Place) -> None:
    content = pattern(6 * MIB, seed=4)
    path = place.file(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(fd, 1000, 0) == content[:1000]
        place.s3.proxy.add(Status(503, "SlowDown"), on=GET)
        with errno_is(errno.EIO):
            os.pread(fd, 1000, 5 * MIB)
        place.s3.proxy.heal()
        assert os.pread(fd, 1000, 5 * MIB) == content[5 * MIB : 5 * MIB + 1000]
    finally:
        os.close(fd)


UPLOAD_FAULTS = ("403", "404", "429", "500", "503", "reset", "stall", "page-with-200", "clock", "credentials", "bucket")


@pytest.mark.parametrize("name", UPLOAD_FAULTS)
def test_an_upload_waits_for_the_end_of_the_trouble(place: Place, name: str) -> None:
    fault, remedy = FAULTS[name]
    place.s3.proxy.add(PageInstead() if name == "page-with-200" else fault, on=UPLOAD)
    place.number += 1
    path = place.rec / f"upload{place.number}"
    path.write_bytes(SMALL)

    def told() -> bool:
        rows = place.store.call("queue")["rows"]
        return any(remedy in (row["error"] or "") for row in rows)

    wait_until(told, f"`recfs queue` tells of {name!r}")
    assert place.store.status()["s3"]["problem"]
    assert path.read_bytes() == SMALL
    place.s3.proxy.heal()
    place.store.drain()
    assert state(path) == "stored"
    assert place.s3.data(place.store.inner(path)) == SMALL
    assert place.store.status()["s3"]["problem"] is None


def test_an_upload_whose_answer_was_replaced_counts_when_its_bytes_are_there(place: Place) -> None:
    place.s3.proxy.add(Page(), on=UPLOAD, times=1)
    place.number += 1
    path = place.rec / f"upload{place.number}"
    path.write_bytes(SMALL)
    place.store.drain()
    assert state(path) == "stored"
    place.s3.proxy.heal()
    assert place.s3.data(place.store.inner(path)) == SMALL


def test_a_large_upload_of_which_parts_fail_is_whole_in_the_end(place: Place) -> None:
    content = pattern(16 << 20, seed=3)
    path = place.rec / "in parts"
    for fault in (Status(503, "SlowDown"), NoAnswer("reset"), Status(500, "InternalError")):
        place.s3.proxy.add(fault, on=UPLOAD, times=1)
    path.write_bytes(content)
    place.store.drain()
    assert place.s3.data(place.store.inner(path)) == content
    assert place.s3.unfinished() == []


def test_the_endpoint_is_gone_and_comes_back(place: Place) -> None:
    path, other = place.file(SMALL), place.file(LARGE)
    with place.s3.proxy.refusing():
        for each in (path, other):
            with errno_is(errno.EIO):
                each.read_bytes()
        new = place.rec / "written meanwhile"
        new.write_bytes(LARGE)
        assert new.read_bytes() == LARGE
        (place.rec / "a directory").mkdir()
        assert path.stat().st_size == len(SMALL)
    assert wait_until(lambda: readable(path), "it can be read again") == SMALL
    assert wait_until(lambda: readable(other), "it can be read again") == LARGE
    place.store.drain()
    assert place.s3.data(place.store.inner(new)) == LARGE


def readable(path: Path) -> bytes | None:
    """Its bytes, if they can be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


# --- a mount of one's own -----------------------------------------------------------------------------------------


def test_a_missing_bucket_costs_nothing_but_time(s3: S3, store: Mount) -> None:
    """recfs starts, takes files, says what is wrong, and brings them up once somebody corrects it."""
    store.start(config=s3.config(s3={"bucket": f"{s3.name}-not"}))
    path = store.recording() / "file"
    path.write_bytes(SMALL)
    wait_until(lambda: "create the bucket" in str(store.status()["problems"]), "the trouble shows")
    assert b"create the bucket" in recfs("queue", "--root", store.root).stdout.replace(b"\n", b" ")
    assert xattr(path, "location") == "local"
    store.umount()
    store.start(config=s3.config())
    store.drain()
    assert s3.data(store.inner(path)) == SMALL


def test_wrong_credentials_cost_nothing_but_time(s3: S3, store: Mount) -> None:
    for code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        s3.proxy.add(Status(403, code))
    store.start(config=s3.config())
    path = store.recording() / "file"
    path.write_bytes(SMALL)
    wait_until(lambda: "credentials_file" in str(store.status()["problems"]), "the trouble shows")
    assert path.read_bytes() == SMALL
    store.umount()
    s3.proxy.heal()
    store.remount()
    store.drain()
    assert s3.data(store.inner(path)) == SMALL
