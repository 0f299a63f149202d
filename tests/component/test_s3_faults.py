"""What goes wrong between recfs and an S3 server: for each one exception, one message with a remedy, no wrong bytes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recfs.ports import object_errors as kinds
from recfs.ports.object_errors import ObjectStoreError
from recfs.ports.objects import MIB, ObjectMeta
from recfs.stores.s3.faults import Target, faults
from recfs.stores.s3.store import S3Store
from tests.helpers.chaos_faults import (
    Cut,
    Deaf,
    Fault,
    Header,
    NoAnswer,
    Skew,
    Status,
    Trickle,
)
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.chaos_store import DATA, HEAD, KEY, LIST, META, PUT, file, impatient, proxy, raised, read, store
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

__all__ = ["file", "impatient", "moto_bucket", "moto_server", "proxy", "store"]


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[str]:
    """Endpoint of a server whose certificate is its own; it does the handshake, and no more."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    certificate = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (tmp_path / "tls.pem").write_bytes(
        certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            context.wrap_socket(connection, server_side=True)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(10)
    listener.close()


# --- refusals ----------------------------------------------------------------------------------------------------

REFUSALS = [
    (403, "InvalidAccessKeyId", kinds.WrongCredentials, "credentials_file"),
    (403, "SignatureDoesNotMatch", kinds.WrongCredentials, "credentials_file"),
    (400, "ExpiredToken", kinds.WrongCredentials, "credentials_file"),
    (403, "RequestTimeTooSkewed", kinds.ClockSkewed, "NTP"),
    (403, "AccessDenied", kinds.AccessRefused, "bucket policy"),
    (404, "NoSuchBucket", kinds.BucketMissing, "create the bucket"),
    (404, "NoSuchKey", kinds.ObjectMissing, "deleted"),
    (301, "PermanentRedirect", kinds.WrongRegion, "region"),
    (400, "AuthorizationHeaderMalformed", kinds.WrongRegion, "region"),
    (412, "PreconditionFailed", kinds.ObjectChanged, "replaced"),
    (403, "InvalidObjectState", kinds.ObjectArchived, "recfs restore"),
    (403, "ObjectNotInActiveTierError", kinds.ObjectArchived, "recfs restore"),
    (400, "KeyTooLongError", kinds.KeyTooLong, "1024"),
    (400, "EntityTooSmall", kinds.UploadInvalid, "5 MiB"),
    (404, "NoSuchUpload", kinds.UploadGone, "start again"),
    (400, "BadDigest", kinds.ChecksumMismatch, "memory"),
    (403, "QuotaExceeded", kinds.StoreFull, "quota"),
    (507, "XMinioStorageFull", kinds.StoreFull, "free space"),
    (405, "MethodNotAllowed", kinds.NotOffered, "does not offer"),
    (400, "InvalidStorageClass", kinds.NotOffered, "classes that this server has"),
    (409, "ExistingObjectIsDirectory", kinds.UploadInvalid, "only when the first is gone"),
    (501, "NotImplemented", kinds.NotOffered, "does not offer"),
    (429, "TooManyRequests", kinds.Throttled, "threads"),
    (503, "SlowDown", kinds.Throttled, "threads"),
    (400, "RequestTimeout", kinds.Stalled, "network"),
    (500, "InternalError", kinds.ServerFault, "server's log"),
    (503, "ServiceUnavailable", kinds.ServerFault, "server's log"),
    (400, "SomethingNew", kinds.RequestRefused, "report"),
    (403, "", kinds.AccessRefused, "bucket policy"),
    (400, "", kinds.BadAnswer, "port of [s3] endpoint"),
    (404, "", kinds.BadAnswer, "port of [s3] endpoint"),
    (412, "", kinds.ObjectChanged, "replaced"),
    (429, "", kinds.Throttled, "threads"),
    (500, "", kinds.ServerFault, "server's log"),
    (502, "", kinds.ServerFault, "server's log"),
    (503, "", kinds.ServerFault, "server's log"),
    (504, "", kinds.ServerFault, "server's log"),
]
TRY_AGAIN = {
    kinds.ChecksumMismatch,
    kinds.Throttled,
    kinds.Stalled,
    kinds.ServerFault,
    kinds.Unreachable,
    kinds.BadAnswer,
}


