"""[s3] sse and kms_key: every new object asks for what they say, and for nothing where they say nothing."""

from __future__ import annotations

import pytest

from recfs.ports.objects import ObjectMeta
from tests.helpers.chaos_faults import Request
from tests.helpers.chaos_proxy import ChaosProxy
from tests.helpers.chaos_store import DATA, META, file, proxy
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

__all__ = ["file", "moto_bucket", "moto_server", "proxy"]

HEADERS = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")


def encryption(request: Request) -> tuple[str | None, str | None]:
    algorithm, key = (request.headers.get(name) for name in HEADERS)
    return algorithm, key


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, (None, None)),
        ({"sse": "AES256"}, ("AES256", None)),
        ({"sse": "aws:kms", "kms_key": "key-1"}, ("aws:kms", "key-1")),
    ],
    ids=["none", "AES256", "kms"],
)
def test_every_new_object_asks_for_it(
    moto_bucket: Bucket, proxy: ChaosProxy, file: int, settings: dict[str, str], wanted: tuple[str | None, str | None]
) -> None:
    store = moto_bucket.store(endpoint=proxy.url, **settings)
    store.put_file(file, len(DATA), "users/5/a", META)
    store.copy("users/5/a", "users/5/b", len(DATA))
    store.abort_multipart("users/5/c", store.start_multipart("users/5/c", ObjectMeta()))
    store.put_small(".recfs/mark", b"{}", only_new=True)
    made = [request for request in proxy.requests if request.method == "PUT" or request.target.endswith("?uploads")]
    assert [encryption(request) for request in made] == [wanted] * 4
    store.close()
