"""Results of processing: the same bytes are not processed twice, and nobody is told of bytes that they cannot read."""

from __future__ import annotations

import base64
import json
import os
import random
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api.asking import asked_by
from recfs.catalogue.reuse import processing as books_module
from recfs.catalogue.reuse.processing import ENTRY_BYTES, ProcessingStore
from recfs.core.permissions import Identity
from recfs.core.reuse.processing import EVERYBODY, Lifetimes, options_hash
from recfs.errors import (
    AccessDenied,
    InvalidArgument,
    IoFailure,
    IsADirectory,
    NotFound,
    NotPermitted,
    NotSupported,
    OutOfSpace,
    TooBig,
    TryAgain,
)
from recfs.fs.attributes import Changes
from recfs.services.reuse import processing

from .build import OPERATOR, Filesystem, filesystem
from .sweeping import swept

ALICE, BOB = Identity(4711, 4711), Identity(4712, 4712)
WORKER = Identity(4713, 4713)
A, B = "users/5/recordings/1/audio.mp3", "users/7/recordings/2/copy.mp3"
DAY_S = 86_400.0


async def store(fs: Filesystem) -> None:
    """The same bytes twice, once Alice's and once Bob's, and some more of Bob's."""
    for path, who, data in ((A, ALICE, b"sound"), (B, BOB, b"sound"), (f"{B}2", BOB, b"other")):
        await fs.write(path, data)
        node = await fs.node(path)
        await fs.vfs.setattr(node.ino, Changes(uid=who.uid, gid=who.gid, mode=0o600), OPERATOR)
    await fs.drain()


async def get(fs: Filesystem, path: str = A, kind: str = "transcription", **params: Any) -> Any:
    return await fs.answers()["cache_get"]({"path": path, "kind": kind} | params)


async def put(fs: Filesystem, result: Any, path: str = A, kind: str = "transcription", **params: Any) -> Any:
    return await fs.answers()["cache_put"]({"path": path, "kind": kind, "result": result} | params)


async def stats(fs: Filesystem) -> dict[str, Any]:
    found: dict[str, Any] = await fs.answers()["cache_stats"]({})
    return found


@contextmanager
def database(fs: Filesystem) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(fs.root / ".recfs/processing.db", isolation_level=None)) as db:
        yield db


async def test_a_result_is_found_by_the_bytes_whoever_they_belong_to(fs: Filesystem) -> None:
    await store(fs)
    assert (await get(fs))["found"] is False
    assert (await put(fs, {"text": "ä"}, options={"language": "de", "model": 1}))["for_everybody"] is True
    with asked_by(BOB):
        found = await get(fs, B, options={"model": 1, "language": "de"})
        assert (found["found"], found["result"], found["uses"]) == (True, {"text": "ä"}, 0)
        for other in ({"options": {"language": "en", "model": 1}}, {"options": None}, {"kind": "subtitles"}):
            assert (await get(fs, B, **other))["found"] is False
        assert (await get(fs, f"{B}2", options={"model": 1, "language": "de"}))["found"] is False
    await fs.rename(A, f"{A}.renamed")
    found = await get(fs, f"{A}.renamed", options={"language": "de", "model": 1})
    assert (found["result"], found["uses"]) == ({"text": "ä"}, 1)
    await fs.write(f"{A}.renamed", b"other sound")
    await fs.drain()
    assert (await get(fs, f"{A}.renamed", options={"language": "de", "model": 1}))["found"] is False


async def test_nobody_is_told_of_what_they_cannot_read(fs: Filesystem) -> None:
    await store(fs)
    await put(fs, "secret")
    digest = (await fs.node(A)).sha256.hex()
    assert (await fs.answers()["cache_get"]({"sha256": digest, "kind": "transcription"}))["result"] == "secret"
    with asked_by(Identity(4714, 4714)):
        for asked in ({"path": A}, {"path": B}):
            for method in ("cache_get", "cache_put", "cache_wait", "cache_release"):
                with pytest.raises(AccessDenied):
                    await fs.answers()[method](asked | {"kind": "transcription", "result": "false"})
        for method in ("cache_get", "cache_put"):
            with pytest.raises(NotPermitted, match="path of a file"):
                await fs.answers()[method]({"sha256": digest, "kind": "transcription", "result": "false"})
        with pytest.raises(NotPermitted):
            await fs.answers()["cache_purge"]({"all": True})
    assert (await get(fs))["result"] == "secret"


