"""Finding out what an S3 server offers: what is said of servers that lack something, and that nothing is left."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recfs.config import S3Section, load_config
from recfs.stores.s3.features import integrity
from recfs.stores.s3.features.endpoint import who_answers
from recfs.stores.s3.features.model import OFFERED, Feature, Finding, Outcome, Seen, Weight, absent, found, wrong
from recfs.stores.s3.features.room import HIDDEN, HIDDEN_PLACE, PLACE, Room, crc32c_in_base64
from recfs.stores.s3.features.run import FEATURES, Run, find_out
from recfs.stores.s3.features.wants import Wants
from recfs.stores.s3.meta import b64
from tests.helpers.chaos_faults import Checksums, Cut, Fault, Interim, NoAnswer, Page, Request, Status
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.s3_servers import Bucket, credentials_file, moto_bucket, moto_server, plain_client

__all__ = ["moto_bucket", "moto_server"]

WRONG = {crc32c_in_base64(integrity.OTHER), b64(hashlib.sha256(integrity.OTHER).digest())}
HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n"
NAMED = {each.name: each for each in FEATURES}


@pytest.fixture
def proxy(moto_server: str) -> Iterator[ChaosProxy]:
    """A way to moto that can go wrong."""
    with ChaosProxy(moto_server) as proxy:
        yield proxy


def section_of(bucket: Bucket, proxy: ChaosProxy, **settings: Any) -> S3Section:
    return bucket.section(**{"endpoint": proxy.url, "prefix": "studio", "read_timeout": 5.0} | settings)


def try_only(section: S3Section, *names: str, wants: Wants | None = None) -> dict[str, Finding]:
    """What is found of these features."""
    features = tuple(NAMED[name] for name in names)
    run = Run(section, wants or Wants(), within_s=60, clean_s=20, features=features)
    run.start()
    assert run.wait(90)
    assert run.result.left == ()
    return {each.feature.name: each for each in run.result.findings}


def remains(bucket: Bucket) -> list[str]:
    """Keys and uploads that are there, and buckets of doctor's."""
    objects = bucket.client.list_objects_v2(Bucket=bucket.name).get("Contents", ())
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ())
    buckets = [each["Name"] for each in bucket.client.list_buckets()["Buckets"]]
    return [each["Key"] for each in (*objects, *uploads)] + [
        each for each in buckets if each.startswith("recfs-doctor")
    ]


# --- what is said of a server ----------------------------------------------------------------------------------------

_RESTORE, _TAGS = operation("POST", r"\?restore"), operation("", "tagging")


def _encrypted(request: Request) -> bool:
    return "x-amz-server-side-encryption" in request.headers


def _second_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber=2" in request.target


def _completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId=" in request.target


def _announces_others(request: Request) -> bool:
    """Checksums of other bytes than those that follow."""
    return request.method == "PUT" and not WRONG.isdisjoint(request.headers.values())