@pytest.mark.parametrize(("status", "code", "kind", "remedy"), REFUSALS, ids=lambda value: str(value)[:30])
@pytest.mark.table(6)
def test_what_the_server_says(
    store: S3Store, proxy: ChaosProxy, file: int, status: int, code: str, kind: type[ObjectStoreError], remedy: str
) -> None:
    proxy.add(Status(status, code))
    for call in (lambda: read(store), lambda: store.put_file(file, len(DATA), KEY, META)):
        error = raised(kind, call)
        assert remedy in str(error)
        assert error.code == code or str(status) in error.code
        assert error.retryable == (kind in TRY_AGAIN)
        assert error.outage == (kind in TRY_AGAIN - {kinds.ChecksumMismatch})
        assert KEY in str(error)
        assert proxy.url in str(error)


def test_every_kind_of_trouble_is_tested_or_comes_from_elsewhere() -> None:
    def leaves(kind: type[ObjectStoreError]) -> set[type[ObjectStoreError]]:
        below = kind.__subclasses__()
        return set().union(*map(leaves, below)) if below else {kind}

    elsewhere = {
        kinds.Unreachable,  # below
        kinds.Untrusted,  # below
        kinds.SourceChanged,  # contract
        kinds.TransferCancelled,  # contract
        kinds.StoreDown,  # test_s3_retry
        kinds.PrefixTaken,  # test_ownership
    }
    assert leaves(ObjectStoreError) == {kind for _, _, kind, _ in REFUSALS} | elsewhere


def test_an_internal_error_names_what_may_be_behind_it(
    store: S3Store, moto_bucket: Bucket, proxy: ChaosProxy, file: int
) -> None:
    encrypting = moto_bucket.store(endpoint=proxy.url, sse="AES256")
    proxy.add(Status(500, "InternalError"))
    for call in (
        lambda: encrypting.put_file(file, len(DATA), KEY, META),
        lambda: encrypting.put_small("mark", b"x", only_new=True),
        lambda: encrypting.start_multipart(KEY, META),
    ):
        assert 'leave out sse = "AES256"' in str(raised(kinds.ServerFault, call))
    assert "no room left" in str(raised(kinds.ServerFault, lambda: store.put_file(file, len(DATA), KEY, META)))
    assert str(raised(kinds.ServerFault, lambda: read(store))).endswith("look at the server's log")
    proxy.heal()
    proxy.add(Status(500, "InternalError"), on=PUT)
    assert "no room left" in str(raised(kinds.ServerFault, lambda: store.copy(KEY, "users/5/b", len(DATA))))
    encrypting.close()


@pytest.mark.parametrize(("length", "kind"), [(256, kinds.KeyTooLong), (255, kinds.ServerFault)])
def test_an_upload_that_never_ends_for_its_long_name(
    store: S3Store, proxy: ChaosProxy, file: int, length: int, kind: type[ObjectStoreError]
) -> None:
    key = "users/5/" + "x" * length
    upload_id = store.start_multipart(key, META)
    part = store.upload_part(key, upload_id, 1, file, 0, len(DATA))
    proxy.add(Status(500, "InternalError"), on=operation("POST", "uploadId="))
    with pytest.raises(kind):
        store.finish_multipart(key, upload_id, [part], META, len(DATA))


def test_who_answers_in_the_place_of_a_server_is_named(store: S3Store, proxy: ChaosProxy) -> None:
    proxy.add(Status(404, server="SeaweedFS Filer"))
    error = raised(kinds.BadAnswer, lambda: store.head("users/5/none"))
    assert "from SeaweedFS Filer" in str(error)
    assert "host and port of [s3] endpoint" in str(error)


