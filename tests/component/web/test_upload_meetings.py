"""Uploads below the routes: requests that meet, chunks, and what is sent again or otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from recfs.client.errors import UploadRefused
from recfs.web.uploads import hands, noted, service, staged
from recfs.web.uploads.body import BATCH_BYTES, Body, Checksum
from recfs.web.uploads.commit import commit
from recfs.web.uploads.errors import (
    CutOff,
    Incomplete,
    Scattered,
    Superseded,
    TooMuch,
    UploadBusy,
    WrongChecksum,
    WrongOffset,
)
from recfs.web.uploads.plan import CHUNK_BYTES, UploadId
from recfs.web.uploads.service import Uploads
from tests.component.web.staging import DATA, ID, SHA256, Sent, body, files_of, plan, run, uploads_of

# -- requests that meet ---


def test_who_comes_last_goes_on_and_who_was_sending_is_stopped(tree: Path) -> None:
    """A server hears late of a connection that broke: its client is back before."""

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        never = asyncio.Event()
        lost = Sent(DATA[:50_000], wait=never)
        old = asyncio.ensure_future(uploads.append(ID, 0, Body(lost)))
        await lost.began.wait()
        found = await uploads.resume(ID)
        assert found.received.prefix == 50_000
        with pytest.raises(CutOff):
            await old
        lost = Sent(DATA[50_000:60_000], wait=never)
        old = asyncio.ensure_future(uploads.append(ID, 50_000, Body(lost)))
        await lost.began.wait()
        with pytest.raises(WrongOffset) as refused:
            await uploads.append(ID, 50_000, body(DATA[50_000:]))
        assert refused.value.offset == 60_000
        with pytest.raises(CutOff):
            await old
        assert (await uploads.append(ID, 60_000, body(DATA[60_000:]))).committed is not None

    run(tree, work)
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}


def test_while_it_is_committed_nobody_is_told_that_it_is_whole(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    committed = commit

    def late(*args: Any) -> Any:
        assert go_on.wait(30)
        return committed(*args)

    monkeypatch.setattr(service, "commit", late)
    monkeypatch.setattr(service, "SOON_S", 0.0)

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        last = asyncio.ensure_future(uploads.append(ID, 0, body(DATA)))
        while uploads.busy(ID) != "committing":  # noqa: ASYNC110 (its thread waits for us)
            await asyncio.sleep(0)
        for ask in (uploads.resume(ID), uploads.append(ID, len(DATA), body()), uploads.remove(ID)):
            with pytest.raises(UploadBusy):
                await ask
        last.cancel()  # its client has gone: the commit goes on
        with pytest.raises(asyncio.CancelledError):
            await last
        go_on.set()
        assert (await uploads.complete(ID)).sha256 == SHA256

    run(tree, work)
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}


def test_another_process_has_it_in_hand(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        other = uploads_of(tree)
        with pytest.raises(UploadBusy):
            await other.append(ID, 0, body(DATA))
        await uploads.close()
        assert (await other.append(ID, 0, body(DATA))).committed is not None

    run(tree, work)


def test_descriptors_that_nobody_asks_for_are_closed(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        while any(str(tree) in _link(each) for each in os.listdir("/proc/self/fd")):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert (await uploads.append(ID, 0, body(DATA))).committed is not None

    run(tree, work, idle_s=0.01)


def test_only_so_many_stay_open_that_nobody_works_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "MOST_IDLE", 3)

    async def work(uploads: Uploads) -> None:
        ids = [UploadId.new("5") for _ in range(8)]
        for number, each in enumerate(ids):
            await uploads.create(plan(id=each, recording=str(number)))
        while sum(_staged(tree, each) for each in os.listdir("/proc/self/fd")) > 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for each in ids:
            assert (await uploads.append(each, 0, body(DATA))).committed is not None

    run(tree, work)


def test_large_files_of_one_user_keep_no_other_s_waiting(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def late(folders: staged.Folders, held: staged.Held, ending: threading.Event) -> Any:
        if held.plan.id.user == "5":
            assert go_on.wait(30)
        return commit(folders, held, ending)

    monkeypatch.setattr(service, "commit", late)
    monkeypatch.setattr(service, "COMMITS_OF_USER", 2)
    monkeypatch.setattr(service, "COMMITS", 3)

    async def work(uploads: Uploads) -> None:
        ids = [UploadId.new("5") for _ in range(5)]
        for number, each in enumerate(ids):
            await uploads.create(plan(id=each, recording=str(number)))
        large = [asyncio.ensure_future(uploads.append(each, 0, body(DATA))) for each in ids]
        while not all(uploads.busy(each) == "committing" for each in ids):  # noqa: ASYNC110 (their threads wait)
            await asyncio.sleep(0)
        other = UploadId.new("7")
        assert (await uploads.put(plan(id=other), body(DATA))).sha256 == SHA256
        assert not any(each.done() for each in large)
        go_on.set()
        assert all(each.committed for each in await asyncio.gather(*large))

    run(tree, work)


def test_nobody_sends_to_what_is_being_removed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of its descriptor is soon another file's."""
    begun, go_on = threading.Event(), threading.Event()
    remove = staged.remove

    def late(folders: staged.Folders, held: staged.Held) -> None:
        begun.set()
        assert go_on.wait(30)
        remove(folders, held)

    monkeypatch.setattr(staged, "remove", late)

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(chunk_bytes=1000))
        removing = asyncio.ensure_future(uploads.remove(ID))
        while not begun.is_set():  # noqa: ASYNC110 (a thread sets it)
            await asyncio.sleep(0)
        for ask in (uploads.append(ID, 0, body(b"x")), uploads.chunk(ID, 0, body(DATA[:1000]))):
            with pytest.raises(UploadBusy, match="removed"):
                await ask
        go_on.set()
        await removing

    run(tree, work)


