"""Every way boto3 and urllib3 fail, made the one exception of `object_errors` with a message that says what helps.

The only place that reads error codes. Codes come from the S3 API's list and from what Ceph, MinIO and SeaweedFS send;
where an answer carries no code (HEAD has no body, a proxy sends HTML), the HTTP status decides.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore import exceptions as boto
from urllib3 import exceptions as urllib

from recfs.errors import RecfsError
from recfs.ports import object_errors as kinds
from recfs.ports.object_errors import ObjectStoreError
from recfs.stores.s3.interim import NoFinalAnswer

MAX_NAME_BYTES = 255
"""What servers that keep keys as a file system does take between two slashes."""
STATUS_HEADER = "x-recfs-status"
"""Where the client keeps the status an answer came with."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom the messages talk about."""

    bucket: str
    prefix: str
    endpoint: str
    proxy: str = ""
    """Through which everything goes; empty: none."""

    @property
    def place(self) -> str:
        """Where requests go."""
        return f"{self.endpoint} through the proxy {self.proxy}" if self.proxy else self.endpoint

    def name(self, key: str | None) -> str:
        """s3:// name of an object, or of the place where all of them lie."""
        return f"s3://{self.bucket}/{self.prefix}{key or ''}"


_CODES: dict[str, type[ObjectStoreError]] = {
    code: kind
    for kind, codes in {
        kinds.WrongCredentials: (
            "InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken InvalidToken TokenRefreshRequired InvalidSecurity "
            "MissingSecurityHeader NotSignedUp AccountProblem RequestExpired UnrecognizedClientException AuthFailure"
        ),
        kinds.AccessRefused: "AccessDenied AllAccessDisabled AccessForbidden InvalidPayer",
        kinds.BucketMissing: "NoSuchBucket",
        kinds.WrongRegion: "PermanentRedirect TemporaryRedirect AuthorizationHeaderMalformed IncorrectEndpoint",
        kinds.ClockSkewed: "RequestTimeTooSkewed RequestInTheFuture",
        kinds.ObjectMissing: "NoSuchKey NoSuchVersion",
        kinds.ObjectChanged: "PreconditionFailed InvalidRange",
        kinds.ObjectArchived: "InvalidObjectState ObjectNotInActiveTierError",  # of GetObject, of CopyObject
        kinds.KeyTooLong: "KeyTooLongError KeyTooLong",
        kinds.UploadGone: "NoSuchUpload",
        kinds.UploadInvalid: (
            "EntityTooSmall EntityTooLarge InvalidPart InvalidPartOrder ExistingObjectIsDirectory ExistingObjectIsFile"
        ),
        kinds.ChecksumMismatch: (
            "BadDigest InvalidDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch IncompleteBody"
        ),
        kinds.StoreFull: (
            "QuotaExceeded XMinioStorageFull StorageFull InsufficientStorage XMinioAdminBucketQuotaExceeded NoSpace"
        ),
        kinds.NotOffered: (
            "NotImplemented UnsupportedOperation MissingContentLength NotSupported MethodNotAllowed InvalidStorageClass"
        ),
        kinds.Throttled: (
            "SlowDown SlowDownRead SlowDownWrite TooManyRequests RequestLimitExceeded Throttling ThrottlingException "
            "BandwidthLimitExceeded OperationAborted ConcurrentModification TooManyRequestsException"
        ),
        kinds.Stalled: "RequestTimeout RequestTimeoutException",
        kinds.ServerFault: "InternalError ServiceUnavailable InternalServerError XMinioServerNotInitialized",
    }.items()
    for code in codes.split()
}

_INTERNAL = ("InternalError", "InternalServerError", "500")
_HEADS = ("HeadObject", "HeadBucket")
"""Operations whose answers have no body, hence no code either."""

_STATUS: dict[int, type[ObjectStoreError]] = {
    301: kinds.WrongRegion,
    307: kinds.WrongRegion,
    401: kinds.WrongCredentials,
    403: kinds.AccessRefused,
    404: kinds.ObjectMissing,
    405: kinds.NotOffered,
    407: kinds.WrongCredentials,
    408: kinds.Stalled,
    409: kinds.Throttled,
    411: kinds.NotOffered,
    412: kinds.ObjectChanged,
    413: kinds.UploadInvalid,
    416: kinds.ObjectChanged,
    429: kinds.Throttled,
    500: kinds.ServerFault,
    501: kinds.NotOffered,
    502: kinds.ServerFault,
    503: kinds.ServerFault,
    504: kinds.ServerFault,
    507: kinds.StoreFull,
}

