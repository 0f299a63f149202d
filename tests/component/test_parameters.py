"""What a program sends with a method of the control protocol: whatever it is, it costs nobody anything but its answer.

The matrix is made of the methods and parameters that there are, so that none is left out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api.gateway import gateway
from recfs.api.parameters import MOST, MOST_CHARS, PARAMS, checked, given
from recfs.config.gateway import GatewaySection
from recfs.core.access.methods import METHODS, OPERATORS_ALONE
from recfs.errors import (
    CursorLost,
    FsError,
    Interrupted,
    InvalidArgument,
    IoFailure,
    MediaUnavailable,
    RowRefused,
    Stale,
)
from recfs.fuse.observers.live import LiveCounts
from recfs.ports.object_errors import NotOffered, ObjectMissing

from .build import REC, Filesystem
from .test_tier import tiered

FILE = f"{REC}/a.mp4"
DEEP = '{"a":' * 900 + "[]" + "}" * 900
VALUES = {
    **{f"text {text[:8]!a}": json.dumps(text) for text in ("", ".", "../..", "users//5", "a\0b", "\udcff\n", "5")},
    **{f"path {text}": json.dumps(text) for text in (FILE, REC, "users/5", "shared", "/")},
    "a long text": json.dumps("users/" + "n" * (MOST_CHARS - 6)),
    "a longer text": json.dumps("/" * (MOST_CHARS + 1)),
    **{each: each for each in ("true", "false", "null", "0", "1", "-1", "7", "0.5", "-0.0", "1e400")},
    **{each: each for each in ("NaN", "-Infinity", "1e308", str(MOST), str(MOST + 1), f"-{MOST}", "9" * 4000)},
    **{each: each for each in ("[]", "{}", "[1]", '["committed"]', "[null]", "[[]]", '{"a": 1}', "[true]", "[-1]")},
    "many": json.dumps(list(range(1000))),
    "deep list": "[" * 900 + "]" * 900,
    "deep table": DEEP,
}
"""JSON by what the case is called; everything a program may send in the place of anything."""
ANSWERED = {
    each.__name__ for each in (*FsError.__subclasses__(), CursorLost, MediaUnavailable, ObjectMissing, NotOffered)
} - {each.__name__ for each in (IoFailure, RowRefused, Stale, Interrupted)}
"""What somebody may be told who asked for something that there is, and cannot be had."""


@asynccontextmanager
async def served(fs: Filesystem, path: Path) -> AsyncIterator[trio.SocketStream]:
    """A connection to a second socket that offers all it can, as a daemon has it."""
    answers = fs._answers()
    answers.live, answers.sweeps = LiveCounts(fs.vfs), fs.parts.sweeps
    handlers = answers.handlers()
    offered = METHODS - OPERATORS_ALONE - {"reload"}
    server = gateway(GatewaySection(socket=path, methods=tuple(sorted(offered))), checked(handlers), fs.parts.observing)
    assert server is not None
    assert offered == set(handlers) - OPERATORS_ALONE
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with await trio.open_unix_socket(path) as stream:
            yield stream
        nursery.cancel_scope.cancel()


async def answer(stream: trio.SocketStream, method: str, params: str) -> dict[str, Any]:
    await stream.send_all(f'{{"method":"{method}","params":{params}}}\n'.encode())
    got = b""
    while not got.endswith(b"\n"):
        chunk = await stream.receive_some()
        assert chunk, f"hung up after {method} {params[:80]}"
        got += chunk
    found: dict[str, Any] = json.loads(got)
    return found


def others_of(method: str) -> list[str]:
    """What else is given, so that the parameter in question is looked at."""
    needed = {"name": '"expired"', "run": "1", "path": json.dumps(FILE), "user": '"5"', "ids": "[]"}
    needed |= {"timeout_s": "0"}
    return [f'"{name}":{value}' for name, value in needed.items() if name in PARAMS[method]]


CASES = [
    (method, name, what) for method in sorted(PARAMS) for name in PARAMS[method] for what in VALUES
]  # fmt: skip


def fits(method: str, name: str, what: str) -> bool:
    value = json.loads(VALUES[what])
    return value is None or PARAMS[method][name].fits(value)


def test_every_method_says_what_it_may_be_asked_with() -> None:
    assert PARAMS.keys() == METHODS


def test_what_is_something_else_is_refused_by_name_before_anybody_hears_of_it() -> None:
    refused = 0
    for method, name, what in CASES:
        if fits(method, name, what):
            continue
        with pytest.raises(InvalidArgument, match=rf"^{name} of {method} is ") as error:
            given(method, {name: json.loads(VALUES[what])})
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 250
        refused += 1
    assert refused > len(CASES) / 2


def test_what_is_misspelt_is_not_left_out_in_silence() -> None:
    with pytest.raises(InvalidArgument, match=r"^sweep_temp has no parameter 'dryrun'; it has dry_run$"):
        given("sweep_temp", {"dryrun": True})
    with pytest.raises(InvalidArgument, match=r"^status has no parameter 'x\\n\\x1b'; it has none$"):
        given("status", {"x\n\x1b": 1})


def test_what_is_needed_is_asked_for_and_null_is_not_given() -> None:
    assert given("quota_show", {"user": None}) == {}
    for params in ({}, {"name": None}):
        with pytest.raises(InvalidArgument, match=r"^sweep_run needs name: a text"):
            given("sweep_run", params)


@pytest.mark.slow
async def test_whatever_may_be_sent_is_answered_and_harms_nobody(
    nursery: trio.Nursery,
    place: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits for a program that asked for something odd: what waits by itself is asked for a moment."""
    monkeypatch.setenv("PATH", str(tmp_path))  # no program is run
    fs = tiered(nursery, place)
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    faults = []
    async with served(fs, tmp_path / "gateway.sock") as stream:
        for method, name, what in CASES:
            value = VALUES[what]
            waits = name in ("timeout_s", "wait_s") and fits(method, name, what) and (json.loads(value) or 9) > 1
            if method in OPERATORS_ALONE or not fits(method, name, what) or waits:
                continue
            rest = ",".join(each for each in others_of(method) if not each.startswith(f'"{name}":'))
            told = await answer(stream, method, f'{{"{name}":{value}{"," * bool(rest)}{rest}}}')
            if what.startswith("deep "):  # nobody hears of it
                assert (told["ok"], told["error"]["kind"]) == (False, "ControlError")
                assert "inside each other" in told["error"]["message"]
            elif not told["ok"] and told["error"]["kind"] not in ANSWERED:
                faults.append((method, name, what, told["error"]["kind"], told["error"]["message"][:200]))
        assert (await answer(stream, "status", "{}"))["ok"]
    assert faults == []
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    await fs.stop()
