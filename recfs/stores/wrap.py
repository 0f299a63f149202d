"""Tries again: an ObjectStore around another one, with back-off, a deadline, and a circuit breaker all calls share.

The only place that retries; the store below makes one attempt per call, and botocore's own retries are off. What may
be retried is a property of the exception (`object_errors`). All methods of the port are safe to repeat; only
`start_multipart` may leave an orphan behind when the answer is lost, which `list_multiparts` finds.

A server that fails with some requests and answers others (it has no room left, cannot encrypt, or a daemon behind it is
gone or stands still) is not down, and who reads is not kept waiting: before the breaker opens, the bucket is looked at.
Only a server that asks for fewer requests is asked nothing more.

While the breaker is open, calls wait for it to close as long as their deadline allows, instead of running into the
same timeouts side by side; one call at a time is let through to see whether the server is back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

import tenacity

from recfs.core.migration.places import Place
from recfs.ports.object_errors import ObjectStoreError, Throttled
from recfs.ports.objects import (
    Cancel,
    CheckReport,
    LifecycleRule,
    ObjectInfo,
    ObjectMeta,
    ObjectStore,
    PartInfo,
    Progress,
    RestoreSpeed,
    UploadInfo,
)
from recfs.stores.breaker import CircuitBreaker

_T = TypeVar("_T")
_LIST_BATCH = 1000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long one call is tried. The n-th wait is random between 0 and first_wait_s * 2^n."""

    max_attempts: int = 8
    deadline_s: float = 120.0
    """No attempt starts later than this after the first; one under way is not interrupted."""
    first_wait_s: float = 0.1
    max_wait_s: float = 10.0


