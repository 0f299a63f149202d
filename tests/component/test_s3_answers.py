"""Answers that are none: wrong bodies, error pages with status 200, lost confirmations; and trouble of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from recfs.errors import IoFailure, OutOfSpace
from recfs.ports import object_errors as kinds
from recfs.ports.objects import LifecycleRule, ObjectMeta
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_faults import (
    HTML,
    XHTML,
    Cut,
    Fault,
    Header,
    Longer,
    NoAnswer,
    Page,
    Status,
)
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.chaos_store import DATA, GET, KEY, META, file, proxy, raised, read, store
from tests.helpers.s3_servers import moto_bucket, moto_server

__all__ = ["file", "moto_bucket", "moto_server", "proxy", "store"]

# --- wrong bodies ------------------------------------------------------------------------------------------------

WRONG: dict[str, Fault] = {
    "nothing": Cut(0),
    "truncated": Cut(299_999),
    "longer": Longer(1),
    "much longer": Longer(1_000_000),
    "longer, chunked": Longer(1, chunked=True),
    "longer by a chunk": Longer(1, chunked=True, apart=True),
    "whole, chunked": Longer(0, chunked=True),
    "an error page": Page(HTML),
    "an error page in XML": Page(XHTML),
    "an error page under the object's headers": Page(HTML, keep_headers=True),
    "another range": Header("Content-Range", "bytes 1-300000/300001"),
    "no range": Header("Content-Range", None),
    "no etag": Header("ETag", None),
}


@pytest.mark.parametrize("name", [name for name in WRONG if name != "whole, chunked"])
@pytest.mark.table(3)
def test_a_wrong_body_is_never_handed_out(store: S3Store, proxy: ChaosProxy, name: str) -> None:
    proxy.add(WRONG[name], on=GET, times=1)
    raised(kinds.BadAnswer, lambda: read(store))
    assert read(store) == DATA, "the connection was left with rests of the wrong answer"


def test_a_chunked_body_of_the_right_length_is_fine(store: S3Store, proxy: ChaosProxy) -> None:
    proxy.add(WRONG["whole, chunked"], on=GET, times=1)
    assert read(store) == DATA
    proxy.add(WRONG["longer, chunked"], on=GET, times=1)
    raised(kinds.BadAnswer, lambda: read(store, 10, 100))


@pytest.mark.slow
def test_more_bytes_than_announced_do_not_reach_the_next_answer(store: S3Store, proxy: ChaosProxy) -> None:
    proxy.add(Longer(1000, honest=False), on=GET, times=1)
    assert read(store) == DATA
    assert read(store, 5, 10) == DATA[5:15]


def test_an_object_that_is_shorter_than_the_catalogue_says(store: S3Store) -> None:
    raised(kinds.ObjectChanged, lambda: read(store, 0, len(DATA) + 1))
    raised(kinds.ObjectChanged, lambda: read(store, len(DATA), 1))


def test_a_server_that_ignores_conditions_is_seen_through(store: S3Store, proxy: ChaosProxy) -> None:
    info = store.head(KEY)
    assert info is not None
    proxy.add(Header("ETag", '"another"'), on=GET, times=1)
    buffer = memoryview(bytearray(10))
    raised(kinds.ObjectChanged, lambda: store.get_range(KEY, 0, 10, if_match=info.etag, into=buffer))
    proxy.add(Header("X-Ranges", "ignored", status=200), on=GET)
    raised(kinds.BadAnswer, lambda: store.get_range(KEY, 5, 10, if_match=info.etag, into=buffer))
    assert store.get_range(KEY, 0, 10, if_match=info.etag, into=buffer) == 10
    assert buffer == DATA[:10]


@pytest.mark.parametrize("page", [HTML, XHTML], ids=["html", "xhtml"])
@pytest.mark.table
def test_error_pages_with_status_200_are_no_success(store: S3Store, proxy: ChaosProxy, file: int, page: bytes) -> None:
    upload_id = store.start_multipart(KEY, META)
    part = store.upload_part(KEY, upload_id, 1, file, 0, len(DATA))
    proxy.add(Page(page))
    calls: list[Callable[[], object]] = [
        lambda: store.head(KEY),
        lambda: store.put_file(file, len(DATA), KEY, META),
        lambda: store.start_multipart(KEY, META),
        lambda: store.upload_part(KEY, upload_id, 1, file, 0, len(DATA)),
        lambda: store.finish_multipart(KEY, upload_id, [part], META, len(DATA)),
        lambda: store.list_parts(KEY, upload_id),
        store.list_multiparts,
        lambda: store.copy(KEY, "users/5/x", len(DATA)),
        lambda: store.delete([KEY]),
        lambda: list(store.list()),
        lambda: store.get_tags(KEY),
        store.get_lifecycle,
        lambda: store.put_lifecycle([LifecycleRule("x", expire_days=1)]),
        store.check,
    ]
    for call in calls:
        raised(kinds.BadAnswer, call)


# --- uploads -----------------------------------------------------------------------------------------------------


def test_a_confirmation_that_never_came_is_asked_for_again(store: S3Store, proxy: ChaosProxy, file: int) -> None:
    """The server finished the upload, and the answer was lost: finishing again finds the object there."""
    upload_id = store.start_multipart(KEY, META)
    part = store.upload_part(KEY, upload_id, 1, file, 0, len(DATA))
    proxy.add(NoAnswer(), on=operation("POST", "uploadId"), times=1)
    raised(kinds.Unreachable, lambda: store.finish_multipart(KEY, upload_id, [part], META, len(DATA)))
    proxy.add(Status(404, "NoSuchUpload"), on=operation("POST", "uploadId"), times=1)
    made = store.finish_multipart(KEY, upload_id, [part], META, len(DATA))
    assert (made.size_bytes, made.sha256) == (len(DATA), META.sha256)


def test_local_trouble_is_not_the_networks(store: S3Store, file: int, tmp_path: Path) -> None:
    writable_only = os.open(tmp_path / "closed", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(IoFailure, match="cannot read the file being uploaded"):
        store.put_file(writable_only, 10, KEY, ObjectMeta())
    with pytest.raises(IoFailure, match="local disk"):
        store.get_range(KEY, 0, 10, if_match=None, into=file)
    os.close(writable_only)
    with open("/dev/full", "wb") as full, pytest.raises(OutOfSpace):
        store.get_range(KEY, 0, 10, if_match=None, into=full.fileno())
    assert read(store) == DATA


def test_deleting_reports_each_key(store: S3Store, proxy: ChaosProxy) -> None:
    body = (
        b"<DeleteResult><Deleted><Key>a</Key></Deleted>"
        b"<Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        b"<Error><Key>c</Key><Code>SlowDown</Code></Error></DeleteResult>"
    )
    proxy.add(Page(body), on=operation("POST", "delete"))
    failed = {key: type(error) for key, error in store.delete(["a", "b", "c", "d"])}
    assert failed == {"b": kinds.AccessRefused, "c": kinds.Throttled, "d": kinds.BadAnswer}