_REMEDIES: dict[type[ObjectStoreError], str] = {
    kinds.WrongCredentials: "check the access key and secret that [s3] profile, credentials_file or the variables give",
    kinds.AccessRefused: (
        "let these credentials list the bucket and read, write and delete below the prefix (IAM, bucket policy)"
    ),
    kinds.BucketMissing: "create the bucket, or correct [s3] bucket, endpoint or region",
    kinds.WrongRegion: "set [s3] region to the one where the bucket lives",
    kinds.ClockSkewed: "set this machine's clock (is NTP running?)",
    kinds.ObjectMissing: "it was deleted behind recfs's back; restore it in the bucket, or remove the file",
    kinds.ObjectChanged: (
        "it was replaced behind recfs's back; restore the version recfs wrote, or remove the file (a program that "
        "reads it has to open it again)"
    ),
    kinds.ObjectArchived: "ask for a copy with `recfs restore`, and read it when the restore is done",
    kinds.KeyTooLong: (
        "S3 keys have at most 1024 bytes, on some servers 255 between two slashes (a byte that has no place in keys "
        "counts as three): shorten the name, the path or [s3] prefix"
    ),
    kinds.UploadGone: "the upload has to start again; if it happens often, a lifecycle rule aborts uploads too early",
    kinds.UploadInvalid: "the upload has to start again, with parts of at least 5 MiB and at most 5 GiB",
    kinds.ChecksumMismatch: "if it happens again, suspect this machine's memory or disk, or what lies in between",
    kinds.StoreFull: "free space on the server, or raise the quota of the bucket or user there",
    kinds.NotOffered: "this server does not offer it: turn off what needs it, or use another server",
    kinds.Throttled: "recfs slows down and tries again; if it stays so, lower [s3] threads",
    kinds.Stalled: "recfs tries again; if it stays so, look at the network and the server, or raise [s3] read_timeout",
    kinds.ServerFault: "recfs tries again; if it stays so, look at the server's log",
    kinds.Unreachable: "recfs tries again; check [s3] endpoint, the network, and whether the server runs",
    kinds.BadAnswer: (
        "recfs tries again; if it stays so, a proxy or another program answers in the server's place: check host and "
        "port of [s3] endpoint"
    ),
    kinds.Untrusted: "give the server's CA in [s3] ca_bundle, or correct the host name in [s3] endpoint",
    kinds.RequestRefused: "please report this with the server's name and version",
}


_SHOWN = 100
"""So many characters of each end of a long key are shown."""
PROXY_REFUSES, PROXY_WANTS_CREDENTIALS = "proxy", "407"
"""Codes of refusals that are not the server's."""
_NOT_TOGETHER = "recfs tries again: there, an object and others below its name go together only when the first is gone"
_REMEDIES_OF_CODE = {
    "InvalidStorageClass": "set storage_class in [s3] and in [[route]] to classes that this server has",
    "ExistingObjectIsDirectory": _NOT_TOGETHER,
    "ExistingObjectIsFile": _NOT_TOGETHER,
    PROXY_REFUSES: "have the proxy let these requests through, or name the server in no_proxy",
    PROXY_WANTS_CREDENTIALS: (
        "put them into http_proxy or https_proxy (http://user:password@host:port), or name the server in no_proxy"
    ),
}


def fault(
    kind: type[ObjectStoreError], target: Target, doing: str, key: str | None, what: str, code: str = ""
) -> ObjectStoreError:
    """Build the exception: object, operation, what happened, where, remedy."""
    remedy = _REMEDIES_OF_CODE.get(code) or _REMEDIES.get(kind)
    text = f"{_shortened(target.name(key))}: cannot {doing}: {what} ({target.place})"
    if remedy:
        text += f"; {remedy}"
    return kind(text, code=code)


def _shortened(name: str) -> str:
    """A name of a sentence's length: of a longer one the beginning and the end."""
    return name if len(name) <= 2 * _SHOWN else f"{name[:_SHOWN]}…{name[-_SHOWN:]}"


