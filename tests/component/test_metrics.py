"""The endpoint for Prometheus: what it tells, and whom it does not wait for."""

from __future__ import annotations

import errno
import socket
import time
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from recfs.core.quota import Limits
from recfs.metrics import endpoint
from recfs.metrics.endpoint import CONNECTIONS, Endpoint
from recfs.metrics.families import Metrics
from recfs.metrics.looking import Looking, OfUser, Seen, Written, written_of
from recfs.metrics.requests import Requests
from recfs.services.sweeps import Sweeps
from tests.helpers.reports import answer_of
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem
from .test_tier import tiered

if TYPE_CHECKING:
    from pathlib import Path

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: bytes) -> Samples:
    families = text_string_to_metric_families(text.decode())
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for f in families for each in f.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"recfs_{name}", tuple(sorted(labels.items()))]


def looking(fs: Filesystem) -> Looking:
    parts = fs.parts
    sweeps = Sweeps([], parts.problems, parts.vfs.tree.clock)
    return Looking(
        fs.config, parts.store, parts.vfs, parts.tier, parts.committer, parts.publisher, parts.reports, sweeps, None,
        parts.work.probing,
    )  # fmt: skip


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    made = tiered(nursery, place, quota={"max_bytes": 5000}, metrics={"users": 1})
    await made.start()
    await made.write(f"{REC}/source.mp4", b"x" * 1000)
    await made.write("users/6/recordings/1/a", b"x" * 10)
    await made.drain()
    yield made
    await made.stop()


class Served:
    """An endpoint on a port of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def ask(self, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> tuple[bytes, bytes]:
        stream = await self.connect()
        async with stream:
            await stream.send_all(request)
            got = b"".join([part async for part in stream])
        head, _, body = got.partition(b"\r\n\r\n")
        return head, body


async def serve(nursery: trio.Nursery, made: Endpoint) -> Served:
    nursery.start_soon(made.run)
    with trio.fail_after(GUARD_S):
        while made.port is None:
            await trio.lowlevel.checkpoint()
    return Served(made.port)


SEEN = Seen(1, 2, 3, 4, 5, 6, 7, 8, (True, False), {"hash": 2}, [], None, Written({"committed": 9}, [], 0))


async def nothing_new() -> Seen:
    return SEEN


async def test_a_scrape_tells_usage_limits_queue_and_states(fs: Filesystem, nursery: trio.Nursery) -> None:
    served = await serve(nursery, Endpoint("127.0.0.1", 0, looking(fs).look, Requests()))
    head, body = await served.ask()
    assert head.startswith(b"HTTP/1.1 200 OK")
    found = samples(body)
    assert value(found, "user_used_bytes", user="5") == 1000
    assert value(found, "user_limit_bytes", user="5") == 5000
    assert value(found, "user_month_uploads", user="5") == 1
    assert value(found, "media_files", verdict="pending") == 1
    assert ("recfs_user_limit_files", (("user", "5"),)) not in found
    assert ("recfs_user_used_bytes", (("user", "6"),)) not in found
    assert value(found, "users_not_told") == 1
    assert value(found, "files", state="stored") == 2
    assert value(found, "queue_rows", kind="upload") == 0
    assert value(found, "cache_bytes") == 1010
    assert value(found, "sealing_files") == 0
    assert value(found, "disk_free_bytes") > 0


async def test_files_are_counted_by_state_once_a_minute(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    made = looking(fs)
    assert (await made.look()).written.states["stored"] == 2
    await fs.write("users/6/recordings/1/b", b"x" * 10)
    await fs.drain()
    assert (await made.look()).written.states["stored"] == 2
    monkeypatch.setattr("recfs.metrics.looking.STATES_S", 0.0)
    assert (await made.look()).written.states["stored"] == 3


async def test_the_age_of_the_queue_and_what_is_set_aside(fs: Filesystem) -> None:
    tier = fs.parts.tier
    assert tier is not None
    tier.journal.delete("gone", 3600.0)
    fs.clock.advance(90)
    fs.parts.problems.note("hash", 7, OSError(5, "bad disk"), quiet=True)
    fs.parts.problems.note("hash", 8, OSError(5, "bad disk"), quiet=True)
    seen = await looking(fs).look()
    assert seen.queue is not None
    assert seen.queue.rows["delete"] == 1
    assert seen.queue.oldest_s >= 90
    assert seen.problems == {"hash": 2}
    fs.parts.problems.solved("hash", 7)
    fs.parts.problems.solved("hash", 8)
    assert (await looking(fs).look()).problems == {}
    for row_id in list(tier.journal.rows):
        tier.journal.cancel(row_id)


def test_requests_are_counted_by_kind_result_and_time() -> None:
    requests = Requests()
    requests.done("create", (), 0, 0.0002)
    requests.done("create", (), errno.ENOSPC, 0.3)
    requests.done("create", (), 0, 100.0)
    found = samples(Metrics(SEEN, requests.results, requests.latencies, 5.0).text())
    assert value(found, "requests_total", op="create", result="ok") == 2
    assert value(found, "requests_total", op="create", result="ENOSPC") == 1
    assert value(found, "request_seconds_bucket", op="create", le="0.0001") == 0
    assert value(found, "request_seconds_bucket", op="create", le="0.00025") == 1
    assert value(found, "request_seconds_bucket", op="create", le="30.0") == 2
    assert value(found, "request_seconds_bucket", op="create", le="+Inf") == 3
    assert value(found, "request_seconds_count", op="create") == 3
    assert value(found, "request_seconds_sum", op="create") == pytest.approx(100.3002)
    assert value(found, "passthrough", what="read") == 1
    assert value(found, "passthrough", what="write") == 0
    assert value(found, "problems", part="hash") == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\r\n\r\n", b"405"),
        (b"\xff\x00 \r\n\r\n", b"405"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 9000, b"431"),
        (b"GET /metrics?x=1 HTTP/1.1\r\n\r\n", b"200"),
    ],
)
async def test_only_metrics_are_served(nursery: trio.Nursery, request_bytes: bytes, status: bytes) -> None:
    served = await serve(nursery, Endpoint("127.0.0.1", 0, nothing_new, Requests()))
    head, _ = await served.ask(request_bytes)
    assert head.split()[1] == status


async def test_an_address_that_cannot_be_had_is_named() -> None:
    """Whoever has two stores, and one `listen` in both configurations, sees which it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf'Address already in use: \[metrics\] listen = "127\.0\.0\.1:{port}"'
        ) as raised:
            await Endpoint("127.0.0.1", port, nothing_new, Requests()).run()
    assert raised.value.errno == errno.EADDRINUSE


