"""The retrying wrapper and its circuit breaker, around the fake store and around a real one behind a failing proxy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from recfs.errors import IoFailure
from recfs.ports.object_errors import (
    AccessRefused,
    BadAnswer,
    ChecksumMismatch,
    ServerFault,
    Stalled,
    StoreDown,
    StoreOutage,
    Throttled,
    Unreachable,
    WrongCredentials,
)
from recfs.ports.objects import ObjectMeta
from recfs.stores.breaker import BreakerState, CircuitBreaker
from recfs.stores.wrap import RetryingObjectStore, RetryPolicy
from tests.fake_object_store import FakeObjectStore
from tests.helpers.chaos_faults import Cut, Longer, NoAnswer, Status
from tests.helpers.chaos_proxy import ChaosProxy, operation
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

__all__ = ["moto_bucket", "moto_server"]

QUICK = RetryPolicy(max_attempts=6, deadline_s=20.0, first_wait_s=0.001, max_wait_s=0.01)
NEVER_OPEN = 1000


class Clock:
    """A clock for the breaker."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def fake() -> FakeObjectStore:
    return FakeObjectStore()


@pytest.fixture
def store(fake: FakeObjectStore) -> Iterator[RetryingObjectStore]:
    store = RetryingObjectStore(fake, QUICK, CircuitBreaker(NEVER_OPEN))
    yield store
    store.close()


def heads(fake: FakeObjectStore) -> int:
    return sum(operation == "head" for operation, _ in fake.calls)


# --- retries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ServerFault, Throttled, Unreachable, ChecksumMismatch])
def test_what_may_pass_is_tried_again(
    fake: FakeObjectStore, store: RetryingObjectStore, error: type[Exception]
) -> None:
    fake.fail("head", error("for now"), times=3)
    assert store.head("users/5/x") is None
    assert heads(fake) == 4


@pytest.mark.parametrize("error", [WrongCredentials("no"), AccessRefused("no"), IoFailure("disk"), ValueError("bug")])
def test_what_will_not_pass_is_not(fake: FakeObjectStore, store: RetryingObjectStore, error: Exception) -> None:
    fake.fail("head", error)
    with pytest.raises(type(error)):
        store.head("users/5/x")
    assert heads(fake) == 1


def test_attempts_end(fake: FakeObjectStore, store: RetryingObjectStore) -> None:
    fake.fail("head", ServerFault("for good"), times=100)
    with pytest.raises(ServerFault, match="for good"):
        store.head("users/5/x")
    assert heads(fake) == QUICK.max_attempts


def test_the_deadline_ends_them_too(fake: FakeObjectStore) -> None:
    policy = RetryPolicy(max_attempts=1000, deadline_s=0.05, first_wait_s=0.02, max_wait_s=0.02)
    store = RetryingObjectStore(fake, policy, CircuitBreaker(NEVER_OPEN))
    fake.fail("head", ServerFault("for good"), times=1000)
    with pytest.raises(ServerFault):
        store.head("users/5/x")
    assert heads(fake) < 50
    store.close()


def test_retries_are_told(fake: FakeObjectStore) -> None:
    told: list[tuple[str, int, str]] = []
    store = RetryingObjectStore(
        fake, QUICK, on_retry=lambda operation, attempt, error: told.append((operation, attempt, str(error)))
    )
    fake.fail("head", ServerFault("a"))
    fake.fail("head", Throttled("b"))
    store.head("users/5/x")
    assert told == [("head", 1, "a"), ("head", 2, "b")]
    store.close()


def test_a_listing_goes_on_where_it_broke_off(fake: FakeObjectStore, store: RetryingObjectStore) -> None:
    keys = [f"temp/5/1/{number:04}" for number in range(2500)]
    for key in keys:
        fake.tamper(key, b"")
    plain = fake.list

    def breaking(prefix: str = "", after: str = "") -> Iterator[object]:
        for number, info in enumerate(plain(prefix, after)):
            if number == 700:
                raise Unreachable("connection lost")
            yield info

    fake.list = breaking  # type: ignore[assignment,method-assign]
    assert [info.key for info in store.list("temp/")] == keys


