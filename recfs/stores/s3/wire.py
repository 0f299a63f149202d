"""The requests that carry bytes, or are made by the hundred thousand, without boto3's client around them.

PutObject, UploadPart and GetObject, and HeadObject. A small PUT costs boto3 0.86 ms of CPU, most of it in models and
events that nothing here uses; this way it is 0.31 (docs/architecture.md). Names of parameters and answers are boto3's,
and so are errors: a refusal is parsed by botocore and raised as its ClientError. Where the bucket is, is what boto3
makes of the configuration.
"""

from __future__ import annotations

import contextlib
import functools
import io
import socket
import threading
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.awsrequest
import botocore.parsers
import urllib3
from botocore.exceptions import ClientError, NoCredentialsError

from recfs.config import S3Section
from recfs.stores.s3 import interim
from recfs.stores.s3.body import FileBody
from recfs.stores.s3.client import USER_AGENT, make_client, trusted_certificates
from recfs.stores.s3.faults import STATUS_HEADER
from recfs.stores.s3.heads import Heads, Place, trusting
from recfs.stores.s3.proxy import proxy_for
from recfs.stores.s3.signing import UNSIGNED, Signer

SMALL_BODY_BYTES = 256 << 10
"""A body up to this size goes out in one piece, in the same packets as the headers."""
EXPECT_BYTES = 1 << 20
"""From this size a server may refuse before the bytes are sent ("100 Continue"); below, waiting costs more than it
saves."""
MAX_ANSWER_BYTES = 1 << 20
"""What is read of an answer that should be short."""

_SOCKET_OPTIONS = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
_METHODS = {"put_object": "PUT", "upload_part": "PUT", "get_object": "GET", "head_object": "HEAD"}
_MODELS = {
    "put_object": "PutObject",
    "upload_part": "UploadPart",
    "get_object": "GetObject",
    "head_object": "HeadObject",
}
_HEADERS = {
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "ChecksumMode": "x-amz-checksum-mode",
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ContentMD5": "content-md5",
    "ContentType": "content-type",
    "IfMatch": "if-match",
    "Range": "range",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "StorageClass": "x-amz-storage-class",
    "Tagging": "x-amz-tagging",
}
_QUERY = {"PartNumber": "partNumber", "UploadId": "uploadId"}
_ANSWER = {
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ContentRange": "content-range",
    "ETag": "etag",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "VersionId": "x-amz-version-id",
}
_DESCRIBED = {
    **_ANSWER,
    "ArchiveStatus": "x-amz-archive-status",
    "ChecksumType": "x-amz-checksum-type",
    "Restore": "x-amz-restore",
    "StorageClass": "x-amz-storage-class",
}
"""What the answer to HeadObject has, as far as anybody here asks."""
_METADATA = "x-amz-meta-"