_SERVERS: tuple[tuple[str, Fault, Any, Outcome, str], ...] = (
    ("upload resumed", Status(404, "NoSuchUpload"), _second_part, Outcome.ABSENT, "NoSuchUpload"),
    ("upload resumed", Status(400, "InvalidRequest"), _completion, Outcome.ABSENT, "InvalidRequest"),
    ("upload resumed", Status(403, "AccessDenied"), _completion, Outcome.UNTRIED, "AccessDenied"),
    ("upload dropped", Status(204), operation("DELETE", "uploadId="), Outcome.WRONG, "still there"),
    ("unfinished uploads listed", Status(501, "NotImplemented"), operation("GET", "uploads"), Outcome.ABSENT, "NotImp"),
    ("restore", Status(405, "MethodNotAllowed"), _RESTORE, Outcome.ABSENT, "MethodNotAllowed"),
    ("restore", Status(501, "NotImplemented"), _RESTORE, Outcome.ABSENT, "NotImplemented"),
    ("tags", Status(501, "NotImplemented"), _TAGS, Outcome.ABSENT, "NotImplemented"),
    ("tags", Status(403, "AccessDenied"), _TAGS, Outcome.UNTRIED, "AccessDenied"),
    ("encryption, AES256", Status(500, "InternalError"), _encrypted, Outcome.ABSENT, "no key to encrypt with"),
    ("lifecycle: transitions", Status(501, "NotImplemented"), operation("PUT", "lifecycle"), Outcome.ABSENT, "NotImp"),
    (
        "lifecycle: transitions",
        Status(403, "AccessDenied"),
        operation("", "lifecycle"),
        Outcome.UNTRIED,
        "AccessDenied",
    ),
    ("name of 255 bytes", Status(400, "KeyTooLongError"), operation("PUT", "nnn"), Outcome.ABSENT, "KeyTooLongError"),
    ("many deleted at once", Status(501, "NotImplemented"), operation("POST", "delete"), Outcome.ABSENT, "NotImpl"),
    ("metadata", Page(), operation("HEAD"), Outcome.ABSENT, "S3 server"),
    ("presigned URL", Status(403, "SignatureDoesNotMatch"), operation("GET", "X-Amz-Signature"), Outcome.ABSENT, "403"),
    ("ranges", Cut(1), operation("GET", "ranges"), Outcome.ABSENT, "ended after 1 of 3 bytes"),
    (
        "unfinished uploads listed",
        Interim(HINTS, endless=True),
        operation("GET", "uploads"),
        Outcome.UNTRIED,
        "interim",
    ),
    ("copy", Cut(1), operation("GET", "/to"), Outcome.UNTRIED, "lost"),
    ("presigned URL", NoAnswer("reset"), operation("GET", "X-Amz-Signature"), Outcome.UNTRIED, "not fetched"),
    ("ranges", NoAnswer("reset"), operation("GET", "ranges"), Outcome.UNTRIED, "connection lost"),
    ("checksum kept", Checksums(), None, Outcome.OFFERED, ""),
    ("wrong checksum refused", Status(400, "BadDigest"), _announces_others, Outcome.OFFERED, ""),
    ("wrong checksum refused", Checksums(), None, Outcome.WRONG, "it refuses the bytes, and keeps them"),
)


def _shown(value: object) -> str:
    """Without the address of a function: all workers of a run have to see the same names."""
    return str(getattr(value, "__name__", value))[:30]


@pytest.mark.table(2)
@pytest.mark.parametrize(("name", "fault", "on", "outcome", "detail"), _SERVERS, ids=_shown)
def test_what_is_said_of_a_server_that_lacks_something(
    moto_bucket: Bucket, proxy: ChaosProxy, name: str, fault: Fault, on: Any, outcome: Outcome, detail: str
) -> None:
    proxy.add(fault, on=on)
    section = section_of(moto_bucket, proxy)
    run = Run(section, Wants(), within_s=60, clean_s=20, features=(NAMED[name],))
    run.start()
    assert run.wait(90)
    [finding] = run.result.findings
    assert (finding.outcome, detail in finding.detail) == (outcome, True), finding.detail


_MAKING = (
    *("encryption, AES256", "upload resumed", "checksums of parts listed", "copy", "copy in parts", "metadata"),
    *("conditional copy", "storage classes", "wrong Content-MD5 refused", "name below another"),
)
"""Features whose attempts make objects in all the ways there are."""