class RetryingObjectStore:
    """The ObjectStore port around another. *breaker* and policy are shared by all its calls."""

    def __init__(
        self,
        store: ObjectStore,
        policy: RetryPolicy | None = None,
        breaker: CircuitBreaker | None = None,
        *,
        on_retry: Callable[[str, int, Exception], None] = lambda _operation, _attempt, _error: None,
        on_lost: Callable[[str, bytes | None], None] = lambda _key, _sha256: None,
        on_begun: Callable[[str], None] = lambda _key: None,
    ) -> None:
        self._store = store
        self._policy = policy or RetryPolicy()
        self.breaker = breaker or CircuitBreaker()
        self._on_retry = on_retry
        self._on_lost = on_lost
        """Told before a call returns of each key that an attempt without an answer may yet change, and to which bytes
        (SHA-256; empty: it is deleted; None: not known). A call that fails says so itself (`unanswered`)."""
        self._on_begun = on_begun
        """Told of each key under which an upload in parts may have been begun whose id got lost."""
        self._closing = threading.Event()

    def _try(
        self,
        operation: str,
        call: Callable[[], _T],
        changes: Iterable[str] = (),
        sha256: bytes | None = None,
        lost_one: Callable[[], None] = lambda: None,
    ) -> _T:
        """*lost_one* is called when any attempt had no answer, whatever the others had."""
        policy = self._policy
        started = time.monotonic()
        try:
            # Without the machinery below, which costs as much as the rest of a small request.
            return self._once(call, policy.deadline_s)
        except Exception as error:
            if not _retryable(error):
                raise
            failed, lost = [error], isinstance(error, ObjectStoreError) and error.unanswered

        def attempt() -> _T:
            nonlocal lost
            if failed:
                raise failed.pop()
            try:
                return self._once(call, policy.deadline_s - (time.monotonic() - started))
            except ObjectStoreError as error:
                lost = error.unanswered = lost or error.unanswered  # of whichever attempt
                raise

        def again(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            if isinstance(error, Exception):
                self._on_retry(operation, state.attempt_number, error)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_retryable),
            wait=tenacity.wait_random_exponential(multiplier=policy.first_wait_s, max=policy.max_wait_s),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(policy.max_attempts),
                tenacity.stop_before_delay(policy.deadline_s - (time.monotonic() - started)),
                tenacity.stop_when_event_set(self._closing),
            ),
            sleep=tenacity.sleep_using_event(self._closing),
            before_sleep=again,
            reraise=True,
        )
        try:
            result = retrying(attempt)
        finally:
            if lost:
                lost_one()
        if lost:
            for key in changes:
                self._on_lost(key, sha256)
        return result

    def _once(self, call: Callable[[], _T], wait_s: float) -> _T:
        if self.breaker.admit(wait_s):
            # Not with the call itself: a large upload would keep everyone waiting for minutes.
            self._probe()
        return self._report(call, probe=False)

    def _probe(self) -> None:
        """Ask whether the server is back; a refusal is an answer, too. Raises StoreOutage."""
        try:
            self._report(self._store.check, probe=True)
        except ObjectStoreError as error:
            if error.outage:
                raise

    def _report(self, call: Callable[[], _T], *, probe: bool) -> _T:
        """Make the call and tell the breaker how the server took it."""
        began = self.breaker.changes
        try:
            result = call()
        except ObjectStoreError as error:
            if error.outage and (probe or isinstance(error, Throttled) or not self._answers_others()):
                self.breaker.failed(error, probe=probe, began=began)
            else:
                self.breaker.succeeded(began)
            raise
        except BaseException:
            if probe:
                self.breaker.withdrawn()
            raise
        self.breaker.succeeded(began)
        return result

    def _answers_others(self) -> bool:
        """Whether the server still says what is in the bucket; asked when the breaker would open, else False."""
        if not self.breaker.is_about_to_open:
            return False
        try:
            self._store.check()
        except ObjectStoreError as error:
            return not error.outage
        return True

    # --- the port ------------------------------------------------------------------------------------------------

    def head(self, key: str, *, checksum: bool = False) -> ObjectInfo | None:
        """As `ObjectStore.head`."""
        return self._try("head", lambda: self._store.head(key, checksum=checksum))

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
        return self._try(
            "get_range",
            lambda: self._store.get_range(key, start, length, if_match=if_match, into=into, at=at, cancel=cancel),
        )

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
        return self._try(
            "put_file",
            lambda: self._store.put_file(fd, size, key, meta, progress=progress, cancel=cancel),
            (key,),
            meta.sha256,
        )

    def part_size(self, size_bytes: int) -> int:
        """As `ObjectStore.part_size`."""
        return self._store.part_size(size_bytes)

    def start_multipart(self, key: str, meta: ObjectMeta) -> str:
        """As `ObjectStore.start_multipart`."""
        return self._try(
            "start_multipart", lambda: self._store.start_multipart(key, meta), lost_one=lambda: self._on_begun(key)
        )

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
        return self._try(
            "upload_part",
            lambda: self._store.upload_part(
                key, upload_id, number, fd, offset, length, progress=progress, cancel=cancel
            ),
        )

    def finish_multipart(
        self, key: str, upload_id: str, parts: Sequence[PartInfo], meta: ObjectMeta, size: int
    ) -> ObjectInfo:
        """As `ObjectStore.finish_multipart`."""
        return self._try(
            "finish_multipart",
            lambda: self._store.finish_multipart(key, upload_id, parts, meta, size),
            (key,),
            meta.sha256,
        )

    def abort_multipart(self, key: str, upload_id: str) -> None:
        """As `ObjectStore.abort_multipart`."""
        self._try("abort_multipart", lambda: self._store.abort_multipart(key, upload_id))

    def list_parts(self, key: str, upload_id: str, known: Sequence[PartInfo] = ()) -> Sequence[PartInfo]:
        """As `ObjectStore.list_parts`."""
        return self._try("list_parts", lambda: self._store.list_parts(key, upload_id, known))

    def list_multiparts(self, prefix: str = "") -> Sequence[UploadInfo]:
        """As `ObjectStore.list_multiparts`."""
        return self._try("list_multiparts", lambda: self._store.list_multiparts(prefix))

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
        return self._try(
            "copy",
            lambda: self._store.copy(
                src, dst, size, meta=meta, if_match=if_match, fresh=fresh, origin=origin, cancel=cancel
            ),
            (dst,),
            meta.sha256 if meta is not None else None,
        )

    def delete(self, keys: Iterable[str]) -> Sequence[tuple[str, ObjectStoreError]]:
        """As `ObjectStore.delete`. Keys that failed are returned, not tried again: the journal does that."""
        wanted = tuple(keys)
        return self._try("delete", lambda: self._store.delete(wanted), wanted, b"")

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """As `ObjectStore.list`; a listing that breaks off goes on after the last key it gave."""
        last, entries = after, self._store.list(prefix, after)
        batch: deque[ObjectInfo] = deque()

        def gather() -> None:
            nonlocal entries, last
            try:
                for entry in islice(entries, _LIST_BATCH - len(batch)):
                    batch.append(entry)
                    last = entry.key
            except ObjectStoreError:
                entries = self._store.list(prefix, last)  # a generator that raised is finished
                raise

        while True:
            self._try("list", gather)
            if not batch:
                return
            while batch:
                yield batch.popleft()

    def get_small(self, key: str) -> bytes | None:
        """As `ObjectStore.get_small`."""
        return self._try("get_small", lambda: self._store.get_small(key))

    def put_small(self, key: str, data: bytes, *, only_new: bool) -> bool:
        """As `ObjectStore.put_small`."""
        return self._try("put_small", lambda: self._store.put_small(key, data, only_new=only_new))

    def restore(self, key: str, days: int, tier: RestoreSpeed = "Standard") -> None:
        """As `ObjectStore.restore`."""
        self._try("restore", lambda: self._store.restore(key, days, tier))

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """As `ObjectStore.set_tags`."""
        self._try("set_tags", lambda: self._store.set_tags(key, tags))

    def get_tags(self, key: str) -> dict[str, str]:
        """As `ObjectStore.get_tags`."""
        return self._try("get_tags", lambda: self._store.get_tags(key))

    def presign(self, key: str, method: Literal["GET", "PUT"], expires_s: int) -> str:
        """As `ObjectStore.presign`."""
        return self._store.presign(key, method, expires_s)

    def get_lifecycle(self) -> tuple[LifecycleRule, ...]:
        """As `ObjectStore.get_lifecycle`."""
        return self._try("get_lifecycle", self._store.get_lifecycle)

    def put_lifecycle(self, rules: Sequence[LifecycleRule]) -> None:
        """As `ObjectStore.put_lifecycle`."""
        self._try("put_lifecycle", lambda: self._store.put_lifecycle(rules))

    def check(self) -> CheckReport:
        """As `ObjectStore.check`: one attempt, past the breaker, for whoever asks wants to know how it is now."""
        began = self.breaker.changes
        report = self._store.check()
        self.breaker.succeeded(began)
        return report

    def close(self) -> None:
        """As `ObjectStore.close`; waits and retries under way end with the error they have."""
        self._closing.set()
        self.breaker.release()
        self._store.close()


def _retryable(error: BaseException) -> bool:
    return isinstance(error, ObjectStoreError) and error.retryable
