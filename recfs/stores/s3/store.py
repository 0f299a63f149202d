"""The object store port for any S3 server. This directory is the only place that knows boto3.

boto3 does everything but to carry bytes, for which `wire` makes the requests itself (docs/architecture.md has the
measurements). One attempt per call; `stores.wrap.RetryingObjectStore` tries again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from recfs.config import S3Section
from recfs.ports.object_errors import KeyTooLong, ObjectChanged, ObjectMissing, ObjectStoreError, RequestRefused
from recfs.ports.objects import DELETE_BATCH, Cancel, ObjectInfo, ObjectStore
from recfs.stores.s3.body import receive
from recfs.stores.s3.faults import fault, faults, refusal
from recfs.stores.s3.meta import modified_ns, unquoted
from recfs.stores.s3.small import S3Small

# What XML 1.0 cannot hold travels neither in the body of DeleteObjects nor in its answer.
_NOT_XML = frozenset(map(chr, (*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF)))


class S3Store(S3Small):
    """An ObjectStore in an S3 bucket."""

    # --- reading -------------------------------------------------------------------------------------------------

    def get_range(
        self,
        key: str,
        start: int,
        length: int,
        *,
        if_match: str | None,
        into: memoryview | int,
        at: int | None = None,
        cancel: Cancel | None = None,
    ) -> int:
        """As `ObjectStore.get_range`."""
        if length <= 0 or start < 0:
            raise ValueError(f"a range of {length} bytes from {start}")
        doing = f"read bytes {start} to {start + length - 1}"
        condition: dict[str, Any] = {} if if_match is None else {"IfMatch": f'"{if_match}"'}
        answer = self._send(doing, key, "get_object", Range=f"bytes={start}-{start + length - 1}", **condition)
        body = answer["Body"]
        try:
            self._check_headers(answer, key, doing, start, length, if_match)
        except ObjectStoreError:
            body.close()
            raise
        if at is None:
            at = start
        with faults(self._target, doing, key):
            return receive(
                body,
                length,
                into,
                at,
                patience_s=self._section.read_timeout,
                cancel=cancel,
                name=self._target.name(key),
            )

    def _check_headers(
        self, answer: dict[str, Any], key: str, doing: str, start: int, length: int, if_match: str | None
    ) -> None:
        """Refuse everything that is not exactly this range of this version, before a byte is taken."""
        etag = unquoted(self._expect(answer, "ETag", doing, key))
        if if_match is not None and etag != if_match:
            raise fault(ObjectChanged, self._target, doing, key, f"its etag is {etag}, not {if_match}")
        status, given = answer["ResponseMetadata"]["HTTPStatusCode"], answer.get("ContentLength")
        if status == 206:
            content_range = str(answer.get("ContentRange", ""))
            if not content_range.startswith(f"bytes {start}-{start + length - 1}/"):
                total = content_range.rpartition("/")[2]
                if total.isdecimal() and int(total) < start + length:
                    what = f"it has {total} bytes only"
                    raise fault(ObjectChanged, self._target, doing, key, what)
                raise self._bad(doing, key, f"another range came: {content_range or 'not said which'}")
        elif start != 0 or given != length:
            # The whole object without being asked for, or something that is no object at all.
            raise self._bad(doing, key, f"status {status} instead of 206 for a range")
        if given is not None and given != length:
            raise self._bad(doing, key, f"{given} bytes come instead of {length}")

    # --- deleting ------------------------------------------------------------------------------------------------

    def delete(self, keys: Iterable[str]) -> Sequence[tuple[str, ObjectStoreError]]:
        """As `ObjectStore.delete`."""
        failed: list[tuple[str, ObjectStoreError]] = []
        pending = iter(dict.fromkeys(keys))
        while batch := list(islice(pending, DELETE_BATCH)):
            plain = []
            for key in batch:
                if _NOT_XML.intersection(key) or not self._fits(key):
                    failed += self._delete_one(key)
                else:
                    plain.append(key)
            if plain:
                failed += self._delete_refused_apart(plain)
        return failed

    def _delete_one(self, key: str) -> list[tuple[str, ObjectStoreError]]:
        try:
            self._call("delete", key, "delete_object")
        except ObjectMissing:
            pass
        except ObjectStoreError as error:
            return [(key, error)]
        return []

    def _delete_refused_apart(self, keys: Sequence[str]) -> list[tuple[str, ObjectStoreError]]:
        """A batch, by halves if it is refused: one key that the server does not take must not keep the others."""
        try:
            return self._delete_batch(keys)
        except (KeyTooLong, RequestRefused):
            if len(keys) == 1:
                return self._delete_one(keys[0])
            half = len(keys) // 2
            return self._delete_refused_apart(keys[:half]) + self._delete_refused_apart(keys[half:])

    def _delete_batch(self, keys: Sequence[str]) -> list[tuple[str, ObjectStoreError]]:
        objects = [{"Key": self._full(key)} for key in keys]
        answer = self._call("delete", None, "delete_objects", Delete={"Objects": objects, "Quiet": False})
        # Not "quiet": an error page that happens to be XML would then count as success for all of them.
        left = dict.fromkeys(keys)
        for done in answer.get("Deleted", ()):
            left.pop(self._relative(done.get("Key", "")), None)
        failed: list[tuple[str, ObjectStoreError]] = []
        for error in answer.get("Errors", ()):
            key = self._relative(error.get("Key", ""))
            left.pop(key, None)
            if error.get("Code") not in ("NoSuchKey", "NoSuchVersion"):
                failed.append((key, refusal(error, 0, self._target, "delete", key)))
        if len(left) == len(keys) and not failed:
            raise self._bad("delete", None, "not an answer of an S3 server to a deletion")
        failed += [(key, self._bad("delete", key, "the answer does not mention it")) for key in left]
        return failed

    # --- listing -------------------------------------------------------------------------------------------------

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """As `ObjectStore.list`."""
        doing = "list the objects"
        more: dict[str, Any] = {"StartAfter": self._section.prefix + after} if after else {}
        while True:
            page = self._call(doing, None, "list_objects_v2", Prefix=self._section.prefix + prefix, **more)
            if "IsTruncated" not in page:
                raise self._bad(doing, None, "not an answer of an S3 server to a listing")
            for each in page.get("Contents", ()):
                yield ObjectInfo(
                    key=self._relative(each["Key"]),
                    size_bytes=int(each["Size"]),
                    etag=unquoted(each["ETag"]),
                    storage_class=each.get("StorageClass") or "STANDARD",
                    last_modified_ns=modified_ns(each),
                )
            if not page["IsTruncated"]:
                return
            token = self._expect(page, "NextContinuationToken", doing, None)
            if token == more.get("ContinuationToken"):
                raise self._bad(doing, None, "the list of an S3 server goes on, this one begins again")
            more = {"ContinuationToken": token}


def connect(section: S3Section) -> ObjectStore:
    """The store that *section* describes. Reads credentials, makes no request. Raises WrongCredentials."""
    return S3Store(section)