def translate(
    error: BaseException, target: Target, doing: str, key: str | None, earlier: BaseException | None = None
) -> ObjectStoreError | RecfsError | None:
    """The exception of ours for one of boto3's; None for what is not the store's fault (a bug).

    *earlier*: what was being handled when the call began, which is no cause.
    """
    if isinstance(error, RecfsError):
        return error
    if isinstance(error, boto.ClientError):
        return _refusal(error, target, doing, key)
    cause = _cause(error)
    if cause is earlier:
        cause = None
    if isinstance(cause, RecfsError):
        return cause  # raised by our own body reader in the middle of urllib3
    if isinstance(error, boto.ProxyConnectionError | urllib.ProxyError):
        return _of_proxy(error, cause, target, doing, key)
    kind, what = _transport(error, cause)
    return None if kind is None else fault(kind, target, doing, key, what, type(error).__name__)


@contextlib.contextmanager
def faults(target: Target, doing: str, key: str | None = None, hint: str = "") -> Iterator[None]:
    """Translate whatever boto3 and urllib3 raise inside. *hint*: what an internal error of the server may mean here."""
    earlier = sys.exception()
    try:
        yield
    except Exception as error:
        ours = translate(error, target, doing, key, earlier)
        if ours is None or ours is error:
            raise
        if hint and isinstance(ours, kinds.ServerFault) and ours.code in _INTERNAL:
            raise kinds.ServerFault(f"{ours}{hint}", code=ours.code) from error
        raise ours from error