def _staged(tree: Path, fd: str) -> bool:
    link = _link(fd)
    return link.startswith(f"{tree}/") and link.endswith("/data")


def _link(fd: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}")
    return ""


# -- chunks ---


def test_chunks_come_in_any_order_and_more_than_once(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(chunk_bytes=64_000))
        chunks = [DATA[at : at + 64_000] for at in range(0, len(DATA), 64_000)]
        for index in (3, 0, 4, 3):
            await uploads.chunk(ID, index, body(chunks[index]))
        found = await uploads.chunk(ID, 1, body(chunks[1]))
        with pytest.raises(Incomplete) as refused:
            await uploads.complete(ID)
        assert refused.value.missing == ((128_000, 192_000),)
        assert found.received.prefix == 128_000
        again = Sent(b"other bytes for a chunk that came")
        await uploads.chunk(ID, 0, Body(again))
        assert again.taken == 0
        with pytest.raises(CutOff):
            await uploads.chunk(ID, 2, body(chunks[2][:10], cut=True))
        with pytest.raises(Incomplete):
            await uploads.chunk(ID, 2, body(chunks[2][:10]))
        with pytest.raises(TooMuch):
            await uploads.chunk(ID, 2, body(chunks[2], b"x"))
        with pytest.raises(ValueError, match="5 chunks"):
            await uploads.chunk(ID, 5, body(b"x"))
        found = await uploads.chunk(ID, 2, body(chunks[2]))
        assert (found.committed, found.received.whole(len(DATA))) == (None, True)
        done = await uploads.complete(ID)
        assert done.sha256 == SHA256
        assert (await uploads.chunk(ID, 2, body(chunks[2]))).committed == done

    run(tree, work)
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}


def test_chunks_that_come_at_once(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(chunk_bytes=10_000, sha256=SHA256))
        await asyncio.gather(*(uploads.chunk(ID, i, body(DATA[i * 10_000 : (i + 1) * 10_000])) for i in range(30)))
        assert (await uploads.complete(ID)).sha256 == SHA256

    run(tree, work)


def test_bytes_that_have_come_stay_whatever_is_refused_over_them(tree: Path) -> None:
    bad, other = bytes(len(DATA)), Checksum.ALGORITHMS[0]

    def wrong() -> Checksum:
        return Checksum(other, hashlib.new(other, b"what was sent").digest())

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(chunk_bytes=64_000))
        await uploads.chunk(ID, 1, body(DATA[64_000:128_000]))
        for sent in (bad, bad[:100_000], bad[:70_000]):
            with pytest.raises(WrongChecksum):
                await uploads.append(ID, 0, body(sent[:65_000], sent[65_000:]), wrong())
        with pytest.raises(CutOff):
            await uploads.append(ID, 0, body(bad[:130_000], cut=True), wrong())
        with pytest.raises(TooMuch):
            await uploads.append(ID, 0, body(*[bad[:BATCH_BYTES]] * (1 + BATCH_BYTES // len(bad))))
        await uploads.append(ID, 0, body(DATA[:64_000], bad[:64_000], DATA[128_000:150_000]))
        with pytest.raises(WrongChecksum):
            await uploads.chunk(ID, 2, body(bad[:64_000]), wrong())
        with pytest.raises(CutOff):
            await uploads.chunk(ID, 2, body(bad[:60_000], cut=True))
        with pytest.raises(TooMuch):
            await uploads.chunk(ID, 2, body(bad[:64_001]))
        for index in (2, 3, 4):
            await uploads.chunk(ID, index, body(DATA[index * 64_000 : (index + 1) * 64_000]))
        assert (await uploads.complete(ID)).sha256 == SHA256

    run(tree, work)
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}


def test_a_chunk_and_what_goes_on_at_the_end_do_not_send_at_once(tree: Path) -> None:
    """Else the bytes of the one that fails might lie on those of the other, which are noted."""

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(chunk_bytes=64_000))
        never = asyncio.Event()
        chunks = [Sent(bytes(10_000), wait=never) for _ in range(2)]
        under_way = [asyncio.ensure_future(uploads.chunk(ID, at, Body(sent))) for at, sent in enumerate(chunks)]
        for sent in chunks:
            await sent.began.wait()
        assert (await uploads.append(ID, 0, body(DATA[:150_000]))).received.prefix == 150_000
        for each in under_way:
            with pytest.raises(Superseded):
                await each
        tail = Sent(DATA[150_000:160_000], wait=never)
        old = asyncio.ensure_future(uploads.append(ID, 150_000, Body(tail)))
        await tail.began.wait()
        await uploads.chunk(ID, 4, body(DATA[256_000:]))
        with pytest.raises(Superseded):
            await old
        found = await uploads.append(ID, 160_000, body(DATA[160_000:256_000]))
        assert found.committed is not None, "what came of the tail counts"
        assert found.committed.sha256 == SHA256

    run(tree, work)


def test_what_is_in_too_many_pieces_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noted, "_MOST_BYTES", 100)
    monkeypatch.setattr(noted, "_FEW_BYTES", 0)

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(chunk_bytes=10_000))
        await uploads.chunk(ID, 2, body(DATA[20_000:30_000]))
        with pytest.raises(Scattered):
            await uploads.chunk(ID, 4, body(DATA[40_000:50_000]))
        await uploads.chunk(ID, 1, body(DATA[10_000:20_000]))

    run(tree, work)


