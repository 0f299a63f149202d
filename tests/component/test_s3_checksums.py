"""How uploads are confirmed: by a server that verifies checksums, by one that ignores them, never by one that lies."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c
import pytest

from recfs.ports.object_errors import ChecksumMismatch, NotOffered, UploadInvalid
from recfs.ports.objects import MIB, ObjectInfo, ObjectMeta, PartInfo
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_faults import Checksums, Header, Page, Request
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

__all__ = ["moto_bucket", "moto_server"]

KEY = "users/5/recordings/142/source.mp4"
DATA = os.urandom(5 * MIB + 77)
META = ObjectMeta(sha256=hashlib.sha256(DATA).digest(), md5=hashlib.md5(DATA).digest())
PUT = operation("PUT")

MakeStore = Callable[..., S3Store]


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def crc32c(data: bytes) -> str:
    return b64(google_crc32c.value(data).to_bytes(4, "big"))


@pytest.fixture
def proxy(moto_server: str) -> Iterator[ChaosProxy]:
    with ChaosProxy(moto_server) as proxy:
        yield proxy


@pytest.fixture
def make_store(proxy: ChaosProxy, moto_bucket: Bucket) -> Iterator[MakeStore]:
    """Makes stores behind the proxy."""
    made: list[S3Store] = []

    def make(**settings: object) -> S3Store:
        made.append(moto_bucket.store(endpoint=proxy.url, **settings))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a file with DATA."""
    (tmp_path / "data").write_bytes(DATA)
    fd = os.open(tmp_path / "data", os.O_RDWR)
    yield fd
    os.close(fd)


def upload(store: S3Store, file: int) -> ObjectInfo:
    upload_id = store.start_multipart(KEY, META)
    parts = [
        store.upload_part(KEY, upload_id, 1, file, 0, 5 * MIB),
        store.upload_part(KEY, upload_id, 2, file, 5 * MIB, 77),
    ]
    assert store.list_parts(KEY, upload_id)
    return store.finish_multipart(KEY, upload_id, parts, META, len(DATA))


def puts(proxy: ChaosProxy) -> list[Request]:
    return [request for request in proxy.requests if request.method == "PUT"]


def heads(proxy: ChaosProxy) -> int:
    return sum(request.method == "HEAD" for request in proxy.requests)


# --- a server that verifies --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_file_goes_with_its_own_sha256(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Checksums())
    make_store().put_file(file, len(DATA), KEY, META)
    (put,) = puts(proxy)
    assert put.headers["x-amz-checksum-sha256"] == b64(hashlib.sha256(DATA).digest())
    assert "x-amz-trailer" not in put.headers
    assert heads(proxy) == 0, "the checksum proves the object; a HEAD would be a round trip for nothing"


@pytest.mark.slow
def test_without_a_known_sha256_the_crc_goes(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Checksums())
    make_store().put_file(file, len(DATA), KEY, ObjectMeta())
    assert puts(proxy)[0].headers["x-amz-checksum-crc32c"] == crc32c(DATA)
    assert heads(proxy) == 0


@pytest.mark.slow
def test_parts_go_with_their_crc(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Checksums())
    made = upload(make_store(), file)
    assert made.sha256 == META.sha256
    first, second = puts(proxy)
    assert first.headers["x-amz-checksum-crc32c"] == crc32c(DATA[: 5 * MIB])
    assert second.headers["x-amz-checksum-crc32c"] == crc32c(DATA[5 * MIB :])
    finish = next(request for request in proxy.requests if request.method == "POST" and b"<Part>" in request.body)
    assert f"<ChecksumCRC32C>{crc32c(DATA[: 5 * MIB])}</ChecksumCRC32C>".encode() in finish.body
    assert heads(proxy) == 1


def test_other_bytes_than_committed_are_refused(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Checksums())
    os.pwrite(file, b"rotten", 1000)
    with pytest.raises(ChecksumMismatch, match="BadDigest"):
        make_store().put_file(file, len(DATA), KEY, META)


