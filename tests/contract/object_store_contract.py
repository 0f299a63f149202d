"""The contract of the ObjectStore port, run by every store, real and fake.

A class that runs it gives a `store` fixture (empty, for one test) and may say in `lacks` which features its server gets
wrong, and how: those tests are skipped with that reason.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from recfs.ports.object_errors import (
    ChecksumMismatch,
    KeyTooLong,
    NotOffered,
    ObjectChanged,
    ObjectMissing,
    SourceChanged,
    TransferCancelled,
    UploadGone,
    UploadInvalid,
)
from recfs.ports.objects import MIB, LifecycleRule, ObjectInfo, ObjectMeta, ObjectStore, PartInfo
from recfs.stores.s3.meta import from_metadata

Source = Callable[[bytes], int]
PATH = "users/5/recordings/142/source.mp4"
METADATA_NAMES = "checksum-sha256 checksum-md5 original-filename upload-timestamp mode owner mtime"


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def meta_of(data: bytes, **more: object) -> ObjectMeta:
    return ObjectMeta(sha256=hashlib.sha256(data).digest(), md5=hashlib.md5(data).digest(), **more)  # type: ignore[arg-type]


def read_all(store: ObjectStore, info: ObjectInfo) -> bytes:
    buffer = bytearray(info.size_bytes)
    if buffer:
        store.get_range(info.key, 0, info.size_bytes, if_match=info.etag, into=memoryview(buffer))
    return bytes(buffer)


class ObjectStoreContract:
    """Every promise of `ObjectStore`."""

    lacks: ClassVar[Mapping[str, str]] = {}

    def needs(self, feature: str) -> None:
        if reason := self.lacks.get(feature):
            pytest.skip(f"{feature}: {reason}")

    @pytest.fixture
    def source(self, tmp_path: os.PathLike[str]) -> Iterator[Source]:
        """Makes files; gives their descriptors."""
        opened: list[int] = []

        def make(data: bytes) -> int:
            fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
            opened.append(fd)
            os.write(fd, data)
            return fd

        yield make
        for fd in opened:
            os.close(fd)

    def put(self, store: ObjectStore, source: Source, key: str, data: bytes, **more: object) -> ObjectInfo:
        return store.put_file(source(data), len(data), key, meta_of(data, **more))

    def parts(self, store: ObjectStore, source: Source, key: str, data: bytes, step: int) -> tuple[str, list[PartInfo]]:
        fd, upload_id = source(data), store.start_multipart(key, meta_of(data, tags={"a": "b"}))
        ranges = enumerate(range(0, len(data), step), 1)
        return upload_id, [
            store.upload_part(key, upload_id, number, fd, offset, min(step, len(data) - offset))
            for number, offset in ranges
        ]

    # --- the server's own checksum ---------------------------------------------------------------------------------

    keeps_checksums: ClassVar[bool] = False
    """Whether the server keeps the sha256 of what is put in one request, and says it when it is asked."""

    def test_the_servers_own_checksum_is_told_who_asks(self, store: ObjectStore, source: Source) -> None:
        self.put(store, source, PATH, b"data")
        for asked in (False, True):
            found = store.head(PATH, checksum=asked)
            assert found is not None
            told = asked and self.keeps_checksums
            assert found.stored_sha256 == (hashlib.sha256(b"data").digest() if told else None)

    # --- put, head, get ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 5000, 3 * MIB + 7], ids=["empty", "byte", "small", "blocks"])
    def test_bytes_come_back_as_they_went_in(self, store: ObjectStore, source: Source, size: int) -> None:
        data = data_of(size)
        put = self.put(store, source, PATH, data)
        found = store.head(PATH)
        assert found is not None
        assert (
            (found.key, found.size_bytes, found.etag) == (PATH, size, put.etag) == (put.key, put.size_bytes, put.etag)
        )
        assert found.sha256 == put.sha256 == hashlib.sha256(data).digest()
        assert found.md5 == put.md5 == hashlib.md5(data).digest()
        assert found.storage_class == put.storage_class == "STANDARD"
        assert found.restore_state is None
        assert abs(found.last_modified_ns - put.last_modified_ns) < 60 * 10**9
        assert read_all(store, found) == data

    def test_metadata_is_kept(self, store: ObjectStore, source: Source) -> None:
        meta = meta_of(
            b"x",
            original_filename="Übung  № 1%.mp4".encode() + b"\xff\n",
            uploaded_ns=1_793_880_000_123_456_789,
            mode=0o640,
            owner="1000:ß",
            mtime_ns=-1_500_000_001,
        )
        store.put_file(source(b"x"), 1, PATH, meta)
        found = store.head(PATH)
        assert found is not None
        assert from_metadata(found.metadata) == meta
        assert set(found.metadata) == set(METADATA_NAMES.split())
        assert all(value.isascii() for value in found.metadata.values())

    def test_a_put_replaces(self, store: ObjectStore, source: Source) -> None:
        first = self.put(store, source, PATH, b"first")
        second = self.put(store, source, PATH, b"second")
        assert first.etag != second.etag
        assert read_all(store, second) == b"second"

    @pytest.mark.parametrize(
        "key",
        [
            "users/5/recordings/1/a b+c&d=e?f#g%20.mp4",
            "users/5/recordings/1/Größe 录像 🎬.mp4",
            'users/5/recordings/1/it\'s "<quoted>"; $HOME*',
            "temp/5/1/ leading and trailing ",
        ],
    )
    def test_any_name_is_a_key(self, store: ObjectStore, source: Source, key: str) -> None:
        put = self.put(store, source, key, b"named")
        assert read_all(store, put) == b"named"
        assert [info.key for info in store.list()] == [key]
        copied = store.copy(key, key + "2", 5)
        assert read_all(store, copied) == b"named"
        assert list(store.delete([key, key + "2"])) == []
        assert store.head(key) is None

    @pytest.mark.parametrize("key", ["temp/5/1/line\nbreak\ttab\rreturn", "temp/5/1/\x01\x1f"])
    def test_control_characters_are_a_key(self, store: ObjectStore, source: Source, key: str) -> None:
        self.needs("control characters")
        self.put(store, source, key, b"named")
        assert [info.key for info in store.list()] == [key]
        assert list(store.delete([key])) == []
        assert store.head(key) is None

    def test_a_key_beyond_1024_bytes_is_refused(self, store: ObjectStore, source: Source) -> None:
        with pytest.raises(KeyTooLong):
            self.put(store, source, "temp/" + "é" * 512, b"x")

    def test_a_key_that_cannot_be_keeps_no_other_from_being_deleted(self, store: ObjectStore, source: Source) -> None:
        self.put(store, source, PATH, b"x")
        too_long = "temp/" + "é" * 512
        ((key, error),) = store.delete([too_long, PATH])
        assert key == too_long
        assert isinstance(error, KeyTooLong)
        assert store.head(PATH) is None

    def test_ranges(self, store: ObjectStore, source: Source, tmp_path: os.PathLike[str]) -> None:
        data = data_of(2 * MIB)
        etag = self.put(store, source, PATH, data).etag
        buffer = bytearray(10)
        assert store.get_range(PATH, 100, 4, if_match=etag, into=memoryview(buffer)) == 4
        assert buffer == data[100:104] + bytes(6)
        fd = source(b"")
        assert store.get_range(PATH, MIB, MIB, if_match=etag, into=fd) == MIB
        assert store.get_range(PATH, 0, 5, if_match=None, into=fd, at=3) == 5
        assert os.pread(fd, 8, 0) == bytes(3) + data[:5]
        assert os.pread(fd, 3 * MIB, MIB) == data[MIB:]

    @pytest.mark.parametrize(("start", "length"), [(5, 1), (3, 3), (0, 6)])
    def test_a_range_beyond_the_end_is_another_version(
        self, store: ObjectStore, source: Source, start: int, length: int
    ) -> None:
        self.put(store, source, PATH, b"12345")
        with pytest.raises(ObjectChanged):
            store.get_range(PATH, start, length, if_match=None, into=memoryview(bytearray(10)))

    def test_an_empty_range_is_a_mistake(self, store: ObjectStore) -> None:
        with pytest.raises(ValueError):
            store.get_range(PATH, 0, 0, if_match=None, into=memoryview(bytearray(1)))

    def test_reading_another_version_is_refused(self, store: ObjectStore, source: Source) -> None:
        old = self.put(store, source, PATH, b"first")
        self.put(store, source, PATH, b"other")
        buffer = bytearray(5)
        with pytest.raises(ObjectChanged):
            store.get_range(PATH, 0, 5, if_match=old.etag, into=memoryview(buffer))
        assert buffer == bytes(5)

    def test_a_missing_object(self, store: ObjectStore) -> None:
        assert store.head(PATH) is None
        with pytest.raises(ObjectMissing):
            store.get_range(PATH, 0, 5, if_match=None, into=memoryview(bytearray(5)))

    def test_other_bytes_than_committed_are_not_stored(self, store: ObjectStore, source: Source) -> None:
        self.needs("checksums")
        with pytest.raises(ChecksumMismatch):
            store.put_file(source(b"other"), 5, PATH, meta_of(b"bytes"))

    def test_a_file_that_became_shorter(self, store: ObjectStore, source: Source) -> None:
        with pytest.raises(SourceChanged):
            store.put_file(source(b"short"), 500_000, PATH, ObjectMeta())
        assert store.head(PATH) is None

    def test_progress_reaches_the_size(self, store: ObjectStore, source: Source) -> None:
        data, seen = data_of(3 * MIB), list[int]()
        self.put(
            store, source, "temp/5/1/first", b"x"
        )  # the first upload may be sent twice, to learn what the server can
        store.put_file(source(data), len(data), PATH, meta_of(data), progress=seen.append)
        assert seen[-1] == len(data)
        assert seen == sorted(seen)

    def test_uploads_and_downloads_can_be_cancelled(self, store: ObjectStore, source: Source) -> None:
        data = data_of(2 * MIB)
        with pytest.raises(TransferCancelled):
            store.put_file(source(data), len(data), PATH, meta_of(data), cancel=lambda: True)
        assert store.head(PATH) is None
        self.put(store, source, PATH, data)
        with pytest.raises(TransferCancelled):
            store.get_range(PATH, 0, MIB, if_match=None, into=memoryview(bytearray(MIB)), cancel=lambda: True)

    @pytest.mark.slow
    def test_many_threads(self, store: ObjectStore, source: Source) -> None:
        def one(number: int) -> bool:
            data = data_of(10_000, number)
            return read_all(store, self.put(store, source, f"temp/5/1/{number}", data)) == data

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(24)))
        assert len(list(store.list())) == 24

    # --- multipart -----------------------------------------------------------------------------------------------

    @pytest.mark.slow
    def test_multipart(self, store: ObjectStore, source: Source) -> None:
        data = data_of(12 * MIB + 1)
        upload_id, parts = self.parts(store, source, PATH, data, 6 * MIB)
        assert [part.number for part in parts] == [1, 2, 3]
        assert [part.size_bytes for part in parts] == [6 * MIB, 6 * MIB, 1]
        listed = store.list_parts(PATH, upload_id)
        assert [(p.number, p.etag, p.size_bytes) for p in listed] == [(p.number, p.etag, p.size_bytes) for p in parts]
        assert [(u.key, u.upload_id) for u in store.list_multiparts()] == [(PATH, upload_id)]
        assert store.head(PATH) is None
        made = store.finish_multipart(PATH, upload_id, parts[::-1], meta_of(data, tags={"a": "b"}), len(data))
        assert made == store.head(PATH)
        assert store.get_tags(PATH) == {"a": "b"}
        assert (made.size_bytes, made.sha256) == (len(data), hashlib.sha256(data).digest())
        assert read_all(store, made) == data
        assert list(store.list_multiparts()) == []

    def test_a_part_is_replaced_and_finishing_twice_is_fine(self, store: ObjectStore, source: Source) -> None:
        data = data_of(5 * MIB + 9)
        upload_id = store.start_multipart(PATH, meta_of(data))
        fd = source(data)
        last = store.upload_part(PATH, upload_id, 2, fd, 5 * MIB, 9)
        store.upload_part(PATH, upload_id, 1, source(data_of(5 * MIB, seed=2)), 0, 5 * MIB)
        first = store.upload_part(PATH, upload_id, 1, fd, 0, 5 * MIB)
        made = store.finish_multipart(PATH, upload_id, [first, last], meta_of(data), len(data))
        assert read_all(store, made) == data
        again = store.finish_multipart(PATH, upload_id, [first, last], meta_of(data), len(data))
        assert again.etag == made.etag

    def test_an_aborted_upload_is_gone(self, store: ObjectStore, source: Source) -> None:
        upload_id, _ = self.parts(store, source, PATH, b"only part", 100)
        store.abort_multipart(PATH, upload_id)
        store.abort_multipart(PATH, upload_id)
        assert list(store.list_multiparts()) == []
        with pytest.raises(UploadGone):
            store.list_parts(PATH, upload_id)
        with pytest.raises(UploadGone):
            store.upload_part(PATH, upload_id, 1, source(b"x"), 0, 1)

    def test_an_aborted_upload_cannot_be_finished(self, store: ObjectStore, source: Source) -> None:
        upload_id, parts = self.parts(store, source, PATH, b"only part", 100)
        store.abort_multipart(PATH, upload_id)
        with pytest.raises(UploadGone):
            store.finish_multipart(PATH, upload_id, parts, meta_of(b"only part"), 9)

    def test_parts_that_do_not_fit(self, store: ObjectStore, source: Source) -> None:
        data = b"two small parts"
        upload_id, parts = self.parts(store, source, PATH, data, 10)
        with pytest.raises(UploadInvalid):  # EntityTooSmall
            store.finish_multipart(PATH, upload_id, parts, meta_of(data), len(data))
        with pytest.raises(UploadInvalid):
            store.finish_multipart(PATH, upload_id, parts, meta_of(data), len(data) + 1)
        wrong = [PartInfo(1, hashlib.md5(b"").hexdigest(), len(data))]
        with pytest.raises(UploadInvalid):  # InvalidPart
            store.finish_multipart(PATH, upload_id, wrong, meta_of(data), len(data))
        assert store.head(PATH) is None

    def test_a_cancelled_part(self, store: ObjectStore, source: Source) -> None:
        upload_id = store.start_multipart(PATH, ObjectMeta())
        with pytest.raises(TransferCancelled):
            store.upload_part(PATH, upload_id, 1, source(data_of(MIB)), 0, MIB, cancel=lambda: True)
        assert list(store.list_parts(PATH, upload_id)) == []

    def test_uploads_are_listed_by_prefix(self, store: ObjectStore) -> None:
        for key in ("users/5/a", "users/5/b", "temp/9/c"):
            store.start_multipart(key, ObjectMeta())
        assert [upload.key for upload in store.list_multiparts("users/5/")] == ["users/5/a", "users/5/b"]
        assert all(upload.initiated_ns > 10**18 for upload in store.list_multiparts())

    # --- copy, delete, list --------------------------------------------------------------------------------------

    def test_a_copy_keeps_everything(self, store: ObjectStore, source: Source) -> None:
        old = self.put(store, source, PATH, b"bytes", mode=0o600, storage_class="STANDARD_IA", tags={"a": "b c"})
        new = store.copy(PATH, "users/5/moved", 5, if_match=old.etag)
        assert read_all(store, new) == b"bytes"
        assert (new.key, new.sha256, dict(new.metadata)) == ("users/5/moved", old.sha256, dict(old.metadata))
        assert new.storage_class == old.storage_class == "STANDARD_IA"
        assert store.get_tags("users/5/moved") == {"a": "b c"}
        assert store.head(PATH) is not None

    def test_a_copy_of_the_default_class_keeps_it(self, store: ObjectStore, source: Source) -> None:
        self.put(store, source, PATH, b"bytes")
        assert store.copy(PATH, "users/5/moved", 5).storage_class == "STANDARD"

    def test_a_copy_with_other_metadata_also_in_place(self, store: ObjectStore, source: Source) -> None:
        self.put(store, source, PATH, b"bytes", mode=0o600)
        changed = meta_of(b"bytes", mode=0o644, storage_class="STANDARD_IA", tags={"k": "v"})
        new = store.copy(PATH, PATH, 5, meta=changed)
        assert (new.metadata["mode"], new.storage_class) == ("0644", "STANDARD_IA")
        assert store.get_tags(PATH) == {"k": "v"}
        assert read_all(store, new) == b"bytes"
        with pytest.raises(ValueError):
            store.copy(PATH, PATH, 5)

    def test_a_copy_as_a_new_object_has_nothing_of_its_source_but_the_bytes(
        self, store: ObjectStore, source: Source
    ) -> None:
        old = self.put(store, source, PATH, b"bytes", mode=0o600, storage_class="STANDARD_IA", tags={"a": "b c"})
        new = meta_of(b"bytes", mode=0o640)
        dst = "users/5/recordings/142/other.json"
        copied = store.copy(PATH, dst, 5, meta=new, if_match=old.etag, fresh=True)
        sent = self.put(store, source, "users/5/recordings/142/sent.json", b"bytes", mode=0o640)
        assert read_all(store, copied) == b"bytes"
        assert (copied.key, copied.sha256, copied.storage_class) == (dst, old.sha256, sent.storage_class)
        assert dict(copied.metadata) == dict(sent.metadata)
        assert store.get_tags(dst) == store.get_tags("users/5/recordings/142/sent.json")
        assert store.get_tags(PATH) == {"a": "b c"}
        with pytest.raises(ObjectChanged):
            store.copy(PATH, f"{dst}2", 5, meta=new, if_match="0" * 32, fresh=True)
        with pytest.raises(ValueError):
            store.copy(PATH, PATH, 5, meta=new, fresh=True)

    def test_copying_another_version_is_refused(self, store: ObjectStore, source: Source) -> None:
        self.put(store, source, PATH, b"bytes")
        with pytest.raises(ObjectChanged):
            store.copy(PATH, "users/5/moved", 5, if_match="0" * 32)
        with pytest.raises(ObjectChanged):
            store.copy(PATH, "users/5/moved", 4)
        with pytest.raises(ObjectMissing):
            store.copy("users/5/none", "users/5/moved", 5)
        assert store.head("users/5/moved") is None

    def test_delete(self, store: ObjectStore, source: Source) -> None:
        for name in "abc":
            self.put(store, source, f"temp/5/1/{name}", b"x")
        assert list(store.delete(["temp/5/1/a", "temp/5/1/none", "temp/5/1/c", "temp/5/1/a"])) == []
        assert [info.key for info in store.list()] == ["temp/5/1/b"]
        assert list(store.delete([])) == []

    def test_list(self, store: ObjectStore, source: Source) -> None:
        keys = ["temp/5/1/a", "temp/5/1/b/c", "temp/5/10/a", "users/5/\uff61", "users/5/\U0001f3ac", "users/5/é"]
        etags = {key: self.put(store, source, key, key.encode()).etag for key in keys}
        ordered = sorted(keys, key=str.encode)
        found = list(store.list())
        assert [info.key for info in found] == ordered
        assert [(info.etag, info.size_bytes) for info in found] == [(etags[k], len(k.encode())) for k in ordered]
        assert all(info.last_modified_ns > 10**18 for info in found)
        assert [info.key for info in store.list("temp/5/1/")] == keys[:2]
        assert [info.key for info in store.list("temp/5/1")] == keys[:3]
        assert [info.key for info in store.list(after="temp/5/1/b/c")] == ordered[2:]
        assert [info.key for info in store.list("users/", after="users/5/é")] == ordered[4:]
        assert list(store.list("nothing/")) == []

    # --- administration ------------------------------------------------------------------------------------------

    def test_tags(self, store: ObjectStore, source: Source) -> None:
        self.put(store, source, PATH, b"x", tags={"first": "1"})
        assert store.get_tags(PATH) == {"first": "1"}
        store.set_tags(PATH, {"second": "Größe 2 + a/b@c", "third": ""})
        assert store.get_tags(PATH) == {"second": "Größe 2 + a/b@c", "third": ""}
        store.set_tags(PATH, {})
        assert store.get_tags(PATH) == {}

    def test_small_objects(self, store: ObjectStore) -> None:
        key = ".recfs/small.json"
        assert store.get_small(key) is None
        assert store.put_small(key, b"first", only_new=True)
        assert not store.put_small(key, b"second", only_new=True)
        assert store.get_small(key) == b"first"
        assert store.put_small(key, b"third", only_new=False)
        assert store.get_small(key) == b"third"
        store.delete([key])

    def test_storage_classes(self, store: ObjectStore, source: Source) -> None:
        put = self.put(store, source, PATH, b"x", storage_class="STANDARD_IA")
        found = store.head(PATH)
        assert found is not None
        assert put.storage_class == found.storage_class == next(store.list()).storage_class == "STANDARD_IA"

    def test_lifecycle_rules(self, store: ObjectStore) -> None:
        assert store.get_lifecycle() == ()
        rules = [
            LifecycleRule("recfs-uploads", abort_multipart_days=7),
            LifecycleRule("temp", "temp/", enabled=False, expire_days=2),
        ]
        store.put_lifecycle(rules)
        found = {rule.rule_id: rule for rule in store.get_lifecycle()}
        assert set(found) == {"recfs-uploads", "recfs-temp"}
        assert found["recfs-uploads"].abort_multipart_days == 7
        assert (found["recfs-temp"].enabled, found["recfs-temp"].expire_days) == (False, 2)
        store.put_lifecycle([])
        assert store.get_lifecycle() == ()

    def test_lifecycle_rules_that_change_the_class(self, store: ObjectStore) -> None:
        rule = LifecycleRule("cold", "users/", transitions=((90, "GLACIER"), (30, "STANDARD_IA")))
        if "lifecycle transitions" in self.lacks:
            with pytest.raises(NotOffered, match="does not offer"):
                store.put_lifecycle([rule])
            return
        store.put_lifecycle([rule])
        (found,) = store.get_lifecycle()
        assert (found.rule_id, found.prefix) == ("recfs-cold", "users/")
        assert found.transitions == ((30, "STANDARD_IA"), (90, "GLACIER"))

    def test_presigned_urls_have_an_end(self, store: ObjectStore) -> None:
        assert "X-Amz-Expires=60" in store.presign(PATH, "GET", 60)
        for seconds in (0, 604_801):
            with pytest.raises(ValueError):
                store.presign(PATH, "GET", seconds)

    def test_check(self, store: ObjectStore) -> None:
        report = store.check()
        assert "" not in (report.bucket, report.endpoint)
        assert abs(report.skew_s) < 60
