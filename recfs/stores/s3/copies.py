"""Copying on the server: one request up to 5 GB, ranges above, with everything that belongs to the object kept."""

from __future__ import annotations

from typing import Any

from recfs.core.migration.places import Place
from recfs.ports.object_errors import ChecksumMismatch, ObjectChanged, ObjectMissing, TransferCancelled
from recfs.ports.objects import MAX_PUT_BYTES, MIB, Cancel, ObjectInfo, ObjectMeta, PartInfo, part_size
from recfs.stores.s3 import meta as s3_meta
from recfs.stores.s3.etags import etag_of_parts
from recfs.stores.s3.faults import fault
from recfs.stores.s3.meta import info_of, plain_md5, unquoted
from recfs.stores.s3.uploads import S3Uploads

COPY_PART_BYTES = 512 * MIB
"""Range of one UploadPartCopy: large enough to be few, small enough for a read timeout on a slow server."""
_DESCRIPTION = (
    "Metadata",
    "ContentType",
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
)
_OF_SOURCE = (*_DESCRIPTION, "StorageClass", "TagCount")
"""What of an answer to HEAD a copy takes over, unless it is to be a new object."""


class S3Copies(S3Uploads):
    """Server-side copies."""

    _copy_limit = MAX_PUT_BYTES
    """Largest source of CopyObject; a test lowers it."""
    _copy_part = COPY_PART_BYTES

    def copy(
        self,
        src: str,
        dst: str,
        size: int,
        *,
        meta: ObjectMeta | None = None,
        if_match: str | None = None,
        fresh: bool = False,
        origin: Place | None = None,
        cancel: Cancel | None = None,
    ) -> ObjectInfo:
        """As `ObjectStore.copy`."""
        own = Place(self._section.bucket, self._section.prefix)
        foreign = origin if origin != own else None
        in_place = foreign is None and src == dst
        if in_place and (meta is None or fresh):
            raise ValueError("a copy onto itself changes nothing without meta, and makes no new object")
        doing = f"copy to {dst}" if foreign is None else f"copy s3://{foreign.bucket}/{foreign.prefix}{src} to {dst}"
        if foreign is None:
            copied = {"Bucket": own.bucket, "Key": self._full(src)}
        else:
            copied = {"Bucket": foreign.bucket, "Key": foreign.prefix + src}
        # Servers that ignore the condition on the copy itself (Ceph 16) are at least asked before.
        source = self._look(copied, src, doing)
        etag = source["ETag"]
        if in_place and self._is_so_already(source, size, meta):
            return info_of(src, source)
        if if_match is not None and unquoted(etag) != if_match:
            raise fault(ObjectChanged, self._target, doing, src, f"its etag is {unquoted(etag)}, not {if_match}")
        if int(source["ContentLength"]) != size:
            raise fault(ObjectChanged, self._target, doing, src, f"it has {source['ContentLength']} bytes, not {size}")
        is_tagged = bool(source.get("TagCount"))
        if fresh:  # what others have given the source is not the copy's
            source = {name: value for name, value in source.items() if name not in _OF_SOURCE}
        if size > self._copy_limit:
            made = self._copy_in_parts(copied, src, dst, size, source, meta, cancel)
        else:
            made = self._copy_at_once(copied, src, dst, source, meta, doing)
        if meta is not None and (meta.tags or (fresh and (self._section.tags or is_tagged))):
            self._set_tags(dst, {**self._section.tags, **meta.tags})  # Ceph 16 ignores TaggingDirective
        return self._confirmed(dst, size, made, doing)

    def _is_so_already(self, source: dict[str, Any], size: int, meta: ObjectMeta | None) -> bool:
        """Whether an object is what a copy onto itself would make of it: perhaps one did, and its answer was lost."""
        found = info_of("", source)
        if meta is None or meta.sha256 is None or found.sha256 != meta.sha256 or found.size_bytes != size:
            return False
        same_class = meta.storage_class in (None, found.storage_class)
        return same_class and not meta.tags and s3_meta.to_metadata(meta).items() <= found.metadata.items()

    def _look(self, copied: dict[str, str], key: str, doing: str) -> dict[str, Any]:
        """The whole answer to HEAD: a copy in parts has to carry over what `ObjectInfo` leaves out."""
        try:
            answer = self._call(doing, key, "head_object", **copied)
        except ObjectMissing:
            self._probe(doing)  # or is it the bucket that is gone?
            raise
        self._expect(answer, "ETag", doing, key)
        return answer

    def _new_parameters(self, source: dict[str, Any], dst: str, meta: ObjectMeta | None) -> dict[str, Any]:
        """Metadata, type, class and encryption of the copy, in full."""
        if meta is not None:
            parameters = self._object_parameters(dst, meta)
            parameters.pop("Tagging", None)
            parameters.setdefault("StorageClass", source.get("StorageClass") or "STANDARD")
            parameters["Metadata"] = source.get("Metadata", {}) | parameters["Metadata"]
            return parameters | {field: source[field] for field in _DESCRIPTION[2:] if source.get(field)}
        parameters = self._object_parameters(dst, ObjectMeta(storage_class=source.get("StorageClass") or "STANDARD"))
        parameters.pop("Tagging", None)
        parameters["Metadata"] = source.get("Metadata", {})
        parameters |= {field: source[field] for field in _DESCRIPTION[1:] if source.get(field)}
        return parameters

    def _copy_at_once(
        self, copied: dict[str, str], src: str, dst: str, source: dict[str, Any], meta: ObjectMeta | None, doing: str
    ) -> str:
        parameters = self._new_parameters(source, dst, meta)
        if meta is None:  # what the COPY directive keeps by itself
            parameters = {name: value for name, value in parameters.items() if name not in _DESCRIPTION}
        answer = self._call(
            doing,
            dst,
            "copy_object",
            CopySource=copied,
            CopySourceIfMatch=source["ETag"],
            MetadataDirective="COPY" if meta is None else "REPLACE",
            **parameters,
        )
        result = self._expect(answer, "CopyObjectResult", doing, dst)
        etag = unquoted(self._expect(result, "ETag", doing, dst))
        before = plain_md5(unquoted(source["ETag"]))
        encrypted = any("kms" in str(each.get("ServerSideEncryption", "")) for each in (source, answer))
        if before is not None and not encrypted and plain_md5(etag) not in (None, before):
            raise fault(ChecksumMismatch, self._target, doing, src, f"the copy has etag {etag}")
        return etag

    def _copy_in_parts(
        self,
        copied: dict[str, str],
        src: str,
        dst: str,
        size: int,
        source: dict[str, Any],
        meta: ObjectMeta | None,
        cancel: Cancel | None,
    ) -> str | None:
        doing = f"copy to {dst}"
        parameters = self._new_parameters(source, dst, meta)
        tags = self._tags_of(src) if (meta is None or not meta.tags) and source.get("TagCount") else {}
        if tags:
            parameters["Tagging"] = s3_meta.tagging(tags)
        started = self._call(doing, dst, "create_multipart_upload", **parameters)
        upload_id = str(self._expect(started, "UploadId", doing, dst))
        try:
            done: list[PartInfo] = []
            step = part_size(size, self._copy_part)
            for number, offset in enumerate(range(0, size, step), 1):
                if cancel is not None and cancel():
                    raise TransferCancelled(f"{self._target.name(src)}: the copy was cancelled")
                answer = self._call(
                    doing,
                    dst,
                    "upload_part_copy",
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySource=copied,
                    CopySourceIfMatch=source["ETag"],
                    CopySourceRange=f"bytes={offset}-{min(offset + step, size) - 1}",
                )
                result = self._expect(answer, "CopyPartResult", doing, dst)
                part_etag = unquoted(self._expect(result, "ETag", doing, dst))
                done.append(PartInfo(number, part_etag, min(step, size - offset)))
            named = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in done]
            finished = self._complete(dst, upload_id, named, doing)
        except BaseException:
            self.abort_multipart(dst, upload_id)
            raise
        if tags:
            self._set_tags(dst, tags)
        return self._completed_etag(finished, etag_of_parts(done), doing, dst)