def test_many_pieces_are_noted_with_the_bytes_and_leave_nothing_there(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noted, "_FEW_BYTES", 120)
    last = len(DATA) // 10_000

    async def scattered(uploads: Uploads) -> None:
        await uploads.create(plan(chunk_bytes=10_000))
        for at in range(0, last, 2):
            await uploads.chunk(ID, at, body(DATA[at * 10_000 : (at + 1) * 10_000]))

    async def gone_on(uploads: Uploads) -> None:
        assert len((await uploads.look(ID)).received.ranges) == last // 2
        for at in range(1, last, 2):
            found = await uploads.chunk(ID, at, body(DATA[at * 10_000 : (at + 1) * 10_000]))
        assert found.received.whole(len(DATA))
        assert noted.PARTS in os.listxattr(tree / f"temp/5/{ID.job}/data")
        assert (await uploads.complete(ID)).sha256 == SHA256

    run(tree, scattered)
    run(tree, gone_on)
    source = tree / "users/5/recordings/142/source.mp4"
    assert source.read_bytes() == DATA
    assert not [name for name in os.listxattr(source) if name.startswith("user.upload.")]


def test_what_would_leave_no_room_to_note_its_bytes_is_refused_before_any(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        with pytest.raises(UploadRefused, match="too long"):
            await uploads.create(plan(metadata="x" * 3100))
        largest = plan(metadata="x" * (3300 - len(plan().dump())), chunk_bytes=CHUNK_BYTES)
        assert len(largest.dump()) == 3300
        await uploads.create(largest)
        assert (await uploads.append(ID, 0, body(DATA[:1000]))).received.prefix == 1000
        assert (await uploads.append(ID, 1000, body(DATA[1000:]))).committed is not None
        assert (await uploads.look(ID)).plan == largest

    run(tree, work)


# -- checksums of requests, and lengths ---


@pytest.mark.parametrize("algorithm", Checksum.ALGORITHMS)
def test_a_piece_with_another_checksum_does_not_count(tree: Path, algorithm: str) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        digest = hashlib.new(algorithm, DATA[:1000]).digest()
        with pytest.raises(WrongChecksum):
            await uploads.append(ID, 0, body(DATA[:999], b"x"), Checksum(algorithm, digest))
        with pytest.raises(CutOff):
            await uploads.append(ID, 0, body(DATA[:999], cut=True), Checksum(algorithm, digest))
        assert (await uploads.resume(ID)).received.prefix == 0
        assert (await uploads.append(ID, 0, body(DATA[:1000]), Checksum(algorithm, digest))).received.prefix == 1000

    run(tree, work)


def test_more_than_was_announced_is_refused(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(length=10))
        with pytest.raises(TooMuch):
            await uploads.append(ID, 0, body(b"x" * 11))
        assert (await uploads.resume(ID)).received.prefix == 0

    run(tree, work)


def test_a_body_is_written_in_batches_and_noted_on_the_way(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "NOTE_BYTES", 2 * BATCH_BYTES)
    big = random.Random(4).randbytes(5 * BATCH_BYTES + 17)
    noted: list[tuple[int, int]] = []
    note = staged.Held.note

    def watched(held: staged.Held, first: int, end: int) -> None:
        noted.append((first, end))
        note(held, first, end)

    monkeypatch.setattr(staged.Held, "note", watched)

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(length=len(big)))
        await uploads.append(ID, 0, body(*(big[at : at + 65_536] for at in range(0, len(big), 65_536))))

    run(tree, work)
    assert noted == [(0, 2 << 20), (2 << 20, 4 << 20), (4 << 20, len(big))]
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": big}