def test_closing_ends_the_wait_for_the_next_try(fake: FakeObjectStore) -> None:
    waiting = threading.Event()
    policy = RetryPolicy(first_wait_s=3600.0, max_wait_s=3600.0, deadline_s=10**6)
    store = RetryingObjectStore(fake, policy, on_retry=lambda *_: waiting.set())
    fake.fail("head", ServerFault("for good"), times=100)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(store.head, "users/5/x")
        assert waiting.wait(10)
        store.close()
        with pytest.raises(ServerFault):
            result.result(10)


def test_every_method_goes_through(fake: FakeObjectStore, store: RetryingObjectStore, tmp_path: object) -> None:
    """Whatever the method, one outage is survived."""
    with open(f"{tmp_path}/file", "w+b") as file:
        file.write(b"12345")
        file.flush()
        fd, meta, buffer = file.fileno(), ObjectMeta(), memoryview(bytearray(5))

        def broken(operation: str) -> None:
            fake.fail(operation, ServerFault("once"))

        broken("put_file")
        etag = store.put_file(fd, 5, "a", meta).etag
        broken("get_range")
        assert store.get_range("a", 0, 5, if_match=etag, into=buffer) == 5
        broken("start_multipart")
        upload_id = store.start_multipart("b", meta)
        broken("upload_part")
        part = store.upload_part("b", upload_id, 1, fd, 0, 5)
        broken("list_parts")
        assert list(store.list_parts("b", upload_id)) == [part]
        broken("list_multiparts")
        assert len(store.list_multiparts()) == 1
        broken("finish_multipart")
        store.finish_multipart("b", upload_id, [part], meta, 5)
        broken("abort_multipart")
        store.abort_multipart("b", upload_id)
        broken("copy")
        store.copy("a", "c", 5)
        broken("set_tags")
        store.set_tags("c", {"k": "v"})
        broken("get_tags")
        assert store.get_tags("c") == {"k": "v"}
        broken("list")
        assert [info.key for info in store.list()] == ["a", "b", "c"]
        broken("delete")
        assert list(store.delete(["c"])) == []
        fake.archive("a")
        broken("restore")
        store.restore("a", 1)
        broken("get_lifecycle")
        assert store.get_lifecycle() == ()
        broken("put_lifecycle")
        store.put_lifecycle([])
        assert store.part_size(5) == 8 << 20
        assert store.presign("a", "GET", 5)
        assert store.check().bucket == "fake"


# --- the breaker -------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(3, 1.0, 4.0, clock=clock, jitter=lambda: 0.0)


