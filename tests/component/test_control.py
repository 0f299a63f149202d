"""The control protocol over a real socket: what a client gets, and what it cannot do to the daemon."""

import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api import control
from recfs.api.client import ControlClient
from recfs.api.control import ControlServer
from recfs.api.lines import MAX_LINE_BYTES
from recfs.errors import ControlError, DaemonNotRunning, FsError, NotFound, RootBusy
from tests.helpers.virtual_time import GUARD_S


async def _echo(params: dict[str, Any]) -> Any:
    return params


async def _refuse(params: dict[str, Any]) -> Any:
    raise NotFound(f"no such path: {params['path']}")


async def _bug(params: dict[str, Any]) -> Any:
    raise KeyError("surprise")


async def _not_json(params: dict[str, Any]) -> Any:
    return {"path": Path("/")}


async def _many(params: dict[str, Any]) -> Any:
    return [{"n": n} for n in range(params["count"])]


async def _stream(params: dict[str, Any]) -> Any:
    return iter(range(params["count"]))


HANDLERS = {
    "echo": _echo,
    "refuse": _refuse,
    "bug": _bug,
    "not_json": _not_json,
    "many": _many,
    "stream": _stream,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@asynccontextmanager
async def serving(server: ControlServer) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield
        nursery.cancel_scope.cancel()


async def call(socket_path: Path, method: str, /, **params: Any) -> Any:
    return await trio.to_thread.run_sync(partial(ControlClient(socket_path, 10).call, method, **params))


async def exchange(path: Path, sent: bytes) -> list[Any]:
    """Send bytes, half-close, and return every answer until the server closes."""
    async with await trio.open_unix_socket(path) as stream:
        try:
            await stream.send_all(sent)
            await stream.send_eof()
        except trio.BrokenResourceError:
            pass
        return [json.loads(line) for line in (await read_all(stream)).splitlines()]


async def read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        async for chunk in stream:
            received += chunk
    except trio.BrokenResourceError:
        pass
    return received


@pytest.mark.parametrize("count", [0, 1, 256, 257, 512, 1000])
async def test_long_lists_in_an_answer_are_encoded_in_pieces(path: Path, count: int) -> None:
    """Encoding a million rows in one go would hold everybody up."""
    wanted = {"before": [1], "rows": [{"n": n} for n in range(count)], "after": {"a": None}, "ids": list(range(count))}
    pieces = [piece async for piece in control._encode({"ok": True, "result": wanted})]
    assert json.loads(b"".join(pieces)) == {"ok": True, "result": wanted}
    assert max(piece.count(b'"n"') for piece in pieces) <= 256
    async with serving(ControlServer(path, HANDLERS)):
        assert await call(path, "echo", **wanted) == wanted


async def test_a_call_returns_what_the_handler_returned(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        assert await call(path, "echo", user="5", max_bytes=None) == {"user": "5", "max_bytes": None}
        assert await call(path, "echo") == {}


async def test_names_that_are_not_utf8_survive_both_ways(path: Path) -> None:
    name = os.fsdecode(b"users/5/\xff\n\xc3\xa4")
    async with serving(ControlServer(path, HANDLERS)):
        assert (await call(path, "echo", path=name))["path"] == name


async def test_a_refusal_keeps_its_class_and_message(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        with pytest.raises(NotFound, match=r"^no such path: users/6$"):
            await call(path, "refuse", path="users/6")


@pytest.mark.expect_log("control method bug failed")
async def test_a_bug_in_a_handler_is_answered_and_logged(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        with pytest.raises(ControlError, match="InternalError: KeyError in bug"):
            await call(path, "bug")
        assert await call(path, "echo", still="here") == {"still": "here"}


@pytest.mark.expect_log("not JSON")
async def test_an_answer_that_is_not_json_is_a_bug_too(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        with pytest.raises(ControlError, match="InternalError: answer is not JSON"):
            await call(path, "not_json")


async def test_an_unknown_method_names_the_known_ones(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        with pytest.raises(ControlError, match=r"unknown method 'reboot'.*echo"):
            await call(path, "reboot")


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 512, 5000])
@pytest.mark.parametrize("method", ["many", "stream"])
async def test_long_lists_arrive_whole(path: Path, method: str, count: int) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        result = await call(path, method, count=count)
    assert result == [{"n": n} if method == "many" else n for n in range(count)]


async def test_several_requests_on_one_connection_are_answered_in_order(path: Path) -> None:
    requests = b"".join(b'{"method": "echo", "params": {"n": %d}}\n' % n for n in range(3))
    async with serving(ControlServer(path, HANDLERS)):
        answers = await exchange(path, requests)
    assert [answer["result"]["n"] for answer in answers] == [0, 1, 2]


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"status"',
        b"{}",
        b'{"method": 5}',
        b'{"method": "echo", "params": []}',
        b'{"method": "echo"',
        b"[" * 100_000,
        b"",
    ],
)
async def test_a_malformed_line_gets_an_error_and_the_next_one_is_served(path: Path, line: bytes) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        answers = await exchange(path, line + b'\n{"method": "echo", "params": {"n": 1}}\n')
    assert answers[0]["ok"] is False
    assert answers[0]["error"]["kind"] == "ControlError"
    assert answers[1] == {"ok": True, "result": {"n": 1}}


async def test_params_may_be_left_out(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        assert await exchange(path, b'{"method": "echo"}\n') == [{"ok": True, "result": {}}]


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_an_oversized_line_is_refused(path: Path, end: bytes) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        answers = await exchange(path, b"x" * (MAX_LINE_BYTES + 100_000) + end)
        assert [answer["ok"] for answer in answers] == [False]
        assert str(MAX_LINE_BYTES) in answers[0]["error"]["message"]
        assert await call(path, "echo", n=1) == {"n": 1}


async def test_the_client_learns_why_its_oversized_request_was_refused(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        with pytest.raises(ControlError, match=str(MAX_LINE_BYTES)):
            await call(path, "echo", huge="x" * (4 * MAX_LINE_BYTES))


async def test_a_line_of_exactly_the_limit_is_served(path: Path) -> None:
    frame = b'{"method":"echo","params":{"x":""}}'
    line = frame.replace(b'""', b'"' + b"x" * (MAX_LINE_BYTES - len(frame)) + b'"')
    async with serving(ControlServer(path, HANDLERS)):
        assert len(line) == MAX_LINE_BYTES
        assert [answer["ok"] for answer in await exchange(path, line + b"\n")] == [True]


@pytest.mark.parametrize("levels", [150, 990, 200_000])
async def test_what_is_nested_too_deeply_is_refused_and_the_connection_goes_on(path: Path, levels: int) -> None:
    line = b'{"method":"echo","params":{"x":' + b"[" * levels + b"]" * levels + b"}}\n"
    async with serving(ControlServer(path, HANDLERS)):
        refused, answered = await exchange(path, line + b'{"method":"echo"}\n')
        assert "inside each other" in refused["error"]["message"]
        assert answered == {"ok": True, "result": {}}


async def test_the_operator_may_send_as_many_values_as_a_line_has(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        assert len((await call(path, "echo", x=[{}] * 300_000))["x"]) == 300_000


async def test_a_client_that_hangs_up_before_its_answer_harms_nobody(path: Path) -> None:
    entered, gone, finished = trio.Event(), trio.Event(), trio.Event()

    async def slow(params: dict[str, Any]) -> Any:
        entered.set()
        await gone.wait()
        finished.set()
        return list(range(100_000))

    async with serving(ControlServer(path, {"slow": slow, **HANDLERS})):
        stream = await trio.open_unix_socket(path)
        await stream.send_all(b'{"method": "slow"}\n')
        await entered.wait()
        await stream.aclose()
        gone.set()
        await finished.wait()
        assert await call(path, "echo", n=1) == {"n": 1}


async def test_a_waiting_request_does_not_hold_up_others(path: Path) -> None:
    release = trio.Event()

    async def wait(params: dict[str, Any]) -> Any:
        await release.wait()
        return "done"

    async with serving(ControlServer(path, {"wait": wait, **HANDLERS})), trio.open_nursery() as nursery:
        results: list[Any] = []

        async def waiter() -> None:
            results.append(await call(path, "wait"))

        nursery.start_soon(waiter)
        assert await call(path, "echo", n=1) == {"n": 1}
        assert results == []
        release.set()
    assert results == ["done"]


async def test_connections_are_bounded_and_given_back(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS, max_connections=2)):
        held = [await trio.open_unix_socket(path) for _ in range(2)]
        for stream in held:  # served, so counted
            await stream.send_all(b'{"method": "echo"}\n')
            await stream.receive_some()
        with pytest.raises(ControlError, match="too many connections"):
            await call(path, "echo")
        await held[0].send_eof()
        assert await held[0].receive_some() == b""
        assert await call(path, "echo", n=1) == {"n": 1}
        for stream in held:
            await stream.aclose()


async def test_an_idle_client_loses_its_connection(path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with serving(ControlServer(path, HANDLERS, idle_s=60)):
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b'{"method": "ec')
            assert await stream.receive_some() == b""
        assert trio.current_time() >= 60


@pytest.mark.expect_log("does not read its answer")
@pytest.mark.slow
async def test_a_client_that_never_reads_loses_its_connection(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        serving(ControlServer(path, HANDLERS, send_s=10)),
        await trio.open_unix_socket(path) as stream,
    ):
        await stream.send_all(b'{"method": "many", "params": {"count": 1000000}}\n')
        # Time only moves when everybody waits: the server for this client, this client for the clock.
        await trio.sleep(11)
        received = await read_all(stream)
        assert received
        assert not received.endswith(b"\n")


async def test_the_answer_to_a_request_that_ends_the_server_still_arrives(path: Path) -> None:
    async with trio.open_nursery() as nursery:

        async def stop(params: dict[str, Any]) -> Any:
            nursery.cancel_scope.cancel()
            return {"stopping": True}

        await nursery.start(ControlServer(path, {"stop": stop}).run)
        client = ControlClient(path, 10)
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(client.call("stop")))
        asking.start()
        await trio.sleep_forever()
    asking.join(10)
    assert answers == [{"stopping": True}]


async def test_the_socket_is_private_and_goes_with_the_server(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        mode = os.lstat(path).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert list(path.parent.iterdir()) == []


def _leave_stale_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize("leave", [_leave_stale_socket, Path.touch])
async def test_a_stale_socket_is_replaced(path: Path, leave: Callable[[Path], None]) -> None:
    leave(path)
    async with serving(ControlServer(path, HANDLERS)):
        assert await call(path, "echo", n=1) == {"n": 1}


async def test_a_second_server_is_refused_and_the_first_goes_on(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        with pytest.raises(RootBusy, match="another daemon"):
            await ControlServer(path, HANDLERS).run()
        assert await call(path, "echo", n=1) == {"n": 1}


async def test_the_socket_of_a_successor_is_left_alone(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        path.unlink()
        _leave_stale_socket(path)
    assert path.exists()


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / "e"
    deep.mkdir(parents=True)
    async with serving(ControlServer(deep / "control.sock", HANDLERS)):
        assert await call(deep / "control.sock", "echo", n=1) == {"n": 1}


async def test_the_peer_of_the_client_is_the_daemon(path: Path) -> None:
    async with serving(ControlServer(path, HANDLERS)):
        assert await trio.to_thread.run_sync(ControlClient(path).peer_pid) == os.getpid()


@pytest.mark.parametrize("leave", [_leave_stale_socket, Path.touch, lambda path: None])
def test_no_daemon_is_told_apart(path: Path, leave: Callable[[Path], None]) -> None:
    leave(path)
    with pytest.raises(DaemonNotRunning, match="no recfs daemon listens"):
        ControlClient(path).call("status")


@pytest.fixture
def play(path: Path) -> Any:
    """Play a server that accepts one client and answers with given bytes, or keeps silent (None)."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    done = threading.Event()

    def start(answer: bytes | None) -> None:
        def serve() -> None:
            peer, _address = listener.accept()
            with peer:
                peer.recv(65536)
                if answer is None:
                    done.wait(30)
                else:
                    peer.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()

    threads: list[threading.Thread] = []
    yield start
    done.set()
    for thread in threads:
        thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed the connection"),
        (b'{"ok": true, "result"', "closed the connection"),
        (b"what?\n", "makes no sense"),
        (b"[]\n", "makes no sense"),
        (b'{"ok": true}\n', "makes no sense"),
        (b'{"ok": false}\n', "makes no sense"),
        (b'{"ok": false, "error": {"kind": "Novel", "message": "m"}}\n', "^Novel: m$"),
        (b'{"ok": false, "error": {"kind": "Exception", "message": "m"}}\n', "^Exception: m$"),
    ],
)
def test_an_odd_answer_is_a_control_error(
    path: Path, play: Callable[[bytes | None], None], answer: bytes, message: str
) -> None:
    play(answer)
    with pytest.raises(ControlError, match=message) as caught:
        ControlClient(path, 10).call("status")
    assert not isinstance(caught.value, DaemonNotRunning | FsError)


def test_a_silent_daemon_is_given_up_on(path: Path, play: Callable[[bytes | None], None]) -> None:
    play(None)
    with pytest.raises(ControlError, match="did not answer status"):
        ControlClient(path, 0.05).call("status")


async def test_a_method_that_waits_ends_with_its_client_and_any_other_does_not(path: Path) -> None:
    ended: list[str] = []

    async def waits(params: dict[str, Any]) -> Any:
        try:
            await trio.sleep(params["seconds"])
        finally:
            ended.append("cancelled" if trio.current_effective_deadline() < trio.current_time() else "done")
        return params

    server = ControlServer(path, {"wait": waits, "work": waits}, waiting={"wait"})
    async with serving(server):
        assert await call(path, "wait", seconds=0.01) == {"seconds": 0.01}
        for method in ("wait", "work"):
            client = trio.socket.socket(socket.AF_UNIX)
            await client.connect(str(path))
            seconds = 60.0 if method == "wait" else 0.3
            await client.send(json.dumps({"method": method, "params": {"seconds": seconds}}).encode() + b"\n")
            await trio.sleep(0.1)
            client.close()
        with trio.fail_after(GUARD_S):
            while len(ended) < 3:  # noqa: ASYNC110  # the server tells nobody
                await trio.sleep(0.01)
    assert ended == ["done", "cancelled", "done"]


async def test_an_observer_is_told_who_asked_for_what_and_with_what_result(path: Path) -> None:
    told: list[tuple[str, dict[str, Any], tuple[int, int, int], str]] = []
    server = ControlServer(path, HANDLERS, observer=lambda *args: told.append(args))
    me = (os.getpid(), os.getuid(), os.getgid())
    async with serving(server):
        await call(path, "echo", a=1)
        with pytest.raises(NotFound):
            await call(path, "refuse", path="/x")
        with pytest.raises(ControlError):
            await call(path, "unknown")
    assert told == [("echo", {"a": 1}, me, ""), ("refuse", {"path": "/x"}, me, "NotFound")]