async def test_what_a_user_puts_is_given_to_that_user_alone(fs: Filesystem) -> None:
    await store(fs)
    with asked_by(ALICE):
        assert (await put(fs, "Alice's"))["for_everybody"] is False
        assert (await get(fs))["result"] == "Alice's"
    with asked_by(BOB):
        assert (await get(fs, B))["found"] is False
    assert (await get(fs))["found"] is False
    await put(fs, "the operator's")
    for who, path in ((BOB, B), (ALICE, A)):
        with asked_by(who):
            assert (await get(fs, path))["result"] == "the operator's"
    with asked_by(ALICE):
        await put(fs, "Alice's")  # takes nobody else's place
    assert (await get(fs))["result"] == "the operator's"


async def test_writers_that_are_named_put_for_everybody(place: Path) -> None:
    async with filesystem(place / "root", processing_cache={"writers": [WORKER.uid]}) as fs:
        await store(fs)
        with asked_by(WORKER), pytest.raises(AccessDenied):
            await put(fs, "read by nobody")
        for path in (A, B):
            await fs.vfs.setattr((await fs.node(path)).ino, Changes(gid=WORKER.gid, mode=0o640), OPERATOR)
        with asked_by(WORKER):
            assert (await put(fs, "the worker's"))["for_everybody"] is True
            with pytest.raises(NotPermitted):
                await get(fs, path=None, sha256="00" * 32)
        with asked_by(BOB):
            assert (await get(fs, B))["result"] == "the worker's"


async def test_only_one_of_those_who_ask_makes_a_result(fs: Filesystem) -> None:
    await store(fs)
    made = 0
    got: list[str] = []

    async def worker(path: str) -> None:
        nonlocal made
        while True:
            found = await get(fs, path, claim_s=600.0)
            if found["found"]:
                got.append(found["result"])
                return
            if found["claim"] is not None:
                made += 1
                await trio.sleep(0.01)
                await put(fs, f"number {made}", path)
            else:
                await fs.answers()["cache_wait"]({"path": path, "kind": "transcription", "wait_s": 600.0})

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(worker, (A, B)[number % 2])
    assert (made, got) == (1, ["number 1"] * 10)
    assert (await stats(fs))["claims"] == 0


async def test_a_claim_ends_when_it_is_given_up_and_by_time(fs: Filesystem) -> None:
    await store(fs)
    asked = {"path": A, "kind": "transcription"}
    first = (await get(fs, claim_s=60.0))["claim"]
    assert (await get(fs, claim_s=60.0))["claim"] is None
    with asked_by(ALICE):  # who cannot have others wait
        assert (await get(fs, claim_s=60.0))["claim"] is not None
    assert (await fs.answers()["cache_wait"](asked | {"wait_s": 0}))["free"] is False
    assert (await fs.answers()["cache_release"](asked | {"claim": first + 7}))["released"] is False
    assert (await fs.answers()["cache_release"](asked | {"claim": first}))["released"] is True
    assert (await fs.answers()["cache_wait"](asked | {"wait_s": 0}))["free"] is True
    second = (await get(fs, claim_s=60.0))["claim"]
    assert second not in (None, first)
    fs.clock.advance(61)
    assert (await get(fs, claim_s=60.0))["claim"] not in (None, first, second)
    for seconds in (0, -1, DAY_S + 1):
        with pytest.raises(InvalidArgument, match="claim lasts"):
            await get(fs, kind="other", claim_s=seconds)


