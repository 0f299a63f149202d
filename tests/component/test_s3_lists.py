"""Lists in pages, as servers of their own kind give them: nothing is overlooked, and nobody asks for ever."""

from __future__ import annotations

import urllib.parse

import pytest

from recfs.ports import object_errors as kinds
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_faults import Request, Xml
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.chaos_store import file, proxy, raised, store
from tests.helpers.s3_servers import moto_bucket, moto_server

__all__ = ["file", "moto_bucket", "moto_server", "proxy", "store"]

UPLOADS, PARTS, LIST = operation("GET", r"\?uploads"), operation("GET", "uploadId="), operation("GET", "list-type")
BY_ID = [("users/c", "1"), ("users/c", "2"), ("users/a", "3"), ("users/a", "4"), ("users/b", "5")]
"""(key, id) of uploads, as SeaweedFS orders them."""


def asked(request: Request) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.target).query))


def uploads(wanted: list[tuple[str, str]], following: str) -> str:
    """A page of a list of uploads; it goes on where *following* says."""
    each = "".join(
        f"<Upload><Key>{key}</Key><UploadId>{number}</UploadId><Initiated>2026-11-01T00:00:00Z</Initiated></Upload>"
        for key, number in wanted
    )
    truncated = str(bool(following)).lower()
    return (
        f"<ListMultipartUploadsResult><Bucket>b</Bucket><IsTruncated>{truncated}</IsTruncated>{following}{each}"
        "</ListMultipartUploadsResult>"
    )


def by_upload_id(request: Request) -> str:
    """SeaweedFS 4: in the order of the ids, two in a page; a key marker is taken for a filter."""
    marker, key = asked(request).get("upload-id-marker", ""), asked(request).get("key-marker", "")
    left = [each for each in BY_ID if each[1] > marker and key in ("", each[0])]
    more = len(left) > 2
    return uploads(left[:2], f"<NextUploadIdMarker>{left[1][1]}</NextUploadIdMarker>" if more else "")


def test_uploads_in_pages_that_name_no_key(store: S3Store, proxy: ChaosProxy) -> None:
    proxy.add(Xml(by_upload_id), on=UPLOADS)
    assert [(each.key, each.upload_id) for each in store.list_multiparts("users/")] == sorted(BY_ID)


@pytest.mark.parametrize("following", ["<NextUploadIdMarker>2</NextUploadIdMarker>", "<NextKeyMarker/>", " "])
def test_a_list_of_uploads_without_end_is_given_up(store: S3Store, proxy: ChaosProxy, following: str) -> None:
    proxy.add(Xml(lambda request: uploads(BY_ID[:2], following)), on=UPLOADS)
    raised(kinds.NotOffered, store.list_multiparts)
    assert len([request for request in proxy.requests if UPLOADS(request)]) <= 2


@pytest.mark.parametrize("following", ["<NextPartNumberMarker>1</NextPartNumberMarker>", ""])
def test_a_list_of_parts_that_does_not_go_on(store: S3Store, proxy: ChaosProxy, following: str) -> None:
    part = "<Part><PartNumber>1</PartNumber><ETag>e</ETag><Size>5</Size></Part>"
    page = f"<ListPartsResult><UploadId>u</UploadId><IsTruncated>true</IsTruncated>{following}{part}</ListPartsResult>"
    proxy.add(Xml(lambda request: page), on=PARTS)
    assert {each.number for each in store.list_parts("k", "u")} == {1}


def test_a_list_of_objects_that_begins_again(store: S3Store, proxy: ChaosProxy) -> None:
    page = (
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        "</ListBucketResult>"
    )
    proxy.add(Xml(lambda request: page), on=LIST)
    raised(kinds.BadAnswer, lambda: list(store.list()))
