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

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Literal, TypeVar

import tenacity

from recfs.object_errors import ObjectStoreError, StoreDown, Throttled
from recfs.objects import (
    Cancel,
    CheckReport,
    LifecycleRule,
    ObjectInfo,
    ObjectMeta,
    ObjectStore,
    PartInfo,
    Progress,
    Tier,
    UploadInfo,
)

_T = TypeVar("_T")
_LIST_BATCH = 1000


class BreakerState(StrEnum):
    """What the circuit breaker makes of the server."""

    CLOSED = "closed"
    """Fine."""
    OPEN = "open"
    """Down; nobody asks until the pause is over."""
    HALF_OPEN = "half-open"
    """One call is under way to see whether it is back."""


class CircuitBreaker:
    """Stops all calls after *threshold* outages in a row, and lets one at a time through to probe. Thread-safe.

    The pause before a probe doubles from *first_pause_s* up to *max_pause_s*, with up to a quarter of jitter so that
    many daemons do not come back at the same instant. *on_change* is told what was found when the server is down, and
    None when it is back; from any thread.
    """

    def __init__(
        self,
        threshold: int = 5,
        first_pause_s: float = 1.0,
        max_pause_s: float = 15.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        on_change: Callable[[Exception | None], None] = lambda _error: None,
    ) -> None:
        self._on_change = on_change
        self._threshold, self._first_pause_s, self._max_pause_s = threshold, first_pause_s, max_pause_s
        self._clock, self._jitter = clock, jitter
        self._changed = threading.Condition()
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._pause_s = first_pause_s
        self._probe_due = 0.0
        self._last_error: Exception | None = None
        self._closing = False

    @property
    def state(self) -> BreakerState:
        """For `recfs status`."""
        return self._state

    @property
    def last_error(self) -> Exception | None:
        """What opened it; None while closed."""
        return None if self._state is BreakerState.CLOSED else self._last_error

    @property
    def trouble(self) -> Exception | None:
        """What the last call met that found the server down; None once one got an answer."""
        return self._last_error if self._failures else None

    @property
    def is_about_to_open(self) -> bool:
        """Whether one more outage opens it."""
        return self._state is BreakerState.CLOSED and self._failures + 1 >= self._threshold

    def admit(self, wait_s: float) -> bool:
        """Wait up to *wait_s* for permission to call. True: the call is the probe and must report back.

        Raises StoreDown if the server is still thought down then.
        """
        give_up = self._clock() + wait_s
        with self._changed:
            while self._state is not BreakerState.CLOSED:
                now = self._clock()
                if self._state is BreakerState.OPEN and now >= self._probe_due:
                    self._state = BreakerState.HALF_OPEN
                    return True
                # During a probe its outcome is what to wait for; else the time of the next one.
                until = give_up if self._state is BreakerState.HALF_OPEN else min(give_up, self._probe_due)
                if now >= give_up or self._closing:
                    raise StoreDown(
                        f"the object store is down, next try in {self._next_s(now):.0f} s: {self._last_error}"
                    )
                self._changed.wait(max(until - now, 0.001))
        return False

    def succeeded(self) -> None:
        """A call got an answer that a healthy server gives (a refusal is one, too)."""
        with self._changed:
            self._failures, self._pause_s = 0, self._first_pause_s
            was_down = self._state is not BreakerState.CLOSED
            if was_down:
                self._state = BreakerState.CLOSED
                self._changed.notify_all()
        if was_down:
            self._on_change(None)

    def failed(self, error: Exception, *, probe: bool) -> None:
        """A call found the server down."""
        with self._changed:
            self._failures += 1
            self._last_error = error
            goes_down = self._state is BreakerState.CLOSED and self._failures >= self._threshold
            if probe or goes_down:
                if probe:
                    self._pause_s = min(self._pause_s * 2, self._max_pause_s)
                self._state = BreakerState.OPEN
                self._probe_due = self._clock() + self._pause_s * (1 + self._jitter() / 4)
                self._changed.notify_all()
        if goes_down:
            self._on_change(error)

    def withdrawn(self) -> None:
        """The probe ended without saying anything about the server (cancelled, or a local fault)."""
        with self._changed:
            if self._state is BreakerState.HALF_OPEN:
                self._state, self._probe_due = BreakerState.OPEN, self._clock()
                self._changed.notify_all()

    def release(self) -> None:
        """The daemon stops: nobody waits any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _next_s(self, now: float) -> float:
        return max(0.0, self._probe_due - now)


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
    ) -> None:
        self._store = store
        self._policy = policy or RetryPolicy()
        self.breaker = breaker or CircuitBreaker()
        self._on_retry = on_retry
        self._closing = threading.Event()

    def _try(self, operation: str, call: Callable[[], _T]) -> _T:
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

        return tenacity.Retrying(
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
        )(attempt)

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
        try:
            result = call()
        except ObjectStoreError as error:
            if error.outage and (probe or isinstance(error, Throttled) or not self._answers_others()):
                self.breaker.failed(error, probe=probe)
            else:
                self.breaker.succeeded()
            raise
        except BaseException:
            if probe:
                self.breaker.withdrawn()
            raise
        self.breaker.succeeded()
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

    def head(self, key: str) -> ObjectInfo | None:
        """As `ObjectStore.head`."""
        return self._try("head", lambda: self._store.head(key))

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
            "put_file", lambda: self._store.put_file(fd, size, key, meta, progress=progress, cancel=cancel)
        )

    def part_size(self, size_bytes: int) -> int:
        """As `ObjectStore.part_size`."""
        return self._store.part_size(size_bytes)

    def start_multipart(self, key: str, meta: ObjectMeta) -> str:
        """As `ObjectStore.start_multipart`."""
        return self._try("start_multipart", lambda: self._store.start_multipart(key, meta))

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
        return self._try("finish_multipart", lambda: self._store.finish_multipart(key, upload_id, parts, meta, size))

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
        cancel: Cancel | None = None,
    ) -> ObjectInfo:
        """As `ObjectStore.copy`."""
        return self._try("copy", lambda: self._store.copy(src, dst, size, meta=meta, if_match=if_match, cancel=cancel))

    def delete(self, keys: Iterable[str]) -> Sequence[tuple[str, ObjectStoreError]]:
        """As `ObjectStore.delete`. Keys that failed are returned, not tried again: the journal does that."""
        wanted = tuple(keys)
        return self._try("delete", lambda: self._store.delete(wanted))

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

    def restore(self, key: str, days: int, tier: Tier = "Standard") -> None:
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
        report = self._store.check()
        self.breaker.succeeded()
        return report

    def close(self) -> None:
        """As `ObjectStore.close`; waits and retries under way end with the error they have."""
        self._closing.set()
        self.breaker.release()
        self._store.close()


def _retryable(error: BaseException) -> bool:
    return isinstance(error, ObjectStoreError) and error.retryable