def status_of(error: boto.ClientError) -> int:
    """HTTP status of the answer, 0 if there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _refusal(error: boto.ClientError, target: Target, doing: str, key: str | None) -> ObjectStoreError:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    status, answer = status_of(error), error.response.get("Error", {})
    if headers.get(STATUS_HEADER) == "200" and str(answer.get("Code")) == str(status):
        what = f"status 200 with a body that no S3 server sends ({headers.get('content-type', 'of no type')})"
        return fault(kinds.BadAnswer, target, doing, key, what)
    if status == 407:
        what = "the proxy wants a user and a password, or others"
        return fault(kinds.WrongCredentials, target, doing, key, what, PROXY_WANTS_CREDENTIALS)
    if status == 403 and target.proxy and "html" in headers.get("content-type", ""):
        what = "403 with a page that is no answer of an S3 server"
        return fault(kinds.AccessRefused, target, doing, key, what, PROXY_REFUSES)
    if status in (400, 404) and answer.get("Code", "") in ("", str(status)) and error.operation_name not in _HEADS:
        who = f", from {headers['server']}" if headers.get("server") else ""
        return fault(kinds.BadAnswer, target, doing, key, f"{status} without the error code of an S3 server{who}")
    ours = refusal(answer, status, target, doing, key)
    region = headers.get("x-amz-bucket-region") or answer.get("Region")
    if isinstance(ours, kinds.WrongRegion) and region:
        return fault(kinds.WrongRegion, target, doing, key, f'the bucket lives in region "{region}"', ours.code)
    return ours


def refusal(answer: Mapping[str, Any], status: int, target: Target, doing: str, key: str | None) -> ObjectStoreError:
    """The exception for an <Error> of the server, with the status of its answer (0: part of a larger one)."""
    code = str(answer.get("Code", ""))
    kind = _CODES.get(code) or _STATUS.get(status)
    if kind is None:
        # 200 with an error inside (CompleteMultipartUpload, CopyObject) is passed on by botocore as a 500.
        kind = kinds.ServerFault if status >= 500 else kinds.RequestRefused
    if kind is kinds.ObjectMissing and key is None:
        kind = kinds.BucketMissing
    words = str(answer.get("Message", "")).strip()
    if kind is kinds.KeyTooLong and key is not None:
        words = f"the key has {len((target.prefix + key).encode())} bytes, the longest name in it {longest_name(key)}"
    what = " ".join(part for part in (code or str(status), words) if part and part != "None")
    return fault(kind, target, doing, key, _short(what), code or str(status))


_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


def _of_proxy(
    error: BaseException, cause: BaseException | None, target: Target, doing: str, key: str | None
) -> ObjectStoreError:
    """The proxy was not reached, or refuses to lead on to the server (CONNECT)."""
    plain = error if isinstance(error, urllib.ProxyError) else cause or error
    words = f"{plain} {plain.__cause__ or ''}"
    refused = _TUNNEL.search(words)
    if refused is None:
        return fault(kinds.Unreachable, target, doing, key, "the proxy does not answer", type(error).__name__)
    if refused[1] == PROXY_WANTS_CREDENTIALS:
        what = "the proxy wants a user and a password, or others"
        return fault(kinds.WrongCredentials, target, doing, key, what, PROXY_WANTS_CREDENTIALS)
    what = f"the proxy refuses the connection with status {refused[1]}"
    if refused[1].startswith("5"):
        return fault(kinds.Unreachable, target, doing, key, what, type(error).__name__)
    return fault(kinds.AccessRefused, target, doing, key, what, PROXY_REFUSES)


def _cause(error: BaseException) -> BaseException | None:
    """What botocore wrapped."""
    inner = getattr(error, "kwargs", {}).get("error") if isinstance(error, boto.BotoCoreError) else None
    return inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__


def _transport(error: BaseException, cause: BaseException | None) -> tuple[type[ObjectStoreError] | None, str]:
    plain = error if isinstance(error, urllib.HTTPError) else cause or error
    match error:
        case boto.NoCredentialsError() | boto.PartialCredentialsError() | boto.CredentialRetrievalError():
            return kinds.WrongCredentials, f"no usable credentials: {_short(error)}"
        case boto.ProfileNotFound() | boto.NoAuthTokenError() | boto.TokenRetrievalError() | boto.SSOError():
            return kinds.WrongCredentials, _short(error)
        case boto.SSLError() | urllib.SSLError():
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error) or "doesn't match" in str(error)
            return (kinds.Untrusted if untrusted else kinds.Unreachable), f"TLS: {_short(plain)}"
        case boto.EndpointConnectionError() | urllib.NewConnectionError():
            if isinstance(plain, urllib.NameResolutionError | socket.gaierror):
                return kinds.Unreachable, "host name not known"
            return kinds.Unreachable, "connection refused or no route"
        case boto.ConnectTimeoutError() | urllib.ConnectTimeoutError():
            return kinds.Unreachable, "no connection within [s3] connect_timeout"
        case boto.ReadTimeoutError() | urllib.ReadTimeoutError() | TimeoutError():
            return kinds.Stalled, "nothing came for [s3] read_timeout"
        case boto.IncompleteReadError() | urllib.IncompleteRead() | boto.ResponseStreamingError():
            return kinds.BadAnswer, f"the answer broke off: {_short(plain)}"
        case boto.ConnectionClosedError() | urllib.ProtocolError() if isinstance(_last_of(plain), TimeoutError):
            return kinds.Stalled, "the server takes no more bytes"
        case boto.ConnectionClosedError() | urllib.ProtocolError() if isinstance(_last_of(plain), NoFinalAnswer):
            return kinds.BadAnswer, f"not an answer of an S3 server: {_last_of(plain)}"
        case boto.ConnectionClosedError() | urllib.ProtocolError():
            return kinds.Unreachable, f"connection lost: {_short(plain)}"
        case boto.ConnectionError() | boto.HTTPClientError() | urllib.HTTPError() | ConnectionError():
            return kinds.Unreachable, _short(plain)
        case boto.ChecksumError() | boto.FlexibleChecksumError():
            return kinds.ChecksumMismatch, _short(error)
    # botocore keeps its parser's exception in a module of its own, without a public name.
    if type(error).__name__ == "ResponseParserError":
        return kinds.BadAnswer, f"not an answer of an S3 server: {_short(error)}"
    if isinstance(error, boto.ParamValidationError | boto.ValidationError | boto.BotoCoreError):
        return kinds.RequestRefused, _short(error)
    return None, ""


def _last_of(error: BaseException) -> object:
    """What urllib3 puts last into a ProtocolError: the error of the socket."""
    return error.args[-1] if isinstance(error, urllib.ProtocolError) and error.args else error


def longest_name(key: str) -> int:
    """Bytes of the longest part between slashes."""
    return max(len(part.encode()) for part in key.split("/"))


def _short(words: object) -> str:
    return " ".join(str(words).split())[:200]
