"""recfs.client.events against the daemon's own answers, without a mount, and against daemons that misbehave."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from recfs.api.control import ControlServer
from recfs.client import CursorLost, DaemonRefused, DaemonUnreachable, Event, NotAMount, event_feed, events

from .build import REC, Filesystem
from .client import LOOPS, run


@asynccontextmanager
async def listening(fs: Filesystem, path: Path) -> AsyncIterator[Path]:
    """A socket on which the daemon of *fs* answers."""
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(path, fs.answers(), waiting={"events"}).run)
        yield path
        nursery.cancel_scope.cancel()


async def all_told(where: Path, **options: Any) -> tuple[list[Event], str]:
    def read() -> tuple[list[Event], str]:
        stream = events(where, follow=False, **options)
        return list(stream), stream.cursor

    return await trio.to_thread.run_sync(read)


async def test_events_are_told_and_gone_on_with_by_cursor(fs: Filesystem, scratch: Path) -> None:
    await fs.write(f"{REC}/a.mp4", b"one")
    await fs.write("users/6/recordings/1/b.mp4", b"two")
    await fs.drain()
    async with listening(fs, scratch / "s") as where:
        first, cursor = await all_told(where)
        assert {(each.kind, each.path, each.user, each.size_bytes) for each in first} == {
            ("committed", f"{REC}/a.mp4", "5", 3), ("committed", "users/6/recordings/1/b.mp4", "6", 3),
        }  # fmt: skip
        assert all(each.sha256 == each.told["sha256"] for each in first)
        assert first[-1].cursor == cursor
        assert await all_told(where, since=cursor) == ([], cursor)
        await fs.rename(f"{REC}/a.mp4", f"{REC}/c.mp4")
        await fs.write(f"{REC}/d.mp4", b"three")
        await fs.drain()
        later, end = await all_told(where, since=cursor)
        assert [(each.kind, each.was, each.path) for each in later] == [
            ("renamed", f"{REC}/a.mp4", f"{REC}/c.mp4"), ("committed", None, f"{REC}/d.mp4"),
        ]  # fmt: skip
        found, behind = await all_told(where, kinds=["committed"], user=6)
        assert [each.path for each in found] == ["users/6/recordings/1/b.mp4"]
        assert behind == end, "what was not wanted is behind, too"
        assert next(iter((await all_told(where, since=first[0].cursor))[0])).cursor == first[1].cursor


async def test_what_the_daemon_refuses_is_told(fs: Filesystem, scratch: Path) -> None:
    async with listening(fs, scratch / "s") as where:
        with pytest.raises(CursorLost):
            await all_told(where, since="00000000-1")
        with pytest.raises(DaemonRefused, match="no kind of events: eaten") as refused:
            await all_told(where, kinds=["eaten"])
        assert refused.value.kind == "InvalidArgument"


async def test_who_follows_hears_of_what_comes(fs: Filesystem, scratch: Path) -> None:
    told: list[str] = []

    def follow(where: Path) -> None:
        stream = itertools.islice(events(where, since="now", kinds=["committed"]), 2)
        told.extend(event.path for event in stream)

    async with listening(fs, scratch / "s") as where, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, follow, where)
        for number in itertools.count():
            if len(told) == 2:
                break
            await fs.write(f"{REC}/{number}", b"x")
            await fs.drain()
    assert len(set(told)) == 2


# --- daemons that are not as they should be ----------------------------------------------------------------------

Answer = Callable[[dict[str, Any]], bytes | None]


class Fake:
    """Answers each question by the next of some functions; None hangs up, and the last one goes on for ever."""

    def __init__(self, path: Path, *answers: Answer) -> None:
        self.asked: list[dict[str, Any]] = []
        self.hung_up = threading.Event()
        self._answers = list(answers)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                question = json.loads(connection.makefile("rb").readline())
                self.asked.append(question["params"])
                told = (self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])(question["params"])
                if told is None:
                    continue
                if told == b"silence":
                    connection.recv(1)  # until the other side gives up
                    self.hung_up.set()
                else:
                    connection.sendall(told)


def page(*numbers: int, more: bool = False) -> Answer:
    told = [{"cursor": f"00000000-{n}", "time_ns": n, "event": "committed", "path": f"temp/5/1/{n}"} for n in numbers]
    result = {"events": told, "cursor": told[-1]["cursor"] if told else "00000000-0", "more": more}
    return lambda _: json.dumps({"ok": True, "result": result}).encode() + b"\n"


def silence(_: dict[str, Any]) -> bytes:
    return b"silence"


@pytest.fixture
def fake(scratch: Path) -> Iterator[Callable[..., Fake]]:
    made: list[Fake] = []

    def make(*answers: Answer, path: Path = scratch / "socket") -> Fake:
        made.append(Fake(path, *answers))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\n", b"{}\n", b"[]\n", b'{"ok":true}\n', b'{"ok":false}\n', b'{"ok": tr', b"\xff\n", None],
)
def test_what_is_no_answer_is_told(fake: Callable[..., Fake], scratch: Path, answer: bytes | None) -> None:
    fake(lambda _: answer)
    with pytest.raises(DaemonUnreachable):
        list(events(scratch / "socket", follow=False))


def test_a_socket_that_is_not_there_or_nobody_listens_on(scratch: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(events(scratch / "missing"))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(scratch / "dead"))
    with pytest.raises(DaemonUnreachable, match="refused"):
        list(events(scratch / "dead"))
    with pytest.raises(NotAMount, match="no recfs mount and no socket"):
        list(events(scratch))


def test_a_path_that_is_too_long_for_a_socket(fake: Callable[..., Fake], scratch: Path) -> None:
    folder = scratch / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    os.symlink(folder, scratch / "short")
    fake(page(1), path=scratch / "short" / "socket")
    assert [event.path for event in events(folder / "socket", follow=False)] == ["temp/5/1/1"]


def test_a_page_leads_to_the_next_from_its_cursor(fake: Callable[..., Fake], scratch: Path) -> None:
    daemon = fake(page(1, 2, more=True), page(3))
    assert [event.time_ns for event in events(scratch / "socket", follow=False)] == [1, 2, 3]
    assert [asked["since"] for asked in daemon.asked] == ["oldest", "00000000-2"]
    assert all("wait_s" not in asked for asked in daemon.asked)


@pytest.mark.parametrize("loop", ["sync", *LOOPS])
def test_who_follows_outlives_a_restart_and_misses_nothing(
    fake: Callable[..., Fake], scratch: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "_AGAIN_S", 0.01)
    daemon = fake(page(1), lambda _: None, lambda _: b"garbage\n", page(2), silence)
    stream = events(scratch / "socket")

    async def main() -> list[int]:
        async with aclosing(aiter(stream)) as told:
            return [(await anext(told)).time_ns for _ in range(2)]

    if loop == "sync":
        found = [event.time_ns for event in itertools.islice(stream, 2)]
    else:
        found = run(loop, main)
    assert found == [1, 2]
    assert stream.cursor == "00000000-2"
    assert [asked["since"] for asked in daemon.asked[:4]] == ["oldest"] + ["00000000-1"] * 3
    assert daemon.asked[1]["wait_s"] == 20.0


@pytest.mark.parametrize("loop", LOOPS[1:])
def test_who_gives_up_waiting_is_not_held(fake: Callable[..., Fake], scratch: Path, loop: str) -> None:
    daemon = fake(page(1), silence)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            while len(daemon.asked) < 2:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()

    async def follow() -> None:
        async for _ in events(scratch / "socket"):
            pass

    run(loop, main)
    assert daemon.hung_up.wait(10)


def test_a_cancelled_task_of_asyncio_hangs_up(fake: Callable[..., Fake], scratch: Path) -> None:
    daemon = fake(page(1), silence)

    async def follow() -> None:
        async for _ in events(scratch / "socket"):
            pass

    async def main() -> None:
        running = asyncio.create_task(follow())
        while len(daemon.asked) < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert daemon.hung_up.wait(10)
