"""What results of processing may cost everybody else, whoever puts and claims them."""

from __future__ import annotations

import base64
import json
import os
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api.asking import asked_by
from recfs.api.reuse import cache as cache_module
from recfs.errors import InvalidArgument, TooBig
from recfs.services.reuse import processing
from recfs.services.reuse.processing import as_json

from .build import Filesystem, filesystem
from .test_processing_cache import ALICE, BOB, DAY_S, A, B, database, get, put, stats, store


def packed_text(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text)).decode()


async def test_a_user_has_so_many_claims_and_for_so_long(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody keeps others from claiming, neither users nor who makes results for everybody."""
    await store(fs)
    monkeypatch.setattr(processing, "CLAIMS_MAX", 3)
    monkeypatch.setattr(processing, "CLAIMS_OF_USER_MAX", 2)
    with asked_by(ALICE):
        for kind in ("k1", "k2"):
            assert (await get(fs, kind=kind, claim_s=3600.0))["claim"] is not None
        with pytest.raises(InvalidArgument, match="user 4711 has claimed 2 results already"):
            await get(fs, kind="k3", claim_s=1.0)
        with pytest.raises(InvalidArgument, match="at most 3600 seconds"):
            await get(fs, kind="k3", claim_s=3601.0)
    with asked_by(BOB):
        assert (await get(fs, B, claim_s=60.0))["claim"] is not None
        with pytest.raises(InvalidArgument, match="3 results are claimed already"):
            await get(fs, B, kind="k1", claim_s=60.0)
    for kind in ("k1", "k2", "k3"):  # of whoever makes them for everybody
        assert (await get(fs, kind=kind, claim_s=DAY_S))["claim"] is not None
    with pytest.raises(InvalidArgument, match="3 results are claimed already"):
        await get(fs, kind="k4", claim_s=60.0)
    fs.clock.advance(3601)
    with asked_by(ALICE):
        assert (await get(fs, kind="k3", claim_s=60.0))["claim"] is not None


async def test_results_that_are_given_up_take_their_claims_along(fs: Filesystem) -> None:
    await store(fs)
    purge = fs.answers()["cache_purge"]

    async def claim() -> None:
        await get(fs, A, "a", claim_s=60.0)
        await get(fs, f"{B}2", "a", claim_s=60.0)
        with asked_by(ALICE):
            await get(fs, A, "b", claim_s=60.0)

    await claim()
    assert (await purge({"older_than_s": 60.0}))["claims"] == 0  # what is being made is not old
    assert (await purge({"kind": "b"}))["claims"] == 1
    assert (await purge({"path": A, "kind": "a"}))["claims"] == 1
    assert (await stats(fs))["claims"] == 1
    await claim()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.answers()["cache_wait"], {"path": A, "kind": "a", "wait_s": 3600.0})
        await trio.testing.wait_all_tasks_blocked()
        assert (await purge({"all": True}))["claims"] == 3  # and whoever waits goes on
    assert (await stats(fs))["claims"] == 0


async def test_what_is_given_to_one_user_alone_makes_room_first_and_has_a_share(place: Path) -> None:
    """Whoever may ask cannot have what was made for everybody go, nor what a lighter user put."""
    async with filesystem(place / "root", processing_cache={"max_size": "4 MiB"}) as fs:
        await store(fs)
        dice = random.Random(7)

        def noise(size: int) -> str:
            return base64.b64encode(dice.randbytes(size)).decode()

        async def found(kinds: str, number: int, path: str = A) -> list[bool]:
            return [(await get(fs, path, f"{kinds}{each}"))["found"] for each in range(number)]

        for number in range(35):
            fs.clock.advance(1)
            await put(fs, noise(100_000), kind=f"all{number}")
        with asked_by(BOB):
            fs.clock.advance(1)
            await put(fs, noise(100_000), B, "bob0")
        with asked_by(ALICE):
            for number in range(40):
                fs.clock.advance(1)
                done = await put(fs, noise(100_000), kind=f"alice{number}")
                assert done["evicted"] == (number > 3)
                assert await found("alice", number + 1) == [number - each < 4 for each in range(number + 1)]
            with pytest.raises(TooBig, match="a tenth"):
                await put(fs, noise(430_000), kind="large")
        assert all(await found("all", 35))
        with asked_by(BOB):
            assert await found("bob", 1, B) == [True]
        for number in range(35, 39):  # more than fits: what one user alone is given goes, that of who has most first
            fs.clock.advance(1)
            assert (await put(fs, noise(100_000), kind=f"all{number}"))["evicted"] == (number > 35)
        assert all(await found("all", 39))
        with asked_by(ALICE):
            assert await found("alice", 40) == [False] * 39 + [True]
        with asked_by(BOB):
            assert await found("bob", 1, B) == [True]
        for number in range(39, 42):
            fs.clock.advance(1)
            await put(fs, noise(100_000), kind=f"all{number}")
        assert await found("all", 42) == [False, *[True] * 41]  # now the oldest of them
        with asked_by(BOB):
            assert await found("bob", 1, B) == [False]


async def test_shares_are_counted_anew_when_the_file_is_opened(place: Path) -> None:
    settings = {"max_size": "1 MiB"}
    dice = random.Random(7)
    async with filesystem(place / "root", processing_cache=settings) as fs:
        await store(fs)
        with asked_by(ALICE):
            await put(fs, base64.b64encode(dice.randbytes(60_000)).decode(), kind="k0")
        with database(fs) as db:
            db.execute("drop index entry_writer")  # as one has it that was made before there were shares
    async with filesystem(place / "root", processing_cache=settings) as fs:
        with asked_by(ALICE):
            done = await put(fs, base64.b64encode(dice.randbytes(60_000)).decode(), kind="k1")
            assert (done["evicted"], (await get(fs, kind="k0"))["found"]) == (1, False)


@pytest.mark.parametrize("levels", [101, 500, 970, 980, 987])
async def test_a_result_that_could_not_be_given_is_not_taken(fs: Filesystem, levels: int) -> None:
    """In each way that it may come: what is taken has to be given in both of them."""
    await store(fs)
    deep: Any = 1
    for _ in range(levels):
        deep = [deep]
    with pytest.raises(InvalidArgument, match="100 lists and tables"):
        await put(fs, deep)
    for text in (b"[" * levels + b"]" * levels, b'{"a":' * levels + b"1" + b"}" * levels):
        with pytest.raises(InvalidArgument, match=r"packed result: .*100 lists and tables"):
            await fs.answers()["cache_put"]({"path": A, "kind": "transcription", "packed": packed_text(text)})
    assert (await get(fs))["found"] is False
    for text in (b"[" * 100 + b"]" * 100, b'["' + b"[" * 1000 + b'"]'):
        await fs.answers()["cache_put"]({"path": A, "kind": "transcription", "packed": packed_text(text)})
        assert (await get(fs))["result"] == json.loads(text)


@pytest.mark.parametrize("text", [b"[1e999]", b"[-1E400]", b"1" + b"0" * 400 + b".0", "[1]".encode("utf-16")])
async def test_a_number_that_python_has_no_room_for_is_no_result(fs: Filesystem, text: bytes) -> None:
    await store(fs)
    with pytest.raises(InvalidArgument, match="packed result"):
        await fs.answers()["cache_put"]({"path": A, "kind": "transcription", "packed": packed_text(text)})


async def test_a_packed_result_has_so_many_values(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 KB may be 8 MB of `{},{},…`, whose parsing took 0.3 GB and held up everybody."""
    await store(fs)
    bomb = {"path": A, "kind": "transcription", "packed": packed_text(b"[" + b"{}," * 300_000 + b"0]")}
    with monkeypatch.context() as patch, asked_by(ALICE):
        patch.setattr(json, "loads", lambda *_args, **_how: pytest.fail("it was parsed"))
        with pytest.raises(InvalidArgument, match="200000 values"):
            await fs.answers()["cache_put"](bomb)
    fine = packed_text(json.dumps([{"word": "a", "at": number / 2} for number in range(60_000)]).encode())
    with asked_by(ALICE):
        await fs.answers()["cache_put"](bomb | {"packed": fine})
    await fs.answers()["cache_put"](bomb)  # of whoever makes them for everybody


async def test_results_are_taken_apart_one_at_a_time(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    await store(fs)
    under_way, most = 0, 0

    def counted(*args: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            for _ in range(20):
                os.sched_yield()
            return as_json(*args)
        finally:
            under_way -= 1

    monkeypatch.setattr(cache_module, "as_json", counted)
    packed = packed_text(json.dumps(list(range(50_000))).encode())
    async with trio.open_nursery() as nursery:
        for number in range(6):
            asked = {"path": A, "kind": f"k{number}", "packed": packed}
            nursery.start_soon(fs.answers()["cache_put"], asked)
    assert (most, (await stats(fs))["entries"]) == (1, 6)
