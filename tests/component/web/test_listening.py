"""Events for many listeners by one reader of the daemon: whose, in what order, and for how long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from recfs.client.errors import CursorLost, DaemonRefused, DaemonUnreachable
from recfs.web import errands as errands_
from recfs.web import events
from recfs.web.errands import Errands
from recfs.web.events import Feed, Told, encoded, for_user
from recfs.web.problems import Problem
from recfs.web.who.principal import Principal, Via
from recfs.web.who.tokens import Role

from .gateways import Gateway, run

T = TypeVar("T")
EPOCH = "00c0ffee"
ADMIN = Principal(Role.ADMIN, frozenset(), "a", Via.TOKEN)
FIVE = Principal(Role.USER, frozenset({"5"}), "b", Via.TOKEN)


class Journal:
    """A daemon that has events, as `recfs.observing.feed` answers of them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.first = 1
        self.epoch = EPOCH
        self.asked: list[dict[str, Any]] = []
        self.waiting = 0
        self.away: Exception | None = None
        self.status: dict[str, Any] = {"problems": []}
        self._more = asyncio.Event()

    def add(self, kind: str = "committed", path: str = "users/5/recordings/1/a", **more: Any) -> None:
        """Something happens."""
        number = self.first + len(self.events)
        self.events.append({"cursor": f"{self.epoch}-{number}", "event": kind, "path": path, "time_ns": number, **more})
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    def restored(self) -> None:
        """The catalogue is another one."""
        self.epoch, self.events, self.first = "0badcafe", [], 1
        self._wake()

    def forget(self, count: int) -> None:
        """The oldest are not kept any more."""
        self.first += count
        del self.events[:count]

    async def ask(self, method: str, /, *, patience_s: float = 30.0, **params: Any) -> Any:
        """Answer."""
        await asyncio.sleep(0)
        if self.away is not None:
            raise self.away
        if method == "status":
            return self.status
        self.asked.append(params)
        last = self.first + len(self.events) - 1
        since = str(params["since"])
        if since == "now":
            at = last
        elif since == "oldest":
            at = self.first - 1
        else:
            epoch, number = since.split("-")
            at = int(number)
            if epoch != self.epoch or at < self.first - 1:
                raise CursorLost("CursorLost", "it is not kept")
        if params.get("wait_s") and at >= last:
            self.waiting += 1
            more = self._more
            try:
                async with asyncio.timeout(params["wait_s"]):
                    await more.wait()
            except TimeoutError:
                pass
            finally:
                self.waiting -= 1
            return await self.ask(method, **{key: value for key, value in params.items() if key != "wait_s"})
        limit = min(params.get("limit", 3), 3)  # a page is small, so that there are several
        found = [each for each in self.events if int(each["cursor"].split("-")[1]) > at][:limit]
        end = int(found[-1]["cursor"].split("-")[1]) if found else max(at, last)
        return {"events": found, "cursor": f"{self.epoch}-{end}", "more": end < last}


def told(story: Callable[[Journal, Feed], Awaitable[T]]) -> T:
    """Run a story with a journal and a feed."""

    async def run_() -> T:
        journal = Journal()
        feed = Feed(journal)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(30):
                return await story(journal, feed)
        finally:
            feed.stop()

    return asyncio.run(run_())


def follow(
    feed: Feed, who: Principal = ADMIN, since: str | None = None, still: Callable[[], bool] = lambda: True
) -> AsyncGenerator[Told, None]:
    return feed.follow(who, since, lambda _: True, still)


async def next_of(found: AsyncGenerator[Told, None], kind: str | None = None) -> Told:
    """The next that says something, or the next of a kind."""
    async for each in found:
        if each.kind == kind or (kind is None and each.kind not in ("", "status")):
            return each
    raise AssertionError("it has ended")