def open_up(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        breaker.admit(0)
        breaker.failed(Unreachable("connection refused"), probe=False)


def test_it_opens_after_some_outages_in_a_row(breaker: CircuitBreaker) -> None:
    for _ in range(2):
        breaker.failed(Unreachable("x"), probe=False)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(Unreachable("x"), probe=False)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.last_error is None
    breaker.failed(Unreachable("the last one"), probe=False)
    assert breaker.state is BreakerState.OPEN
    assert str(breaker.last_error) == "the last one"
    with pytest.raises(StoreDown, match="down, next try in 1 s: the last one"):
        breaker.admit(0)


def test_one_probe_at_a_time_and_pauses_that_grow(breaker: CircuitBreaker, clock: Clock) -> None:
    open_up(breaker)
    for pause_s in (1.0, 2.0, 4.0, 4.0):
        clock.now_s += pause_s - 0.01
        with pytest.raises(StoreDown):
            breaker.admit(0)
        clock.now_s += 0.01
        assert breaker.admit(0) is True
        assert breaker.state is BreakerState.HALF_OPEN
        with pytest.raises(StoreDown):
            breaker.admit(0)
        breaker.failed(Unreachable("still"), probe=True)
    clock.now_s += 4.0
    assert breaker.admit(0) is True
    breaker.succeeded()
    assert breaker.admit(0) is False
    open_up(breaker)
    clock.now_s += 1.0
    assert breaker.admit(0) is True, "the pause begins small again"


def test_going_down_and_coming_back_are_told_once(clock: Clock) -> None:
    told: list[str] = []
    breaker = CircuitBreaker(3, clock=clock, jitter=lambda: 0.0, on_change=lambda error: told.append(str(error)))
    breaker.failed(Unreachable("first"), probe=False)
    assert told == []
    for _ in range(3):
        breaker.failed(Unreachable("last"), probe=False)
    clock.now_s += 1.0
    assert breaker.admit(0) is True
    breaker.failed(Unreachable("still"), probe=True)
    assert told == ["last"]
    breaker.succeeded()
    breaker.succeeded()
    assert told == ["last", "None"]


def test_what_a_call_tells_that_began_before_the_last_change_is_old(breaker: CircuitBreaker, clock: Clock) -> None:
    """Its answer came just before the server went down, or it met the outage that is over."""
    began = breaker.changes
    open_up(breaker)
    breaker.succeeded(began)
    assert breaker.state is BreakerState.OPEN
    clock.now_s += 1.0
    assert breaker.admit(0) is True
    began = breaker.changes
    breaker.succeeded(began)
    for _ in range(3):
        breaker.failed(Unreachable("late"), probe=False, began=began)
    assert breaker.state is BreakerState.CLOSED


def test_an_answer_that_was_under_way_when_it_opened_does_not_close_it(fake: FakeObjectStore, clock: Clock) -> None:
    told: list[object] = []
    breaker = CircuitBreaker(1, clock=clock, jitter=lambda: 0.0, on_change=told.append)
    store = RetryingObjectStore(fake, RetryPolicy(max_attempts=1), breaker)
    down = Unreachable("it went down meanwhile")
    fake.before = lambda _operation, _key: breaker.failed(down, probe=False)
    assert store.head("users/5/x") is None
    assert breaker.state is BreakerState.OPEN
    assert told == [down]


def test_a_probe_that_said_nothing_leaves_its_place(breaker: CircuitBreaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now_s += 1.0
    assert breaker.admit(0) is True
    breaker.withdrawn()
    assert breaker.admit(0) is True


def test_those_who_wait_go_on_when_it_closes(clock: Clock) -> None:
    breaker = CircuitBreaker(1, 3600.0, 3600.0, clock=clock, jitter=lambda: 0.0)
    breaker.failed(Unreachable("x"), probe=False)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(breaker.admit, 1000.0) for _ in range(4)]
        breaker.succeeded()
        assert [each.result(10) for each in waiting] == [False] * 4


def test_nobody_waits_for_a_store_that_closes(clock: Clock) -> None:
    breaker = CircuitBreaker(1, 3600.0, 3600.0, clock=clock, jitter=lambda: 0.0)
    breaker.failed(Unreachable("x"), probe=False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(breaker.admit, 1000.0)
        breaker.release()
        with pytest.raises(StoreDown):
            waiting.result(10)


def test_an_open_breaker_spares_the_server(fake: FakeObjectStore, clock: Clock) -> None:
    breaker = CircuitBreaker(3, 100.0, 100.0, clock=clock, jitter=lambda: 0.0)
    store = RetryingObjectStore(fake, RetryPolicy(max_attempts=2, deadline_s=-1.0), breaker)
    fake.fail("*", Unreachable("connection refused"), times=1000)
    for _ in range(3):
        with pytest.raises(Unreachable):
            store.head("users/5/x")
    for _ in range(10):
        with pytest.raises(StoreDown, match="connection refused"):
            store.head("users/5/x")
    assert fake.calls == 3 * [("head", "users/5/x")] + [("check", None)], "before it opens, the bucket is looked at"
    clock.now_s += 100.0
    with pytest.raises(Unreachable):
        store.head("users/5/x")
    assert fake.calls[4:] == [("check", None)], "the probe is a small request"
    fake.heal()
    clock.now_s += 200.0
    assert store.head("users/5/x") is None
    assert fake.calls[5:] == [("check", None), ("head", "users/5/x")]
    store.close()


def test_refusals_are_signs_of_life(fake: FakeObjectStore, clock: Clock) -> None:
    breaker = CircuitBreaker(1, 1.0, clock=clock, jitter=lambda: 0.0)
    store = RetryingObjectStore(fake, RetryPolicy(deadline_s=-1.0), breaker)
    fake.fail("head", Unreachable("x"))
    with pytest.raises(Unreachable):
        store.head("users/5/x")
    clock.now_s += 1.0
    fake.fail("check", AccessRefused("may not list"))
    assert store.head("users/5/x") is None
    assert breaker.state is BreakerState.CLOSED
    store.close()


@pytest.mark.parametrize("kind", [ServerFault, Stalled, Unreachable, BadAnswer])
def test_a_server_that_cannot_store_is_not_down(fake: FakeObjectStore, clock: Clock, kind: type[StoreOutage]) -> None:
    """However it fails: it may be a daemon behind the one that answers that is gone, or stands still."""
    breaker = CircuitBreaker(3, 3600.0, clock=clock, jitter=lambda: 0.0)
    store = RetryingObjectStore(fake, RetryPolicy(deadline_s=-1.0), breaker)
    fake.fail("start_multipart", kind("no room left"), times=1000)
    for _ in range(9):
        with pytest.raises(kind):
            store.start_multipart("users/5/x", ObjectMeta())
        assert store.breaker.state is BreakerState.CLOSED
        breaker.admit(0)  # those who read are let through
    assert [operation for operation, _ in fake.calls].count("check") == 3, "one question for each time it would open"
    fake.fail("check", ServerFault("nor list"), times=1000)
    for _ in range(3):
        with pytest.raises(kind, match="no room left"):
            store.start_multipart("users/5/x", ObjectMeta())
    assert breaker.state is BreakerState.OPEN
    store.close()


def test_a_server_that_asks_for_less_gets_less(fake: FakeObjectStore) -> None:
    """Though it would answer a small request."""
    breaker = CircuitBreaker(3, 3600.0)
    store = RetryingObjectStore(fake, RetryPolicy(deadline_s=-1.0), breaker)
    fake.fail("start_multipart", Throttled("SlowDown"), times=1000)
    for _ in range(3):
        with pytest.raises(Throttled):
            store.start_multipart("users/5/x", ObjectMeta())
    assert breaker.state is BreakerState.OPEN
    store.close()


# --- with a real client ------------------------------------------------------------------------------------------


def test_a_bad_day_of_the_network(moto_bucket: Bucket, moto_server: str, tmp_path: object) -> None:
    with ChaosProxy(moto_server) as proxy, open(f"{tmp_path}/file", "w+b") as file:
        file.write(bytes(range(256)) * 1000)
        file.flush()
        inner = moto_bucket.store(endpoint=proxy.url, read_timeout=30.0)
        store = RetryingObjectStore(inner, QUICK, CircuitBreaker(NEVER_OPEN))
        proxy.add(NoAnswer(), times=1)
        proxy.add(Status(503, "SlowDown"), times=1)
        proxy.add(Status(500, "InternalError"), times=1)
        made = store.put_file(file.fileno(), 256_000, "users/5/x", ObjectMeta())
        proxy.add(Cut(100_000, "reset"), times=1, on=operation("GET", "5/x"))
        proxy.add(Cut(100_000), times=1, on=operation("GET", "5/x"))
        proxy.add(Longer(5), times=1, on=operation("GET", "5/x"))
        buffer = bytearray(256_000)
        store.get_range("users/5/x", 0, 256_000, if_match=made.etag, into=memoryview(buffer))
        assert buffer == bytes(range(256)) * 1000
        with proxy.refusing(), pytest.raises(Unreachable):
            store.head("users/5/x")
        assert store.head("users/5/x") is not None
        store.close()