def test_what_went_wrong_before_is_not_taken_for_the_cause() -> None:
    try:
        raise kinds.ObjectMissing("s3://bucket/k: no such object")
    except kinds.ObjectMissing:
        with pytest.raises(TypeError), faults(Target("bucket", "", "http://127.0.0.1"), "list the objects"):
            len(5)  # type: ignore[arg-type]


def test_the_right_region_is_named(store: S3Store, proxy: ChaosProxy) -> None:
    proxy.add(Header("x-amz-bucket-region", "eu-central-1", status=301))
    assert 'lives in region "eu-central-1"' in str(raised(kinds.WrongRegion, lambda: read(store)))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InvalidAccessKeyId", kinds.WrongCredentials),
        ("SignatureDoesNotMatch", kinds.WrongCredentials),
        ("RequestTimeTooSkewed", kinds.ClockSkewed),
        ("AccessDenied", kinds.AccessRefused),
    ],
)
@pytest.mark.table
def test_head_has_no_body_and_is_exact_all_the_same(
    store: S3Store, proxy: ChaosProxy, code: str, kind: type[ObjectStoreError]
) -> None:
    proxy.add(Status(403, code))
    raised(kind, lambda: store.head(KEY))


def test_a_missing_bucket_is_no_missing_object(store: S3Store, moto_bucket: Bucket) -> None:
    missing = moto_bucket.store(bucket="no-such-bucket")
    assert store.head("users/5/none") is None
    raised(kinds.BucketMissing, lambda: missing.head(KEY))
    raised(kinds.BucketMissing, lambda: missing.copy(KEY, "users/5/x", 1))
    raised(kinds.BucketMissing, lambda: list(missing.list()))
    raised(kinds.BucketMissing, lambda: missing.delete([KEY]))
    assert "no-such-bucket" in str(raised(kinds.BucketMissing, missing.check))
    missing.close()


def test_a_forbidden_object_in_a_readable_bucket(store: S3Store, proxy: ChaosProxy) -> None:
    proxy.add(Status(403), on=HEAD)
    raised(kinds.AccessRefused, lambda: store.head(KEY))


def test_no_credentials_at_all(moto_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    store = moto_bucket.store(credentials_file=None)
    raised(kinds.WrongCredentials, store.check)
    with pytest.raises(kinds.WrongCredentials, match="credentials_file"):
        moto_bucket.store(credentials_file=tmp_path / "none")
    with pytest.raises(kinds.WrongCredentials, match="nobody"):
        moto_bucket.store(profile="nobody")
    store.close()


# --- the connection ----------------------------------------------------------------------------------------------


def test_refused(store: S3Store, proxy: ChaosProxy) -> None:
    with proxy.refusing():
        error = raised(kinds.Unreachable, lambda: read(store))
    assert "refused" in str(error)
    assert "endpoint" in str(error)
    assert read(store) == DATA


def test_an_unknown_host(moto_bucket: Bucket) -> None:
    store = moto_bucket.store(endpoint="http://s3.example.invalid:9000")
    assert "host name not known" in str(raised(kinds.Unreachable, store.check))
    store.close()


@pytest.mark.parametrize("end", ["reset", "close"])
def test_no_answer(store: S3Store, proxy: ChaosProxy, file: int, end: str) -> None:
    proxy.add(NoAnswer(end))
    for call in (lambda: read(store), lambda: store.head(KEY), lambda: store.put_file(file, len(DATA), KEY, META)):
        raised(kinds.Unreachable, call)


@pytest.mark.slow
def test_nothing_is_taken(proxy: ChaosProxy, moto_bucket: Bucket, tmp_path: Path) -> None:
    store = moto_bucket.store(endpoint=proxy.url, connect_timeout=0.3, read_timeout=0.3)
    proxy.add(Deaf())
    with open(tmp_path / "large", "w+b") as large:
        large.truncate(30 * MIB)  # beyond what the sockets of both sides hold
        error = raised(kinds.Stalled, lambda: store.put_file(large.fileno(), 30 * MIB, KEY, ObjectMeta()))
    assert "takes no more" in str(error)
    store.close()


@pytest.mark.slow
def test_nothing_comes(impatient: S3Store, proxy: ChaosProxy, file: int) -> None:
    proxy.add(NoAnswer("stall"))
    for call in (
        lambda: read(impatient),
        lambda: impatient.head(KEY),
        lambda: impatient.put_file(file, len(DATA), KEY, META),
    ):
        assert "read_timeout" in str(raised(kinds.Stalled, call))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Cut(100_000, "reset"), kinds.Unreachable),
        (Cut(100_000, "stall"), kinds.Stalled),
        (Trickle(), kinds.Stalled),
    ],
    ids=["reset", "stall", "trickle"],
)
def test_the_body_stops(
    store: S3Store, impatient: S3Store, proxy: ChaosProxy, fault: Fault, kind: type[ObjectStoreError]
) -> None:
    proxy.add(fault)
    raised(kind, lambda: read(impatient))
    proxy.heal()
    assert read(store) == DATA


