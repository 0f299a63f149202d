"""All features, tried within a time: side by side, and each by itself, whatever becomes of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from recfs.config import S3Section
from recfs.errors import RecfsError
from recfs.ports.object_errors import (
    AccessRefused,
    BadAnswer,
    NotOffered,
    ObjectStoreError,
    ServerFault,
    Stalled,
    StoreOutage,
    TransferCancelled,
    Unreachable,
    WrongCredentials,
)
from recfs.stores.s3.features import bucket, classes, integrity, names, objects, uploads
from recfs.stores.s3.features.model import OFFERED, Feature, Finding, Outcome, Seen, Weight, absent, found
from recfs.stores.s3.features.room import AT_ONCE, OutOfTime, Room, side_by_side
from recfs.stores.s3.features.wants import Wants

FEATURES: tuple[Feature, ...] = (
    *uploads.FEATURES,
    *names.FEATURES,
    *objects.FEATURES,
    *integrity.FEATURES,
    *classes.FEATURES,
    *bucket.FEATURES,
)
"""All of them, those first that files depend on."""
TIMES = 2
"""A server may fail once by chance."""
SILENT = 2 * AT_ONCE
"""After so many attempts in a row that ended without an answer the server is taken for gone."""
_GONE = Seen(Outcome.UNTRIED, "the server does not answer any more")
_NOT_ASKED = Seen(Outcome.UNTRIED, "there was no time left")
_BROKEN_OFF = frozenset(
    {"ProtocolError", "ConnectionClosedError", "IncompleteRead", "IncompleteReadError", "ResponseStreamingError"}
)
"""What `faults` calls answers that came in part."""
_REFUSED_METHODS = frozenset({"MethodNotAllowed", "405", "501"})


@dataclass(frozen=True, slots=True)
class Result:
    """What one run found."""

    findings: tuple[Finding, ...]
    """In the order of FEATURES."""
    left: tuple[str, ...]
    """What could not be removed again, for people."""
    swept: int
    """Earlier runs that were killed, whose remains were removed."""


class Run:
    """One run. `start`, then `wait` as often as it takes; the thread that waits may stop it at any time."""

    def __init__(
        self,
        section: S3Section,
        wants: Wants,
        *,
        within_s: float,
        clean_s: float,
        features: Sequence[Feature] = FEATURES,
    ) -> None:
        self._wants, self._features, self._clean_s = wants, features, clean_s
        self._room = Room(section, wants, until=time.monotonic() + within_s)
        self._seen: dict[str, Seen] = {}
        self._left: tuple[str, ...] = ()
        self._swept = 0
        self._rest = _NOT_ASKED
        """What is said of those that were not asked about."""
        self._unanswered = 0
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin, in threads of its own."""
        threading.Thread(target=self._all, daemon=True).start()

    def wait(self, timeout_s: float) -> bool:
        """Whether it came to its end within the time."""
        # Not Thread.join: up to Python 3.12 it takes a thread for ended once a signal has interrupted it.
        return self._ended.wait(timeout_s)

    def stop(self) -> None:
        """Try nothing any more, and tidy up."""
        self._room.stop()

    @property
    def result(self) -> Result:
        """What is known by now."""
        findings = tuple(found(each, self._seen.get(each.name, self._rest), self._wants) for each in self._features)
        left = self._left
        if not self._ended.is_set():
            left = (f"{self._room.section.url}{self._room.base}: the server does not answer",)
        return Result(_together(findings), left, self._swept)

    # --- in threads ----------------------------------------------------------------------------------------------

    def _all(self) -> None:
        try:
            try:
                self._swept = self._room.sweep(time.time_ns())
            except Exception:  # what cannot be listed can be tried all the same
                self._swept = 0
            features = self._not_kept_back()
            if features is self._features:
                self._encrypt()
            side_by_side(self._try, features)
            self._left = tuple(self._room.clean(within_s=self._clean_s))
        finally:
            self._ended.set()

    def _not_kept_back(self) -> Sequence[Feature]:
        """All features; but none where what they make could not be removed."""
        try:
            lock = bucket.lock_of(self._room)
        except RecfsError:
            lock = ""
        if not lock:
            return self._features
        self._rest = Seen(Outcome.UNTRIED, f"the bucket locks new objects for {lock}: what is tried would stay there")
        return [each for each in self._features if each.attempt is bucket.not_locked]

    def _encrypt(self) -> None:
        """Try everything with objects that are encrypted as the configuration says, where the server can do that."""
        method = self._room.section.sse
        if method == "none":
            return
        try:
            seen = objects.encrypted(method)(self._room, f"{self._room.base}encryption-first/")
        except RecfsError:
            return  # told when it is tried in its turn
        if seen is OFFERED:
            self._room.encrypt()

    def _try(self, feature: Feature) -> None:
        seen = self._tried(feature)
        if seen is not _NOT_ASKED:
            self._seen[feature.name] = seen

    def _tried(self, feature: Feature) -> Seen:
        place = "".join(char if char.isalnum() else "-" for char in feature.name)
        for attempt in range(1, TIMES + 1):
            try:
                seen = feature.attempt(self._room, f"{self._room.base}{place}-{attempt}/")
                self._unanswered = 0
                return seen
            except (OutOfTime, TransferCancelled):
                return _NOT_ASKED
            except RecfsError as error:
                retryable = isinstance(error, ObjectStoreError) and error.retryable
                self._count(error)
                if attempt == TIMES or not retryable:
                    return _seen_of(error)
            except Exception as error:  # a server may answer in a form that nobody thought of
                return absent(f"the answer is not understood: {type(error).__name__}: {error}")
        raise AssertionError("unreachable")

    def _count(self, error: RecfsError) -> None:
        self._unanswered = self._unanswered + 1 if isinstance(error, Unreachable | Stalled) else 0
        if self._unanswered >= SILENT:
            self._rest = _GONE
            self._room.stop()


