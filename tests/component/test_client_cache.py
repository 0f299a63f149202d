"""recfs.client.ProcessingCache against the daemon's own answers, without a mount."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api.control import ControlServer
from recfs.api.observing import WAITING
from recfs.client import DaemonRefused, InvalidName, NotAMount, ProcessingCache
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem

A, B = f"{REC}/audio.mp3", "users/7/recordings/2/copy.mp3"
KIND = "transcription"


@asynccontextmanager
async def caching(fs: Filesystem, path: Path) -> AsyncIterator[ProcessingCache]:
    """One whose daemon has the same bytes twice."""
    for file in (A, B):
        await fs.write(file, b"sound")
    await fs.drain()
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(path, fs.answers(), waiting=WAITING).run)
        yield ProcessingCache(path)
        nursery.cancel_scope.cancel()


async def thread(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return await trio.to_thread.run_sync(partial(call, *args, **named))


def never() -> Any:
    raise AssertionError("it is there already")


async def test_results_are_found_by_the_bytes_the_kind_and_the_options(fs: Filesystem, scratch: Path) -> None:
    async with caching(fs, scratch / "s") as cache:
        assert await thread(cache.get, A, KIND, default="none") == "none"
        result = {"text": "Привет\udcff", "words": [[1, 2.5, None]] * 60_000}
        await thread(cache.put, A, KIND, result, {"language": "de", "size": 2})
        assert await thread(cache.get, B, KIND, {"size": 2, "language": "de"}) == result
        assert await cache.get_async(B, KIND, {"size": 2, "language": "de"}) == result
        assert await thread(cache.get, B, KIND) is None
        assert await thread(cache.get, B, "topics", {"size": 2, "language": "de"}) is None
        await cache.put_async(B, KIND, None)
        assert await thread(cache.get, A, KIND, default="none") is None


async def test_what_cannot_be_answered_is_told(fs: Filesystem, scratch: Path) -> None:
    async with caching(fs, scratch / "s") as cache:
        for path, kind, why in ((f"{REC}/missing", KIND, "NotFound"), (A, "No Kind", "InvalidArgument")):
            with pytest.raises(DaemonRefused) as refused:
                await thread(cache.get, path, kind)
            assert refused.value.kind == why
        with pytest.raises(InvalidName):
            await thread(cache.get, "../x", KIND)
        with pytest.raises(ValueError, match="JSON"):
            await thread(cache.put, A, KIND, float("nan"))
    with pytest.raises(NotAMount):
        ProcessingCache(scratch).get(A, KIND)


async def test_of_all_who_ask_at_once_one_makes_it(fs: Filesystem, scratch: Path) -> None:
    made, results = [], []
    go = threading.Event()

    def make() -> dict[str, int]:
        made.append(1)
        assert go.wait(30)
        return {"n": len(made)}

    async def ask(path: str) -> None:
        results.append(await thread(cache.once, path, KIND, make))

    async def ask_async(path: str) -> None:
        results.append(await cache.once_async(path, KIND, partial(thread, make)))

    async with caching(fs, scratch / "s") as cache:
        async with trio.open_nursery() as nursery:
            for path in (A, B, A):
                nursery.start_soon(ask, path)
            nursery.start_soon(ask_async, B)
            while not made:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            go.set()
        assert results == [{"n": 1}] * 4
        assert await thread(cache.once, A, KIND, never) == {"n": 1}
        assert await cache.once_async(B, KIND, never) == {"n": 1}


async def test_who_fails_or_is_cancelled_lets_the_next_one_make_it(fs: Filesystem, scratch: Path) -> None:
    def fail() -> None:
        raise RuntimeError("meant")

    async def fail_async() -> None:
        raise RuntimeError("meant")

    async def hang() -> None:
        scope.cancel()
        await trio.sleep_forever()

    async with caching(fs, scratch / "s") as cache:
        with pytest.raises(RuntimeError, match="meant"):
            await thread(cache.once, A, KIND, fail)
        with pytest.raises(RuntimeError, match="meant"):
            await cache.once_async(A, KIND, fail_async)
        with trio.CancelScope() as scope:
            await cache.once_async(A, KIND, hang)
        assert scope.cancelled_caught
        assert await thread(cache.once, A, KIND, lambda: "made", claim_s=5) == "made"


@pytest.mark.expect_log("is not kept: Out of range float values are not JSON compliant")
async def test_what_cannot_be_kept_is_given_all_the_same(fs: Filesystem, scratch: Path) -> None:
    async with caching(fs, scratch / "s") as cache:
        assert await thread(cache.once, A, KIND, lambda: float("inf")) == float("inf")
        assert await thread(cache.once, A, KIND, lambda: 5) == 5


@pytest.mark.expect_log("is not kept: Stale: .* has other bytes by now")
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_was_made_of_earlier_bytes_is_not_kept_of_later_ones(
    fs: Filesystem, scratch: Path, is_async: bool
) -> None:
    """The file is overwritten while its result is made: nobody can tell of which bytes that is."""

    def ask(cache: ProcessingCache, path: str, make: Callable[[], str], **named: Any) -> Any:
        return cache.once_async(path, KIND, partial(thread, make), **named) if is_async else thread(
            cache.once, path, KIND, make, **named
        )  # fmt: skip

    async def overwrite() -> None:
        await fs.write(A, b"another sound")
        await fs.drain()

    async with caching(fs, scratch / "s") as cache:
        assert await ask(cache, A, lambda: trio.from_thread.run(overwrite) or "of which?") == "of which?"
        assert await thread(cache.get, A, KIND) is None
        # nor has anybody to wait for it any more who has the earlier bytes
        with trio.fail_after(GUARD_S):
            assert await ask(cache, B, lambda: "of B", claim_s=5) == "of B"
        assert await thread(cache.get, A, KIND) is None


async def test_bytes_that_a_result_is_of_can_be_named(fs: Filesystem, scratch: Path) -> None:
    async with caching(fs, scratch / "s") as cache:
        digest = hashlib.sha256(b"sound").hexdigest()
        with pytest.raises(DaemonRefused, match="other bytes") as refused:
            await thread(cache.put, A, KIND, 1, made_of="0" * 64)
        assert refused.value.kind == "Stale"
        with pytest.raises(DaemonRefused, match="no sha256"):
            await thread(cache.put, A, KIND, 1, made_of="zz")
        await cache.put_async(A, KIND, 2, made_of=digest)
        assert await thread(cache.get, B, KIND) == 2