@pytest.mark.parametrize("sent", [0, 5])
def test_a_small_object_that_breaks_off_is_none(store: S3Store, proxy: ChaosProxy, sent: int) -> None:
    """A piece of the mark would say that the prefix is somebody else's."""
    store.put_small(KEY, b"a small object", only_new=False)
    proxy.add(Cut(sent), times=1)
    assert "broke off" in str(raised(kinds.BadAnswer, lambda: store.get_small(KEY)))
    assert store.get_small(KEY) == b"a small object"


@pytest.mark.slow
def test_a_certificate_nobody_vouches_for(moto_bucket: Bucket, tls_server: str, tmp_path: Path) -> None:
    store = moto_bucket.store(endpoint=tls_server)
    error = raised(kinds.Untrusted, store.check)
    assert "ca_bundle" in str(error)
    assert not error.retryable
    store.close()


def test_no_tls_at_the_other_end(moto_bucket: Bucket) -> None:
    store = moto_bucket.store(endpoint=moto_bucket.endpoint.replace("http:", "https:"))
    assert "TLS" in str(raised(kinds.Unreachable, store.check))
    store.close()


# --- check -------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_off_is_seen_before_the_server_minds(store: S3Store, proxy: ChaosProxy) -> None:
    assert store.check().warnings == ()
    proxy.add(Skew(-300), on=LIST)
    report = store.check()
    assert report.skew_s == pytest.approx(-300, abs=10)
    assert "NTP" in report.warnings[0]


def test_unverified_tls_is_mentioned(moto_bucket: Bucket) -> None:
    store = moto_bucket.store(verify=False)
    assert "verify = false" in store.check().warnings[0]
    store.close()


def test_only_large_bodies_wait_for_a_go_ahead(store: S3Store, proxy: ChaosProxy, tmp_path: Path) -> None:
    with open(tmp_path / "large", "w+b") as large:
        large.truncate(MIB)
        store.put_file(large.fileno(), MIB, KEY, ObjectMeta())
    expects = [request.headers.get("expect") for request in proxy.requests if request.method == "PUT"]
    assert expects == [None, "100-continue"]


def test_an_early_refusal_ends_a_large_upload(store: S3Store, proxy: ChaosProxy, tmp_path: Path) -> None:
    with open(tmp_path / "large", "w+b") as large:
        large.truncate(20 * MIB)
        proxy.add(Status(503, "SlowDown"), times=1)
        raised(kinds.Throttled, lambda: store.put_file(large.fileno(), 20 * MIB, KEY, ObjectMeta()))