async def test_claims_are_bounded(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    await store(fs)
    monkeypatch.setattr(processing, "CLAIMS_MAX", 2)
    await get(fs, claim_s=10.0)
    await get(fs, kind="k2", claim_s=60.0)
    with pytest.raises(InvalidArgument, match="claimed already"):
        await get(fs, kind="k3", claim_s=60.0)
    fs.clock.advance(11)
    assert (await get(fs, kind="k3", claim_s=60.0))["claim"] is not None


async def test_results_are_over_after_a_time_that_is_of_their_kind(place: Path) -> None:
    settings = {"expiry": "10d", "expiry_by_kind": {"short": "1d", "ever": "0s"}}
    async with filesystem(place / "root", processing_cache=settings) as fs:
        await store(fs)
        for kind in ("usual", "short", "ever"):
            await put(fs, kind, kind=kind)
        fs.clock.advance(2 * DAY_S)
        assert [(await get(fs, kind=kind))["found"] for kind in ("usual", "short", "ever")] == [True, False, True]
        assert [each["expires_s"] for each in (await stats(fs))["kinds"]] == [None, DAY_S, 10 * DAY_S]
        assert (await swept(fs, "processing"))["result"].startswith("1 given up")
        fs.clock.advance(9 * DAY_S)
        assert [(await get(fs, kind=kind))["found"] for kind in ("usual", "short", "ever")] == [False, False, True]
        await swept(fs, "processing")
        found = await stats(fs)
        assert ([each["kind"] for each in found["kinds"]], found["expired"]) == (["ever"], 2)
        with database(fs) as db:
            assert db.execute("select count(*) from body").fetchone() == (1,)


async def test_what_was_not_used_for_longest_makes_room(place: Path) -> None:
    async with filesystem(place / "root", processing_cache={"max_size": "1 MiB"}) as fs:
        await store(fs)
        dice = random.Random(7)
        noise = [base64.b64encode(dice.randbytes(150_000)).decode() for _ in range(9)]
        for number in range(6):
            fs.clock.advance(1)
            await put(fs, noise[number], kind=f"k{number}")
        fs.clock.advance(1)
        assert (await get(fs, kind="k0"))["found"]  # in memory alone, so far
        fs.clock.advance(1)
        assert (await put(fs, noise[6], kind="k6"))["evicted"] == 1
        assert [(await get(fs, kind=f"k{number}"))["found"] for number in (0, 1, 2)] == [True, False, True]
        found = await stats(fs)
        assert found["evicted"] == 1
        assert found["stored_bytes"] + found["entries"] * ENTRY_BYTES <= 1 << 20
        await put(fs, "again", kind="k6")  # in its own place
        assert (await stats(fs))["entries"] == found["entries"]
        with pytest.raises(TooBig, match="max_entry"):
            await put(fs, "x" * (9 << 20))


async def test_it_is_compressed_and_tells_its_ratio(fs: Filesystem) -> None:
    await store(fs)
    await put(fs, ["the same again"] * 5000)
    await put(fs, 1, kind="number")
    found = await stats(fs)
    kinds = {each["kind"]: each for each in found["kinds"]}
    assert kinds["transcription"]["ratio"] > 50
    assert kinds["transcription"]["json_bytes"] == len(json.dumps(["the same again"] * 5000, separators=(",", ":")))
    assert found["ratio"] == round(found["json_bytes"] / found["stored_bytes"], 2)
    mode = (fs.root / ".recfs/processing.db").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_large_results_go_packed_both_ways(fs: Filesystem) -> None:
    await store(fs)
    result = [f"{number * 7919:040b}" for number in range(9000)]
    packed = base64.b64encode(zlib.compress(json.dumps(result).encode())).decode()
    await fs.answers()["cache_put"]({"path": A, "kind": "transcription", "packed": packed})
    found = await get(fs)
    assert "result" not in found
    assert json.loads(zlib.decompress(base64.b64decode(found["packed"]))) == result
    await put(fs, {"small": 1}, kind="small")
    found = await get(fs, kind="small", packed=True)
    assert zlib.decompress(base64.b64decode(found["packed"])) == b'{"small":1}'


@pytest.mark.parametrize(
    "packed",
    ["", "*", base64.b64encode(b"no zlib").decode(), base64.b64encode(zlib.compress(b"{")).decode(),
     base64.b64encode(zlib.compress(b"NaN")).decode(), base64.b64encode(zlib.compress(b"1")[:-2]).decode(),
     base64.b64encode(zlib.compress(b"1") + b"more").decode(), base64.b64encode(zlib.compress(b"\xff")).decode(),
     base64.b64encode(zlib.compress(b"[" * 100_000)).decode(),
     base64.b64encode(zlib.compress(b"0" * (64 << 20))).decode()],
)  # fmt: skip
async def test_what_is_no_result_is_refused(fs: Filesystem, packed: str) -> None:
    await store(fs)
    with pytest.raises(InvalidArgument, match="packed result"):
        await fs.answers()["cache_put"]({"path": A, "kind": "transcription", "packed": packed})
    assert (await get(fs))["found"] is False


@pytest.mark.parametrize(
    "params",
    [{"kind": ""}, {"kind": "Kind"}, {"kind": "../x"}, {"kind": "x" * 65}, {"kind": None}, {"path": None},
     {"sha256": "00" * 32}, {"path": None, "sha256": "00"}, {"path": None, "sha256": "xy" * 32},
     {"options": {"long": "x" * (65 << 10)}}, {"options": float("nan")}],
)  # fmt: skip
async def test_what_makes_no_key_is_refused(fs: Filesystem, params: dict[str, Any]) -> None:
    await store(fs)
    for method in ("cache_get", "cache_put"):
        with pytest.raises(InvalidArgument):
            await fs.answers()[method]({"path": A, "kind": "transcription", "result": 1} | params)
    with pytest.raises(InvalidArgument, match="a result, or a packed one"):
        await fs.answers()["cache_put"]({"path": A, "kind": "transcription"})


async def test_a_file_that_is_not_committed_has_no_results_yet(fs: Filesystem) -> None:
    await store(fs)
    handle = await fs.open(A, os.O_WRONLY)
    await fs.vfs.files.write(handle, 0, b"more")
    with pytest.raises(TryAgain, match="is writing"):
        await get(fs)
    await fs.close(handle)
    with pytest.raises(IsADirectory):
        await get(fs, "users/5")
    with pytest.raises(NotFound):
        await get(fs, f"{A}.none")


# --- what can go wrong -----------------------------------------------------------------------------------------------


async def test_uses_are_written_in_batches(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    await store(fs)
    await put(fs, "result")
    told: list[tuple[Any, Any]] = []
    tell = ProcessingStore.tell

    def counted(self: ProcessingStore, uses: Any, counts: Any) -> None:
        told.append((dict(uses), dict(counts)))
        tell(self, uses, counts)

    monkeypatch.setattr(ProcessingStore, "tell", counted)
    for _ in range(100):
        await get(fs)
    await get(fs, kind="other")
    assert told == []
    await trio.sleep(processing.TELL_EVERY_S + 1)
    assert [([times for times, _ in uses.values()], counts) for uses, counts in told] == [
        ([100], {"hits": 100, "misses": 1})
    ]
    found = await stats(fs)
    assert (found["hits"], found["misses"], found["kinds"][0]["uses"]) == (100, 1, 100)


async def test_uses_are_written_at_the_end_and_when_there_are_many(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "TELL_MANY", 3)
    monkeypatch.setattr(processing, "TELL_EVERY_S", 1e6)
    async with filesystem(place / "root") as fs:
        await store(fs)
        for kind in ("a", "b", "c"):
            await put(fs, kind, kind=kind)
        await get(fs, kind="a")
        await fs.reopen()
        assert (await stats(fs))["kinds"][0]["uses"] == 1
        for kind in ("a", "b", "c"):
            await get(fs, kind=kind)
        with database(fs) as db:
            while db.execute("select sum(uses) from entry").fetchone() != (4,):  # a deadline of the test's
                await trio.lowlevel.checkpoint()


async def test_uses_that_could_not_be_written_are_kept(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    await store(fs)
    await put(fs, "result")
    await get(fs)
    tell = ProcessingStore.tell

    def refuse(self: ProcessingStore, uses: Any, counts: Any) -> None:
        raise IoFailure("the disk said no")

    monkeypatch.setattr(ProcessingStore, "tell", refuse)
    with pytest.raises(IoFailure):
        await stats(fs)
    await get(fs)
    monkeypatch.setattr(ProcessingStore, "tell", tell)
    assert (await stats(fs))["kinds"][0]["uses"] == 2


async def test_a_death_of_the_daemon_loses_no_result(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        await store(fs)
        await put(fs, "result")
        await fs.crash()
        await fs.reopen()
        assert (await get(fs))["result"] == "result"


@pytest.mark.parametrize("damage", ["update body set packed = x'00'", "update entry set digest = x'00'",
                                    "update entry set text_bytes = 3", "delete from body"])  # fmt: skip
async def test_a_result_that_was_damaged_is_given_up_and_told(fs: Filesystem, damage: str, expect_log: Any) -> None:
    is_there = not damage.startswith("delete")
    if is_there:
        expect_log("was damaged in the processing cache")
    await store(fs)
    await put(fs, ["result"] * 10)
    await put(fs, "whole", kind="whole")
    with database(fs) as db:
        db.execute(f"{damage} where number = 1")
    assert (await get(fs))["found"] is False
    found = await stats(fs)
    assert (found["corrupt"], found["entries"]) == (int(is_there), 1 if is_there else 2)
    assert (await get(fs, kind="whole"))["result"] == "whole"
    await put(fs, "again")
    assert (await get(fs))["result"] == "again"


@pytest.mark.parametrize("kind", ["noise", "torn", "empty", "version"])
async def test_a_file_that_cannot_be_read_is_made_anew(place: Path, kind: str, expect_log: Any) -> None:
    async with filesystem(place / "root") as fs:
        await store(fs)
        await put(fs, base64.b64encode(os.urandom(100_000)).decode())
        await fs.stop()
        path = fs.root / ".recfs/processing.db"
        if kind == "noise":
            path.write_bytes(os.urandom(100_000))
        elif kind == "torn":
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xff" * 40_000)
        elif kind == "empty":
            path.write_bytes(b"")
        else:
            with closing(sqlite3.connect(path)) as db:
                db.execute("pragma user_version = 99")
        if kind != "empty":
            expect_log("made anew")
        await fs.reopen()
        assert (await get(fs))["found"] is False
        await put(fs, "again")
        assert (await get(fs))["result"] == "again"
        assert (await stats(fs))["begun_anew"] == int(kind != "empty")


async def test_a_full_disk_refuses_results_and_nothing_else(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with filesystem(place / "root") as fs:
        await store(fs)
        await put(fs, "before")

        def full(added: int) -> None:
            raise OutOfSpace("nothing left above min_free")

        with monkeypatch.context() as patch:
            patch.setattr(fs.parts.work.reuse.processing, "_admit", full)
            with pytest.raises(OutOfSpace):
                await put(fs, "after")
        with database(fs) as db:  # SQLite's own limit stands for a disk without room
            (pages,) = db.execute("pragma page_count").fetchone()
        connection = fs.parts.work.reuse.processing._books._db  # type: ignore[attr-defined]
        connection.execute(f"pragma max_page_count = {pages}")
        with pytest.raises(OutOfSpace):
            await put(fs, base64.b64encode(os.urandom(200_000)).decode(), kind="large")
        connection.execute("pragma max_page_count = 1000000")
        assert (await get(fs))["result"] == "before"
        held = fs.parts.work.reuse.processing._books._bytes  # type: ignore[attr-defined]
        assert held == {EVERYBODY: len(zlib.compress(b'"before"', 6)) + ENTRY_BYTES}


async def test_results_are_given_up_as_somebody_says(fs: Filesystem) -> None:
    await store(fs)
    purge = fs.answers()["cache_purge"]
    for kind in ("a", "b"):
        for path in (A, f"{B}2"):
            await put(fs, "x", path, kind)
    with pytest.raises(InvalidArgument, match="which results"):
        await purge({})
    assert (await purge({"path": A, "kind": "a"}))["removed"] == 1
    assert (await purge({"older_than_s": 60.0}))["removed"] == 0
    fs.clock.advance(61)
    await put(fs, "new", A, "b")
    assert (await purge({"older_than_s": 60.0, "kind": "b"}))["removed"] == 1
    assert (await purge({"sha256": (await fs.node(A)).sha256.hex()}))["removed"] == 1
    assert (await purge({"all": True}))["removed"] == 1
    assert (await stats(fs))["entries"] == 0


async def test_nothing_is_kept_where_it_is_turned_off(place: Path) -> None:
    async with filesystem(place / "root", processing_cache={"enabled": False}) as fs:
        await store(fs)
        for method in ("cache_get", "cache_put", "cache_stats"):
            with pytest.raises(NotSupported, match="enabled is false"):
                await fs.answers()[method]({"path": A, "kind": "k", "result": 1})
        with pytest.raises(NotSupported):
            await fs.answers()["cache_get"]({"path": A, "kind": "k", "claim_s": 1})
        assert not (fs.root / ".recfs/processing.db").exists()


async def test_a_clock_that_began_again_keeps_no_result_for_ever(place: Path) -> None:
    async with filesystem(place / "root", processing_cache={"expiry": "1d"}) as fs:
        await store(fs)
        fs.clock.advance(100 * DAY_S)
        await put(fs, "of another life")
        fs.clock.advance(-100 * DAY_S)
        await swept(fs, "processing")
        assert (await get(fs))["found"] is True
        fs.clock.advance(1.5 * DAY_S)
        await swept(fs, "processing")
        assert (await stats(fs))["expired"] == 1


def test_options_are_the_same_in_any_order_and_nothing_else_is() -> None:
    assert options_hash({"a": 1, "b": [{"d": 1, "c": 2}]}) == options_hash({"b": [{"c": 2, "d": 1}], "a": 1})
    assert options_hash(None) == options_hash({})
    hashes = [
        options_hash(each) for each in ({}, [], "", 0, 0.0, False, {"a": 1}, {"a": "1"}, {"a": [1]}, "ä", "\ud800")
    ]
    assert len(set(hashes)) == len(hashes)
    with pytest.raises(ValueError, match="options"):
        options_hash({1, 2})


def test_a_hundred_thousand_results_are_asked_for_by_index(tmp_path: Path) -> None:
    store = ProcessingStore(tmp_path / "processing.db")
    with closing(store._opened()) as db:
        for query in (
            f"select {books_module._COLUMNS} from entry join body using (number)"
            " where sha256 = ? and kind = ? and options = ? and writer = ?",
            "select number, packed_bytes from entry where number <> ? order by used_ns, number limit ?",
            "select number from entry where kind = ? and made_ns <= ? limit ?",
        ):
            plan = [row[3] for row in db.execute(f"explain query plan {query}", ("",) * query.count("?"))]
            assert all("INDEX entry_" in step or "USING INTEGER PRIMARY KEY" in step for step in plan), plan
            assert not any("TEMP B-TREE" in step for step in plan), plan
    store.close()


def test_how_long_results_are_kept() -> None:
    times = Lifetimes(10.0, {"ever": 0.0, "short": 1.0})
    assert [times.is_over(kind, 5.0) for kind in ("ever", "short", "usual")] == [False, True, False]
    assert times.is_over("usual", 10.0)