@pytest.mark.parametrize("signing", ["on", "off"])
def test_a_payload_is_hashed_for_the_signature_or_not(
    make_store: MakeStore, proxy: ChaosProxy, file: int, signing: str
) -> None:
    proxy.add(Checksums())
    make_store(payload_signing=signing).put_file(file, len(DATA), KEY, META)
    wanted = hashlib.sha256(DATA).hexdigest() if signing == "on" else "UNSIGNED-PAYLOAD"
    assert puts(proxy)[0].headers["x-amz-content-sha256"] == wanted


def test_sha256_parts(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Checksums())
    upload(make_store(checksums="sha256"), file)
    assert puts(proxy)[1].headers["x-amz-checksum-sha256"] == b64(hashlib.sha256(DATA[5 * MIB :]).digest())


@pytest.mark.slow
def test_another_process_goes_on_with_the_same_checksums(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Checksums())
    upload_id = make_store().start_multipart(KEY, META)
    # moto does not tell in ListParts which algorithm an upload was started with; S3 does.
    proxy.heal()
    body = "<ListPartsResult><UploadId>x</UploadId><ChecksumAlgorithm>SHA256</ChecksumAlgorithm></ListPartsResult>"
    proxy.add(Page(body.encode()), on=operation("GET", "uploadId"), times=1)
    proxy.add(Checksums())
    part = make_store().upload_part(KEY, upload_id, 1, file, 0, 100)
    assert part.checksum == b64(hashlib.sha256(DATA[:100]).digest())


# --- a server that ignores ---------------------------------------------------------------------------------------


