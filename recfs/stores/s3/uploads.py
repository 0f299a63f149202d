"""Uploading: one request for small files, multipart in journalled steps for large ones. Confirmed before it returns.

How the bytes are confirmed, cheapest first: the server repeats the checksum that went with them (S3; for a whole file
it is the file's own SHA-256 from the commit, so that the object provably is what the catalogue says); the signature
covers their SHA-256, which servers verify; Content-MD5. Where the server ignores checksum headers that is found out at
the first upload and remembered. An etag that is an MD5 is compared as well, and where nothing of this proves the
object, a HEAD proves its size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from recfs.ports.object_errors import (
    BadAnswer,
    ChecksumMismatch,
    KeyTooLong,
    NotOffered,
    ObjectMissing,
    ServerFault,
    UploadGone,
    UploadInvalid,
)
from recfs.ports.objects import (
    MAX_PUT_BYTES,
    Cancel,
    ObjectInfo,
    ObjectMeta,
    PartInfo,
    Progress,
    UploadInfo,
    part_size,
)
from recfs.stores.s3 import meta as s3_meta
from recfs.stores.s3.body import FileBody, checksum_of, digest_of
from recfs.stores.s3.etags import algorithm_of_parts, etag_of_parts, is_kms, is_same_object, multipart_etag
from recfs.stores.s3.faults import MAX_NAME_BYTES, fault, longest_name
from recfs.stores.s3.folders import remove_empty
from recfs.stores.s3.link import S3Link
from recfs.stores.s3.meta import b64, plain_md5, unquoted

_FIELDS = {"CRC32C": "ChecksumCRC32C", "SHA256": "ChecksumSHA256"}


class S3Uploads(S3Link):
    """Puts, multipart uploads, and their confirmation."""

    _uploads_in_page = 1000
    """How many uploads one answer may list: S3's maximum."""

    def _object_parameters(self, key: str, meta: ObjectMeta) -> dict[str, Any]:
        """Everything about a new object but its bytes."""
        section = self._section
        parameters: dict[str, Any] = {
            "Metadata": s3_meta.to_metadata(meta),
            "ContentType": meta.content_type or s3_meta.content_type(key),
        }
        if storage_class := meta.storage_class or section.storage_class:
            parameters["StorageClass"] = storage_class
        if tags := {**section.tags, **meta.tags}:
            parameters["Tagging"] = s3_meta.tagging(tags)
        return parameters | self._encryption()

    # --- one request ---------------------------------------------------------------------------------------------

    def put_file(
        self,
        fd: int,
        size: int,
        key: str,
        meta: ObjectMeta,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> ObjectInfo:
        """As `ObjectStore.put_file`."""
        if size > MAX_PUT_BYTES:
            raise ValueError(f"{size} bytes: one request takes at most {MAX_PUT_BYTES}; use the multipart calls")
        doing = "upload"
        # Once and before: what another thread learns meanwhile says nothing of how these bytes went.
        signed, algorithm, md5 = self._signed, self._algorithm(), meta.md5
        sent: dict[str, str] = {}
        if algorithm is not None:
            if meta.sha256 is not None and self._section.checksums != "crc32c":
                sent[_FIELDS["SHA256"]] = b64(meta.sha256)
            else:
                sent[_FIELDS[algorithm]] = b64(checksum_of(algorithm, fd, 0, size))
        elif not signed and self._section.checksums != "off":
            md5 = md5 or digest_of("md5", fd, 0, size)
            sent["ContentMD5"] = b64(md5)
        # The signature vouches for what was committed: a server refuses bytes that are not that any more.
        sha256 = (meta.sha256 or digest_of("sha256", fd, 0, size)) if signed else None
        answer = self._send(
            doing,
            key,
            "put_object",
            FileBody(fd, 0, size, progress, cancel),
            sha256,
            **sent,
            **self._object_parameters(key, meta),
        )
        etag = unquoted(answer.get("ETag") or self._etag_listed(key, fd, size, meta, doing))
        if algorithm is not None and not self._echoed(answer, sent, doing, key):
            if not signed:
                # These bytes went unproven; now that it is known, they go again: signed, or with Content-MD5.
                return self.put_file(fd, size, key, meta, progress=progress, cancel=cancel)
            algorithm = None
        proven = algorithm is not None
        if md5 is not None and (stored := plain_md5(etag)) is not None and not is_kms(answer):
            if stored != md5:
                raise fault(ChecksumMismatch, self._target, doing, key, f"sent MD5 {md5.hex()}, stored {etag}")
            proven = True
        if not proven:
            return self._confirmed(key, size, etag, doing)
        return self._as_put(key, size, etag, meta, answer)

    def _etag_listed(self, key: str, fd: int, size: int, meta: ObjectMeta, doing: str) -> str:
        """The etag that the answer to an upload lacks: a proxy took it off, or no S3 server answered at all."""
        etag, found = self._listed(key, doing) or ("", -1)
        if found != size or plain_md5(etag) != (meta.md5 or digest_of("md5", fd, 0, size)):
            raise self._bad(doing, key, "not an answer of an S3 server: it has no ETag")
        return etag

    def _etag_of_part(self, key: str, upload_id: str, number: int, doing: str) -> str:
        """As `_etag_listed`, of a part."""
        page = self._list_parts_page(key, upload_id, number - 1, MaxParts=1)
        for part in page.get("Parts", ()):
            if int(part["PartNumber"]) == number:
                return str(part["ETag"])
        raise self._bad(doing, key, "not an answer of an S3 server: it has no ETag")

    def _echoed(self, answer: dict[str, Any], sent: dict[str, str], doing: str, key: str) -> bool:
        """Whether the server repeats the checksum that was sent; False: it knows none of this. Raises otherwise."""
        ((field, value),) = sent.items()
        found = answer.get(field)
        if found == value:
            return True
        if found is not None:
            raise fault(ChecksumMismatch, self._target, doing, key, f"sent {field} {value}, stored {found}")
        if self._section.checksums != "auto":
            raise fault(
                NotOffered, self._target, doing, key, f'[s3] checksums = "{self._section.checksums}" is ignored there'
            )
        self._learn_checksums_ignored()
        return False

    def _as_put(self, key: str, size: int, etag: str, meta: ObjectMeta, answer: dict[str, Any]) -> ObjectInfo:
        return ObjectInfo(
            key=key,
            size_bytes=size,
            etag=etag,
            storage_class=meta.storage_class or self._section.storage_class or "STANDARD",
            sha256=meta.sha256,
            md5=meta.md5,
            metadata=s3_meta.to_metadata(meta),
            last_modified_ns=time.time_ns(),
            version_id=answer.get("VersionId"),
        )

    def _confirmed(self, key: str, size: int, etag: str | None, doing: str) -> ObjectInfo:
        """HEAD, and compare. Raises ChecksumMismatch if another object than ours is there."""
        try:
            info = self.head(key)
        except (BadAnswer, NotOffered):
            # A proxy that knows no HEAD, or takes the etag off.
            listed = self._listed(key, doing)
            if listed is None or listed[1] != size or etag is None:
                raise
            info = ObjectInfo(key=key, size_bytes=size, etag=listed[0])
        if info is None or info.size_bytes != size or (etag is not None and info.etag != etag):
            found = "nothing" if info is None else f"{info.size_bytes} bytes with etag {info.etag}"
            wanted = f"{size} bytes with etag {etag}"
            raise fault(ChecksumMismatch, self._target, doing, key, f"{wanted} were sent, {found} is there")
        return info

    # --- multipart -----------------------------------------------------------------------------------------------

    def part_size(self, size_bytes: int) -> int:
        """As `ObjectStore.part_size`."""
        return part_size(size_bytes, self._section.part_size)

    def start_multipart(self, key: str, meta: ObjectMeta) -> str:
        """As `ObjectStore.start_multipart`."""
        doing, algorithm = "start the upload", self._algorithm()
        wanted = {} if algorithm is None else {"ChecksumAlgorithm": algorithm}
        answer = self._call(doing, key, "create_multipart_upload", **wanted, **self._object_parameters(key, meta))
        upload_id = str(self._expect(answer, "UploadId", doing, key))
        if algorithm is not None and answer.get("ChecksumAlgorithm") != algorithm:
            # Perhaps it is the answer that lost the header, and the server will insist on checksums at the end.
            self._call(doing, key, "abort_multipart_upload", UploadId=upload_id)
            if self._section.checksums != "auto":
                what = f'[s3] checksums = "{self._section.checksums}" is ignored there'
                raise fault(NotOffered, self._target, doing, key, what)
            self._learn_checksums_ignored()
            return self.start_multipart(key, meta)
        self._algorithms[upload_id] = algorithm
        return upload_id

    def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        fd: int,
        offset: int,
        length: int,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> PartInfo:
        """As `ObjectStore.upload_part`."""
        doing = f"upload part {number}"
        signed, algorithm = self._signed, self._algorithm_of(key, upload_id)
        sent: dict[str, str] = {}
        checksum, md5 = None, None
        if algorithm is not None:
            checksum = b64(checksum_of(algorithm, fd, offset, length))
            sent[_FIELDS[algorithm]] = checksum
        elif not signed and self._section.checksums != "off":
            md5 = digest_of("md5", fd, offset, length)
            sent["ContentMD5"] = b64(md5)
        answer = self._send(
            doing,
            key,
            "upload_part",
            FileBody(fd, offset, length, progress, cancel),
            digest_of("sha256", fd, offset, length) if signed else None,
            UploadId=upload_id,
            PartNumber=number,
            **sent,
        )
        etag = unquoted(answer.get("ETag") or self._etag_of_part(key, upload_id, number, doing))
        if algorithm is not None and not self._echoed(answer, sent, doing, key):
            self._algorithms[upload_id] = None
            if not signed:
                return self.upload_part(key, upload_id, number, fd, offset, length, progress=progress, cancel=cancel)
            checksum = None
        if md5 is not None and plain_md5(etag) not in (None, md5) and not is_kms(answer):
            raise fault(ChecksumMismatch, self._target, doing, key, f"sent MD5 {md5.hex()}, stored {etag}")
        return PartInfo(number, etag, length, checksum)

    def _algorithm_of(self, key: str, upload_id: str) -> str | None:
        """The checksum that the upload was started with, perhaps by an earlier process: the server refuses others."""
        if upload_id not in self._algorithms:
            self._learn_algorithm(upload_id, self._list_parts_page(key, upload_id, 0, MaxParts=1), ())
        return self._algorithms[upload_id]

    def _learn_algorithm(self, upload_id: str, page: dict[str, Any], known: Sequence[PartInfo]) -> None:
        algorithm = page.get("ChecksumAlgorithm")
        if algorithm not in _FIELDS:  # SeaweedFS 4 does not say, and insists on it at the end
            algorithm = algorithm_of_parts(known)
        self._algorithms[upload_id] = algorithm
        if algorithm is None and self._section.checksums == "auto" and not self._checksums_ignored:
            self._learn_checksums_ignored()

    def finish_multipart(
        self, key: str, upload_id: str, parts: Sequence[PartInfo], meta: ObjectMeta, size: int
    ) -> ObjectInfo:
        """As `ObjectStore.finish_multipart`."""
        doing = "finish the upload"
        ordered = sorted(parts, key=lambda part: part.number)
        if sum(part.size_bytes for part in ordered) != size:
            what = f"the parts have {sum(part.size_bytes for part in ordered)} bytes together, the file {size}"
            raise fault(UploadInvalid, self._target, doing, key, what)
        algorithm = algorithm_of_parts(ordered)
        if algorithm is not None and not all(part.checksum for part in ordered):
            raise fault(UploadInvalid, self._target, doing, key, "some parts were sent without a checksum")
        named: list[dict[str, Any]] = []
        for part in ordered:
            entry: dict[str, Any] = {"PartNumber": part.number, "ETag": f'"{part.etag}"'}
            if algorithm is not None and part.checksum is not None:
                entry[_FIELDS[algorithm]] = part.checksum
            named.append(entry)
        wanted = etag_of_parts(ordered)
        try:
            answer = self._complete(key, upload_id, named, doing)
        except UploadGone:
            # Perhaps it was finished, and only the answer was lost.
            info = self.head(key)
            if info is None or info.size_bytes != size or not is_same_object(info, wanted, meta):
                raise
            self._algorithms.pop(upload_id, None)
            return info
        etag = self._completed_etag(answer, wanted, doing, key)
        if tags := {**self._section.tags, **meta.tags}:
            self._set_tags(key, tags)  # Ceph 16 ignores those the upload was started with
        made = self._confirmed(key, size, etag, doing)
        self._algorithms.pop(upload_id, None)
        return made

    def _complete(self, key: str, upload_id: str, named: list[dict[str, Any]], doing: str) -> dict[str, Any]:
        complete = partial(
            self._call, doing, key, "complete_multipart_upload", UploadId=upload_id, MultipartUpload={"Parts": named}
        )  # fmt: skip
        try:
            return complete()
        except ServerFault as error:
            # Ceph 16 answers InternalError for an upload it does not know, for ever: ask whether it does.
            self._list_parts_page(key, upload_id, 0, MaxParts=1)
            if (longest := longest_name(key)) > MAX_NAME_BYTES:  # SeaweedFS 4 takes the parts, and fails for ever here
                what = f"the server fails with a name of {longest} bytes"
                raise fault(KeyTooLong, self._target, doing, key, what) from error
            if not remove_empty(partial(self._call, doing, None), self._full(key)):
                raise
        return complete()

    def _completed_etag(self, answer: dict[str, Any], wanted: str | None, doing: str, key: str) -> str | None:
        """Etag by the answer to CompleteMultipartUpload, checked; Ceph 16 leaves it empty, *wanted* then stands in."""
        if "ETag" not in answer:
            raise self._bad(doing, key, "not an answer of an S3 server: it has no ETag")
        etag = unquoted(answer["ETag"] or "")
        if etag and wanted and multipart_etag(etag) and etag != wanted and not is_kms(answer):
            raise fault(ChecksumMismatch, self._target, doing, key, f"the parts make etag {wanted}, not {etag}")
        return etag or wanted

    def abort_multipart(self, key: str, upload_id: str) -> None:
        """As `ObjectStore.abort_multipart`."""
        self._algorithms.pop(upload_id, None)
        try:
            self._call("abort the upload", key, "abort_multipart_upload", UploadId=upload_id)
        except (UploadGone, ObjectMissing):
            pass

    def list_parts(self, key: str, upload_id: str, known: Sequence[PartInfo] = ()) -> Sequence[PartInfo]:
        """As `ObjectStore.list_parts`."""
        found: list[PartInfo] = []
        marker = 0
        while True:
            page = self._list_parts_page(key, upload_id, marker)
            if upload_id not in self._algorithms:
                self._learn_algorithm(upload_id, page, known)
            for part in page.get("Parts", ()):
                checksum = part.get("ChecksumCRC32C") or part.get("ChecksumSHA256")
                found.append(PartInfo(int(part["PartNumber"]), unquoted(part["ETag"]), int(part["Size"]), checksum))
            following = int(page.get("NextPartNumberMarker") or (found[-1].number if found else 0))
            if not page.get("IsTruncated") or following <= marker:
                return found  # a list that does not go on: what it leaves out is sent again
            marker = following

    def _list_parts_page(self, key: str, upload_id: str, marker: int, **more: Any) -> dict[str, Any]:
        doing = "list the parts"
        try:
            page = self._call(doing, key, "list_parts", UploadId=upload_id, PartNumberMarker=marker, **more)
        except ObjectMissing as error:  # Ceph 16 says NoSuchKey
            raise fault(UploadGone, self._target, doing, key, "NoSuchUpload", error.code) from error
        self._expect(page, "UploadId", doing, key)
        return page

    def list_multiparts(self, prefix: str = "") -> Sequence[UploadInfo]:
        """As `ObjectStore.list_multiparts`."""
        doing = "list the uploads"
        found: dict[tuple[str, str], UploadInfo] = {}
        markers: dict[str, str] = {}
        asked: list[dict[str, str]] = []
        while markers not in asked:
            asked.append(markers)
            page = self._call(
                doing, None, "list_multipart_uploads", Prefix=self._section.prefix + prefix,
                MaxUploads=self._uploads_in_page, **markers,
            )  # fmt: skip
            self._expect(page, "Bucket", doing, None)
            for each in page.get("Uploads", ()):
                initiated = int(each["Initiated"].timestamp() * 1000) * 10**6
                key = self._relative(each["Key"])
                found[key, each["UploadId"]] = UploadInfo(key, each["UploadId"], initiated)
            if not page.get("IsTruncated"):
                return [found[each] for each in sorted(found)]
            # SeaweedFS 4 orders them by upload id, gives no key to go on after, and takes one for a filter.
            names = ("KeyMarker", "UploadIdMarker")
            markers = {name: page[f"Next{name}"] for name in names if page.get(f"Next{name}")}
        raise fault(NotOffered, self._target, doing, None, "the list begins again where it should go on")