@pytest.mark.slow
def test_a_server_that_cannot_encrypt_as_configured_is_told_once(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    proxy.add(Status(500, "InternalError"), on=_encrypted)
    findings = try_only(section_of(moto_bucket, proxy, sse="AES256"), *_MAKING, wants=Wants(sse="AES256"))
    assert findings["encryption, AES256"].weight is Weight.FAILURE
    assert [name for name, each in findings.items() if each.weight is Weight.FAILURE] == ["encryption, AES256"]
    assert findings["upload resumed"].outcome is Outcome.OFFERED


@pytest.mark.slow
def test_a_bucket_that_takes_encrypted_objects_only_gets_no_others(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    """As a bucket's policy may demand."""

    def is_plain(request: Request) -> bool:
        makes = (request.method == "PUT" and "partNumber" not in request.target) or request.target.endswith("?uploads")
        return makes and "doctor-" in request.target and not _encrypted(request)

    proxy.add(Status(403, "AccessDenied"), on=is_plain)
    findings = try_only(section_of(moto_bucket, proxy, sse="AES256"), *_MAKING, wants=Wants(sse="AES256"))
    assert Outcome.UNTRIED not in {each.outcome for each in findings.values()}


@pytest.mark.slow
def test_a_server_that_fails_once_by_chance_is_asked_again(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    proxy.add(Status(503, "SlowDown"), times=1, on=operation("PUT"))
    assert try_only(section_of(moto_bucket, proxy), "ranges")["ranges"].outcome is Outcome.OFFERED


@pytest.mark.slow
def test_rules_of_others_keep_the_lifecycle_from_being_tried(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    rule = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 9}}
    moto_bucket.client.put_bucket_lifecycle_configuration(
        Bucket=moto_bucket.name, LifecycleConfiguration={"Rules": [rule]}
    )
    seen = try_only(section_of(moto_bucket, proxy), "lifecycle: transitions")["lifecycle: transitions"]
    assert (seen.outcome, "rules of others" in seen.detail) == (Outcome.UNTRIED, True)
    assert not [each for each in proxy.requests if each.method == "PUT"]


# --- how much it matters ---------------------------------------------------------------------------------------------


def _weight(name: str, seen: Seen, wants: Wants) -> Weight:
    return found(NAMED[name], seen, wants).weight


def test_what_a_configuration_asks_for_weighs_more() -> None:
    no = absent("")
    assert _weight("restore", no, Wants()) is Weight.NOTE
    assert _weight("restore", no, Wants(archive=True)) is Weight.FAILURE
    assert _weight("lifecycle: transitions", no, Wants(transitions=True)) is Weight.FAILURE
    assert _weight("encryption, AES256", no, Wants()) is Weight.NOTHING
    assert _weight("encryption, AES256", no, Wants(sse="AES256")) is Weight.FAILURE
    assert _weight("encryption, aws:kms", no, Wants(sse="AES256")) is Weight.NOTHING
    assert _weight("tags", no, Wants(tags=True)) is Weight.FAILURE
    assert _weight("storage classes", wrong(""), Wants(classes=frozenset({"COLD"}))) is Weight.FAILURE
    assert _weight("upload resumed", no, Wants()) is Weight.FAILURE
    assert _weight("upload resumed", OFFERED, Wants()) is Weight.NOTHING
    assert _weight("upload resumed", Seen(Outcome.UNTRIED), Wants()) is Weight.NOTE


@pytest.mark.slow
def test_where_archive_classes_are_labels_nothing_has_to_be_restored(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    names, wants = ("archive classes", "restore"), Wants(archive=True)
    proxy.add(Status(405, "MethodNotAllowed"), on=_RESTORE)
    section = section_of(moto_bucket, proxy)
    weights = {name: each.weight for name, each in try_only(section, *names, wants=wants).items()}
    assert weights == {"archive classes": Weight.NOTHING, "restore": Weight.FAILURE}
    proxy.add(Page(page=b"of a storage class", keep_headers=False), on=operation("GET", "archive-classes"))
    weights = {name: each.weight for name, each in try_only(section, *names, wants=wants).items()}
    assert weights == {"archive classes": Weight.WARNING, "restore": Weight.NOTE}


def test_what_a_configuration_asks_for_is_read_from_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "recfs.conf").write_text(
        f'root = "{tmp_path}/store"\n[s3]\nbucket = "media"\nstorage_class = "STANDARD_IA"\nsse = "AES256"\n'
        'tags = {a = "b"}\n[lifecycle]\ntransitions = [{after = "90d", storage_class = "GLACIER"}]\n'
        '[[route]]\npattern = "users/**"\nto = "s3"\nstorage_class = "ONEZONE_IA"\n'
    )
    wants = Wants.of(load_config(tmp_path / "recfs.conf"))
    assert wants == Wants(frozenset({"STANDARD_IA", "ONEZONE_IA"}), True, True, True, "AES256")


def test_every_feature_says_what_it_means_and_what_to_do() -> None:
    assert len(NAMED) == len(FEATURES)
    for each in FEATURES:
        assert each.without.strip(" .") == each.without
        assert each.remedy
        assert "|" not in each.name + each.without


@pytest.mark.slow
def test_a_server_that_looks_at_no_bytes_at_all_is_a_warning(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    section = section_of(moto_bucket, proxy)
    weights = {name: each.weight for name, each in try_only(section, *sorted(integrity.WATCHES)).items()}
    assert sorted(weights.values()) == [Weight.NOTE, Weight.NOTE, Weight.WARNING]
    proxy.add(Status(400, "BadDigest"), on=_announces_others)
    weights = {name: each.weight for name, each in try_only(section, *sorted(integrity.WATCHES)).items()}
    assert Weight.WARNING not in weights.values()


# --- its end ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 25, 90])
def test_a_run_that_is_stopped_leaves_nothing(moto_bucket: Bucket, proxy: ChaosProxy, after: int) -> None:
    run = Run(section_of(moto_bucket, proxy), Wants(), within_s=60, clean_s=20)
    asked = iter(range(10_000))

    def stop(_request: Request) -> bool:
        if next(asked) == after:
            run.stop()
        return False

    proxy.add(Fault(), on=stop)
    run.start()
    assert run.wait(60)
    assert run.result.left == ()
    assert remains(moto_bucket) == []
    assert Outcome.UNTRIED in {each.outcome for each in run.result.findings}


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending", [operation("POST", "delete"), operation("DELETE"), operation("GET", "doctor-[^/]+/&")]
)
def test_a_run_that_is_stopped_while_it_tidies_up_goes_on_with_that(
    moto_bucket: Bucket, proxy: ChaosProxy, ending: Any
) -> None:
    run = Run(section_of(moto_bucket, proxy), Wants(), within_s=60, clean_s=20, features=(NAMED["ranges"],))

    def stop(request: Request) -> bool:
        if ending(request):
            run.stop()
        return False

    proxy.add(Fault(), on=stop)
    run.start()
    assert run.wait(60)
    assert (run.result.left, remains(moto_bucket)) == ((), [])


@pytest.mark.slow
def test_a_server_that_is_gone_is_not_asked_again_and_again(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    section = section_of(moto_bucket, proxy)
    asked = iter(range(10_000))
    proxy.add(NoAnswer("reset"), on=lambda _request: next(asked) >= 20)
    run = Run(section, Wants(), within_s=600, clean_s=1)
    run.start()
    assert run.wait(60)
    assert len(proxy.requests) < 80
    assert "does not answer" in run.result.findings[-1].detail


@pytest.mark.slow
def test_in_a_bucket_that_locks_new_objects_nothing_is_tried(
    moto_server: str, proxy: ChaosProxy, tmp_path: Path
) -> None:
    """They would stay for as long as they are locked."""
    with plain_client(moto_server) as client:
        name = f"locked-{os.getpid()}"
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}
        lock = {"ObjectLockEnabled": "Enabled", "Rule": retention}
        client.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=lock)
        bucket = Bucket(moto_server, name, client, tmp_path)
        result = find_out(section_of(bucket, proxy), Wants(), within_s=60, clean_s=20)
    seen = {each.feature.name: each for each in result.findings}
    assert (seen["new objects not locked"].outcome, seen["new objects not locked"].weight) == (
        Outcome.ABSENT,
        Weight.WARNING,
    )
    assert "30 days (GOVERNANCE)" in seen["new objects not locked"].detail
    assert (seen["ranges"].outcome, "would stay" in seen["ranges"].detail) == (Outcome.UNTRIED, True)
    assert not [each for each in proxy.requests if each.method in ("PUT", "POST", "DELETE")]


@pytest.mark.slow
def test_whoever_ends_the_wait_leaves_nothing_either(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    """Ctrl-C comes while a request hangs that has been carried out."""
    proxy.add(NoAnswer("stall"), times=1, on=operation("PUT", "ranges"))

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_out(
            section_of(moto_bucket, proxy, read_timeout=2.0), Wants(), within_s=60, clean_s=20, meanwhile=interrupted
        )
    assert remains(moto_bucket) == []


@pytest.mark.slow
def test_a_server_that_falls_silent_is_given_up_in_time(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    asked = iter(range(10_000))
    proxy.add(NoAnswer("stall"), on=lambda _request: next(asked) >= 15)
    section = section_of(moto_bucket, proxy, read_timeout=0.5, connect_timeout=0.5)
    result = find_out(section, Wants(), within_s=2, clean_s=1)
    assert result.left
    assert "doctor-" in " ".join(result.left) or "nothing came" in " ".join(result.left)
    assert Outcome.UNTRIED in {each.outcome for each in result.findings}


@pytest.mark.slow
def test_of_a_server_that_never_answered_nothing_is_said_to_be_left(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    with proxy.refusing():
        result = find_out(section_of(moto_bucket, proxy), Wants(), within_s=5, clean_s=5)
    assert result.left == ()
    assert {each.outcome for each in result.findings} == {Outcome.UNTRIED}


@pytest.mark.slow
def test_what_a_killed_run_has_left_is_removed_an_hour_later(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    old = f"studio/{PLACE}0123456789abcdef/"
    keys = [f"{old}a", f"studio/{PLACE}0123", *(f"{old}{HIDDEN_PLACE}{name}" for name in HIDDEN)]
    for key in (*keys, "studio/users/5/film.mp4", "studio/.recfs/store.json"):
        moto_bucket.client.put_object(Bucket=moto_bucket.name, Key=key, Body=b"x")
    room = Room(section_of(moto_bucket, proxy), Wants(), until=time.monotonic() + 60)
    assert room.sweep(time.time_ns()) == 0
    moto_bucket.client.create_multipart_upload(Bucket=moto_bucket.name, Key=f"{old}b")
    assert room.sweep(time.time_ns() + 2 * 3600 * 10**9) == 2
    room.clean(within_s=10)
    assert sorted(remains(moto_bucket)) == ["studio/.recfs/store.json", "studio/users/5/film.mp4"]


@pytest.mark.slow
def test_a_bucket_that_the_first_object_makes_is_removed_again(moto_bucket: Bucket, proxy: ChaosProxy) -> None:
    class Making(Fault):
        """As SeaweedFS: what is put into a bucket that is not there makes it."""

        def change(self, request: Request, answer: Any) -> Any:
            return answer

    def makes(request: Request) -> bool:
        name = request.target.split("/")[1].partition("?")[0]
        if name.startswith("recfs-doctor-") and request.method == "PUT":
            moto_bucket.client.create_bucket(Bucket=name)
        return True

    proxy.add(Making(), on=makes)
    seen = try_only(section_of(moto_bucket, proxy), "missing bucket refused")["missing bucket refused"]
    assert (seen.outcome, seen.detail) == (Outcome.ABSENT, "the first object makes the bucket")
    assert remains(moto_bucket) == []


@pytest.mark.slow
def test_an_attempt_that_does_not_understand_an_answer_is_one_attempts_trouble(moto_bucket: Bucket) -> None:
    def attempt(room: Room, at: str) -> Seen:
        raise KeyError("NextKeyMarker")

    features = (Feature("odd", attempt, "it is odd", "nothing"), NAMED["etag is the MD5"])
    run = Run(moto_bucket.section(), Wants(), within_s=60, clean_s=20, features=features)
    run.start()
    assert run.wait(60)
    odd, etag = run.result.findings
    assert (odd.outcome, "KeyError" in odd.detail) == (Outcome.ABSENT, True)
    assert etag.outcome is Outcome.OFFERED


# --- what answers in the place of a server ---------------------------------------------------------------------------

_PAGES = (
    ({}, "<html><title>SeaweedFS Filer 30GB 4.48</title></html>", "SeaweedFS's filer"),
    ({"Server": "SeaweedFS Volume 30GB 4.48"}, "", "a volume server"),
    ({}, "<title>SeaweedFS 30GB 4.48</title>", "SeaweedFS's master"),
    ({"Server": "MinIO Console"}, "<title>MinIO Console</title>", "MinIO's console"),
    (
        {"Server": "nginx/1.22.1"},
        "<title>Welcome to\n nginx!</title>",
        "a web server (Server: nginx/1.22.1, a page titled",
    ),
    ({}, "Client sent an HTTP request to an HTTPS server.", "wants https://"),
    ({}, "", "a web server"),
    ({}, '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', None),
    ({}, '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">', None),
    ({}, "<s3:Error xmlns:s3='x'><Code>AccessDenied</Code></s3:Error>", None),
)


@pytest.mark.parametrize(("headers", "page", "told"), _PAGES, ids=lambda value: str(value)[:24])
def test_what_answers_at_an_endpoint(tmp_path: Path, headers: dict[str, str], page: str, told: str | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "", ""

        def do_GET(self) -> None:
            self.send_response_only(404 if "list-type" in self.path else 200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_address[1]}"
            section = S3Section(bucket="media", endpoint=endpoint, credentials_file=credentials_file(tmp_path))
            said = who_answers(section)
        finally:
            server.shutdown()
            thread.join()
    assert said is None if told is None else told in (said or "")


def test_nobody_is_told_of_where_nobody_answers(tmp_path: Path) -> None:
    section = S3Section(bucket="media", endpoint="http://127.0.0.1:1", credentials_file=credentials_file(tmp_path))
    assert who_answers(section) is None
