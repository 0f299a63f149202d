"""The one connection that everything S3 goes through: client, names, error translation, facts learned of the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from recfs.config import S3Section
from recfs.ports.object_errors import (
    AccessRefused,
    BadAnswer,
    KeyTooLong,
    ObjectMissing,
    ObjectStoreError,
    RequestRefused,
    WrongCredentials,
)
from recfs.ports.objects import ObjectInfo
from recfs.stores.s3.body import FileBody
from recfs.stores.s3.client import endpoint_of, make_client, make_session, signs_payload
from recfs.stores.s3.faults import Target, fault, faults
from recfs.stores.s3.meta import info_of, unquoted
from recfs.stores.s3.proxy import proxy_for
from recfs.stores.s3.wire import Wire

MAX_KEY_BYTES = 1024
_T = TypeVar("_T")


class S3Link:
    """Base of the S3 store's rooms. Thread-safe: boto3 clients are, and facts are learned once, by assignment."""

    def __init__(self, section: S3Section) -> None:
        self._section = section
        self._session = make_session(section)
        endpoint = endpoint_of(self._session, section)
        proxy = proxy_for(endpoint)
        self._target = Target(section.bucket, section.prefix, endpoint, "" if proxy is None else proxy.url)
        self._signed = signs_payload(section, endpoint)
        self._client = make_client(self._session, section, endpoint, signed=self._signed)
        self._wire = Wire(self._session, section, endpoint)
        self._checksums_ignored = False
        self._algorithms: dict[str, str | None] = {}
        """Checksum algorithm by id of an upload under way."""

    # --- calls ---------------------------------------------------------------------------------------------------

    def _call(self, doing: str, key: str | None, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request to the bucket; *key*, where not None, becomes Key. *doing* completes "cannot ...".

        Raises the one exception for whatever goes wrong.
        """
        if key is not None and "Key" not in parameters:  # else it lies in another place, which they name
            parameters["Key"] = self._full(key)

        def call() -> dict[str, Any]:
            with faults(self._target, doing, key, _hint(operation, parameters)):
                answer: dict[str, Any] = getattr(self._client, operation)(
                    **{"Bucket": self._section.bucket, **parameters}
                )
            return answer

        return self._with_credentials(call)

    def _with_credentials(self, call: Callable[[], _T]) -> _T:
        """Make the request; once more if it is refused and there are other credentials by now."""
        with faults(self._target, "find credentials"):
            credentials = self._session.get_credentials()
            used = None if credentials is None else credentials.get_frozen_credentials()
        try:
            return call()
        except (WrongCredentials, AccessRefused):
            with faults(self._target, "renew credentials"):
                others = credentials is not None and credentials.renew(used)
            if not others:
                raise
        return call()

    def _send(
        self, doing: str, key: str, operation: str, body: FileBody | None = None, sha256: bytes | None = None,
        **parameters: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """As `_call`, for the requests that carry bytes. *sha256*: the body's, for the signature; None: unsigned."""
        full = self._full(key)

        def call() -> dict[str, Any]:
            if body is not None:
                body.rewind()
            with faults(self._target, doing, key, _hint(operation, parameters)):
                return self._wire.call(operation, full, body=body, sha256=sha256, parameters=parameters)

        return self._with_credentials(call)

    def _fits(self, key: str) -> bool:
        return len((self._section.prefix + key).encode()) <= MAX_KEY_BYTES

    def _full(self, key: str) -> str:
        full = self._section.prefix + key
        if (size := len(full.encode())) > MAX_KEY_BYTES:
            raise fault(KeyTooLong, self._target, "name the object", key, f"the key has {size} bytes")
        return full

    def _relative(self, full: str) -> str:
        return full[len(self._section.prefix) :]

    def _bad(self, doing: str, key: str | None, what: str) -> ObjectStoreError:
        return fault(BadAnswer, self._target, doing, key, what)

    def _expect(self, answer: dict[str, Any], field: str, doing: str, key: str | None) -> Any:
        """A field that every S3 server sends. An error page with status 200 parses as an answer without it."""
        if answer.get(field) in (None, ""):
            raise self._bad(doing, key, f"not an answer of an S3 server: it has no {field}")
        return answer[field]

    def _encryption(self) -> dict[str, Any]:
        """How a new object is to be encrypted. "none" is no value of S3's: AWS and Ceph refuse it."""
        wanted = {"ServerSideEncryption": self._section.sse, "SSEKMSKeyId": self._section.kms_key}
        return {name: value for name, value in wanted.items() if value not in (None, "none")}

    # --- HEAD ----------------------------------------------------------------------------------------------------

    def head(self, key: str, *, checksum: bool = False) -> ObjectInfo | None:
        """As `ObjectStore.head`."""
        doing = "look at the object"
        # Not asked each time: of what is encrypted by KMS that takes a permission more (S3 API, "HeadObject").
        asked: dict[str, Any] = {"ChecksumMode": "ENABLED"} if checksum else {}
        try:
            answer = self._send(doing, key, "head_object", **asked)
        except (ObjectMissing, AccessRefused, RequestRefused) as error:
            # An answer to HEAD has no body, hence no code: it tells no missing object from a missing bucket, and no
            # wrong secret from a wrong policy. A listing does.
            self._probe(doing)
            if isinstance(error, ObjectMissing):
                return None
            raise
        self._expect(answer, "ETag", doing, key)
        if answer.get("ContentLength") is None:
            raise self._bad(doing, key, "not an answer of an S3 server: it has no Content-Length")
        return info_of(key, answer)

    def _probe(self, doing: str) -> dict[str, Any]:
        """The cheapest request whose answer says exactly what is wrong with bucket or credentials."""
        page = self._call(doing, None, "list_objects_v2", MaxKeys=1, Prefix=self._section.prefix)
        if "IsTruncated" not in page:
            raise self._bad(doing, None, "not an answer of an S3 server to a listing")
        return page

    def _listed(self, key: str, doing: str) -> tuple[str, int] | None:
        """(etag, size) of an object by a listing: where a proxy takes the etag off other answers."""
        page = self._call(doing, None, "list_objects_v2", MaxKeys=1, Prefix=self._full(key))
        if "IsTruncated" not in page:
            raise self._bad(doing, key, "not an answer of an S3 server to a listing")
        for each in page.get("Contents", ()):
            if each["Key"] == self._full(key):
                return unquoted(each["ETag"]), int(each["Size"])
        return None

    # --- tags ----------------------------------------------------------------------------------------------------

    def _tags_of(self, key: str) -> dict[str, str]:
        answer = self._call("read the tags", key, "get_object_tagging")
        if "TagSet" not in answer:
            if answer["ResponseMetadata"]["HTTPHeaders"].get("content-length", "0") == "0":
                return {}  # Ceph 16, of an object that came in parts
            raise self._bad("read the tags", key, "not an answer of an S3 server: it has no TagSet")
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def _set_tags(self, key: str, tags: dict[str, str]) -> None:
        if not tags:
            self._call("remove the tags", key, "delete_object_tagging")
            return
        tag_set = [{"Key": name, "Value": value} for name, value in tags.items()]
        self._call("set the tags", key, "put_object_tagging", Tagging={"TagSet": tag_set})

    # --- integrity -----------------------------------------------------------------------------------------------

    def _algorithm(self) -> str | None:
        """Checksum to send with uploads, by S3's name; None where the server ignores them or the config says off."""
        match self._section.checksums:
            case "off":
                return None
            case "sha256":
                return "SHA256"
            case "crc32c":
                return "CRC32C"
        return None if self._checksums_ignored else "CRC32C"

    def _learn_checksums_ignored(self) -> None:
        """The server takes checksum headers and does nothing with them (Ceph 16 does).

        From now on the payload's SHA-256 goes into the signature, which the server does verify; Content-MD5, the other
        way, costs more than twice the CPU. Only `payload_signing = "off"` leaves Content-MD5.
        """
        self._checksums_ignored = True
        if self._section.payload_signing == "auto":
            self._signed = True

    def close(self) -> None:
        """As `ObjectStore.close`."""
        self._client.close()
        self._wire.close()


_STORING = ("put_object", "upload_part", "create_multipart_upload", "complete_multipart_upload", "copy_object")


def _hint(operation: str, parameters: Mapping[str, Any]) -> str:
    """What may be behind an internal error; SeaweedFS 4 says no more when it has no room left, or no key."""
    if (encryption := parameters.get("ServerSideEncryption")) is not None:
        return f': perhaps it has no key to encrypt with; give it one, or leave out sse = "{encryption}" in [s3]'
    return ": perhaps it has no room left (disks, volumes) while it can still be read" if operation in _STORING else ""
