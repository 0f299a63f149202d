"""Requests that recfs makes itself: signed as botocore signs them, sent to where boto3 would send them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.config import S3Section
from recfs.ports.object_errors import ObjectStoreError, WrongCredentials
from recfs.ports.objects import ObjectMeta
from recfs.stores.s3.signing import UNSIGNED, Signer
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_proxy import ChaosProxy
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

__all__ = ["moto_bucket", "moto_server"]

EXAMPLE = SimpleNamespace(
    access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", token=None
)
"""Of Amazon's documentation."""
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_example_of_the_documentation() -> None:
    headers = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9"}
    now = datetime(2013, 5, 24, tzinfo=UTC)
    assert Signer("us-east-1").sign("GET", "/test.txt", {}, headers, EMPTY, EXAMPLE, now) == ""
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


class Botocore(botocore.auth.S3SigV4Auth):
    """With a payload that is known, not read."""

    def payload(self, request: Any) -> str:
        return str(request.context["payload"])


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@given(
    path=st.sampled_from(["/bucket/a", "/users/5/%20x/~y", "/a//b/../c"]),
    query=st.dictionaries(st.sampled_from(["uploadId", "partNumber", "a b"]), TEXT),
    values=st.dictionaries(st.sampled_from(["x-amz-meta-name", "x-amz-tagging", "content-type", "range"]), TEXT),
    token=st.sampled_from([None, "token/of+a=session"]),
    payload=st.sampled_from([UNSIGNED, EMPTY]),
)
def test_signed_as_botocore_signs(
    path: str, query: dict[str, str], values: dict[str, str], token: str | None, payload: str
) -> None:
    credentials = botocore.credentials.Credentials("access", "secret", token)
    headers = {"host": "s3.example.org:9000", **values}
    ours = dict(headers)
    sent = Signer("eu-west-2").sign("PUT", path, query, ours, payload, credentials)
    request = botocore.awsrequest.AWSRequest("PUT", f"https://s3.example.org:9000{path}{sent and '?'}{sent}", headers)
    request.context["payload"] = payload
    signer = Botocore(credentials, "s3", "eu-west-2")
    request.context["timestamp"] = ours["x-amz-date"]
    signer._modify_request_before_signing(request)
    del request.headers["X-Amz-Date"]
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert ours["authorization"].endswith(f"Signature={signature}")


def test_a_new_day_and_new_credentials_are_signed_with_their_own_keys() -> None:
    signer, other = Signer("us-east-1"), SimpleNamespace(access_key="other", secret_key="another", token=None)
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in (20, 21, 20)]
    signed = []
    for credentials in (EXAMPLE, other, EXAMPLE):
        for now in days:
            headers = {"host": "h"}
            signer.sign("GET", "/", {}, headers, UNSIGNED, credentials, now)
            signed.append(headers["authorization"])
    assert signed[0] == signed[2] == signed[6]
    assert len(set(signed)) == 4


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "data").write_bytes(b"some bytes")
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    yield fd
    os.close(fd)


def sent_to(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """(URL, headers) of a GET with these settings, which is not sent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    caught: list[tuple[str, dict[str, Any]]] = []

    def urlopen(_self: object, _method: str, url: str, headers: dict[str, Any], **_: object) -> None:
        caught.append((url, headers))
        raise ConnectionResetError

    monkeypatch.setattr("urllib3.PoolManager.urlopen", urlopen)
    store = S3Store(S3Section(**settings))
    with pytest.raises(ObjectStoreError):
        store.get_range("a b/\u00e4", 0, 1, if_match=None, into=memoryview(bytearray(1)))
    store.close()
    return caught[0]


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"endpoint": "http://[::1]:9000"}, "http://[::1]:9000/media/studio/a%20b/%C3%A4"),
        ({"endpoint": "https://s3.example.org"}, "https://s3.example.org/media/studio/a%20b/%C3%A4"),
        ({"endpoint": "https://s3.example.org:443"}, "https://s3.example.org/media/studio/a%20b/%C3%A4"),
        (
            {"endpoint": "https://s3.example.org", "addressing": "virtual"},
            "https://media.s3.example.org/studio/a%20b/%C3%A4",
        ),
        ({"region": "eu-central-1"}, "https://media.s3.eu-central-1.amazonaws.com/studio/a%20b/%C3%A4"),
        (
            {"region": "eu-central-1", "addressing": "path"},
            "https://s3.eu-central-1.amazonaws.com/media/studio/a%20b/%C3%A4",
        ),
    ],
)
def test_where_requests_go(settings: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, headers = sent_to({"bucket": "media", "prefix": "studio", **settings}, monkeypatch)
    assert sent == url
    assert headers["Host"] == url.split("/")[2]
    assert f"/{settings.get('region', 'us-east-1')}/s3/" in headers["authorization"]


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3Store(S3Section(bucket="media", endpoint="http://127.0.0.1:9"))
    with pytest.raises(WrongCredentials):
        store.get_range("a", 0, 1, if_match=None, into=memoryview(bytearray(1)))
    store.close()


def test_through_a_proxy(moto_bucket: Bucket, moto_server: str, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChaosProxy(moto_server) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        store = moto_bucket.store()
        store.put_file(file, 10, "through", ObjectMeta())
        got = bytearray(10)
        store.get_range("through", 0, 10, if_match=None, into=memoryview(got))
        assert bytes(got) == b"some bytes"
        asked = [request.method for request in proxy.requests]
        assert asked[0] == "PUT"
        assert asked[-1] == "GET"
        store.close()