async def count_of(found: AsyncGenerator[Told, None], count: int) -> list[int]:
    return [int(str((await next_of(found)).cursor).split("-")[1]) for _ in range(count)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for long."""
    monkeypatch.setattr(events, "TICK_S", 0.01)
    monkeypatch.setattr(events, "AGAIN_S", 0.01)
    monkeypatch.setattr(events, "STATUS_S", 0.01)


def test_who_listens_hears_what_comes_and_what_was_since_a_cursor(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        for _ in range(10):
            journal.add()
        async with aclosing(follow(feed)) as now, aclosing(follow(feed, since="oldest")) as all_of_it:
            assert await anext(now) == Told("", None, f"{EPOCH}-10")
            assert await count_of(all_of_it, 10) == list(range(1, 11))
            async with aclosing(follow(feed, since=f"{EPOCH}-7")) as later:
                assert await count_of(later, 3) == [8, 9, 10]
                journal.add()
                assert [await count_of(each, 1) for each in (now, all_of_it, later)] == [[11]] * 3

    told(story)


def test_one_question_waits_for_all_who_listen(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        listeners = [follow(feed) for _ in range(50)]
        for each in listeners:
            await anext(each)
        hearing = [asyncio.create_task(count_of(each, 100)) for each in listeners]
        for _ in range(100):
            journal.add()
            await asyncio.sleep(0)
        assert await asyncio.gather(*hearing) == [list(range(1, 101))] * 50
        assert len(journal.asked) < 300, "not one for each listener and event"
        assert journal.waiting <= 1
        for each in listeners:
            await each.aclose()
        await asyncio.sleep(0.05)
        assert (journal.waiting, feed._tasks) == (0, []), "nobody is asked where nobody listens"

    told(story)


def test_who_falls_behind_misses_none_and_holds_up_nobody(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RING", 5)

    async def story(journal: Journal, feed: Feed) -> None:
        async with aclosing(follow(feed)) as slow, aclosing(follow(feed)) as quick_:
            await anext(slow)
            await anext(quick_)
            for number in range(1, 41):
                journal.add()
                assert await count_of(quick_, 1) == [number]
            assert len(feed._ring) == 5
            assert await count_of(slow, 40) == list(range(1, 41))

    told(story)


def test_a_listener_hears_of_their_own_users_alone(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        journal.add(path="users/5/recordings/1/a", user="5")
        journal.add(path="users/6/recordings/1/a", user="6")
        journal.add(path="shared/a")
        journal.add(path="temp/6/1/a", user="6")
        journal.add(path="temp/5/1/a", user="5")
        async with aclosing(follow(feed, FIVE, "oldest")) as mine, aclosing(follow(feed, ADMIN, "oldest")) as all_of_it:
            assert await count_of(mine, 2) == [1, 5]
            assert await count_of(all_of_it, 5) == [1, 2, 3, 4, 5]

    told(story)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"path": "users/5/recordings/1/a"}, {"event": "renamed", "path": "users/5/recordings/1/a"}),
        ({"path": "users/6/recordings/1/a"}, None),
        ({"path": "users/55/recordings/1/a"}, None),
        ({"path": "users"}, None),
        ({"path": ""}, None),
        ({"path": "shared/users/5/a"}, None),
        ({"path": "recordings/5/a"}, None),
        (
            {"path": "users/5/recordings/1/a", "was": "temp/5/9/a", "was_hex": "00"},
            {"event": "renamed", "path": "users/5/recordings/1/a", "was": "temp/5/9/a", "was_hex": "00"},
        ),
        (
            {"path": "users/5/recordings/1/a", "was": "users/6/recordings/1/secret", "was_hex": "00"},
            {"event": "renamed", "path": "users/5/recordings/1/a"},
        ),
        (
            {"path": "users/5/recordings/1/a", "was": "shared/secret"},
            {"event": "renamed", "path": "users/5/recordings/1/a"},
        ),
        (
            {
                "path": "users/6/recordings/1/secret",
                "was": "users/5/recordings/1/a",
                "user": "6",
                "sha256": "ab",
                "was_hex": "00",
            },
            {"event": "removed", "path": "users/5/recordings/1/a", "user": "5", "path_hex": "00"},
        ),
    ],
)
def test_of_a_name_that_came_from_a_foreign_user_or_went_there_the_other_side_is_not_told(
    event: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    event = {"event": "renamed", "cursor": "c", **event}
    found = for_user(event, FIVE)
    assert found == (None if expected is None else {"cursor": "c", **expected})
    assert "secret" not in json.dumps(found)
    assert for_user(event, ADMIN) == event


def test_who_may_not_listen_any_more_is_told_nothing_more_and_sent_away(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        may = True
        async with aclosing(follow(feed, FIVE, still=lambda: may)) as found:
            await anext(found)
            journal.add()
            assert await count_of(found, 1) == [1]
            may = False
            for _ in range(10):
                journal.add()
            with pytest.raises(StopAsyncIteration):
                await anext(found)

    told(story)


def test_a_token_that_is_revoked_between_two_events_of_a_page_ends_it_there(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        for _ in range(3):
            journal.add()
        asked = 0

        def still() -> bool:
            nonlocal asked
            asked += 1
            return asked <= 2

        async with aclosing(follow(feed, FIVE, "oldest", still)) as found:
            told_ = [each async for each in found if each.kind]
        assert [each.cursor for each in told_] == [f"{EPOCH}-1"]

    told(story)


def test_a_daemon_that_goes_away_is_waited_for(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        async with aclosing(follow(feed)) as found:
            await anext(found)
            journal.add()
            assert await count_of(found, 1) == [1]
            journal.away = DaemonUnreachable("gone")
            journal.add()
            hearing = asyncio.create_task(count_of(found, 1))
            journal._wake()
            await asyncio.sleep(0.05)
            assert not hearing.done()
            async with aclosing(follow(feed, since="oldest")) as other:
                with pytest.raises(DaemonUnreachable):
                    await anext(other)
            journal.away = None
            assert await hearing == [2]

    told(story)


def test_events_that_are_not_kept_any_more_are_said_to_be_lost(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        for _ in range(9):
            journal.add()
        async with aclosing(follow(feed, since=f"{EPOCH}-2")) as found:
            await anext(found)
            journal.forget(6)
            lost = await next_of(found)
            assert (lost.kind, lost.cursor) == ("lost", f"{EPOCH}-9")
            journal.add()
            assert await count_of(found, 1) == [10]
            journal.restored()
            assert (await next_of(found, "lost")).cursor == "0badcafe-0"
            journal.add()
            assert (await next_of(found)).cursor == "0badcafe-1"
        async with aclosing(follow(feed, since=f"{EPOCH}-9")) as old:
            with pytest.raises(CursorLost):
                await anext(old)

    told(story)


def test_an_admin_hears_how_the_daemon_is_and_others_do_not(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        async with aclosing(follow(feed)) as admin, aclosing(follow(feed, FIVE)) as user:
            await anext(user)
            first = await next_of(admin, "status")
            assert first.data == {"daemon": "here", "problems": [], "queue": None, "s3": None}
            journal.status = {"problems": ["the disk is full"], "s3": {"queue": {"rows": 3}, "trouble": "refused"}}
            second = await next_of(admin, "status")
            assert second.data == {
                "daemon": "here", "problems": ["the disk is full"], "queue": {"rows": 3}, "s3": "refused",
            }  # fmt: skip
            feed.note("upload", {"id": 1}, "5")
            feed.note("upload", {"id": 2}, "6")
            feed.note("done", {"asked": "fetch"})
            feed.note("upload", {"id": 3}, "5")
            assert [(await next_of(user)).data for _ in range(2)] == [{"id": 1}, {"id": 3}]
            assert [(await next_of(admin)).data for _ in range(3)] == [{"id": 1}, {"id": 2}, {"asked": "fetch"}]
            journal.away = DaemonUnreachable("gone")
            assert (await next_of(admin, "status")).data["daemon"] == "away"

    told(story)


def test_something_is_sent_where_nothing_happens(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BEAT_S", 0.03)

    async def story(journal: Journal, feed: Feed) -> None:
        async with aclosing(follow(feed, FIVE)) as found:
            assert await anext(found) == Told("", None, f"{EPOCH}-0")
            journal.add(path="users/6/recordings/1/a")
            beat = await anext(found)
            assert beat == Told("", None, f"{EPOCH}-1"), "what is not for them is behind them, too"

    told(story)


def test_an_end_sends_all_away(scratch: Path) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        found = follow(feed)
        await anext(found)
        feed.close()
        assert [each async for each in found if each.kind not in ("", "status")] == []

    told(story)


def test_a_daemon_whose_answers_make_no_sense_is_no_busy_loop(scratch: Path, expect_log: Any) -> None:
    expect_log("events could not be read")

    async def story(journal: Journal, feed: Feed) -> None:
        async with aclosing(follow(feed)) as found:
            await anext(found)
            asked = 0

            async def ask(*_: Any, **__: Any) -> Any:
                nonlocal asked
                asked += 1
                return {"events": [{}], "cursor": "x"}

            journal.ask = ask  # type: ignore[method-assign]
            journal._wake()
            await asyncio.sleep(0.1)
            assert 0 < asked < 60

    told(story)


@pytest.mark.parametrize("name", ["a\nb", "a\r\nid: 7", "\u2028", "\udcff", "a\n\nevent: x\ndata: y"])
def test_no_name_makes_another_event(name: str) -> None:
    sent = encoded(Told("committed", {"path": name}, "c-1"))
    assert sent.isascii()
    assert sent.endswith(b"\n\n")
    head, kind, data, *rest = sent.decode().split("\n")
    assert (head, kind, rest) == ("id: c-1", "event: committed", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {"path": name}
    assert b"\r" not in sent


def test_a_listener_by_http_gets_a_stream_and_others_a_refusal(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        answers = gateway.daemon.answers
        answers["events"] = {"events": [], "cursor": f"{EPOCH}-7", "more": False}
        first = await gateway.ask("GET", "/api/v1/events", token="user")
        assert first.status == 200
        assert first.body == f"retry: 3000\n\nid: {EPOCH}-7\n:\n\n".encode()
        assert first.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (first.headers["cache-control"], first.headers["x-accel-buffering"]) == ("no-store", "no")
        for query in ("kind=eaten", f"since={'x' * 65}"):
            assert (await gateway.ask("GET", f"/api/v1/events?{query}", token="user")).problem == "InvalidArgument"
        answers["events"] = CursorLost("CursorLost", "it is not kept")
        assert (await gateway.ask("GET", f"/api/v1/events?since={EPOCH}-1", token="user")).problem == "CursorLost"
        answers["events"] = DaemonRefused("NotSupported", "no events are written")
        assert (await gateway.ask("GET", "/api/v1/events", token="user")).status == 501
        answers["events"] = DaemonUnreachable("gone")
        assert (await gateway.ask("GET", "/api/v1/events", token="user")).problem == "DaemonGone"
        assert gateway.context.streams.held(gateway.ids["user"]) == 0
        assert gateway.context.feed._tasks == []

    run(scratch, story)


def test_a_browser_that_comes_again_too_late_is_told_so_in_the_stream(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        def answer(params: dict[str, Any]) -> Any:
            if params["since"] == "now":
                return {"events": [], "cursor": f"{EPOCH}-7", "more": False}
            raise CursorLost("CursorLost", "it is not kept")

        gateway.daemon.answers["events"] = answer
        again = {"Last-Event-ID": f"{EPOCH}-1"}
        found = await gateway.ask("GET", "/api/v1/events?since=oldest", token="user", headers=again)
        assert found.status == 200, "a refusal would have it never come again"
        assert b"event: lost\ndata: {}\n\n" in found.body

    run(scratch, story)


def test_a_token_has_so_many_listeners(scratch: Path) -> None:
    async def story(gateway: Gateway) -> None:
        gateway.daemon.answers["events"] = {"events": [], "cursor": f"{EPOCH}-7", "more": False}
        with gateway.context.streams.hold(gateway.ids["user"]):
            assert (await gateway.ask("GET", "/api/v1/events", token="user")).status == 429
            assert (await gateway.ask("GET", "/api/v1/events", token="other")).status == 200
        assert (await gateway.ask("GET", "/api/v1/events", token="user")).status == 200

    run(scratch, story, streams_per_token=1)


def test_what_takes_long_is_told_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(journal: Journal, feed: Feed) -> None:
        gate = asyncio.Event()
        ends: list[Any] = [{"fetched": 3}, DaemonRefused("NotFound", "no such path"), OSError(5, "Input/output error")]

        class Slow:
            async def ask(self, method: str, /, *, patience_s: float, **params: Any) -> Any:
                assert patience_s == errands_.PATIENCE_S
                await gate.wait()
                end = ends.pop(0)
                if isinstance(end, Exception):
                    raise end
                return end

        monkeypatch.setattr(errands_, "MOST", 3)
        errands = Errands(Slow(), feed)  # type: ignore[arg-type]
        async with aclosing(follow(feed)) as found:
            await anext(found)
            for number in range(3):
                errands.begin("fetch", {"path": f"users/5/{number}"})
            with pytest.raises(Problem, match="TooManyRequests"):
                errands.begin("restore", {})
            gate.set()
            ended = [await next_of(found) for _ in range(3)]
        assert [each.kind for each in ended] == ["done", "failed", "failed"]
        assert ended[0].data == {"asked": "fetch", "params": {"path": "users/5/0"}, "result": {"fetched": 3}}
        assert [each.data["problem"]["status"] for each in ended[1:]] == [404, 502]
        errands.stop()

    told(story)
