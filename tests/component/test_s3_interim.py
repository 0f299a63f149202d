"""Answers of status 1xx before the real one, as proxies and servers may send them (RFC 9110, 15.2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.ports import object_errors as kinds
from recfs.ports.objects import ObjectMeta
from recfs.stores.s3.interim import MOST
from recfs.stores.s3.store import S3Store
from recfs.stores.s3.wire import EXPECT_BYTES
from tests.helpers.chaos_faults import Interim, Status
from tests.helpers.chaos_proxy import ChaosProxy
from tests.helpers.chaos_store import DATA, GET, KEY, META, PUT, file, impatient, proxy, raised, read, store
from tests.helpers.s3_servers import moto_bucket, moto_server

__all__ = ["file", "impatient", "moto_bucket", "moto_server", "proxy", "store"]

HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"
SEVERAL = HINTS + b"".join(
    b"HTTP/1.1 %b\r\n\r\n" % status for status in (b"102 Processing", b"100 Continue", b"103 Early Hints", b"199 X")
)
REFUSAL = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def _used(store: S3Store, file: int) -> None:
    """Requests of both kinds: those that recfs makes itself, and those of boto3."""
    store.put_file(file, len(DATA), KEY, META)
    assert read(store) == DATA
    assert store.head(KEY) is not None
    assert KEY in [each.key for each in store.list()]
    store.delete([KEY])
    assert store.head(KEY) is None


@pytest.mark.parametrize("interim", [HINTS, SEVERAL, HINTS * MOST], ids=["one", "several", "many"])
@pytest.mark.table
def test_interim_answers_are_passed_over(store: S3Store, proxy: ChaosProxy, file: int, interim: bytes) -> None:
    proxy.add(Interim(interim))
    _used(store, file)
    proxy.heal()
    _used(store, file)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a file that is sent once the server wants it."""
    (tmp_path / "large").write_bytes(os.urandom(EXPECT_BYTES))
    fd = os.open(tmp_path / "large", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("early", [HINTS, SEVERAL, b""], ids=["hints", "with a continue", "none"])
def test_a_body_that_waits_for_100_is_sent_after_it(
    store: S3Store, proxy: ChaosProxy, large: int, early: bytes
) -> None:
    proxy.add(Interim(HINTS, early=early), on=PUT)
    store.put_file(large, EXPECT_BYTES, KEY, ObjectMeta())
    proxy.heal()
    assert read(store, 0, EXPECT_BYTES) == os.pread(large, EXPECT_BYTES, 0)


@pytest.mark.parametrize("answer", [HINTS, b""], ids=["after hints", "at once"])
def test_a_refusal_in_place_of_100_is_the_answer(store: S3Store, proxy: ChaosProxy, large: int, answer: bytes) -> None:
    proxy.add(Interim(early=answer + REFUSAL), on=PUT, times=1)
    raised(kinds.ServerFault, lambda: store.put_file(large, EXPECT_BYTES, KEY, ObjectMeta()))
    assert read(store) == DATA


@pytest.mark.slow
@pytest.mark.parametrize("on", [GET, PUT], ids=["get", "put"])
def test_interim_answers_without_end_are_a_bad_answer(
    impatient: S3Store, proxy: ChaosProxy, file: int, on: object
) -> None:
    """For as long as an answer is waited for, or so many that nobody means them."""
    for interim in (HINTS, HINTS * (MOST + 1)):
        proxy.add(Interim(interim, endless=True), times=1, on=on)  # type: ignore[arg-type]
        call = (lambda: read(impatient)) if on is GET else (lambda: impatient.put_file(file, len(DATA), KEY, META))
        error = raised(kinds.BadAnswer, call)
        assert "1xx" in str(error)
    assert read(impatient) == DATA


@pytest.mark.slow
def test_boto3s_own_requests_are_bounded_as_well(impatient: S3Store, proxy: ChaosProxy) -> None:
    for interim in (HINTS, HINTS * (MOST + 1)):
        proxy.heal()
        proxy.add(Interim(interim, endless=True))
        assert "1xx" in str(raised(kinds.BadAnswer, lambda: impatient.head(KEY)))


def test_a_change_of_protocol_is_no_answer(store: S3Store, proxy: ChaosProxy, large: int) -> None:
    proxy.add(Status(101), times=1)
    assert "101" in str(raised(kinds.BadAnswer, lambda: read(store)))
    proxy.add(Status(101), times=1)
    assert "101" in str(raised(kinds.BadAnswer, lambda: store.head(KEY)))
    proxy.add(Interim(early=b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), times=1)
    assert "101" in str(raised(kinds.BadAnswer, lambda: store.put_file(large, EXPECT_BYTES, "large", ObjectMeta())))
    assert read(store) == DATA