def _together(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Weigh those that stand in for one another.

    One way to notice damage is enough, none is a warning. Where archive classes are labels, nothing has to be restored.
    """
    outcomes = {each.feature.name: each.outcome for each in findings}
    if outcomes.get("archive classes") is Outcome.ABSENT:
        findings = tuple(
            replace(each, weight=Weight.NOTE)
            if each.feature.name == "restore" and each.weight is Weight.FAILURE
            else each
            for each in findings
        )
    watches = [each for each in findings if each.feature.name in integrity.WATCHES]
    if not watches or any(each.outcome in (Outcome.OFFERED, Outcome.UNTRIED) for each in watches):
        return findings
    return tuple(replace(each, weight=Weight.WARNING) if each is watches[0] else each for each in findings)


def _seen_of(error: RecfsError) -> Seen:
    """What an attempt that the server ended is worth."""
    what = str(error).partition("; ")[0]
    code = error.code if isinstance(error, ObjectStoreError) else ""
    refused = absent(f"refused: {code}" if code else what)
    if isinstance(error, NotOffered) or code in _REFUSED_METHODS:
        return refused
    if isinstance(error, AccessRefused | WrongCredentials):
        return Seen(Outcome.UNTRIED, what)
    is_answer = isinstance(error, ServerFault | BadAnswer) and code not in _BROKEN_OFF
    if isinstance(error, StoreOutage) and not is_answer:
        return Seen(Outcome.UNTRIED, what)
    return refused


def find_out(
    section: S3Section, wants: Wants, *, within_s: float, clean_s: float, meanwhile: Callable[[], None] | None = None
) -> Result:
    """Try everything and tidy up, within the two times and that of one request. Makes objects below `room.PLACE`.

    Whatever ends the wait (Ctrl-C) ends the trying, and what was made is removed before it goes on. *meanwhile* is
    called every second.
    """
    run = Run(section, wants, within_s=within_s, clean_s=clean_s)
    request_s = section.connect_timeout + section.read_timeout
    ends = time.monotonic() + within_s + clean_s + request_s
    run.start()
    try:
        while not run.wait(min(1.0, max(ends - time.monotonic(), 0.0))) and time.monotonic() < ends:
            if meanwhile is not None:
                meanwhile()
    except BaseException:
        run.stop()
        run.wait(clean_s + request_s)
        raise
    return run.result


__all__ = ["FEATURES", "Result", "Run", "find_out"]