class Wire:
    """Connections to one bucket. Thread-safe."""

    def __init__(self, session: Any, section: S3Section, endpoint: str) -> None:
        self._session, self._section, self._endpoint = session, section, endpoint
        self._lock = threading.Lock()
        self._manager: urllib3.PoolManager | None = None
        self._heads: Heads | None = None
        """None: all goes the ordinary way, through a proxy or where certificates cannot be read."""
        self._base = self._host = self._path = ""
        self._signer = Signer("")
        self._credentials: Any = None
        self._model: Any = None

    def call(
        self,
        operation: str,
        key: str,
        *,
        body: FileBody | None = None,
        sha256: bytes | None = None,
        parameters: Mapping[str, Any],
    ) -> dict[str, Any]:
        """One request, with boto3's names for operation and parameters; *key* with the prefix.

        *sha256*: of the body, for the signature; None leaves the body unsigned (GET has none, either way). "Body" of
        an answer to GetObject is urllib3's response, to be read and closed by the caller. Raises ClientError, and what
        urllib3, the body and botocore's credentials raise.
        """
        manager = self._connected()
        method, query = _METHODS[operation], {}
        headers = {"host": self._host}
        for name, value in parameters.items():
            if name == "Metadata":
                headers.update({f"x-amz-meta-{word}": text for word, text in value.items()})
            elif name in _QUERY:
                query[_QUERY[name]] = str(value)
            else:
                headers[_HEADERS[name]] = str(value)
        path = self._path + quote(key, safe="/~")
        payload = UNSIGNED if sha256 is None else sha256.hex()
        sent_query = self._signer.sign(
            method, path, query, headers, payload, self._credentials.get_frozen_credentials()
        )  # fmt: skip
        sent: dict[str, Any] = headers
        sent["Host"] = sent.pop("host")  # by this name urllib3 adds none of its own for a proxy
        sent["user-agent"] = USER_AGENT
        if self._heads is not None and method == "HEAD":
            told = self._heads.ask(f"{path}{'?' if sent_query else ''}{sent_query}", sent)
            if told is not None:
                return self._head(operation, *told)
        data: FileBody | bytes | None = None
        if body is not None:
            sent["content-length"] = str(len(body))
            data = body if len(body) > SMALL_BODY_BYTES else body.read()
            if len(body) >= EXPECT_BYTES:
                sent["Expect"] = b"100-continue"  # by this name and type botocore's connection knows it
        answer = manager.urlopen(
            method, f"{self._base}{path}{'?' if sent_query else ''}{sent_query}", body=data, headers=sent,
            retries=False, redirect=False, preload_content=False, decode_content=False, enforce_content_length=False,
        )  # fmt: skip
        return self._answered(operation, answer)

    def _answered(self, operation: str, answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        if operation == "head_object":
            return self._head(operation, answer.status, headers, _rest_of(answer))
        if answer.status >= 300:
            raise self._refused(operation, answer.status, headers, _rest_of(answer))
        found: dict[str, Any] = {name: headers[header] for name, header in _ANSWER.items() if header in headers}
        found["ResponseMetadata"] = {"HTTPStatusCode": answer.status, "HTTPHeaders": headers}
        if operation == "get_object":
            length = headers.get("content-length", "")
            found["ContentLength"] = int(length) if length.isdecimal() else None
            found["Body"] = answer
        else:
            _rest_of(answer)
        return found

    def _head(self, operation: str, status: int, headers: dict[str, str], body: bytes = b"") -> dict[str, Any]:
        if status >= 300:
            raise self._refused(operation, status, headers, body)
        return _described(headers)

    def _refused(self, operation: str, status: int, headers: dict[str, str], body: bytes) -> ClientError:
        name = _MODELS[operation]
        response = {"status_code": status, "headers": {**headers, STATUS_HEADER: str(status)}, "body": body}
        shape = self._model.operation_model(name).output_shape
        return ClientError(_parser().parse(response, shape), name)

    # --- setting up ----------------------------------------------------------------------------------------------

    def _connected(self) -> urllib3.PoolManager:
        if self._manager is not None:
            return self._manager
        with self._lock:
            if self._manager is None:
                self._manager = self._connect()
            return self._manager

    def _connect(self) -> urllib3.PoolManager:
        section = self._section
        client = make_client(self._session, section, self._endpoint, signed=False)
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        url = _bucket_url(client, section.bucket)
        parts = urlsplit(url)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        self._host = host if parts.port in (None, default) else f"{host}:{parts.port}"
        self._base, self._path = f"{parts.scheme}://{self._host}", parts.path
        self._signer = Signer(client.meta.region_name)
        self._credentials, self._model = credentials, client.meta.service_model
        return self._pools()

    def _pools(self) -> urllib3.PoolManager:
        section = self._section
        certificates = trusted_certificates(self._session, section)
        settings: dict[str, Any] = {
            "maxsize": 2 * section.threads,  # uploads, and downloads beside them
            "timeout": urllib3.Timeout(connect=section.connect_timeout, read=section.read_timeout),
            "socket_options": _SOCKET_OPTIONS,
            "cert_reqs": "CERT_NONE" if certificates is None else "CERT_REQUIRED",
            "ca_certs": certificates,
        }
        proxy = proxy_for(self._endpoint)
        manager: urllib3.PoolManager
        if proxy is None:
            manager = urllib3.PoolManager(**settings)
            self._heads = self._straight(certificates)
        else:
            manager = urllib3.ProxyManager(proxy.url, proxy_headers=proxy.headers, **settings)
        manager.pool_classes_by_scheme = interim.POOLS
        return manager

    def _straight(self, certificates: str | None) -> Heads | None:
        parts, section = urlsplit(self._base), self._section
        is_tls = parts.scheme == "https"
        try:
            tls = trusting(certificates) if is_tls else None
        except OSError:
            return None  # what is wrong with them is told by the first request
        host, port = parts.hostname or "", parts.port or (443 if is_tls else 80)
        place = Place(host, port, tls, section.connect_timeout, section.read_timeout, 2 * section.threads)
        return Heads(place, _SOCKET_OPTIONS)

    def close(self) -> None:
        """Drop idle connections; calls under way go on."""
        if self._heads is not None:
            self._heads.close()
        if self._manager is not None:
            self._manager.clear()


def _bucket_url(client: Any, bucket: str) -> str:
    """Where boto3 would send requests for the bucket's objects, ending with a slash. Sends none."""
    caught: list[str] = []

    def catch(request: Any, **_: Any) -> Any:
        caught.append(request.url)
        return botocore.awsrequest.AWSResponse(request.url, 200, {}, io.BytesIO())

    client.meta.events.register("before-send.s3.GetObject", catch)
    client.get_object(Bucket=bucket, Key="x")
    return caught[0].partition("?")[0].removesuffix("x")


def _described(headers: dict[str, str]) -> dict[str, Any]:
    """An object as the answer to HeadObject has it; what the server does not say, or not so that it can be read, is
    missing.
    """
    found: dict[str, Any] = {name: headers[header] for name, header in _DESCRIBED.items() if header in headers}
    found["Metadata"] = {name[len(_METADATA) :]: value for name, value in headers.items() if name.startswith(_METADATA)}
    if (length := headers.get("content-length", "")).isdecimal():
        found["ContentLength"] = int(length)
    with contextlib.suppress(ValueError):
        found["LastModified"] = parsedate_to_datetime(headers.get("last-modified", ""))
    return found


def _rest_of(answer: urllib3.BaseHTTPResponse) -> bytes:
    """A short body; the connection is free for the next request, unless the body is not short."""
    body = answer.read(MAX_ANSWER_BYTES)
    if len(body) == MAX_ANSWER_BYTES:
        answer.close()
    answer.release_conn()
    return body


@functools.cache
def _parser() -> Any:
    return botocore.parsers.create_parser("rest-xml")
