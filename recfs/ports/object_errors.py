"""What can go wrong between recfs and an object store: one class per kind of trouble, whatever the server calls it.

ObjectStoreError
├── ObjectMissing           no such object
├── ObjectChanged           another version than the one asked for
├── ObjectArchived          the bytes lie in an archive class; they have to be restored first
├── KeyTooLong              the object key is beyond 1024 bytes
├── UploadGone              the server does not know this multipart upload (any more)
├── UploadInvalid           the parts do not make an object
├── ChecksumMismatch        the server got, or has, other bytes than were sent
├── SourceChanged           the local file is shorter than it was said to be
├── TransferCancelled       the caller asked for it
├── WrongCredentials        unknown access key, wrong secret, expired token, or none at all
├── AccessRefused           the credentials are good and may not do this
├── BucketMissing           no such bucket
├── WrongRegion             the bucket lives elsewhere
├── ClockSkewed             this machine's clock is wrong
├── Untrusted               TLS: the server's certificate does not convince
├── StoreFull               the server has no space, or its quota is used up
├── NotOffered              the server cannot do this
├── PrefixTaken             the prefix of the bucket is another store's: nothing in it is changed
├── RequestRefused          any other 4xx: a bug or a server of its own kind
└── StoreOutage             the server is not answering as it should; the same request may work later
    ├── Unreachable         refused, reset, no route, unknown host name
    ├── Stalled             no byte came for too long
    ├── Throttled           429, SlowDown: too many requests
    ├── ServerFault         500, 502, 503, 504
    ├── BadAnswer           truncated, too long, or not an answer of an S3 server at all
    └── StoreDown           not even tried: the circuit breaker is open

`retryable` says that the same call may succeed a moment later; `outage` that it is the server or the way to it that
fails, whatever is asked, which is what the circuit breaker counts.
"""

from __future__ import annotations

from typing import ClassVar

from recfs.errors import RecfsError


class ObjectStoreError(RecfsError):
    """Base of all; `str()` names the object or the bucket, what happened, and the remedy."""

    retryable: ClassVar[bool] = False
    outage: ClassVar[bool] = False
    unanswered: bool = False
    """Whether the server may carry out all the same what it was asked, perhaps much later: it gave no answer."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code
        """What the server called it ("SlowDown", "503"), for logs; empty where it said nothing."""


class ObjectMissing(ObjectStoreError):
    """No such object."""


class ObjectChanged(ObjectStoreError):
    """The object is not the version that was asked for; bytes of two versions are never mixed."""


class ObjectArchived(ObjectStoreError):
    """The bytes lie in an archive class and have to be restored before they can be read."""


class KeyTooLong(ObjectStoreError):
    """The key is beyond S3's 1024 bytes of UTF-8."""


class UploadGone(ObjectStoreError):
    """The server does not know this multipart upload: finished, aborted, or cleaned away."""


class UploadInvalid(ObjectStoreError):
    """The parts do not make an object (one is missing, replaced, out of order, too small or too large)."""


class ChecksumMismatch(ObjectStoreError):
    """The server received, or holds, other bytes than were sent."""

    retryable = True


class SourceChanged(ObjectStoreError):
    """The local file ended before the length it was said to have."""


class TransferCancelled(ObjectStoreError):
    """The caller's `cancel` said so."""


class WrongCredentials(ObjectStoreError):
    """Unknown access key, wrong secret, expired token, or no credentials found."""


class AccessRefused(ObjectStoreError):
    """The credentials are good, and may not do this."""


class BucketMissing(ObjectStoreError):
    """No such bucket."""


class WrongRegion(ObjectStoreError):
    """The bucket lives in another region."""


class ClockSkewed(ObjectStoreError):
    """The clocks of this machine and of the server differ by more than the 15 minutes S3 allows."""


class Untrusted(ObjectStoreError):
    """TLS: the certificate of the server is not one this machine trusts."""


class StoreFull(ObjectStoreError):
    """The server has no space left, or its quota is used up."""


class NotOffered(ObjectStoreError):
    """The server does not do this."""


class PrefixTaken(ObjectStoreError):
    """The prefix of the bucket is another store's, so far as is known: nothing in it is changed."""


class RequestRefused(ObjectStoreError):
    """The server refused the request for a reason recfs has no class for."""


class StoreOutage(ObjectStoreError):
    """The server does not answer as it should; the same request may work later."""

    retryable = True
    outage = True
    unanswered = True


class Unreachable(StoreOutage):
    """Connection refused or reset, no route, unknown host name."""


class Stalled(StoreOutage):
    """The connection stands, and no byte came (or was taken) for the read timeout."""


class Throttled(StoreOutage):
    """Too many requests for the server's taste."""

    unanswered = False


class ServerFault(StoreOutage):
    """The server reports a fault of its own."""


class BadAnswer(StoreOutage):
    """A body that is too short or too long, or an answer no S3 server gives (say, the error page of a proxy)."""


class StoreDown(StoreOutage):
    """Not tried: earlier calls found the server down, and the next probe is not due yet."""

    retryable = False
    outage = False
    unanswered = False
