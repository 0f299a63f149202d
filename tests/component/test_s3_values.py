"""The S3 store's pure parts: part sizes, keys, metadata, [s3] settings; and lifecycle rules that are not recfs's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from recfs.config import S3Section
from recfs.core.keys import key_for, path_for
from recfs.ports.object_errors import TransferCancelled
from recfs.ports.objects import (
    MAX_OBJECT_BYTES,
    MAX_PARTS,
    MIB,
    LifecycleRule,
    ObjectMeta,
    PartInfo,
    RestoreState,
    part_size,
)
from recfs.stores.s3 import client as s3_client
from recfs.stores.s3.answers import moments
from recfs.stores.s3.answers.moments import moment
from recfs.stores.s3.etags import etag_of_parts
from recfs.stores.s3.meta import content_type, from_metadata, restore_state, to_metadata
from recfs.stores.s3.store import S3Store
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

__all__ = ["moto_bucket", "moto_server"]

# --- part sizes --------------------------------------------------------------------------------------------------


@given(st.integers(0, MAX_OBJECT_BYTES), st.integers(5 * MIB, 64 * MIB))
def test_ten_thousand_parts_are_always_enough(size: int, minimum: int) -> None:
    part = part_size(size, minimum)
    assert part >= minimum
    assert part % MIB == 0
    assert -(-size // part) <= MAX_PARTS
    assert part - MIB < max(minimum, -(-size // MAX_PARTS))


def test_known_part_sizes() -> None:
    assert part_size(0) == part_size(1 << 30) == 8 * MIB
    assert part_size(8 * MIB * MAX_PARTS + 1) == 9 * MIB
    assert part_size(MAX_OBJECT_BYTES) == 525 * MIB
    with pytest.raises(ValueError, match="5 TiB"):
        part_size(MAX_OBJECT_BYTES + 1)


def test_etags_of_parts() -> None:
    parts = [PartInfo(1, "0cc175b9c0f1b6a831c399e269772661", 1), PartInfo(2, "92eb5ffee6ae2fec3ad71c777531578f", 1)]
    assert etag_of_parts(parts) == "96e024ba2074fe77e8e965ba43a704be-2"
    assert etag_of_parts([PartInfo(1, "not-an-md5", 1)]) is None


# --- keys --------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1).filter(lambda path: b"\0" not in path))
def test_any_path_has_a_key_and_comes_back(path: bytes) -> None:
    key = key_for(path)
    key.encode("utf-8")
    assert path_for(key) == path


def survives(char: str) -> bool:
    """Whether servers leave it alone, and recfs does not use it for what they do not."""
    return char not in "\\\x7f\ufffe\uffff" and ord(char) >= 0x20 and not 0xF700 <= ord(char) <= 0xF7FF


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")))
def test_utf8_names_are_their_own_keys(name: str) -> None:
    if all(survives(char) for char in name):
        assert key_for(name.encode()) == name


@given(st.binary(min_size=1).filter(lambda path: b"\0" not in path))
def test_keys_have_nothing_that_servers_change_or_refuse(path: bytes) -> None:
    key = key_for(path)
    assert all(survives(char) or 0xF700 < ord(char) <= 0xF7FF for char in key)
    assert key.count("/") == path.count(b"/")


def test_a_backslash_has_a_key_of_its_own() -> None:
    assert key_for(rb"a\b") == "a\uf75cb"
    assert len({key_for(name) for name in (rb"a\b", b"a/b", "a\uf75cb".encode(), b"a\\\\b")}) == 4


def test_names_that_look_escaped_keep_apart() -> None:
    raw, looks = b"a\xff", key_for(b"a\xff").encode()
    assert key_for(raw) != key_for(looks)
    assert path_for(key_for(looks)) == looks


# --- metadata ----------------------------------------------------------------------------------------------------

metas = st.builds(
    ObjectMeta,
    sha256=st.none() | st.binary(min_size=32, max_size=32),
    md5=st.none() | st.binary(min_size=16, max_size=16),
    original_filename=st.none() | st.binary(),
    uploaded_ns=st.none() | st.integers(0, 4 * 10**18),
    mode=st.none() | st.integers(0, 0o7777),
    owner=st.none() | st.text(alphabet=st.characters(codec="utf-8")),
    mtime_ns=st.none() | st.integers(-(10**18), 4 * 10**18),
)


@given(metas)
def test_metadata_comes_back_and_is_fit_for_headers(meta: ObjectMeta) -> None:
    written = to_metadata(meta)
    assert from_metadata(written) == meta
    for value in written.values():
        assert value.isascii()
        assert value == value.strip()
        assert value.isprintable()


@given(st.dictionaries(st.sampled_from(sorted(to_metadata(ObjectMeta(b"", b"", b"", 0, 0, "", 0)))), st.text()))
def test_foreign_metadata_is_not_trusted(metadata: dict[str, str]) -> None:
    from_metadata(metadata)


def test_metadata_as_it_is_written() -> None:
    name = "Übung 1.mp4".encode()
    meta = ObjectMeta(b"\x01" * 32, b"\x02" * 16, name, 1_793_880_000_000_000_001, 0o100644, "5", 1_500_000_000)
    assert to_metadata(meta) == {
        "checksum-sha256": "01" * 32,
        "checksum-md5": "02" * 16,
        "original-filename": "%C3%9Cbung%201.mp4",
        "upload-timestamp": "2026-11-05T12:00:00.000000001Z",
        "mode": "0644",
        "owner": "5",
        "mtime": "1.500000000",
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("users/5/recordings/1/source.MP4", "video/mp4"),
        ("a.mkv", "video/x-matroska"),
        ("a.mp3", "audio/mpeg"),
        ("a.m4a", "audio/mp4"),
        ("a.srt", "application/x-subrip"),
        ("a.vtt", "text/vtt"),
        ("a.json", "application/json"),
        ("a.png", "image/png"),
        ("a.tar.gz", "application/octet-stream"),
        ("a.b/c", "application/octet-stream"),
        ("unknown.xyz123", "application/octet-stream"),
    ],
)
def test_content_types(name: str, kind: str) -> None:
    assert content_type(name) == kind


@pytest.mark.parametrize(
    ("storage_class", "header", "state"),
    [
        ("STANDARD", None, None),
        ("GLACIER", None, RestoreState.ARCHIVED),
        ("DEEP_ARCHIVE", 'ongoing-request="true"', RestoreState.RESTORING),
        ("GLACIER", 'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"', RestoreState.RESTORED),
        ("GLACIER_IR", None, None),
    ],
)
def test_restore_states(storage_class: str, header: str | None, state: RestoreState | None) -> None:
    assert restore_state(storage_class, header) is state


# --- settings ----------------------------------------------------------------------------------------------------


def test_defaults() -> None:
    section = S3Section(bucket="media")
    assert (section.prefix, section.part_size, section.threads, section.sse) == ("", 8 * MIB, 8, "none")
    assert S3Section(bucket="media", prefix="/studio/main/").prefix == "studio/main/"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bucket": "s3://media"}, "not a bucket name"),
        ({"bucket": "media", "prefix": "a//b"}, "a prefix is a path"),
        ({"bucket": "media", "prefix": "../b"}, "a prefix is a path"),
        ({"bucket": "media", "endpoint": "s3.example.org"}, "scheme and host only"),
        ({"bucket": "media", "endpoint": "https://s3.example.org/media"}, "scheme and host only"),
        ({"bucket": "media", "endpoint": "https://key:secret@s3.example.org"}, "scheme and host only"),
        ({"bucket": "media", "part_size": "4 MiB"}, "greater than or equal"),
        ({"bucket": "media", "kms_key": "k"}, "aws:kms"),
        ({"bucket": "media", "verify": False, "ca_bundle": "/etc/ca.pem"}, "no effect"),
        ({"bucket": "media", "tags": {str(n): "" for n in range(11)}}, "up to 10 tags"),
        ({"bucket": "media", "secret_key": "s"}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        S3Section(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signing", "endpoint", "signed"),
    [
        ("auto", "http://127.0.0.1", True),
        ("auto", "https://s3.example.org", False),
        ("off", "http://127.0.0.1", False),
        ("on", "https://s3.example.org", True),
    ],
)
def test_payload_signing(signing: str, endpoint: str, signed: bool) -> None:
    section = S3Section(bucket="media", endpoint=endpoint, payload_signing=signing)  # type: ignore[arg-type]
    assert s3_client.signs_payload(section, endpoint) is signed


@pytest.fixture
def store(moto_bucket: Bucket) -> Iterator[S3Store]:
    store = moto_bucket.store()
    yield store
    store.close()


def url_of(bucket: Bucket, **settings: object) -> str:
    store = bucket.store(**settings)
    url = store.presign("users/5/x", "GET", 60)
    store.close()
    return url


def test_addressing(moto_bucket: Bucket) -> None:
    name = moto_bucket.name
    assert url_of(moto_bucket).startswith(f"{moto_bucket.endpoint}/{name}/users/5/x?")
    elsewhere = {"endpoint": "https://s3.example.org", "prefix": "p"}
    assert url_of(moto_bucket, **elsewhere).startswith(f"https://s3.example.org/{name}/p/users/5/x?")
    virtual = url_of(moto_bucket, addressing="virtual", **elsewhere)
    assert virtual.startswith(f"https://{name}.s3.example.org/p/users/5/x?")
    aws = url_of(moto_bucket, endpoint=None, region="eu-central-1")
    assert aws.startswith(f"https://{name}.s3.eu-central-1.amazonaws.com/users/5/x?")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in aws


def test_an_endpoint_of_the_environment_counts(moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example.org:9000")
    assert url_of(moto_bucket, endpoint=None).startswith(f"http://s3.example.org:9000/{moto_bucket.name}/users/5/x?")


@pytest.mark.slow
def test_the_file_of_the_config_goes_before_the_environment(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert "recfs-test-access" in url_of(moto_bucket)
    assert "from-the-environment" in url_of(moto_bucket, credentials_file=None)


def test_a_profile(moto_bucket: Bucket, tmp_path: Path) -> None:
    file = tmp_path / "profiles"
    file.write_text("[other]\naws_access_key_id = other-key\naws_secret_access_key = x\n")
    assert "other-key" in url_of(moto_bucket, credentials_file=file, profile="other")


# --- what a server is sent ---------------------------------------------------------------------------------------


def test_new_objects_get_what_the_section_says(moto_bucket: Bucket, tmp_path: Path) -> None:
    store = moto_bucket.store(prefix="p", storage_class="STANDARD_IA", sse="AES256", tags={"by": "recfs"})
    (tmp_path / "file").write_bytes(b"x")
    with open(tmp_path / "file", "rb") as file:
        put = store.put_file(file.fileno(), 1, "users/5/a.mp4", ObjectMeta(tags={"and": "more"}))
    found = moto_bucket.client.head_object(Bucket=moto_bucket.name, Key="p/users/5/a.mp4")
    assert put.storage_class == found["StorageClass"] == "STANDARD_IA"
    assert found["ServerSideEncryption"] == "AES256"
    assert found["ContentType"] == "video/mp4"
    assert store.get_tags("users/5/a.mp4") == {"by": "recfs", "and": "more"}
    store.close()


def test_others_lifecycle_rules_stay(store: S3Store, moto_bucket: Bucket) -> None:
    other = {"ID": "backup", "Status": "Enabled", "Filter": {"Prefix": "other/"}, "Expiration": {"Days": 3}}
    client, name = moto_bucket.client, moto_bucket.name
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [other]})
    assert store.get_lifecycle() == ()
    store.put_lifecycle([LifecycleRule("uploads", abort_multipart_days=7)])
    store.put_lifecycle([LifecycleRule("uploads", abort_multipart_days=9)])
    rules = client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert sorted(rule["ID"] for rule in rules) == ["backup", "recfs-uploads"]
    assert store.get_lifecycle() == (LifecycleRule("recfs-uploads", abort_multipart_days=9),)
    store.put_lifecycle([])
    rules = client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert [rule["ID"] for rule in rules] == ["backup"]


def test_restoring(store: S3Store, moto_bucket: Bucket) -> None:
    client, name = moto_bucket.client, moto_bucket.name
    client.put_object(Bucket=name, Key="users/5/cold", Body=b"x", StorageClass="GLACIER")
    found = store.head("users/5/cold")
    assert found is not None
    assert found.restore_state is RestoreState.ARCHIVED
    store.restore("users/5/cold", 2)
    again = store.head("users/5/cold")
    assert again is not None
    assert again.restore_state in (RestoreState.RESTORING, RestoreState.RESTORED)


def test_a_copy_keeps_the_class_whatever_new_objects_get(moto_bucket: Bucket) -> None:
    store = moto_bucket.store(storage_class="STANDARD_IA")
    moto_bucket.client.put_object(Bucket=moto_bucket.name, Key="users/5/a", Body=b"x")
    assert store.copy("users/5/a", "users/5/b", 1).storage_class == "STANDARD"
    assert store.copy("users/5/a", "users/5/a", 1, meta=ObjectMeta()).storage_class == "STANDARD_IA"
    store.close()


@pytest.mark.slow
def test_a_large_copy_goes_in_parts_and_keeps_everything(
    store: S3Store, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3Store, "_copy_limit", 6 * MIB)
    monkeypatch.setattr(S3Store, "_copy_part", 5 * MIB)
    data = bytes(range(256)) * (7 * MIB // 256)
    moto_bucket.client.put_object(
        Bucket=moto_bucket.name,
        Key="users/5/a",
        Body=data,
        Metadata={"mode": "0600"},
        ContentType="video/mp4",
        CacheControl="no-store",
        StorageClass="STANDARD_IA",
        Tagging="a=b",
    )
    made = store.copy("users/5/a", "users/5/b", len(data))
    assert made.etag.endswith("-2")
    found = moto_bucket.client.get_object(Bucket=moto_bucket.name, Key="users/5/b")
    assert found["Body"].read() == data
    assert found["Metadata"] == {"mode": "0600"}
    assert (found["ContentType"], found["CacheControl"]) == ("video/mp4", "no-store")
    assert made.storage_class == "STANDARD_IA"
    assert store.get_tags("users/5/b") == {"a": "b"}
    assert list(store.list_multiparts()) == []


def test_a_copy_in_parts_that_is_cancelled_leaves_nothing(
    store: S3Store, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3Store, "_copy_limit", 1)
    moto_bucket.client.put_object(Bucket=moto_bucket.name, Key="users/5/a", Body=b"ab")
    with pytest.raises(TransferCancelled):
        store.copy("users/5/a", "users/5/b", 2, cancel=lambda: True)
    assert list(store.list_multiparts()) == []
    assert store.head("users/5/b") is None


# --- dates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "2026-12-01T04:26:11.123Z", "2026-12-01T04:26:11Z", "2026-12-01T07:26:11.5+03:00", "2026-12-01T04:26:11",
        "Tue, 01 Dec 2026 04:26:11 GMT", "20261201T042611Z", "1796099171", "1796099171.5", 1796099171,
        "1970-01-01T00:00:00.000Z",
        "9999-12-31T23:59:59Z",
    ],
)  # fmt: skip
def test_dates_are_what_botocore_makes_of_them(value: str | int) -> None:
    assert moment(value) == parse_timestamp(value)
    assert moment(value).timestamp() == parse_timestamp(value).timestamp()


@pytest.mark.parametrize("value", ["", "T", "yesterday", "2026-13-01T00:00:00Z"])
def test_what_is_no_date_is_refused_as_botocore_does(value: str) -> None:
    for read in (moment, parse_timestamp):
        with pytest.raises(ValueError, match="timestamp"):
            read(value)


def test_dates_of_a_list_are_read_without_botocore(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_small("users/4/a", b"a", only_new=True)
    monkeypatch.setattr(moments, "parse_timestamp", lambda value: pytest.fail(f"{value!r} is given to botocore"))
    (found,) = store.list()
    assert abs(found.last_modified_ns - time.time_ns()) < 600 * 10**9