async def test_head_has_no_body(nursery: trio.Nursery) -> None:
    served = await serve(nursery, Endpoint("127.0.0.1", 0, nothing_new, Requests()))
    head, body = await served.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert (head.split()[1], body) == (b"200", b"")


async def test_who_is_slow_keeps_a_place_for_a_time(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "DEADLINE_S", 0.5)
    served = await serve(nursery, Endpoint("127.0.0.1", 0, nothing_new, Requests()))
    slow = [await served.connect() for _ in range(CONNECTIONS)]
    with trio.fail_after(GUARD_S):
        for each in slow:
            async with each:
                assert await each.receive_some(10) == b""
        head, _ = await served.ask()
    assert head.split()[1] == b"200"


async def test_no_more_than_some_have_a_place(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "DEADLINE_S", 1e6)
    served = await serve(nursery, Endpoint("127.0.0.1", 0, nothing_new, Requests()))
    closed: list[bytes] = []
    more = 5
    enough = trio.Event()

    async def wait() -> None:
        async with await served.connect() as stream:
            closed.append(await stream.receive_some(10))
            if len(closed) == more:
                enough.set()

    async with trio.open_nursery() as clients:
        for _ in range(CONNECTIONS + more):
            clients.start_soon(wait)
        with trio.fail_after(GUARD_S):
            await enough.wait()
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert closed == [b""] * more
        clients.cancel_scope.cancel()


async def test_many_who_ask_cost_one_look_and_a_look_that_fails_is_told(nursery: trio.Nursery) -> None:
    looks = 0

    async def look() -> Seen:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError(5, "secret path")
        return SEEN

    served = await serve(nursery, Endpoint("127.0.0.1", 0, look, Requests()))
    head, body = await served.ask()
    assert (head.split()[1], body) == (b"503", b"OSError\n")
    answers = [(await served.ask())[0].split()[1] for _ in range(5)]
    assert answers == [b"200"] * 5
    assert looks == 2


async def test_users_are_told_by_use_with_their_own_limits_before_the_defaults(fs: Filesystem) -> None:
    found = answer_of(fs.root / ".recfs" / "catalogue.db", written_of, fs.config, "2999-01")
    assert found.users == [OfUser("5", 1000, 1, 0, Limits(max_bytes=5000))]
    assert found.more_users == 1


async def test_users_near_a_limit_are_told_before_those_who_store_most(fs: Filesystem) -> None:
    """An alert that goes by them has to hear of each."""
    await fs.answers()["quota_set"]({"user": "6", "max_files": 1})
    await fs.parts.behind.durable()
    found = answer_of(fs.root / ".recfs" / "catalogue.db", written_of, fs.config, "2999-01")
    assert [each.user for each in found.users] == ["6"]
    assert found.more_users == 1


def test_a_thousand_users_take_little_time() -> None:
    users = [OfUser(str(n), n, n, n, Limits(1, 1, None, 1)) for n in range(1000)]
    seen = SEEN.__class__(1, 2, 3, 4, 5, 6, 7, 8, None, {}, [], None, Written({"committed": 9}, users, 0))
    took = []
    for _ in range(5):
        began_s = time.process_time()
        Metrics(seen, {}, {}, 0.0).text()
        took.append(time.process_time() - began_s)
    assert min(took) < 0.02


def test_users_are_told_in_the_words_of_the_library() -> None:
    """Their lines are not written by it: it would take ten times as long."""
    some = [OfUser("7", 2**60, 0, 1, Limits()), OfUser(str(uuid.uuid4()), 1, 2, 3, Limits(4, 5, 6, 7))]
    for users in ([], some):
        seen = SEEN.__class__(1, 2, 3, 4, 5, 6, 7, 8, None, {}, [], None, Written({}, users, 0))
        metrics = Metrics(seen, {}, {}, 0.0)
        registry = CollectorRegistry()
        registry.register(metrics)
        theirs, ours = (
            list(text_string_to_metric_families(t.decode())) for t in (generate_latest(registry), metrics.text())
        )
        assert ours == theirs
