"""The second control socket: who may ask there, for what, and what that costs the others."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api import control, lines
from recfs.api.client import ControlClient
from recfs.api.control import ControlServer, Offer, Peer
from recfs.api.gateway import gateway
from recfs.config.gateway import GatewaySection
from recfs.core.access.methods import GATEWAY_METHODS, LOOKS, METHODS, OF_ASKER, OPERATORS_ALONE
from recfs.core.observing.acts import CONTROL_OPS
from recfs.errors import ControlError, NotPermitted, NotSupported, RootBusy

from .build import filesystem

GID = 4711
NOBODY = 65534


class Handlers(dict[str, Any]):
    """Methods that answer what they are asked, and can be held up."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(("status", "info", "events", "stop"), self._answer))
        self["stats"] = self._slow
        self.go = trio.Event()
        self.under_way = 0

    async def _answer(self, params: dict[str, Any]) -> Any:
        return params

    async def _slow(self, params: dict[str, Any]) -> Any:
        self.under_way += 1
        await self.go.wait()
        self.under_way -= 1
        return "x" * params.get("chars", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.sock"


@asynccontextmanager
async def serving(server: ControlServer) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield
        nursery.cancel_scope.cancel()


def offering(path: Path, handlers: dict[str, Any], *methods: str, mode: int = 0o660, **settings: Any) -> ControlServer:
    offer = Offer(frozenset(methods), mode, settings.pop("gid", -1), **settings.pop("offer", {}))
    return ControlServer(path, handlers, waiting={"events"}, offer=offer, **settings)


async def call(socket_path: Path, method: str, /, **params: Any) -> Any:
    return await trio.to_thread.run_sync(partial(ControlClient(socket_path, 10).call, method, **params))


async def ask(stream: trio.SocketStream, method: str, **params: Any) -> None:
    await stream.send_all(json.dumps({"method": method, "params": params}).encode() + b"\n")


async def line(stream: trio.SocketStream) -> dict[str, Any]:
    """The next answer."""
    got = b""
    while not got.endswith(b"\n"):
        chunk = await stream.receive_some()
        assert chunk, "hung up"
        got += chunk
    answer: dict[str, Any] = json.loads(got)
    return answer


async def test_what_is_offered_is_answered_and_nothing_else(path: Path) -> None:
    seen: list[tuple[str, Peer, str]] = []
    observer = lambda method, params, peer, failed: seen.append((method, peer, failed))  # noqa: E731
    async with serving(offering(path, Handlers(), "status", "info", observer=observer)):
        assert await call(path, "info", path="users/5") == {"path": "users/5"}
        with pytest.raises(NotPermitted, match=r"'stop' is not offered on this socket; it answers info, status$"):
            await call(path, "stop")
        with pytest.raises(NotPermitted, match="'frobnicate' is not offered"):
            await call(path, "frobnicate")
    me = Peer(os.getpid(), os.getuid(), os.getgid())
    assert seen == [("info", me, ""), ("stop", me, "NotPermitted"), ("frobnicate", me, "NotPermitted")]


async def test_a_method_that_somebody_made_up_shows_no_control_characters(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with serving(offering(path, Handlers(), "status")):
        with pytest.raises(NotPermitted) as refused:
            await call(path, "\x1b[2J\nroot: all is well" + "x" * 100_000)
    told = caplog.messages[-1]
    assert "\x1b" not in str(refused.value) + told
    assert "\n" not in told
    assert f"uid {os.getuid()} (process {os.getpid()}) is refused" in told
    assert max(len(told), len(str(refused.value))) < 400


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_the_socket_has_the_mode_and_group_that_are_configured(path: Path, mode: int) -> None:
    async with serving(offering(path, Handlers(), "status", mode=mode, gid=GID)):
        info = os.lstat(path)
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (mode, os.getuid(), GID)
    assert not path.exists()


async def test_a_directory_where_anybody_could_put_another_socket_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    server = offering(folder / "gateway.sock", Handlers(), "status")
    for mode in (0o777, 0o770, 0o707):
        folder.chmod(mode)
        with pytest.raises(ControlError, match="chmod go-w"):
            await server.run()
    folder.chmod(0o755)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(ControlError, match="is another user's"):
        await server.run()
    os.chown(folder, 0, 0)
    folder.chmod(0o1777)  # as /tmp: nobody replaces what is another's
    async with serving(server):
        assert await call(folder / "gateway.sock", "status") == {}


async def test_what_is_put_in_the_place_of_a_socket_keeps_its_mode(path: Path, tmp_path: Path) -> None:
    """Whoever may write to the directory could have had the daemon, as root, open any file to all."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"")
    secret.chmod(0o600)
    fresh = path.with_name("fresh")
    fresh.symlink_to(secret)
    for put in (fresh, secret):
        with pytest.raises((ControlError, OSError)):
            control._set_mode(put, 0o666)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


async def test_two_stores_do_not_share_one(path: Path) -> None:
    async with serving(offering(path, Handlers(), "status")):
        with pytest.raises(RootBusy, match="each store needs a path of its own"):
            await offering(path, Handlers(), "status").run()
        assert await call(path, "status") == {}


async def test_connections_are_limited_and_the_store_s_own_socket_is_not_among_them(path: Path, tmp_path: Path) -> None:
    handlers, own = Handlers(), tmp_path / "control.sock"
    async with serving(offering(path, handlers, "status", max_connections=2)), serving(ControlServer(own, handlers)):
        async with await trio.open_unix_socket(path) as one, await trio.open_unix_socket(path) as two:
            for stream in (one, two):
                await ask(stream, "status")
                assert (await line(stream))["ok"]
            with pytest.raises(ControlError, match="too many connections"):
                await call(path, "status")
            assert await call(own, "status") == {}
        while True:  # both are given back when their ends are seen
            try:
                assert await call(path, "status") == {}
                break
            except ControlError:
                await trio.lowlevel.checkpoint()


async def test_who_takes_all_connections_keeps_no_other_user_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    who = [1000]

    def peer_of(stream: trio.SocketStream) -> Peer:
        return Peer(1, who[-1], who[-1])

    async def let_in(uids: list[int]) -> list[bool]:
        """Whether each gets an answer; those who do stay."""
        told = []
        for uid in uids:
            who.append(uid)
            stream = await held.enter_async_context(await trio.open_unix_socket(path))
            await ask(stream, "status")
            told.append((await line(stream))["ok"])
        return told

    monkeypatch.setattr(control, "_peer_of", peer_of)
    async with serving(offering(path, Handlers(), "status", max_connections=4)), AsyncExitStack() as held:
        assert await let_in([1000] * 5) == [True] * 4 + [False]
        assert await let_in([1001] * 3) == [True, True, False]
        # so many users, one after another, are let in as there is room for in all
        assert await let_in([1002, 1003, 1004]) == [True, True, False]


async def test_so_many_requests_are_carried_out_at_once_and_waiting_ones_do_not_count(path: Path) -> None:
    handlers = Handlers()
    async with serving(offering(path, handlers, "stats", "events", "status")), trio.open_nursery() as nursery:
        done: list[int] = []

        async def one(number: int) -> None:
            await call(path, "stats")
            done.append(number)

        for number in range(5):
            nursery.start_soon(one, number)
        while handlers.under_way < 2:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.001)
        for _ in range(20):
            assert await call(path, "events") == {}
            assert handlers.under_way == 2
        assert not done
        handlers.go.set()
    assert sorted(done) == list(range(5))


@pytest.mark.expect_log("does not read its answer")
async def test_who_does_not_read_an_answer_keeps_it_for_a_time(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Also somebody who reads a little now and then: the time counts for the whole answer."""
    handlers = Handlers()
    handlers.go.set()
    async with (
        serving(offering(path, handlers, "stats", offer={"at_once": 1, "answer_s": 30.0})),
        await trio.open_unix_socket(path) as slow,
        await trio.open_unix_socket(path) as other,
    ):
        began = trio.current_time()
        await ask(slow, "stats", chars=20 << 20)
        async with trio.open_nursery() as nursery:

            async def sip() -> None:
                try:
                    while await slow.receive_some(10):  # noqa: ASYNC110 - it is how slow clients read
                        await trio.sleep(5)
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(sip)
            await trio.sleep(1)
            await ask(other, "stats", chars=3)
            assert (await line(other))["result"] == "xxx"
            assert trio.current_time() - began < 60
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "text",
    [
        r'{"method": "status", "params": {"path": "\ud800"}}', r'{"method": "\udfff"}',
        r'{"method": "a", "params": {"\ud900": 1}}',
    ],
)  # fmt: skip
async def test_text_that_is_none_is_a_malformed_request(path: Path, text: str) -> None:
    async with serving(offering(path, Handlers(), "status")), await trio.open_unix_socket(path) as stream:
        await stream.send_all(text.encode() + b"\n")
        answer = await line(stream)
        assert answer["error"]["kind"] == "ControlError"
        assert "surrogates" in answer["error"]["message"]
        await ask(stream, "status", path=os.fsdecode(b"users/\xff"))
        assert (await line(stream))["result"] == {"path": "users/\udcff"}


# --- what a line may be ----------------------------------------------------------------------------------------------

BOMB = b"{}," * 300_000 + b"0"


async def refusal(path: Path, line_of: bytes) -> str:
    """What is said of a line, on a connection that has to be of use before."""
    async with await trio.open_unix_socket(path) as stream:
        await ask(stream, "status")
        assert (await line(stream))["ok"]
        with suppress(trio.BrokenResourceError):  # refused before it was read to the end
            await stream.send_all(line_of + b"\n")
        answer = await line(stream)
    assert (answer["ok"], answer["error"]["kind"]) == (False, "ControlError")
    said: str = answer["error"]["message"]
    return said


def asking_for(method: bytes, items: bytes, name: bytes = b"x") -> bytes:
    return b'{"method":"%s","params":{"%s":[%s]}}' % (method, name, items)


@pytest.mark.parametrize("method", [b"nope", b"status"])
async def test_a_line_of_many_values_is_refused_before_it_is_parsed(
    path: Path, monkeypatch: pytest.MonkeyPatch, method: bytes
) -> None:
    """350,000 tables in a line took 0.1 s of the mount's time each, whoever sent them and whatever for."""
    loads, longest = json.loads, 0

    def counted(text: Any, **how: Any) -> Any:
        nonlocal longest
        longest = max(longest, text.count(b"{") if isinstance(text, bytes) else 0)
        return loads(text, **how)

    monkeypatch.setattr(json, "loads", counted)
    async with serving(offering(path, Handlers(), "status", "cache_put")):
        assert "262144 bytes at most" in await refusal(path, asking_for(method, BOMB))
        assert "5000 values at most" in await refusal(path, asking_for(method, BOMB[:198_000] + b"0"))
        assert "200000 values at most" in await refusal(path, asking_for(b"cache_put", BOMB, b"result"))
        assert "inside each other" in await refusal(path, asking_for(method, b"[" * 150 + b"]" * 150))
    assert longest <= 5_000


@pytest.mark.parametrize(
    "sent",
    [
        asking_for(b"cache_put", BOMB[:30_000] + b"0", b"options"),
        asking_for(b"cache_put", BOMB[:30_000] + b"0", b"result")[:-1] + b',"method":"status"}',
    ],
)
async def test_only_a_result_may_have_more_values_than_other_requests(path: Path, sent: bytes) -> None:
    async with serving(offering(path, Handlers(), "status", "cache_put")):
        assert "5000 values at most besides a result" in await refusal(path, sent)


async def test_a_result_may_be_as_long_as_a_line(path: Path) -> None:
    handlers = Handlers()
    handlers["cache_put"] = handlers["status"]
    async with serving(offering(path, handlers, "cache_put", "status")):
        large: tuple[dict[str, Any], ...] = ({"packed": "A" * 900_000}, {"result": [{}] * 90_000})
        for sent in large:
            assert await call(path, "cache_put", **sent) == sent
        with pytest.raises(ControlError, match="bytes at most"):
            await call(path, "status", path="x" * 300_000)


async def test_large_lines_are_parsed_in_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all connections have one in memory, taken apart, while others are carried out."""
    handlers, parsed = Handlers(), 0
    handlers["cache_put"] = handlers["stats"]

    def counted(*args: Any) -> Any:
        nonlocal parsed
        parsed += args[0].startswith(b'{"method":"cache_put"')
        return lines.parsed(*args)

    monkeypatch.setattr(control, "parsed", counted)
    async with (
        serving(offering(path, handlers, "cache_put", "status", "events", offer={"at_once": 1})),
        trio.open_nursery() as nursery,
    ):
        for _ in range(4):
            nursery.start_soon(partial(call, path, "cache_put", result=[{}] * 3_000))
        while not handlers.under_way:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.001)
        for _ in range(20):
            assert await call(path, "events") == {}
            assert parsed == 1
        handlers.go.set()
    assert parsed == 4


# --- what is offered -------------------------------------------------------------------------------------------------


async def test_all_methods_are_known_and_those_offered_change_nothing(place: Path) -> None:
    async with filesystem(place / "store") as fs:
        methods = set(fs.answers())
    assert methods <= METHODS == LOOKS | CONTROL_OPS.keys()
    assert set(GATEWAY_METHODS) - set(OF_ASKER) <= LOOKS & methods
    assert set(OF_ASKER) <= methods
    assert not OPERATORS_ALONE & set(GATEWAY_METHODS)
    assert OPERATORS_ALONE <= METHODS


async def test_every_question_that_is_offered_by_default_answers_and_leaves_the_store_as_it_is(place: Path) -> None:
    async with filesystem(place / "store") as fs:
        await fs.write("users/5/recordings/142/a.mp4", b"data")
        await fs.drain()
        before = fs.rows("select * from node"), fs.rows("select * from account"), fs.rows("select * from garbage")
        section = GatewaySection(socket=place / "gateway.sock")
        server = gateway(section, fs.answers(), fs.parts.observing)
        assert server is not None
        async with serving(server):
            for method in set(section.methods) - set(OF_ASKER):
                asked = {"days": 30} if method == "stats_trend" else {"path": "users/5/recordings/142"}
                try:
                    await call(section.socket, method, **asked)  # type: ignore[arg-type]
                except NotSupported:
                    assert method == "queue", "there is no S3"
            for method in sorted(METHODS - set(section.methods)):
                with pytest.raises(NotPermitted, match="not offered"):
                    await call(section.socket, method, path="users/5/recordings/142")  # type: ignore[arg-type]
        await fs.drain()
        assert before == (
            fs.rows("select * from node"), fs.rows("select * from account"), fs.rows("select * from garbage"),
        )  # fmt: skip


def test_without_a_path_there_is_none() -> None:
    assert gateway(GatewaySection(), {}, None) is None  # type: ignore[arg-type]


async def test_what_is_asked_for_there_is_in_the_audit_log(place: Path) -> None:
    """Acts, and whatever was refused; questions are not, as on the store's own socket."""
    async with filesystem(place / "store", audit={"enabled": True}) as fs:
        section = GatewaySection(socket=place / "gateway.sock", methods=("status", "quota_set"))
        server = gateway(section, fs.answers(), fs.parts.observing)
        assert server is not None
        async with serving(server):
            await call(place / "gateway.sock", "status")
            await call(place / "gateway.sock", "quota_set", user="5", max_files=7)
            for method in ("info", "trash_purge", "\x1b]0;x\x07"):
                with pytest.raises(NotPermitted):
                    await call(place / "gateway.sock", method, path="users/5")
        audit = fs.parts.observing.audit
        assert audit is not None
        while audit.as_json()["waiting"]:  # its writer may be at work already, or not yet
            await audit._write_some()
            await trio.lowlevel.checkpoint()
        acts = [*map(json.loads, audit.files.path.read_text().splitlines())]
        seen = [(act["op"], act["uid"], act["pid"], act["result"], act["via"]) for act in acts if act.get("via")]
    me = (os.getuid(), os.getpid())
    assert seen == [
        ("quota_set", *me, "ok", "gateway"), ("info", *me, "NotPermitted", "gateway"),
        ("trash_purge", *me, "NotPermitted", "gateway"), ("unknown", *me, "NotPermitted", "gateway"),
    ]  # fmt: skip