def test_a_server_that_ignores_checksums_is_found_out_once(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    store = make_store()
    store.put_file(file, len(DATA), KEY, META)
    store.put_file(file, len(DATA), KEY, META)
    first, second = puts(proxy)
    assert "x-amz-checksum-sha256" in first.headers
    assert not any(name.startswith("x-amz-checksum") for name in second.headers)
    assert {put.headers["x-amz-content-sha256"] for put in puts(proxy)} == {hashlib.sha256(DATA).hexdigest()}
    assert heads(proxy) == 0, "the etag is the file's MD5"


@pytest.mark.slow
def test_without_signing_the_bytes_go_again_with_md5(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    store = make_store(payload_signing="off")
    store.put_file(file, len(DATA), KEY, META)
    first, again = puts(proxy)
    assert "content-md5" not in first.headers
    assert again.headers["content-md5"] == b64(hashlib.md5(DATA).digest())
    upload(store, file)
    assert puts(proxy)[-1].headers["content-md5"] == b64(hashlib.md5(DATA[5 * MIB :]).digest())


@pytest.mark.slow
def test_over_tls_the_bytes_go_again_signed(
    make_store: MakeStore, proxy: ChaosProxy, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfs.stores.s3.link.signs_payload", lambda *_: False)  # as it is for https
    store = make_store()
    store.put_file(file, len(DATA), KEY, ObjectMeta())
    first, again = puts(proxy)
    assert first.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert again.headers["x-amz-content-sha256"] == hashlib.sha256(DATA).hexdigest()
    assert "content-md5" not in again.headers
    upload(store, file)
    assert puts(proxy)[-1].headers["x-amz-content-sha256"] == hashlib.sha256(DATA[5 * MIB :]).hexdigest()


@pytest.mark.slow
def test_over_tls_parts_that_went_unproven_go_again_too(
    make_store: MakeStore, proxy: ChaosProxy, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfs.stores.s3.link.signs_payload", lambda *_: False)
    upload(make_store(), file)  # moto names the algorithm when the upload starts, and then does nothing with it
    assert [put.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD" for put in puts(proxy)] == [True, False, False]


def test_nothing_known_of_the_file_and_nothing_confirmed(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    made = make_store().put_file(file, len(DATA), KEY, ObjectMeta())
    assert made.size_bytes == len(DATA)
    assert heads(proxy) == 1


@pytest.mark.parametrize("checksums", ["crc32c", "sha256"])
def test_checksums_that_were_asked_for_have_to_be_confirmed(make_store: MakeStore, file: int, checksums: str) -> None:
    with pytest.raises(NotOffered, match=f'checksums = "{checksums}" is ignored there'):
        make_store(checksums=checksums).put_file(file, len(DATA), KEY, META)


def test_checksums_off(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    store = make_store(checksums="off", payload_signing="off")
    store.put_file(file, len(DATA), KEY, META)
    upload(store, file)
    for put in puts(proxy):
        assert not any("checksum" in name or "md5" in name for name in put.headers if not name.startswith("x-amz-meta"))


# --- a server that lies ------------------------------------------------------------------------------------------


def test_another_confirmation_than_was_sent(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Header("x-amz-checksum-sha256", "AAAA"), on=PUT, times=1)
    with pytest.raises(ChecksumMismatch, match="stored AAAA"):
        make_store().put_file(file, len(DATA), KEY, META)
    proxy.add(Header("x-amz-checksum-crc32c", "AAAA"), on=PUT, times=1)
    with pytest.raises(ChecksumMismatch, match="stored AAAA"):
        upload(make_store(), file)


def test_another_etag_than_the_md5(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Header("ETag", f'"{"0" * 32}"'), on=PUT, times=1)
    with pytest.raises(ChecksumMismatch, match="MD5"):
        make_store().put_file(file, len(DATA), KEY, META)


@pytest.mark.slow
def test_another_size_or_etag_afterwards(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    for wrong in (Header("ETag", '"other-2"'), Header("Content-Length", "7")):
        proxy.add(wrong, on=operation("HEAD"), times=1)
        with pytest.raises(ChecksumMismatch, match="is there"):
            upload(make_store(), file)


def test_an_encrypted_objects_etag_is_no_md5(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    made = make_store(sse="aws:kms", kms_key="key-1").put_file(file, len(DATA), KEY, META)
    assert made.size_bytes == len(DATA)
    (put,) = puts(proxy)
    assert put.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert put.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"


# --- another process goes on -------------------------------------------------------------------------------------


def test_an_upload_goes_on_with_its_checksums_where_the_server_does_not_tell_them(
    make_store: MakeStore, proxy: ChaosProxy, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.add(Checksums())
    store = make_store()
    upload_id = store.start_multipart(KEY, META)
    first = store.upload_part(KEY, upload_id, 1, file, 0, 5 * MIB)
    other = make_store()
    page = other._list_parts_page

    def silent(*args: object, **more: object) -> dict[str, object]:
        answer = page(*args, **more)  # type: ignore[arg-type]
        return {name: value for name, value in answer.items() if name != "ChecksumAlgorithm"}

    monkeypatch.setattr(other, "_list_parts_page", silent)
    assert other.list_parts(KEY, upload_id, [first])
    second = other.upload_part(KEY, upload_id, 2, file, 5 * MIB, 77)
    assert second.checksum == crc32c(DATA[5 * MIB :])
    made = other.finish_multipart(KEY, upload_id, [first, second], META, len(DATA))
    assert made == make_store().finish_multipart(KEY, upload_id, [first, second], META, len(DATA)), "a third process"


def test_parts_with_and_without_checksums_make_no_object(make_store: MakeStore, proxy: ChaosProxy, file: int) -> None:
    proxy.add(Checksums())
    store = make_store()
    upload_id = store.start_multipart(KEY, META)
    parts = [store.upload_part(KEY, upload_id, 1, file, 0, 5 * MIB), PartInfo(2, "0" * 32, 77)]
    with pytest.raises(UploadInvalid):
        store.finish_multipart(KEY, upload_id, parts, META, len(DATA))
